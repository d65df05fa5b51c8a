"""Pooling: every case on every backend; windows worked out one by one, PyTorch and ONNX where they offer it."""

from __future__ import annotations

import math

import numpy as np
import oracles
import pytest
from support import REASONS, function, pairs

import fastconv
from fastconv.testing import POOL_CASES, PoolCase, assert_close, tolerance, values

PLAIN = tuple(c for c in POOL_CASES if not c.dilated)
DISTINCT = POOL_CASES[::3]  # channels first, float32


def _x(case: PoolCase, kind: str) -> np.ndarray:
    return values(kind, case.x_shape, case.dtype, case.name)


@pytest.mark.parametrize("kind", ["integers", "normal"])
@pytest.mark.parametrize(("case", "backend"), pairs(POOL_CASES), indirect=["backend"])
def test_max(case: PoolCase, backend: str, kind: str) -> None:
    """No tolerance; with integers there are ties, and the first index wins."""
    x = _x(case, kind)
    expected, places = oracles.windows_max_pool(case, x)
    y = function("max_pool", case.rank)(x, case.kernel, **case.max_keywords, backend=backend)
    assert y.dtype == x.dtype
    assert_close(y, expected, 0, case.name)
    y, indices = function("max_pool", case.rank, "_with_indices")(x, case.kernel, **case.max_keywords, backend=backend)
    assert indices.dtype == np.int64
    assert_close(y, expected, 0, case.name)
    assert_close(indices, places, 0, f"indices of {case.name}")


@pytest.mark.parametrize("ties", ["first", "all", "split"])
@pytest.mark.parametrize(("case", "backend"), pairs(POOL_CASES), indirect=["backend"])
def test_max_gradient(case: PoolCase, backend: str, ties: str) -> None:
    x = _x(case, "integers")
    shape = oracles.windows_max_pool(case, x)[0].shape
    dy = values("integers", shape, case.dtype, "dy")
    expected = oracles.windows_max_pool_backward(case, x, dy, ties)
    backward = function("max_pool", case.rank, "_backward")
    dx = backward(dy, x, case.kernel, **case.max_keywords, ties=ties, backend=backend)
    assert dx.dtype == case.dtype
    terms = math.prod(case.kernel)
    allowed = tolerance(case.dtype, terms, np.full(expected.shape, 3.0 * terms), exact=ties != "split")
    assert_close(dx, expected, allowed, case.name)


@pytest.mark.parametrize("kind", ["integers", "normal"])
@pytest.mark.parametrize(("case", "backend"), pairs(PLAIN), indirect=["backend"])
def test_average(case: PoolCase, backend: str, kind: str) -> None:
    x = _x(case, kind)
    y = function("avg_pool", case.rank)(x, case.kernel, **case.avg_keywords, backend=backend)
    assert y.dtype == case.dtype
    magnitude = oracles.windows_avg_pool(case, abs(x))
    allowed = tolerance(case.dtype, math.prod(case.kernel), magnitude, random=kind == "normal")
    assert_close(y, oracles.windows_avg_pool(case, x), allowed, case.name)


@pytest.mark.parametrize(("case", "backend"), pairs(PLAIN), indirect=["backend"])
def test_average_gradient(case: PoolCase, backend: str) -> None:
    x = _x(case, "normal")
    dy = values("normal", oracles.windows_avg_pool(case, x).shape, case.dtype, "dy")
    backward = function("avg_pool", case.rank, "_backward")
    dx = backward(dy, x, case.kernel, **case.avg_keywords, backend=backend)
    assert dx.dtype == case.dtype
    magnitude = oracles.windows_avg_pool_backward(case, abs(dy))
    allowed = tolerance(case.dtype, math.prod(case.kernel), magnitude)
    assert_close(dx, oracles.windows_avg_pool_backward(case, dy), allowed, case.name)


