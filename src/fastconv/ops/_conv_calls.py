"""What stands behind the convolutions: arguments are checked once, and the checked call is kept for the next time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..backends import registry
from ..backends.protocol import Array, Backend
from ..errors import GeometryError, UnknownNameError
from ..geometry import ConvGeometry, conv_geometry, conv_transpose_geometry
from ._arrays import (
    NO_OUTS,
    Dtypes,
    Frame,
    check_grad,
    check_outs,
    float_dtype,
    kernel_dtype,
    new_or_checked,
    new_or_checked_each,
    real_array,
    store,
)
from ._repeated import Bounded, Repeated, call_key
from .elementwise import activate_in_place, check_activation
from .pad import pad_spatial, unpad_gradient

__all__ = ["NEEDS", "Backward", "ConvGrads", "Transposed", "check_algorithm", "check_bias", "check_needs", "conv",
           "conv_backward", "conv_transpose", "conv_transpose_backward"]  # fmt: skip

NEEDS = ("x", "weight", "bias")


class ConvGrads(NamedTuple):
    """Gradients of a convolution; None where one was not asked for."""

    x: Array | None
    weight: Array | None
    bias: Array | None


# ------------------------------------------------------------------------------------------------ arguments


def check_algorithm(func: str, backend: Backend, algorithm: Any, geometry: ConvGeometry, dtype: np.dtype[Any]) -> None:
    """Refuse an algorithm that the backend does not have, or that cannot do this problem."""
    if algorithm == "auto":
        return
    names = [a.name for a in backend.algorithms()]
    if algorithm not in names:
        raise UnknownNameError(
            f"{func}: algorithm must be 'auto' or one of {', '.join(names)} (backend {backend.name!r}), "
            f"received {algorithm!r}"
        )
    if reason := backend.why_not(algorithm, geometry, dtype):
        raise GeometryError(f"{func}: algorithm {algorithm!r} of backend {backend.name!r} cannot do this: {reason}")


def check_bias(func: str, bias: Any, channels: int) -> Array | None:
    """A bias of one number per output channel, or None."""
    if bias is None:
        return None
    array = real_array(func, "bias", bias)
    if array.shape != (channels,):
        raise GeometryError(f"{func}: bias must have shape ({channels},), received {array.shape}")
    return array


def check_needs(func: str, needs: Any) -> frozenset[str]:
    wanted = (needs,) if isinstance(needs, str) else needs
    if not isinstance(wanted, (Sequence, set, frozenset)):
        raise TypeError(f"{func}: needs must be a sequence of names, received {needs!r}")
    for name in wanted:
        if name not in NEEDS:
            raise UnknownNameError(f"{func}: needs may hold 'x', 'weight' and 'bias', received {name!r}")
    return frozenset(wanted)


# ------------------------------------------------------------------------------------- calls, checked and kept


class _Forward:
    """A convolution whose arguments have been checked: what is left is to run it on arrays of these shapes."""

    def __init__(
        self, func: str, geometry: ConvGeometry, backend: Backend, dtypes: Dtypes, activation: str | None,
        algorithm: str,
    ) -> None:  # fmt: skip
        """``dtypes`` are those of x, weight and result."""
        result = dtypes[-1]
        self.func, self.backend, self.result, self.algorithm = func, backend, result, algorithm
        self.given = geometry
        self.pads_first = geometry.padding_mode not in backend.padding_modes
        self.frame = Frame(backend, geometry.padded() if self.pads_first else geometry, kernel_dtype(result))
        check_algorithm(func, backend, algorithm, self.frame.geometry, self.frame.dtype)
        self.fused = activation if activation in backend.activations else None
        self.after = None if self.fused else activation
        self.out_shape = geometry.out_shape(1)
        plain = not self.pads_first and self.after is None
        self.at_once = backend.bind_conv(geometry, dtypes, activation, algorithm) if plain else None

    def __call__(self, x: Array, weight: Array, bias: Array | None, out: Array | None) -> Array:
        if self.at_once is not None:
            result = self.at_once(x, weight, bias, out)
            if result is not None:
                return result
        frame = self.frame
        shape = frame.shape(x, self.out_shape)
        out = new_or_checked(self.func, out, shape, self.result, (x, weight, bias), backend=self.backend)
        if self.pads_first:
            x = pad_spatial(self.backend, self.given, x)
        w5, b = frame.weight(weight), frame.vector(bias)
        for x5, y5 in frame.chunks(x, out):

            def kernel(y: Array, x5: Array = x5) -> None:
                self.backend.conv(frame.geometry, x5, w5, b, self.fused, y, self.algorithm)
                if self.after is not None:
                    activate_in_place(self.backend, y, self.after)

            frame.into(y5, kernel)
        return out


class Backward:
    """The gradients of a convolution, its arguments checked."""

    def __init__(
        self,
        func: str,
        geometry: ConvGeometry,
        backend: Backend,
        dtypes: Dtypes,
        needs: frozenset[str],
    ) -> None:
        """``dtypes`` are those of grad_output, x, weight and results."""
        self.func, self.backend, self.result, self.needs = func, backend, dtypes[-1], needs
        self.given = geometry
        # gradients know only constant padding: the others pad first and add up afterwards
        self.pads_first = geometry.padding_mode != "constant"
        self.frame = Frame(backend, geometry.padded() if self.pads_first else geometry, kernel_dtype(self.result))
        self.out_shape = geometry.out_shape(1)
        wanted = tuple(name in needs for name in NEEDS)
        # the gradient to the bias comes with that to the weight
        plain = not self.pads_first and ("weight" in needs or "bias" not in needs)
        self.at_once = backend.bind_conv_backward(geometry, dtypes, wanted) if plain else None

    def __call__(
        self, grad_output: Array, x: Array, weight: Array, outs: tuple[Any, Any, Any],
        planned: Callable[[Array, Array], None] | None = None,
    ) -> ConvGrads:  # fmt: skip
        """``planned`` computes the gradient to x from weights of its own, of which ``weight`` has only the shape."""
        if self.at_once is not None and planned is None and outs is NO_OUTS:
            result = self.at_once(grad_output, x, weight)
            if result is not None:
                return ConvGrads._make(result)
        func, frame, g = self.func, self.frame, self.given
        check_grad(func, grad_output, frame.shape(x, self.out_shape))
        inputs = (grad_output, x, weight)
        shapes = (x.shape, weight.shape, (g.out_channels,))
        wanted = [name in self.needs for name in NEEDS]
        dx, dw, db = new_or_checked_each(func, outs, wanted, shapes, self.result, inputs, self.backend)
        dy = frame.data(grad_output)
        if dx is not None:
            w5 = frame.weight(weight) if planned is None else weight

            def data(into: Array) -> None:
                if planned is None:
                    self.backend.conv_backward_data(frame.geometry, dy, w5, into)
                else:
                    planned(dy, into)

            if self.pads_first:
                padded = np.empty(frame.geometry.x_shape(dy.shape[0]), frame.dtype)
                data(padded)
                unpad_gradient(self.backend, g, padded, frame.view(dx), turned=frame.turned)
            else:
                frame.into(frame.view(dx), data)
        if dw is not None:
            x5 = frame.data(pad_spatial(self.backend, g, x) if self.pads_first else x)
            bias = None if db is None else np.empty(db.shape, frame.dtype)
            frame.into(
                frame.weight_view(dw),
                lambda into: self.backend.conv_backward_weight(frame.geometry, dy, x5, into, bias),
            )
            if db is not None and bias is not None:
                store(db, bias)
        elif db is not None:
            store(db, _sum_over_positions(g, grad_output))
        return ConvGrads(dx, dw, db)


def _sum_over_positions(geometry: ConvGeometry, grad_output: Array) -> Array:
    """Sum for each channel, in float64: the gradient to a bias alone."""
    channel = grad_output.ndim - 1 if geometry.channels_last else grad_output.ndim - geometry.rank - 1
    with np.errstate(over="ignore", invalid="ignore"):
        total: Array = grad_output.sum(axis=tuple(a for a in range(grad_output.ndim) if a != channel), dtype=np.float64)
    return total


class Transposed:
    """A transposed convolution: the gradient to the input of ``geometry``, with a bias and an activation."""

    def __init__(
        self,
        func: str,
        geometry: ConvGeometry,
        backend: Backend,
        dtypes: Dtypes,
        activation: str | None,
    ) -> None:
        """``dtypes`` are those of x, weight and result."""
        self.func, self.backend, self.result, self.activation = func, backend, dtypes[-1], activation
        self.frame = Frame(backend, geometry, kernel_dtype(self.result))
        self.y_shape = geometry.x_shape(1)
        self.fuses = backend.fuses_transposed and (activation is None or activation in backend.activations)
        turned_last = geometry.channels_last and not self.frame.turned
        self.bias_shape = (-1,) if turned_last else (-1, 1, 1, 1)
        self.at_once = backend.bind_conv_transpose(geometry, dtypes, activation) if self.fuses else None

    def __call__(
        self, x: Array, weight: Array, bias: Array | None, out: Array | None,
        planned: Callable[[Array, Array], None] | None = None,
    ) -> Array:  # fmt: skip
        """``planned`` has weights of its own, and a bias that is fused; ``weight`` has only the shape."""
        if planned is None and self.at_once is not None:
            result = self.at_once(x, weight, bias, out)
            if result is not None:
                return result
        frame = self.frame
        shape = frame.shape(x, self.y_shape)
        out = new_or_checked(self.func, out, shape, self.result, (x, weight, bias), backend=self.backend)
        x5, b = frame.data(x), frame.vector(bias)
        w5 = frame.weight(weight) if planned is None else weight

        def kernel(y: Array) -> None:
            if planned is not None:
                planned(x5, y)
            elif self.fuses:
                self.backend.conv_transpose(frame.geometry, x5, w5, b, self.activation, y)
            else:
                self.backend.conv_transpose(frame.geometry, x5, w5, None, None, y)
            if self.fuses:
                return
            if b is not None:
                with np.errstate(over="ignore", invalid="ignore"):
                    y += b.reshape(self.bias_shape)
            if self.activation is not None:
                activate_in_place(self.backend, y, self.activation)

        frame.into(frame.view(out), kernel)
        return out


class _TransposedBackward:
    """Gradients of a transposed convolution: a convolution, and the gradient to that convolution's weight."""

    def __init__(
        self,
        func: str,
        geometry: ConvGeometry,
        backend: Backend,
        result: np.dtype[Any],
        needs: frozenset[str],
    ) -> None:
        self.func, self.backend, self.result, self.needs = func, backend, result, needs
        self.frame = Frame(backend, geometry, kernel_dtype(result))
        self.y_shape = geometry.x_shape(1)

    def __call__(self, grad_output: Array, x: Array, weight: Array, outs: tuple[Any, Any, Any]) -> ConvGrads:
        func, frame, g = self.func, self.frame, self.frame.given
        check_grad(func, grad_output, frame.shape(x, self.y_shape))
        inputs = (grad_output, x, weight)
        shapes = (x.shape, weight.shape, (g.in_channels,))
        wanted = [name in self.needs for name in NEEDS]
        dx, dw, db = new_or_checked_each(func, outs, wanted, shapes, self.result, inputs, self.backend)
        dy = frame.data(grad_output)
        if dx is not None:
            w5 = frame.weight(weight)
            frame.into(
                frame.view(dx),
                lambda into: self.backend.conv(frame.geometry, dy, w5, None, None, into, "auto"),
            )
        if dw is not None:
            x5 = frame.data(x)
            frame.into(
                frame.weight_view(dw),
                lambda into: self.backend.conv_backward_weight(frame.geometry, x5, dy, into, None),
            )
        if db is not None:
            store(db, _sum_over_positions(g, grad_output))
        return ConvGrads(dx, dw, db)


