"""A run: every layer on every contender, checked and then timed in turns, as rows ready for JSON."""

from __future__ import annotations

import contextlib
import math
import os
import pathlib
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

import fastconv

from .layers import Layer
from .load import MUCH, Load
from .machine import describe, limits
from .peers import Contender, Peer, ours, version
from .peers.case import Unsupported
from .problem import Problem, promised
from .seats import Failed, InProcess, Own, Prepared, Seat
from .timing import Probe, Timing, take_turns
from .training import TrainingProblem

__all__ = ["SCHEMA", "Case", "Measured", "Row", "Settings", "as_json", "cases_of", "default_backends", "make_problem",
           "rate", "run", "seats_for"]  # fmt: skip

SCHEMA = 2
PEER_ERROR = 1e-3  # relative to the norm of what is exact: a library that is further away computes something else
TRAINING_BATCH = 16  # a training step has at least so many images
_AGAIN, _CALM = 2, 5.0  # measured anew when other processes disturbed it, and seconds to wait until they are done
_REGRET_SECONDS, _REGRET_ROUNDS = 0.04, 3


@dataclass(frozen=True)
class Settings:
    """How a run is made: ``seconds`` for each call over all rounds, ``patience`` for good moments in each layer."""

    backends: tuple[str, ...] = ()
    modes: tuple[str, ...] = ("eager", "plan")
    algorithm: str = "auto"
    seconds: float = 0.5
    rounds: int = 5
    patience: float = 1.0
    regret: bool = False
    default_allocator: bool = False
    quick: bool = False


@dataclass(frozen=True)
class Case:
    """A layer with the number of images and of threads: what one group of rows is about."""

    layer: Layer
    threads: int
    batch: int


@dataclass(frozen=True)
class Row:
    """One case on one contender; ``note`` says why there is no time, where there is none.

    ``error`` is the norm of the difference from float64 over the norm of what is exact; ``share_of_allowed`` compares
    every element with what fastconv promises, and is told of fastconv alone.
    """

    layer: str
    op: str
    contender: str
    algorithm: str = ""
    seconds: float | None = None
    spread: float | None = None
    gflops: float | None = None
    gbs: float | None = None
    largest_difference: float | None = None
    share_of_allowed: float | None = None
    correct: bool | None = None
    note: str = ""
    kind: str = ""
    threads: int = 1
    batch: int = 1
    mode: str = "eager"
    layout: str = "first"
    error: float | None = None
    best: float | None = None
    flops: int = 0
    bytes: int = 0
    disturbed: int = 0
    turns: int = 0
    other: float = 0.0  # processors that other processes used meanwhile
    status: str = "measured"  # or unsupported, failed, wrong


@dataclass
class Measured:
    """What one case gave: a row for each contender, and what each algorithm of fastconv would have taken."""

    case: Case
    rows: list[Row]
    regrets: list[dict[str, Any]] = field(default_factory=list)


def default_backends() -> tuple[str, ...]:
    """Every backend that can be had here but the naive reference."""
    return tuple(b.name for b in fastconv.list_backends() if b.available and b.name != "reference")


def make_problem(layer: Layer, batch: int) -> Problem | TrainingProblem:
    """The layer with its arrays and what is right."""
    return TrainingProblem(layer, batch) if layer.op == "train" else Problem(layer, batch)


def rate(problem: Problem | TrainingProblem, seconds: float) -> tuple[float | None, float | None]:
    """(GFLOP/s, GB/s) of a call that took so long: the one that means something for its operation."""
    if problem.flops:
        return problem.flops / seconds / 1e9, None
    return None, problem.bytes / seconds / 1e9 if problem.bytes else None


def cases_of(
    layers: Sequence[Layer], threads: Sequence[int], batches: Sequence[int], scaling: Sequence[Layer] | None = None
) -> list[Case]:
    """Every layer at the first number of threads and images; at the others those of ``scaling`` (all, if None).

    Examples
    --------
    >>> from fastconv.bench import SUITES
    >>> [(c.threads, c.batch) for c in cases_of(SUITES["teaching"][:1], [1, 2], [1, 8])]
    [(1, 1), (1, 8), (2, 1), (2, 8)]
    """
    few = set(layers if scaling is None else scaling)
    cases = (
        Case(layer, t, max(b, TRAINING_BATCH) if layer.op == "train" else b)
        for t in threads
        for b in batches
        for layer in layers
        if (t, b) == (threads[0], batches[0]) or layer in few
    )
    return list(dict.fromkeys(cases))


