"""Adaptive pooling: a given number of outputs, whatever the size; and its gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from numpy.typing import ArrayLike

from ..backends.protocol import Array
from . import _adaptive_calls

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool1d_backward",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool2d_backward",
    "adaptive_avg_pool3d",
    "adaptive_avg_pool3d_backward",
    "adaptive_max_pool1d",
    "adaptive_max_pool1d_backward",
    "adaptive_max_pool2d",
    "adaptive_max_pool2d_backward",
    "adaptive_max_pool3d",
    "adaptive_max_pool3d_backward",
]

AdaptiveSize: TypeAlias = int | Sequence[int | None] | None


def adaptive_avg_pool1d(
    x: ArrayLike, output_size: AdaptiveSize, *, layout: str | None = None, out: Array | None = None,
    backend: str | None = None,
) -> Array:  # fmt: skip
    """Mean of windows that share sequences out evenly into a given number of outputs.

    Parameters
    ----------
    x : array_like
        ``(N, C, W)``, with or without the batch; channels last with ``layout="NWC"``.
        Any real dtype up to 64 bits, any strides.
    output_size : int, tuple of int, or None
        Number of windows; one number, or one for each axis. None keeps the size of its axis.
    layout, out, backend
        As in :func:`adaptive_avg_pool2d`.

    Returns
    -------
    ndarray
        ``(N, C, W')`` in the layout of x, of dtype ``np.result_type(x, np.float32)`` (float16 stays).

    Raises
    ------
    GeometryError, UnknownNameError, TypeError, BackendUnavailableError
        As :func:`max_pool2d`; also an ``output_size`` below 1.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> fastconv.adaptive_avg_pool1d(np.arange(5.0).reshape(1, 1, 5), 3)[0, 0]
    array([0.5, 2. , 3.5])
    """
    return _adaptive_calls.adaptive("avg", 1, x, output_size, layout, out, backend)


def adaptive_avg_pool1d_backward(
    grad_output: ArrayLike, x: ArrayLike, output_size: AdaptiveSize, *, layout: str | None = None,
    out: Array | None = None, backend: str | None = None,
) -> Array:  # fmt: skip
    """Gradient of :func:`adaptive_avg_pool1d`.

    Parameters
    ----------
    grad_output : array_like
        Gradient of the result, of its shape.
    x : array_like
        What :func:`adaptive_avg_pool1d` was given; only its shape and dtype are looked at.
    output_size, layout
        As in :func:`adaptive_avg_pool1d`.
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
        As :func:`adaptive_avg_pool1d`; also a gradient whose shape does not fit.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x = np.ones((1, 1, 4))
    >>> float(fastconv.adaptive_avg_pool1d_backward(np.ones((1, 1, 2)), x, 2).sum())
    2.0
    """
    return _adaptive_calls.adaptive_backward("avg", 1, grad_output, x, output_size, layout, "first", out, backend)


def adaptive_max_pool1d(
    x: ArrayLike, output_size: AdaptiveSize, *, layout: str | None = None, out: Array | None = None,
    backend: str | None = None,
) -> Array:  # fmt: skip
    """Maximum of windows that share sequences out evenly into a given number of outputs.

    Parameters
    ----------
    x : array_like
        ``(N, C, W)``, with or without the batch; channels last with ``layout="NWC"``.
        Any real dtype up to 64 bits, any strides.
    output_size : int, tuple of int, or None
        Number of windows; one number, or one for each axis. None keeps the size of its axis.
    layout, out, backend
        As in :func:`adaptive_max_pool2d`.

    Returns
    -------
    ndarray
        ``(N, C, W')`` in the layout of x, of x's dtype.

    Raises
    ------
    GeometryError, UnknownNameError, TypeError, BackendUnavailableError
        As :func:`max_pool2d`; also an ``output_size`` below 1.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> fastconv.adaptive_max_pool1d(np.arange(5.0).reshape(1, 1, 5), 3)[0, 0]
    array([1., 3., 4.])
    """
    return _adaptive_calls.adaptive("max", 1, x, output_size, layout, out, backend)


def adaptive_max_pool1d_backward(
    grad_output: ArrayLike, x: ArrayLike, output_size: AdaptiveSize, *, layout: str | None = None, ties: str = "first",
    out: Array | None = None, backend: str | None = None,
) -> Array:  # fmt: skip
    """Gradient of :func:`adaptive_max_pool1d`.

    Parameters
    ----------
    grad_output : array_like
        Gradient of the result, of its shape.
    x : array_like
        What :func:`adaptive_max_pool1d` was given.
    output_size, layout
        As in :func:`adaptive_max_pool1d`.
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
        As :func:`adaptive_max_pool1d`; also a gradient whose shape does not fit.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x = np.ones((1, 1, 4))
    >>> float(fastconv.adaptive_max_pool1d_backward(np.ones((1, 1, 2)), x, 2).sum())
    2.0
    """
    return _adaptive_calls.adaptive_backward("max", 1, grad_output, x, output_size, layout, ties, out, backend)


def adaptive_avg_pool2d(
    x: ArrayLike, output_size: AdaptiveSize, *, layout: str | None = None, out: Array | None = None,
    backend: str | None = None,
) -> Array:  # fmt: skip
    """Mean of windows that share images out evenly into a given number of outputs.

    Window i along an axis of n goes from ``floor(i * n / size)`` to ``ceil((i + 1) * n / size)``, as in PyTorch.

    Parameters
    ----------
    x : array_like
        ``(N, C, H, W)``, with or without the batch; channels last with ``layout="NHWC"``.
        Any real dtype up to 64 bits, any strides.
    output_size : int, tuple of int, or None
        Number of windows; one number, or one for each axis. None keeps the size of its axis.
    layout : str, optional
        ``"NCHW"`` (also None) or ``"NHWC"``.
    out : ndarray, optional
        Array of the result's shape and dtype to write to, any strides; it may not share memory with an input.
    backend : str, optional
        Who computes; by default the active backend.

    Returns
    -------
    ndarray
        ``(N, C, H', W')`` in the layout of x, of dtype ``np.result_type(x, np.float32)`` (float16 stays).

    Raises
    ------
    GeometryError, UnknownNameError, TypeError, BackendUnavailableError
        As :func:`max_pool2d`; also an ``output_size`` below 1.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> fastconv.adaptive_avg_pool2d(np.ones((1, 1, 5, 5)), 3).shape
    (1, 1, 3, 3)
    """
    return _adaptive_calls.adaptive("avg", 2, x, output_size, layout, out, backend)


def adaptive_avg_pool2d_backward(
    grad_output: ArrayLike, x: ArrayLike, output_size: AdaptiveSize, *, layout: str | None = None,
    out: Array | None = None, backend: str | None = None,
) -> Array:  # fmt: skip
    """Gradient of :func:`adaptive_avg_pool2d`.

    Parameters
    ----------
    grad_output : array_like
        Gradient of the result, of its shape.
    x : array_like
        What :func:`adaptive_avg_pool2d` was given; only its shape and dtype are looked at.
    output_size, layout
        As in :func:`adaptive_avg_pool2d`.
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
        As :func:`adaptive_avg_pool2d`; also a gradient whose shape does not fit.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x = np.ones((1, 1, 4, 4))
    >>> float(fastconv.adaptive_avg_pool2d_backward(np.ones((1, 1, 2, 2)), x, 2).sum())
    4.0
    """
    return _adaptive_calls.adaptive_backward("avg", 2, grad_output, x, output_size, layout, "first", out, backend)


def adaptive_max_pool2d(
    x: ArrayLike, output_size: AdaptiveSize, *, layout: str | None = None, out: Array | None = None,
    backend: str | None = None,
) -> Array:  # fmt: skip
    """Maximum of windows that share images out evenly into a given number of outputs.

    Window i along an axis of n goes from ``floor(i * n / size)`` to ``ceil((i + 1) * n / size)``, as in PyTorch.

    Parameters
    ----------
    x : array_like
        ``(N, C, H, W)``, with or without the batch; channels last with ``layout="NHWC"``.
        Any real dtype up to 64 bits, any strides.
    output_size : int, tuple of int, or None
        Number of windows; one number, or one for each axis. None keeps the size of its axis.
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
    GeometryError, UnknownNameError, TypeError, BackendUnavailableError
        As :func:`max_pool2d`; also an ``output_size`` below 1.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> fastconv.adaptive_max_pool2d(np.ones((1, 1, 5, 5)), 3).shape
    (1, 1, 3, 3)
    """
    return _adaptive_calls.adaptive("max", 2, x, output_size, layout, out, backend)


def adaptive_max_pool2d_backward(
    grad_output: ArrayLike, x: ArrayLike, output_size: AdaptiveSize, *, layout: str | None = None, ties: str = "first",
    out: Array | None = None, backend: str | None = None,
) -> Array:  # fmt: skip
    """Gradient of :func:`adaptive_max_pool2d`.

    Parameters
    ----------
    grad_output : array_like
        Gradient of the result, of its shape.
    x : array_like
        What :func:`adaptive_max_pool2d` was given.
    output_size, layout
        As in :func:`adaptive_max_pool2d`.
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
        As :func:`adaptive_max_pool2d`; also a gradient whose shape does not fit.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x = np.ones((1, 1, 4, 4))
    >>> float(fastconv.adaptive_max_pool2d_backward(np.ones((1, 1, 2, 2)), x, 2).sum())
    4.0
    """
    return _adaptive_calls.adaptive_backward("max", 2, grad_output, x, output_size, layout, ties, out, backend)


def adaptive_avg_pool3d(
    x: ArrayLike, output_size: AdaptiveSize, *, layout: str | None = None, out: Array | None = None,
    backend: str | None = None,
) -> Array:  # fmt: skip
    """Mean of windows that share volumes out evenly into a given number of outputs.

    Parameters
    ----------
    x : array_like
        ``(N, C, D, H, W)``, with or without the batch; channels last with ``layout="NDHWC"``.
        Any real dtype up to 64 bits, any strides.
    output_size : int, tuple of int, or None
        Number of windows; one number, or one for each axis. None keeps the size of its axis.
    layout, out, backend
        As in :func:`adaptive_avg_pool2d`.

    Returns
    -------
    ndarray
        ``(N, C, D', H', W')`` in the layout of x, of dtype ``np.result_type(x, np.float32)`` (float16 stays).

    Raises
    ------
    GeometryError, UnknownNameError, TypeError, BackendUnavailableError
        As :func:`max_pool2d`; also an ``output_size`` below 1.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> fastconv.adaptive_avg_pool3d(np.ones((1, 1, 5, 5, 5)), 3).shape
    (1, 1, 3, 3, 3)
    """
    return _adaptive_calls.adaptive("avg", 3, x, output_size, layout, out, backend)


def adaptive_avg_pool3d_backward(
    grad_output: ArrayLike, x: ArrayLike, output_size: AdaptiveSize, *, layout: str | None = None,
    out: Array | None = None, backend: str | None = None,
) -> Array:  # fmt: skip
    """Gradient of :func:`adaptive_avg_pool3d`.

    Parameters
    ----------
    grad_output : array_like
        Gradient of the result, of its shape.
    x : array_like
        What :func:`adaptive_avg_pool3d` was given; only its shape and dtype are looked at.
    output_size, layout
        As in :func:`adaptive_avg_pool3d`.
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
        As :func:`adaptive_avg_pool3d`; also a gradient whose shape does not fit.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x = np.ones((1, 1, 4, 4, 4))
    >>> float(fastconv.adaptive_avg_pool3d_backward(np.ones((1, 1, 2, 2, 2)), x, 2).sum())
    8.0
    """
    return _adaptive_calls.adaptive_backward("avg", 3, grad_output, x, output_size, layout, "first", out, backend)


def adaptive_max_pool3d(
    x: ArrayLike, output_size: AdaptiveSize, *, layout: str | None = None, out: Array | None = None,
    backend: str | None = None,
) -> Array:  # fmt: skip
    """Maximum of windows that share volumes out evenly into a given number of outputs.

    Parameters
    ----------
    x : array_like
        ``(N, C, D, H, W)``, with or without the batch; channels last with ``layout="NDHWC"``.
        Any real dtype up to 64 bits, any strides.
    output_size : int, tuple of int, or None
        Number of windows; one number, or one for each axis. None keeps the size of its axis.
    layout, out, backend
        As in :func:`adaptive_max_pool2d`.

    Returns
    -------
    ndarray
        ``(N, C, D', H', W')`` in the layout of x, of x's dtype.

    Raises
    ------
    GeometryError, UnknownNameError, TypeError, BackendUnavailableError
        As :func:`max_pool2d`; also an ``output_size`` below 1.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> fastconv.adaptive_max_pool3d(np.ones((1, 1, 5, 5, 5)), 3).shape
    (1, 1, 3, 3, 3)
    """
    return _adaptive_calls.adaptive("max", 3, x, output_size, layout, out, backend)


def adaptive_max_pool3d_backward(
    grad_output: ArrayLike, x: ArrayLike, output_size: AdaptiveSize, *, layout: str | None = None, ties: str = "first",
    out: Array | None = None, backend: str | None = None,
) -> Array:  # fmt: skip
    """Gradient of :func:`adaptive_max_pool3d`.

    Parameters
    ----------
    grad_output : array_like
        Gradient of the result, of its shape.
    x : array_like
        What :func:`adaptive_max_pool3d` was given.
    output_size, layout
        As in :func:`adaptive_max_pool3d`.
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
        As :func:`adaptive_max_pool3d`; also a gradient whose shape does not fit.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x = np.ones((1, 1, 4, 4, 4))
    >>> float(fastconv.adaptive_max_pool3d_backward(np.ones((1, 1, 2, 2, 2)), x, 2).sum())
    8.0
    """
    return _adaptive_calls.adaptive_backward("max", 3, grad_output, x, output_size, layout, ties, out, backend)
