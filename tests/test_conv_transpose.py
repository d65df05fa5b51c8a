"""Transposed convolution and its gradients: the definition stamp by stamp, PyTorch, ONNX's rule for "same"."""

from __future__ import annotations

import numpy as np
import oracles
import pytest
from support import conv_tolerance, function, pairs

import fastconv
from fastconv.testing import TRANSPOSE_CASES, ConvCase, assert_close, conv_inputs, values


def torch_transpose(case: ConvCase, arrays: list[np.ndarray], dy: np.ndarray | None) -> list[np.ndarray]:
    """The result, and the gradients to input, weight and bias where ``dy`` is given."""
    torch = oracles.torch
    x, w, b = arrays
    t = [
        torch.from_numpy(np.ascontiguousarray(a)).requires_grad_()
        for a in (
            oracles.first(x, case.channels_last),
            oracles.weight_first(w, case.channels_last),
            np.asarray(b, np.float64),
        )
    ]
    around = oracles.case_pads(case)
    y = getattr(torch.nn.functional, f"conv_transpose{case.rank}d")(
        *t, stride=case.strides, padding=tuple(lo for lo, _ in around), dilation=case.dilations, groups=case.groups,
        output_padding=case.output_padding or 0,
    )  # fmt: skip
    found = [oracles.last(y.detach().numpy(), case.channels_last)]
    if dy is not None:
        y.backward(torch.from_numpy(np.ascontiguousarray(oracles.first(dy, case.channels_last))))
        found += [
            oracles.last(t[0].grad.numpy(), case.channels_last),
            oracles.weight_last(t[1].grad.numpy(), case.channels_last),
            t[2].grad.numpy(),
        ]
    return found


def torch_offers(case: ConvCase) -> bool:
    if str(case.padding).startswith("same"):
        return False
    return all(lo == hi for lo, hi in oracles.case_pads(case))


def terms_of(case: ConvCase) -> int:
    return case.c // case.groups * int(np.prod(case.kernel)) + 1


@pytest.mark.parametrize("kind", ["integers", "normal"])
@pytest.mark.parametrize(("case", "backend"), pairs(TRANSPOSE_CASES), indirect=["backend"])
def test_result(case: ConvCase, backend: str, kind: str) -> None:
    x, w, b = conv_inputs(case, kind)
    y = function("conv_transpose", case.rank)(x, w, b, **case.keywords, backend=backend)
    expected, magnitude = oracles.conv_transpose(case, kind)
    assert y.dtype == case.dtype
    allowed = conv_tolerance(case, backend, "auto", kind, magnitude, terms=terms_of(case))
    assert_close(y, expected, allowed, case.name)
    if oracles.torch is not None and torch_offers(case):
        assert_close(y, torch_transpose(case, [x, w, b], None)[0], allowed, f"PyTorch's {case.name}")


@pytest.mark.parametrize(
    ("case", "backend"), pairs([c for c in TRANSPOSE_CASES if torch_offers(c)]), indirect=["backend"]
)
def test_gradients(case: ConvCase, backend: str) -> None:
    """With integers all sums are integers: rounded, they are right."""
    x, w, b = conv_inputs(case, "integers")
    dy = values("integers", oracles.conv_transpose(case, "integers")[0].shape, case.dtype, case.name + "dy")
    _, *expected = torch_transpose(case, [x, w, b], dy)
    found = function("conv_transpose", case.rank, "_backward")(dy, x, w, **case.keywords, backend=backend)
    for name, result, right in zip(found._fields, found, expected, strict=True):
        assert result.dtype == case.dtype
        assert_close(np.rint(result), right, 0, f"{name} of {case.name}")


@pytest.mark.parametrize("padding", ["same", "same_lower"])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (4, 3), (2, 1), (5, 2)])
def test_same(backend: str, kernel: int, stride: int, padding: str) -> None:
    """Size times stride, and the adjoint of the convolution of that size with the same word for its padding."""
    x = values("integers", (2, 3, 5, 6), "float64", "x")
    w = values("integers", (3, 4, kernel, kernel), "float64", "w")
    y = fastconv.conv_transpose2d(x, w, stride=stride, padding=padding, backend=backend)
    assert y.shape == (2, 4, 5 * stride, 6 * stride)
    other = values("integers", y.shape, "float64", "y")
    forward = fastconv.conv2d(other, w, stride=stride, padding=padding, backend=backend)
    assert np.rint((forward * x).sum()) == np.rint((other * y).sum())


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_adjoint(backend: str, layout: str) -> None:
    """The same weight and arguments: <conv x, y> = <x, conv_transpose y>."""
    last = layout == "NHWC"
    case = ConvCase((9, 7), (3, 3), c=4, k=6, stride=(2, 2), padding=1, groups=2, channels_last=last, dtype="float64")
    x, w, _ = conv_inputs(case, "integers")
    y = fastconv.conv2d(x, w, **case.keywords, backend=backend)
    other = values("integers", y.shape, "float64", "other")
    keywords = {k: v for k, v in case.keywords.items() if k != "padding_mode"}
    back = fastconv.conv_transpose2d(other, w, **keywords, backend=backend)
    assert back.shape == x.shape
    assert np.rint((y * other).sum()) == np.rint((x * back).sum())


def test_by_hand(backend: str) -> None:
    y = fastconv.conv_transpose1d(
        np.array([[[1.0, 2.0, 3.0]]]), np.array([[[1.0, 10.0, 100.0]]]), np.array([0.5]), stride=2, backend=backend
    )
    assert y.tolist() == [[[1.5, 10.5, 102.5, 20.5, 203.5, 30.5, 300.5]]]
    y = fastconv.conv_transpose1d(
        np.array([[[1.0, 2.0]]]), np.array([[[1.0, 10.0]]]), stride=3, output_padding=2, backend=backend
    )
    assert y.tolist() == [[[1.0, 10.0, 0.0, 2.0, 20.0, 0.0, 0.0]]]


def test_activation_and_out(backend: str) -> None:
    x, w = values("integers", (2, 3, 5, 6), "float32", "x"), values("integers", (3, 4, 3, 3), "float32", "w")
    b = values("integers", (4,), "float32", "b")
    plain = fastconv.conv_transpose2d(x, w, b, stride=2, backend=backend)
    out = np.full((2, 4, 13, 11), np.nan, np.float32).transpose(0, 1, 3, 2)
    y = fastconv.conv_transpose2d(x, w, b, stride=2, activation="relu", out=out, backend=backend)
    assert y is out
    assert_close(y, np.maximum(plain, 0))
