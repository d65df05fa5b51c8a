"""Transposed convolutions made ready once and run many times."""

from __future__ import annotations

from collections.abc import Sequence

from numpy.typing import ArrayLike, DTypeLike

from ..geometry import IntOrTuple, Padding
from ._transpose_plan_calls import ConvTransposePlan, make_transpose_plan

__all__ = ["ConvTransposePlan", "plan_conv_transpose1d", "plan_conv_transpose2d", "plan_conv_transpose3d"]


def plan_conv_transpose1d(
    x_shape: Sequence[int], weight: ArrayLike, bias: ArrayLike | None = None, *, stride: IntOrTuple = 1,
    padding: Padding = 0, output_padding: IntOrTuple = 0, dilation: IntOrTuple = 1, groups: int = 1,
    layout: str | None = None, dtype: DTypeLike = "float32", activation: str | None = None, backend: str | None = None,
) -> ConvTransposePlan:  # fmt: skip
    """Make a transposed convolution of sequences ready; everything as in :func:`plan_conv_transpose2d`.

    Parameters
    ----------
    x_shape : tuple of int
        ``(N, C_in, W)`` or without N, in the layout.
    weight, bias, stride, padding, output_padding, dilation, groups, layout, dtype, activation, backend
        As in :func:`plan_conv_transpose2d`.

    Returns
    -------
    ConvTransposePlan
        As of :func:`plan_conv_transpose2d`.

    Raises
    ------
    GeometryError, UnknownNameError, TypeError, BackendUnavailableError
        As :func:`plan_conv_transpose2d`.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> plan = fastconv.plan_conv_transpose1d((1, 1, 4), np.ones((1, 1, 2)), stride=2)
    >>> plan(np.ones((5, 1, 4), np.float32)).shape
    (5, 1, 8)
    """
    return make_transpose_plan(
        1, x_shape, weight, bias, stride, padding, output_padding, dilation, groups, layout, dtype, activation, backend
    )


def plan_conv_transpose2d(
    x_shape: Sequence[int], weight: ArrayLike, bias: ArrayLike | None = None, *, stride: IntOrTuple = 1,
    padding: Padding = 0, output_padding: IntOrTuple = 0, dilation: IntOrTuple = 1, groups: int = 1,
    layout: str | None = None, dtype: DTypeLike = "float32", activation: str | None = None, backend: str | None = None,
) -> ConvTransposePlan:  # fmt: skip
    """Make a transposed convolution of images ready: checked and its weight packed, to be run many times.

    Parameters
    ----------
    x_shape : tuple of int
        ``(N, C_in, H, W)`` or without N, in the layout. The plan runs on any N.
    weight : array_like
        As in :func:`conv_transpose2d`; copied, cast to ``dtype`` and packed now. ``plan.update(weight, bias)`` takes
        new ones.
    bias : array_like, optional
        ``(C_out,)``.
    stride, padding, output_padding, dilation, groups, layout, activation
        As in :func:`conv_transpose2d`.
    dtype : dtype, default "float32"
        float16, float32 or float64: of the result and, but for float16, of the computation. Inputs are cast to it.
    backend : str, optional
        Who computes; by default the backend that is active now.

    Returns
    -------
    ConvTransposePlan
        Call it as ``plan(x, out=None)``; see :class:`ConvTransposePlan`.

    Raises
    ------
    GeometryError, UnknownNameError, TypeError, BackendUnavailableError
        As :func:`conv_transpose2d`.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> plan = fastconv.plan_conv_transpose2d((1, 8, 16, 16), np.ones((8, 4, 2, 2)), stride=2, activation="relu")
    >>> plan(np.ones((5, 8, 16, 16), np.float32)).shape
    (5, 4, 32, 32)
    """
    return make_transpose_plan(
        2, x_shape, weight, bias, stride, padding, output_padding, dilation, groups, layout, dtype, activation, backend
    )


def plan_conv_transpose3d(
    x_shape: Sequence[int], weight: ArrayLike, bias: ArrayLike | None = None, *, stride: IntOrTuple = 1,
    padding: Padding = 0, output_padding: IntOrTuple = 0, dilation: IntOrTuple = 1, groups: int = 1,
    layout: str | None = None, dtype: DTypeLike = "float32", activation: str | None = None, backend: str | None = None,
) -> ConvTransposePlan:  # fmt: skip
    """Make a transposed convolution of volumes ready; everything as in :func:`plan_conv_transpose2d`.

    Parameters
    ----------
    x_shape : tuple of int
        ``(N, C_in, D, H, W)`` or without N, in the layout.
    weight, bias, stride, padding, output_padding, dilation, groups, layout, dtype, activation, backend
        As in :func:`plan_conv_transpose2d`.

    Returns
    -------
    ConvTransposePlan
        As of :func:`plan_conv_transpose2d`.

    Raises
    ------
    GeometryError, UnknownNameError, TypeError, BackendUnavailableError
        As :func:`plan_conv_transpose2d`.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> plan = fastconv.plan_conv_transpose3d((1, 1, 2, 3, 3), np.ones((1, 1, 2, 2, 2)), stride=2)
    >>> plan(np.ones((5, 1, 2, 3, 3), np.float32)).shape
    (5, 1, 4, 6, 6)
    """
    return make_transpose_plan(
        3, x_shape, weight, bias, stride, padding, output_padding, dilation, groups, layout, dtype, activation, backend
    )
