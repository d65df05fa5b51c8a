"""OpenVINO: a compiled model of one operation in float32, on NCHW arrays or with NHWC ones at both ends."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..layers import LAYOUTS
from .case import Case, Library, Ready, channels_first, channels_last

__all__ = ["OpenVino"]


class OpenVino(Library):
    """Variants ``first`` and ``last``."""

    def __init__(self, threads: int) -> None:
        import openvino

        super().__init__(threads)
        self._ov: Any = openvino
        self._core = openvino.Core()

    def prepare(self, variant: str, case: Case) -> Ready:
        case.only("conv", "max_pool", "avg_pool")
        model = self._model(case)
        if variant == "last":
            model = self._at_both_ends(model, *LAYOUTS[case.layer.rank])
        compiled = self._core.compile_model(model, "CPU", {
            "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": self.threads,
        })  # fmt: skip
        request = compiled.create_infer_request()
        x = self._ov.Tensor(channels_last(case.x) if variant == "last" else case.x, shared_memory=True)
        request.set_input_tensor(0, x)
        y = request.get_output_tensor(0)
        as_first = channels_first if variant == "last" else np.array

        def call(keep: Any = (x, compiled)) -> None:  # what must live as long as the call
            request.infer()

        return Ready(call, lambda _: [as_first(y.data)])

    def _model(self, case: Case) -> Any:
        from openvino import opset1, opset13

        layer = case.layer
        x = opset13.parameter(list(case.x.shape), self._ov.Type.f32, name="x")
        before, after = ([pair[i] for pair in layer.pads] for i in (0, 1))
        strides, kernel = list(layer.strides), list(layer.kernel)
        if layer.op == "max_pool":
            y = opset1.max_pool(x, strides, before, after, kernel)
        elif layer.op == "avg_pool":
            y = opset1.avg_pool(x, strides, before, after, kernel, False)
        else:
            assert case.weight is not None
            assert case.bias is not None
            weight, groups = case.weight, layer.groups
            if groups > 1:
                weight = weight.reshape(groups, len(weight) // groups, *weight.shape[1:])
            conv = opset13.group_convolution if groups > 1 else opset13.convolution
            y = conv(x, opset13.constant(weight), strides, before, after, list(layer.dilations))
            y = opset13.add(y, opset13.constant(case.bias.reshape(1, -1, *(1,) * layer.rank)))
        return self._ov.Model([y], [x], "layer")

    def _at_both_ends(self, model: Any, inside: str, outside: str) -> Any:
        from openvino.preprocess import PrePostProcessor

        processor = PrePostProcessor(model)
        for end in (processor.input(), processor.output()):
            end.model().set_layout(self._ov.Layout(inside))
            end.tensor().set_layout(self._ov.Layout(outside))
        return processor.build()
