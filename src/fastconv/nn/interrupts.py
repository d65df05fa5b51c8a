"""Ctrl-C in the middle of training."""

from __future__ import annotations

import signal
import threading
from types import FrameType

__all__ = ["Interrupts"]


class Interrupts:
    """Ctrl-C is remembered and raised between steps, so that no step is left half done; a second one is not."""

    def __enter__(self) -> Interrupts:
        self.pending, self.before = False, None
        if threading.current_thread() is threading.main_thread():
            self.before = signal.getsignal(signal.SIGINT)
            if self.before is signal.SIG_IGN:  # a process that was told to ignore it, such as one in the background
                self.before = None
            if self.before is not None:
                signal.signal(signal.SIGINT, self._remember)
        return self

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self.pending:
            raise KeyboardInterrupt
        self.pending = True

    def check(self) -> None:
        """Raise what was remembered."""
        if self.pending:
            raise KeyboardInterrupt

    def __exit__(self, *error: object) -> None:
        if self.before is not None:
            signal.signal(signal.SIGINT, self.before)
        if self.pending and error[0] is None:
            raise KeyboardInterrupt
