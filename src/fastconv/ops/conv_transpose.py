"""Transposed convolution (the adjoint of convolution) in one, two and three dimensions, and its gradients."""

from __future__ import annotations

from collections.abc import Sequence

from numpy.typing import ArrayLike

from ..backends.protocol import Array
from ..geometry import IntOrTuple, Padding
from . import _conv_calls
from ._conv_calls import NEEDS, ConvGrads

__all__ = [
    "conv_transpose1d",
    "conv_transpose1d_backward",
    "conv_transpose2d",
    "conv_transpose2d_backward",
    "conv_transpose3d",
    "conv_transpose3d_backward",
]


def conv_transpose1d(
    x: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None, *, stride: IntOrTuple = 1, padding: Padding = 0,
    output_padding: IntOrTuple = 0, dilation: IntOrTuple = 1, groups: int = 1, layout: str | None = None,
    activation: str | None = None, out: Array | None = None, backend: str | None = None,
) -> Array:  # fmt: skip
    """Transposed convolution: the adjoint of :func:`conv1d` with the same weight and arguments.

    Parameters
    ----------
    x : array_like
        ``(N, C_in, W)``, with or without the batch; channels last by ``layout``.
    weight : array_like
        That of the convolution it is adjoint to: ``(C_in, C_out/groups, kw)``;
        channels last ``(kw, C_out/groups, C_in)``.
    bias : array_like, optional
        ``(C_out,)``.
    stride, padding, dilation, groups, layout, activation, out, backend
        As in :func:`conv2d`; ``padding="same"`` gives size times stride.
    output_padding : int or tuple of int, default 0
        Added to the size of the result at the end of each axis; smaller than the stride or the dilation.

    Returns
    -------
    ndarray
        Size along each axis: ``(n - 1) * stride - before - after + dilation * (k - 1) + 1 + output_padding``.

    Raises
    ------
    GeometryError, UnknownNameError, TypeError, BackendUnavailableError
        As :func:`conv2d`.

    References
    ----------
    Zeiler, Krishnan, Taylor, Fergus: *Deconvolutional Networks*, CVPR 2010.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> fastconv.conv_transpose1d(np.ones((1, 1, 3)), np.ones((1, 1, 2)), stride=2).shape
    (1, 1, 6)
    """
    return _conv_calls.conv_transpose(
        1,
        x,
        weight,
        bias,
        stride,
        padding,
        output_padding,
        dilation,
        groups,
        layout,
        activation,
        out,
        backend,
    )


def conv_transpose2d(
    x: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None, *, stride: IntOrTuple = 1, padding: Padding = 0,
    output_padding: IntOrTuple = 0, dilation: IntOrTuple = 1, groups: int = 1, layout: str | None = None,
    activation: str | None = None, out: Array | None = None, backend: str | None = None,
) -> Array:  # fmt: skip
    """Transposed convolution: the adjoint of :func:`conv2d` with the same weight and arguments.

    Parameters
    ----------
    x : array_like
        ``(N, C_in, H, W)``, with or without the batch; channels last by ``layout``.
    weight : array_like
        That of the convolution it is adjoint to: ``(C_in, C_out/groups, kh, kw)``;
        channels last ``(kh, kw, C_out/groups, C_in)``.
    bias : array_like, optional
        ``(C_out,)``.
    stride, padding, dilation, groups, layout, activation, out, backend
        As in :func:`conv2d`; ``padding="same"`` gives size times stride.
    output_padding : int or tuple of int, default 0
        Added to the size of the result at the end of each axis; smaller than the stride or the dilation.

    Returns
    -------
    ndarray
        Size along each axis: ``(n - 1) * stride - before - after + dilation * (k - 1) + 1 + output_padding``.

    Raises
    ------
    GeometryError, UnknownNameError, TypeError, BackendUnavailableError
        As :func:`conv2d`.

    References
    ----------
    Zeiler, Krishnan, Taylor, Fergus: *Deconvolutional Networks*, CVPR 2010.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> fastconv.conv_transpose2d(np.ones((1, 1, 3, 3)), np.ones((1, 1, 2, 2)), stride=2).shape
    (1, 1, 6, 6)
    """
    return _conv_calls.conv_transpose(
        2,
        x,
        weight,
        bias,
        stride,
        padding,
        output_padding,
        dilation,
        groups,
        layout,
        activation,
        out,
        backend,
    )


def conv_transpose3d(
    x: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None, *, stride: IntOrTuple = 1, padding: Padding = 0,
    output_padding: IntOrTuple = 0, dilation: IntOrTuple = 1, groups: int = 1, layout: str | None = None,
    activation: str | None = None, out: Array | None = None, backend: str | None = None,
) -> Array:  # fmt: skip
    """Transposed convolution: the adjoint of :func:`conv3d` with the same weight and arguments.

    Parameters
    ----------
    x : array_like
        ``(N, C_in, D, H, W)``, with or without the batch; channels last by ``layout``.
    weight : array_like
        That of the convolution it is adjoint to: ``(C_in, C_out/groups, kd, kh, kw)``;
        channels last ``(kd, kh, kw, C_out/groups, C_in)``.
    bias : array_like, optional
        ``(C_out,)``.
    stride, padding, dilation, groups, layout, activation, out, backend
        As in :func:`conv2d`; ``padding="same"`` gives size times stride.
    output_padding : int or tuple of int, default 0
        Added to the size of the result at the end of each axis; smaller than the stride or the dilation.

    Returns
    -------
    ndarray
        Size along each axis: ``(n - 1) * stride - before - after + dilation * (k - 1) + 1 + output_padding``.

    Raises
    ------
    GeometryError, UnknownNameError, TypeError, BackendUnavailableError
        As :func:`conv2d`.

    References
    ----------
    Zeiler, Krishnan, Taylor, Fergus: *Deconvolutional Networks*, CVPR 2010.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> fastconv.conv_transpose3d(np.ones((1, 1, 2, 3, 3)), np.ones((1, 1, 2, 2, 2)), stride=2).shape
    (1, 1, 4, 6, 6)
    """
    return _conv_calls.conv_transpose(
        3,
        x,
        weight,
        bias,
        stride,
        padding,
        output_padding,
        dilation,
        groups,
        layout,
        activation,
        out,
        backend,
    )


