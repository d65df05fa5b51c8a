"""Average pooling in one, two and three dimensions, and its gradients."""

from __future__ import annotations

from numpy.typing import ArrayLike

from ..backends.protocol import Array
from ..geometry import IntOrTuple, Padding
from . import _pool_calls

__all__ = [
    "avg_pool1d",
    "avg_pool1d_backward",
    "avg_pool2d",
    "avg_pool2d_backward",
    "avg_pool3d",
    "avg_pool3d_backward",
]


def avg_pool1d(
    x: ArrayLike, kernel_size: IntOrTuple, *, stride: IntOrTuple | None = None, padding: Padding = 0,
    ceil_mode: bool = False, count_include_pad: bool = True, layout: str | None = None,
    out: Array | None = None, backend: str | None = None,
) -> Array:  # fmt: skip
    """Mean of every window of sequences; everything as in :func:`avg_pool2d`, with one spatial axis.

    Parameters
    ----------
    x : array_like
        ``(N, C, W)``, with or without the batch; channels last with ``layout="NWC"``.
        Any real dtype up to 64 bits, any strides.
    kernel_size, stride, padding, ceil_mode, count_include_pad, layout, out, backend
        As in :func:`avg_pool2d`.

    Returns
    -------
    ndarray
        ``(N, C, W')`` in the layout of x,
        of dtype ``np.result_type(x, np.float32)`` (float16 stays).

    Raises
    ------
    GeometryError, UnknownNameError, TypeError, BackendUnavailableError
        As :func:`avg_pool2d`.

    Examples
    --------
    >>> import fastconv
    >>> fastconv.avg_pool1d([[1.0, 3.0, 2.0, 5.0]], 2)
    array([[2. , 3.5]])
    """
    return _pool_calls.avg_pool(1, x, kernel_size, stride, padding, ceil_mode, count_include_pad, layout, out, backend)


def avg_pool1d_backward(
    grad_output: ArrayLike, x: ArrayLike, kernel_size: IntOrTuple, *, stride: IntOrTuple | None = None,
    padding: Padding = 0, ceil_mode: bool = False, count_include_pad: bool = True, layout: str | None = None,
    out: Array | None = None, backend: str | None = None,
) -> Array:  # fmt: skip
    """Gradient of :func:`avg_pool1d`: every output's gradient is shared out evenly over its window.

    Parameters
    ----------
    grad_output : array_like
        Gradient of the result, of its shape.
    x : array_like
        What :func:`avg_pool1d` was given; only its shape and dtype are looked at.
    kernel_size, stride, padding, ceil_mode, count_include_pad, layout
        As in :func:`avg_pool2d`.
    out : ndarray, optional
        Array of x's shape to write to; it may not share memory with ``grad_output``.
    backend : str, optional
        Who computes.

    Returns
    -------
    ndarray
        Of x's shape and of dtype ``np.result_type(grad_output, x, np.float32)`` (float16 stays).

    Raises
    ------
    GeometryError, UnknownNameError, TypeError, BackendUnavailableError
        As :func:`avg_pool2d`; also a gradient whose shape does not fit.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> dx = fastconv.avg_pool1d_backward(np.ones((1, 1, 1)), np.ones((1, 1, 2)), 2)
    >>> float(dx.max())
    0.5
    """
    return _pool_calls.avg_pool_backward(
        1, grad_output, x, kernel_size, stride, padding, ceil_mode, count_include_pad, layout, out, backend
    )


def avg_pool2d(
    x: ArrayLike, kernel_size: IntOrTuple, *, stride: IntOrTuple | None = None, padding: Padding = 0,
    ceil_mode: bool = False, count_include_pad: bool = True, layout: str | None = None,
    out: Array | None = None, backend: str | None = None,
) -> Array:  # fmt: skip
    """Mean of every window of images.

    A window with nothing to divide by (``count_include_pad=False``, padding alone) gives zero.

    Parameters
    ----------
    x : array_like
        ``(N, C, H, W)``, with or without the batch; channels last with ``layout="NHWC"``.
        Any real dtype up to 64 bits, any strides.
    kernel_size : int or tuple of int
        Size of the window; one number, or one for each axis.
    stride : int or tuple of int, optional
        Step of the window; by default the window's size.
    padding : int, tuple, or str, default 0
        As in :func:`conv2d`; the padding adds zeros.
    ceil_mode : bool, default False
        Round the number of windows up; a window that would start past the input and the padding before it is dropped.
    count_include_pad : bool, default True
        Whether the padding in a window counts among what is divided by; what ``ceil_mode`` adds never does.
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
    GeometryError, UnknownNameError
        ValueErrors: windows larger than the padded input, numbers out of range, names outside their list.
    TypeError
        Complex, object or longdouble arrays; numbers that are no integers.
    BackendUnavailableError
        If the backend cannot be had here.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> fastconv.avg_pool2d(np.arange(16.0).reshape(1, 1, 4, 4), 2)[0, 0]
    array([[ 2.5,  4.5],
           [10.5, 12.5]])
    """
    return _pool_calls.avg_pool(2, x, kernel_size, stride, padding, ceil_mode, count_include_pad, layout, out, backend)


