"""Activations: as layers of their own, and as what ``activation=`` puts behind another layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ... import activate, activation_backward
from ..graph import Array, Shape
from .core import Layer

if TYPE_CHECKING:
    from ..program import Call

__all__ = ["Activation", "Elementwise", "LeakyReLU", "ReLU", "Softmax", "get"]

# what each of Keras' names is called in the library
_LIBRARY = {
    "relu": "relu", "relu6": "relu6", "sigmoid": "sigmoid", "tanh": "tanh", "silu": "silu", "swish": "silu",
    "gelu": "gelu", "hard_swish": "hard_swish", "hard_silu": "hard_swish",
}  # fmt: skip
NAMES = (*_LIBRARY, "leaky_relu", "softmax", "linear")
# their derivative follows from the output's sign or range, so the input need not be kept
_FROM_OUTPUT = ("relu", "relu6", "leaky_relu")


class Elementwise(Layer):
    """An activation by one of the library's names, by leaky slope, or softmax."""

    kind: str = "linear"  # a name of the library, "slope", "softmax" or "linear"
    slope: float = 0.0
    axis: int = -1

    @property
    def elementwise(self) -> str | None:
        """The library's name, which other layers' kernels may apply themselves."""
        if self.kind == "slope":
            return "leaky_relu" if self.slope == 0.01 else None
        return None if self.kind in ("softmax", "linear") else self.kind

    def forward(self, x: Array, call: Call) -> Array:
        """Apply the activation."""
        if self.kind == "linear":
            return x
        y = call.out()
        if self.kind == "softmax":
            return softmax(x, y, self.axis)
        if (name := self.elementwise) is not None:
            return activate(x, name, out=y)
        y = np.multiply(x, self.slope, out=y)
        return np.maximum(x, y, out=y) if self.slope <= 1 else np.minimum(x, y, out=y)

    def backward(self, dy: Array, call: Call) -> Array:
        """Multiply by the derivative."""
        if self.kind == "linear":
            return dy
        y = call.y
        assert y is not None
        dx = call.reuse(dy)
        if self.kind == "softmax":
            inner = (dy * y).sum(axis=self.axis, keepdims=True)
            np.subtract(dy, inner, out=dx)
            return np.multiply(dx, y, out=dx)
        if (name := self.elementwise) is not None:
            return activation_backward(dy, y if name in _FROM_OUTPUT else call.x, name, out=dx)
        return np.multiply(dy, np.where(call.x > 0, 1, self.slope), out=dx, casting="same_kind")


def softmax(x: Array, out: Array | None = None, axis: int = -1) -> Array:
    """``exp(x) / sum(exp(x))`` along an axis, without overflow."""
    y: Array = np.subtract(x, x.max(axis=axis, keepdims=True), out=out)
    np.exp(y, out=y)
    y /= y.sum(axis=axis, keepdims=True)
    return y


