"""How many threads the backends may use: one process-wide number, from the caller, the environment or the machine."""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Callable

import numpy as np

__all__ = ["get_num_threads", "on_change", "set_num_threads"]

_count: int | None = None
_listeners: list[Callable[[int], None]] = []


def on_change(notify: Callable[[int], None]) -> None:
    """Have ``notify`` called with every new number; rooms above register here."""
    _listeners.append(notify)


def set_num_threads(count: int) -> None:
    """Use at most ``count`` threads in every backend of this process, from now on.

    Parameters
    ----------
    count : int
        At least 1. NumPy's own linear algebra library is left alone (threadpoolctl limits it).

    Raises
    ------
    TypeError, ValueError
        If ``count`` is not an integer, or less than 1.

    Examples
    --------
    >>> import fastconv
    >>> fastconv.set_num_threads(2)
    >>> fastconv.get_num_threads()
    2
    """
    global _count
    if isinstance(count, (bool, np.bool_)):
        raise TypeError(f"set_num_threads: count must be an integer, received the bool {count!r}")
    try:
        number = operator.index(count)
    except TypeError:
        raise TypeError(f"set_num_threads: count must be an integer, received {count!r}") from None
    if number < 1:
        raise ValueError(f"set_num_threads: count must be at least 1, received {number}")
    _count = number
    for notify in _listeners:
        notify(number)


def get_num_threads() -> int:
    """The number of threads that backends may use.

    Without :func:`set_num_threads` it is ``FASTCONV_NUM_THREADS``, else the first entry of ``OMP_NUM_THREADS``, else
    the number of processors this process may run on (affinity, and the control group's quota rounded up).

    Examples
    --------
    >>> import fastconv
    >>> fastconv.get_num_threads() >= 1
    True
    """
    return _default_num_threads() if _count is None else _count


def _default_num_threads() -> int:
    for variable in ("FASTCONV_NUM_THREADS", "OMP_NUM_THREADS"):
        first = os.environ.get(variable, "").split(",")[0].strip()
        if first.isdigit() and int(first) > 0:
            return int(first)
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(processors, _cgroup_quota() or processors))


def _cgroup_quota() -> int | None:
    """Processors that the control group allows (version 2, then 1), rounded up; None without a limit."""
    import pathlib  # not at the top: it costs more than all of this module

    root = pathlib.Path("/sys/fs/cgroup")
    try:
        if (root / "cpu.max").exists():
            quota, period = (root / "cpu.max").read_text().split()
        else:
            quota = (root / "cpu/cpu.cfs_quota_us").read_text()
            period = (root / "cpu/cpu.cfs_period_us").read_text()
        return None if quota.strip() == "max" or int(quota) <= 0 else math.ceil(int(quota) / int(period))
    except (OSError, ValueError):
        return None
