"""How calls are timed so that the figures hold on a machine with neighbours.

Calls take turns (A B C A B C ...), so that a slow moment meets all alike. Before and after every turn a small cached
matrix product, the probe, tells how fast the machine is right now: turns during which it was disturbed are left out
where undisturbed ones remain. What is reported is the median of all calls in the good turns, and the spread of the
turns' medians.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np

import fastconv

__all__ = ["Probe", "Times", "Timing", "interleave", "settle", "take_turns", "timed_turn"]

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Timing:
    """What one call took, in seconds; ``spread`` is the range of the turns' medians over the median."""

    median: float
    best: float
    spread: float
    calls: int
    turns: int
    disturbed: int


class Probe:
    """The rate of a small cached matrix product, against the best seen: is the machine disturbed right now?

    A neighbour on the host slows whatever loads from cache, without showing as stolen time; a loop of registers alone
    would not see it. The product runs on every one of ``processors`` at once and the slowest counts; without any on the
    calling thread. ``patience`` is how many seconds it may still wait for good moments; set it anew for every problem.
    """

    GOOD = 0.85

    def __init__(self, patience: float = 2.0, processors: Sequence[int] = ()) -> None:
        self.patience = patience
        self._pool = None
        if processors:
            places = iter(list(processors))
            self._pool = ThreadPoolExecutor(len(processors), initializer=lambda: _pin(next(places)))
        self._count = max(len(processors), 1)
        self._product = product_rate()
        self._rate()
        self.best = statistics.median(sorted(self._rate() for _ in range(30))[-8:])

    def _rate(self) -> float:
        if self._pool is None:
            return self._product()
        return min(job.result() for job in [self._pool.submit(self._product) for _ in range(self._count)])

    def good(self) -> bool:
        """Whether the machine is undisturbed now."""
        rate = max(self._rate(), self._rate())
        if rate > self.best:  # half the way: one lucky moment is not what the machine does
            self.best += 0.5 * (rate - self.best)
        return rate >= self.GOOD * self.best

    def wait(self) -> bool:
        """Wait for a good moment while the patience lasts; whether one came."""
        while not (good := self.good()) and self.patience > 0:
            start = time.perf_counter()
            time.sleep(0.02)
            self.patience -= time.perf_counter() - start
        return good


def _pin(processor: int) -> None:
    """Hold the calling thread on one processor, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {processor})


def product_rate() -> Callable[[], float]:
    """A call of about a millisecond that gives the rate of a cached matrix product, in any unit.

    The compiled backend has one that reads from the two nearest caches; without it NumPy's product of 64x64 is taken,
    small enough for every BLAS to compute it on the calling thread.
    """
    compiled: Callable[[], float] | None = None
    with contextlib.suppress(Exception):  # not built, or not to be had
        compiled = getattr(fastconv.get_backend("cpp"), "cached_product_gflops", None)
    if compiled is not None:
        return compiled
    a = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    out = np.empty_like(a)

    def product() -> float:
        start = time.perf_counter()
        for _ in range(80):
            np.matmul(a, a, out=out)
        return 80 * 2 * 64**3 / 1e9 / (time.perf_counter() - start)

    return product


def settle(limit: float = 0.12) -> None:
    """Wait until this process's threads are idle: pools may spin for a while after their work.

    The system books the time of threads on other processors at its tick only: the window spans a few of those.
    """
    end = time.perf_counter() + limit
    while time.perf_counter() < end:
        cpu, wall = time.process_time(), time.perf_counter()
        time.sleep(0.009)
        if time.process_time() - cpu < 0.2 * (time.perf_counter() - wall):
            return


class Times(NamedTuple):
    """One turn: the median and the least of its calls in seconds, and how many there were."""

    median: float
    best: float
    calls: int


def timed_turn(call: Callable[[], Any], seconds: float) -> Times:
    """Call for ``seconds``, at least once; one untimed call first warms the caches.

    Examples
    --------
    >>> timed_turn(lambda: None, 0.001).calls > 1
    True
    """
    clock = time.perf_counter
    start = clock()
    call()
    first = clock() - start
    if first > seconds:  # so slow that caches do not matter: this one counts
        return Times(first, first, 1)
    times, end = [], clock() + seconds
    while True:
        start = clock()
        call()
        stop = clock()
        times.append(stop - start)
        if stop >= end:
            return Times(statistics.median(times), min(times), len(times))


def interleave(
    calls: Mapping[Key, Callable[[], Any]],
    *,
    seconds: float = 0.3,
    rounds: int = 5,
    limit: float = 6.0,
    probe: Probe | None = None,
) -> dict[Key, Timing]:
    """Time calls of this process in turns.

    Parameters
    ----------
    calls : mapping
        Name to a call without arguments, already warm.
    seconds : float, optional
        Time spent on each call, over all rounds.
    rounds : int, optional
        Number of turns of each call.
    limit : float, optional
        A call whose turns have taken this many seconds gets no more of them.
    probe : Probe, optional
        Tells disturbed turns.

    Returns
    -------
    dict
        A :class:`Timing` for each name.

    Examples
    --------
    >>> from fastconv.bench.timing import interleave
    >>> interleave({"sum": lambda: sum(range(100))}, seconds=0.01, rounds=2)["sum"].turns
    2
    """

    def turn(call: Callable[[], Any], seconds: float) -> Times:
        times = timed_turn(call, seconds)
        settle()
        return times

    turns = {name: partial(turn, call) for name, call in calls.items()}
    return take_turns(turns, seconds=seconds, rounds=rounds, limit=limit, probe=probe)


def take_turns(
    turns: Mapping[Key, Callable[[float], Times]],
    *,
    seconds: float,
    rounds: int,
    limit: float,
    probe: Probe | None,
    failed: Callable[[Key, Exception], None] | None = None,
) -> dict[Key, Timing]:
    """As :func:`interleave`, for whatever takes a turn of so many seconds.

    A turn that raises ends the part of its name: ``failed`` is told, and where that is not given the error goes on.
    Something slow, and five times slower than the best, gets no turn after its first: that one says enough.
    """
    taken: dict[Key, list[tuple[bool, Times]]] = {name: [] for name in turns}
    spent = dict.fromkeys(turns, 0.0)
    out: set[Key] = set()
    for _ in range(rounds):
        best = min((times.median for every in taken.values() for _, times in every), default=0.0)
        for name, turn in turns.items():
            hopeless = any(times.median > max(5 * best, 0.5) for _, times in taken[name])
            if name in out or spent[name] > limit or hopeless:
                continue
            good = probe is None or probe.wait()
            start = time.perf_counter()
            try:
                times = turn(seconds / rounds)
            except Exception as error:
                if failed is None:
                    raise
                out.add(name)
                failed(name, error)
                continue
            spent[name] += time.perf_counter() - start
            taken[name].append((good and (probe is None or probe.good()), times))
    return {name: _summary(every) for name, every in taken.items() if every and name not in out}


def _summary(turns: list[tuple[bool, Times]]) -> Timing:
    good = [times for undisturbed, times in turns if undisturbed] or [times for _, times in turns]
    medians = [times.median for times in good]
    median = statistics.median(medians)
    calls = sum(times.calls for times in good)
    return Timing(median, min(times.best for times in good), (max(medians) - min(medians)) / median, calls, len(turns),
                  sum(not undisturbed for undisturbed, _ in turns))  # fmt: skip
