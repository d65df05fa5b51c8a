"""A small network package with Keras' names: layers, Sequential and Functional models, training on a CPU.

>>> from fastconv import nn
>>> model = nn.Sequential([nn.Input((8, 8, 1)), nn.Conv2D(4, 3, activation="relu"), nn.Flatten(), nn.Dense(2)])
>>> model.compile(optimizer="adam", loss="mse")
>>> model.count_params()
330
"""

from __future__ import annotations

import sys
from typing import Any

from . import (
    activations,
    augmentation,
    callbacks,
    config,
    initializers,
    layers,
    losses,
    metrics,
    optimizers,
    regularizers,
    schedules,
    utils,
)
from .callbacks import History
from .errors import DataError, NonFiniteLossError, WeightsError
from .graph import Tensor, clear_session
from .layers import *  # noqa: F403
from .layers import Input, Layer
from .layers import __all__ as _layer_names
from .model import Model, Sequential
from .random import set_random_seed
from .saving import load_model

# where Keras keeps the same things, so that its programs run with "keras" replaced by "nn"
keras = sys.modules[__name__]
models = sys.modules[__name__]
backend = utils
Functional = Model
optimizers.schedules = schedules

__all__ = [
    *_layer_names, "DataError", "Functional", "History", "Input", "Layer", "Model", "NonFiniteLossError", "Sequential",
    "Tensor", "WeightsError", "activations", "augmentation", "backend", "callbacks", "clear_session", "config",
    "initializers", "keras", "layers", "load_model", "losses", "metrics", "models", "optimizers", "regularizers",
    "schedules", "set_random_seed", "utils",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Layers under Keras' other names, such as ``MaxPool2D``."""
    if hasattr(layers, name) and name[:1].isupper():
        return getattr(layers, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
