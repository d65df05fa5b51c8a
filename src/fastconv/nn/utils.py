"""Small helpers under Keras' names."""

from __future__ import annotations

from typing import Any

import numpy as np

from .errors import DataError
from .graph import Array, clear_session
from .random import set_random_seed

__all__ = ["clear_session", "set_random_seed", "to_categorical"]


def to_categorical(x: Any, num_classes: int | None = None) -> Array:
    """Whole-number labels as one-hot rows.

    Parameters
    ----------
    x : array_like of int
        From 0 on; a last axis of length one is dropped.
    num_classes : int, optional
        By default the largest label and one.

    Returns
    -------
    ndarray
        float32, with one axis more.

    Examples
    --------
    >>> from fastconv import nn
    >>> nn.utils.to_categorical([0, 2])
    array([[1., 0., 0.],
           [0., 0., 1.]], dtype=float32)
    """
    labels = np.asarray(x)
    if labels.ndim > 1 and labels.shape[-1] == 1:
        labels = labels[..., 0]
    labels = labels.astype(np.int64)
    classes = int(labels.max()) + 1 if num_classes is None else num_classes
    if labels.size and not (labels.min() >= 0 and labels.max() < classes):
        raise DataError(
            f"to_categorical: labels must be from 0 to {classes - 1}, received {labels.min()} to {labels.max()}"
        )
    rows: Array = np.eye(classes, dtype=np.float32)[labels]
    return rows
