"""float32 on matrix tiles (AMX), in thirds of bfloat16: tails, bands, numbers that have no thirds, against float64."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import oracles
import pytest
from support import REASONS, run_with_isa

import fastconv
from fastconv.testing import ConvCase, conv_inputs

NAME = "bf16x3"
COMPILED = REASONS["cpp"] is None
TILES = COMPILED and fastconv.get_backend("cpp").config()["isa"] == "amx"
compiled = pytest.mark.skipif(not COMPILED, reason=f"backend cpp: {REASONS['cpp']}")
tiles = pytest.mark.skipif(
    not TILES, reason="this processor has no matrix tiles (AMX), or FASTCONV_ISA leaves them out"
)

GREATEST = float(np.finfo(np.float32).max)
# Errors on random data, by the same sum of absolute values, for up to 4608 terms.
MOST = 4e-7
# Constant and shifted data err in one direction: half a unit a step of 32 products, in chains of 80 steps.
WORST = 80 * 2.0**-24

CASES = [
    # 1x1: a line of pixels, on tiles, one beyond, one short
    *(ConvCase((5, 7), (1, 1), c=c, k=k) for c, k in ((1, 1), (15, 16), (16, 17), (17, 33), (31, 15), (97, 1))),
    *(ConvCase((16, 16), (1, 1), c=c, k=k, n=3) for c, k in ((32, 33), (33, 16), (63, 17), (65, 15))),
    ConvCase((1, 1), (1, 1), c=65, k=33, n=3),
    ConvCase((31, 33), (1, 1), c=32, k=32, n=16),
    ConvCase((13, 11), (1, 1), c=33, k=17, stride=(2, 3)),
    ConvCase((9, 9), (1, 1), c=16, k=16, padding=((0, 1), (2, 0))),
    # rows and columns of taps, phases of the stride, positions between two rows
    *(ConvCase((7, 9), (3, 3), c=c, k=k, padding=1) for c, k in ((1, 17), (15, 1), (17, 16), (31, 33))),
    *(ConvCase((7, 9), (3, 3), c=c, k=k, padding=1) for c, k in ((33, 15), (63, 16))),
    ConvCase((28, 30), (3, 3), c=65, k=33, padding=1, n=3),
    ConvCase((6, 5), (3, 3), c=97, k=16, n=16),
    ConvCase((19, 23), (3, 3), c=32, k=16, stride=(2, 2), padding=1),
    ConvCase((20, 17), (3, 3), c=16, k=17, stride=(3, 1), padding=((2, 0), (0, 3))),
    ConvCase((14, 22), (3, 3), c=17, k=33, stride=(1, 3), padding=(1, 0)),
    ConvCase((15, 16), (5, 1), c=32, k=15, padding=(2, 0)),
    ConvCase((11, 70), (2, 3), c=31, k=16, padding=((1, 0), (1, 1))),
    ConvCase((9, 40), (2, 3), c=16, k=33, stride=(2, 16), padding=((0, 1), (5, 6))),
    ConvCase((21, 19), (3, 3), c=33, k=16, dilation=(2, 3), padding=3),
    ConvCase((21, 19), (3, 5), c=17, k=17, dilation=(3, 2), stride=(2, 4), padding=4),
    ConvCase((40, 40), (7, 7), c=3, k=16, stride=(2, 2), padding=3),
    # planes smaller than the kernel, one column, one row
    ConvCase((2, 2), (3, 3), c=16, k=16, padding=1),
    ConvCase((1, 2), (5, 3), c=33, k=17, padding=(2, 1)),
    ConvCase((30, 1), (3, 3), c=17, k=16, padding=1),
    ConvCase((1, 50), (1, 3), c=32, k=33, padding=(0, 1), n=1),
    ConvCase((37,), (4,), c=31, k=17, stride=(2,), padding=((1, 2),)),
    # several chains of steps, several bands of one image, few rows for three threads
    ConvCase((4, 9), (3, 3), c=300, k=16, padding=1, n=1),
    ConvCase((50, 57), (3, 3), c=64, k=40, padding=1, n=1),
    ConvCase((3, 20), (3, 3), c=48, k=80, padding=1, n=1),
    ConvCase((50, 60), (1, 1), c=160, k=40, n=1),
]  # fmt: skip
BOTH = [replace(case, channels_last=last) for case in CASES for last in (False, True)]


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = fastconv.get_num_threads()
    yield
    fastconv.set_num_threads(before)


def conv_of(case: ConvCase) -> Callable[..., Any]:
    return getattr(fastconv, f"conv{case.rank}d")  # type: ignore[no-any-return]


def plan_of(case: ConvCase, w: Any, b: Any = None, **more: Any) -> Any:
    make = getattr(fastconv, f"plan_conv{case.rank}d")
    return make(case.x_shape, w, b, **{"algorithm": NAME, **case.keywords, "backend": "cpp", **more})


def computed(case: ConvCase, x: Any, w: Any, b: Any = None, algorithm: str = NAME, **more: Any) -> Any:
    return conv_of(case)(x, w, b, **case.keywords, backend="cpp", algorithm=algorithm, **more)


def error(case: ConvCase, y: Any, x: Any, w: Any, b: Any = None) -> float:
    """The largest error, by the same sum of absolute values."""
    exact = oracles.taps_conv(case, x, w, b)
    magnitude = oracles.taps_conv(case, abs(x), abs(w), None if b is None else abs(b))
    assert (y.shape, y.dtype) == (exact.shape, np.float32)
    assert (y[magnitude == 0] == 0).all()
    return float((abs(y - exact) / np.where(magnitude > 0, magnitude, 1)).max(initial=0))


@tiles
@pytest.mark.parametrize("case", BOTH, ids=lambda c: c.name)
def test_random(case: ConvCase) -> None:
    """As exact as promised; the same bits from a plan, on any number of threads, alone and beside others."""
    x, w, b = conv_inputs(case, "normal")
    y = computed(case, x, w, b)
    assert error(case, y, x, w, b) <= MOST
    plan = plan_of(case, w, b)
    for threads in (1, 2, 3):
        fastconv.set_num_threads(threads)
        assert np.array_equal(computed(case, x, w, b), y), f"{threads} threads"
        assert np.array_equal(plan(x), y), f"{threads} threads, plan"
        assert np.array_equal(plan(x[-1:])[0], y[-1]), f"{threads} threads, alone"
    assert np.array_equal(plan(np.concatenate([x[:1]] * 16)), np.concatenate([y[:1]] * 16)), "places in a batch"
    assert plan(x[:0]).shape == (0, *y.shape[1:])
    assert np.array_equal(computed(case, *conv_inputs(case, "integers")),
                          oracles.taps_conv(case, *conv_inputs(case, "integers")))  # fmt: skip


@tiles
@pytest.mark.parametrize("mode", ["edge", "reflect", "symmetric", "wrap"])
@pytest.mark.parametrize("last", [False, True])
def test_padding_modes(mode: str, last: bool) -> None:
    for size, kernel, stride in (((6, 19), 3, 1), ((9, 20), 4, 2), ((2, 3), 5, 3)):
        case = ConvCase(size, (kernel, kernel), c=33, k=17, stride=(stride, stride), padding=((3, 1), (0, 4)),
                        padding_mode=mode, channels_last=last)  # fmt: skip
        x, w, b = conv_inputs(case, "normal")
        assert error(case, computed(case, x, w, b), x, w, b) <= MOST


HARD = {
    "constant": lambda rng, shape: np.full(shape, np.float32(1.1)),
    "far mean": lambda rng, shape: rng.normal(1e3, 1, shape),
    "alternating": lambda rng, shape: abs(rng.standard_normal(shape)) * (-1.0) ** np.indices(shape).sum(axis=0),
    "one large": lambda rng, shape: np.insert(rng.standard_normal(np.prod(shape) - 1), 50, 1e30).reshape(shape),
    "last bits": lambda rng, shape: 1 + rng.integers(0, 2**23, shape) * 2.0**-23,  # all 24 bits count
    "all sizes": lambda rng, shape: rng.standard_normal(shape) * 10.0 ** rng.integers(-12, 13, shape),
}  # fmt: skip


@tiles
@pytest.mark.parametrize("kind", HARD)
@pytest.mark.parametrize("last", [False, True])
def test_hard_numbers(kind: str, last: bool) -> None:
    """What is easy on random data: 512 channels of 3x3 are 4608 terms."""
    rng = np.random.default_rng(5)
    for size, kernel in ((6, 3), (8, 1)):
        case = ConvCase((size, size), (kernel, kernel), c=512, k=17, n=1, channels_last=last)
        x, plain = (HARD[kind](rng, case.x_shape).astype(np.float32), rng.normal(size=case.weight_shape))
        hard = HARD[kind](rng, case.weight_shape)
        assert error(case, computed(case, x, plain.astype("f4")), x, plain.astype("f4")) <= MOST
        assert error(case, computed(case, x, hard.astype("f4")), x, hard.astype("f4")) <= WORST


@tiles
@pytest.mark.parametrize("last", [False, True])
def test_products_up_to_24_bits_are_exact(last: bool) -> None:
    rng = np.random.default_rng(6)
    for bits in (1, 8, 9, 12, 16, 17, 24):
        case = ConvCase((5, 5), (1, 1), c=1, k=19, channels_last=last)
        x = rng.integers(-(2**bits) + 1, 2**bits, case.x_shape).astype(np.float32)
        w = rng.integers(-(2 ** (24 - bits)), 2 ** (24 - bits) + 1, case.weight_shape).astype(np.float32)
        assert np.array_equal(computed(case, x, w), oracles.taps_conv(case, x, w, None)), bits


@tiles
@pytest.mark.parametrize("last", [False, True])
def test_very_small_and_very_large(last: bool) -> None:
    """All digits from 2e-31 on; below, subnormal thirds are zero. Numbers up to the largest of float32."""
    case = ConvCase((9, 8), (3, 3), c=20, k=18, padding=1, channels_last=last)
    x, w, _ = conv_inputs(case, "normal")
    w = w + np.float32(0.1)
    for size, weight, most in ((3e-30, 1, MOST), (1e30, 3e-30, MOST), (1e-33, 1, 1e-5), (5e37, 1e-2, MOST)):
        x0 = np.sign(x) * np.maximum(abs(x), 0.1).astype(np.float32) * np.float32(size)
        w0 = np.sign(w) * np.clip(abs(w), 0.1, 3) * np.float32(weight)
        assert error(case, computed(case, x0, w0), x0, w0) <= most, size
    assert not computed(case, np.full_like(x, 1e-39), w).any()  # subnormal numbers are zero, as everywhere
    x0 = np.full_like(x, 0)
    middle = (slice(None), *(slice(3, 5),) * 2, 0) if last else (slice(None), 0, *(slice(3, 5),) * 2)
    x0[middle] = GREATEST
    w0 = w * np.float32(1e-3)
    assert error(case, computed(case, x0, w0), x0, w0) <= MOST
    x1, w1 = x * np.float32(1e-6), np.full_like(w, GREATEST)
    assert error(case, computed(case, x1, w1), x1, w1) <= MOST
    # first thirds that are larger than their numbers, and overflow together
    case = ConvCase((4, 4), (1, 1), c=32, k=16, channels_last=last)
    x2 = np.full(case.x_shape, 2.0**126 * (1 + 2.0**-8 + 2.0**-20), np.float32)
    w2 = np.full(case.weight_shape, 0.999 * GREATEST / 32 / x2.max(), np.float32)
    assert error(case, computed(case, x2, w2), x2, w2) <= MOST


SPECIAL = [
    ConvCase((9, 21), (3, 3), c=33, k=18, padding=1),
    ConvCase((11, 12), (3, 3), c=17, k=16, padding=1, stride=(2, 2), n=3),
    ConvCase((12, 13), (1, 1), c=40, k=17),
    ConvCase((70, 60), (3, 3), c=64, k=16, padding=1, n=1),  # bands
    ConvCase((60, 80), (1, 1), c=100, k=16),
    ConvCase((8, 8), (3, 3), c=16, k=16, padding=2, padding_mode="wrap"),
]
ODD = {"nan": np.nan, "inf": np.inf, "-inf": -np.inf, "signaling nan": np.uint32(0x7F800001).view(np.float32)}


@tiles
@pytest.mark.parametrize("value", ODD)
@pytest.mark.parametrize("activation", [None, "relu", "relu6", "silu"])
@pytest.mark.parametrize("last", [False, True])
def test_not_finite(value: str, activation: str | None, last: bool) -> None:
    """One number that is none, in the input: only windows that see it change, and as in direct computation."""
    for case in SPECIAL:
        case = replace(case, channels_last=last)
        x, w, b = conv_inputs(case, "normal")
        clean = computed(case, x, w, b, activation=activation)
        x[(-1, *(n - 1 for n in case.size), 1) if last else (-1, 1, *(n - 1 for n in case.size))] = ODD[value]
        x[(0, 0, 3, case.c - 1) if last else (0, case.c - 1, 0, 3)] = ODD[value]
        plain = computed(case, x, w, b, "direct", activation=activation)
        planned = plan_of(case, w, b, activation=activation)(x)
        assert np.array_equal(computed(case, x, w, b, activation=activation), planned, equal_nan=True)
        ones = np.ones_like(w)
        seen = oracles.taps_conv(case, (~np.isfinite(x)).astype(np.float64), ones, None) > 0
        assert 0 < seen.mean() < 1
        assert np.array_equal(planned[~seen], clean[~seen])
        assert np.array_equal(planned[seen], plain[seen], equal_nan=True)


@tiles
@pytest.mark.parametrize("value", ODD)
@pytest.mark.parametrize("last", [False, True])
def test_not_finite_weights(value: str, last: bool) -> None:
    """In a weight: one output channel changes."""
    for case in SPECIAL:
        case = replace(case, channels_last=last)
        x, w, b = conv_inputs(case, "normal")
        clean = computed(case, x, w, b)
        w[(0, 0, 2, 15) if last else (15, 2, 0, 0)] = ODD[value]
        plain, y = (computed(case, x, w, b, algorithm) for algorithm in ("direct", NAME))
        odd = np.broadcast_to(~np.isfinite(plain), y.shape)
        assert 0 < odd.mean() < 1
        assert np.array_equal(y[odd], plain[odd], equal_nan=True)
        assert np.array_equal(y[~odd], clean[~odd])
        assert np.array_equal(plan_of(case, w, b)(x), y, equal_nan=True)


@tiles
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("activation", [None, "relu", "relu6", "silu"])
def test_residual_activation_and_bounded_workspace(activation: str | None, last: bool) -> None:
    """A plan adds before it activates; outputs begin anywhere, and nothing beside is written; bounds are kept."""
    for case in (SPECIAL[0], SPECIAL[2], SPECIAL[3], SPECIAL[4]):
        case = replace(case, channels_last=last)
        x, w, b = conv_inputs(case, "normal")
        plan = plan_of(case, w, b, activation=activation)
        before = computed(case, x, w, b)
        add = np.random.default_rng(1).standard_normal(before.shape).astype(np.float32)
        z = (before + add).astype(np.float64)
        right = {None: z, "relu": np.maximum(z, 0), "relu6": np.clip(z, 0, 6), "silu": z / (1 + np.exp(-z))}[activation]
        y = plan(x, add=add)
        assert abs(y - right).max() <= 1e-5
        for start in (1, 4, 15, 16):
            room = np.full(y.size + 40, -7, np.float32)
            out = room[start : start + y.size].reshape(y.shape)
            plan(x, out=out, add=add)
            assert np.array_equal(out, y)
            assert (np.delete(room, np.s_[start : start + y.size]) == -7).all()
        for part in (2, 5):
            limit = max(plan.workspace_bytes // part, 60_000)
            bounded = plan_of(case, w, b, activation=activation, workspace_limit=limit)
            assert bounded.workspace_bytes <= limit
            assert np.array_equal(bounded(x, add=add), y)


@tiles
@pytest.mark.parametrize("case", BOTH[::3], ids=lambda c: c.name)
def test_workspace_told_holds(case: ConvCase) -> None:
    core = pytest.importorskip("fastconv.backends._cpp._core")
    _, w, b = conv_inputs(case, "normal")
    free = plan_of(case, w, b)
    for plan in (free, plan_of(case, w, b, workspace_limit=free.workspace_bytes)):
        for threads in (1, 2, 3):
            fastconv.set_num_threads(threads)
            for batch in (1, 3, 16):
                x = np.ones((batch, *case.x_shape[1:]), np.float32)
                out = plan(x)
                core.take_scratch_peak()
                plan(x, out=out)
                assert core.take_scratch_peak() <= plan.workspace_bytes, (threads, batch)


@tiles
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_updated_and_chained(layout: str) -> None:
    """New weights are split anew; a chain with a 1x1 and a pooling gives the bits of its steps."""
    last = layout == "NHWC"
    case = ConvCase((30, 28), (3, 3), c=33, k=48, padding=1, channels_last=last)
    x, w, b = conv_inputs(case, "normal")
    plan = plan_of(case, w, b)
    plan.update(2 * w, -b)
    assert np.array_equal(plan(x), computed(case, x, 2 * w, -b))
    narrow = ConvCase((30, 28), (1, 1), c=48, k=17, channels_last=last)
    _, w1, b1 = conv_inputs(narrow, "normal")
    second = plan_of(narrow, w1, b1, activation="relu")
    steps = second(plan(x))
    for threads in (1, 2):
        fastconv.set_num_threads(threads)
        assert np.array_equal(fastconv.plan_chain([plan, second])(x), steps)
        depthwise = ConvCase((30, 28), (3, 3), c=17, k=17, groups=17, padding=1, channels_last=last)
        third = plan_of(depthwise, conv_inputs(depthwise, "normal")[1], algorithm="depthwise")
        chain = fastconv.plan_chain([second, third])
        assert np.array_equal(chain(plan(x)), third(steps))


@tiles
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_gradients_and_transposed(layout: str) -> None:
    """Gradients to the input and transposed convolutions are convolutions, which may be computed on tiles."""
    last = layout == "NHWC"
    for kernel, stride in ((1, 1), (3, 1), (3, 2), (4, 2)):
        case = ConvCase((14, 15), (kernel, kernel), c=65, k=96, padding=kernel // 2, stride=(stride, stride), n=1,
                        channels_last=last)  # fmt: skip
        x, w, _ = conv_inputs(case, "normal")
        dy = oracles.taps_conv(case, x, w, None).astype(np.float32)
        ours = fastconv.conv2d_backward(dy, x, w, **case.keywords, needs=("x",), backend="cpp")
        right, magnitude = (oracles.taps_gradients(case, *arrays)[0] for arrays in ((x, w, dy), (x, abs(w), abs(dy))))
        assert (abs(ours.x - right) <= 4e-6 * magnitude.max()).all()
        case = replace(case, transposed=True)
        x, w, b = conv_inputs(case, "normal")
        right, magnitude = oracles.conv_transpose(case, "normal")
        y = fastconv.conv_transpose2d(x, w, b, **case.keywords, backend="cpp")
        assert (abs(y - right) <= 4e-6 * magnitude.max()).all()


@tiles
def test_refusals() -> None:
    """One sentence says why not."""
    x, w = np.ones((1, 40, 9, 40), np.float32), np.ones((40, 40, 3, 3), np.float32)
    for arrays, keywords, why in (
        ((x.astype(float), w), {}, "float32"),
        ((x, w[:, :1]), {"groups": 40}, "no groups"),
        ((x[..., :9, :], w[:, :, :2]), {"stride": 17, "padding": 1}, "strides up to 16"),
    ):
        with pytest.raises(fastconv.GeometryError, match=why):
            fastconv.conv2d(*arrays, **keywords, backend="cpp", algorithm=NAME)
    x, w = np.ones((1, 4, 9, 9, 9), np.float32), np.ones((4, 4, 3, 3, 3), np.float32)
    with pytest.raises(fastconv.GeometryError, match="depth"):
        fastconv.conv3d(x, w, backend="cpp", algorithm=NAME)


EXTREME_IN = [(33, 17, 1, 1, 0), (16, 33, 3, 2, 1), (40, 5, 2, 1, 1)]


@tiles
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("case", EXTREME_IN, ids=str)
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, GREATEST, -GREATEST, "signalling"])
def test_extreme_weights_and_inputs(case: tuple[int, ...], layout: str, value: float | str) -> None:
    channels, outputs, size, stride, padding = case
    rng = np.random.default_rng(0)
    for where in ("x", "weight", "both"):
        x = rng.standard_normal((2, channels, 9, 11)).astype(np.float32) / 100
        weight = rng.standard_normal((outputs, channels, size, size)).astype(np.float32) / 100
        for name, array in (("x", x), ("weight", weight)):
            if where not in (name, "both"):
                continue
            at = int(rng.integers(array.size))
            if value == "signalling":  # a NaN whose upper half alone is infinity
                array.view(np.uint32).flat[at] = 0x7F800001
            else:
                array.flat[at] = value
        if layout == "NHWC":
            x, weight = np.moveaxis(x, 1, -1).copy(), np.moveaxis(weight, (0, 1), (-1, -2)).copy()
        got, want = (
            fastconv.conv2d(x, weight, stride=stride, padding=padding, layout=layout, algorithm=name)
            for name in ("bf16x3", "direct")
        )
        np.testing.assert_array_equal(np.isfinite(got), np.isfinite(want))
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


@tiles
def test_nan_everywhere_is_quick() -> None:
    """Outputs that a NaN reaches are not computed again to the last term: that took a thousand times as long."""
    x, weight = np.ones((1, 256, 28, 28), np.float32), np.ones((256, 256, 3, 3), np.float32)
    spoilt, bias = np.full_like(x, np.nan), np.full(256, np.nan, np.float32)
    start = time.perf_counter()
    for image, b in ((spoilt, None), (x, bias)):
        assert np.isnan(fastconv.conv2d(image, weight, b, padding=1, algorithm="bf16x3")).all()
    assert time.perf_counter() - start < 1


@tiles
def test_long_rows_keep_to_little_scratch() -> None:
    """A row of outputs is not cut: scratch of many times the input, read once by each thread."""
    weight = np.ones((32, 32, 8), np.float32)
    plan = fastconv.plan_conv1d((1, 32, 400_000), weight, stride=4)
    assert plan.algorithm != "bf16x3"
    assert fastconv.plan_conv1d((1, 32, 2_000), weight, stride=4, algorithm="bf16x3").workspace_bytes < 2**23


@tiles
@pytest.mark.parametrize("shape", [(1, 64, 3, 2**36), (1, 64, 2**36, 3)])
@pytest.mark.parametrize("stride", [1, 2])
def test_plans_of_huge_images_are_quick(shape: tuple[int, ...], stride: int) -> None:
    weight = np.ones((64, 64, 3, 3), np.float32)
    start = time.perf_counter()
    plan = fastconv.plan_conv2d(shape, weight, stride=stride, padding=1)
    assert plan.workspace_bytes < 2**30
    assert time.perf_counter() - start < 2


WITHOUT = """
import numpy as np, fastconv
assert fastconv.get_backend("cpp").config()["isa"] != "amx"
x, w = np.ones((1, 64, 20, 20), np.float32), np.ones((64, 64, 3, 3), np.float32)
plan = fastconv.plan_conv2d(x.shape, w, backend="cpp")
assert plan.algorithm != "bf16x3"
assert "it needs a processor with matrix tiles of bfloat16 (AMX)" in plan.describe()
try:
    fastconv.conv2d(x, w, backend="cpp", algorithm="bf16x3")
except fastconv.GeometryError as error:
    assert "matrix tiles" in str(error)
    print("right")
"""


@compiled
def test_left_out_by_the_environment() -> None:
    run_with_isa("avx512", WITHOUT)
