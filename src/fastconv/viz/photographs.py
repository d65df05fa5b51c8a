"""Real photographs, from the wheel of scikit-image: nothing is downloaded."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastconv

__all__ = ["PHOTOGRAPHS", "photograph", "squares"]

Array = NDArray[Any]

# name in skimage.data -> (title, the square that is cut out: top, left, side)
PHOTOGRAPHS: dict[str, tuple[str, tuple[int, int, int]]] = {
    "astronaut": ("Eileen Collins", (0, 60, 384)),
    "chelsea": ("Chelsea the cat", (0, 60, 300)),
    "coffee": ("a cup of coffee", (0, 110, 400)),
}


def photograph(name: str) -> Array:
    """One photograph as float32 in 0 .. 1, channels first: (3, height, width).

    Raises
    ------
    ValueError
        If there is none of that name.
    ImportError
        If scikit-image is not installed.
    """
    if name not in PHOTOGRAPHS:
        raise ValueError(f"photograph must be one of {', '.join(PHOTOGRAPHS)}, received {name!r}")
    import skimage.data

    pixels: Array = getattr(skimage.data, name)()
    scaled: Array = np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32) / np.float32(255)
    return scaled


def squares(side: int) -> Array:
    """The middle of every photograph, scaled to ``side`` by averaging: (3 photographs, 3 colours, side, side)."""
    cut = []
    for name, (_, (top, left, length)) in PHOTOGRAPHS.items():
        window = photograph(name)[None, :, top : top + length, left : left + length]
        cut.append(fastconv.adaptive_avg_pool2d(window, side))
    return np.concatenate(cut)
