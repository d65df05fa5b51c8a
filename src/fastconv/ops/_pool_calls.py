"""What stands behind max and average pooling: arguments are checked once, and the checked call is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from ..backends import registry
from ..backends.protocol import TIES, Array, Backend
from ..errors import UnknownNameError
from ..geometry import PoolGeometry, pool_geometry
from ._arrays import Dtypes, Frame, check_grad, float_dtype, kernel_dtype, new_or_checked, real_array
from ._repeated import CallT, Repeated, call_key

__all__ = [
    "Average", "AverageBackward", "Max", "MaxBackward", "avg_pool", "avg_pool_backward", "check_ties", "least",
    "max_pool", "max_pool_backward", "max_pool_with_indices",
]  # fmt: skip

_INT64 = np.dtype(np.int64)


def least(dtype: np.dtype[Any]) -> Any:
    """What a maximum over nothing is: -inf, False, or the least integer."""
    if dtype.kind == "f":
        return dtype.type(-np.inf)
    return dtype.type(False) if dtype.kind == "b" else np.iinfo(dtype).min


def check_ties(func: str, ties: Any) -> None:
    """Refuse a rule for ties outside the closed list."""
    if ties not in TIES:
        raise UnknownNameError(f"{func}: ties must be one of {', '.join(TIES)}, received {ties!r}")


# ------------------------------------------------------------------------------------- calls, checked and kept


def _exact_route(backend: Backend, dtype: np.dtype[Any]) -> np.dtype[Any] | None:
    """The smallest dtype that the backend's max pooling takes and that holds every value of ``dtype``."""
    if dtype in backend.max_pool_dtypes:
        return dtype
    bits = 0 if dtype.kind == "f" else np.iinfo(dtype).bits - (dtype.kind == "i")
    for candidate in sorted(backend.max_pool_dtypes, key=lambda d: d.itemsize):
        if candidate.kind == "f":
            fits = dtype.itemsize < candidate.itemsize if dtype.kind == "f" else bits <= np.finfo(candidate).nmant + 1
        else:
            fits = np.can_cast(dtype, candidate, "safe")
        if fits:
            return candidate
    return None


class Max:
    """Max pooling of one geometry and dtype; whatever the backend lacks goes by an exact detour."""

    def __init__(self, func: str, geometry: PoolGeometry, backend: Backend, dtype: np.dtype[Any]) -> None:
        self.func, self.backend = func, backend
        self.dtype = dtype.newbyteorder("=")
        route = _exact_route(backend, np.dtype(np.uint8) if dtype.kind == "b" else self.dtype)
        # 64-bit integers that no float holds are pooled by their ranks, which are small
        self.by_rank = route is None
        self.frame = Frame(backend, geometry, np.dtype(np.float64) if route is None else route)
        self.out_shape = geometry.out_shape(1)
        computed = dtype if dtype.kind == "b" else self.frame.dtype
        self.at_once = None if self.by_rank else backend.bind_pool(geometry, (dtype, computed, self.dtype), False)
        # a backend's "least value" is that of the dtype it sees: windows of padding alone are mended after a detour
        self.padding_only: list[tuple[int, Array]] = []
        if self.frame.dtype != self.dtype and dtype.kind in "iu":
            inside = replace(geometry, count_include_pad=False)
            empty = [np.flatnonzero(inside.window_counts(axis) == 0) for axis in range(3)]
            self.padding_only = [(axis, where) for axis, where in enumerate(empty) if where.size]

    def __call__(self, x: Array, out: Array | None) -> Array:
        if self.at_once is not None:
            y = self.at_once(x, out)
            if y is not None:
                return y
        return self._pool(x, out, None, False)[0]

    def with_indices(self, x: Array, out: Array | None, indices: Array | None) -> tuple[Array, Array]:
        """The maxima and where they were found."""
        y, found = self._pool(x, out, indices, True)
        assert found is not None
        return y, found

    def _pool(
        self, x: Array, out: Array | None, indices: Array | None, want_indices: bool
    ) -> tuple[Array, Array | None]:
        frame = self.frame
        shape = frame.shape(x, self.out_shape)
        out = new_or_checked(self.func, out, shape, self.dtype, (x, indices), backend=self.backend)
        found = new_or_checked(self.func, indices, shape, _INT64, (x, out), "out[1]") if want_indices else None
        result = out
        if self.dtype.kind == "b":
            x, out = x.view(np.uint8), out.view(np.uint8)
        if self.by_rank:
            values, ranks = np.unique(x, return_inverse=True)
            ranked = np.empty(shape, np.float64)
            self._run(ranks.reshape(x.shape), ranked, found)
            out[...] = values[np.maximum(ranked, 0).astype(np.intp)] if values.size else 0
        else:
            self._run(x, out, found)
        for axis, where in self.padding_only:
            view = frame.view(out)
            first = 1 if frame.geometry.channels_last else 2
            view[(slice(None),) * (first + axis) + (where,)] = least(self.dtype)
        return result, found

    def _run(self, x: Array, out: Array, indices: Array | None) -> None:
        frame = self.frame
        x5 = frame.data(x)
        if indices is None:
            frame.into(frame.view(out), lambda y: self.backend.max_pool(frame.geometry, x5, y, None))
            return
        view = frame.view(indices)
        plain = view.flags.c_contiguous and view.flags.aligned
        into = view if plain else np.empty(view.shape, np.int64)
        frame.into(frame.view(out), lambda y: self.backend.max_pool(frame.geometry, x5, y, into))
        if not plain:
            view[...] = into


