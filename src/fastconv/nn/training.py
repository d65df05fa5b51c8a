"""Compile, fit, evaluate and predict: the loop around a program's forward and backward."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from . import data, optimizers, progress, random
from .callbacks import Callback, CallbackList, History
from .errors import DataError, NonFiniteLossError
from .graph import Array, Tensor
from .interrupts import Interrupts
from .objective import Objective

if TYPE_CHECKING:
    from .layers.core import Weight
    from .program import Program

__all__ = ["Trainer"]


class Trainer:
    """Training and use of a model; what it is made of stands in ``Model``."""

    if TYPE_CHECKING:
        name: str

        @property
        def inputs(self) -> list[Tensor]: ...
        @property
        def outputs(self) -> list[Tensor]: ...
        @property
        def input_names(self) -> list[str]: ...
        @property
        def output_names(self) -> list[str]: ...
        @property
        def weights(self) -> list[Weight]: ...
        @property
        def trainable_weights(self) -> list[Weight]: ...
        def program(self) -> Program: ...
        def get_weights(self) -> list[Array]: ...
        def set_weights(self, weights: Sequence[Any]) -> None: ...
        def save(self, filepath: Any, overwrite: bool = True) -> None: ...
        def save_weights(self, filepath: Any, overwrite: bool = True) -> None: ...

    def __init__(self) -> None:
        self.stop_training = False
        self.compiled = False
        self.history: History | None = None
        self._flat: optimizers.FlatWeights | None = None

    # ---------------------------------------------------------------------------------------------------- compile

    def compile(
        self, optimizer: Any = "rmsprop", loss: Any = None, metrics: Any = None, loss_weights: Any = None,
        weighted_metrics: Any = None, **other: Any,
    ) -> None:  # fmt: skip
        """Say how to train.

        Parameters
        ----------
        optimizer : str or Optimizer, default "rmsprop"
        loss : str, Loss, or list or dict of them by output
            ``mse``, ``mae``, ``binary_crossentropy``, ``categorical_crossentropy``,
            ``sparse_categorical_crossentropy``, or of ``nn.losses``.
        metrics : list, or list or dict of lists by output
            ``"accuracy"``, names and objects of ``nn.metrics``.
        loss_weights : list or dict of float, optional
            Weights of the outputs' losses in their sum.
        weighted_metrics
            As ``metrics``; sample weights count in both.
        """
        for key in other:
            if key not in ("run_eagerly", "jit_compile", "steps_per_execution", "auto_scale_loss"):
                raise TypeError(f"compile got an unexpected argument {key!r}")
        self.optimizer = optimizers.get(optimizer)
        self.objective = Objective(loss, metrics, loss_weights, weighted_metrics)
        self.compiled, self._flat = True, None

    def _settled(self, what: str) -> Objective:
        """What the model is trained for, which must have been said."""
        if not self.compiled:
            raise RuntimeError(f"{what}: call compile(optimizer, loss) on model {self.name!r} first")
        return self.objective.settle(self.outputs)

    # ----------------------------------------------------------------------------------------------------- one batch

    def cast(self, arrays: Sequence[Array]) -> list[Array]:
        """Arrays in the inputs' dtypes, contiguous."""
        return [np.ascontiguousarray(a, t.node.layer.dtype) for a, t in zip(arrays, self.inputs, strict=True)]

    def _ready_to_train(self) -> Program:
        program, weights = self.program(), self.trainable_weights
        if self._flat is None or not self._flat.holds(weights):
            for w in self.weights:
                w.grad = None
            self._flat = optimizers.FlatWeights(weights)
            program.prepare()
        return program

    def optimizer_arrays(self) -> dict[str, Array]:
        """The optimizer's states as views, one for each trained weight and state, by weight and state."""
        self._ready_to_train()
        flat, optimizer = self._flat, self.optimizer
        assert flat is not None
        optimizer.bind(flat)
        return {
            f"{i}/{name}": state[part].reshape(weight.shape)
            for i, (weight, part) in enumerate(zip(flat.weights, flat.slices, strict=True))
            for name, state in optimizer.state.items()
        }

    def _run(self, batch: data.Batch, training: bool) -> float:
        """Forward, loss and, in training, backward and update; the loss."""
        if batch.y is None:
            raise DataError("there are no targets: give y, or batches (x, y)")
        program = self._ready_to_train() if training else self.program()
        try:
            outputs = program.forward(self.cast(batch.x), training)
            loss, seeds = self.objective.loss_and_gradients(batch, outputs, program)
            for w in self.trainable_weights:
                if w.regularizer is not None:
                    loss += w.regularizer(w.value)
            if training:
                if not math.isfinite(loss):
                    raise NonFiniteLossError(f"the loss became {loss}: {program.first_non_finite()}")
                program.backward(seeds)
                assert self._flat is not None
                self.optimizer.apply(self._flat)
                program.commit()
        finally:
            program.finish()
        return loss

    def train_on_batch(
        self, x: Any, y: Any = None, sample_weight: Any = None, class_weight: Any = None, return_dict: bool = False
    ) -> Any:
        """One step of training on one batch; gives the loss, or a list of it and the metrics.

        Parameters
        ----------
        x, y, sample_weight, class_weight
            As in :meth:`fit`.
        return_dict : bool, default False
            Give a dict by name instead.
        """
        return self._on_batch(x, y, sample_weight, class_weight, return_dict, training=True)

    def test_on_batch(self, x: Any, y: Any = None, sample_weight: Any = None, return_dict: bool = False) -> Any:
        """Loss and metrics of one batch, without training."""
        return self._on_batch(x, y, sample_weight, None, return_dict, training=False)

    def _on_batch(
        self, x: Any, y: Any, sample_weight: Any, class_weight: Any, return_dict: bool, training: bool
    ) -> Any:
        given = self._array_data(x, y, sample_weight, class_weight, None)
        objective = self._settled("train_on_batch" if training else "test_on_batch")
        objective.reset()
        batch = next(iter(given))
        logs = objective.logs(self._run(batch, training), batch.size)
        return logs if return_dict else _as_result(logs)

    def predict_on_batch(self, x: Any) -> Any:
        """Outputs for one batch."""
        return self.predict(x, batch_size=max(1, len(data.as_list(x, self.input_names, "x")[0])), verbose=0)

    # ---------------------------------------------------------------------------------------------------------- data

    def build_for(self, x: Any) -> None:
        """Build by the shape of data; nothing to do where the graph is given."""

    def _array_data(
        self, x: Any, y: Any, sample_weight: Any, class_weight: Any, batch_size: int | None,
        rng: np.random.Generator | None = None,
    ) -> data.ArrayData:  # fmt: skip
        self.build_for(x)
        xs = data.as_inputs(x, self.input_names, [t.shape for t in self.inputs])
        ys = None if y is None else [np.asarray(a) for a in data.as_list(y, self.output_names, "y")]
        ws: list[Any] | None = None
        if sample_weight is not None:
            ws = [
                None if a is None else np.asarray(a)
                for a in data.as_list(sample_weight, self.output_names, "sample_weight")
            ]
        if class_weight is not None:
            if ys is None or len(ys) != 1 or ws is not None:
                raise DataError("class_weight needs one output, targets, and no sample_weight")
            ws = [_class_weights(ys[0], class_weight)]
        return data.ArrayData(xs, ys, ws, len(xs[0]) or 1 if batch_size is None else batch_size, rng)

    def _data(
        self, x: Any, y: Any, sample_weight: Any, class_weight: Any, batch_size: int | None, steps: int | None,
        rng: np.random.Generator | None = None,
    ) -> data.ArrayData | data.IterableData:  # fmt: skip
        if data.is_arrays(x, y):
            return self._array_data(x, y, sample_weight, class_weight, 32 if batch_size is None else batch_size, rng)
        if sample_weight is not None or class_weight is not None:
            raise DataError("with an iterable of batches, sample weights come as the third part of each batch")
        if isinstance(x, Sequence) and x:
            self.build_for(x[0][0] if isinstance(x[0], (tuple, list)) else x[0])
        return data.IterableData(x, self.input_names, [t.shape for t in self.inputs], self.output_names, steps)

    # ----------------------------------------------------------------------------------------------------------- fit

    def fit(
        self, x: Any = None, y: Any = None, batch_size: int | None = None, epochs: int = 1, verbose: Any = "auto",
        callbacks: Iterable[Callback] | None = None, validation_split: float = 0.0, validation_data: Any = None,
        shuffle: bool = True, class_weight: dict[int, float] | None = None, sample_weight: Any = None,
        initial_epoch: int = 0, steps_per_epoch: int | None = None, validation_steps: int | None = None,
        validation_batch_size: int | None = None, validation_freq: int = 1,
    ) -> History:  # fmt: skip
        """Train.

        Parameters
        ----------
        x, y : array_like, or lists or dicts of them by input and output
            Examples and their targets; or x alone, an iterable of batches ``(x, y)``.
        batch_size : int, default 32
        epochs : int, default 1
        verbose : {"auto", 0, 1, 2}
            Nothing, a progress bar, or a line for each epoch. Where output is no terminal, a bar becomes lines.
        callbacks : list of Callback, optional
        validation_split : float, default 0
            Share of the examples, the last ones, held out and evaluated after each epoch.
        validation_data : tuple ``(x, y)`` or ``(x, y, sample_weight)``, or an iterable of batches
        shuffle : bool, default True
            Whether the order of examples is drawn anew for each epoch.
        class_weight : dict, optional
            Weight of the examples of each class.
        sample_weight : array_like, optional
            Weight of each example.
        initial_epoch, steps_per_epoch, validation_steps, validation_batch_size, validation_freq
            As in Keras.

        Returns
        -------
        History
            ``.history["loss"]`` and so on, a number for each epoch; also kept as ``model.history``.

        Raises
        ------
        DataError
            Shapes, lengths or labels that do not fit, before any training.
        NonFiniteLossError
            The loss became NaN or infinite; the weights are those before that step.
        KeyboardInterrupt
            Ctrl-C, after the running step; weights and ``model.history`` are sound.
        """
        if not self.compiled:
            self._settled("fit")
        rng = random.generator() if shuffle else None
        if validation_split:
            x, y, sample_weight, validation_data = self._hold_out(x, y, sample_weight, validation_split)
        train = self._data(x, y, sample_weight, class_weight, batch_size, steps_per_epoch, rng)
        held: data.ArrayData | data.IterableData | None = None
        if validation_data is not None:
            held = self._validation(validation_data, validation_batch_size or batch_size, validation_steps)
        objective = self._settled("fit")
        for given in (train, held):
            if isinstance(given, data.ArrayData):
                objective.check(given)

        history = self.history = History()
        history.params = {"epochs": epochs, "steps": train.steps, "verbose": verbose}
        every = CallbackList([*(callbacks or ()), history], self)
        report = progress.make(verbose, epochs, train.steps, _unit(self.inputs))
        self.stop_training = False
        every.call("on_train_begin", {})
        logs: dict[str, float] = {}
        try:
            with Interrupts() as interrupts, report:
                for epoch in range(initial_epoch, epochs):
                    every.call("on_epoch_begin", epoch, {})
                    logs = self._epoch(epoch, train, every, report, interrupts, steps_per_epoch)
                    if held is not None and (epoch + 1) % validation_freq == 0:
                        logs |= {f"val_{n}": v for n, v in self._evaluate(held, interrupts).items()}
                    every.call("on_epoch_end", epoch, logs)
                    report.end_epoch(logs)
                    if self.stop_training:
                        break
        finally:
            every.call("on_train_end", logs)
        return history

    def _epoch(
        self, epoch: int, train: data.ArrayData | data.IterableData, every: CallbackList, report: progress.Report,
        interrupts: Interrupts, steps: int | None,
    ) -> dict[str, float]:  # fmt: skip
        self.objective.reset()
        report.start_epoch(epoch)
        total, seen, start = 0.0, 0, time.perf_counter()
        for step, batch in enumerate(train):
            every.call("on_train_batch_begin", step, {})
            try:
                loss = self._run(batch, training=True)
            except NonFiniteLossError as error:
                raise NonFiniteLossError(f"epoch {epoch + 1}, step {step + 1}: {error}") from None
            total, seen = total + loss * batch.size, seen + batch.size
            rate = seen / max(time.perf_counter() - start, 1e-9)
            if report.live or every.each_batch:
                logs = self.objective.logs(total / seen, seen)
                report.step(step + 1, rate, logs)
                every.call("on_train_batch_end", step, logs)
            interrupts.check()
            if steps is not None and step + 1 >= steps:
                break
        report.rate = rate
        return self.objective.logs(total / seen, seen)

    def _hold_out(self, x: Any, y: Any, sample_weight: Any, share: float) -> tuple[Any, Any, Any, Any]:
        if not data.is_arrays(x, y) or y is None:
            raise DataError("validation_split needs arrays x and y; give validation_data with an iterable of batches")
        self.build_for(x)
        arrays = self._array_data(x, y, sample_weight, None, None)
        n = len(arrays.x)
        assert arrays.y is not None
        kept, held = data.split([*arrays.x, *arrays.y, *(arrays.weight or [])], share)
        parts = [(p[:n], p[n : n + len(arrays.y)], p[n + len(arrays.y) :] or None) for p in (kept, held)]
        one = [tuple(v[0] if v is not None and len(v) == 1 else v for v in part) for part in parts]
        weight = one[0][2] if len(one[0]) > 2 else None
        return one[0][0], one[0][1], weight, one[1]

    def _validation(self, given: Any, batch_size: int | None, steps: int | None) -> data.ArrayData | data.IterableData:
        if isinstance(given, tuple) and len(given) in (2, 3) and data.is_arrays(given[0], given[1]):
            return self._array_data(given[0], given[1], given[2] if len(given) == 3 else None, None, batch_size or 32)
        return self._data(given, None, None, None, None, steps)

    # -------------------------------------------------------------------------------------------- evaluate, predict

    def evaluate(
        self, x: Any = None, y: Any = None, batch_size: int | None = None, verbose: Any = "auto",
        sample_weight: Any = None, steps: int | None = None, callbacks: Any = None, return_dict: bool = False,
    ) -> Any:  # fmt: skip
        """Loss and metrics on data, as :meth:`fit` takes it; the loss alone, a list, or a dict by name."""
        given = self._data(x, y, sample_weight, None, batch_size, steps)
        objective = self._settled("evaluate")
        if isinstance(given, data.ArrayData):
            objective.check(given)
        with Interrupts() as interrupts:
            logs = self._evaluate(given, interrupts)
        if verbose not in (0, False):
            print(" - ".join(f"{n}: {v:.4f}" for n, v in logs.items()))
        return logs if return_dict else _as_result(logs)

    def _evaluate(self, given: data.ArrayData | data.IterableData, interrupts: Interrupts) -> dict[str, float]:
        self.objective.reset()
        total, seen = 0.0, 0
        for batch in given:
            total, seen = total + self._run(batch, training=False) * batch.size, seen + batch.size
            interrupts.check()
        return self.objective.logs(total / seen, seen)

    def predict(self, x: Any, batch_size: int | None = None, verbose: Any = "auto", steps: int | None = None) -> Any:
        """Outputs for arrays, or for an iterable of batches; an array, or a list of them."""
        if isinstance(x, (list, tuple)) or hasattr(x, "__array__"):
            self.build_for(x)
        if isinstance(x, (list, tuple)) and len(self.input_names) == 1:
            x = np.asarray(x)
        if isinstance(x, (list, tuple, dict)) or hasattr(x, "__array__"):
            given: data.ArrayData | data.IterableData = self._array_data(x, None, None, None, batch_size or 32)
        else:
            given = self._data(x, None, None, None, None, steps)
        program, parts = self.program(), []
        for batch in given:
            parts.append([y.copy() for y in program.forward(self.cast(batch.x), training=False)])
            program.finish()
        results = [np.concatenate(p) if len(p) > 1 else p[0] for p in zip(*parts, strict=True)]
        return results[0] if len(results) == 1 else results

    @property
    def metrics_names(self) -> list[str]:
        """What :meth:`evaluate` gives, in order; known after the first batch."""
        return list(self.objective.logs(0.0, 1))


def _as_result(logs: dict[str, float]) -> Any:
    values = list(logs.values())
    return values[0] if len(values) == 1 else values


def _unit(inputs: Sequence[Tensor]) -> str:
    return "images" if any(len(t.shape) == 4 for t in inputs) else "examples"


def _class_weights(y: Array, weights: dict[int, float]) -> Array:
    labels = y.argmax(axis=-1) if y.ndim > 1 and y.shape[-1] > 1 else y.reshape(-1)
    labels = labels.astype(np.int64)
    known = {int(k): float(v) for k, v in weights.items()}
    result = np.ones(len(labels), np.float32)
    for label, weight in known.items():
        result[labels == label] = weight
    return result
