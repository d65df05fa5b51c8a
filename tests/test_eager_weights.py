"""Calls read their weights where they are or keep a packed copy by fingerprint; plans pack them: the same bits."""

from __future__ import annotations

import numpy as np
import oracles
import pytest
from support import REASONS, run_with_isa
from test_isa import isas

import fastconv
from fastconv.testing import ConvCase, conv_inputs

pytestmark = pytest.mark.skipif(REASONS["cpp"] is not None, reason=f"backend cpp: {REASONS['cpp']}")

SIZES = [
    ((7, 7), (1, 1), 160, 96, 1, 1),
    ((7, 7), (1, 1), 600, 64, 1, 1),
    ((9, 8), (1, 1), 97, 48, 2, 1),
    ((14, 14), (1, 1), 64, 40, 1, 1),
    ((6, 7), (3, 3), 120, 32, 2, 1),
    ((5, 6), (3, 3), 17, 16, 1, 1),
    ((9, 9), (3, 2), 64, 64, 2, 2),
    ((7, 7), (1, 1), 1024, 544, 1, 1),  # more than the second cache level holds
]


def check(case: ConvCase) -> None:
    """Integers, so that the right answer is exact; then other numbers, of which plan and call give the same bits."""
    for numbers in ("integers", "normal"):
        x, w, b = conv_inputs(case, numbers)
        plan = fastconv.plan_conv2d(x.shape, w, b, **case.keywords, backend="cpp", algorithm="direct", dtype=case.dtype)
        planned = plan(x)
        if numbers == "integers":
            assert np.array_equal(planned, oracles.taps_conv(case, x, w, b)), case.name
        before = fastconv.get_num_threads()
        for threads in (1, 2):
            fastconv.set_num_threads(threads)
            y = fastconv.conv2d(x, w, b, **case.keywords, backend="cpp", algorithm="direct")
            fastconv.set_num_threads(before)
            assert np.array_equal(y, planned), (case.name, threads)
        w.flat[w.size // 2] += 1  # one weight changes in place
        plan.update(w, b)
        y = fastconv.conv2d(x, w, b, **case.keywords, backend="cpp", algorithm="direct")
        assert np.array_equal(y, plan(x)), case.name
        assert not np.array_equal(y, planned), case.name


def cases() -> list[ConvCase]:
    return [
        ConvCase(size, kernel, c=c, k=k, n=n, stride=(stride,) * 2, padding=((kernel[0] // 2,) * 2,) * 2, groups=groups,
                 channels_last=last, dtype=dtype)
        for size, kernel, c, k, stride, groups in SIZES
        for last in (True, False)
        for dtype, n in (("float32", 1), ("float32", 3), ("float64", 1))
        if c * k < 500_000 or (n == 1 and dtype == "float32")
    ]  # fmt: skip


def test_the_last_call_is_known_by_its_arguments_and_its_arrays() -> None:
    """A call with the settings of the one before, but other arrays: shapes, dtypes, batch, bias, classes."""
    rng = np.random.default_rng(0)
    x = rng.integers(-3, 4, (2, 3, 6, 6)).astype(np.float32)
    w = rng.integers(-3, 4, (4, 3, 3, 3)).astype(np.float32)
    b = np.arange(4, dtype=np.float32)
    padding = [1, 1]
    calls = [
        (x, w, b), (x[0], w, b), (x, w, None), (x[:1], w, b), (x[..., :4].copy(), w, b), (x.astype(np.float64), w, b),
        (x, w.astype(np.float64), b), (x, w, b.astype(np.float64)), (x[:, :, ::-1], w, b), (x.tolist(), w, b),
        (x, w[:2].copy(), b[:2].copy()), (x[:, :1].copy(), w.transpose(1, 0, 2, 3)[:, :1].copy(), b[:3].copy()),
    ]  # fmt: skip
    for _ in range(2):
        for given in calls:
            for pad in (1, (1, 1), padding, "same"):
                y = fastconv.conv2d(*given, padding=pad, backend="cpp")
                wanted = fastconv.conv2d(*given, padding=pad, backend="reference")
                assert y.dtype == wanted.dtype
                assert np.array_equal(y, wanted)
    y = fastconv.conv2d(x, w, b, padding=padding, backend="cpp")
    padding[0] = 0  # the same object, another value
    assert fastconv.conv2d(x, w, b, padding=padding, backend="cpp").shape == (2, 4, 4, 6) != y.shape
    with pytest.raises(fastconv.GeometryError):
        fastconv.conv2d(x, w.reshape(3, 4, 3, 3), b, padding=1, backend="cpp")


@pytest.mark.parametrize("case", cases(), ids=lambda c: c.name)
def test_the_bits_of_a_plan(case: ConvCase) -> None:
    check(case)


@pytest.mark.parametrize("isa", isas() or ["none"])
def test_with_instruction_set(isa: str) -> None:
    run_with_isa(isa, "import test_eager_weights as t\nfor case in t.cases(): t.check(case)\nprint('right')")
