"""Keras' HDF5 layout: ``layers/<class>/vars/<number>``, and the optimizer's variables beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import WeightsError
from ..graph import Array
from ..layers.core import Layer, Weight

if TYPE_CHECKING:
    from ..model import Model
    from ..optimizers import Optimizer

__all__ = ["open_h5", "read", "read_optimizer", "write"]


def open_h5(file: Any, mode: str) -> Any:
    """An HDF5 file by name or stream."""
    try:
        import h5py
    except ImportError:
        raise ImportError("Keras' files need h5py: pip install 'fastconv[nn]'") from None
    return h5py.File(file, mode)


def write(file: Any, layers: Mapping[str, Layer], optimizer: Optimizer | None = None) -> None:
    """Write the weights of layers at their places, and the state of an optimizer that has one."""
    file.create_group("vars")
    for place, layer in layers.items():
        group = file.create_group(f"layers/{place}/vars")
        group.attrs["name"] = layer.name
        for i, weight in enumerate(layer.weights):
            group.create_dataset(str(i), data=weight.value)
    if optimizer is not None and optimizer.flat is not None:
        group = file.create_group("optimizer/vars")
        group.attrs["name"] = optimizer.name
        for i, array in enumerate(_variables(optimizer)):
            group.create_dataset(str(i), data=array)


def read(file: Any, layers: Mapping[str, Layer], path: str, prefix: str = "layers/") -> list[tuple[Weight, Array]]:
    """Weights with what the file holds for them; an error if anything lacks, is left over or has another shape."""
    found: list[tuple[Weight, Array]] = []
    for place, layer in layers.items():
        at = f"{prefix}{place}/vars"
        group = file.get(at, {})
        if len(group) != len(layer.weights):
            raise WeightsError(
                f"{path} holds the weights of another model: layer {layer.name!r} has {len(layer.weights)} weights, "
                f"the file {len(group)} at {at}"
            )
        for i, weight in enumerate(layer.weights):
            array = np.asarray(group[str(i)])
            if array.shape != weight.shape:
                raise WeightsError(
                    f"{path} holds the weights of another model: {weight.name!r} of layer {layer.name!r} has shape "
                    f"{array.shape} there, but {weight.shape} here"
                )
            found.append((weight, array))
    if prefix and "layers" in file:
        extra = [
            n
            for n in file["layers"]
            if n not in layers and "vars" in file["layers"][n] and len(file["layers"][n]["vars"])
        ]
        if extra:
            raise WeightsError(f"{path} holds the weights of another model: it has in addition {', '.join(extra[:4])}")
    return found


def _variables(optimizer: Optimizer) -> list[Any]:
    """Steps taken, learning rate, then the states of each weight in turn, as Keras' Adam and SGD have them."""
    assert optimizer.flat is not None
    variables: list[Any] = [np.int32(optimizer.iterations), np.float32(optimizer.learning_rate)]
    for weight, part in zip(optimizer.flat.weights, optimizer.flat.slices, strict=True):
        variables += [state[part].reshape(weight.shape) for state in optimizer.state.values()]
    return variables


def read_optimizer(file: Any, model: Model) -> None:
    """Take over an optimizer's state; one of another arrangement is left out, and training starts it anew."""
    if "optimizer/vars" not in file or type(model.optimizer).__name__ not in ("Adam", "AdamW", "SGD"):
        return
    group = file["optimizer/vars"]
    states = model.optimizer_arrays()
    found = [np.asarray(group[str(i)]) for i in range(len(group))]
    wanted = list(states.values())
    if len(found) != 2 + len(wanted) or any(a.shape != w.shape for a, w in zip(found[2:], wanted, strict=True)):
        return
    model.optimizer.iterations = int(found[0])
    for array, into in zip(found[2:], wanted, strict=True):
        into[...] = array
