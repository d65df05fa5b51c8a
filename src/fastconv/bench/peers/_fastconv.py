"""fastconv itself, by its public functions: NumPy arrays in and out, eager or planned, in both layouts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import fastconv

from ..layers import LAYOUTS
from .case import Array, Case, Library, Ready, Unsupported, channels_first, channels_last, wide_weight

__all__ = ["Fastconv"]


class Fastconv(Library):
    """Variants are words: ``eager`` or ``plan``, ``first`` or ``last``, a backend, an algorithm (``auto``)."""

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        fastconv.set_num_threads(threads)

    def prepare(self, variant: str, case: Case) -> Ready:
        mode, layout, backend, algorithm = variant.split()
        layer, last = case.layer, layout == "last"
        if layer.op == "train":
            from ._fastconv_training import training_step

            return training_step(case, mode, last)
        given = layer.arguments()
        if layer.op == "pad":
            if last or mode == "plan":
                raise Unsupported("padding has no layout and no plan")
        elif last:
            given["layout"] = LAYOUTS[layer.rank][1]
        turn = channels_last if last else _as_it_is
        if layer.op != "conv" or layer.backward:
            if mode == "plan":
                raise Unsupported("there are no plans of it")
            return Ready(_eager(case, backend, given, turn), lambda results: _back(results, last))
        assert case.weight is not None
        x, weight = turn(case.x), wide_weight(case.weight) if last else case.weight
        given |= {"backend": backend, "algorithm": algorithm}
        plan = getattr(fastconv, f"plan_conv{layer.rank}d")(x.shape, weight, case.bias, **given)
        if mode == "eager":  # it runs what a plan would: only that tells which algorithm, and so how exact it must be
            conv = getattr(fastconv, f"conv{layer.rank}d")
            return Ready(lambda: (conv(x, weight, case.bias, **given),), lambda ys: _back(ys, last), plan.algorithm)
        out = turn(np.empty(case.out_shape, np.float32))
        return Ready(lambda: (plan(x, out=out),), lambda ys: _back(ys, last), plan.algorithm)


def _as_it_is(array: Array) -> Array:
    return array


def _eager(case: Case, backend: str, given: dict[str, Any], turn: Callable[[Array], Array]) -> Callable[[], Any]:
    layer = case.layer
    name = "pad" if layer.op == "pad" else f"{layer.op}{layer.rank}d"
    function = getattr(fastconv, f"{name}_backward" if layer.backward else name)
    between = [layer.kernel] if layer.op.endswith("pool") else []
    arrays = [turn(case.x)]
    if layer.backward:
        assert case.grad_output is not None
        arrays = [turn(case.grad_output), *([] if layer.op == "pad" else arrays)]
        if case.weight is not None:
            arrays.append(wide_weight(case.weight) if turn is channels_last else case.weight)
            return lambda: tuple(function(*arrays, backend=backend, **given))
    return lambda: (function(*arrays, *between, backend=backend, **given),)


def _back(results: Any, last: bool) -> list[Array]:
    """As channels first: data, and after it a gradient of the weight and one of the bias."""
    if not last:
        return list(results)
    first, *rest = results
    return [channels_first(first), *(r.transpose(-1, -2, *range(r.ndim - 2)) if r.ndim > 1 else r for r in rest)]
