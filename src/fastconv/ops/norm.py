"""Batch normalisation: in use, in training, its gradients, and folded into the convolution before it."""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ..backends import registry
from ..backends.protocol import Array
from ..errors import GeometryError, UnknownNameError
from ._arrays import check_grad, check_outs, float_dtype, kernel_dtype, native, new_or_checked, real_array
from .elementwise import check_activation, is_plain, number

__all__ = ["BatchNormGrads", "batch_norm", "batch_norm_backward", "batch_norm_train", "fold_batch_norm"]

_CHANNELS_FIRST = (None, "NC", "NCW", "NCHW", "NCDHW")
_CHANNELS_LAST = ("NWC", "NHWC", "NDHWC")


class BatchNormGrads(NamedTuple):
    """Gradients of a batch normalisation; None for a weight or bias that was None."""

    x: Array
    weight: Array | None
    bias: Array | None


def batch_norm(
    x: ArrayLike, weight: ArrayLike | None, bias: ArrayLike | None, mean: ArrayLike, var: ArrayLike, *,
    eps: float = 1e-5, layout: str | None = None, activation: str | None = None, out: Array | None = None,
    backend: str | None = None,
) -> Array:  # fmt: skip
    """Normalise every channel by a given mean and variance.

    ``(x - mean) / sqrt(var + eps) * weight + bias``, then the activation.

    Parameters
    ----------
    x : array_like
        ``(N, C, ...)`` with any number of further axes, or ``(N, ..., C)`` with a layout that is channels last.
    weight, bias : array_like or None
        ``(C,)``; None is ones and zeros. Cast to the result's dtype.
    mean, var : array_like
        ``(C,)``: the statistics, in training those that were followed over the batches.
    eps : float, default 1e-5
        Added to the variance.
    layout : str, optional
        Where the channels are: ``"NC" "NCW" "NCHW" "NCDHW"`` or None on axis 1, ``"NWC" "NHWC" "NDHWC"`` on the last
        axis, whatever the number of axes.
    activation : str, optional
        Applied to the result: ``relu relu6 leaky_relu sigmoid tanh silu gelu hard_swish``.
    out : ndarray, optional
        Array of the result's shape and dtype to write to; it may not share memory with an input.
    backend : str, optional
        Who computes; by default the active backend.

    Returns
    -------
    ndarray
        Of x's shape and of dtype ``np.result_type(x, np.float32)`` (float16 stays).

    Raises
    ------
    GeometryError, UnknownNameError, TypeError, BackendUnavailableError
        Shapes that do not fit, names outside their list, arrays that are not real.

    References
    ----------
    Ioffe, Szegedy: *Batch normalization: accelerating deep network training by reducing internal covariate shift*,
    arXiv:1502.03167.

    Examples
    --------
    >>> import fastconv
    >>> fastconv.batch_norm([[1.0, 4.0], [3.0, 8.0]], None, None, [2.0, 6.0], [1.0, 4.0], eps=0.0)
    array([[-1., -1.],
           [ 1.,  1.]])
    """
    func = "batch_norm"
    runs_on = registry.active() if backend is None else registry.get_backend(backend)
    call = _Call(func, x, layout, activation)
    gamma, beta = call.vector("weight", weight, 1), call.vector("bias", bias, 0)
    centre, spread = call.vector("mean", mean), call.vector("var", var)
    scale = gamma / np.sqrt(spread + number(func, "eps", eps))
    result = new_or_checked(func, out, call.x.shape, call.result, (call.x,))
    y = call.into(result)
    runs_on.batch_norm(call.three(call.x), call.cast(centre), call.cast(scale), call.cast(beta), activation, y)
    call.store(y, result)
    return result


