"""A full training step (forward, loss, backward, Adam): images per second of fastconv.nn, and of PyTorch if installed.

The course's two models at batch 16 and 64, and a 20-layer residual network on 32x32x3 at batch 64. fastconv and
PyTorch, in both of its layouts, take turns in one process; the ratio is to PyTorch's better layout.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv import nn
from fastconv.bench.timing import Probe, interleave

Step = Callable[[], Any]
CASES = (("happy", 16), ("happy", 64), ("signs", 16), ("signs", 64), ("cifar20", 64))
SIZES = {"happy": (64, 2), "signs": (64, 6), "cifar20": (32, 10)}  # name -> (pixels along an axis, classes)


def _happy() -> nn.Model:
    return nn.Sequential(
        [
            nn.Input((64, 64, 3)), nn.ZeroPadding2D(3), nn.Conv2D(32, 7), nn.BatchNormalization(axis=3), nn.ReLU(),
            nn.MaxPooling2D(), nn.Flatten(), nn.Dense(1, activation="sigmoid"),
        ]
    )  # fmt: skip


def _signs() -> nn.Model:
    start = nn.Input((64, 64, 3))
    x = nn.MaxPooling2D(8, padding="same")(nn.ReLU()(nn.Conv2D(8, 4, padding="same")(start)))
    x = nn.MaxPooling2D(4, padding="same")(nn.ReLU()(nn.Conv2D(16, 2, padding="same")(x)))
    return nn.Model(inputs=start, outputs=nn.Dense(6, activation="softmax")(nn.Flatten()(x)))


def _cifar20() -> nn.Model:
    def normed(x: Any, width: int, stride: int = 1) -> Any:
        return nn.BatchNormalization()(nn.Conv2D(width, 3, strides=stride, padding="same", use_bias=False)(x))

    start = nn.Input((32, 32, 3))
    x, channels = nn.ReLU()(normed(start, 16)), 16
    for width in (16, 32, 64):
        for _ in range(3):
            stride = 2 if width > channels else 1
            skip = nn.Conv2D(width, 1, strides=stride, use_bias=False)(x) if stride > 1 else x
            x = nn.ReLU()(nn.Add()([normed(nn.ReLU()(normed(x, width, stride)), width), skip]))
            channels = width
    return nn.Model(inputs=start, outputs=nn.Dense(10, activation="softmax")(nn.GlobalAveragePooling2D()(x)))


MODELS: dict[str, Callable[[], nn.Model]] = {"happy": _happy, "signs": _signs, "cifar20": _cifar20}


def _our_step(name: str, x: Any, y: Any) -> Step:
    model = MODELS[name]()
    model.compile(
        optimizer="adam", loss="binary_crossentropy" if name == "happy" else "sparse_categorical_crossentropy"
    )
    labels = y.astype(np.float32)[:, None] if name == "happy" else y
    return lambda: model.train_on_batch(x, labels)


def _torch_model(name: str) -> Any:
    from torch import nn as layers
    from torch.nn.functional import relu

    class Block(layers.Module):
        def __init__(self, before: int, width: int, stride: int) -> None:
            super().__init__()
            self.first = layers.Conv2d(before, width, 3, stride, 1, bias=False)
            self.first_norm = layers.BatchNorm2d(width)
            self.second = layers.Conv2d(width, width, 3, 1, 1, bias=False)
            self.second_norm = layers.BatchNorm2d(width)
            self.skip = layers.Conv2d(before, width, 1, stride, bias=False) if stride > 1 else layers.Identity()

        def forward(self, x: Any) -> Any:
            return relu(self.second_norm(self.second(relu(self.first_norm(self.first(x))))) + self.skip(x))

    if name == "happy":
        body = [
            layers.ZeroPad2d(3),
            layers.Conv2d(3, 32, 7),
            layers.BatchNorm2d(32),
            layers.ReLU(),
            layers.MaxPool2d(2),
        ]
        return layers.Sequential(*body, layers.Flatten(), layers.Linear(32768, 1))
    if name == "signs":
        body = [layers.ZeroPad2d((1, 2, 1, 2)), layers.Conv2d(3, 8, 4), layers.ReLU(), layers.MaxPool2d(8)]
        body += [layers.ZeroPad2d((0, 1, 0, 1)), layers.Conv2d(8, 16, 2), layers.ReLU(), layers.MaxPool2d(4)]
        return layers.Sequential(*body, layers.Flatten(), layers.Linear(64, 6))
    body, channels = [layers.Conv2d(3, 16, 3, 1, 1, bias=False), layers.BatchNorm2d(16), layers.ReLU()], 16
    for width in (16, 32, 64):
        for _ in range(3):
            body.append(Block(channels, width, 2 if width > channels else 1))
            channels = width
    return layers.Sequential(*body, layers.AdaptiveAvgPool2d(1), layers.Flatten(), layers.Linear(64, 10))


def _torch_step(name: str, x: Any, y: Any, memory_format: str) -> Step:
    import torch
    from torch.nn import functional

    layout = getattr(torch, memory_format)
    model = _torch_model(name).to(memory_format=layout)
    optimizer = torch.optim.Adam(model.parameters())
    images = torch.from_numpy(x).permute(0, 3, 1, 2).contiguous(memory_format=layout)
    labels = torch.from_numpy(y)

    def step() -> None:
        optimizer.zero_grad()
        scores = model(images)
        if name == "happy":
            loss = functional.binary_cross_entropy_with_logits(scores[:, 0], labels.float())
        else:
            loss = functional.cross_entropy(scores, labels)
        loss.backward()
        optimizer.step()

    return step


@pytest.mark.parametrize(("name", "batch"), CASES)
def bench_training_step(
    name: str, batch: int, request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
) -> None:
    size, classes = SIZES[name]
    rng = np.random.default_rng(0)
    x, y = rng.random((batch, size, size, 3), dtype=np.float32), rng.integers(0, classes, batch)
    steps = {"fastconv": _our_step(name, x, y)}
    if importlib.util.find_spec("torch") is not None:
        import torch

        torch.set_num_threads(fastconv.get_num_threads())
        steps |= {f"torch {f}": _torch_step(name, x, y, f) for f in ("contiguous_format", "channels_last")}
    for step in steps.values():
        step()
    quick = request.config.getoption("--quick")
    timings = interleave(steps, seconds=0.3 if quick else 1.5, rounds=3 if quick else 7, probe=Probe())
    rates = {who: batch / timing.median for who, timing in timings.items()}
    line = f"{name} batch {batch}, {fastconv.get_num_threads()} threads: " + ", ".join(
        f"{w} {r:,.0f}/s" for w, r in rates.items()
    )
    if len(rates) > 1:
        line += f", ratio {rates['fastconv'] / max(r for w, r in rates.items() if w != 'fastconv'):.2f}"
    record_property("training", line)
