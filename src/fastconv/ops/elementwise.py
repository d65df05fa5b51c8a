"""Activations and their gradients, and the updates of optimizers, in place."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..backends import registry
from ..backends.protocol import ACTIVATIONS, FLOATS, Array, Backend
from ..errors import DTypeError, GeometryError, UnknownNameError
from ._arrays import check_grad, check_out, float_dtype, kernel_dtype, real_array

__all__ = [
    "activate",
    "activate_in_place",
    "activation_backward",
    "adam_update",
    "check_activation",
    "number",
    "rmsprop_update",
    "sgd_update",
]


def check_activation(func: str, activation: Any) -> None:
    """Refuse a name outside the closed list."""
    if activation is not None and activation not in ACTIVATIONS:
        raise UnknownNameError(
            f"{func}: activation must be None or one of {', '.join(ACTIVATIONS)}, received {activation!r}"
        )


def number(func: str, name: str, value: Any, least: float = 0.0) -> float:
    """A finite number of at least ``least``, as a float."""
    try:
        result = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{func}: {name} must be a number, received {value!r}") from None
    if not least <= result < math.inf:
        raise GeometryError(f"{func}: {name} must be a finite number of at least {least:g}, received {value!r}")
    return result


def is_plain(array: Array) -> bool:
    """Whether a kernel on flat arrays may work on this array where it lies."""
    flags = array.flags
    return flags.c_contiguous and flags.aligned and array.dtype.isnative and array.dtype in FLOATS


def activate_in_place(backend: Backend, y: Array, activation: str) -> None:
    """Apply an activation to a float32 or float64 array of any strides."""
    if is_plain(y):
        flat = y.reshape(-1)
        backend.activate(flat, activation, flat)
    else:
        buffer = np.ascontiguousarray(y, y.dtype.newbyteorder("=")).reshape(-1)
        backend.activate(buffer, activation, buffer)
        y[...] = buffer.reshape(y.shape)


# ------------------------------------------------------------------------------------------------- activations


def activate(
    x: ArrayLike, activation: str | None, *, add: ArrayLike | None = None, out: Array | None = None,
    backend: str | None = None,
) -> Array:  # fmt: skip
    """Apply an activation to every element, by PyTorch's definition of that name.

    Parameters
    ----------
    x : array_like
        Any shape, any real dtype up to 64 bits, any strides.
    activation : str or None
        ``relu relu6 leaky_relu sigmoid tanh silu gelu hard_swish``; ``leaky_relu`` has slope 0.01 below zero, ``gelu``
        is by the error function. None copies.
    add : array_like, optional
        Of x's shape: added to x first, in the same pass, as at the end of a residual block.
    out : ndarray, optional
        Array of the result's shape and dtype to write to; ``x`` or ``add`` itself, or an array that shares no memory
        with them.
    backend : str, optional
        Who computes; by default the active backend.

    Returns
    -------
    ndarray
        Of x's shape and of dtype ``np.result_type(x, np.float32)``, with ``add`` of both (float16 stays).

    Raises
    ------
    UnknownNameError, GeometryError, TypeError, BackendUnavailableError
        A name outside the list, an ``out`` that does not fit, arrays that are not real.

    References
    ----------
    Hendrycks, Gimpel: *Gaussian error linear units*, arXiv:1606.08415. Howard et al.: *Searching for MobileNetV3*,
    arXiv:1905.02244.

    Examples
    --------
    >>> import fastconv
    >>> fastconv.activate([-1.0, 0.0, 8.0], "relu6")
    array([0., 0., 6.])
    """
    func = "activate"
    array = real_array(func, "x", x)
    runs_on = registry.active() if backend is None else registry.get_backend(backend)
    check_activation(func, activation)
    other = None if add is None else real_array(func, "add", add)
    if other is not None and other.shape != array.shape:
        raise GeometryError(f"{func}: add must have the shape of x, {array.shape}, received {other.shape}")
    inputs = (array,) if other is None else (array, other)
    result = _result(func, out, array, float_dtype(*inputs), inputs)
    if activation is None and other is None:
        result[...] = array
        return result
    dtype = kernel_dtype(result.dtype)
    source = _flat(array, dtype)
    into = result.reshape(-1) if is_plain(result) else np.empty_like(source)
    if other is not None:
        runs_on.add(source, _flat(other, dtype), activation, into)
    elif activation is not None:
        runs_on.activate(source, activation, into)
    if not is_plain(result):
        _store(into, result)
    return result


def activation_backward(
    grad_output: ArrayLike, x: ArrayLike, activation: str | None, *, out: Array | None = None,
    backend: str | None = None,
) -> Array:  # fmt: skip
    """Gradient of :func:`activate` with respect to its input.

    Parameters
    ----------
    grad_output : array_like
        Gradient of the result, of its shape.
    x : array_like
        What :func:`activate` was given: the value before the activation.
    activation : str or None
        As in :func:`activate`.
    out : ndarray, optional
        Array of x's shape to write to; ``grad_output`` or ``x`` itself, or an array that shares no memory with them.
    backend : str, optional
        Who computes.

    Returns
    -------
    ndarray
        Of x's shape and of dtype ``np.result_type(grad_output, x, np.float32)`` (float16 stays).

    Raises
    ------
    UnknownNameError, GeometryError, TypeError, BackendUnavailableError
        As :func:`activate`; also a gradient whose shape does not fit.

    Examples
    --------
    >>> import fastconv
    >>> fastconv.activation_backward([1.0, 1.0], [-2.0, 2.0], "relu")
    array([0., 1.])
    """
    func = "activation_backward"
    gradient, array = real_array(func, "grad_output", grad_output), real_array(func, "x", x)
    runs_on = registry.active() if backend is None else registry.get_backend(backend)
    check_activation(func, activation)
    check_grad(func, gradient, array.shape)
    result = _result(func, out, array, float_dtype(gradient, array), (gradient, array))
    if activation is None:
        result[...] = gradient
        return result
    dtype = kernel_dtype(result.dtype)
    dy, source = _flat(gradient, dtype), _flat(array, dtype)
    if is_plain(result):
        runs_on.activation_backward(dy, source, activation, result.reshape(-1))
    else:
        buffer = np.empty_like(source)
        runs_on.activation_backward(dy, source, activation, buffer)
        _store(buffer, result)
    return result


def _result(func: str, out: Any, like: Array, dtype: np.dtype[Any], inputs: tuple[Array, ...]) -> Array:
    """A new array, or the user's: one of the inputs itself, or one apart from them."""
    if out is None:
        return np.empty(like.shape, dtype)
    return check_out(func, out, like.shape, dtype, [a for a in inputs if a is not out])


