"""Gradients of convolution: against PyTorch in float64, against finite differences, and as the adjoint."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracles
import pytest
from support import conv_tolerance, function, pairs

import fastconv
from fastconv.testing import CONV_CASES, ConvCase, assert_close, conv_inputs, tolerance, values

EXACT = 1 << 24  # integers up to here are float32 numbers: sums below it are exact in any order


def _outputs(shape: tuple[int, ...], case: ConvCase) -> int:
    """Positions of the result: the terms of every weight's gradient."""
    return int(np.prod(shape)) // max(1, case.k)


@pytest.mark.parametrize("kind", ["integers", "normal"])
@pytest.mark.parametrize(("case", "backend"), pairs(CONV_CASES), indirect=["backend"])
def test_gradients(case: ConvCase, backend: str, kind: str) -> None:
    x, w, _ = conv_inputs(case, kind)
    dy, expected, magnitudes = oracles.conv_gradients(case, kind)
    found = function("conv", case.rank, "_backward")(dy, x, w, **case.keywords, backend=backend)
    positions = _outputs(dy.shape, case)
    to_input = case.k // case.groups * int(np.prod(case.kernel))
    if case.padding_mode != "constant":  # copies of one element are summed up as well
        to_input *= int(np.prod([1 + sum(p) for p in oracles.case_pads(case)]))
    for name, terms, result, right, magnitude in zip(
        found._fields, (to_input, positions, positions), found, expected, magnitudes, strict=True
    ):
        assert result.dtype == case.dtype
        if name == "x":
            allowed = conv_tolerance(case, backend, "auto", kind, magnitude, terms=terms)
        else:
            allowed = tolerance(case.dtype, terms, magnitude, exact=kind == "integers", random=True)
        if kind == "integers":
            assert magnitude.max(initial=0) < EXACT
            assert_close(np.rint(result), right, 0, f"{name} of {case.name}, rounded")
        assert_close(result, right, allowed, f"{name} of {case.name}")
        if kind == "integers":
            assert_close(np.rint(result), right, 0, f"{name} of {case.name}, rounded")


@pytest.mark.parametrize("needs", [("x",), ("weight",), ("bias",), ("weight", "bias"), ("x", "bias"), ()])
def test_needs(backend: str, needs: tuple[str, ...]) -> None:
    """Only what is asked for, and the same numbers as when all is asked for."""
    x, w = values("integers", (2, 3, 6, 7), "float32", "x"), values("integers", (4, 3, 3, 3), "float32", "w")
    dy = values("integers", (2, 4, 4, 5), "float32", "dy")
    every = fastconv.conv2d_backward(dy, x, w, backend=backend)
    some = fastconv.conv2d_backward(dy, x, w, needs=needs, backend=backend)
    for name in ("x", "weight", "bias"):
        found = getattr(some, name)
        if name in needs:
            assert_close(found, getattr(every, name), 0, name)
        else:
            assert found is None


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_finite_differences(backend: str, layout: str) -> None:
    """The loss sum(dy * conv) is linear in each argument: its slope along a direction is exact but for rounding."""
    case = ConvCase((7, 8), (3, 2), c=4, k=6, stride=(2, 1), padding=((1, 0), (2, 1)), groups=2, dilation=(1, 2),
                    channels_last=layout == "NHWC", dtype="float64")  # fmt: skip
    x, w, b = conv_inputs(case, "normal")
    dy = oracles.conv_gradients(case, "normal")[0]
    grads = fastconv.conv2d_backward(dy, x, w, **case.keywords, backend=backend)

    def loss(*arrays: np.ndarray) -> float:
        return float((dy * fastconv.conv2d(*arrays, **case.keywords, backend=backend)).sum())

    step = 0.125
    magnitude = float((abs(dy) * oracles.conv(case, "normal")[1]).sum())
    for i, grad in enumerate(grads):
        direction = values("normal", grad.shape, "float64", f"direction{i}")
        there, back = [x, w, b], [x, w, b]
        there[i] = there[i] + step * direction
        back[i] = back[i] - step * direction
        slope = (loss(*there) - loss(*back)) / (2 * step)
        allowed = tolerance("float64", dy.size + case.terms, np.array(magnitude / step))
        assert_close(np.array((grad * direction).sum()), np.array(slope), allowed, grads._fields[i])


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "symmetric", "wrap"])
def test_adjoint(backend: str, mode: str) -> None:
    """<conv x, y> = <x, backward y>, with integers exactly, or after rounding."""
    case = ConvCase(
        (9, 6), (3, 3), c=4, k=6, padding=((2, 1), (1, 2)), stride=(2, 1), padding_mode=mode, dtype="float64"
    )
    x, w, _ = conv_inputs(case, "integers")
    y = np.rint(fastconv.conv2d(x, w, **case.keywords, backend=backend))
    dy = values("integers", y.shape, "float64", "adjoint")
    grads = fastconv.conv2d_backward(dy, x, w, **case.keywords, backend=backend)
    assert (y * dy).sum() == (x * np.rint(grads.x)).sum() == (w * grads.weight).sum()


