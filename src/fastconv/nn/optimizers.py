"""Optimizers with Keras' names and defaults. All weights lie in one flat array, so a step is one call of a kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from .. import adam_update, rmsprop_update, sgd_update
from . import schedules
from .graph import Array, empty
from .layers.core import Weight

__all__ = ["SGD", "Adam", "AdamW", "FlatWeights", "Optimizer", "RMSprop", "get", "schedules"]


class FlatWeights:
    """Weights and their gradients as parts of two flat arrays, each weight starting on a cache line."""

    def __init__(self, weights: Sequence[Weight]) -> None:
        self.weights = list(weights)
        dtypes = {w.dtype for w in weights}
        if len(dtypes) > 1:
            raise TypeError(
                f"all layers of a model must have one dtype to be trained, received {sorted(map(str, dtypes))}"
            )
        dtype = dtypes.pop() if dtypes else np.dtype(np.float32)
        starts, size = [], 0
        for w in weights:
            starts.append(size)
            size += -(-w.value.size // 16) * 16
        self.values, self.grads = empty(size, dtype), empty(size, dtype)
        self.values[:] = 0
        self.grads[:] = 0
        self.slices = [slice(a, a + w.value.size) for a, w in zip(starts, weights, strict=True)]
        for w, part in zip(weights, self.slices, strict=True):
            self.values[part] = w.value.reshape(-1)
            w.value = self.values[part].reshape(w.shape)
            w.grad = self.grads[part].reshape(w.shape)
            w.round = -1

    def holds(self, weights: Sequence[Weight]) -> bool:
        """Whether these are the weights, and still lie here; another model may have taken shared ones over."""
        return (
            len(weights) == len(self.weights)
            and all(a is b for a, b in zip(weights, self.weights, strict=True))
            and all(w.value.base is self.values.base for w in self.weights)
        )


class Optimizer:
    """Base class: the learning rate, clipping, and the state, which lies flat as the weights do.

    Parameters
    ----------
    learning_rate : float or LearningRateSchedule
    weight_decay : float, optional
        Decoupled from the gradient: each step takes ``learning_rate * weight_decay`` of the weights off.
    clipnorm, global_clipnorm, clipvalue : float, optional
        Largest norm of each weight's gradient, of all together, and largest value. At most one of them.
    name : str, optional
    """

    states: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self, learning_rate: Any = 0.001, *, weight_decay: float | None = None, clipnorm: float | None = None,
        clipvalue: float | None = None, global_clipnorm: float | None = None, name: str | None = None, **other: Any,
    ) -> None:  # fmt: skip
        for key in ("use_ema", "loss_scale_factor", "gradient_accumulation_steps"):
            if other.pop(key, None):
                raise ValueError(f"{type(self).__name__}: {key} is not available")
        for key in ("ema_momentum", "ema_overwrite_frequency"):
            other.pop(key, None)
        if "lr" in other:
            learning_rate = other.pop("lr")
        if other:
            raise TypeError(f"{type(self).__name__} got unexpected arguments {sorted(other)}")
        if sum(c is not None for c in (clipnorm, clipvalue, global_clipnorm)) > 1:
            raise ValueError(f"{type(self).__name__}: give at most one of clipnorm, clipvalue and global_clipnorm")
        self.schedule: schedules.LearningRateSchedule | None = None
        if isinstance(learning_rate, dict):
            learning_rate = schedules.from_file(learning_rate)
        if callable(learning_rate):
            self.schedule = learning_rate
        else:
            self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.clipnorm, self.clipvalue, self.global_clipnorm = clipnorm, clipvalue, global_clipnorm
        self.name = name or type(self).__name__.lower()
        self.iterations = 0
        self.flat: FlatWeights | None = None
        self.state: dict[str, Array] = {}

    @property
    def learning_rate(self) -> float:
        """The rate of the next step."""
        return self._rate if self.schedule is None else float(self.schedule(self.iterations))

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        rate = float(value)
        if not 0 <= rate < np.inf:
            raise ValueError(
                f"{type(self).__name__}: learning_rate must be finite and not negative, received {value!r}"
            )
        if self.schedule is not None:
            raise TypeError(f"{type(self).__name__}: the learning rate follows a schedule and cannot be set")
        self._rate = rate

    @property
    def decay(self) -> float:
        """The weight decay, zero for none."""
        return self.weight_decay or 0.0

    def wanted_states(self) -> tuple[str, ...]:
        """Names of the states that these settings need."""
        return self.states

    def bind(self, flat: FlatWeights) -> None:
        """Make the state for these weights; what was there for the same weights is kept."""
        if self.flat is flat:
            return
        old, before = self.state, self.flat
        self.state = {n: np.zeros_like(flat.values) for n in self.wanted_states()}
        if before is not None:
            places = {id(w): part for w, part in zip(before.weights, before.slices, strict=True)}
            for w, part in zip(flat.weights, flat.slices, strict=True):
                if id(w) in places:
                    for name, array in self.state.items():
                        array[part] = old[name][places[id(w)]]
        self.flat = flat

    def apply(self, flat: FlatWeights) -> None:
        """One step with the gradients that lie in ``flat``."""
        self.bind(flat)
        for w in flat.weights:
            if w.regularizer is not None and w.grad is not None:
                w.regularizer.add_gradient(w.value, w.grad)
        self._clip(flat)
        if flat.values.size:
            self.update(flat.values, flat.grads)
        self.iterations += 1

    def _clip(self, flat: FlatWeights) -> None:
        if self.clipvalue is not None:
            np.clip(flat.grads, -self.clipvalue, self.clipvalue, out=flat.grads)
        parts = [flat.grads] if self.global_clipnorm is not None else [flat.grads[s] for s in flat.slices]
        limit = self.global_clipnorm if self.global_clipnorm is not None else self.clipnorm
        if limit is not None:
            for grad in parts:
                norm = float(np.sqrt(np.dot(grad, grad)))
                if norm > limit:
                    grad *= limit / norm

    def update(self, values: Array, grads: Array) -> None:
        """Change the flat weights in place; subclasses say how."""
        raise TypeError(f"{type(self).__name__} does not define update(values, grads)")

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor, in Keras' words."""
        rate: Any = self._rate if self.schedule is None else self.schedule
        return {
            "name": self.name, "learning_rate": rate, "weight_decay": self.weight_decay, "clipnorm": self.clipnorm,
            "global_clipnorm": self.global_clipnorm, "clipvalue": self.clipvalue,
        }  # fmt: skip


