"""Who else used our processors: the probe sees a neighbour on the host, but not a process that waits for its slice."""

from __future__ import annotations

import os
import pathlib
import time
from collections.abc import Sequence

__all__ = ["MUCH", "Load"]

MUCH = 0.15  # processors: more of them used by others disturb a measurement

_STAT = pathlib.Path("/proc/stat")
_WORKING = (0, 1, 2, 5, 6)  # user, nice, system, interrupts: the columns of /proc/stat that are work


class Load:
    """How many processors others used since the last call; always 0 where the system does not tell.

    Parameters
    ----------
    processors : sequence of int
        Whose work is looked at; all, if none are given.
    own : sequence of int, optional
        Processes that are ours, beside this one.
    """

    def __init__(self, processors: Sequence[int], own: Sequence[int] = ()) -> None:
        self._names = {f"cpu{i}" for i in processors} or {"cpu"}
        self._own = own
        self._last = self._now()

    def _now(self) -> tuple[float, float]:
        """(the time, the work of others so far), in seconds."""
        try:
            lines = [line.split() for line in _STAT.read_text().splitlines()]
            tick = os.sysconf("SC_CLK_TCK")
        except (OSError, ValueError, AttributeError):
            return time.perf_counter(), 0.0
        work = sum(int(line[1 + i]) for line in lines if line[0] in self._names for i in _WORKING) / tick
        return time.perf_counter(), work - time.process_time() - sum(_seconds(pid, tick) for pid in self._own)

    def __call__(self) -> float:
        """Processors used by others since the last call."""
        (then, before), (now, after) = self._last, self._now()
        self._last = now, after
        return max(after - before, 0.0) / max(now - then, 0.02)

    def calm(self, limit: float) -> bool:
        """Wait until others leave our processors alone, so many seconds at most; whether they do."""
        end = time.monotonic() + limit
        self()
        while time.monotonic() < end:
            time.sleep(0.25)
            if self() < MUCH / 2:
                return True
        return False


def _seconds(pid: int, tick: int) -> float:
    """Processor time of a process with all its threads; what ended counts no more."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / tick