def seats_for(settings: Settings, peers: Sequence[Peer], threads: int, processors: Sequence[int] = ()) -> list[Seat]:
    """Backends in this process; with peers everybody in a process of their own."""
    seats: list[Seat] = [
        InProcess([Contender(name, "fastconv", f"eager first {name} {settings.algorithm}", allocates=True)], threads)
        for name in settings.backends
    ]
    if not peers:  # the choice of algorithm is judged on plans
        plans = ours(modes=("plan",), algorithm=settings.algorithm) if settings.regret else []
        return [*seats, *([InProcess(plans, threads)] if plans else [])]
    own = ours(modes=settings.modes, algorithm=settings.algorithm)
    groups = [own, *([c for c in peer.contenders if c.mode in settings.modes] for peer in peers)]
    if settings.default_allocator:
        groups += [[_with_default_allocator(c) for c in group if c.allocates] for group in list(groups)]
    return seats + [Own(group, threads, processors) for group in groups if group]


def _with_default_allocator(contender: Contender) -> Contender:
    return replace(contender, name=f"{contender.name} (default allocator)", default_allocator=True)


def _row(problem: Problem | TrainingProblem, case: Case, contender: Contender, **given: Any) -> Row:
    return Row(
        case.layer.name, case.layer.op, contender.name, kind=case.layer.kind, threads=case.threads, batch=case.batch,
        mode=contender.mode, layout=contender.layout, flops=problem.flops, bytes=problem.bytes, **given,
    )  # fmt: skip


def _checked(problem: Problem | TrainingProblem, contender: Contender, prepared: Prepared) -> dict[str, Any]:
    """What the row tells of the result; nothing is timed that has not been seen to be right."""
    largest, error = problem.distance(prepared.arrays)
    found: dict[str, Any] = {"algorithm": prepared.algorithm}
    if math.isfinite(error):  # JSON knows no other numbers
        found |= {"largest_difference": largest, "error": error}
    right = error <= PEER_ERROR
    if contender.ours and isinstance(problem, Problem):
        backend = contender.variant.split()[2]
        algorithm = prepared.algorithm or problem.algorithm(backend, contender.variant.split()[3])
        difference = problem.check(prepared.arrays, promised(backend, algorithm))
        found |= {"share_of_allowed": difference.share if math.isfinite(difference.share) else None}
        found |= {"algorithm": algorithm}
        right = difference.ok
    found["correct"] = right
    if not right:
        how = f"relative error {error:.1e}" if math.isfinite(error) else "a wrong shape, or not finite"
        found |= {"status": "wrong", "note": f"wrong result, {how}: not timed"}
    return found


def _timed(row: Row, problem: Problem | TrainingProblem, timing: Timing) -> Row:
    gflops, gbs = rate(problem, timing.median)
    note = f"{timing.disturbed} of {timing.turns} turns disturbed" if timing.disturbed else ""
    return replace(row, seconds=timing.median, best=timing.best, spread=timing.spread, gflops=gflops, gbs=gbs,
                   note=note, disturbed=timing.disturbed, turns=timing.turns)  # fmt: skip


def _measure(
    case: Case, seats: Sequence[Seat], settings: Settings, probe: Probe, processors: Sequence[int], folder: pathlib.Path
) -> Measured:
    problem = make_problem(case.layer, case.batch)
    given = problem.case()
    for name in ("x", "weight", "bias", "grad_output"):
        if (array := getattr(given, name)) is not None and any(isinstance(seat, Own) for seat in seats):
            np.save(folder / f"{name}.npy", array)
    rows: dict[str, Row] = {}
    turns: dict[str, Callable[[float], Any]] = {}
    for seat in seats:
        for contender in seat.contenders:
            try:
                found = _checked(problem, contender, seat.prepare(contender, given, folder))
                rows[contender.name] = _row(problem, case, contender, **found)
                if found["correct"]:
                    turns[contender.name] = _turn_of(seat, contender.name)
            except Unsupported as reason:
                rows[contender.name] = _row(problem, case, contender, note=str(reason), status="unsupported")
            except Failed as error:
                rows[contender.name] = _row(problem, case, contender, note=str(error), status="failed")

    def failed(name: str, error: Exception) -> None:
        rows[name] = replace(rows[name], note=str(error), status="failed", correct=None)

    def attempt() -> tuple[float, dict[str, Timing]]:
        probe.patience = settings.patience
        load = Load(processors, pids)
        alive = {name: turn for name, turn in turns.items() if rows[name].status == "measured"}
        timings = take_turns(alive, seconds=settings.seconds, rounds=settings.rounds, limit=4 * settings.seconds,
                             probe=probe, failed=failed)  # fmt: skip
        return load(), timings

    pids = [pid for seat in seats if (pid := seat.pid) is not None]
    other, timings = attempt()
    for _ in range(0 if settings.quick else _AGAIN):
        if other > MUCH and Load(processors, pids).calm(_CALM):
            other, timings = min((other, timings), attempt(), key=lambda found: found[0])
    for name, timing in timings.items():
        rows[name] = replace(_timed(rows[name], problem, timing), other=other)
        if other > MUCH:
            rows[name] = replace(rows[name], note=f"others used {other:.1f} processors meanwhile")
    measured = Measured(case, list(rows.values()))
    if settings.regret and isinstance(problem, Problem):
        measured.regrets = list(_regrets(problem, case, seats, rows, probe, folder))
    for seat in seats:
        seat.forget()
    return measured


