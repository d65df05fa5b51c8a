"""The one graph of a model: symbolic tensors on the edges, calls of layers as nodes.

Sequential and Functional models, and models read from files, are all this graph. A layer makes one tensor for each
call; a layer that is called several times is shared.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from .layers.core import Layer

__all__ = ["Array", "Node", "Shape", "Tensor", "clear_session", "graph_order", "snake_case", "unique_name"]

Array: TypeAlias = NDArray[Any]
Shape: TypeAlias = tuple["int | None", ...]


class Tensor:
    """What flows along an edge: a shape whose first axis, the batch, is None, and the node that makes it."""

    def __init__(self, shape: Shape, node: Node) -> None:
        self.shape, self.node = shape, node

    @property
    def name(self) -> str:
        """Name of the layer that makes it."""
        return self.node.layer.name

    def __repr__(self) -> str:
        return f"<Tensor {self.shape} of layer {self.node.layer.name!r}>"

    def __add__(self, other: Tensor) -> Tensor:
        from .layers.merge import Add

        total: Tensor = Add()([self, other])
        return total

    def __mul__(self, other: Tensor) -> Tensor:
        from .layers.merge import Multiply

        product: Tensor = Multiply()([self, other])
        return product


class Node:
    """One call of a layer: the tensors it takes and the one it makes."""

    def __init__(self, layer: Layer, inputs: Sequence[Tensor], shape: Shape) -> None:
        self.layer, self.inputs, self.output = layer, tuple(inputs), Tensor(shape, self)


def graph_order(inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> tuple[list[Node], list[Layer]]:
    """Nodes between inputs and outputs, each after those it needs, and layers in the order Keras lists them.

    Layers go by their distance from the outputs, the farthest first, and among equals by when a walk from the outputs
    meets them: files written by Keras name the layers in this order.
    """
    met: dict[Layer, int] = {}
    done: list[Node] = []
    seen: set[Node] = set()
    stop = {t.node for t in inputs}

    for output in outputs:
        stack: list[tuple[Node, bool]] = [(output.node, False)]
        while stack:
            node, ready = stack.pop()
            if ready:
                done.append(node)
                continue
            if node in seen:
                continue
            seen.add(node)
            met.setdefault(node.layer, len(met))
            stack.append((node, True))
            if node in stop:
                continue
            if not node.inputs:
                raise ValueError(
                    f"Model: output {output.name!r} depends on input {node.layer.name!r}, which is not among the "
                    f"model's inputs {[t.name for t in inputs]}"
                )
            stack.extend((t.node, False) for t in reversed(node.inputs))
    for tensor in inputs:
        if tensor.node not in seen:
            raise ValueError(f"Model: input {tensor.name!r} is not connected to any output")

    depth: dict[Node, int] = {}
    layer_depth: dict[Layer, int] = {}
    for node in reversed(done):
        level = max(depth.get(node, 0), layer_depth.get(node.layer, 0))
        depth[node] = layer_depth[node.layer] = level
        if node not in stop:
            for tensor in node.inputs:
                depth[tensor.node] = max(level + 1, depth.get(tensor.node, 0))
    layers = sorted(met, key=lambda layer: (-layer_depth[layer], met[layer]))
    return done, layers


# ------------------------------------------------------------------------------------------------------- names

_used: dict[str, int] = {}


def snake_case(name: str) -> str:
    """``Conv2D`` as ``conv2d`` and ``BatchNormalization`` as ``batch_normalization``."""
    name = re.sub(r"\W+", "", name)
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def unique_name(name: str) -> str:
    """The name, numbered from its second use on: ``conv2d``, ``conv2d_1``, ..."""
    count = _used.get(name, 0)
    _used[name] = count + 1
    return f"{name}_{count}" if count else name


def clear_session() -> None:
    """Forget which names were given, so that the next layer of each kind is unnumbered again."""
    _used.clear()


def flatten(structure: Any) -> list[Any]:
    """A tensor or array, or the members of a list, tuple or dict of them."""
    if isinstance(structure, dict):
        return list(structure.values())
    if isinstance(structure, (list, tuple)):
        return list(structure)
    return [structure]


def static(shape: Iterable[int | None]) -> bool:
    """Whether every axis has a length."""
    return all(n is not None for n in shape)


def empty(size: int, dtype: Any) -> Array:
    """A flat array that starts on a cache line, which vector kernels read and write faster."""
    item = np.dtype(dtype).itemsize
    raw = np.empty(size * item + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size * item].view(dtype)
