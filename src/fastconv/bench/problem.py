"""A layer made concrete: arrays of one batch size, a call to time on each backend, and what is right."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

import fastconv
from fastconv.testing import RANDOM, tolerance, values

from .layers import Layer
from .peers.case import Case

__all__ = ["Array", "Call", "Difference", "Problem", "compare", "promised"]

_DISTINCT = 3  # images of a batch that differ: the others repeat them, so that every one can be checked

Array = NDArray[Any]
Call = Callable[[], Sequence[Array]]

# Computes what is right, in float64: im2col and a BLAS share no arithmetic with the other backends, and it is fast
# enough for whole networks. That it agrees with the reference is for the tests and for `fastconv check` to show.
_JUDGE = "numpy"


class Difference(NamedTuple):
    """How far results lie from the exact ones: the largest difference, and its share of what is allowed there."""

    largest: float
    share: float

    @property
    def ok(self) -> bool:
        """Whether every element is as near as promised."""
        return self.share <= 1.0


def compare(result: Array, exact: Array, allowed: Array | float) -> Difference:
    """The largest difference of arrays of one shape, and the largest share of what is allowed; NaN must meet NaN."""
    same = (result == exact) | ((result != result) & (exact != exact))
    with np.errstate(invalid="ignore", divide="ignore"):
        apart = np.abs(np.asarray(result, np.float64) - np.asarray(exact, np.float64))
        difference = np.where(same, 0.0, np.nan_to_num(apart, nan=np.inf, posinf=np.inf))
        shares = np.where(same, 0.0, difference / allowed)
    return Difference(float(difference.max(initial=0.0)), float(shares.max(initial=0.0)))


def promised(backend: str, algorithm: str = "") -> str:
    """Whose error constants hold: those of the algorithm, or where none is named of the least exact one there is."""
    if algorithm:
        return algorithm
    names = [a.name for a in fastconv.get_backend(backend).algorithms()]
    return max(names, key=lambda name: RANDOM.get(name, (0, 0, 0)))


class Problem:
    """One layer with a batch: the same random arrays for every backend and every peer.

    Parameters
    ----------
    layer : Layer
        What is computed.
    batch : int
        Number of images.
    dtype : dtype, optional
        ``float32`` or ``float64``.

    Examples
    --------
    >>> from fastconv.bench import Problem, parse_shape
    >>> problem = Problem(parse_shape("3x8x8>4k3p1"), batch=2)
    >>> problem.check(problem.call("numpy")()).ok
    True
    """

    def __init__(self, layer: Layer, batch: int, dtype: DTypeLike = np.float32) -> None:
        self.layer, self.batch, self.dtype = layer, batch, np.dtype(dtype)
        self._distinct = batch if layer.backward else min(batch, _DISTINCT)
        images = self._array(layer.x_shape(self._distinct), "x")
        self.x = images if self._distinct == batch else images[np.arange(batch) % self._distinct]
        self.weight = self.bias = None
        if layer.op == "conv":
            self.weight = self._array(layer.weight_shape, "weight")
            self.bias = self._array((layer.out_channels,), "bias")
        # a forward run on the judge gives the shape of the output: only the library knows size formulas
        self._allowed: dict[str, list[Array]] = {}
        self._exact: Sequence[Array] = self._forward(_JUDGE, "auto", self._wide, images)()
        self.y_shape = (batch, *self._exact[0].shape[1:])
        self.grad_output = self._array(self.y_shape, "grad_output") if layer.backward else None
        if layer.backward:
            self._exact = self._backward(_JUDGE, self._wide)()

    def _array(self, shape: tuple[int, ...], name: str) -> Array:
        return values("normal", shape, self.dtype, f"{self.layer.name} {name}")

    def call(self, backend: str, algorithm: str = "auto") -> Call:
        """What is timed: the public function on this backend, NumPy arrays in and new NumPy arrays out."""
        if self.layer.backward:
            return self._backward(backend, lambda a: a)
        return self._forward(backend, algorithm, lambda a: a)

    @staticmethod
    def _wide(array: Array) -> Array:
        return array.astype(np.float64)

    @staticmethod
    def _size(array: Array) -> Array:
        return np.abs(array.astype(np.float64))

    def _function(self) -> tuple[str, list[Any], dict[str, Any]]:
        """Name of the public function, what follows its arrays, and its keyword arguments."""
        layer = self.layer
        name = "pad" if layer.op == "pad" else f"{layer.op}{layer.rank}d"
        return name, [layer.kernel] if layer.op.endswith("pool") else [], layer.arguments()

    def _forward(self, backend: str, algorithm: str, prepare: Callable[[Array], Array], x: Array | None = None) -> Call:
        name, between, given = self._function()
        function = getattr(fastconv, name)
        arrays = [prepare(a) for a in (self.x if x is None else x, self.weight, self.bias) if a is not None]
        if self.layer.op == "conv":
            given["algorithm"] = algorithm
        return lambda: (function(*arrays, *between, backend=backend, **given),)

    def _backward(self, backend: str, prepare: Callable[[Array], Array]) -> Call:
        name, between, given = self._function()
        function = getattr(fastconv, f"{name}_backward")
        assert self.grad_output is not None
        arrays = [prepare(self.grad_output)]
        if self.layer.op == "conv":
            assert self.weight is not None
            arrays += [prepare(self.x), prepare(self.weight)]
            return lambda: tuple(function(*arrays, backend=backend, **given))
        if self.layer.op != "pad":  # which element is the maximum depends on the values as they are
            arrays.append(self.x)
        return lambda: (function(*arrays, *between, backend=backend, **given),)

    @cached_property
    def _magnitude(self) -> Sequence[Array]:
        """The same operation on absolute values: what rounding errors are measured against."""
        if self.layer.backward:
            return self._backward(_JUDGE, self._size)()
        return self._forward(_JUDGE, "auto", self._size, self.x[: self._distinct])()

    def case(self) -> Case:
        """The problem as the adapters of libraries take it."""
        return Case(self.layer, self.y_shape, self.x, self.weight, self.bias, self.grad_output)

    def _pairs(self, results: Sequence[Array], exact: Sequence[Array]) -> Iterator[tuple[Array, Array, int]]:
        """(result, what it should be, number of the array), image by image where images repeat."""
        for i, (result, right) in enumerate(zip(results, exact, strict=True)):
            if self._distinct == self.batch:
                yield result, right, i
            else:
                for image in range(self._distinct):
                    yield result[image :: self._distinct], right[image : image + 1], i

    def _same_shapes(self, results: Sequence[Array]) -> bool:
        if len(results) != len(self._exact):
            return False
        first = (self.y_shape if not self.layer.backward else self._exact[0].shape,)
        return all(r.shape == s for r, s in zip(results, (*first, *(e.shape for e in self._exact[1:])), strict=True))

    def distance(self, results: Sequence[Array]) -> tuple[float, float]:
        """(largest difference, norm of the difference over the norm of what is exact), the worst of the arrays."""
        if not self._same_shapes(results):
            return math.inf, math.inf
        largest = 0.0
        squares = [[0.0, 0.0] for _ in results]
        for result, right, i in self._pairs(results, self._exact):
            with np.errstate(invalid="ignore"):
                apart = np.nan_to_num(np.abs(result - right), nan=np.inf)
            largest = max(largest, float(apart.max(initial=0.0)))
            squares[i][0] += float((apart * apart).sum())
            squares[i][1] += float((right * right).sum()) * len(result) / len(right)
        return largest, max(math.sqrt(a / b) if b else math.sqrt(a) for a, b in squares)

    def check(self, results: Sequence[Array], algorithm: str = "direct") -> Difference:
        """Compare results with the exact ones, element by element; a wrong shape or a NaN is infinitely far."""
        if not self._same_shapes(results):
            return Difference(math.inf, math.inf)
        allowed = self._allowance(algorithm if self.layer.op == "conv" else "direct")
        largest = share = 0.0
        for (result, right, _), (_, limit, _) in zip(
            self._pairs(results, self._exact), self._pairs(results, allowed), strict=True
        ):
            difference, part = compare(result, right, limit)
            largest, share = max(largest, difference), max(share, part)
        return Difference(largest, share)

    def _allowance(self, algorithm: str) -> list[Array]:
        """What every element may differ by, as this algorithm promises."""
        if algorithm not in self._allowed:
            copies = self.layer.op in ("pad", "max_pool") and not self.layer.backward
            magnitudes = self._exact if copies else self._magnitude
            self._allowed[algorithm] = [
                tolerance(self.dtype, self._terms, magnitude, algorithm=algorithm, random=True, exact=copies,
                          spatial_axes=tuple(range(2, magnitude.ndim)))
                for magnitude in magnitudes
            ]  # fmt: skip
        return self._allowed[algorithm]

    @property
    def _terms(self) -> int:
        """The most products that are summed into one result."""
        if self.layer.backward:
            return int(math.prod(self.y_shape))
        return 1 + (math.prod(self.weight.shape[1:]) if self.weight is not None else math.prod(self.layer.kernel))

    @property
    def flops(self) -> int:
        """Operations of the direct convolution, two for each multiply-add; backwards those of both gradients."""
        if self.weight is None:
            return 0
        once: int = 2 * math.prod(self.y_shape) * math.prod(self.weight.shape[1:])
        return 2 * once if self.layer.backward else once

    @property
    def bytes(self) -> int:
        """Traffic that cannot be avoided: inputs and weights read once, results written once."""
        x_passes = 2 if self.layer.op == "max_pool" and self.layer.backward else 1  # read for its maxima, and written
        weights = 0 if self.weight is None else self.weight.size
        values = math.prod(self.y_shape) + self.x.size * x_passes + weights
        return int(values * self.dtype.itemsize)

    @property
    def outputs(self) -> int:
        """Number of output elements: what the time of the naive reference grows with."""
        return int(math.prod(self.y_shape))

    def algorithm(self, backend: str, algorithm: str = "auto") -> str:
        """The algorithm that this backend runs; empty for operations that have no choice."""
        layer = self.layer
        if layer.op != "conv" or layer.backward:
            return ""
        plan = getattr(fastconv, f"plan_conv{layer.rank}d")
        return str(plan(self.x.shape, self.weight, self.bias, backend=backend, algorithm=algorithm, dtype=self.dtype,
                        **layer.arguments()).algorithm)  # fmt: skip
