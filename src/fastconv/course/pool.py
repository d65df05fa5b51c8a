"""Max and average pooling, forward and backward, as the course writes them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

import fastconv

from .conv import Hyperparameters, as_output, four_axes, number, out_size
from .switch import chosen

__all__ = ["PoolCache", "create_mask_from_window", "distribute_value", "pool_backward", "pool_forward"]

Array = NDArray[Any]
PoolCache = tuple[Array, Hyperparameters]


def pool_forward(
    A_prev: ArrayLike, hparameters: Hyperparameters, mode: str = "max", *, backend: str | None = None
) -> tuple[Array, PoolCache]:
    """Keep the largest entry, or the mean, of every window; each channel by itself.

    Parameters
    ----------
    A_prev : array_like
        (m, n_H_prev, n_W_prev, n_C).
    hparameters : dict
        ``"f"``, the side of the window, and ``"stride"``.
    mode : str, default "max"
        ``"max"`` or ``"average"``.
    backend : str, optional
        Who computes this call; by default what :func:`fastconv.course.use` chose.

    Returns
    -------
    A : ndarray
        (m, n_H, n_W, n_C) with ``n_H = (n_H_prev - f) // stride + 1``, and n_W likewise.
    cache : tuple
        ``(A_prev, hparameters)``, for :func:`pool_backward`.

    Raises
    ------
    ValueError
        If A_prev has not four axes, the window does not fit, or the mode is none of the two.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import course
    >>> A, _ = course.pool_forward(np.arange(16.0).reshape(1, 4, 4, 1), {"f": 2, "stride": 2})
    >>> A[0, :, :, 0]
    array([[ 5.,  7.],
           [13., 15.]])
    """
    A_prev, f, stride, n_H, n_W = _window("pool_forward", A_prev, hparameters, mode)
    cache = (A_prev, hparameters)
    name = chosen(backend)
    if name is not None:
        pool = fastconv.max_pool2d if mode == "max" else fastconv.avg_pool2d
        return pool(A_prev, f, stride=stride, layout="NHWC", backend=name), cache

    m, _, _, n_C = A_prev.shape
    A = np.zeros((m, n_H, n_W, n_C), A_prev.dtype if mode == "max" else np.result_type(A_prev, np.float32))
    for i in range(m):
        for h in range(n_H):
            vert_start = h * stride
            vert_end = vert_start + f
            for w in range(n_W):
                horiz_start = w * stride
                horiz_end = horiz_start + f
                for c in range(n_C):
                    a_prev_slice = A_prev[i, vert_start:vert_end, horiz_start:horiz_end, c]
                    A[i, h, w, c] = np.max(a_prev_slice) if mode == "max" else np.mean(a_prev_slice)
    return A, cache


def create_mask_from_window(x: ArrayLike) -> NDArray[np.bool_]:
    """Where a window has its largest entry; True at every one that is equally large.

    Examples
    --------
    >>> from fastconv import course
    >>> course.create_mask_from_window([[1, 3], [3, 2]])
    array([[False,  True],
           [ True, False]])
    """
    window = np.asarray(x)
    mask: NDArray[np.bool_] = window == np.max(window)
    return mask


def distribute_value(dz: float, shape: tuple[int, int]) -> Array:
    """Spread a gradient evenly over a window: each of its entries had the same share in the mean.

    Examples
    --------
    >>> from fastconv import course
    >>> course.distribute_value(2.0, (2, 2))
    array([[0.5, 0.5],
           [0.5, 0.5]])
    """
    n_H, n_W = shape
    average = dz / (n_H * n_W)
    return np.full(shape, average)


def pool_backward(dA: ArrayLike, cache: PoolCache, mode: str = "max", *, backend: str | None = None) -> Array:
    """Gradient of the cost with respect to what :func:`pool_forward` was given.

    A maximum sends its gradient to the entry it came from (and, as in the course, to each of several that were equally
    large: ``ties="all"`` in :func:`fastconv.max_pool2d_backward`); a mean shares it among its window.

    Parameters
    ----------
    dA : array_like
        Gradient with respect to A, (m, n_H, n_W, n_C).
    cache : tuple
        What :func:`pool_forward` returned beside A.
    mode : str, default "max"
        As in :func:`pool_forward`.
    backend : str, optional
        Who computes this call; by default what :func:`fastconv.course.use` chose.

    Returns
    -------
    ndarray
        dA_prev, as A_prev.

    Raises
    ------
    ValueError
        If dA has not the shape of A, or the mode is none of the two.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import course
    >>> A, cache = course.pool_forward([[[[1.0], [4.0]], [[4.0], [2.0]]]], {"f": 2, "stride": 2})
    >>> course.pool_backward([[[[8.0]]]], cache)[0, :, :, 0]
    array([[0., 8.],
           [8., 0.]])
    """
    A_prev, hparameters = cache
    A_prev, f, stride, n_H, n_W = _window("pool_backward", A_prev, hparameters, mode)
    m, _, _, n_C = A_prev.shape
    dA = as_output("pool_backward", "dA", dA, (m, n_H, n_W, n_C))
    name = chosen(backend)
    if name is not None and mode == "max":
        return fastconv.max_pool2d_backward(
            dA, A_prev, f, stride=stride, layout="NHWC", ties="all", backend=name
        )  # fmt: skip
    if name is not None:
        return fastconv.avg_pool2d_backward(dA, A_prev, f, stride=stride, layout="NHWC", backend=name)

    dA_prev = np.zeros(A_prev.shape, np.result_type(A_prev, dA, np.float32))
    for i in range(m):
        for h in range(n_H):
            vert_start = h * stride
            vert_end = vert_start + f
            for w in range(n_W):
                horiz_start = w * stride
                horiz_end = horiz_start + f
                for c in range(n_C):
                    here = (i, slice(vert_start, vert_end), slice(horiz_start, horiz_end), c)
                    if mode == "max":
                        dA_prev[here] += create_mask_from_window(A_prev[here]) * dA[i, h, w, c]
                    else:
                        dA_prev[here] += distribute_value(dA[i, h, w, c], (f, f))
    return dA_prev


def _window(func: str, A_prev: ArrayLike, hparameters: Hyperparameters, mode: str) -> tuple[Array, int, int, int, int]:
    """(A_prev, f, stride, n_H, n_W), all checked."""
    if mode not in ("max", "average"):
        raise ValueError(f'{func}: mode must be "max" or "average", received {mode!r}')
    A_prev = four_axes(func, "A_prev", A_prev)
    f, stride = number(func, hparameters, "f", 1), number(func, hparameters, "stride", 1)
    n_H, n_W = out_size(func, A_prev.shape[1], f, stride, 0), out_size(func, A_prev.shape[2], f, stride, 0)
    return A_prev, f, stride, n_H, n_W
