"""Poolings composed above the backends: powers, adaptive, global, and unpooling."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import oracles
import pytest
from support import REASONS, function, pairs

import fastconv
from fastconv.testing import POOL_CASES, PoolCase, assert_close, tolerance, values

PLAIN = tuple(c for c in POOL_CASES if not c.dilated)


@pytest.mark.parametrize("norm", [1.0, 2.0, 3.5])
@pytest.mark.parametrize(("case", "backend"), pairs(PLAIN[::9]), indirect=["backend"])
def test_power(case: PoolCase, backend: str, norm: float) -> None:
    """(sum |x|^p)^(1/p), of what lies in the array."""
    x = values("normal", case.x_shape, case.dtype, case.name)
    y = function("lp_pool", case.rank)(x, norm, case.kernel, **case.keywords, backend=backend)
    expected = oracles.windows_avg_pool(case, x, norm)
    assert y.dtype == case.dtype
    # the sum's error, shrunk by the root, and a few roundings of powers and root
    allowed = tolerance(case.dtype, 4 * math.prod(case.kernel) + 16, expected)
    assert_close(y, expected, allowed, case.name)


@pytest.mark.parametrize("norm", [1.0, 2.0, 3.0])
def test_power_gradient(backend: str, norm: float) -> None:
    """Against finite differences: central, in float64."""
    case = PoolCase((6, 7), (3, 2), (2, 2), dtype="float64")
    x = np.abs(values("normal", case.x_shape, case.dtype, case.name)) + 0.5
    keywords = {**case.keywords, "backend": backend}
    dy = values("normal", oracles.windows_avg_pool(case, x).shape, "float64", "dy")
    dx = fastconv.lp_pool2d_backward(dy, x, norm, case.kernel, **keywords)
    direction = values("normal", x.shape, "float64", "direction")
    step = 2.0**-14

    def loss(at: float) -> float:
        return float((dy * fastconv.lp_pool2d(x + at * step * direction, norm, case.kernel, **keywords)).sum())

    slope = (loss(1) - loss(-1)) / (2 * step)
    size = np.array((abs(dy) * oracles.windows_avg_pool(case, x, norm)).sum())
    # rounding of the loss over the step, and the third derivative's share, of order step squared
    allowed = tolerance("float64", dy.size, size) / step + 100 * size * step**2
    assert_close(np.array((dx * direction).sum()), np.array(slope), allowed)


SIZES = [((7, 10), (3, 4)), ((5, 5), (5, 5)), ((4, 3), (6, 7)), ((9, 8), 1), ((13, 17), (5, 1)), ((11,), (4,))]
SIZES += [((4, 5, 6), (2, 3, 5))]


@pytest.mark.parametrize(("size", "output"), SIZES, ids=str)
def test_adaptive(backend: str, size: tuple[int, ...], output: Any) -> None:
    """PyTorch's windows: from floor(i*n/out) to ceil((i+1)*n/out), overlapping where they must."""
    oracles.needs_torch()
    torch = oracles.torch
    x = values("integers", (2, 3, *size), "float64", "adaptive")
    for kind in ("avg", "max"):
        tx = torch.from_numpy(x).requires_grad_()
        theirs = getattr(torch.nn.functional, f"adaptive_{kind}_pool{len(size)}d")(tx, output)
        y = function(f"adaptive_{kind}_pool", len(size))(x, output, backend=backend)
        magnitude = np.full(y.shape, 3.0)
        allowed = tolerance("float64", math.prod(size), magnitude, exact=kind == "max")
        assert_close(y, theirs.detach().numpy(), allowed, kind)
        dy = values("integers", y.shape, "float64", "dy")
        theirs.backward(torch.from_numpy(dy))
        dx = function(f"adaptive_{kind}_pool", len(size), "_backward")(dy, x, output, backend=backend)
        allowed = tolerance("float64", dy.size, np.full(x.shape, 3.0 * dy.size), exact=kind == "max")
        assert_close(dx, tx.grad.numpy(), allowed, f"gradient of {kind}")
    last = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    layout = {1: "NWC", 2: "NHWC", 3: "NDHWC"}[len(size)]
    y_last = function("adaptive_max_pool", len(size))(last, output, layout=layout, backend=backend)
    assert_close(np.moveaxis(y_last, -1, 1), function("adaptive_max_pool", len(size))(x, output, backend=backend))


def test_global(backend: str) -> None:
    x = values("integers", (2, 3, 5, 7), "float64", "global")
    assert_close(fastconv.global_max_pool(x, backend=backend), x.max(axis=(2, 3), keepdims=True))
    y = fastconv.global_avg_pool(x, keepdims=False, backend=backend)
    assert y.shape == (2, 3)
    assert_close(y, x.mean(axis=(2, 3)), tolerance("float64", 35, np.full(y.shape, 3.0)))


