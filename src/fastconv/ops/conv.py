"""Convolution in one, two and three dimensions, and its gradients.

"Convolution" means what it means in networks: cross-correlation, the kernel is not flipped. The functions here fix the
rank and say what it means; how a call is checked and run stands in ``_conv_calls``.
"""

from __future__ import annotations

from collections.abc import Sequence

from numpy.typing import ArrayLike

from ..backends.protocol import Array
from ..geometry import IntOrTuple, Padding
from . import _conv_calls
from ._conv_calls import NEEDS, ConvGrads

__all__ = ["ConvGrads", "conv1d", "conv1d_backward", "conv2d", "conv2d_backward", "conv3d", "conv3d_backward"]


def conv1d(
    x: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None, *, stride: IntOrTuple = 1, padding: Padding = 0,
    dilation: IntOrTuple = 1, groups: int = 1, padding_mode: str = "constant", layout: str | None = None,
    activation: str | None = None, out: Array | None = None, backend: str | None = None, algorithm: str = "auto",
) -> Array:  # fmt: skip
    """Convolve sequences with a bank of filters; everything as in :func:`conv2d`, with one spatial axis.

    Parameters
    ----------
    x : array_like
        ``(N, C_in, W)``, with or without the batch; channels last with ``layout="NWC"``.
    weight : array_like
        ``(C_out, C_in/groups, kw)``; channels last as the layout.
    bias, stride, padding, dilation, groups, padding_mode, layout, activation, out, backend, algorithm
        As in :func:`conv2d`.

    Returns
    -------
    ndarray
        In the layout of x; dtype as in :func:`conv2d`.

    Raises
    ------
    GeometryError, UnknownNameError, TypeError, BackendUnavailableError
        As :func:`conv2d`.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> fastconv.conv1d(np.ones((1, 1, 5)), np.ones((1, 1, 3))).shape
    (1, 1, 3)
    """
    return _conv_calls.conv(
        1,
        x,
        weight,
        bias,
        stride,
        padding,
        dilation,
        groups,
        padding_mode,
        layout,
        activation,
        out,
        backend,
        algorithm,
    )


def conv2d(
    x: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None, *, stride: IntOrTuple = 1, padding: Padding = 0,
    dilation: IntOrTuple = 1, groups: int = 1, padding_mode: str = "constant", layout: str | None = None,
    activation: str | None = None, out: Array | None = None, backend: str | None = None, algorithm: str = "auto",
) -> Array:  # fmt: skip
    """Convolve images with a bank of filters (cross-correlation; the kernel is not flipped).

    Parameters
    ----------
    x : array_like
        ``(N, C_in, H, W)``, or ``(C_in, H, W)`` without a batch; with ``layout="NHWC"`` ``(N, H, W, C_in)``. Any real
        dtype up to 64 bits, any strides.
    weight : array_like
        ``(C_out, C_in/groups, kh, kw)``; channels last ``(kh, kw, C_in/groups, C_out)``.
    bias : array_like, optional
        ``(C_out,)``; it is cast to the result's dtype and does not promote it.
    stride, dilation : int or tuple of int, default 1
        Step of the window, and distance between its taps; one number, or one for each axis.
    padding : int, tuple, or str, default 0
        A number; one for each axis; a (before, after) pair for each axis; or ``"valid"``, ``"same"`` (ceil(size /
        stride) outputs, the odd one after), ``"same_lower"`` (the odd one before), ``"full"``.
    groups : int, default 1
        Groups of channels that are convolved by themselves; ``groups == C_in`` is a depthwise convolution.
    padding_mode : str, default "constant"
        ``"constant"`` (zeros), ``"edge"``, ``"reflect"``, ``"symmetric"`` or ``"wrap"``, as in :func:`numpy.pad`.
    layout : str, optional
        ``"NCHW"`` (also None) or ``"NHWC"``.
    activation : str, optional
        Applied to the result: ``relu relu6 leaky_relu sigmoid tanh silu gelu hard_swish``.
    out : ndarray, optional
        Array of the result's shape and dtype to write to, any strides; it may not share memory with an input.
    backend : str, optional
        Who computes; by default the active backend (:func:`fastconv.set_backend`).
    algorithm : str, default "auto"
        How; looked up in the backend's list. ``"direct"`` is valid everywhere.

    Returns
    -------
    ndarray
        ``(N, C_out, H', W')`` in the layout of x, of dtype ``np.result_type(x, weight, np.float32)``, or float16
        where x and weight promote to float16.

    Raises
    ------
    GeometryError, UnknownNameError
        ValueErrors: shapes that do not fit, numbers out of range, names outside their list.
    TypeError
        Complex, object or longdouble arrays; numbers that are no integers.
    BackendUnavailableError
        If the backend cannot be had here.

    References
    ----------
    Goodfellow, Bengio, Courville: *Deep Learning*, MIT Press 2016, section 9.1. Dumoulin, Visin: *A guide to
    convolution arithmetic for deep learning*, arXiv:1603.07285.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> image = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    >>> edges = np.array([[[[-1, 0, 1]]]], dtype=np.float32)
    >>> fastconv.conv2d(image, edges, padding="same")[0, 0, 0]
    array([ 1.,  2.,  2., -2.], dtype=float32)
    """
    return _conv_calls.conv(
        2,
        x,
        weight,
        bias,
        stride,
        padding,
        dilation,
        groups,
        padding_mode,
        layout,
        activation,
        out,
        backend,
        algorithm,
    )


