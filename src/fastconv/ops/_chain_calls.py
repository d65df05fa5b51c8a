"""What stands behind :func:`plan_chain`: steps that a backend runs as one, and steps that run one after the other."""

from __future__ import annotations

import functools
import itertools
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..backends import registry
from ..backends.protocol import Array, ChainRun, PoolStep
from ..errors import GeometryError
from ..geometry import pool_geometry
from . import avg_pool, pool
from ._arrays import Frame
from ._plan_calls import ConvPlan

__all__ = ["ChainPlan", "make_chain"]

_FUNC = "plan_chain"
# pooling functions whose arguments a chain can read, when they were bound by functools.partial
_POOLS: dict[Any, tuple[int, bool]] = {
    pool.max_pool1d: (1, False), pool.max_pool2d: (2, False), pool.max_pool3d: (3, False),
    avg_pool.avg_pool1d: (1, True), avg_pool.avg_pool2d: (2, True), avg_pool.avg_pool3d: (3, True),
}  # fmt: skip


class ChainPlan:
    """Plans that run one after the other, from :func:`plan_chain`; call it as ``chain(x, out=None, add=None)``.

    Where the backend can, several steps run in one pass over the rows, so that what lies between them stays in the
    cache; :meth:`describe` tells which. Calls from many threads at once are safe.
    """

    def __init__(self, steps: Sequence[Callable[..., Any]]) -> None:
        # a chain among the steps is its steps
        self._steps: tuple[Callable[..., Any], ...] = tuple(
            itertools.chain.from_iterable(s._steps if isinstance(s, ChainPlan) else [s] for s in steps)
        )
        self._parts = _parts(self._steps)
        self._adds = isinstance(self._steps[-1], ConvPlan)
        self._only = self._parts[0] if len(self._parts) == 1 and isinstance(self._parts[0], _Joined) else None

    def __call__(self, x: Any, out: Array | None = None, add: Any = None) -> Array:
        """Run the steps; ``add`` is handed to the last, which must then be a plan."""
        if self._only is not None and (add is None or self._adds):
            return self._only(x, out, add)
        if add is not None and not self._adds:
            raise TypeError(f"{_FUNC}: add needs a plan as the last step, which is {_name(self._steps[-1])}")
        *parts, last = self._parts
        for part in parts:
            x = part(x)
        if add is not None:
            return last(x, out, add)  # type: ignore[no-any-return]
        return last(x) if out is None else last(x, out=out)  # type: ignore[no-any-return]

    @property
    def _plans(self) -> list[ConvPlan]:
        return [s for s in self._steps if isinstance(s, ConvPlan)]

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
        """Bytes of scratch that a call on the planned number of images uses."""
        return max((p.workspace_bytes for p in self._parts if isinstance(p, (ConvPlan, _Joined))), default=0)

    def describe(self) -> str:
        """Say which steps run in one pass and why others do not, then describe every plan."""
        lines, first = [], 1
        for part in self._parts:
            if isinstance(part, _Joined):
                lines.append(part.describe(first))
                first += len(part.steps)
            else:
                lines.append(f"step {first} by itself: {_why_alone(part)}")
                first += 1
        return "\n".join([*lines, *(p.describe() for p in self._plans)])

    def tune(self) -> ChainPlan:
        """Tune every plan; returns the chain itself."""
        for plan in self._plans:
            plan.tune()
        return self


# the plans with their runs, the chain's run, and that run's call if it has one
_Made = tuple[list[tuple[ConvPlan, Any]], ChainRun, Callable[..., Any] | None]


