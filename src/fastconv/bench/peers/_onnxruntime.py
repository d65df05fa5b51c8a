"""ONNX Runtime: a session of one node, input and output bound beforehand."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._onnx import model_bytes
from .case import Case, Library, Ready

__all__ = ["OnnxRuntime"]


class OnnxRuntime(Library):
    """One variant; NCHW in and out, weights prepacked by the session."""

    def prepare(self, variant: str, case: Case) -> Ready:
        import onnxruntime as ort

        case.only("conv", "max_pool", "avg_pool")
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads, options.inter_op_num_threads = self.threads, 1
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        session = ort.InferenceSession(model_bytes(case), options, providers=["CPUExecutionProvider"])
        binding = session.io_binding()
        x = ort.OrtValue.ortvalue_from_numpy(case.x)
        y = ort.OrtValue.ortvalue_from_numpy(np.zeros(case.out_shape, np.float32))
        binding.bind_ortvalue_input("x", x)
        binding.bind_ortvalue_output("y", y)

        def call(keep: Any = x) -> None:  # the binding alone does not keep the input alive
            session.run_with_iobinding(binding)

        return Ready(call, lambda _: [y.numpy()])
