"""What ``fit`` shows: a bar on a terminal, a line for each epoch elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

__all__ = ["Report", "make"]


class Report:
    """Shows nothing; base of the others."""

    live = False  # whether it wants to hear of every step

    def __init__(self, epochs: int, steps: int | None, unit: str) -> None:
        self.epochs, self.steps, self.unit = epochs, steps, unit
        self.epoch, self.rate, self.began = 0, 0.0, 0.0

    def __enter__(self) -> Report:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def start_epoch(self, epoch: int) -> None:
        """An epoch begins."""
        self.epoch, self.began = epoch, time.perf_counter()

    def step(self, done: int, rate: float, logs: dict[str, float]) -> None:
        """A step is done."""

    def end_epoch(self, logs: dict[str, float]) -> None:
        """An epoch is over."""

    def line(self, logs: dict[str, float]) -> str:
        """An epoch in one line."""
        width = len(str(self.epochs))
        head = f"Epoch {self.epoch + 1:{width}}/{self.epochs} - {time.perf_counter() - self.began:.1f}s"
        return " - ".join([head, f"{self.rate:,.0f} {self.unit}/s", _values(logs)])


class Lines(Report):
    """A line for each epoch."""

    def end_epoch(self, logs: dict[str, float]) -> None:
        """Print it."""
        print(self.line(logs), flush=True)


class Bar(Lines):
    """A bar for the running epoch, which leaves its line behind; drawn by rich."""

    live = True

    def __enter__(self) -> Report:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.progress: Any = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[values]}"),
            TimeRemainingColumn(), transient=True,
        )  # fmt: skip
        self.progress.start()
        self.task: Any = None
        return self

    def __exit__(self, *error: object) -> None:
        self.progress.stop()

    def start_epoch(self, epoch: int) -> None:
        """A new bar."""
        super().start_epoch(epoch)
        if self.task is not None:
            self.progress.remove_task(self.task)
        self.task = self.progress.add_task(f"Epoch {epoch + 1}/{self.epochs}", total=self.steps, values="")

    def step(self, done: int, rate: float, logs: dict[str, float]) -> None:
        """Move the bar."""
        self.progress.update(self.task, completed=done, values=f"{rate:,.0f} {self.unit}/s  {_values(logs)}")

    def end_epoch(self, logs: dict[str, float]) -> None:
        """Leave the line above the bar."""
        self.progress.console.print(self.line(logs), highlight=False, markup=False, soft_wrap=True)


def _values(logs: dict[str, float]) -> str:
    return " - ".join(f"{n}: {v:.4f}" if abs(v) >= 1e-3 or v == 0 else f"{n}: {v:.2e}" for n, v in logs.items())


def make(verbose: Any, epochs: int, steps: int | None, unit: str) -> Report:
    """The report that ``verbose`` asks for and the output allows."""
    if verbose in (0, False):
        return Report(epochs, steps, unit)
    if verbose not in ("auto", 1, 2, True):
        raise ValueError(f"verbose must be 'auto', 0, 1 or 2, received {verbose!r}")
    if verbose != 2 and sys.stdout is not None and sys.stdout.isatty():
        try:
            import rich  # noqa: F401
        except ImportError:
            return Lines(epochs, steps, unit)
        return Bar(epochs, steps, unit)
    return Lines(epochs, steps, unit)
