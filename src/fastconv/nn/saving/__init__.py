"""Models and weights in files: the package's own format, safetensors, and Keras' formats."""

from __future__ import annotations

from .files import load_model, load_weights, save_model, save_weights
from .structure import config_of, model_from_config

__all__ = ["config_of", "load_model", "load_weights", "model_from_config", "save_model", "save_weights"]
