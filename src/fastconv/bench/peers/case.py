"""What a library is given to compute, and what it gives back: the small contract between the runner and its peers."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..layers import Layer

__all__ = ["Array", "Case", "Library", "Ready", "Unsupported", "channels_first", "channels_last",
           "single_filter", "wide_weight"]  # fmt: skip

Array = NDArray[Any]


class Unsupported(Exception):
    """A library has no such operation."""


@dataclass(frozen=True)
class Case:
    """A layer with its arrays, channels first; ``out_shape`` is the shape of the forward result."""

    layer: Layer
    out_shape: tuple[int, ...]
    x: Array
    weight: Array | None = None
    bias: Array | None = None
    grad_output: Array | None = None

    @property
    def batch(self) -> int:
        """Number of images."""
        return len(self.x)

    @property
    def symmetric(self) -> bool:
        """Whether every axis is padded alike on both sides, as some libraries want it."""
        return all(before == after for before, after in self.layer.pads)

    def only(self, *operations: str, backward: bool = False, ranks: Sequence[int] = (1, 2, 3)) -> None:
        """Refuse whatever a library was not asked to do here."""
        layer = self.layer
        if layer.op not in operations:
            raise Unsupported(f"{layer.op.replace('_', ' ')} is not compared")
        if layer.backward and not backward:
            raise Unsupported("it computes no gradients")
        if layer.rank not in ranks:
            raise Unsupported(f"{layer.rank}-D is not compared")
        if layer.op == "conv" and layer.mode != "constant":
            raise Unsupported(f"its convolution has no padding mode {layer.mode!r}")


@dataclass(frozen=True)
class Ready:
    """A case made ready: ``call`` is timed, ``arrays`` turns what it returned into arrays as fastconv gives them."""

    call: Callable[[], Any]
    arrays: Callable[[Any], Sequence[Array]]
    algorithm: str = ""


class Library(abc.ABC):
    """One library in one process; it is made once and asked for case after case."""

    def __init__(self, threads: int) -> None:
        self.threads = threads

    @abc.abstractmethod
    def prepare(self, variant: str, case: Case) -> Ready:
        """Everything that comes before the timed call: layout, constant weights, compilation.

        Raises
        ------
        Unsupported
            If the library cannot do the case; any other exception counts as its failure.
        """


def channels_last(array: Array) -> Array:
    """(N, C, ...) as a new contiguous (N, ..., C)."""
    return np.ascontiguousarray(np.moveaxis(array, 1, -1))


def channels_first(array: Array) -> Array:
    """(N, ..., C) as a new contiguous (N, C, ...)."""
    return np.ascontiguousarray(np.moveaxis(np.asarray(array), -1, 1))


def wide_weight(weight: Array) -> Array:
    """(K, C, *kernel) as a new contiguous (*kernel, C, K).

    Examples
    --------
    >>> wide_weight(np.zeros((8, 3, 5, 7))).shape
    (5, 7, 3, 8)
    """
    return np.ascontiguousarray(np.moveaxis(weight, (0, 1), (-1, -2)))


def single_filter(case: Case) -> None:
    """Refuse all but one filter on one channel that keeps the size: what image libraries do."""
    layer = case.layer
    same = all(p == ((k - 1) // 2,) * 2 for p, k in zip(layer.pads, layer.kernel, strict=True))
    plain = math.prod(layer.strides) == math.prod(layer.dilations) == 1
    if not (layer.channels == layer.out_channels == 1 and same and plain and all(k % 2 for k in layer.kernel)):
        raise Unsupported("one filter on one channel that keeps the size, nothing else")
