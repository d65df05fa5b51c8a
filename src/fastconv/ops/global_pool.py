"""Pooling over all positions of a channel, for any number of spatial axes, and its gradients."""

from __future__ import annotations

from numpy.typing import ArrayLike

from ..backends.protocol import Array
from . import _adaptive_calls

__all__ = ["global_avg_pool", "global_avg_pool_backward", "global_max_pool", "global_max_pool_backward"]


def global_avg_pool(
    x: ArrayLike, *, keepdims: bool = True, layout: str | None = None, out: Array | None = None,
    backend: str | None = None,
) -> Array:  # fmt: skip
    """Mean over all positions of every channel.

    Parameters
    ----------
    x : array_like
        ``(N, C, ...)`` with one to three spatial axes, or as the layout says, which also makes the batch optional.
    keepdims : bool, default True
        Whether the spatial axes stay, with length one.
    layout : str, optional
        ``"NCW" "NCHW" "NCDHW"``, channels last ``"NWC" "NHWC" "NDHWC"``; without one x is ``(N, C, ...)`` with its
        batch.
    out : ndarray, optional
        Array of the result's shape and dtype to write to; it may not share memory with x.
    backend : str, optional
        Who computes.

    Returns
    -------
    ndarray
        ``(N, C, 1, ...)``, or ``(N, C)`` without ``keepdims``, of dtype ``np.result_type(x, np.float32)`` (float16
        stays).

    Raises
    ------
    GeometryError, UnknownNameError, TypeError, BackendUnavailableError
        As :func:`max_pool2d`.

    References
    ----------
    Lin, Chen, Yan: *Network in network*, arXiv:1312.4400.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> fastconv.global_avg_pool(np.arange(8.0).reshape(1, 2, 2, 2), keepdims=False)
    array([[1.5, 5.5]])
    """
    return _adaptive_calls.global_pool("avg", x, keepdims, layout, out, backend)


def global_avg_pool_backward(
    grad_output: ArrayLike, x: ArrayLike, *, keepdims: bool = True, layout: str | None = None,
    out: Array | None = None, backend: str | None = None,
) -> Array:  # fmt: skip
    """Gradient of :func:`global_avg_pool`.

    Parameters
    ----------
    grad_output : array_like
        Gradient of the result, of its shape.
    x : array_like
        What :func:`global_avg_pool` was given; only its shape and dtype are looked at.
    keepdims, layout
        As in :func:`global_avg_pool`.
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
        As :func:`global_avg_pool`; also a gradient whose shape does not fit.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> fastconv.global_avg_pool_backward(np.ones((1, 1, 1)), np.arange(4.0).reshape(1, 1, 4))[0, 0]
    array([0.25, 0.25, 0.25, 0.25])
    """
    return _adaptive_calls.global_pool_backward("avg", grad_output, x, keepdims, layout, "first", out, backend)


def global_max_pool(
    x: ArrayLike, *, keepdims: bool = True, layout: str | None = None, out: Array | None = None,
    backend: str | None = None,
) -> Array:  # fmt: skip
    """Maximum over all positions of every channel.

    Parameters
    ----------
    x : array_like
        ``(N, C, ...)`` with one to three spatial axes, or as the layout says, which also makes the batch optional.
    keepdims : bool, default True
        Whether the spatial axes stay, with length one.
    layout : str, optional
        ``"NCW" "NCHW" "NCDHW"``, channels last ``"NWC" "NHWC" "NDHWC"``; without one x is ``(N, C, ...)`` with its
        batch.
    out : ndarray, optional
        Array of the result's shape and dtype to write to; it may not share memory with x.
    backend : str, optional
        Who computes.

    Returns
    -------
    ndarray
        ``(N, C, 1, ...)``, or ``(N, C)`` without ``keepdims``, of x's dtype.

    Raises
    ------
    GeometryError, UnknownNameError, TypeError, BackendUnavailableError
        As :func:`max_pool2d`.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> fastconv.global_max_pool(np.arange(8.0).reshape(1, 2, 2, 2), keepdims=False)
    array([[3., 7.]])
    """
    return _adaptive_calls.global_pool("max", x, keepdims, layout, out, backend)


def global_max_pool_backward(
    grad_output: ArrayLike, x: ArrayLike, *, keepdims: bool = True, layout: str | None = None, ties: str = "first",
    out: Array | None = None, backend: str | None = None,
) -> Array:  # fmt: skip
    """Gradient of :func:`global_max_pool`.

    Parameters
    ----------
    grad_output : array_like
        Gradient of the result, of its shape.
    x : array_like
        What :func:`global_max_pool` was given.
    keepdims, layout
        As in :func:`global_max_pool`.
    ties
        As in :func:`max_pool2d_backward`.
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
        As :func:`global_max_pool`; also a gradient whose shape does not fit.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> fastconv.global_max_pool_backward(np.ones((1, 1, 1)), np.arange(4.0).reshape(1, 1, 4))[0, 0]
    array([0., 0., 0., 1.])
    """
    return _adaptive_calls.global_pool_backward("max", grad_output, x, keepdims, layout, ties, out, backend)
