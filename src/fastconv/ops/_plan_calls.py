"""What stands behind the plans: geometry, algorithm and weights are settled once, a call only runs."""

from __future__ import annotations

import operator
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..backends import registry
from ..backends.protocol import Array, Backend, Candidate, ConvRun
from ..errors import DTypeError, GeometryError
from ..geometry import ConvGeometry, conv_geometry
from ._arrays import Frame, kernel_dtype, new_or_checked, real_array
from ._conv_calls import check_algorithm, check_bias
from .elementwise import activate_in_place, check_activation
from .pad import pad_spatial

__all__ = ["ConvPlan", "make_plan", "planned", "planned_images"]

_TRIED = 3  # algorithms that tuning times: those predicted to be fastest
_REPEATS = 7  # runs of each, after one to warm up, in turns; their median counts
# what tuning found: algorithm by problem, dtype, batch, threads and instruction set, on this process's processor
_tuned: dict[tuple[Any, ...], str] = {}
_TUNED_KEPT = 4096


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
        self._use(self._make(self._algorithm))

    def _use(self, run: ConvRun) -> None:
        # the way through a call for arrays that need no preparing
        at_once: Callable[[Any, Any, Any], Array | None] | None = getattr(run, "call", None)
        self._run, self._at_once = run, at_once if self._direct else None

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
        if self._at_once is not None:
            y = self._at_once(x, out, add)
            if y is not None:
                return y
        return self._checked(x, out, add)

    def _arrays(
        self, func: str, y_shape: tuple[int, ...], x: Any, out: Array | None, add: Any
    ) -> tuple[Array, Array, Array | None]:
        """``x``, ``out`` and ``add`` of a call, checked; ``y_shape`` is the result's for one image."""
        x = planned_images(func, x, self._x_shape)
        shape = (*x.shape[: x.ndim - len(self._x_shape)], *y_shape)
        other = None if add is None else real_array(func, "add", add)
        if other is not None and other.shape != shape:
            raise GeometryError(f"{func}: add must have shape {shape}, received {other.shape}")
        return x, new_or_checked(func, out, shape, self._dtype, (x, other), backend=self._backend), other

    def _checked(self, x: Any, out: Array | None, add: Any) -> Array:
        frame, run = self._frame, self._run
        x, out, other = self._arrays(self._func, self._y_shape, x, out, add)
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

    def candidates(self) -> Sequence[Candidate]:
        """What is known of every algorithm beforehand: predicted time, workspace, or why it cannot; fastest first."""
        return self._backend.candidates(self._frame.geometry, self._frame.dtype)

    def split(self, batch: int | None = None) -> list[tuple[int, int, int]]:
        """How a call would be cut among threads: ``(tasks, threads, parts of the weights)`` of each of its jobs.

        Nothing is computed. Tasks of one job are alike; ``parts of the weights`` of them share the same input. A
        backend that says nothing about it gives one task.
        """
        split = getattr(self._run, "split", None)
        return [(1, 1, 1)] if split is None else split(self._batch if batch is None else batch)

    def describe(self) -> str:
        """Say what was planned, which algorithms there are, which was chosen, and why."""
        g = self._geometry
        problem = f"{self._func}: {(self._batch, *self._x_shape)} -> {self.out_shape}, {self._dtype}, groups={g.groups}"
        return f"{problem}, {self.flops / 1e6:.3g} MFLOP\n{self._run.describe()}"

    def tune(self) -> ConvPlan:
        """Time the three algorithms predicted to be fastest on the planned problem; this plan takes the best.

        What was found is remembered by the process, so that a second plan for the same problem does not measure
        again. A plan for one named algorithm stays as it is. Returns the plan itself.
        """
        if self._asked != "auto":
            return self
        frame = self._frame
        config = self._backend.config()
        key = (
            self._backend.name, frame.geometry, frame.dtype, self._fused, self._batch, self._limit,
            config.get("threads"), config.get("isa"),
        )  # fmt: skip
        with self._lock:
            name = _tuned.get(key)
            if name is None:
                runs = self._fastest_predicted()
                if not runs:
                    return self
                x = np.zeros(frame.geometry.x_shape(self._batch), frame.dtype)
                name = _fastest(runs, x, np.empty(frame.geometry.out_shape(self._batch), frame.dtype))
                if len(_tuned) >= _TUNED_KEPT:
                    _tuned.clear()
                _tuned[key] = name
                run = next(r for r in runs if r.algorithm == name)
            elif name == self._run.algorithm:
                return self
            else:
                run = self._make(name)
            self._algorithm = name
            self._use(run)
        return self

    def _fastest_predicted(self) -> list[ConvRun]:
        """Runs of the few algorithms that promise most, the one that runs now among them, within the limit."""
        runs = [self._run]
        for candidate in self.candidates():
            if len(runs) == _TRIED:
                break
            if candidate.why_not is not None or not candidate.automatic or candidate.name == self._run.algorithm:
                continue
            try:
                runs.append(self._make(candidate.name))
            except GeometryError:  # more workspace than allowed
                continue
        return runs

    def update(self, weight: Any, bias: Any = None) -> None:
        """Take new weights of the same shape; calls that are running finish with the old ones."""
        array = real_array(self._func, "weight", weight)
        if array.shape != self._weight_shape:
            raise GeometryError(f"{self._func}: weight must have shape {self._weight_shape}, received {array.shape}")
        vector = check_bias(self._func, bias, self._geometry.out_channels)
        with self._lock:
            self._weight, self._bias = self._frame.weight(array), self._frame.vector(vector)
            self._run.update(self._weight, self._bias)