def test_torch(backend: str) -> None:
    """What PyTorch offers: padding up to half the window, the same on both sides."""
    oracles.needs_torch()
    torch = oracles.torch
    tried = 0
    for case in DISTINCT:
        around = oracles.case_pads(case)
        if any(lo != hi or 2 * lo > k for (lo, hi), k in zip(around, case.kernel, strict=True)):
            continue
        x = _x(case, "integers")
        keywords = {"stride": case.strides, "padding": tuple(lo for lo, _ in around), "ceil_mode": case.ceil_mode}
        theirs = getattr(torch.nn.functional, f"max_pool{case.rank}d")(
            torch.from_numpy(x), case.kernel, **keywords, dilation=case.dilations, return_indices=True
        )
        with_indices = function("max_pool", case.rank, "_with_indices")
        ours = with_indices(x, case.kernel, **case.max_keywords, backend=backend)
        assert_close(ours[0], theirs[0].numpy(), 0, case.name)
        assert_close(ours[1], theirs[1].numpy(), 0, case.name)
        if not case.dilated:
            x = x.astype(np.float64)
            theirs = getattr(torch.nn.functional, f"avg_pool{case.rank}d")(
                torch.from_numpy(x), case.kernel, **keywords, count_include_pad=case.count_include_pad
            )
            y = function("avg_pool", case.rank)(x, case.kernel, **case.avg_keywords, backend=backend)
            allowed = tolerance("float64", math.prod(case.kernel), oracles.windows_avg_pool(case, abs(x)))
            assert_close(y, theirs.numpy(), allowed, case.name)
        tried += 1
    assert tried > 20


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nan(backend: str, layout: str, dtype: str) -> None:
    """The first NaN of a window is its maximum; every other window is as if there were none."""
    case = PoolCase((9, 12), (3, 3), (2, 2), 1, channels_last=layout == "NHWC", dtype=dtype)
    x = _x(case, "integers")
    flat = x.reshape(-1)
    flat[[5, 17, 18, 19, 100, 301]] = np.nan
    flat[[3, 44]] = np.inf, -np.inf
    expected, places = oracles.windows_max_pool(case, x)
    y, indices = fastconv.max_pool2d_with_indices(x, case.kernel, **case.max_keywords, backend=backend)
    assert np.isnan(y).any()
    assert_close(y, expected)
    assert_close(indices, places)
    dy = values("integers", y.shape, dtype, "dy")
    for ties in ("first", "all", "split"):
        dx = fastconv.max_pool2d_backward(dy, x, case.kernel, **case.max_keywords, ties=ties, backend=backend)
        allowed = tolerance(dtype, 9, np.full(x.shape, 27.0), exact=ties != "split")
        assert_close(dx, oracles.windows_max_pool_backward(case, x, dy, ties), allowed, ties)
    y = fastconv.avg_pool2d(x, case.kernel, **case.avg_keywords, backend=backend)
    with np.errstate(invalid="ignore"):
        expected = oracles.windows_avg_pool(case, x)
    assert_close(y, expected, tolerance(dtype, 9, np.full(y.shape, 3.0)))


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "int32", "int64", "uint64", "float16", "bool"])
def test_dtypes_of_maxima(backend: str, dtype: str) -> None:
    """Any real dtype comes out as it went in, its extremes too; an average is a float."""
    x = values("integers", (2, 3, 7, 8), dtype, "dtypes")
    if x.dtype.kind in "iu":
        x.reshape(-1)[[7, 50]] = np.iinfo(dtype).max, np.iinfo(dtype).min
        x.reshape(-1)[[8, 51]] = np.iinfo(dtype).max - 1, np.iinfo(dtype).min + 1
    y, indices = fastconv.max_pool2d_with_indices(x, 3, stride=2, padding=1, backend=backend)
    assert y.dtype == dtype
    windows = [(max(0, 2 * i - 1), max(0, 2 * j - 1), 2 * i + 2, 2 * j + 2) for i in range(4) for j in range(4)]
    expected = np.stack([x[:, :, a:c, b:d].max(axis=(2, 3)) for a, b, c, d in windows], -1).reshape(2, 3, 4, 4)
    assert (y == expected).all()
    assert (np.take_along_axis(x.reshape(2, 3, -1), indices.reshape(2, 3, -1), -1).reshape(y.shape) == y).all()
    average = fastconv.avg_pool2d(x, 3, backend=backend)
    assert average.dtype == np.result_type(x, np.float32 if dtype != "float16" else np.float16)


