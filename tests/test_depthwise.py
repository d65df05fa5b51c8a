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


def test_nan_stays_where_it_is_seen() -> None:
    x = np.ones((1, 6, 7, 8, 80), "float32")
    x[0, 3, 4, 5, 70] = np.nan
    y = fastconv.conv3d(placed(x, 4), np.ones((3, 3, 3, 1, 80), "float32"), padding=1, groups=80, layout="NDHWC")
    seen = np.zeros(y.shape, bool)
    seen[0, 2:5, 3:6, 4:7, 70] = True
    assert np.array_equal(np.isnan(y), seen)
