"""How kernels are compiled and spread over threads: decided here, once, so that kernels are loops and nothing else."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from typing import Any, TypeVar, cast

import numba

__all__ = ["Threads", "inlined", "kernel", "reduction"]

F = TypeVar("F", bound=Callable[..., Any])

# Compiled code is written to disk only if asked for: a cache outlives changes of the processor and of code that numba
# does not see.
_ON_DISK = os.environ.get("FASTCONV_NUMBA_CACHE", "0") not in ("", "0")

# "contract" lets a product and a sum round once; "reassoc" lets a sum be split over the lanes of a vector. Neither
# touches NaN, infinities or the sign of zero, and the order that results is fixed in the compiled code.
_SUMS = {"contract", "reassoc"}
_PLAIN = {"contract"}

# operations below which a second thread costs more than it saves: handing work over takes some 30 microseconds
_WORTH_A_THREAD = 100_000


def kernel(function: F) -> F:
    """Compile a loop: it releases the GIL, raises nothing, and its sums stay in the order written."""
    return _compile(function, _PLAIN, "never")


def inlined(function: F) -> F:
    """Compile a loop into the kernels that call it: handing over views of rows costs more than a short row itself."""
    return _compile(function, _PLAIN, "always")


def reduction(function: F) -> F:
    """Compile a loop that adds many numbers into one, in several lanes."""
    return _compile(function, _SUMS, "never")


def _compile(function: F, fastmath: set[str], inline: str) -> F:
    options: dict[str, Any] = {
        "nogil": True,
        "error_model": "numpy",
        "fastmath": fastmath,
        "cache": _ON_DISK,
        "inline": inline,
    }
    return cast(F, numba.njit(**options)(function))


class Threads:
    """Runs a kernel on shares of its jobs, in threads of its own.

    numba's own threads neither survive a fork nor stand calls from several threads at once, and a parallel kernel takes
    several times as long to compile. Kernels here release the GIL and take a range of jobs, so plain threads do.
    """

    def __init__(self) -> None:
        self.count = 1
        self._pool: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        """A forked child has none of the threads, and must not wait for a lock that one of them held."""
        self._pool, self._lock = None, threading.Lock()

    def set_count(self, count: int) -> None:
        """Use at most ``count`` threads, the caller's among them."""
        with self._lock:
            pool, self._pool = self._pool, None
            self.count = count
        if pool is not None:
            pool.shutdown(wait=False)

    def run(self, function: Callable[..., None], jobs: int, work: int, *arguments: Any) -> None:
        """Call ``function(first, last, *arguments)`` for shares of ``jobs``; ``work`` counts operations."""
        shares = min(self.count, jobs, work // _WORTH_A_THREAD)
        if shares <= 1:
            function(0, jobs, *arguments)
            return
        bounds = [jobs * i // shares for i in range(shares + 1)]
        others = self._submit(function, bounds, arguments)
        function(0, bounds[1], *arguments)
        for other in others:
            other.result()

    def _submit(
        self, function: Callable[..., None], bounds: list[int], arguments: tuple[Any, ...]
    ) -> list[Future[None]]:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self.count, thread_name_prefix="fastconv-numba")
            return [self._pool.submit(function, first, last, *arguments) for first, last in pairwise(bounds[1:])]
