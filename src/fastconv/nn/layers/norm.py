"""Normalisation over the batch or over each example, and dropout."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ... import activate, activation_backward, batch_norm, batch_norm_backward, batch_norm_train
from .. import initializers, random, regularizers
from ..graph import Array, Shape
from .core import Layer, Weight

if TYPE_CHECKING:
    from ..program import Call

__all__ = ["BatchNormalization", "Dropout", "LayerNormalization"]


class BatchNormalization(Layer):
    """Every channel normalised by its mean and variance: the batch's in training, the followed ones in use.

    Parameters
    ----------
    axis : int, default -1
        The channels, which must be the last axis.
    momentum : float, default 0.99
        Weight of the old value when the statistics are followed.
    epsilon : float, default 1e-3
        Added to the variance.
    center, scale : bool, default True
        Whether there are ``beta`` and ``gamma``.
    beta_initializer, gamma_initializer, moving_mean_initializer, moving_variance_initializer
        Of ``nn.initializers``; zeros, ones, zeros, ones.
    beta_regularizer, gamma_regularizer : optional
        Of ``nn.regularizers``.
    name, trainable, dtype, input_shape
        As in :class:`Layer`; a frozen layer uses the followed statistics in training too.
    """

    fuses: ClassVar[tuple[str, ...]] = ("relu", "relu6", "leaky_relu", "silu", "gelu", "hard_swish")
    config_names: ClassVar[tuple[str, ...]] = (
        "axis", "momentum", "epsilon", "center", "scale", "beta_initializer", "gamma_initializer",
        "moving_mean_initializer", "moving_variance_initializer", "beta_regularizer", "gamma_regularizer",
    )  # fmt: skip

    def __init__(
        self, axis: int = -1, momentum: float = 0.99, epsilon: float = 1e-3, center: bool = True, scale: bool = True,
        beta_initializer: Any = "zeros", gamma_initializer: Any = "ones", moving_mean_initializer: Any = "zeros",
        moving_variance_initializer: Any = "ones", beta_regularizer: Any = None, gamma_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(**kwargs)
        self.axis = axis[0] if isinstance(axis, (list, tuple)) else axis
        self.momentum, self.epsilon = float(momentum), float(epsilon)
        self.center, self.scale = bool(center), bool(scale)
        self.beta_initializer = initializers.get(beta_initializer)
        self.gamma_initializer = initializers.get(gamma_initializer)
        self.moving_mean_initializer = initializers.get(moving_mean_initializer)
        self.moving_variance_initializer = initializers.get(moving_variance_initializer)
        self.beta_regularizer = regularizers.get(beta_regularizer)
        self.gamma_regularizer = regularizers.get(gamma_regularizer)
        self.gamma: Weight | None = None
        self.beta: Weight | None = None

    def build(self, input_shape: Shape) -> None:
        """Make gamma, beta and the followed statistics, a number for each channel."""
        if self.axis not in (-1, len(input_shape) - 1) or len(input_shape) < 2 or input_shape[-1] is None:
            raise self.refusal(input_shape, f"its channels, axis {self.axis}, as the last axis and of known number")
        channels = (input_shape[-1],)
        if self.scale:
            self.gamma = self.add_weight("gamma", channels, self.gamma_initializer, regularizer=self.gamma_regularizer)
        if self.center:
            self.beta = self.add_weight("beta", channels, self.beta_initializer, regularizer=self.beta_regularizer)
        self.moving_mean = self.add_weight("moving_mean", channels, self.moving_mean_initializer, trainable=False)
        self.moving_variance = self.add_weight(
            "moving_variance", channels, self.moving_variance_initializer, trainable=False
        )

    @property
    def takes_sum(self) -> bool:
        """In the pass that normalises."""
        return type(self).forward is BatchNormalization.forward

    def _parameters(self) -> tuple[Array | None, Array | None]:
        return None if self.gamma is None else self.gamma.value, None if self.beta is None else self.beta.value

    def forward(self, x: Array, call: Call) -> Array:
        """Normalise, and apply a fused activation."""
        gamma, beta = self._parameters()
        options: dict[str, Any] = {"eps": self.epsilon, "layout": "NHWC", "out": call.out()}
        added = call.inputs[1] if len(call.inputs) > 1 else None
        if call.training and self.trainable:
            y, call.saved["mean"], call.saved["var"] = batch_norm_train(
                x, gamma, beta, activation=call.activation, add=added, **options
            )
            return y
        options["activation"] = call.activation if added is None else None
        y = batch_norm(x, gamma, beta, self.moving_mean.value, self.moving_variance.value, **options)
        return y if added is None else activate(y, call.activation, add=added, out=y)

    def backward(self, dy: Array, call: Call) -> Array | list[Array]:
        """Gradients through the batch's statistics; of a frozen layer, a scaling. And of a sum behind it."""
        activation = None if call.graded else call.activation
        if len(call.inputs) == 1:
            return self._backward(dy, call, activation)
        if activation is not None:
            assert call.y is not None
            dy = activation_backward(dy, call.y, activation, out=call.reuse(dy))
        return [self._backward(dy, call, None), dy]

    def _backward(self, dy: Array, call: Call, activation: str | None) -> Array:
        gamma, beta = self._parameters()
        if not self.trainable:
            return self._frozen_backward(dy, call, gamma, beta, activation)
        dgamma = None if self.gamma is None else call.grad(self.gamma)
        dbeta = None if self.beta is None else call.grad(self.beta)
        return batch_norm_backward(
            dy, call.x, gamma, beta, call.saved["mean"], call.saved["var"], eps=self.epsilon, layout="NHWC",
            activation=activation, out=(call.dx(), dgamma, dbeta),
        ).x  # fmt: skip

    def _frozen_backward(
        self, dy: Array, call: Call, gamma: Array | None, beta: Array | None, activation: str | None
    ) -> Array:
        mean, var = self.moving_mean.value, self.moving_variance.value
        into = call.dx()
        if activation is not None:
            before = batch_norm(call.x, gamma, beta, mean, var, eps=self.epsilon, layout="NHWC", out=into)
            dy = activation_backward(dy, before, activation, out=before)
        slope = 1 / np.sqrt(var + self.epsilon)
        return np.multiply(dy, slope if gamma is None else slope * gamma, out=into, casting="same_kind")

    def commit(self, call: Call) -> None:
        """Follow the batch's statistics."""
        if not self.trainable:
            return
        for followed, now in ((self.moving_mean, call.saved["mean"]), (self.moving_variance, call.saved["var"])):
            followed.value *= self.momentum
            followed.value += (1 - self.momentum) * now


