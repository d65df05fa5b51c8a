"""A training step of Keras on TensorFlow: the same small networks from the same parameters, compiled into a graph."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from ..training import give_parameters, network
from .case import Case, Ready, Unsupported, channels_last

__all__ = ["training_step"]


class _Kit:
    """Keras's layers and models under the names that fastconv.nn has them in one place."""

    def __init__(self, keras: Any) -> None:
        self._keras = keras

    def __getattr__(self, name: str) -> Any:
        return getattr(self._keras if name in ("Model", "Sequential") else self._keras.layers, name)


def training_step(case: Case) -> Ready:
    """One step on constant images, as a concrete function."""
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    try:
        import keras
    except ImportError:
        raise Unsupported("Keras is not installed") from None
    import tensorflow

    tf: Any = tensorflow
    if keras.backend.backend() != "tensorflow":
        raise Unsupported("Keras is set to another backend")
    name = case.layer.name.partition("/")[2]
    model, layers = network(name, _Kit(keras))
    give_parameters(name, layers)
    losses: Any = keras.losses
    binary = name == "happy"
    loss_of = losses.BinaryCrossentropy() if binary else losses.SparseCategoricalCrossentropy()
    optimizer: Any = keras.optimizers.Adam()
    optimizer.build(model.trainable_variables)
    assert case.bias is not None
    images, labels = tf.constant(channels_last(case.x)), tf.constant(case.bias[:, None] if binary else case.bias)

    def step() -> Any:
        with tf.GradientTape() as tape:
            loss = loss_of(labels, model(images, training=True))
        variables = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    run = tf.function(step, autograph=False).get_concrete_function()
    first = float(run().numpy())
    return Ready(run, lambda second: [np.array([first, float(second.numpy())])])
