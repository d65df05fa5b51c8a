"""What may happen between batches and epochs of ``fit``: stopping early, keeping the best, writing a log."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .graph import Array

if TYPE_CHECKING:
    from .training import Trainer

__all__ = [
    "CSVLogger", "Callback", "EarlyStopping", "History", "LambdaCallback", "LearningRateScheduler", "ModelCheckpoint",
    "ReduceLROnPlateau", "TerminateOnNaN",
]  # fmt: skip


class Callback:
    """Base class; override the moments you want. ``self.model`` is the model that is trained.

    ``logs`` holds the loss and the metrics so far; setting ``self.model.stop_training`` ends the training after the
    epoch.
    """

    model: Trainer

    def set_model(self, model: Trainer) -> None:
        """Called before everything else."""
        self.model = model

    def on_train_begin(self, logs: dict[str, float]) -> None:
        """Before the first epoch."""

    def on_train_end(self, logs: dict[str, float]) -> None:
        """After the last epoch, also when it was interrupted."""

    def on_epoch_begin(self, epoch: int, logs: dict[str, float]) -> None:
        """Before each epoch."""

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """After each epoch and its validation."""

    def on_train_batch_begin(self, batch: int, logs: dict[str, float]) -> None:
        """Before each batch."""

    def on_train_batch_end(self, batch: int, logs: dict[str, float]) -> None:
        """After each batch."""


class History(Callback):
    """What ``fit`` returns: ``.history`` maps each name to its value after every epoch."""

    def __init__(self) -> None:
        self.history: dict[str, list[float]] = {}
        self.epoch: list[int] = []
        self.params: dict[str, Any] = {}

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Write the epoch down."""
        self.epoch.append(epoch)
        for name, value in logs.items():
            self.history.setdefault(name, []).append(value)

    def plot(self, path: str | Path | None = None) -> Any:
        """Draw loss and metrics over the epochs; the figure of :func:`fastconv.viz.plot_history`.

        Needs matplotlib (``pip install 'fastconv[viz]'``); writes a picture if a path is given.
        """
        from ..viz import plot_history

        return plot_history(self, path=path)


class _Watch:
    """Whether a watched value became better."""

    def __init__(self, monitor: str, mode: str, min_delta: float = 0.0) -> None:
        if mode not in ("auto", "min", "max"):
            raise ValueError(f"mode must be 'auto', 'min' or 'max', received {mode!r}")
        rises = mode == "max" or (mode == "auto" and ("acc" in monitor or monitor.endswith(("precision", "recall"))))
        self.monitor, self.sign, self.min_delta = monitor, 1 if rises else -1, abs(min_delta)
        self.best = -np.inf

    def value(self, logs: dict[str, float], who: str) -> float:
        """The watched value; an error names what there is."""
        if self.monitor not in logs:
            raise ValueError(f"{who}: monitor {self.monitor!r} is not among {', '.join(logs)}")
        return logs[self.monitor]

    def better(self, value: float) -> bool:
        """Whether it is better than the best so far, which it then becomes."""
        if self.sign * value - self.min_delta <= self.best:
            return False
        self.best = self.sign * value
        return True


class EarlyStopping(Callback):
    """Stop when a value has not become better for ``patience`` epochs.

    Parameters
    ----------
    monitor : str, default "val_loss"
    min_delta : float, default 0
        Least change that counts.
    patience : int, default 0
    verbose : int, default 0
    mode : {"auto", "min", "max"}
        Whether lower or higher is better; "auto" tells by the name.
    baseline : float, optional
        A value that must be beaten first.
    restore_best_weights : bool, default False
        Go back to the weights of the best epoch.
    start_from_epoch : int, default 0
    """

    def __init__(
        self, monitor: str = "val_loss", min_delta: float = 0.0, patience: int = 0, verbose: int = 0,
        mode: str = "auto", baseline: float | None = None, restore_best_weights: bool = False,
        start_from_epoch: int = 0,
    ) -> None:  # fmt: skip
        self.arguments = (monitor, mode, min_delta)
        self.patience, self.verbose, self.baseline = patience, verbose, baseline
        self.restore_best_weights, self.start_from_epoch = restore_best_weights, start_from_epoch

    def on_train_begin(self, logs: dict[str, float]) -> None:
        """Start anew."""
        self.watch = _Watch(*self.arguments)
        if self.baseline is not None:
            self.watch.best = self.watch.sign * self.baseline
        self.wait, self.stopped_epoch, self.best_epoch = 0, 0, 0
        self.best_weights: list[Array] | None = None

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Look at the value."""
        value = self.watch.value(logs, "EarlyStopping")
        if epoch < self.start_from_epoch:
            return
        if self.restore_best_weights and self.best_weights is None:
            self.best_weights, self.best_epoch = self.model.get_weights(), epoch
        self.wait += 1
        if self.watch.better(value):
            self.wait, self.best_epoch = 0, epoch
            if self.restore_best_weights:
                self.best_weights = self.model.get_weights()
        elif self.wait >= self.patience and epoch > 0:
            self.stopped_epoch, self.model.stop_training = epoch, True

    def on_train_end(self, logs: dict[str, float]) -> None:
        """Go back to the best weights."""
        if self.stopped_epoch and self.verbose:
            print(f"Epoch {self.stopped_epoch + 1}: early stopping")
        if self.restore_best_weights and self.best_weights is not None:
            self.model.set_weights(self.best_weights)


class ModelCheckpoint(Callback):
    """Save the model after each epoch, atomically: the file is the old one or the new one, never half of it.

    Parameters
    ----------
    filepath : str
        May hold ``{epoch}``, ``{loss}`` and so on.
    monitor, mode
        As in :class:`EarlyStopping`.
    verbose : int, default 0
    save_best_only : bool, default False
        Only when the value became better.
    save_weights_only : bool, default False
    save_freq : "epoch"
    """

    def __init__(
        self, filepath: str | Path, monitor: str = "val_loss", verbose: int = 0, save_best_only: bool = False,
        save_weights_only: bool = False, mode: str = "auto", save_freq: str = "epoch",
    ) -> None:  # fmt: skip
        if save_freq != "epoch":
            raise ValueError(f"ModelCheckpoint: save_freq must be 'epoch', received {save_freq!r}")
        self.filepath, self.verbose = str(filepath), verbose
        self.save_best_only, self.save_weights_only = save_best_only, save_weights_only
        self.watch = _Watch(monitor, mode)

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Save, if it is due."""
        if self.save_best_only and not self.watch.better(self.watch.value(logs, "ModelCheckpoint")):
            return
        path = self.filepath.format(epoch=epoch + 1, **logs)
        if self.save_weights_only:
            self.model.save_weights(path)
        else:
            self.model.save(path)
        if self.verbose:
            print(f"Epoch {epoch + 1}: saved {path}")


