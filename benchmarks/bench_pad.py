"""Padding in five modes, and its gradient."""

from __future__ import annotations

from collections.abc import Callable

from fastconv.bench import Layer

OPERATIONS = ("pad",)
BACKWARD = None  # both


def bench_pad(run_layer: Callable[[Layer, str], None], layer: Layer, backend: str) -> None:
    run_layer(layer, backend)
