"""Pooling: maxima and means of windows, or of whole images. Glue to the library's kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ... import (
    activation_backward,
    avg_pool1d,
    avg_pool1d_backward,
    avg_pool2d,
    avg_pool2d_backward,
    avg_pool3d,
    avg_pool3d_backward,
    global_avg_pool,
    global_avg_pool_backward,
    global_max_pool,
    global_max_pool_backward,
    max_pool1d,
    max_pool1d_backward,
    max_pool2d,
    max_pool2d_backward,
    max_pool3d,
    max_pool3d_backward,
)
from ...geometry import ntuple, pool_geometry
from ..graph import Array, Shape
from .conv import AXES, LAYOUTS, check_data_format, fixed, padding_name
from .core import Layer

if TYPE_CHECKING:
    from ..program import Call

__all__ = [
    "AveragePooling1D", "AveragePooling2D", "AveragePooling3D", "GlobalAveragePooling1D", "GlobalAveragePooling2D",
    "GlobalAveragePooling3D", "GlobalMaxPooling1D", "GlobalMaxPooling2D", "GlobalMaxPooling3D", "MaxPooling1D",
    "MaxPooling2D", "MaxPooling3D",
]  # fmt: skip


class Pooling(Layer):
    """Pooling of any rank and kind.

    Parameters
    ----------
    pool_size : int or tuple of int, default 2
        Size of the window.
    strides : int or tuple of int, optional
        Step of the window; by default its size.
    padding : {"valid", "same"}, default "valid"
        As in :class:`Conv2D`; what is padded counts neither as a maximum nor in a mean.
    data_format : optional
        Only ``"channels_last"``.
    name, trainable, dtype, input_shape
        As in :class:`Layer`.
    """

    rank: ClassVar[int]
    run: ClassVar[Callable[..., Array]]
    run_backward: ClassVar[Callable[..., Array]]
    options: ClassVar[dict[str, Any]] = {}
    config_names: ClassVar[tuple[str, ...]] = ("pool_size", "strides", "padding", "data_format")

    def __init__(
        self, pool_size: Any = 2, strides: Any = None, padding: str = "valid", data_format: Any = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        what = f"layer {self.name!r} ({type(self).__name__})"
        self.pool_size = ntuple(what, "pool_size", pool_size, self.rank)
        self.strides = self.pool_size if strides is None else ntuple(what, "strides", strides, self.rank)
        self.padding = padding_name(self, padding)
        check_data_format(self, data_format)
        self.data_format = "channels_last"
        self.ndim, self.axes = self.rank + 2, AXES[self.rank]  # type: ignore[misc]

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Shape by the library's geometry."""
        known = fixed(input_shape)
        if known is None:
            return (*(None for _ in range(self.rank + 1)), input_shape[-1])
        g = pool_geometry(
            type(self).__name__, self.rank, known, self.pool_size, stride=self.strides, padding=self.padding,
            layout=LAYOUTS[self.rank],
        )  # fmt: skip
        return (None, *g.out_size[3 - self.rank :], input_shape[-1])

    def forward(self, x: Array, call: Call) -> Array:
        """Pool."""
        return type(self).run(
            x, self.pool_size, stride=self.strides, padding=self.padding, layout=LAYOUTS[self.rank], out=call.out(),
            **self.options,
        )  # fmt: skip

    def backward(self, dy: Array, call: Call) -> Array:
        """Hand gradients back to the maxima, or evenly."""
        return type(self).run_backward(
            dy, call.x, self.pool_size, stride=self.strides, padding=self.padding, layout=LAYOUTS[self.rank],
            out=call.dx(), **self.options,
        )  # fmt: skip


class MaxPooling(Pooling):
    """Maximum of every window, of any rank."""

    takes_maxima = True

    def backward(self, dy: Array, call: Call) -> Array:
        """Hand gradients back to the maxima, through the activation that stood before the pooling too."""
        if call.pooled is not None:
            assert call.y is not None
            dy = activation_backward(dy, call.y, call.pooled, out=call.reuse(dy))
        return super().backward(dy, call)


class MaxPooling1D(MaxPooling):
    """Maximum of every window of sequences; arguments as of :class:`MaxPooling2D`."""

    rank, run, run_backward = 1, staticmethod(max_pool1d), staticmethod(max_pool1d_backward)