def conv3d(
    x: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None, *, stride: IntOrTuple = 1, padding: Padding = 0,
    dilation: IntOrTuple = 1, groups: int = 1, padding_mode: str = "constant", layout: str | None = None,
    activation: str | None = None, out: Array | None = None, backend: str | None = None, algorithm: str = "auto",
) -> Array:  # fmt: skip
    """Convolve volumes with a bank of filters; everything as in :func:`conv2d`, with three spatial axes.

    Parameters
    ----------
    x : array_like
        ``(N, C_in, D, H, W)``, with or without the batch; channels last with ``layout="NDHWC"``.
    weight : array_like
        ``(C_out, C_in/groups, kd, kh, kw)``; channels last as the layout.
    bias, stride, padding, dilation, groups, padding_mode, layout, activation, out, backend, algorithm
        As in :func:`conv2d`.

    Returns
    -------
    ndarray
        In the layout of x; dtype as in :func:`conv2d`.

    Raises
    ------
    GeometryError, UnknownNameError, TypeError, BackendUnavailableError
        As :func:`conv2d`.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> fastconv.conv3d(np.ones((1, 1, 4, 5, 6)), np.ones((1, 1, 2, 3, 3))).shape
    (1, 1, 3, 3, 4)
    """
    return _conv_calls.conv(
        3,
        x,
        weight,
        bias,
        stride,
        padding,
        dilation,
        groups,
        padding_mode,
        layout,
        activation,
        out,
        backend,
        algorithm,
    )


def conv1d_backward(
    grad_output: ArrayLike, x: ArrayLike, weight: ArrayLike, *, stride: IntOrTuple = 1, padding: Padding = 0,
    dilation: IntOrTuple = 1, groups: int = 1, padding_mode: str = "constant", layout: str | None = None,
    needs: Sequence[str] = NEEDS, out: tuple[Array | None, Array | None, Array | None] | None = None,
    backend: str | None = None,
) -> ConvGrads:  # fmt: skip
    """Gradients of :func:`conv1d` with respect to its input, its weight and its bias.

    Parameters
    ----------
    grad_output : array_like
        Gradient of the result before its activation, of the result's shape.
    x, weight : array_like
        What the convolution was given.
    stride, padding, dilation, groups, padding_mode, layout
        What the convolution was given.
    needs : sequence of str, default ("x", "weight", "bias")
        Which gradients to compute.
    out : tuple of (ndarray or None), optional
        Three arrays to write to, in the order x, weight, bias.
    backend : str, optional
        Who computes.

    Returns
    -------
    ConvGrads
        ``(x, weight, bias)``, each of its argument's shape and of dtype
        ``np.result_type(grad_output, x, weight, np.float32)``; None where not needed.

    Raises
    ------
    GeometryError, UnknownNameError, TypeError, BackendUnavailableError
        As :func:`conv2d`.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x, w = np.ones((1, 1, 5)), np.ones((1, 1, 3))
    >>> fastconv.conv1d_backward(np.ones((1, 1, 3)), x, w).x
    array([[[1., 2., 3., 2., 1.]]])
    """
    return _conv_calls.conv_backward(
        1,
        grad_output,
        x,
        weight,
        stride,
        padding,
        dilation,
        groups,
        padding_mode,
        layout,
        needs,
        out,
        backend,
    )