def _flat(array: Array, dtype: np.dtype[Any]) -> Array:
    if array.dtype == dtype and is_plain(array):
        return array.reshape(-1)
    return array.astype(dtype, order="C").reshape(-1)


def _store(flat: Array, into: Array) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        into[...] = flat.reshape(into.shape)


# -------------------------------------------------------------------------------------------- optimizer updates


def sgd_update(
    param: Array, grad: ArrayLike, velocity: Array | None = None, *, lr: float, momentum: float = 0.0,
    nesterov: bool = False, weight_decay: float = 0.0, backend: str | None = None,
) -> None:  # fmt: skip
    """One step of stochastic gradient descent, in place, by Keras' formulas.

    ``param -= lr * weight_decay * param``; then ``velocity = momentum * velocity - lr * grad`` and
    ``param += velocity``, with ``nesterov`` ``param += momentum * velocity - lr * grad``; without a velocity
    ``param -= lr * grad``.

    Parameters
    ----------
    param : ndarray
        Floating parameter, changed in place.
    grad : array_like
        Its gradient, of the same shape; cast to its dtype.
    velocity : ndarray, optional
        State of the momentum, zeros at first, of param's shape and dtype; changed in place.
    lr : float
        Learning rate.
    momentum, nesterov
        Kind of momentum; a momentum needs ``velocity``.
    weight_decay : float, default 0
        Decoupled from the gradient, as in Keras.
    backend : str, optional
        Who computes.

    Raises
    ------
    GeometryError, TypeError, ValueError, BackendUnavailableError
        Shapes or dtypes that differ, numbers out of range, read-only arrays.

    References
    ----------
    Sutskever, Martens, Dahl, Hinton: *On the importance of initialization and momentum in deep learning*, ICML 2013.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> param = np.array([1.0, 2.0])
    >>> fastconv.sgd_update(param, [1.0, 1.0], lr=0.5)
    >>> param
    array([0.5, 1.5])
    """
    func = "sgd_update"
    rate, inertia = number(func, "lr", lr), number(func, "momentum", momentum)
    decay = rate * number(func, "weight_decay", weight_decay)
    if inertia and velocity is None:
        raise GeometryError(f"{func}: momentum={momentum!r} needs a velocity, received None")
    with _Flat(func, param, grad, {"velocity": velocity}, backend) as (kernels, p, g, (v,)):
        kernels.sgd_update(p, g, v, rate, inertia, bool(nesterov), decay)