def _fastest(runs: Sequence[ConvRun], x: Array, y: Array) -> str:
    """The algorithm that takes least time, by the median of runs in turns."""
    times: list[list[float]] = [[] for _ in runs]
    for turn in range(_REPEATS + 1):
        for run, taken in zip(runs, times, strict=True):
            start = time.perf_counter()
            run.run(x, y, None)
            if turn > 0:
                taken.append(time.perf_counter() - start)
    medians = [sorted(taken)[_REPEATS // 2] for taken in times]
    return runs[medians.index(min(medians))].algorithm


def _planned_shape(func: str, x_shape: Any) -> tuple[int, ...]:
    """The shape that a plan is made for."""
    try:
        shape = tuple(operator.index(n) for n in x_shape)
    except TypeError:
        raise TypeError(f"{func}: x_shape must be a tuple of integers, received {x_shape!r}") from None
    if any(n < 0 for n in shape):
        raise GeometryError(f"{func}: x_shape must hold no negative sizes, received {x_shape!r}")
    return shape


def planned_images(func: str, x: Any, shape: tuple[int, ...]) -> Array:
    """The images of a call of a plan, each of ``shape``; one may come without a batch axis."""
    images = real_array(func, "x", x)
    if images.shape[images.ndim - len(shape) :] != shape or images.ndim - len(shape) not in (0, 1):
        sizes = ", ".join(map(str, shape))
        raise GeometryError(f"{func}: x must have shape (N, {sizes}) with any N, or ({sizes}), received {images.shape}")
    return images


def _planned_dtype(func: str, dtype: Any) -> np.dtype[Any]:
    """The floating dtype that a plan is made for, in native byte order."""
    try:
        result = np.dtype(dtype)
    except TypeError:
        raise DTypeError(f"{func}: dtype must be float16, float32 or float64, received {dtype!r}") from None
    if result.kind != "f" or result.itemsize > 8:
        raise DTypeError(f"{func}: dtype must be float16, float32 or float64, received {result}")
    native: np.dtype[Any] = result.newbyteorder("=")
    return native


class Planned(NamedTuple):
    """What every plan of a convolution settles first."""

    backend: Backend
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    weight: Array
    geometry: ConvGeometry


def planned(
    func: str, rank: int, x_shape: Any, weight: Any, dtype: Any, backend: Any,
    geometry: Callable[..., ConvGeometry] = conv_geometry, **how: Any,
) -> Planned:  # fmt: skip
    """The arguments that all plans share, checked; ``how`` is handed to ``geometry``."""
    runs_on = registry.active() if backend is None else registry.get_backend(backend)
    shape, result = _planned_shape(func, x_shape), _planned_dtype(func, dtype)
    array = real_array(func, "weight", weight)
    return Planned(runs_on, shape, result, array, geometry(func, rank, shape, array.shape, **how))


def make_plan(
    rank: int, x_shape: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: Any,
    padding_mode: Any, layout: Any, dtype: Any, algorithm: Any, activation: Any, workspace_limit: Any,
    batch_invariant: Any, backend: Any,
) -> ConvPlan:  # fmt: skip
    func = f"plan_conv{rank}d"
    runs_on, shape, result, array, geometry = planned(
        func, rank, x_shape, weight, dtype, backend, stride=stride, padding=padding, dilation=dilation,
        groups=groups, padding_mode=padding_mode, layout=layout,
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
        func, geometry, runs_on, result, array, check_bias(func, bias, geometry.out_channels),
        activation, algorithm, max(1, batch), workspace_limit, bool(batch_invariant),
    )  # fmt: skip
