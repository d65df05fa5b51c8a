"""Batch normalisation, activations and optimizer updates: the compiled functions take the arrays as they are."""

from __future__ import annotations

from ..protocol import Array
from . import _core

__all__ = ["TrainingKernels"]


class TrainingKernels:
    """The training kernels of :class:`CppBackend`; the formulas stand in ``protocol``."""

    def activate(self, x: Array, activation: str, out: Array) -> None:
        """Activation of a flat array."""
        _core.activate(x, activation, out)

    def add(self, a: Array, b: Array, activation: str | None, out: Array) -> None:
        """Activation of a sum of flat arrays, in one pass."""
        _core.add(a, b, activation, out)

    def activation_backward(self, grad_output: Array, x: Array, activation: str, dx: Array) -> None:
        """Gradient to the pre-activation."""
        _core.activation_backward(grad_output, x, activation, dx)

    def batch_norm(self, x: Array, mean: Array, scale: Array, bias: Array, activation: str | None, out: Array) -> None:
        """Normalisation by given statistics, in one pass."""
        _core.batch_norm(x, mean, scale, bias, activation, out)

    def batch_norm_train(
        self, x: Array, weight: Array, bias: Array, eps: float, activation: str | None, out: Array,
        mean: Array, var: Array, add: Array | None,
    ) -> None:  # fmt: skip
        """Statistics in one pass over memory; normalisation, sum and activation in a second."""
        _core.batch_norm_train(x, weight, bias, eps, activation, out, mean, var, add)

    def batch_norm_backward(
        self, grad_output: Array, x: Array, weight: Array, bias: Array, mean: Array, var: Array, eps: float,
        activation: str | None, dx: Array, dweight: Array, dbias: Array,
    ) -> None:  # fmt: skip
        """Sums in one pass over memory, the gradient in a second."""
        _core.batch_norm_backward(grad_output, x, weight, bias, mean, var, eps, activation, dx, dweight, dbias)

    def sgd_update(
        self, param: Array, grad: Array, velocity: Array | None, lr: float, momentum: float, nesterov: bool,
        decay: float,
    ) -> None:  # fmt: skip
        """In place, in one pass."""
        _core.sgd_update(param, grad, velocity, lr, momentum, nesterov, decay)

    def rmsprop_update(
        self, param: Array, grad: Array, square: Array, mean: Array | None, velocity: Array | None, lr: float,
        rho: float, momentum: float, eps: float, decay: float,
    ) -> None:  # fmt: skip
        """In place, in one pass."""
        _core.rmsprop_update(param, grad, square, mean, velocity, lr, rho, momentum, eps, decay)

    def adam_update(
        self, param: Array, grad: Array, m: Array, v: Array, alpha: float, beta1: float, beta2: float, eps: float,
        decay: float, l2: float,
    ) -> None:  # fmt: skip
        """In place, in one pass."""
        _core.adam_update(param, grad, m, v, alpha, beta1, beta2, eps, decay, l2)
