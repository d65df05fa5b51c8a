"""The ``numba`` backend: plain loops, compiled when first used; fast without a compiler.

This file adapts: it hands geometry and arrays to the kernels in conv.py, pool.py and pad.py. How those are compiled
and spread over threads stands in policy.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numba
import numpy as np

from ...geometry import ConvGeometry, PadGeometry, PoolGeometry, axis_sources
from ..protocol import FLOATS, Algorithm, Array, Backend
from . import conv, pad, pool
from .policy import Threads

__all__ = ["NumbaBackend"]

_INTEGERS = tuple(np.dtype(f"{kind}{size}") for kind in "iu" for size in (1, 2, 4, 8))


def _read(array: Array) -> Array:
    """A read-only view: kernels are compiled once, not once more for inputs that the user has made read-only."""
    view: Array = array.view()
    view.flags.writeable = False
    return view


def _planes(array: Array) -> Array:
    """Data as (N*C, D, H, W)."""
    return array.reshape(-1, *array.shape[2:])


def _before(geometry: ConvGeometry | PoolGeometry) -> tuple[int, int, int]:
    (a, _), (b, _), (c, _) = geometry.padding
    return a, b, c


def _least(dtype: np.dtype[Any]) -> Any:
    """What every number of this dtype is at least."""
    return dtype.type(-np.inf) if dtype.kind == "f" else dtype.type(np.iinfo(dtype).min)


class NumbaBackend(Backend):
    """Convolution, pooling and padding in loops that numba compiles; channels first."""

    name = "numba"
    max_pool_dtypes = (*FLOATS, *_INTEGERS)

    def __init__(self) -> None:
        self._threads = Threads()

    def set_num_threads(self, count: int) -> None:
        """Use at most ``count`` threads from now on."""
        self._threads.set_count(count)

    def config(self) -> dict[str, Any]:
        """The version of numba, and the number of threads."""
        return {"numba": numba.__version__, "threads": self._threads.count}

    def algorithms(self) -> Sequence[Algorithm]:
        """One: the loops of the definition, in another order."""
        return (Algorithm("direct"),)

    def conv(
        self, geometry: ConvGeometry, x: Array, weight: Array, bias: Array | None,
        activation: str | None, out: Array, algorithm: str,
    ) -> None:  # fmt: skip
        """Cross-correlate; see the protocol."""
        g, batch = geometry, x.shape[0]
        offsets = np.zeros(g.out_channels, out.dtype) if bias is None else bias
        self._threads.run(
            conv.conv_forward, batch * g.out_channels * math.prod(g.out_size[:2]), g.flops(batch) // 8,
            _read(x), _read(weight), _read(offsets), out, g.out_channels // g.groups, g.stride, g.dilation, _before(g),
        )  # fmt: skip

    def conv_backward_data(self, geometry: ConvGeometry, grad_output: Array, weight: Array, dx: Array) -> None:
        """Gradient with respect to the input."""
        g, batch = geometry, dx.shape[0]
        self._threads.run(
            conv.conv_backward_data, batch * g.in_channels * math.prod(g.in_size[:2]), g.flops(batch) // 8,
            _read(grad_output), _read(weight), dx, g.out_channels // g.groups, g.stride, g.dilation, _before(g),
        )  # fmt: skip

    def conv_backward_weight(
        self, geometry: ConvGeometry, grad_output: Array, x: Array, dw: Array, db: Array | None
    ) -> None:
        """Gradient with respect to the weight and the bias."""
        g = geometry
        self._threads.run(
            conv.conv_backward_weight, math.prod(dw.shape[:2]), g.flops(x.shape[0]) // 8,
            _read(grad_output), _read(x), dw, max(1, g.out_channels // g.groups), g.stride, g.dilation, _before(g),
        )  # fmt: skip
        if db is not None:
            db[...] = grad_output.sum(axis=(0, 2, 3, 4), dtype=np.float64)

    def max_pool(self, geometry: PoolGeometry, x: Array, out: Array, indices: Array | None) -> None:
        """Maximum of every window."""
        g, y = geometry, _planes(out)
        window = (_least(x.dtype), g.kernel, g.stride, g.dilation, _before(g))
        jobs, work = math.prod(y.shape[:3]), out.size * math.prod(g.kernel)
        if indices is None:
            self._threads.run(pool.max_pool, jobs, work // 4, _read(_planes(x)), y, *window)
        else:
            self._threads.run(pool.max_pool_with_indices, jobs, work, _read(_planes(x)), y, _planes(indices), *window)

    def max_pool_backward(self, geometry: PoolGeometry, grad_output: Array, x: Array, ties: str, dx: Array) -> None:
        """Gradient to the maxima."""
        g, planes = geometry, _planes(x)
        self._threads.run(
            pool.max_pool_backward, planes.shape[0], grad_output.size * math.prod(g.kernel),
            _read(_planes(grad_output)), _read(planes), _planes(dx), _least(x.dtype),
            ties == "first", ties == "split", g.kernel, g.stride, g.dilation, _before(g),
        )  # fmt: skip

    def avg_pool(self, geometry: PoolGeometry, x: Array, out: Array) -> None:
        """Mean of every window."""
        g, y = geometry, _planes(out)
        self._threads.run(
            pool.avg_pool, math.prod(y.shape[:3]), out.size * math.prod(g.kernel) // 4, _read(_planes(x)), y,
            _counts(g), g.kernel, g.stride, g.dilation, _before(g),
        )  # fmt: skip

    def avg_pool_backward(self, geometry: PoolGeometry, grad_output: Array, dx: Array) -> None:
        """Gradient of the mean."""
        g, planes = geometry, _planes(dx)
        self._threads.run(
            pool.avg_pool_backward, planes.shape[0], grad_output.size * math.prod(g.kernel) // 4,
            _read(_planes(grad_output)), planes, _counts(g), g.kernel, g.stride, g.dilation, _before(g),
        )  # fmt: skip

    def pad(self, geometry: PadGeometry, x: Array, value: Array, out: Array) -> None:
        """Pad bits."""
        source, target = _five(x), _five(out)
        self._threads.run(
            pad.pad, math.prod(target.shape[:4]), out.size // 8,
            _read(source), value[()], target, _sources(geometry), _last_before(geometry),
        )  # fmt: skip

    def pad_backward(self, geometry: PadGeometry, grad_output: Array, dx: Array) -> None:
        """Sum the gradients of all copies."""
        dx[...] = 0
        source, target = _five(grad_output), _five(dx)
        # only an unpadded first axis keeps the shares from writing to the same place
        alone = len(geometry.pads) == 5 and geometry.pads[0] != (0, 0)
        work = 0 if alone else grad_output.size // 4
        self._threads.run(
            pad.pad_backward, source.shape[0], work, _read(source), target, _sources(geometry), _last_before(geometry)
        )  # fmt: skip

    def im2col(self, geometry: ConvGeometry, x: Array, out: Array) -> None:
        """Every window as a column."""
        g, planes, columns = geometry, _planes(x), _planes(out)
        self._threads.run(
            conv.im2col, planes.shape[0], out.size // 4, _read(planes), columns, g.stride, g.dilation, _before(g)
        )  # fmt: skip

    def col2im(self, geometry: ConvGeometry, columns: Array, out: Array) -> None:
        """Add every column back."""
        g, planes = geometry, _planes(columns)
        self._threads.run(
            conv.col2im, planes.shape[0], columns.size // 4,
            _read(planes), _planes(out), g.stride, g.dilation, _before(g),
        )  # fmt: skip


def _counts(geometry: PoolGeometry) -> tuple[Array, Array, Array]:
    return geometry.window_counts(0), geometry.window_counts(1), geometry.window_counts(2)


def _five(array: Array) -> Array:
    """The array with five axes, those of length one in front."""
    return array.reshape((1,) * (5 - array.ndim) + array.shape)


def _sources(geometry: PadGeometry) -> tuple[Array, ...]:
    """For every position along each of five axes, where it is copied from."""
    ones = 5 - len(geometry.in_shape)
    sizes, pads = (1,) * ones + geometry.in_shape, ((0, 0),) * ones + geometry.pads
    return tuple(axis_sources(n, p, geometry.mode) for n, p in zip(sizes, pads, strict=True))


def _last_before(geometry: PadGeometry) -> int:
    """How much is padded before the data of a row."""
    return geometry.pads[-1][0] if geometry.pads else 0
