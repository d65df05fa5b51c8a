"""What the network package raises beside the library's own exceptions."""

from __future__ import annotations

from .. import FastconvError

__all__ = ["DataError", "NonFiniteLossError", "WeightsError"]


class DataError(FastconvError, ValueError):
    """Data to train on or to predict from that does not fit the model: lengths, shapes, labels, emptiness."""


class WeightsError(FastconvError, ValueError):
    """Weights or a model file that cannot be taken: another model's, damaged or incomplete."""


class NonFiniteLossError(FastconvError, ArithmeticError):
    """The loss became NaN or infinite; the text names the layer in which such values first appear."""
