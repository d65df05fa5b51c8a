"""Lp pooling, the norm of every window, in one, two and three dimensions, and its gradients."""

from __future__ import annotations

from numpy.typing import ArrayLike

from ..backends.protocol import Array
from ..geometry import IntOrTuple, Padding
from . import _lp_calls

__all__ = ["lp_pool1d", "lp_pool1d_backward", "lp_pool2d", "lp_pool2d_backward", "lp_pool3d", "lp_pool3d_backward"]


def lp_pool1d(
    x: ArrayLike, norm_type: float, kernel_size: IntOrTuple, *, stride: IntOrTuple | None = None,
    padding: Padding = 0, ceil_mode: bool = False, layout: str | None = None, out: Array | None = None,
    backend: str | None = None,
) -> Array:  # fmt: skip
    """Norm of every window of sequences; everything as in :func:`lp_pool2d`, with one spatial axis.

    Parameters
    ----------
    x : array_like
        ``(N, C, W)``, with or without the batch; channels last with ``layout="NWC"``.
        Any real dtype up to 64 bits, any strides.
    norm_type, kernel_size, stride, padding, ceil_mode, layout, out, backend
        As in :func:`lp_pool2d`.

    Returns
    -------
    ndarray
        ``(N, C, W')`` in the layout of x,
        of dtype ``np.result_type(x, np.float32)`` (float16 stays).

    Raises
    ------
    GeometryError, UnknownNameError, TypeError, BackendUnavailableError
        As :func:`lp_pool2d`.

    Examples
    --------
    >>> import fastconv
    >>> fastconv.lp_pool1d([[3.0, -4.0, 0.0, 1.0]], 2, 2)
    array([[5., 1.]])
    """
    return _lp_calls.lp_pool(1, x, norm_type, kernel_size, stride, padding, ceil_mode, layout, out, backend)


def lp_pool1d_backward(
    grad_output: ArrayLike, x: ArrayLike, norm_type: float, kernel_size: IntOrTuple, *,
    stride: IntOrTuple | None = None, padding: Padding = 0, ceil_mode: bool = False, layout: str | None = None,
    out: Array | None = None, backend: str | None = None,
) -> Array:  # fmt: skip
    """Gradient of :func:`lp_pool1d`; zero where x is zero, and for p infinity to the first of equal magnitudes.

    Parameters
    ----------
    grad_output : array_like
        Gradient of the result, of its shape.
    x : array_like
        What :func:`lp_pool1d` was given.
    norm_type, kernel_size, stride, padding, ceil_mode, layout
        As in :func:`lp_pool2d`.
    out : ndarray, optional
        Array of x's shape to write to; it may not share memory with an input.
    backend : str, optional
        Who computes.

    Returns
    -------
    ndarray
        Of x's shape and of dtype ``np.result_type(grad_output, x, np.float32)`` (float16 stays).

    Raises
    ------
    GeometryError, UnknownNameError, TypeError, BackendUnavailableError
        As :func:`lp_pool2d`; also a gradient whose shape does not fit.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> dx = fastconv.lp_pool1d_backward(np.ones((1, 1, 1)), -np.ones((1, 1, 2)), 1, 2)
    >>> float(dx.max())
    -1.0
    """
    return _lp_calls.lp_pool_backward(
        1, grad_output, x, norm_type, kernel_size, stride, padding, ceil_mode, layout, out, backend
    )


def lp_pool2d(
    x: ArrayLike, norm_type: float, kernel_size: IntOrTuple, *, stride: IntOrTuple | None = None,
    padding: Padding = 0, ceil_mode: bool = False, layout: str | None = None, out: Array | None = None,
    backend: str | None = None,
) -> Array:  # fmt: skip
    """Norm of every window of images: ``(sum |x|**p) ** (1/p)``.

    Signs do not matter, whatever p is, and a NaN in a window gives NaN. Powers and sums are float64.

    Parameters
    ----------
    x : array_like
        ``(N, C, H, W)``, with or without the batch; channels last with ``layout="NHWC"``.
        Any real dtype up to 64 bits, any strides.
    norm_type : number
        p, greater than zero; infinity gives the largest absolute value.
    kernel_size : int or tuple of int
        Size of the window; one number, or one for each axis.
    stride : int or tuple of int, optional
        Step of the window; by default the window's size.
    padding : int, tuple, or str, default 0
        As in :func:`conv2d`; the padding adds zeros.
    ceil_mode : bool, default False
        Round the number of windows up; a window that would start past the input and the padding before it is dropped.
    layout : str, optional
        ``"NCHW"`` (also None) or ``"NHWC"``.
    out : ndarray, optional
        Array of the result's shape and dtype to write to, any strides; it may not share memory with an input.
    backend : str, optional
        Who computes; by default the active backend.

    Returns
    -------
    ndarray
        ``(N, C, H', W')`` in the layout of x,
        of dtype ``np.result_type(x, np.float32)`` (float16 stays).

    Raises
    ------
    GeometryError, UnknownNameError, TypeError, BackendUnavailableError
        As :func:`avg_pool2d`; also a ``norm_type`` that is not a number greater than zero.

    References
    ----------
    Sermanet, Chintala, LeCun: *Convolutional neural networks applied to house numbers digit classification*,
    arXiv:1204.3968.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> fastconv.lp_pool2d(np.array([[[3.0, 0.0], [0.0, -4.0]]]), 2, 2)
    array([[[5.]]])
    """
    return _lp_calls.lp_pool(2, x, norm_type, kernel_size, stride, padding, ceil_mode, layout, out, backend)


