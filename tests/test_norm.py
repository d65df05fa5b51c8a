"""Batch normalisation: against PyTorch where it is installed, by hand, and by its own identities."""

from __future__ import annotations

import numpy as np
import pytest

import fastconv

BACKENDS = [b.name for b in fastconv.list_backends() if b.available]
SHAPES = {"dense": (9, 5), "sequence": (3, 4, 7), "image": (2, 3, 5, 6), "volume": (2, 3, 2, 3, 4)}
LAST = {3: "NWC", 4: "NHWC", 5: "NDHWC"}


def case(shape, seed=0):
    rng = np.random.default_rng(seed)
    c = shape[1]
    return rng.normal(3, 2, shape), rng.normal(size=c), rng.normal(size=c), rng.normal(size=shape)


def torch_reference(x, weight, bias, dy, activation, eps):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle here and is not installed")
    tensors = [torch.tensor(v, requires_grad=True) for v in (x, weight, bias)]
    y = torch.nn.functional.batch_norm(tensors[0], None, None, tensors[1], tensors[2], True, 0.1, eps)
    y = getattr(torch.nn.functional, activation)(y) if activation else y
    y.backward(torch.tensor(dy))
    return y.detach().numpy(), [t.grad.numpy() for t in tensors]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("activation", [None, "relu", "gelu", "leaky_relu"])
