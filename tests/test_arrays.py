"""What arrays may look like: strides, byte order, alignment, dtypes, emptiness, missing batch, out."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv.testing import assert_close, tolerance, values

Form = Callable[[np.ndarray], np.ndarray]


def _negative(a: np.ndarray) -> np.ndarray:
    flip = (slice(None, None, -1),) * a.ndim
    return np.ascontiguousarray(a[flip])[flip]


def _gapped(a: np.ndarray) -> np.ndarray:
    wide = np.full(tuple(2 * n + 1 for n in a.shape), 99, a.dtype)
    view = wide[tuple(slice(1, 2 * n + 1, 2) for n in a.shape)]
    view[...] = a
    return view


def _read_only(a: np.ndarray) -> np.ndarray:
    a = a.copy()
    a.flags.writeable = False
    return a


def _unaligned(a: np.ndarray) -> np.ndarray:
    raw = np.zeros(a.nbytes + 1, np.uint8)
    view = raw[1:].view(a.dtype).reshape(a.shape)
    view[...] = a
    assert a.dtype.itemsize == 1 or not view.flags.aligned
    return view


def _swapped(a: np.ndarray) -> np.ndarray:
    return a.astype(a.dtype.newbyteorder())


def _fortran(a: np.ndarray) -> np.ndarray:
    return np.asfortranarray(a)


def _subclass(a: np.ndarray) -> np.ndarray:
    class Labelled(np.ndarray):
        pass

    return a.view(Labelled)


def _masked(a: np.ndarray) -> np.ndarray:
    return np.ma.masked_array(a, np.arange(a.size).reshape(a.shape) % 3 == 0)


class _Foreign:
    """What another library's array shows of itself."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.shape, self.dtype = array, array.shape, array.dtype

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.array


def _mapped(a: np.ndarray) -> np.ndarray:
    """A broadcast view where the first two rows are alike; else a transposed one."""
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 0, -1)), -1, 0)


FORMS: dict[str, Form] = {
    "negative": _negative, "gapped": _gapped, "read-only": _read_only, "unaligned": _unaligned,
    "byte-swapped": _swapped, "fortran": _fortran, "subclass": _subclass, "transposed": _mapped,
    "masked": _masked, "foreign": _Foreign,
}  # fmt: skip

X = values("integers", (2, 4, 9, 17), "float32", "x")
W = values("integers", (6, 4, 3, 3), "float32", "w")
B = values("integers", (6,), "float32", "b")
DY = values("integers", (2, 6, 9, 17), "float32", "dy")
PIXELS = values("integers", (2, 4, 5, 9), "float32", "pixels")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("form", FORMS)
def test_forms(backend: str, form: str, dtype: str) -> None:
    """None of these is an error, and none changes a result, neither in the first call nor in the next."""
    change = FORMS[form]
    x, w, b, dy, pixels = (a.astype(dtype) for a in (X, W, B, DY, PIXELS))
    calls: list[tuple[Callable[..., Any], tuple[np.ndarray, ...], dict[str, Any]]] = [
        (fastconv.conv2d, (x, w, b), {"padding": 1}),
        (fastconv.conv2d, (x, w, b), {"padding": 1, "padding_mode": "reflect"}),
        (fastconv.conv2d, (x.transpose(0, 2, 3, 1), w.transpose(2, 3, 1, 0), b), {"padding": 1, "layout": "NHWC"}),
        (fastconv.conv2d_backward, (dy, x, w), {"padding": 1}),
        (fastconv.conv_transpose2d, (dy, w, b[:4]), {"padding": 1}),
        (fastconv.max_pool2d, (x,), {"kernel_size": 2}),
        (fastconv.max_pool2d_with_indices, (x,), {"kernel_size": 3, "stride": 2, "padding": 1}),
        (fastconv.avg_pool2d, (x,), {"kernel_size": 2, "ceil_mode": True}),
        (fastconv.max_pool2d_backward, (pixels, x), {"kernel_size": 3, "stride": 2, "padding": 1}),
        (fastconv.avg_pool2d_backward, (pixels, x), {"kernel_size": 3, "stride": 2, "padding": 1}),
        (fastconv.pad, (x,), {"pad_width": 2, "mode": "reflect"}),
        (fastconv.pad_backward, (x,), {"pad_width": ((0, 0), (0, 0), (2, 2), (2, 2)), "mode": "reflect"}),
        (fastconv.im2col, (x,), {"kernel_size": (3, 3)}),
    ]
    for function, arrays, keywords in calls:
        expected = function(*(np.ascontiguousarray(a) for a in arrays), **keywords, backend=backend)
        for _ in range(2):
            found = function(*(change(a) for a in arrays), **keywords, backend=backend)
            pairs = zip(found, expected, strict=True) if isinstance(expected, tuple) else [(found, expected)]
            for one, right in pairs:
                assert one.dtype == right.dtype, function.__name__
                assert one.dtype.isnative
                assert type(one) is np.ndarray
                assert_close(one, right, 0, f"{function.__name__} {keywords}")


