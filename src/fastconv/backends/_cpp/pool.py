"""Max and average pooling of the ``cpp`` backend: geometry to kernels, nothing else."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from ...geometry import PoolGeometry
from ..protocol import FLOATS, Array
from . import _core

__all__ = ["MAX_POOL_DTYPES", "PoolKernels"]

MAX_POOL_DTYPES: tuple[np.dtype[Any], ...] = (
    *FLOATS,
    *(np.dtype(f"{kind}{size}") for kind in "iu" for size in (1, 2, 4, 8)),
)


@lru_cache(maxsize=1024)
def _prepared(geometry: PoolGeometry, counted: bool) -> _core.Pool:
    """The kernels' form of a geometry; with what an average divides by where that is wanted."""
    counts = [geometry.window_counts(axis) if counted else np.empty(0, np.int64) for axis in range(3)]
    padding = geometry.padding
    return _core.Pool(
        geometry.channels_last, geometry.channels, geometry.in_size, geometry.kernel, geometry.stride,
        geometry.dilation, (padding[0][0], padding[1][0], padding[2][0]), geometry.out_size, counts,
        geometry.adaptive,
    )  # fmt: skip


class PoolKernels:
    """The pooling of :class:`CppBackend`."""

    def bind_pool(self, geometry: PoolGeometry, dtypes: tuple[np.dtype[Any], ...], average: bool) -> _core.PoolCall:
        """The whole call in one step, result included."""
        return _core.PoolCall(_prepared(geometry, average), average, geometry.rank, dtypes)

    def bind_pool_backward(
        self, geometry: PoolGeometry, dtypes: tuple[np.dtype[Any], ...], ties: str | None
    ) -> _core.PoolBackwardCall:
        """The whole call in one step, result included."""
        return _core.PoolBackwardCall(_prepared(geometry, ties is None), ties, geometry.rank, dtypes)

    def max_pool(self, geometry: PoolGeometry, x: Array, out: Array, indices: Array | None) -> None:
        """Maximum of every window, with its flat index where wanted."""
        _prepared(geometry, False).max(x, out, indices)

    def max_pool_backward(self, geometry: PoolGeometry, grad_output: Array, x: Array, ties: str, dx: Array) -> None:
        """Gradient to the maxima, which are found again in ``x``."""
        _prepared(geometry, False).max_backward(grad_output, x, ties, dx)

    def avg_pool(self, geometry: PoolGeometry, x: Array, out: Array) -> None:
        """Mean of every window."""
        _prepared(geometry, True).average(x, out)

    def avg_pool_backward(self, geometry: PoolGeometry, grad_output: Array, dx: Array) -> None:
        """Gradient of the mean."""
        _prepared(geometry, True).average_backward(grad_output, dx)
