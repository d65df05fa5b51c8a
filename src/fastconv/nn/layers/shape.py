"""Layers that move numbers about: padding, flattening, reshaping, upsampling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ... import GeometryError, pad
from ...geometry import ntuple
from ..graph import Array, Shape
from .conv import AXES, check_data_format
from .core import Layer

if TYPE_CHECKING:
    from ..program import Call

__all__ = ["Flatten", "Reshape", "UpSampling2D", "ZeroPadding1D", "ZeroPadding2D", "ZeroPadding3D"]


class ZeroPadding(Layer):
    """Zeros around images, of any rank. A convolution that follows pads while it reads, and nothing is copied.

    Parameters
    ----------
    padding : int or tuple, default 1
        A number; one for each axis; or a (before, after) pair for each axis.
    data_format : optional
        Only ``"channels_last"``.
    name, trainable, dtype, input_shape
        As in :class:`Layer`.
    """

    rank: ClassVar[int]
    config_names: ClassVar[tuple[str, ...]] = ("padding", "data_format")

    def __init__(self, padding: Any = 1, data_format: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_data_format(self, data_format)
        self.data_format = "channels_last"
        self.ndim, self.axes = self.rank + 2, AXES[self.rank]  # type: ignore[misc]
        self.pads = self._pairs(padding)
        self.padding: Any = self.pads[0] if self.rank == 1 else self.pads

    def _pairs(self, padding: Any) -> tuple[tuple[int, int], ...]:
        what = f"layer {self.name!r} ({type(self).__name__})"
        if self.rank == 1 and isinstance(padding, (list, tuple)) and len(padding) == 2:
            before, after = ntuple(what, "padding", padding, 2, minimum=0)
            return ((before, after),)
        if isinstance(padding, (list, tuple)) and any(isinstance(p, (list, tuple)) for p in padding):
            if len(padding) != self.rank:
                raise GeometryError(f"{what}: padding must have {self.rank} pairs, received {padding!r}")
            pairs = [ntuple(what, "padding", p, 2, minimum=0) for p in padding]
            return tuple((p[0], p[1]) for p in pairs)
        return tuple((n, n) for n in ntuple(what, "padding", padding, self.rank, minimum=0))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Every spatial axis longer by what is padded."""
        assert self.pads is not None
        sizes = [None if n is None else n + a + b for n, (a, b) in zip(input_shape[1:-1], self.pads, strict=True)]
        return (None, *sizes, input_shape[-1])

    def forward(self, x: Array, call: Call) -> Array:
        """Pad."""
        assert self.pads is not None
        return pad(x, ((0, 0), *self.pads, (0, 0)), out=call.out())

    def backward(self, dy: Array, call: Call) -> Array:
        """Cut the padding off."""
        assert self.pads is not None
        inside = [slice(a, n - b) for n, (a, b) in zip(dy.shape[1:-1], self.pads, strict=True)]
        index = (slice(None), *inside)
        dx = call.dx()
        dx[...] = dy[index]
        return dx


class ZeroPadding1D(ZeroPadding):
    """Zeros before and after sequences; ``padding`` is a number or a (before, after) pair."""

    rank = 1


class ZeroPadding2D(ZeroPadding):
    __doc__ = f"Zeros around images.{(ZeroPadding.__doc__ or '').partition('.')[2]}"
    rank = 2


class ZeroPadding3D(ZeroPadding):
    """Zeros around volumes; arguments as of :class:`ZeroPadding2D`."""

    rank = 3


