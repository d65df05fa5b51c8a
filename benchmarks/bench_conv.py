"""Convolution, forward."""

from __future__ import annotations

from collections.abc import Callable

from fastconv.bench import Layer

OPERATIONS = ("conv",)


def bench_conv(run_layer: Callable[[Layer, str], None], layer: Layer, backend: str) -> None:
    run_layer(layer, backend)
