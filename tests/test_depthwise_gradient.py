"""Weight gradients of depthwise convolutions, channels last, 3x3: the kernel that reads both arrays where they lie."""

from __future__ import annotations

import pytest
from support import REASONS, run_with_isa
from test_isa import isas

# Integers make every sum exact. The oracle adds shifted products of a padded copy, in float64.
PROGRAM = """
import itertools
import numpy as np, fastconv

def oracle(dy, x, stride, pads):
    (top, bottom), (left, right) = pads
    wide = np.pad(x.astype(np.float64), ((0, 0), (top, bottom), (left, right), (0, 0)))
    n, height, width, channels = dy.shape
    dw = np.empty((3, 3, 1, channels))
    for i, j in itertools.product(range(3), range(3)):
        part = wide[:, i : i + stride * (height - 1) + 1 : stride, j : j + stride * (width - 1) + 1 : stride]
        dw[i, j, 0] = np.einsum("nhwc,nhwc->c", part, dy.astype(np.float64))
    return dw, dy.sum((0, 1, 2), dtype=np.float64)

rng = np.random.default_rng(3)
sizes = [(1, 1), (2, 5), (7, 7), (9, 4), (13, 131), (40, 3)]
pads = [((1, 1), (1, 1)), ((0, 0), (0, 0)), ((0, 2), (3, 0)), ((2, 1), (0, 1))]
turns = itertools.product((9, 16, 17, 37, 64, 300), sizes, (1, 2), pads, (np.float32, np.float64))
checked = 0
for turn, (channels, size, stride, pad, dtype) in enumerate(turns):
    reach = [s + sum(p) - 3 for s, p in zip(size, pad)]
    if min(reach) < 0 or turn % 3 == 1:
        continue
    n = 1 + turn % 4
    x = rng.integers(-4, 5, (n, *size, channels)).astype(dtype)
    dy = rng.integers(-3, 4, (n, *(r // stride + 1 for r in reach), channels)).astype(dtype)
    w = np.zeros((3, 3, 1, channels), dtype)
    keys = {"stride": stride, "padding": pad, "groups": channels, "layout": "NHWC"}
    found = fastconv.conv2d_backward(dy, x, w, **keys)
    for one, right in zip(found[1:], oracle(dy, x, stride, pad)):
        assert np.array_equal(one, right), (channels, size, stride, pad, dtype)
    assert np.array_equal(found.weight, fastconv.conv2d_backward(dy, x, w, **keys, needs=("weight",)).weight)
    x, dy = (rng.standard_normal(a.shape).astype(dtype) for a in (x, dy))
    results = []
    for threads in (1, 2, 3):
        fastconv.set_num_threads(threads)
        results.append(fastconv.conv2d_backward(dy, x, w, **keys))
    for other in results[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(results[0], other)), "threads show"
    right, magnitude = oracle(dy, x, stride, pad)[0], oracle(abs(dy), abs(x), stride, pad)[0]
    assert (abs(results[0].weight - right) <= 8 * np.finfo(dtype).eps * magnitude).all()
    checked += 1
assert checked > 200, checked

x, dy = np.ones((2, 6, 6, 20), np.float32), np.ones((2, 6, 6, 20), np.float32)
x[1, 3, 3, 18], x[0, 3, 3, 2] = np.nan, np.inf
w = np.zeros((3, 3, 1, 20), np.float32)
found = fastconv.conv2d_backward(dy, x, w, padding=1, groups=20, layout="NHWC").weight[:, :, 0]
assert np.isnan(found[:, :, 18]).all()
assert np.isposinf(found[:, :, 2]).all()
assert np.isfinite(np.delete(found, [2, 18], axis=2)).all()

# an inf at the last pixel reaches the taps that see it and no others; some outputs of the last tile lie outside
for stride, pad in ((1, 0), (1, 1), (2, 0), (2, 1)):
    for size in (7, 8, 9, 10):
        x = np.ones((1, size, size, 20), np.float32)
        x[0, -1, -1, 2] = np.inf
        out = (size + 2 * pad - 3) // stride + 1
        keys = dict(stride=stride, padding=pad, groups=20, layout="NHWC")
        found = fastconv.conv2d_backward(np.ones((1, out, out, 20), np.float32), x, w, **keys).weight[:, :, 0, 2]
        at = size - 1 + pad - stride * np.arange(out)
        seen = np.isin(np.arange(3), at)
        assert np.array_equal(np.isposinf(found), seen[:, None] & seen), (stride, pad, size, found)
        assert np.array_equal(np.isfinite(found), ~(seen[:, None] & seen)), (stride, pad, size, found)
print("right")
"""


@pytest.mark.skipif(REASONS["cpp"] is not None, reason=f"backend cpp: {REASONS['cpp']}")
@pytest.mark.parametrize("isa", isas() or ["none"])
def test_depthwise_weight_gradients(isa: str) -> None:
    run_with_isa(isa, PROGRAM)
