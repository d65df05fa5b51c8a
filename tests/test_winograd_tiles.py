"""Winograd tiles of any kernel, in one to three dimensions and dilated: every way to cut, against float64 oracles."""

from __future__ import annotations

import numpy as np
import oracles
import pytest
from support import ADVERSARIAL, REASONS, adversarial_inputs, conv_tolerance, function

import fastconv
from fastconv.testing import ConvCase, assert_close, conv_inputs

pytestmark = pytest.mark.skipif(REASONS["cpp"] is not None, reason=f"backend cpp: {REASONS['cpp']}")
ALGORITHMS = ("winograd_tile6", "winograd_tile8")

# kernels for every F(m, r) and for groups of taps; sizes that fill tiles and that do not; channels around the vectors
CASES = [
    ConvCase((101,), (2,), c=17, k=33),
    ConvCase((130,), (3,), c=64, k=16, padding=1),
    ConvCase((97,), (9,), c=16, k=31, padding=16, dilation=(4,)),
    ConvCase((300,), (65,), c=5, k=8, n=1, padding=32),
    ConvCase((600,), (3,), c=9, k=8, n=1, padding=100, dilation=(100,)),
    ConvCase((29, 31), (2, 2), c=16, k=24, padding=1),
    ConvCase((28, 28), (3, 3), c=48, k=20, padding=2, dilation=(2, 2)),
    ConvCase((33, 33), (3, 3), c=24, k=37, n=1, padding=12, dilation=(12, 12)),
    ConvCase((17, 23), (4, 4), c=13, k=17, padding="same"),
    ConvCase((23, 37), (5, 5), c=33, k=40, padding=2),
    ConvCase((12, 40), (6, 7), c=16, k=8, padding=3, n=1),
    ConvCase((40, 23), (9, 11), c=8, k=16, padding=5, n=1),
    ConvCase((31, 45), (15, 15), c=3, k=8, padding=7, n=1),
    ConvCase((25, 23), (1, 7), c=33, k=16, padding=(0, 3)),
    ConvCase((25, 23), (7, 1), c=33, k=16, padding=(3, 0)),
    ConvCase((21, 30), (5, 3), c=16, k=8, padding=1, dilation=(1, 3), stride=(2, 1)),
    ConvCase((20, 21), (3, 3), c=16, k=8, padding=1, stride=(1, 2)),
    ConvCase((19, 21), (3, 3), c=300, k=3, padding=1, n=1),
    ConvCase((8, 20, 21), (3, 3, 3), c=16, k=32, padding=1, n=1),
    ConvCase((5, 6, 7), (3, 3, 3), c=5, k=7, padding=1, dilation=(2, 1, 2)),
    ConvCase((9, 14, 14), (3, 3, 3), c=16, k=8, padding=1, stride=(2, 1, 1)),
    ConvCase((4, 9, 10), (2, 1, 5), c=3, k=4, padding=(1, 0, 2)),
    # groups of a vector, of parts of one (the last vector not full), of more than one, and of unequal sizes
    ConvCase((23, 30), (3, 3), c=48, k=48, padding=1, groups=3),
    ConvCase((14, 14), (3, 3), c=40, k=40, padding=1, groups=5),
    ConvCase((9, 13), (5, 5), c=24, k=36, padding=2, groups=6),
    ConvCase((17, 12), (3, 2), c=66, k=80, padding=(0, 1), groups=2),
    ConvCase((21, 22), (3, 3), c=20, k=28, padding=3, dilation=(3, 3), groups=4),
    ConvCase((131,), (3,), c=36, k=36, padding=1, groups=4),
]


def variants() -> list[ConvCase]:
    """Both layouts and both dtypes."""
    from dataclasses import replace

    both = [replace(case, channels_last=last) for case in CASES for last in (False, True)]
    return both + [replace(case, dtype="float64") for case in both[1::3]]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("case", variants(), ids=lambda c: c.name)
def test_random(case: ConvCase, algorithm: str) -> None:
    """Within the promise; the same bits on one thread and on three, and alone or in a batch."""
    x, w, b = conv_inputs(case, "normal")
    conv = function("conv", case.rank)
    results = []
    for threads in (1, 3):
        fastconv.set_num_threads(threads)
        results.append(conv(x, w, b, **case.keywords, backend="cpp", algorithm=algorithm))
    expected, magnitude = oracles.conv(case, "normal")
    assert_close(results[0], expected, conv_tolerance(case, "cpp", algorithm, "normal", magnitude), case.name)
    assert np.array_equal(results[0], results[1]), "threads change the bits"
    alone = conv(x[-1:], w, b, **case.keywords, backend="cpp", algorithm=algorithm)
    assert np.array_equal(alone[0], results[0][-1]), "the place in a batch changes the bits"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("case", [c for c in CASES if c.c <= 40][1::2] + CASES[-5:-3], ids=lambda c: c.name)
