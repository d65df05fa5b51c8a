"""Problems with taps that only see padding, or with axes of length one: what they are reduced to is right.

The oracles take every tap on its own and know of no reduction.
"""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import oracles
import pytest
from support import REASONS, algorithms, conv_tolerance, function, run_or_skip

import fastconv
from fastconv.testing import ConvCase, assert_close, conv_inputs, values

pytestmark = pytest.mark.skipif(REASONS["cpp"] is not None, reason=f"backend cpp: {REASONS['cpp']}")

CASES = [
    ConvCase((1, 1), (3, 3), c=37, k=20, padding=1, n=3),
    ConvCase((1, 1), (7, 7), c=6, k=8, padding=3, groups=2),
    ConvCase((1, 1), (5, 3), c=9, k=9, padding=(2, 1), groups=9, n=2),
    ConvCase((2, 1), (7, 7), c=5, k=3, padding=((6, 0), (1, 5))),
    ConvCase((9, 1), (3, 3), c=13, k=4, padding=4, dilation=(4, 4)),
    ConvCase((1, 9), (7, 7), c=5, k=6, padding=24, dilation=(8, 8)),
    ConvCase((58, 1), (7, 7), c=16, k=2, padding=(0, 3)),
    ConvCase((3, 2), (5, 5), c=3, k=7, padding=4, stride=(3, 2)),
    ConvCase((3, 3), (4, 4), c=3, k=7, padding=((7, 2), (0, 9)), stride=(5, 4)),
    ConvCase((33, 3), (5, 1), c=12, k=6, padding=(2, 0)),
    ConvCase((33, 3), (5, 1), c=12, k=12, padding=((1, 4), (0, 0)), groups=12),
    ConvCase((20, 7), (3, 1), c=24, k=18, padding=(2, 0), dilation=(2, 1), n=2),
    ConvCase((20, 7), (3, 1), c=24, k=18, stride=(2, 1)),
    ConvCase((5, 1, 4), (3, 3, 3), c=4, k=6, padding=1, n=2),
    ConvCase((6, 7, 1), (3, 3, 3), c=8, k=8, padding=1, groups=8),
    ConvCase((2, 36, 7), (5, 1, 1), c=6, k=6, padding=(2, 0, 0), groups=6),
    ConvCase((4, 9, 11), (1, 3, 3), c=5, k=6, padding=(0, 1, 1), n=2),
    ConvCase((4, 9, 11), (1, 3, 3), c=6, k=6, padding=(0, 1, 1), groups=6, stride=(1, 2, 2)),
    ConvCase((4, 9, 11), (1, 1, 5), c=5, k=6, padding=(0, 0, 2)),
    ConvCase((4, 1, 1), (7, 7, 7), c=3, k=2, padding=3),
    ConvCase((7,), (15,), c=4, k=6, padding=14),
    ConvCase((1,), (4,), c=4, k=6, padding=((3, 2),), n=4),
    ConvCase((2, 2), (3, 3), c=4, k=6, padding=((9, 0), (3, 0)), stride=(4, 1)),
]


def drawn(count: int) -> list[ConvCase]:
    """Small images below large, dilated, strided kernels with more padding than there is image."""
    draw, found = random.Random(5), []
    while len(found) < count:
        rank = draw.choice((1, 2, 2, 3))
        size = tuple(draw.choice((1, 1, 2, 3, 6, 11)) for _ in range(rank))
        kernel = tuple(draw.choice((1, 1, 2, 3, 5)) for _ in range(rank))
        stride, dilation = (tuple(draw.choice((1, 1, 2, 3)) for _ in range(rank)) for _ in range(2))
        padding = tuple((draw.randrange(0, 8), draw.randrange(0, 8)) for _ in range(rank))
        if draw.random() < 0.3:
            padding = ((0, 0),) * rank
        groups = draw.choice((1, 1, 2, 5))
        c, k = draw.choice(((1, 1), (2, 3), (1, 2), (4, 4)))
        case = ConvCase(size, kernel, c=c * groups, k=k * groups, padding=padding, stride=stride, dilation=dilation,
                        groups=groups, n=draw.choice((1, 3)), channels_last=draw.random() < 0.5)  # fmt: skip
        if all(n + lo + hi > d * (m - 1) for n, (lo, hi), d, m in zip(size, padding, dilation, kernel, strict=True)):
            found.append(case)
    return found


def variants() -> list[ConvCase]:
    both = [replace(case, channels_last=last) for case in CASES for last in (False, True)]
    return both + [replace(case, dtype="float64") for case in both[1::3]] + drawn(60)