class Activation(Elementwise):
    """An activation by name.

    Parameters
    ----------
    activation : str or callable
        ``relu relu6 leaky_relu sigmoid tanh silu swish gelu hard_swish softmax linear`` or a function of
        ``nn.activations``.
    name, trainable, dtype, input_shape
        As in :class:`Layer`.
    """

    def __init__(self, activation: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.label = activation_name(activation)
        self.kind = "slope" if self.label == "leaky_relu" else _LIBRARY.get(self.label, self.label)
        self.slope = 0.2  # Keras' for the function, which is not its layer's

    def get_config(self) -> dict[str, Any]:
        """What makes an equal layer."""
        return super().get_config() | {"activation": self.label}


class ReLU(Elementwise):
    """``max(x, 0)``, optionally capped and leaky.

    Parameters
    ----------
    max_value : float, optional
        Cap of the output.
    negative_slope : float, default 0
        Slope below the threshold.
    threshold : float, default 0
        Only 0 is available with a slope or a cap other than 6.
    name, trainable, dtype, input_shape
        As in :class:`Layer`.
    """

    config_names: ClassVar[tuple[str, ...]] = ("max_value", "negative_slope", "threshold")

    def __init__(
        self, max_value: float | None = None, negative_slope: float = 0.0, threshold: float = 0.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if (max_value is not None and max_value < 0) or (negative_slope or 0) < 0 or (threshold or 0) < 0:
            raise ValueError(
                f"layer {self.name!r} (ReLU): max_value, negative_slope and threshold may not be negative, "
                f"received {max_value}, {negative_slope}, {threshold}"
            )
        self.max_value, self.negative_slope, self.threshold = max_value, negative_slope or 0.0, threshold or 0.0
        if self.threshold == 0 and max_value is None:
            self.kind, self.slope = ("slope", self.negative_slope) if self.negative_slope else ("relu", 0.0)
        elif self.threshold == 0 and max_value == 6 and not self.negative_slope:
            self.kind = "relu6"
        else:
            self.kind = "general"

    @property
    def elementwise(self) -> str | None:
        """The library's name, where it has this form."""
        return None if self.kind == "general" else super().elementwise

    def forward(self, x: Array, call: Call) -> Array:
        """Apply the activation."""
        if self.kind != "general":
            return super().forward(x, call)
        cap = np.inf if self.max_value is None else self.max_value
        y = np.where(x >= self.threshold, np.minimum(x, cap), self.negative_slope * (x - self.threshold))
        return y.astype(x.dtype, copy=False)

    def backward(self, dy: Array, call: Call) -> Array:
        """Multiply by the derivative."""
        if self.kind != "general":
            return super().backward(dy, call)
        cap = np.inf if self.max_value is None else self.max_value
        x = call.x
        slope = np.where(x >= self.threshold, x < cap, self.negative_slope)
        return np.multiply(dy, slope, out=call.reuse(dy), casting="same_kind")


class LeakyReLU(Elementwise):
    """``x`` above zero, ``negative_slope * x`` below.

    Parameters
    ----------
    negative_slope : float, default 0.3
        Keras' default; ``alpha`` is its old name.
    name, trainable, dtype, input_shape
        As in :class:`Layer`.
    """

    kind = "slope"
    config_names: ClassVar[tuple[str, ...]] = ("negative_slope",)

    def __init__(self, negative_slope: float = 0.3, *, alpha: float | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.negative_slope = self.slope = float(negative_slope if alpha is None else alpha)


class Softmax(Elementwise):
    """Probabilities that sum to one along an axis.

    Parameters
    ----------
    axis : int, default -1
        The axis of the classes.
    name, trainable, dtype, input_shape
        As in :class:`Layer`.
    """

    kind = "softmax"
    config_names: ClassVar[tuple[str, ...]] = ("axis",)

    def __init__(self, axis: int = -1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(axis, int):
            raise TypeError(f"layer {self.name!r} (Softmax): axis must be an integer, received {axis!r}")
        self.axis = axis

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Shape of the input; the axis must be in it, and not the batch's."""
        if not -len(input_shape) < self.axis < len(input_shape) or self.axis == 0:
            raise self.refusal(input_shape, f"an input with axis {self.axis} beside the batch")
        return input_shape


def activation_name(identifier: Any) -> str:
    """Keras' name of an activation given as a name or as a function."""
    name = identifier if isinstance(identifier, str) else getattr(identifier, "__name__", None)
    if name not in NAMES:
        raise ValueError(f"activation must be None or one of {', '.join(NAMES)}, received {identifier!r}")
    return str(name)


def get(identifier: Any, dtype: Any = None) -> Elementwise | None:
    """The layer behind ``activation=``; None for none and for "linear"."""
    if identifier is None:
        return None
    if isinstance(identifier, Elementwise):
        return identifier
    name = activation_name(identifier)
    return None if name == "linear" else Activation(name, name=f"{name}_of_layer", dtype=dtype)