def test_not_finite(case: ConvCase, value: float) -> None:
    """One pixel that is not finite, or overflows in a transform, reaches its windows and no other output."""
    x, w, b = conv_inputs(case, "normal")
    x = x.copy()
    middle = tuple(n // 2 for n in case.size)
    x[(0, 1, *middle)] = value
    conv = function("conv", case.rank)
    plain = conv(x, w, b, **case.keywords, backend="cpp", algorithm="direct")
    with np.errstate(invalid="ignore", over="ignore"):
        for algorithm in ALGORITHMS:
            y = conv(x, w, b, **case.keywords, backend="cpp", algorithm=algorithm)
            finite = np.isfinite(plain)
            assert np.array_equal(np.isfinite(y), finite)
            assert np.array_equal(y[~finite], plain[~finite], equal_nan=True)
            if value != 3e38:
                assert_close(y[finite], plain[finite], 1e-4 * abs(plain[finite]).max())


@pytest.mark.parametrize("mode", ["edge", "reflect", "symmetric", "wrap"])
@pytest.mark.parametrize("last", [False, True])
def test_padding_modes(mode: str, last: bool) -> None:
    for case in (
        ConvCase((13, 11), (5, 5), c=9, k=7, padding=((3, 1), (0, 4)), padding_mode=mode, channels_last=last),
        ConvCase((13, 19), (3, 3), c=9, k=7, padding=5, dilation=(3, 2), padding_mode=mode, channels_last=last),
        ConvCase((6, 7, 9), (3, 3, 3), c=4, k=7, padding=2, padding_mode=mode, channels_last=last),
    ):
        x, w, b = conv_inputs(case, "normal")
        expected, magnitude = oracles.conv(case, "normal")
        for algorithm in ALGORITHMS:
            y = function("conv", case.rank)(x, w, b, **case.keywords, backend="cpp", algorithm=algorithm)
            assert_close(y, expected, conv_tolerance(case, "cpp", algorithm, "normal", magnitude), case.name)


@pytest.mark.parametrize("kind", ADVERSARIAL)
def test_adversarial(kind: str) -> None:
    """Within the worst case, not only on random data."""
    case = ConvCase((20, 20), (5, 5), c=64, k=16, n=1, padding=2)
    x, w = adversarial_inputs(case, kind)
    exact = oracles.taps_conv(case, x, w, None)
    magnitude = oracles.taps_conv(case, abs(x), abs(w), None)
    for algorithm in ALGORITHMS:
        y = fastconv.conv2d(x, w, padding=2, backend="cpp", algorithm=algorithm)
        assert_close(y, exact, conv_tolerance(case, "cpp", algorithm, "adversarial", magnitude), kind)


def test_residual_and_activation() -> None:
    """A plan adds before it activates, in tiles too."""
    case = ConvCase((19, 23), (5, 5), c=12, k=21, padding=2)
    x, w, b = conv_inputs(case, "normal")
    expected, magnitude = oracles.conv(case, "normal")
    for last in (False, True):
        arrays = (
            [np.ascontiguousarray(np.moveaxis(x, 1, -1)), np.ascontiguousarray(w.transpose(2, 3, 1, 0))]
            if last
            else [x, w]
        )
        for activation in ("relu", "relu6", "silu"):
            plan = fastconv.plan_conv2d(arrays[0].shape, arrays[1], b, padding=2, layout="NHWC" if last else None,
                                        activation=activation, algorithm="winograd_tile8", backend="cpp")  # fmt: skip
            extra = np.random.default_rng(1).standard_normal(expected.shape).astype(np.float32)
            add = np.ascontiguousarray(np.moveaxis(extra, 1, -1)) if last else extra
            y = plan(arrays[0], add=add)
            y = np.moveaxis(y, -1, 1) if last else y
            z = expected + extra
            right = {"relu": np.maximum(z, 0), "relu6": np.clip(z, 0, 6), "silu": z / (1 + np.exp(-z))}[activation]
            assert_close(y, right, 2 * conv_tolerance(case, "cpp", "winograd_tile8", "normal", magnitude + abs(extra)))


def test_refusals() -> None:
    """One sentence says why not."""
    x, w = np.ones((1, 4, 9, 9), np.float32), np.ones((4, 4, 3, 3), np.float32)
    with pytest.raises(fastconv.GeometryError, match="stride 1"):
        fastconv.conv2d(x, w, stride=2, backend="cpp", algorithm="winograd_tile6")
    with pytest.raises(fastconv.GeometryError, match="four channels a group"):
        fastconv.conv2d(x, w[:, :1], groups=4, backend="cpp", algorithm="winograd_tile8")
