"""Convolutions of few channels per group, drawn at random: first layers, depthwise, image filters, small planes.

Their kernels cut rows into vectors in many ways (masked ends, several rows or planes in a vector, outputs that begin
anywhere in a cache line), so odd sizes are drawn by a seed, with integer values: the right answer is exact.
"""

from __future__ import annotations

import numpy as np
import oracles
import pytest
from support import REASONS, run_with_isa
from test_isa import isas

import fastconv
from fastconv.testing import ConvCase, conv_inputs

pytestmark = pytest.mark.skipif(REASONS["cpp"] is not None, reason=f"backend cpp: {REASONS['cpp']}")
SEEDS = range(220)  # channels last from 150 on


def drawn(seed: int) -> ConvCase:
    """A problem: kind, sizes, window and layout follow from the seed."""
    rng = np.random.default_rng(seed)

    def one(*choices: int) -> int:
        return int(rng.choice(choices))

    kind = seed % 3
    kernel = [(one(1, 2, 3, 4, 5, 7), one(1, 2, 3, 5, 7)), (one(3, 5),) * 2, (one(3, 5, 7, 9, 15), one(3, 7, 11, 15))][
        kind
    ]
    stride = (one(1, 1, 2, 3),) * 2 if rng.random() < 0.8 else (one(1, 2, 3), one(1, 2, 4))
    dilation = (1, 1) if rng.random() < 0.7 else (one(1, 2), one(1, 2, 3))
    padding = tuple((one(0, 1, 2, k // 2), one(0, 1, 3, k // 2)) for k in kernel)
    least = [max(1, (k - 1) * d + 1 - sum(p)) for k, d, p in zip(kernel, dilation, padding, strict=True)]
    most = int(rng.choice([9, 18, 40, 230]))
    height, width = (
        int(rng.integers(n, max(n + 1, limit))) for n, limit in zip(least, (min(most, 40), most), strict=True)
    )
    c = [one(1, 2, 3, 4), one(1, 3, 17, 40), 1][kind]
    k = [one(1, 2, 5, 8, 19, 33), c * one(1, 1, 2, 3), one(1, 1, 2)][kind]
    return ConvCase(
        (height, width), kernel, c=c, k=k, n=one(1, 2), stride=stride, padding=padding, dilation=dilation,
        groups=[1, c, 1][kind], channels_last=bool(rng.random() < 0.3) or seed >= 150,
        dtype="float64" if rng.random() < 0.15 else "float32",
        padding_mode="edge" if rng.random() < 0.2 else "constant",
    )  # fmt: skip


class Threads:
    """For the length of a block."""

    def __init__(self, threads: int) -> None:
        self.threads, self.before = threads, fastconv.get_num_threads()

    def __enter__(self) -> None:
        fastconv.set_num_threads(self.threads)

    def __exit__(self, *_: object) -> None:
        fastconv.set_num_threads(self.before)


def check(seed: int) -> None:
    """Every exact algorithm, eager and planned into an output that begins anywhere, on one thread and on three."""
    case = drawn(seed)
    x, w, b = conv_inputs(case, "integers")
    right = oracles.taps_conv(case, x, w, b)
    cpp = fastconv.get_backend("cpp")
    rng = np.random.default_rng(seed + 1000)
    for algorithm in [a.name for a in cpp.algorithms() if a.exact_on_integers]:
        found = []
        for threads in (1, 3):
            with Threads(threads):
                try:
                    y = fastconv.conv2d(x, w, b, **case.keywords, backend="cpp", algorithm=algorithm)
                except fastconv.GeometryError:  # it cannot do this case
                    break
                plan = fastconv.plan_conv2d(
                    x.shape, w, b, **case.keywords, backend="cpp", algorithm=algorithm, dtype=case.dtype
                )
                room = np.full(y.size + 16, -7, y.dtype)
                start = int(rng.integers(0, 16))
                out = room[start : start + y.size].reshape(y.shape)
                plan(x, out=out)
                assert (np.delete(room, np.s_[start : start + y.size]) == -7).all(), (algorithm, case.name)
                found += [y, out]
        for y in found:
            assert np.array_equal(y, right), (algorithm, case.name)
    # one NaN reaches the windows that see it and no others
    x[0, 0, 0, 0], w = np.nan, np.ones_like(w)
    y = fastconv.conv2d(x, w, b, **case.keywords, backend="cpp")
    seen = np.isnan(oracles.taps_conv(case, x, w, b))
    assert np.array_equal(np.isnan(y), seen), case.name


@pytest.mark.parametrize("seed", SEEDS)
def test_drawn(seed: int) -> None:
    check(seed)


@pytest.mark.parametrize("isa", isas() or ["none"])
def test_drawn_with_instruction_set(isa: str) -> None:
    run_with_isa(isa, "import test_few_channels as t\nfor seed in list(t.SEEDS)[::2]: t.check(seed)\nprint('right')")


def outputs_begin_anywhere() -> None:
    """Rows so wide that they are cut where the output's cache lines are, and nothing is written beside it."""
    rng = np.random.default_rng(3)
    for dtype, width in (("float32", 224), ("float64", 96)):
        x = rng.integers(-4, 5, (2, 2, 5, width)).astype(dtype)
        w = rng.integers(-4, 5, (9, 2, 3, 3)).astype(dtype)
        right = fastconv.conv2d(x, w, padding=1, backend="numpy")
        plan = fastconv.plan_conv2d(x.shape, w, padding=1, dtype=dtype, algorithm="first_layer", backend="cpp")
        room = np.empty(right.size + 48, dtype)
        first = -room.ctypes.data % 64 // room.itemsize + 16
        for start in range(first, first + 16):
            room[:] = -7
            out = room[start : start + right.size].reshape(right.shape)
            plan(x, out=out)
            assert np.array_equal(out, right), (dtype, start)
            assert (np.delete(room, np.s_[start : start + right.size]) == -7).all(), (dtype, start)


@pytest.mark.parametrize("isa", isas() or ["none"])
def test_outputs_begin_anywhere(isa: str) -> None:
    run_with_isa(isa, "import test_few_channels as t\nt.outputs_begin_anywhere()\nprint('right')")


def for_stems() -> str:
    """Channels last, more output channels than half a vector: with AVX-512 first layers have a form of their own."""
    return "first_layer" if fastconv.get_backend("cpp").config()["isa"] in ("amx", "avx512") else "direct"


def stem(channels: int, width: int, stride: int) -> None:
    """A first layer, channels last: every tail of a row, every number of vectors, alone and beside other images."""
    rng = np.random.default_rng(channels * width)
    x = rng.integers(-4, 5, (3, 9, width, 3)).astype("float32")
    w = rng.integers(-4, 5, (3, 3, 3, channels)).astype("float32")
    b = rng.integers(-9, 10, channels).astype("float32")
    for padding, activation in ((0, "relu6"), (1, "relu"), (1, "leaky_relu")):
        keywords = {"stride": stride, "padding": padding, "layout": "NHWC", "activation": activation}
        add = fastconv.conv2d(x[::-1], w, **keywords, backend="numpy")
        before = fastconv.conv2d(x, w, b, **{**keywords, "activation": None}, backend="numpy") + add
        right = {
            "relu": np.maximum(before, 0), "relu6": np.clip(before, 0, 6),
            "leaky_relu": np.where(before < 0, before * np.float32(0.01), before),
        }[activation]  # fmt: skip
        plan = fastconv.plan_conv2d(x.shape, w, b, **keywords, algorithm=for_stems(), backend="cpp")
        for threads in (1, 3):
            with Threads(threads):
                assert np.array_equal(plan(x, add=add), right)
                assert np.array_equal(plan(x[1:2], add=add[1:2]), right[1:2])


@pytest.mark.parametrize("channels", [9, 16, 24, 32, 33, 48, 64, 80, 130])
def test_stem(channels: int) -> None:
    for width in range(4, 34):
        stem(channels, width, stride=width % 3 + 1)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize(("channels", "kernel", "stride"), [(3, 16, 16), (4, 13, 5), (1, 25, 3), (2, 21, 2)])
def test_more_taps_than_one_sum_takes(channels: int, kernel: int, stride: int, layout: str) -> None:
    """Few channels and some hundred taps: what is summed apart is split by taps."""
    rng = np.random.default_rng(kernel)
    size = kernel + 3 * stride
    for dtype in ("float32", "float64"):
        x = rng.integers(-3, 4, (2, size, size + 1, channels)).astype(dtype)
        w = rng.integers(-3, 4, (kernel, kernel, channels, 37)).astype(dtype)
        b = rng.integers(-9, 10, 37).astype(dtype)
        if layout == "NCHW":
            x, w = np.ascontiguousarray(np.moveaxis(x, -1, 1)), np.ascontiguousarray(np.transpose(w, (3, 2, 0, 1)))
        keywords = {"stride": stride, "layout": layout}
        for padding in (0, 2):
            right = fastconv.conv2d(x, w, b, **keywords, padding=padding, backend="numpy")
            y = fastconv.conv2d(x, w, b, **keywords, padding=padding, algorithm="direct", backend="cpp")
            assert np.array_equal(y, right), (dtype, padding)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_padded_1x1_of_uneven_channel_blocks(layout: str) -> None:
    """A copied band keeps blocks of channels apart where they are equal: those of 590 are of whole lines, and not."""
    rng = np.random.default_rng(0)
    x, w = rng.integers(-3, 4, (2, 590, 6, 5)).astype("float32"), rng.integers(-3, 4, (9, 590, 1, 1)).astype("float32")
    if layout == "NHWC":
        x, w = x.transpose(0, 2, 3, 1).copy(), w.transpose(2, 3, 1, 0).copy()
    keywords = {"padding": 1, "stride": (1, 2), "layout": layout}
    right = fastconv.conv2d(x, w, **keywords, backend="numpy")
    assert np.array_equal(fastconv.conv2d(x, w, **keywords, backend="cpp", algorithm="direct"), right)