@pytest.mark.parametrize("algorithm", ["auto", *algorithms("cpp")])
@pytest.mark.parametrize("case", variants(), ids=lambda c: c.name)
def test_forward(case: ConvCase, algorithm: str) -> None:
    """Right, with the same bits for any threads, any place in a batch, and by a plan."""
    conv, given = function("conv", case.rank), {**case.keywords, "backend": "cpp", "algorithm": algorithm}
    x, w, b = conv_inputs(case, "integers")
    expected, magnitude = oracles.conv(case, "integers")
    fastconv.set_num_threads(1)
    y = run_or_skip(conv, x, w, b, **given)
    assert_close(y, expected, conv_tolerance(case, "cpp", algorithm, "integers", magnitude), case.name)
    fastconv.set_num_threads(3)
    assert np.array_equal(conv(x, w, b, **given), y), "threads change the bits"
    assert np.array_equal(conv(x[-1:], w, b, **given)[0], y[-1]), "the place in a batch changes the bits"
    plan = getattr(fastconv, f"plan_conv{case.rank}d")(x.shape, w, b, **given, dtype=case.dtype)
    assert np.array_equal(plan(x), y), "a plan has other bits"
    plan.update(2 * w, b)
    assert_close(plan(x) - y, expected - b.reshape(-1, *(1,) * (0 if case.channels_last else case.rank)),
                 2 * conv_tolerance(case, "cpp", algorithm, "integers", magnitude), "new weights")  # fmt: skip


@pytest.mark.parametrize("case", variants(), ids=lambda c: c.name)
def test_gradients(case: ConvCase) -> None:
    """Right after rounding; the gradient to a tap that only sees zeros is zero."""
    x, w, _ = conv_inputs(case, "integers")
    dy, expected, magnitudes = oracles.conv_gradients(case, "integers")
    for threads in (1, 3):
        fastconv.set_num_threads(threads)
        found = function("conv", case.rank, "_backward")(dy, x, w, **case.keywords, backend="cpp")
        for name, result, right in zip(found._fields, found, expected, strict=True):
            assert_close(np.rint(result), right, 0, f"{name} of {case.name}")
    assert not found.weight[magnitudes[1] == 0].any()


def test_transposed() -> None:
    """Images of few pixels, where most taps of every phase leave the input."""
    for case in drawn(80):
        case = replace(case, padding=0, transposed=True)
        x, w, b = conv_inputs(case, "integers")
        y = function("conv_transpose", case.rank)(x, w, b, **case.keywords, backend="cpp")
        expected, _ = oracles.conv_transpose(case, "integers")
        assert_close(np.rint(y), expected, 0, case.name)


def test_padding_modes_keep_their_taps() -> None:
    """Copies of pixels are no zeros."""
    for mode in ("edge", "reflect", "symmetric", "wrap"):
        for last in (False, True):
            case = ConvCase((1, 4), (5, 7), c=4, k=6, padding=(3, 5), padding_mode=mode, channels_last=last)
            x, w, b = conv_inputs(case, "integers")
            assert_close(np.rint(fastconv.conv2d(x, w, b, **case.keywords, backend="cpp")),
                         oracles.conv(case, "integers")[0], 0, case.name)  # fmt: skip


@pytest.mark.parametrize("last", [False, True])
def test_chain(last: bool) -> None:
    """Steps whose kernels reach over the whole image, joined or apart: the bits of the steps one by one."""
    layout = "NHWC" if last else "NCHW"
    x = values("normal", (2, 5, 9, 16) if last else (2, 16, 5, 9), "float32", "chain")
    plans, y = [], x
    for kernel, groups, stride in ((13, 16, 1), (3, 1, 1), (3, 16, 3), (5, 16, 1)):
        shape = (kernel, kernel, 16 // groups, 16) if last else (16, 16 // groups, kernel, kernel)
        w = values("normal", shape, "float32", f"chain{kernel}")
        plan = fastconv.plan_conv2d(y.shape, w, stride=stride, padding=kernel // 2, groups=groups, layout=layout,
                                    backend="cpp")  # fmt: skip
        plans.append(plan)
        y = plan(y)
    assert np.array_equal(fastconv.plan_chain(plans)(x), y)


@pytest.mark.parametrize("last", [False, True])
def test_describe_and_workspace(last: bool) -> None:
    """A reduced problem keeps within a limit like any other, and says what takes it."""
    w = values("normal", (3, 3, 64, 64) if last else (64, 64, 3, 3), "float32", "w")
    shape = (1, 1, 1, 64) if last else (1, 64, 1, 1)
    given = {"padding": 1, "layout": "NHWC" if last else "NCHW", "backend": "cpp"}
    plan = fastconv.plan_conv2d(shape, w, **given, workspace_limit=1 << 14)
    assert plan.workspace_bytes <= 1 << 14
    assert plan.algorithm in plan.describe()
    assert fastconv.plan_conv2d(shape, w, **given, algorithm="pointwise").algorithm == "pointwise"


@pytest.mark.parametrize("algorithm", ["auto", *algorithms("cpp")])
def test_a_depth_of_padding_alone(algorithm: str) -> None:
    """The one plane of the result sees none of the input's: nothing but the bias."""
    case = ConvCase((1, 5, 6), (1, 3, 3), c=3, k=3, stride=(3, 1, 1), padding=((2, 0), (1, 1), (1, 1)))
    x, w, b = conv_inputs(case, "integers")
    y = run_or_skip(fastconv.conv3d, x, w, b, **case.keywords, backend="cpp", algorithm=algorithm)
    assert np.array_equal(y, np.broadcast_to(b[:, None, None, None], y.shape))