def test_broadcast_input(backend: str) -> None:
    """Strides of zero."""
    x = np.broadcast_to(X[:1, :1], X.shape)
    assert_close(fastconv.conv2d(x, W, backend=backend), fastconv.conv2d(x.copy(), W, backend=backend))
    assert_close(fastconv.max_pool2d(x, 2, backend=backend), fastconv.max_pool2d(x.copy(), 2, backend=backend))


def test_inputs_are_left_alone(backend: str) -> None:
    x, w, b, dy = X.copy(), W.copy(), B.copy(), DY.copy()
    fastconv.conv2d(x, w, b, padding=1, activation="relu", backend=backend)
    fastconv.conv2d_backward(dy, x, w, padding=1, backend=backend)
    fastconv.conv_transpose2d(dy, w, padding=1, activation="relu", backend=backend)
    fastconv.max_pool2d_backward(fastconv.max_pool2d(x, 2, backend=backend), x, 2, backend=backend)
    for array, right in ((x, X), (w, W), (b, B), (dy, DY)):
        assert_close(array, right)


def test_lists(backend: str) -> None:
    y = fastconv.conv1d([[[1, 2, 3, 4]]], [[[1, 1]]], [0.5], backend=backend)
    assert y.dtype == np.float64
    assert y.tolist() == [[[3.5, 5.5, 7.5]]]
    assert fastconv.max_pool1d([[[3, 1, 2]]], 2, stride=1, backend=backend).tolist() == [[[3, 2]]]


DTYPES = [
    ("float32", "float32", "float32"), ("float64", "float64", "float64"), ("float32", "float64", "float64"),
    ("uint8", "float32", "float32"), ("int8", "int8", "float32"), ("int16", "float32", "float32"),
    ("uint16", "uint16", "float32"), ("int32", "float32", "float64"), ("int64", "float32", "float64"),
    ("bool", "bool", "float32"), ("bool", "float64", "float64"), ("float16", "float16", "float16"),
    ("float16", "float32", "float32"), ("uint8", "float16", "float16"), ("int16", "float16", "float32"),
]  # fmt: skip


@pytest.mark.parametrize(("left", "right", "result"), DTYPES)
def test_dtypes(backend: str, left: str, right: str, result: str) -> None:
    """The promotion of x and weight with float32; float16 where they promote to it; a bias promotes nothing."""
    x, w = values("integers", (2, 3, 7, 8), left, "x"), values("integers", (4, 3, 3, 3), right, "w")
    bias = values("integers", (4,), "float64", "b")
    y = fastconv.conv2d(x, w, bias, padding=1, backend=backend)
    assert y.dtype == result
    exact = fastconv.conv2d(x.astype(float), w.astype(float), bias, padding=1, backend=backend)
    assert_close(y, exact)
    grads = fastconv.conv2d_backward(y, x, w, padding=1, backend=backend)
    assert {g.dtype for g in grads if g is not None} == {np.dtype(result)}
    assert fastconv.conv_transpose2d(y, w, backend=backend).dtype == result


def test_batches_are_cast_a_few_images_at_a_time(backend: str) -> None:
    """Integer and float16 batches never stand in memory as float32; the bits are those of the batch cast by hand."""
    if not fastconv.get_backend(backend).batch_invariant or backend == "reference":
        pytest.skip(f"backend {backend}: an image's result may depend on its batch, or it is too slow")
    rng = np.random.default_rng(6)
    w = rng.standard_normal((2, 3, 3, 3)).astype(np.float32)
    for dtype in ("uint8", "float16"):
        x = rng.integers(0, 200, (60, 3, 100, 100)).astype(dtype)
        weight = w.astype(np.float16) if dtype == "float16" else w
        expected = fastconv.conv2d(x.astype(np.float32), weight.astype(np.float32), padding=1, backend=backend)
        out = np.empty(expected.shape, np.float16 if dtype == "float16" else np.float32)
        tracemalloc.start()
        fastconv.conv2d(x, weight, padding=1, out=out, backend=backend)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        with np.errstate(over="ignore"):
            assert np.array_equal(out, expected.astype(out.dtype))
        if backend == "cpp":
            assert peak < 10e6  # x is 7.2 MB as float32, a float16 result before it is rounded 4.8