def test_unpool(backend: str) -> None:
    """Back to where the maxima were; zero elsewhere; the size that came in where it is named."""
    x = values("normal", (2, 3, 7, 9), "float32", "unpool")
    y, indices = fastconv.max_pool2d_with_indices(x, 2, backend=backend)
    back = fastconv.max_unpool2d(y, indices, 2, output_size=(7, 9), backend=backend)
    expected = np.zeros(x.shape, np.float32)
    np.put_along_axis(expected.reshape(2, 3, -1), indices.reshape(2, 3, -1), y.reshape(2, 3, -1), -1)
    assert_close(back, expected)
    even, places = fastconv.max_pool2d_with_indices(x[:, :, :6, :8], 2, backend=backend)
    assert fastconv.max_unpool2d(even, places, 2, backend=backend).shape == (2, 3, 6, 8)
    again = fastconv.max_pool2d(np.where(expected != 0, expected, -np.inf), 2, backend=backend)
    assert_close(again, y)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sizes", [(1, 1), (1, 13), (7, 7), (8, 8), (5, 13), (14, 14), (33, 31)])
def test_gradient_of_a_global_maximum(backend: str, sizes: tuple[int, int], dtype: str, layout: str) -> None:
    """One value of each plane: the first NaN, else the first of the greatest; NumPy's argmax is the same."""
    rng = np.random.default_rng(sizes[1])
    x = rng.integers(-3, 4, (3, 19, *sizes)).astype(dtype)
    x[0, 1] = -np.inf
    x[0, 2, -1, -1] = np.inf
    x[1, 3, sizes[0] // 2, sizes[1] // 2] = x[1, 3, -1, -1] = x[2, 4, -1, -1] = np.nan
    x[1, 5] = -7
    dy = rng.integers(1, 9, (3, 19, 1, 1)).astype(dtype)
    expected = np.zeros((3 * 19, sizes[0] * sizes[1]), dtype)
    expected[np.arange(3 * 19), x.reshape(expected.shape).argmax(1)] = dy.ravel()
    expected = expected.reshape(x.shape)
    if layout == "NHWC":
        x, dy, expected = (np.ascontiguousarray(np.moveaxis(a, 1, -1)) for a in (x, dy, expected))
    dx = fastconv.global_max_pool_backward(dy, x, layout=layout, backend=backend)
    np.testing.assert_array_equal(dx, expected)


@pytest.mark.parametrize(
    ("layout", "shape"), [("NCHW", (2, 70, 19, 33)), ("NHWC", (2, 19, 33, 70)), ("NHWC", (1, 40, 7, 300))]
)
def test_global_means_of_many_pixels(backend: str, layout: str, shape: tuple[int, ...]) -> None:
    x = values("integers", shape, "float32", "means")
    axes = (2, 3) if layout == "NCHW" else (1, 2)
    expected = x.mean(axis=axes, keepdims=True, dtype="float64")
    assert_close(fastconv.global_avg_pool(x, layout=layout, backend=backend), expected, 1e-6)
    assert_close(fastconv.global_max_pool(x, layout=layout, backend=backend), x.max(axis=axes, keepdims=True))
    assert_close(fastconv.adaptive_avg_pool2d(x, 1, layout=layout, backend=backend), expected, 1e-6)  # a kept call
    assert fastconv.adaptive_avg_pool2d(x, (1, shape[axes[1]]), layout=layout, backend=backend).size > expected.size


@pytest.mark.skipif(REASONS["cpp"] is not None, reason=f"backend cpp: {REASONS['cpp']}")
@pytest.mark.parametrize("seed", range(24))
def test_unequal_windows(seed: int) -> None:
    """Adaptive windows of unequal sizes, compiled: as axis by axis in NumPy, the same bits on any number of threads."""
    rng = np.random.default_rng(seed)
    rank = int(rng.integers(1, 4))
    size, out = rng.integers(3, 18, rank).tolist(), tuple(rng.integers(2, 11, rank).tolist())
    n, c = int(rng.integers(1, 3)), int(rng.choice([1, 3, 16, 37]))
    layout = (None, "NWC", "NHWC", "NDHWC")[rank] if seed % 2 else None
    dtype = np.dtype(("f4", "f8", "f2", "u1", "f4", "i8")[seed % 6])
    x = rng.integers(0, 5, (n, *size, c) if layout else (n, c, *size)).astype(dtype)
    if dtype.kind == "f":
        x[rng.random(x.shape) < 0.02] = rng.choice([np.nan, np.inf, -np.inf])
    for kind in ("max", "avg"):
        forward = getattr(fastconv, f"adaptive_{kind}_pool{rank}d")
        expected = forward(x, out, layout=layout, backend="numpy")
        dy = rng.integers(-8, 9, expected.shape).astype(np.float32)
        wide = 0 if kind == "max" else 1e-2 if dtype == np.float16 else 1e-5
        backward = getattr(fastconv, f"adaptive_{kind}_pool{rank}d_backward")
        rules = [{"ties": ties} for ties in ("first", "all", "split")] if kind == "max" else [{}]
        seen = []
        for threads in (1, 3):
            fastconv.set_num_threads(threads)
            found = [forward(x, out, layout=layout, backend="cpp")]
            assert found[0].dtype == expected.dtype
            np.testing.assert_allclose(found[0], expected, rtol=wide, atol=wide)
            for rule in rules:
                found.append(backward(dy, x, out, layout=layout, backend="cpp", **rule))
                gradient = backward(dy, x, out, layout=layout, backend="numpy", **rule)
                np.testing.assert_allclose(found[-1], gradient, rtol=1e-5, atol=1e-2 if dtype == np.float16 else 1e-4)
            seen.append([y.tobytes() for y in found])
        assert seen[0] == seen[1]
