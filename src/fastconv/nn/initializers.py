"""How weights begin: Keras' initialisers with their names and defaults."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np

from .graph import Array, snake_case
from .random import generator

__all__ = [
    "Constant",
    "GlorotNormal",
    "GlorotUniform",
    "HeNormal",
    "HeUniform",
    "Initializer",
    "LecunNormal",
    "LecunUniform",
    "Ones",
    "RandomNormal",
    "RandomUniform",
    "TruncatedNormal",
    "VarianceScaling",
    "Zeros",
    "get",
]


class Initializer:
    """Base class: called with a shape and a dtype, gives the first values of a weight."""

    def __init__(self, seed: int | None = None) -> None:
        self.seed = seed

    def __call__(self, shape: tuple[int, ...], dtype: Any = np.float32) -> Array:
        rng = generator() if self.seed is None else np.random.default_rng(self.seed)
        return np.asarray(self.draw(tuple(shape), rng), dtype)

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        """The values; subclasses say how."""
        raise TypeError(f"{type(self).__name__} does not define draw(shape, rng)")

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return dict(vars(self))


class Zeros(Initializer):
    """All zero."""

    def __init__(self) -> None:
        pass

    def __call__(self, shape: tuple[int, ...], dtype: Any = np.float32) -> Array:
        return np.zeros(shape, dtype)


class Ones(Zeros):
    """All one."""

    def __call__(self, shape: tuple[int, ...], dtype: Any = np.float32) -> Array:
        return np.ones(shape, dtype)


class Constant(Initializer):
    """All of one value."""

    def __init__(self, value: float = 0.0) -> None:
        self.value = value

    def __call__(self, shape: tuple[int, ...], dtype: Any = np.float32) -> Array:
        return np.full(shape, self.value, dtype)


class RandomNormal(Initializer):
    """Normal distribution."""

    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: int | None = None) -> None:
        self.mean, self.stddev, self.seed = mean, stddev, seed

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        """Normal numbers."""
        return rng.normal(self.mean, self.stddev, shape)


class TruncatedNormal(RandomNormal):
    """Normal distribution without what lies more than two standard deviations off."""

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        """Normal numbers, drawn again where they fall outside."""
        return self.mean + self.stddev * _truncated(shape, rng)


class RandomUniform(Initializer):
    """Uniform distribution."""

    def __init__(self, minval: float = -0.05, maxval: float = 0.05, seed: int | None = None) -> None:
        self.minval, self.maxval, self.seed = minval, maxval, seed

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        """Uniform numbers."""
        return rng.uniform(self.minval, self.maxval, shape)


class VarianceScaling(Initializer):
    """A variance of ``scale / fan``, the fan being the inputs, the outputs, or their mean."""

    def __init__(
        self, scale: float = 1.0, mode: str = "fan_in", distribution: str = "truncated_normal", seed: int | None = None
    ) -> None:
        self.scale, self.mode, self.distribution, self.seed = scale, mode, distribution, seed

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
        """Numbers of the wanted variance."""
        fan_in, fan_out = _fans(shape)
        fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[self.mode]
        variance = self.scale / max(1.0, fan)
        if self.distribution == "uniform":
            limit = math.sqrt(3 * variance)
            return rng.uniform(-limit, limit, shape)
        if self.distribution == "untruncated_normal":
            return rng.normal(0, math.sqrt(variance), shape)
        return _truncated(shape, rng) * (math.sqrt(variance) / 0.87962566103423978)  # what truncation leaves of it


class _Scaled(VarianceScaling):
    rule: ClassVar[tuple[float, str, str]]

    def __init__(self, seed: int | None = None) -> None:
        super().__init__(*self.rule, seed)

    def get_config(self) -> dict[str, Any]:
        return {"seed": self.seed}


class GlorotUniform(_Scaled):
    """Glorot and Bengio 2010, uniform: Keras' default for kernels."""

    rule = (1.0, "fan_avg", "uniform")


class GlorotNormal(_Scaled):
    """Glorot and Bengio 2010, normal."""

    rule = (1.0, "fan_avg", "truncated_normal")


class HeUniform(_Scaled):
    """He et al. 2015, uniform: for layers followed by ReLU."""

    rule = (2.0, "fan_in", "uniform")


class HeNormal(_Scaled):
    """He et al. 2015, normal: for layers followed by ReLU."""

    rule = (2.0, "fan_in", "truncated_normal")


class LecunUniform(_Scaled):
    """LeCun et al. 1998, uniform."""

    rule = (1.0, "fan_in", "uniform")


class LecunNormal(_Scaled):
    """LeCun et al. 1998, normal."""

    rule = (1.0, "fan_in", "truncated_normal")


def _truncated(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    values = rng.standard_normal(shape)
    while (outside := np.abs(values) > 2).any():
        values[outside] = rng.standard_normal(int(outside.sum()))
    return values


def _fans(shape: tuple[int, ...]) -> tuple[float, float]:
    """Inputs and outputs of one unit; a kernel is ``(*window, in, out)``."""
    if len(shape) < 2:
        size = float(shape[0]) if shape else 1.0
        return size, size
    window = math.prod(shape[:-2])
    return float(window * shape[-2]), float(window * shape[-1])


_CLASSES: tuple[type[Initializer], ...] = (
    Zeros, Ones, Constant, RandomNormal, RandomUniform, TruncatedNormal, VarianceScaling, GlorotUniform, GlorotNormal,
    HeUniform, HeNormal, LecunUniform, LecunNormal,
)  # fmt: skip
_BY_NAME = {name: c for c in _CLASSES for name in (c.__name__, snake_case(c.__name__))}


def get(identifier: Any) -> Initializer:
    """An initialiser from its name, its class, its configuration in a file, or itself."""
    if isinstance(identifier, dict):
        known = get(identifier["class_name"])
        return type(known)(**{k: v for k, v in identifier.get("config", {}).items() if k in known.get_config()})
    if isinstance(identifier, type) and issubclass(identifier, Initializer):
        return identifier()
    if isinstance(identifier, str) and identifier in _BY_NAME:
        return _BY_NAME[identifier]()
    if callable(identifier):
        return identifier  # type: ignore[no-any-return]
    names = ", ".join(snake_case(c.__name__) for c in _CLASSES)
    raise ValueError(f"initializer must be one of {names}, received {identifier!r}")
