"""What stands behind the plans: geometry, algorithm and weights are settled once, a call only runs."""

from __future__ import annotations

import itertools
import operator
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..backends import registry
from ..backends.protocol import Array, Backend, ConvRun
from ..errors import DTypeError, GeometryError
from ..geometry import ConvGeometry, conv_geometry
from ._arrays import Frame, kernel_dtype, new_or_checked, real_array
from ._conv_calls import check_algorithm, check_bias
from .elementwise import activate_in_place, check_activation
from .pad import pad_spatial

__all__ = ["ChainPlan", "ConvPlan", "make_chain", "make_plan"]

_REPEATS = 5  # runs of each algorithm while tuning, after one to warm up; their median counts


class ConvPlan:
    """A convolution made ready to run, from :func:`plan_conv2d` and its like.

    Call it as ``plan(x, out=None, add=None)``: ``x`` of the planned shape with any number of images, or without the
    batch; ``add``, of the result's shape, is added before the activation. Calls from many threads at once are safe.
    """

    def __init__(
        self, func: str, geometry: ConvGeometry, backend: Backend, dtype: np.dtype[Any], weight: Array,
        bias: Array | None, activation: str | None, algorithm: str, batch: int, workspace_limit: int | None,
        batch_invariant: bool,
    ) -> None:  # fmt: skip
        self._func, self._geometry, self._backend, self._dtype = func, geometry, backend, dtype
        self._pads_first = geometry.padding_mode not in backend.padding_modes
        self._frame = Frame(backend, geometry.padded() if self._pads_first else geometry, kernel_dtype(dtype))
        check_algorithm(func, backend, algorithm, self._frame.geometry, self._frame.dtype)
        # an addition comes before the activation: a backend that cannot add leaves both to be done after it
        fused = backend.fuses_add and (activation is None or activation in backend.activations)
        self._fused = activation if fused else None
        self._after = None if fused else activation
        self._asked, self._algorithm, self._batch = algorithm, algorithm, batch
        self._limit, self._invariant = workspace_limit, batch_invariant
        self._weight_shape, self._x_body, self._y_body = weight.shape, geometry.x_shape(1), geometry.out_shape(1)
        # what the fast way through a call compares with and reshapes to
        one = np.empty((1,) * (geometry.rank + 2))
        self._x_shape = self._frame.shape(one, self._x_body)[1:]
        self._y_shape = self._frame.shape(one, self._y_body)[1:]
        self._direct = not self._pads_first and not self._frame.turned and dtype == self._frame.dtype
        self._direct = self._direct and self._after is None
        self._lock = threading.Lock()
        self._take(weight, bias)

    def _take(self, weight: Array, bias: Array | None) -> None:
        frame = self._frame
        self._weight, self._bias = frame.weight(weight), frame.vector(bias)
        self._run = self._make(self._algorithm)

    def _make(self, algorithm: str) -> ConvRun:
        run = self._backend.plan_conv(
            self._frame.geometry, self._weight, self._bias, self._fused, algorithm, self._batch, self._limit,
            self._invariant,
        )  # fmt: skip
        if self._limit is not None and run.workspace_bytes > self._limit:
            raise GeometryError(
                f"{self._func}: algorithm {run.algorithm!r} needs {run.workspace_bytes} bytes of workspace, more than "
                f"workspace_limit={self._limit}"
            )
        return run

    def __call__(self, x: Any, out: Array | None = None, add: Any = None) -> Array:
        """Convolve ``x``, add ``add``, apply the activation; the result is ``out`` where one is given."""
        if self._direct and add is None and type(x) is np.ndarray and type(out) is np.ndarray:
            flags, shape, dtype = x.flags, x.shape, self._dtype
            if (
                shape[1:] == self._x_shape and flags.c_contiguous and flags.aligned and out.flags.carray
                and x.dtype == dtype and out.dtype == dtype and out.shape[1:] == self._y_shape
                and out.shape[0] == shape[0] and not np.may_share_memory(x, out)
            ):  # fmt: skip
                n = shape[0]
                self._run.run(x.reshape(n, *self._x_body[1:]), out.reshape(n, *self._y_body[1:]), None)
                return out
        return self._checked(x, out, add)

    def _checked(self, x: Any, out: Array | None, add: Any) -> Array:
        func, frame, run = self._func, self._frame, self._run
        x = real_array(func, "x", x)
        if x.shape[x.ndim - len(self._x_shape) :] != self._x_shape or x.ndim - len(self._x_shape) not in (0, 1):
            sizes = ", ".join(map(str, self._x_shape))
            raise GeometryError(f"{func}: x must have shape (N, {sizes}) with any N, or ({sizes}), received {x.shape}")
        shape = (*x.shape[: x.ndim - len(self._x_shape)], *self._y_shape)
        other = None if add is None else real_array(func, "add", add)
        if other is not None and other.shape != shape:
            raise GeometryError(f"{func}: add must have shape {shape}, received {other.shape}")
        out = new_or_checked(func, out, shape, self._dtype, (x, other), backend=self._backend)
        if self._pads_first:
            x = pad_spatial(self._backend, self._geometry, x)
        x5, add5 = frame.data(x), None if other is None else frame.data(other)

        def kernel(y: Array) -> None:
            if add5 is None or self._backend.fuses_add:
                run.run(x5, y, add5)
            else:
                run.run(x5, y, None)
                y += add5
            if self._after is not None:
                activate_in_place(self._backend, y, self._after)

        frame.into(frame.view(out), kernel)
        return out

    @property
    def algorithm(self) -> str:
        """The algorithm that runs."""
        return self._run.algorithm

    @property
    def flops(self) -> int:
        """Floating-point operations of the direct convolution of the planned number of images."""
        return self._geometry.flops(self._batch)

    @property
    def workspace_bytes(self) -> int:
        """Bytes of scratch that a call uses."""
        return self._run.workspace_bytes

    @property
    def out_shape(self) -> tuple[int, ...]:
        """Shape of the result for the planned number of images."""
        return (self._batch, *self._y_shape)

    def describe(self) -> str:
        """Say what was planned, which algorithms there are, which was chosen, and why."""
        g = self._geometry
        problem = f"{self._func}: {(self._batch, *self._x_shape)} -> {self.out_shape}, {self._dtype}, groups={g.groups}"
        return f"{problem}, {self.flops / 1e6:.3g} MFLOP\n{self._run.describe()}"

    def tune(self) -> ConvPlan:
        """Time every algorithm that can do the planned problem and keep the fastest, for this plan only.

        A plan for one named algorithm stays as it is. Returns the plan itself.
        """
        if self._asked != "auto":
            return self
        frame = self._frame
        x = np.zeros(frame.geometry.x_shape(self._batch), frame.dtype)
        y = np.empty(frame.geometry.out_shape(self._batch), frame.dtype)
        names = [a.name for a in self._backend.algorithms()]
        timed = []
        with self._lock:
            for name in names:
                if self._backend.why_not(name, frame.geometry, frame.dtype) is None:
                    try:
                        run = self._make(name)
                    except GeometryError:  # more workspace than allowed
                        continue
                    timed.append((_seconds(run, x, y), name, run))
            if timed:
                _, self._algorithm, self._run = min(timed, key=lambda t: t[0])
        return self

    def update(self, weight: Any, bias: Any = None) -> None:
        """Take new weights of the same shape; calls that are running finish with the old ones."""
        array = real_array(self._func, "weight", weight)
        if array.shape != self._weight_shape:
            raise GeometryError(f"{self._func}: weight must have shape {self._weight_shape}, received {array.shape}")
        vector = check_bias(self._func, bias, self._geometry.out_channels)
        with self._lock:
            self._take(array, vector)


