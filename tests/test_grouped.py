"""Convolutions of many groups with few channels, against float64 oracles: groups that fill vectors and that do not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import oracles
import pytest
from support import REASONS, conv_tolerance, function

import fastconv
from fastconv.testing import ConvCase, assert_close, conv_inputs

pytestmark = pytest.mark.skipif(REASONS["cpp"] is not None, reason=f"backend cpp: {REASONS['cpp']}")

# (input channels, output channels) of a group, and how many groups
GROUPS = ((4, 4, 8), (4, 4, 7), (8, 8, 5), (3, 5, 4), (5, 3, 11), (1, 2, 19), (1, 3, 6), (2, 1, 9), (16, 16, 2),
          (6, 7, 3), (12, 4, 5), (40, 2, 3), (7, 16, 3))  # fmt: skip
CASES = [
    *(ConvCase((9, 19), (3, 3), c=c * g, k=k * g, padding=1, groups=g) for c, k, g in GROUPS),
    ConvCase((28, 30), (5, 5), c=24, k=24, padding=2, groups=6),
    ConvCase((14, 14), (3, 3), c=64, k=64, padding=1, groups=8, n=3),
    ConvCase((17, 40), (3, 3), c=16, k=8, padding=1, groups=4, stride=(2, 2)),
    ConvCase((17, 40), (3, 3), c=16, k=8, padding=2, groups=4, stride=(3, 1), dilation=(2, 1)),
    ConvCase((20, 33), (3, 5), c=12, k=8, padding=(3, 5), groups=4, dilation=(3, 2)),
    ConvCase((3, 7), (3, 3), c=8, k=8, padding=1, groups=2),
    # four groups of a vector and two, channels last: the last vector not full, rows of every block of pixels
    *(ConvCase((6, n), (3, 3), c=28, k=28, padding=1, groups=7, n=1) for n in (1, 5, 9, 13, 31)),
    ConvCase((13, 29), (3, 3), c=40, k=40, padding=1, groups=5, stride=(2, 2)),
    ConvCase((8, 15), (5, 3), c=18, k=24, padding=2, groups=3, dilation=(2, 1)),
    ConvCase((1, 1), (3, 3), c=8, k=8, padding=1, groups=2),
    ConvCase((11, 5), (1, 1), c=12, k=24, groups=4),
    ConvCase((11, 12), (4, 2), c=12, k=6, groups=3, padding=((2, 1), (0, 1))),
    ConvCase((301,), (9,), c=8, k=12, padding=4, groups=4),
    ConvCase((5, 200), (3, 3), c=8, k=8, padding=1, groups=2),
    ConvCase((21, 23), (9, 11), c=6, k=6, padding=5, groups=6),
    ConvCase((40, 45), (7, 7), c=4, k=8, padding=3, groups=4, stride=(2, 2)),
    ConvCase((5, 9, 18), (3, 3, 3), c=12, k=12, padding=1, groups=12),
    ConvCase((5, 9, 18), (3, 3, 3), c=12, k=8, padding=2, groups=4, dilation=(2, 1, 1)),
    ConvCase((9, 8, 20), (3, 5, 2), c=6, k=6, padding=1, groups=2, stride=(2, 2, 2)),
]


def variants() -> list[ConvCase]:
    both = [replace(case, channels_last=last) for case in CASES for last in (False, True)]
    return both + [replace(case, dtype="float64") for case in both[1::3]]


@pytest.mark.parametrize("case", variants(), ids=lambda c: c.name)
def test_grouped(case: ConvCase) -> None:
    """Exact on integers, near on random data; threads, batch and plans leave the bits alone."""
    conv, given = function("conv", case.rank), {**case.keywords, "backend": "cpp", "algorithm": "grouped"}
    x, w, b = conv_inputs(case, "integers")
    expected, magnitude = oracles.conv(case, "integers")
    try:
        y = conv(x, w, b, **given)
    except fastconv.GeometryError as error:
        pytest.skip(str(error))
    assert_close(y, expected, conv_tolerance(case, "cpp", "grouped", "integers", magnitude), case.name)
    x, w, b = conv_inputs(case, "normal")
    expected, magnitude = oracles.conv(case, "normal")
    fastconv.set_num_threads(1)
    y = conv(x, w, b, **given)
    assert_close(y, expected, conv_tolerance(case, "cpp", "grouped", "normal", magnitude), case.name)
    fastconv.set_num_threads(3)
    assert np.array_equal(conv(x, w, b, **given), y), "threads change the bits"
    assert np.array_equal(conv(x[-1:], w, b, **given)[0], y[-1]), "the place in a batch changes the bits"
    plan = getattr(fastconv, f"plan_conv{case.rank}d")(x.shape, w, b, **given, dtype=case.dtype)
    assert np.array_equal(plan(x), y), "a plan has other bits"


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("activation", [None, "relu", "relu6", "tanh"])
def test_residual_and_activation(last: bool, activation: str | None) -> None:
    case = ConvCase((9, 19), (3, 3), c=20, k=15, padding=1, groups=5, channels_last=last)
    x, w, b = conv_inputs(case, "normal")
    expected, magnitude = oracles.conv(case, "normal")
    extra = np.random.default_rng(1).standard_normal(expected.shape).astype(np.float32)
    plan = fastconv.plan_conv2d(x.shape, w, b, padding=1, groups=5, layout=case.layout, activation=activation,
                                algorithm="grouped", backend="cpp")  # fmt: skip
    z = expected + extra
    right = {None: z, "relu": np.maximum(z, 0), "relu6": np.clip(z, 0, 6), "tanh": np.tanh(z)}[activation]
    allowed = 2 * conv_tolerance(case, "cpp", "grouped", "normal", magnitude + abs(extra))
    assert_close(plan(x, add=extra), right, allowed)


@pytest.mark.parametrize("mode", ["edge", "reflect", "symmetric", "wrap"])
def test_padding_modes(mode: str) -> None:
    case = ConvCase(
        (9, 13), (3, 5), c=20, k=15, padding=((3, 1), (0, 4)), groups=5, padding_mode=mode, channels_last=True
    )
    x, w, b = conv_inputs(case, "normal")
    expected, magnitude = oracles.conv(case, "normal")
    y = fastconv.conv2d(x, w, b, **case.keywords, backend="cpp", algorithm="grouped")
    assert_close(y, expected, conv_tolerance(case, "cpp", "grouped", "normal", magnitude))


@pytest.mark.parametrize("last", [False, True])
def test_nan_stays_where_it_is(last: bool) -> None:
    """One NaN reaches the windows over it and its own group only."""
    x = np.ones((1, 9, 40, 12), np.float32) if last else np.ones((1, 12, 9, 40), np.float32)
    x[(0, 4, 17, 5) if last else (0, 5, 4, 17)] = np.nan
    w = np.ones((3, 3, 3, 8), np.float32) if last else np.ones((8, 3, 3, 3), np.float32)
    y = fastconv.conv2d(x, w, padding=1, groups=4, layout="NHWC" if last else None, backend="cpp", algorithm="grouped")
    y = y if last else np.moveaxis(y, 1, -1)
    expected = np.zeros((1, 9, 40, 8), bool)
    expected[:, 3:6, 16:19, 2:4] = True
    assert np.array_equal(np.isnan(y), expected)


def test_refusals() -> None:
    x, w = np.ones((1, 4, 60, 60), np.float32), np.ones((4, 4, 3, 3), np.float32)
    with pytest.raises(fastconv.GeometryError, match="needs groups"):
        fastconv.conv2d(x, w, backend="cpp", algorithm="grouped")
    with pytest.raises(fastconv.GeometryError, match="stride of 1 or 2"):
        fastconv.conv2d(x, w[:, :2], groups=2, stride=3, backend="cpp", algorithm="grouped")
