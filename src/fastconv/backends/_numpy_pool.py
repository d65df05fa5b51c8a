"""Pooling in NumPy: windows are boxes, so maxima and sums are taken along one axis after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..geometry import PoolGeometry
from ._numpy_windows import PaddedImages, axis_tap, chunks, is_channels_inner, new, taps
from .protocol import Array

__all__ = ["avg_pool", "avg_pool_backward", "max_pool", "max_pool_backward"]

# Bytes of images pooled at a time: they stay in cache from one axis to the next.
_IMAGES = 1 << 20


def _runs(geometry: PoolGeometry, x: Array) -> tuple[list[slice], int]:
    """Runs of images, and the length of the longest."""
    runs = list(chunks(len(x), int(np.prod(x.shape[1:])) * x.itemsize, _IMAGES))
    return runs, runs[0].stop if runs else 0


def _along(axis: int, positions: slice) -> tuple[Any, ...]:
    """An index of one spatial axis of five."""
    return (*(slice(None),) * (axis + 2), positions)


def _reduce(geometry: PoolGeometry, padded: Array, ufunc: np.ufunc) -> Array:
    """The ufunc over every window: over its width, then its height, then its depth."""
    for axis in (2, 1, 0):
        k, dilation = geometry.kernel[axis], geometry.dilation[axis]
        if geometry.out_size[axis] == 1:  # one window: one call, and for sums a tree instead of a chain
            padded = ufunc.reduce(
                padded[_along(axis, slice(0, (k - 1) * dilation + 1, dilation))], axis + 2, keepdims=True
            )
            continue
        total = padded[_along(axis, axis_tap(geometry, axis, 0))]
        if k > 1:
            total = ufunc(total, padded[_along(axis, axis_tap(geometry, axis, 1))])
        for tap in range(2, k):
            ufunc(total, padded[_along(axis, axis_tap(geometry, axis, tap))], out=total)
        padded = total
    return padded


def _least(dtype: np.dtype[Any]) -> Any:
    if dtype.kind == "f":
        return -np.inf
    return False if dtype.kind == "b" else np.iinfo(dtype).min


def _inside(geometry: PoolGeometry, t: tuple[int, int, int]) -> Array:
    """For every output position whether tap t lies inside the input, as (D', H', W')."""
    masks = []
    for axis, tap in enumerate(t):
        i = np.arange(geometry.out_size[axis]) * geometry.stride[axis] + tap * geometry.dilation[axis]
        i -= geometry.padding[axis][0]
        masks.append((i >= 0) & (i < geometry.in_size[axis]))
    inside: Array = masks[0][:, None, None] & masks[1][:, None] & masks[2]
    return inside


def _hits(geometry: PoolGeometry, padded: Array, maximum: Array, has_padding: bool) -> Callable[..., Array]:
    """The test of a tap: where it lies inside the input and is its window's maximum; NaNs are equal to each other."""
    nan = maximum != maximum
    has_nan = bool(nan.any())

    def hits(t: tuple[int, int, int], positions: tuple[Any, ...]) -> Array:
        view = padded[positions]
        hit: Array = view == maximum
        if has_nan:
            hit |= (view != view) & nan
        if has_padding:
            hit &= _inside(geometry, t)
        return hit

    return hits


def _flat_positions(geometry: PoolGeometry, t: tuple[int, int, int]) -> Array:
    """For every output position where tap t, if inside, lies in the flattened volume, as (D', H', W')."""
    axes = []
    for axis, tap in enumerate(t):
        i = np.arange(geometry.out_size[axis]) * geometry.stride[axis] + tap * geometry.dilation[axis]
        axes.append(i - geometry.padding[axis][0])
    d, h, w = np.ix_(*axes)
    flat: Array = (d * geometry.in_size[1] + h) * geometry.in_size[2] + w
    return flat


def max_pool(geometry: PoolGeometry, x: Array, out: Array, indices: Array | None) -> None:
    """As the protocol says; the index of the first maximum stays, since taps write theirs from the last on."""
    runs, count = _runs(geometry, x)
    images = PaddedImages(geometry, x, count, _least(x.dtype))
    for run in runs:
        padded = images.load(x[run])
        maximum = _reduce(geometry, padded, np.maximum)
        out[run] = maximum
        if indices is None:
            continue
        at, hits = indices[run], _hits(geometry, padded, maximum, images.needed)
        at[...] = -1
        for t, positions in reversed(list(taps(geometry))):
            np.copyto(at, _flat_positions(geometry, t), where=hits(t, positions))


def max_pool_backward(geometry: PoolGeometry, grad_output: Array, x: Array, ties: str, dx: Array) -> None:
    """As the protocol says: tap by tap, the gradient of the windows whose maximum the tap is."""
    runs, count = _runs(geometry, x)
    images, sums = PaddedImages(geometry, x, count, _least(x.dtype)), PaddedImages(geometry, dx, count)
    for run in runs:
        padded = images.load(x[run])
        maximum = _reduce(geometry, padded, np.maximum)
        hits = _hits(geometry, padded, maximum, images.needed)
        total, share = sums.buffer(run.stop - run.start), grad_output[run]
        if ties == "split":
            tied = sum(hits(t, positions).astype(np.int64) for t, positions in taps(geometry))
            share = share / np.maximum(tied, 1).astype(dx.dtype)
        taken = np.zeros(maximum.shape, bool) if ties == "first" else None
        for t, positions in taps(geometry):
            hit = hits(t, positions)
            if taken is not None:
                hit &= ~taken
                taken |= hit
            total[positions] += np.where(hit, share, 0)
        dx[run] = total[sums.inner]


def _counts(geometry: PoolGeometry, dtype: np.dtype[Any]) -> Array:
    """What each output position is divided by; a window that counts nothing sums to zero, and is divided by one."""
    d, h, w = np.ix_(*(geometry.window_counts(axis) for axis in range(3)))
    counts: Array = np.maximum(d * h * w, 1).astype(dtype)
    return counts


def avg_pool(geometry: PoolGeometry, x: Array, out: Array) -> None:
    """As the protocol says."""
    runs, count = _runs(geometry, x)
    images, counts = PaddedImages(geometry, x, count), _counts(geometry, x.dtype)
    for run in runs:
        np.divide(_reduce(geometry, images.load(x[run]), np.add), counts, out=out[run])


def avg_pool_backward(geometry: PoolGeometry, grad_output: Array, dx: Array) -> None:
    """As the protocol says: each share is spread over the depth, then the height, then the width of its window."""
    runs, count = _runs(geometry, dx)
    sums, counts = PaddedImages(geometry, dx, count), _counts(geometry, dx.dtype)
    for run in runs:
        spread = grad_output[run] / counts
        for axis in range(3):
            shape = list(spread.shape)
            shape[axis + 2] = sums.size[axis]
            wider = new(tuple(shape), dx.dtype, is_channels_inner(dx))
            wider[...] = 0
            for tap in range(geometry.kernel[axis]):
                wider[_along(axis, axis_tap(geometry, axis, tap))] += spread
            spread = wider
        dx[run] = spread[sums.inner]
