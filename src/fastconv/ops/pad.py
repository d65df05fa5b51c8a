"""Padding in five modes, and its gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..backends import registry
from ..backends.protocol import Array, Backend
from ..errors import GeometryError
from ..geometry import ConvGeometry, PadGeometry, pad_geometry
from ._arrays import float_dtype, kernel_dtype, native, new_or_checked, real_array, store
from ._repeated import Bounded, Repeated, call_key

__all__ = ["pad", "pad_backward"]

_MAX_AXES = 5  # what a backend's kernels take; more padded axes are padded in two passes


def pad(
    x: ArrayLike, pad_width: Any, *, mode: str = "constant", value: float = 0, out: Array | None = None,
    backend: str | None = None,
) -> Array:  # fmt: skip
    """Pad an array, as :func:`numpy.pad` does.

    Parameters
    ----------
    x : array_like
        Any shape, any real dtype up to 64 bits, any strides.
    pad_width : int, pair, sequence of pairs, or dict
        Exactly as in :func:`numpy.pad`: one number, one (before, after) pair, one pair for each axis, or axis -> pair.
    mode : str, default "constant"
        ``"constant"``, ``"edge"``, ``"reflect"``, ``"symmetric"`` or ``"wrap"``. What is wider than the axis repeats.
    value : number, default 0
        What ``"constant"`` puts; it must fit x's dtype.
    out : ndarray, optional
        Array of the padded shape and x's dtype to write to; it may not share memory with x.
    backend : str, optional
        Who computes.

    Returns
    -------
    ndarray
        The padded array, of x's dtype.

    Raises
    ------
    GeometryError, UnknownNameError, TypeError, BackendUnavailableError
        Widths that do not fit the axes or are negative, unknown modes, values that do not fit the dtype.

    Examples
    --------
    >>> import fastconv
    >>> fastconv.pad([1, 2, 3], 2, mode="reflect")
    array([3, 2, 1, 2, 3, 2, 1])
    """
    runs_on = registry.active() if backend is None else registry.get_backend(backend)
    settings = (pad_width, value, mode, runs_on)
    if out is None:
        result = _padded.again(settings)(x)
        if result is not None:
            return result  # type: ignore[no-any-return]
    key = call_key(settings[:2], settings[2:], x)
    call = _padded.find(key, settings)
    if call is None:
        array = native(real_array("pad", "x", x))
        _, shape = pad_geometry("pad", array.shape, pad_width, mode)
        call = _Padded(runs_on, shape, _pairs(array.shape, pad_width), mode, _fill_value(value, array.dtype))
        _padded.keep(key, settings, call)
    return call(x, out)


def pad_backward(
    grad_output: ArrayLike,
    pad_width: Any,
    *,
    mode: str = "constant",
    out: Array | None = None,
    backend: str | None = None,
) -> Array:
    """Gradient of :func:`pad`: every element gets the sum of the gradients of its copies.

    Parameters
    ----------
    grad_output : array_like
        Gradient of the padded array.
    pad_width, mode
        What :func:`pad` was given.
    out : ndarray, optional
        Array of the unpadded shape to write to; it may not share memory with ``grad_output``.
    backend : str, optional
        Who computes.

    Returns
    -------
    ndarray
        Of the unpadded shape and of dtype ``np.result_type(grad_output, np.float32)`` (float16 stays).

    Raises
    ------
    GeometryError, UnknownNameError, TypeError, BackendUnavailableError
        As :func:`pad`; also a gradient that is smaller than its padding.

    Examples
    --------
    >>> import fastconv
    >>> fastconv.pad_backward([1.0, 1.0, 1.0, 1.0, 1.0], 1, mode="edge")
    array([2., 1., 2.])
    """
    gradient = real_array("pad_backward", "grad_output", grad_output)
    runs_on = registry.active() if backend is None else registry.get_backend(backend)
    key = call_key((pad_width,), (mode, runs_on), gradient)
    call = _unpadded.recall(key)
    if call is None:
        call = _Unpadded(runs_on, gradient.shape, pad_width, mode, float_dtype(gradient))
        _unpadded.remember(key, call)
    return call(gradient, out)


class _Padded:
    """Padding of arrays of one shape and dtype, its arguments checked."""

    def __init__(
        self, backend: Backend, shape: tuple[int, ...], pads: list[tuple[int, int]], mode: str, fill: Array
    ) -> None:
        """``shape`` is the result's."""
        self.backend, self.shape, self.pads, self.mode, self.fill = backend, shape, pads, mode, fill
        self.at_once = None
        if len(pads) <= _MAX_AXES:
            before = tuple(n - lo - hi for n, (lo, hi) in zip(shape, pads, strict=True))
            geometry, _ = pad_geometry("pad", before, pads, mode)
            self.at_once = backend.bind_pad(geometry, before, shape, fill)

    def __call__(self, x: Any, out: Array | None) -> Array:
        if out is None and self.at_once is not None:
            padded = self.at_once(x)
            if padded is not None:
                return padded
        array = native(np.asarray(x))
        result = new_or_checked("pad", out, self.shape, array.dtype, (array,), backend=self.backend)
        plain = result.flags.c_contiguous and result.dtype.isnative and result.flags.aligned
        into = result if plain else np.empty(self.shape, array.dtype)
        _pad_into(self.backend, array, self.pads, self.mode, self.fill, into)
        if not plain:
            result[...] = into
        return result


