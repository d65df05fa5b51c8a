"""A graph of one operation in ONNX's format, for the libraries that read it."""

from __future__ import annotations

from typing import Any

from .case import Case

__all__ = ["model_bytes"]


def model_bytes(case: Case) -> bytes:
    """The model with one node, ``x`` to ``y``; a convolution's weight and bias are constants in it."""
    from onnx import TensorProto, helper, numpy_helper

    layer = case.layer
    given: dict[str, Any] = {
        "kernel_shape": list(layer.kernel),
        "strides": list(layer.strides),
        "pads": [before for before, _ in layer.pads] + [after for _, after in layer.pads],
    }
    constants: list[Any] = []
    if layer.op == "conv":
        given |= {"dilations": list(layer.dilations), "group": layer.groups}
        assert case.weight is not None
        assert case.bias is not None
        constants = [numpy_helper.from_array(case.weight, "w"), numpy_helper.from_array(case.bias, "b")]
    elif layer.op == "avg_pool":
        given["count_include_pad"] = 1
    kind = {"conv": "Conv", "max_pool": "MaxPool", "avg_pool": "AveragePool"}[layer.op]
    node = helper.make_node(kind, ["x", *(c.name for c in constants)], ["y"], **given)
    shapes = (("x", case.x.shape), ("y", case.out_shape))
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)) for name, shape in shapes)
    graph = helper.make_graph([node], "layer", [x], [y], constants)
    opsets = [helper.make_opsetid("", 17)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())
