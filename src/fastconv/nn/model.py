"""Models: a graph from inputs to outputs, given whole (Functional) or layer by layer (Sequential)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import GeometryError
from . import data, saving, summary
from .graph import Array, Node, Shape, Tensor, flatten, graph_order, snake_case, unique_name
from .layers.core import InputLayer, Layer, Weight, assign_all
from .program import Program
from .training import Trainer

__all__ = ["Model", "Sequential"]


class Model(Trainer):
    """A network from inputs to outputs.

    Parameters
    ----------
    inputs, outputs : Tensor, or list or dict of Tensor
        What ``nn.Input`` gave, and what calls of layers made of it.
    name : str, optional

    Examples
    --------
    >>> from fastconv import nn
    >>> image = nn.Input((8, 8, 1))
    >>> x = nn.Conv2D(4, 3, activation="relu")(image)
    >>> x = nn.GlobalAveragePooling2D()(x)
    >>> model = nn.Model(inputs=image, outputs=nn.Dense(3, activation="softmax")(x))
    >>> model.count_params()
    55
    """

    def __init__(
        self, inputs: Any = None, outputs: Any = None, name: str | None = None, trainable: bool = True
    ) -> None:
        super().__init__()
        self.name = unique_name("functional") if name is None else str(name)
        if inputs is None or outputs is None:
            raise TypeError(
                "Model: inputs and outputs are missing; models are made of layers, and own computations by subclassing "
                "nn.layers.Layer"
            )
        self._set_graph(flatten(inputs), flatten(outputs))
        if not trainable:
            self.trainable = False

    def _set_graph(self, inputs: list[Any], outputs: list[Any]) -> None:
        for what, tensors in (("inputs", inputs), ("outputs", outputs)):
            for t in tensors:
                if not isinstance(t, Tensor):
                    raise TypeError(f"Model: {what} must be tensors of a graph, received {type(t).__name__}")
        self._inputs: list[Tensor] = inputs
        self._outputs: list[Tensor] = outputs
        self._nodes, self._layers = graph_order(inputs, outputs)
        names = [layer.name for layer in self._layers]
        if twice := sorted({n for n in names if names.count(n) > 1}):
            raise ValueError(f"Model: layer names must differ, but {', '.join(twice)} occur more than once")
        self._compiled_program: Program | None = None

    # --------------------------------------------------------------------------------------------- what it is made of

    @property
    def inputs(self) -> list[Tensor]:
        """Symbolic inputs."""
        return self._inputs

    @property
    def outputs(self) -> list[Tensor]:
        """Symbolic outputs."""
        return self._outputs

    @property
    def input(self) -> Any:
        """The symbolic input, or the list of them."""
        return self.inputs[0] if len(self.inputs) == 1 else self.inputs

    @property
    def output(self) -> Any:
        """The symbolic output, or the list of them."""
        return self.outputs[0] if len(self.outputs) == 1 else self.outputs

    @property
    def input_shape(self) -> Any:
        """Shape of the input, or the list of them."""
        return self.inputs[0].shape if len(self.inputs) == 1 else [t.shape for t in self.inputs]

    @property
    def output_shape(self) -> Any:
        """Shape of the output, or the list of them."""
        return self.outputs[0].shape if len(self.outputs) == 1 else [t.shape for t in self.outputs]

    @property
    def nodes(self) -> list[Node]:
        """Calls of layers, each after those it needs."""
        self.outputs  # noqa: B018  a Sequential model is built by then
        return self._nodes

    @property
    def layers(self) -> list[Layer]:
        """Layers in Keras' order."""
        self.outputs  # noqa: B018
        return list(self._layers)

    def get_layer(self, name: str | None = None, index: int | None = None) -> Layer:
        """A layer by its name or its place."""
        if index is not None:
            return self.layers[index]
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise ValueError(f"model {self.name!r} has no layer {name!r}; it has {', '.join(x.name for x in self.layers)}")

    @property
    def input_names(self) -> list[str]:
        """Names of the input layers."""
        return [t.name for t in self.inputs]

    @property
    def output_names(self) -> list[str]:
        """Names of the layers that make the outputs."""
        return [t.name for t in self.outputs]

    @property
    def weights(self) -> list[Weight]:
        """Weights of all layers, in their order."""
        return [w for layer in self.layers for w in layer.weights]

    @property
    def trainable_weights(self) -> list[Weight]:
        """Those that training changes."""
        return [w for layer in self.layers for w in layer.trainable_weights]

    @property
    def non_trainable_weights(self) -> list[Weight]:
        """The others."""
        return [w for layer in self.layers for w in layer.non_trainable_weights]

    @property
    def trainable(self) -> bool:
        """Whether any layer is trained; setting it sets all of them."""
        return any(layer.trainable for layer in self.layers)

    @trainable.setter
    def trainable(self, value: bool) -> None:
        for layer in self.layers:
            layer.trainable = bool(value)

    def get_weights(self) -> list[Array]:
        """Copies of all weights."""
        return [w.numpy() for w in self.weights]

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Overwrite all weights; nothing changes if any does not fit."""
        assign_all(f"model {self.name!r}", self.weights, weights)

    def count_params(self) -> int:
        """Number of numbers in all weights."""
        return sum(w.value.size for w in self.weights)

    def summary(
        self, line_length: int | None = None, print_fn: Callable[[str], Any] | None = None, **other: Any
    ) -> None:
        """Print a table of the layers, their output shapes and numbers of parameters."""
        text = summary.table(self, line_length)
        (print if print_fn is None else print_fn)(text)

    # ------------------------------------------------------------------------------------------------------- calling

    def program(self) -> Program:
        """The graph made ready to run."""
        outputs = self.outputs
        if self._compiled_program is None:
            self._compiled_program = Program(self._nodes, self._inputs, outputs)
        return self._compiled_program

    def __call__(self, inputs: Any, training: bool = False) -> Any:
        """Put all layers into another graph, shared; or, given arrays, compute on them in one batch."""
        given = flatten(inputs)
        if not any(isinstance(t, Tensor) for t in given):
            arrays = data.as_inputs(inputs, self.input_names, [t.shape for t in self.inputs])
            program = self.program()
            results = [y.copy() for y in program.forward(self.cast(arrays), training)]
            program.finish()
            return results[0] if len(results) == 1 else results
        if len(given) != len(self.inputs):
            raise GeometryError(f"model {self.name!r} takes {len(self.inputs)} inputs, received {len(given)}")
        made: dict[Tensor, Tensor] = dict(zip(self.inputs, given, strict=True))
        for mine, theirs in made.items():
            fits = len(mine.shape) == len(theirs.shape) and all(
                a is None or b is None or a == b for a, b in zip(mine.shape, theirs.shape, strict=True)
            )
            if not fits:
                raise GeometryError(
                    f"model {self.name!r} wants input {mine.name!r} of shape {mine.shape}, received {theirs.shape}"
                )
        for node in self.nodes:
            if node.output not in made:
                tensors = [made[t] for t in node.inputs]
                made[node.output] = node.layer(tensors if node.layer.many else tensors[0])
        outputs = [made[t] for t in self.outputs]
        return outputs[0] if len(outputs) == 1 else outputs

    # -------------------------------------------------------------------------------------------------------- files

    def save(self, filepath: str | Path, overwrite: bool = True, **other: Any) -> None:
        """Write the whole model: ``.keras`` (Keras' own format, needs h5py) or ``.fastconv`` (NumPy alone)."""
        saving.save_model(self, filepath, overwrite)

    def save_weights(self, filepath: str | Path, overwrite: bool = True) -> None:
        """Write the weights: ``.weights.h5`` (Keras' format), ``.safetensors`` or ``.npz``."""
        saving.save_weights(self, filepath, overwrite)

    def load_weights(self, filepath: str | Path, **other: Any) -> None:
        """Read weights that ``save_weights`` or Keras wrote; nothing changes if they do not fit."""
        saving.load_weights(self, filepath)

    def get_config(self) -> dict[str, Any]:
        """The graph in Keras' words."""
        return saving.config_of(self)["config"]  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"


class Sequential(Model):
    """Layers one after the other.

    Parameters
    ----------
    layers : list of Layer, optional
        The first may be ``nn.Input``, or have an ``input_shape``; else the model is built by its first data.
    name : str, optional

    Examples
    --------
    >>> from fastconv import nn
    >>> model = nn.Sequential([nn.Input((64, 64, 3)), nn.Conv2D(32, 7), nn.ReLU(), nn.Flatten(), nn.Dense(1)])
    >>> model.output_shape
    (None, 1)
    """

    def __init__(self, layers: Sequence[Any] | None = None, name: str | None = None, trainable: bool = True) -> None:
        Trainer.__init__(self)
        self.name = unique_name(snake_case(type(self).__name__)) if name is None else str(name)
        self._stack: list[Any] = []
        self._start: Tensor | None = None
        self._built = False
        for layer in layers or ():
            self.add(layer)
        if not trainable and self._built:
            self.trainable = False

    def add(self, layer: Any) -> None:
        """Put a layer, or a model, at the end."""
        if isinstance(layer, Tensor) and isinstance(layer.node.layer, InputLayer):
            layer = layer.node.layer
        if isinstance(layer, InputLayer):
            if self._stack or self._start is not None:
                raise ValueError(f"model {self.name!r}: an Input must come first")
            self._start = layer.output
            return
        if not isinstance(layer, (Layer, Model)):
            raise TypeError(
                f"model {self.name!r}: only layers and models can be added, received {type(layer).__name__}"
            )
        if self._start is None and not self._stack:
            if isinstance(layer, Layer) and layer.given_input_shape is not None:
                self._start = InputLayer(layer.given_input_shape[1:], dtype=str(layer.dtype)).output
            elif isinstance(layer, Model) and not (isinstance(layer, Sequential) and not layer._built):
                self._start = InputLayer(layer.input_shape[1:]).output
        if any(one is layer for one in self._stack):
            raise ValueError(f"model {self.name!r}: layer {layer.name!r} was already added")
        self._stack.append(layer)
        if self._start is not None:
            if self._built:
                try:
                    self._set_graph([self._start], [layer(self._outputs[0])])
                except Exception:
                    self._stack.pop()
                    raise
            else:
                self._rebuild()

    def pop(self) -> Any:
        """Take the last layer off."""
        if not self._stack:
            raise ValueError(f"model {self.name!r} has no layers")
        layer = self._stack.pop()
        self._built = False
        if self._start is not None:
            self._rebuild()
        return layer

    def build(self, input_shape: Shape | None = None) -> None:
        """Make the weights, for data of this shape (its first axis, the batch, is None)."""
        if self._start is None:
            if input_shape is None:
                raise ValueError(f"model {self.name!r}: input_shape is missing")
            self._start = InputLayer(tuple(input_shape)[1:]).output
        self._rebuild()

    def _rebuild(self) -> None:
        assert self._start is not None
        tensor = self._start
        for layer in self._stack:
            tensor = layer(tensor)
        if self._stack:
            self._set_graph([self._start], [tensor])
            self._built = True

    def build_for(self, x: Any) -> None:
        """Build by the shape of data, if nothing else said it."""
        if not self._built and self._start is None:
            self.build(np.shape(x))

    @property
    def inputs(self) -> list[Tensor]:
        """Symbolic inputs."""
        self._check_built()
        return self._inputs

    @property
    def outputs(self) -> list[Tensor]:
        """Symbolic outputs."""
        self._check_built()
        return self._outputs

    @property
    def layers(self) -> list[Layer]:
        """Layers in order, without the input."""
        if not self._built:
            return list(self._stack)
        return [layer for layer in self._layers if not isinstance(layer, InputLayer)]

    def _check_built(self) -> None:
        if not self._built:
            raise ValueError(
                f"model {self.name!r} has no shapes yet: start it with nn.Input(shape), "
                "call build(input_shape), or fit it"
            )

    def __call__(self, inputs: Any, training: bool = False) -> Any:
        """As of :class:`Model`; builds the model if need be."""
        if isinstance(inputs, Tensor):
            if not self._built:
                self.build(inputs.shape)
        else:
            self.build_for(inputs)
        return super().__call__(inputs, training)