def test_float16_is_computed_in_float32(backend: str) -> None:
    """One rounding at the end: 300 terms of 0.1 do not drift, and sums beyond 65504 are infinite."""
    x, w = np.full((1, 300, 1, 1), 0.1, np.float16), np.ones((1, 300, 1, 1), np.float16)
    y = fastconv.conv2d(x, w, backend=backend)
    exact = np.array([[[[300 * float(x[0, 0, 0, 0])]]]])
    assert_close(y, exact, tolerance("float16", 300, exact))
    big = fastconv.conv2d(np.full((1, 2, 1, 1), 6e4, np.float16), np.ones((1, 2, 1, 1), np.float16), backend=backend)
    assert np.isposinf(big).all()
    assert fastconv.avg_pool2d(np.full((1, 1, 2, 2), 6e4, np.float16), 2, backend=backend)[0, 0, 0, 0] == np.float16(
        6e4
    )
    assert fastconv.pad_backward(x, ((0, 0), (0, 0), (0, 0), (0, 0)), backend=backend).dtype == np.float16


@pytest.mark.parametrize("kernel", [1, 3, 7])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_no_channels(backend: str, layout: str, kernel: int) -> None:
    """Sums without a term are 0, in a convolution, in its gradient to x and in a transposed one."""

    def array(n: int, c: int, height: int, width: int) -> np.ndarray:
        return np.ones((n, height, width, c) if layout == "NHWC" else (n, c, height, width), np.float32)

    def weight(outputs: int, inputs: int) -> np.ndarray:
        size = (kernel, kernel)
        return np.ones((*size, inputs, outputs) if layout == "NHWC" else (outputs, inputs, *size), np.float32)

    how: dict[str, Any] = {"padding": kernel // 2, "layout": layout, "backend": backend}
    for channels in (4, 70):
        full = array(2, channels, 9, 11)
        bias = np.arange(channels, dtype=np.float32)
        expected = bias if layout == "NHWC" else bias[:, None, None]
        y = fastconv.conv2d(array(2, 0, 9, 11), weight(channels, 0), bias, **how)
        assert_close(y, np.broadcast_to(expected, full.shape))
        assert_close(fastconv.conv_transpose2d(array(2, 0, 9, 11), weight(0, channels), **how), 0 * full)
        dx, dw, db = fastconv.conv2d_backward(array(2, 0, 9, 11), full, weight(0, channels), **how)
        assert_close(dx, 0 * full)
        assert dw.shape == weight(0, channels).shape
        assert db.shape == (0,)


@pytest.mark.parametrize("shape", [(0, 4, 9, 17), (2, 0, 9, 17)])
def test_empty_batch_or_channels(backend: str, shape: tuple[int, ...]) -> None:
    """No images: an empty result. No input channels: the bias alone."""
    x = np.zeros(shape, np.float32)
    w = np.ones((6, shape[1], 3, 3), np.float32)
    y = fastconv.conv2d(x, w, B, padding=1, backend=backend)
    assert_close(y, np.broadcast_to(B[:, None, None], (shape[0], 6, 9, 17)))
    assert_close(fastconv.conv2d(x, w, padding=1, backend=backend), np.zeros((shape[0], 6, 9, 17)))
    dy = np.ones(y.shape, np.float32)
    dx, dw, db = fastconv.conv2d_backward(dy, x, w, padding=1, backend=backend)
    assert dx.shape == x.shape
    assert_close(dw, np.zeros(w.shape))
    assert_close(db, dy.sum(axis=(0, 2, 3)))
    for pool in (fastconv.max_pool2d, fastconv.avg_pool2d):
        assert pool(x, 2, backend=backend).shape == (*shape[:2], 4, 8)
    dx = fastconv.max_pool2d_backward(np.zeros((*shape[:2], 4, 8), np.float32), x, 2, backend=backend)
    assert dx.shape == x.shape
    assert fastconv.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), backend=backend).shape == (*shape[:2], 11, 19)


