"""ncnn: a net of one layer in float32, one image at a time since it knows no batch."""

from __future__ import annotations

import pathlib
import tempfile
from typing import Any

import numpy as np

from .case import Array, Case, Library, Ready, Unsupported

__all__ = ["Ncnn"]

_NARROW = ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage", "use_bf16_packed",
           "use_vulkan_compute")  # fmt: skip


class Ncnn(Library):
    """One variant; sequences run as images of one row."""

    def prepare(self, variant: str, case: Case) -> Ready:
        import ncnn

        case.only("conv", "max_pool", "avg_pool", ranks=(1, 2))
        net = ncnn.Net()
        net.opt.num_threads = self.threads
        for option in _NARROW:
            setattr(net.opt, option, False)
        with tempfile.TemporaryDirectory() as folder:
            layer_file, weight_file = pathlib.Path(folder, "n.param"), pathlib.Path(folder, "n.bin")
            layer_file.write_text(f"7767517\n2 2\nInput in 0 1 x\n{_line(case)}\n")
            weights = b""
            if case.weight is not None and case.bias is not None:  # a leading zero: plain float32
                weights = np.zeros(1, np.int32).tobytes() + case.weight.tobytes() + case.bias.tobytes()
            weight_file.write_bytes(weights)
            if net.load_param(str(layer_file)) or net.load_model(str(weight_file)):
                raise Unsupported("it could not load the net")
        images = [ncnn.Mat(_as_image(image)) for image in case.x]

        def call() -> list[Any]:
            results = []
            for image in images:
                extractor = net.create_extractor()
                extractor.input("x", image)
                results.append(extractor.extract("y")[1])
            return results

        return Ready(call, lambda ys: [np.stack([np.array(y) for y in ys]).reshape(case.out_shape)])


def _as_image(array: Array) -> Array:
    return np.ascontiguousarray(array if array.ndim == 3 else array[:, None])


def _line(case: Case) -> str:
    """The layer in ncnn's text form: numbered parameters, those of the width first."""
    layer = case.layer
    one_row = layer.rank == 1
    (kh, kw), (sh, sw), (dh, dw) = (
        (1, *values) if one_row else values for values in (layer.kernel, layer.strides, layer.dilations)
    )
    (top, bottom), (left, right) = ((0, 0), *layer.pads) if one_row else layer.pads
    if layer.op != "conv":
        kind = 0 if layer.op == "max_pool" else 1
        return (f"Pooling p 1 1 x y 0={kind} 1={kw} 11={kh} 2={sw} 12={sh} 3={left} 13={top} 14={right} 15={bottom} "
                "5=1 6=1")  # fmt: skip
    assert case.weight is not None
    name = "ConvolutionDepthWise" if layer.groups > 1 else "Convolution"
    groups = f" 7={layer.groups}" if layer.groups > 1 else ""
    return (f"{name} c 1 1 x y 0={layer.out_channels} 1={kw} 11={kh} 2={dw} 12={dh} 3={sw} 13={sh} 4={left} "
            f"15={right} 14={top} 16={bottom} 5=1 6={case.weight.size}{groups}")  # fmt: skip
