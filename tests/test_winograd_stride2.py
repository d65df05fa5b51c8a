"""Winograd with a stride, by phases: all kernels, tails, paddings and instruction sets, against float64 oracles."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import oracles
import pytest
from support import ADVERSARIAL, REASONS, adversarial_inputs, conv_tolerance, run_with_isa
from test_isa import isas

import fastconv
from fastconv.testing import ConvCase, assert_close, conv_inputs

pytestmark = pytest.mark.skipif(REASONS["cpp"] is not None, reason=f"backend cpp: {REASONS['cpp']}")
NAME = "winograd_stride2"

# sizes that fill tiles and that do not, also those of one tile; channels around the vectors, chains of several sums
CASES = [
    ConvCase((29, 31), (3, 3), c=16, k=24, stride=(2, 2), padding=1),
    ConvCase((12, 12), (3, 3), c=33, k=65, stride=(2, 2)),
    ConvCase((57, 57), (3, 3), c=53, k=37, stride=(2, 2), padding=1, n=1),
    ConvCase((14, 14), (3, 3), c=300, k=3, stride=(2, 2), padding="same", n=1),
    ConvCase((5, 6), (3, 3), c=1, k=1, stride=(2, 2)),
    ConvCase((41, 5), (3, 3), c=7, k=31, stride=(2, 2), padding=((2, 0), (0, 3))),
    ConvCase((3, 130), (3, 3), c=5, k=16, stride=(2, 2), padding=2),
    ConvCase((17, 23), (4, 4), c=13, k=17, stride=(2, 2), padding=1),
    ConvCase((24, 24), (4, 4), c=48, k=40, stride=(2, 2), padding="same"),
    ConvCase((23, 37), (5, 5), c=33, k=40, stride=(2, 2), padding=2),
    ConvCase((14, 14), (5, 5), c=96, k=64, stride=(2, 2), padding=2),
    ConvCase((64, 40), (5, 5), c=16, k=8, stride=(2, 2), padding=((0, 4), (3, 1)), n=1),
    ConvCase((31, 45), (7, 7), c=19, k=8, stride=(2, 2), padding=3),
    ConvCase((7, 8), (7, 7), c=16, k=33, stride=(2, 2), padding=1),
    # other strides, along one axis only, 1-D and 3-D data
    ConvCase((40, 37), (5, 5), c=17, k=40, stride=(3, 3), padding=2),
    ConvCase((31, 50), (7, 6), c=20, k=9, stride=(4, 2), padding=3, n=1),
    ConvCase((29, 33), (3, 3), c=18, k=33, stride=(2, 1), padding=1),
    ConvCase((29, 33), (3, 5), c=18, k=33, stride=(1, 3), padding=1),
    ConvCase((23, 34), (1, 3), c=35, k=20, stride=(3, 2), padding=(0, 1)),
    ConvCase((83,), (3,), c=33, k=40, stride=(2,), padding=1),
    ConvCase((6, 13, 14), (3, 3, 3), c=17, k=20, stride=(2, 2, 2), padding=1),
]


def variants() -> list[ConvCase]:
    """Both layouts and both dtypes."""
    both = [replace(case, channels_last=last) for case in CASES for last in (False, True)]
    return both + [replace(case, dtype="float64") for case in both[1::3]]


def check(case: ConvCase) -> None:
    """Within the promise; the same bits on one thread and on three, and alone or in a batch; NaN where it belongs."""
    x, w, b = conv_inputs(case, "normal")
    conv = getattr(fastconv, f"conv{case.rank}d")
    results = []
    for threads in (1, 3):
        fastconv.set_num_threads(threads)
        results.append(conv(x, w, b, **case.keywords, backend="cpp", algorithm=NAME))
    expected, magnitude = oracles.conv(case, "normal")
    assert_close(results[0], expected, conv_tolerance(case, "cpp", NAME, "normal", magnitude), case.name)
    assert np.array_equal(results[0], results[1]), "threads change the bits"
    alone = conv(x[-1:], w, b, **case.keywords, backend="cpp", algorithm=NAME)
    assert np.array_equal(alone[0], results[0][-1]), "the place in a batch changes the bits"
    x = x.copy()
    middle = tuple(n // 2 for n in case.size)
    for value in (np.nan, np.inf, -np.inf, 3e38):
        x[(0, *middle, 0) if case.channels_last else (0, 0, *middle)] = value
        with np.errstate(invalid="ignore", over="ignore"):
            plain = conv(x, w, b, **case.keywords, backend="cpp", algorithm="direct")
            y = conv(x, w, b, **case.keywords, backend="cpp", algorithm=NAME)
        finite = np.isfinite(plain)
        assert np.array_equal(np.isfinite(y), finite), value
        assert np.array_equal(y[~finite], plain[~finite], equal_nan=True), value


@pytest.mark.parametrize("case", variants(), ids=lambda c: c.name)
def test_random(case: ConvCase) -> None:
    check(case)


@pytest.mark.parametrize("isa", isas() or ["none"])
def test_instruction_set(isa: str) -> None:
    run_with_isa(isa, "import test_winograd_stride2 as t\nfor case in t.variants()[::3]: t.check(case)\nprint('right')")


@pytest.mark.parametrize("mode", ["edge", "reflect", "symmetric", "wrap"])
@pytest.mark.parametrize("last", [False, True])
def test_padding_modes(mode: str, last: bool) -> None:
    for k in (3, 4, 5, 7):
        case = ConvCase((13, 11), (k, k), c=9, k=7, stride=(2, 2), padding=((3, 1), (0, 4)), padding_mode=mode,
                        channels_last=last)  # fmt: skip
        x, w, b = conv_inputs(case, "normal")
        expected, magnitude = oracles.conv(case, "normal")
        y = fastconv.conv2d(x, w, b, **case.keywords, backend="cpp", algorithm=NAME)
        assert_close(y, expected, conv_tolerance(case, "cpp", NAME, "normal", magnitude), case.name)


@pytest.mark.parametrize("kernel", [3, 4, 5, 7])
@pytest.mark.parametrize("kind", ADVERSARIAL)
def test_adversarial(kind: str, kernel: int) -> None:
    """Within the worst case, not only on random data."""
    case = ConvCase((20, 20), (kernel, kernel), c=64, k=16, n=1, stride=(2, 2), padding=2)
    x, w = adversarial_inputs(case, kind)
    exact = oracles.taps_conv(case, x, w, None)
    magnitude = oracles.taps_conv(case, abs(x), abs(w), None)
    y = fastconv.conv2d(x, w, stride=(2, 2), padding=2, backend="cpp", algorithm=NAME)
    assert_close(y, exact, conv_tolerance(case, "cpp", NAME, "adversarial", magnitude), kind)


def test_few_roundings() -> None:
    """3x3: tiles of five points err less than F(4, 3) promises."""
    case = ConvCase((32, 32), (3, 3), c=128, k=32, n=1, stride=(2, 2), padding=1)
    x, w, b = conv_inputs(case, "normal")
    expected, magnitude = oracles.conv(case, "normal")
    y = fastconv.conv2d(x, w, b, **case.keywords, backend="cpp", algorithm=NAME)
    assert (abs(y - expected) / magnitude).max() < 7e-7  # F(2, 2) alone kept 5e-7; F(4, 2) is chosen for its speed
    assert abs(y - expected).max() / abs(expected).max() < 3e-6


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("activation", ["relu", "relu6", "silu"])
def test_residual_and_activation(activation: str, last: bool) -> None:
    """A plan adds before it activates, and within a bound on its workspace gives the same bits."""
    case = ConvCase((39, 27), (3, 3), c=40, k=21, stride=(2, 2), padding=1, channels_last=last)
    x, w, b = conv_inputs(case, "normal")
    expected, magnitude = oracles.conv(case, "normal")
    add = np.random.default_rng(1).standard_normal(expected.shape).astype(np.float32)
    keywords = {**case.keywords, "activation": activation, "algorithm": NAME, "backend": "cpp"}
    plan = fastconv.plan_conv2d(x.shape, w, b, **keywords)
    y = plan(x, add=add)
    z = expected + add
    right = {"relu": np.maximum(z, 0), "relu6": np.clip(z, 0, 6), "silu": z / (1 + np.exp(-z))}[activation]
    assert_close(y, right, 2 * conv_tolerance(case, "cpp", NAME, "normal", magnitude + abs(add)), activation)
    bounded = fastconv.plan_conv2d(x.shape, w, b, **keywords, workspace_limit=plan.workspace_bytes // 3)
    assert bounded.workspace_bytes <= plan.workspace_bytes // 3
    assert np.array_equal(bounded(x, add=add), y)


def test_refusals() -> None:
    """One sentence says why not."""
    x, w = np.ones((1, 4, 19, 19), np.float32), np.ones((4, 4, 3, 3), np.float32)
    for keywords, why in (
        ({"stride": 1}, "a stride of 2"),
        ({"stride": 3}, "a longer kernel"),
        ({"stride": 2, "dilation": 2}, "dilation 1"),
    ):
        with pytest.raises(fastconv.GeometryError, match=why):
            fastconv.conv2d(x, w, **keywords, backend="cpp", algorithm=NAME)
    for weight, why in ((w[:, :1], "groups=1"), (w[:, :, :2, :2], "a longer kernel")):
        groups = 4 // weight.shape[1]
        with pytest.raises(fastconv.GeometryError, match=why):
            fastconv.conv2d(x, weight, stride=(2, 2), groups=groups, backend="cpp", algorithm=NAME)


def check_chosen() -> None:
    """Many channels on large images take it, small ones and few pixels do not."""

    def chosen(c: int, k: int, size: int, kernel: int) -> str:
        w = np.ones((k, c, kernel, kernel), np.float32)
        return fastconv.plan_conv2d((1, c, size, size), w, stride=(2, 2), padding=kernel // 2, backend="cpp").algorithm

    assert chosen(128, 128, 56, 3) == chosen(64, 96, 56, 5) == chosen(64, 64, 56, 7) == NAME
    assert chosen(512, 512, 14, 3) == "direct"


@pytest.mark.skipif("avx512" not in isas(), reason="the choice is AVX-512's; matrix tiles come before it")
def test_chosen() -> None:
    run_with_isa("avx512", "import test_winograd_stride2 as t\nt.check_chosen()\nprint('right')")