class MaxPooling2D(MaxPooling):
    __doc__ = f"Maximum of every window of images.{(Pooling.__doc__ or '').partition('.')[2]}"
    rank, run, run_backward = 2, staticmethod(max_pool2d), staticmethod(max_pool2d_backward)


class MaxPooling3D(MaxPooling):
    """Maximum of every window of volumes; arguments as of :class:`MaxPooling2D`."""

    rank, run, run_backward = 3, staticmethod(max_pool3d), staticmethod(max_pool3d_backward)


class AveragePooling1D(Pooling):
    """Mean of every window of sequences; arguments as of :class:`MaxPooling2D`."""

    rank, run, run_backward = 1, staticmethod(avg_pool1d), staticmethod(avg_pool1d_backward)
    options: ClassVar[dict[str, Any]] = {"count_include_pad": False}


class AveragePooling2D(Pooling):
    """Mean of every window of images; arguments as of :class:`MaxPooling2D`."""

    rank, run, run_backward = 2, staticmethod(avg_pool2d), staticmethod(avg_pool2d_backward)
    options: ClassVar[dict[str, Any]] = {"count_include_pad": False}


class AveragePooling3D(Pooling):
    """Mean of every window of volumes; arguments as of :class:`MaxPooling2D`."""

    rank, run, run_backward = 3, staticmethod(avg_pool3d), staticmethod(avg_pool3d_backward)
    options: ClassVar[dict[str, Any]] = {"count_include_pad": False}


class GlobalPooling(Layer):
    """Pooling over all positions, of any rank and kind.

    Parameters
    ----------
    data_format : optional
        Only ``"channels_last"``.
    keepdims : bool, default False
        Whether the spatial axes stay, with length one.
    name, trainable, dtype, input_shape
        As in :class:`Layer`.
    """

    rank: ClassVar[int]
    run: ClassVar[Callable[..., Array]]
    run_backward: ClassVar[Callable[..., Array]]
    config_names: ClassVar[tuple[str, ...]] = ("data_format", "keepdims")

    def __init__(self, data_format: Any = None, keepdims: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_data_format(self, data_format)
        self.data_format, self.keepdims = "channels_last", bool(keepdims)
        self.ndim, self.axes = self.rank + 2, AXES[self.rank]  # type: ignore[misc]

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """One number for each channel."""
        return (None, *((1,) * self.rank if self.keepdims else ()), input_shape[-1])

    def forward(self, x: Array, call: Call) -> Array:
        """Pool."""
        return type(self).run(x, keepdims=self.keepdims, layout=LAYOUTS[self.rank], out=call.out())

    def backward(self, dy: Array, call: Call) -> Array:
        """Hand gradients back to the maxima, or evenly."""
        return type(self).run_backward(
            np.ascontiguousarray(dy), call.x, keepdims=self.keepdims, layout=LAYOUTS[self.rank], out=call.dx()
        )


class GlobalAveragePooling1D(GlobalPooling):
    """Mean over all steps; arguments as of :class:`GlobalAveragePooling2D`."""

    rank, run, run_backward = 1, staticmethod(global_avg_pool), staticmethod(global_avg_pool_backward)


class GlobalAveragePooling2D(GlobalPooling):
    __doc__ = f"Mean over all positions of images.{(GlobalPooling.__doc__ or '').partition('.')[2]}"
    rank, run, run_backward = 2, staticmethod(global_avg_pool), staticmethod(global_avg_pool_backward)


class GlobalAveragePooling3D(GlobalPooling):
    """Mean over all positions of volumes; arguments as of :class:`GlobalAveragePooling2D`."""

    rank, run, run_backward = 3, staticmethod(global_avg_pool), staticmethod(global_avg_pool_backward)


class GlobalMaxPooling1D(GlobalPooling):
    """Maximum over all steps; arguments as of :class:`GlobalAveragePooling2D`."""

    rank, run, run_backward = 1, staticmethod(global_max_pool), staticmethod(global_max_pool_backward)


class GlobalMaxPooling2D(GlobalPooling):
    """Maximum over all positions of images; arguments as of :class:`GlobalAveragePooling2D`."""

    rank, run, run_backward = 2, staticmethod(global_max_pool), staticmethod(global_max_pool_backward)


class GlobalMaxPooling3D(GlobalPooling):
    """Maximum over all positions of volumes; arguments as of :class:`GlobalAveragePooling2D`."""

    rank, run, run_backward = 3, staticmethod(global_max_pool), staticmethod(global_max_pool_backward)