def conv2d_backward(
    grad_output: ArrayLike, x: ArrayLike, weight: ArrayLike, *, stride: IntOrTuple = 1, padding: Padding = 0,
    dilation: IntOrTuple = 1, groups: int = 1, padding_mode: str = "constant", layout: str | None = None,
    needs: Sequence[str] = NEEDS, out: tuple[Array | None, Array | None, Array | None] | None = None,
    backend: str | None = None,
) -> ConvGrads:  # fmt: skip
    """Gradients of :func:`conv2d` with respect to its input, its weight and its bias.

    Parameters
    ----------
    grad_output : array_like
        Gradient of the result before its activation, of the result's shape.
    x, weight : array_like
        What the convolution was given.
    stride, padding, dilation, groups, padding_mode, layout
        What the convolution was given.
    needs : sequence of str, default ("x", "weight", "bias")
        Which gradients to compute.
    out : tuple of (ndarray or None), optional
        Three arrays to write to, in the order x, weight, bias.
    backend : str, optional
        Who computes.

    Returns
    -------
    ConvGrads
        ``(x, weight, bias)``, each of its argument's shape and of dtype
        ``np.result_type(grad_output, x, weight, np.float32)``; None where not needed.

    Raises
    ------
    GeometryError, UnknownNameError, TypeError, BackendUnavailableError
        As :func:`conv2d`.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x, w = np.ones((1, 1, 3, 3)), np.ones((1, 1, 2, 2))
    >>> fastconv.conv2d_backward(np.ones((1, 1, 2, 2)), x, w).x
    array([[[[1., 2., 1.],
             [2., 4., 2.],
             [1., 2., 1.]]]])
    """
    return _conv_calls.conv_backward(
        2,
        grad_output,
        x,
        weight,
        stride,
        padding,
        dilation,
        groups,
        padding_mode,
        layout,
        needs,
        out,
        backend,
    )


def conv3d_backward(
    grad_output: ArrayLike, x: ArrayLike, weight: ArrayLike, *, stride: IntOrTuple = 1, padding: Padding = 0,
    dilation: IntOrTuple = 1, groups: int = 1, padding_mode: str = "constant", layout: str | None = None,
    needs: Sequence[str] = NEEDS, out: tuple[Array | None, Array | None, Array | None] | None = None,
    backend: str | None = None,
) -> ConvGrads:  # fmt: skip
    """Gradients of :func:`conv3d` with respect to its input, its weight and its bias.

    Parameters
    ----------
    grad_output : array_like
        Gradient of the result before its activation, of the result's shape.
    x, weight : array_like
        What the convolution was given.
    stride, padding, dilation, groups, padding_mode, layout
        What the convolution was given.
    needs : sequence of str, default ("x", "weight", "bias")
        Which gradients to compute.
    out : tuple of (ndarray or None), optional
        Three arrays to write to, in the order x, weight, bias.
    backend : str, optional
        Who computes.

    Returns
    -------
    ConvGrads
        ``(x, weight, bias)``, each of its argument's shape and of dtype
        ``np.result_type(grad_output, x, weight, np.float32)``; None where not needed.

    Raises
    ------
    GeometryError, UnknownNameError, TypeError, BackendUnavailableError
        As :func:`conv2d`.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x, w = np.ones((1, 1, 1, 1, 3)), np.ones((1, 1, 1, 1, 2))
    >>> fastconv.conv3d_backward(np.ones((1, 1, 1, 1, 2)), x, w).x
    array([[[[[1., 2., 1.]]]]])
    """
    return _conv_calls.conv_backward(
        3,
        grad_output,
        x,
        weight,
        stride,
        padding,
        dilation,
        groups,
        padding_mode,
        layout,
        needs,
        out,
        backend,
    )
