"""Outputs so large that they go past the caches: every value is written, wherever the array begins, on any threads.

Integer values make the right answer exact; it is summed tap by tap here, with no code of ours.
"""

from __future__ import annotations

import numpy as np
import pytest
from support import REASONS
from test_few_channels import Threads, for_stems

import fastconv

pytestmark = pytest.mark.skipif(REASONS["cpp"] is not None, reason=f"backend cpp: {REASONS['cpp']}")

# images, height, width, channels in and out, kernel, stride, dtype: beyond 48 MB, or 16 where a sum has 64 terms
CASES = [
    (8, 200, 208, 3, 37, 1, 1, "float32"),
    (5, 61, 67, 70, 186, 1, 1, "float32"),
    (4, 111, 99, 8, 95, 3, 1, "float32"),
    (2, 111, 99, 8, 97, 3, 1, "float64"),
    (2, 201, 197, 10, 420, 3, 2, "float32"),
    (4, 250, 211, 3, 64, 3, 1, "float32"),
    (14, 333, 401, 3, 16, 3, 2, "float32"),
    (4, 190, 181, 2, 101, 3, 1, "float32"),
]


def expected(x: np.ndarray, w: np.ndarray, b: np.ndarray, stride: int, layout: str) -> np.ndarray:
    """Channels last throughout; padding of half the kernel."""
    if layout == "NCHW":
        x, w = np.moveaxis(x, 1, -1), np.transpose(w, (2, 3, 1, 0))
    pad = w.shape[0] // 2
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    height, width = ((n - w.shape[0]) // stride + 1 for n in x.shape[1:3])
    total = np.zeros((len(x), height, width, w.shape[3]), x.dtype) + b
    for i in range(w.shape[0]):
        for j in range(w.shape[1]):
            window = x[:, i : i + (height - 1) * stride + 1 : stride, j : j + (width - 1) * stride + 1 : stride]
            total += window @ w[i, j]
    total = np.maximum(total, 0)
    return np.moveaxis(total, -1, 1) if layout == "NCHW" else total


def misaligned(shape: tuple[int, ...], dtype: str, values: int) -> np.ndarray:
    """An array that begins so many values after a cache line, full of NaN."""
    size = int(np.prod(shape))
    room = np.full(size + 64, np.nan, dtype)
    first = -(room.ctypes.data // room.itemsize) % (64 // room.itemsize) + values
    return room[first : first + size].reshape(shape)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_large_outputs(case: tuple, layout: str) -> None:
    n, height, width, c, k, kernel, stride, dtype = case
    rng = np.random.default_rng(k)
    x = rng.integers(-3, 4, (n, height, width, c)).astype(dtype)
    w = rng.integers(-3, 4, (kernel, kernel, c, k)).astype(dtype)
    b = rng.integers(-9, 9, k).astype(dtype)
    if layout == "NCHW":
        x, w = np.ascontiguousarray(np.moveaxis(x, -1, 1)), np.ascontiguousarray(np.transpose(w, (3, 2, 0, 1)))
    right = expected(x, w, b, stride, layout)
    assert x.nbytes + right.nbytes > (48 if c * kernel**2 < 64 else 16) << 20
    plan = fastconv.plan_conv2d(
        x.shape, w, b, stride=stride, padding=kernel // 2, activation="relu", layout=layout, dtype=dtype,
        algorithm="pointwise" if kernel == 1 else for_stems() if c < 4 else "direct", backend="cpp",
    )  # fmt: skip
    for threads in (1, 2):
        with Threads(threads):
            np.testing.assert_array_equal(plan(x), right)
            out = misaligned(right.shape, dtype, threads)
            plan(x, out=out)
            np.testing.assert_array_equal(out, right)
    with_add = plan(x, add=right)
    np.testing.assert_array_equal(with_add[:1], plan(x[:1], add=right[:1]))  # streamed or not: the same bits


@pytest.mark.parametrize(("channels", "width"), [(64, 83), (70, 64)])
def test_large_transposed_outputs(channels: int, width: int) -> None:
    """2x2 with stride 2: every row of the output is a run that begins anywhere."""
    rng = np.random.default_rng(width)
    x = rng.integers(-3, 4, (7, 70, 61, channels)).astype("float32")
    w = rng.integers(-3, 4, (2, 2, width, channels)).astype("float32")
    b = rng.integers(-9, 9, width).astype("float32")
    right = np.empty((7, 140, 122, width), "float32")
    for i in range(2):
        for j in range(2):
            right[:, i::2, j::2] = np.maximum(x @ w[i, j].T + b, 0)
    assert x.nbytes + right.nbytes > 32 << 20
    plan = fastconv.plan_conv_transpose2d(x.shape, w, b, stride=2, activation="relu", layout="NHWC", backend="cpp")
    for threads in (1, 2):
        with Threads(threads):
            np.testing.assert_array_equal(plan(x), right)
            out = misaligned(right.shape, "float32", threads)
            plan(x, out=out)
            np.testing.assert_array_equal(out, right)
    np.testing.assert_array_equal(plan(x[:1]), right[:1])
