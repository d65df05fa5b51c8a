"""What a model is trained for: the losses and metrics of its outputs, and their values over the batches seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from . import losses, metrics
from .data import ArrayData, Batch
from .errors import DataError
from .graph import Array, Tensor

if TYPE_CHECKING:
    from .program import Program

__all__ = ["Objective"]


class Objective:
    """Losses and metrics as ``compile`` was given them, settled once the outputs are known.

    Parameters
    ----------
    loss, metrics, loss_weights, weighted_metrics
        As ``Trainer.compile`` takes them.
    """

    def __init__(self, loss: Any, metrics: Any, loss_weights: Any, weighted_metrics: Any) -> None:
        self.loss, self.loss_weights = loss, loss_weights
        self.metrics: Any = metrics if isinstance(metrics, dict) else [*_listed(metrics), *_listed(weighted_metrics)]
        for one in loss.values() if isinstance(loss, dict) else _listed(loss):
            if one is not None:
                losses.get(one)
        self.outputs: list[Tensor] = []
        self._metrics: list[list[metrics.Metric]] | None = None

    @property
    def names(self) -> list[str]:
        """Names of the outputs."""
        return [t.name for t in self.outputs]

    def settle(self, outputs: Sequence[Tensor]) -> Objective:
        """Assign losses to outputs, once."""
        if self.outputs:
            return self
        names = [t.name for t in outputs]
        if isinstance(self.loss, dict):
            if unknown := sorted(set(self.loss) - set(names)):
                raise ValueError(f"loss names {', '.join(unknown)}, but the outputs are {', '.join(names)}")
            chosen = [self.loss.get(n) for n in names]
        else:
            chosen = list(self.loss) if isinstance(self.loss, (list, tuple)) else [self.loss] * len(names)
        if len(chosen) != len(names):
            raise ValueError(f"the model has {len(names)} outputs, but {len(chosen)} losses were given")
        if all(one is None for one in chosen):
            raise ValueError("compile was given no loss: training and evaluation need one")
        weights = self.loss_weights
        if isinstance(weights, dict):
            weights = [weights.get(n, 1.0) for n in names]
        self.shares = [1.0] * len(names) if weights is None else [float(w) for w in weights]
        self.losses = [None if one is None else losses.get(one) for one in chosen]
        self.outputs = list(outputs)
        self.reset()
        return self

    def _settle_metrics(self, targets: Sequence[Any]) -> list[list[metrics.Metric]]:
        """Assign metrics, which depend on the targets' shapes too."""
        if self._metrics is None:
            names, given = self.names, self.metrics
            if isinstance(given, dict):
                lists = [_listed(given.get(n)) for n in names]
            elif len(names) > 1 and any(isinstance(m, (list, tuple)) for m in given):
                lists = [_listed(m) for m in given]
            else:
                lists = [list(given) for _ in names]
            self._metrics = [
                [metrics.get(m, np.shape(y), t.shape) for m in chosen]
                for chosen, y, t in zip(lists, targets, self.outputs, strict=True)
            ]
        return self._metrics

    def check(self, given: ArrayData) -> None:
        """Look through all labels before the first step, not in the middle of training."""
        if given.y is None:
            raise DataError("there are no targets: give y, or batches (x, y)")
        for i, (loss, y, t) in enumerate(zip(self.losses, given.y, self.outputs, strict=True)):
            sizes = [n for n in t.shape[1:] if n is not None]
            if loss is not None and len(sizes) == len(t.shape) - 1:
                loss.targets(y, (given.count, *sizes), t.node.layer.dtype, self._where(i))

    def _where(self, output: int) -> str:
        return "y" if len(self.outputs) == 1 else f"y of output {self.names[output]!r}"

    def loss_and_gradients(
        self, batch: Batch, predictions: Sequence[Array], program: Program
    ) -> tuple[float, dict[int, Array]]:
        """The loss of a batch, and its gradients by the place in the program that they go to.

        The gradient of a loss of probabilities goes to the input of the softmax or sigmoid that made them, where it
        is their difference to the labels.
        """
        assert batch.y is not None
        total = 0.0
        seeds: dict[int, Array] = {}
        for i, (loss, p, each) in enumerate(zip(self.losses, predictions, self._settle_metrics(batch.y), strict=True)):
            weight = None if batch.weight is None else batch.weight[i if len(batch.weight) > 1 else 0]
            if loss is not None:
                y = loss.targets(batch.y[i], p.shape, p.dtype, self._where(i))
                slot = None if loss.from_logits else program.logits(i, loss.behind)
                logits = None if slot is None else program.values[slot]
                value, gradient = loss.value_and_gradient(y, p, weight, logits)
                if self.shares[i] != 1:
                    gradient *= self.shares[i]
                total += self.shares[i] * value
                self.sums[i] += value * batch.size
                slot = program.outputs[i] if slot is None else slot
                seeds[slot] = seeds[slot] + gradient if slot in seeds else gradient
            for metric in each:
                metric.update_state(batch.y[i], p, weight)
        return total, seeds

    def reset(self) -> None:
        """Forget the batches seen."""
        self.sums = [0.0] * len(self.outputs)
        for metric in (m for each in self._metrics or [] for m in each):
            metric.reset_state()

    def logs(self, loss: float, seen: int) -> dict[str, float]:
        """Loss and metrics by name, over the batches seen."""
        several = len(self.outputs) > 1
        logs = {"loss": loss}
        if several:
            logs |= {f"{n}_loss": s / seen for n, s, c in zip(self.names, self.sums, self.losses, strict=True) if c}
        for name, each in zip(self.names, self._metrics or [], strict=False):
            logs |= {f"{name}_{m.name}" if several else m.name: m.result() for m in each}
        return logs


def _listed(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]
