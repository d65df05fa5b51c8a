"""Max pooling in one, two and three dimensions, and its gradients."""

from __future__ import annotations

from numpy.typing import ArrayLike

from ..backends.protocol import Array
from ..geometry import IntOrTuple, Padding
from . import _pool_calls

__all__ = [
    "max_pool1d",
    "max_pool1d_backward",
    "max_pool1d_with_indices",
    "max_pool2d",
    "max_pool2d_backward",
    "max_pool2d_with_indices",
    "max_pool3d",
    "max_pool3d_backward",
    "max_pool3d_with_indices",
]


def max_pool1d(
    x: ArrayLike, kernel_size: IntOrTuple, *, stride: IntOrTuple | None = None, padding: Padding = 0,
    dilation: IntOrTuple = 1, ceil_mode: bool = False, layout: str | None = None,
    out: Array | None = None, backend: str | None = None,
) -> Array:  # fmt: skip
    """Maximum of every window of sequences; everything as in :func:`max_pool2d`, with one spatial axis.

    Parameters
    ----------
    x : array_like
        ``(N, C, W)``, with or without the batch; channels last with ``layout="NWC"``.
        Any real dtype up to 64 bits, any strides.
    kernel_size, stride, padding, dilation, ceil_mode, layout, out, backend
        As in :func:`max_pool2d`.

    Returns
    -------
    ndarray
        ``(N, C, W')`` in the layout of x, of x's dtype.

    Raises
    ------
    GeometryError, UnknownNameError, TypeError, BackendUnavailableError
        As :func:`max_pool2d`.

    Examples
    --------
    >>> import fastconv
    >>> fastconv.max_pool1d([[1, 3, 2, 5]], 2)
    array([[3, 5]])
    """
    return _pool_calls.max_pool(1, x, kernel_size, stride, padding, dilation, ceil_mode, layout, out, backend)


def max_pool1d_with_indices(
    x: ArrayLike, kernel_size: IntOrTuple, *, stride: IntOrTuple | None = None, padding: Padding = 0,
    dilation: IntOrTuple = 1, ceil_mode: bool = False, layout: str | None = None,
    out: tuple[Array | None, Array | None] | None = None, backend: str | None = None,
) -> tuple[Array, Array]:  # fmt: skip
    """Maximum of every window as :func:`max_pool1d` gives it, and where it was found.

    Parameters
    ----------
    x : array_like
        ``(N, C, W)``, with or without the batch; channels last with ``layout="NWC"``.
        Any real dtype up to 64 bits, any strides.
    kernel_size, stride, padding, dilation, ceil_mode, layout
        As in :func:`max_pool2d`.
    out, backend
        As in :func:`max_pool2d_with_indices`.

    Returns
    -------
    y : ndarray
        What :func:`max_pool1d` gives.
    indices : ndarray of int64
        Flat positions in the unpadded (W) input of each channel, of y's shape; the first of equal maxima,
        -1 where a window lies in the padding alone.

    Raises
    ------
    GeometryError, UnknownNameError, TypeError, BackendUnavailableError
        As :func:`max_pool2d`.

    Examples
    --------
    >>> import fastconv
    >>> fastconv.max_pool1d_with_indices([[1, 3, 2, 5]], 2)
    (array([[3, 5]]), array([[1, 3]]))
    """
    return _pool_calls.max_pool_with_indices(
        1, x, kernel_size, stride, padding, dilation, ceil_mode, layout, out, backend
    )


def max_pool1d_backward(
    grad_output: ArrayLike, x: ArrayLike, kernel_size: IntOrTuple, *, stride: IntOrTuple | None = None,
    padding: Padding = 0, dilation: IntOrTuple = 1, ceil_mode: bool = False, layout: str | None = None,
    ties: str = "first", out: Array | None = None, backend: str | None = None,
) -> Array:  # fmt: skip
    """Gradient of :func:`max_pool1d`: every output's gradient goes to where its maximum was found.

    Parameters
    ----------
    grad_output : array_like
        Gradient of the result, of its shape.
    x : array_like
        What :func:`max_pool1d` was given.
    kernel_size, stride, padding, dilation, ceil_mode, layout
        As in :func:`max_pool2d`.
    ties, out, backend
        As in :func:`max_pool2d_backward`.

    Returns
    -------
    ndarray
        Of x's shape and of dtype ``np.result_type(grad_output, x, np.float32)`` (float16 stays).

    Raises
    ------
    GeometryError, UnknownNameError, TypeError, BackendUnavailableError
        As :func:`max_pool2d`; also a gradient whose shape does not fit.

    Examples
    --------
    >>> import fastconv
    >>> fastconv.max_pool1d_backward([[1.0]], [[3.0, 3.0]], 2, ties="split")
    array([[0.5, 0.5]])
    """
    return _pool_calls.max_pool_backward(
        1, grad_output, x, kernel_size, stride, padding, dilation, ceil_mode, layout, ties, out, backend
    )


