"""Activations as functions on arrays, under Keras' names; ``activation=`` takes them as well as their names."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import activate
from .graph import Array
from .layers.activation import softmax as _softmax

__all__ = ["gelu", "leaky_relu", "linear", "relu", "sigmoid", "silu", "softmax", "swish", "tanh"]


def relu(x: Any) -> Array:
    """``max(x, 0)``."""
    return activate(x, "relu")


def sigmoid(x: Any) -> Array:
    """``1 / (1 + exp(-x))``."""
    return activate(x, "sigmoid")


def tanh(x: Any) -> Array:
    """Hyperbolic tangent."""
    return activate(x, "tanh")


def silu(x: Any) -> Array:
    """``x * sigmoid(x)``."""
    return activate(x, "silu")


swish = silu


def gelu(x: Any) -> Array:
    """``x`` times the normal distribution function."""
    return activate(x, "gelu")


def leaky_relu(x: Any, negative_slope: float = 0.2) -> Array:
    """``x`` above zero, ``negative_slope * x`` below."""
    x = np.asarray(x)
    y: Array = np.where(x > 0, x, negative_slope * x)
    return y


def softmax(x: Any, axis: int = -1) -> Array:
    """Probabilities that sum to one along an axis."""
    return _softmax(np.asarray(x), None, axis)


def linear(x: Any) -> Array:
    """``x`` itself."""
    return np.asarray(x)
