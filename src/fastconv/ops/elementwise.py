"""Activations and their gradients, and the updates of optimizers, in place."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..backends.protocol import ACTIVATIONS, Array
from ..errors import UnknownNameError

__all__ = ["activate_in_place", "check_activation"]


def check_activation(func: str, activation: Any) -> None:
    """Refuse a name outside the closed list."""
    if activation is not None and activation not in ACTIVATIONS:
        raise UnknownNameError(
            f"{func}: activation must be None or one of {', '.join(ACTIVATIONS)}, received {activation!r}"
        )


def activate_in_place(y: Array, activation: str) -> None:
    """Apply an activation by name to a floating array, in place (PyTorch's definitions)."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        if activation == "relu":
            np.maximum(y, 0, out=y)
        elif activation == "relu6":
            np.clip(y, 0, 6, out=y)
        elif activation == "leaky_relu":
            np.multiply(y, 0.01, out=y, where=y < 0)
        elif activation == "sigmoid":
            _sigmoid(y)
        elif activation == "tanh":
            np.tanh(y, out=y)
        elif activation == "silu":
            gate = y.copy()
            _sigmoid(gate)
            y *= gate
        elif activation == "hard_swish":
            y *= np.clip(y + 3, 0, 6) / 6
        else:  # gelu, by the error function
            y *= 0.5 * (1 + _erf(y / math.sqrt(2)))


def _sigmoid(y: Array) -> None:
    np.negative(y, out=y)
    np.exp(y, out=y)
    y += 1
    np.reciprocal(y, out=y)


def _erf(x: Array) -> Array:
    result: Array = np.vectorize(math.erf, otypes=[x.dtype])(x) if x.size else x
    return result
