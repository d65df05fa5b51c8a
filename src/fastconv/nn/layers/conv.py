"""Convolutions: plain, depthwise, separable and transposed. Layers are glue; the kernels are the library's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ... import (
    GeometryError,
    activation_backward,
    conv1d,
    conv1d_backward,
    conv2d,
    conv2d_backward,
    conv3d,
    conv3d_backward,
    conv_transpose2d,
    conv_transpose2d_backward,
)
from ...geometry import conv_geometry, conv_transpose_geometry, ntuple
from .. import initializers, regularizers
from ..graph import Array, Shape
from . import activation as activations
from .core import Layer, Weight

if TYPE_CHECKING:
    from ..program import Call

__all__ = ["Conv1D", "Conv2D", "Conv2DTranspose", "Conv3D", "DepthwiseConv2D", "SeparableConv2D"]

LAYOUTS = {1: "NWC", 2: "NHWC", 3: "NDHWC"}
AXES = {1: "(batch, steps, channels)", 2: "(batch, height, width, channels)",
        3: "(batch, depth, height, width, channels)"}  # fmt: skip
_FORWARD = {1: conv1d, 2: conv2d, 3: conv3d}
_BACKWARD = {1: conv1d_backward, 2: conv2d_backward, 3: conv3d_backward}


def check_data_format(layer: Layer, data_format: Any) -> None:
    """Refuse channels first, which these layers do not take."""
    if data_format not in (None, "channels_last"):
        raise ValueError(
            f"layer {layer.name!r} ({type(layer).__name__}): data_format must be 'channels_last', "
            f"received {data_format!r}"
        )


def padding_name(layer: Layer, padding: Any, also: tuple[str, ...] = ()) -> str:
    """``"valid"`` or ``"same"``, in any case of letters."""
    name = padding.lower() if isinstance(padding, str) else padding
    if name not in ("valid", "same", *also):
        names = ", ".join(repr(n) for n in ("valid", "same", *also))
        raise ValueError(
            f"layer {layer.name!r} ({type(layer).__name__}): padding must be {names}, received {padding!r}"
        )
    return str(name)


class BaseConv(Layer):
    """What all convolutions share: arguments, kernel and bias, and the gradient behind a fused activation."""

    rank: ClassVar[int]
    fuses: ClassVar[tuple[str, ...]] = ("relu", "relu6", "leaky_relu")
    also: ClassVar[tuple[str, ...]] = ()
    config_names: ClassVar[tuple[str, ...]] = (
        "filters", "kernel_size", "strides", "padding", "data_format", "dilation_rate", "groups", "activation",
        "use_bias", "kernel_initializer", "bias_initializer", "kernel_regularizer", "bias_regularizer",
    )  # fmt: skip

    def __init__(
        self, filters: int, kernel_size: Any, strides: Any = 1, padding: str = "valid", data_format: Any = None,
        dilation_rate: Any = 1, groups: int = 1, activation: Any = None, use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform", bias_initializer: Any = "zeros", kernel_regularizer: Any = None,
        bias_regularizer: Any = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(**kwargs)
        what = f"layer {self.name!r} ({type(self).__name__})"
        self.filters = ntuple(what, "filters", filters, 1)[0]
        self.kernel_size = ntuple(what, "kernel_size", kernel_size, self.rank)
        self.strides = ntuple(what, "strides", strides, self.rank)
        self.dilation_rate = ntuple(what, "dilation_rate", dilation_rate, self.rank)
        self.groups = ntuple(what, "groups", groups, 1)[0]
        self.padding = padding_name(self, padding, self.also)
        check_data_format(self, data_format)
        self.data_format = "channels_last"
        self.activation = activations.get(activation, self.dtype)
        self.use_bias = bool(use_bias)
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.bias_regularizer = regularizers.get(bias_regularizer)
        self.ndim, self.axes = self.rank + 2, AXES[self.rank]  # type: ignore[misc]
        self.bias: Weight | None = None

    def channels(self, input_shape: Shape) -> int:
        """Channels of the input, which must be known."""
        if input_shape[-1] is None:
            raise self.refusal(input_shape, "a known number of channels")
        return input_shape[-1]

    def add_bias(self, size: int) -> None:
        """Make the bias, if there is one."""
        if self.use_bias:
            self.bias = self.add_weight("bias", (size,), self.bias_initializer, regularizer=self.bias_regularizer)

    @property
    def takes_padding(self) -> bool:
        """Whether zeros around the input may be left to the kernel."""
        return self.padding == "valid"

    def bias_value(self) -> Array | None:
        """The bias, if there is one."""
        return None if self.bias is None else self.bias.value

    def before_activation(self, dy: Array, call: Call) -> Array:
        """The gradient before the activation that ``forward`` applied."""
        if call.activation is None or call.graded:
            return dy
        assert call.y is not None
        return activation_backward(dy, call.y, call.activation, out=call.reuse(dy))


def fixed(shape: Shape) -> tuple[int, ...] | None:
    """The shape of one example as a batch of one, or None if a length is open."""
    sizes = [n for n in shape[1:] if n is not None]
    return (1, *sizes) if len(sizes) == len(shape) - 1 else None


class Conv(BaseConv):
    """Convolution of any rank; ``Conv1D``, ``Conv2D`` and ``Conv3D`` fix it."""

    def build(self, input_shape: Shape) -> None:
        """Make kernel ``(*kernel_size, channels / groups, filters)`` and bias."""
        channels = self.channels(input_shape)
        if channels % self.groups or self.filters % self.groups:
            raise GeometryError(
                f"{channels} channels and {self.filters} filters must be multiples of groups={self.groups}"
            )
        shape = (*self.kernel_size, channels // self.groups, self.filters)
        self.compute_output_shape(input_shape, shape)
        self.kernel = self.add_weight("kernel", shape, self.kernel_initializer, regularizer=self.kernel_regularizer)
        self.add_bias(self.filters)

    def call_groups(self) -> int:
        """Groups of the library's call."""
        return self.groups

    def padding_of(self, call: Call | None = None) -> Any:
        """What the library's call is given: zeros of a padding layer before, or this layer's own."""
        if call is not None and call.padding is not None:
            return call.padding
        if self.padding == "causal":
            return (((self.kernel_size[0] - 1) * self.dilation_rate[0], 0),)
        return self.padding

    def compute_output_shape(self, input_shape: Shape, kernel: tuple[int, ...] | None = None) -> Shape:
        """Shape by the library's geometry."""
        kernel = self.kernel_value().shape if kernel is None else kernel
        known = fixed(input_shape)
        if known is None:
            return (*(None for _ in range(self.rank + 1)), kernel[-1])
        g = conv_geometry(
            type(self).__name__, self.rank, known, kernel, stride=self.strides, padding=self.padding_of(),
            dilation=self.dilation_rate, groups=self.call_groups(), layout=LAYOUTS[self.rank],
        )  # fmt: skip
        return (None, *g.out_size[3 - self.rank :], kernel[-1])

    def kernel_value(self) -> Array:
        """The kernel as the library takes it."""
        return self.kernel.value

    def forward(self, x: Array, call: Call) -> Array:
        """Convolve."""
        return _FORWARD[self.rank](
            x, self.kernel_value(), self.bias_value(), stride=self.strides, padding=self.padding_of(call),
            dilation=self.dilation_rate, groups=self.call_groups(), layout=LAYOUTS[self.rank],
            activation=call.activation, out=call.out(),
        )  # fmt: skip

    def backward(self, dy: Array, call: Call) -> Array | None:
        """Gradients of input, kernel and bias by the library's kernels."""
        dy = self.before_activation(dy, call)
        dw = call.grad(self.kernel)
        db = None if self.bias is None else call.grad(self.bias)
        dx = call.dx() if call.needs_dx[0] else None
        needs = tuple(n for n, a in (("x", dx), ("weight", dw), ("bias", db)) if a is not None)
        w = self.kernel_value()
        _BACKWARD[self.rank](
            dy, call.x, w, stride=self.strides, padding=self.padding_of(call), dilation=self.dilation_rate,
            groups=self.call_groups(), layout=LAYOUTS[self.rank], needs=needs,
            out=(dx, None if dw is None else dw.reshape(w.shape), db),
        )  # fmt: skip
        return dx


