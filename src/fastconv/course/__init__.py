"""The functions of the classic first course on convolutional networks, under their own names and signatures.

They are written as the lesson writes them: loops over images, rows, columns and filters, in plain NumPy. One switch
runs the same calls on any backend, with the same numbers; on ``cpp`` hundreds to thousands of times as fast:

>>> import numpy as np
>>> from fastconv import course
>>> A = np.ones((1, 4, 4, 1))
>>> W, b = np.ones((3, 3, 1, 2)), np.zeros((1, 1, 1, 2))
>>> Z, cache = course.conv_forward(A, W, b, {"stride": 1, "pad": 0})
>>> with course.use("numpy"):
...     fast, _ = course.conv_forward(A, W, b, {"stride": 1, "pad": 0})
>>> bool(np.allclose(Z, fast)), Z.shape
(True, (1, 2, 2, 2))
"""

from __future__ import annotations

from .conv import conv_backward, conv_forward, conv_single_step, zero_pad
from .data import (
    as_column,
    convert_to_one_hot,
    load_happy_dataset,
    load_signs_dataset,
    normalize,
    random_mini_batches,
)
from .drawn import draw_faces, draw_hands
from .pool import create_mask_from_window, distribute_value, pool_backward, pool_forward
from .switch import LOOPS, use

__all__ = [
    "LOOPS",
    "as_column",
    "conv_backward",
    "conv_forward",
    "conv_single_step",
    "convert_to_one_hot",
    "create_mask_from_window",
    "distribute_value",
    "draw_faces",
    "draw_hands",
    "load_happy_dataset",
    "load_signs_dataset",
    "normalize",
    "pool_backward",
    "pool_forward",
    "random_mini_batches",
    "use",
    "zero_pad",
]
