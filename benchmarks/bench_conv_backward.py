"""Gradients of the convolution, of input, weight and bias."""

from __future__ import annotations

from collections.abc import Callable

from fastconv.bench import Layer

OPERATIONS = ("conv",)
BACKWARD = True


def bench_conv_backward(run_layer: Callable[[Layer, str], None], layer: Layer, backend: str) -> None:
    run_layer(layer, backend)
