"""1x1 convolutions: panels of pixels and tiles of channels, whatever is left over of them, and what follows the sum.

Integer values, so that the right answer is exact and every way to it gives the same bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support import REASONS

import fastconv

pytestmark = pytest.mark.skipif(REASONS["cpp"] is not None, reason=f"backend cpp: {REASONS['cpp']}")

# Channels in and out, rows, columns, stride, groups.
SHAPES = [
    (7, 29, 7, 7, 1, 1),  # a pixel beside three vectors
    (600, 31, 7, 7, 1, 1),  # and sums that wait between blocks of channels
    (37, 53, 31, 31, 1, 1),  # primes
    (16, 45, 24, 40, 1, 1),  # tiles that share a panel
    (5, 3, 1, 17, 1, 1),
    (300, 14, 4, 4, 1, 1),
    (13, 1, 15, 15, 1, 1),
    (24, 28, 9, 9, 1, 4),
    (30, 40, 21, 19, 2, 2),
    (9, 17, 29, 40, 2, 1),
    (11, 5, 14, 13, 3, 1),
    (64, 64, 9, 9, 1, 1),  # channels last: tiles of 64 channels,
    (40, 117, 7, 7, 1, 1),  # and of what is left of them,
    (33, 80, 15, 14, 2, 1),  # of gathered pixels,
    (700, 512, 9, 11, 1, 1),  # and weights that leave L2 no room
    (640, 448, 13, 13, 2, 1),
    (2101, 83, 5, 9, 1, 1),  # and chains that take several passes
]


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_panels(shape: tuple[int, ...], dtype: type, layout: str) -> None:
    channels, out_channels, rows, columns, stride, groups = shape
    rng = np.random.default_rng(sum(shape))
    x, add, weight, bias = (
        rng.integers(-4, 5, size).astype(dtype)
        for size in (
            (3, channels, rows, columns),
            (3, out_channels, -(-rows // stride), -(-columns // stride)),
            (out_channels, channels // groups, 1, 1),
            (out_channels,),
        )
    )
    seen = x[:, :, ::stride, ::stride].reshape(3, groups, channels // groups, -1).astype(np.float64)
    products = np.einsum("gkc,ngcp->ngkp", weight.reshape(groups, -1, channels // groups).astype(np.float64), seen)
    plain = products.reshape(add.shape) + bias[:, None, None]
    if layout == "NHWC":
        x, add, plain = (np.ascontiguousarray(a.transpose(0, 2, 3, 1)) for a in (x, add, plain))
        weight = np.ascontiguousarray(weight.transpose(2, 3, 1, 0))
    want = {None: plain, "relu": np.maximum(plain, 0), "relu6": np.clip(plain, 0, 6)}
    before = fastconv.get_num_threads()
    try:
        for activation, right in want.items():
            how: dict[str, Any] = {
                "stride": stride,
                "groups": groups,
                "algorithm": "pointwise",
                "activation": activation,
                "layout": layout,
            }
            plan = fastconv.plan_conv2d(x.shape, weight, bias, dtype=np.dtype(dtype).name, **how)
            for threads in (1, 2):
                fastconv.set_num_threads(threads)
                np.testing.assert_array_equal(plan(x), right)
                np.testing.assert_array_equal(fastconv.conv2d(x, weight, bias, **how), right)
                np.testing.assert_array_equal(plan(x[1:2]), right[1:2])
        plan = fastconv.plan_conv2d(
            x.shape,
            weight,
            None,
            stride=stride,
            groups=groups,
            dtype=np.dtype(dtype).name,
            algorithm="pointwise",
            activation="relu6",
            layout=layout,
        )
        sums = plain - bias if layout == "NHWC" else plain - bias[:, None, None]
        np.testing.assert_array_equal(plan(x, add=add), np.clip(sums + add, 0, 6))
    finally:
        fastconv.set_num_threads(before)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite_stays_in_its_pixel(value: float) -> None:
    rng = np.random.default_rng(3)
    x = rng.standard_normal((1, 40, 7, 7), dtype=np.float32)
    weight = rng.standard_normal((33, 40, 1, 1), dtype=np.float32)
    plan = fastconv.plan_conv2d(x.shape, weight, algorithm="pointwise")
    clean = plan(x).copy()
    for pixel in ((6, 6), (2, 1)):
        dirty = x.copy()
        dirty[0, 5][pixel] = value
        got = plan(dirty)
        np.testing.assert_array_equal(got, fastconv.conv2d(dirty, weight, algorithm="pointwise"))
        assert not np.isfinite(got[0, :, pixel[0], pixel[1]]).any()
        got[0, :, pixel[0], pixel[1]] = clean[0, :, pixel[0], pixel[1]]
        np.testing.assert_array_equal(got, clean)
