"""Convolution: every case of the table on every backend and algorithm, against float64 oracles that share no code."""

from __future__ import annotations

import numpy as np
import oracles
import pytest
from support import algorithms, conv_tolerance, function, kernels, run_or_skip

import fastconv
from fastconv.testing import CONV_CASES, ConvCase, assert_close, conv_inputs, tolerance


@pytest.mark.parametrize(("case", "backend", "algorithm"), kernels(CONV_CASES), indirect=["backend"])
def test_integers(case: ConvCase, backend: str, algorithm: str) -> None:
    """Small integers: the right answer is exact, and every index error shows."""
    x, w, b = conv_inputs(case, "integers")
    y = run_or_skip(function("conv", case.rank), x, w, b, **case.keywords, backend=backend, algorithm=algorithm)
    expected, magnitude = oracles.conv(case, "integers")
    assert y.dtype == case.dtype
    allowed = conv_tolerance(case, backend, algorithm, "integers", magnitude)
    assert_close(y, expected, allowed, case.name)
    assert_close(np.rint(y), expected, 0, f"{case.name}, rounded")


@pytest.mark.parametrize(("case", "backend", "algorithm"), kernels(CONV_CASES[::2]), indirect=["backend"])
def test_random(case: ConvCase, backend: str, algorithm: str) -> None:
    x, w, b = conv_inputs(case, "normal")
    y = run_or_skip(function("conv", case.rank), x, w, b, **case.keywords, backend=backend, algorithm=algorithm)
    expected, magnitude = oracles.conv(case, "normal")
    assert_close(y, expected, conv_tolerance(case, backend, algorithm, "normal", magnitude), case.name)


def test_by_hand(backend: str) -> None:
    """Worked on paper: cross-correlation, the kernel is not flipped."""
    x = np.arange(1.0, 10.0).reshape(1, 1, 3, 3)
    w = np.array([[[[1.0, 2.0], [3.0, 4.0]]]])
    y = fastconv.conv2d(x, w, np.array([0.5]), backend=backend)
    assert y.tolist() == [[[[37.5, 47.5], [67.5, 77.5]]]]
    y = fastconv.conv2d(x, w, padding=((1, 0), (0, 1)), stride=2, backend=backend)
    assert y.tolist() == [[[[11.0, 9.0], [67.0, 33.0]]]]
    y = fastconv.conv1d(np.array([[[1.0, 2.0, 4.0, 8.0]]]), np.array([[[1.0, -1.0]]]), dilation=2, backend=backend)
    assert y.tolist() == [[[-3.0, -6.0]]]


def test_the_course_net(backend: str) -> None:
    """The first layer of a teaching net: 7x7 on 64x64x3 after padding 3, and 4x4 "same"."""
    rng = np.random.default_rng(1)
    x = rng.integers(-3, 4, (1, 64, 64, 3)).astype(np.float32)
    w = rng.integers(-3, 4, (7, 7, 3, 4)).astype(np.float32)
    padded = fastconv.pad(x, ((0, 0), (3, 3), (3, 3), (0, 0)), backend=backend)
    y = fastconv.conv2d(padded, w, layout="NHWC", backend=backend)
    case = ConvCase((64, 64), (7, 7), c=3, k=4, n=1, padding=3, channels_last=True)
    assert_close(np.rint(y), oracles.taps_conv(case, x, w, None))
    w = rng.integers(-3, 4, (4, 4, 3, 8)).astype(np.float32)
    y = fastconv.conv2d(x, w, padding="same", layout="NHWC", backend=backend)
    assert y.shape == (1, 64, 64, 8)
    case = ConvCase((64, 64), (4, 4), c=3, k=8, n=1, padding=((1, 2), (1, 2)), channels_last=True)
    assert_close(np.rint(y), oracles.taps_conv(case, x, w, None))


@pytest.mark.parametrize("mode", ["valid", "full", "same"])
def test_scipy(backend: str, mode: str) -> None:
    signal = pytest.importorskip("scipy.signal")
    rng = np.random.default_rng(2)
    x, w = rng.integers(-9, 10, (11, 14)).astype(float), rng.integers(-9, 10, (3, 5)).astype(float)
    y = fastconv.conv2d(x[None], w[None, None], padding=mode, backend=backend)[0]
    assert_close(y, signal.correlate(x, w, mode=mode, method="direct"))
    y = fastconv.conv1d(x[:1], w[:1, None], padding=mode, backend=backend)[0]
    assert_close(y, signal.correlate(x[0], w[0], mode=mode, method="direct"))
    x3, w3 = rng.integers(-9, 10, (5, 6, 7)).astype(float), rng.integers(-9, 10, (3, 3, 3)).astype(float)
    y = fastconv.conv3d(x3[None], w3[None, None], padding=mode, backend=backend)[0]
    assert_close(y, signal.correlate(x3, w3, mode=mode, method="direct"))


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "symmetric", "wrap"])
def test_scipy_borders(backend: str, mode: str) -> None:
    """SciPy's filters pad too, under other names."""
    ndimage = pytest.importorskip("scipy.ndimage")
    theirs = {"edge": "nearest", "reflect": "mirror", "symmetric": "reflect"}.get(mode, mode)
    rng = np.random.default_rng(3)
    x, w = rng.integers(-9, 10, (8, 9)).astype(float), rng.integers(-9, 10, (5, 3)).astype(float)
    y = fastconv.conv2d(x[None], w[None, None], padding="same", padding_mode=mode, backend=backend)[0]
    assert_close(y, ndimage.correlate(x, w, mode=theirs))