class MaxBackward:
    """The gradient of a max pooling."""

    def __init__(self, func: str, geometry: PoolGeometry, backend: Backend, given: Dtypes, ties: str) -> None:
        """``given`` are the dtypes of grad_output, x and result."""
        self.func, self.backend, self.result, self.ties = func, backend, given[-1], ties
        self.frame = Frame(backend, geometry, kernel_dtype(self.result))
        self.out_shape = geometry.out_shape(1)
        # 64-bit integers are compared by their ranks
        by_rank = given[1].kind in "iu" and given[1].itemsize == 8
        dtypes = (*given[:2], self.frame.dtype, self.result)
        self.at_once = None if by_rank else backend.bind_pool_backward(geometry, dtypes, ties)

    def __call__(self, grad_output: Array, x: Array, out: Array | None) -> Array:
        if self.at_once is not None:
            dx = self.at_once(grad_output, x, out)
            if dx is not None:
                return dx
        frame = self.frame
        check_grad(self.func, grad_output, frame.shape(x, self.out_shape))
        out = new_or_checked(self.func, out, x.shape, self.result, (grad_output, x), backend=self.backend)
        if x.dtype.kind in "iu" and x.dtype.itemsize == 8:  # ranks compare as the integers do, floats might not
            x = np.unique(x, return_inverse=True)[1].reshape(x.shape)
        dy, x5 = frame.data(grad_output), frame.data(x)
        frame.into(frame.view(out), lambda dx: self.backend.max_pool_backward(frame.geometry, dy, x5, self.ties, dx))
        return out


class Average:
    """Average pooling of one geometry."""

    def __init__(self, func: str, geometry: PoolGeometry, backend: Backend, given: Dtypes) -> None:
        """``given`` are the dtypes of x and result."""
        self.func, self.backend, self.result = func, backend, given[-1]
        self.frame = Frame(backend, geometry, kernel_dtype(self.result))
        self.out_shape = geometry.out_shape(1)
        self.at_once = backend.bind_pool(geometry, (given[0], self.frame.dtype, self.result), True)

    def __call__(self, x: Array, out: Array | None) -> Array:
        if self.at_once is not None:
            y = self.at_once(x, out)
            if y is not None:
                return y
        frame = self.frame
        out = new_or_checked(self.func, out, frame.shape(x, self.out_shape), self.result, (x,), backend=self.backend)
        x5 = frame.data(x)
        frame.into(frame.view(out), lambda y: self.backend.avg_pool(frame.geometry, x5, y))
        return out


