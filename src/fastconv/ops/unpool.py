"""Max unpooling: pooled values back in their places, and its gradients."""

from __future__ import annotations

from collections.abc import Sequence

from numpy.typing import ArrayLike

from ..backends.protocol import Array
from ..geometry import IntOrTuple
from . import _unpool_calls

__all__ = [
    "max_unpool1d",
    "max_unpool1d_backward",
    "max_unpool2d",
    "max_unpool2d_backward",
    "max_unpool3d",
    "max_unpool3d_backward",
]


def max_unpool1d(
    x: ArrayLike, indices: ArrayLike, kernel_size: IntOrTuple, *, stride: IntOrTuple | None = None,
    padding: IntOrTuple = 0, output_size: Sequence[int] | None = None, layout: str | None = None,
    out: Array | None = None, backend: str | None = None,
) -> Array:  # fmt: skip
    """Put pooled values back where :func:`max_pool1d_with_indices` found them, zeros elsewhere.

    Parameters
    ----------
    x : array_like
        ``(N, C, W)``, with or without the batch, as :func:`max_pool1d_with_indices` gave it; channels last by
        ``layout``.
    indices : array_like of int
        Flat positions in the result's (W) of each channel, of x's shape; -1 goes nowhere.
    kernel_size, stride, padding, output_size, layout, out, backend
        As in :func:`max_unpool2d`.

    Returns
    -------
    ndarray
        ``(N, C, W')`` in the layout of x, of x's dtype.

    Raises
    ------
    GeometryError, UnknownNameError, TypeError, BackendUnavailableError
        As :func:`max_unpool2d`.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x = np.arange(1.0, 3).reshape((1, 1, 2))
    >>> y, indices = fastconv.max_pool1d_with_indices(x, 2)
    >>> fastconv.max_unpool1d(y, indices, 2).ravel()
    array([0., 2.])
    """
    return _unpool_calls.max_unpool(1, x, indices, kernel_size, stride, padding, output_size, layout, out, backend)


def max_unpool1d_backward(
    grad_output: ArrayLike, indices: ArrayLike, *, layout: str | None = None, out: Array | None = None,
    backend: str | None = None,
) -> Array:  # fmt: skip
    """Gradient of :func:`max_unpool1d`: what arrived at the positions that were written.

    Parameters
    ----------
    grad_output : array_like
        Gradient of the result, of its shape.
    indices : array_like of int
        What :func:`max_unpool1d` was given.
    layout : str, optional
        As in :func:`max_pool1d`.
    out : ndarray, optional
        Array of the shape of ``indices`` to write to; it may not share memory with an input.
    backend : str, optional
        As in :func:`max_unpool1d`.

    Returns
    -------
    ndarray
        Of the shape of ``indices`` and of dtype ``np.result_type(grad_output, np.float32)`` (float16 stays).

    Raises
    ------
    GeometryError, UnknownNameError, TypeError, BackendUnavailableError
        As :func:`max_unpool1d`.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> dy = np.arange(2.0).reshape((1, 1, 2))
    >>> fastconv.max_unpool1d_backward(dy, np.full((1, 1, 1), 1)).ravel()
    array([1.])
    """
    return _unpool_calls.max_unpool_backward(1, grad_output, indices, layout, out, backend)


def max_unpool2d(
    x: ArrayLike, indices: ArrayLike, kernel_size: IntOrTuple, *, stride: IntOrTuple | None = None,
    padding: IntOrTuple = 0, output_size: Sequence[int] | None = None, layout: str | None = None,
    out: Array | None = None, backend: str | None = None,
) -> Array:  # fmt: skip
    """Put pooled values back where :func:`max_pool2d_with_indices` found them, zeros elsewhere.

    Where windows overlap and one position was found twice, the later window's value stays.

    Parameters
    ----------
    x : array_like
        ``(N, C, H, W)``, with or without the batch, as :func:`max_pool2d_with_indices` gave it; channels last by
        ``layout``.
    indices : array_like of int
        Flat positions in the result's (H, W) of each channel, of x's shape; -1 goes nowhere.
    kernel_size, stride, padding
        What the pooling was given; padding a number, or one for each axis.
    output_size : sequence of int, optional
        Spatial size of the result, or its whole shape: the size that was pooled, where several pool to x's size.
    layout : str, optional
        As in :func:`max_pool2d`.
    out : ndarray, optional
        Array of the result's shape and dtype to write to; it may not share memory with an input.
    backend : str, optional
        Checked like everywhere; putting values in their places is the same for all.

    Returns
    -------
    ndarray
        ``(N, C, H', W')`` in the layout of x, of x's dtype.

    Raises
    ------
    GeometryError, UnknownNameError, TypeError, BackendUnavailableError
        Shapes that do not fit, an output size that does not pool to x's, indices outside the result.

    References
    ----------
    Zeiler, Fergus: *Visualizing and understanding convolutional networks*, arXiv:1311.2901.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x = np.arange(1.0, 5).reshape((1, 1, 2, 2))
    >>> y, indices = fastconv.max_pool2d_with_indices(x, 2)
    >>> fastconv.max_unpool2d(y, indices, 2).ravel()
    array([0., 0., 0., 4.])
    """
    return _unpool_calls.max_unpool(2, x, indices, kernel_size, stride, padding, output_size, layout, out, backend)


