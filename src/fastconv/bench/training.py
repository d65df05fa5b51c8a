"""A whole training step (forward, loss, backward, Adam) of three small networks, as a problem like any layer.

Every library starts from the same parameters and takes two steps; its two losses are held against those in float64, so
that a wrong gradient shows in the second. The networks are made in one order everywhere, and parameters follow it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

import fastconv
from fastconv.testing import values

from .. import nn
from .layers import Layer
from .peers.case import Array, Case

__all__ = [
    "CLASSES",
    "NETWORKS",
    "STEM",
    "TrainingProblem",
    "give_parameters",
    "initial_parameters",
    "network",
    "our_step",
]

NETWORKS = ("happy", "signs", "cifar20")
CLASSES = {"happy": 2, "signs": 6, "cifar20": 10}
STEM = (16, 32, 64)  # channels of the residual network's three stages, three blocks each


class _Maker:
    """Makes layers of a kit and remembers those that have parameters, in the order they were made."""

    def __init__(self, kit: Any) -> None:
        self.kit = kit
        self.layers: list[Any] = []

    def _made(self, layer: Any) -> Any:
        self.layers.append(layer)
        return layer

    def conv(self, *given: Any, **more: Any) -> Any:
        return self._made(self.kit.Conv2D(*given, **more))

    def norm(self) -> Any:
        return self._made(self.kit.BatchNormalization())

    def dense(self, count: int, activation: str) -> Any:
        return self._made(self.kit.Dense(count, activation=activation))


def network(name: str, kit: Any = nn) -> tuple[Any, list[Any]]:
    """The network of this name, and its layers with parameters in the order they were made.

    ``kit`` holds the layers: those of fastconv.nn, or Keras's, which have the same names and arguments.

    Examples
    --------
    >>> network("signs")[0].count_params()
    1310
    """
    make = _Maker(kit)
    if name == "happy":
        body = [kit.Input((64, 64, 3)), kit.ZeroPadding2D(3), make.conv(32, 7), make.norm(), kit.ReLU()]
        return kit.Sequential([*body, kit.MaxPooling2D(), kit.Flatten(), make.dense(1, "sigmoid")]), make.layers
    if name == "signs":
        start = kit.Input((64, 64, 3))
        x = kit.MaxPooling2D(8, padding="same")(kit.ReLU()(make.conv(8, 4, padding="same")(start)))
        x = kit.MaxPooling2D(4, padding="same")(kit.ReLU()(make.conv(16, 2, padding="same")(x)))
        return kit.Model(inputs=start, outputs=make.dense(6, "softmax")(kit.Flatten()(x))), make.layers
    start = kit.Input((32, 32, 3))
    x, channels = kit.ReLU()(_normed(make, start, STEM[0])), STEM[0]
    for width in STEM:
        for _ in range(3):
            stride = 2 if width > channels else 1
            skip = make.conv(width, 1, strides=stride, use_bias=False)(x) if stride > 1 else x
            x = kit.ReLU()(kit.Add()([_normed(make, kit.ReLU()(_normed(make, x, width, stride)), width), skip]))
            channels = width
    scores = make.dense(10, "softmax")(kit.GlobalAveragePooling2D()(x))
    return kit.Model(inputs=start, outputs=scores), make.layers


def _normed(make: _Maker, x: Any, width: int, stride: int = 1) -> Any:
    if stride > 1:  # one row on every side, as PyTorch pads; "same" would put both at the end
        x = make.conv(width, 3, strides=stride, use_bias=False)(make.kit.ZeroPadding2D(1)(x))
    else:
        x = make.conv(width, 3, padding="same", use_bias=False)(x)
    return make.norm()(x)


def initial_parameters(name: str) -> list[list[Array]]:
    """What every library starts from, layer by layer: kernels channels last, and biases; scale and shift of a norm."""
    drawn = []
    for i, layer in enumerate(network(name)[1]):
        shapes = [w.shape for w in layer.get_weights()[:2]]
        if isinstance(layer, nn.BatchNormalization):
            drawn.append([np.ones(shapes[0], np.float32), np.zeros(shapes[1], np.float32)])
            continue
        kernel = values("normal", shapes[0], np.float32, f"{name} {i}") / math.sqrt(math.prod(shapes[0][:-1]))
        drawn.append([kernel.astype(np.float32), *(np.zeros(shape, np.float32) for shape in shapes[1:])])
    return drawn


def give_parameters(name: str, layers: Sequence[Any]) -> None:
    """Let layers, of fastconv.nn or of Keras, begin where everybody begins."""
    for layer, start in zip(layers, initial_parameters(name), strict=True):
        layer.set_weights([*start, *layer.get_weights()[len(start) :]])


def our_step(name: str, x: Array, labels: Array) -> Any:
    """A call that takes one step of fastconv.nn and gives the loss; ``x`` is channels last."""
    model, layers = network(name)
    give_parameters(name, layers)
    binary = name == "happy"
    model.compile(optimizer="adam", loss="binary_crossentropy" if binary else "sparse_categorical_crossentropy")
    y = labels.astype(x.dtype)[:, None] if binary else labels
    return lambda: model.train_on_batch(x, y)


class TrainingProblem:
    """A training step as a problem: the images, the labels, and the two losses that are right."""

    flops = 0
    bytes = 0
    outputs = 2

    def __init__(self, layer: Layer, batch: int) -> None:
        self.layer, self.batch = layer, batch
        self._network = layer.name.partition("/")[2]
        rng = np.random.default_rng(0)
        self._x = rng.random(layer.x_shape(batch), dtype=np.float32)
        self._labels = rng.integers(0, CLASSES[self._network], batch)
        self._exact = self._losses()

    def _losses(self) -> Array:
        before = nn.config.floatx()
        nn.config.set_floatx("float64")
        try:
            with fastconv.use_backend("numpy"):
                step = our_step(self._network, np.moveaxis(self._x, 1, -1).astype(np.float64), self._labels)
                return np.array([step(), step()], np.float64)
        finally:
            nn.config.set_floatx(before)

    def case(self) -> Case:
        """As of a layer; the labels stand where a layer has its bias."""
        return Case(self.layer, (2,), self._x, bias=self._labels)

    def distance(self, results: Sequence[Array]) -> tuple[float, float]:
        """(largest difference of the losses, the same relative to the loss)."""
        apart = np.abs(np.asarray(results[0], np.float64) - self._exact)
        if not np.isfinite(apart).all():
            return math.inf, math.inf
        return float(apart.max()), float((apart / np.abs(self._exact)).max())
