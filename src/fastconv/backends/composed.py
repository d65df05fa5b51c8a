"""What every backend inherits: activations, batch normalisation and optimizer updates, composed of NumPy calls.

Elementwise work goes in blocks that stay in the cache, so nothing here allocates temporaries of the arrays' own size
except batch normalisation, which needs one. The contract of the arrays stands in ``protocol``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "activate",
    "activation_backward",
    "adam_update",
    "add",
    "batch_norm",
    "batch_norm_backward",
    "batch_norm_train",
    "rmsprop_update",
    "sgd_update",
]

Array: TypeAlias = NDArray[Any]

_BLOCK = 16384  # elements: a block, its operands and its temporaries fit a second-level cache
_SLOPE = 0.01  # of leaky_relu below zero


def _blocks(size: int) -> Iterator[slice]:
    for start in range(0, size, _BLOCK):
        yield slice(start, min(start + _BLOCK, size))


# ------------------------------------------------------------------------------------------------- activations


def activate(x: Array, activation: str, out: Array) -> None:
    """Write the activation of ``x`` to ``out``, which may be ``x`` itself."""
    with np.errstate(all="ignore"):
        for part in _blocks(x.size):
            _activate(x[part], activation, out[part])


def _activate(x: Array, activation: str, out: Array) -> None:
    if activation == "relu":
        np.maximum(x, 0, out=out)
    elif activation == "relu6":
        np.clip(x, 0, 6, out=out)
    elif activation == "leaky_relu":
        np.copyto(out, np.where(x < 0, x * x.dtype.type(_SLOPE), x))
    elif activation == "sigmoid":
        np.copyto(out, _sigmoid(x))
    elif activation == "tanh":
        np.tanh(x, out=out)
    elif activation == "silu":
        np.multiply(x, _sigmoid(x), out=out)
    elif activation == "hard_swish":
        np.multiply(x, np.clip(x + 3, 0, 6) / 6, out=out)
    else:  # gelu: x times the normal distribution function
        np.multiply(x, _normal_cdf(x), out=out, casting="same_kind")


def add(a: Array, b: Array, activation: str | None, out: Array) -> None:
    """Write the activation of ``a + b`` to ``out``, which may be either itself."""
    with np.errstate(all="ignore"):
        for part in _blocks(a.size):
            np.add(a[part], b[part], out=out[part])
            if activation is not None:
                _activate(out[part], activation, out[part])


def activation_backward(grad_output: Array, x: Array, activation: str, dx: Array) -> None:
    """Write the gradient to the pre-activation ``x`` to ``dx``, which may be ``grad_output`` or ``x``."""
    with np.errstate(all="ignore"):
        for part in _blocks(x.size):
            _activation_backward(grad_output[part], x[part], activation, dx[part])


def _activation_backward(dy: Array, x: Array, activation: str, dx: Array) -> None:
    if activation == "relu":  # written so that the gradient at a NaN goes through, as PyTorch's does
        np.copyto(dx, np.where(x <= 0, 0, dy))
    elif activation == "relu6":
        np.copyto(dx, np.where((x <= 0) | (x >= 6), 0, dy))
    elif activation == "leaky_relu":
        np.copyto(dx, np.where(x > 0, dy, dy * x.dtype.type(_SLOPE)))
    elif activation == "sigmoid":
        s = _sigmoid(x)
        np.multiply(dy, s * (1 - s), out=dx)
    elif activation == "tanh":
        t = np.tanh(x)
        np.multiply(dy, 1 - t * t, out=dx)
    elif activation == "silu":
        s = _sigmoid(x)
        np.multiply(dy, s * (1 + x * (1 - s)), out=dx)
    elif activation == "hard_swish":
        slope = np.where(x <= -3, 0, np.where(x >= 3, 1, x / 3 + x.dtype.type(0.5)))
        np.multiply(dy, slope, out=dx)
    else:  # gelu
        wide = x.astype(np.float64)
        density = np.exp(-0.5 * wide * wide) / math.sqrt(2 * math.pi)
        np.multiply(dy, _normal_cdf(x) + wide * density, out=dx, casting="same_kind")


def _sigmoid(x: Array) -> Array:
    s: Array = np.negative(x)
    np.exp(s, out=s)
    s += 1
    np.reciprocal(s, out=s)
    return s


def _normal_cdf(x: Array) -> Array:
    """The distribution function of the standard normal distribution, in float64."""
    return 0.5 * _erfc(x.astype(np.float64) * -math.sqrt(0.5))


# W. J. Cody: Rational Chebyshev approximations for the error function, Mathematics of Computation 23 (1969), 631-637.
_SMALL = (
    (1.85777706184603153e-1, 3.16112374387056560, 1.13864154151050156e2, 3.77485237685302021e2, 3.20937758913846947e3),
    (1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3, 2.84423683343917062e3),
)  # fmt: skip
_MIDDLE = (
    (2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594, 6.61191906371416295e1, 2.98635138197400131e2,
     8.81952221241769090e2, 1.71204761263407058e3, 2.05107837782607147e3, 1.23033935479799725e3),
    (1.0, 1.57449261107098347e1, 1.17693950891312499e2, 5.37181101862009858e2, 1.62138957456669019e3,
     3.29079923573345963e3, 4.36261909014324716e3, 3.43936767414372164e3, 1.23033935480374942e3),
)  # fmt: skip
_LARGE = (
    (1.63153871373020978e-2, 3.05326634961232344e-1, 3.60344899949804439e-1, 1.25781726111229246e-1,
     1.60837851487422766e-2, 6.58749161529837803e-4),
    (1.0, 2.56852019228982242, 1.87295284992346725, 5.27905102951428412e-1, 6.05183413124413191e-2,
     2.33520497626869185e-3),
)  # fmt: skip


def _erfc(x: Array) -> Array:
    """One minus the error function, to float64's accuracy, in Cody's three ranges."""
    size = np.abs(x)
    result: Array = np.empty_like(x)
    small, large = size <= 0.46875, size > 4
    y = x[small]
    result[small] = 1 - y * _ratio(_SMALL, y * y)
    rest = ~small
    middle = rest & ~large  # NaNs too
    y = size[middle]
    result[middle] = _ratio(_MIDDLE, y) * _exp_minus_square(y)
    y = np.minimum(size[large], 27)  # erfc is zero in float64 from 26.6 on, and infinity stays out of the sums
    inverse = 1 / (y * y)
    result[large] = (1 / math.sqrt(math.pi) - inverse * _ratio(_LARGE, inverse)) / y * _exp_minus_square(y)
    np.subtract(2, result, out=result, where=rest & (x < 0))
    return result


def _ratio(polynomials: tuple[tuple[float, ...], tuple[float, ...]], y: Array) -> Array:
    top, bottom = (_horner(coefficients, y) for coefficients in polynomials)
    return top / bottom


def _horner(coefficients: tuple[float, ...], y: Array) -> Array:
    value: Array = np.full_like(y, coefficients[0])
    for c in coefficients[1:]:
        value *= y
        value += c
    return value


def _exp_minus_square(y: Array) -> Array:
    """exp(-y*y) without the rounding error of y*y: y is split into sixteenths and a rest."""
    coarse = np.trunc(y * 16) / 16
    result: Array = np.exp(-coarse * coarse) * np.exp(-(y - coarse) * (y + coarse))
    return result


# ----------------------------------------------------------------------------------------- batch normalisation


def batch_norm(x: Array, mean: Array, scale: Array, bias: Array, activation: str | None, out: Array) -> None:
    """Write ``(x - mean) * scale + bias`` and its activation."""
    with np.errstate(all="ignore"):
        np.subtract(x, _column(mean), out=out)
        out *= _column(scale)
        out += _column(bias)
    if activation is not None:
        flat = out.reshape(-1)
        activate(flat, activation, flat)


def batch_norm_train(
    x: Array, weight: Array, bias: Array, eps: float, activation: str | None, out: Array, mean: Array, var: Array,
    add: Array | None,
) -> None:  # fmt: skip
    """Normalise by the batch's own mean and variance, in two passes with float64 sums."""
    with np.errstate(all="ignore"):
        count = x.shape[0] * x.shape[2]
        mean[...] = _channel_sums(x) / count
        centred = np.subtract(x, _column(mean), out=out)
        # what rounding the mean left over is taken off again, so that a large mean costs no digits
        rest = _channel_sums(centred) / count
        wide = np.maximum(_channel_dots(centred, centred) / count - rest * rest, 0)
        var[...] = wide
        scale = weight / np.sqrt(wide + eps)
        out *= _column(scale.astype(x.dtype))
        out += _column((bias - rest * scale).astype(x.dtype))
        if add is not None:
            out += add
    if activation is not None:
        flat = out.reshape(-1)
        activate(flat, activation, flat)