def _seconds(run: ConvRun, x: Array, y: Array) -> float:
    times = []
    for _ in range(_REPEATS + 1):
        start = time.perf_counter()
        run.run(x, y, None)
        times.append(time.perf_counter() - start)
    return sorted(times[1:])[_REPEATS // 2]


class ChainPlan:
    """Plans that run one after the other, from :func:`plan_chain`; call it as ``chain(x, out=None)``."""

    def __init__(self, steps: Sequence[Callable[..., Any]]) -> None:
        self._steps = tuple(steps)
        self._kept = threading.local()  # each thread has its own buffers: calls at once do not meet

    def __call__(self, x: Any, out: Array | None = None) -> Array:
        """Run the steps; only the last result is new, or ``out``."""
        buffers = self._buffers()
        last = len(self._steps) - 1
        y = x
        for i, step in enumerate(self._steps):
            if i == last:
                break
            if not isinstance(step, ConvPlan):
                y = step(y)
                continue
            head = np.shape(y)[: np.ndim(y) - len(step._x_shape)]
            shape = (*head, *step._y_shape)
            into = buffers.get(i)
            if into is None or into.shape != shape:
                into = buffers[i] = np.empty(shape, step._dtype)
            y = step(y, out=into)
        result: Array = self._steps[last](y) if out is None else self._steps[last](y, out=out)
        # a last step that hands its input on must not hand out a buffer that the next call overwrites
        return result.copy() if any(np.may_share_memory(result, b) for b in buffers.values()) else result

    def _buffers(self) -> dict[int, Array]:
        kept: dict[int, Array] | None = getattr(self._kept, "buffers", None)
        if kept is None:
            kept = self._kept.buffers = {}
        return kept

    @property
    def _plans(self) -> list[Any]:
        return [s for s in self._steps if isinstance(s, (ConvPlan, ChainPlan))]

    @property
    def algorithm(self) -> str:
        """The algorithms of the plans, in order."""
        return " + ".join(p.algorithm for p in self._plans)

    @property
    def flops(self) -> int:
        """Floating-point operations of the plans together."""
        return sum(p.flops for p in self._plans)

    @property
    def workspace_bytes(self) -> int:
        """Bytes of scratch that the plans use, one at a time."""
        return max((p.workspace_bytes for p in self._plans), default=0)

    def describe(self) -> str:
        """Describe every plan."""
        return "\n".join(p.describe() for p in self._plans)

    def tune(self) -> ChainPlan:
        """Tune every plan; returns the chain itself."""
        for plan in self._plans:
            plan.tune()
        return self


def make_plan(
    rank: int, x_shape: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: Any,
    padding_mode: Any, layout: Any, dtype: Any, algorithm: Any, activation: Any, workspace_limit: Any,
    batch_invariant: Any, backend: Any,
) -> ConvPlan:  # fmt: skip
    func = f"plan_conv{rank}d"
    runs_on = registry.active() if backend is None else registry.get_backend(backend)
    try:
        shape = tuple(operator.index(n) for n in x_shape)
    except TypeError:
        raise TypeError(f"{func}: x_shape must be a tuple of integers, received {x_shape!r}") from None
    if any(n < 0 for n in shape):
        raise GeometryError(f"{func}: x_shape must hold no negative sizes, received {x_shape!r}")
    try:
        result = np.dtype(dtype)
    except TypeError:
        raise DTypeError(f"{func}: dtype must be float16, float32 or float64, received {dtype!r}") from None
    if result.kind != "f" or result.itemsize > 8:
        raise DTypeError(f"{func}: dtype must be float16, float32 or float64, received {result}")
    array = real_array(func, "weight", weight)
    geometry = conv_geometry(
        func, rank, shape, array.shape, stride=stride, padding=padding, dilation=dilation, groups=groups,
        padding_mode=padding_mode, layout=layout,
    )  # fmt: skip
    check_activation(func, activation)
    if workspace_limit is not None:
        try:
            workspace_limit = operator.index(workspace_limit)
        except TypeError:
            raise TypeError(
                f"{func}: workspace_limit must be None or an integer, received {workspace_limit!r}"
            ) from None
        if workspace_limit < 0:
            raise GeometryError(f"{func}: workspace_limit must be at least 0, received {workspace_limit}")
    if not isinstance(batch_invariant, (bool, np.bool_)):
        raise TypeError(f"{func}: batch_invariant must be True or False, received {batch_invariant!r}")
    batch = shape[0] if len(shape) == rank + 2 else 1
    return ConvPlan(
        func, geometry, runs_on, result.newbyteorder("="), array, check_bias(func, bias, geometry.out_channels),
        activation, algorithm, max(1, batch), workspace_limit, bool(batch_invariant),
    )  # fmt: skip


def make_chain(plans: Any) -> ChainPlan:
    func = "plan_chain"
    if not isinstance(plans, Sequence) or isinstance(plans, (str, bytes)):
        raise TypeError(f"{func}: plans must be a sequence of plans, received {type(plans).__name__}")
    if not plans:
        raise GeometryError(f"{func}: plans must hold at least one plan, received none")
    for i, plan in enumerate(plans):
        if not callable(plan):
            raise TypeError(f"{func}: plans[{i}] is neither a plan nor a function, received {type(plan).__name__}")
    for i, (a, b) in enumerate(itertools.pairwise(plans)):
        if isinstance(a, ConvPlan) and isinstance(b, ConvPlan) and a._y_shape != b._x_shape:
            raise GeometryError(
                f"{func}: plans[{i}] gives (N, {', '.join(map(str, a._y_shape))}), but plans[{i + 1}] takes "
                f"(N, {', '.join(map(str, b._x_shape))})"
            )
    return ChainPlan(plans)