def test_by_hand(backend: str) -> None:
    x, w = np.array([[[1.0, 2.0, 3.0, 4.0]]]), np.array([[[10.0, 1.0]]])
    dx, dw, db = fastconv.conv1d_backward(np.array([[[1.0, 2.0]]]), x, w, stride=2, backend=backend)
    assert dx.tolist() == [[[10.0, 1.0, 20.0, 2.0]]]
    assert dw.tolist() == [[[7.0, 10.0]]]
    assert db.tolist() == [3.0]


def test_out(backend: str) -> None:
    """Three arrays to write to, any of them None, any strides."""
    x, w = values("integers", (2, 3, 6, 7), "float32", "x"), values("integers", (4, 3, 3, 3), "float32", "w")
    dy = values("integers", (2, 4, 4, 5), "float32", "dy")
    expected = fastconv.conv2d_backward(dy, x, w, backend=backend)
    dx = np.full((2, 3, 6, 14), np.nan, np.float32)[..., ::2]
    dw = np.full((3, 3, 3, 4), np.nan, np.float32).transpose(3, 2, 0, 1)[:, :, ::-1]
    found = fastconv.conv2d_backward(dy, x, w, out=(dx, dw, None), backend=backend)
    assert found.x is dx
    assert found.weight is dw
    for result, right in zip(found, expected, strict=True):
        assert_close(result, right)


def _torch_weight_gradient(dy: np.ndarray, x: np.ndarray, layout: str) -> np.ndarray:
    """The gradient to a 3x3 weight with padding 1, in float64, by PyTorch."""
    oracles.needs_torch()
    torch: Any = oracles.torch
    first = (lambda a: a) if layout == "NCHW" else (lambda a: a.transpose(0, 3, 1, 2))
    dy, x = (torch.tensor(np.ascontiguousarray(first(a)), dtype=torch.float64) for a in (dy, x))
    found = torch.nn.grad.conv2d_weight(x, (dy.shape[1], x.shape[1], 3, 3), dy, padding=1).numpy()
    return found if layout == "NCHW" else np.ascontiguousarray(found.transpose(2, 3, 1, 0))


_ADVERSARIAL = ["constant", "mean 1000", "alternating", "one large", "tiny"]


@pytest.mark.parametrize("kind", _ADVERSARIAL)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_weight_gradient_of_adversarial_values(layout: str, dtype: str, kind: str) -> None:
    """Sums long enough for Winograd, which are held to its promise, whatever the values."""
    channels_last = layout == "NHWC"
    shapes = [(4, 33, 30, 24), (4, 33, 30, 40)] if channels_last else [(4, 24, 33, 30), (4, 40, 33, 30)]
    x, dy = (values("normal", shape, dtype, f"{kind}{i}") for i, shape in enumerate(shapes))
    if kind == "constant":
        x[:], dy[:] = 0.1, 0.3
    elif kind == "mean 1000":
        x, dy = x + x.dtype.type(1000), dy + dy.dtype.type(1000)
    elif kind == "alternating":
        x[..., ::2, :], dy[..., ::2, :] = -abs(x[..., ::2, :]), -abs(dy[..., ::2, :])
    elif kind == "one large":
        x[2, 5, 6, 7] = 1e30
    else:
        x *= x.dtype.type(1e-25)
        dy *= dy.dtype.type(1e-25 if dtype == "float64" else 1e-5)
    w = np.zeros((3, 3, 24, 40) if channels_last else (40, 24, 3, 3), dtype)
    found = fastconv.conv2d_backward(dy, x, w, padding=1, layout=layout, needs=("weight", "bias"), backend="cpp")
    expected, magnitude = (_torch_weight_gradient(g, a, layout) for g, a in ((dy, x), (abs(dy), abs(x))))
    axes = (0, 1) if channels_last else (2, 3)
    allowed = tolerance(dtype, 4 * 33 * 30, magnitude, algorithm="winograd_gradient", random=True, spatial_axes=axes)
    assert_close(found.weight, expected, allowed, kind)
    spatial = (0, 1, 2) if channels_last else (0, 2, 3)
    wide = dy.astype(np.float64)
    allowed = tolerance(dtype, 4 * 33 * 30, abs(wide).sum(axis=spatial))
    assert_close(found.bias, wide.sum(axis=spatial), allowed, "bias")


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_weight_gradient_of_values_that_are_not_finite(layout: str, value: float) -> None:
    """Where Winograd would smear them over a tile, the direct way is taken: other channels keep their numbers."""
    x = values("normal", (4, 24, 33, 30) if layout == "NCHW" else (4, 33, 30, 24), "float32", "x")
    dy = values("normal", (4, 40, 33, 30) if layout == "NCHW" else (4, 33, 30, 40), "float32", "dy")
    w = np.zeros((40, 24, 3, 3) if layout == "NCHW" else (3, 3, 24, 40), "float32")
    keywords = {"padding": 1, "layout": layout, "needs": ("weight",), "backend": "cpp"}
    before = fastconv.conv2d_backward(dy, x, w, **keywords).weight
    x[(1, 7, 10, 10) if layout == "NCHW" else (1, 10, 10, 7)] = value
    after = fastconv.conv2d_backward(dy, x, w, **keywords).weight
    touched = after[:, 7] if layout == "NCHW" else after[:, :, 7]
    untouched = [a[:, np.arange(24) != 7] if layout == "NCHW" else a[:, :, np.arange(24) != 7] for a in (before, after)]
    assert not np.isfinite(touched).any()
    assert np.isnan(touched).all() == np.isnan(value)
    assert_close(untouched[1], untouched[0], 1e-2)