def avg_pool2d_backward(
    grad_output: ArrayLike, x: ArrayLike, kernel_size: IntOrTuple, *, stride: IntOrTuple | None = None,
    padding: Padding = 0, ceil_mode: bool = False, count_include_pad: bool = True, layout: str | None = None,
    out: Array | None = None, backend: str | None = None,
) -> Array:  # fmt: skip
    """Gradient of :func:`avg_pool2d`: every output's gradient is shared out evenly over its window.

    Parameters
    ----------
    grad_output : array_like
        Gradient of the result, of its shape.
    x : array_like
        What :func:`avg_pool2d` was given; only its shape and dtype are looked at.
    kernel_size, stride, padding, ceil_mode, count_include_pad, layout
        As in :func:`avg_pool2d`.
    out : ndarray, optional
        Array of x's shape to write to; it may not share memory with ``grad_output``.
    backend : str, optional
        Who computes.

    Returns
    -------
    ndarray
        Of x's shape and of dtype ``np.result_type(grad_output, x, np.float32)`` (float16 stays).

    Raises
    ------
    GeometryError, UnknownNameError, TypeError, BackendUnavailableError
        As :func:`avg_pool2d`; also a gradient whose shape does not fit.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> dx = fastconv.avg_pool2d_backward(np.ones((1, 1, 1, 1)), np.ones((1, 1, 2, 2)), 2)
    >>> float(dx.max())
    0.25
    """
    return _pool_calls.avg_pool_backward(
        2, grad_output, x, kernel_size, stride, padding, ceil_mode, count_include_pad, layout, out, backend
    )


def avg_pool3d(
    x: ArrayLike, kernel_size: IntOrTuple, *, stride: IntOrTuple | None = None, padding: Padding = 0,
    ceil_mode: bool = False, count_include_pad: bool = True, layout: str | None = None,
    out: Array | None = None, backend: str | None = None,
) -> Array:  # fmt: skip
    """Mean of every window of volumes; everything as in :func:`avg_pool2d`, with three spatial axes.

    Parameters
    ----------
    x : array_like
        ``(N, C, D, H, W)``, with or without the batch; channels last with ``layout="NDHWC"``.
        Any real dtype up to 64 bits, any strides.
    kernel_size, stride, padding, ceil_mode, count_include_pad, layout, out, backend
        As in :func:`avg_pool2d`.

    Returns
    -------
    ndarray
        ``(N, C, D', H', W')`` in the layout of x,
        of dtype ``np.result_type(x, np.float32)`` (float16 stays).

    Raises
    ------
    GeometryError, UnknownNameError, TypeError, BackendUnavailableError
        As :func:`avg_pool2d`.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> fastconv.avg_pool3d(np.ones((1, 1, 4, 4, 4)), 2).shape
    (1, 1, 2, 2, 2)
    """
    return _pool_calls.avg_pool(3, x, kernel_size, stride, padding, ceil_mode, count_include_pad, layout, out, backend)


def avg_pool3d_backward(
    grad_output: ArrayLike, x: ArrayLike, kernel_size: IntOrTuple, *, stride: IntOrTuple | None = None,
    padding: Padding = 0, ceil_mode: bool = False, count_include_pad: bool = True, layout: str | None = None,
    out: Array | None = None, backend: str | None = None,
) -> Array:  # fmt: skip
    """Gradient of :func:`avg_pool3d`: every output's gradient is shared out evenly over its window.

    Parameters
    ----------
    grad_output : array_like
        Gradient of the result, of its shape.
    x : array_like
        What :func:`avg_pool3d` was given; only its shape and dtype are looked at.
    kernel_size, stride, padding, ceil_mode, count_include_pad, layout
        As in :func:`avg_pool2d`.
    out : ndarray, optional
        Array of x's shape to write to; it may not share memory with ``grad_output``.
    backend : str, optional
        Who computes.

    Returns
    -------
    ndarray
        Of x's shape and of dtype ``np.result_type(grad_output, x, np.float32)`` (float16 stays).

    Raises
    ------
    GeometryError, UnknownNameError, TypeError, BackendUnavailableError
        As :func:`avg_pool2d`; also a gradient whose shape does not fit.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> dx = fastconv.avg_pool3d_backward(np.ones((1, 1, 1, 1, 1)), np.ones((1, 1, 2, 2, 2)), 2)
    >>> float(dx.max())
    0.125
    """
    return _pool_calls.avg_pool_backward(
        3, grad_output, x, kernel_size, stride, padding, ceil_mode, count_include_pad, layout, out, backend
    )