class _Unpadded:
    """The gradient of a padding, its arguments checked."""

    def __init__(
        self, backend: Backend, shape: tuple[int, ...], pad_width: Any, mode: str, result: np.dtype[Any]
    ) -> None:
        """``shape`` is the gradient's."""
        func = "pad_backward"
        self.backend, self.result = backend, result
        pad_geometry(func, shape, pad_width, mode)  # checks the arguments
        pads = _pairs(shape, pad_width)
        self.shape = tuple(n - lo - hi for n, (lo, hi) in zip(shape, pads, strict=True))
        repeats = mode != "constant"  # which an empty axis has nothing for
        if any(n < 0 or (n == 0 and m > 0 and repeats) for n, m in zip(self.shape, shape, strict=True)):
            raise GeometryError(f"{func}: grad_output of shape {shape} is no larger than its padding {pad_width!r}")
        self.passes: list[tuple[PadGeometry, tuple[int, ...]]] = []
        for axes in _passes(pads):
            now = [p if a in axes else (0, 0) for a, p in enumerate(pads)]
            shape = tuple(n - lo - hi for n, (lo, hi) in zip(shape, now, strict=True))
            self.passes.append((pad_geometry(func, shape, now, mode)[0], shape))

    def __call__(self, gradient: Array, out: Array | None) -> Array:
        result = new_or_checked("pad_backward", out, self.shape, self.result, (gradient,), backend=self.backend)
        dy: Array = np.ascontiguousarray(native(gradient), dtype=kernel_dtype(self.result)).reshape(gradient.shape)
        plain = result.dtype == dy.dtype and result.flags.c_contiguous and result.flags.aligned
        for i, (geometry, shape) in enumerate(self.passes):
            dx = result if plain and i + 1 == len(self.passes) else np.empty(shape, dy.dtype)
            self.backend.pad_backward(geometry, dy.reshape(geometry.out_shape), dx.reshape(geometry.in_shape))
            dy = dx
        if dy is not result:
            store(result, dy)
        return result


_padded = Repeated[_Padded]()
_unpadded = Bounded[_Unpadded]()


def pad_spatial(backend: Backend, geometry: ConvGeometry, x: Array) -> Array:
    """The input of a convolution, padded in its mode: for a backend that does not pad itself."""
    rank = geometry.rank
    spatial = list(geometry.padding[3 - rank :])
    pads = [*spatial, (0, 0)] if geometry.channels_last else spatial
    pads = [(0, 0)] * (x.ndim - len(pads)) + pads
    x = native(x)
    padded = np.empty(tuple(n + lo + hi for n, (lo, hi) in zip(x.shape, pads, strict=True)), x.dtype)
    _pad_into(backend, x, pads, geometry.padding_mode, np.zeros((), x.dtype), padded)
    return padded


def unpad_gradient(backend: Backend, geometry: ConvGeometry, padded: Array, view: Array, *, turned: bool) -> None:
    """Add the gradient of a padded input up into the unpadded one; both have five axes."""
    last = geometry.channels_last and not turned
    pads = ((0, 0), *geometry.padding, (0, 0)) if last else ((0, 0), (0, 0), *geometry.padding)
    dx = np.empty(view.shape, padded.dtype)
    backend.pad_backward(PadGeometry(view.shape, pads, geometry.padding_mode), padded, dx)
    store(view, dx)


def _pairs(shape: tuple[int, ...], pad_width: Any) -> list[tuple[int, int]]:
    """One pair for each axis, of a ``pad_width`` that has been checked."""
    if isinstance(pad_width, dict):
        widths: list[Any] = [(0, 0)] * len(shape)
        for axis, width in pad_width.items():
            widths[axis] = width if np.ndim(width) else (width, width)
        pad_width = widths
    return [(lo, hi) for lo, hi in np.broadcast_to(np.asarray(pad_width), (len(shape), 2)).tolist()]


def _passes(pads: list[tuple[int, int]]) -> list[list[int]]:
    """Groups of axes to pad together, so that no group needs more than five axes once the others are merged."""
    padded = [axis for axis, pair in enumerate(pads) if pair != (0, 0)]
    if len(pads) <= _MAX_AXES:
        return [padded]
    return [padded[i : i + 2] for i in range(0, len(padded), 2)] or [[]]


def _pad_into(backend: Backend, x: Array, pads: list[tuple[int, int]], mode: str, fill: Array, out: Array) -> None:
    """Pad ``x`` into the contiguous ``out``: bits are copied, whatever they mean."""
    bits = np.dtype(f"u{x.dtype.itemsize}")
    groups = _passes(pads)
    for i, axes in enumerate(groups):
        now = [p if a in axes else (0, 0) for a, p in enumerate(pads)]
        geometry, shape = pad_geometry("pad", x.shape, now, mode)
        into = out if i == len(groups) - 1 else np.empty(shape, x.dtype)
        source = np.ascontiguousarray(x).reshape(geometry.in_shape).view(bits)
        backend.pad(geometry, source, fill.view(bits), into.reshape(geometry.out_shape).view(bits))
        x = into


def _fill_value(value: Any, dtype: np.dtype[Any]) -> Array:
    """``value`` in the array's dtype, 0-d; a value that does not fit is refused."""
    given = real_array("pad", "value", value)
    if given.ndim:
        raise GeometryError(f"pad: value must be one number, received an array of shape {given.shape}")
    with np.errstate(all="ignore"):
        fill = given.astype(dtype)
    if dtype.kind in "iub" and not np.array_equal(fill, given):
        raise GeometryError(f"pad: value {value!r} does not fit dtype {dtype}")
    return fill
