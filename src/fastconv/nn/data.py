"""What ``fit``, ``evaluate`` and ``predict`` are given, as batches for a model: arrays checked, iterables tried."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from .errors import DataError
from .graph import Array, Shape

__all__ = ["ArrayData", "Batch", "IterableData", "as_inputs", "is_arrays", "split"]


class Batch(NamedTuple):
    """One batch: lists with an array for each input and output; targets and weights may be missing."""

    x: list[Array]
    y: list[Any] | None
    weight: list[Array | None] | None
    size: int


def as_list(value: Any, names: Sequence[str], what: str) -> list[Any]:
    """A value, list or dict by name as one entry for each name."""
    if isinstance(value, dict):
        missing = [n for n in names if n not in value]
        if missing:
            raise DataError(f"{what} has no entry for {', '.join(missing)}; it has {', '.join(map(str, value))}")
        return [value[n] for n in names]
    if isinstance(value, (list, tuple)) and len(names) > 1:
        if len(value) != len(names):
            raise DataError(f"{what} must have {len(names)} entries ({', '.join(names)}), received {len(value)}")
        return list(value)
    return [value]


def real(value: Any, what: str) -> Array:
    """An array of real numbers."""
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise DataError(f"{what} must be an array of real numbers, received dtype {array.dtype}")
    return array


def as_inputs(x: Any, names: Sequence[str], shapes: Sequence[Shape]) -> list[Array]:
    """The arrays of all inputs, their shapes checked against the model's."""
    arrays = []
    for value, name, shape in zip(as_list(x, names, "x"), names, shapes, strict=True):
        array = real(value, f"x of input {name!r}")
        fits = array.ndim == len(shape) and all(
            w is None or n == w for n, w in zip(array.shape[1:], shape[1:], strict=True)
        )
        if not fits:
            raise DataError(f"input {name!r} wants data of shape {shape}, received {array.shape}")
        arrays.append(array)
    lengths = {len(a) for a in arrays}
    if len(lengths) > 1:
        raise DataError(f"inputs must have one number of examples, received {[len(a) for a in arrays]}")
    return arrays


def is_arrays(x: Any, y: Any) -> bool:
    """Whether x and y are arrays, not an iterable of batches."""
    return y is not None or isinstance(x, (np.ndarray, dict)) or hasattr(x, "__array__")


class ArrayData:
    """Arrays, cut into batches; shuffled anew each epoch if a source of chance is given."""

    def __init__(
        self, x: list[Array], y: list[Any] | None, weight: list[Array | None] | None, batch_size: int,
        rng: np.random.Generator | None = None,
    ) -> None:  # fmt: skip
        self.x, self.y, self.weight, self.rng = x, y, weight, rng
        self.count = len(x[0])
        if self.count == 0:
            raise DataError("there are no examples: the data is empty")
        if not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
            raise ValueError(f"batch_size must be a positive integer, received {batch_size!r}")
        for what, arrays in (("y", y), ("sample_weight", weight)):
            for a in arrays or []:
                if a is not None and len(a) != self.count:
                    raise DataError(f"x has {self.count} examples, but {what} has {len(a)}")
        self.batch_size = int(batch_size)
        self.steps: int | None = -(-self.count // self.batch_size)
        self._gathered: dict[int, Array] = {}

    def __iter__(self) -> Iterator[Batch]:
        order = None if self.rng is None else self.rng.permutation(self.count)
        for start in range(0, self.count, self.batch_size):
            stop = min(start + self.batch_size, self.count)
            part: Any = slice(start, stop) if order is None else order[start:stop]
            yield Batch(
                [a[part] for a in self.x] if order is None else [self._gather(i, part) for i in range(len(self.x))],
                None if self.y is None else [a[part] for a in self.y],
                None if self.weight is None else [None if a is None else a[part] for a in self.weight],
                stop - start,
            )

    def _gather(self, i: int, part: Array) -> Array:
        """Examples of an input, in an array that the next batch overwrites."""
        x = self.x[i]
        if not x.flags.c_contiguous:  # take would copy all of it
            gathered: Array = x[part]
            return gathered
        if i not in self._gathered:
            self._gathered[i] = np.empty((min(self.batch_size, self.count), *x.shape[1:]), x.dtype)
        return np.take(x, part, axis=0, out=self._gathered[i][: len(part)], mode="clip")


class IterableData:
    """Any iterable of batches ``x``, ``(x, y)`` or ``(x, y, sample_weight)``."""

    def __init__(
        self, source: Iterable[Any], input_names: Sequence[str], input_shapes: Sequence[Shape],
        output_names: Sequence[str], steps: int | None = None,
    ) -> None:  # fmt: skip
        if not hasattr(source, "__iter__") and not hasattr(source, "__getitem__"):
            raise DataError(f"data must be arrays or an iterable of batches, received {type(source).__name__}")
        self.source, self.names, self.shapes, self.outputs = source, input_names, input_shapes, output_names
        self.one_shot = iter(source) if hasattr(source, "__next__") else None
        length = len(source) if hasattr(source, "__len__") else None  # type: ignore[arg-type]
        self.steps = steps if steps is not None else length

    def __iter__(self) -> Iterator[Batch]:
        count = 0
        for item in iter(self.source) if self.one_shot is None else self.one_shot:
            yield self._batch(item)
            count += 1
            if count == self.steps:
                return
        if not count:
            raise DataError(
                "the iterable gave no batches; an iterator runs out after one epoch: give a list, or an object that "
                "starts anew with every iter()"
            )

    def _batch(self, item: Any) -> Batch:
        parts = item if isinstance(item, (tuple, list)) and not isinstance(item[0], (int, float)) else (item,)
        x = as_inputs(parts[0], self.names, self.shapes)
        y = None if len(parts) < 2 else [np.asarray(a) for a in as_list(parts[1], self.outputs, "y")]
        weight = None if len(parts) < 3 else [np.asarray(a) for a in as_list(parts[2], self.outputs, "sample_weight")]
        if y is not None and any(len(a) != len(x[0]) for a in y):
            raise DataError(f"a batch has {len(x[0])} examples in x, but {[len(a) for a in y]} in y")
        return Batch(x, y, weight, len(x[0]))  # type: ignore[arg-type]


def split(arrays: Sequence[Array | None], share: float) -> tuple[list[Array | None], list[Array | None]]:
    """The first part of each array, and its last ``share``."""
    count = max((len(a) for a in arrays if a is not None), default=0)
    at = int(count * (1 - share))
    if not 0 < share < 1 or at in (0, count):
        raise DataError(f"validation_split={share!r} of {count} examples leaves none to train on or none to hold out")
    return [None if a is None else a[:at] for a in arrays], [None if a is None else a[at:] for a in arrays]