class Conv1D(Conv):
    """Convolution of sequences ``(batch, steps, channels)``; arguments as of :class:`Conv2D`.

    ``padding="causal"`` pads at the start only, so that no output depends on a later input.
    """

    rank = 1
    also = ("causal",)


class Conv2D(Conv):
    """Convolution of images ``(batch, height, width, channels)``.

    Parameters
    ----------
    filters : int
        Output channels.
    kernel_size : int or tuple of int
        Size of the window.
    strides, dilation_rate : int or tuple of int, default 1
        Step of the window and distance between its taps.
    padding : {"valid", "same"}, default "valid"
        No padding, or so much that the output has ceil(size / stride) positions, the odd zero at the end.
    data_format : optional
        Only ``"channels_last"``.
    groups : int, default 1
        Groups of channels convolved by themselves.
    activation : str, optional
        As in :class:`Activation`.
    use_bias : bool, default True
        Whether a number is added to each output channel.
    kernel_initializer, bias_initializer : default "glorot_uniform", "zeros"
        Of ``nn.initializers``.
    kernel_regularizer, bias_regularizer : optional
        Of ``nn.regularizers``.
    name, trainable, dtype, input_shape
        As in :class:`Layer`.

    Examples
    --------
    >>> from fastconv import nn
    >>> nn.Conv2D(32, (7, 7), strides=(1, 1))(nn.Input((70, 70, 3))).shape
    (None, 64, 64, 32)
    """

    rank = 2