@pytest.mark.parametrize("seed", range(40))
def test_weight_gradient_with_few_channels(seed: int) -> None:
    """First layers of small networks, channels last: any stride, padding and length of a row; 1, 2 and 3 threads."""
    rng = np.random.default_rng(seed)
    c, k, kh, kw = int(rng.integers(1, 9)), int(rng.integers(1, 17)), int(rng.integers(1, 6)), int(rng.integers(2, 6))
    stride, padding = (tuple(int(n) for n in rng.integers(*limits, 2)) for limits in ((1, 4), (0, 4)))
    dilation = (int(rng.integers(1, 3)), 1)
    height = max(1, (kh - 1) * dilation[0] + 1 - 2 * padding[0]) + int(rng.integers(0, 30))
    width = max(1, kw - 2 * padding[1]) + int(rng.integers(0, 30 if seed % 5 else 700))
    dtype = "float64" if seed % 7 == 0 else "float32"
    x = values("integers", (int(rng.integers(1, 5)), height, width, c), dtype, "x")
    w = np.zeros((kh, kw, c, k), dtype)
    keywords = {"stride": stride, "padding": padding, "dilation": dilation, "layout": "NHWC"}
    dy = values("integers", fastconv.conv2d(x, w, **keywords, backend="numpy").shape, dtype, "dy")
    keywords["needs"] = ("weight", "bias")
    expected = fastconv.conv2d_backward(dy, x, w, **keywords, backend="numpy")
    for threads in (1, 2, 3):
        fastconv.set_num_threads(threads)
        found = fastconv.conv2d_backward(dy, x, w, **keywords, backend="cpp")
        # those too wide for a vector may go by Winograd, which rounding sets right
        assert_close(np.rint(found.weight), expected.weight, 0, f"weight, {threads} threads")
        assert_close(found.bias, expected.bias, 0, f"bias, {threads} threads")


@pytest.mark.parametrize("seed", range(24))
def test_weight_gradient_of_many_channels(seed: int) -> None:
    """Every way in which x is packed: in place, by planes in parts, runs of few channels; 1 to 3 threads."""
    rng = np.random.default_rng(seed)
    few = seed % 3 == 0
    c, k = int(rng.integers(1, 8) if few else rng.choice([9, 17, 530])), int(rng.choice([1, 17, 33, 70]))
    kernel, dilation = int(rng.choice([2, 3, 5] if few else [1, 1, 3])), int(rng.choice([1, 1, 2]))
    stride, padding = (tuple(int(n) for n in rng.integers(*limits, 2)) for limits in ((1, 4), (0, 3)))
    if kernel == 1 and seed % 2:
        padding = (0, 0)
    size = (int(rng.integers(9, 20)), int(rng.integers(9, 60 if c < 100 else 20)))
    dtype = "float64" if seed % 7 == 0 else "float32"
    x = values("integers", (int(rng.integers(1, 4)), c, *size), dtype, "x")
    w = np.zeros((k, c, kernel, kernel), dtype)
    keywords = {"stride": stride, "padding": padding, "dilation": dilation}
    dy = values("integers", fastconv.conv2d(x, w, **keywords, backend="numpy").shape, dtype, "dy")
    keywords["needs"] = ("weight", "bias")
    expected = fastconv.conv2d_backward(dy, x, w, **keywords, backend="numpy")
    last = [np.ascontiguousarray(np.moveaxis(a, 1, -1)) for a in (dy, x)]
    for threads in (1, 2, 3):
        fastconv.set_num_threads(threads)
        first = fastconv.conv2d_backward(dy, x, w, **keywords, backend="cpp")
        found = fastconv.conv2d_backward(*last, w.transpose(2, 3, 1, 0), **keywords, layout="NHWC", backend="cpp")
        # 3x3 may go by Winograd, which rounding sets right
        assert_close(np.rint(first.weight), expected.weight, 0, f"weight, {threads} threads")
        assert_close(np.rint(found.weight.transpose(3, 2, 0, 1)), expected.weight, 0, f"NHWC, {threads} threads")
        assert_close(first.bias, expected.bias, 0, f"bias, {threads} threads")
        assert_close(found.bias, expected.bias, 0, f"bias, NHWC, {threads} threads")
