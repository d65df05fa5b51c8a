"""As fast as pure NumPy can be: windows copied to columns, one BLAS product per image and group; loops over taps else.

Nothing here holds more than a few megabytes beside its arguments (and one padded image): columns are made in blocks of
output rows. An image is always multiplied by itself, in blocks that follow from its size alone, so that its result does
not depend on its batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..geometry import ConvGeometry, PadGeometry, PoolGeometry, axis_sources
from . import _numpy_pool
from ._numpy_windows import PaddedImages, at, blocks, chunks, is_channels_inner, new, taps, windows
from .protocol import Algorithm, Array, Backend

__all__ = ["NumpyBackend"]

# Bytes of columns made at a time. On 64 channels at 56x56 (7.2 MB of columns) blocks of 2 to 4 MB took 10 to 15% less
# time than the whole image, smaller ones gained nothing more.
_COLUMNS = 1 << 22
# Bytes of a depthwise block: image, sum and product together stay in a second-level cache.
_DEPTHWISE = 1 << 18


class NumpyBackend(Backend):
    """im2col and BLAS; depthwise, pooling and padding as loops over taps or borders. Any strides, so both layouts.

    Threads are those of BLAS, which is left alone: ``set_num_threads`` changes nothing here.
    """

    name = "numpy"
    any_strides = True
    max_pool_dtypes = tuple(np.dtype(code) for code in "?bhilqBHILQefd")

    def config(self) -> dict[str, Any]:
        """The version of NumPy and the BLAS it was built with."""
        blas = np.show_config(mode="dicts").get("Build Dependencies", {}).get("blas", {})
        return {"numpy": np.__version__, "blas": f"{blas.get('name', '?')} {blas.get('version', '?')}"}

    # -- convolution

    def algorithms(self) -> Sequence[Algorithm]:
        """im2col: columns and one product; direct: one tap after the other."""
        return (Algorithm("im2col"), Algorithm("direct"))

    def choose(self, geometry: ConvGeometry, dtype: np.dtype[Any]) -> str:
        """One channel per group has no sum over channels that a matrix product could speed up."""
        depthwise = geometry.in_channels == geometry.groups and geometry.out_channels <= 4 * geometry.groups
        return "direct" if depthwise else "im2col"

    def conv(
        self, geometry: ConvGeometry, x: Array, weight: Array, bias: Array | None,
        activation: str | None, out: Array, algorithm: str,
    ) -> None:  # fmt: skip
        """Columns, taps with a product each, or taps with an elementwise multiply-add, as the shape suggests."""
        if algorithm == "auto":
            algorithm = self.choose(geometry, x.dtype)
        with np.errstate(all="ignore"):
            if weight.size == 0:
                out[...] = 0
            elif algorithm == "im2col":
                _conv_columns(geometry, x, weight, out)
            elif geometry.in_channels == geometry.groups:
                _conv_depthwise(geometry, x, weight, out)
            else:
                _conv_taps(geometry, x, weight, out)
            if bias is not None:
                out += bias[:, None, None, None]

    def conv_backward_data(self, geometry: ConvGeometry, grad_output: Array, weight: Array, dx: Array) -> None:
        """Columns of the gradient by one product, added back tap by tap (col2im); depthwise needs no product."""
        if weight.size == 0:
            dx[...] = 0
            return
        if geometry.in_channels == geometry.groups:
            with np.errstate(all="ignore"):
                _depthwise_backward_data(geometry, grad_output, weight, dx)
            return
        g = geometry
        per_position = max(1, g.in_channels * int(np.prod(g.kernel)) * dx.itemsize)
        images = PaddedImages(g, dx, 1)
        with np.errstate(all="ignore"):
            by_tap = _by_group(g, weight).transpose(3, 4, 5, 0, 2, 1)  # (kd, kh, kw, G, C/G, K/G)
            flat = by_tap.transpose(3, 0, 1, 2, 4, 5).reshape(g.groups, -1, g.out_channels // g.groups)
            for n in range(len(dx)):
                padded = images.buffer(1)
                for box in blocks(g.out_size, _COLUMNS // per_position):
                    dy = grad_output[at(n, slice(None), *box)]
                    size = dy.shape[1:]
                    columns = np.matmul(flat, _for_blas(dy.reshape(g.groups, -1, int(np.prod(size)))))
                    columns = columns.reshape(g.groups, *g.kernel, -1, *size)
                    for t, positions in taps(g):
                        part = padded[positions][at(0, slice(None), *box)]
                        part += columns[at(slice(None), *t)].reshape(part.shape)
                dx[n] = padded[images.inner][0]

    def conv_backward_weight(
        self, geometry: ConvGeometry, grad_output: Array, x: Array, dw: Array, db: Array | None
    ) -> None:
        """One product of gradient and columns per block; blocks and images are summed in float64.

        So the longest chain in the working precision is one block's, however large the batch. Summing in float64 costs
        one pass over the weight per block, and needs no tree of partial sums as pairwise summation would.
        """
        g = geometry
        per_position = max(1, g.in_channels * int(np.prod(g.kernel)) * x.itemsize)
        positions = int(np.prod(g.out_size))
        runs = list(chunks(len(x), per_position * positions, _COLUMNS))
        images = PaddedImages(g, x, runs[0].stop if runs else 0)
        inner = is_channels_inner(x)
        total = np.zeros(_by_group(g, dw).shape)  # (G, K/G, C/G, kd, kh, kw)
        with np.errstate(all="ignore"):
            for run in runs if dw.size else ():
                view = windows(g, images.load(x[run]))
                for box in blocks(g.out_size, _COLUMNS // per_position):
                    columns = _columns(g, view[at(..., *box)], inner, joined=True)[0]
                    dy = grad_output[at(run, slice(None), *box)].swapaxes(0, 1)
                    dy = _for_blas(dy.reshape(g.groups, -1, columns.shape[2]))
                    product = np.matmul(dy, columns.transpose(0, 2, 1))
                    total += _split(g, product, inner)
            _by_group(g, dw)[...] = total
            if db is not None:
                db[...] = grad_output.sum(axis=(0, 2, 3, 4), dtype=np.float64)

    # -- pooling

    def max_pool(self, geometry: PoolGeometry, x: Array, out: Array, indices: Array | None) -> None:
        """Maximum along one axis after the other; indices are looked for afterwards."""
        with np.errstate(all="ignore"):
            _numpy_pool.max_pool(geometry, x, out, indices)

    def max_pool_backward(self, geometry: PoolGeometry, grad_output: Array, x: Array, ties: str, dx: Array) -> None:
        """Tap by tap, where the input equals the maximum."""
        with np.errstate(all="ignore"):
            _numpy_pool.max_pool_backward(geometry, grad_output, x, ties, dx)

    def avg_pool(self, geometry: PoolGeometry, x: Array, out: Array) -> None:
        """Sum along one axis after the other."""
        with np.errstate(all="ignore"):
            _numpy_pool.avg_pool(geometry, x, out)

    def avg_pool_backward(self, geometry: PoolGeometry, grad_output: Array, dx: Array) -> None:
        """Spread along one axis after the other."""
        with np.errstate(all="ignore"):
            _numpy_pool.avg_pool_backward(geometry, grad_output, dx)

    # -- padding and windows as columns

    def pad(self, geometry: PadGeometry, x: Array, value: Array, out: Array) -> None:
        """The inside is copied at once, then the borders of one axis after the other, each from what stands already."""
        inside = [slice(lo, lo + n) for n, (lo, _) in zip(x.shape, geometry.pads, strict=True)]
        out[tuple(inside)] = x
        for axis, (n, pads) in enumerate(zip(x.shape, geometry.pads, strict=True)):
            # axes before this one are complete, of those after it only the inside is
            part = out[at(*(slice(None),) * axis, slice(None), *inside[axis + 1 :])]
            sources = axis_sources(n, pads, geometry.mode)
            for border in (slice(0, pads[0]), slice(pads[0] + n, None)):
                if sources[border].size:
                    border_at = at(*(slice(None),) * axis, border)
                    copied = geometry.mode != "constant"
                    part[border_at] = part.take(sources[border] + pads[0], axis=axis) if copied else value

    def pad_backward(self, geometry: PadGeometry, grad_output: Array, dx: Array) -> None:
        """The inside of the gradient, with the borders of one axis after the other added to it."""
        gradient = grad_output
        with np.errstate(all="ignore"):
            for axis in reversed(range(dx.ndim)):
                n, (lo, hi) = dx.shape[axis], geometry.pads[axis]
                before = (slice(None),) * axis
                inside = gradient[at(*before, slice(lo, lo + n))]
                if geometry.mode != "constant" and (lo or hi):
                    inside = inside.copy()
                    sources = axis_sources(n, (lo, hi), geometry.mode)
                    for position in (*range(lo), *range(lo + n, lo + n + hi)):
                        inside[at(*before, sources[position])] += gradient[at(*before, position)]
                gradient = inside
            dx[...] = gradient

    def im2col(self, geometry: ConvGeometry, x: Array, out: Array) -> None:
        """A copy of the view of all windows, a few images at a time where they must be padded."""
        runs = list(chunks(len(x), int(np.prod(x.shape[1:])) * x.itemsize, _COLUMNS))
        images = PaddedImages(geometry, x, runs[0].stop if runs else 0)
        for run in runs:
            out[run] = windows(geometry, images.load(x[run]))

    def col2im(self, geometry: ConvGeometry, columns: Array, out: Array) -> None:
        """Columns added back tap by tap, a few images at a time."""
        runs = list(chunks(len(out), int(np.prod(out.shape[1:])) * out.itemsize, _COLUMNS))
        images = PaddedImages(geometry, out, runs[0].stop if runs else 0)
        with np.errstate(all="ignore"):
            for run in runs:
                padded = images.buffer(run.stop - run.start)
                for t, positions in taps(geometry):
                    padded[positions] += columns[at(run, slice(None), *t)]
                out[run] = padded[images.inner]


# ------------------------------------------------------------------------------------------- convolution's parts


def _by_group(geometry: ConvGeometry, weight: Array) -> Array:
    """A weight seen as (G, K/G, C/G, kd, kh, kw): splitting an axis is a view for any strides."""
    g = geometry.groups
    return weight.reshape(g, geometry.out_channels // g, *weight.shape[1:])


def _for_blas(matrices: Array) -> Array:
    """The matrices if one of the last two axes has unit stride, else a copy: NumPy hands others to no BLAS."""
    rows, columns = matrices.shape[-2:]
    a, b = matrices.strides[-2:]
    item = matrices.itemsize
    if (b == item and a >= columns * item) or (a == item and b >= rows * item):
        return matrices
    copied: Array = matrices.copy()
    return copied


def _columns(
    geometry: ConvGeometry, view: Array, channels_inner: bool, joined: bool = False, scratch: Array | None = None
) -> Array:
    """Windows (N, C, kd, kh, kw, d, h, w) as matrices (N, G, C/G * taps, d*h*w), or joined (1, G, C/G * taps, N*d*h*w).

    Their rows run over channels and then taps, or over taps and then channels where channels are the inner axis in
    memory: so both are copied along memory. One tap needs no copy if its positions lie evenly.
    """
    g, count, positions = geometry.groups, len(view), int(np.prod(view.shape[5:]))
    view = view.reshape(count, g, -1, *view.shape[2:])  # splits an axis: still a view
    rows = int(np.prod(view.shape[2:6]))
    if rows == view.shape[2] and (count == 1 or not joined):
        return _for_blas(view.reshape(count, g, rows, positions))
    order: tuple[int, ...]
    if channels_inner:
        order = (0, 6, 7, 8, 1, 3, 4, 5, 2)
    elif joined:
        order = (1, 2, 3, 4, 5, 0, 6, 7, 8)
    else:
        order = tuple(range(9))
    source = view.transpose(order)
    buffer = np.empty(source.size, view.dtype) if scratch is None else scratch[: source.size]
    np.copyto(buffer.reshape(source.shape), source)
    matrices, length = (1, count * positions) if joined else (count, positions)
    columns: Array
    if channels_inner:
        columns = buffer.reshape(matrices, length, g, rows).transpose(0, 2, 3, 1)
    else:
        columns = buffer.reshape(matrices, g, rows, length)
    return columns


def _flat_weight(geometry: ConvGeometry, weight: Array, channels_inner: bool) -> Array:
    """A weight as matrices (G, K/G, C/G * taps), its columns in the order of the rows of :func:`_columns`."""
    parts = _by_group(geometry, weight)
    if channels_inner:
        parts = parts.transpose(0, 1, 3, 4, 5, 2)
    flat: Array = np.ascontiguousarray(parts).reshape(*parts.shape[:2], -1)
    return flat


def _split(geometry: ConvGeometry, flat: Array, channels_inner: bool) -> Array:
    """The inverse of :func:`_flat_weight`, as a view (G, K/G, C/G, kd, kh, kw)."""
    c = geometry.in_channels // geometry.groups
    parts: Array
    if channels_inner:
        parts = flat.reshape(*flat.shape[:2], *geometry.kernel, c).transpose(0, 1, 5, 2, 3, 4)
    else:
        parts = flat.reshape(*flat.shape[:2], c, *geometry.kernel)
    return parts


def _multiply_into(geometry: ConvGeometry, weight: Array, columns: Array, target: Array) -> None:
    """Set target (N, K, d, h, w) to weight @ columns: in place where BLAS can write there."""
    shape = (len(target), geometry.groups, -1, int(np.prod(target.shape[2:])))
    into = target.reshape(shape) if target.size else target
    if target.size and np.may_share_memory(into, target) and _for_blas(into) is into:
        np.matmul(weight, columns, out=into)
    else:
        target[...] = np.matmul(weight, columns).reshape(target.shape)


def _conv_columns(geometry: ConvGeometry, x: Array, weight: Array, out: Array) -> None:
    """im2col: several small images are copied at once, a large one in blocks; each is multiplied by itself."""
    g = geometry
    inner = is_channels_inner(x)
    flat = _flat_weight(g, weight, inner)
    per_position = max(1, g.in_channels * int(np.prod(g.kernel)) * x.itemsize)
    positions = int(np.prod(g.out_size))
    in_place = per_position == g.in_channels * x.itemsize and not PaddedImages(g, x, 0).needed
    budget = positions if in_place else _COLUMNS // per_position
    runs = list(chunks(len(x), per_position * positions, _COLUMNS))
    images = PaddedImages(g, x, runs[0].stop if runs else 0)
    scratch = None
    for run in runs:
        view = windows(g, images.load(x[run]))
        for box in blocks(g.out_size, budget):
            part = view[at(..., *box)]
            if scratch is None and not in_place:  # the first block is the largest
                scratch = np.empty(part.size, x.dtype)
            _multiply_into(g, flat, _columns(g, part, inner, scratch=scratch), out[at(run, slice(None), *box)])


def _conv_taps(geometry: ConvGeometry, x: Array, weight: Array, out: Array) -> None:
    """One product for each tap, added up: needs no columns, only one tap's positions at a time."""
    g = geometry
    images = PaddedImages(g, x, 1)
    parts = _by_group(g, weight)
    for n in range(len(x)):
        padded = images.load(x[n : n + 1])
        total = np.zeros((g.groups, g.out_channels // g.groups, int(np.prod(g.out_size))), x.dtype)
        for t, positions in taps(g):
            inputs = padded[positions].reshape(g.groups, -1, total.shape[2])
            total += np.matmul(_for_blas(parts[at(..., *t)]), _for_blas(inputs))
        out[n] = total.reshape(out.shape[1:])


def _conv_depthwise(geometry: ConvGeometry, x: Array, weight: Array, out: Array) -> None:
    """One multiply-add for each tap, on a few channels and rows of an image at a time so that they stay in cache."""
    g = geometry
    images = PaddedImages(g, x, 1)
    parts = _by_group(g, weight)  # (C, K/C, 1, kd, kh, kw)
    each = g.out_channels // g.groups
    axis = 0 if images.size[0] > 1 else 1  # the axis of slabs: what lies inside it is one run of memory
    slab = int(np.prod(images.size[axis + 1 :])) * x.itemsize
    step = g.in_channels if is_channels_inner(x) else max(1, _DEPTHWISE // (slab * images.size[axis]))
    rows = max(1, _DEPTHWISE // (slab * max(1, step)))
    s, span = g.stride[axis], g.dilation[axis] * (g.kernel[axis] - 1) + 1
    for n in range(len(x)):
        padded = images.load(x[n : n + 1], copy=True)[0]
        for first in range(0, g.in_channels, step):
            last = min(first + step, g.in_channels)
            for row in range(0, g.out_size[axis], rows):
                end = min(row + rows, g.out_size[axis])
                d, h, w = (end - row if i == axis else size for i, size in enumerate(g.out_size))
                part = replace(g, out_size=(d, h, w))
                before = (slice(None),) * axis
                source = padded[at(slice(first, last), *before, slice(row * s, (end - 1) * s + span))]
                for m in range(each):
                    target = out[at(n, slice(first * each + m, last * each, each), *before, slice(row, end))]
                    _multiply_add(part, source, parts[first:last, m, 0], target)


def _multiply_add(geometry: ConvGeometry, padded: Array, weight: Array, target: Array) -> None:
    """Set target (C, D', H', W') to the sum over taps of weight (C, kd, kh, kw) times their positions in padded.

    At stride 1 the padded image is taken as one run of positions: tap t is that run shifted, the results that straddle
    two rows are computed and left. NumPy's inner loops are then thousands of elements long instead of one row.
    """
    g = geometry
    c, _, h, w = padded.shape
    whole = (1, c, g.out_size[0], h, w) if g.stride == (1, 1, 1) else (1, c, *g.out_size)
    inner = is_channels_inner(padded[None])
    total, product = new(whole, padded.dtype, inner)[0], new(whole, padded.dtype, inner)[0]
    result = total[:, :, : g.out_size[1], : g.out_size[2]]
    weight = weight.reshape(c, 1, 1, 1, *g.kernel)
    if g.stride == (1, 1, 1):
        run = ((g.out_size[0] - 1) * h + g.out_size[1] - 1) * w + g.out_size[2]
        padded, total, product = (a.reshape(c, -1) for a in (padded, total, product))
        total, product, weight = total[:, :run], product[:, :run], weight[:, :, 0, 0]
    for t, positions in taps(g):
        if g.stride == (1, 1, 1):
            a, b, e = (i * d for i, d in zip(t, g.dilation, strict=True))
            view = padded[:, (a * h + b) * w + e :][:, :run]
        else:
            view = padded[positions]
        into = product if any(t) else total
        np.multiply(view, weight[at(..., *t)], out=into)
        if any(t):
            total += product
    target[...] = result


def _depthwise_backward_data(geometry: ConvGeometry, grad_output: Array, weight: Array, dx: Array) -> None:
    """Add weight times gradient tap by tap, one image and one output channel of every group at a time."""
    g = geometry
    images = PaddedImages(g, dx, 1)
    parts = _by_group(g, weight)[:, :, :, None, None, None]  # (C, K/C, 1, 1, 1, 1, kd, kh, kw)
    each = g.out_channels // g.groups
    for n in range(len(dx)):
        padded = images.buffer(1)[0]
        for m in range(each):
            gradient = grad_output[n, m::each]
            for t, positions in taps(g):
                padded[positions] += parts[at(slice(None), m, ..., *t)][:, 0] * gradient
        dx[n] = padded[images.inner]