def test_all_padding(backend: str) -> None:
    """A window of padding alone: the least value, index -1, and an average of zero."""
    x = np.ones((1, 1, 1, 1), np.float32)
    y, indices = fastconv.max_pool2d_with_indices(x, 1, stride=1, padding=1, backend=backend)
    assert y[0, 0].tolist() == [[-np.inf] * 3, [-np.inf, 1.0, -np.inf], [-np.inf] * 3]
    assert indices[0, 0].tolist() == [[-1] * 3, [-1, 0, -1], [-1] * 3]
    assert fastconv.max_pool2d(x.astype(np.int16), 1, stride=1, padding=1, backend=backend)[0, 0, 0, 0] == -(2**15)
    y = fastconv.avg_pool2d(x, 1, stride=1, padding=1, count_include_pad=False, backend=backend)
    assert y[0, 0].tolist() == [[0.0] * 3, [0.0, 1.0, 0.0], [0.0] * 3]
    dx = fastconv.max_pool2d_backward(np.ones((1, 1, 3, 3), np.float32), x, 1, stride=1, padding=1, backend=backend)
    assert dx.tolist() == [[[[1.0]]]]


@pytest.mark.skipif(REASONS["cpp"] is not None, reason=f"backend cpp: {REASONS['cpp']}")
@pytest.mark.parametrize("seed", range(60))
def test_random_max_pool_gradients(seed: int) -> None:
    """Windows that overlap, touch, or leave gaps; padding beyond half of them; ties, NaN and infinities."""
    rng = np.random.default_rng(seed)
    kernel, stride, dilation = (tuple(int(n) for n in rng.integers(1, high, 2)) for high in (6, 5, 3))
    if seed % 3 == 0:
        stride, dilation = kernel, (1, 1)
    padding = tuple(int(n) for n in rng.integers(0, 4, 2))
    size = [max(1, (k - 1) * d + 1 - 2 * p) + int(rng.integers(0, 40)) for k, d, p in zip(kernel, dilation, padding)]  # noqa: B905
    n, c = int(rng.integers(1, 4)), int(rng.choice([1, 3, 16, 19, 70]))
    channels_last = bool(seed % 2)
    x = rng.integers(-3, 4, (n, *size, c) if channels_last else (n, c, *size)).astype(
        "float64" if seed % 5 == 0 else "float32"
    )
    x[rng.random(x.shape) < 0.02] = rng.choice([np.nan, np.inf, -np.inf])
    keywords = {
        "stride": stride, "padding": padding, "dilation": dilation, "ceil_mode": bool(seed % 4 == 1),
        "layout": "NHWC" if channels_last else None,
    }  # fmt: skip
    shape = fastconv.max_pool2d(x, kernel, **keywords, backend="numpy").shape
    dy = rng.integers(-8, 9, shape).astype(x.dtype)
    expected = fastconv.max_pool2d_backward(dy, x, kernel, **keywords, backend="numpy")
    for threads in (1, 3):
        fastconv.set_num_threads(threads)
        assert_close(fastconv.max_pool2d_backward(dy, x, kernel, **keywords, backend="cpp"), expected, 0, f"{threads}")


