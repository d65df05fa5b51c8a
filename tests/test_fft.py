"""Convolution by Fourier transforms: every way to cut, against float64 oracles; what is not finite stays in place."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import oracles
import pytest
from support import ADVERSARIAL, REASONS, adversarial_inputs, conv_tolerance, function

import fastconv
from fastconv.testing import ConvCase, assert_close, conv_inputs

pytestmark = pytest.mark.skipif(REASONS["cpp"] is not None, reason=f"backend cpp: {REASONS['cpp']}")

# channels in lanes, tiles in lanes, sums over channels; whole axes and tiles; transforms of odd lengths; kernels larger
# than the input, with one tap along an axis, dilated; strided outputs; volumes
CASES = [
    ConvCase((1000,), (251,), padding=125, n=3),
    ConvCase((97,), (31,), n=1),
    ConvCase((3000,), (1023,), padding=511, n=1),
    ConvCase((200,), (64,), padding="full"),
    ConvCase((1003,), (51,), k=6, stride=(4,), n=1),
    ConvCase((300,), (31,), c=3, k=5, padding=15, stride=(2,)),
    ConvCase((299,), (31,), c=4, k=8, groups=2, padding=20, stride=(3,)),
    ConvCase((997,), (17,), c=2, k=2, groups=2, padding=3, stride=(5,), dilation=(2,)),
    ConvCase((64,), (9,), c=1, k=3, padding=4, stride=(8,)),
    ConvCase((700,), (33,), c=20, k=20, groups=20, padding=16),
    ConvCase((300,), (65,), c=5, k=9, padding=32),
    ConvCase((400,), (9,), c=2, k=6, groups=2, padding=16, dilation=(4,)),
    ConvCase((120, 130), (31, 31), padding=15, n=1),
    ConvCase((65, 47), (15, 9), padding=(7, 4)),
    ConvCase((14, 14), (31, 31), c=18, k=18, groups=18, padding=15),
    ConvCase((28, 28), (13, 13), c=40, k=40, groups=40, padding=6, n=1),
    ConvCase((56, 23), (21, 21), c=16, k=16, groups=16, padding=10),
    ConvCase((7, 7), (7, 7), c=33, k=33, groups=33, padding="same", dilation=(2, 2)),
    ConvCase((5, 41), (21, 9), c=17, k=17, groups=17, padding=(20, 2)),
    ConvCase((33, 31), (15, 15), c=3, k=8, padding=7),
    ConvCase((40, 23), (9, 11), c=6, k=4, groups=2, padding=5, n=3),
    ConvCase((31, 45), (1, 25), c=3, k=3, groups=3, padding=(0, 12)),
    ConvCase((45, 31), (25, 1), c=3, k=3, groups=3, padding=(12, 0)),
    ConvCase((29, 31), (1, 1), c=2, k=2, padding=1),
    ConvCase((20, 20), (5, 5), c=1, k=7, padding=((0, 4), (3, 0)), dilation=(2, 3)),
    ConvCase((60, 61), (15, 15), padding=7, stride=(2, 2)),
    ConvCase((41, 37), (9, 11), c=3, k=5, padding=(4, 5), stride=(3, 7)),
    ConvCase((40, 41), (13, 13), c=19, k=19, groups=19, padding=6, stride=(2, 3)),
    ConvCase((23, 300), (1, 31), c=2, k=2, padding=(1, 15), stride=(3, 2)),
    ConvCase((20, 22, 21), (5, 7, 5), padding=(2, 3, 2), n=1),
    ConvCase((13, 11, 17), (3, 4, 5), c=3, k=6, padding=(1, 2, 0)),
    ConvCase((9, 10, 11), (5, 5, 5), c=18, k=18, groups=18, padding="same", n=1),
    ConvCase((17, 16, 15), (7, 3, 5), c=2, k=2, groups=2, padding=(3, 0, 4), stride=(2, 1, 3), dilation=(1, 2, 1)),
    ConvCase((6, 25, 24), (1, 9, 9), c=2, k=3, padding=(1, 4, 4), stride=(2, 1, 1)),
    ConvCase((5, 4, 130), (1, 1, 31), c=2, k=2, padding=(0, 1, 15), stride=(2, 1, 1)),
    ConvCase((3, 7, 9), (9, 7, 5), c=2, k=1, padding=(8, 3, 2), n=3),
]


def variants() -> list[ConvCase]:
    """Both layouts and both dtypes."""
    both = [replace(case, channels_last=last) for case in CASES for last in (False, True)]
    return both + [replace(case, dtype="float64") for case in both[1::3]]


@pytest.fixture(autouse=True)
def threads_as_before():
    before = fastconv.get_num_threads()
    yield
    fastconv.set_num_threads(before)


@pytest.mark.parametrize("case", variants(), ids=lambda c: c.name)
def test_random(case: ConvCase) -> None:
    """Within the promise; the same bits on one thread and on three, and alone or in a batch."""
    x, w, b = conv_inputs(case, "normal")
    conv = function("conv", case.rank)
    results = []
    for threads in (1, 3):
        fastconv.set_num_threads(threads)
        results.append(conv(x, w, b, **case.keywords, backend="cpp", algorithm="fft"))
    expected, magnitude = oracles.conv(case, "normal")
    assert_close(results[0], expected, conv_tolerance(case, "cpp", "fft", "normal", magnitude), case.name)
    assert np.array_equal(results[0], results[1]), "threads change the bits"
    alone = conv(x[-1:], w, b, **case.keywords, backend="cpp", algorithm="fft")
    assert np.array_equal(alone[0], results[0][-1]), "the place in a batch changes the bits"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("case", [c for c in CASES if max(c.size) < 1000][::2], ids=lambda c: c.name)
def test_not_finite(case: ConvCase, last: bool, value: float) -> None:
    """One value that is not finite, or overflows in a transform, reaches its windows and no other output."""
    case = replace(case, channels_last=last)
    x, w, b = conv_inputs(case, "normal")
    x = x.copy()
    middle = tuple(n // 2 for n in case.size)
    x[(0, *middle, case.c - 1) if last else (0, case.c - 1, *middle)] = value
    conv = function("conv", case.rank)
    plain = conv(x, w, b, **case.keywords, backend="cpp", algorithm="direct")
    with np.errstate(invalid="ignore", over="ignore"):
        y = conv(x, w, b, **case.keywords, backend="cpp", algorithm="fft")
    finite = np.isfinite(plain)
    assert np.array_equal(np.isfinite(y), finite)
    assert np.array_equal(y[~finite], plain[~finite], equal_nan=True)
    if value != 3e38:
        assert_close(y[finite], plain[finite], 1e-4 * abs(plain[finite]).max())


@pytest.mark.parametrize("mode", ["edge", "reflect", "symmetric", "wrap"])
@pytest.mark.parametrize("last", [False, True])
def test_padding_modes(mode: str, last: bool) -> None:
    for case in (
        ConvCase((200,), (31,), padding=15, padding_mode=mode, channels_last=last),
        ConvCase((13, 11), (5, 5), c=2, k=3, padding=((3, 1), (0, 4)), padding_mode=mode, channels_last=last),
        ConvCase((13, 19), (7, 9), c=18, k=18, groups=18, padding=5, padding_mode=mode, channels_last=last),
        ConvCase((90, 19), (1, 9), c=3, k=3, groups=3, padding=(2, 4), padding_mode=mode, channels_last=last),
        ConvCase((9, 8, 13), (3, 5, 5), c=2, k=2, padding=(2, 2, 3), padding_mode=mode, channels_last=last),
    ):
        x, w, b = conv_inputs(case, "normal")
        expected, magnitude = oracles.conv(case, "normal")
        y = function("conv", case.rank)(x, w, b, **case.keywords, backend="cpp", algorithm="fft")
        assert_close(y, expected, conv_tolerance(case, "cpp", "fft", "normal", magnitude), case.name)


@pytest.mark.parametrize("kind", ADVERSARIAL)
@pytest.mark.parametrize("groups", [1, 16])
def test_adversarial(kind: str, groups: int) -> None:
    """Within the worst case, not only on random data."""
    case = ConvCase((40, 40), (13, 13), c=16, k=16, n=1, padding=6, groups=groups)
    x, w = adversarial_inputs(case, kind)
    exact = oracles.taps_conv(case, x, w, None)
    magnitude = oracles.taps_conv(case, abs(x), abs(w), None)
    y = fastconv.conv2d(x, w, padding=6, groups=groups, backend="cpp", algorithm="fft")
    assert_close(y, exact, conv_tolerance(case, "cpp", "fft", "adversarial", magnitude), kind)


@pytest.mark.parametrize("groups", [1, 12])
@pytest.mark.parametrize("last", [False, True])
def test_residual_and_activation(last: bool, groups: int) -> None:
    """A plan adds before it activates."""
    case = ConvCase((19, 23), (9, 9), c=12, k=12, padding=4, groups=groups)
    x, w, b = conv_inputs(case, "normal")
    expected, magnitude = oracles.conv(case, "normal")
    extra = np.random.default_rng(1).standard_normal(expected.shape).astype(np.float32)
    arrays = [np.moveaxis(x, 1, -1), w.transpose(2, 3, 1, 0), np.moveaxis(extra, 1, -1)] if last else [x, w, extra]
    x, w, add = (np.ascontiguousarray(a) for a in arrays)
    z = expected + extra
    for activation in ("relu", "relu6", "silu"):
        plan = fastconv.plan_conv2d(x.shape, w, b, padding=4, groups=groups, layout="NHWC" if last else None,
                                    activation=activation, algorithm="fft", backend="cpp")  # fmt: skip
        y = plan(x, add=add)
        y = np.moveaxis(y, -1, 1) if last else y
        right = {"relu": np.maximum(z, 0), "relu6": np.clip(z, 0, 6), "silu": z / (1 + np.exp(-z))}[activation]
        assert_close(y, right, 2 * conv_tolerance(case, "cpp", "fft", "normal", magnitude + abs(extra)))


def test_chosen_for_large_kernels() -> None:
    """Where other ways take a multiple of the time."""
    for shape, weight, keywords in (
        ((1, 1, 512, 512), (1, 1, 31, 31), {"padding": 15}),
        ((1, 64, 28, 28), (64, 1, 31, 31), {"padding": 15, "groups": 64}),
        ((1, 1, 44100), (1, 1, 1023), {"padding": 511}),
        ((1, 1, 64, 64, 64), (1, 1, 9, 9, 9), {"padding": 4}),
        ((1, 1, 512, 512), (1, 1, 31, 31), {"padding": 15, "stride": 2}),
    ):
        plan = function("plan_conv", len(shape) - 2)(shape, np.ones(weight, np.float32), backend="cpp", **keywords)
        assert plan.algorithm == "fft"


def test_against_scipy() -> None:
    """A volume, whose transforms are told by an oracle that transforms too."""
    signal = pytest.importorskip("scipy.signal")
    x, w = (np.random.default_rng(2).standard_normal(s) for s in ((30, 33, 40), (9, 8, 7)))
    expected = signal.fftconvolve(x, w[::-1, ::-1, ::-1], "valid")
    for dtype, bound in ((np.float32, 2e-6), (np.float64, 1e-13)):
        y = fastconv.conv3d(x[None].astype(dtype), w[None, None].astype(dtype), backend="cpp", algorithm="fft")
        assert abs(y[0] - expected).max() < bound * abs(expected).max()


@pytest.mark.parametrize(
    ("shape", "weight"), [((2, 1, 40, 40, 40), (1, 1, 9, 9, 9)), ((1, 3, 24, 24, 24), (4, 3, 5, 5, 5))]
)
def test_workspace_in_volumes(shape: tuple[int, ...], weight: tuple[int, ...]) -> None:
    """What is told is enough; a bound is kept, by another algorithm or by fewer threads."""
    from fastconv.backends._cpp import _core

    rng = np.random.default_rng(3)
    x, w = rng.standard_normal(shape).astype(np.float32), rng.standard_normal(weight).astype(np.float32)
    plan = fastconv.plan_conv3d(shape, w, padding=weight[-1] // 2, backend="cpp", algorithm="fft")
    fastconv.set_num_threads(3)
    plan(x)
    _core.take_scratch_peak()
    plan(x)
    assert _core.take_scratch_peak() <= plan.workspace_bytes
    for limit in (plan.workspace_bytes, 1 << 20, 1 << 16):
        kept = fastconv.plan_conv3d(shape, w, padding=weight[-1] // 2, backend="cpp", workspace_limit=limit)
        assert kept.workspace_bytes <= limit
        np.testing.assert_allclose(kept(x), plan(x), atol=1e-4)


def test_refusals() -> None:
    """One sentence says why not."""
    x, w = np.ones((1, 1, 300), np.float32), np.ones((1, 1, 31), np.float32)
    with pytest.raises(fastconv.GeometryError, match="a stride up to 5"):
        fastconv.conv1d(x, w, stride=7, backend="cpp", algorithm="fft")