def _turn_of(seat: Seat, name: str) -> Callable[[float], Any]:
    return lambda seconds: seat.turn(name, seconds)


def _regrets(
    problem: Problem, case: Case, seats: Sequence[Seat], rows: dict[str, Row], probe: Probe, folder: pathlib.Path
) -> Iterator[dict[str, Any]]:
    """Time every algorithm that accepts the case, in both layouts: what was the choice of ``auto`` worth?"""
    if case.layer.op != "conv" or case.layer.backward:
        return
    names = [algorithm.name for algorithm in fastconv.get_backend("cpp").algorithms()]
    for seat in seats:
        for contender in seat.contenders:
            row = rows[contender.name]
            if not contender.ours or contender.mode != "plan" or contender.default_allocator or row.seconds is None:
                continue
            turns, errors = {}, {}
            for name in names:
                words = [*contender.variant.split()[:3], name]
                candidate = replace(contender, name=f"{contender.name}: {name}", variant=" ".join(words))
                with contextlib.suppress(Unsupported, Failed):  # it does not accept the problem
                    prepared = seat.prepare(candidate, problem.case(), folder)
                    errors[name] = problem.distance(prepared.arrays)[1]
                    turns[name] = _turn_of(seat, candidate.name)
            probe.patience = 0.2
            timings = take_turns(turns, seconds=_REGRET_SECONDS, rounds=_REGRET_ROUNDS, limit=0.3, probe=probe)
            if row.algorithm in timings:
                best = min(timings, key=lambda name: timings[name].median)
                yield {
                    "layer": case.layer.name, "kind": case.layer.kind, "threads": case.threads, "batch": case.batch,
                    "layout": contender.layout, "chosen": row.algorithm, "best": best,
                    "regret": timings[row.algorithm].median / timings[best].median,
                    "candidates": {name: {"seconds": t.median, "spread": t.spread, "error": errors[name]}
                                   for name, t in timings.items()},
                }  # fmt: skip


def _blas_limited_to(count: int) -> contextlib.AbstractContextManager[Any]:
    """NumPy's linear algebra on as many threads as everyone else; as it is where threadpoolctl is not installed."""
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        return contextlib.nullcontext()
    return threadpool_limits(limits=count, user_api="blas")  # type: ignore[no-any-return]


def _processors(count: int) -> list[int]:
    """The last processors of those we may use: the first are where the system likes to do its own work."""
    usable = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return usable[-count:] if len(usable) >= count else []


def run(
    cases: Sequence[Case],
    settings: Settings,
    peers: Sequence[Peer] = (),
    *,
    progress: Callable[[Case], None] = lambda case: None,
    seats: Callable[[int], list[Seat]] | None = None,
) -> Generator[Measured, None, None]:
    """Check and time every case; yields what one case gave as soon as it is there.

    Parameters
    ----------
    cases : sequence of Case
        What is timed; those of one number of threads together.
    settings : Settings
        On which backends, and how.
    peers : sequence of Peer, optional
        Other libraries beside them, and fastconv with plans and both layouts, each in a process of its own.
    progress : callable, optional
        Called with every case before it is begun.
    seats : callable, optional
        Gives the seats for a number of threads, instead of those of backends and peers.
    """
    for threads in dict.fromkeys(case.threads for case in cases):
        fastconv.set_num_threads(threads)
        pinned = _processors(threads) if peers or seats else []
        taken = seats(threads) if seats else seats_for(settings, peers, threads, pinned)
        try:
            probe = Probe(settings.patience, pinned)
            with tempfile.TemporaryDirectory(prefix="fastconv-bench-") as folder:
                for case in cases:
                    if case.threads == threads:
                        progress(case)
                        with _blas_limited_to(threads):
                            yield _measure(case, taken, settings, probe, pinned, pathlib.Path(folder))
        finally:
            for seat in taken:
                seat.close()


def as_json(
    measured: Sequence[Measured],
    settings: Settings,
    *,
    peers: Sequence[Peer] = (),
    absent: dict[str, str] | None = None,
    machine: dict[str, Any] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Everything that a run is: settings, machine, rows; the same schema for every reader."""
    return {
        "schema": SCHEMA,
        "settings": asdict(settings),
        "machine": machine or describe() | {"limits": limits()},
        "peers": {peer.name: {"title": peer.title, "version": version(peer)} for peer in peers},
        "absent": absent or {},
        "rows": [asdict(row) for one in measured for row in one.rows],
        "regrets": [regret for one in measured for regret in one.regrets],
        **more,
    }