class SGD(Optimizer):
    """Stochastic gradient descent with ``momentum``, ``nesterov`` or not; other arguments of :class:`Optimizer`."""

    def __init__(self, learning_rate: Any = 0.01, momentum: float = 0.0, nesterov: bool = False, **kwargs: Any) -> None:
        super().__init__(learning_rate, **kwargs)
        self.momentum, self.nesterov = float(momentum), bool(nesterov)

    def wanted_states(self) -> tuple[str, ...]:
        """A velocity, with momentum."""
        return ("velocity",) if self.momentum else ()

    def update(self, values: Array, grads: Array) -> None:
        """One step of the library's kernel."""
        sgd_update(
            values, grads, self.state.get("velocity"), lr=self.learning_rate, momentum=self.momentum,
            nesterov=self.nesterov, weight_decay=self.decay,
        )  # fmt: skip

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return super().get_config() | {"momentum": self.momentum, "nesterov": self.nesterov}


class RMSprop(Optimizer):
    """Steps over the root of the running mean square of the gradient; ``rho`` 0.9, ``epsilon`` 1e-7.

    ``momentum`` and ``centered`` as in Keras; other arguments of :class:`Optimizer`.
    """

    def __init__(
        self, learning_rate: Any = 0.001, rho: float = 0.9, momentum: float = 0.0, epsilon: float = 1e-7,
        centered: bool = False, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(learning_rate, **kwargs)
        self.rho, self.momentum, self.epsilon, self.centered = rho, momentum, epsilon, bool(centered)

    def wanted_states(self) -> tuple[str, ...]:
        """The mean square, a velocity with momentum, the mean if centred."""
        return ("velocity", *(("momentum",) if self.momentum else ()), *(("mean",) if self.centered else ()))

    def update(self, values: Array, grads: Array) -> None:
        """One step of the library's kernel."""
        rmsprop_update(
            values, grads, self.state["velocity"], lr=self.learning_rate, rho=self.rho, momentum=self.momentum,
            eps=self.epsilon, mean=self.state.get("mean"), velocity=self.state.get("momentum"), weight_decay=self.decay,
        )  # fmt: skip

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return super().get_config() | {
            "rho": self.rho, "momentum": self.momentum, "epsilon": self.epsilon, "centered": self.centered
        }  # fmt: skip


class Adam(Optimizer):
    """Adam with Keras' ``beta_1`` 0.9, ``beta_2`` 0.999 and ``epsilon`` 1e-7; other arguments of :class:`Optimizer`."""

    states = ("m", "v")

    def __init__(
        self, learning_rate: Any = 0.001, beta_1: float = 0.9, beta_2: float = 0.999, epsilon: float = 1e-7,
        amsgrad: bool = False, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(learning_rate, **kwargs)
        if amsgrad:
            raise ValueError(f"{type(self).__name__}: amsgrad is not available")
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon

    def update(self, values: Array, grads: Array) -> None:
        """One step of the library's kernel."""
        adam_update(
            values, grads, self.state["m"], self.state["v"], step=self.iterations + 1, lr=self.learning_rate,
            beta1=self.beta_1, beta2=self.beta_2, eps=self.epsilon, weight_decay=self.decay, decoupled=True,
        )  # fmt: skip

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return super().get_config() | {
            "beta_1": self.beta_1, "beta_2": self.beta_2, "epsilon": self.epsilon, "amsgrad": False
        }  # fmt: skip


class AdamW(Adam):
    """Adam with a decoupled weight decay of 0.004; arguments as of :class:`Adam`."""

    def __init__(self, learning_rate: Any = 0.001, weight_decay: float = 0.004, **kwargs: Any) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, **kwargs)


_CLASSES: tuple[type[Optimizer], ...] = (SGD, RMSprop, Adam, AdamW)
_BY_NAME = {c.__name__.lower(): c for c in _CLASSES}


def get(identifier: Any) -> Optimizer:
    """An optimizer from its name, its class, its configuration in a file, or itself."""
    if isinstance(identifier, Optimizer):
        return identifier
    if isinstance(identifier, type) and issubclass(identifier, Optimizer):
        return identifier()
    if isinstance(identifier, dict):
        return type(get(identifier["class_name"]))(**identifier.get("config", {}))
    if isinstance(identifier, str) and identifier.lower() in _BY_NAME:
        return _BY_NAME[identifier.lower()]()
    raise ValueError(f"optimizer must be one of {', '.join(_BY_NAME)} or an Optimizer, received {identifier!r}")
