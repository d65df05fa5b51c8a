"""MNN: a session of one operation, NumPy arrays copied in and out.

The model is converted from ONNX in a process of its own, by the converter's compiled function: its command line would
install a package and report home when started, and its protobuf does not get along with others in one process.
"""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

import numpy as np

from ._onnx import model_bytes
from .case import Case, Library, Ready, Unsupported

__all__ = ["Mnn"]

_CONVERT = "import sys, _tools; _tools.mnnconvert(sys.argv)"


class Mnn(Library):
    """One variant."""

    def __init__(self, threads: int) -> None:
        import MNN

        super().__init__(threads)
        self._mnn: Any = MNN

    def prepare(self, variant: str, case: Case) -> Ready:
        case.only("conv", "max_pool", "avg_pool", ranks=(2,))
        mnn = self._mnn
        with tempfile.TemporaryDirectory() as folder:
            source, target = pathlib.Path(folder, "m.onnx"), pathlib.Path(folder, "m.mnn")
            source.write_bytes(model_bytes(case))
            words = ["-f", "ONNX", "--modelFile", str(source), "--MNNModel", str(target), "--bizCode", "x"]
            # no PATH: whatever the converter would like to start is not found
            done = subprocess.run([sys.executable, "-c", _CONVERT, *words], capture_output=True,
                                  env={**os.environ, "PATH": ""})  # fmt: skip
            if not target.exists():
                raise Unsupported("its converter failed: " + done.stderr.decode(errors="replace")[-200:].strip())
            interpreter = mnn.Interpreter(str(target))
        session = interpreter.createSession({"numThread": self.threads, "precision": "high", "backend": "CPU"})
        inside, outside = interpreter.getSessionInput(session), interpreter.getSessionOutput(session)
        y = np.zeros(case.out_shape, np.float32)
        kind, layout = mnn.Halide_Type_Float, mnn.Tensor_DimensionType_Caffe
        x_tensor, y_tensor = mnn.Tensor(case.x.shape, kind, case.x, layout), mnn.Tensor(y.shape, kind, y, layout)

        def call(keep: Any = (interpreter, case, y)) -> Any:
            inside.copyFrom(x_tensor)
            interpreter.runSession(session)
            outside.copyToHostTensor(y_tensor)
            return y_tensor

        return Ready(call, lambda t: [np.array(t.getNumpyData()).reshape(case.out_shape)])