def lp_pool2d_backward(
    grad_output: ArrayLike, x: ArrayLike, norm_type: float, kernel_size: IntOrTuple, *,
    stride: IntOrTuple | None = None, padding: Padding = 0, ceil_mode: bool = False, layout: str | None = None,
    out: Array | None = None, backend: str | None = None,
) -> Array:  # fmt: skip
    """Gradient of :func:`lp_pool2d`; zero where x is zero, and for p infinity to the first of equal magnitudes.

    Parameters
    ----------
    grad_output : array_like
        Gradient of the result, of its shape.
    x : array_like
        What :func:`lp_pool2d` was given.
    norm_type, kernel_size, stride, padding, ceil_mode, layout
        As in :func:`lp_pool2d`.
    out : ndarray, optional
        Array of x's shape to write to; it may not share memory with an input.
    backend : str, optional
        Who computes.

    Returns
    -------
    ndarray
        Of x's shape and of dtype ``np.result_type(grad_output, x, np.float32)`` (float16 stays).

    Raises
    ------
    GeometryError, UnknownNameError, TypeError, BackendUnavailableError
        As :func:`lp_pool2d`; also a gradient whose shape does not fit.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> dx = fastconv.lp_pool2d_backward(np.ones((1, 1, 1, 1)), -np.ones((1, 1, 2, 2)), 1, 2)
    >>> float(dx.max())
    -1.0
    """
    return _lp_calls.lp_pool_backward(
        2, grad_output, x, norm_type, kernel_size, stride, padding, ceil_mode, layout, out, backend
    )


def lp_pool3d(
    x: ArrayLike, norm_type: float, kernel_size: IntOrTuple, *, stride: IntOrTuple | None = None,
    padding: Padding = 0, ceil_mode: bool = False, layout: str | None = None, out: Array | None = None,
    backend: str | None = None,
) -> Array:  # fmt: skip
    """Norm of every window of volumes; everything as in :func:`lp_pool2d`, with three spatial axes.

    Parameters
    ----------
    x : array_like
        ``(N, C, D, H, W)``, with or without the batch; channels last with ``layout="NDHWC"``.
        Any real dtype up to 64 bits, any strides.
    norm_type, kernel_size, stride, padding, ceil_mode, layout, out, backend
        As in :func:`lp_pool2d`.

    Returns
    -------
    ndarray
        ``(N, C, D', H', W')`` in the layout of x,
        of dtype ``np.result_type(x, np.float32)`` (float16 stays).

    Raises
    ------
    GeometryError, UnknownNameError, TypeError, BackendUnavailableError
        As :func:`lp_pool2d`.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> fastconv.lp_pool3d(-np.ones((1, 1, 2, 2, 2)), 1, 2)[0, 0]
    array([[[8.]]])
    """
    return _lp_calls.lp_pool(3, x, norm_type, kernel_size, stride, padding, ceil_mode, layout, out, backend)


def lp_pool3d_backward(
    grad_output: ArrayLike, x: ArrayLike, norm_type: float, kernel_size: IntOrTuple, *,
    stride: IntOrTuple | None = None, padding: Padding = 0, ceil_mode: bool = False, layout: str | None = None,
    out: Array | None = None, backend: str | None = None,
) -> Array:  # fmt: skip
    """Gradient of :func:`lp_pool3d`; zero where x is zero, and for p infinity to the first of equal magnitudes.

    Parameters
    ----------
    grad_output : array_like
        Gradient of the result, of its shape.
    x : array_like
        What :func:`lp_pool3d` was given.
    norm_type, kernel_size, stride, padding, ceil_mode, layout
        As in :func:`lp_pool2d`.
    out : ndarray, optional
        Array of x's shape to write to; it may not share memory with an input.
    backend : str, optional
        Who computes.

    Returns
    -------
    ndarray
        Of x's shape and of dtype ``np.result_type(grad_output, x, np.float32)`` (float16 stays).

    Raises
    ------
    GeometryError, UnknownNameError, TypeError, BackendUnavailableError
        As :func:`lp_pool2d`; also a gradient whose shape does not fit.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> dx = fastconv.lp_pool3d_backward(np.ones((1, 1, 1, 1, 1)), -np.ones((1, 1, 2, 2, 2)), 1, 2)
    >>> float(dx.max())
    -1.0
    """
    return _lp_calls.lp_pool_backward(
        3, grad_output, x, norm_type, kernel_size, stride, padding, ceil_mode, layout, out, backend
    )
