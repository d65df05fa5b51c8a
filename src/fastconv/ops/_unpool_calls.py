"""Max unpooling by NumPy's own indexing: values go to places, nothing is computed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..backends import registry
from ..backends.protocol import Array
from ..errors import DTypeError, GeometryError
from ..geometry import AXES, check_size, ntuple, pool_geometry
from ._arrays import float_dtype, native, new_or_checked, real_array

__all__ = ["max_unpool", "max_unpool_backward"]


def _indices(func: str, indices: Any) -> Array:
    array = real_array(func, "indices", indices)
    if array.dtype.kind not in "iu":
        raise DTypeError(f"{func}: indices must hold integers, received dtype {array.dtype}")
    return array.astype(np.int64)


def _check_range(func: str, indices: Array, plane: int) -> None:
    if indices.size and (indices.min() < -1 or indices.max() >= plane):
        raise GeometryError(
            f"{func}: indices must lie between -1 and {plane - 1}, received {indices.min()} to {indices.max()}"
        )


def _output_size(func: str, rank: int, sizes: tuple[int, ...], args: tuple[Any, Any, Any], wanted: Any) -> list[int]:
    """Spatial size of the result: the smallest that pools to ``sizes``, or the wanted one if it does so too."""
    kernel = ntuple(func, "kernel_size", args[0], rank)
    stride = kernel if args[1] is None else ntuple(func, "stride", args[1], rank)
    pads = ntuple(func, "padding", args[2], rank, 0)
    usual = [(n - 1) * s - 2 * p + k for n, k, s, p in zip(sizes, kernel, stride, pads, strict=True)]
    names = AXES[3 - rank :]
    if wanted is None:
        for name, n in zip(names, usual, strict=True):
            if n < 1:
                raise GeometryError(f"{func}: the result would have {n} positions along {name}")
        return usual
    given = list(ntuple(func, "output_size", tuple(wanted)[-rank:] if not isinstance(wanted, int) else wanted, rank))
    for name, n, u, s in zip(names, given, usual, stride, strict=True):
        if not u - s < n < u + s:
            raise GeometryError(
                f"{func}: output_size along {name} must be between {max(1, u - s + 1)} and {u + s - 1}, received {n}"
            )
    return given


def max_unpool(
    rank: int, x: Any, indices: Any, kernel_size: Any, stride: Any, padding: Any, output_size: Any,
    layout: Any, out: Array | None, backend: Any,
) -> Array:  # fmt: skip
    func = f"max_unpool{rank}d"
    _ = registry.active() if backend is None else registry.get_backend(backend)
    array, places = native(real_array(func, "x", x)), _indices(func, indices)
    geometry = pool_geometry(func, rank, array.shape, 1, layout=layout)
    last = geometry.channels_last
    if places.shape != array.shape:
        raise GeometryError(f"{func}: indices must have the shape of x, {array.shape}, received {places.shape}")
    if last and output_size is not None and not isinstance(output_size, int) and len(output_size) > rank:
        output_size = tuple(output_size)[:-1]
    sizes = _output_size(func, rank, geometry.in_size[3 - rank :], (kernel_size, stride, padding), output_size)
    head = array.shape[: array.ndim - rank - 1]
    shape = (*head, *sizes, geometry.channels) if last else (*head, geometry.channels, *sizes)
    check_size(func, "output", shape)
    plane = math.prod(sizes)
    _check_range(func, places, plane)
    out = new_or_checked(func, out, shape, array.dtype, (array,))
    source, where = (_planes(a, rank, last) for a in (array, places))
    # one place more than the plane holds takes what goes nowhere
    flat = np.zeros((source.shape[0], plane + 1), array.dtype)
    np.put_along_axis(flat, where % (plane + 1), source, 1)
    body = flat[:, :plane].reshape(*head, geometry.channels, *sizes)
    out[...] = np.moveaxis(body, -rank - 1, -1) if last else body
    return out


def max_unpool_backward(
    rank: int, grad_output: Any, indices: Any, layout: Any, out: Array | None, backend: Any
) -> Array:
    func = f"max_unpool{rank}d_backward"
    _ = registry.active() if backend is None else registry.get_backend(backend)
    gradient, places = native(real_array(func, "grad_output", grad_output)), _indices(func, indices)
    geometry = pool_geometry(func, rank, gradient.shape, 1, layout=layout)
    last = geometry.channels_last
    pool_geometry(func, rank, places.shape, 1, layout=layout)
    spatial = slice(gradient.ndim - rank - last, gradient.ndim - last)
    expected = list(gradient.shape)
    if places.ndim == gradient.ndim:
        expected[spatial] = places.shape[spatial]
    if places.shape != tuple(expected):
        raise GeometryError(
            f"{func}: indices of shape {places.shape} and grad_output of shape {gradient.shape} differ outside their "
            "spatial axes"
        )
    plane = math.prod(geometry.in_size)
    _check_range(func, places, plane)
    out = new_or_checked(func, out, places.shape, float_dtype(gradient), (gradient,))
    source, where = (_planes(a, rank, last) for a in (gradient, places))
    taken = np.where(where < 0, 0, np.take_along_axis(source, where, 1))
    body = np.moveaxis(places, -1, -rank - 1) if last else places
    back = taken.reshape(body.shape)
    out[...] = np.moveaxis(back, -rank - 1, -1) if last else back
    return out


def _planes(array: Array, rank: int, last: bool) -> Array:
    """One row for each image and channel."""
    if last:
        array = np.moveaxis(array, -1, -rank - 1)
    head = array.shape[: array.ndim - rank]
    return array.reshape(math.prod(head), math.prod(array.shape[array.ndim - rank :]))