ACTIVATIONS = ("relu", "relu6", "leaky_relu", "sigmoid", "tanh", "silu", "gelu", "hard_swish")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activation(backend: str, activation: str, dtype: str) -> None:
    """A fused activation is PyTorch's, and what the public function makes of the plain result."""
    oracles.needs_torch()
    torch = oracles.torch
    rng = np.random.default_rng(4)
    x, w = rng.standard_normal((2, 3, 9, 17)).astype(dtype), rng.standard_normal((5, 3, 3, 3)).astype(dtype)
    b = rng.standard_normal(5).astype(dtype)
    y = fastconv.conv2d(x, w, b, padding=1, activation=activation, backend=backend)
    case = ConvCase((9, 17), (3, 3), k=5, padding=1)
    plain = oracles.taps_conv(case, x, w, b)
    name = "hardswish" if activation == "hard_swish" else activation
    expected = getattr(torch.nn.functional, name)(torch.from_numpy(plain)).numpy()
    magnitude = oracles.taps_conv(case, abs(x), abs(w), abs(b))
    # no slope above 1.5 anywhere in the list; a few roundings of the activation itself
    allowed = 1.5 * tolerance(dtype, 28, magnitude) + tolerance(dtype, 8, np.maximum(1, abs(plain)))
    assert_close(y, expected, allowed, activation)


def test_activation_of_large_values(backend: str) -> None:
    """Far out nothing overflows into NaN."""
    x = np.array([[[-1e30, -1000.0, -100.0, 0.0, 100.0, 1000.0, 1e30]]], np.float32)
    w = np.ones((1, 1, 1), np.float32)
    expected = {
        "relu": np.maximum(x, 0), "relu6": np.clip(x, 0, 6), "sigmoid": [[[0, 0, 0, 0.5, 1, 1, 1]]],
        "tanh": [[[-1, -1, -1, 0, 1, 1, 1]]], "silu": np.maximum(x, 0), "gelu": np.maximum(x, 0),
        "hard_swish": np.maximum(x, 0),
    }  # fmt: skip
    for activation, values in expected.items():
        y = fastconv.conv1d(x, w, activation=activation, backend=backend)
        assert_close(y, np.asarray(values, np.float64), tolerance("float32", 4, abs(np.asarray(values)) + 1e-9))


def test_large_numbers_keep_their_digits(backend: str) -> None:
    """Mean 1000, deviation 1; alternating signs; equal terms: within the promise, which is relative to |x|*|w|."""
    rng = np.random.default_rng(5)
    case = ConvCase((8, 9), (3, 3), c=130, k=3, n=1, padding=1)
    grid = np.indices(case.x_shape).sum(axis=0)
    for x in (1e3 + rng.standard_normal(case.x_shape), np.where(grid % 2, -1.0, 1.0), np.full(case.x_shape, 0.1)):
        x = x.astype(np.float32)
        w = np.full(case.weight_shape, 0.3, np.float32)
        y = fastconv.conv2d(x, w, padding=1, backend=backend, algorithm="direct")
        magnitude = oracles.taps_conv(case, abs(x), abs(w), None)
        allowed = conv_tolerance(case, backend, "direct", "adversarial", magnitude)
        assert_close(y, oracles.taps_conv(case, x, w, None), allowed)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_one_large_value_among_ones(backend: str, layout: str) -> None:
    """Direct forms err by what their own window holds; those with tiles by what the tile's neighbourhood holds."""
    case = ConvCase((24, 25), (3, 3), c=16, k=16, n=1, padding=1, channels_last=layout == "NHWC")
    x, w = np.ones(case.x_shape, np.float32), conv_inputs(case, "normal")[1]
    x[(0, 9, 11, 3) if case.channels_last else (0, 3, 9, 11)] = 1e30
    expected, magnitude = oracles.taps_conv(case, x, w, None), oracles.taps_conv(case, abs(x), abs(w), None)
    for algorithm in algorithms(backend):
        try:
            y = fastconv.conv2d(x, w, **case.keywords, backend=backend, algorithm=algorithm)
        except fastconv.GeometryError:
            continue  # an algorithm that cannot do this case
        assert_close(y, expected, conv_tolerance(case, backend, algorithm, "adversarial", magnitude), algorithm)


def test_many_channels(backend: str) -> None:
    """4096 of them, all terms alike: chains of additions are bounded or the promise says that they are not."""
    case = ConvCase((2, 3), (1, 1), c=4096, k=3, n=1)
    x, w = np.full(case.x_shape, 0.1, np.float32), np.full(case.weight_shape, 0.3, np.float32)
    expected = oracles.taps_conv(case, x, w, None)
    for algorithm in algorithms(backend):
        try:
            y = fastconv.conv2d(x, w, backend=backend, algorithm=algorithm)
        except fastconv.GeometryError:
            continue  # an algorithm that cannot do this case
        assert_close(y, expected, conv_tolerance(case, backend, algorithm, "adversarial", expected), algorithm)