class Flatten(Layer):
    """Everything but the batch in one axis.

    Parameters
    ----------
    data_format : optional
        Only ``"channels_last"``.
    name, trainable, dtype, input_shape
        As in :class:`Layer`.
    """

    config_names: ClassVar[tuple[str, ...]] = ("data_format",)

    def __init__(self, data_format: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_data_format(self, data_format)
        self.data_format = "channels_last"

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """The product of all lengths."""
        sizes = [n for n in input_shape[1:] if n is not None]
        return (None, math.prod(sizes) if len(sizes) == len(input_shape) - 1 else None)

    def forward(self, x: Array, call: Call) -> Array:
        """A view."""
        return x.reshape(len(x), -1)

    def backward(self, dy: Array, call: Call) -> Array:
        """A view."""
        return dy.reshape(call.x.shape)


class Reshape(Layer):
    """The same numbers in another shape.

    Parameters
    ----------
    target_shape : tuple of int
        Without the batch; one length may be -1.
    name, trainable, dtype, input_shape
        As in :class:`Layer`.
    """

    config_names: ClassVar[tuple[str, ...]] = ("target_shape",)

    def __init__(self, target_shape: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.target_shape = tuple(target_shape)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """The target, its -1 worked out."""
        sizes = [n for n in input_shape[1:] if n is not None]
        if len(sizes) != len(input_shape) - 1:
            return (None, *(None if n < 0 else n for n in self.target_shape))
        size, known = math.prod(sizes), math.prod(n for n in self.target_shape if n != -1)
        open_axes = self.target_shape.count(-1)
        fits = known and size % known == 0 if open_axes == 1 else not open_axes and size == known
        if not fits:
            raise self.refusal(input_shape, f"numbers that fill {self.target_shape}")
        return (None, *(size // known if n == -1 else n for n in self.target_shape))

    def forward(self, x: Array, call: Call) -> Array:
        """A view."""
        return x.reshape(len(x), *self.target_shape)

    def backward(self, dy: Array, call: Call) -> Array:
        """A view."""
        return dy.reshape(call.x.shape)


class UpSampling2D(Layer):
    """Images enlarged by whole factors.

    Parameters
    ----------
    size : int or tuple of int, default 2
        Factors of height and width.
    data_format : optional
        Only ``"channels_last"``.
    interpolation : {"nearest", "bilinear"}, default "nearest"
        Repeat pixels, or go between their centres in straight lines.
    name, trainable, dtype, input_shape
        As in :class:`Layer`.
    """

    ndim, axes = 4, AXES[2]
    config_names: ClassVar[tuple[str, ...]] = ("size", "data_format", "interpolation")

    def __init__(self, size: Any = 2, data_format: Any = None, interpolation: str = "nearest", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.size = ntuple(f"layer {self.name!r} (UpSampling2D)", "size", size, 2)
        check_data_format(self, data_format)
        if interpolation not in ("nearest", "bilinear"):
            raise ValueError(
                f"layer {self.name!r} (UpSampling2D): interpolation must be 'nearest' or 'bilinear', "
                f"received {interpolation!r}"
            )
        self.data_format, self.interpolation = "channels_last", interpolation

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Height and width times their factors."""
        h, w = (None if n is None else n * s for n, s in zip(input_shape[1:3], self.size, strict=True))
        return (None, h, w, input_shape[-1])

    def forward(self, x: Array, call: Call) -> Array:
        """Enlarge."""
        n, h, w, c = x.shape
        if self.interpolation == "bilinear":
            return _along(_along(x, _bilinear(h, self.size[0], x.dtype), 1), _bilinear(w, self.size[1], x.dtype), 2)
        y = call.out()
        if y is None:
            y = np.empty((n, h * self.size[0], w * self.size[1], c), x.dtype)
        y.reshape(n, h, self.size[0], w, self.size[1], c)[...] = x[:, :, None, :, None, :]
        return y

    def backward(self, dy: Array, call: Call) -> Array:
        """The adjoint: sums over what each pixel went to."""
        n, h, w, c = call.x.shape
        if self.interpolation == "bilinear":
            down, right = _bilinear(h, self.size[0], dy.dtype), _bilinear(w, self.size[1], dy.dtype)
            return _along(_along(dy, down.T, 1), right.T, 2)
        return np.sum(dy.reshape(n, h, self.size[0], w, self.size[1], c), axis=(2, 4), out=call.dx())


def _bilinear(size: int, factor: int, dtype: Any) -> Array:
    """The matrix that enlarges an axis: pixel centres at halves, the border repeated."""
    at = np.clip((np.arange(size * factor) + 0.5) / factor - 0.5, 0, size - 1)
    low = np.floor(at).astype(np.intp)
    high = np.minimum(low + 1, size - 1)
    matrix = np.zeros((size * factor, size), dtype)
    rows = np.arange(size * factor)
    matrix[rows, low] += 1 - (at - low)
    matrix[rows, high] += at - low
    return matrix


def _along(x: Array, matrix: Array, axis: int) -> Array:
    """A matrix applied along one axis."""
    return np.ascontiguousarray(np.moveaxis(np.tensordot(matrix, x, (1, axis)), 0, axis))
