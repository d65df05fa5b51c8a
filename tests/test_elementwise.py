"""Activations, their gradients, and optimizer updates: against PyTorch where it is installed, and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

import fastconv
from fastconv.backends.protocol import ACTIVATIONS

BACKENDS = [b.name for b in fastconv.list_backends() if b.available]
TORCH_NAMES = {"hard_swish": "hardswish", "sigmoid": "sigmoid", "tanh": "tanh"}
EPS = {np.float32: 2.0**-23, np.float64: 2.0**-52}


def spread(dtype):
    """Values near the bends, far out, and random ones; longer than one block of the composed kernels."""
    rng = np.random.default_rng(7)
    bends = [-40, -6, -3, -1e-3, -0.0, 0.0, 1e-3, 0.46875, 3, 4, 6, 40]
    return np.concatenate([bends, rng.normal(0, 4, 40_000)]).astype(dtype)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_and_gradient_against_torch(name, dtype, backend):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle here and is not installed")
    x = spread(dtype)
    dy = np.random.default_rng(8).normal(size=x.shape).astype(dtype)
    t = torch.tensor(x.astype(np.float64), requires_grad=True)
    y = getattr(torch.nn.functional, TORCH_NAMES.get(name, name))(t)
    y.backward(torch.tensor(dy.astype(np.float64)))
    bound = 16 * EPS[dtype] * (1 + np.abs(x.astype(np.float64)))
    assert (np.abs(fastconv.activate(x, name, backend=backend) - y.detach().numpy()) <= bound).all()
    dx = fastconv.activation_backward(dy, x, name, backend=backend)
    # where x is within rounding of a bend of the derivative, float32 sees the same x: no slack is needed there
    assert (np.abs(dx - t.grad.numpy()) <= bound * (1 + np.abs(dy))).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_large_values_stay_finite_and_warn_nothing(name, backend):
    x = np.array([-1e30, -1e4, 1e4, 1e30], np.float32)
    y = fastconv.activate(x, name, backend=backend)
    dx = fastconv.activation_backward(np.ones_like(x), x, name, backend=backend)
    assert np.isfinite(y).all()
    assert np.isfinite(dx).all()
    assert np.isnan(fastconv.activate(np.float32([np.nan]), name, backend=backend)).all()


def test_gelu_keeps_its_digits_far_below_zero():
    # x * Phi(x) by erfc has no cancellation: relative accuracy at -10, where 1 + erf has none left
    x = np.array([-10.0, -5.0, 0.3])
    exact = [0.5 * v * math.erfc(-v / math.sqrt(2)) for v in x]
    np.testing.assert_allclose(fastconv.activate(x, "gelu", backend="reference"), exact, rtol=1e-12)


def test_in_place_strided_and_other_dtypes():
    x = np.arange(-4.0, 4.0)
    assert fastconv.activate(x, "relu", out=x) is x
    assert x.tolist() == [0, 0, 0, 0, 0, 1, 2, 3]
    grid = np.zeros((4, 6))
    fastconv.activate(np.full((2, 3), -1.0), "leaky_relu", out=grid[::2, ::2])
    assert grid[0, 0] == -0.01
    assert grid[1].any() == np.False_
    assert fastconv.activate(np.uint8([3, 9]), "relu6").dtype == np.float32
    assert fastconv.activate(np.float16([3, 9]), "relu6").dtype == np.float16
    assert fastconv.activate(np.arange(3.0)[::-1].astype(">f8"), "relu").tolist() == [2, 1, 0]
    assert fastconv.activate(5.0, "relu").shape == ()
    assert fastconv.activate(np.zeros((0, 3)), "gelu").shape == (0, 3)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("activation", [None, "relu", "relu6", "gelu"])
def test_a_sum_first(activation, backend):
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(3, 70001)), rng.normal(size=(3, 70001))
    for dtype in (np.float32, np.float64, np.float16, np.int8):
        a, b = (10 * x).astype(dtype), (10 * y).astype(dtype)
        wide = np.float32 if dtype == np.float16 else np.result_type(dtype, np.float32)
        wanted = fastconv.activate(a.astype(wide) + b, activation, backend=backend)
        got = fastconv.activate(a, activation, add=b, backend=backend)
        assert got.dtype == np.result_type(dtype, np.float16 if dtype == np.float16 else np.float32)
        assert np.array_equal(got, wanted.astype(got.dtype))
    wanted = fastconv.activate(x, activation, add=y, backend=backend)
    for given in ((x.copy(), y), (x, y.copy())):
        for into in given:
            if into is not x and into is not y:
                assert fastconv.activate(given[0], activation, add=given[1], out=into, backend=backend) is into
                assert np.array_equal(into, wanted)
    turned = fastconv.activate(x[:, ::-1], activation, add=np.asfortranarray(y[:, ::-1]), backend=backend)
    assert np.array_equal(turned, wanted[:, ::-1])
    with pytest.raises(fastconv.GeometryError, match="add must have the shape of x"):
        fastconv.activate(x, activation, add=y[0], backend=backend)


def test_errors_name_what_came():
    with pytest.raises(fastconv.UnknownNameError, match="activate: activation must be None or one of relu"):
        fastconv.activate([1.0], "swish")
    with pytest.raises(fastconv.GeometryError, match=r"grad_output must have shape \(2,\), received \(3,\)"):
        fastconv.activation_backward(np.ones(3), np.ones(2), "relu")
    x = np.ones(4)
    with pytest.raises(ValueError, match="shares memory"):
        fastconv.activate(x[1:], "relu", out=x[:-1])
    with pytest.raises(fastconv.GeometryError, match=r"momentum=0\.9 needs a velocity"):
        fastconv.sgd_update(x, x.copy(), lr=0.1, momentum=0.9)
    with pytest.raises(fastconv.GeometryError, match="step must be at least 1"):
        fastconv.adam_update(x, x.copy(), x.copy(), x.copy(), step=0)
    with pytest.raises(fastconv.DTypeError, match="param must be a floating NumPy array, received list"):
        fastconv.sgd_update([1.0], [1.0], lr=0.1)
    with pytest.raises(fastconv.GeometryError, match=r"m must have shape \(4,\)"):
        fastconv.adam_update(x, x.copy(), np.zeros(3), np.zeros(4), step=1)


# -------------------------------------------------------------------------------------------- optimizer updates

SIZE = 40_000  # more than one block


def states(count, dtype=np.float64):
    rng = np.random.default_rng(3)
    return rng.normal(size=SIZE).astype(dtype), [np.zeros(SIZE, dtype) for _ in range(count)], rng


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_is_the_formula(momentum, nesterov, backend):
    param, (velocity,), rng = states(1)
    p, v = param.copy(), velocity.copy()
    for _ in range(3):
        g = rng.normal(size=SIZE)
        fastconv.sgd_update(
            param, g, velocity if momentum else None, lr=0.1, momentum=momentum, nesterov=nesterov, weight_decay=0.01,
            backend=backend,
        )  # fmt: skip
        p = p - p * 0.01 * 0.1
        v = momentum * v - 0.1 * g
        p = p + (momentum * v - 0.1 * g if nesterov and momentum else v)
    np.testing.assert_allclose(param, p, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_rmsprop_is_the_formula(momentum, centred, backend):
    param, (square, mean, velocity), rng = states(3)
    p, s, m, v = param.copy(), 0.0, 0.0, 0.0
    for _ in range(3):
        g = rng.normal(size=SIZE)
        fastconv.rmsprop_update(
            param, g, square, lr=0.1, rho=0.8, momentum=momentum, eps=1e-3, mean=mean if centred else None,
            velocity=velocity if momentum else None, backend=backend,
        )  # fmt: skip
        s = 0.8 * s + 0.2 * g * g
        m = 0.8 * m + 0.2 * g if centred else 0.0
        v = momentum * v + 0.1 * g / np.sqrt(s - m * m + 1e-3)
        p = p - v
    np.testing.assert_allclose(param, p, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("decay", "decoupled"), [(0.0, False), (0.1, False), (0.1, True)])
def test_adam_is_the_formula(decay, decoupled, backend):
    param, (m, v), rng = states(2)
    p, a, b = param.copy(), 0.0, 0.0
    for step in (1, 2, 3):
        g = rng.normal(size=SIZE)
        fastconv.adam_update(
            param, g, m, v, step=step, lr=0.01, weight_decay=decay, decoupled=decoupled, backend=backend
        )
        p, g = (p - p * 0.01 * decay, g) if decoupled else (p, g + decay * p)
        a = a + (g - a) * 0.1
        b = b + (g * g - b) * 0.001
        p = p - 0.01 * math.sqrt(1 - 0.999**step) / (1 - 0.9**step) * a / (np.sqrt(b) + 1e-7)
    np.testing.assert_allclose(param, p, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("backend", BACKENDS)
def test_updates_reach_strided_and_float16_parameters(backend):
    rows = np.ones((4, 4), np.float32)
    fastconv.sgd_update(rows[:, ::2], np.ones((4, 2)), lr=0.5, backend=backend)
    assert rows.tolist() == [[0.5, 1, 0.5, 1]] * 4
    half = np.ones(3, np.float16)
    fastconv.sgd_update(half, np.ones(3), lr=0.25, backend=backend)
    assert half.tolist() == [0.75] * 3
