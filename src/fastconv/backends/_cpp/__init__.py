"""The product: kernels of ``csrc/`` through pybind11; the default where they are built.

One file per topic adapts geometry to the compiled functions; ``_core.pyi`` types the compiled module.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...geometry import PADDING_MODES
from ..protocol import ACTIVATIONS, Array, Backend
from . import _core
from .conv import ConvKernels
from .grad import GradKernels
from .pad import PadKernels
from .pool import MAX_POOL_DTYPES, PoolKernels
from .training import TrainingKernels

__all__ = ["CppBackend"]

_CACHED_FROM = 256 * 1024  # bytes; below it NumPy's own cache serves


class CppBackend(ConvKernels, GradKernels, PoolKernels, PadKernels, TrainingKernels, Backend):
    """SIMD kernels, threads, many algorithms, plans."""

    name = "cpp"
    layouts = ("channels_first", "channels_last")
    padding_modes = PADDING_MODES
    activations = ACTIVATIONS
    fuses_add = True
    fuses_transposed = True
    any_strides = False
    max_pool_dtypes = MAX_POOL_DTYPES
    adaptive_windows = True

    def set_num_threads(self, count: int) -> None:
        """Use at most ``count`` threads, the caller among them."""
        _core.set_num_threads(count)

    def empty(self, shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
        """A new array; large ones take their memory from the cache of freed results."""
        if math.prod(shape) * dtype.itemsize < _CACHED_FROM:
            return np.empty(shape, dtype)
        return _core.empty(shape, dtype)

    def cast(self, array: Array, into: Array) -> None:
        """Write ``array`` into one of another dtype; float16 by a kernel, since NumPy takes ten times as long."""
        if {array.dtype.char, into.dtype.char} == {"e", "f"} and _plain(array) and _plain(into):
            _core.cast_half(array, into)
        else:
            super().cast(array, into)

    def release_scratch(self) -> None:
        """Free the scratch of idle threads and the cache of freed outputs."""
        _core.release_scratch()

    def multiply_add_gflops(self, seconds: float) -> float:
        """The best rate of multiply-adds on registers seen within so many seconds, on the calling thread."""
        return _core.multiply_add_gflops(seconds)

    def cached_product_gflops(self) -> float:
        """The rate of a small cached matrix product right now; it falls when the machine is disturbed."""
        return _core.cached_product_gflops()

    def config(self) -> dict[str, Any]:
        """Instruction set in use, those that could be, vector width, caches, threads and memory held."""
        l1, l2 = _core.cache_bytes()
        return {
            "isa": _core.isa(),
            "isas": _core.isas(),
            "vector_bytes": _core.vector_bytes(),
            "l1_bytes": l1,
            "l2_bytes": l2,
            "threads": _core.get_num_threads(),
            "scratch_bytes": _core.scratch_bytes(),
            "cached_block_bytes": _core.cached_block_bytes(),
        }


def _plain(array: Array) -> bool:
    """Whether the kernels read it as it lies in memory."""
    return bool(array.flags.c_contiguous and array.flags.aligned and array.dtype.isnative)