def rmsprop_update(
    param: Array, grad: ArrayLike, square: Array, *, lr: float, rho: float = 0.9, momentum: float = 0.0,
    eps: float = 1e-7, mean: Array | None = None, velocity: Array | None = None, weight_decay: float = 0.0,
    backend: str | None = None,
) -> None:  # fmt: skip
    """One step of RMSprop, in place, by Keras' formulas.

    ``square`` becomes ``rho * square + (1 - rho) * grad**2``; the step is ``lr * grad / sqrt(square + eps)``. With
    ``mean`` (centred) the running mean of the gradient is followed too, and its square taken off under the root; with a
    velocity ``velocity = momentum * velocity + step`` is subtracted instead of the step.

    Parameters
    ----------
    param, grad
        As in :func:`sgd_update`.
    square : ndarray
        State: running mean of the squared gradient, zeros at first.
    lr, rho, eps, weight_decay : float
        Learning rate, decay of the averages, what keeps the root from zero, and the decoupled weight decay.
    momentum : float, default 0
        Needs ``velocity``.
    mean, velocity : ndarray, optional
        Further states, zeros at first.
    backend : str, optional
        Who computes.

    Raises
    ------
    GeometryError, TypeError, ValueError, BackendUnavailableError
        As :func:`sgd_update`.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> param, square = np.array([1.0]), np.zeros(1)
    >>> fastconv.rmsprop_update(param, [2.0], square, lr=0.1)
    >>> square.round(6), param.round(6)
    (array([0.4]), array([0.683772]))
    """
    func = "rmsprop_update"
    rate, inertia = number(func, "lr", lr), number(func, "momentum", momentum)
    decay = rate * number(func, "weight_decay", weight_decay)
    if inertia and velocity is None:
        raise GeometryError(f"{func}: momentum={momentum!r} needs a velocity, received None")
    states = {"square": square, "mean": mean, "velocity": velocity}
    with _Flat(func, param, grad, states, backend, ("square",)) as (kernels, p, g, (s, m, v)):
        kernels.rmsprop_update(p, g, s, m, v, rate, number(func, "rho", rho), inertia, number(func, "eps", eps), decay)


