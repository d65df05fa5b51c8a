"""A small network package with Keras' names: layers, Sequential and Functional models, training on a CPU.

>>> from fastconv import nn
>>> model = nn.Sequential([nn.Input((8, 8, 1)), nn.Conv2D(4, 3, activation="relu"), nn.Flatten(), nn.Dense(2)])
>>> model.compile(optimizer="adam", loss="mse")
>>> model.count_params()
330
"""

from __future__ import annotations

import sys

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
from .model import Model, Sequential
from .random import set_random_seed
from .saving import load_model

# where Keras keeps the same things, so that its programs run with "keras" replaced by "nn"
keras = sys.modules[__name__]
models = sys.modules[__name__]
backend = utils
Functional = Model

__all__ = [
    *layers.__all__, "DataError", "Functional", "History", "Model", "NonFiniteLossError", "Sequential",
    "Tensor", "WeightsError", "activations", "augmentation", "backend", "callbacks", "clear_session", "config",
    "initializers", "keras", "layers", "load_model", "losses", "metrics", "models", "optimizers", "regularizers",
    "schedules", "set_random_seed", "utils",
]  # fmt: skip
