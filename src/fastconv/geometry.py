"""What the user wrote, checked once and turned into frozen, hashable geometry.

This is the only place that knows strides, paddings, dilations, "same", ``ceil_mode`` and every formula for an
output size. What leaves it is valid and complete: below it a stride is always a tuple of three integers (depth,
height, width), a padding always three (before, after) pairs, one-dimensional and two-dimensional problems have
leading axes of length one, and ``out_size`` is never computed again. A geometry holds no batch size.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from .errors import GeometryError, UnknownNameError

__all__ = [
    "PADDING_MODES", "ConvGeometry", "PadGeometry", "PoolGeometry", "adaptive_windows", "axis_sources", "check_size",
    "conv_geometry", "conv_transpose_geometry", "is_channels_last", "ntuple", "pad_geometry", "parse_padding",
    "pool_geometry",
]  # fmt: skip

Size: TypeAlias = tuple[int, int, int]
Pairs: TypeAlias = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
IntOrTuple: TypeAlias = int | Sequence[int]
Padding: TypeAlias = int | str | Sequence[int] | Sequence[Sequence[int]]

PADDING_MODES = ("constant", "edge", "reflect", "symmetric", "wrap")
PADDING_NAMES = ("valid", "same", "same_lower", "full")
AXES = ("depth", "height", "width")
_CHANNELS_FIRST = {1: "NCW", 2: "NCHW", 3: "NCDHW"}
_CHANNELS_LAST = {1: "NWC", 2: "NHWC", 3: "NDHWC"}
_MAX_ELEMENTS = np.iinfo(np.intp).max // 16  # sixteen bytes: the widest element that any step of ours holds


@dataclass(frozen=True)
class ConvGeometry:
    """A convolution without its batch size; three spatial axes, always.

    For a transposed convolution this is the convolution that it is the adjoint of: ``in_size`` is then the size of
    its result. ``out_size`` is authoritative: a kernel never computes it again.
    """

    rank: int
    channels_last: bool
    in_channels: int
    out_channels: int
    groups: int
    in_size: Size
    kernel: Size
    stride: Size
    dilation: Size
    padding: Pairs
    padding_mode: str
    out_size: Size

    def x_shape(self, batch: int) -> tuple[int, ...]:
        """Shape of the input in this geometry's layout, five axes."""
        return self._data_shape(batch, self.in_channels, self.in_size)

    def out_shape(self, batch: int) -> tuple[int, ...]:
        """Shape of the output in this geometry's layout, five axes."""
        return self._data_shape(batch, self.out_channels, self.out_size)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the weight, five axes: (K, C/groups, *kernel), channels last (*kernel, C/groups, K)."""
        c, k = self.in_channels // self.groups, self.out_channels
        return (*self.kernel, c, k) if self.channels_last else (k, c, *self.kernel)

    def flops(self, batch: int) -> int:
        """Floating-point operations of the direct convolution: two for each multiply-add."""
        per_output = 2 * (self.in_channels // self.groups) * math.prod(self.kernel)
        return batch * self.out_channels * math.prod(self.out_size) * per_output

    def padded(self) -> ConvGeometry:
        """The same convolution on an input that has been padded already."""
        size = tuple(n + lo + hi for n, (lo, hi) in zip(self.in_size, self.padding, strict=True))
        return replace(self, in_size=_three(size), padding=((0, 0),) * 3, padding_mode="constant")

    def channels_first(self) -> ConvGeometry:
        """The same convolution on arrays seen with their channels first."""
        return replace(self, channels_last=False) if self.channels_last else self

    def _data_shape(self, batch: int, channels: int, size: Size) -> tuple[int, ...]:
        return (batch, *size, channels) if self.channels_last else (batch, channels, *size)


@dataclass(frozen=True)
class PoolGeometry:
    """A pooling without batch size; windows may reach past the padding where ``ceil_mode`` rounded up.

    ``count_include_pad`` tells whether an average divides by the padding inside its window too (never by what
    ``ceil_mode`` adds); maxima ignore it. An ``adaptive`` one has its :func:`adaptive_windows` instead.
    """

    rank: int
    channels_last: bool
    channels: int
    in_size: Size
    kernel: Size
    stride: Size
    dilation: Size
    padding: Pairs
    count_include_pad: bool
    out_size: Size
    adaptive: bool = False

    def x_shape(self, batch: int) -> tuple[int, ...]:
        """Shape of the input in this geometry's layout, five axes."""
        return self._data_shape(batch, self.in_size)

    def out_shape(self, batch: int) -> tuple[int, ...]:
        """Shape of the output in this geometry's layout, five axes."""
        return self._data_shape(batch, self.out_size)

    def channels_first(self) -> PoolGeometry:
        """The same pooling on arrays seen with their channels first."""
        return replace(self, channels_last=False) if self.channels_last else self

    def window_counts(self, axis: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        """For each output position along one spatial axis: the positions that an average divides by."""
        if self.adaptive:
            return np.diff(adaptive_windows(self.in_size[axis], self.out_size[axis]))[:, 0]
        n, (lo, hi), kernel, dilation = self.in_size[axis], self.padding[axis], self.kernel[axis], self.dilation[axis]
        first, last = (-lo, n + hi) if self.count_include_pad else (0, n)
        start = np.arange(self.out_size[axis], dtype=np.int64) * self.stride[axis] - lo
        # The taps before a position are as many as dilation steps lead up to it, rounded up.
        before_last, before_first = [np.clip(-((start - end) // dilation), 0, kernel) for end in (last, first)]
        return before_last - before_first

    def _data_shape(self, batch: int, size: Size) -> tuple[int, ...]:
        return (batch, *size, self.channels) if self.channels_last else (batch, self.channels, *size)


@dataclass(frozen=True)
class PadGeometry:
    """Padding of an array whose neighbouring unpadded axes have been merged; any number of axes."""

    in_shape: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    mode: str

    @property
    def out_shape(self) -> tuple[int, ...]:
        """Shape of the padded array."""
        return tuple(n + lo + hi for n, (lo, hi) in zip(self.in_shape, self.pads, strict=True))


def _integer(func: str, name: str, value: Any, minimum: int) -> int:
    """An integer argument, with booleans and floats refused."""
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{func}: {name} must be an integer, received the bool {value!r}")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{func}: {name} must be an integer, received {value!r}") from None
    if number < minimum:
        raise GeometryError(f"{func}: {name} must be at least {minimum}, received {number}")
    return number


def ntuple(func: str, name: str, value: Any, rank: int, minimum: int = 1) -> tuple[int, ...]:
    """One integer for every spatial axis, from an integer or a sequence of ``rank`` integers."""
    if isinstance(value, (str, bytes)):
        raise TypeError(f"{func}: {name} must be an integer or {rank} integers, received {value!r}")
    if isinstance(value, Sequence) or (isinstance(value, np.ndarray) and value.ndim == 1):
        if len(value) != rank:
            entries = "1 entry" if rank == 1 else f"{rank} entries"
            raise GeometryError(f"{func}: {name} must have {entries}, received {value!r}")
        return tuple(_integer(func, name, v, minimum) for v in value)
    return (_integer(func, name, value, minimum),) * rank


def parse_padding(func: str, padding: Any, rank: int) -> str | tuple[tuple[int, int], ...]:
    """One of the four names, or a (before, after) pair for every spatial axis."""
    if isinstance(padding, str):
        if padding not in PADDING_NAMES:
            raise UnknownNameError(
                f"{func}: padding must be an integer, one integer or one pair per axis, or one of "
                f"{', '.join(PADDING_NAMES)}, received {padding!r}"
            )
        return padding
    is_sequence = isinstance(padding, (Sequence, np.ndarray))
    nested = [isinstance(p, (Sequence, np.ndarray)) for p in padding] if is_sequence else [False]
    if not any(nested):
        return tuple((p, p) for p in ntuple(func, "padding", padding, rank, 0))
    if not all(nested):
        raise GeometryError(f"{func}: padding mixes integers and pairs, received {padding!r}")
    if len(padding) != rank:
        raise GeometryError(
            f"{func}: padding must have one (before, after) pair per axis ({rank}), received {padding!r}"
        )
    pairs = []
    for p in padding:
        lo, hi = ntuple(func, "padding", p, 2, 0)
        pairs.append((lo, hi))
    return tuple(pairs)


def is_channels_last(func: str, layout: Any, rank: int) -> bool:
    """Whether a layout name means channels last; None is channels first."""
    if layout is None or layout == _CHANNELS_FIRST[rank]:
        return False
    if layout == _CHANNELS_LAST[rank]:
        return True
    raise UnknownNameError(
        f"{func}: layout must be None, {_CHANNELS_FIRST[rank]!r} or {_CHANNELS_LAST[rank]!r}, received {layout!r}"
    )


def check_size(func: str, what: str, shape: Sequence[int]) -> None:
    """Refuse a shape whose number of elements no memory could hold, before any work is done."""
    if math.prod(shape) > _MAX_ELEMENTS:
        raise GeometryError(
            f"{func}: the {what} would have shape {tuple(shape)}, more elements than memory can address"
        )


def _mode(func: str, mode: Any) -> str:
    if not isinstance(mode, str) or mode not in PADDING_MODES:
        raise UnknownNameError(f"{func}: padding_mode must be one of {', '.join(PADDING_MODES)}, received {mode!r}")
    return mode


def _resolve_padding(
    padding: str | tuple[tuple[int, int], ...],
    sizes: Sequence[int],
    spans: Sequence[int],
    strides: Sequence[int],
) -> tuple[tuple[int, int], ...]:
    """Pairs for every spelling; "same" makes ceil(size / stride) outputs, the odd one at the end."""
    if not isinstance(padding, str):
        return padding
    pairs = []
    for n, span, s in zip(sizes, spans, strides, strict=True):
        if padding == "valid":
            pairs.append((0, 0))
        elif padding == "full":
            pairs.append((span - 1, span - 1))
        else:
            total = max(0, (-(-n // s) - 1) * s + span - n)
            small, large = total // 2, total - total // 2
            pairs.append((small, large) if padding == "same" else (large, small))
    return tuple(pairs)


def _spans(kernel: Sequence[int], dilation: Sequence[int]) -> tuple[int, ...]:
    return tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))


def _three(values: tuple[int, ...], fill: int = 1) -> Size:
    filled = (fill,) * (3 - len(values)) + values
    return filled[0], filled[1], filled[2]


def _steps(steps: tuple[int, ...], counts: tuple[int, ...]) -> Size:
    """Strides or dilations; 1 where there is only one window or tap, so that no number is larger than an array."""
    return _three(tuple(s if n > 1 else 1 for s, n in zip(steps, counts, strict=True)))


def _three_pairs(pairs: tuple[tuple[int, int], ...]) -> Pairs:
    filled = ((0, 0),) * (3 - len(pairs)) + pairs
    return filled[0], filled[1], filled[2]


def _windows(
    func: str, sizes: Sequence[int], spans: Sequence[int], strides: Sequence[int],
    pads: Sequence[tuple[int, int]], ceil_mode: bool = False,
) -> tuple[int, ...]:  # fmt: skip
    """Output size of every axis: how many windows fit, the same formula for convolution and pooling."""
    names = AXES[3 - len(sizes) :]
    out = []
    for name, n, span, s, (lo, hi) in zip(names, sizes, spans, strides, pads, strict=True):
        room = n + lo + hi - span
        if n == 0:
            raise GeometryError(f"{func}: x is empty along {name}, there is no position for a window")
        if room < 0:
            raise GeometryError(
                f"{func}: the kernel covers {span} positions along {name}, more than the padded input has "
                f"({n} + {lo} + {hi} = {n + lo + hi})"
            )
        count = room // s + 1
        # ceil_mode adds a window that reaches past the padded input, but none that starts in the padding after it
        if ceil_mode and room % s and count * s < n + lo:
            count += 1
        out.append(count)
    return tuple(out)


def _split_weight(
    func: str, shape: tuple[int, ...], rank: int, channels_last: bool
) -> tuple[int, int, tuple[int, ...]]:
    """(out_channels, in_channels per group, kernel) of a convolution's weight."""
    if len(shape) != rank + 2:
        order = "(*kernel, C_in/groups, C_out)" if channels_last else "(C_out, C_in/groups, *kernel)"
        raise GeometryError(f"{func}: weight must have {rank + 2} axes, {order}, received shape {shape}")
    k, c, kernel = (shape[-1], shape[-2], shape[:-2]) if channels_last else (shape[0], shape[1], shape[2:])
    if 0 in kernel:
        raise GeometryError(f"{func}: weight has an empty kernel axis, received shape {shape}")
    return k, c, kernel


def _split_data(
    func: str, name: str, shape: tuple[int, ...], rank: int, channels_last: bool
) -> tuple[int, tuple[int, ...]]:
    """(channels, spatial sizes) of an array with or without its batch axis."""
    if len(shape) not in (rank + 1, rank + 2):
        layout = (_CHANNELS_LAST if channels_last else _CHANNELS_FIRST)[rank]
        raise GeometryError(
            f"{func}: {name} must have {rank + 2} axes ({layout}) or {rank + 1} without the batch, "
            f"received shape {shape}"
        )
    body = shape[-(rank + 1) :]
    return (body[-1], body[:-1]) if channels_last else (body[0], body[1:])


def _check_groups(func: str, groups: int, name: str, channels: int) -> None:
    if channels % groups:
        raise GeometryError(f"{func}: groups={groups} does not divide the {channels} {name} channels")


def conv_geometry(
    func: str, rank: int, x_shape: tuple[int, ...], weight_shape: tuple[int, ...], *,
    stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: Any = 1,
    padding_mode: Any = "constant", layout: Any = None,
) -> ConvGeometry:  # fmt: skip
    """Check and normalise the arguments of a convolution; ``func`` is the name that errors begin with."""
    last = is_channels_last(func, layout, rank)
    channels, sizes = _split_data(func, "x", x_shape, rank, last)
    out_channels, per_group, kernel = _split_weight(func, weight_shape, rank, last)
    strides = ntuple(func, "stride", stride, rank)
    dilations = ntuple(func, "dilation", dilation, rank)
    groups = _integer(func, "groups", groups, 1)
    parsed = parse_padding(func, padding, rank)
    mode = _mode(func, padding_mode)
    _check_groups(func, groups, "input", channels)
    _check_groups(func, groups, "output", out_channels)
    if per_group * groups != channels:
        raise GeometryError(
            f"{func}: weight has {per_group} input channels per group (shape {weight_shape}), "
            f"but x has {channels} channels and groups={groups}"
        )
    spans = _spans(kernel, dilations)
    pads = _resolve_padding(parsed, sizes, spans, strides)
    out = _windows(func, sizes, spans, strides, pads)
    for what, shape in (
        ("padded input", (channels, *(n + lo + hi for n, (lo, hi) in zip(sizes, pads, strict=True)))),
        ("output", (out_channels, *out)),
    ):
        check_size(func, what, (*x_shape[: len(x_shape) - rank - 1], *shape))
    return ConvGeometry(
        rank, last, channels, out_channels, groups, _three(sizes), _three(kernel), _steps(strides, out),
        _steps(dilations, kernel), _three_pairs(pads), mode, _three(out),
    )  # fmt: skip


def conv_transpose_geometry(
    func: str, rank: int, x_shape: tuple[int, ...], weight_shape: tuple[int, ...], *,
    stride: Any = 1, padding: Any = 0, output_padding: Any = 0, dilation: Any = 1, groups: Any = 1, layout: Any = None,
) -> ConvGeometry:  # fmt: skip
    """The convolution whose adjoint a transposed convolution is: its ``out_size`` is the size of ``x``."""
    last = is_channels_last(func, layout, rank)
    channels, sizes = _split_data(func, "x", x_shape, rank, last)
    k, per_group, kernel = _split_weight(func, weight_shape, rank, last)
    strides = ntuple(func, "stride", stride, rank)
    dilations = ntuple(func, "dilation", dilation, rank)
    groups = _integer(func, "groups", groups, 1)
    extra = ntuple(func, "output_padding", output_padding, rank, 0)
    parsed = parse_padding(func, padding, rank)
    if k != channels:
        raise GeometryError(
            f"{func}: weight has {k} input channels (shape {weight_shape}), but x has {channels} channels"
        )
    _check_groups(func, groups, "input", channels)
    for name, e, s, d in zip(AXES[3 - rank :], extra, strides, dilations, strict=True):
        if e >= max(s, d):
            raise GeometryError(
                f"{func}: output_padding must be smaller than stride or dilation, received {e} along {name} "
                f"with stride {s} and dilation {d}"
            )
    spans = _spans(kernel, dilations)
    results, pads = [], []
    for axis, (name, n, span, s, e) in enumerate(zip(AXES[3 - rank :], sizes, spans, strides, extra, strict=True)):
        if n == 0:
            raise GeometryError(f"{func}: x is empty along {name}")
        if isinstance(parsed, str) and parsed.startswith("same"):
            size = n * s + e
            lo, hi = _resolve_padding(parsed, (n * s,), (span,), (s,))[0]
        else:
            lo, hi = parsed[axis] if not isinstance(parsed, str) else _resolve_padding(parsed, (n,), (span,), (s,))[0]
            size = (n - 1) * s - lo - hi + span + e
        if size < 1:
            raise GeometryError(
                f"{func}: the result would have {size} positions along {name}: "
                f"({n} - 1) * {s} - {lo} - {hi} + {span} + {e}"
            )
        results.append(size)
        pads.append((lo, hi))
    check_size(func, "output", (*x_shape[: len(x_shape) - rank - 1], per_group * groups, *results))
    return ConvGeometry(
        rank, last, per_group * groups, channels, groups, _three(tuple(results)), _three(kernel),
        _steps(strides, sizes), _steps(dilations, kernel), _three_pairs(tuple(pads)), "constant", _three(sizes),
    )  # fmt: skip


def pool_geometry(
    func: str, rank: int, x_shape: tuple[int, ...], kernel_size: Any, *,
    stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: Any = False,
    count_include_pad: Any = True, layout: Any = None,
) -> PoolGeometry:  # fmt: skip
    """Check and normalise the arguments of a pooling; the stride defaults to the window."""
    last = is_channels_last(func, layout, rank)
    channels, sizes = _split_data(func, "x", x_shape, rank, last)
    kernel = ntuple(func, "kernel_size", kernel_size, rank)
    strides = kernel if stride is None else ntuple(func, "stride", stride, rank)
    dilations = ntuple(func, "dilation", dilation, rank)
    for name, flag in (("ceil_mode", ceil_mode), ("count_include_pad", count_include_pad)):
        if not isinstance(flag, (bool, np.bool_)):
            raise TypeError(f"{func}: {name} must be True or False, received {flag!r}")
    spans = _spans(kernel, dilations)
    pads = _resolve_padding(parse_padding(func, padding, rank), sizes, spans, strides)
    out = _windows(func, sizes, spans, strides, pads, bool(ceil_mode))
    check_size(func, "output", (*x_shape[: len(x_shape) - rank - 1], channels, *out))
    return PoolGeometry(
        rank, last, channels, _three(sizes), _three(kernel), _steps(strides, out), _steps(dilations, kernel),
        _three_pairs(pads), bool(count_include_pad), _three(out),
    )  # fmt: skip


def adaptive_windows(size: int, out: int) -> list[tuple[int, int]]:
    """(start, stop) of every window of adaptive pooling along one axis: floor(i*n/out) to ceil((i+1)*n/out)."""
    return [(i * size // out, -(-(i + 1) * size // out)) for i in range(out)]


def pad_geometry(func: str, shape: tuple[int, ...], pad_width: Any, mode: Any) -> tuple[PadGeometry, tuple[int, ...]]:
    """Geometry with unpadded neighbours merged, and the padded shape with all axes; ``pad_width`` as in np.pad."""
    if not isinstance(mode, str) or mode not in PADDING_MODES:
        raise UnknownNameError(f"{func}: mode must be one of {', '.join(PADDING_MODES)}, received {mode!r}")
    if isinstance(pad_width, dict):  # np.pad since NumPy 2: axis -> width
        widths: list[Any] = [(0, 0)] * len(shape)
        for axis, width in pad_width.items():
            position = _integer(func, "pad_width", axis, -len(shape))
            if position >= len(shape):
                raise GeometryError(f"{func}: pad_width names axis {axis}, but x has {len(shape)} axes")
            widths[position] = width if isinstance(width, Sequence) else (width, width)
        pad_width = widths
    given = np.asarray(pad_width)
    if given.dtype.kind not in "iu":
        raise TypeError(f"{func}: pad_width must hold integers, received {pad_width!r}")
    try:
        pairs = np.broadcast_to(given, (len(shape), 2)).tolist()
    except ValueError:
        raise GeometryError(
            f"{func}: pad_width must be an integer, a (before, after) pair, or one pair for each of the "
            f"{len(shape)} axes, received {pad_width!r}"
        ) from None
    pads = [(lo, hi) for lo, hi in pairs]
    if any(p < 0 for pair in pads for p in pair):
        raise GeometryError(f"{func}: pad_width must be at least 0, received {pad_width!r}")
    for axis, (n, (lo, hi)) in enumerate(zip(shape, pads, strict=True)):
        if n == 0 and (lo or hi) and mode != "constant":
            raise GeometryError(f"{func}: axis {axis} is empty, mode {mode!r} has nothing to repeat there")
    padded = tuple(n + lo + hi for n, (lo, hi) in zip(shape, pads, strict=True))
    check_size(func, "padded array", padded)
    sizes: list[int] = []
    merged: list[tuple[int, int]] = []
    for n, pair in zip(shape, pads, strict=True):
        if pair == (0, 0) and merged and merged[-1] == (0, 0):
            sizes[-1] *= n
        else:
            sizes.append(n)
            merged.append(pair)
    return PadGeometry(tuple(sizes), tuple(merged), mode), padded


def axis_sources(size: int, pads: tuple[int, int], mode: str) -> np.ndarray[Any, np.dtype[np.int64]]:
    """For each position of a padded axis the position it is copied from; -1 where a constant stands.

    Reflections wider than the axis go on reflecting, as np.pad does.
    """
    lo, hi = pads
    position = np.arange(-lo, size + hi, dtype=np.int64)
    inside = (position >= 0) & (position < size)
    if mode == "constant":
        return np.where(inside, position, -1)
    if mode == "edge":
        return position.clip(0, size - 1)
    if mode == "wrap":
        return position % size
    if mode == "symmetric":
        folded = position % (2 * size)
        return np.minimum(folded, 2 * size - 1 - folded)
    period = max(1, 2 * (size - 1))  # reflect; an axis of one position repeats it
    folded = position % period
    return np.minimum(folded, period - folded)
