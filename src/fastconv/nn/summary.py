"""The table of a model's layers, as the course prints it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .layers.core import InputLayer, Layer

if TYPE_CHECKING:
    from .model import Model

__all__ = ["table"]


def table(model: Model, line_length: int | None = None) -> str:
    """Layers with output shapes, parameters and, where the graph branches, what each is connected to."""
    nodes: dict[Layer, list[str]] = {}
    straight = True
    for node in model.nodes:
        before = nodes.setdefault(node.layer, [])
        straight &= not before and len(node.inputs) <= 1
        before.extend(t.name for t in node.inputs)
    shapes = {layer: layer.output.shape for layer in model.layers if layer.nodes}
    for node in reversed(model.nodes):
        shapes[node.layer] = node.output.shape
    rows = [["Layer (type)", "Output Shape", "Param #"] + ([] if straight else ["Connected to"])]
    for layer in model.layers:
        shape = f"[{shapes[layer]}]" if isinstance(layer, InputLayer) else str(shapes[layer])
        row = [f"{layer.name} ({type(layer).__name__})", shape, str(layer.count_params())]
        rows.append(row if straight else [*row, ", ".join(nodes[layer])])
    widths = [max(len(row[i]) for row in rows) + 2 for i in range(len(rows[0]))]
    total = max(sum(widths), 65, line_length or 0)
    lines = ["".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    trained = sum(w.value.size for w in model.trainable_weights)
    return "\n".join(
        [
            f'Model: "{model.name}"', "_" * total, lines[0], "=" * total,
            *(f"{line}\n{'_' * total}" for line in lines[1:-1]), lines[-1], "=" * total,
            f"Total params: {model.count_params():,}", f"Trainable params: {trained:,}",
            f"Non-trainable params: {model.count_params() - trained:,}", "_" * total,
        ]
    )  # fmt: skip
