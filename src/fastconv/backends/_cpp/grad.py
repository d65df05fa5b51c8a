"""Gradients of convolution in the cpp backend: geometry to compiled problem, phases and choices cached by key."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from ...geometry import ConvGeometry
from ..protocol import Array
from . import _core
from .conv import compiled_problem, computed_in

__all__ = ["GradKernels"]


@lru_cache(maxsize=1024)
def _backward_data(geometry: ConvGeometry, dtype: np.dtype[Any]) -> _core.ConvBackwardData:
    return _core.ConvBackwardData(compiled_problem(geometry), dtype)


class GradKernels:
    """The gradients of convolution of :class:`CppBackend`."""

    def conv_backward_data(self, geometry: ConvGeometry, grad_output: Array, weight: Array, dx: Array) -> None:
        """Forward convolutions of ``grad_output``, one for each phase of the stride."""
        _backward_data(geometry, dx.dtype).run(grad_output, weight, dx)

    def plan_conv_backward_data(self, geometry: ConvGeometry, weight: Array) -> _core.ConvBackwardDataPlan:
        """Weights rotated and packed once; the same bits as the eager call."""
        return _core.ConvBackwardDataPlan(_backward_data(geometry, weight.dtype), weight, None, None, geometry.rank)

    def conv_transpose(
        self, geometry: ConvGeometry, x: Array, weight: Array, bias: Array | None, activation: str | None, out: Array
    ) -> None:
        """As the gradient, with bias and activation in registers where they are a clamp."""
        _backward_data(geometry, out.dtype).run_transposed(x, weight, bias, activation, out)

    def bind_conv_transpose(
        self, geometry: ConvGeometry, dtypes: tuple[np.dtype[Any], ...], activation: str | None
    ) -> _core.ConvTransposedCall:
        """The whole call in one step, result included."""
        gradient = _backward_data(geometry, computed_in(dtypes[-1]))
        return _core.ConvTransposedCall(gradient, activation, geometry.rank, dtypes)

    def bind_conv_backward(
        self, geometry: ConvGeometry, dtypes: tuple[np.dtype[Any], ...], needs: tuple[bool, ...]
    ) -> _core.ConvBackwardCall:
        """The whole call in one step, results included."""
        return _core.ConvBackwardCall(_backward_data(geometry, computed_in(dtypes[-1])), geometry.rank, dtypes, needs)

    def plan_conv_transpose(
        self, geometry: ConvGeometry, weight: Array, bias: Array | None, activation: str | None
    ) -> _core.ConvBackwardDataPlan:
        """Weights rotated and packed once; the same bits as the eager call."""
        gradient = _backward_data(geometry, weight.dtype)
        return _core.ConvBackwardDataPlan(gradient, weight, bias, activation, geometry.rank)

    def conv_backward_weight(
        self, geometry: ConvGeometry, grad_output: Array, x: Array, dw: Array, db: Array | None
    ) -> None:
        """Sums over pixels in fixed chunks: the same bits for any number of threads."""
        _core.conv_backward_weight(compiled_problem(geometry), grad_output, x, dw, db)
