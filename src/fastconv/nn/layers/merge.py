"""Layers that join several tensors into one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ... import GeometryError, activate, activation_backward
from ..graph import Array, Shape
from .core import Layer

if TYPE_CHECKING:
    from ..program import Call

__all__ = ["Add", "Concatenate", "Multiply"]


class Merge(Layer):
    """Base of the layers that join tensors of one shape."""

    many = True

    def compute_output_shape(self, input_shape: Any) -> Shape:
        """The one shape of all inputs."""
        shapes = [tuple(s) for s in input_shape]
        if len(shapes) < 2:
            raise self.refusal(input_shape, "a list of at least two inputs")
        if any(s != shapes[0] for s in shapes):
            raise self.refusal(input_shape, "inputs of one shape")
        return shapes[0]


class Add(Merge):
    """Sum of several tensors of one shape: the end of a skip connection.

    Parameters
    ----------
    name, trainable, dtype
        As in :class:`Layer`.
    """

    fuses: ClassVar[tuple[str, ...]] = ("relu", "relu6", "leaky_relu")

    @property
    def sums(self) -> bool:
        """It is, unless a class of its own computes something else."""
        return type(self).forward is Add.forward and type(self).backward is Add.backward

    def forward(self, x: list[Array], call: Call) -> Array:
        """Sum, and apply a fused activation."""
        y, last = call.out(), len(x) - 1
        total = x[0]
        for i, other in enumerate(x[1:], 1):
            total = y = activate(total, call.activation if i == last else None, add=other, out=y)
        return total

    def backward(self, dy: Array, call: Call) -> list[Array]:
        """The gradient, to each."""
        if call.activation is not None and not call.graded:
            assert call.y is not None
            dy = activation_backward(dy, call.y, call.activation, out=call.reuse(dy))
        return [dy for _ in call.inputs]


class Multiply(Merge):
    """Product of several tensors of one shape.

    Parameters
    ----------
    name, trainable, dtype
        As in :class:`Layer`.
    """

    def forward(self, x: list[Array], call: Call) -> Array:
        """Multiply."""
        y: Array = np.multiply(x[0], x[1], out=call.out())
        for other in x[2:]:
            y *= other
        return y

    def backward(self, dy: Array, call: Call) -> list[Array]:
        """The gradient times all the others, to each."""
        results = []
        for i in range(len(call.inputs)):
            dx = call.dx(i)
            dx[...] = dy
            for j, other in enumerate(call.inputs):
                if j != i:
                    dx *= other
            results.append(dx)
        return results


class Concatenate(Layer):
    """Several tensors one after the other along an axis.

    Parameters
    ----------
    axis : int, default -1
        Along which; not the batch.
    name, trainable, dtype
        As in :class:`Layer`.
    """

    many = True
    config_names: ClassVar[tuple[str, ...]] = ("axis",)

    def __init__(self, axis: int = -1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis = axis

    def compute_output_shape(self, input_shape: Any) -> Shape:
        """Lengths along the axis add up."""
        shapes = [tuple(s) for s in input_shape]
        if len(shapes) < 2:
            raise self.refusal(input_shape, "a list of at least two inputs")
        ndim = len(shapes[0])
        if not -ndim < self.axis < ndim or self.axis == 0:
            raise GeometryError(f"axis {self.axis} is not an axis beside the batch")
        axis = self.axis % ndim
        rests = {(*s[:axis], *s[axis + 1 :]) for s in shapes}
        if len(rests) != 1:
            raise self.refusal(input_shape, f"inputs that differ in axis {self.axis} alone")
        lengths = [s[axis] for s in shapes]
        total = None if None in lengths else sum(n for n in lengths if n is not None)
        return (*shapes[0][:axis], total, *shapes[0][axis + 1 :])

    def forward(self, x: list[Array], call: Call) -> Array:
        """Join."""
        return np.concatenate(x, axis=self.axis, out=call.out())

    def backward(self, dy: Array, call: Call) -> list[Array | None]:
        """Split."""
        axis, start = self.axis % dy.ndim, 0
        results: list[Array | None] = []
        for i, (x, need) in enumerate(zip(call.inputs, call.needs_dx, strict=True)):
            stop = start + x.shape[axis]
            dx = None
            if need:
                dx = call.dx(i)
                dx[...] = np.moveaxis(np.moveaxis(dy, axis, 0)[start:stop], 0, axis)
            results.append(dx)
            start = stop
        return results
