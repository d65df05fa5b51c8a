"""Calls that come again run in one step, casts included: with the bits of the long way, and for no other arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv.backends import registry

if not next(b for b in fastconv.list_backends() if b.name == "cpp").available:
    pytest.skip("the cpp backend is not built", allow_module_level=True)

DTYPES = ("float32", "float64", "float16", "bool", "uint8", "int8", "int16", "uint16", "int32", "uint32", "int64")
PADS = ((0, 0), (0, 0), (1, 2), (0, 3))


def data(rng: np.random.Generator, dtype: str, *shape: int) -> np.ndarray:
    if np.dtype(dtype).kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    if dtype in ("int32", "int64", "uint32"):  # more bits than a float32 holds
        return rng.integers(0, 2**30, shape).astype(dtype)
    return rng.integers(0, 2 if dtype == "bool" else 100, shape).astype(dtype)


def strided(array: np.ndarray) -> np.ndarray:
    """The same numbers in memory that kernels do not take as it is."""
    wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
    wide[..., ::2] = array
    return wide[..., ::2]


def operations(dtype: str, layout: str) -> list[tuple[str, Callable[..., Any], list[np.ndarray]]]:
    rng = np.random.default_rng(7)
    last = layout == "NHWC"

    def images(c: int, h: int, w: int, of: str = dtype) -> np.ndarray:
        return data(rng, of, *((3, h, w, c) if last else (3, c, h, w)))

    def weights(k: int, c: int) -> np.ndarray:
        return data(rng, dtype, *((3, 2, c, k) if last else (k, c, 3, 2)))

    x, w, b = images(4, 7, 9), weights(6, 4), np.arange(6, dtype=np.float32)
    y, dy = images(6, 5, 8), images(6, 5, 8, "float32" if dtype in ("bool", "uint8") else dtype)
    small, pooled = images(4, 3, 4), images(4, 3, 4, "float32")
    f: Any = fastconv
    found = [
        ("conv", lambda x, w, b, **o: f.conv2d(x, w, b, layout=layout, activation="relu", **o), [x, w, b]),
        ("transposed", lambda y, w, **o: f.conv_transpose2d(y, w, layout=layout, **o), [y, w]),
        ("avg_pool", lambda x, **o: f.avg_pool2d(x, 2, layout=layout, **o), [x]),
        ("max_pool", lambda x, **o: f.max_pool2d(x, 2, layout=layout, **o), [x]),
        ("avg_pool grad", lambda g, x, **o: f.avg_pool2d_backward(g, x, 2, layout=layout, **o), [pooled, x]),
        ("max_pool grad", lambda g, x, **o: f.max_pool2d_backward(g, x, 2, layout=layout, **o), [small, x]),
        ("pad", lambda x, **o: f.pad(x, PADS, mode="edge", **o), [x]),
        ("pad grad", lambda x, **o: f.pad_backward(x, PADS, mode="edge", **o), [x]),
        ("global", lambda x, **o: f.global_avg_pool(x, layout=layout, **o), [x]),
        ("adaptive", lambda x, **o: f.adaptive_max_pool2d(x, (3, 3), layout=layout, **o), [x]),
    ]
    for needs in (("x",), ("weight",), ("weight", "bias"), ("x", "weight", "bias"), ("bias",), ("x", "bias")):

        def gradients(g: np.ndarray, x: np.ndarray, w: np.ndarray, needs: tuple[str, ...] = needs) -> Any:
            return f.conv2d_backward(g, x, w, layout=layout, needs=needs)

        found.append((f"grads {needs}", gradients, [dy, x, w]))
    return found


def same(found: Any, expected: Any) -> bool:
    if isinstance(expected, tuple):
        return len(found) == len(expected) and all(map(same, found, expected))
    if expected is None or found is None:
        return found is expected
    return found.dtype == expected.dtype and np.array_equal(found, expected, equal_nan=found.dtype.kind == "f")


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_bits_of_the_long_way(dtype: str, layout: str) -> None:
    with fastconv.use_backend("cpp"):
        for name, call, arrays in operations(dtype, layout):
            expected = call(*map(strided, arrays))
            for _ in range(3):
                assert same(call(*arrays), expected), name
            if name.startswith("grads"):
                continue
            one = [a if a.ndim == 1 or a.shape[0] != 3 or a.shape[1] == 2 else a[0] for a in arrays]
            if name not in ("pad", "pad grad", "global"):  # whose arguments tell the number of axes
                for _ in range(2):  # without a batch
                    assert same(call(*one), expected[0]), name
            for _ in range(2):
                out = np.full_like(expected, 1)
                assert call(*arrays, out=out) is out
                assert same(out, expected), name
                scattered = strided(np.full_like(expected, 1))
                assert call(*arrays, out=scattered) is scattered
                assert same(scattered, expected), name


def test_outputs_that_do_not_fit_are_refused_again_and_again() -> None:
    rng = np.random.default_rng(0)
    with fastconv.use_backend("cpp"):
        x, w, b = data(rng, "float32", 2, 4, 6, 6), data(rng, "float32", 4, 4, 1, 1), np.zeros(4, np.float32)
        frozen = np.zeros_like(x)
        frozen.flags.writeable = False
        both = np.zeros(2 * x.size, np.float32)
        half = both[x.size // 2 : x.size // 2 + x.size].reshape(x.shape)
        for _ in range(3):
            fastconv.conv2d(x, w, b)
            for bad in (x, frozen, np.zeros((2, 4, 6, 5), np.float32), x.astype(np.float64), x.tolist()):
                with pytest.raises((TypeError, ValueError), match="conv2d: out "):
                    fastconv.conv2d(x, w, b, out=bad)
            with pytest.raises(ValueError, match="shares memory"):
                fastconv.conv2d(both[: x.size].reshape(x.shape), w, b, out=half)
            inside = np.zeros(x.size + 4, np.float32)
            with pytest.raises(ValueError, match="shares memory"):
                fastconv.conv2d(x, w, inside[:4], out=inside[2:-2].reshape(x.shape))
            fastconv.max_pool2d(x, 1)
            with pytest.raises(ValueError, match="shares memory"):
                fastconv.max_pool2d(x, 1, out=x)


def test_other_arrays_after_the_same_settings() -> None:
    rng = np.random.default_rng(0)
    x, w = data(rng, "float32", 1, 3, 6, 6), data(rng, "float32", 4, 3, 3, 3)
    dy = data(rng, "float32", 1, 4, 4, 4)
    with fastconv.use_backend("cpp"):
        for _ in range(3):
            fastconv.conv2d_backward(dy, x, w)
            with pytest.raises(fastconv.GeometryError):
                fastconv.conv2d_backward(dy[:, :3].copy(), x, w)
            with pytest.raises(fastconv.GeometryError):
                fastconv.conv2d_backward(dy, x, w[:3].copy())
            fastconv.avg_pool2d_backward(dy, np.ones((1, 4, 8, 8), np.float32), 2)
            with pytest.raises(fastconv.GeometryError):
                fastconv.avg_pool2d_backward(dy, np.ones((1, 4, 9, 10), np.float32), 2)
            assert fastconv.pad(x, PADS).shape == (1, 3, 9, 9)
            assert fastconv.pad(x[:, :, 1:].copy(), PADS).shape == (1, 3, 8, 9)
            assert fastconv.pad(x > 0, PADS).dtype == np.bool_
            assert fastconv.pad(x.astype(">f4"), PADS).dtype == np.float32
            masked = np.ma.masked_array(x, x > 0)  # a subclass goes the long way
            assert np.array_equal(fastconv.conv2d(masked, w), fastconv.conv2d(x, w))
            assert type(fastconv.conv2d(masked, w)) is np.ndarray


@pytest.mark.parametrize("value", [True, np.True_, 1.0])
def test_a_setting_of_another_type_is_not_the_same(value: Any) -> None:
    x = np.ones((1, 1, 4, 4), np.float32)
    with fastconv.use_backend("cpp"):
        for _ in range(3):
            fastconv.max_pool2d(x, 1, stride=1)
            fastconv.conv2d(x, x, stride=1)
            with pytest.raises(TypeError, match="stride must be an integer"):
                fastconv.max_pool2d(x, 1, stride=value)
            with pytest.raises(TypeError, match="stride must be an integer"):
                fastconv.conv2d(x, x, stride=value)
    assert registry.active().name  # the choice above was for its block alone
