"""What stands behind the plans of gradients: geometry and weights are settled once, a call only runs."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from ..backends.protocol import Array, Backend
from ..errors import GeometryError
from ..geometry import ConvGeometry
from ._arrays import check_outs, real_array
from ._conv_calls import Backward, ConvGrads, check_needs
from ._plan_calls import planned, planned_images

__all__ = ["ConvBackwardPlan", "make_backward_plan"]


class ConvBackwardPlan:
    """The gradients of a convolution made ready, from :func:`plan_conv2d_backward` and its like.

    Call it as ``plan(grad_output, x, out=None)`` for any number of images; ``x`` may be left out where the gradient
    to the weight is not wanted. Calls from many threads at once are safe.
    """

    def __init__(
        self, func: str, geometry: ConvGeometry, backend: Backend, dtype: np.dtype[Any], weight: Array,
        needs: frozenset[str], x_shape: tuple[int, ...],
    ) -> None:  # fmt: skip
        self._func, self._needs, self._x_shape = func, needs, x_shape
        self._call = Backward(func, geometry, backend, (dtype,) * 4, needs)
        self._lock = threading.Lock()
        frame = self._call.frame
        # of the weight's shape, and of no memory: a call is given its weights by the plan
        self._weight = np.broadcast_to(np.zeros((), dtype), weight.shape)
        self._run = backend.plan_conv_backward_data(frame.geometry, frame.weight(weight)) if "x" in needs else None

    def __call__(
        self, grad_output: Any, x: Any = None, out: tuple[Array | None, Array | None, Array | None] | None = None
    ) -> ConvGrads:
        """Compute the gradients that the plan was made for, into the arrays of ``out`` where they are given."""
        func, body = self._func, self._x_shape
        grad = real_array(func, "grad_output", grad_output)
        if x is None:
            if "weight" in self._needs:
                raise TypeError(f"{func}: x is needed for the gradient to the weight, received None")
            images = np.broadcast_to(np.zeros((), grad.dtype), (*grad.shape[: grad.ndim - len(body)], *body))
        else:
            images = planned_images(func, x, body)
        run = self._run
        return self._call(grad, images, self._weight, check_outs(func, out), None if run is None else run.run)

    @property
    def needs(self) -> tuple[str, ...]:
        """The gradients that a call gives."""
        return tuple(name for name in ("x", "weight", "bias") if name in self._needs)

    def update(self, weight: Any) -> None:
        """Take new weights of the same shape; calls that are running finish with the old ones."""
        array = real_array(self._func, "weight", weight)
        if array.shape != self._weight.shape:
            raise GeometryError(f"{self._func}: weight must have shape {self._weight.shape}, received {array.shape}")
        if self._run is not None:
            with self._lock:
                self._run.update(self._call.frame.weight(array))


def make_backward_plan(
    rank: int, x_shape: Any, weight: Any, stride: Any, padding: Any, dilation: Any, groups: Any, padding_mode: Any,
    layout: Any, needs: Any, dtype: Any, backend: Any,
) -> ConvBackwardPlan:  # fmt: skip
    func = f"plan_conv{rank}d_backward"
    runs_on, shape, result, array, geometry = planned(
        func, rank, x_shape, weight, dtype, backend, stride=stride, padding=padding, dilation=dilation,
        groups=groups, padding_mode=padding_mode, layout=layout,
    )  # fmt: skip
    wanted = check_needs(func, needs)
    return ConvBackwardPlan(func, geometry, runs_on, result, array, wanted, shape[len(shape) - rank - 1 :])
