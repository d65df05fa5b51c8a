"""A graph made ready to run: calls in order, neighbours fused, buffers reused from step to step.

Padding layers go into the convolution behind them, activations and sums of two into the layer before them where its
kernel applies them itself. In training every call keeps its output, which its gradient needs; in use, and for
gradients, arrays come from a pool and return to it as soon as their last reader has run, so that a steady state
allocates nothing.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from .. import activate
from .graph import Array, Node, Tensor, empty, static
from .layers.activation import Elementwise
from .layers.core import Layer, Weight

__all__ = ["Call", "Pool", "Program"]


class Pool:
    """Buffers that are lent and counted; a buffer too small is replaced by a larger one, never joined by it."""

    def __init__(self) -> None:
        self._free: list[Array] = []  # by size
        self._sizes: list[int] = []
        self._lent: dict[int, list[Any]] = {}

    def take(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """Lend an array; its contents are arbitrary."""
        dtype = np.dtype(dtype)
        size = prod(shape) * dtype.itemsize
        at = bisect_left(self._sizes, size + 64)
        if at < len(self._free):
            raw = self._free.pop(at)
            self._sizes.pop(at)
        else:
            if self._free:
                self._free.pop()
                self._sizes.pop()
            owner = empty(size, np.uint8).base
            assert owner is not None
            raw = owner
        start = -raw.ctypes.data % 64
        array: Array = raw[start : start + size].view(dtype).reshape(shape)
        self._lent[id(raw)] = [raw, 1]
        return array

    def count(self, array: Array) -> int:
        """References to the buffer an array lies in; zero for memory that is not the pool's."""
        lent = self._lent.get(id(array.base))
        return 0 if lent is None else int(lent[1])

    def retain(self, array: Array) -> None:
        """Count one more reference."""
        if (lent := self._lent.get(id(array.base))) is not None:
            lent[1] += 1

    def take_back(self) -> None:
        """Free every buffer that is lent."""
        for raw, _ in list(self._lent.values()):
            self._free_again(raw)

    def release(self, array: Array) -> None:
        """Count one reference less; at none the buffer is free again."""
        lent = self._lent.get(id(array.base))
        if lent is None:
            return
        lent[1] -= 1
        if not lent[1]:
            self._free_again(lent[0])

    def _free_again(self, raw: Array) -> None:
        del self._lent[id(raw)]
        at = bisect_left(self._sizes, raw.size)
        self._free.insert(at, raw)
        self._sizes.insert(at, raw.size)