@pytest.mark.parametrize("name", SHAPES)
def test_training_and_gradients_against_torch(name, activation, backend):
    x, weight, bias, dy = case(SHAPES[name])
    wanted, grads = torch_reference(x, weight, bias, dy, activation, 1e-3)
    for last in (False, True):
        layout = LAST.get(x.ndim) if last else None
        turn = (lambda a: np.moveaxis(a, 1, -1)) if layout else (lambda a: a)
        more = {"eps": 1e-3, "layout": layout, "activation": activation, "backend": backend}
        y, mean, var = fastconv.batch_norm_train(turn(x), weight, bias, **more)
        np.testing.assert_allclose(y, turn(wanted), rtol=1e-12, atol=1e-12)
        axes = tuple(a for a in range(x.ndim) if a != 1)
        np.testing.assert_allclose(mean, x.mean(axes), rtol=1e-13)
        np.testing.assert_allclose(var, x.var(axes), rtol=1e-13)
        got = fastconv.batch_norm_backward(turn(dy), turn(x), weight, bias, mean, var, **more)
        for a, b in zip(got, (turn(grads[0]), *grads[1:]), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11)
        used = fastconv.batch_norm(turn(x), weight, bias, mean, var, **more)
        np.testing.assert_allclose(used, y, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("activation", [None, "relu", "silu"])
@pytest.mark.parametrize("layout", [None, "NHWC"])
def test_a_sum_before_the_activation(layout, activation, backend):
    rng = np.random.default_rng(8)
    for dtype, bound in ((np.float32, 2e-6), (np.float64, 1e-13)):
        x, add = (rng.normal(size=(3, 5, 7, 11)).astype(dtype) for _ in range(2))
        channels = x.shape[1 if layout is None else 3]
        weight, bias = rng.normal(size=channels), rng.normal(size=channels)
        more = {"layout": layout, "backend": backend}
        y, mean, var = fastconv.batch_norm_train(x, weight, bias, activation=activation, add=add[::-1], **more)
        plain, m, v = fastconv.batch_norm_train(x, weight, bias, **more)
        assert np.array_equal(mean, m)
        assert np.array_equal(var, v)
        wanted = fastconv.activate(plain.astype(np.float64) + add[::-1], activation, backend="reference")
        assert y.dtype == dtype
        assert np.abs(y - wanted).max() < bound * 8
    with pytest.raises(fastconv.GeometryError, match="add must have the shape of x"):
        fastconv.batch_norm_train(x, None, None, add=add[:1], **more)
    with pytest.raises(ValueError, match="shares memory"):
        fastconv.batch_norm_train(x, None, None, add=add, out=add, **more)


@pytest.mark.parametrize("layout", [None, "NWC"])
def test_statistics_of_values_far_apart(layout):
    """The statistics are summed about one of the values, which may lie far from all others."""
    rng = np.random.default_rng(9)
    x = rng.normal(size=(64, 3, 97)).astype(np.float32)
    x[0, :, 0] = 1e6, -1e30, 0
    x[:, 2] = 7.25  # no variance at all
    given = x if layout is None else np.ascontiguousarray(np.moveaxis(x, 1, -1))
    _, mean, var = fastconv.batch_norm_train(given, None, None, layout=layout)
    wide = x.astype(np.longdouble)
    np.testing.assert_allclose(mean[:2], wide.mean((0, 2))[:2].astype(float), rtol=1e-6)
    np.testing.assert_allclose(var[0], float(wide[:, 0].var()), rtol=1e-6)
    assert (mean[2], var[2]) == (7.25, 0)
    assert np.isinf(var[1])
    given = given.astype(np.float64)
    _, mean, var = fastconv.batch_norm_train(given, None, None, layout=layout)
    np.testing.assert_allclose(var, wide.var((0, 2)).astype(float), rtol=1e-11)
    given[3] = np.nan
    assert np.isnan(fastconv.batch_norm_train(given, None, None, layout=layout)[2]).all()


@pytest.mark.parametrize("layout", [None, "NWC"])
@pytest.mark.parametrize("shape", [(3, 5, 1), (7, 37, 129), (40, 16, 1000)])
def test_sums_of_floats_are_as_exact_as_of_doubles(shape, layout):
    """Chains of float32 are short: statistics and sums of gradients are right to the last digits."""
    rng = np.random.default_rng(21)
    x = (rng.normal(size=shape) * 3 + rng.normal(size=(1, shape[1], 1)) * 100).astype(np.float32)
    x[0, :, 0] += 3e4  # far from the mean, and among the values that the first pivot is made of
    dy = rng.normal(size=shape).astype(np.float32)
    turn = (lambda a: a) if layout is None else (lambda a: np.moveaxis(a, 1, -1))
    _, mean, var = fastconv.batch_norm_train(turn(x), None, None, layout=layout)
    wide = x.astype(np.float64)
    assert (np.abs(mean - wide.mean((0, 2))) <= 1e-7 * (np.abs(mean) + wide.std((0, 2)))).all()
    np.testing.assert_allclose(var, wide.var((0, 2)), rtol=2e-6)
    ones = np.ones(shape[1], np.float32)
    grads = fastconv.batch_norm_backward(turn(dy), turn(x), ones, ones * 0, mean, var, eps=1e-3, layout=layout)
    hat = (wide - mean[:, None]) / np.sqrt(var.astype(np.float64)[:, None] + 1e-3)
    for got, terms in ((grads.weight, dy * hat), (grads.bias, dy.astype(np.float64))):
        assert (np.abs(got - terms.sum((0, 2))) <= 2e-6 * np.abs(terms).sum((0, 2))).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_by_hand(backend):
    x = np.array([[[1.0, 3.0]], [[5.0, 7.0]]])  # mean 4, variance 5
    y, mean, var = fastconv.batch_norm_train(x, [2.0], [1.0], eps=4.0, backend=backend)
    assert mean.tolist() == [4.0]
    assert var.tolist() == [5.0]
    np.testing.assert_allclose(y.ravel(), np.array([-3, -1, 1, 3]) * 2 / 3 + 1, rtol=1e-15)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("layout", [None, "NWC"])
def test_a_large_mean_costs_no_digits(layout, backend):
    x = (np.random.default_rng(5).normal(size=(64, 3, 50)) + 1e4).astype(np.float32)
    given = x if layout is None else np.moveaxis(x, 1, -1)
    y, _, var = fastconv.batch_norm_train(given, None, None, eps=0.0, layout=layout, backend=backend)
    y = y if layout is None else np.moveaxis(y, -1, 1)
    wide = x.astype(np.float64)
    exact = (wide - wide.mean((0, 2), keepdims=True)) / wide.std((0, 2), keepdims=True)
    assert np.abs(y - exact).max() < 2e-6
    np.testing.assert_allclose(var, wide.var((0, 2)), rtol=1e-6)


def test_dtypes_none_parameters_and_out():
    x = np.random.default_rng(1).normal(size=(4, 3, 5, 5)).astype(np.float16)
    y, mean, var = fastconv.batch_norm_train(x, None, None)
    assert (y.dtype, mean.dtype, var.dtype) == (np.float16, np.float32, np.float32)
    grads = fastconv.batch_norm_backward(np.ones_like(x), x, None, None, mean, var)
    assert grads.weight is None
    assert grads.bias is None
    assert fastconv.batch_norm(np.uint8([[1], [2]]), None, None, [0], [1]).dtype == np.float32
    wide = np.zeros((8, 3, 5, 5), np.float32)
    out = fastconv.batch_norm(x.astype(np.float32), None, None, mean, var, out=wide[::2])
    assert out.base is wide
    np.testing.assert_allclose(out, y, atol=2e-3)
    empty = fastconv.batch_norm(np.zeros((0, 3, 5)), None, None, np.zeros(3), np.ones(3))
    assert empty.shape == (0, 3, 5)


def test_folding_gives_the_same_function():
    rng = np.random.default_rng(2)
    x, bias = rng.normal(size=(2, 4, 6, 6)), rng.normal(size=6)
    gamma, beta, mean, var = rng.normal(size=6), rng.normal(size=6), rng.normal(size=6), rng.uniform(0.5, 2, 6)
    for layout in (None, "NHWC"):
        turn = (lambda a: np.moveaxis(a, 1, -1)) if layout else (lambda a: a)
        weight = rng.normal(size=(3, 3, 4, 6) if layout else (6, 4, 3, 3))
        plain = fastconv.conv2d(turn(x), weight, bias, layout=layout)
        wanted = fastconv.batch_norm(plain, gamma, beta, mean, var, layout=layout)
        folded, shift = fastconv.fold_batch_norm(weight, bias, gamma, beta, mean, var, layout=layout)
        np.testing.assert_allclose(
            fastconv.conv2d(turn(x), folded, shift, layout=layout), wanted, rtol=1e-11, atol=1e-11
        )


def test_errors_name_what_came():
    with pytest.raises(fastconv.GeometryError, match=r"weight must have shape \(3,\), received \(2,\)"):
        fastconv.batch_norm_train(np.ones((2, 3)), np.ones(2), None)
    with pytest.raises(fastconv.GeometryError, match="no elements to take a mean of"):
        fastconv.batch_norm_train(np.ones((0, 3)), None, None)
    with pytest.raises(fastconv.UnknownNameError, match="layout must be one of"):
        fastconv.batch_norm(np.ones((2, 3)), None, None, np.zeros(3), np.ones(3), layout="CHWN")
    with pytest.raises(fastconv.GeometryError, match="at least 2 axes"):
        fastconv.batch_norm_train(np.ones(3), None, None)
    with pytest.raises(fastconv.DTypeError, match="complex128"):
        fastconv.batch_norm_train(np.ones((2, 3), complex), None, None)
