"""1x1 of few pixels and kernels as large as the image: weights read in place, one product for all images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support import REASONS, run_with_isa
from test_isa import isas

import fastconv

pytestmark = pytest.mark.skipif(REASONS["cpp"] is not None, reason=f"backend cpp: {REASONS['cpp']}")

# Channels, size of the image and of the kernel, channels out.
SHAPES = [
    (37, (1, 1), 1, 19),
    (600, (1, 1), 1, 131),
    (330, (2, 3), 1, 40),
    (21, (4, 5), (4, 5), 35),
    (65, (1, 1), 3, 33),
]

# a process of its own, since the choice is made when the module loads
PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
import test_few_pixels as t
for shape in t.SHAPES:
    for layout in ("NCHW", "NHWC"):
        t.check(shape, layout, "float32")
print("right")
"""


def problem(shape, layout, dtype, batch, seed=0):
    channels, size, kernel, out = shape
    kernel = (kernel, kernel) if isinstance(kernel, int) else kernel
    rng = np.random.default_rng(seed)
    x = rng.integers(-4, 5, (batch, channels, *size)).astype(dtype)
    w = rng.integers(-4, 5, (out, channels, *kernel)).astype(dtype)
    b = rng.integers(-4, 5, out).astype(dtype)
    if kernel == size or kernel == (1, 1):
        seen = x.reshape(batch, -1, 1) if kernel == size else x.reshape(batch, channels, -1)
        right = np.einsum("kc,ncp->nkp", w.reshape(out, -1), seen) + b[:, None]
    else:  # the middle tap alone sees the pixel
        right = np.einsum("kc,ncp->nkp", w[:, :, 1, 1], x.reshape(batch, channels, 1)) + b[:, None]
    right = right.reshape(batch, out, *(size if kernel == (1, 1) else (1, 1)))
    if layout == "NHWC":
        x, right, w = x.transpose(0, 2, 3, 1).copy(), right.transpose(0, 2, 3, 1), w.transpose(2, 3, 1, 0).copy()
    return x, w, b, right, {"layout": layout, "padding": 1 if kernel == (3, 3) else 0, "backend": "cpp"}


def check(shape, layout, dtype):
    """Exact on integers, elsewhere the same bits from calls, plans, threads, any batch, nothing beside ``out``."""
    before = fastconv.get_num_threads()
    try:
        for batch in (1, 2, 7, 16, 17, 30):
            x, w, b, right, given = problem(shape, layout, dtype, batch)
            np.testing.assert_array_equal(fastconv.conv2d(x, w, b, **given), right)
            x = x / 7 + np.asarray(0.1, dtype)
            w = w / 3
            plan = fastconv.plan_conv2d(x.shape, w, b, dtype=dtype, **given)
            fastconv.set_num_threads(1)
            want = plan(x)
            for threads in (1, 2):
                fastconv.set_num_threads(threads)
                np.testing.assert_array_equal(fastconv.conv2d(x, w, b, **given), want)
                np.testing.assert_array_equal(fastconv.conv2d(x[-1:], w, b, **given), want[-1:])
                np.testing.assert_array_equal(plan(x), want)
                for offset in (0, 3, 4):
                    room = np.full(want.size + 40, 9.5, dtype)
                    out = room[offset : offset + want.size].reshape(want.shape)
                    fastconv.conv2d(x, w, b, out=out, **given)
                    np.testing.assert_array_equal(out, want)
                    assert (np.delete(room, np.s_[offset : offset + want.size]) == 9.5).all()
            for activation in ("relu", "relu6", "silu"):
                eager = fastconv.conv2d(x, w, b, activation=activation, **given)
                planned = fastconv.plan_conv2d(x.shape, w, b, dtype=dtype, activation=activation, **given)
                np.testing.assert_array_equal(eager, planned(x))
    finally:
        fastconv.set_num_threads(before)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES)
def test_one_product(shape, dtype, layout):
    check(shape, layout, dtype)


@pytest.mark.parametrize("isa", isas() or ["none"])
def test_every_instruction_set(isa):
    run_with_isa(isa, PROGRAM, str(Path(__file__).parent))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite_stays_in_its_image(value, layout):
    x, w, b, _, given = problem(SHAPES[1], layout, "float32", 5)
    w = np.where(w == 0, np.float32(1), w)
    clean = fastconv.conv2d(x, w, b, **given)
    x.reshape(5, -1)[2, 411] = value
    got = fastconv.conv2d(x, w, b, **given)
    assert not np.isfinite(got[2]).any()
    np.testing.assert_array_equal(np.delete(got, 2, 0), np.delete(clean, 2, 0))


def test_weights_changed_in_place_count_at_once():
    x, w, b, right, given = problem((1024, (1, 1), 1, 600), "NHWC", "float32", 3)
    np.testing.assert_array_equal(fastconv.conv2d(x, w, b, **given), right)
    w[0, 0, 1023, 599] += 1
    want = right.copy()
    want[:, 0, 0, 599] += x[:, 0, 0, 1023]
    np.testing.assert_array_equal(fastconv.conv2d(x, w, b, **given), want)
