"""float16 arrays are cast as NumPy casts them: every number there is, by every instruction set, in any length."""

from __future__ import annotations

import numpy as np
import pytest
from support import REASONS, run_with_isa

import fastconv

pytestmark = pytest.mark.skipif(REASONS["cpp"] is not None, reason=f"backend cpp: {REASONS['cpp']}")

_EVERY = """
import numpy as np
import fastconv
cast = fastconv.get_backend("cpp").cast
halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
wide = np.empty(halves.shape, np.float32)
cast(halves, wide)
assert np.array_equal(wide.view(np.uint32), halves.astype(np.float32).view(np.uint32))
bits = halves.astype(np.float32).view(np.uint32).astype(np.int64)[:, None]
# around every float16 and around the middle between it and the next; then anything
steps = np.concatenate([np.arange(-3, 4), 4096 + np.arange(-3, 4), [8191, -4096]])
some = np.concatenate([(bits + steps).ravel() & 0xFFFFFFFF, np.random.default_rng(7).integers(0, 1 << 32, 1 << 20)])
floats = some.astype(np.uint32).view(np.float32)
narrow = np.empty(floats.shape, np.float16)
cast(floats, narrow)
with np.errstate(all="ignore"):
    expected = floats.astype(np.float16)
assert np.array_equal(narrow.view(np.uint16), expected.view(np.uint16))
print("right")
"""


@pytest.mark.parametrize("isa", ["avx512", "avx2", "baseline"])
def test_every_number(isa: str) -> None:
    """Bit for bit; an instruction set that the machine lacks is replaced by the best below it."""
    run_with_isa(isa, _EVERY)


def test_lengths_and_strides() -> None:
    """No element more than asked for; arrays that do not lie in a row go by NumPy."""
    backend = fastconv.get_backend("cpp")
    for n in (*range(70), 32768, 32769, 100003):
        x = np.random.default_rng(n).standard_normal(n + 2).astype(np.float16)
        wide, back = np.full(n + 2, 7, np.float32), np.full(n + 2, 7, np.float16)
        backend.cast(x[1:-1], wide[1:-1])
        backend.cast(wide[1:-1], back[1:-1])
        assert np.array_equal(back[1:-1], x[1:-1])
        assert (wide[[0, -1]] == 7).all()
        assert (back[[0, -1]] == 7).all()
    x = np.arange(24, dtype=np.float16).reshape(4, 6)
    for view in (x[:, ::2], x.T, x[::-1], x.astype(">f2")):
        wide = np.empty(view.shape, np.float32)
        backend.cast(view, wide)
        assert np.array_equal(wide, view)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_operations(layout: str) -> None:
    """A float16 call is the float32 call rounded; what is too large becomes infinite, without a warning."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((3, 6, 9, 6)).astype(np.float16)
    w = rng.standard_normal((6, 6, 3, 3) if layout == "NCHW" else (3, 3, 6, 6)).astype(np.float16)
    x, w = (x, w) if layout == "NCHW" else (x, np.ascontiguousarray(w))
    wide = fastconv.conv2d(x.astype(np.float32), w.astype(np.float32), padding=1, layout=layout, backend="cpp")
    with np.errstate(all="raise"):
        y = fastconv.conv2d(x, w, padding=1, layout=layout, backend="cpp")
        large = fastconv.conv2d(x, 30000 * np.ones_like(w), padding=1, layout=layout, backend="cpp")
    assert y.dtype == np.float16
    assert np.array_equal(y, wide.astype(np.float16))
    assert np.isinf(large).any()
    out = np.empty((*y.shape[:-1], 2 * y.shape[-1]), np.float16)[..., ::2]
    assert np.array_equal(fastconv.conv2d(x, w, padding=1, layout=layout, out=out, backend="cpp"), y)
    pooled = fastconv.max_pool2d(x, 2, layout=layout, backend="cpp")
    assert np.array_equal(pooled, fastconv.max_pool2d(x.astype(np.float32), 2, layout=layout, backend="cpp"))