def max_pool2d(
    x: ArrayLike, kernel_size: IntOrTuple, *, stride: IntOrTuple | None = None, padding: Padding = 0,
    dilation: IntOrTuple = 1, ceil_mode: bool = False, layout: str | None = None,
    out: Array | None = None, backend: str | None = None,
) -> Array:  # fmt: skip
    """Maximum of every window of images.

    The first NaN of a window is its maximum; a window of padding alone gives -inf or the dtype's least value.

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
        As in :func:`conv2d`; a maximum never picks the padding.
    dilation : int or tuple of int, default 1
        Distance between the positions of a window.
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
        ``(N, C, H', W')`` in the layout of x, of x's dtype.

    Raises
    ------
    GeometryError, UnknownNameError
        ValueErrors: windows larger than the padded input, numbers out of range, names outside their list.
    TypeError
        Complex, object or longdouble arrays; numbers that are no integers.
    BackendUnavailableError
        If the backend cannot be had here.

    References
    ----------
    Goodfellow, Bengio, Courville: *Deep Learning*, MIT Press 2016, section 9.3.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> fastconv.max_pool2d(np.arange(16).reshape(1, 1, 4, 4), 2)[0, 0]
    array([[ 5,  7],
           [13, 15]])
    """
    return _pool_calls.max_pool(2, x, kernel_size, stride, padding, dilation, ceil_mode, layout, out, backend)


def max_pool2d_with_indices(
    x: ArrayLike, kernel_size: IntOrTuple, *, stride: IntOrTuple | None = None, padding: Padding = 0,
    dilation: IntOrTuple = 1, ceil_mode: bool = False, layout: str | None = None,
    out: tuple[Array | None, Array | None] | None = None, backend: str | None = None,
) -> tuple[Array, Array]:  # fmt: skip
    """Maximum of every window as :func:`max_pool2d` gives it, and where it was found.

    Parameters
    ----------
    x : array_like
        ``(N, C, H, W)``, with or without the batch; channels last with ``layout="NHWC"``.
        Any real dtype up to 64 bits, any strides.
    kernel_size, stride, padding, dilation, ceil_mode, layout
        As in :func:`max_pool2d`.
    out : tuple of ndarray, optional
        ``(y, indices)`` to write to, either of them None.
    backend : str, optional
        Who computes.

    Returns
    -------
    y : ndarray
        What :func:`max_pool2d` gives.
    indices : ndarray of int64
        Flat positions in the unpadded (H, W) input of each channel, of y's shape; the first of equal maxima,
        -1 where a window lies in the padding alone.

    Raises
    ------
    GeometryError, UnknownNameError, TypeError, BackendUnavailableError
        As :func:`max_pool2d`.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> y, indices = fastconv.max_pool2d_with_indices(np.arange(16).reshape(1, 1, 4, 4), 2)
    >>> indices[0, 0]
    array([[ 5,  7],
           [13, 15]])
    """
    return _pool_calls.max_pool_with_indices(
        2, x, kernel_size, stride, padding, dilation, ceil_mode, layout, out, backend
    )


def max_pool2d_backward(
    grad_output: ArrayLike, x: ArrayLike, kernel_size: IntOrTuple, *, stride: IntOrTuple | None = None,
    padding: Padding = 0, dilation: IntOrTuple = 1, ceil_mode: bool = False, layout: str | None = None,
    ties: str = "first", out: Array | None = None, backend: str | None = None,
) -> Array:  # fmt: skip
    """Gradient of :func:`max_pool2d`: every output's gradient goes to where its maximum was found.

    Parameters
    ----------
    grad_output : array_like
        Gradient of the result, of its shape.
    x : array_like
        What :func:`max_pool2d` was given.
    kernel_size, stride, padding, dilation, ceil_mode, layout
        As in :func:`max_pool2d`.
    ties : str, default "first"
        Who gets the gradient where several positions hold the maximum: the ``"first"`` of them, ``"all"`` in full, or
        all in equal shares (``"split"``). NaNs are tied with each other.
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
        As :func:`max_pool2d`; also a gradient whose shape does not fit.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> fastconv.max_pool2d_backward(np.ones((1, 1, 1, 1)), np.arange(4.0).reshape(1, 1, 2, 2), 2)[0, 0]
    array([[0., 0.],
           [0., 1.]])
    """
    return _pool_calls.max_pool_backward(
        2, grad_output, x, kernel_size, stride, padding, dilation, ceil_mode, layout, ties, out, backend
    )


