"""What the choice of ``algorithm="auto"`` costs: every candidate timed on every layer, the chosen one against the best.

There is one choice for each geometry, whatever the batch, so a layer is judged over the summed time of a batch of one
and one of sixteen. ``python -m fastconv.bench.regret`` prints a line for every layer and the summary.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

import fastconv

from .layers import LAYOUTS, Layer, find_layers

__all__ = ["Regret", "measure_regret", "random_layers", "summary"]


@dataclass(frozen=True)
class Regret:
    """One layer in one layout: the algorithm chosen, and the summed seconds of all that automatic choice may take."""

    layer: str
    layout: str
    chosen: str
    seconds: dict[str, float]
    predicted: dict[str, float] = field(default_factory=dict)

    @property
    def best(self) -> str:
        """The fastest algorithm."""
        return min(self.seconds, key=lambda name: self.seconds[name])

    @property
    def ratio(self) -> float:
        """Time of the chosen algorithm over that of the best; 1.0 is no regret."""
        return self.seconds[self.chosen] / self.seconds[self.best]

    def __str__(self) -> str:
        times = "  ".join(
            f"{name} {1e6 * seconds:.0f} (says {1e6 * self.predicted.get(name, 0):.0f})"
            for name, seconds in sorted(self.seconds.items(), key=lambda item: item[1])
        )
        return f"{self.ratio:5.2f}  {self.layout:5} {self.layer:34} {self.chosen:13} {times} us"


def _turn(call: Callable[[], object], seconds: float) -> float:
    """Median time of calls during ``seconds``, after an untimed one."""
    call()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def measure_regret(
    layers: Iterable[Layer], *, batches: Sequence[int] = (1, 16), dtype: str = "float32", seconds: float = 0.02,
    rounds: int = 3, most_flops: float = 20e9,
) -> Iterator[Regret]:  # fmt: skip
    """Time every automatic candidate of each convolution's plan, in both layouts, in turns, one layer after the other.

    Parameters
    ----------
    layers : iterable of Layer
        Others than forward convolutions are left out.
    batches : sequence of int
        Their times are summed; a batch of more than ``most_flops`` operations is left out unless it is the first.
    dtype : str
        Of the arrays.
    seconds, rounds : float, int
        Length of a turn of one candidate, and how many turns it gets; the median of the turns counts.

    Yields
    ------
    Regret
        For every layer and layout with two candidates or more.
    """
    rng = np.random.default_rng(0)
    for layer in layers:
        if layer.op != "conv" or layer.backward:
            continue
        for last, layout in enumerate(LAYOUTS[layer.rank]):
            weight = rng.standard_normal(layer.weight_shape).astype(dtype)
            x = rng.standard_normal(layer.x_shape(1)).astype(dtype)
            if last:
                weight, x = np.moveaxis(weight, (0, 1), (-1, -2)), np.moveaxis(x, 1, -1)
            given = layer.arguments() | {"layout": layout, "dtype": dtype}
            auto = fastconv.plan_conv2d if layer.rank == 2 else getattr(fastconv, f"plan_conv{layer.rank}d")
            chosen = auto(x.shape, weight, **given)
            predicted = {c.name: c.seconds for c in chosen.candidates() if c.why_not is None and c.automatic}
            if len(predicted) < 2:
                continue
            plans = {name: auto(x.shape, weight, algorithm=name, **given) for name in predicted}
            total = dict.fromkeys(plans, 0.0)
            for i, batch in enumerate(batches):
                if i > 0 and batch * chosen.flops > most_flops:
                    continue
                many = np.ascontiguousarray(np.broadcast_to(x, (batch, *x.shape[1:])))
                out = np.empty((batch, *chosen.out_shape[1:]), dtype)
                turns: dict[str, list[float]] = {name: [] for name in plans}
                for turn in range(rounds):
                    # Another one first each time: what the last call left in the caches is no merit of the next.
                    order = list(plans)
                    for name in order[turn % len(order) :] + order[: turn % len(order)]:
                        plan = plans[name]
                        turns[name].append(_turn(partial(plan, many, out), seconds))
                for name, taken in turns.items():
                    total[name] += statistics.median(taken)
            yield Regret(layer.name, layout, chosen.algorithm, total, predicted)


def random_layers(count: int, seed: int = 0) -> Iterator[Layer]:
    """Two-dimensional convolutions of every class, drawn at random: odd channels, sizes, strides, groups, dilations."""
    rng = np.random.default_rng(seed)

    def pick(*values: int) -> int:
        return int(rng.choice(values))

    for i in range(count):
        size = pick(5, 7, 9, 13, 14, 19, 28, 33, 40, 56, 75, 112)
        most = max(16, min(512, 24000 // size))
        channels = int(np.exp(rng.uniform(np.log(3), np.log(most))))
        out = int(np.exp(rng.uniform(np.log(3), np.log(most))))
        kernel, groups = pick(1, 1, 3, 3, 3, 3, 5, 7), 1
        if rng.random() < 0.15:
            out = groups = channels
        elif rng.random() < 0.1:
            groups = pick(2, 4, 8)
            channels, out = max(1, channels // groups) * groups, max(1, out // groups) * groups
        stride, dilation = pick(1, 1, 1, 2), pick(1, 1, 1, 1, 2)
        padding = pick(0, 1, 1) * dilation * (kernel // 2)
        if size + 2 * padding < dilation * (kernel - 1) + 1:
            padding = dilation * (kernel // 2)
        name = f"random/{i} {kernel}x{kernel} {channels}>{out} @{size} s{stride} p{padding} d{dilation} g{groups}"
        yield Layer(
            name, "conv", channels, (size, size), (kernel, kernel), out, stride=stride, padding=padding,
            dilation=dilation, groups=groups,
        )  # fmt: skip


def summary(found: Sequence[Regret]) -> str:
    """How often the choice was within 5% of the best, and the worst regrets."""
    if not found:
        return "nothing to choose from"
    within = sum(r.ratio <= 1.05 for r in found)
    worst = max(found, key=lambda r: r.ratio)
    over = sum(r.ratio > 1.3 for r in found)
    return (
        f"{within} of {len(found)} choices ({100 * within / len(found):.0f}%) within 5% of the best candidate, "
        f"{over} beyond 1.3; the worst {worst.ratio:.2f} ({worst.layer}, {worst.layout})"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what was asked for and print it."""
    parser = argparse.ArgumentParser(prog="python -m fastconv.bench.regret", description=__doc__)
    parser.add_argument("what", nargs="*", default=["quick"], help="suites or parts of layers' names, or random:COUNT")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--part", default="0/1", help="every n-th layer from the i-th: i/n")
    given = parser.parse_args(arguments)
    fastconv.set_num_threads(given.threads)
    if given.threads == 1 and hasattr(os, "sched_setaffinity"):
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    layers: list[Layer] = []
    for word in given.what:
        if word.startswith("random:"):
            layers += random_layers(int(word.removeprefix("random:")))
        else:
            layers += find_layers([word])
    first, step = map(int, given.part.split("/"))
    found = []
    for regret in measure_regret(layers[first::step]):
        found.append(regret)
        print(regret, flush=True)
    print(summary(found))


if __name__ == "__main__":
    main()
