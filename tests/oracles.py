"""Right answers in float64 that share no code with fastconv.

``taps_*`` and ``windows_*`` are written from the definitions with NumPy alone, position by position; PyTorch, SciPy,
ONNX's reference evaluator and numpy.pad stand beside them where they are installed and offer the problem
(``test_oracles.py`` holds all of them against each other).
"""

from __future__ import annotations

import functools
import itertools
import warnings
from typing import Any

import numpy as np
from support import without

from fastconv.testing import ConvCase, PoolCase, conv_inputs, values

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    try:
        import torch
    except ImportError:
        torch = None  # type: ignore[assignment]

Array = np.ndarray


def needs_torch() -> None:
    if torch is None:
        without("torch")


def first(array: Array, channels_last: bool) -> Array:
    """Data with its channels first, in float64."""
    array = np.asarray(array, np.float64)
    return np.moveaxis(array, -1, 1) if channels_last else array


def last(array: Array, channels_last: bool) -> Array:
    """And back."""
    return np.moveaxis(array, 1, -1) if channels_last else array


def weight_first(array: Array, channels_last: bool) -> Array:
    array = np.asarray(array, np.float64)
    return np.moveaxis(array, (-1, -2), (0, 1)) if channels_last else array


def weight_last(array: Array, channels_last: bool) -> Array:
    return np.moveaxis(array, (0, 1), (-1, -2)) if channels_last else array


def pads(padding: Any, size: tuple[int, ...], kernel: Any, stride: Any, dilation: Any) -> list[tuple[int, int]]:
    """(before, after) for each axis; the names worked out by counting upwards until the windows fit."""
    found = []
    for axis, n in enumerate(size):
        span = (kernel[axis] - 1) * dilation[axis] + 1
        if padding == "valid":
            found.append((0, 0))
        elif padding == "full":
            found.append((span - 1, span - 1))
        elif padding in ("same", "same_lower"):
            wanted = len(range(0, n, stride[axis]))
            total = 0
            while (n + total - span) // stride[axis] + 1 < wanted:
                total += 1
            pair = total // 2, total - total // 2
            found.append(pair if padding == "same" else pair[::-1])
        elif isinstance(padding, int):
            found.append((padding, padding))
        else:
            entry = padding[axis]
            found.append((entry, entry) if isinstance(entry, int) else tuple(entry))
    return found


def case_pads(case: Any) -> list[tuple[int, int]]:
    return pads(case.padding, case.size, case.kernel, case.strides, case.dilations)


# ------------------------------------------------------------------------------------------------ convolution


def _over_channels(matrix: Array, data: Array) -> Array:
    """(K, C) times (N, C, ...) over C."""
    return np.moveaxis(np.tensordot(matrix, data, axes=(1, 1)), 0, 1)


def _over_positions(left: Array, right: Array) -> Array:
    """(N, K, ...) times (N, C, ...) over all but the channels: (K, C)."""
    axes = (0, *range(2, left.ndim))
    return np.tensordot(left, right, axes=(axes, axes))


