"""Penalties on large weights, added to the loss."""

from __future__ import annotations

from typing import Any

import numpy as np

from .graph import Array

__all__ = ["L1", "L1L2", "L2", "get", "l1", "l1_l2", "l2"]


class L1L2:
    """``l1 * sum(|w|) + l2 * sum(w**2)``."""

    def __init__(self, l1: float = 0.0, l2: float = 0.0) -> None:
        self.l1, self.l2 = float(l1 or 0), float(l2 or 0)

    def __call__(self, weight: Array) -> float:
        flat = weight.reshape(-1)
        value = self.l2 * float(np.dot(flat, flat)) if self.l2 else 0.0
        return value + (self.l1 * float(np.abs(flat).sum()) if self.l1 else 0.0)

    def add_gradient(self, weight: Array, grad: Array) -> None:
        """Add the penalty's gradient to ``grad``, in place."""
        if self.l2:
            grad += (2 * self.l2) * weight
        if self.l1:
            grad += self.l1 * np.sign(weight)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {"l1": self.l1, "l2": self.l2}


class L2(L1L2):
    """``l2 * sum(w**2)``."""

    def __init__(self, l2: float = 0.01) -> None:
        super().__init__(0.0, l2)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {"l2": self.l2}


class L1(L1L2):
    """``l1 * sum(|w|)``."""

    def __init__(self, l1: float = 0.01) -> None:
        super().__init__(l1, 0.0)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {"l1": self.l1}


l1, l2, l1_l2 = L1, L2, L1L2
_CLASSES: dict[str, type[L1L2]] = {"L1": L1, "L2": L2, "L1L2": L1L2, "l1": L1, "l2": L2, "l1_l2": L1L2}


def get(identifier: Any) -> L1L2 | None:
    """A regulariser from its name, its configuration in a file, or itself; None is none."""
    if identifier is None or isinstance(identifier, L1L2):
        return identifier
    if isinstance(identifier, dict) and identifier.get("class_name") in _CLASSES:
        return _CLASSES[identifier["class_name"]](**identifier["config"])
    if isinstance(identifier, str) and identifier in _CLASSES:
        return _CLASSES[identifier]()
    raise ValueError(f"regularizer must be None, 'l1', 'l2', 'l1_l2' or of nn.regularizers, received {identifier!r}")