def batch_norm_backward(
    grad_output: Array, x: Array, weight: Array, bias: Array, mean: Array, var: Array, eps: float,
    activation: str | None, dx: Array, dweight: Array, dbias: Array,
) -> None:  # fmt: skip
    """Gradients through the batch's mean and variance; the pre-activation is computed again from ``x``."""
    with np.errstate(all="ignore"):
        inverse = 1 / np.sqrt(var.astype(np.float64) + eps)
        hat = np.subtract(x, _column(mean))
        hat *= _column(inverse.astype(x.dtype))
        dy = grad_output
        if activation is not None:
            np.multiply(hat, _column(weight), out=dx)
            dx += _column(bias)
            flat = dx.reshape(-1)
            activation_backward(grad_output.reshape(-1), flat, activation, flat)
            dy = dx
        count = x.shape[0] * x.shape[2]
        sum_dy, sum_dy_hat = _channel_sums(dy), _channel_dots(dy, hat)
        dbias[...], dweight[...] = sum_dy, sum_dy_hat
        hat *= _column((sum_dy_hat / count).astype(x.dtype))
        hat += _column((sum_dy / count).astype(x.dtype))
        np.subtract(dy, hat, out=dx)
        dx *= _column((weight * inverse).astype(x.dtype))


def _column(vector: Array) -> Array:
    return vector[:, None]