def batch_norm_train(
    x: ArrayLike, weight: ArrayLike | None, bias: ArrayLike | None, *, eps: float = 1e-5, layout: str | None = None,
    activation: str | None = None, add: ArrayLike | None = None, out: Array | None = None, backend: str | None = None,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """Normalise every channel by its own mean and variance over the batch and all positions.

    Sums are float64 and the variance is taken about the mean, so that a large mean costs no digits.

    Parameters
    ----------
    x, weight, bias, eps, layout, activation, out, backend
        As in :func:`batch_norm`.
    add : array_like, optional
        Of x's shape: added before the activation, in the same pass, as at the end of a residual block.

    Returns
    -------
    y : ndarray
        The result, as of :func:`batch_norm`.
    mean, var : ndarray
        ``(C,)``: the mean and the biased variance, float32 or float64 as they were computed.

    Raises
    ------
    GeometryError, UnknownNameError, TypeError, BackendUnavailableError
        As :func:`batch_norm`; also an x without elements, which has no mean.

    Examples
    --------
    >>> import fastconv
    >>> y, mean, var = fastconv.batch_norm_train([[1.0], [3.0]], None, None, eps=0.0)
    >>> y.ravel(), mean, var
    (array([-1.,  1.]), array([2.]), array([1.]))
    """
    func = "batch_norm_train"
    runs_on = registry.active() if backend is None else registry.get_backend(backend)
    added = None if add is None else real_array(func, "add", add)
    call = _Call(func, x, layout, activation, *([] if added is None else [added]))
    call.check_count()
    if added is not None and added.shape != call.x.shape:
        raise GeometryError(f"{func}: add must have the shape of x, {call.x.shape}, received {added.shape}")
    gamma, beta = call.cast(call.vector("weight", weight, 1)), call.cast(call.vector("bias", bias, 0))
    result = new_or_checked(func, out, call.x.shape, call.result, (call.x, added))
    mean, var = np.empty(call.channels, call.dtype), np.empty(call.channels, call.dtype)
    y = call.into(result)
    runs_on.batch_norm_train(
        call.three(call.x), gamma, beta, number(func, "eps", eps), activation, y, mean, var,
        None if added is None else call.three(added),
    )  # fmt: skip
    call.store(y, result)
    return result, mean, var


def batch_norm_backward(
    grad_output: ArrayLike, x: ArrayLike, weight: ArrayLike | None, bias: ArrayLike | None, mean: ArrayLike,
    var: ArrayLike, *, eps: float = 1e-5, layout: str | None = None, activation: str | None = None,
    out: tuple[Array | None, Array | None, Array | None] | None = None, backend: str | None = None,
) -> BatchNormGrads:  # fmt: skip
    """Gradients of :func:`batch_norm_train`, through the batch's mean and variance too.

    Parameters
    ----------
    grad_output : array_like
        Gradient of the result, after the activation, of x's shape.
    x, weight, bias
        What :func:`batch_norm_train` was given.
    mean, var : array_like
        What it gave.
    eps, layout, activation
        What it was given; the value before the activation is computed again.
    out : tuple of ndarray, optional
        ``(x, weight, bias)`` to write to, any of them None; they may not share memory with an input.
    backend : str, optional
        Who computes.

    Returns
    -------
    BatchNormGrads
        ``(x, weight, bias)``, of dtype ``np.result_type(grad_output, x, np.float32)`` (float16 stays); None for a
        weight or bias that was None.

    Raises
    ------
    GeometryError, UnknownNameError, TypeError, BackendUnavailableError
        As :func:`batch_norm_train`; also a gradient whose shape does not fit.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> x = np.array([[1.0], [3.0]])
    >>> y, mean, var = fastconv.batch_norm_train(x, np.ones(1), np.zeros(1))
    >>> fastconv.batch_norm_backward(np.ones((2, 1)), x, np.ones(1), np.zeros(1), mean, var).bias
    array([2.])
    """
    func = "batch_norm_backward"
    runs_on = registry.active() if backend is None else registry.get_backend(backend)
    gradient = real_array(func, "grad_output", grad_output)
    call = _Call(func, x, layout, activation, gradient)
    check_grad(func, gradient, call.x.shape)
    call.check_count()
    gamma, beta = call.cast(call.vector("weight", weight, 1)), call.cast(call.vector("bias", bias, 0))
    centre, spread = call.cast(call.vector("mean", mean)), call.cast(call.vector("var", var))
    ox, ow, ob = check_outs(func, out)
    inputs, vector = (gradient, call.x), (call.channels,)
    dx = new_or_checked(func, ox, call.x.shape, call.result, inputs, "out[0]")
    dweight = new_or_checked(func, ow, vector, call.result, (*inputs, dx), "out[1]")
    dbias = new_or_checked(func, ob, vector, call.result, (*inputs, dx, dweight), "out[2]")
    into, dw, db = call.into(dx), np.empty(call.channels, call.dtype), np.empty(call.channels, call.dtype)
    runs_on.batch_norm_backward(
        call.three(gradient), call.three(call.x), gamma, beta, centre, spread, number(func, "eps", eps), activation,
        into, dw, db,
    )  # fmt: skip
    call.store(into, dx)
    dweight[...], dbias[...] = dw, db
    return BatchNormGrads(dx, None if weight is None else dweight, None if bias is None else dbias)


def fold_batch_norm(
    weight: ArrayLike, bias: ArrayLike | None, gamma: ArrayLike | None, beta: ArrayLike | None, mean: ArrayLike,
    var: ArrayLike, *, eps: float = 1e-5, layout: str | None = None,
) -> tuple[Array, Array]:  # fmt: skip
    """Weight and bias of the one convolution that equals a convolution and the batch normalisation after it.

    Parameters
    ----------
    weight : array_like
        Of the convolution: ``(C_out, C_in/groups, *kernel)``; channels last ``(*kernel, C_in/groups, C_out)``.
    bias : array_like or None
        ``(C_out,)``, of the convolution.
    gamma, beta : array_like or None
        ``(C_out,)``: weight and bias of the batch normalisation; None is ones and zeros.
    mean, var : array_like
        ``(C_out,)``: its statistics.
    eps : float, default 1e-5
        Its epsilon.
    layout : str, optional
        As in :func:`batch_norm`.

    Returns
    -------
    weight, bias : ndarray
        Of the given weight's shape and ``(C_out,)``, of dtype ``np.result_type(weight, np.float32)`` (float16 stays).

    Raises
    ------
    GeometryError, UnknownNameError, TypeError
        As :func:`batch_norm`.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> w, b = fastconv.fold_batch_norm(np.ones((1, 1, 1)), None, [2.0], [1.0], [3.0], [4.0], eps=0.0)
    >>> w.ravel(), b
    (array([1.]), array([-2.]))
    """
    func = "fold_batch_norm"
    array = real_array(func, "weight", weight)
    if array.ndim < 2:
        raise GeometryError(f"{func}: weight must have at least 2 axes, received shape {array.shape}")
    axis = array.ndim - 1 if _is_last(func, layout) else 0
    channels = array.shape[axis]
    scale = _vector(func, "gamma", gamma, channels, 1) / np.sqrt(
        _vector(func, "var", var, channels) + number(func, "eps", eps)
    )
    shift = _vector(func, "bias", bias, channels, 0) - _vector(func, "mean", mean, channels)
    folded = array * scale.reshape([-1 if a == axis else 1 for a in range(array.ndim)])
    dtype = float_dtype(array)
    return folded.astype(dtype), (shift * scale + _vector(func, "beta", beta, channels, 0)).astype(dtype)


def _is_last(func: str, layout: Any) -> bool:
    if layout in _CHANNELS_LAST:
        return True
    if layout in _CHANNELS_FIRST:
        return False
    names = ", ".join(repr(n) for n in (*_CHANNELS_FIRST, *_CHANNELS_LAST))
    raise UnknownNameError(f"{func}: layout must be one of {names}, received {layout!r}")


def _vector(func: str, name: str, value: Any, channels: int, default: float | None = None) -> Array:
    """One float64 number for each channel."""
    if value is None and default is not None:
        return np.full(channels, default, np.float64)
    array = real_array(func, name, value)
    if array.shape != (channels,):
        raise GeometryError(f"{func}: {name} must have shape ({channels},), received {array.shape}")
    return array.astype(np.float64)


class _Call:
    """The arguments that all forms share, checked; and the data as a backend sees it: (outer, channels, inner)."""

    def __init__(self, func: str, x: Any, layout: Any, activation: Any, *others: Array) -> None:
        self.func, self.x = func, real_array(func, "x", x)
        if self.x.ndim < 2:
            raise GeometryError(f"{func}: x must have at least 2 axes, received shape {self.x.shape}")
        check_activation(func, activation)
        shape = self.x.shape
        if _is_last(func, layout):
            self.channels = shape[-1]
            self.seen = (prod(shape[:-1]), self.channels, 1)
        else:
            self.channels = shape[1]
            self.seen = (shape[0], self.channels, prod(shape[2:]))
        self.result = float_dtype(self.x, *others)
        self.dtype = kernel_dtype(self.result)

    def check_count(self) -> None:
        if self.seen[0] * self.seen[2] == 0:
            raise GeometryError(f"{self.func}: x of shape {self.x.shape} has no elements to take a mean of")

    def vector(self, name: str, value: Any, default: float | None = None) -> Array:
        return _vector(self.func, name, value, self.channels, default)

    def cast(self, vector: Array) -> Array:
        return vector.astype(self.dtype)

    def three(self, array: Array) -> Array:
        return np.ascontiguousarray(native(array), self.dtype).reshape(self.seen)

    def into(self, result: Array) -> Array:
        if is_plain(result) and result.dtype == self.dtype:
            return result.reshape(self.seen)
        return np.empty(self.seen, self.dtype)

    def store(self, y: Array, result: Array) -> None:
        if not np.may_share_memory(y, result):
            with np.errstate(over="ignore", invalid="ignore"):
                result[...] = y.reshape(result.shape)