class AverageBackward:
    """The gradient of an average pooling."""

    def __init__(self, func: str, geometry: PoolGeometry, backend: Backend, given: Dtypes) -> None:
        """``given`` are the dtypes of grad_output, x and result."""
        self.func, self.backend, self.result = func, backend, given[-1]
        self.frame = Frame(backend, geometry, kernel_dtype(self.result))
        self.out_shape = geometry.out_shape(1)
        self.at_once = backend.bind_pool_backward(geometry, (*given[:2], self.frame.dtype, self.result), None)

    def __call__(self, grad_output: Array, x: Array, out: Array | None) -> Array:
        if self.at_once is not None:
            dx = self.at_once(grad_output, x, out)
            if dx is not None:
                return dx
        frame = self.frame
        check_grad(self.func, grad_output, frame.shape(x, self.out_shape))
        out = new_or_checked(self.func, out, x.shape, self.result, (grad_output,), backend=self.backend)
        dy = frame.data(grad_output)
        frame.into(frame.view(out), lambda dx: self.backend.avg_pool_backward(frame.geometry, dy, dx))
        return out


_max = Repeated[Max]()
_max_backward = Repeated[MaxBackward]()
_average = Repeated[Average]()
_average_backward = Repeated[AverageBackward]()


# ------------------------------------------------------------------------- any rank, from arguments to a call


def _checked(
    kept: Repeated[CallT], func: str, numbers: tuple[Any, ...], names: tuple[Any, ...], settings: tuple[Any, ...],
    arrays: dict[str, Any], make: Callable[..., CallT],
) -> tuple[CallT, list[Any]]:  # fmt: skip
    """The checked call of these arguments, made where it is not known yet, and the arrays to call it with."""
    given = list(arrays.values())
    key = call_key(numbers, (*names, func), *given)
    call = kept.find(key, settings)
    if call is None:
        given = [real_array(func, name, array) for name, array in arrays.items()]
        call = make(*given)
        kept.keep(key, settings, call)
    return call, given


def max_pool(
    rank: int, x: Any, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: Any, layout: Any,
    out: Any, backend: Any, func: str = "",
) -> Array:  # fmt: skip
    runs_on = registry.active() if backend is None else registry.get_backend(backend)
    settings = (rank, kernel_size, stride, padding, dilation, ceil_mode, layout, func, runs_on)
    y = _max.again(settings)(x, out)
    if y is not None:
        return y  # type: ignore[no-any-return]
    call, (x,) = _max_call(func or f"max_pool{rank}d", settings, x)
    return call(x, out)


def max_pool_with_indices(
    rank: int, x: Any, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: Any, layout: Any,
    out: Any, backend: Any,
) -> tuple[Array, Array]:  # fmt: skip
    runs_on = registry.active() if backend is None else registry.get_backend(backend)
    func = f"max_pool{rank}d_with_indices"
    if out is None:
        out = None, None
    elif not isinstance(out, tuple) or len(out) != 2:
        raise TypeError(f"{func}: out must be a tuple (y, indices) of arrays or None, received {type(out).__name__}")
    settings = (rank, kernel_size, stride, padding, dilation, ceil_mode, layout, func, runs_on)
    call, (x,) = _max_call(func, settings, x)
    return call.with_indices(x, *out)


def _max_call(func: str, settings: tuple[Any, ...], x: Any) -> tuple[Max, list[Any]]:
    rank, kernel_size, stride, padding, dilation, ceil_mode, layout, _, runs_on = settings

    def make(x: Array) -> Max:
        geometry = pool_geometry(
            func, rank, x.shape, kernel_size, stride=stride, padding=padding, dilation=dilation, ceil_mode=ceil_mode,
            layout=layout,
        )  # fmt: skip
        return Max(func, geometry, runs_on, x.dtype)

    return _checked(_max, func, settings[:6], (layout, runs_on), settings, {"x": x}, make)