class CSVLogger(Callback):
    """Write every epoch as a row of a CSV file."""

    def __init__(self, filename: str | Path, separator: str = ",", append: bool = False) -> None:
        self.filename, self.separator, self.append = Path(filename), separator, append

    def on_train_begin(self, logs: dict[str, float]) -> None:
        """Open the file."""
        self.names: list[str] | None = None
        old = self.append and self.filename.exists() and self.filename.stat().st_size > 0
        self.header = not old
        if not old:
            self.filename.write_text("")

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Add a row; the file is closed between rows, so that nothing is lost."""
        if self.names is None:
            self.names = sorted(logs)
        with self.filename.open("a", newline="") as file:
            writer = csv.writer(file, delimiter=self.separator)
            if self.header:
                writer.writerow(["epoch", *self.names])
                self.header = False
            writer.writerow([epoch, *(logs.get(n, "NA") for n in self.names)])


class LearningRateScheduler(Callback):
    """Set the learning rate before each epoch: ``schedule(epoch, rate)`` or ``schedule(epoch)`` gives it."""

    def __init__(self, schedule: Callable[..., float], verbose: int = 0) -> None:
        self.schedule, self.verbose = schedule, verbose

    def on_epoch_begin(self, epoch: int, logs: dict[str, float]) -> None:
        """Set the rate."""
        optimizer = self.model.optimizer
        try:
            rate = self.schedule(epoch, optimizer.learning_rate)
        except TypeError:
            rate = self.schedule(epoch)
        optimizer.learning_rate = float(rate)
        if self.verbose:
            print(f"Epoch {epoch + 1}: learning rate {rate:g}")

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Note the rate in the history."""
        logs["learning_rate"] = self.model.optimizer.learning_rate


class ReduceLROnPlateau(Callback):
    """Multiply the learning rate by ``factor`` when a value has not become better for ``patience`` epochs."""

    def __init__(
        self, monitor: str = "val_loss", factor: float = 0.1, patience: int = 10, verbose: int = 0, mode: str = "auto",
        min_delta: float = 1e-4, cooldown: int = 0, min_lr: float = 0.0,
    ) -> None:  # fmt: skip
        if factor >= 1:
            raise ValueError(f"ReduceLROnPlateau: factor must be below 1, received {factor!r}")
        self.watch = _Watch(monitor, mode, min_delta)
        self.factor, self.patience, self.verbose, self.cooldown, self.min_lr = (
            factor, patience, verbose, cooldown, min_lr
        )  # fmt: skip
        self.wait, self.resting = 0, 0

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Look at the value, and lower the rate if it is due."""
        optimizer = self.model.optimizer
        logs["learning_rate"] = optimizer.learning_rate
        if self.resting:
            self.resting, self.wait = self.resting - 1, 0
        if self.watch.better(self.watch.value(logs, "ReduceLROnPlateau")):
            self.wait = 0
        elif not self.resting:
            self.wait += 1
            if self.wait >= self.patience and optimizer.learning_rate > self.min_lr:
                optimizer.learning_rate = max(optimizer.learning_rate * self.factor, self.min_lr)
                self.resting, self.wait = self.cooldown, 0
                if self.verbose:
                    print(f"Epoch {epoch + 1}: learning rate lowered to {optimizer.learning_rate:g}")


class TerminateOnNaN(Callback):
    """Taken for Keras' sake: training always stops when the loss is no longer finite, and says where it began."""


class LambdaCallback(Callback):
    """A callback from functions, by keyword: ``LambdaCallback(on_epoch_end=lambda epoch, logs: ...)``."""

    def __init__(self, **moments: Callable[..., None]) -> None:
        for name, function in moments.items():
            if not name.startswith("on_") or not hasattr(Callback, name):
                raise TypeError(f"LambdaCallback: {name!r} is not a moment of training")
            setattr(self, name, function)


_BATCH_MOMENTS = ("on_train_batch_begin", "on_train_batch_end")


class CallbackList:
    """Several callbacks as one."""

    def __init__(self, callbacks: Sequence[Callback], model: Trainer) -> None:
        self.callbacks = list(callbacks)
        for c in self.callbacks:
            c.set_model(model)
        # most do nothing at each batch, of which there are many
        self.each_batch = [
            c for c in self.callbacks
            if any(getattr(c, n) != getattr(Callback, n).__get__(c) for n in _BATCH_MOMENTS)
        ]  # fmt: skip

    def call(self, moment: str, *arguments: Any) -> None:
        """Tell all of them."""
        for c in self.each_batch if "batch" in moment else self.callbacks:
            getattr(c, moment)(*arguments)