@pytest.mark.skipif(REASONS["cpp"] is not None, reason=f"backend cpp: {REASONS['cpp']}")
@pytest.mark.parametrize("seed", range(60))
def test_max_pool_gradients_plane_by_plane(seed: int) -> None:
    """Channels first, strides of one and two: ordinary planes beside some with NaN, infinities and the least number."""
    rng = np.random.default_rng(seed)
    kernel = tuple(int(n) for n in rng.integers(2, 8, 2))
    stride = (int(rng.integers(1, 4)), 1 + seed % 2)
    padding = tuple(int(rng.integers(0, k // 2 + 1)) for k in kernel)
    size = [k + int(rng.integers(0, 45)) for k in kernel]
    n, c = int(rng.integers(1, 4)), int(rng.choice([1, 5, 33]))
    if seed >= 40:  # the stem's pooling, by rows short and long
        kernel, stride, size = (3, 3), (2, 2), [int(n) for n in rng.integers(3, 90, 2)]
        padding = tuple(int(p) for p in rng.integers(0, 2, 2))
    elif seed % 8 == 0:  # rows of one plane on several threads
        kernel, stride, padding, size, n, c = (5, 4), (1, 1), (2, 1), [111, 119], 1, 1
    x = rng.integers(-5, 6, (n, c, *size)).astype("float64" if seed % 5 == 0 else "float32")
    x[rng.random(x.shape) < 0.01] = np.inf
    x[0, c // 2, :, 1:3] = [np.nan, -np.inf, 1][seed % 3]
    x[n - 1, c // 3, : size[0] // 2] = -np.finfo(x.dtype).max
    x[0, 0, -1, ::2] = -0.0  # ties with the zeros beside them
    keywords = {"stride": stride, "padding": padding, "ceil_mode": bool(seed % 4 == 1)}
    shape = fastconv.max_pool2d(x, kernel, **keywords, backend="numpy").shape
    dy = rng.integers(-8, 9, shape).astype(x.dtype)
    expected = fastconv.max_pool2d_backward(dy, x, kernel, **keywords, backend="numpy")
    for threads in (1, 3):
        fastconv.set_num_threads(threads)
        got = fastconv.max_pool2d_backward(dy, x, kernel, **keywords, backend="cpp")
        assert_close(got, expected, 0, f"{threads}")
    # fractions: sums in one order, whoever computes and whatever stands beside
    dy = rng.standard_normal(shape).astype(x.dtype)
    one = fastconv.max_pool2d_backward(dy, x, kernel, **keywords, backend="cpp")
    fastconv.set_num_threads(1)
    assert np.array_equal(one, fastconv.max_pool2d_backward(dy, x, kernel, **keywords, backend="cpp"))
    alone = [fastconv.max_pool2d_backward(dy[i : i + 1], x[i : i + 1], kernel, **keywords) for i in range(n)]
    assert np.array_equal(one, np.concatenate(alone))


@pytest.mark.skipif(REASONS["cpp"] is not None, reason=f"backend cpp: {REASONS['cpp']}")
@pytest.mark.parametrize("stride", [(1, 1, 2), (2, 2, 1), (3, 2, 2)])
def test_max_pool_gradients_of_planes_of_a_volume(stride: tuple[int, int, int]) -> None:
    """Windows of depth one, with planes that no window holds."""
    rng = np.random.default_rng(1)
    x = rng.integers(-5, 6, (2, 3, 7, 19, 23)).astype(np.float32)
    x[1, 2, 3, 4, 5] = np.nan
    keywords = {"stride": stride, "padding": (0, 1, 1)}
    dy = rng.integers(-8, 9, fastconv.max_pool3d(x, (1, 3, 3), **keywords).shape).astype(np.float32)
    got, expected = (fastconv.max_pool3d_backward(dy, x, (1, 3, 3), **keywords, backend=b) for b in ("cpp", "numpy"))
    assert_close(got, expected, 0, str(stride))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize(("n", "channels"), [(2, 0), (0, 3), (0, 0)])
def test_nothing_to_pool(n: int, channels: int, layout: str) -> None:
    x, y = ((n, *s, channels) if layout == "NHWC" else (n, channels, *s) for s in ((7, 9), (4, 5)))
    window = {"stride": 2, "padding": 1, "layout": layout}
    for result in fastconv.max_pool2d_with_indices(np.ones(x), 3, **window):
        assert result.shape == y
    for ties in ("first", "all", "split"):
        assert fastconv.max_pool2d_backward(np.ones(y), np.ones(x), 3, ties=ties, **window).shape == x
    assert fastconv.avg_pool2d_backward(np.ones(y), np.ones(x), 3, **window).shape == x
