"""Padding and windows as columns of the ``cpp`` backend: geometry to kernels, nothing else."""

from __future__ import annotations

from functools import lru_cache

from ...geometry import ConvGeometry, PadGeometry
from ..protocol import Array
from . import _core

__all__ = ["PadKernels"]


@lru_cache(maxsize=1024)
def _prepared(geometry: ConvGeometry) -> _core.Unfold:
    """The kernels' form of a geometry."""
    padding = geometry.padding
    return _core.Unfold(
        geometry.in_channels, geometry.in_size, geometry.kernel, geometry.stride, geometry.dilation,
        (padding[0][0], padding[1][0], padding[2][0]), geometry.out_size,
    )  # fmt: skip


class PadKernels:
    """The padding and unfolding of :class:`CppBackend`."""

    def bind_pad(
        self, geometry: PadGeometry, shape: tuple[int, ...], out_shape: tuple[int, ...], value: Array
    ) -> _core.PadCall:
        """The whole call in one step, result included."""
        return _core.PadCall(
            value.dtype, shape, out_shape, geometry.in_shape, geometry.out_shape, geometry.pads, geometry.mode, value
        )

    def pad(self, geometry: PadGeometry, x: Array, value: Array, out: Array) -> None:
        """Pad in one of five modes."""
        _core.pad(x, geometry.pads, geometry.mode, value, out)

    def pad_backward(self, geometry: PadGeometry, grad_output: Array, dx: Array) -> None:
        """Sum the gradients of all copies."""
        _core.pad_backward(grad_output, geometry.pads, geometry.mode, dx)

    def im2col(self, geometry: ConvGeometry, x: Array, out: Array) -> None:
        """Every window as a column."""
        _prepared(geometry).im2col(x, out)

    def col2im(self, geometry: ConvGeometry, columns: Array, out: Array) -> None:
        """Add every column back."""
        _prepared(geometry).col2im(columns, out)
