"""The base class of every layer, its weights, and the inputs of a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ... import GeometryError
from .. import initializers, regularizers
from ..config import floatx
from ..graph import Array, Node, Shape, Tensor, snake_case, unique_name

if TYPE_CHECKING:
    from ..program import Call
    from .activation import Elementwise

__all__ = ["Input", "InputLayer", "Layer", "Weight"]


class Weight:
    """An array of a layer, trained or followed."""

    def __init__(self, name: str, value: Array, trainable: bool, regularizer: regularizers.L1L2 | None) -> None:
        self.name, self.value, self.trainable, self.regularizer = name, value, trainable, regularizer
        self.grad: Array | None = None
        self.round = -1  # the backward pass that wrote the gradient last

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return self.value.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the array."""
        return self.value.dtype

    def numpy(self) -> Array:
        """A copy of the array."""
        copy: Array = self.value.copy()
        return copy

    def assign(self, value: Any) -> None:
        """Overwrite the array in place."""
        array = np.asarray(value)
        if array.shape != self.shape:
            raise GeometryError(f"weight {self.name!r} has shape {self.shape}, received {array.shape}")
        self.value[...] = array

    def __repr__(self) -> str:
        return f"<Weight {self.name!r} {self.shape} {self.dtype}>"


class Layer:
    """Base class of every layer, and of your own.

    A layer says how its output's shape follows from its input's (``compute_output_shape``), which weights it has
    (``build``, by ``add_weight``), and how it computes (``forward``) and hands gradients back (``backward``). There is
    no automatic differentiation: ``backward`` gets the gradient of the output and returns that of the input.

    Parameters
    ----------
    name : str, optional
        By default the class's name with a number.
    trainable : bool, default True
        Whether the weights are trained.
    dtype : optional
        ``"float32"`` or ``"float64"``; by default ``nn.config.floatx()``.
    input_shape : tuple of int, optional
        Shape of one example, for the first layer of a Sequential model.

    Examples
    --------
    A layer that scales every channel by a trained factor:

    >>> import numpy as np
    >>> from fastconv import nn
    >>> class Scale(nn.layers.Layer):
    ...     def build(self, input_shape):
    ...         self.factor = self.add_weight("factor", (input_shape[-1],), "ones")
    ...
    ...     def forward(self, x, call):
    ...         return np.multiply(x, self.factor.value, out=call.out())
    ...
    ...     def backward(self, dy, call):
    ...         positions = tuple(range(dy.ndim - 1))
    ...         call.add_gradient(self.factor, (dy * call.x).sum(axis=positions))
    ...         return dy * self.factor.value
    >>> model = nn.Sequential([nn.Input((4, 4, 3)), Scale(), nn.Flatten(), nn.Dense(1)])
    >>> model.count_params()
    52

    ``call.x`` is the input of ``forward`` and ``call.y`` what it returned; ``call.out()`` and ``call.dx()`` lend
    arrays to write to, which is faster than making new ones but never needed. ``call.training`` tells training from
    use, and ``call.saved`` is a dict for what ``backward`` needs besides.
    """

    many: ClassVar[bool] = False  # takes a list of inputs
    ndim: ClassVar[int | None] = None  # axes wanted, the batch among them
    axes: ClassVar[str] = ""  # what they are, for errors
    fuses: ClassVar[tuple[str, ...]] = ()
    config_names: ClassVar[tuple[str, ...]] = ()
    pads: tuple[tuple[int, int], ...] | None = None
    takes_maxima: ClassVar[bool] = False  # is a max pooling
    activation: Elementwise | None = None

    def __init__(
        self, *, name: str | None = None, trainable: bool = True, dtype: Any = None,
        input_shape: Sequence[int | None] | None = None, batch_input_shape: Sequence[int | None] | None = None,
    ) -> None:  # fmt: skip
        self.name = unique_name(snake_case(type(self).__name__)) if name is None else str(name)
        self.trainable = bool(trainable)
        self.dtype = _dtype(dtype)
        if batch_input_shape is not None:
            input_shape = tuple(batch_input_shape)[1:]
        self.given_input_shape: Shape | None = None if input_shape is None else (None, *input_shape)
        self.built = False
        self.own_weights: list[Weight] = []
        self.nodes: list[Node] = []

    # ------------------------------------------------------------------------------------- what subclasses define

    def build(self, input_shape: Any) -> None:
        """Make the weights; called once, with the shape of the input (None for the batch), or a list of shapes."""

    def compute_output_shape(self, input_shape: Any) -> Shape:
        """Shape of the output; by default that of the input."""
        return tuple(input_shape)

    def forward(self, x: Any, call: Call) -> Array:
        """Compute the output."""
        raise TypeError(f"layer {self.name!r} ({type(self).__name__}) does not define forward(x, call)")

    def backward(self, dy: Array, call: Call) -> Any:
        """Hand over the gradients of the weights and return that of the input (a list if ``many``)."""
        raise TypeError(
            f"layer {self.name!r} ({type(self).__name__}) does not define backward(dy, call), without which it "
            "cannot be trained"
        )

    def commit(self, call: Call) -> None:
        """Follow a training step that was sound; for running statistics."""

    @property
    def elementwise(self) -> str | None:
        """The library's name of the activation that this layer is, if it is one."""
        return None

    @property
    def sums(self) -> bool:
        """Whether this is the sum of its inputs, which a layer before it may take over."""
        return False

    @property
    def takes_sum(self) -> bool:
        """Whether a tensor of the output's shape may be added to the output, by ``forward`` and ``backward``."""
        return False

    @property
    def takes_padding(self) -> bool:
        """Whether a padding layer before this one may be left to its kernel."""
        return False

    # -------------------------------------------------------------------------------------------------- weights

    def add_weight(
        self, name: str, shape: Sequence[int], initializer: Any = "glorot_uniform", *, trainable: bool = True,
        regularizer: Any = None,
    ) -> Weight:  # fmt: skip
        """Make a weight; ``trainable=False`` for what is followed, not trained."""
        value = initializers.get(initializer)(tuple(shape), self.dtype)
        weight = Weight(name, np.asarray(value, self.dtype), trainable, regularizers.get(regularizer))
        self.own_weights.append(weight)
        return weight

    @property
    def weights(self) -> list[Weight]:
        """Trained weights, then the others."""
        return [w for w in self.own_weights if w.trainable] + [w for w in self.own_weights if not w.trainable]

    @property
    def trainable_weights(self) -> list[Weight]:
        """Weights that training changes; none of a frozen layer."""
        return [w for w in self.own_weights if w.trainable] if self.trainable else []

    @property
    def non_trainable_weights(self) -> list[Weight]:
        """The others."""
        return [w for w in self.weights if not (self.trainable and w.trainable)]

    def get_weights(self) -> list[Array]:
        """Copies of all weights."""
        return [w.numpy() for w in self.weights]

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Overwrite all weights; nothing changes if any does not fit."""
        assign_all(f"layer {self.name!r}", self.weights, weights)

    def count_params(self) -> int:
        """Number of numbers in the weights."""
        return sum(w.value.size for w in self.own_weights)

    # ---------------------------------------------------------------------------------------------------- graph

    def __call__(self, inputs: Any, training: bool = False) -> Any:
        """Put the layer into a graph; or, given arrays, compute on them."""
        given = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
        if given and not any(isinstance(t, Tensor) for t in given):
            return self._on_arrays([np.asarray(a) for a in given], training)
        for t in given:
            if not isinstance(t, Tensor):
                raise TypeError(f"layer {self.name!r}: inputs must be tensors of a graph, received {type(t).__name__}")
        if not self.many and len(given) != 1:
            raise GeometryError(f"layer {self.name!r} ({type(self).__name__}) takes one input, received {len(given)}")
        shape = self.output_shape_for([t.shape for t in given])
        node = Node(self, given, shape)
        self.nodes.append(node)
        return node.output

    def output_shape_for(self, shapes: list[Shape]) -> Shape:
        """Build if need be, and give the output's shape; errors name the layer, what came and what it wanted."""
        shape: Any = shapes if self.many else shapes[0]
        for s in shapes:
            if self.ndim is not None and len(s) != self.ndim:
                raise self.refusal(s, f"an input with {self.ndim} axes {self.axes}")
        try:
            if not self.built:
                self.build(shape)
                self.built = True
            return tuple(self.compute_output_shape(shape))
        except GeometryError as error:
            self.own_weights = [] if not self.built else self.own_weights
            if str(error).startswith("layer "):
                raise
            raise GeometryError(
                f"layer {self.name!r} ({type(self).__name__}) cannot take an input of shape {shape}: {error}"
            ) from None

    def refusal(self, shape: Any, wanted: str) -> GeometryError:
        """The error for an input shape that does not fit."""
        return GeometryError(
            f"layer {self.name!r} ({type(self).__name__}) wants {wanted}, but its input has shape {shape}"
        )

    def _on_arrays(self, arrays: list[Array], training: bool) -> Array:
        from ..program import Program

        inputs = [Input(a.shape[1:], name=f"of_{self.name}") for a in arrays]
        node = Node(self, inputs, self.output_shape_for([t.shape for t in inputs]))
        program = Program([node], inputs, [node.output])
        (y,) = program.forward([np.asarray(a, self.dtype) for a in arrays], training)
        result: Array = y.copy()
        return result

    @property
    def output(self) -> Tensor:
        """The tensor that the first call made: ``Model(model.input, model.layers[2].output)`` looks inside."""
        if not self.nodes:
            raise AttributeError(f"layer {self.name!r} was not called yet and has no output")
        return self.nodes[0].output

    @property
    def input(self) -> Any:
        """The tensor, or list of tensors, that the first call took."""
        if not self.nodes:
            raise AttributeError(f"layer {self.name!r} was not called yet and has no input")
        inputs = self.nodes[0].inputs
        return inputs[0] if len(inputs) == 1 else list(inputs)

    # ------------------------------------------------------------------------------------------------ configuration

    def get_config(self) -> dict[str, Any]:
        """What makes an equal layer, in Keras' words; subclasses with arguments name them in ``config_names``."""
        config: dict[str, Any] = {"name": self.name, "trainable": self.trainable, "dtype": str(self.dtype)}
        return config | {n: getattr(self, n) for n in self.config_names}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Layer:
        """The layer that ``get_config`` described."""
        return cls(**config)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"