def max_pool3d(
    x: ArrayLike, kernel_size: IntOrTuple, *, stride: IntOrTuple | None = None, padding: Padding = 0,
    dilation: IntOrTuple = 1, ceil_mode: bool = False, layout: str | None = None,
    out: Array | None = None, backend: str | None = None,
) -> Array:  # fmt: skip
    """Maximum of every window of volumes; everything as in :func:`max_pool2d`, with three spatial axes.

    Parameters
    ----------
    x : array_like
        ``(N, C, D, H, W)``, with or without the batch; channels last with ``layout="NDHWC"``.
        Any real dtype up to 64 bits, any strides.
    kernel_size, stride, padding, dilation, ceil_mode, layout, out, backend
        As in :func:`max_pool2d`.

    Returns
    -------
    ndarray
        ``(N, C, D', H', W')`` in the layout of x, of x's dtype.

    Raises
    ------
    GeometryError, UnknownNameError, TypeError, BackendUnavailableError
        As :func:`max_pool2d`.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> fastconv.max_pool3d(np.ones((1, 1, 4, 4, 4)), 2).shape
    (1, 1, 2, 2, 2)
    """
    return _pool_calls.max_pool(3, x, kernel_size, stride, padding, dilation, ceil_mode, layout, out, backend)


def max_pool3d_with_indices(
    x: ArrayLike, kernel_size: IntOrTuple, *, stride: IntOrTuple | None = None, padding: Padding = 0,
    dilation: IntOrTuple = 1, ceil_mode: bool = False, layout: str | None = None,
    out: tuple[Array | None, Array | None] | None = None, backend: str | None = None,
) -> tuple[Array, Array]:  # fmt: skip
    """Maximum of every window as :func:`max_pool3d` gives it, and where it was found.

    Parameters
    ----------
    x : array_like
        ``(N, C, D, H, W)``, with or without the batch; channels last with ``layout="NDHWC"``.
        Any real dtype up to 64 bits, any strides.
    kernel_size, stride, padding, dilation, ceil_mode, layout
        As in :func:`max_pool2d`.
    out, backend
        As in :func:`max_pool2d_with_indices`.

    Returns
    -------
    y : ndarray
        What :func:`max_pool3d` gives.
    indices : ndarray of int64
        Flat positions in the unpadded (D, H, W) input of each channel, of y's shape; the first of equal maxima,
        -1 where a window lies in the padding alone.

    Raises
    ------
    GeometryError, UnknownNameError, TypeError, BackendUnavailableError
        As :func:`max_pool2d`.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> y, indices = fastconv.max_pool3d_with_indices(np.ones((1, 1, 2, 2, 2)), 2)
    >>> int(indices[0, 0, 0, 0, 0])
    0
    """
    return _pool_calls.max_pool_with_indices(
        3, x, kernel_size, stride, padding, dilation, ceil_mode, layout, out, backend
    )


def max_pool3d_backward(
    grad_output: ArrayLike, x: ArrayLike, kernel_size: IntOrTuple, *, stride: IntOrTuple | None = None,
    padding: Padding = 0, dilation: IntOrTuple = 1, ceil_mode: bool = False, layout: str | None = None,
    ties: str = "first", out: Array | None = None, backend: str | None = None,
) -> Array:  # fmt: skip
    """Gradient of :func:`max_pool3d`: every output's gradient goes to where its maximum was found.

    Parameters
    ----------
    grad_output : array_like
        Gradient of the result, of its shape.
    x : array_like
        What :func:`max_pool3d` was given.
    kernel_size, stride, padding, dilation, ceil_mode, layout
        As in :func:`max_pool2d`.
    ties, out, backend
        As in :func:`max_pool2d_backward`.

    Returns
    -------
    ndarray
        Of x's shape and of dtype ``np.result_type(grad_output, x, np.float32)`` (float16 stays).

    Raises
    ------
    GeometryError, UnknownNameError, TypeError, BackendUnavailableError
        As :func:`max_pool2d`; also a gradient whose shape does not fit.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x = np.ones((1, 1, 2, 2, 2))
    >>> fastconv.max_pool3d_backward(np.ones((1, 1, 1, 1, 1)), x, 2, ties="all").shape
    (1, 1, 2, 2, 2)
    """
    return _pool_calls.max_pool_backward(
        3, grad_output, x, kernel_size, stride, padding, dilation, ceil_mode, layout, ties, out, backend
    )
