"""How a user's arrays are checked, and how they are handed to a backend: views and casts, shared by every operation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from ..backends.protocol import Array, Backend
from ..errors import DTypeError, GeometryError
from ..geometry import ConvGeometry, PoolGeometry

__all__ = [
    "NO_OUTS",
    "Dtypes",
    "Frame",
    "check_grad",
    "check_out",
    "check_outs",
    "float_dtype",
    "kernel_dtype",
    "native",
    "new_or_checked",
    "new_or_checked_each",
    "real_array",
    "store",
]

NO_OUTS = (None, None, None)
Dtypes = tuple[np.dtype[Any], ...]
_FLOAT32 = np.dtype(np.float32)
_FLOAT16 = np.dtype(np.float16)
_REAL_KINDS = "biuf"
_CAST_AT_ONCE = 1 << 20  # elements: 4 MB of float32


def real_array(func: str, name: str, value: Any) -> Array:
    """``value`` as an array of real numbers; complex, object and longdouble arrays are refused."""
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise DTypeError(f"{func}: {name} is not an array: {error}") from None
    if array.dtype.kind not in _REAL_KINDS or array.dtype.itemsize > 8:
        raise DTypeError(f"{func}: {name} must be a real array of at most 64 bits, received dtype {array.dtype}")
    return array


def native(array: Array) -> Array:
    """The array in native byte order and aligned; itself if it is so already."""
    if array.dtype.isnative and array.flags.aligned:
        return array
    return array.astype(array.dtype.newbyteorder("="))


def float_dtype(*arrays: Array) -> np.dtype[Any]:
    """The dtype of a result: float16 if the inputs promote to it, else their promotion with float32."""
    common = np.result_type(*(a.dtype for a in arrays))
    return common if common == _FLOAT16 else np.result_type(common, _FLOAT32)


def kernel_dtype(result: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype that is computed in: float16 results are computed in float32."""
    return _FLOAT32 if result == _FLOAT16 else result


def check_out(
    func: str,
    out: Any,
    shape: Sequence[int],
    dtype: np.dtype[Any],
    inputs: Sequence[Array | None],
    name: str = "out",
) -> Array:
    """``out`` if a result of that shape and dtype may be written there."""
    if not isinstance(out, np.ndarray):
        raise TypeError(f"{func}: {name} must be a NumPy array, received {type(out).__name__}")
    if out.shape != tuple(shape):
        raise GeometryError(f"{func}: {name} must have shape {tuple(shape)}, received {out.shape}")
    if out.dtype != dtype:
        raise DTypeError(f"{func}: {name} must have dtype {dtype}, received {out.dtype}")
    if not out.flags.writeable:
        raise ValueError(f"{func}: {name} is read-only")
    if any(a is not None and np.may_share_memory(out, a) for a in inputs):
        raise ValueError(f"{func}: {name} shares memory with an input or another result")
    return out


def new_or_checked(
    func: str,
    out: Any,
    shape: Sequence[int],
    dtype: np.dtype[Any],
    inputs: Sequence[Array | None],
    name: str = "out",
    backend: Backend | None = None,
) -> Array:
    """A new array for the result, from the backend's memory where one is given, or the user's after its check."""
    if out is not None:
        return check_out(func, out, shape, dtype, inputs, name)
    return np.empty(shape, dtype) if backend is None else backend.empty(shape, dtype)


def check_grad(func: str, grad_output: Array, shape: tuple[int, ...]) -> None:
    """Refuse a gradient that has not the shape of the result."""
    if grad_output.shape != shape:
        raise GeometryError(f"{func}: grad_output must have shape {shape}, received {grad_output.shape}")


def check_outs(func: str, out: Any) -> tuple[Any, Any, Any]:
    """The three arrays that gradients are written to, each of them optional."""
    if out is None:
        return NO_OUTS
    if not isinstance(out, tuple) or len(out) != 3:
        raise TypeError(
            f"{func}: out must be a tuple (x, weight, bias) of arrays or None, received {type(out).__name__}"
        )
    return out


def store(target: Array, values: Array) -> None:
    """Write a result in the dtype it is wanted in; what is too large for it becomes infinite, silently."""
    with np.errstate(over="ignore", invalid="ignore"):
        target[...] = values


