"""Lp pooling out of powers and average pooling: the mean times the count is the sum."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..backends.protocol import Array
from ..errors import GeometryError
from ..geometry import PoolGeometry, pool_geometry
from ._arrays import check_grad, float_dtype, new_or_checked, real_array
from ._pool_calls import avg_pool, avg_pool_backward, max_pool, max_pool_backward
from ._repeated import Bounded, call_key

__all__ = ["lp_pool", "lp_pool_backward"]


def _norm_type(func: str, value: Any) -> float:
    try:
        p = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{func}: norm_type must be a number, received {value!r}") from None
    if not p > 0:
        raise GeometryError(f"{func}: norm_type must be greater than 0, received {value!r}")
    return p


def _magnitude(x: Array) -> Array:
    """Absolute values in float64: there powers neither overflow nor vanish for any float32."""
    wide = x.astype(np.float64)
    return np.abs(wide, out=wide)


def _power(base: Array, exponent: float) -> Array:
    """``base ** exponent`` for a base that is not negative; the common exponents without logarithms."""
    if exponent == 1:
        return base
    if exponent == 2:
        return base * base
    result: Array = np.sqrt(base) if exponent == 0.5 else np.power(base, exponent)
    return result


def _count(geometry: PoolGeometry) -> Array:
    """How many positions each mean was divided by, shaped to multiply the result."""
    rank = geometry.rank
    total: Array = np.ones((), np.float64)
    for axis in range(3 - rank, 3):
        total = total[..., None] * geometry.window_counts(axis)
    return total[..., None] if geometry.channels_last else total


_KEPT = 4096  # numbers: a divisor for each output of a large image is counted anew
_known = Bounded[tuple[float, Array]]()


def _checked(
    func: str, rank: int, x: Array, norm_type: Any, kernel_size: Any, stride: Any, padding: Any, ceil_mode: Any,
    layout: Any,
) -> tuple[float, Array]:  # fmt: skip
    """The exponent, and how many positions each mean is divided by."""
    key = call_key((rank, norm_type, kernel_size, stride, padding, ceil_mode), (func, layout), x)
    known = _known.recall(key)
    if known is None:
        p = _norm_type(func, norm_type)
        geometry = pool_geometry(
            func, rank, x.shape, kernel_size, stride=stride, padding=padding, ceil_mode=ceil_mode, layout=layout
        )
        known = p, _count(geometry)
        if known[1].size <= _KEPT:
            _known.remember(key, known)
    return known


def lp_pool(
    rank: int, x: Any, norm_type: Any, kernel_size: Any, stride: Any, padding: Any, ceil_mode: Any,
    layout: Any, out: Array | None, backend: Any,
) -> Array:  # fmt: skip
    func = f"lp_pool{rank}d"
    x = real_array(func, "x", x)
    p, count = _checked(func, rank, x, norm_type, kernel_size, stride, padding, ceil_mode, layout)
    with np.errstate(all="ignore"):
        size = _magnitude(x)
        if p == math.inf:
            y = max_pool(rank, size, kernel_size, stride, padding, 1, ceil_mode, layout, None, backend, func)
            y = np.where(y < 0, 0.0, y)  # a window of padding alone
        else:
            mean = avg_pool(
                rank, _power(size, p), kernel_size, stride, padding, ceil_mode, True, layout, None, backend, func
            )
            y = _power(mean * count, 1 / p)
        out = new_or_checked(func, out, y.shape, float_dtype(x), (x,))
        out[...] = y
    return out


def lp_pool_backward(
    rank: int, grad_output: Any, x: Any, norm_type: Any, kernel_size: Any, stride: Any, padding: Any, ceil_mode: Any,
    layout: Any, out: Array | None, backend: Any,
) -> Array:  # fmt: skip
    func = f"lp_pool{rank}d_backward"
    x = real_array(func, "x", x)
    gradient = real_array(func, "grad_output", grad_output)
    p, count = _checked(func, rank, x, norm_type, kernel_size, stride, padding, ceil_mode, layout)
    wide = x.astype(np.float64)
    y = lp_pool(rank, wide, p, kernel_size, stride, padding, ceil_mode, layout, None, backend)
    check_grad(func, gradient, y.shape)
    out = new_or_checked(func, out, x.shape, float_dtype(gradient, x), (gradient, x))
    size, dy = np.abs(wide), gradient.astype(np.float64)
    with np.errstate(all="ignore"):
        if p == math.inf:
            dx = max_pool_backward(
                rank, dy, size, kernel_size, stride, padding, 1, ceil_mode, layout, "first", None, backend, func
            )
            out[...] = dx * np.sign(wide)
            return out
        # d y / d x = y**(1 - p) * |x|**(p - 1) * sign(x); where y is zero, so is every x of its window
        share = np.where(y == 0, 0.0, dy * _power(y, 1 - p)) * count
        dx = avg_pool_backward(
            rank, share, wide, kernel_size, stride, padding, ceil_mode, True, layout, None, backend, func
        )
        out[...] = np.where(wide == 0, 0.0, dx * _power(size, p - 1) * np.sign(wide))
    return out