def test_no_output_channels(backend: str) -> None:
    w = np.ones((0, 4, 3, 3), np.float32)
    y = fastconv.conv2d(X, w, np.zeros(0, np.float32), backend=backend)
    assert y.shape == (2, 0, 7, 15)
    dx, dw, db = fastconv.conv2d_backward(y, X, w, backend=backend)
    assert_close(dx, np.zeros(X.shape))
    assert dw.shape == w.shape
    assert db.shape == (0,)
    assert_close(
        fastconv.conv_transpose2d(y, w, np.arange(4, dtype=np.float32), backend=backend),
        np.broadcast_to(np.arange(4.0)[:, None, None], X.shape),
    )


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_unbatched(backend: str, layout: str) -> None:
    """What comes without a batch goes back without one."""
    last = layout == "NHWC"
    x = np.moveaxis(X, 1, -1) if last else X
    w = W.transpose(2, 3, 1, 0) if last else W
    keywords: dict[str, Any] = {"layout": layout, "backend": backend}
    y = fastconv.conv2d(x[0], w, B, padding=1, **keywords)
    assert_close(y, fastconv.conv2d(x, w, B, padding=1, **keywords)[0])
    dx, dw, _ = fastconv.conv2d_backward(y, x[0], w, padding=1, **keywords)
    batched = fastconv.conv2d_backward(y[None], x[:1], w, padding=1, **keywords)
    assert_close(dx, batched.x[0])
    assert_close(dw, batched.weight)
    assert_close(fastconv.conv_transpose2d(y, w, **keywords), fastconv.conv_transpose2d(y[None], w, **keywords)[0])
    for pool in (fastconv.max_pool2d, fastconv.avg_pool2d):
        assert_close(pool(x[0], 3, **keywords), pool(x, 3, **keywords)[0])
    y, indices = fastconv.max_pool2d_with_indices(x[0], 3, **keywords)
    assert_close(indices, fastconv.max_pool2d_with_indices(x, 3, **keywords)[1][0])
    assert_close(
        fastconv.max_pool2d_backward(y, x[0], 3, **keywords),
        fastconv.max_pool2d_backward(y[None], x[:1], 3, **keywords)[0],
    )


OUTS: dict[str, Callable[[tuple[int, ...], str], np.ndarray]] = {
    "contiguous": lambda s, t: np.full(s, 77, t),
    "negative": lambda s, t: np.full(s, 77, t)[(slice(None, None, -1),) * len(s)],
    "gapped": lambda s, t: np.full(tuple(3 * n for n in s), 77, t)[(slice(1, None, 3),) * len(s)],
    "fortran": lambda s, t: np.full(s, 77, t, order="F"),
    "unaligned": lambda s, t: _unaligned(np.full(s, 77, t)),
}


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("form", OUTS)
def test_out(backend: str, form: str, dtype: str) -> None:
    """Written where it was asked for, returned, and nothing else touched."""
    x, w, b = X.astype(dtype), W.astype(dtype), B.astype(dtype)
    calls: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = [
        (fastconv.conv2d, (x, w, b), {"padding": 1, "activation": "relu"}),
        (fastconv.conv2d, (x.transpose(0, 2, 3, 1), w.transpose(2, 3, 1, 0), b), {"stride": 2, "layout": "NHWC"}),
        (fastconv.conv_transpose2d, (x, w.transpose(1, 0, 2, 3), b), {"stride": 2}),
        (fastconv.max_pool2d, (x, 3), {}),
        (fastconv.avg_pool2d, (x, 3), {"padding": 1}),
        (fastconv.pad, (x, 1), {}),
    ]
    for function, arrays, keywords in calls:
        expected = function(*arrays, **keywords, backend=backend)
        out = OUTS[form](expected.shape, dtype)
        around = out.base.copy() if form == "gapped" and out.base is not None else None
        assert function(*arrays, **keywords, out=out, backend=backend) is out
        assert_close(out, expected, 0, function.__name__)
        if around is not None and out.base is not None:
            out[...] = 77
            assert_close(out.base, around, 0, f"{function.__name__} wrote beside its out")


def test_out_of_indices(backend: str) -> None:
    y, indices = fastconv.max_pool2d_with_indices(X, 3, backend=backend)
    into = np.zeros(y.shape, np.float32), np.zeros(y.shape, np.int64)
    found = fastconv.max_pool2d_with_indices(X, 3, out=into, backend=backend)
    assert found[0] is into[0]
    assert found[1] is into[1]
    assert_close(into[0], y)
    assert_close(into[1], indices)