def taps_conv(case: ConvCase, x: Array, w: Array, b: Array | None, pairs: Any = None) -> Array:
    """The definition: for every tap, its weight times the input that it sees."""
    x, w = first(x, case.channels_last), weight_first(w, case.channels_last)
    mode = case.padding_mode
    x = np.pad(x, [(0, 0), (0, 0), *(case_pads(case) if pairs is None else pairs)], mode=mode)
    spans = [(k - 1) * d for k, d in zip(case.kernel, case.dilations, strict=True)]
    out_size = [(n - s - 1) // t + 1 for n, s, t in zip(x.shape[2:], spans, case.strides, strict=True)]
    groups, per_group = case.groups, w.shape[0] // case.groups
    y = np.zeros((x.shape[0], w.shape[0], *out_size))
    for tap in itertools.product(*(range(k) for k in case.kernel)):
        seen = tuple(
            slice(t * d, t * d + (o - 1) * s + 1, s)
            for t, d, o, s in zip(tap, case.dilations, out_size, case.strides, strict=True)
        )
        part = x[(slice(None), slice(None), *seen)]
        for g in range(groups):
            rows = slice(g * per_group, (g + 1) * per_group)
            channels = slice(g * w.shape[1], (g + 1) * w.shape[1])
            y[:, rows] += _over_channels(w[(rows, slice(None), *tap)], part[:, channels])
    if b is not None:
        y += np.asarray(b, np.float64).reshape(-1, *(1,) * case.rank)
    return last(y, case.channels_last)


def _torch_padded(case: ConvCase, x: Any, pairs: Any) -> Any:
    """Padded by copying along one axis after the other, which PyTorch can differentiate in every mode."""
    for axis, (lo, hi) in enumerate(pairs, start=2):
        if case.padding_mode == "constant":
            place = [0, 0] * (x.ndim - axis - 1) + [lo, hi]
            x = torch.nn.functional.pad(x, place)
        else:
            source = np.pad(np.arange(x.shape[axis]), (lo, hi), mode=case.padding_mode)
            x = x.index_select(axis, torch.from_numpy(source))
    return x


def torch_conv_and_gradients(
    case: ConvCase, x: Array, w: Array, b: Array | None, dy: Array | None
) -> tuple[Array, tuple[Array, Array] | None]:
    """The convolution by PyTorch, and where ``dy`` is given the gradients to input and weight."""
    tx = torch.from_numpy(np.ascontiguousarray(first(x, case.channels_last)))
    tw = torch.from_numpy(np.ascontiguousarray(weight_first(w, case.channels_last)))
    tb = None if b is None else torch.from_numpy(np.asarray(b, np.float64))
    tx.requires_grad_(dy is not None)
    tw.requires_grad_(dy is not None)
    conv = getattr(torch.nn.functional, f"conv{case.rank}d")
    y = conv(
        _torch_padded(case, tx, case_pads(case)), tw, tb, stride=case.strides, dilation=case.dilations,
        groups=case.groups,
    )  # fmt: skip
    result = last(y.detach().numpy(), case.channels_last)
    if dy is None:
        return result, None
    y.backward(torch.from_numpy(np.ascontiguousarray(first(dy, case.channels_last))))
    dx, dw = last(tx.grad.numpy(), case.channels_last), weight_last(tw.grad.numpy(), case.channels_last)
    return result, (dx, dw)


def taps_gradients(case: ConvCase, x: Array, w: Array, dy: Array) -> tuple[Array, Array]:
    """The adjoint of ``taps_conv``: what each tap saw gets its gradient, copies of one element are summed."""
    x1, w1 = first(x, case.channels_last), weight_first(w, case.channels_last)
    dy1 = first(dy, case.channels_last)
    widths = [(0, 0), (0, 0), *case_pads(case)]
    padded = np.pad(x1, widths, mode=case.padding_mode)
    number = np.arange(x1.size).reshape(x1.shape)
    keywords = {"constant_values": -1} if case.padding_mode == "constant" else {}
    source = np.pad(number, widths, mode=case.padding_mode, **keywords)
    dpad, dw = np.zeros(padded.shape), np.zeros(w1.shape)
    per_group = w1.shape[0] // case.groups
    for tap in itertools.product(*(range(k) for k in case.kernel)):
        seen = tuple(
            slice(t * d, t * d + (o - 1) * s + 1, s)
            for t, d, o, s in zip(tap, case.dilations, dy1.shape[2:], case.strides, strict=True)
        )
        for g in range(case.groups):
            rows = slice(g * per_group, (g + 1) * per_group)
            place = (slice(None), slice(g * w1.shape[1], (g + 1) * w1.shape[1]), *seen)
            at = (rows, slice(None), *tap)
            dpad[place] += _over_channels(w1[at].T, dy1[:, rows])
            dw[at] = _over_positions(dy1[:, rows], padded[place])
    dx = np.zeros(x1.size)
    inside = source.ravel() >= 0
    np.add.at(dx, source.ravel()[inside], dpad.ravel()[inside])
    return last(dx.reshape(x1.shape), case.channels_last), weight_last(dw, case.channels_last)


@functools.lru_cache(maxsize=8)
def conv(case: ConvCase, kind: str) -> tuple[Array, Array]:
    """The result and the same on absolute values."""
    x, w, b = conv_inputs(case, kind)
    if torch is None:
        return taps_conv(case, x, w, b), taps_conv(case, abs(x), abs(w), abs(b))
    return (
        torch_conv_and_gradients(case, x, w, b, None)[0],
        torch_conv_and_gradients(case, abs(x), abs(w), abs(b), None)[0],
    )


@functools.lru_cache(maxsize=8)
def conv_gradients(case: ConvCase, kind: str) -> tuple[Array, tuple[Array, ...], tuple[Array, ...]]:
    """A gradient of the result, the gradients (x, weight, bias) that follow from it, and those on absolute values."""
    x, w, _ = conv_inputs(case, kind)
    shape = conv(case, kind)[0].shape
    dy = values(kind, shape, case.dtype, case.name + "dy")
    found = []
    for arrays in ((x, w, dy), (abs(x), abs(w), abs(dy))):
        if torch is None:
            dx, dw = taps_gradients(case, *arrays)
        else:
            pair = torch_conv_and_gradients(case, arrays[0], arrays[1], None, arrays[2])[1]
            assert pair is not None
            dx, dw = pair
        db = first(arrays[2], case.channels_last).sum(axis=(0, *range(2, case.rank + 2)))
        found.append((dx, dw, db))
    return dy, found[0], found[1]


# ---------------------------------------------------------------------------------------- transposed convolution


def scatter_conv(case: ConvCase, x: Array, w: Array, b: Array | None) -> Array:
    """The definition of a transposed convolution: every input is stamped onto the result with the whole kernel."""
    x1, w1 = first(x, case.channels_last), weight_first(w, case.channels_last)
    extra = case.output_padding or (0,) * case.rank
    full = [
        (n - 1) * s + (k - 1) * d + 1
        for n, s, k, d in zip(case.size, case.strides, case.kernel, case.dilations, strict=True)
    ]
    if case.padding in ("same", "same_lower"):
        wanted = [n * s for n, s in zip(case.size, case.strides, strict=True)]
        around = pads(case.padding, tuple(wanted), case.kernel, case.strides, case.dilations)
        sizes = wanted
    else:
        around = case_pads(case)
        sizes = [f - lo - hi for f, (lo, hi) in zip(full, around, strict=True)]
    sizes = [s + e for s, e in zip(sizes, extra, strict=True)]
    k_group, c_group = w1.shape[1], w1.shape[0] // case.groups
    room = [max(f, lo + s) for f, (lo, _), s in zip(full, around, sizes, strict=True)]
    y = np.zeros((x1.shape[0], case.k, *room))
    for tap in itertools.product(*(range(k) for k in case.kernel)):
        seen = tuple(
            slice(t * d, t * d + (n - 1) * s + 1, s)
            for t, d, n, s in zip(tap, case.dilations, case.size, case.strides, strict=True)
        )
        for g in range(case.groups):
            rows = slice(g * c_group, (g + 1) * c_group)
            place = (slice(None), slice(g * k_group, (g + 1) * k_group), *seen)
            y[place] += _over_channels(w1[(rows, slice(None), *tap)].T, x1[:, rows])
    crop = tuple(slice(lo, lo + s) for (lo, _), s in zip(around, sizes, strict=True))
    y = y[(slice(None), slice(None), *crop)]
    if b is not None:
        y = y + np.asarray(b, np.float64).reshape(-1, *(1,) * case.rank)
    return last(y, case.channels_last)


@functools.lru_cache(maxsize=8)
def conv_transpose(case: ConvCase, kind: str) -> tuple[Array, Array]:
    """The result and the same on absolute values."""
    x, w, b = conv_inputs(case, kind)
    return scatter_conv(case, x, w, b), scatter_conv(case, abs(x), abs(w), abs(b))


# ---------------------------------------------------------------------------------------------------- pooling


def window_starts(n: int, pair: tuple[int, int], kernel: int, stride: int, dilation: int, ceil: bool) -> list[int]:
    """Where windows start, one after another: while they fit, and with ``ceil`` while something is left to cover."""
    lo, hi = pair
    span = (kernel - 1) * dilation + 1
    starts: list[int] = []
    start = -lo
    while start + span <= n + hi or (ceil and starts and starts[-1] + span < n + hi and start < n):
        starts.append(start)
        start += stride
    return starts


def windows(case: PoolCase) -> list[tuple[tuple[int, ...], list[list[int]]]]:
    """For every output position: the positions its window covers along each axis, some of them outside."""
    along = [
        [
            [start + t * d for t in range(k)]
            for start in window_starts(n, pair, k, s, d, case.ceil_mode)
        ]
        for n, pair, k, s, d in zip(
            case.size, case_pads(case), case.kernel, case.strides, case.dilations, strict=True
        )
    ]  # fmt: skip
    return [
        (place, [axis[i] for axis, i in zip(along, place, strict=True)])
        for place in itertools.product(*(range(len(axis)) for axis in along))
    ]


def _empty_result(case: PoolCase, where: Any) -> Array:
    sizes = [max(place[a] for place, _ in where) + 1 for a in range(case.rank)]
    return np.zeros((case.n, case.c, *sizes))


def windows_max_pool(case: PoolCase, x: Array) -> tuple[Array, Array]:
    """Maxima and their flat indices; the first of equals, the first NaN above all; -inf and -1 for padding alone."""
    x = first(x, case.channels_last)
    where = windows(case)
    y, indices = _empty_result(case, where), _empty_result(case, where).astype(np.int64)
    flat = x.reshape(case.n, case.c, -1)
    for place, axes in where:
        taps = [t for t in itertools.product(*axes) if all(0 <= p < n for p, n in zip(t, case.size, strict=True))]
        at = (slice(None), slice(None), *place)
        if not taps:
            y[at], indices[at] = -np.inf, -1
            continue
        numbers = np.array([np.ravel_multi_index(t, case.size) for t in taps])
        seen = flat[:, :, numbers]
        chosen = np.where(np.isnan(seen), np.inf, seen).argmax(axis=-1)
        nan = np.isnan(seen)
        chosen = np.where(nan.any(axis=-1), nan.argmax(axis=-1), chosen)
        y[at] = np.take_along_axis(seen, chosen[..., None], -1)[..., 0]
        indices[at] = numbers[chosen]
    return last(y, case.channels_last), last(indices, case.channels_last)


def windows_max_pool_backward(case: PoolCase, x: Array, dy: Array, ties: str) -> Array:
    """Gradient to the first maximum, to all of them in full, or split evenly."""
    x, dy = first(x, case.channels_last), first(dy, case.channels_last)
    dx = np.zeros((case.n, case.c, int(np.prod(case.size))))
    flat = x.reshape(dx.shape)
    for place, axes in windows(case):
        taps = [t for t in itertools.product(*axes) if all(0 <= p < n for p, n in zip(t, case.size, strict=True))]
        if not taps:
            continue
        numbers = [int(np.ravel_multi_index(t, case.size)) for t in taps]
        seen, grad = flat[:, :, numbers], dy[(slice(None), slice(None), *place)][..., None]
        nan = np.isnan(seen)
        tied = np.where(nan.any(-1, keepdims=True), nan, seen == np.where(nan, -np.inf, seen).max(-1, keepdims=True))
        if ties == "first":
            tied = tied & (np.cumsum(tied, axis=-1) == 1)
        share = 1 / tied.sum(-1, keepdims=True) if ties == "split" else 1.0
        dx[:, :, numbers] += np.where(tied, grad * share, 0)
    return last(dx.reshape(x.shape), case.channels_last)


def windows_avg_pool(case: PoolCase, x: Array, norm: float | None = None) -> Array:
    """Means; with ``norm`` the sums of powers and their root instead."""
    x = first(x, case.channels_last)
    where = windows(case)
    y = _empty_result(case, where)
    flat = x.reshape(case.n, case.c, -1)
    around = case_pads(case)
    for place, axes in where:
        taps = [t for t in itertools.product(*axes) if all(0 <= p < n for p, n in zip(t, case.size, strict=True))]
        numbers = [int(np.ravel_multi_index(t, case.size)) for t in taps]
        at = (slice(None), slice(None), *place)
        if norm is not None:
            y[at] = (np.abs(flat[:, :, numbers]) ** norm).sum(-1) ** (1 / norm)
        elif (divisor := _divisor(case, axes, around)) and numbers:
            y[at] = flat[:, :, numbers].sum(-1) / divisor
    return last(y, case.channels_last)


def _divisor(case: PoolCase, axes: list[list[int]], around: list[tuple[int, int]]) -> int:
    """What a window's sum is divided by: its positions in the array, with the padding if that counts."""
    divisor = 1
    for positions, n, (lo, hi) in zip(axes, case.size, around, strict=True):
        low, high = (-lo, n + hi) if case.count_include_pad else (0, n)
        divisor *= sum(low <= p < high for p in positions)
    return divisor


def windows_avg_pool_backward(case: PoolCase, dy: Array) -> Array:
    dy = first(dy, case.channels_last)
    dx = np.zeros((case.n, case.c, int(np.prod(case.size))))
    for place, axes in windows(case):
        taps = [t for t in itertools.product(*axes) if all(0 <= p < n for p, n in zip(t, case.size, strict=True))]
        numbers = [int(np.ravel_multi_index(t, case.size)) for t in taps]
        divisor = _divisor(case, axes, case_pads(case))
        if numbers and divisor:
            dx[:, :, numbers] += dy[(slice(None), slice(None), *place)][..., None] / divisor
    return last(dx.reshape(case.n, case.c, *case.size), case.channels_last)
