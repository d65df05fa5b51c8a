"""Forward convolution of the cpp backend: geometry to compiled problem, kernels cached by key, plans."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ...geometry import ConvGeometry
from ..protocol import FLOATS, Algorithm, Array, Candidate, ConvRun, PoolStep
from . import _core

__all__ = ["ConvKernels", "compiled_problem", "computed_in"]

_ALGORITHMS = tuple(Algorithm(name, exact, chain) for name, exact, chain in _core.conv_algorithms())


@lru_cache(maxsize=1024)
def compiled_problem(geometry: ConvGeometry) -> _core.ConvProblem:
    """The geometry as the compiled kernels see it."""
    return _core.ConvProblem(
        channels_last=geometry.channels_last,
        in_channels=geometry.in_channels,
        out_channels=geometry.out_channels,
        groups=geometry.groups,
        in_size=geometry.in_size,
        kernel=geometry.kernel,
        stride=geometry.stride,
        dilation=geometry.dilation,
        padding=geometry.padding,
        padding_mode=geometry.padding_mode,
        out_size=geometry.out_size,
    )


def computed_in(result: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype in which a result is computed."""
    return FLOATS[0] if result.itemsize == 2 else result


@lru_cache(maxsize=1024)
def _kernel(geometry: ConvGeometry, dtype: np.dtype[Any], algorithm: str, batch_hint: int = 0) -> _core.ConvKernel:
    return _core.ConvKernel(compiled_problem(geometry), dtype, algorithm, None, batch_hint)


def _chain_pool(step: PoolStep) -> _core.ChainPool:
    g = step.geometry
    counts = [g.window_counts(axis) if step.average else np.empty(0, np.int64) for axis in range(3)]
    before = (g.padding[0][0], g.padding[1][0], g.padding[2][0])
    return _core.ChainPool(
        g.channels_last, g.channels, g.in_size, g.kernel, g.stride, g.dilation, before, g.out_size, counts
    )


class ConvKernels:
    """The forward convolution of :class:`CppBackend`."""

    def algorithms(self) -> Sequence[Algorithm]:
        """Algorithms of the compiled list, best first."""
        return _ALGORITHMS

    def why_not(self, algorithm: str, geometry: ConvGeometry, dtype: np.dtype[Any]) -> str | None:
        """One sentence why an algorithm cannot do a problem, or None if it can."""
        return _core.conv_why_not(compiled_problem(geometry), dtype, algorithm)

    def conv(
        self, geometry: ConvGeometry, x: Array, weight: Array, bias: Array | None,
        activation: str | None, out: Array, algorithm: str,
    ) -> None:  # fmt: skip
        """Cross-correlate, with geometry, choice and blocking taken from the cache."""
        _kernel(geometry, x.dtype, algorithm).run(x, weight, bias, activation, out)

    def bind_conv(
        self, geometry: ConvGeometry, dtypes: tuple[np.dtype[Any], ...], activation: str | None, algorithm: str
    ) -> _core.ConvCall:
        """The whole call in one step, result included."""
        kernel = _kernel(geometry, computed_in(dtypes[-1]), algorithm)
        return _core.ConvCall(kernel, activation, geometry.rank, dtypes)

    def plan_conv(
        self, geometry: ConvGeometry, weight: Array, bias: Array | None, activation: str | None,
        algorithm: str, batch_hint: int, workspace_limit: int | None, batch_invariant: bool,
    ) -> _core.ConvPlan:  # fmt: skip
        """Weights packed once; the same bits as the eager call, unless the choice is bounded or made for one batch."""
        hint = 0 if batch_invariant else batch_hint
        if workspace_limit is None:
            kernel = _kernel(geometry, weight.dtype, algorithm, hint)
        else:
            limit = min(workspace_limit, sys.maxsize)
            kernel = _core.ConvKernel(compiled_problem(geometry), weight.dtype, algorithm, limit, hint)
        return _core.ConvPlan(kernel, weight, bias, activation, geometry.rank)

    def candidates(self, geometry: ConvGeometry, dtype: np.dtype[Any]) -> Sequence[Candidate]:
        """Every algorithm with the time that the cost model predicts, fastest first, then those that cannot."""
        found = [Candidate(*c) for c in _core.conv_candidates(compiled_problem(geometry), dtype)]
        return sorted(found, key=lambda c: (c.why_not is not None, c.seconds))

    def chain(self, steps: Sequence[ConvRun | PoolStep]) -> _core.ChainRun:
        """Several steps in one call, joined where that saves a trip to memory."""
        return _core.ChainRun([_chain_pool(s) if isinstance(s, PoolStep) else s for s in steps])