def adam_update(
    param: Array, grad: ArrayLike, m: Array, v: Array, *, step: int, lr: float = 0.001, beta1: float = 0.9,
    beta2: float = 0.999, eps: float = 1e-7, weight_decay: float = 0.0, decoupled: bool = False,
    backend: str | None = None,
) -> None:  # fmt: skip
    """One step of Adam or AdamW, in place, by Keras' formulas.

    ``m += (grad - m) * (1 - beta1)``; ``v += (grad**2 - v) * (1 - beta2)``; ``param -= alpha * m / (sqrt(v) + eps)``
    with ``alpha = lr * sqrt(1 - beta2**step) / (1 - beta1**step)``. The epsilon stands beside the uncorrected root, as
    in Keras.

    Parameters
    ----------
    param, grad
        As in :func:`sgd_update`.
    m, v : ndarray
        States: running means of the gradient and of its square, zeros at first.
    step : int
        Number of this step, from 1 on.
    lr, beta1, beta2, eps : float
        Keras' defaults.
    weight_decay : float, default 0
        Added to the gradient as ``weight_decay * param``, or with ``decoupled=True`` (AdamW, and every optimizer of
        Keras) taken off the parameter first as ``lr * weight_decay * param``.
    decoupled : bool, default False
        Kind of the weight decay.
    backend : str, optional
        Who computes.

    Raises
    ------
    GeometryError, TypeError, ValueError, BackendUnavailableError
        As :func:`sgd_update`; also a step below 1 and betas of 1 or more.

    References
    ----------
    Kingma, Ba: *Adam: a method for stochastic optimization*, arXiv:1412.6980. Loshchilov, Hutter: *Decoupled weight
    decay regularization*, arXiv:1711.05101.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> param, m, v = np.array([1.0]), np.zeros(1), np.zeros(1)
    >>> fastconv.adam_update(param, [3.0], m, v, step=1, lr=0.1)
    >>> param.round(6)
    array([0.9])
    """
    func = "adam_update"
    try:
        count = operator.index(step)
    except TypeError:
        raise TypeError(f"{func}: step must be an integer, received {step!r}") from None
    if count < 1:
        raise GeometryError(f"{func}: step must be at least 1, received {step!r}")
    rate, decay = number(func, "lr", lr), number(func, "weight_decay", weight_decay)
    first, second = number(func, "beta1", beta1), number(func, "beta2", beta2)
    if first >= 1 or second >= 1:
        raise GeometryError(f"{func}: beta1 and beta2 must be less than 1, received {beta1!r} and {beta2!r}")
    alpha = rate * math.sqrt(1 - second**count) / (1 - first**count)
    shrink, l2 = (rate * decay, 0.0) if decoupled else (0.0, decay)
    with _Flat(func, param, grad, {"m": m, "v": v}, backend, ("m", "v")) as (kernels, p, g, (mean, square)):
        kernels.adam_update(p, g, mean, square, alpha, first, second, number(func, "eps", eps), shrink, l2)


class _Flat:
    """A parameter, its gradient and its states as flat arrays; what had to be copied is written back at the end."""

    def __init__(
        self, func: str, param: Any, grad: Any, states: dict[str, Any], backend: str | None,
        needed: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        self.kernels = registry.active() if backend is None else registry.get_backend(backend)
        self.copies: list[tuple[Array, Array]] = []
        changed = {"param": param} | {k: s for k, s in states.items() if s is not None or k in needed}
        for name, array in changed.items():
            if not isinstance(array, np.ndarray) or array.dtype.kind != "f" or array.dtype.itemsize > 8:
                kind = f"dtype {array.dtype}" if isinstance(array, np.ndarray) else type(array).__name__
                raise DTypeError(f"{func}: {name} must be a floating NumPy array, received {kind}")
            check_out(func, array, param.shape, param.dtype, (), name)
        gradient = real_array(func, "grad", grad)
        if gradient.shape != param.shape:
            raise GeometryError(f"{func}: grad must have shape {param.shape}, received {gradient.shape}")
        dtype = kernel_dtype(param.dtype.newbyteorder("="))
        self.arrays = (
            self.kernels,
            self._flat(param, dtype),
            _flat(gradient, dtype),
            tuple(None if s is None else self._flat(s, dtype) for s in states.values()),
        )

    def _flat(self, array: Array, dtype: np.dtype[Any]) -> Array:
        flat = _flat(array, dtype)
        if not is_plain(array):
            self.copies.append((flat, array))
        return flat

    def __enter__(self) -> tuple[Backend, Array, Array, Any]:
        return self.arrays

    def __exit__(self, *error: object) -> None:
        for flat, array in self.copies:
            _store(flat, array)
