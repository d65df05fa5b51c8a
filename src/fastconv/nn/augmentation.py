"""Light augmentation of batches of images: flips, shifts, rotations, scale and shear, each image by its own chance.

Functions for arrays here; ``nn.layers.RandomFlip`` and its kin do the same inside a model, in training only.
"""

from __future__ import annotations

import numpy as np

from . import random
from .graph import Array

__all__ = ["FILL_MODES", "affine", "random_affine", "random_flip", "random_rotate", "random_shift", "random_zoom"]

FILL_MODES = ("constant", "nearest", "reflect", "wrap")


def random_flip(
    x: Array, mode: str = "horizontal_and_vertical", *, rng: np.random.Generator | None = None, out: Array | None = None
) -> Array:
    """Mirror every image with probability one half along each axis of ``mode``.

    Parameters
    ----------
    x : ndarray
        ``(N, H, W, C)``.
    mode : {"horizontal", "vertical", "horizontal_and_vertical"}
        Left and right, top and bottom, or both.
    rng : numpy.random.Generator, optional
        Source of chance; by default that of ``nn.set_random_seed``.
    out : ndarray, optional
        Array of x's shape to write to; not x itself.

    Returns
    -------
    ndarray

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> nn.augmentation.random_flip(np.zeros((2, 4, 4, 1))).shape
    (2, 4, 4, 1)
    """
    if mode not in ("horizontal", "vertical", "horizontal_and_vertical"):
        raise ValueError(
            f"random_flip: mode must be horizontal, vertical or horizontal_and_vertical, received {mode!r}"
        )
    rng = random.generator() if rng is None else rng
    y = np.empty_like(x) if out is None else out
    y[...] = x
    if "horizontal" in mode:
        chosen = rng.random(len(x)) < 0.5
        y[chosen] = y[chosen, :, ::-1]
    if "vertical" in mode:
        chosen = rng.random(len(x)) < 0.5
        y[chosen] = y[chosen, ::-1]
    return y


def random_affine(
    x: Array, *, rotation: float = 0.0, shift: float = 0.0, scale: float = 0.0, shear: float = 0.0,
    fill_mode: str = "constant", fill_value: float = 0.0, rng: np.random.Generator | None = None,
    out: Array | None = None,
) -> Array:  # fmt: skip
    """Turn, shift, scale and shear every image by amounts drawn evenly from minus to plus the given ones.

    Parameters
    ----------
    x : ndarray
        ``(N, H, W, C)``, floating.
    rotation, shear : float
        Degrees.
    shift : float
        Share of height and width.
    scale : float
        Share of the size: 0.1 is from 0.9 to 1.1.
    fill_mode : {"constant", "nearest", "reflect", "wrap"}, default "constant"
        What lies outside of the image: ``fill_value``, the border, the image mirrored, or repeated.
    fill_value : float, default 0
        Of "constant".
    rng, out
        As in :func:`random_flip`.

    Returns
    -------
    ndarray
        Interpolated bilinearly.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> nn.augmentation.random_affine(np.ones((2, 8, 8, 1)), rotation=10, shift=0.1).shape
    (2, 8, 8, 1)
    """
    rng = random.generator() if rng is None else rng
    n, h, w = x.shape[:3]
    angle, lean = (np.radians(rng.uniform(-a, a, n)) for a in (rotation, shear))
    size = 1 / (1 + rng.uniform(-scale, scale, n))
    matrices = np.empty((n, 2, 3))
    # rows and columns of the result, seen from the centre, to those of the image
    matrices[:, 0, 0], matrices[:, 0, 1] = np.cos(angle) * size, -np.sin(angle + lean) * size
    matrices[:, 1, 0], matrices[:, 1, 1] = np.sin(angle) * size, np.cos(angle + lean) * size
    matrices[:, 0, 2], matrices[:, 1, 2] = rng.uniform(-shift, shift, n) * h, rng.uniform(-shift, shift, n) * w
    return affine(x, matrices, fill_mode=fill_mode, fill_value=fill_value, out=out)


def random_rotate(x: Array, degrees: float, **options: object) -> Array:
    """Turn every image by up to ``degrees`` either way; options as of :func:`random_affine`."""
    return random_affine(x, rotation=degrees, **options)  # type: ignore[arg-type]


def random_shift(x: Array, fraction: float, **options: object) -> Array:
    """Shift every image by up to ``fraction`` of its size; options as of :func:`random_affine`."""
    return random_affine(x, shift=fraction, **options)  # type: ignore[arg-type]


def random_zoom(x: Array, fraction: float, **options: object) -> Array:
    """Scale every image by up to ``fraction`` either way; options as of :func:`random_affine`."""
    return random_affine(x, scale=fraction, **options)  # type: ignore[arg-type]


def affine(
    x: Array, matrices: Array, *, fill_mode: str = "constant", fill_value: float = 0.0, out: Array | None = None
) -> Array:
    """Every image through its own affine map, bilinearly.

    Parameters
    ----------
    x : ndarray
        ``(N, H, W, C)``, floating.
    matrices : ndarray
        ``(N, 2, 3)``: from (row, column, 1) of the result, seen from the centre, to (row, column) of the image.
    fill_mode, fill_value, out
        As in :func:`random_affine`.

    Returns
    -------
    ndarray
    """
    if fill_mode not in FILL_MODES:
        raise ValueError(f"affine: fill_mode must be one of {', '.join(FILL_MODES)}, received {fill_mode!r}")
    n, h, w, c = x.shape
    y = np.empty_like(x) if out is None else out
    flat = x.reshape(n * h * w, c)
    rows, cols = np.arange(h) - (h - 1) / 2, np.arange(w) - (w - 1) / 2
    base = (np.arange(n) * (h * w))[:, None, None]
    total = np.zeros((n, h, w, c), x.dtype)
    m = matrices[:, :, :, None, None]
    at_row = m[:, 0, 0] * rows[:, None] + m[:, 0, 1] * cols + m[:, 0, 2] + (h - 1) / 2
    at_col = m[:, 1, 0] * rows[:, None] + m[:, 1, 1] * cols + m[:, 1, 2] + (w - 1) / 2
    low_row, low_col = np.floor(at_row), np.floor(at_col)
    for dr in (0, 1):
        for dc in (0, 1):
            r, c_ = low_row + dr, low_col + dc
            weight = (1 - np.abs(at_row - r)) * (1 - np.abs(at_col - c_))
            index = base + _inside(r, h, fill_mode) * w + _inside(c_, w, fill_mode)
            part = flat[index]
            if fill_mode == "constant":
                outside = (r < 0) | (r > h - 1) | (c_ < 0) | (c_ > w - 1)
                part[outside] = fill_value
            part *= weight[..., None].astype(x.dtype)
            total += part
    y[...] = total
    return y


def _inside(position: Array, size: int, fill_mode: str) -> Array:
    """The pixel that stands for a position, which may lie outside."""
    i = position.astype(np.int64)
    if fill_mode == "reflect":
        i = np.mod(i, 2 * size)
        return np.minimum(i, 2 * size - 1 - i)
    return np.mod(i, size) if fill_mode == "wrap" else np.clip(i, 0, size - 1)
