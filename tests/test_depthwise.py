"""Depthwise convolution in one to three dimensions, with arrays that begin anywhere in a cache line.

Integer values make the right answer exact. Channels last, vectors of channels are cut by the address of the
arrays, so those are placed here at every offset; sizes, windows and steps are drawn by a seed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import oracles
import pytest
from support import REASONS, run_with_isa
from test_few_channels import Threads
from test_isa import isas

import fastconv
from fastconv.testing import ConvCase, conv_inputs

pytestmark = pytest.mark.skipif(REASONS["cpp"] is not None, reason=f"backend cpp: {REASONS['cpp']}")
SEEDS = range(90)
CONV = {1: fastconv.conv1d, 2: fastconv.conv2d, 3: fastconv.conv3d}


def drawn(seed: int) -> ConvCase:
    """A depthwise problem; a third each in one, two and three dimensions."""
    rng = np.random.default_rng(seed)

    def one(*choices: int) -> int:
        return int(rng.choice(choices))

    dimensions = seed % 3 + 1
    longest = 5 if dimensions == 3 else 11
    kernel = (one(*{3, 5, min(7, longest)}),) * dimensions
    if rng.random() < 0.4:
        kernel = tuple(int(rng.integers(1, longest + 1)) for _ in range(dimensions))
    stride = (one(1, 1, 2, 3),) * dimensions
    dilation = (one(1, 1, 1, 2, 3),) * dimensions
    padding = tuple((one(0, 1, k // 2), one(0, 2, k // 2)) for k in kernel)
    least = [max(1, (k - 1) * d + 1 - sum(p)) for k, d, p in zip(kernel, dilation, padding, strict=True)]
    spatial = tuple(n + int(rng.integers(0, [90, 32, 14][dimensions - 1])) for n in least)
    channels_last = bool(rng.random() < 0.6)
    c = one(1, 3, 16, 40, 64, 80, 112)
    return ConvCase(
        spatial, kernel, c=c, k=c * (1 if channels_last else one(1, 1, 2)), n=one(1, 2), stride=stride, padding=padding,
        dilation=dilation, groups=c, channels_last=channels_last, dtype="float64" if rng.random() < 0.2 else "float32",
        padding_mode="edge" if rng.random() < 0.15 else "constant",
    )  # fmt: skip


def placed(values: np.ndarray, first: int) -> np.ndarray:
    """A copy that begins so many values after a cache line."""
    room = np.zeros(values.size + 64, values.dtype)
    first += -(room.ctypes.data // room.itemsize) % (64 // room.itemsize)
    at = room[first : first + values.size].reshape(values.shape)
    at[...] = values
    return at


def check(seed: int) -> None:
    """Right, the same bits on one thread and on three, nothing written beyond."""
    case = drawn(seed)
    x, w, b = conv_inputs(case, "integers")
    right = oracles.taps_conv(case, x, w, b)
    for first in (0, 4, seed % 16):
        for threads in (1, 3):
            room = placed(np.full(right.size + 32, 7, x.dtype), (first if seed % 2 else seed) % 16)
            out = room[16:-16].reshape(right.shape)
            with Threads(threads):
                CONV[x.ndim - 2](placed(x, first), w, b, **case.keywords, backend="cpp", algorithm="depthwise", out=out)
            assert np.array_equal(out, right), case.name
            assert (np.delete(room, np.s_[16:-16]) == 7).all(), case.name


@pytest.mark.parametrize("seed", SEEDS)
def test_drawn(seed: int) -> None:
    check(seed)


@pytest.mark.parametrize("isa", isas() or ["none"])
def test_drawn_with_instruction_set(isa: str) -> None:
    run_with_isa(isa, "import test_depthwise as t\nfor seed in list(t.SEEDS)[::2]: t.check(seed)\nprint('right')")


def narrow(seed: int) -> ConvCase:
    """Planes of a few columns, channels first: made lanes where that pays; rows and planes that no window reads."""
    rng = np.random.default_rng(seed)
    deep = seed % 2 == 1
    k = int(rng.choice([3, 5] if deep else [6, 7, 9, 13]))
    dilation, stride = (int(rng.integers(1, 3)) for _ in range(2))
    width = int(rng.integers(2, 19))
    sizes = (int(rng.integers(1, 9)), int(rng.integers(1, 23)), width) if deep else (int(rng.integers(1, 40)), width)
    padding = tuple((int(rng.integers(0, k * dilation)), k // 2 * dilation) for _ in sizes)
    spatial = tuple(max(n, (k - 1) * dilation + 1 - sum(p)) for n, p in zip(sizes, padding, strict=True))
    c = int(rng.choice([9, 16, 40, 67]))
    return ConvCase(
        spatial, (k,) * len(sizes), c=c, k=c, n=int(rng.integers(1, 4)), stride=(stride,) * len(sizes), padding=padding,
        dilation=(dilation,) * len(sizes), groups=c, dtype="float64" if seed % 5 == 0 else "float32",
    )  # fmt: skip


def dilated(seed: int) -> ConvCase:
    """Channels last: rows and columns that are a dilation apart are computed together."""
    rng = np.random.default_rng(seed)
    k, c = int(rng.choice([3, 5, 7, 8, 11])), int(rng.choice([5, 16, 72]))
    dilation = tuple(int(d) for d in rng.integers(1, 6, 2))
    padding = tuple((int(rng.integers(0, k * d)), int(rng.integers(0, k * d))) for d in dilation)
    spatial = tuple((k - 1) * d + int(rng.integers(1, 50)) for d in dilation)
    return ConvCase(
        spatial, (k, k), c=c, k=c, n=2, padding=padding, dilation=dilation, groups=c, channels_last=True,
    )  # fmt: skip


def check_case(case: ConvCase) -> None:
    """Right for every number of threads and whatever the workspace, with an addend; nothing written beyond."""
    x, w, b = conv_inputs(case, "integers")
    right = oracles.taps_conv(case, x, w, b)
    add = np.arange(right.size, dtype=x.dtype).reshape(right.shape) % 7
    make = {2: fastconv.plan_conv2d, 3: fastconv.plan_conv3d}[x.ndim - 2]
    for limit in (None, 40_000):
        try:
            plan = make(
                x.shape, w, b, **case.keywords, dtype=case.dtype, backend="cpp", algorithm="depthwise",
                workspace_limit=limit,
            )  # fmt: skip
        except fastconv.GeometryError:
            assert limit is not None
            continue
        for threads in (1, 3):
            room = placed(np.full(right.size + 32, 7, x.dtype), 4)
            out = room[16:-16].reshape(right.shape)
            with Threads(threads):
                assert np.array_equal(plan(placed(x, 4), out=out, add=add), right + add), case.name
                assert np.array_equal(plan(x[:1]), right[:1]), case.name
            assert (np.delete(room, np.s_[16:-16]) == 7).all(), case.name


def check_both(seed: int) -> None:
    check_case(narrow(seed))
    check_case(dilated(seed))


@pytest.mark.parametrize("seed", range(40))
def test_lanes_and_phases(seed: int) -> None:
    check_both(seed)


@pytest.mark.parametrize("isa", isas() or ["none"])
def test_lanes_and_phases_with_instruction_set(isa: str) -> None:
    run_with_isa(isa, "import test_depthwise as t\nfor s in range(9): t.check_both(s)\nprint('right')")


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1), (7, 1)])
def test_beyond_the_caches(kernel: int, stride: int) -> None:
    """Arrays so large that the next rows are asked for beforehand: every image as by itself, on any threads."""
    rng = np.random.default_rng(kernel)
    x = rng.integers(-3, 4, (5, 150, 141, 80)).astype("float32")
    w = rng.integers(-3, 4, (kernel, kernel, 1, 80)).astype("float32")
    given: dict[str, Any] = {
        "stride": stride,
        "padding": kernel // 2,
        "groups": 80,
        "layout": "NHWC",
        "algorithm": "depthwise",
    }
    for threads in (1, 3):
        with Threads(threads):
            y = fastconv.conv2d(placed(x, 4), w, **given)
            for i in (0, 4):
                assert np.array_equal(y[i], fastconv.conv2d(x[i], w, **given))


def check_three_by_three(seed: int) -> None:
    """Weights that are infinite meet no padding; a NaN passes every clamp; an addend comes before it."""
    rng = np.random.default_rng(seed)
    c, stride = int(rng.choice([16, 40, 64, 80, 112])), int(rng.integers(1, 3))
    h, wide = int(rng.integers(3, 12)), int(rng.integers(6, 34))
    (top, bottom), (left, right) = pads = rng.integers(0, 2, (2, 2)).tolist()
    x = rng.integers(-3, 4, (2, h, wide, c)).astype("float32")
    w, b = rng.integers(-2, 3, (3, 3, 1, c)).astype("float32"), rng.integers(-3, 4, c).astype("float32")
    w[:, 0, 0, ::3], w[:, 2, 0, 1::3], w[0, :, 0, 2::3] = np.inf, -np.inf, np.inf
    x[0, h // 2, wide // 2, c // 2] = np.nan
    oh, ow = (h + top + bottom - 3) // stride + 1, (wide + left + right - 3) // stride + 1
    y = np.zeros((2, oh, ow, c), "float32")
    with np.errstate(invalid="ignore"):
        for i, j, row, column in np.ndindex(3, 3, oh, ow):
            at, to = row * stride + i - top, column * stride + j - left
            if 0 <= at < h and 0 <= to < wide:
                y[:, row, column] += x[:, at, to] * w[i, j, 0]
    add = rng.integers(-3, 4, y.shape).astype("float32")
    for activation, low, high in ((None, -np.inf, np.inf), ("relu", 0, np.inf), ("relu6", 0, 6)):
        plan = fastconv.plan_conv2d(
            x.shape, w, b, stride=stride, padding=pads, groups=c, layout="NHWC", activation=activation, backend="cpp",
            algorithm="depthwise",
        )  # fmt: skip
        for first in (0, 4):
            np.testing.assert_array_equal(plan(placed(x, first)), np.clip(y + b, low, high))
            np.testing.assert_array_equal(plan(x, add=placed(add, first)), np.clip(y + b + add, low, high))


@pytest.mark.parametrize("isa", isas() or ["none"])
def test_infinite_weights_and_clamps(isa: str) -> None:
    run_with_isa(isa, "import test_depthwise as t\nfor s in range(40): t.check_three_by_three(s)\nprint('right')")


def test_nan_stays_where_it_is_seen() -> None:
    x = np.ones((1, 6, 7, 8, 80), "float32")
    x[0, 3, 4, 5, 70] = np.nan
    y = fastconv.conv3d(placed(x, 4), np.ones((3, 3, 3, 1, 80), "float32"), padding=1, groups=80, layout="NDHWC")
    seen = np.zeros(y.shape, bool)
    seen[0, 2:5, 3:6, 4:7, 70] = True
    assert np.array_equal(np.isnan(y), seen)
