"""Gradients of convolutions made ready once and run many times, as a training step does."""

from __future__ import annotations

from collections.abc import Sequence

from numpy.typing import ArrayLike, DTypeLike

from ..geometry import IntOrTuple, Padding
from ._backward_plan_calls import ConvBackwardPlan, make_backward_plan
from ._conv_calls import NEEDS

__all__ = ["ConvBackwardPlan", "plan_conv1d_backward", "plan_conv2d_backward", "plan_conv3d_backward"]


def plan_conv1d_backward(
    x_shape: Sequence[int], weight: ArrayLike, *, stride: IntOrTuple = 1, padding: Padding = 0,
    dilation: IntOrTuple = 1, groups: int = 1, padding_mode: str = "constant", layout: str | None = None,
    needs: Sequence[str] = NEEDS, dtype: DTypeLike = "float32", backend: str | None = None,
) -> ConvBackwardPlan:  # fmt: skip
    """Make the gradients of a convolution of sequences ready; everything as in :func:`plan_conv2d_backward`.

    Parameters
    ----------
    x_shape : tuple of int
        ``(N, C_in, W)`` or without N, in the layout.
    weight, stride, padding, dilation, groups, padding_mode, layout, needs, dtype, backend
        As in :func:`plan_conv2d_backward`.

    Returns
    -------
    ConvBackwardPlan
        As of :func:`plan_conv2d_backward`.

    Raises
    ------
    GeometryError, UnknownNameError, TypeError, BackendUnavailableError
        As :func:`plan_conv2d_backward`.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> plan = fastconv.plan_conv1d_backward((1, 1, 4), np.ones((1, 1, 3)), needs=("x",))
    >>> plan(np.ones((5, 1, 2), np.float32)).x.shape
    (5, 1, 4)
    """
    return make_backward_plan(
        1, x_shape, weight, stride, padding, dilation, groups, padding_mode, layout, needs, dtype, backend
    )


def plan_conv2d_backward(
    x_shape: Sequence[int], weight: ArrayLike, *, stride: IntOrTuple = 1, padding: Padding = 0,
    dilation: IntOrTuple = 1, groups: int = 1, padding_mode: str = "constant", layout: str | None = None,
    needs: Sequence[str] = NEEDS, dtype: DTypeLike = "float32", backend: str | None = None,
) -> ConvBackwardPlan:  # fmt: skip
    """Make the gradients of a convolution of images ready: checked and its weight packed, to be run many times.

    A training step that writes to arrays of its own (``out=``) then allocates nothing but a few small objects.

    Parameters
    ----------
    x_shape : tuple of int
        Shape of the convolution's input, ``(N, C_in, H, W)`` or without N, in the layout. The plan runs on any N.
    weight : array_like
        As in :func:`conv2d`; copied, cast to ``dtype`` and packed now. ``plan.update(weight)`` takes new ones.
    stride, padding, dilation, groups, padding_mode, layout
        As in :func:`conv2d`.
    needs : sequence of str, default ("x", "weight", "bias")
        The gradients that calls give.
    dtype : dtype, default "float32"
        float16, float32 or float64: of the gradients and, but for float16, of the computation. Inputs are cast to it.
    backend : str, optional
        Who computes; by default the backend that is active now.

    Returns
    -------
    ConvBackwardPlan
        Call it as ``plan(grad_output, x, out=None)``; see :class:`ConvBackwardPlan`.

    Raises
    ------
    GeometryError, UnknownNameError, TypeError, BackendUnavailableError
        As :func:`conv2d_backward`.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> plan = fastconv.plan_conv2d_backward((1, 1, 4, 4), np.ones((1, 1, 3, 3)), needs=("x",))
    >>> plan(np.ones((5, 1, 2, 2), np.float32)).x.shape
    (5, 1, 4, 4)
    """
    return make_backward_plan(
        2, x_shape, weight, stride, padding, dilation, groups, padding_mode, layout, needs, dtype, backend
    )


def plan_conv3d_backward(
    x_shape: Sequence[int], weight: ArrayLike, *, stride: IntOrTuple = 1, padding: Padding = 0,
    dilation: IntOrTuple = 1, groups: int = 1, padding_mode: str = "constant", layout: str | None = None,
    needs: Sequence[str] = NEEDS, dtype: DTypeLike = "float32", backend: str | None = None,
) -> ConvBackwardPlan:  # fmt: skip
    """Make the gradients of a convolution of volumes ready; everything as in :func:`plan_conv2d_backward`.

    Parameters
    ----------
    x_shape : tuple of int
        ``(N, C_in, D, H, W)`` or without N, in the layout.
    weight, stride, padding, dilation, groups, padding_mode, layout, needs, dtype, backend
        As in :func:`plan_conv2d_backward`.

    Returns
    -------
    ConvBackwardPlan
        As of :func:`plan_conv2d_backward`.

    Raises
    ------
    GeometryError, UnknownNameError, TypeError, BackendUnavailableError
        As :func:`plan_conv2d_backward`.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> plan = fastconv.plan_conv3d_backward((1, 1, 4, 4, 4), np.ones((1, 1, 3, 3, 3)), needs=("x",))
    >>> plan(np.ones((5, 1, 2, 2, 2), np.float32)).x.shape
    (5, 1, 4, 4, 4)
    """
    return make_backward_plan(
        3, x_shape, weight, stride, padding, dilation, groups, padding_mode, layout, needs, dtype, backend
    )
