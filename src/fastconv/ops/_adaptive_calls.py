"""Adaptive and global pooling: a plain pooling where the windows are alike, else window by window."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np

from ..backends import registry
from ..backends.protocol import Array
from ..errors import GeometryError, UnknownNameError
from ..geometry import adaptive_windows, check_size, ntuple, pool_geometry
from ._arrays import check_grad, float_dtype, kernel_dtype, native, new_or_checked, real_array
from ._pool_calls import Average, AverageBackward, Max, MaxBackward, check_ties
from ._repeated import Bounded, Repeated, call_key

__all__ = ["adaptive", "adaptive_backward", "global_pool", "global_pool_backward"]

_FEW = 8  # so many positions of a window are added one by one: np.add.reduce of 2 or 3 takes four times as long
_RANKS = {"NCW": 1, "NWC": 1, "NCHW": 2, "NHWC": 2, "NCDHW": 3, "NDHWC": 3}


class _Windows:
    """The windows of one call: alike on every axis, or listed axis by axis."""

    def __init__(self, func: str, rank: int, x_shape: tuple[int, ...], output_size: Any, layout: Any) -> None:
        whole = pool_geometry(func, rank, x_shape, 1, layout=layout)  # checks the axes and the layout
        sizes = whole.in_size[3 - rank :]
        wanted = output_size
        if wanted is None:
            wanted = (None,) * rank
        if isinstance(wanted, (tuple, list)) and len(wanted) == rank:  # None keeps the size of its axis
            wanted = tuple(n if w is None else w for n, w in zip(sizes, wanted, strict=True))
        outs = ntuple(func, "output_size", wanted, rank)
        self.ndim, self.first = len(x_shape), len(x_shape) - rank - whole.channels_last
        shape = list(x_shape)
        shape[self.first : self.first + rank] = outs
        self.shape = tuple(shape)
        check_size(func, "output", self.shape)
        np.empty(self.shape, np.bool_)  # what no memory could hold fails here, before its windows are listed
        self.axes = [adaptive_windows(n, out) for n, out in zip(sizes, outs, strict=True)]
        lengths = [{stop - start for start, stop in axis} for axis in self.axes]
        steps = [{b[0] - a[0] for a, b in itertools.pairwise(axis)} or {1} for axis in self.axes]
        self.alike = all(len(a) == 1 for a in (*lengths, *steps)) and all(min(s) > 0 for s in steps)
        each = [max(a) for a in lengths], [max(s) for s in steps], outs
        kernel, stride, out_size = ((*(1,) * (3 - rank), *sizes) for sizes in each)
        self.geometry = replace(
            whole,
            kernel=(kernel[0], kernel[1], kernel[2]),
            stride=(stride[0], stride[1], stride[2]) if self.alike else whole.stride,
            out_size=(out_size[0], out_size[1], out_size[2]),
            adaptive=not self.alike,
        )

    def along(self, array: Array, axis: int, start: int, stop: int) -> Array:
        """A view of one range of one spatial axis."""
        return array[(slice(None),) * (self.first + axis) + (slice(start, stop),)]

    def reduce(self, x: Array, function: np.ufunc) -> Array:
        """Reduce every window, one axis after the other: a window is a product of ranges."""
        for axis, windows in enumerate(self.axes):
            where = self.first + axis
            shape = list(x.shape)
            shape[where] = len(windows)
            result = np.empty(shape, x.dtype)
            for i, (start, stop) in enumerate(windows):
                to = self.along(result, axis, i, i + 1)
                if stop - start > _FEW:
                    function.reduce(self.along(x, axis, start, stop), axis=where, keepdims=True, out=to)
                    continue
                to[...] = self.along(x, axis, start, start + 1)
                for at in range(start + 1, stop):
                    function(to, self.along(x, axis, at, at + 1), out=to)
            x = result
        return x

    def counts(self) -> Array:
        """The number of positions in each window, shaped to divide a result."""
        total: Array = np.ones((), np.float64)
        for windows in self.axes:
            total = total[..., None] * np.array([b - a for a, b in windows])
        return total.reshape(total.shape + (1,) * (self.ndim - self.first - len(self.axes)))


_known = Bounded[_Windows]()
_forward = Repeated[Max | Average]()
_backward = Repeated[MaxBackward | AverageBackward]()


def _windows(func: str, rank: int, x: Array, output_size: Any, layout: Any) -> _Windows:
    key = call_key((rank, output_size), (func, layout), x)
    windows = _known.recall(key)
    if windows is None:
        windows = _Windows(func, rank, x.shape, output_size, layout)
        _known.remember(key, windows)
    return windows


def adaptive(
    kind: str, rank: int, x: Any, output_size: Any, layout: Any, out: Array | None, backend: Any, func: str = "",
    settings: tuple[Any, ...] | None = None,
) -> Array:  # fmt: skip
    """``settings`` are those that an operation which calls this one asks for again."""
    runs_on = registry.active() if backend is None else registry.get_backend(backend)
    if settings is None:
        settings = (kind, rank, output_size, layout, func, runs_on)
        y = _forward.again(settings)(x, out)
        if y is not None:
            return y  # type: ignore[no-any-return]
    func = func or f"adaptive_{kind}_pool{rank}d"
    key = call_key((kind, rank, output_size), (layout, func, runs_on), x)
    call = _forward.find(key, settings)
    if call is not None:
        return call(x, out)
    x = real_array(func, "x", x)
    w = _windows(func, rank, x, output_size, layout)
    if w.alike or runs_on.adaptive_windows:
        call = (
            Max(func, w.geometry, runs_on, x.dtype)
            if kind == "max"
            else Average(func, w.geometry, runs_on, (x.dtype, float_dtype(x)))
        )
        _forward.keep(key, settings, call)
        return call(x, out)
    if kind == "max":
        out = new_or_checked(func, out, w.shape, x.dtype.newbyteorder("="), (x,))
        out[...] = w.reduce(x, np.logical_or if x.dtype.kind == "b" else np.maximum)
        return out
    result = float_dtype(x)
    out = new_or_checked(func, out, w.shape, result, (x,))
    dtype = kernel_dtype(result)
    with np.errstate(all="ignore"):
        out[...] = w.reduce(x.astype(dtype), np.add) / w.counts().astype(dtype)
    return out


def adaptive_backward(
    kind: str, rank: int, grad_output: Any, x: Any, output_size: Any, layout: Any, ties: Any, out: Array | None,
    backend: Any, func: str = "", settings: tuple[Any, ...] | None = None,
) -> Array:  # fmt: skip
    runs_on = registry.active() if backend is None else registry.get_backend(backend)
    if settings is None:
        settings = (kind, rank, output_size, layout, ties, func, runs_on)
        dx = _backward.again(settings)(grad_output, x, out)
        if dx is not None:
            return dx  # type: ignore[no-any-return]
    func = func or f"adaptive_{kind}_pool{rank}d_backward"
    key = call_key((kind, rank, output_size), (layout, ties, func, runs_on), grad_output, x)
    call = _backward.find(key, settings)
    if call is not None:
        return call(grad_output, x, out)
    gradient = real_array(func, "grad_output", grad_output)
    check_ties(func, ties)
    x = real_array(func, "x", x)
    w = _windows(func, rank, x, output_size, layout)
    check_grad(func, gradient, w.shape)
    result = float_dtype(gradient, x)
    if w.alike or runs_on.adaptive_windows:
        given = (gradient.dtype, x.dtype, result)
        call = (
            MaxBackward(func, w.geometry, runs_on, given, ties)
            if kind == "max"
            else AverageBackward(func, w.geometry, runs_on, given)
        )
        _backward.keep(key, settings, call)
        return call(gradient, x, out)
    out = new_or_checked(func, out, x.shape, result, (gradient, x))
    dy = gradient.astype(kernel_dtype(result))
    with np.errstate(all="ignore"):
        out[...] = _max_gradient(w, native(x), dy, ties) if kind == "max" else _mean_gradient(w, dy)
    return out


def _mean_gradient(w: _Windows, dy: Array) -> Array:
    """Adjoint of the reduction, axis by axis."""
    dy = dy / w.counts().astype(dy.dtype)
    for axis, windows in reversed(list(enumerate(w.axes))):
        where = w.first + axis
        shape = list(dy.shape)
        shape[where] = windows[-1][1]
        dx = np.zeros(shape, dy.dtype)
        for i, (start, stop) in enumerate(windows):
            part = w.along(dx, axis, start, stop)
            part += w.along(dy, axis, i, i + 1)
        dy = dx
    return dy


def _max_gradient(w: _Windows, x: Array, dy: Array, ties: str) -> Array:
    """Window by window, all images and channels at once; NaNs count as equal to each other."""
    dx = np.zeros(x.shape, dy.dtype)
    axes = tuple(range(w.first, w.first + len(w.axes)))
    for windows in itertools.product(*(enumerate(axis) for axis in w.axes)):
        head = (slice(None),) * w.first
        inside = (*head, *(slice(a, b) for _, (a, b) in windows))
        part = x[inside]
        top = (
            np.logical_or.reduce(part, axis=axes, keepdims=True)
            if x.dtype.kind == "b"
            else part.max(axis=axes, keepdims=True)
        )
        hit = (part == top) | ((part != part) & (top != top))
        if ties == "first":
            flat = np.moveaxis(hit, axes, range(hit.ndim - len(axes), hit.ndim))
            seen = flat.reshape(*flat.shape[: -len(axes)], math.prod(flat.shape[-len(axes) :]))
            only = np.zeros_like(seen)
            np.put_along_axis(only, seen.argmax(-1)[..., None], True, -1)
            hit = np.moveaxis(only.reshape(flat.shape), range(hit.ndim - len(axes), hit.ndim), axes)
        position = (*head, *(slice(i, i + 1) for i, _ in windows))
        share = dy[position]
        if ties == "split":
            share = share / hit.sum(axis=axes, keepdims=True)
        dx[inside] += np.where(hit, share, 0)
    return dx


# ------------------------------------------------------------------------------------------------------ global


def _rank(func: str, x: Array, layout: Any) -> int:
    """Spatial axes of x: as the layout says, without one of a batched x with channels first."""
    if layout is None:
        if x.ndim not in (3, 4, 5):
            raise GeometryError(f"{func}: x must have 3, 4 or 5 axes (N, C, ...), received shape {x.shape}")
        return x.ndim - 2
    if layout not in _RANKS:
        raise UnknownNameError(f"{func}: layout must be None or one of {', '.join(_RANKS)}, received {layout!r}")
    return _RANKS[layout]


def _keepdims(func: str, keepdims: Any) -> bool:
    if not isinstance(keepdims, (bool, np.bool_)):
        raise TypeError(f"{func}: keepdims must be True or False, received {keepdims!r}")
    return bool(keepdims)


def _spatial(x: Array, rank: int, layout: Any) -> tuple[int, ...]:
    first = x.ndim - rank - (layout is not None and layout.endswith("C"))
    return tuple(range(first, first + rank))


def global_pool(kind: str, x: Any, keepdims: Any, layout: Any, out: Array | None, backend: Any) -> Array:
    runs_on = registry.active() if backend is None else registry.get_backend(backend)
    settings = ("global", kind, keepdims, layout, runs_on)
    if keepdims is True:
        y = _forward.again(settings)(x, out)
        if y is not None:
            return y  # type: ignore[no-any-return]
    func = f"global_{kind}_pool"
    array, keep = real_array(func, "x", x), _keepdims(func, keepdims)
    rank = _rank(func, array, layout)
    if not keep:
        y = adaptive(kind, rank, array, 1, layout, None, backend, func)
        y = y.squeeze(_spatial(array, rank, layout))
        if out is None:
            return y
        out = new_or_checked(func, out, y.shape, y.dtype, (array,))
        out[...] = y
        return out
    return adaptive(kind, rank, array, 1, layout, out, backend, func, settings if keepdims is True else None)


def global_pool_backward(
    kind: str, grad_output: Any, x: Any, keepdims: Any, layout: Any, ties: Any, out: Array | None, backend: Any
) -> Array:
    runs_on = registry.active() if backend is None else registry.get_backend(backend)
    settings = ("global", kind, keepdims, layout, ties, runs_on)
    if keepdims is True:
        dx = _backward.again(settings)(grad_output, x, out)
        if dx is not None:
            return dx  # type: ignore[no-any-return]
    func = f"global_{kind}_pool_backward"
    gradient, array = real_array(func, "grad_output", grad_output), real_array(func, "x", x)
    rank = _rank(func, array, layout)
    pool_geometry(func, rank, array.shape, 1, layout=layout)  # checks the number of axes
    if not _keepdims(func, keepdims):
        spatial = _spatial(array, rank, layout)
        check_grad(func, gradient, tuple(n for a, n in enumerate(array.shape) if a not in spatial))
        gradient = np.expand_dims(gradient, spatial)
    again = settings if keepdims is True else None
    return adaptive_backward(kind, rank, gradient, array, 1, layout, ties, out, backend, func, again)
