"""What stands behind the plans of transposed convolutions: geometry and weights are settled once, a call only runs."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from ..backends.protocol import Array, Backend, ConvDataRun
from ..errors import GeometryError
from ..geometry import ConvGeometry, conv_transpose_geometry
from ._arrays import real_array
from ._conv_calls import Transposed, check_bias
from ._plan_calls import planned, planned_images
from .elementwise import check_activation

__all__ = ["ConvTransposePlan", "make_transpose_plan"]


class ConvTransposePlan:
    """A transposed convolution made ready to run, from :func:`plan_conv_transpose2d` and its like.

    Call it as ``plan(x, out=None)``: ``x`` of the planned shape with any number of images, or without the batch. Calls
    from many threads at once are safe.
    """

    def __init__(
        self, func: str, geometry: ConvGeometry, backend: Backend, dtype: np.dtype[Any], weight: Array,
        bias: Array | None, activation: str | None, shape: tuple[int, ...],
    ) -> None:  # fmt: skip
        self._func, self._geometry, self._dtype = func, geometry, dtype
        self._x_shape = shape[len(shape) - geometry.rank - 1 :]
        self._batch = max(1, shape[0]) if len(shape) == geometry.rank + 2 else 1
        self._call = Transposed(func, geometry, backend, (dtype,) * 3, activation)
        self._lock = threading.Lock()
        # of the weight's shape, and of no memory: a call is given its weights by the plan
        self._weight = np.broadcast_to(np.zeros((), dtype), weight.shape)
        w5, fused = self._settle(weight, bias)
        fused_activation = activation if self._call.fuses else None
        self._run: ConvDataRun = backend.plan_conv_transpose(self._call.frame.geometry, w5, fused, fused_activation)
        plain = self._call.at_once is not None and self._call.frame.dtype == dtype
        self._at_once = getattr(self._run, "call", None) if plain else None

    def _settle(self, weight: Array, bias: Array | None) -> tuple[Array, Array | None]:
        """Weight and bias as the backend's plan takes them; what it does not take is left for the call."""
        frame = self._call.frame
        vector = frame.vector(bias)
        self._bias = None if self._call.fuses or vector is None else vector.copy()
        return frame.weight(weight), vector if self._call.fuses else None

    def __call__(self, x: Any, out: Array | None = None) -> Array:
        """Compute the transposed convolution of ``x``; the result is ``out`` where one is given."""
        if self._at_once is not None:
            y: Array | None = self._at_once(x, out)
            if y is not None:
                return y
        images = planned_images(self._func, x, self._x_shape)
        return self._call(images, self._weight, self._bias, out, self._run.run)

    @property
    def flops(self) -> int:
        """Floating-point operations of the planned number of images."""
        return self._geometry.flops(self._batch)

    @property
    def out_shape(self) -> tuple[int, ...]:
        """Shape of the result for the planned number of images."""
        one = np.empty((1,) * (self._geometry.rank + 2))
        return (self._batch, *self._call.frame.shape(one, self._call.y_shape)[1:])

    def describe(self) -> str:
        """Say what was planned, and how each phase of the stride is computed where the backend tells."""
        g = self._geometry
        problem = f"{self._func}: {(self._batch, *self._x_shape)} -> {self.out_shape}, {self._dtype}, groups={g.groups}"
        phases = getattr(self._run, "describe", None)
        return f"{problem}, {self.flops / 1e6:.3g} MFLOP\n{'' if phases is None else phases()}"

    def update(self, weight: Any, bias: Any = None) -> None:
        """Take new weights of the same shape; calls that are running finish with the old ones."""
        array = real_array(self._func, "weight", weight)
        if array.shape != self._weight.shape:
            raise GeometryError(f"{self._func}: weight must have shape {self._weight.shape}, received {array.shape}")
        vector = check_bias(self._func, bias, self._geometry.in_channels)
        with self._lock:
            self._run.update(*self._settle(array, vector))


def make_transpose_plan(
    rank: int, x_shape: Any, weight: Any, bias: Any, stride: Any, padding: Any, output_padding: Any, dilation: Any,
    groups: Any, layout: Any, dtype: Any, activation: Any, backend: Any,
) -> ConvTransposePlan:  # fmt: skip
    func = f"plan_conv_transpose{rank}d"
    runs_on, shape, result, array, geometry = planned(
        func, rank, x_shape, weight, dtype, backend, conv_transpose_geometry, stride=stride, padding=padding,
        output_padding=output_padding, dilation=dilation, groups=groups, layout=layout,
    )  # fmt: skip
    check_activation(func, activation)
    vector = check_bias(func, bias, geometry.in_channels)
    return ConvTransposePlan(func, geometry, runs_on, result, array, vector, activation, shape)
