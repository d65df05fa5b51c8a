"""Learning rates that change with the number of steps taken."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

__all__ = [
    "CosineDecay", "ExponentialDecay", "InverseTimeDecay", "LearningRateSchedule", "PiecewiseConstantDecay",
    "PolynomialDecay",
]  # fmt: skip


class LearningRateSchedule:
    """Base class: called with the number of steps taken, gives the learning rate of the next."""

    def __call__(self, step: int) -> float:
        raise TypeError(f"{type(self).__name__} does not define __call__(step)")

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return dict(vars(self))


class ExponentialDecay(LearningRateSchedule):
    """``initial * rate ** (step / decay_steps)``, in whole powers if ``staircase``."""

    def __init__(
        self, initial_learning_rate: float, decay_steps: float, decay_rate: float, staircase: bool = False
    ) -> None:
        self.initial_learning_rate, self.decay_steps = initial_learning_rate, decay_steps
        self.decay_rate, self.staircase = decay_rate, staircase

    def __call__(self, step: int) -> float:
        power = step / self.decay_steps
        return float(self.initial_learning_rate * self.decay_rate ** (math.floor(power) if self.staircase else power))


class InverseTimeDecay(ExponentialDecay):
    """``initial / (1 + rate * step / decay_steps)``, in whole steps if ``staircase``."""

    def __call__(self, step: int) -> float:
        power = step / self.decay_steps
        return self.initial_learning_rate / (1 + self.decay_rate * (math.floor(power) if self.staircase else power))


class PiecewiseConstantDecay(LearningRateSchedule):
    """``values[i]`` up to and with step ``boundaries[i]``; one value more than boundaries."""

    def __init__(self, boundaries: Sequence[float], values: Sequence[float]) -> None:
        if len(values) != len(boundaries) + 1:
            raise ValueError(
                f"PiecewiseConstantDecay: values must be one more than boundaries, received {len(values)} and "
                f"{len(boundaries)}"
            )
        self.boundaries, self.values = list(boundaries), list(values)

    def __call__(self, step: int) -> float:
        return self.values[sum(step > b for b in self.boundaries)]


class PolynomialDecay(LearningRateSchedule):
    """From the first rate to ``end_learning_rate`` in ``decay_steps``, as ``(1 - step / decay_steps) ** power``."""

    def __init__(
        self, initial_learning_rate: float, decay_steps: float, end_learning_rate: float = 1e-4, power: float = 1.0,
        cycle: bool = False,
    ) -> None:  # fmt: skip
        self.initial_learning_rate, self.decay_steps = initial_learning_rate, decay_steps
        self.end_learning_rate, self.power, self.cycle = end_learning_rate, power, cycle

    def __call__(self, step: int) -> float:
        steps = self.decay_steps * max(1, math.ceil(step / self.decay_steps)) if self.cycle else self.decay_steps
        left = 1 - min(step, steps) / steps
        return float((self.initial_learning_rate - self.end_learning_rate) * left**self.power + self.end_learning_rate)


class CosineDecay(LearningRateSchedule):
    """Half a cosine from the first rate to ``alpha`` of it, after a straight rise to ``warmup_target`` if given."""

    def __init__(
        self, initial_learning_rate: float, decay_steps: float, alpha: float = 0.0,
        warmup_target: float | None = None, warmup_steps: int = 0,
    ) -> None:  # fmt: skip
        self.initial_learning_rate, self.decay_steps, self.alpha = initial_learning_rate, decay_steps, alpha
        self.warmup_target, self.warmup_steps = warmup_target, warmup_steps

    def __call__(self, step: int) -> float:
        top = self.initial_learning_rate
        if self.warmup_target is not None:
            if step < self.warmup_steps:
                return top + (self.warmup_target - top) * step / self.warmup_steps
            top, step = self.warmup_target, step - self.warmup_steps
        done = min(step / self.decay_steps, 1.0)
        return top * ((1 - self.alpha) * 0.5 * (1 + math.cos(math.pi * done)) + self.alpha)


_CLASSES: tuple[type[LearningRateSchedule], ...] = (
    ExponentialDecay, InverseTimeDecay, PiecewiseConstantDecay, PolynomialDecay, CosineDecay,
)  # fmt: skip


def from_file(description: dict[str, Any]) -> LearningRateSchedule:
    """The schedule that a file describes by class name and configuration."""
    for known in _CLASSES:
        if known.__name__ == description.get("class_name"):
            return known(**{k: v for k, v in description.get("config", {}).items() if k != "name"})
    raise ValueError(f"learning-rate schedule {description.get('class_name')!r} is not known")
