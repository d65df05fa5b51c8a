"""A run: every layer on every backend and peer, checked and then timed in turns, as rows ready for JSON."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import fastconv

from .layers import Layer
from .machine import describe, limits
from .peers import Peer
from .problem import Call, Difference, Problem, promised
from .timing import Probe, Timing, interleave

__all__ = ["SCHEMA", "Contender", "Row", "Settings", "as_json", "default_backends", "rate", "run"]

SCHEMA = 1


@dataclass(frozen=True)
class Settings:
    """How a run is made: ``seconds`` for each call over all rounds, ``patience`` for good moments in each layer."""

    backends: tuple[str, ...]
    batch: int = 1
    threads: int | None = None
    algorithm: str = "auto"
    seconds: float = 0.5
    rounds: int = 5
    patience: float = 1.0


@dataclass(frozen=True)
class Row:
    """One layer on one backend or peer; ``note`` says why there is no time, where there is none."""

    layer: str
    op: str
    backend: str
    algorithm: str = ""
    seconds: float | None = None
    spread: float | None = None
    gflops: float | None = None
    gbs: float | None = None
    largest_difference: float | None = None
    share_of_allowed: float | None = None
    correct: bool | None = None
    note: str = ""


@dataclass
class Contender:
    """Something that is timed: its call has run once and its result been checked."""

    name: str
    call: Callable[[], Any]
    algorithm: str
    difference: Difference


def default_backends() -> tuple[str, ...]:
    """Every backend that can be had here but the naive reference."""
    return tuple(b.name for b in fastconv.list_backends() if b.available and b.name != "reference")


def rate(problem: Problem, seconds: float) -> tuple[float | None, float | None]:
    """(GFLOP/s, GB/s) of a call that took so long: the one that means something for its operation."""
    if problem.flops:
        return problem.flops / seconds / 1e9, None
    return None, problem.bytes / seconds / 1e9


def _row(problem: Problem, contender: Contender, timing: Timing | None) -> Row:
    difference = contender.difference
    note = "" if difference.ok else "wrong result: not timed"
    gflops = gbs = seconds = spread = None
    if timing is not None:
        seconds, spread = timing.median, timing.spread
        gflops, gbs = rate(problem, timing.median)
        if timing.disturbed:
            note = f"{timing.disturbed} of {timing.turns} turns disturbed"
    return Row(problem.layer.name, problem.layer.op, contender.name, contender.algorithm, seconds, spread, gflops, gbs,
               difference.largest, difference.share, difference.ok, note)  # fmt: skip


def _prepare(name: str, call: Call, problem: Problem, algorithm: str, peer: Peer | None) -> Contender:
    """Run once and check the result: nothing is timed that has not been seen to be right."""
    result = call()  # compiles what is compiled at the first call
    if peer:  # it does not say how it computes: it is allowed what the least exact of our own algorithms may show
        difference = problem.check(peer.arrays(result), "winograd_6x3")
    else:
        difference = problem.check(result, promised(name, algorithm))
    return Contender(name, call, algorithm, difference)


def _contenders(problem: Problem, settings: Settings, peers: Sequence[Peer]) -> Iterator[Contender | Row]:
    layer = problem.layer
    for name in settings.backends:
        try:
            algorithm = problem.algorithm(name, settings.algorithm)
            call = problem.call(name, settings.algorithm)
            yield _prepare(name, call, problem, algorithm, None)
        except fastconv.FastconvError as error:
            yield Row(layer.name, layer.op, name, settings.algorithm, note=str(error))
    for peer in peers:
        if reason := peer.why_not(problem):
            yield Row(layer.name, layer.op, peer.name, note=reason)
            continue
        try:
            yield _prepare(peer.name, peer.call(problem), problem, "", peer)
        except Exception as error:  # a foreign library may raise anything: it is reported, and the run goes on
            yield Row(layer.name, layer.op, peer.name, note=f"{type(error).__name__}: {error}")


def _blas_limited_to(count: int) -> contextlib.AbstractContextManager[Any]:
    """NumPy's linear algebra on as many threads as everyone else; as it is where threadpoolctl is not installed."""
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        return contextlib.nullcontext()
    return threadpool_limits(limits=count, user_api="blas")  # type: ignore[no-any-return]


def run(
    layers: Sequence[Layer],
    settings: Settings,
    peers: Sequence[Peer] = (),
    *,
    progress: Callable[[Layer], None] = lambda layer: None,
) -> Iterator[list[Row]]:
    """Check and time every layer; yields the rows of one layer as soon as they are there.

    Parameters
    ----------
    layers : sequence of Layer
        What is timed.
    settings : Settings
        On which backends, and how.
    peers : sequence of Peer, optional
        Other libraries beside them.
    progress : callable, optional
        Called with every layer before it is begun.
    """
    if settings.threads is not None:
        fastconv.set_num_threads(settings.threads)
    for peer in peers:
        peer.set_num_threads(fastconv.get_num_threads())
    probe = Probe(settings.patience)
    with _blas_limited_to(fastconv.get_num_threads()):
        for layer in layers:
            progress(layer)
            problem = Problem(layer, settings.batch)
            entries = list(_contenders(problem, settings, peers))
            probe.patience = settings.patience
            right = {e.name: e for e in entries if isinstance(e, Contender) and e.difference.ok}
            timings = interleave(
                {name: contender.call for name, contender in right.items()},
                seconds=settings.seconds, rounds=settings.rounds, limit=4 * settings.seconds, probe=probe,
            )  # fmt: skip
            yield [e if isinstance(e, Row) else _row(problem, e, timings.get(e.name)) for e in entries]


def as_json(rows: Sequence[Row], settings: Settings, *, measure: bool = True) -> dict[str, Any]:
    """Everything that a run is: settings, machine, rows; the same schema for every reader."""
    machine = describe()
    if measure:
        machine["limits"] = limits()
    return {"schema": SCHEMA, "settings": asdict(settings), "machine": machine, "rows": [asdict(row) for row in rows]}
