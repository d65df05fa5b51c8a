"""Data sets that draw themselves: faces that smile or look sad, and hands that show 0 to 5.

They stand in for the course's photographs where those are not at hand: the same sizes and the same questions, with
position, pose, light, skin, background and noise varied for every image. A shape is painted by its distance function:
how far every pixel lies from it, which gives smooth edges.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["draw_faces", "draw_hands"]

Array = NDArray[Any]

SIDE = 64

# how a right hand lies, seen from the palm: bases, lengths and angles (degrees, 0 is up) of the four fingers
_BASES = ((-0.40, 0.42), (-0.14, 0.50), (0.13, 0.48), (0.38, 0.38))
_LENGTHS = (0.95, 1.06, 0.98, 0.76)
_ANGLES = (-10.0, -3.0, 4.0, 13.0)
# which of thumb, index, middle, ring and little finger stand for a number; people show three in two ways
_SHOWN = {0: ("00000",), 1: ("01000",), 2: ("01100",), 3: ("01110", "11100"), 4: ("01111",), 5: ("11111",)}


def draw_faces(count: int, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Draw faces; label 1 smiles, label 0 is sad.

    Parameters
    ----------
    count : int
        How many; half of them, in random order, smile.
    seed : int, default 0
        The same seed draws the same faces.

    Returns
    -------
    images : ndarray of uint8
        (count, 64, 64, 3).
    labels : ndarray of int64
        (count,).

    Examples
    --------
    >>> from fastconv import course
    >>> images, labels = course.draw_faces(4)
    >>> images.shape, sorted(labels.tolist())
    ((4, 64, 64, 3), [0, 0, 1, 1])
    """
    return _draw(_face, 2, count, seed)