def max_pool_backward(
    rank: int, grad_output: Any, x: Any, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: Any,
    layout: Any, ties: Any, out: Any, backend: Any, func: str = "",
) -> Array:  # fmt: skip
    runs_on = registry.active() if backend is None else registry.get_backend(backend)
    settings = (rank, kernel_size, stride, padding, dilation, ceil_mode, layout, ties, func, runs_on)
    dx = _max_backward.again(settings)(grad_output, x, out)
    if dx is not None:
        return dx  # type: ignore[no-any-return]
    func = func or f"max_pool{rank}d_backward"

    def make(grad_output: Array, x: Array) -> MaxBackward:
        check_ties(func, ties)
        geometry = pool_geometry(
            func, rank, x.shape, kernel_size, stride=stride, padding=padding, dilation=dilation, ceil_mode=ceil_mode,
            layout=layout,
        )  # fmt: skip
        return MaxBackward(func, geometry, runs_on, _dtypes(grad_output, x), ties)

    arrays = {"grad_output": grad_output, "x": x}
    call, (grad_output, x) = _checked(
        _max_backward, func, settings[:6], (layout, ties, runs_on), settings, arrays, make
    )
    return call(grad_output, x, out)


def avg_pool(
    rank: int, x: Any, kernel_size: Any, stride: Any, padding: Any, ceil_mode: Any, count_include_pad: Any,
    layout: Any, out: Any, backend: Any, func: str = "",
) -> Array:  # fmt: skip
    runs_on = registry.active() if backend is None else registry.get_backend(backend)
    settings = (rank, kernel_size, stride, padding, ceil_mode, count_include_pad, layout, func, runs_on)
    y = _average.again(settings)(x, out)
    if y is not None:
        return y  # type: ignore[no-any-return]
    func = func or f"avg_pool{rank}d"

    def make(x: Array) -> Average:
        geometry = pool_geometry(
            func, rank, x.shape, kernel_size, stride=stride, padding=padding, ceil_mode=ceil_mode,
            count_include_pad=count_include_pad, layout=layout,
        )  # fmt: skip
        return Average(func, geometry, runs_on, (x.dtype, float_dtype(x)))

    call, (x,) = _checked(_average, func, settings[:6], (layout, runs_on), settings, {"x": x}, make)
    return call(x, out)


def avg_pool_backward(
    rank: int, grad_output: Any, x: Any, kernel_size: Any, stride: Any, padding: Any, ceil_mode: Any,
    count_include_pad: Any, layout: Any, out: Any, backend: Any, func: str = "",
) -> Array:  # fmt: skip
    runs_on = registry.active() if backend is None else registry.get_backend(backend)
    settings = (rank, kernel_size, stride, padding, ceil_mode, count_include_pad, layout, func, runs_on)
    dx = _average_backward.again(settings)(grad_output, x, out)
    if dx is not None:
        return dx  # type: ignore[no-any-return]
    func = func or f"avg_pool{rank}d_backward"

    def make(grad_output: Array, x: Array) -> AverageBackward:
        geometry = pool_geometry(
            func, rank, x.shape, kernel_size, stride=stride, padding=padding, ceil_mode=ceil_mode,
            count_include_pad=count_include_pad, layout=layout,
        )  # fmt: skip
        return AverageBackward(func, geometry, runs_on, _dtypes(grad_output, x))

    arrays = {"grad_output": grad_output, "x": x}
    call, (grad_output, x) = _checked(_average_backward, func, settings[:6], (layout, runs_on), settings, arrays, make)
    return call(grad_output, x, out)


def _dtypes(grad_output: Array, x: Array) -> Dtypes:
    """Of a gradient's arrays and result."""
    return grad_output.dtype, x.dtype, float_dtype(grad_output, x)
