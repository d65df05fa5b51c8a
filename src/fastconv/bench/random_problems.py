"""Random problems of every kind and dtype: is there any on which the library falls off a cliff?

A seeded generator draws convolutions in one to three dimensions (plain, pointwise, grouped, depthwise, dilated,
strided, with large kernels), their gradients, transposed convolutions, poolings with their gradients, and paddings, in
both layouts. Each is timed, and the time divided by what the roofline asks of this machine: operations at the rate of
multiply-adds on registers or bytes at the rate of a large copy, whichever takes longer, and the cost of a call that
does nothing else. The distribution of that quotient tells: its 99th percentile within 8 times its median is the aim.
The worst are listed with what can be known of the reason without looking into a kernel.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import fastconv

from .layers import LAYOUTS
from .machine import limits

__all__ = ["Cliff", "RandomProblem", "measure", "random_problems", "report"]

_CHANNELS = (1, 2, 3, 4, 5, 7, 8, 12, 13, 16, 17, 24, 31, 32, 37, 48, 53, 64, 96, 100, 128, 192, 256)
_DTYPES = ("float32",) * 11 + ("float64",) * 5 + ("float16",) * 2 + ("uint8", "int16", "int32", "bool")
_KINDS = ("conv",) * 9 + ("conv grad x", "conv grad x", "conv grad weight", "conv grad weight", "transposed",
    "transposed", "max_pool", "avg_pool", "max_pool grad", "avg_pool grad", "pad")  # fmt: skip
_STYLES = ("plain",) * 4 + ("pointwise", "grouped", "grouped", "depthwise", "multiplier", "dilated", "strided", "large")
_MOST_OPERATIONS, _MOST_ELEMENTS = 4e8, 3e6


@dataclass(frozen=True)
class RandomProblem:
    """One drawn problem; sizes have one entry for each spatial axis."""

    kind: str
    dtype: str
    channels_last: bool
    n: int
    c: int
    k: int
    groups: int
    size: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    mode: str = "constant"

    @property
    def rank(self) -> int:
        """The number of spatial axes."""
        return len(self.size)

    @property
    def layout(self) -> str:
        """The layout's name."""
        return LAYOUTS[self.rank][self.channels_last]

    @property
    def out_size(self) -> tuple[int, ...]:
        """Spatial shape of the result of a forward run; of a transposed convolution too."""
        axes = zip(self.size, self.kernel, self.stride, self.padding, self.dilation, strict=True)
        if self.kind == "transposed":
            return tuple((n - 1) * s + d * (k - 1) + 1 - 2 * p for n, k, s, p, d in axes)
        return tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in axes)

    @property
    def operations(self) -> float:
        """Two for each multiply-add of the direct algorithm; none where nothing is multiplied."""
        if "pool" in self.kind or self.kind == "pad":
            return 0.0
        pixels = math.prod(self.size if self.kind == "transposed" else self.out_size)
        return 2.0 * self.n * self.k * (self.c // self.groups) * pixels * math.prod(self.kernel)

    @property
    def elements(self) -> int:
        """Numbers that must be read or written once."""
        inputs, outputs = self.c * math.prod(self.size), self.k * math.prod(self.out_size)
        weights = 0 if self.operations == 0 else self.k * self.c // self.groups * math.prod(self.kernel)
        again = inputs if self.kind == "max_pool grad" else 0  # read for its maxima, and written
        return self.n * (inputs + outputs + again) + weights

    def __str__(self) -> str:
        """What is in it, in short."""
        sizes = ("x".join(map(str, v)) for v in (self.size, self.kernel, self.stride, self.padding, self.dilation))
        size, kernel, stride, padding, dilation = sizes
        text = f"{self.kind} {self.dtype} {self.layout} n{self.n} {self.c}x{size}"
        if self.kind == "pad":
            return f"{text} p{padding} {self.mode}"
        channels = f">{self.k}" if self.operations else ""
        groups = f" g{self.groups}" if self.groups > 1 else ""
        return f"{text}{channels} k{kernel} s{stride} p{padding} d{dilation}{groups}"

    @property
    def _weight_shape(self) -> tuple[int, ...]:
        outer, inner = (self.c, self.k) if self.kind == "transposed" else (self.k, self.c)
        inner //= self.groups
        return (*self.kernel, inner, outer) if self.channels_last else (outer, inner, *self.kernel)

    @property
    def _given(self) -> dict[str, Any]:
        """The public function's keywords."""
        given: dict[str, Any] = {"stride": self.stride, "padding": self.padding, "layout": self.layout}
        return given if "pool" in self.kind else given | {"dilation": self.dilation, "groups": self.groups}

    @property
    def algorithm(self) -> str | None:
        """What a convolution is computed by; None for other kinds."""
        if self.kind != "conv":
            return None
        dtype = np.result_type(np.dtype(self.dtype), np.float32)
        body = (*self.size, self.c) if self.channels_last else (self.c, *self.size)
        weight = np.zeros(self._weight_shape, dtype)
        plan = getattr(fastconv, f"plan_conv{self.rank}d")((self.n, *body), weight, dtype=dtype, **self._given)
        return str(plan.algorithm)

    @property
    def traits(self) -> list[str]:
        """What there is about it that leaves vectors, or memory, half used."""
        found = []
        if self.dtype not in ("float32", "float64") and self.kind not in ("max_pool", "pad"):
            found.append(f"{self.dtype} is cast")
        inner, outer = self.c // self.groups, self.k // self.groups
        if self.operations and min(inner, outer) < 8:
            found.append(f"{inner} > {outer} channels" + (" a group" if self.groups > 1 else ""))
        if self.channels_last and not self.operations and self.c < 8:
            found.append(f"{self.c} channels")
        if not self.channels_last and self.out_size[-1] < 16:
            found.append(f"rows of {self.out_size[-1]}")
        return found

    def call(self) -> Callable[[], Any]:
        """The public call with arrays of its own."""
        rng = np.random.default_rng(1)

        def array(*shape: int) -> Any:
            if np.dtype(self.dtype).kind == "f":
                return rng.standard_normal(shape).astype(self.dtype)
            return rng.integers(0, 2, shape).astype(self.dtype)

        def data(channels: int, size: Sequence[int]) -> Any:
            return array(self.n, *size, channels) if self.channels_last else array(self.n, channels, *size)

        x = data(self.c, self.size)
        if self.kind == "pad":
            sides = [(p, p) for p in self.padding]
            widths = [(0, 0), *sides, (0, 0)] if self.channels_last else [(0, 0), (0, 0), *sides]
            return lambda: fastconv.pad(x, widths, mode=self.mode)
        given = self._given
        if "pool" in self.kind:
            function = getattr(fastconv, f"{self.kind.removesuffix(' grad')}{self.rank}d")
            if not self.kind.endswith("grad"):
                return lambda: function(x, self.kernel, **given)
            back = getattr(fastconv, f"{self.kind.removesuffix(' grad')}{self.rank}d_backward")
            dy = data(self.c, self.out_size)
            return lambda: back(dy, x, self.kernel, **given)
        weight = array(*self._weight_shape)
        if self.kind in ("conv", "transposed"):
            name = "conv" if self.kind == "conv" else "conv_transpose"
            function = getattr(fastconv, f"{name}{self.rank}d")
            return lambda: function(x, weight, **given)
        back = getattr(fastconv, f"conv{self.rank}d_backward")
        dy = data(self.k, self.out_size)
        return lambda: back(dy, x, weight, needs=(self.kind.split()[-1],), **given)


def _channels(draw: random.Random, style: str) -> tuple[int, int, int]:
    """Input channels, output channels, groups."""
    c, k = draw.choice(_CHANNELS), draw.choice(_CHANNELS)
    if style == "grouped":
        groups = draw.choice((2, 3, 4, 8, 16, 32))
        return groups * draw.choice((2, 3, 4, 5, 8, 16)), groups * draw.choice((2, 3, 4, 5, 8, 16)), groups
    if style == "depthwise":
        return c, c, c
    if style == "multiplier":
        return c, c * draw.choice((2, 3, 4)), c
    return c, k, 1


def _draw(draw: random.Random) -> RandomProblem:
    kind, rank = draw.choice(_KINDS), draw.choice((1, 1, 2, 2, 2, 2, 3))
    dtype = draw.choice(_DTYPES) if "grad" not in kind else draw.choice(_DTYPES[:16])
    pooling = "pool" in kind
    style = "plain" if pooling or kind == "pad" else draw.choice(_STYLES)
    c, k, groups = _channels(draw, style)
    longest = {1: 4000, 2: 200, 3: 40}[rank]
    size = tuple(int(math.exp(draw.uniform(0, math.log(longest)))) for _ in range(rank))
    if style == "pointwise":
        kernel = (1,) * rank
    elif style == "large":
        kernel = tuple(draw.choice((9, 11, 15, 21, 31) if rank < 3 else (5, 7)) for _ in range(rank))
    elif draw.random() < 0.75:
        kernel = (draw.choice((2, 3, 3, 3, 4, 5, 7)),) * rank
    else:
        kernel = tuple(draw.choice((1, 2, 3, 5, 7)) for _ in range(rank))
    stride = (draw.choice((2, 2, 3, 4)) if style == "strided" or (pooling and draw.random() < 0.7) else 1,) * rank
    dilation = (draw.choice((2, 3, 4, 8)) if style == "dilated" else 1,) * rank
    padding = tuple(draw.choice((0, (n - 1) * d // 2)) for n, d in zip(kernel, dilation, strict=True))
    if pooling:
        padding = tuple(min(p, n // 2) for p, n in zip(padding, kernel, strict=True))
    mode = draw.choice(("constant", "edge", "reflect", "symmetric", "wrap")) if kind == "pad" else "constant"
    if kind == "pad":
        kernel, padding = (1,) * rank, tuple(draw.randrange(0, 5) for _ in range(rank))
    return RandomProblem(
        kind, dtype, draw.random() < 0.5, draw.choice((1, 1, 2, 4, 16)), c, c if pooling or kind == "pad" else k,
        groups, size, kernel, stride, padding, dilation, mode,
    )  # fmt: skip


def random_problems(count: int, seed: int = 0) -> Iterator[RandomProblem]:
    """The first ``count`` problems of a seed; impossible ones and those of more than 0.4 GFLOP are drawn again.

    Examples
    --------
    >>> from fastconv.bench.random_problems import random_problems
    >>> first, second = list(random_problems(2)), list(random_problems(2))
    >>> first == second
    True
    """
    draw = random.Random(seed)
    while count > 0:
        problem = _draw(draw)
        fits = min(problem.size) > max(problem.padding) if problem.kind == "pad" else min(problem.out_size) >= 1
        if fits and problem.operations <= _MOST_OPERATIONS and problem.elements <= _MOST_ELEMENTS:
            count -= 1
            yield problem


@dataclass(frozen=True)
class Cliff:
    """A problem, the seconds it takes, those the roofline asks for, and those of a call that computes nothing."""

    problem: RandomProblem
    seconds: float
    demand: float
    empty_call: float = 0.0

    @property
    def quotient(self) -> float:
        """How many times the roofline's time it takes."""
        return self.seconds / self.demand

    @property
    def reason(self) -> str:
        """Why it may take so long, as far as can be known without looking into the kernel."""
        if self.seconds < 8 * self.empty_call:
            return f"the call: {self.seconds / self.empty_call:.0f} times an empty one"
        algorithm = self.problem.algorithm
        return ", ".join(([algorithm] if algorithm else []) + self.problem.traits) or "the kernel"


def _best(call: Callable[[], Any], seconds: float) -> float:
    """The least time of a call; five at least, and more while they fit into ``seconds``."""
    call()
    best, calls, clock = math.inf, 0, time.perf_counter
    end = clock() + seconds
    while calls < 5 or (clock() < end and calls < 1000):
        start = clock()
        call()
        best = min(best, clock() - start)
        calls += 1
    return best


def measure(
    problems: Sequence[RandomProblem], seconds: float = 0.01, progress: Callable[[str], None] = lambda name: None
) -> list[Cliff]:
    """Time every problem once, the slowest tenth twice more (a disturbed moment is no cliff); sorted, worst first.

    Parameters
    ----------
    problems : sequence of RandomProblem
        What is timed, on as many threads as the library uses.
    seconds : float, optional
        For each problem.
    progress : callable, optional
        Called with every problem's name before it is begun.
    """
    threads = fastconv.get_num_threads()
    machine = limits(threads=(threads,))[str(threads)]
    rate, bandwidth = machine["fma_gflops"] * 1e9, machine["copy_gbs"] * 1e9
    one = np.ones((1, 1, 1, 1), np.float32)
    call = _best(lambda: fastconv.conv2d(one, one), 0.02)

    def timed(problem: RandomProblem) -> Cliff:
        progress(str(problem))
        bytes_each = np.dtype(problem.dtype).itemsize
        peak = rate / 2 if problem.dtype in ("float64", "int32") else rate
        demand = max(problem.operations / peak, problem.elements * bytes_each / bandwidth) + call
        return Cliff(problem, _best(problem.call(), seconds), demand, call)

    found = sorted((timed(p) for p in problems), key=lambda f: -f.quotient)
    for _ in range(2):
        slow = len(found) // 10 + 1
        again = [min(f, timed(f.problem), key=lambda g: g.quotient) for f in found[:slow]]
        found = sorted(again + found[slow:], key=lambda f: -f.quotient)
    return found


def report(found: Sequence[Cliff], worst: int = 20) -> list[str]:
    """The distribution of the quotients and the worst problems, as lines of text."""
    quotients = np.array([f.quotient for f in found])
    shares = (1, 10, 25, 50, 75, 90, 95, 99, 100)
    values = np.percentile(quotients, shares)
    median, high = values[3], values[7]
    lines = [
        f"{len(found)} problems, time over the roofline's: "
        + ", ".join(f"{share}% {value:.1f}" for share, value in zip(shares, values, strict=True)),
        f"99th percentile over median: {high / median:.1f} (aim 8)",
    ]
    kinds = sorted({f.problem.kind for f in found})
    for kind in kinds:
        mine = np.array([f.quotient for f in found if f.problem.kind == kind])
        lines.append(f"  {kind:16} {len(mine):4}  median {np.median(mine):5.1f}, worst {mine.max():6.1f}")
    lines.append("worst:")
    lines += [f"  {f.quotient:6.1f}  {f.seconds * 1e6:9.1f} us  {f.problem}: {f.reason}" for f in found[:worst]]
    return lines
