"""Padding: numpy.pad is the oracle, bit for bit, in five modes and every dtype."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv.testing import PAD_CASES, PadCase, assert_close, tolerance, values

MODES = ("constant", "edge", "reflect", "symmetric", "wrap")


@pytest.mark.parametrize("case", PAD_CASES, ids=lambda c: c.name)
def test_numpy(case: PadCase, backend: str) -> None:
    x = values("integers", case.shape, case.dtype, case.name)
    y = fastconv.pad(x, case.pad_width, mode=case.mode, backend=backend)
    expected = np.pad(x, case.pad_width, mode=case.mode)
    assert y.dtype == x.dtype
    assert_close(y, expected, 0, case.name)


SPELLINGS = [2, (1, 2), [(1, 2)], [(1, 2), (0, 3), (2, 0)], np.array([[1], [2], [0]]), np.int8(3), [1], 0]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("width", SPELLINGS, ids=[str(i) for i in range(len(SPELLINGS))])
def test_spellings(backend: str, width: Any, mode: str) -> None:
    x = np.arange(24.0).reshape(2, 3, 4)
    assert_close(fastconv.pad(x, width, mode=mode, backend=backend), np.pad(x, width, mode=mode))


def test_widths_by_axis(backend: str) -> None:
    """A dictionary, as NumPy 2 takes it."""
    x = np.arange(24.0).reshape(2, 3, 4)
    y = fastconv.pad(x, {-1: (1, 2), 0: 1}, backend=backend)
    assert_close(y, np.pad(x, ((1, 1), (0, 0), (1, 2))))


@pytest.mark.parametrize(
    ("dtype", "value"),
    [("float32", np.nan), ("float64", -np.inf), ("float16", 1.5), ("uint8", 255), ("int16", -7), ("bool", True),
     ("int64", 2**62), ("float32", -0.0)],
)  # fmt: skip
def test_value(backend: str, dtype: str, value: float) -> None:
    x = values("integers", (3, 4), dtype, "pad")
    y = fastconv.pad(x, 1, value=value, backend=backend)
    expected = np.pad(x, 1, constant_values=value)
    assert y.dtype == expected.dtype
    assert y.tobytes() == expected.tobytes()


def test_bits_are_copied(backend: str) -> None:
    """Subnormals, NaN payloads and negative zeros come through as they are: nothing is computed."""
    x = np.array([1, 0x7FC12345, 0x80000000, 0x7F812345, 0xFF800000, 3], np.uint32).view(np.float32)
    y = fastconv.pad(x, 4, mode="symmetric", backend=backend)
    assert y.view(np.uint32).tolist() == np.pad(x.view(np.uint32), 4, mode="symmetric").tolist()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("shape", "widths"),
    [((5,), ((2, 1),)), ((3,), ((9, 8),)), ((2, 4, 5), ((0, 0), (1, 2), (3, 0))), ((1, 2), ((2, 2), (5, 0)))],
)
def test_gradient(backend: str, mode: str, shape: tuple[int, ...], widths: Any) -> None:
    """Every element gets the sum over its copies: counted from a padded array of element numbers."""
    dy = values("integers", tuple(n + lo + hi for n, (lo, hi) in zip(shape, widths, strict=True)), "float64", "dy")
    numbers = np.arange(np.prod(shape)).reshape(shape)
    keywords = {"constant_values": -1} if mode == "constant" else {}
    source = np.pad(numbers, widths, mode=mode, **keywords)
    expected = np.array([dy[source == i].sum() for i in range(numbers.size)]).reshape(shape)
    for dtype in ("float32", "float64"):
        dx = fastconv.pad_backward(dy.astype(dtype), widths, mode=mode, backend=backend)
        assert dx.dtype == dtype
        assert_close(dx, expected)


def test_gradient_of_random_numbers(backend: str) -> None:
    dy = values("normal", (2, 3, 12, 14), "float32", "dy")
    widths = ((0, 0), (0, 0), (2, 3), (1, 4))
    x = values("normal", (2, 3, 7, 9), "float64", "x")
    dx = fastconv.pad_backward(dy, widths, mode="reflect", backend=backend)
    right = fastconv.pad_backward(dy.astype(float), widths, mode="reflect", backend=backend)
    magnitude = fastconv.pad_backward(abs(dy).astype(float), widths, mode="reflect", backend=backend)
    assert_close(dx, right, tolerance("float32", 9, magnitude))
    y = fastconv.pad(x, widths, mode="reflect", backend=backend)
    allowed = tolerance("float64", 2 * y.size, np.array((abs(y) * abs(dy)).sum()))
    assert_close(np.array((y * dy).sum()), np.array((x * right).sum()), allowed, "adjoint")


def test_out(backend: str) -> None:
    x = values("integers", (3, 4), "int16", "pad")
    out = np.full((6, 10), -99, np.int16)[::-1, ::2]
    assert fastconv.pad(x, ((1, 2), (0, 1)), mode="wrap", out=out, backend=backend) is out
    assert_close(out, np.pad(x, ((1, 2), (0, 1)), mode="wrap"))
