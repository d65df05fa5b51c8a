"""The oracles against each other: the definitions written here, PyTorch, and ONNX's reference evaluator."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import oracles
import pytest
from support import function, without

from fastconv.testing import CONV_CASES, POOL_CASES, ConvCase, PoolCase, assert_close, conv_inputs, tolerance, values

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    try:
        import onnx
        from onnx import helper
        from onnx.reference import ReferenceEvaluator
    except ImportError:
        onnx = None


def run_onnx(operator: str, arrays: list[np.ndarray], **attributes: Any) -> np.ndarray:
    """One node in ONNX's reference evaluator."""
    if onnx is None:
        without("onnx")
    names = [f"i{i}" for i in range(len(arrays))]
    element = helper.np_dtype_to_tensor_dtype(arrays[0].dtype)
    graph = helper.make_graph(
        [helper.make_node(operator, names, ["y"], **attributes)],
        "one",
        [helper.make_tensor_value_info(n, element, a.shape) for n, a in zip(names, arrays, strict=True)],
        [helper.make_tensor_value_info("y", element, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ReferenceEvaluator(model).run(None, dict(zip(names, arrays, strict=True)))[0]


def onnx_pads(pairs: list[tuple[int, int]]) -> list[int]:
    return [lo for lo, _ in pairs] + [hi for _, hi in pairs]


@pytest.mark.parametrize("case", CONV_CASES[2::3], ids=lambda c: c.name)
def test_taps_are_torch(case: ConvCase) -> None:
    """The definition by taps and its adjoint give PyTorch's numbers: all integers, so exactly."""
    oracles.needs_torch()
    x, w, b = conv_inputs(case, "integers")
    y = oracles.taps_conv(case, x, w, b)
    dy = values("integers", y.shape, "float64", case.name)
    theirs, gradients = oracles.torch_conv_and_gradients(case, x, w, b, dy)
    assert_close(y, theirs)
    assert gradients is not None
    for ours, right in zip(oracles.taps_gradients(case, x, w, dy), gradients, strict=True):
        assert_close(ours, right)


ONNX_CONV = [
    ConvCase((7, 8), (3, 3), padding=((0, 2), (3, 1)), dtype="float64"),
    ConvCase((7, 8), (2, 3), stride=(2, 3), dilation=(2, 1), padding=((1, 0), (0, 2)), dtype="float64"),
    ConvCase((6, 5), (3, 2), c=4, k=6, groups=2, padding=1, dtype="float64"),
    *(
        ConvCase((8, 9), kernel, stride=stride, padding=padding, dtype="float64")
        for kernel in ((3, 3), (4, 2))
        for stride in ((1, 1), (2, 2), (3, 1))
        for padding in ("same", "same_lower")
    ),
    ConvCase((11,), (4,), stride=(2,), padding="same_lower", dtype="float64"),
    ConvCase((4, 5, 3), (2, 3, 2), padding=((1, 0), (0, 2), (1, 1)), dtype="float64"),
]


@pytest.mark.parametrize("case", ONNX_CONV, ids=lambda c: c.name)
def test_onnx_conv(case: ConvCase, backend: str) -> None:
    x, w, b = conv_inputs(case, "integers")
    attributes: dict[str, Any] = {"strides": case.strides, "dilations": case.dilations, "group": case.groups}
    attributes["kernel_shape"] = case.kernel
    if isinstance(case.padding, str):
        attributes["auto_pad"] = {"same": "SAME_UPPER", "same_lower": "SAME_LOWER"}[case.padding]
    else:
        attributes["pads"] = onnx_pads(oracles.case_pads(case))
    expected = run_onnx("Conv", [x, w, b], **attributes)
    assert_close(oracles.taps_conv(case, x, w, b), expected)
    y = function("conv", case.rank)(x, w, b, **case.keywords, backend=backend)
    assert_close(y, expected)


ONNX_POOL = [
    c
    for c in POOL_CASES[::3]
    if not isinstance(c.padding, str) and all(max(p) < k for p, k in zip(oracles.case_pads(c), c.kernel, strict=True))
]


@pytest.mark.parametrize("case", ONNX_POOL, ids=lambda c: c.name)
def test_onnx_max_pool(case: PoolCase) -> None:
    """Asymmetric pads, ceil_mode, dilation."""
    x = values("integers", case.x_shape, case.dtype, case.name)
    expected = run_onnx(
        "MaxPool", [x], kernel_shape=case.kernel, strides=case.strides, dilations=case.dilations,
        pads=onnx_pads(oracles.case_pads(case)), ceil_mode=int(case.ceil_mode),
    )  # fmt: skip
    assert_close(oracles.windows_max_pool(case, x)[0], expected)


@pytest.mark.parametrize("case", [c for c in ONNX_POOL if not c.dilated], ids=lambda c: c.name)
def test_onnx_average_pool(case: PoolCase) -> None:
    x = values("integers", case.x_shape, "float64", case.name)
    expected = run_onnx(
        "AveragePool", [x], kernel_shape=case.kernel, strides=case.strides, ceil_mode=int(case.ceil_mode),
        pads=onnx_pads(oracles.case_pads(case)), count_include_pad=int(case.count_include_pad),
    )  # fmt: skip
    allowed = tolerance("float64", int(np.prod(case.kernel)), oracles.windows_avg_pool(case, abs(x)))
    assert_close(oracles.windows_avg_pool(case, x), expected, allowed)