def _channel_sums(x: Array) -> Array:
    if x.shape[2] == 1:  # channels last: a product with ones adds in the order of memory
        total: Array = np.add.reduce(x[:, :, 0], axis=0, dtype=np.float64)
        return total
    total = np.add.reduce(x, axis=2, dtype=np.float64).sum(axis=0)
    return total


def _channel_dots(a: Array, b: Array) -> Array:
    """Sum of the products for each channel, in float64, image by image."""
    total: Array = np.zeros(a.shape[1], np.float64)
    if a.shape[2] == 1:
        rows = max(1, _BLOCK // max(1, a.shape[1]))
        for start in range(0, a.shape[0], rows):
            part = slice(start, start + rows)
            total += np.einsum("nc,nc->c", a[part, :, 0].astype(np.float64), b[part, :, 0])
        return total
    for left, right in zip(a, b, strict=True):
        total += np.einsum("cl,cl->c", left.astype(np.float64), right)
    return total


# -------------------------------------------------------------------------------------------- optimizer updates


def sgd_update(
    param: Array, grad: Array, velocity: Array | None, lr: float, momentum: float, nesterov: bool, decay: float
) -> None:
    """Step down the gradient; ``decay`` is the fraction of itself that the parameter first loses."""
    step = np.empty(min(param.size, _BLOCK), param.dtype)
    for part in _blocks(param.size):
        p, t = param[part], step[: part.stop - part.start]
        if decay:
            p -= np.multiply(p, decay, out=t)
        np.multiply(grad[part], lr, out=t)
        if velocity is None:
            p -= t
            continue
        v = velocity[part]
        v *= momentum
        v -= t
        if nesterov:
            p -= t
            p += np.multiply(v, momentum, out=t)
        else:
            p += v


def rmsprop_update(
    param: Array, grad: Array, square: Array, mean: Array | None, velocity: Array | None, lr: float, rho: float,
    momentum: float, eps: float, decay: float,
) -> None:  # fmt: skip
    """Step down the gradient over the root of its running mean square; ``mean`` makes it centred."""
    step, spare = (np.empty(min(param.size, _BLOCK), param.dtype) for _ in range(2))
    for part in _blocks(param.size):
        length = part.stop - part.start
        p, g, s, t, u = param[part], grad[part], square[part], step[:length], spare[:length]
        if decay:
            p -= np.multiply(p, decay, out=t)
        _follow(s, np.multiply(g, g, out=t), 1 - rho, t)
        if mean is None:
            np.add(s, eps, out=t)
        else:
            _follow(mean[part], g, 1 - rho, t)
            np.multiply(mean[part], mean[part], out=t)
            np.subtract(s, t, out=t)
            t += eps
        np.sqrt(t, out=t)
        np.multiply(g, lr, out=u)
        np.divide(u, t, out=t)
        if velocity is None:
            p -= t
        else:
            velocity[part] *= momentum
            velocity[part] += t
            p -= velocity[part]


def adam_update(
    param: Array, grad: Array, m: Array, v: Array, alpha: float, beta1: float, beta2: float, eps: float,
    decay: float, l2: float,
) -> None:  # fmt: skip
    """``param -= alpha * m / (sqrt(v) + eps)`` after ``decay`` of the parameter and ``l2 * param`` in the gradient."""
    step, gradient = (np.empty(min(param.size, _BLOCK), param.dtype) for _ in range(2))
    for part in _blocks(param.size):
        length = part.stop - part.start
        p, g, t = param[part], grad[part], step[:length]
        if decay:
            p -= np.multiply(p, decay, out=t)
        if l2:
            g = np.add(g, np.multiply(p, l2, out=t), out=gradient[:length])
        _follow(m[part], g, 1 - beta1, t)
        _follow(v[part], np.multiply(g, g, out=t), 1 - beta2, t)
        np.sqrt(v[part], out=t)
        t += eps
        np.divide(m[part], t, out=t)
        t *= alpha
        p -= t


def _follow(average: Array, value: Array, rate: float, spare: Array) -> None:
    """Move a running average towards a value; ``spare`` is overwritten and may be the value."""
    np.subtract(value, average, out=spare)
    spare *= rate
    average += spare
