"""How evenly the compiled kernels share out a layer among threads: computed from their own partition, nothing is timed.

For every layer and number of threads the kernel is asked how it would cut its work: into how many tasks, and in how
many parts the weights are among them. A task is worth about 20 us at the least, so small layers use fewer threads
than there are: as many as they have tasks. Tasks of one job are alike and taken from a counter; the busiest of T
threads that work has ``ceil(tasks / T)`` of them. *load* is the work of that thread times T over all work: 1.00 is an
even split. *MB* is what the busiest thread reads and writes: its part of input and output, and the weights of its
tasks.
``python -m fastconv.bench.split`` prints the table, as Markdown with ``--markdown``.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

import fastconv

from .layers import LAYOUTS, Layer, find_layers

__all__ = ["Share", "shares", "table"]

_THREADS = (2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Share:
    """The split of one layer among so many threads, of which ``tasks`` at most work; the busiest thread's bytes."""

    layer: str
    layout: str
    algorithm: str
    batch: int
    threads: int
    tasks: int
    load: float
    megabytes: float


def _share(
    jobs: Sequence[tuple[int, int, int]], threads: int, data: int, weights: int, out: int
) -> tuple[float, float]:
    """(load, bytes of the busiest thread) of jobs given as (tasks, threads, parts of the weights)."""
    load, touched = 0.0, 0.0
    for tasks, _, parts in jobs:
        mine = math.ceil(tasks / threads)
        load = max(load, mine * min(threads, tasks) / tasks)
        touched += data * min(1.0, mine * parts / tasks) + out * mine / tasks + weights * min(1.0, mine / parts)
    return load, touched / len(jobs)


def shares(layers: Iterable[Layer], batch: int = 1, threads: Sequence[int] = _THREADS) -> Iterator[Share]:
    """The split of every forward convolution in both layouts.

    Parameters
    ----------
    layers : iterable of Layer
        Others than forward convolutions are left out.
    batch : int
        Images of one call.
    threads : sequence of int
        Numbers of threads; none is started.

    Yields
    ------
    Share
        Jobs of a call count alike: the load is that of the worst, the bytes are their mean.
    """
    before = fastconv.get_num_threads()
    try:
        for layer in layers:
            if layer.op != "conv" or layer.backward:
                continue
            for last, layout in enumerate(LAYOUTS[layer.rank]):
                weight, x_shape = np.zeros(layer.weight_shape, np.float32), layer.x_shape(1)
                if last:
                    weight = np.moveaxis(weight, (0, 1), (-1, -2))
                    x_shape = (1, *x_shape[2:], x_shape[1])
                make = getattr(fastconv, f"plan_conv{layer.rank}d")
                plan = make(x_shape, weight, layout=layout, backend="cpp", **layer.arguments())
                data, out = (4 * batch * math.prod(shape[1:]) for shape in (x_shape, plan.out_shape))
                for count in threads:
                    fastconv.set_num_threads(count)
                    jobs = plan.split(batch)
                    load, touched = _share(jobs, count, data, weight.nbytes, out)
                    tasks = min(job[0] for job in jobs)
                    yield Share(layer.name, layout, plan.algorithm, batch, count, tasks, load, touched / 1e6)
    finally:
        fastconv.set_num_threads(before)


def table(found: Iterable[Share], markdown: bool = False) -> list[str]:
    """A line for each layer and layout: tasks, load and MB of the busiest thread for every number of threads."""
    rows: dict[tuple[str, str, str, int], dict[int, Share]] = {}
    for share in found:
        rows.setdefault((share.layer, share.layout, share.algorithm, share.batch), {})[share.threads] = share
    if not rows:
        return []
    threads = sorted({count for row in rows.values() for count in row})
    head = ["layer", "layout", "batch", "algorithm", *(f"{count} threads" for count in threads)]
    lines = [
        [layer, layout, str(batch), algorithm,
         *(f"{row[count].tasks} tasks, {row[count].load:.2f}, {row[count].megabytes:.2g} MB" for count in threads)]
        for (layer, layout, algorithm, batch), row in rows.items()
    ]  # fmt: skip
    if markdown:
        return [f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *lines]]
    widths = [max(len(cells[i]) for cells in [head, *lines]) for i in range(len(head))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) for cells in [head, *lines]]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table and the mean load for every number of threads."""
    parser = argparse.ArgumentParser(prog="python -m fastconv.bench.split", description=__doc__)
    parser.add_argument(
        "what", nargs="*", default=["resnet50", "vgg16", "mobilenetv2"], help="suites or parts of names"
    )
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--markdown", action="store_true")
    given = parser.parse_args(arguments)
    found = list(shares(find_layers(given.what), given.batch))
    print("\n".join(table(found, given.markdown)))
    for count in sorted({share.threads for share in found}):
        loads = [share.load for share in found if share.threads == count]
        print(f"{count} threads: mean load {sum(loads) / len(loads):.2f}, worst {max(loads):.2f}")


if __name__ == "__main__":
    main()
