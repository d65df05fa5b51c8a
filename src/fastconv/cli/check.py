"""``fastconv check``: every backend and every algorithm against the reference, on this machine."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

import fastconv
from fastconv.testing import (
    CONV_CASES,
    PAD_CASES,
    POOL_CASES,
    TRANSPOSE_CASES,
    ConvCase,
    PadCase,
    PoolCase,
    conv_inputs,
    tolerance,
    values,
)

from ..bench.machine import describe, summary
from ..bench.problem import compare, promised
from ._terminal import backend_names, choose_backends, console, need, print_json, progress

__all__ = ["add_arguments", "run"]

Arrays = Sequence[Any]


@dataclass
class Line:
    """One line of the table: an operation on a backend, by one algorithm."""

    backend: str
    operation: str
    algorithm: str
    cases: int = 0
    unsupported: int = 0
    largest_difference: float = 0.0
    share_of_allowed: float = 0.0
    failures: list[str] = field(default_factory=list)


@dataclass
class Trial:
    """One call that every backend makes on the same arrays, the exact results, and what errors are measured against."""

    operation: str
    name: str
    function: Callable[..., Any]
    arrays: Arrays
    dtype: str
    terms: int
    spatial_axes: tuple[int, ...] = ()
    by_algorithm: bool = False
    integers: bool = False
    copies: bool = False

    def results(self, arrays: Arrays, **where: str) -> Arrays:
        """What the function returns, always as a sequence."""
        returned = self.function(*arrays, **where)
        return returned if isinstance(returned, tuple) else (returned,)

    @cached_property
    def exact(self) -> Arrays:
        """The results of the reference, in float64 wherever there is arithmetic."""
        arrays = self.arrays if self.copies else [a.astype(np.float64) for a in self.arrays]
        return self.results(arrays, backend="reference")

    @cached_property
    def magnitudes(self) -> Arrays:
        """The same operation on absolute values."""
        return self.results([np.abs(a.astype(np.float64)) for a in self.arrays], backend="reference")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of this command."""
    parser.add_argument("--backend", type=backend_names, metavar="A,B", help="only these backends")
    parser.add_argument("--quick", action="store_true", help="every seventh case")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def _conv_trials(case: ConvCase) -> Iterator[Trial]:
    stem = f"conv{'_transpose' if case.transposed else ''}"
    forward = partial(getattr(fastconv, f"{stem}{case.rank}d"), **case.keywords)
    backward = partial(getattr(fastconv, f"{stem}{case.rank}d_backward"), **case.keywords)
    first = 1 if case.channels_last else 2
    axes = tuple(range(first, first + case.rank))
    arrays = conv_inputs(case, "normal")
    plain = Trial(stem, case.name, forward, arrays, case.dtype, case.terms + 1, axes, not case.transposed)
    yield plain
    yield replace(plain, operation=f"{stem}, integers", arrays=conv_inputs(case, "integers"), integers=True)
    dy = values("normal", plain.exact[0].shape, case.dtype, case.name + "dy")
    terms = max(case.k * math.prod(case.kernel), dy.size)
    yield Trial(f"{stem} backward", case.name, backward, (dy, *arrays[:2]), case.dtype, terms, axes)


def _pool_trials(case: PoolCase) -> Iterator[Trial]:
    def bound(name: str, **given: Any) -> Callable[..., Any]:
        kind, _, rest = name.partition("_pool")
        return partial(getattr(fastconv, f"{kind}_pool{case.rank}d{rest}"), kernel_size=case.kernel, **given)

    x, terms = values("normal", case.x_shape, case.dtype, case.name), math.prod(case.kernel)
    largest = bound("max_pool_with_indices", **case.max_keywords)
    forward = Trial("max_pool, indices", case.name, largest, (x,), case.dtype, 1, copies=True)
    yield forward
    dy = values("normal", forward.exact[0].shape, case.dtype, case.name + "dy")
    # which element is the maximum depends on x as it is: only the gradient is widened
    backward = bound("max_pool_backward", x=x, **case.max_keywords)
    yield Trial("max_pool backward", case.name, backward, (dy,), case.dtype, terms)
    if not case.dilated:
        yield Trial("avg_pool", case.name, bound("avg_pool", **case.avg_keywords), (x,), case.dtype, terms)
        backward = bound("avg_pool_backward", x=x, **case.avg_keywords)
        yield Trial("avg_pool backward", case.name, backward, (dy,), case.dtype, terms)
    windows: dict[str, Any] = {"stride": case.strides, "padding": case.padding, "dilation": case.dilations}
    windows |= {"kernel_size": case.kernel, "layout": case.layout}
    unfold = Trial("im2col", case.name, partial(fastconv.im2col, **windows), (x,), case.dtype, 1, copies=True)
    yield unfold
    columns = values("normal", unfold.exact[0].shape, case.dtype, case.name + "columns")
    fold = partial(fastconv.col2im, output_size=case.size, **windows)
    yield Trial("col2im", case.name, fold, (columns,), case.dtype, terms)


def _pad_trials(case: PadCase) -> Iterator[Trial]:
    kind = "normal" if case.dtype.startswith("float") else "integers"
    given: dict[str, Any] = {"pad_width": case.pad_width, "mode": case.mode}
    x = values(kind, case.shape, case.dtype, case.name)
    forward = Trial("pad", case.name, partial(fastconv.pad, **given), (x,), case.dtype, 1, copies=True)
    yield forward
    if case.dtype in ("float32", "float64") and x.size:
        dy = values("normal", forward.exact[0].shape, case.dtype, case.name + "dy")
        yield Trial("pad backward", case.name, partial(fastconv.pad_backward, **given), (dy,), case.dtype, dy.size)


