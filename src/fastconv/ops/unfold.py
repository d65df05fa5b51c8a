"""Windows as columns and back: what makes a convolution a product of matrices, and its adjoint."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..backends import registry
from ..backends.protocol import Array
from ..errors import GeometryError
from ..geometry import ConvGeometry, IntOrTuple, Padding, check_size, conv_geometry, is_channels_last, ntuple
from ._arrays import float_dtype, kernel_dtype, native, new_or_checked, real_array
from ._repeated import Bounded, call_key

__all__ = ["col2im", "im2col"]

_known = Bounded[tuple[ConvGeometry, int]]()


def im2col(
    x: ArrayLike, kernel_size: IntOrTuple, *, stride: IntOrTuple = 1, padding: Padding = 0, dilation: IntOrTuple = 1,
    layout: str | None = None, out: Array | None = None, backend: str | None = None,
) -> Array:  # fmt: skip
    """Write every window of the input as a column.

    Parameters
    ----------
    x : array_like
        ``(N, C, W)``, ``(N, C, H, W)`` or ``(N, C, D, H, W)``, with or without the batch; channels last with a
        ``layout`` that says so. Any real dtype up to 64 bits, any strides.
    kernel_size : int or tuple of int
        Size of the window; a tuple's length is the number of spatial axes, with one number x has its batch.
    stride, padding, dilation
        As in :func:`conv2d`; the padding is zeros.
    layout : str, optional
        As in :func:`conv2d`.
    out : ndarray, optional
        Array of the result's shape and x's dtype to write to; it may not share memory with x.
    backend : str, optional
        Who computes; by default the active backend.

    Returns
    -------
    ndarray
        ``(N, C * prod(kernel_size), L)`` with L windows in row-major order, of x's dtype; without N if x has none.

    Raises
    ------
    GeometryError, UnknownNameError, TypeError, BackendUnavailableError
        As :func:`conv2d`.

    References
    ----------
    Chellapilla, Puri, Simard: *High performance convolutional neural networks for document processing*, 2006.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> fastconv.im2col(np.arange(5).reshape(1, 1, 5), 3)
    array([[[0, 1, 2],
            [1, 2, 3],
            [2, 3, 4]]])
    """
    func = "im2col"
    array = native(real_array(func, "x", x))
    runs_on = registry.active() if backend is None else registry.get_backend(backend)
    rank = _rank(kernel_size) or array.ndim - 2
    if not 1 <= rank <= 3:
        raise GeometryError(f"{func}: x must have 3, 4 or 5 axes, received shape {array.shape}")
    kernel = ntuple(func, "kernel_size", kernel_size, rank)
    if is_channels_last(func, layout, rank):
        array = np.moveaxis(array, -1, -rank - 1) if array.ndim > rank else array
    geometry, channels = _geometry(func, array.shape, kernel, stride, padding, dilation)
    head = array.shape[: array.ndim - rank - 1]
    shape = (*head, channels * math.prod(kernel), math.prod(geometry.out_size))
    check_size(func, "output", shape)
    out = new_or_checked(func, out, shape, array.dtype, (array,))
    direct = out.flags.c_contiguous and out.flags.aligned
    columns = out if direct else np.empty(shape, array.dtype)
    if columns.size:
        batch = math.prod(head)
        bits = np.dtype(f"u{array.dtype.itemsize}")
        seen = np.ascontiguousarray(array).view(bits).reshape(geometry.x_shape(batch))
        full = columns.view(bits).reshape(batch, channels, *geometry.kernel, *geometry.out_size)
        runs_on.im2col(geometry, seen, full)
    if not direct:
        out[...] = columns
    return out


def col2im(
    columns: ArrayLike, output_size: IntOrTuple, kernel_size: IntOrTuple, *, stride: IntOrTuple = 1,
    padding: Padding = 0, dilation: IntOrTuple = 1, layout: str | None = None, out: Array | None = None,
    backend: str | None = None,
) -> Array:  # fmt: skip
    """Add columns up to the image they are windows of: the adjoint of :func:`im2col`.

    Parameters
    ----------
    columns : array_like
        ``(N, C * prod(kernel_size), L)``, or without N.
    output_size : int or tuple of int
        Spatial size of the result: what :func:`im2col` was given.
    kernel_size : int or tuple of int
        Size of the window. One of the two sizes must be a tuple: its length is the number of spatial axes.
    stride, padding, dilation, layout
        As in :func:`im2col`.
    out : ndarray, optional
        Array of the result's shape and dtype to write to; it may not share memory with ``columns``.
    backend : str, optional
        Who computes.

    Returns
    -------
    ndarray
        ``(N, C, *output_size)`` in the layout, of dtype ``np.result_type(columns, np.float32)`` (float16 stays).

    Raises
    ------
    GeometryError, UnknownNameError, TypeError, BackendUnavailableError
        As :func:`im2col`; also columns whose number or length does not fit.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> fastconv.col2im(np.ones((1, 3, 3)), (5,), 3)
    array([[[1., 2., 3., 2., 1.]]])
    """
    func = "col2im"
    array = native(real_array(func, "columns", columns))
    runs_on = registry.active() if backend is None else registry.get_backend(backend)
    rank = _rank(output_size) or _rank(kernel_size)
    if not 1 <= rank <= 3:
        raise GeometryError(
            f"{func}: output_size or kernel_size must be a tuple of 1, 2 or 3 integers, received {output_size!r} and "
            f"{kernel_size!r}"
        )
    kernel, size = ntuple(func, "kernel_size", kernel_size, rank), ntuple(func, "output_size", output_size, rank)
    if array.ndim not in (2, 3):
        raise GeometryError(
            f"{func}: columns must have 3 axes (N, C * prod(kernel_size), L) or 2 without N, "
            f"received shape {array.shape}"
        )
    last = is_channels_last(func, layout, rank)
    channels, rest = divmod(array.shape[-2], math.prod(kernel))
    if rest:
        raise GeometryError(
            f"{func}: columns have {array.shape[-2]} entries (shape {array.shape}), not a multiple of the "
            f"{math.prod(kernel)} positions of a window {kernel}"
        )
    head = array.shape[:-2]
    geometry, _ = _geometry(func, (*head, channels, *size), kernel, stride, padding, dilation)
    if array.shape[-1] != math.prod(geometry.out_size):
        raise GeometryError(
            f"{func}: an output of size {size} has {math.prod(geometry.out_size)} windows, but columns has "
            f"{array.shape[-1]} (shape {array.shape})"
        )
    dtype = float_dtype(array)
    shape = (*head, *size, channels) if last else (*head, channels, *size)
    out = new_or_checked(func, out, shape, dtype, (array,))
    if not out.size:
        return out
    batch, kernel_type = math.prod(head), kernel_dtype(dtype)
    seen = np.ascontiguousarray(array, kernel_type)
    five = geometry.x_shape(batch)
    direct = not last and dtype == kernel_type and out.flags.c_contiguous and out.flags.aligned
    image = out.reshape(five) if direct else np.empty(five, kernel_type)
    runs_on.col2im(geometry, seen.reshape(batch, channels, *geometry.kernel, *geometry.out_size), image)
    if not direct:
        result = image.reshape(*head, channels, *size)
        out[...] = np.moveaxis(result, -rank - 1, -1) if last else result
    return out


def _rank(sizes: Any) -> int:
    """Number of spatial axes that a tuple of sizes tells; zero for a single number."""
    return len(sizes) if isinstance(sizes, (Sequence, np.ndarray)) and not isinstance(sizes, str) else 0


def _geometry(
    func: str, shape: tuple[int, ...], kernel: tuple[int, ...], stride: Any, padding: Any, dilation: Any
) -> tuple[ConvGeometry, int]:
    """The depthwise convolution whose windows these are, and the number of channels (which may be zero)."""
    key = call_key((shape, kernel, stride, padding, dilation), (func,))
    known = _known.recall(key)
    if known is not None:
        return known
    rank = len(kernel)
    channels = shape[-rank - 1] if len(shape) > rank else 1
    least = (*shape[: len(shape) - rank - 1], max(1, channels), *shape[len(shape) - rank :])
    checked = least if len(shape) in (rank + 1, rank + 2) else shape
    weight = (max(1, channels), 1, *kernel)
    geometry = conv_geometry(
        func, rank, checked, weight, stride=stride, padding=padding, dilation=dilation, groups=max(1, channels)
    )
    _known.remember(key, (geometry, channels))
    return geometry, channels
