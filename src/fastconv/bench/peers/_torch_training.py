"""A training step of PyTorch on the same small networks, from the same parameters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..training import STEM, initial_parameters
from .case import Array, Case, Ready, Unsupported

__all__ = ["training_step"]


class _Maker:
    """Makes modules in the order of fastconv's, each with the parameters that stand next in the list."""

    def __init__(self, parameters: list[list[Array]]) -> None:
        self._next = iter(parameters)

    def conv(self, before: int, width: int, kernel: int, stride: int = 1, pad: int = 0, *, bias: bool = False) -> Any:
        from torch import nn

        made = nn.Conv2d(before, width, kernel, stride, pad, bias=bias)
        weight, *rest = next(self._next)
        return _loaded(made, [weight.transpose(3, 2, 0, 1), *rest])

    def norm(self, width: int) -> Any:
        from torch import nn

        return _loaded(nn.BatchNorm2d(width, eps=1e-3, momentum=0.01), next(self._next))

    def dense(self, shape: tuple[int, ...], count: int) -> Any:
        """``shape`` is (height, width, channels) of what is flattened."""
        from torch import nn

        weight, bias = next(self._next)
        made = nn.Linear(int(np.prod(shape)), count)
        return _loaded(made, [weight.reshape(*shape, count).transpose(3, 2, 0, 1).reshape(count, -1), bias])


def _loaded(module: Any, arrays: list[Array]) -> Any:
    import torch

    with torch.no_grad():
        for parameter, array in zip(module.parameters(), arrays, strict=True):
            parameter.copy_(torch.from_numpy(np.ascontiguousarray(array)))
    return module


def _residual(make: _Maker) -> Iterator[Any]:
    from torch import nn
    from torch.nn.functional import relu

    class Block(nn.Module):
        def __init__(self, before: int, width: int, stride: int) -> None:
            super().__init__()
            self.skip = make.conv(before, width, 1, stride) if stride > 1 else nn.Identity()
            self.first, self.first_norm = make.conv(before, width, 3, stride, 1), make.norm(width)
            self.second, self.second_norm = make.conv(width, width, 3, 1, 1), make.norm(width)

        def forward(self, x: Any) -> Any:
            return relu(self.second_norm(self.second(relu(self.first_norm(self.first(x))))) + self.skip(x))

    yield from (make.conv(3, STEM[0], 3, 1, 1), make.norm(STEM[0]), nn.ReLU())
    channels = STEM[0]
    for width in STEM:
        for _ in range(3):
            yield Block(channels, width, 2 if width > channels else 1)
            channels = width
    yield from (nn.AdaptiveAvgPool2d(1), nn.Flatten(), make.dense((1, 1, channels), 10))


def _network(name: str) -> Any:
    from torch import nn

    make = _Maker(initial_parameters(name))
    if name == "cifar20":
        return nn.Sequential(*_residual(make))
    if name == "happy":
        body = [nn.ZeroPad2d(3), make.conv(3, 32, 7, bias=True), make.norm(32), nn.ReLU(), nn.MaxPool2d(2)]
        return nn.Sequential(*body, nn.Flatten(), make.dense((32, 32, 32), 1))
    body = [nn.ZeroPad2d((1, 2, 1, 2)), make.conv(3, 8, 4, bias=True), nn.ReLU(), nn.MaxPool2d(8)]
    body += [nn.ZeroPad2d((0, 1, 0, 1)), make.conv(8, 16, 2, bias=True), nn.ReLU(), nn.MaxPool2d(4)]
    return nn.Sequential(*body, nn.Flatten(), make.dense((2, 2, 16), 6))


def training_step(case: Case, layout: str, variant: str) -> Ready:
    """One step on constant images, in one of PyTorch's memory formats."""
    if variant == "prepacked":
        raise Unsupported("weights that change cannot be prepacked")
    import torch
    from torch.nn import functional

    name = case.layer.name.partition("/")[2]
    memory_format = getattr(torch, layout)
    model = _network(name).to(memory_format=memory_format)
    optimizer = torch.optim.Adam(model.parameters(), eps=1e-7)  # Keras's and ours
    images = torch.from_numpy(case.x).to(memory_format=memory_format, copy=True)
    labels = torch.from_numpy(case.bias)

    def step() -> Any:
        optimizer.zero_grad()
        scores = model(images)
        loss: Any
        if name == "happy":
            loss = functional.binary_cross_entropy_with_logits(scores[:, 0], labels.float())
        else:
            loss = functional.cross_entropy(scores, labels)
        loss.backward()
        optimizer.step()
        return loss

    first = float(step().detach())
    return Ready(step, lambda second: [np.array([first, float(second.detach())])])