def _trials(quick: bool) -> Iterator[tuple[str, Iterator[Trial]]]:
    """(name of the case, its trials) of every case of every table; trials are made when they are asked for."""
    step = 7 if quick else 1
    for case in (*CONV_CASES[::step], *TRANSPOSE_CASES[::step]):
        yield case.name, _conv_trials(case)
    for pool in POOL_CASES[::step]:
        yield pool.name, _pool_trials(pool)
    for padding in PAD_CASES[::step]:
        yield padding.name, _pad_trials(padding)


def _hold(trial: Trial, line: Line, backend: str, exact_on_integers: bool) -> None:
    """Run one trial on one backend and enter the outcome."""
    where = {"backend": backend} | ({"algorithm": line.algorithm} if line.algorithm else {})
    try:
        results = trial.results(trial.arrays, **where)
    except fastconv.GeometryError:  # the algorithm says that it cannot do this problem
        line.unsupported += 1
        return
    except Exception as error:
        line.failures.append(f"{trial.name}: {type(error).__name__}: {error}")
        return
    line.cases += 1
    no_error = trial.copies or (trial.integers and exact_on_integers)
    magnitudes = trial.exact if no_error else trial.magnitudes
    constants = promised(backend, line.algorithm) if trial.spatial_axes else "direct"
    axes = trial.spatial_axes  # of the first result alone: gradients of weight and bias have no positions
    for result, exact, magnitude in zip(results, trial.exact, magnitudes, strict=True):
        if result.shape != exact.shape:
            line.failures.append(f"{trial.name}: shape {result.shape}, expected {exact.shape}")
            return
        if not result.size:
            continue
        allowed = 0.0 if no_error else tolerance(
            trial.dtype, trial.terms, magnitude, algorithm=constants, random=True, spatial_axes=axes
        )  # fmt: skip
        axes = ()
        difference, share = compare(result, exact, allowed)
        line.largest_difference = max(line.largest_difference, difference)
        line.share_of_allowed = max(line.share_of_allowed, share)
        if share > 1:
            line.failures.append(f"{trial.name}: differs by {difference:.3g}, {share:.3g} times what is allowed")
            return


def verify(names: Sequence[str], *, quick: bool, step: Callable[[str], None]) -> list[Line]:
    """Hold every backend of these names against the reference; one line for each operation and algorithm."""
    lines: dict[tuple[str, str, str], Line] = {}
    algorithms = {name: {a.name: a for a in fastconv.get_backend(name).algorithms()} for name in names}
    for case, trials in _trials(quick):
        step(case)
        for trial in trials:
            for name in names:
                for algorithm in algorithms[name] if trial.by_algorithm else ("",):
                    key = (name, trial.operation, algorithm)
                    line = lines.setdefault(key, Line(*key))
                    exact = algorithms[name][promised(name, algorithm)].exact_on_integers
                    _hold(trial, line, name, exact)
    order = {name: i for i, name in enumerate(names)}
    return sorted(lines.values(), key=lambda line: order[line.backend])


def _print_table(lines: Sequence[Line], machine: dict[str, Any]) -> None:
    from rich.markup import escape
    from rich.table import Table

    out = console()
    for text in summary(machine):
        out.print(text, style="dim", markup=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in ("backend", "operation", "algorithm"):
        table.add_column(head, no_wrap=True)
    for head in ("cases", "largest difference", "of allowed", "verdict"):
        table.add_column(head, justify="right", no_wrap=True)
    last = ""
    for line in lines:
        right = "[green]right[/]" if line.cases else "[dim]-[/]"
        verdict = f"[red]{len(line.failures)} wrong[/]" if line.failures else right
        difference = "exact" if line.largest_difference == 0 and line.cases else f"{line.largest_difference:.1e}"
        table.add_row("" if line.backend == last else f"[bold]{line.backend}[/]", line.operation, line.algorithm,
                      str(line.cases), difference, f"{line.share_of_allowed:.0%}", verdict)  # fmt: skip
        last = line.backend
    out.print()
    out.print(table)
    for line in lines:
        for failure in line.failures[:3]:
            what = f"{line.backend} {line.operation} {line.algorithm}".rstrip()
            out.print(f"[red]wrong[/] {what}: {escape(failure)}", soft_wrap=True)
        if len(line.failures) > 3:
            out.print(f"      and {len(line.failures) - 3} more")
    for status in fastconv.list_backends():
        if not status.available:
            out.print(f"[yellow]not checked[/] {status.name}: {escape(status.reason or '')}", soft_wrap=True)


def run(args: argparse.Namespace) -> int:
    """Check, print, and end with 1 if anything is wrong."""
    if not args.json:
        need("rich")
    available = [b.name for b in fastconv.list_backends() if b.available]
    names = choose_backends(args.backend, available)
    with progress(sum(1 for _ in _trials(args.quick))) as step:
        lines = verify(names, quick=args.quick, step=step)
    machine = describe()
    failed = any(line.failures for line in lines)
    if args.json:
        print_json({"schema": 1, "ok": not failed, "machine": machine, "lines": [asdict(line) for line in lines]})
    else:
        _print_table(lines, machine)
    return 1 if failed else 0
