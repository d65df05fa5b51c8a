"""Metrics: means over all batches seen since the last reset."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import losses
from .graph import Array, snake_case

__all__ = [
    "BinaryAccuracy", "CategoricalAccuracy", "MeanAbsoluteError", "MeanMetric", "MeanSquaredError", "Metric",
    "Precision", "Recall", "SparseCategoricalAccuracy", "get",
]  # fmt: skip


class Metric:
    """Base class: ``update_state`` for each batch, then ``result``."""

    def __init__(self, name: str | None = None) -> None:
        self.name = name or snake_case(type(self).__name__)
        self.reset_state()

    def reset_state(self) -> None:
        """Forget what was seen."""

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Take a batch in."""
        raise TypeError(f"metric {self.name!r} does not define update_state(y_true, y_pred, sample_weight)")

    def result(self) -> float:
        """The metric over all batches since the last reset."""
        raise TypeError(f"metric {self.name!r} does not define result()")

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> float:
        self.update_state(y_true, y_pred, sample_weight)
        return self.result()


class MeanMetric(Metric):
    """Mean of a function's value for each example; ``function(y_true, y_pred)`` gives an array."""

    def __init__(self, function: Callable[[Array, Array], Array], name: str | None = None) -> None:
        self.function = function
        super().__init__(name or getattr(function, "__name__", "metric"))

    def reset_state(self) -> None:
        """Forget what was seen."""
        self.total, self.count = 0.0, 0.0

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add the values of a batch."""
        values = np.asarray(self.function(np.asarray(y_true), np.asarray(y_pred)))
        if sample_weight is None:
            self.total += float(values.sum(dtype=np.float64))
            self.count += values.size
        else:
            w = np.asarray(sample_weight)
            w = np.broadcast_to(w.reshape(w.shape + (1,) * (values.ndim - w.ndim)), values.shape)
            self.total += float((values * w).sum(dtype=np.float64))
            self.count += float(w.sum())

    def result(self) -> float:
        """The mean."""
        return self.total / self.count if self.count else 0.0


def _like(y: Array, p: Array) -> Array:
    return y[..., None] if y.ndim == p.ndim - 1 else y


def binary_accuracy(y_true: Any, y_pred: Any, threshold: float = 0.5) -> Array:
    """Share of outputs on the right side of the threshold, for each example."""
    p = np.asarray(y_pred)
    hits: Array = np.mean(_like(np.asarray(y_true), p) == (p > threshold), axis=-1)
    return hits


def categorical_accuracy(y_true: Any, y_pred: Any) -> Array:
    """Whether the largest output is the one-hot label's, for each example."""
    hits: Array = np.argmax(y_true, axis=-1) == np.argmax(y_pred, axis=-1)
    return hits


def sparse_categorical_accuracy(y_true: Any, y_pred: Any) -> Array:
    """Whether the largest output is the integer label's, for each example."""
    y, p = np.asarray(y_true), np.asarray(y_pred)
    hits: Array = (y[..., 0] if y.ndim == p.ndim else y) == p.argmax(axis=-1)
    return hits


class BinaryAccuracy(MeanMetric):
    """Share of outputs on the right side of ``threshold``."""

    def __init__(self, name: str = "binary_accuracy", threshold: float = 0.5) -> None:
        super().__init__(lambda y, p: binary_accuracy(y, p, threshold), name)


class CategoricalAccuracy(MeanMetric):
    """Share of examples whose largest output is the one-hot label's."""

    def __init__(self, name: str = "categorical_accuracy") -> None:
        super().__init__(categorical_accuracy, name)


class SparseCategoricalAccuracy(MeanMetric):
    """Share of examples whose largest output is the integer label's."""

    def __init__(self, name: str = "sparse_categorical_accuracy") -> None:
        super().__init__(sparse_categorical_accuracy, name)


class MeanSquaredError(MeanMetric):
    """Mean of the squared differences."""

    def __init__(self, name: str = "mean_squared_error") -> None:
        super().__init__(losses.mean_squared_error, name)


class MeanAbsoluteError(MeanMetric):
    """Mean of the absolute differences."""

    def __init__(self, name: str = "mean_absolute_error") -> None:
        super().__init__(losses.mean_absolute_error, name)


class _Ratio(Metric):
    """True positives over those that are, or were called, positive."""

    of_called = True

    def __init__(self, thresholds: float = 0.5, name: str | None = None) -> None:
        self.threshold = thresholds
        super().__init__(name)

    def reset_state(self) -> None:
        """Forget what was seen."""
        self.hits, self.count = 0, 0

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Count a batch."""
        p = np.asarray(y_pred)
        called, real = p > self.threshold, _like(np.asarray(y_true), p) > 0.5
        self.hits += int((called & real).sum())
        self.count += int((called if self.of_called else real).sum())

    def result(self) -> float:
        """The ratio; zero if nothing was counted."""
        return self.hits / self.count if self.count else 0.0


class Precision(_Ratio):
    """Share of outputs called positive that are."""


class Recall(_Ratio):
    """Share of positives that were found."""

    of_called = False


_CLASSES: tuple[Callable[..., Metric], ...] = (
    BinaryAccuracy, CategoricalAccuracy, SparseCategoricalAccuracy, MeanSquaredError, MeanAbsoluteError, Precision,
    Recall,
)  # fmt: skip
_BY_NAME: dict[str, Callable[..., Metric]] = {
    name: c for c in _CLASSES for name in (c.__name__, snake_case(c.__name__))
}  # fmt: skip
_LOSSES = {"binary_crossentropy", "categorical_crossentropy", "sparse_categorical_crossentropy"}


def get(identifier: Any, y_shape: tuple[int, ...], output_shape: tuple[int | None, ...]) -> Metric:
    """A metric from its name, class, function or itself; "accuracy" becomes the one that fits labels and outputs."""
    if isinstance(identifier, Metric):
        return identifier
    if isinstance(identifier, type) and issubclass(identifier, Metric):
        return identifier()
    if identifier in ("accuracy", "acc"):
        if output_shape[-1] == 1:
            return BinaryAccuracy(identifier)
        sparse = len(y_shape) < len(output_shape) or y_shape[-1] == 1
        return (SparseCategoricalAccuracy if sparse else CategoricalAccuracy)(identifier)
    if identifier in ("mse", "MSE", "mae", "MAE"):
        return (MeanSquaredError if identifier.lower() == "mse" else MeanAbsoluteError)(identifier)
    if isinstance(identifier, str) and identifier in _BY_NAME:
        return _BY_NAME[identifier]()
    if isinstance(identifier, str) and identifier in _LOSSES:
        return MeanMetric(getattr(losses, identifier), identifier)
    if callable(identifier):
        return MeanMetric(identifier)
    raise ValueError(f"metric must be 'accuracy', one of {', '.join(_BY_NAME)} or a Metric, received {identifier!r}")
