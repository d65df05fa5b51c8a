"""PyTorch: eager on contiguous tensors, eager on channels_last, and the prepacked form that its compiler freezes to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .case import Array, Case, Library, Ready, Unsupported

__all__ = ["Torch"]

_MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}


class Torch(Library):
    """Variants ``first``, ``last`` and ``prepacked``."""

    def __init__(self, threads: int) -> None:
        import torch

        super().__init__(threads)
        self._torch: Any = torch
        torch.set_num_threads(threads)

    def prepare(self, variant: str, case: Case) -> Ready:
        if case.layer.op == "train":
            from ._torch_training import training_step

            return training_step(case, "contiguous_format" if variant == "first" else "channels_last", variant)
        case.only("conv", "max_pool", "avg_pool", "pad", backward=True)
        if variant == "prepacked":
            return self._prepacked(case)
        leaves = self._leaves(case, variant == "last")
        forward = self._forward(case, *leaves)
        if case.layer.backward:
            return self._backward(case, forward, leaves, variant == "last")

        def call() -> Any:
            with self._torch.inference_mode():
                return forward()

        return Ready(call, lambda y: [y.contiguous().numpy()])

    def _layout(self, last: bool, rank: int) -> Any:
        if not last:
            return self._torch.contiguous_format
        if rank == 1:
            raise Unsupported("channels_last is for images and volumes")
        return self._torch.channels_last if rank == 2 else self._torch.channels_last_3d

    def _tensor(self, array: Array, layout: Any) -> Any:
        return self._torch.from_numpy(array).to(memory_format=layout, copy=True)

    def _leaves(self, case: Case, last: bool) -> list[Any]:
        layout = self._layout(last, case.layer.rank)
        leaves = [self._tensor(case.x, layout)]
        if case.weight is not None:
            leaves += [self._tensor(case.weight, layout), self._torch.tensor(case.bias)]
        return leaves

    def _forward(self, case: Case, x: Any, weight: Any = None, bias: Any = None) -> Callable[[], Any]:
        layer, functional = case.layer, self._torch.nn.functional
        around = [p for pair in reversed(layer.pads) for p in pair]
        if layer.op == "pad":
            if layer.mode not in _MODES:
                raise Unsupported(f"it has no padding mode {layer.mode!r}")
            return lambda: functional.pad(x, around, _MODES[layer.mode])
        pads = [before for before, _ in layer.pads]
        if layer.op != "conv":
            if not case.symmetric:
                raise Unsupported("its pooling pads both sides alike")
            pool = getattr(functional, f"{layer.op}{layer.rank}d")
            return lambda: pool(x, layer.kernel, layer.strides, pads)
        conv = getattr(functional, f"conv{layer.rank}d")
        if case.symmetric:
            return lambda: conv(x, weight, bias, layer.strides, pads, layer.dilations, layer.groups)
        return lambda: conv(functional.pad(x, around), weight, bias, layer.strides, 0, layer.dilations, layer.groups)

    def _backward(self, case: Case, forward: Callable[[], Any], leaves: list[Any], last: bool) -> Ready:
        for leaf in leaves:
            leaf.requires_grad_(True)
        # the graph is built once and kept: only the backward pass is timed
        y = forward()
        assert case.grad_output is not None
        grad = self._tensor(case.grad_output, self._layout(last, case.layer.rank))
        return Ready(
            lambda: self._torch.autograd.grad(y, leaves, grad, retain_graph=True),
            lambda grads: [g.detach().contiguous().numpy() for g in grads],
        )

    def _prepacked(self, case: Case) -> Ready:
        """OneDNN with the weight reordered once, on channels_last input."""
        layer, torch = case.layer, self._torch
        if layer.op != "conv" or layer.backward or layer.rank != 2 or not case.symmetric:
            raise Unsupported("prepacked weights are for forward 2-D convolutions padded alike on both sides")
        x, weight, bias = self._leaves(case, last=True)
        strides, dilations, groups = list(layer.strides), list(layer.dilations), layer.groups
        pads = [before for before, _ in layer.pads]
        packed = torch.ops.mkldnn._reorder_convolution_weight(weight, pads, strides, dilations, groups, list(x.shape))
        conv = torch.ops.mkldnn._convolution_pointwise.default

        def call() -> Any:
            with torch.inference_mode():
                return conv(x, packed, bias, pads, strides, dilations, groups, "none", [], "")

        return Ready(call, lambda y: [y.contiguous().numpy()])
