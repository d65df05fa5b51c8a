"""How far a result may lie from the exact one: one rule, from dtype, additions and magnitude.

A sum of products that is added up in chains of at most L terms, B chains in all, errs by at most
``(L + B) * u * (|x| * |w|)``, u the unit roundoff and ``|x| * |w|`` the same operation on absolute values: that is
the promise. Random data show much less, and must: ``RANDOM`` says how much. The transforms of Winograd and FFT put a
constant in front, and their errors follow the largest value within a tile, so the magnitude is spread over it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["RANDOM", "assert_close", "largest_excess", "tolerance"]

Array = NDArray[Any]

# algorithm -> (what random data must show, in units of roundoff; the transforms' constant; the tile, 0 for none)
RANDOM: dict[str, tuple[float, float, int]] = {
    "winograd_2x3": (9, 4, 4),
    "winograd_4x3": (34, 32, 6),
    "winograd_6x3": (84, 128, 8),
    "winograd_stride2": (34, 32, 6),
    "winograd_tile6": (34, 32, 6),
    "winograd_tile8": (84, 128, 8),
    "fft": (34, 8, 1 << 15),  # a tile may be the whole axis
    "winograd_gradient": (84, 64, 3),  # of a 3x3 weight with stride 1, along the taps
}
_DIRECT = (7, 1, 0)
_LEAST_NORMALS = 16  # results that are flushed to zero, and sums of such


def tolerance(
    dtype: Any, terms: int, magnitude: Array, *, chain: int = 0, algorithm: str = "direct", random: bool = False,
    exact: bool = False, spatial_axes: tuple[int, ...] = (),
) -> Array:  # fmt: skip
    """The largest absolute error allowed for every element of a result.

    Parameters
    ----------
    dtype : dtype
        Of the result. float16 is computed in float32 and rounded once more.
    terms : int
        Products that are summed into one element, a bias included.
    magnitude : ndarray
        The same operation on absolute values, in float64.
    chain : int, default 0
        Longest chain of additions into one accumulator; 0 means all terms.
    algorithm : str
        Whose constants to take: those of Winograd and FFT stand in ``RANDOM``, the others have none.
    random : bool, default False
        Hold the result to what random data must show, not only to the worst case.
    exact : bool, default False
        The inputs are integer-valued and the algorithm promises exact results: no error at all.
    spatial_axes : tuple of int
        Axes of ``magnitude`` along which a tile reaches.

    Returns
    -------
    ndarray
        Of magnitude's shape.

    Examples
    --------
    >>> import numpy as np
    >>> float(tolerance("float32", 27, np.ones(1), exact=True)[0])
    0.0
    >>> bool(tolerance("float32", 27, np.ones(1))[0] < 2e-6)
    True
    """
    magnitude = np.asarray(magnitude, np.float64)
    if exact:
        return np.zeros_like(magnitude)
    kind = np.dtype(dtype)
    computed = np.finfo(np.float32 if kind == np.float16 else kind)
    least_normal = float(np.finfo(kind).tiny)
    expected, constant, tile = RANDOM.get(algorithm, _DIRECT)
    length = min(chain, terms) if chain else terms
    factor = constant * (length + math.ceil(terms / max(length, 1)) + 2)
    if random:
        factor = min(factor, expected)
    if kind == np.float64:
        factor *= 2  # the oracle computes in float64 too
    error = factor * float(computed.eps) / 2 * _spread(magnitude, tile, spatial_axes)
    if kind == np.float16:
        error = error + float(np.finfo(np.float16).eps) / 2 * magnitude
    return error + _LEAST_NORMALS * least_normal


def _spread(magnitude: Array, tile: int, axes: tuple[int, ...]) -> Array:
    """The largest magnitude within ``tile - 1`` positions along the given axes."""
    for axis in axes if tile and magnitude.size else ():
        if tile >= magnitude.shape[axis]:
            magnitude = np.broadcast_to(magnitude.max(axis=axis, keepdims=True), magnitude.shape)
            continue
        widths = [(tile - 1, tile - 1) if a == axis % magnitude.ndim else (0, 0) for a in range(magnitude.ndim)]
        padded = np.pad(magnitude, widths)
        magnitude = np.lib.stride_tricks.sliding_window_view(padded, 2 * tile - 1, axis).max(axis=-1)
    return magnitude


def largest_excess(result: Array, expected: Array, allowed: Array | float = 0.0) -> float:
    """How far the worst element lies beyond what is allowed; at most 0 if all is well.

    NaN must meet NaN and an infinity the same infinity; anything else there counts as infinitely wrong.
    """
    if result.size == 0:
        return 0.0
    result, expected = np.asarray(result, np.float64), np.asarray(expected, np.float64)
    same = (result == expected) | (np.isnan(result) & np.isnan(expected))
    with np.errstate(invalid="ignore", over="ignore"):
        excess = np.abs(result - expected) - allowed
    excess = np.where(np.isfinite(result) & np.isfinite(expected), excess, np.inf)
    return float(np.where(same, np.minimum(0.0, -np.asarray(allowed)), excess).max())


def assert_close(result: Array, expected: Array, allowed: Array | float = 0.0, what: str = "") -> None:
    """Fail with the worst element and its place if any lies further from ``expected`` than ``allowed``.

    Raises
    ------
    AssertionError
        If the shapes differ or an element is too far away.
    """
    if result.shape != expected.shape:
        raise AssertionError(f"{what}: shape {result.shape}, expected {expected.shape}")
    if not largest_excess(result, expected, allowed) > 0:
        return
    allowed = np.broadcast_to(np.asarray(allowed, np.float64), result.shape)
    wide, exact = np.asarray(result, np.float64), np.asarray(expected, np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        wrong = ~((np.abs(wide - exact) <= allowed) | (wide == exact) | (np.isnan(wide) & np.isnan(exact)))
        distance = np.where(wrong, np.nan_to_num(np.abs(wide - exact) - allowed, nan=np.inf, posinf=np.inf), -np.inf)
    place = tuple(int(i) for i in np.unravel_index(int(distance.argmax()), distance.shape))
    raise AssertionError(
        f"{what}: {int(wrong.sum())} of {wrong.size} elements are wrong; worst at {place}: received {wide[place]!r}, "
        f"expected {exact[place]!r}, allowed difference {allowed[place]:.3g}"
    )
