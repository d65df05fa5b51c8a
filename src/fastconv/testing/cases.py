"""The tables of cases: what is convolved, pooled and padded, as data.

Edges are enumerated: sizes below, at and above the widths of tiles and vectors, primes, size one, strides beyond the
kernel, groups equal to the channels, asymmetric and named paddings, dilation, one to three dimensions, both layouts.
The name of a case says what is in it, as in ``2d-c3-k16-13x17-k3x3-s2-d1-g1-nchw-f32``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

__all__ = ["CONV_CASES", "PAD_CASES", "POOL_CASES", "TRANSPOSE_CASES", "ConvCase", "PadCase", "PoolCase"]

Numbers: TypeAlias = tuple[int, ...]
Padding: TypeAlias = int | str | tuple[Any, ...]

_FIRST = {1: "NCW", 2: "NCHW", 3: "NCDHW"}
_LAST = {1: "NWC", 2: "NHWC", 3: "NDHWC"}
_SHORT = {"float32": "f32", "float64": "f64"}


def _times(values: Numbers) -> str:
    return "x".join(str(v) for v in values)


def _padding_name(padding: Padding) -> str:
    if isinstance(padding, tuple):
        return "p" + "_".join(".".join(map(str, p)) if isinstance(p, tuple) else str(p) for p in padding)
    return padding if isinstance(padding, str) else f"p{padding}"


@dataclass(frozen=True)
class ConvCase:
    """A convolution, or with ``transposed`` the transposed one; sizes have one entry for each spatial axis."""

    size: Numbers
    kernel: Numbers
    c: int = 3
    k: int = 5
    n: int = 2
    stride: Numbers = ()
    padding: Padding = 0
    dilation: Numbers = ()
    groups: int = 1
    padding_mode: str = "constant"
    output_padding: Numbers | None = None
    channels_last: bool = False
    dtype: str = "float32"
    transposed: bool = False

    @property
    def rank(self) -> int:
        """The number of spatial axes."""
        return len(self.size)

    @property
    def strides(self) -> Numbers:
        """The stride of every axis."""
        return self.stride or (1,) * self.rank

    @property
    def dilations(self) -> Numbers:
        """The dilation of every axis."""
        return self.dilation or (1,) * self.rank

    @property
    def layout(self) -> str:
        """The layout's name."""
        return (_LAST if self.channels_last else _FIRST)[self.rank]

    @property
    def name(self) -> str:
        """What is in the case, in short."""
        parts = [
            f"{self.rank}d-n{self.n}-c{self.c}-k{self.k}-{_times(self.size)}-k{_times(self.kernel)}",
            f"s{_times(self.strides)}-d{_times(self.dilations)}-g{self.groups}-{_padding_name(self.padding)}",
            "" if self.output_padding is None else f"op{_times(self.output_padding)}",
            "" if self.padding_mode == "constant" else self.padding_mode,
            f"{self.layout.lower()}-{_SHORT[self.dtype]}",
        ]
        return "-".join(p for p in parts if p)

    @property
    def x_shape(self) -> Numbers:
        """Shape of the input."""
        return (self.n, *self.size, self.c) if self.channels_last else (self.n, self.c, *self.size)

    @property
    def weight_shape(self) -> Numbers:
        """Shape of the weight; that of a transposed convolution is the weight of the convolution it is adjoint to."""
        outer, inner = (self.c, self.k) if self.transposed else (self.k, self.c)
        inner //= self.groups
        return (*self.kernel, inner, outer) if self.channels_last else (outer, inner, *self.kernel)

    @property
    def terms(self) -> int:
        """Products that are summed into one result."""
        return self.c // self.groups * math.prod(self.kernel)

    @property
    def keywords(self) -> dict[str, Any]:
        """The keyword arguments of the public function."""
        given: dict[str, Any] = {
            "stride": self.strides,
            "padding": self.padding,
            "dilation": self.dilations,
            "groups": self.groups,
            "layout": self.layout,
        }
        if self.transposed:
            given["output_padding"] = self.output_padding or 0
        else:
            given["padding_mode"] = self.padding_mode
        return given


