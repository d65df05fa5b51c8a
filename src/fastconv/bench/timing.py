"""How calls are timed so that the figures hold on a machine with neighbours.

Calls take turns (A B C A B C ...), so that a slow moment meets all alike. Before and after every turn a small cached
matrix product, the probe, tells how fast the machine is right now: turns during which it was disturbed are left out
where undisturbed ones remain. What is reported is the median of all calls in the good turns, and the spread of the
turns' medians.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

__all__ = ["Probe", "Timing", "interleave", "settle"]

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

    64x64 is small enough for the nearest cache, and for every BLAS to compute it on the calling thread. ``patience``
    is how many seconds it may still wait for good moments; set it anew for every problem.
    """

    GOOD = 0.85

    def __init__(self, patience: float = 2.0) -> None:
        self._a = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
        self._out = np.empty_like(self._a)
        self.patience = patience
        self.best = max(self._rate() for _ in range(20))

    def _rate(self) -> float:
        start = time.perf_counter()
        for _ in range(40):
            np.matmul(self._a, self._a, out=self._out)
        return 1.0 / (time.perf_counter() - start)

    def good(self) -> bool:
        """Whether the machine is undisturbed now."""
        rate = max(self._rate(), self._rate())
        self.best = max(self.best, rate)
        return rate >= self.GOOD * self.best

    def wait(self) -> bool:
        """Wait for a good moment while the patience lasts; whether one came."""
        while not (good := self.good()) and self.patience > 0:
            start = time.perf_counter()
            time.sleep(0.02)
            self.patience -= time.perf_counter() - start
        return good


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


def _turn(call: Callable[[], Any], seconds: float) -> list[float]:
    """Times of the calls that fit into ``seconds``, at least one; one untimed call first warms the caches."""
    clock = time.perf_counter
    start = clock()
    call()
    if clock() - start > seconds:  # so slow that caches do not matter: this one counts
        return [clock() - start]
    times, end = [], clock() + seconds
    while True:
        start = clock()
        call()
        stop = clock()
        times.append(stop - start)
        if stop >= end:
            return times


def interleave(
    calls: Mapping[Key, Callable[[], Any]],
    *,
    seconds: float = 0.3,
    rounds: int = 5,
    limit: float = 6.0,
    probe: Probe | None = None,
) -> dict[Key, Timing]:
    """Time calls in turns.

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
    turns: dict[Key, list[tuple[bool, list[float]]]] = {name: [] for name in calls}
    spent = dict.fromkeys(calls, 0.0)
    for _ in range(rounds):
        for name, call in calls.items():
            if spent[name] > limit:
                continue
            good = probe is None or probe.wait()
            start = time.perf_counter()
            times = _turn(call, seconds / rounds)
            spent[name] += time.perf_counter() - start
            settle()
            turns[name].append((good and (probe is None or probe.good()), times))
    return {name: _summary(taken) for name, taken in turns.items()}


def _summary(turns: list[tuple[bool, list[float]]]) -> Timing:
    good = [times for undisturbed, times in turns if undisturbed] or [times for _, times in turns]
    medians = [statistics.median(times) for times in good]
    every = [t for times in good for t in times]
    median = statistics.median(every)
    spread = (max(medians) - min(medians)) / median
    return Timing(median, min(every), spread, len(every), len(turns), sum(not undisturbed for undisturbed, _ in turns))
