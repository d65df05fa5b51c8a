"""Filters that people know by name, and a bank of oriented ones like those that networks learn first."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["FILTERS", "gabor_bank"]

Array = NDArray[Any]


def _binomial(size: int) -> Array:
    """The Gaussian's discrete sister: a row of Pascal's triangle in both directions."""
    row = np.array([1.0])
    for _ in range(size - 1):
        row = np.convolve(row, [1.0, 1.0])
    kernel: Array = np.outer(row, row) / row.sum() ** 2
    return kernel


_SOBEL = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 4

# name -> weight of a convolution of one channel, (filters, 1, height, width)
FILTERS: dict[str, Array] = {
    "Gaussian 5x5": _binomial(5)[None, None].astype(np.float32),
    "Sobel, both directions": np.stack([_SOBEL, _SOBEL.T])[:, None].astype(np.float32),
    "Laplacian": np.array([[[[0, 1, 0], [1, -4, 1], [0, 1, 0]]]], np.float32),
    "sharpen": np.array([[[[0, -1, 0], [-1, 5, -1], [0, -1, 0]]]], np.float32),
}

# weights of the three colours: brightness, red against green, blue against yellow
_COLOURS = np.array([[1, 1, 1], [1, -1, 0], [-0.5, -0.5, 1]])


def gabor_bank(size: int = 7) -> Array:
    """64 oriented waves under a bell, for three colours: (64, 3, size, size).

    Eight directions; for each, four in brightness (two wavelengths, even and odd) and two in each pair of opponent
    colours. They answer to edges and stripes of their direction and colour, as the filters that the first layer of a
    trained network shows.
    """
    reach = size // 2
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    bell = np.exp(-(x**2 + y**2) / (2 * (size / 4) ** 2))
    waves = [(3.2, 0.0, 0), (3.2, 0.5, 0), (6.5, 0.0, 0), (6.5, 0.5, 0), (6.5, 0.0, 1), (6.5, 0.5, 1), (6.5, 0.0, 2),
             (6.5, 0.5, 2)]  # fmt: skip
    bank = []
    for wavelength, phase, colours in waves:
        for angle in np.arange(8) * np.pi / 8:
            along = x * np.cos(angle) + y * np.sin(angle)
            wave = bell * np.cos(2 * np.pi * along / wavelength + np.pi * phase)
            wave -= bell * wave.sum() / bell.sum()  # an even surface gives nothing
            kernel = _COLOURS[colours][:, None, None] * wave
            bank.append(kernel / np.abs(kernel).sum())
    return np.stack(bank).astype(np.float32)