@dataclass(frozen=True)
class PoolCase:
    """A pooling; ``stride`` empty means the window."""

    size: Numbers
    kernel: Numbers
    stride: Numbers = ()
    padding: Padding = 0
    dilation: Numbers = ()
    ceil_mode: bool = False
    count_include_pad: bool = True
    c: int = 3
    n: int = 2
    channels_last: bool = False
    dtype: str = "float32"

    @property
    def rank(self) -> int:
        """The number of spatial axes."""
        return len(self.size)

    @property
    def strides(self) -> Numbers:
        """The stride of every axis."""
        return self.stride or self.kernel

    @property
    def dilations(self) -> Numbers:
        """The dilation of every axis."""
        return self.dilation or (1,) * self.rank

    @property
    def dilated(self) -> bool:
        """Whether any axis is dilated: averages are not."""
        return any(d > 1 for d in self.dilations)

    @property
    def layout(self) -> str:
        """The layout's name."""
        return (_LAST if self.channels_last else _FIRST)[self.rank]

    @property
    def x_shape(self) -> Numbers:
        """Shape of the input."""
        return (self.n, *self.size, self.c) if self.channels_last else (self.n, self.c, *self.size)

    @property
    def name(self) -> str:
        """What is in the case, in short."""
        parts = [
            f"{self.rank}d-n{self.n}-c{self.c}-{_times(self.size)}-k{_times(self.kernel)}-s{_times(self.strides)}",
            f"d{_times(self.dilations)}-{_padding_name(self.padding)}",
            "ceil" if self.ceil_mode else "",
            "" if self.count_include_pad else "nopad",
            f"{self.layout.lower()}-{_SHORT[self.dtype]}",
        ]
        return "-".join(p for p in parts if p)

    @property
    def keywords(self) -> dict[str, Any]:
        """Keyword arguments that every pooling takes."""
        return {"stride": self.strides, "padding": self.padding, "ceil_mode": self.ceil_mode, "layout": self.layout}

    @property
    def max_keywords(self) -> dict[str, Any]:
        """Keyword arguments of a maximum."""
        return self.keywords | {"dilation": self.dilations}

    @property
    def avg_keywords(self) -> dict[str, Any]:
        """Keyword arguments of an average."""
        return self.keywords | {"count_include_pad": self.count_include_pad}


@dataclass(frozen=True)
class PadCase:
    """A padding of an array of any number of axes."""

    shape: Numbers
    pad_width: tuple[tuple[int, int], ...]
    mode: str
    dtype: str = "float32"

    @property
    def name(self) -> str:
        """What is in the case, in short."""
        widths = "_".join(f"{lo}.{hi}" for lo, hi in self.pad_width)
        return f"{_times(self.shape) or 'scalar'}-{widths}-{self.mode}-{self.dtype}"


def _square(rank: int, **given: Any) -> dict[str, Any]:
    """Numbers written once are meant for every axis."""
    tuples = ("size", "kernel", "stride", "dilation", "output_padding")
    return {k: (v,) * rank if k in tuples and isinstance(v, int) else v for k, v in given.items()}


def _conv(rank: int = 2, **given: Any) -> ConvCase:
    return ConvCase(**_square(rank, **given))


def _pool(rank: int = 2, **given: Any) -> PoolCase:
    return PoolCase(**_square(rank, **given))