_forward = {rank: Repeated[_Forward]() for rank in (1, 2, 3)}
_backward = {rank: Repeated[Backward]() for rank in (1, 2, 3)}
_transposed = {rank: Repeated[Transposed]() for rank in (1, 2, 3)}
_transposed_backward = {rank: Bounded[_TransposedBackward]() for rank in (1, 2, 3)}


# ------------------------------------------------------------------------- any rank, from arguments to a call


def conv(
    rank: int, x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: Any,
    padding_mode: Any, layout: Any, activation: Any, out: Any, backend: Any, algorithm: Any,
) -> Array:  # fmt: skip
    runs_on = registry.active() if backend is None else registry.get_backend(backend)
    settings = (stride, padding, dilation, groups, padding_mode, layout, activation, algorithm, runs_on)
    result = _forward[rank].again(settings)(x, weight, bias, out)
    if result is not None:
        return result  # type: ignore[no-any-return]
    func = f"conv{rank}d"
    numbers, names = (stride, padding, dilation, groups), (padding_mode, layout, activation, algorithm, runs_on)
    key = call_key(numbers, names, x, weight, bias)
    call = _forward[rank].find(key, settings)
    if call is None:
        x, weight = real_array(func, "x", x), real_array(func, "weight", weight)
        geometry = conv_geometry(
            func, rank, x.shape, weight.shape, stride=stride, padding=padding, dilation=dilation, groups=groups,
            padding_mode=padding_mode, layout=layout,
        )  # fmt: skip
        bias = check_bias(func, bias, geometry.out_channels)
        check_activation(func, activation)
        dtypes = (x.dtype, weight.dtype, float_dtype(x, weight))
        call = _Forward(func, geometry, runs_on, dtypes, activation, algorithm)
        _forward[rank].keep(key, settings, call)
    return call(x, weight, bias, out)


