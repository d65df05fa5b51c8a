"""JAX: compiled functions on NHWC arrays, the weight an argument."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .case import Case, Library, Ready, channels_first, channels_last, wide_weight

__all__ = ["Jax"]


class Jax(Library):
    """One variant."""

    def __init__(self, threads: int) -> None:
        import jax

        super().__init__(threads)
        self._jax: Any = jax

    def prepare(self, variant: str, case: Case) -> Ready:
        case.only("conv", "max_pool", "avg_pool", backward=True)
        jax, layer = self._jax, case.layer
        forward = self._conv(case) if layer.op == "conv" else self._pool(case)
        arrays = [jax.device_put(channels_last(case.x))]
        if layer.op == "conv":
            assert case.weight is not None
            arrays += [jax.device_put(wide_weight(case.weight)), jax.device_put(case.bias)]
        if not layer.backward:
            run = jax.jit(forward).lower(*arrays).compile()
            return Ready(lambda: run(*arrays).block_until_ready(), lambda y: [channels_first(y)])
        assert case.grad_output is not None
        grad = jax.device_put(channels_last(case.grad_output))

        def gradients(g: Any, *given: Any) -> Any:
            return jax.vjp(forward, *given)[1](g)

        run = jax.jit(gradients).lower(grad, *arrays).compile()

        def fetch(grads: Any) -> list[Any]:
            dx, *rest = (np.asarray(g) for g in grads)
            weights = [r.transpose(-1, -2, *range(r.ndim - 2)) if r.ndim > 1 else r for r in rest]
            return [channels_first(dx), *weights]

        return Ready(lambda: jax.block_until_ready(run(grad, *arrays)), fetch)

    def _conv(self, case: Case) -> Callable[..., Any]:
        lax, layer = self._jax.lax, case.layer
        axes = "DHW"[-layer.rank :]
        layouts = (f"N{axes}C", f"{axes}IO", f"N{axes}C")

        def forward(x: Any, weight: Any, bias: Any) -> Any:
            y = lax.conv_general_dilated(x, weight, layer.strides, layer.pads, rhs_dilation=layer.dilations,
                                         dimension_numbers=layouts, feature_group_count=layer.groups)  # fmt: skip
            return y + bias

        return forward

    def _pool(self, case: Case) -> Callable[[Any], Any]:
        lax, layer = self._jax.lax, case.layer
        window, strides = (1, *layer.kernel, 1), (1, *layer.strides, 1)
        pads = ((0, 0), *layer.pads, (0, 0))
        if layer.op == "max_pool":
            return lambda x: lax.reduce_window(x, -np.inf, lax.max, window, strides, pads)
        share = np.float32(1 / math.prod(layer.kernel))
        return lambda x: lax.reduce_window(x, 0.0, lax.add, window, strides, pads) * share