def _conv_shapes() -> Iterator[ConvCase]:
    # widths below, at and above vectors and register tiles; one row and one column
    for width in (1, 7, 8, 9, 15, 16, 17, 31, 33, 65):
        yield _conv(size=(3, width), kernel=3, padding=1, c=3, k=17)
    yield _conv(size=(29, 1), kernel=(3, 1), padding=(1, 0))
    yield _conv(size=(13, 17), kernel=3, c=1, k=1)
    # channels below, at and above the blocks
    for c, k in ((1, 3), (3, 1), (37, 53), (53, 37), (16, 32), (15, 31), (17, 33), (64, 48), (8, 64), (130, 5)):
        yield _conv(size=(6, 7), kernel=3, padding=1, c=c, k=k, n=1)
    # pointwise
    for c, k in ((1, 1), (3, 37), (53, 3), (64, 64)):
        yield _conv(size=(7, 9), kernel=1, c=c, k=k)
    yield _conv(size=14, kernel=1, c=37, k=16, stride=2)
    yield _conv(size=(5, 6), kernel=1, c=4, k=6, groups=2, padding=1)
    # depthwise, with multiplier, and groups
    for kernel, stride, dilation in ((3, 1, 1), (3, 2, 1), (5, 1, 1), (5, 2, 1), (7, 1, 1), (3, 1, 2), (2, 3, 1)):
        yield _conv(size=(13, 17), kernel=kernel, stride=stride, dilation=dilation, padding=2, c=19, k=19, groups=19)
    yield _conv(size=7, kernel=3, padding=1, c=32, k=32, groups=32, n=3)
    yield _conv(size=(9, 33), kernel=3, padding=1, c=5, k=10, groups=5)
    yield _conv(size=(8, 5), kernel=3, c=3, k=9, groups=3, padding="same", stride=2)
    for c, k, groups in ((8, 16, 4), (16, 16, 2), (10, 15, 5), (32, 64, 4), (6, 3, 3)):
        yield _conv(size=(9, 8), kernel=3, padding=1, c=c, k=k, groups=groups)
    yield _conv(size=(11, 10), kernel=3, stride=2, dilation=1, c=8, k=8, groups=4)
    # kernels of every size, also as large as the input, and strides beyond the kernel
    for kernel in (2, 4, 5, 6, 7, 11):
        yield _conv(size=(13, 17), kernel=kernel, padding=kernel // 2, n=1)
    for shape in ((1, 7), (7, 1), (3, 5), (13, 17)):
        yield _conv(size=(13, 17), kernel=shape)
    for taps, step in ((2, 3), (1, 2), (3, 5), (3, (1, 2)), (3, (3, 1)), (7, 4)):
        yield _conv(size=(17, 19), kernel=taps, stride=step)
    yield _conv(size=32, kernel=7, stride=2, padding=3, c=3, k=16, n=1)
    yield _conv(size=1, kernel=1, n=1, c=1, k=1)
    yield _conv(size=1, kernel=3, padding=1)
    # dilation
    for apart in (2, 3, (1, 2), (4, 1)):
        yield _conv(size=(13, 17), kernel=3, dilation=apart, padding=2)
    yield _conv(size=19, kernel=3, dilation=2, stride=2, padding=((1, 3), (0, 4)))
    # paddings
    for padding in (((0, 1), (2, 0)), ((3, 0), (0, 5)), (4, 0), "full", "valid"):
        yield _conv(size=(7, 10), kernel=3, padding=padding)
    for kernel, stride, dilation in ((3, 1, 1), (3, 2, 1), (4, 1, 1), (4, 3, 1), (2, 2, 1), (3, 2, 2), (5, 4, 1)):
        for padding in ("same", "same_lower"):
            yield _conv(size=(10, 13), kernel=kernel, stride=stride, dilation=dilation, padding=padding)
    for mode in ("edge", "reflect", "symmetric", "wrap"):
        yield _conv(size=(7, 6), kernel=3, padding=((1, 2), (0, 3)), padding_mode=mode)
        yield _conv(size=(3, 4), kernel=5, stride=2, padding=(7, 5), padding_mode=mode)  # wider than the axis
        yield _conv(size=(9, 8), kernel=4, padding="same", padding_mode=mode, c=4, k=4, groups=4)
    # one and three dimensions
    for given in (
        {"size": 1, "kernel": 1}, {"size": 33, "kernel": 3, "padding": 1}, {"size": 40, "kernel": 9, "stride": 3},
        {"size": 64, "kernel": 3, "dilation": 8, "padding": 8, "c": 17, "k": 16}, {"size": 101, "kernel": 65},
        {"size": 20, "kernel": 4, "padding": "same", "groups": 3, "k": 6},
        {"size": 17, "kernel": 5, "padding": ((4, 0),), "padding_mode": "reflect"},
    ):  # fmt: skip
        yield _conv(1, **given)
    for given in (
        {"size": (3, 4, 5), "kernel": 1}, {"size": (5, 6, 7), "kernel": 3, "padding": 1},
        {"size": (6, 5, 9), "kernel": (1, 3, 3), "padding": (0, 1, 1), "c": 8, "k": 17},
        {"size": (7, 6, 8), "kernel": 2, "stride": (2, 1, 3), "padding": ((1, 0), (0, 1), (2, 0))},
        {"size": (5, 7, 6), "kernel": 3, "dilation": (2, 1, 2), "padding": "same", "n": 1},
        {"size": (4, 5, 6), "kernel": 3, "padding": 1, "c": 6, "k": 6, "groups": 6},
        {"size": (4, 3, 5), "kernel": 2, "padding": "same_lower", "padding_mode": "edge", "stride": 2},
    ):  # fmt: skip
        yield _conv(3, **given)


def _transpose_shapes() -> Iterator[ConvCase]:
    for kernel, stride, padding, extra in (
        (2, 2, 0, 0), (3, 1, 1, 0), (3, 2, 1, 1), (4, 2, 1, 0), (5, 3, 2, 2), (1, 2, 0, 1), (2, 3, 0, 0), (7, 1, 3, 0),
    ):  # fmt: skip
        yield _conv(size=(5, 7), kernel=kernel, stride=stride, padding=padding, output_padding=extra)
    yield _conv(size=(6, 5), kernel=3, stride=(2, 1), dilation=(2, 3), padding=(1, 2), output_padding=(1, 2))
    yield _conv(size=(6, 5), kernel=3, stride=2, c=8, k=12, groups=4, padding=1)
    yield _conv(size=(6, 5), kernel=4, stride=2, c=6, k=6, groups=6, padding=1)
    yield _conv(size=(4, 9), kernel=3, stride=2, padding=((0, 1), (2, 0)))
    yield _conv(size=(4, 9), kernel=3, stride=1, padding="full")
    for kernel, stride in ((3, 2), (4, 2), (2, 3), (5, 1)):
        yield _conv(size=(5, 6), kernel=kernel, stride=stride, padding="same")
        yield _conv(size=(5, 6), kernel=kernel, stride=stride, padding="same_lower")
    yield _conv(size=7, kernel=4, stride=2, c=37, k=17, padding=1, n=1)
    yield _conv(1, size=9, kernel=5, stride=3, padding=1, output_padding=2)
    yield _conv(3, size=(3, 4, 3), kernel=(2, 3, 2), stride=(2, 1, 2), padding=(0, 1, 1))


def _pool_shapes() -> Iterator[PoolCase]:
    for width in (2, 7, 8, 9, 16, 17, 33, 64, 67):
        yield _pool(size=(5, width), kernel=2)
        yield _pool(size=(5, width), kernel=3, stride=2, padding=1)
    for c in (1, 8, 15, 16, 17, 37, 64):
        yield _pool(size=(6, 7), kernel=3, stride=2, c=c)
        yield _pool(size=(5, 5), kernel=2, stride=1, c=c, n=1)
    for kernel, stride in ((1, 1), (1, 2), (2, 3), (3, 1), (5, 1), (7, 3), (4, 4), ((1, 3), (2, 1)), ((13, 17), 1)):
        yield _pool(size=(13, 17), kernel=kernel, stride=stride)
    for ceil in (False, True):
        yield _pool(size=(7, 10), kernel=3, stride=2, ceil_mode=ceil)
        yield _pool(size=(7, 10), kernel=2, stride=3, padding=1, ceil_mode=ceil)
        yield _pool(size=(8, 9), kernel=3, stride=2, padding=((0, 1), (2, 0)), ceil_mode=ceil)
        yield _pool(size=(8, 9), kernel=3, stride=2, padding=((0, 1), (2, 0)), ceil_mode=ceil, count_include_pad=False)
        yield _pool(size=(5, 6), kernel=3, stride=2, padding=1, ceil_mode=ceil, count_include_pad=False)
        yield _pool(size=(9, 12), kernel=3, stride=2, padding=1, dilation=2, ceil_mode=ceil)
        yield _pool(size=(4, 5), kernel=2, stride=2, padding=2, ceil_mode=ceil)  # beyond half: windows of padding only
        yield _pool(size=(4, 5), kernel=2, stride=1, padding=3, ceil_mode=ceil, count_include_pad=False)
        yield _pool(size=(3, 5), kernel=1, stride=4, padding=2, ceil_mode=ceil)
        yield _pool(1, size=11, kernel=4, stride=3, padding=1, ceil_mode=ceil)
        yield _pool(3, size=(5, 6, 4), kernel=(2, 3, 2), stride=(2, 2, 1), padding=(0, 1, 1), ceil_mode=ceil)
    for padding in ("same", "same_lower", "full", "valid"):
        yield _pool(size=(7, 10), kernel=3, stride=2, padding=padding)
        yield _pool(size=(7, 10), kernel=4, stride=1, padding=padding, count_include_pad=False)
    yield _pool(size=(12, 11), kernel=3, stride=1, dilation=(3, 2))
    yield _pool(size=(1, 1), kernel=1)
    yield _pool(1, size=1, kernel=1)
    yield _pool(1, size=35, kernel=8, stride=1)
    yield _pool(3, size=(4, 4, 4), kernel=2)
    yield _pool(3, size=(3, 5, 6), kernel=3, stride=1, padding=1, dilation=(1, 2, 1))


def _variants(shapes: Iterator[Any]) -> Iterator[Any]:
    """Both layouts in float32; float64 in one layout or the other, by turns."""
    for turn, case in enumerate(shapes):
        yield case
        yield replace(case, channels_last=True)
        yield replace(case, channels_last=bool(turn % 2), dtype="float64")


def _pad_shapes() -> Iterator[PadCase]:
    table = (
        ((1,), ((0, 0),)), ((1,), ((2, 3),)), ((5,), ((1, 0),)), ((5,), ((0, 4),)), ((5,), ((13, 17),)),
        ((33,), ((1, 1),)),
        ((4, 5), ((1, 2), (3, 0))), ((4, 64), ((0, 0), (1, 1))), ((2, 3), ((7, 0), (0, 8))),
        ((2, 3, 6, 7), ((0, 0), (0, 0), (1, 1), (1, 1))), ((2, 6, 7, 3), ((0, 0), (2, 1), (1, 2), (0, 0))),
        ((2, 3, 17, 31), ((0, 0), (0, 0), (3, 3), (3, 3))), ((2, 3, 4, 5), ((1, 0), (0, 1), (2, 2), (3, 1))),
        ((1, 2, 3, 4, 5), ((0, 0), (0, 0), (1, 2), (2, 1), (1, 1))), ((2, 3, 1, 2, 2, 3), ((1, 1),) * 6),
        ((2, 1, 3, 1, 2, 2, 1), ((1, 0), (0, 1), (1, 1), (0, 0), (2, 0), (0, 0), (1, 1))),
    )  # fmt: skip
    for shape, widths in table:
        for mode in ("constant", "edge", "reflect", "symmetric", "wrap"):
            yield PadCase(shape, widths, mode)
    for dtype in ("float64", "float16", "uint8", "int16", "int32", "int64", "bool"):
        for mode in ("constant", "reflect"):
            yield PadCase((3, 5, 6), ((0, 0), (1, 2), (2, 1)), mode, dtype)
    yield PadCase((0, 3), ((2, 1), (0, 1)), "constant")
    yield PadCase((0, 3), ((0, 0), (1, 1)), "edge")


CONV_CASES: tuple[ConvCase, ...] = tuple(_variants(_conv_shapes()))
TRANSPOSE_CASES: tuple[ConvCase, ...] = tuple(replace(c, transposed=True) for c in _variants(_transpose_shapes()))
POOL_CASES: tuple[PoolCase, ...] = tuple(_variants(_pool_shapes()))
PAD_CASES: tuple[PadCase, ...] = tuple(_pad_shapes())
