"""Windows of padded images as NumPy views, and the few loops over taps that convolution and pooling share.

Arrays are seen with five axes (N, C, D, H, W), whatever their order in memory: buffers are laid out as the array they
stand in for, channels first or last, so that the inner loops of NumPy run along memory in both layouts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ..geometry import ConvGeometry, PoolGeometry
from .protocol import Array

__all__ = [
    "PaddedImages",
    "Slices",
    "at",
    "axis_tap",
    "blocks",
    "chunks",
    "is_channels_inner",
    "new",
    "taps",
    "windows",
]

Slices = tuple[slice, slice, slice]
_Geometry = ConvGeometry | PoolGeometry


def at(*index: Any) -> tuple[Any, ...]:
    """An index from its parts."""
    return index


def is_channels_inner(array: Array) -> bool:
    """Whether channels lie closer together in memory than positions along the width."""
    return array.shape[1] > 1 and abs(array.strides[1]) < abs(array.strides[4])


def new(shape: tuple[int, ...], dtype: np.dtype[Any], channels_inner: bool) -> Array:
    """An uninitialised array of five axes, its channels last in memory if asked."""
    if not channels_inner:
        return np.empty(shape, dtype)
    n, c, *size = shape
    empty: Array = np.empty((n, *size, c), dtype).transpose(0, 4, 1, 2, 3)
    return empty


def chunks(batch: int, bytes_per_image: int, budget: int) -> Iterator[slice]:
    """The batch in runs of images that fit the budget, at least one at a time."""
    step = max(1, budget // max(1, bytes_per_image))
    return (slice(i, min(i + step, batch)) for i in range(0, batch, step))


def blocks(size: tuple[int, int, int], positions: int) -> Iterator[Slices]:
    """The output of one image in boxes of about ``positions`` positions: whole rows and planes where they fit."""
    _, h, w = size
    steps = (max(1, positions // (h * w)), max(1, positions // w), max(1, positions))
    runs = [[slice(i, min(i + step, n)) for i in range(0, n, step)] for n, step in zip(size, steps, strict=True)]
    return ((a, b, c) for a in runs[0] for b in runs[1] for c in runs[2])


def axis_tap(geometry: _Geometry, axis: int, tap: int) -> slice:
    """Where one tap lies along one axis of the padded image, for every output position."""
    first, s = tap * geometry.dilation[axis], geometry.stride[axis]
    return slice(first, first + (geometry.out_size[axis] - 1) * s + 1, s)


def taps(geometry: _Geometry) -> Iterator[tuple[tuple[int, int, int], tuple[Any, ...]]]:
    """Every tap in row-major order, and the index of its positions in padded images of five axes."""
    for t in np.ndindex(*geometry.kernel):
        yield (t[0], t[1], t[2]), (..., *(axis_tap(geometry, axis, i) for axis, i in enumerate(t)))


def windows(geometry: ConvGeometry, padded: Array) -> Array:
    """All windows of padded images, as a view (N, C, kd, kh, kw, D', H', W')."""
    spans = [d * (k - 1) + 1 for k, d in zip(geometry.kernel, geometry.dilation, strict=True)]
    view = sliding_window_view(padded, spans, axis=(2, 3, 4))
    axes = zip(geometry.out_size, geometry.stride, strict=True)
    positions = tuple(slice(0, (n - 1) * s + 1, s) for n, s in axes)
    index = (slice(None), slice(None), *positions, *(slice(None, None, d) for d in geometry.dilation))
    result: Array = view[index].transpose(0, 1, 5, 6, 7, 2, 3, 4)
    return result


class PaddedImages:
    """A buffer for a few images in the midst of their padding; images that need none are used as they are.

    ``like`` gives channels, dtype and order in memory; the buffer reaches as far as the last window does.
    """

    def __init__(self, geometry: _Geometry, like: Array, count: int, fill: Any = 0) -> None:
        extents = [
            (n - 1) * s + d * (k - 1) + 1
            for n, k, s, d in zip(geometry.out_size, geometry.kernel, geometry.stride, geometry.dilation, strict=True)
        ]
        axes = list(zip(geometry.in_size, geometry.padding, extents, strict=True))
        self.size = tuple(max(lo + n, extent) for n, (lo, _), extent in axes)
        self.inner = at(..., *(slice(lo, lo + n) for n, (lo, _), _ in axes))
        self.needed = self.size != tuple(geometry.in_size)
        self._like, self._shape, self._fill = like, (count, like.shape[1], *self.size), fill
        self._buffer: Array | None = None

    def load(self, x: Array, copy: bool = False) -> Array:
        """Images in their padding: ``x`` itself where there is none (unless a copy is asked for)."""
        if not (self.needed or copy):
            return x
        padded = self.buffer(len(x), fresh=False)
        padded[self.inner] = x
        return padded

    def buffer(self, count: int, fresh: bool = True) -> Array:
        """The buffer for ``count`` images; filled anew if ``fresh``, as a sum to add to must be."""
        if self._buffer is None:
            self._buffer = new(self._shape, self._like.dtype, is_channels_inner(self._like))
            fresh = True
        if fresh:
            self._buffer[...] = self._fill
        return self._buffer[:count]
