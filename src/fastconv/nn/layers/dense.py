"""The fully connected layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ... import activate, activation_backward
from ...geometry import ntuple
from .. import initializers, regularizers
from ..graph import Array, Shape
from . import activation as activations
from .core import Layer, Weight

if TYPE_CHECKING:
    from ..program import Call

__all__ = ["Dense"]


class Dense(Layer):
    """Every output a weighted sum of all inputs (of the last axis) and a bias.

    Parameters
    ----------
    units : int
        Outputs.
    activation : str, optional
        As in :class:`Activation`.
    use_bias : bool, default True
        Whether there is a bias.
    kernel_initializer, bias_initializer : default "glorot_uniform", "zeros"
        Of ``nn.initializers``.
    kernel_regularizer, bias_regularizer : optional
        Of ``nn.regularizers``.
    name, trainable, dtype, input_shape
        As in :class:`Layer`.
    """

    fuses: ClassVar[tuple[str, ...]] = ("relu", "relu6", "leaky_relu")
    config_names: ClassVar[tuple[str, ...]] = (
        "units", "activation", "use_bias", "kernel_initializer", "bias_initializer", "kernel_regularizer",
        "bias_regularizer",
    )  # fmt: skip

    def __init__(
        self, units: int, activation: Any = None, use_bias: bool = True, kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros", kernel_regularizer: Any = None, bias_regularizer: Any = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        if "input_dim" in kwargs:
            kwargs["input_shape"] = (kwargs.pop("input_dim"),)
        super().__init__(**kwargs)
        self.units = ntuple(f"layer {self.name!r} (Dense)", "units", units, 1)[0]
        self.activation = activations.get(activation, self.dtype)
        self.use_bias = bool(use_bias)
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.bias_regularizer = regularizers.get(bias_regularizer)
        self.bias: Weight | None = None

    def build(self, input_shape: Shape) -> None:
        """Make kernel ``(inputs, units)`` and bias."""
        if len(input_shape) < 2 or input_shape[-1] is None:
            raise self.refusal(input_shape, "an input (batch, ..., features) with a known number of features")
        self.kernel = self.add_weight(
            "kernel", (input_shape[-1], self.units), self.kernel_initializer, regularizer=self.kernel_regularizer
        )
        if self.use_bias:
            self.bias = self.add_weight("bias", (self.units,), self.bias_initializer, regularizer=self.bias_regularizer)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """The input's with ``units`` at the end."""
        if input_shape[-1] != self.kernel.shape[0]:
            raise self.refusal(input_shape, f"{self.kernel.shape[0]} features, as when it was built,")
        return (*input_shape[:-1], self.units)

    def forward(self, x: Array, call: Call) -> Array:
        """``x @ kernel + bias``."""
        y = call.out()
        if self.units == 1 and y is not None:
            np.einsum("ni,i->n", x.reshape(-1, x.shape[-1]), self.kernel.value[:, 0], out=y.reshape(-1))
        else:
            y = np.matmul(x, self.kernel.value, out=y)
        if self.bias is not None:
            y += self.bias.value
        return y if call.activation is None else activate(y, call.activation, out=y)

    def backward(self, dy: Array, call: Call) -> Array | None:
        """``x.T @ dy``, the sum of ``dy``, and ``dy @ kernel.T``.

        With one output these are no matrix products worth the name: on 64 rows of 32768 inputs BLAS takes 6.5 ms for
        the last (0.4 ms as below), and wakes threads for all of them.
        """
        if call.activation is not None and not call.graded:
            assert call.y is not None
            dy = activation_backward(dy, call.y, call.activation, out=call.reuse(dy))
        w = self.kernel.value
        x, dy2 = call.x.reshape(-1, w.shape[0]), dy.reshape(-1, w.shape[1])
        if (dw := call.grad(self.kernel)) is not None:
            if self.units == 1:
                np.einsum("n,ni->i", dy2[:, 0], x, out=dw[:, 0])
            else:
                np.matmul(x.T, dy2, out=dw)
        if self.bias is not None and (db := call.grad(self.bias)) is not None:
            np.sum(dy2, axis=0, out=db)
        if not call.needs_dx[0]:
            return None
        dx = call.dx()
        (np.multiply if self.units == 1 else np.matmul)(dy2, w.T, out=dx.reshape(-1, w.shape[0]))
        return dx