class _Joined:
    """Plans of one backend, and poolings between and after them, run by one call of the backend."""

    def __init__(self, steps: list[ConvPlan | PoolStep], run: ChainRun) -> None:
        self.steps, self.plans = steps, [s for s in steps if isinstance(s, ConvPlan)]
        self.first, last = self.plans[0], steps[-1]
        frame = (
            last._frame if isinstance(last, ConvPlan) else Frame(self.first._backend, last.geometry, _dtype(self.first))
        )
        self.out_frame: Frame[Any] = frame
        five = last._y_body if isinstance(last, ConvPlan) else last.geometry.out_shape(1)
        self.y_shape = frame.shape(np.empty((1,) * (frame.given.rank + 2)), five)[1:]
        self.lock = threading.Lock()
        self.made: _Made = [(p, p._run) for p in self.plans], run, getattr(run, "call", None)

    def _current(self) -> _Made:
        """What was made, made anew after one of the plans was tuned."""
        made = self.made
        for plan, run in made[0]:  # a loop takes a third of the time of all()
            if plan._run is not run:
                break
        else:
            return made
        with self.lock:
            pairs = [(p, p._run) for p in self.plans]
            fresh = _run_of(self.steps)
            assert fresh is not None
            made = self.made = pairs, fresh, getattr(fresh, "call", None)
            return made

    def current(self) -> ChainRun:
        """The run of the plans as they are now."""
        return self._current()[1]

    def __call__(self, x: Any, out: Array | None = None, add: Any = None) -> Array:
        at_once = self._current()[2]  # for arrays that need no preparing
        if at_once is not None:
            y: Array | None = at_once(x, out, add)
            if y is not None:
                return y
        plan = self.first
        x, out, other = plan._arrays(_FUNC, self.y_shape, x, out, add)
        frame, run = self.out_frame, self.current()
        x5, add5 = plan._frame.data(x), None if other is None else frame.data(other)
        frame.into(frame.view(out), lambda y: run.run(x5, y, add5))
        return out

    @property
    def workspace_bytes(self) -> int:
        """Bytes of scratch of a call on the planned number of images."""
        return self.current().workspace_bytes(self.first._batch)

    def describe(self, first: int) -> str:
        """What runs in one pass; steps are counted from ``first``."""
        return self.current().describe(first).rstrip()


def _dtype(plan: ConvPlan) -> np.dtype[Any]:
    return plan._frame.dtype


def _name(step: Any) -> str:
    return getattr(getattr(step, "func", step), "__name__", type(step).__name__)


def _why_alone(step: Any) -> str:
    if not isinstance(step, ConvPlan):
        return f"{_name(step)} is a function of arrays"
    if not step._direct:
        return "its arrays are cast, padded or activated outside the kernel"
    return "it has no neighbour to be joined with"


def _pool_step(step: Any, shape: tuple[int, ...], plan: ConvPlan) -> PoolStep | None:
    """The pooling that a bound function is, on arrays of this shape with one image; None if it is none that fits."""
    if not isinstance(step, functools.partial) or step.args or step.func not in _POOLS:
        return None
    given = dict(step.keywords)
    backend = given.pop("backend", None)
    if "out" in given or (backend is not None and registry.get_backend(backend) is not plan._backend):
        return None
    rank, average = _POOLS[step.func]
    if rank != len(shape) - 2 or "kernel_size" not in given:
        return None
    geometry = pool_geometry(f"{step.func.__name__}", rank, shape, given.pop("kernel_size"), **given)
    return PoolStep(geometry, average) if geometry.channels_last == plan._geometry.channels_last else None


def _run_of(steps: Sequence[ConvPlan | PoolStep]) -> ChainRun | None:
    plans = [s for s in steps if isinstance(s, ConvPlan)]
    return plans[0]._backend.chain([s._run if isinstance(s, ConvPlan) else s for s in steps])


def _parts(steps: tuple[Callable[..., Any], ...]) -> list[Callable[..., Any]]:
    """The steps, with stretches that one backend can take made into one."""
    parts: list[Callable[..., Any]] = []
    i = 0
    while i < len(steps):
        found: list[ConvPlan | PoolStep] = []
        for step in steps[i:]:
            first = found[0] if found else None
            if isinstance(step, ConvPlan):
                alike = first is None or (
                    isinstance(first, ConvPlan) and step._backend is first._backend and step._dtype == first._dtype
                    and step._geometry.rank == first._geometry.rank
                    and step._geometry.channels_last == first._geometry.channels_last
                )  # fmt: skip
                if not step._direct or not alike:
                    break
                found.append(step)
            elif isinstance(first, ConvPlan):
                before = found[-1]
                body = before._y_shape if isinstance(before, ConvPlan) else _body(before, first)
                pooling = _pool_step(step, (1, *body), first)
                if pooling is None:
                    break
                found.append(pooling)
            else:
                break
        run = _run_of(found) if len(found) > 1 else None
        if run is None:
            parts.append(steps[i])
            i += 1
        else:
            parts.append(_Joined(found, run))
            i += len(found)
    return parts


def _body(step: PoolStep, plan: ConvPlan) -> tuple[int, ...]:
    """The user's shape of one pooled image."""
    frame = Frame(plan._backend, step.geometry, _dtype(plan))
    return frame.shape(np.empty((1,) * (step.geometry.rank + 2)), step.geometry.out_shape(1))[1:]


def make_chain(plans: Any) -> ChainPlan:
    func = _FUNC
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
