"""Sizes, pads and windows against an independent count; and properties that every convolution and pooling has."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracles
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import fastconv
from fastconv.geometry import adaptive_windows, axis_sources, conv_geometry, conv_transpose_geometry, pool_geometry
from fastconv.testing import assert_close, tolerance

sizes = st.integers(1, 24)
kernels = st.integers(1, 6)
strides = st.integers(1, 5)
dilations = st.integers(1, 4)
pads = st.tuples(st.integers(0, 7), st.integers(0, 7))
names = st.sampled_from(["valid", "same", "same_lower", "full"])


def _conv1(n: int, k: int, stride: int, padding: Any, dilation: int) -> Any:
    return conv_geometry("conv1d", 1, (1, 1, n), (1, 1, k), stride=stride, padding=padding, dilation=dilation)


@given(sizes, kernels, strides, dilations, pads)
def test_conv_size_is_the_number_of_windows(n: int, k: int, stride: int, dilation: int, pair: tuple[int, int]) -> None:
    """Every start at which the whole kernel lies in the padded axis, counted one by one."""
    count = len(oracles.window_starts(n, pair, k, stride, dilation, ceil=False))
    if count == 0:
        with pytest.raises(fastconv.GeometryError, match="the kernel covers"):
            _conv1(n, k, stride, (pair,), dilation)
    else:
        assert _conv1(n, k, stride, (pair,), dilation).out_size == (1, 1, count)


@given(sizes, kernels, strides, dilations)
def test_same(n: int, k: int, stride: int, dilation: int) -> None:
    """ceil(n / stride) outputs, no more padding than that needs, the odd one after (or before)."""
    for word in ("same", "same_lower"):
        geometry = _conv1(n, k, stride, word, dilation)
        lo, hi = geometry.padding[2]
        assert geometry.out_size[2] == len(range(0, n, stride))
        assert (hi - lo if word == "same" else lo - hi) in (0, 1)
        assert [(lo, hi)] == oracles.pads(word, (n,), (k,), (stride,), (dilation,))


@given(sizes, kernels, strides, dilations)
def test_full_and_valid(n: int, k: int, stride: int, dilation: int) -> None:
    """Every window that touches the input; every window inside it."""
    span = (k - 1) * dilation
    assert _conv1(n, k, stride, "full", dilation).padding[2] == (span, span)
    assume(span < n)
    assert _conv1(n, k, stride, "valid", dilation) == _conv1(n, k, stride, 0, dilation)


@given(sizes, kernels, strides, dilations, pads, st.booleans())
def test_pool_size(n: int, k: int, stride: int, dilation: int, pair: tuple[int, int], ceil: bool) -> None:
    starts = oracles.window_starts(n, pair, k, stride, dilation, ceil)
    assume(starts)
    geometry = pool_geometry(
        "max_pool1d", 1, (1, 1, n), k, stride=stride, padding=(pair,), dilation=dilation, ceil_mode=ceil
    )
    assert geometry.out_size == (1, 1, len(starts))


@given(sizes, kernels, strides, pads, st.booleans(), st.booleans())
def test_window_counts(n: int, k: int, stride: int, pair: tuple[int, int], ceil: bool, include: bool) -> None:
    """What an average divides by, position by position."""
    starts = oracles.window_starts(n, pair, k, stride, 1, ceil)
    assume(starts)
    geometry = pool_geometry(
        "avg_pool1d", 1, (1, 1, n), k, stride=stride, padding=(pair,), ceil_mode=ceil, count_include_pad=include
    )
    low, high = (-pair[0], n + pair[1]) if include else (0, n)
    assert geometry.window_counts(2).tolist() == [sum(low <= s + t < high for t in range(k)) for s in starts]


@given(sizes, kernels, strides, dilations, pads, st.integers(0, 4))
def test_transposed_size(n: int, k: int, stride: int, dilation: int, pair: tuple[int, int], extra: int) -> None:
    """The size of what it is the gradient of: the convolution back gives the size of the input."""
    assume(extra < max(stride, dilation))
    size = (n - 1) * stride + (k - 1) * dilation + 1 - sum(pair) + extra
    assume(size >= 1)
    geometry = conv_transpose_geometry(
        "conv_transpose1d", 1, (1, 1, n), (1, 1, k), stride=stride, padding=(pair,), dilation=dilation,
        output_padding=extra,
    )  # fmt: skip
    assert geometry.in_size == (1, 1, size)
    assert geometry.out_size == (1, 1, n)
    if extra < stride:
        assert _conv1(size, k, stride, (pair,), dilation).out_size == (1, 1, n)


@given(st.integers(1, 60), st.integers(1, 70))
def test_adaptive_windows(n: int, out: int) -> None:
    """They cover the axis, none is empty, and they are as even as can be."""
    windows = adaptive_windows(n, out)
    assert len(windows) == out
    assert all(0 <= a < b <= n for a, b in windows)
    assert {i for a, b in windows for i in range(a, b)} == set(range(n))
    lengths = {b - a for a, b in windows}
    assert max(lengths) - min(lengths) <= (2 if n % out else 0)


@given(st.integers(1, 9), pads, st.sampled_from(["edge", "reflect", "symmetric", "wrap"]))
def test_axis_sources_are_numpys(n: int, pair: tuple[int, int], mode: str) -> None:
    assert axis_sources(n, pair, mode).tolist() == np.pad(np.arange(n), pair, mode=mode).tolist()  # type: ignore[call-overload]


@given(sizes, sizes, kernels, kernels, strides, dilations, names | st.tuples(pads, pads))
def test_geometry_is_a_value(h: int, w: int, kh: int, kw: int, s: int, d: int, padding: Any) -> None:
    """Equal arguments make equal, hashable geometries, however they were spelled; axes do not meet each other."""

    def made(padding: Any, stride: Any) -> Any:
        return conv_geometry("conv2d", 2, (1, 2, h, w), (4, 2, kh, kw), stride=stride, padding=padding, dilation=d)

    try:
        one = made(padding, s)
    except fastconv.GeometryError:
        assume(False)
    listed = padding if isinstance(padding, str) else [list(p) for p in padding]
    assert hash(one) == hash(made(listed, [s, np.int64(s)]))
    assert one == made(listed, (s, s))
    assert one.out_size[1:] == (
        _conv1(h, kh, s, padding if isinstance(padding, str) else padding[:1], d).out_size[2],
        _conv1(w, kw, s, padding if isinstance(padding, str) else padding[1:], d).out_size[2],
    )


# -------------------------------------------------------------------------------------------------- properties

RNG = np.random.default_rng(7)
X = RNG.integers(-9, 10, (2, 4, 9, 11)).astype(np.float64)
Y = RNG.integers(-9, 10, (2, 4, 9, 11)).astype(np.float64)
W = RNG.integers(-9, 10, (6, 2, 3, 3)).astype(np.float64)
GEOMETRY: dict[str, Any] = {"groups": 2, "stride": (2, 1), "padding": ((1, 0), (2, 1)), "dilation": (1, 2)}


def test_linear(backend: str) -> None:
    """In the input and in the weight: integers, so exactly."""

    def conv(x: np.ndarray, w: np.ndarray = W) -> np.ndarray:
        return fastconv.conv2d(x, w, **GEOMETRY, backend=backend)

    assert_close(conv(3 * X - 2 * Y), 3 * conv(X) - 2 * conv(Y))
    assert_close(conv(X, 5 * W + W[::-1]), 5 * conv(X) + conv(X, W[::-1]))


def test_shift(backend: str) -> None:
    """A shifted input gives a shifted result."""
    y = fastconv.conv2d(X, W, groups=2, backend=backend)
    moved = fastconv.conv2d(X[:, :, 2:, 3:], W, groups=2, backend=backend)
    assert_close(moved, y[:, :, 2:, 3:])


def test_delta(backend: str) -> None:
    """One pixel gives the kernel, turned round; a kernel of one tap gives the input."""
    x = np.zeros((1, 1, 7, 7))
    x[0, 0, 3, 3] = 1
    w = RNG.integers(-9, 10, (4, 1, 3, 5)).astype(np.float64)
    y = fastconv.conv2d(x, w, padding="same", backend=backend)
    assert_close(y[0, :, 2:5, 1:6], w[:, 0, ::-1, ::-1])
    assert np.count_nonzero(y) == np.count_nonzero(w)
    identity = np.zeros((4, 1, 3, 3))
    identity[:, 0, 1, 1] = 1
    assert_close(fastconv.conv2d(X, identity, padding="same", groups=4, backend=backend), X)


def test_channels_and_batch_are_independent(backend: str) -> None:
    """Groups, output channels and images may be computed one by one."""
    y = fastconv.conv2d(X, W, **GEOMETRY, backend=backend)
    rest = {k: v for k, v in GEOMETRY.items() if k != "groups"}
    for g in range(2):
        part = fastconv.conv2d(X[:, 2 * g : 2 * g + 2], W[3 * g : 3 * g + 3], **rest, backend=backend)
        assert_close(y[:, 3 * g : 3 * g + 3], part)
    for i in range(2):
        assert_close(y[i], fastconv.conv2d(X[i], W, **GEOMETRY, backend=backend))


def test_pool_of_a_constant(backend: str) -> None:
    for value in (-2.5, 0.0, 7.0):
        x = np.full((1, 2, 9, 8), value)
        expected = np.full((1, 2, 5, 4), value)
        keywords: dict[str, Any] = {"stride": 2, "padding": 1, "backend": backend}
        assert_close(fastconv.max_pool2d(x, 3, **keywords), expected)
        y = fastconv.avg_pool2d(x, 3, count_include_pad=False, **keywords)
        assert_close(y, expected, tolerance("float64", 9, abs(expected)))


def test_max_is_minus_min_and_between(backend: str) -> None:
    """An average lies between the least and the greatest of its window; a maximum commutes with what is monotone."""
    keywords: dict[str, Any] = {"stride": 2, "backend": backend}
    high, low = fastconv.max_pool2d(X, 3, **keywords), -fastconv.max_pool2d(-X, 3, **keywords)
    mean = fastconv.avg_pool2d(X, 3, **keywords)
    assert (low <= mean).all()
    assert (mean <= high).all()
    assert_close(fastconv.max_pool2d(2 * X + 1, 3, **keywords), 2 * high + 1)


def test_average_is_a_convolution(backend: str) -> None:
    y = fastconv.avg_pool2d(X, (2, 3), stride=1, padding=(1, 1), backend=backend)
    kernel = np.ones((4, 1, 2, 3))
    sums = fastconv.conv2d(X, kernel, padding=(1, 1), groups=4, backend=backend)
    assert_close(y, sums / 6, tolerance("float64", 6, abs(sums)))


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "symmetric", "wrap"])
def test_pad_then_crop(backend: str, mode: str) -> None:
    padded = fastconv.pad(X, ((0, 0), (0, 0), (2, 3), (4, 1)), mode=mode, backend=backend)
    assert_close(padded[:, :, 2:-3, 4:-1], X)
    y = fastconv.conv2d(X, W, groups=2, padding=((2, 3), (4, 1)), padding_mode=mode, backend=backend)
    assert_close(fastconv.conv2d(padded, W, groups=2, backend=backend), y)


def test_pool_adjoints(backend: str) -> None:
    """<avg x, y> = <x, backward y>; the gradient of maxima is conserved."""
    y = RNG.integers(-9, 10, (2, 4, 5, 6)).astype(np.float64)
    keywords: dict[str, Any] = {"stride": 2, "padding": 1, "backend": backend}
    left = np.array((fastconv.avg_pool2d(X, 3, **keywords) * y).sum())
    right = np.array((X * fastconv.avg_pool2d_backward(y, X, 3, **keywords)).sum())
    assert_close(left, right, tolerance("float64", 2 * y.size, np.array(81.0 * y.size)))
    assert fastconv.max_pool2d_backward(y, X, 3, **keywords).sum() == y.sum()