def conv_backward(
    rank: int, grad_output: Any, x: Any, weight: Any, stride: Any, padding: Any, dilation: Any, groups: Any,
    padding_mode: Any, layout: Any, needs: Any, out: Any, backend: Any,
) -> ConvGrads:  # fmt: skip
    runs_on = registry.active() if backend is None else registry.get_backend(backend)
    settings = (stride, padding, dilation, groups, needs, padding_mode, layout, runs_on)
    if out is None:
        result = _backward[rank].again(settings)(grad_output, x, weight)
        if result is not None:
            return ConvGrads._make(result)
    func = f"conv{rank}d_backward"
    outs = check_outs(func, out)
    key = call_key(settings[:5], settings[5:], grad_output, x, weight)
    call = _backward[rank].find(key, settings)
    if call is None:
        grad_output = real_array(func, "grad_output", grad_output)
        x, weight = real_array(func, "x", x), real_array(func, "weight", weight)
        geometry = conv_geometry(
            func, rank, x.shape, weight.shape, stride=stride, padding=padding, dilation=dilation, groups=groups,
            padding_mode=padding_mode, layout=layout,
        )  # fmt: skip
        dtypes = (grad_output.dtype, x.dtype, weight.dtype, float_dtype(grad_output, x, weight))
        call = Backward(func, geometry, runs_on, dtypes, check_needs(func, needs))
        _backward[rank].keep(key, settings, call)
    return call(grad_output, x, weight, outs)


