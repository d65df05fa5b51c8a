"""Losses: mean over the batch, with gradients; those of probabilities take logits where the graph has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .errors import DataError
from .graph import Array, snake_case
from .layers.activation import softmax

__all__ = [
    "BinaryCrossentropy", "CategoricalCrossentropy", "Loss", "MeanAbsoluteError", "MeanSquaredError",
    "SparseCategoricalCrossentropy", "binary_crossentropy", "categorical_crossentropy", "get", "mean_absolute_error",
    "mean_squared_error", "sparse_categorical_crossentropy",
]  # fmt: skip

_EPSILON = 1e-7  # probabilities are kept this far from 0 and 1, as in Keras


class Loss:
    """Base class: the mean over the batch (and positions) of what ``terms`` gives for each.

    A loss of your own defines ``terms(y_true, y_pred)``, which returns the loss of each example, of shape
    ``y_pred.shape[:-1]``, and the gradient of their sum, of y_pred's shape.
    """

    from_logits = False
    behind: str | None = None  # the activation whose input can be taken instead of its output

    def __init__(self, name: str | None = None) -> None:
        self.name = name or snake_case(type(self).__name__)

    def terms(self, y: Array, p: Array) -> tuple[Array, Array]:
        """Loss of each example, and the gradient of their sum."""
        raise TypeError(f"loss {self.name!r} does not define terms(y_true, y_pred)")

    def logit_terms(self, y: Array, z: Array) -> tuple[Array, Array]:
        """The same from the input of the activation that ``behind`` names."""
        raise TypeError(f"loss {self.name!r} does not take logits")

    def targets(self, y: Any, shape: tuple[int, ...], dtype: Any, where: str = "y") -> Array:
        """Targets checked and shaped for predictions of this shape."""
        array = np.asarray(y)
        if array.ndim == len(shape) - 1 and shape[-1] == 1:
            array = array[..., None]
        if array.shape != shape:
            raise DataError(f"{self.name}: {where} must have shape {shape}, received {np.shape(y)}")
        return array.astype(dtype, copy=False)

    def value_and_gradient(
        self, y: Array, p: Array, sample_weight: Array | None = None, logits: Array | None = None
    ) -> tuple[float, Array]:
        """The loss of a batch and its gradient, with respect to ``logits`` if they are given, else to ``p``."""
        if logits is not None:
            values, gradient = self.logit_terms(y, logits)
        else:
            values, gradient = (self.logit_terms if self.from_logits else self.terms)(y, p)
        share: Any = 1 / max(1, values.size)
        if sample_weight is not None:
            weight = sample_weight.reshape(sample_weight.shape + (1,) * (values.ndim - sample_weight.ndim))
            values = values * weight
            share = (share * weight).astype(gradient.dtype)[..., None]
        gradient *= share
        return float(values.sum(dtype=np.float64)) / max(1, values.size), gradient

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> float:
        p = np.asarray(y_pred)
        p = p if p.dtype.kind == "f" else p.astype(np.float32)
        weight = None if sample_weight is None else np.asarray(sample_weight)
        return self.value_and_gradient(self.targets(y_true, p.shape, p.dtype, "y_true"), p, weight)[0]

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {"name": self.name}


class MeanSquaredError(Loss):
    """Mean of the squared differences."""

    def terms(self, y: Array, p: Array) -> tuple[Array, Array]:
        """Squares, and twice the differences."""
        d = p - y
        return np.mean(d * d, axis=-1), d * (2 / p.shape[-1])


class MeanAbsoluteError(Loss):
    """Mean of the absolute differences."""

    def terms(self, y: Array, p: Array) -> tuple[Array, Array]:
        """Absolute values, and signs."""
        d = p - y
        return np.mean(np.abs(d), axis=-1), np.sign(d) / p.shape[-1]


class _Crossentropy(Loss):
    def __init__(self, from_logits: bool = False, label_smoothing: float = 0.0, name: str | None = None) -> None:
        super().__init__(name)
        self.from_logits, self.label_smoothing = bool(from_logits), float(label_smoothing)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {"name": self.name, "from_logits": self.from_logits, "label_smoothing": self.label_smoothing}


class BinaryCrossentropy(_Crossentropy):
    """``-(y log p + (1 - y) log(1 - p))``, mean over the outputs.

    Parameters
    ----------
    from_logits : bool, default False
        Whether predictions come before the sigmoid.
    label_smoothing : float, default 0
        How far labels are moved towards one half.
    name : str, optional
    """

    behind = "sigmoid"

    def targets(self, y: Any, shape: tuple[int, ...], dtype: Any, where: str = "y") -> Array:
        """Labels from 0 to 1."""
        array = super().targets(y, shape, dtype, where)
        if array.size and not (array.min() >= 0 and array.max() <= 1):
            raise DataError(
                f"{self.name}: labels in {where} must lie between 0 and 1, received {array.min():g} to {array.max():g}"
            )
        return array

    def _smooth(self, y: Array) -> Array:
        return y * (1 - self.label_smoothing) + 0.5 * self.label_smoothing if self.label_smoothing else y

    def terms(self, y: Array, p: Array) -> tuple[Array, Array]:
        """From probabilities."""
        y = self._smooth(y)
        kept = np.clip(p, _EPSILON, 1 - _EPSILON)
        values = -(y * np.log(kept) + (1 - y) * np.log1p(-kept))
        gradient = np.where(kept == p, (kept - y) / (kept * (1 - kept)), 0) / p.shape[-1]
        return values.mean(axis=-1), gradient.astype(p.dtype, copy=False)

    def logit_terms(self, y: Array, z: Array) -> tuple[Array, Array]:
        """From logits, without overflow."""
        y = self._smooth(y)
        small = np.exp(-np.abs(z))
        values = np.maximum(z, 0) - z * y + np.log1p(small)
        p = np.where(z >= 0, 1, small) / (1 + small)
        return values.mean(axis=-1), ((p - y) / z.dtype.type(z.shape[-1])).astype(z.dtype, copy=False)


class CategoricalCrossentropy(_Crossentropy):
    """``-sum(y log p)`` over the classes, labels one-hot.

    Parameters
    ----------
    from_logits : bool, default False
        Whether predictions come before the softmax.
    label_smoothing : float, default 0
        How far labels are moved towards the even distribution.
    name : str, optional
    """

    behind = "softmax"

    def targets(self, y: Any, shape: tuple[int, ...], dtype: Any, where: str = "y") -> Array:
        """Labels of one number for each class."""
        array = np.asarray(y)
        if array.shape != shape and array.ndim == len(shape) - 1:
            raise DataError(
                f"{self.name}: {where} must be one-hot, of shape {shape}, received {array.shape}; for integer labels "
                "use sparse_categorical_crossentropy, or nn.utils.to_categorical"
            )
        array = super().targets(y, shape, dtype, where)
        if array.size and not array.min() >= 0:
            raise DataError(f"{self.name}: labels in {where} may not be negative, received {array.min():g}")
        return array

    def _smooth(self, y: Array) -> Array:
        return y * (1 - self.label_smoothing) + self.label_smoothing / y.shape[-1] if self.label_smoothing else y

    def terms(self, y: Array, p: Array) -> tuple[Array, Array]:
        """From probabilities, which are made to sum to one."""
        y = self._smooth(y)
        total = p.sum(axis=-1, keepdims=True)
        share = p / total
        kept = np.clip(share, _EPSILON, 1 - _EPSILON)
        through = np.where(kept == share, y, 0)
        gradient = (through.sum(axis=-1, keepdims=True) - through / kept) / total
        return -(y * np.log(kept)).sum(axis=-1), gradient.astype(p.dtype, copy=False)

    def logit_terms(self, y: Array, z: Array) -> tuple[Array, Array]:
        """From logits, without overflow."""
        y = self._smooth(y)
        total = y.sum(axis=-1, keepdims=True)
        values = _log_sum_exp(z) * total[..., 0] - (y * z).sum(axis=-1)
        gradient = softmax(z)
        gradient *= total
        gradient -= y
        return values, gradient


class SparseCategoricalCrossentropy(_Crossentropy):
    """``-log p[label]``, labels whole numbers from 0 on.

    Parameters
    ----------
    from_logits : bool, default False
        Whether predictions come before the softmax.
    name : str, optional
    """

    behind = "softmax"

    def __init__(self, from_logits: bool = False, name: str | None = None) -> None:
        super().__init__(from_logits, 0.0, name)

    def targets(self, y: Any, shape: tuple[int, ...], dtype: Any, where: str = "y") -> Array:
        """Whole numbers below the number of classes."""
        array = np.asarray(y)
        if array.ndim == len(shape) and array.shape[-1] == 1:
            array = array[..., 0]
        if array.shape != shape[:-1]:
            hint = "; one-hot labels go with categorical_crossentropy" if array.shape == shape else ""
            raise DataError(f"{self.name}: {where} must have shape {shape[:-1]}, received {np.shape(y)}{hint}")
        labels = array.astype(np.int64, copy=False)
        if array.dtype.kind == "f" and not np.array_equal(labels, array):
            raise DataError(f"{self.name}: labels in {where} must be whole numbers")
        if labels.size and not (labels.min() >= 0 and labels.max() < shape[-1]):
            raise DataError(
                f"{self.name}: labels in {where} must be from 0 to {shape[-1] - 1} ({shape[-1]} classes), received "
                f"{labels.min()} to {labels.max()}"
            )
        return labels

    def terms(self, y: Array, p: Array) -> tuple[Array, Array]:
        """From probabilities, which are made to sum to one."""
        one_hot = np.zeros_like(p)
        np.put_along_axis(one_hot, y[..., None], 1, axis=-1)
        return CategoricalCrossentropy().terms(one_hot, p)

    def logit_terms(self, y: Array, z: Array) -> tuple[Array, Array]:
        """From logits, without overflow."""
        index = y[..., None]
        values = _log_sum_exp(z) - np.take_along_axis(z, index, axis=-1)[..., 0]
        gradient = softmax(z)
        np.put_along_axis(gradient, index, np.take_along_axis(gradient, index, axis=-1) - 1, axis=-1)
        return values, gradient

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {"name": self.name, "from_logits": self.from_logits}


def _log_sum_exp(z: Array) -> Array:
    top = z.max(axis=-1, keepdims=True)
    total: Array = np.log(np.exp(z - top).sum(axis=-1)) + top[..., 0]
    return total


class _FromFunction(Loss):
    """A user's function of (y_true, y_pred) that returns losses and their gradient."""

    def __init__(self, function: Callable[[Array, Array], tuple[Array, Array]]) -> None:
        super().__init__(getattr(function, "__name__", "loss"))
        self.function = function

    def terms(self, y: Array, p: Array) -> tuple[Array, Array]:
        values, gradient = self.function(y, p)
        return np.asarray(values), np.asarray(gradient)


