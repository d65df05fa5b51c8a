"""A layer made concrete: arrays of one batch size, a call to time on each backend, and what is right."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

import fastconv
from fastconv.testing import RANDOM, tolerance, values

from .layers import Layer

__all__ = ["Array", "Call", "Difference", "Problem", "compare", "promised"]

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
        self.x = self._array(layer.x_shape(batch), "x")
        self.weight = self.bias = None
        if layer.op == "conv":
            self.weight = self._array(layer.weight_shape, "weight")
            self.bias = self._array((layer.out_channels,), "bias")
        # a forward run on the judge gives the shape of the output: only the library knows size formulas
        self._exact: Sequence[Array] = self._forward(_JUDGE, "auto", self._wide)()
        self.y_shape = self._exact[0].shape
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

    def _forward(self, backend: str, algorithm: str, prepare: Callable[[Array], Array]) -> Call:
        name, between, given = self._function()
        function = getattr(fastconv, name)
        arrays = [prepare(a) for a in (self.x, self.weight, self.bias) if a is not None]
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
        return self._forward(_JUDGE, "auto", self._size)()

    def check(self, results: Sequence[Array], algorithm: str = "direct") -> Difference:
        """Compare results with the exact ones, element by element; a wrong shape or a NaN is infinitely far."""
        copies = self.layer.op in ("pad", "max_pool") and not self.layer.backward
        algorithm = algorithm if self.layer.op == "conv" else "direct"
        magnitudes = self._exact if copies else self._magnitude
        largest = share = 0.0
        for result, exact, magnitude in zip(results, self._exact, magnitudes, strict=True):
            if result.shape != exact.shape:
                return Difference(math.inf, math.inf)
            axes = tuple(range(2, exact.ndim))
            allowed = tolerance(self.dtype, self._terms, magnitude, algorithm=algorithm, random=True, exact=copies,
                                spatial_axes=axes)  # fmt: skip
            difference, part = compare(result, exact, allowed)
            largest, share = max(largest, difference), max(share, part)
        return Difference(largest, share)

    @property
    def _terms(self) -> int:
        """The most products that are summed into one result."""
        if self.layer.backward:
            return math.prod(self.y_shape)
        return 1 + (math.prod(self.weight.shape[1:]) if self.weight is not None else math.prod(self.layer.kernel))

    @property
    def flops(self) -> int:
        """Operations of the direct convolution, two for each multiply-add; backwards those of both gradients."""
        if self.weight is None:
            return 0
        once = 2 * math.prod(self.y_shape) * math.prod(self.weight.shape[1:])
        return 2 * once if self.layer.backward else once

    @property
    def bytes(self) -> int:
        """Traffic that cannot be avoided: every input read once, every result written once."""
        x_passes = 2 if self.layer.op == "max_pool" and self.layer.backward else 1  # read for its maxima, and written
        return int((math.prod(self.y_shape) + self.x.size * x_passes) * self.dtype.itemsize)

    @property
    def outputs(self) -> int:
        """Number of output elements: what the time of the naive reference grows with."""
        return math.prod(self.y_shape)

    def algorithm(self, backend: str, algorithm: str = "auto") -> str:
        """The algorithm that this backend runs; empty for operations that have no choice."""
        layer = self.layer
        if layer.op != "conv" or layer.backward:
            return ""
        plan = getattr(fastconv, f"plan_conv{layer.rank}d")
        return str(plan(self.x.shape, self.weight, self.bias, backend=backend, algorithm=algorithm, dtype=self.dtype,
                        **layer.arguments()).algorithm)  # fmt: skip