class Call:
    """One layer's place in a program: what its ``forward`` and ``backward`` are given besides the arrays.

    Attributes
    ----------
    training : bool
        Whether this run trains.
    inputs : list of ndarray
        What ``forward`` was given; kept for ``backward``.
    y : ndarray
        What ``forward`` gave.
    needs_dx : list of bool
        Which inputs need a gradient.
    activation : str or None
        The activation that ``forward`` applies itself, only where the layer's ``fuses`` names it.
    graded : bool
        Whether the gradient that comes was taken through that activation already, by the pooling behind.
    pooled : str or None
        The activation before this pooling, which its ``backward`` takes the gradient through.
    padding : tuple or None
        Pairs that a padding layer before this one left to it, only where ``takes_padding``.
    saved : dict
        For whatever ``backward`` needs from ``forward``.
    """

    def __init__(self, program: Program, layer: Layer, sources: list[int], target: int, shape: tuple[Any, ...]) -> None:
        self.program, self.layer, self.sources, self.target, self.shape = program, layer, sources, target, shape
        self.training = False
        self.inputs: list[Array] = []
        self.y: Array | None = None
        self.needs_dx: list[bool] = []
        self.activation: str | None = None
        self.graded = False
        self.pooled: str | None = None
        self.padding: tuple[tuple[int, int], ...] | None = None
        self.saved: dict[str, Any] = {}
        self.last_reader_of: list[int] = []
        self.late: list[tuple[Weight, Array]] = []
        self._kept: dict[str, tuple[Array, dict[tuple[int, ...], Array]]] = {}

    @property
    def x(self) -> Array:
        """The first input."""
        return self.inputs[0]

    def out(self) -> Array | None:
        """Where to write the output; None (let the operation allocate) if its shape is not fixed by the graph."""
        if not static(self.shape[1:]):
            return None
        shape = (len(self.inputs[0]), *self.shape[1:])
        if self.training:
            return self.buffer("y", shape, self.layer.dtype)
        return self.program.pool.take(shape, self.layer.dtype)

    def buffer(self, name: str, shape: tuple[int, ...], dtype: Any) -> Array:
        """An array of this call's own that lives from step to step; smaller batches use its first part."""
        kept = self._kept.get(name)
        if kept is not None and (view := kept[1].get(shape)) is not None:
            return view
        size = prod(shape)
        if kept is None or kept[0].size < size or len(kept[1]) > 8:
            kept = self._kept[name] = (empty(size, dtype), {})
        view = kept[1][shape] = kept[0][:size].reshape(shape)
        return view

    def dx(self, i: int = 0) -> Array:
        """Where to write the gradient to input ``i``."""
        return self.program.lend(self.inputs[i].shape, self.inputs[i].dtype)

    def scratch(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """An array for the length of one ``backward``."""
        return self.program.lend(shape, dtype)

    def reuse(self, dy: Array) -> Array:
        """``dy`` itself if nobody else reads it any more, else an array of its shape to write to."""
        if self.program.pool.count(dy) == 1 and dy.flags.c_contiguous:
            return dy
        return self.program.lend(dy.shape, dy.dtype)

    def grad(self, weight: Weight) -> Array | None:
        """Where to write the gradient of a weight; None if it is not trained."""
        if weight.grad is None:
            return None
        if weight.round != self.program.round:
            weight.round = self.program.round
            return weight.grad
        extra = np.empty_like(weight.grad)  # a shared layer: added to what its other calls wrote
        self.late.append((weight, extra))
        return extra

    def add_gradient(self, weight: Weight, gradient: Any) -> None:
        """Hand over the gradient of a weight, where it could not be written in place."""
        if (into := self.grad(weight)) is not None:
            into[...] = gradient


class Program:
    """The calls between a model's inputs and outputs, in order."""

    def __init__(self, nodes: Sequence[Node], inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        self.pool = Pool()
        self.round = 0
        self.values: list[Array | None] = []
        self.calls: list[Call] = []
        self._fresh: dict[int, Array] = {}
        slots: dict[Tensor, int] = {}

        def slot(tensor: Tensor | None = None) -> int:
            self.values.append(None)
            if tensor is not None:
                slots[tensor] = len(self.values) - 1
            return len(self.values) - 1

        self.inputs = [slot(t) for t in inputs]
        for node in nodes:
            if node.output in slots:
                continue
            layer, sources = node.layer, [slots[t] for t in node.inputs]
            if layer.activation is None:
                self.calls.append(Call(self, layer, sources, slot(node.output), node.output.shape))
            else:
                between = slot()
                self.calls.append(Call(self, layer, sources, between, node.output.shape))
                self.calls.append(Call(self, layer.activation, [between], slot(node.output), node.output.shape))
        self.outputs = [slots[t] for t in outputs]
        self._fuse()
        self._find_last_readers()
        self.committing = [c for c in self.calls if type(c.layer).commit is not Layer.commit]
        self.prepare()

    # ------------------------------------------------------------------------------------------------ making ready

    def _fuse(self) -> None:
        readers: dict[int, list[Call]] = {}
        for call in self.calls:
            for source in call.sources:
                readers.setdefault(source, []).append(call)
        dropped = set()
        for call in self.calls:
            behind = readers.get(call.target, [])
            if call in dropped or len(behind) != 1 or call.target in self.outputs:
                continue
            follower = behind[0]
            if call.layer.pads is not None and follower.layer.takes_padding:
                follower.padding, follower.sources = call.layer.pads, call.sources
                readers[call.sources[0]] = [follower if c is call else c for c in readers[call.sources[0]]]
                dropped.add(call)
            elif follower.layer.elementwise is not None and follower.layer.elementwise in call.layer.fuses:
                call.activation, call.target = follower.layer.elementwise, follower.target
                dropped.add(follower)
        self.calls = [c for c in self.calls if c not in dropped]
        self._fuse_sums(readers)
        for call in self.calls:
            behind = readers.get(call.target, [])
            rising = call.activation in ("relu", "relu6", "leaky_relu") and call.target not in self.outputs
            if rising and len(behind) == 1 and behind[0].layer.takes_maxima:
                # max(f(x)) = f(max(x)): the gradient goes through f where it is small, behind the pooling
                behind[0].pooled, call.graded = call.activation, True

    def _fuse_sums(self, readers: dict[int, list[Call]]) -> None:
        """Leave the sum of two tensors to the layer that makes one of them, for this sum alone, if it takes it."""
        makers = {call.target: call for call in self.calls}
        for place, call in enumerate(self.calls):
            if not call.layer.sums or len(call.sources) != 2 or call.sources[0] == call.sources[1]:
                continue
            for source, other in (call.sources, call.sources[::-1]):
                maker = makers.get(source)
                if maker is None or not maker.layer.takes_sum or maker.activation or len(maker.sources) != 1:
                    continue
                if len(readers[source]) == 1 and source not in self.outputs:
                    maker.sources, maker.target = [maker.sources[0], other], call.target
                    maker.activation, self.calls[place] = call.activation, maker
                    break
        # the maker now stands where the sum stood, behind both of its inputs
        self.calls = [c for i, c in enumerate(self.calls) if c not in self.calls[i + 1 :]]

    def _find_last_readers(self) -> None:
        seen = set(self.outputs) | set(self.inputs)
        for call in self.calls:
            if call.target in self.outputs and _behind(call) is not None:
                seen.add(call.sources[0])  # a loss may want it
        for call in reversed(self.calls):
            for source in call.sources:
                if source not in seen:
                    seen.add(source)
                    call.last_reader_of.append(source)

    def prepare(self) -> None:
        """Find out anew which gradients are needed; after layers were frozen or thawed."""
        needed = [False] * len(self.values)
        for call in self.calls:
            call.needs_dx = [needed[s] for s in call.sources]
            needed[call.target] = any(call.needs_dx) or bool(call.layer.trainable_weights)
        self._needed = needed

    def lend(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """An array of the pool that is taken back after the running ``backward``, unless it is returned by it."""
        array = self.pool.take(shape, dtype)
        assert array.base is not None
        self._fresh[id(array.base)] = array
        return array

    # -------------------------------------------------------------------------------------------------- running

    def forward(self, inputs: Sequence[Array], training: bool) -> list[Array]:
        """Run on a batch; outputs stay valid until the next run."""
        values = self.values
        for slot, array in zip(self.inputs, inputs, strict=True):
            values[slot] = array
        for call in self.calls:
            call.training = training
            xs: Any = [values[s] for s in call.sources]
            call.inputs = xs
            y = call.layer.forward(xs if call.layer.many else xs[0], call)
            call.y = values[call.target] = y
            if not training:
                if any(y.base is not None and y.base is x.base for x in xs):
                    self.pool.retain(y)  # a view of an input
                for slot in call.last_reader_of:
                    self._forget(slot)
                call.inputs, call.y = [], None
        return [v for s in self.outputs if (v := values[s]) is not None]

    def logits(self, output: int, activation: str | None) -> int | None:
        """Where the input of an output's last activation lies, if it is the named one."""
        for call in self.calls:
            if call.target == self.outputs[output] and activation is not None and _behind(call) == activation:
                return call.sources[0]
        return None

    def finish(self) -> None:
        """End a run: what it borrowed goes back to the pool, also if it was broken off."""
        for slot in range(len(self.values)):
            self.values[slot] = None
        self.pool.take_back()

    def _forget(self, slot: int) -> None:
        value, self.values[slot] = self.values[slot], None
        if value is not None:
            self.pool.release(value)

    def backward(self, seeds: dict[int, Array]) -> dict[int, Array]:
        """Gradients of all trained weights, from those of the values in ``seeds``; gives those of the inputs.

        Gradients of inputs are there only if ``prepare`` found that they are needed, which none are in training.
        """
        self.round += 1
        grads = dict(seeds)
        pool, fresh = self.pool, self._fresh
        for call in reversed(self.calls):
            dy = grads.pop(call.target, None)
            if dy is None:
                continue
            if self._needed[call.target]:
                fresh.clear()
                result = call.layer.backward(dy, call)
                dxs = result if call.layer.many or len(call.sources) > 1 else [result]
                for source, need, dx in zip(call.sources, call.needs_dx, dxs, strict=True):
                    if not need or dx is None:
                        continue
                    if fresh.pop(id(dx.base), None) is None:
                        pool.retain(dx)  # a view of dy, or one array for several inputs
                    before = grads.get(source)
                    grads[source] = dx if before is None else self._sum(before, dx)
                for array in fresh.values():
                    pool.release(array)
                for weight, extra in call.late:
                    assert weight.grad is not None
                    weight.grad += extra
                call.late.clear()
            pool.release(dy)
        return grads

    def _sum(self, a: Array, b: Array) -> Array:
        pool = self.pool
        if pool.count(a) == 1:
            activate(a, None, add=b, out=a)
            pool.release(b)
            return a
        if pool.count(b) == 1:
            activate(b, None, add=a, out=b)
            pool.release(a)
            return b
        total = pool.take(a.shape, a.dtype)
        activate(a, None, add=b, out=total)
        pool.release(a)
        pool.release(b)
        return total

    def commit(self) -> None:
        """Let layers follow the batch's statistics, once it is known to be sound."""
        for call in self.committing:
            call.layer.commit(call)

    def first_non_finite(self) -> str:
        """Where NaN or infinity first appears in the last training step, in words."""
        for slot in self.inputs:
            value = self.values[slot]
            if value is not None and not np.isfinite(value).all():
                return "NaN or infinity is in the input data"
        for call in self.calls:
            for weight in call.layer.weights:
                if not np.isfinite(weight.value).all():
                    return f"NaN or infinity first appears in weight {weight.name!r} of layer {call.layer.name!r}"
            if call.y is not None and not np.isfinite(call.y).all():
                return f"NaN or infinity first appears in the output of layer {call.layer.name!r}"
        return "every layer's output is finite: NaN or infinity is in the targets or arises in the loss"


def _behind(call: Call) -> str | None:
    """The name of the activation that a call is, where a loss can take the activation's input instead."""
    layer = call.layer
    if isinstance(layer, Elementwise) and layer.kind in ("sigmoid", "softmax") and layer.axis == -1:
        return layer.kind
    return None