def _function(loss: Callable[..., Loss], name: str) -> Callable[..., Array]:
    def function(y_true: Any, y_pred: Any, **options: Any) -> Array:
        made, p = loss(**options), np.asarray(y_pred)
        p = p if p.dtype.kind == "f" else p.astype(np.float32)
        y = made.targets(y_true, p.shape, p.dtype, "y_true")
        return (made.logit_terms if made.from_logits else made.terms)(y, p)[0]

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"Loss of each example, as :class:`{getattr(loss, '__name__', name)}` has it."
    return function


mean_squared_error = _function(MeanSquaredError, "mean_squared_error")
mean_absolute_error = _function(MeanAbsoluteError, "mean_absolute_error")
binary_crossentropy = _function(BinaryCrossentropy, "binary_crossentropy")
categorical_crossentropy = _function(CategoricalCrossentropy, "categorical_crossentropy")
sparse_categorical_crossentropy = _function(SparseCategoricalCrossentropy, "sparse_categorical_crossentropy")

_CLASSES: tuple[type[Loss], ...] = (
    MeanSquaredError, MeanAbsoluteError, BinaryCrossentropy, CategoricalCrossentropy, SparseCategoricalCrossentropy,
)  # fmt: skip
_BY_NAME = {name: c for c in _CLASSES for name in (c.__name__, snake_case(c.__name__))} | {
    "mse": MeanSquaredError, "MSE": MeanSquaredError, "mae": MeanAbsoluteError, "MAE": MeanAbsoluteError,
}  # fmt: skip


def get(identifier: Any) -> Loss:
    """A loss from its name, its class, its function, its configuration in a file, or itself."""
    if isinstance(identifier, Loss):
        return identifier
    if isinstance(identifier, type) and issubclass(identifier, Loss):
        return identifier()
    if isinstance(identifier, dict) and identifier.get("class_name") in _BY_NAME:
        known = _BY_NAME[identifier["class_name"]]()
        config = {k: v for k, v in identifier.get("config", {}).items() if k in known.get_config()}
        return type(known)(**config)
    name = identifier if isinstance(identifier, str) else getattr(identifier, "__name__", "")
    if name in _BY_NAME:
        return _BY_NAME[name]()
    if callable(identifier):
        return _FromFunction(identifier)
    names = ", ".join(snake_case(c.__name__) for c in _CLASSES)
    raise ValueError(f"loss must be one of {names}, mse, mae or a Loss, received {identifier!r}")