class LayerNormalization(Layer):
    """Every example normalised along its last axis.

    Parameters
    ----------
    axis : int, default -1
        Only the last axis.
    epsilon : float, default 1e-3
        Added to the variance.
    center, scale : bool, default True
        Whether there are ``beta`` and ``gamma``.
    beta_initializer, gamma_initializer, beta_regularizer, gamma_regularizer
        As in :class:`BatchNormalization`.
    name, trainable, dtype, input_shape
        As in :class:`Layer`.
    """

    config_names: ClassVar[tuple[str, ...]] = (
        "axis", "epsilon", "center", "scale", "beta_initializer", "gamma_initializer", "beta_regularizer",
        "gamma_regularizer",
    )  # fmt: skip

    def __init__(
        self, axis: Any = -1, epsilon: float = 1e-3, center: bool = True, scale: bool = True,
        beta_initializer: Any = "zeros", gamma_initializer: Any = "ones", beta_regularizer: Any = None,
        gamma_regularizer: Any = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        kwargs.pop("rms_scaling", None)
        super().__init__(**kwargs)
        self.axis = axis[0] if isinstance(axis, (list, tuple)) and len(axis) == 1 else axis
        self.epsilon, self.center, self.scale = float(epsilon), bool(center), bool(scale)
        self.beta_initializer = initializers.get(beta_initializer)
        self.gamma_initializer = initializers.get(gamma_initializer)
        self.beta_regularizer = regularizers.get(beta_regularizer)
        self.gamma_regularizer = regularizers.get(gamma_regularizer)
        self.gamma: Weight | None = None
        self.beta: Weight | None = None

    def build(self, input_shape: Shape) -> None:
        """Make gamma and beta, a number for each feature."""
        if self.axis not in (-1, len(input_shape) - 1) or len(input_shape) < 2 or input_shape[-1] is None:
            raise self.refusal(input_shape, f"axis {self.axis} to be the last axis and of known length")
        features = (input_shape[-1],)
        if self.scale:
            self.gamma = self.add_weight("gamma", features, self.gamma_initializer, regularizer=self.gamma_regularizer)
        if self.center:
            self.beta = self.add_weight("beta", features, self.beta_initializer, regularizer=self.beta_regularizer)

    def forward(self, x: Array, call: Call) -> Array:
        """Normalise: a batch normalisation whose channels are the rows."""
        rows = x.reshape(1, -1, x.shape[-1])
        out = call.out()
        y, mean, var = batch_norm_train(
            rows, None, None, eps=self.epsilon, out=None if out is None else out.reshape(rows.shape)
        )
        if call.training:
            call.saved["mean"], call.saved["var"] = mean, var
        if self.gamma is not None:
            y *= self.gamma.value
        if self.beta is not None:
            y += self.beta.value
        return y.reshape(x.shape)

    def backward(self, dy: Array, call: Call) -> Array:
        """Gradients of gamma, beta and the input."""
        x = call.x
        rows, dy = x.reshape(1, -1, x.shape[-1]), np.ascontiguousarray(dy).reshape(1, -1, x.shape[-1])
        mean, var = call.saved["mean"], call.saved["var"]
        if self.beta is not None:
            call.add_gradient(self.beta, dy.sum(axis=(0, 1)))
        if self.gamma is not None:
            hat = (rows - mean[:, None]) / np.sqrt(var + self.epsilon)[:, None]
            call.add_gradient(self.gamma, (dy * hat).sum(axis=(0, 1)))
            dy = dy * self.gamma.value
        dx = call.dx()
        batch_norm_backward(dy, rows, None, None, mean, var, eps=self.epsilon, out=(dx.reshape(rows.shape), None, None))
        return dx


class Dropout(Layer):
    """In training, a share of the inputs set to zero and the rest scaled up; in use, nothing.

    Parameters
    ----------
    rate : float
        The share, from 0 to below 1.
    noise_shape : optional
        Must be None.
    seed : int, optional
        Of a source of chance of its own.
    name, trainable, dtype, input_shape
        As in :class:`Layer`.
    """

    config_names: ClassVar[tuple[str, ...]] = ("rate", "seed", "noise_shape")

    def __init__(self, rate: float, noise_shape: Any = None, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ValueError(f"layer {self.name!r} (Dropout): rate must be in [0, 1), received {rate!r}")
        if noise_shape is not None:
            raise ValueError(f"layer {self.name!r} (Dropout): noise_shape must be None, received {noise_shape!r}")
        self.rate, self.seed, self.noise_shape = float(rate), seed, None
        self._own = None if seed is None else np.random.default_rng(seed)

    def forward(self, x: Array, call: Call) -> Array:
        """Zero a share of the inputs, in training."""
        if not call.training or not self.rate:
            return x
        scale = call.buffer("scale", x.shape, x.dtype)
        (self._own or random.generator()).random(dtype=x.dtype.type, out=scale)
        np.multiply(scale >= self.rate, x.dtype.type(1 / (1 - self.rate)), out=scale)
        return np.multiply(x, scale, out=call.out())

    def backward(self, dy: Array, call: Call) -> Array:
        """Zero and scale the same positions."""
        if not self.rate:
            return dy
        return np.multiply(dy, call.buffer("scale", dy.shape, dy.dtype), out=call.reuse(dy))