def _dtype(dtype: Any) -> np.dtype[Any]:
    if isinstance(dtype, dict):  # Keras' policy in a file
        dtype = dtype.get("config", {}).get("name")
    result = np.dtype(floatx() if dtype is None else dtype)
    if result not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise TypeError(f"dtype of a layer must be float32 or float64, received {dtype!r}")
    return result


def assign_all(owner: str, weights: Sequence[Weight], values: Sequence[Any]) -> None:
    """Overwrite weights, after all of them were found to fit."""
    arrays = [np.asarray(v) for v in values]
    if len(arrays) != len(weights):
        raise GeometryError(f"{owner} has {len(weights)} weights, received {len(arrays)}")
    for weight, array in zip(weights, arrays, strict=True):
        if weight.shape != array.shape:
            raise GeometryError(f"{owner}: weight {weight.name!r} has shape {weight.shape}, received {array.shape}")
    for weight, array in zip(weights, arrays, strict=True):
        weight.value[...] = array


class InputLayer(Layer):
    """Where data enters a graph; ``Input`` makes it."""

    def __init__(
        self, shape: Sequence[int | None] | None = None, batch_size: int | None = None, *,
        batch_shape: Sequence[int | None] | None = None, name: str | None = None, dtype: Any = None, **other: Any,
    ) -> None:  # fmt: skip
        super().__init__(name=name, dtype=dtype if dtype in ("float32", "float64", None) else None)
        if batch_shape is None:
            batch_shape = other.get("batch_input_shape")
        if shape is None and batch_shape is None:
            raise TypeError("Input: shape, that of one example without the batch, is missing")
        sizes = tuple(batch_shape)[1:] if batch_shape is not None else shape
        assert sizes is not None
        if not isinstance(sizes, (tuple, list)) or not all(n is None or (isinstance(n, int) and n > 0) for n in sizes):
            raise GeometryError(f"Input: shape must be a tuple of positive integers, received {sizes!r}")
        self.batch_shape: Shape = (None, *sizes)
        self.built = True
        self.nodes.append(Node(self, (), self.batch_shape))

    def get_config(self) -> dict[str, Any]:
        """What makes an equal input."""
        return {"batch_shape": self.batch_shape, "dtype": str(self.dtype), "name": self.name}


def Input(
    shape: Sequence[int | None] | None = None, batch_size: int | None = None, *, name: str | None = None,
    dtype: Any = None, batch_shape: Sequence[int | None] | None = None,
) -> Tensor:  # fmt: skip
    """Start a graph: a symbolic tensor for data of this shape.

    Parameters
    ----------
    shape : tuple of int
        Of one example, without the batch; None where a length may vary.
    batch_size : int, optional
        Taken for Keras' sake; any batch size runs.
    name, dtype
        As in :class:`Layer`.
    batch_shape : tuple, optional
        The shape with its batch axis, instead of ``shape``.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> from fastconv import nn
    >>> x = nn.Input((28, 28, 1))
    >>> nn.Conv2D(8, 3)(x).shape
    (None, 26, 26, 8)
    """
    return InputLayer(shape, batch_size, name=name, dtype=dtype, batch_shape=batch_shape).output
