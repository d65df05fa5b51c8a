"""Poolings of small and narrow planes with many channels, where planes become lanes: windows worked out one by one."""

from __future__ import annotations

import functools
import math
from dataclasses import replace

import numpy as np
import oracles
import pytest
from support import REASONS, function

import fastconv
from fastconv.testing import PoolCase, assert_close, tolerance, values

pytestmark = pytest.mark.skipif(REASONS["cpp"] is not None, reason=f"backend cpp: {REASONS['cpp']}")

CASES = [
    PoolCase((9, 3), (3, 3), (1, 1), padding=1, c=37, n=3),
    PoolCase((9, 3), (3, 3), (1, 1), padding=1, c=37, n=3, count_include_pad=False),
    PoolCase((7, 7), (3, 3), (2, 2), padding=1, c=8, n=5, ceil_mode=True),
    PoolCase((1, 1), (3, 3), (2, 2), padding=1, c=24, n=3),
    PoolCase((6, 6), (5, 5), (1, 1), padding=2, c=40, n=2),
    PoolCase((14, 5), (2, 2), c=33),
    PoolCase((56, 2), (7, 7), (1, 1), padding=3, c=20),
    PoolCase((11, 4), (5, 3), (4, 3), padding=((2, 1), (0, 1)), c=17),
    PoolCase((6, 7, 2), (4, 4, 4), (1, 1, 1), padding=((1, 1), (2, 1), (2, 2)), c=12),
    PoolCase((4, 6, 5), (3, 2, 3), (2, 2, 2), padding=1, c=16, n=3),
    PoolCase((5, 6, 7), (3, 3, 3), c=9),
    PoolCase((41,), (7,), (4,), padding=3, c=24),
    PoolCase((90,), (5,), (3,), c=64, n=1),
    PoolCase((9, 5), (2, 3), (1, 1), dilation=(2, 2), c=40),
    PoolCase((3, 3), (2, 2), (2, 2), padding=((3, 3), (0, 0)), c=10),
]


def variants() -> list[PoolCase]:
    return CASES + [replace(case, dtype="float64") for case in CASES[::2]]


@pytest.mark.parametrize("case", variants(), ids=lambda c: c.name)
def test_turned(case: PoolCase) -> None:
    """Right, with the same bits for any threads and any place in a batch."""
    x = values("integers", case.x_shape, case.dtype, case.name)
    largest, terms = oracles.windows_max_pool(case, x)[0], math.prod(case.kernel)
    dy = values("integers", largest.shape, case.dtype, "dy")
    max_pool, max_gradient = function("max_pool", case.rank), function("max_pool", case.rank, "_backward")
    avg_pool, avg_gradient = function("avg_pool", case.rank), function("avg_pool", case.rank, "_backward")
    wide = tolerance(case.dtype, terms, np.full(x.shape, 3.0 * terms))
    before = fastconv.get_num_threads()
    seen = []
    for threads in (1, 3):
        fastconv.set_num_threads(threads)
        found = [max_pool(x, case.kernel, **case.max_keywords, backend="cpp")]
        assert_close(found[0], largest, 0, case.name)
        for ties in ("first", "all", "split"):
            found.append(max_gradient(dy, x, case.kernel, **case.max_keywords, ties=ties, backend="cpp"))
            expected = oracles.windows_max_pool_backward(case, x, dy, ties)
            assert_close(found[-1], expected, wide if ties == "split" else 0, f"{ties}, {case.name}")
        if not case.dilated:
            found.append(avg_pool(x, case.kernel, **case.avg_keywords, backend="cpp"))
            assert_close(found[-1], oracles.windows_avg_pool(case, x), tolerance(case.dtype, terms, abs(largest) + 3))
            found.append(avg_gradient(dy, x, case.kernel, **case.avg_keywords, backend="cpp"))
            assert_close(found[-1], oracles.windows_avg_pool_backward(case, dy), wide, case.name)
            one = avg_pool(x[-1:], case.kernel, **case.avg_keywords, backend="cpp")
            assert np.array_equal(one[0], found[-2][-1]), "the place in a batch changes the bits"
        seen.append(found)
    fastconv.set_num_threads(before)
    assert all(np.array_equal(a, b) for a, b in zip(*seen, strict=True)), "threads change the bits"


def test_nan_stays_in_its_plane() -> None:
    """Planes that are lanes of one vector know nothing of each other."""
    x = np.zeros((2, 19, 9, 3), np.float32)
    x[1, 7, 4, 1] = np.nan
    for pool in (fastconv.max_pool2d, fastconv.avg_pool2d):
        y = pool(x, 3, stride=1, padding=1, backend="cpp")
        expected = np.zeros(y.shape, bool)
        expected[1, 7, 3:6] = True
        assert np.array_equal(np.isnan(y), expected)


def test_chain() -> None:
    """Bits of an average over narrow planes do not depend on whether a pass makes it."""
    x = values("normal", (2, 16, 40, 6), "float32", "x")
    w = values("normal", (16, 1, 3, 3), "float32", "w")
    conv = fastconv.plan_conv2d(x.shape, w, padding=1, groups=16, backend="cpp")
    for kernel, stride in ((2, 2), (3, 1), (3, 2)):
        for pool in (fastconv.avg_pool2d, fastconv.max_pool2d):
            step = functools.partial(pool, kernel_size=kernel, stride=stride)
            assert np.array_equal(fastconv.plan_chain([conv, step])(x), step(conv(x)))