def max_unpool2d_backward(
    grad_output: ArrayLike, indices: ArrayLike, *, layout: str | None = None, out: Array | None = None,
    backend: str | None = None,
) -> Array:  # fmt: skip
    """Gradient of :func:`max_unpool2d`: what arrived at the positions that were written.

    Parameters
    ----------
    grad_output : array_like
        Gradient of the result, of its shape.
    indices : array_like of int
        What :func:`max_unpool2d` was given.
    layout : str, optional
        As in :func:`max_pool2d`.
    out : ndarray, optional
        Array of the shape of ``indices`` to write to; it may not share memory with an input.
    backend : str, optional
        As in :func:`max_unpool2d`.

    Returns
    -------
    ndarray
        Of the shape of ``indices`` and of dtype ``np.result_type(grad_output, np.float32)`` (float16 stays).

    Raises
    ------
    GeometryError, UnknownNameError, TypeError, BackendUnavailableError
        As :func:`max_unpool2d`.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> dy = np.arange(4.0).reshape((1, 1, 2, 2))
    >>> fastconv.max_unpool2d_backward(dy, np.full((1, 1, 1, 1), 1)).ravel()
    array([1.])
    """
    return _unpool_calls.max_unpool_backward(2, grad_output, indices, layout, out, backend)


def max_unpool3d(
    x: ArrayLike, indices: ArrayLike, kernel_size: IntOrTuple, *, stride: IntOrTuple | None = None,
    padding: IntOrTuple = 0, output_size: Sequence[int] | None = None, layout: str | None = None,
    out: Array | None = None, backend: str | None = None,
) -> Array:  # fmt: skip
    """Put pooled values back where :func:`max_pool3d_with_indices` found them, zeros elsewhere.

    Parameters
    ----------
    x : array_like
        ``(N, C, D, H, W)``, with or without the batch, as :func:`max_pool3d_with_indices` gave it; channels last by
        ``layout``.
    indices : array_like of int
        Flat positions in the result's (D, H, W) of each channel, of x's shape; -1 goes nowhere.
    kernel_size, stride, padding, output_size, layout, out, backend
        As in :func:`max_unpool2d`.

    Returns
    -------
    ndarray
        ``(N, C, D', H', W')`` in the layout of x, of x's dtype.

    Raises
    ------
    GeometryError, UnknownNameError, TypeError, BackendUnavailableError
        As :func:`max_unpool2d`.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x = np.arange(1.0, 9).reshape((1, 1, 2, 2, 2))
    >>> y, indices = fastconv.max_pool3d_with_indices(x, 2)
    >>> fastconv.max_unpool3d(y, indices, 2).ravel()
    array([0., 0., 0., 0., 0., 0., 0., 8.])
    """
    return _unpool_calls.max_unpool(3, x, indices, kernel_size, stride, padding, output_size, layout, out, backend)


def max_unpool3d_backward(
    grad_output: ArrayLike, indices: ArrayLike, *, layout: str | None = None, out: Array | None = None,
    backend: str | None = None,
) -> Array:  # fmt: skip
    """Gradient of :func:`max_unpool3d`: what arrived at the positions that were written.

    Parameters
    ----------
    grad_output : array_like
        Gradient of the result, of its shape.
    indices : array_like of int
        What :func:`max_unpool3d` was given.
    layout : str, optional
        As in :func:`max_pool3d`.
    out : ndarray, optional
        Array of the shape of ``indices`` to write to; it may not share memory with an input.
    backend : str, optional
        As in :func:`max_unpool3d`.

    Returns
    -------
    ndarray
        Of the shape of ``indices`` and of dtype ``np.result_type(grad_output, np.float32)`` (float16 stays).

    Raises
    ------
    GeometryError, UnknownNameError, TypeError, BackendUnavailableError
        As :func:`max_unpool3d`.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> dy = np.arange(8.0).reshape((1, 1, 2, 2, 2))
    >>> fastconv.max_unpool3d_backward(dy, np.full((1, 1, 1, 1, 1), 1)).ravel()
    array([1.])
    """
    return _unpool_calls.max_unpool_backward(3, grad_output, indices, layout, out, backend)