class Conv3D(Conv):
    """Convolution of volumes ``(batch, depth, height, width, channels)``; arguments as of :class:`Conv2D`."""

    rank = 3


class DepthwiseConv2D(Conv):
    """Every channel convolved by itself, ``depth_multiplier`` times; other arguments as of :class:`Conv2D`."""

    rank = 2
    config_names: ClassVar[tuple[str, ...]] = (
        "kernel_size", "strides", "padding", "depth_multiplier", "data_format", "dilation_rate", "activation",
        "use_bias", "depthwise_initializer", "bias_initializer", "depthwise_regularizer", "bias_regularizer",
    )  # fmt: skip

    def __init__(
        self, kernel_size: Any, strides: Any = 1, padding: str = "valid", depth_multiplier: int = 1,
        data_format: Any = None, dilation_rate: Any = 1, activation: Any = None, use_bias: bool = True,
        depthwise_initializer: Any = "glorot_uniform", bias_initializer: Any = "zeros",
        depthwise_regularizer: Any = None, bias_regularizer: Any = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(
            1, kernel_size, strides, padding, data_format, dilation_rate, 1, activation, use_bias,
            depthwise_initializer, bias_initializer, depthwise_regularizer, bias_regularizer, **kwargs,
        )  # fmt: skip
        self.depth_multiplier = ntuple(f"layer {self.name!r}", "depth_multiplier", depth_multiplier, 1)[0]
        self.depthwise_initializer, self.depthwise_regularizer = self.kernel_initializer, self.kernel_regularizer

    def build(self, input_shape: Shape) -> None:
        """Make kernel ``(*kernel_size, channels, depth_multiplier)`` and bias."""
        channels = self.channels(input_shape)
        self.groups = channels
        self.compute_output_shape(input_shape, (*self.kernel_size, 1, channels * self.depth_multiplier))
        self.kernel = self.add_weight(
            "kernel", (*self.kernel_size, channels, self.depth_multiplier), self.depthwise_initializer,
            regularizer=self.depthwise_regularizer,
        )  # fmt: skip
        self.add_bias(channels * self.depth_multiplier)

    def kernel_value(self) -> Array:
        """Channels in order, the multiples of each together: one group for each channel."""
        kh, kw, channels, multiplier = self.kernel.shape
        return self.kernel.value.reshape(kh, kw, 1, channels * multiplier)


class SeparableConv2D(BaseConv):
    """A depthwise convolution and a 1x1 convolution behind it; other arguments as of :class:`Conv2D`."""

    rank = 2
    config_names: ClassVar[tuple[str, ...]] = (
        "filters", "kernel_size", "strides", "padding", "data_format", "dilation_rate", "depth_multiplier",
        "activation", "use_bias", "depthwise_initializer", "pointwise_initializer", "bias_initializer",
        "depthwise_regularizer", "pointwise_regularizer", "bias_regularizer",
    )  # fmt: skip

    def __init__(
        self, filters: int, kernel_size: Any, strides: Any = 1, padding: str = "valid", data_format: Any = None,
        dilation_rate: Any = 1, depth_multiplier: int = 1, activation: Any = None, use_bias: bool = True,
        depthwise_initializer: Any = "glorot_uniform", pointwise_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros", depthwise_regularizer: Any = None, pointwise_regularizer: Any = None,
        bias_regularizer: Any = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(
            filters, kernel_size, strides, padding, data_format, dilation_rate, 1, activation, use_bias,
            bias_initializer=bias_initializer, bias_regularizer=bias_regularizer, **kwargs,
        )  # fmt: skip
        self.depth_multiplier = ntuple(f"layer {self.name!r}", "depth_multiplier", depth_multiplier, 1)[0]
        self.depthwise_initializer = initializers.get(depthwise_initializer)
        self.pointwise_initializer = initializers.get(pointwise_initializer)
        self.depthwise_regularizer = regularizers.get(depthwise_regularizer)
        self.pointwise_regularizer = regularizers.get(pointwise_regularizer)

    def build(self, input_shape: Shape) -> None:
        """Make the two kernels and the bias."""
        channels = self.channels(input_shape)
        middle = channels * self.depth_multiplier
        self._geometry(input_shape, (*self.kernel_size, 1, middle))
        self.depthwise = self.add_weight(
            "depthwise_kernel", (*self.kernel_size, channels, self.depth_multiplier), self.depthwise_initializer,
            regularizer=self.depthwise_regularizer,
        )  # fmt: skip
        self.pointwise = self.add_weight(
            "pointwise_kernel", (1, 1, middle, self.filters), self.pointwise_initializer,
            regularizer=self.pointwise_regularizer,
        )  # fmt: skip
        self.add_bias(self.filters)

    def _geometry(self, input_shape: Shape, kernel: tuple[int, ...]) -> Shape:
        known = fixed(input_shape)
        if known is None:
            return (None, None, None, kernel[-1])
        g = conv_geometry(
            type(self).__name__, 2, known, kernel, stride=self.strides, padding=self.padding,
            dilation=self.dilation_rate, groups=known[-1], layout="NHWC",
        )  # fmt: skip
        return (None, *g.out_size[1:], kernel[-1])

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """That of the depthwise part, with ``filters`` channels."""
        return (*self._geometry(input_shape, self._depthwise_value().shape)[:-1], self.filters)

    def _depthwise_value(self) -> Array:
        kh, kw, channels, multiplier = self.depthwise.shape
        return self.depthwise.value.reshape(kh, kw, 1, channels * multiplier)

    def _depthwise_options(self, call: Call) -> dict[str, Any]:
        return {
            "stride": self.strides, "padding": call.padding or self.padding, "dilation": self.dilation_rate,
            "groups": self.depthwise.shape[2], "layout": "NHWC",
        }  # fmt: skip

    def forward(self, x: Array, call: Call) -> Array:
        """Convolve twice; what lies between is kept for the gradient."""
        out = None
        if call.training and call.shape[1] is not None and call.shape[2] is not None:
            out = call.buffer("middle", (len(x), *call.shape[1:3], self.pointwise.shape[2]), self.dtype)
        middle = conv2d(x, self._depthwise_value(), **self._depthwise_options(call), out=out)
        if call.training:
            call.saved["middle"] = middle
        return conv2d(
            middle, self.pointwise.value, self.bias_value(), layout="NHWC", activation=call.activation, out=call.out()
        )

    def backward(self, dy: Array, call: Call) -> Array | None:
        """Gradients of both parts by the library's kernels."""
        dy = self.before_activation(dy, call)
        middle, w = call.saved["middle"], self._depthwise_value()
        db = None if self.bias is None else call.grad(self.bias)
        dp, dw = call.grad(self.pointwise), call.grad(self.depthwise)
        between = call.scratch(middle.shape, middle.dtype)
        wants = (("x", between), ("weight", dp), ("bias", db))
        needs = tuple(n for n, a in wants if a is not None)
        conv2d_backward(dy, middle, self.pointwise.value, layout="NHWC", needs=needs, out=(between, dp, db))
        dx = call.dx() if call.needs_dx[0] else None
        needs = tuple(n for n, a in (("x", dx), ("weight", dw)) if a is not None)
        conv2d_backward(
            between, call.x, w, **self._depthwise_options(call), needs=needs,
            out=(dx, None if dw is None else dw.reshape(w.shape), None),
        )  # fmt: skip
        return dx


class Conv2DTranspose(BaseConv):
    """Transposed convolution: the adjoint of a convolution, which makes images larger by its stride.

    ``output_padding`` adds rows and columns at the end; other arguments as of :class:`Conv2D`.
    """

    rank = 2
    fuses: ClassVar[tuple[str, ...]] = ("relu", "relu6", "leaky_relu")
    config_names: ClassVar[tuple[str, ...]] = (
        "filters", "kernel_size", "strides", "padding", "data_format", "output_padding", "dilation_rate", "activation",
        "use_bias", "kernel_initializer", "bias_initializer", "kernel_regularizer", "bias_regularizer",
    )  # fmt: skip

    def __init__(
        self, filters: int, kernel_size: Any, strides: Any = 1, padding: str = "valid", output_padding: Any = None,
        data_format: Any = None, dilation_rate: Any = 1, activation: Any = None, use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform", bias_initializer: Any = "zeros", kernel_regularizer: Any = None,
        bias_regularizer: Any = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(
            filters, kernel_size, strides, padding, data_format, dilation_rate, 1, activation, use_bias,
            kernel_initializer, bias_initializer, kernel_regularizer, bias_regularizer, **kwargs,
        )  # fmt: skip
        self.output_padding = (
            None
            if output_padding is None
            else ntuple(f"layer {self.name!r}", "output_padding", output_padding, 2, minimum=0)
        )

    @property
    def takes_padding(self) -> bool:
        """Padding before a transposed convolution is not padding of its geometry."""
        return False

    def build(self, input_shape: Shape) -> None:
        """Make kernel ``(*kernel_size, filters, channels)`` and bias."""
        shape = (*self.kernel_size, self.filters, self.channels(input_shape))
        self.compute_output_shape(input_shape, shape)
        self.kernel = self.add_weight("kernel", shape, self.kernel_initializer, regularizer=self.kernel_regularizer)
        self.add_bias(self.filters)

    def _options(self) -> dict[str, Any]:
        """Padding as Keras means it: "same" gives size times stride, "valid" no less than the kernel spans."""
        spans = [(k - 1) * d + 1 for k, d in zip(self.kernel_size, self.dilation_rate, strict=True)]
        extra: Any = self.output_padding
        if self.padding == "valid":
            padding: Any = 0
            if extra is None:
                extra = tuple(max(s - n, 0) for n, s in zip(spans, self.strides, strict=True))
        elif extra is None:
            padding, extra = "same", 0
        else:
            padding = tuple((n // 2, n // 2) for n in spans)
        return {
            "stride": self.strides, "padding": padding, "output_padding": extra, "dilation": self.dilation_rate,
            "layout": "NHWC",
        }  # fmt: skip

    def compute_output_shape(self, input_shape: Shape, kernel: tuple[int, ...] | None = None) -> Shape:
        """Shape by the library's geometry."""
        known = fixed(input_shape)
        if known is None:
            return (None, None, None, self.filters)
        shape = self.kernel.shape if kernel is None else kernel
        g = conv_transpose_geometry(type(self).__name__, 2, known, shape, **self._options())
        return (None, *g.in_size[1:], self.filters)

    def forward(self, x: Array, call: Call) -> Array:
        """Convolve, transposed."""
        return conv_transpose2d(
            x, self.kernel.value, self.bias_value(), **self._options(), activation=call.activation, out=call.out()
        )

    def backward(self, dy: Array, call: Call) -> Array | None:
        """Gradients of input, kernel and bias by the library's kernels."""
        dy = np.ascontiguousarray(self.before_activation(dy, call))
        dw = call.grad(self.kernel)
        db = None if self.bias is None else call.grad(self.bias)
        dx = call.dx() if call.needs_dx[0] else None
        needs = tuple(n for n, a in (("x", dx), ("weight", dw), ("bias", db)) if a is not None)
        conv_transpose2d_backward(dy, call.x, self.kernel.value, **self._options(), needs=needs, out=(dx, dw, db))
        return dx
