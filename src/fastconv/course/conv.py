"""Padding and convolution, forward and backward, as the course writes them.

Arrays are (m, n_H, n_W, n_C): images, rows, columns, channels. A weight is (f, f, n_C_prev, n_C), a bias
(1, 1, 1, n_C). Gradients are sums over the images of the batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

import fastconv

from .switch import chosen

__all__ = ["ConvCache", "conv_backward", "conv_forward", "conv_single_step", "zero_pad"]

Array = NDArray[Any]
Hyperparameters = dict[str, Any]
ConvCache = tuple[Array, Array, Array, Hyperparameters]


def zero_pad(X: ArrayLike, pad: int, *, backend: str | None = None) -> Array:
    """Put ``pad`` rows and columns of zeros around every image.

    Parameters
    ----------
    X : array_like
        (m, n_H, n_W, n_C).
    pad : int
        How many, on each of the four sides.
    backend : str, optional
        Who computes this call; by default what :func:`fastconv.course.use` chose.

    Returns
    -------
    ndarray
        (m, n_H + 2 pad, n_W + 2 pad, n_C).

    Raises
    ------
    ValueError
        If X has not four axes, or pad is negative.

    Examples
    --------
    >>> from fastconv import course
    >>> course.zero_pad([[[[7]]]], 1)[0, :, :, 0]
    array([[0, 0, 0],
           [0, 7, 0],
           [0, 0, 0]])
    """
    X = four_axes("zero_pad", "X", X)
    width = ((0, 0), (pad, pad), (pad, pad), (0, 0))
    name = chosen(backend)
    if name is not None:
        return fastconv.pad(X, width, backend=name)
    return np.pad(X, width, mode="constant", constant_values=0)


def conv_single_step(a_slice_prev: ArrayLike, W: ArrayLike, b: ArrayLike) -> float:
    """One filter at one place: multiply entry by entry, add everything up, add the bias.

    Parameters
    ----------
    a_slice_prev : array_like
        The part of the input under the filter, (f, f, n_C_prev).
    W : array_like
        One filter, (f, f, n_C_prev).
    b : array_like
        Its bias, one number: (1, 1, 1).

    Returns
    -------
    float
        One entry of the output.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import course
    >>> course.conv_single_step(np.full((2, 2, 1), 3.0), np.ones((2, 2, 1)), [[[0.5]]])
    12.5
    """
    s = np.multiply(a_slice_prev, W)
    return float(np.sum(s) + np.asarray(b).item())


def conv_forward(
    A_prev: ArrayLike, W: ArrayLike, b: ArrayLike, hparameters: Hyperparameters, *, backend: str | None = None
) -> tuple[Array, ConvCache]:
    """Slide every filter over every image: ``Z[i, h, w, c] = sum(window * W[..., c]) + b[..., c]``.

    Parameters
    ----------
    A_prev : array_like
        Output of the layer before, (m, n_H_prev, n_W_prev, n_C_prev).
    W : array_like
        Filters, (f, f, n_C_prev, n_C).
    b : array_like
        Biases, (1, 1, 1, n_C).
    hparameters : dict
        ``"stride"`` and ``"pad"``.
    backend : str, optional
        Who computes this call; by default what :func:`fastconv.course.use` chose.

    Returns
    -------
    Z : ndarray
        (m, n_H, n_W, n_C) with ``n_H = (n_H_prev - f + 2 pad) // stride + 1``, and n_W likewise.
    cache : tuple
        ``(A_prev, W, b, hparameters)``, for :func:`conv_backward`.

    Raises
    ------
    ValueError
        If shapes do not fit, or a hyperparameter is missing or out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import course
    >>> A = np.arange(9.0).reshape(1, 3, 3, 1)
    >>> W, b = np.ones((2, 2, 1, 1)), np.ones((1, 1, 1, 1))
    >>> Z, _ = course.conv_forward(A, W, b, {"stride": 1, "pad": 0})
    >>> Z[0, :, :, 0]
    array([[ 9., 13.],
           [21., 25.]])
    """
    A_prev, W, b = _filters("conv_forward", A_prev, W, b)
    cache = (A_prev, W, b, hparameters)
    stride, pad = number("conv_forward", hparameters, "stride", 1), number("conv_forward", hparameters, "pad", 0)
    (m, n_H_prev, n_W_prev, _), (f, _, _, n_C) = A_prev.shape, W.shape
    n_H = out_size("conv_forward", n_H_prev, f, stride, pad)
    n_W = out_size("conv_forward", n_W_prev, f, stride, pad)
    name = chosen(backend)
    if name is not None:
        return fastconv.conv2d(A_prev, W, b.reshape(-1), stride=stride, padding=pad, layout="NHWC", backend=name), cache

    Z = np.zeros((m, n_H, n_W, n_C), np.result_type(A_prev, W, np.float32))
    A_prev_pad = zero_pad(A_prev, pad, backend="loops")
    for i in range(m):
        a_prev_pad = A_prev_pad[i]
        for h in range(n_H):
            vert_start = h * stride
            vert_end = vert_start + f
            for w in range(n_W):
                horiz_start = w * stride
                horiz_end = horiz_start + f
                a_slice_prev = a_prev_pad[vert_start:vert_end, horiz_start:horiz_end, :]
                for c in range(n_C):
                    Z[i, h, w, c] = conv_single_step(a_slice_prev, W[:, :, :, c], b[:, :, :, c])
    return Z, cache


def conv_backward(dZ: ArrayLike, cache: ConvCache, *, backend: str | None = None) -> tuple[Array, Array, Array]:
    """Gradients of the cost with respect to what :func:`conv_forward` was given.

    Every output is a sum of products, so every output sends its gradient, times the filter, back to its window
    (``dA_prev``), and, times the window, to the filter (``dW``).

    Parameters
    ----------
    dZ : array_like
        Gradient with respect to Z, (m, n_H, n_W, n_C).
    cache : tuple
        What :func:`conv_forward` returned beside Z.
    backend : str, optional
        Who computes this call; by default what :func:`fastconv.course.use` chose.

    Returns
    -------
    dA_prev : ndarray
        As A_prev, (m, n_H_prev, n_W_prev, n_C_prev).
    dW : ndarray
        As W, (f, f, n_C_prev, n_C); the sum over the batch.
    db : ndarray
        As b, (1, 1, 1, n_C); the sum over the batch.

    Raises
    ------
    ValueError
        If dZ has not the shape of Z.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import course
    >>> A, W, b = np.ones((1, 3, 3, 1)), np.full((2, 2, 1, 1), 5.0), np.zeros((1, 1, 1, 1))
    >>> Z, cache = course.conv_forward(A, W, b, {"stride": 1, "pad": 0})
    >>> dA, dW, db = course.conv_backward(np.ones_like(Z), cache)
    >>> dA[0, :, :, 0]
    array([[ 5., 10.,  5.],
           [10., 20., 10.],
           [ 5., 10.,  5.]])
    >>> db.item()
    4.0
    """
    A_prev, W, b, hparameters = cache
    A_prev, W, b = _filters("conv_backward", A_prev, W, b)
    stride, pad = number("conv_backward", hparameters, "stride", 1), number("conv_backward", hparameters, "pad", 0)
    (m, n_H_prev, n_W_prev, _), (f, _, _, n_C) = A_prev.shape, W.shape
    n_H = out_size("conv_backward", n_H_prev, f, stride, pad)
    n_W = out_size("conv_backward", n_W_prev, f, stride, pad)
    dZ = as_output("conv_backward", "dZ", dZ, (m, n_H, n_W, n_C))
    name = chosen(backend)
    if name is not None:
        grads = fastconv.conv2d_backward(dZ, A_prev, W, stride=stride, padding=pad, layout="NHWC", backend=name)
        assert grads.x is not None
        assert grads.weight is not None
        assert grads.bias is not None
        return grads.x, grads.weight, grads.bias.reshape(b.shape)

    dtype = np.result_type(A_prev, W, dZ, np.float32)
    A_prev_pad = zero_pad(A_prev, pad, backend="loops")
    dA_prev_pad = np.zeros(A_prev_pad.shape, dtype)
    dW, db = np.zeros(W.shape, dtype), np.zeros(b.shape, dtype)
    for i in range(m):
        a_prev_pad, da_prev_pad = A_prev_pad[i], dA_prev_pad[i]
        for h in range(n_H):
            vert_start = h * stride
            vert_end = vert_start + f
            for w in range(n_W):
                horiz_start = w * stride
                horiz_end = horiz_start + f
                a_slice = a_prev_pad[vert_start:vert_end, horiz_start:horiz_end, :]
                for c in range(n_C):
                    da_prev_pad[vert_start:vert_end, horiz_start:horiz_end, :] += W[:, :, :, c] * dZ[i, h, w, c]
                    dW[:, :, :, c] += a_slice * dZ[i, h, w, c]
                    db[:, :, :, c] += dZ[i, h, w, c]
    # not [pad:-pad], which is empty for pad 0
    dA_prev = dA_prev_pad[:, pad : pad + n_H_prev, pad : pad + n_W_prev, :]
    return dA_prev, dW, db


# ------------------------------------------------------------------------------- what arguments must look like


def four_axes(func: str, name: str, x: ArrayLike) -> Array:
    """An array of (m, n_H, n_W, n_C), or a ValueError that says what came."""
    array = np.asarray(x)
    if array.ndim != 4:
        raise ValueError(f"{func}: {name} must be (m, n_H, n_W, n_C), received shape {array.shape}")
    return array


def number(func: str, hparameters: Hyperparameters, key: str, least: int) -> int:
    """An integer hyperparameter of at least ``least``."""
    if key not in hparameters:
        raise ValueError(f'{func}: hparameters must hold "{key}", received {hparameters}')
    value = hparameters[key]
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f'{func}: hparameters["{key}"] must be an integer of at least {least}, received {value!r}')
    return int(value)


def out_size(func: str, size: int, f: int, stride: int, pad: int) -> int:
    """How many places a window of ``f`` has along an axis."""
    if f > size + 2 * pad:
        raise ValueError(f"{func}: a window of {f} does not fit in {size} with a padding of {pad}")
    return (size - f + 2 * pad) // stride + 1


def as_output(func: str, name: str, gradient: ArrayLike, shape: tuple[int, ...]) -> Array:
    """A gradient with respect to an output of that shape."""
    array = np.asarray(gradient)
    if array.shape != shape:
        raise ValueError(f"{func}: {name} must have the output's shape {shape}, received {array.shape}")
    return array


def _filters(func: str, A_prev: ArrayLike, W: ArrayLike, b: ArrayLike) -> tuple[Array, Array, Array]:
    """A_prev, W and b as arrays that fit together."""
    A_prev, W, b = four_axes(func, "A_prev", A_prev), np.asarray(W), np.asarray(b)
    if W.ndim != 4 or W.shape[0] != W.shape[1] or W.shape[2] != A_prev.shape[3]:
        raise ValueError(
            f"{func}: W must be (f, f, n_C_prev, n_C) with n_C_prev = {A_prev.shape[3]} as A_prev of shape "
            f"{A_prev.shape}, received shape {W.shape}"
        )
    if b.shape != (1, 1, 1, W.shape[3]):
        raise ValueError(f"{func}: b must have shape {(1, 1, 1, W.shape[3])}, received {b.shape}")
    return A_prev, W, b