def draw_hands(count: int, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Draw hands that show a number from 0 to 5, left and right ones, seen from the palm.

    Parameters
    ----------
    count : int
        How many; every number equally often, in random order.
    seed : int, default 0
        The same seed draws the same hands.

    Returns
    -------
    images : ndarray of uint8
        (count, 64, 64, 3).
    labels : ndarray of int64
        (count,).

    Examples
    --------
    >>> from fastconv import course
    >>> images, labels = course.draw_hands(6)
    >>> images.shape, sorted(labels.tolist())
    ((6, 64, 64, 3), [0, 1, 2, 3, 4, 5])
    """
    return _draw(_hand, 6, count, seed)


def _draw(draw: Any, classes: int, count: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    if count < 0:
        raise ValueError(f"count must not be negative, received {count}")
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(count, dtype=np.int64) % classes)
    images = np.empty((count, SIDE, SIDE, 3), np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[:] = draw(int(label), rng).photograph(rng)
    return images, labels


class _Canvas:
    """A picture, and where its pixels lie in the coordinates of what is drawn: turned, scaled, shifted, mirrored."""

    def __init__(
        self, rng: np.random.Generator, unit: float, turn: float, shift: float, mirror: bool, colourful: float
    ) -> None:  # fmt: skip
        self.unit = unit * rng.uniform(0.82, 1.12)  # pixels for a length of one
        angle = math.radians(rng.uniform(-turn, turn))
        rows, columns = np.mgrid[:SIDE, :SIDE].astype(np.float32)
        x = (columns - (SIDE - 1) / 2 - rng.uniform(-shift, shift)) / self.unit
        y = ((SIDE - 1) / 2 - rows - rng.uniform(-shift, shift)) / self.unit
        self.x = x * math.cos(angle) - y * math.sin(angle)
        self.y = x * math.sin(angle) + y * math.cos(angle)
        self.x = self.x * rng.uniform(0.9, 1.1) + self.y * rng.uniform(-0.12, 0.12)
        if mirror:
            self.x = -self.x
        # a wall that is brighter on one side
        slope = np.float32(rng.uniform(-0.3, 0.3)) * columns + np.float32(rng.uniform(-0.3, 0.3)) * rows
        first = rng.uniform(0.35, 0.95) + rng.uniform(-colourful, colourful, 3)
        self.pixels = np.clip(first + slope[..., None] / SIDE, 0, 1).astype(np.float32)

    def paint(self, distance: Array, colour: Array) -> None:
        """Where the distance (in units) is below zero; half-covered pixels are half painted."""
        cover = np.clip(0.5 - distance * self.unit, 0, 1)[..., None]
        self.pixels += cover * (colour - self.pixels)

    def rod(self, a: tuple[float, float], b: tuple[float, float], radius: float, colour: Array, round: float) -> None:
        """A rod with round ends from a to b; ``round`` is how much darker its sides are than its middle."""
        away = self.from_line(a, b)
        light = 1 - round * np.minimum(away / radius, 1.0) ** 2
        self.paint(away - radius, colour * light[..., None])

    def from_line(self, a: tuple[float, float], b: tuple[float, float]) -> Array:
        """Distance of every pixel from the line between two points."""
        (ax, ay), (bx, by) = a, b
        dx, dy = bx - ax, by - ay
        along = np.clip(((self.x - ax) * dx + (self.y - ay) * dy) / max(dx * dx + dy * dy, 1e-9), 0, 1)
        away: Array = np.hypot(self.x - ax - along * dx, self.y - ay - along * dy)
        return away

    def from_ellipse(self, x: float, y: float, a: float, b: float) -> Array:
        """Distance from an ellipse, roughly: good near its edge, where it matters."""
        reach = np.hypot((self.x - x) / a, (self.y - y) / b)
        away: Array = (reach - 1) * min(a, b)
        return away

    def photograph(self, rng: np.random.Generator) -> Array:
        """Light from one side, a little noise, bytes."""
        rows, columns = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j].astype(np.float32)
        angle, depth = rng.uniform(0, 2 * math.pi), rng.uniform(0, 0.3)
        light = rng.uniform(0.7, 1.15) * (1 + depth * (math.cos(angle) * columns + math.sin(angle) * rows))
        cast = 1 + rng.uniform(-0.08, 0.08, 3)
        noise = rng.normal(0, rng.uniform(0.01, 0.045), self.pixels.shape)
        lit = self.pixels * light[..., None] * cast + noise
        pixels: Array = np.clip(np.rint(lit * 255), 0, 255).astype(np.uint8)
        return pixels


def _skin(rng: np.random.Generator) -> Array:
    """Between light and dark skin."""
    pale, dark = np.array([0.96, 0.80, 0.70]), np.array([0.42, 0.27, 0.19])
    mixed: Array = pale + rng.uniform(0, 0.9) * (dark - pale) + rng.uniform(-0.03, 0.03, 3)
    return mixed


def _face(smiles: int, rng: np.random.Generator) -> _Canvas:
    canvas = _Canvas(rng, unit=24, turn=18, shift=5, mirror=False, colourful=0.12)
    skin, hair = _skin(rng), rng.uniform(0.05, 0.55) * np.array([1.0, 0.8, 0.55])
    wide, high = rng.uniform(0.72, 0.88), rng.uniform(0.92, 1.08)
    canvas.paint(canvas.from_ellipse(0, 0.18, wide * 1.12, high * 1.05), hair)
    canvas.paint(canvas.from_ellipse(0, 0, wide, high), skin)
    apart, level = rng.uniform(0.27, 0.36), rng.uniform(0.18, 0.32)
    gaze, lid, brow = rng.uniform(-0.04, 0.04), rng.uniform(0.05, 0.1), rng.uniform(-0.1, 0.1)
    for side in (-1, 1):
        eye = side * apart
        canvas.paint(canvas.from_ellipse(eye, level, 0.14, lid), np.array([0.95, 0.95, 0.95]))
        canvas.paint(canvas.from_ellipse(eye + gaze, level, 0.06, min(lid, 0.06)), np.array([0.1, 0.08, 0.06]))
        # brows go up or down whatever the mood: the mouth alone tells
        canvas.rod((eye - 0.15 * side, level + 0.2 - brow), (eye + 0.15 * side, level + 0.2 + brow), 0.035, hair, 0)
    canvas.rod((gaze, level - 0.1), (gaze + rng.uniform(-0.05, 0.05), -0.12), 0.04, skin * 0.82, 0)
    _mouth(canvas, smiles, rng)
    return canvas


def _mouth(canvas: _Canvas, smiles: int, rng: np.random.Generator) -> None:
    """A bow, up or down, closed or open."""
    bend = rng.uniform(0.09, 0.3) * (1 if smiles else -1)
    half, level, thick = rng.uniform(0.24, 0.4), rng.uniform(-0.56, -0.4), rng.uniform(0.035, 0.06)
    lips = np.array([0.62, 0.22, 0.22]) * rng.uniform(0.6, 1.2)
    steps = np.linspace(-1, 1, 7)
    points = [(half * t, level + bend * (t * t - 0.5)) for t in steps.tolist()]
    if rng.random() < 0.3:  # teeth between the bow and the line through its ends
        inside = canvas.y - (level + bend * ((canvas.x / half) ** 2 - 0.5))
        within = inside if smiles else -inside
        to_ends = (canvas.y - (level + bend * 0.5)) * (1 if smiles else -1)
        canvas.paint(np.maximum(-within, to_ends), np.array([0.97, 0.95, 0.92]))
    for a, b in itertools.pairwise(points):
        canvas.rod(a, b, thick, lips, 0)


def _hand(number: int, rng: np.random.Generator) -> _Canvas:
    canvas = _Canvas(rng, unit=20, turn=18, shift=5, mirror=bool(rng.random() < 0.5), colourful=0.06)
    canvas.y += 0.25  # fingers reach further up than the palm reaches down
    skin = _skin(rng)
    thick, spread = rng.uniform(0.115, 0.15), rng.uniform(0.5, 1.5)
    choices = _SHOWN[number]
    thumb, *fingers = (flag == "1" for flag in choices[rng.integers(len(choices))])

    canvas.rod((0, -0.5), (rng.uniform(-0.2, 0.2), -3.0), 0.34, skin * 0.97, 0.25)  # the arm
    if thumb:
        _finger(canvas, (-0.36, -0.3), 0.82, -46 * rng.uniform(0.8, 1.2), thick * 1.15, skin, rng)
    for shown, base, length, angle in zip(fingers, _BASES, _LENGTHS, _ANGLES, strict=True):
        if shown:
            _finger(canvas, base, length, angle * spread + rng.uniform(-5, 5), thick, skin, rng)
    canvas.rod((0, -0.22), (0, 0.16), 0.52, skin, 0.12)
    for shown, (x, y) in zip(fingers, _BASES, strict=True):
        if not shown:  # folded over the palm, with a shadow around it
            tip = (x * 0.9, y - rng.uniform(0.38, 0.5))
            canvas.rod((x, y), tip, thick + 0.035, skin * 0.62, 0)
            canvas.rod((x, y), tip, thick, skin, 0.22)
    if not thumb:
        tip = (rng.uniform(-0.05, 0.22), rng.uniform(-0.12, 0.08))
        canvas.rod((-0.4, -0.3), tip, thick * 1.1 + 0.035, skin * 0.62, 0)
        canvas.rod((-0.4, -0.3), tip, thick * 1.1, skin, 0.22)
    return canvas


def _finger(
    canvas: _Canvas, base: tuple[float, float], length: float, angle: float, thick: float, skin: Array,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    """A stretched finger of two parts, a little bent, in a thin shadow."""
    length *= rng.uniform(0.85, 1.1)
    first = math.radians(angle)
    second = first + math.radians(rng.uniform(-9, 9))
    middle = (base[0] + 0.55 * length * math.sin(first), base[1] + 0.55 * length * math.cos(first))
    tip = (middle[0] + 0.45 * length * math.sin(second), middle[1] + 0.45 * length * math.cos(second))
    for extra, colour, round in ((0.03, skin * 0.7, 0.0), (0.0, skin, 0.28)):
        canvas.rod(base, middle, thick + extra, colour, round)
        canvas.rod(middle, tip, thick * 0.94 + extra, colour, round)
