"""The ``cython`` backend: typed loops, compiled ahead of time, single-threaded.

This file adapts: it hands geometry, arrays and scratch rows to the kernels in conv.pyx, pool.pyx and pad.pyx.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...geometry import ConvGeometry, PadGeometry, PoolGeometry, Size, axis_sources
from ..protocol import FLOATS, Algorithm, Array, Backend
from . import conv, pad, pool

__all__ = ["CythonBackend"]

_INTEGERS = tuple(np.dtype(f"{kind}{size}") for kind in "iu" for size in (1, 2, 4, 8))


def _planes(array: Array) -> Array:
    """Data as (N*C, D, H, W)."""
    return array.reshape(-1, *array.shape[2:])


def _before(geometry: ConvGeometry | PoolGeometry) -> Size:
    (a, _), (b, _), (c, _) = geometry.padding
    return a, b, c


def _window(geometry: PoolGeometry) -> tuple[Size, Size, Size, Size]:
    return geometry.kernel, geometry.stride, geometry.dilation, _before(geometry)


def _least(dtype: np.dtype[Any]) -> Array:
    """What every number of this dtype is at least, as one element."""
    return np.array([-np.inf if dtype.kind == "f" else np.iinfo(dtype).min], dtype)


def _counts(geometry: PoolGeometry) -> tuple[Array, Array, Array]:
    return geometry.window_counts(0), geometry.window_counts(1), geometry.window_counts(2)


def _five(array: Array) -> Array:
    """The array with five axes, those of length one in front."""
    return array.reshape((1,) * (5 - array.ndim) + array.shape)


def _sources(geometry: PadGeometry) -> tuple[Array, Array, Array, Array, Array]:
    """For every position along each of five axes, where it is copied from."""
    ones = 5 - len(geometry.in_shape)
    sizes, pads = (1,) * ones + geometry.in_shape, ((0, 0),) * ones + geometry.pads
    a, b, c, d, e = (axis_sources(n, p, geometry.mode) for n, p in zip(sizes, pads, strict=True))
    return a, b, c, d, e


def _last_before(geometry: PadGeometry) -> int:
    """How much is padded before the data of a row."""
    return geometry.pads[-1][0] if geometry.pads else 0


class CythonBackend(Backend):
    """Convolution, pooling and padding in loops that Cython compiled; channels first."""

    name = "cython"
    max_pool_dtypes = (*FLOATS, *_INTEGERS)

    def algorithms(self) -> Sequence[Algorithm]:
        """One: the loops of the definition, in another order."""
        return (Algorithm("direct"),)

    def conv(
        self, geometry: ConvGeometry, x: Array, weight: Array, bias: Array | None,
        activation: str | None, out: Array, algorithm: str,
    ) -> None:  # fmt: skip
        """Cross-correlate; see the protocol."""
        g = geometry
        offsets = np.zeros(g.out_channels, out.dtype) if bias is None else bias
        conv.conv_forward(x, weight, offsets, out, g.out_channels // g.groups, g.stride, g.dilation, _before(g))

    def conv_backward_data(self, geometry: ConvGeometry, grad_output: Array, weight: Array, dx: Array) -> None:
        """Gradient with respect to the input."""
        g = geometry
        conv.conv_backward_data(
            grad_output, weight, dx, g.out_channels // g.groups, g.stride, g.dilation, _before(g)
        )  # fmt: skip

    def conv_backward_weight(
        self, geometry: ConvGeometry, grad_output: Array, x: Array, dw: Array, db: Array | None
    ) -> None:
        """Gradient with respect to the weight and the bias."""
        g = geometry
        totals = np.empty(g.kernel, np.float64)
        conv.conv_backward_weight(
            grad_output, x, dw, totals, g.out_channels // g.groups, g.stride, g.dilation, _before(g)
        )  # fmt: skip
        if db is not None:
            db[...] = grad_output.sum(axis=(0, 2, 3, 4), dtype=np.float64)

    def max_pool(self, geometry: PoolGeometry, x: Array, out: Array, indices: Array | None) -> None:
        """Maximum of every window."""
        planes, y, least, window = _planes(x), _planes(out), _least(x.dtype), _window(geometry)
        columns = np.empty(geometry.in_size[2], x.dtype)
        if indices is None:
            pool.max_pool(planes, y, least, columns, *window)
        else:
            rows = np.empty(geometry.in_size[2], np.int64)
            pool.max_pool_with_indices(planes, y, _planes(indices), least, columns, rows, *window)

    def max_pool_backward(self, geometry: PoolGeometry, grad_output: Array, x: Array, ties: str, dx: Array) -> None:
        """Gradient to the maxima."""
        dx[...] = 0
        width, out_width = geometry.in_size[2], geometry.out_size[2]
        pool.max_pool_backward(
            _planes(grad_output), _planes(x), _planes(dx), ties == "first", ties == "split", _least(x.dtype),
            np.empty(width, x.dtype), np.empty(width, np.int64), np.empty(out_width, x.dtype),
            np.empty(out_width, np.int64), *_window(geometry),
        )  # fmt: skip

    def avg_pool(self, geometry: PoolGeometry, x: Array, out: Array) -> None:
        """Mean of every window."""
        columns, sums = np.empty(geometry.in_size[2]), np.empty(geometry.out_size[2])
        pool.avg_pool(_planes(x), _planes(out), *_counts(geometry), columns, sums, *_window(geometry))

    def avg_pool_backward(self, geometry: PoolGeometry, grad_output: Array, dx: Array) -> None:
        """Gradient of the mean."""
        dx[...] = 0
        columns = np.empty(geometry.in_size[2], dx.dtype)
        pool.avg_pool_backward(
            _planes(grad_output), _planes(dx), *_counts(geometry), columns, *_window(geometry)
        )  # fmt: skip

    def pad(self, geometry: PadGeometry, x: Array, value: Array, out: Array) -> None:
        """Pad bits."""
        pad.pad(_five(x), int(value), _five(out), *_sources(geometry), _last_before(geometry))

    def pad_backward(self, geometry: PadGeometry, grad_output: Array, dx: Array) -> None:
        """Sum the gradients of all copies."""
        dx[...] = 0
        pad.pad_backward(_five(grad_output), _five(dx), *_sources(geometry), _last_before(geometry))

    def im2col(self, geometry: ConvGeometry, x: Array, out: Array) -> None:
        """Every window as a column."""
        g = geometry
        conv.im2col(_planes(x), _planes(out), g.stride, g.dilation, _before(g))

    def col2im(self, geometry: ConvGeometry, columns: Array, out: Array) -> None:
        """Add every column back."""
        g = geometry
        out[...] = 0
        conv.col2im(_planes(columns), _planes(out), g.stride, g.dilation, _before(g))
