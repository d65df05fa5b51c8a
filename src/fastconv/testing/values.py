"""Inputs for the cases: random numbers, and small integers for which the right answer is exact."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .cases import ConvCase

__all__ = ["conv_inputs", "values"]

Array = NDArray[Any]


def values(kind: str, shape: tuple[int, ...], dtype: Any, seed: str) -> Array:
    """An array that depends only on its arguments.

    Parameters
    ----------
    kind : str
        ``"normal"`` for standard normal numbers, ``"integers"`` for -3 .. 3 (0 .. 6 where unsigned).
    shape : tuple of int
        Shape of the array.
    dtype : dtype
        Its dtype; bool and integers take "integers".
    seed : str
        Any text; other texts give other numbers.

    Examples
    --------
    >>> values("integers", (2, 3), "float32", "weight").shape
    (2, 3)
    """
    rng = np.random.default_rng(zlib.crc32(seed.encode()))
    target = np.dtype(dtype)
    if kind == "normal":
        return rng.standard_normal(shape).astype(target)
    low = 0 if target.kind in "ub" else -3
    return rng.integers(low, low + 7, shape).astype(target)


def conv_inputs(case: ConvCase, kind: str) -> tuple[Array, Array, Array]:
    """Input, weight and bias of a convolution."""
    return (
        values(kind, case.x_shape, case.dtype, case.name + "x"),
        values(kind, case.weight_shape, case.dtype, case.name + "w"),
        values(kind, (case.k,), case.dtype, case.name + "b"),
    )
