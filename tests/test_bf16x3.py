"""float32 on matrix tiles: numbers that have no thirds, and the greatest, give what `direct` gives."""

from __future__ import annotations

import time

import numpy as np
import pytest
from support import REASONS

import fastconv

pytestmark = pytest.mark.skipif(REASONS["cpp"] is not None, reason=f"backend cpp: {REASONS['cpp']}")
CASES = [(33, 17, 1, 1, 0), (16, 33, 3, 2, 1), (40, 5, 2, 1, 1)]
GREATEST = float(np.finfo(np.float32).max)


@pytest.fixture(autouse=True)
def tiles() -> None:
    plan = fastconv.plan_conv2d((1, 1, 3, 3), np.ones((1, 1, 1, 1), np.float32), backend="cpp")
    reason = next(c.why_not for c in plan.candidates() if c.name == "bf16x3")
    if reason is not None:
        pytest.skip(reason)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("case", CASES, ids=str)
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


def test_nan_everywhere_is_quick() -> None:
    """Outputs that a NaN reaches are not computed again to the last term: that took a thousand times as long."""
    x, weight = np.ones((1, 256, 28, 28), np.float32), np.ones((256, 256, 3, 3), np.float32)
    spoilt, bias = np.full_like(x, np.nan), np.full(256, np.nan, np.float32)
    start = time.perf_counter()
    for image, b in ((spoilt, None), (x, bias)):
        assert np.isnan(fastconv.conv2d(image, weight, b, padding=1, algorithm="bf16x3")).all()
    assert time.perf_counter() - start < 1


def test_long_rows_keep_to_little_scratch() -> None:
    """A row of outputs is not cut: scratch of many times the input, read once by each thread."""
    weight = np.ones((32, 32, 8), np.float32)
    plan = fastconv.plan_conv1d((1, 32, 400_000), weight, stride=4)
    assert plan.algorithm != "bf16x3"
    assert fastconv.plan_conv1d((1, 32, 2_000), weight, stride=4, algorithm="bf16x3").workspace_bytes < 2**23


@pytest.mark.parametrize("shape", [(1, 64, 3, 2**36), (1, 64, 2**36, 3)])
@pytest.mark.parametrize("stride", [1, 2])
def test_plans_of_huge_images_are_quick(shape: tuple[int, ...], stride: int) -> None:
    weight = np.ones((64, 64, 3, 3), np.float32)
    start = time.perf_counter()
    plan = fastconv.plan_conv2d(shape, weight, stride=stride, padding=1)
    assert plan.workspace_bytes < 2**30
    assert time.perf_counter() - start < 2
