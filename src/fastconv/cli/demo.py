"""``fastconv demo``: what the library does, on real photographs, with every backend.

The demo is a list of steps. Each takes the :class:`Show`, prints what it found, and returns it for ``--json``; to add a
lesson is a function and its line in ``STEPS``.
"""

from __future__ import annotations

import argparse
import pathlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

import fastconv
from fastconv.testing import tolerance

from ..bench.machine import describe, summary
from ..bench.problem import Difference, compare
from ..bench.table import duration
from ..bench.timing import Probe, interleave
from ..viz import FILTERS, PHOTOGRAPHS, draw_overview, gabor_bank, squares
from ._terminal import CommandError, backend_names, choose_backends, console, need, print_json, progress

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["STEPS", "Show", "add_arguments", "run"]

JUDGE = "reference"


@dataclass(frozen=True)
class Show:
    """What every step is given."""

    out: Console
    backends: tuple[str, ...]
    output: pathlib.Path
    quick: bool
    shown: bool


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of this command."""
    parser.add_argument("--output", default="demo-output", metavar="FOLDER", help="where pictures go (demo-output)")
    parser.add_argument("--backend", type=backend_names, metavar="A,B", help="only these backends, and the reference")
    parser.add_argument("--quick", action="store_true", help="smaller photographs, shorter timing")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")


@dataclass(frozen=True)
class Operation:
    """One call on given arrays, for any backend; ``terms`` products are summed into a result."""

    name: str
    function: Callable[..., Any]
    arrays: Sequence[Any]
    given: dict[str, Any]
    terms: int = 1

    def __call__(self, backend: str, arrays: Sequence[Any] | None = None) -> Any:
        return self.function(*(self.arrays if arrays is None else arrays), **self.given, backend=backend)

    def judge(self) -> tuple[Any, Any, float]:
        """(the reference's result in float64, the errors allowed there, seconds that the reference took)."""
        start = time.perf_counter()
        exact = self(JUDGE, [a.astype(np.float64) for a in self.arrays])
        seconds = time.perf_counter() - start
        if self.function in (fastconv.max_pool2d, fastconv.pad):
            return exact, 0.0, seconds
        sizes = [np.abs(a.astype(np.float64)) for a in self.arrays]
        magnitude = self.function(*sizes, **self.given)  # only a scale: the fastest backend will do
        return exact, tolerance(np.float32, self.terms, magnitude), seconds


# ------------------------------------------------------------------------------------------ 1: filters, everywhere


def _filter_operations(photographs: Any) -> list[Operation]:
    colours = photographs.reshape(-1, 1, *photographs.shape[2:])  # every colour is an image of its own
    same = {"padding": "same", "padding_mode": "reflect"}
    found = [
        Operation(name, fastconv.conv2d, (colours, weight), same, weight[0].size) for name, weight in FILTERS.items()
    ]
    found.append(Operation("max pooling 4x4", fastconv.max_pool2d, (colours,), {"kernel_size": 4}))
    found.append(Operation("average pooling 4x4", fastconv.avg_pool2d, (colours,), {"kernel_size": 4}, 16))
    found.append(Operation("padding, reflected", fastconv.pad, (colours,),
                           {"pad_width": ((0, 0), (0, 0), (32, 32), (32, 32)), "mode": "reflect"}))  # fmt: skip
    return found


def filters(show: Show) -> dict[str, Any]:
    """Filter, edge-detect, pool and pad the photographs with every backend; all must agree with the reference."""
    side = 64 if show.quick else 192
    photographs = squares(side)
    operations = _filter_operations(photographs)
    others = [name for name in show.backends if name != JUDGE]
    rows: list[dict[str, Any]] = []
    with progress(len(operations), shown=show.shown) as step:
        for operation in operations:
            step(operation.name)
            exact, allowed, seconds = operation.judge()
            found = {name: compare(operation(name), exact, allowed) for name in others}
            rows.append({
                "operation": operation.name,
                "allowed": float(np.max(allowed)),
                "reference_seconds": seconds,
                "differences": {n: {"largest": d.largest, "share_of_allowed": d.share} for n, d in found.items()},
                "agree": all(d.ok for d in found.values()),
            })  # fmt: skip
    _print_filters(show, rows, others, side)
    return {"step": "filters", "rows": rows, "ok": all(row["agree"] for row in rows)}


def _print_filters(show: Show, rows: list[dict[str, Any]], others: list[str], side: int) -> None:
    from rich.table import Table

    names = ", ".join(title for title, _ in PHOTOGRAPHS.values())
    show.out.print(f"[bold]1  Filters on photographs[/]  [dim]{names}; {side}x{side} pixels, three colours[/]")
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", no_wrap=True)
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("allowed", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for row in rows:
        cells = [_difference(Difference(d["largest"], d["share_of_allowed"])) for d in row["differences"].values()]
        allowed = "exact" if row["allowed"] == 0 else f"{row['allowed']:.1e}"
        verdict = "[green]all agree[/]" if row["agree"] else "[red]they differ[/]"
        table.add_row(row["operation"], *cells, allowed, verdict)
    show.out.print(table)
    show.out.print("[dim]largest difference from the reference in float64; pixels lie between 0 and 1[/]\n")


def _difference(difference: Difference) -> str:
    text = "0" if difference.largest == 0 else f"{difference.largest:.1e}"
    return text if difference.ok else f"[red]{text}[/]"


# ------------------------------------------------------------------------------------ 2: layers of real networks


def _weight(seed: int, *shape: int) -> Any:
    """He's initialisation: random weights that keep the size of what flows through."""
    spread = np.sqrt(2 / np.prod(shape[1:]))
    return (np.random.default_rng(seed).standard_normal(shape) * spread).astype(np.float32)


def _network_operations(photographs: Any) -> list[tuple[str, list[Operation]]]:
    """(network, its layers); every layer is given what the layers before it make of the photographs."""
    conv, relu6 = fastconv.conv2d, "relu6"
    stem = gabor_bank()
    maps = conv(photographs, stem, stride=2, padding=3, activation="relu")
    resnet = [
        Operation("7x7 s2, 3>64, relu", conv, (photographs, stem),
                  {"stride": 2, "padding": 3, "activation": "relu"}, 147),
        Operation("max pooling 3x3 s2, 64", fastconv.max_pool2d, (maps,),
                  {"kernel_size": 3, "stride": 2, "padding": 1}),
    ]  # fmt: skip
    # what comes before MobileNetV2's second block: 3x3 s2, depthwise 3x3, 1x1
    x = conv(photographs, _weight(0, 32, 3, 3, 3), stride=2, padding=1, activation=relu6)
    x = conv(x, _weight(1, 32, 1, 3, 3), padding=1, groups=32, activation=relu6)
    x = conv(x, _weight(2, 16, 32, 1, 1))
    mobile = []
    for name, weight, given in (
        ("1x1, 16>96, relu6", _weight(3, 96, 16, 1, 1), {"activation": relu6}),
        ("depthwise 3x3 s2, 96, relu6", _weight(4, 96, 1, 3, 3),
         {"stride": 2, "padding": 1, "groups": 96, "activation": relu6}),
        ("1x1, 96>24", _weight(5, 24, 96, 1, 1), {}),
    ):  # fmt: skip
        layer = Operation(name, conv, (x, weight), given, int(np.prod(weight.shape[1:])))
        mobile.append(layer)
        x = conv(x, weight, **given)
    return [("ResNet-50 stem", resnet), ("MobileNetV2 block", mobile)]


def networks(show: Show) -> dict[str, Any]:
    """Run the layers of a ResNet-50 stem and a MobileNetV2 block on the photographs; check, then time."""
    photographs = squares(64 if show.quick else 224)
    found = _network_operations(photographs)
    rows: list[dict[str, Any]] = []
    probe = Probe(patience=1.0)
    with progress(sum(len(layers) for _, layers in found), shown=show.shown) as step:
        for network, layers in found:
            for layer in layers:
                step(f"{network}: {layer.name}")
                rows += _run_layer(show, network, layer, probe)
    _print_networks(show, rows, photographs)
    return {"step": "networks", "photographs": list(photographs.shape), "rows": rows,
            "ok": all(row["correct"] for row in rows)}  # fmt: skip


def _run_layer(show: Show, network: str, layer: Operation, probe: Probe) -> list[dict[str, Any]]:
    exact, allowed, reference_seconds = layer.judge()
    others = [name for name in show.backends if name != JUDGE]
    differences = {name: compare(layer(name), exact, allowed) for name in others}
    calls = {name: partial(layer, name) for name in others if differences[name].ok}
    seconds, rounds = (0.06, 2) if show.quick else (0.25, 4)
    timings = interleave(calls, seconds=seconds, rounds=rounds, limit=1.0, probe=probe)
    taken = {name: timing.median for name, timing in timings.items()} | {JUDGE: reference_seconds}
    flops = 2 * layer.terms * exact.size if layer.function is fastconv.conv2d else 0
    rows = []
    for name in show.backends:
        row: dict[str, Any] = {"network": network, "layer": layer.name, "backend": name, "seconds": taken.get(name)}
        row["gflops"] = flops / taken[name] / 1e9 if flops and name in taken else None
        row["speed_up"] = reference_seconds / taken[name] if name in taken else None
        difference = differences.get(name)  # the reference is what the others are held against
        row["largest_difference"] = None if difference is None else difference.largest
        row["share_of_allowed"] = None if difference is None else difference.share
        row["correct"] = difference is None or difference.ok
        rows.append(row)
    return rows


def _print_networks(show: Show, rows: list[dict[str, Any]], photographs: Any) -> None:
    from rich.table import Table

    count, _, side, _ = photographs.shape
    show.out.print(f"[bold]2  Layers of real networks[/]  [dim]{count} photographs of {side}x{side}, "
                   f"{fastconv.get_num_threads()} threads; medians, but one run of the reference[/]")  # fmt: skip
    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in ("layer", "backend"):
        table.add_column(head, no_wrap=True)
    for head in ("time", "GFLOP/s", "times the reference", "largest difference", "of allowed"):
        table.add_column(head, justify="right", no_wrap=True)
    last_network = last_layer = ""
    for row in rows:
        if row["network"] != last_network:
            table.add_row(f"[bold]{row['network']}[/]")
        same = row["layer"] == last_layer and row["network"] == last_network
        same_layer = [r for r in rows if (r["network"], r["layer"]) == (row["network"], row["layer"])]
        best = row["seconds"] == min(r["seconds"] for r in same_layer if r["seconds"] is not None)
        share = row["share_of_allowed"]
        cells = [
            row["backend"],
            duration(row["seconds"]),
            "" if row["gflops"] is None else f"{row['gflops']:.3g}",
            "" if row["speed_up"] is None else f"{row['speed_up']:,.0f}x",
            "" if share is None else _difference(Difference(row["largest_difference"], share)),
            "" if share is None else f"{share:.0%}",
        ]
        table.add_row("" if same else f"  {row['layer']}", *(f"[green]{c}[/]" if best else c for c in cells))
        last_network, last_layer = row["network"], row["layer"]
    show.out.print(table)
    show.out.print()


# ------------------------------------------------------------------------------------------------- 3: a picture


def picture(show: Show) -> dict[str, Any]:
    """Draw every photograph, its padded forms, filters, feature maps and poolings."""
    paths = []
    chosen = list(PHOTOGRAPHS.items())[: 1 if show.quick else None]
    with progress(len(chosen), shown=show.shown) as step:
        everything = squares(224)
        for (name, (title, _)), square in zip(chosen, everything, strict=False):
            path = show.output / f"{name}.png"
            step(f"drawing {path}")
            show.output.mkdir(parents=True, exist_ok=True)
            draw_overview(square, title).savefig(path)
            paths.append(str(path))
    show.out.print("[bold]3  Pictures[/]  [dim]padded forms, filters, feature maps, both poolings[/]")
    for line in paths:
        show.out.print(f"   {line}", highlight=False)
    show.out.print()
    return {"step": "picture", "pictures": paths, "ok": True}


STEPS: tuple[Callable[[Show], dict[str, Any]], ...] = (filters, networks, picture)


def run(args: argparse.Namespace) -> int:
    """Run the steps; 1 if any backend disagrees with the reference."""
    need("rich", "matplotlib", "skimage")
    available = [b.name for b in fastconv.list_backends() if b.available]
    names = choose_backends(args.backend, available)
    backends = (*(name for name in names if name != JUDGE), JUDGE)
    start, machine = time.perf_counter(), describe()
    out = console(stderr=args.json)
    out.quiet = args.json
    show = Show(out, backends, pathlib.Path(args.output), args.quick, shown=True)
    for line in summary(machine):
        out.print(line, style="dim", markup=False)
    for status in fastconv.list_backends():
        if not status.available:
            out.print(f"[yellow]without {status.name}:[/] {status.reason} [dim](fastconv info says how to mend it)[/]")
    out.print()
    try:
        results = [step(show) for step in STEPS]
    except OSError as error:
        raise CommandError(f"cannot write to {args.output}: {error}") from None
    ok = all(result["ok"] for result in results)
    seconds = time.perf_counter() - start
    if args.json:
        print_json({"schema": 1, "ok": ok, "seconds": seconds, "machine": machine, "steps": results})
    else:
        verdict = "[green]All backends agree.[/]" if ok else "[red]Backends disagree: see the tables above.[/]"
        out.print(f"{verdict} {seconds:.0f} s.")
    return 0 if ok else 1
