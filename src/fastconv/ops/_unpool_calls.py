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
from ._repeated import Bounded, call_key

__all__ = ["max_unpool", "max_unpool_backward"]


def _indices(func: str, indices: Any) -> Array:
    array = real_array(func, "indices", indices)
    if array.dtype.kind not in "iu":
        raise DTypeError(f"{func}: indices must hold integers, received dtype {array.dtype}")
    return array.astype(np.int64, copy=False)


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


class _Places:
    """Where values of one shape stand in arrays whose planes have so many positions."""

    def __init__(self, shape: tuple[int, ...], rank: int, sizes: tuple[int, ...], last: bool) -> None:
        head, channels = shape[: len(shape) - rank - 1], shape[-1 if last else -rank - 1]
        self.rank, self.last, self.plane = rank, last, math.prod(sizes)
        self.shape = (*head, *sizes, channels) if last else (*head, channels, *sizes)
        self.step = channels if last else 1  # from one position of a plane to the next
        images = np.arange(math.prod(head)).reshape(*head, *(1,) * (rank + 1)) * (self.plane * channels)
        within = np.arange(channels) if last else np.arange(channels).reshape(-1, *(1,) * rank) * self.plane
        self.first = images + within  # of each plane

    def check(self, func: str, indices: Array) -> bool:
        """Refuse indices outside the plane; whether none of them goes nowhere (-1)."""
        if not indices.size or indices.view(np.uint64).max() < self.plane:
            return True
        if indices.min() < -1 or indices.max() >= self.plane:
            raise GeometryError(
                f"{func}: indices must lie between -1 and {self.plane - 1}, received {indices.min()} to {indices.max()}"
            )
        return False

    def flat(self, indices: Array) -> Array:
        """Flat positions in an array of all planes."""
        found: Array = (indices if self.step == 1 else indices * self.step) + self.first
        return found


_known = Bounded[_Places]()


def max_unpool(
    rank: int, x: Any, indices: Any, kernel_size: Any, stride: Any, padding: Any, output_size: Any,
    layout: Any, out: Array | None, backend: Any,
) -> Array:  # fmt: skip
    func = f"max_unpool{rank}d"
    runs_on = registry.active() if backend is None else registry.get_backend(backend)
    key = call_key((rank, kernel_size, stride, padding, output_size), (layout,), x, indices)
    array, found = native(real_array(func, "x", x)), _indices(func, indices)
    places = _known.recall(key)
    if places is None:
        geometry = pool_geometry(func, rank, array.shape, 1, layout=layout)
        last = geometry.channels_last
        if found.shape != array.shape:
            raise GeometryError(f"{func}: indices must have the shape of x, {array.shape}, received {found.shape}")
        wanted = output_size
        if last and wanted is not None and not isinstance(wanted, int) and len(wanted) > rank:
            wanted = tuple(wanted)[:-1]
        sizes = _output_size(func, rank, geometry.in_size[3 - rank :], (kernel_size, stride, padding), wanted)
        head = array.shape[: array.ndim - rank - 1]
        channels = geometry.channels
        check_size(func, "output", (*head, *sizes, channels) if last else (*head, channels, *sizes))
        places = _Places(array.shape, rank, tuple(sizes), last)
        _known.remember(key, places)
    everywhere = places.check(func, found)
    out = new_or_checked(func, out, places.shape, array.dtype, (array, found), backend=runs_on)
    result = out
    if not out.flags.c_contiguous:
        result = np.empty(out.shape, out.dtype)
    result[...] = 0
    where, values = places.flat(found), array
    if not everywhere:
        there = found >= 0
        where, values = where[there], array[there]
    result.reshape(-1)[where.reshape(-1)] = values.reshape(-1)  # in order: the last of a place stays
    if result is not out:
        out[...] = result
    return out


def max_unpool_backward(
    rank: int, grad_output: Any, indices: Any, layout: Any, out: Array | None, backend: Any
) -> Array:
    func = f"max_unpool{rank}d_backward"
    runs_on = registry.active() if backend is None else registry.get_backend(backend)
    key = call_key((rank,), (layout,), grad_output, indices)
    gradient, found = native(real_array(func, "grad_output", grad_output)), _indices(func, indices)
    places = _known.recall(key)
    if places is None:
        geometry = pool_geometry(func, rank, gradient.shape, 1, layout=layout)
        last = geometry.channels_last
        pool_geometry(func, rank, found.shape, 1, layout=layout)
        spatial = slice(gradient.ndim - rank - last, gradient.ndim - last)
        expected = list(gradient.shape)
        if found.ndim == gradient.ndim:
            expected[spatial] = found.shape[spatial]
        if found.shape != tuple(expected):
            raise GeometryError(
                f"{func}: indices of shape {found.shape} and grad_output of shape {gradient.shape} differ outside "
                "their spatial axes"
            )
        places = _Places(found.shape, rank, geometry.in_size[3 - rank :], last)
        _known.remember(key, places)
    everywhere = places.check(func, found)
    out = new_or_checked(func, out, found.shape, float_dtype(gradient), (gradient, found), backend=runs_on)
    taken = gradient.reshape(-1)[places.flat(found if everywhere else np.maximum(found, 0))]
    out[...] = taken if everywhere else np.where(found < 0, 0, taken)
    return out
