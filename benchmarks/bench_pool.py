"""Max and average pooling, forward and backward."""

from __future__ import annotations

from collections.abc import Callable

from fastconv.bench import Layer

OPERATIONS = ("max_pool", "avg_pool")
BACKWARD = None  # both


def bench_pool(run_layer: Callable[[Layer, str], None], layer: Layer, backend: str) -> None:
    run_layer(layer, backend)