def new_or_checked_each(
    func: str,
    outs: Sequence[Any],
    wanted: Sequence[bool],
    shapes: Sequence[tuple[int, ...]],
    dtype: np.dtype[Any],
    inputs: tuple[Array, ...],
    backend: Backend | None = None,
) -> list[Array | None]:
    """Arrays for several results, None where one is not wanted; none shares memory with an input or another."""
    found: list[Array | None] = []
    for i, (out, want, shape) in enumerate(zip(outs, wanted, shapes, strict=True)):
        taken = (*inputs, *found)
        found.append(new_or_checked(func, out, shape, dtype, taken, f"out[{i}]", backend) if want else None)
    return found


GeometryT = TypeVar("GeometryT", ConvGeometry, PoolGeometry)


class Frame(Generic[GeometryT]):
    """How the arrays of one problem reach one backend: five axes, its layout, its dtype, its strides."""

    def __init__(self, backend: Backend, geometry: GeometryT, dtype: np.dtype[Any]) -> None:
        self.backend = backend
        self.given: GeometryT = geometry
        # a backend without channels last sees transposed views
        self.turned = geometry.channels_last and "channels_last" not in backend.layouts
        self.geometry: GeometryT = geometry.channels_first() if self.turned else geometry
        self.dtype = dtype

    def shape(self, like: Array, five: tuple[int, ...]) -> tuple[int, ...]:
        """The user's shape of a five-axes shape: without the axes of length one, batched as ``like`` is."""
        g: ConvGeometry | PoolGeometry = self.given
        body: tuple[int, ...] = five[4 - g.rank :] if g.channels_last else (five[1], *five[5 - g.rank :])
        return (*like.shape[: like.ndim - g.rank - 1], *body)

    def view(self, array: Array) -> Array:
        """Data with five axes in the backend's layout: always a view."""
        g = self.given
        if array.ndim == g.rank + 1:
            array = array[None]
        array = _with_ones(array, 1 if g.channels_last else 2, 3 - g.rank)
        return array.transpose(0, 4, 1, 2, 3) if self.turned else array

    def weight_view(self, array: Array) -> Array:
        """A weight with five axes in the backend's layout: always a view."""
        g = self.given
        array = _with_ones(array, 0 if g.channels_last else 2, 3 - g.rank)
        return array.transpose(4, 3, 0, 1, 2) if self.turned else array

    def data(self, array: Array) -> Array:
        """Data as the backend reads it."""
        return self._ready(self.view(array))

    def chunks(self, array: Array, out: Array) -> Iterator[tuple[Array, Array]]:
        """Data as the backend reads it, each piece of the batch with its view of the result.

        All of it at once where nothing is cast; else a few images at a time, so that a batch of float16 or integer
        images never exists as a whole in the dtype that is computed in. Only where an image's result does not depend
        on its batch.
        """
        view, into = self.view(array), self.view(out)
        count, cast = len(view), view.dtype != self.dtype or into.dtype != self.dtype
        step = count
        if cast and self.backend.batch_invariant:
            step = max(1, _CAST_AT_ONCE // max(1, view[:1].size, into[:1].size))
        if step >= count:
            yield self._ready(view), into
            return
        for first in range(0, count, step):
            yield self._ready(view[first : first + step]), into[first : first + step]

    def weight(self, array: Array) -> Array:
        """A weight as the backend reads it."""
        return self._ready(self.weight_view(array))

    def vector(self, array: Array | None) -> Array | None:
        """A bias as the backend reads it."""
        with np.errstate(over="ignore"):  # a bias is cast, it does not promote
            return None if array is None else self._ready(array)

    def into(self, view: Array, kernel: Callable[[Array], None]) -> None:
        """Run a kernel that writes its result, directly into ``view`` where the backend can."""
        flags = view.flags
        plain = flags.c_contiguous or (self.backend.any_strides and 0 not in view.strides)
        if view.dtype == self.dtype and view.dtype.isnative and flags.aligned and plain:
            kernel(view)
        else:
            buffer = self.backend.empty(view.shape, self.dtype)
            kernel(buffer)
            self.backend.cast(buffer, view)

    def _ready(self, view: Array) -> Array:
        if view.dtype != self.dtype or not view.dtype.isnative:
            if self.backend.any_strides:
                return view.astype(self.dtype, order="K")
            ready = self.backend.empty(view.shape, self.dtype)
            self.backend.cast(view, ready)
            return ready
        if not self.backend.any_strides:
            view = np.ascontiguousarray(view).reshape(view.shape)  # which makes 0-d arrays 1-d
        return view if view.flags.aligned else view.copy()


def _with_ones(array: Array, position: int, count: int) -> Array:
    """A view with ``count`` axes of length one inserted."""
    if not count:
        return array
    index: list[Any] = [slice(None)] * position + [None] * count
    view: Array = array[tuple(index)]
    return view