def conv_transpose1d_backward(
    grad_output: ArrayLike, x: ArrayLike, weight: ArrayLike, *, stride: IntOrTuple = 1, padding: Padding = 0,
    output_padding: IntOrTuple = 0, dilation: IntOrTuple = 1, groups: int = 1, layout: str | None = None,
    needs: Sequence[str] = NEEDS, out: tuple[Array | None, Array | None, Array | None] | None = None,
    backend: str | None = None,
) -> ConvGrads:  # fmt: skip
    """Gradients of :func:`conv_transpose1d` with respect to its input, its weight and its bias.

    Parameters
    ----------
    grad_output : array_like
        Gradient of the result before its activation, of the result's shape.
    x, weight : array_like
        What the transposed convolution was given.
    stride, padding, output_padding, dilation, groups, layout
        What the transposed convolution was given.
    needs, out, backend
        As in :func:`conv1d_backward`.

    Returns
    -------
    ConvGrads
        ``(x, weight, bias)``, None where not needed.

    Raises
    ------
    GeometryError, UnknownNameError, TypeError, BackendUnavailableError
        As :func:`conv2d`.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x, w = np.ones((1, 1, 3)), np.ones((1, 1, 2))
    >>> fastconv.conv_transpose1d_backward(np.ones((1, 1, 4)), x, w).weight.shape
    (1, 1, 2)
    """
    return _conv_calls.conv_transpose_backward(
        1,
        grad_output,
        x,
        weight,
        stride,
        padding,
        output_padding,
        dilation,
        groups,
        layout,
        needs,
        out,
        backend,
    )


def conv_transpose2d_backward(
    grad_output: ArrayLike, x: ArrayLike, weight: ArrayLike, *, stride: IntOrTuple = 1, padding: Padding = 0,
    output_padding: IntOrTuple = 0, dilation: IntOrTuple = 1, groups: int = 1, layout: str | None = None,
    needs: Sequence[str] = NEEDS, out: tuple[Array | None, Array | None, Array | None] | None = None,
    backend: str | None = None,
) -> ConvGrads:  # fmt: skip
    """Gradients of :func:`conv_transpose2d` with respect to its input, its weight and its bias.

    Parameters
    ----------
    grad_output : array_like
        Gradient of the result before its activation, of the result's shape.
    x, weight : array_like
        What the transposed convolution was given.
    stride, padding, output_padding, dilation, groups, layout
        What the transposed convolution was given.
    needs, out, backend
        As in :func:`conv2d_backward`.

    Returns
    -------
    ConvGrads
        ``(x, weight, bias)``, None where not needed.

    Raises
    ------
    GeometryError, UnknownNameError, TypeError, BackendUnavailableError
        As :func:`conv2d`.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x, w = np.ones((1, 1, 3, 3)), np.ones((1, 1, 2, 2))
    >>> fastconv.conv_transpose2d_backward(np.ones((1, 1, 4, 4)), x, w).weight.shape
    (1, 1, 2, 2)
    """
    return _conv_calls.conv_transpose_backward(
        2,
        grad_output,
        x,
        weight,
        stride,
        padding,
        output_padding,
        dilation,
        groups,
        layout,
        needs,
        out,
        backend,
    )


def conv_transpose3d_backward(
    grad_output: ArrayLike, x: ArrayLike, weight: ArrayLike, *, stride: IntOrTuple = 1, padding: Padding = 0,
    output_padding: IntOrTuple = 0, dilation: IntOrTuple = 1, groups: int = 1, layout: str | None = None,
    needs: Sequence[str] = NEEDS, out: tuple[Array | None, Array | None, Array | None] | None = None,
    backend: str | None = None,
) -> ConvGrads:  # fmt: skip
    """Gradients of :func:`conv_transpose3d` with respect to its input, its weight and its bias.

    Parameters
    ----------
    grad_output : array_like
        Gradient of the result before its activation, of the result's shape.
    x, weight : array_like
        What the transposed convolution was given.
    stride, padding, output_padding, dilation, groups, layout
        What the transposed convolution was given.
    needs, out, backend
        As in :func:`conv3d_backward`.

    Returns
    -------
    ConvGrads
        ``(x, weight, bias)``, None where not needed.

    Raises
    ------
    GeometryError, UnknownNameError, TypeError, BackendUnavailableError
        As :func:`conv2d`.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x, w = np.ones((1, 1, 2, 3, 3)), np.ones((1, 1, 2, 2, 2))
    >>> fastconv.conv_transpose3d_backward(np.ones((1, 1, 3, 4, 4)), x, w).weight.shape
    (1, 1, 2, 2, 2)
    """
    return _conv_calls.conv_transpose_backward(
        3,
        grad_output,
        x,
        weight,
        stride,
        padding,
        output_padding,
        dilation,
        groups,
        layout,
        needs,
        out,
        backend,
    )