def conv_transpose(
    rank: int, x: Any, weight: Any, bias: Any, stride: Any, padding: Any, output_padding: Any, dilation: Any,
    groups: Any, layout: Any, activation: Any, out: Any, backend: Any,
) -> Array:  # fmt: skip
    runs_on = registry.active() if backend is None else registry.get_backend(backend)
    settings = (stride, padding, output_padding, dilation, groups, layout, activation, runs_on)
    result = _transposed[rank].again(settings)(x, weight, bias, out)
    if result is not None:
        return result  # type: ignore[no-any-return]
    func = f"conv_transpose{rank}d"
    key = call_key(settings[:5], settings[5:], x, weight, bias)
    call = _transposed[rank].find(key, settings)
    if call is None:
        x, weight = real_array(func, "x", x), real_array(func, "weight", weight)
        geometry = conv_transpose_geometry(
            func, rank, x.shape, weight.shape, stride=stride, padding=padding, output_padding=output_padding,
            dilation=dilation, groups=groups, layout=layout,
        )  # fmt: skip
        bias = check_bias(func, bias, geometry.in_channels)
        check_activation(func, activation)
        dtypes = (x.dtype, weight.dtype, float_dtype(x, weight))
        call = Transposed(func, geometry, runs_on, dtypes, activation)
        _transposed[rank].keep(key, settings, call)
    return call(x, weight, bias, out)


def conv_transpose_backward(
    rank: int, grad_output: Any, x: Any, weight: Any, stride: Any, padding: Any, output_padding: Any, dilation: Any,
    groups: Any, layout: Any, needs: Any, out: Any, backend: Any,
) -> ConvGrads:  # fmt: skip
    func = f"conv_transpose{rank}d_backward"
    runs_on = registry.active() if backend is None else registry.get_backend(backend)
    outs = check_outs(func, out)
    numbers = (stride, padding, output_padding, dilation, groups, needs)
    key = call_key(numbers, (layout, runs_on), grad_output, x, weight)
    call = _transposed_backward[rank].recall(key)
    if call is None:
        grad_output = real_array(func, "grad_output", grad_output)
        x, weight = real_array(func, "x", x), real_array(func, "weight", weight)
        geometry = conv_transpose_geometry(
            func, rank, x.shape, weight.shape, stride=stride, padding=padding, output_padding=output_padding,
            dilation=dilation, groups=groups, layout=layout,
        )  # fmt: skip
        result = float_dtype(grad_output, x, weight)
        call = _TransposedBackward(func, geometry, runs_on, result, check_needs(func, needs))
        _transposed_backward[rank].remember(key, call)
    return call(grad_output, x, weight, outs)
