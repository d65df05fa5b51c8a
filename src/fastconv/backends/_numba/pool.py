"""Pooling and its gradients as plain loops.

Arrays are planes, (P, D, H, W): channels of all images one after the other. A window is taken apart: its rows are first
combined column by column, along contiguous memory, and then the columns of each window are. A job is one row of the
result forward, one plane backward.
"""

from __future__ import annotations

import numpy as np

from ..protocol import Array
from .policy import kernel
from .rows import inside

__all__ = ["avg_pool", "avg_pool_backward", "max_pool", "max_pool_backward", "max_pool_with_indices"]

Three = tuple[int, int, int]


@kernel
def max_pool(
    first: int, last: int, x: Array, out: Array, least: float,
    kernel: Three, stride: Three, dilation: Three, before: Three,
) -> None:  # fmt: skip
    """Maximum of every window, NaN if it holds one, ``least`` if it lies in the padding."""
    _, depth, height, width = x.shape
    _, out_depth, out_height, out_width = out.shape
    columns = np.empty(width, x.dtype)
    for job in range(first, last):
        oy, oz, p = job % out_height, job // out_height % out_depth, job // out_height // out_depth
        columns[:] = least
        for kz in range(kernel[0]):
            iz = oz * stride[0] + kz * dilation[0] - before[0]
            if iz < 0 or iz >= depth:
                continue
            for ky in range(kernel[1]):
                iy = oy * stride[1] + ky * dilation[1] - before[1]
                if iy < 0 or iy >= height:
                    continue
                row = x[p, iz, iy]
                for i in range(width):
                    v, m = row[i], columns[i]
                    columns[i] = v if v > m or v != v else m
        y = out[p, oz, oy]
        y[:] = least
        for kx in range(kernel[2]):
            offset = kx * dilation[2] - before[2]
            start, stop = inside(offset, stride[2], width, out_width)
            if start < stop:
                keep_larger(y[start:], columns[start * stride[2] + offset :], stride[2], stop - start)


@kernel
def keep_larger(y: Array, x: Array, step: int, n: int) -> None:
    """Keep the larger of y and x in y, NaN winning; steps of one and two are worth a loop that the compiler can see."""
    if step == 1:
        for i in range(n):
            v, m = x[i], y[i]
            y[i] = v if v > m or v != v else m
    elif step == 2:
        for i in range(n):
            v, m = x[2 * i], y[i]
            y[i] = v if v > m or v != v else m
    else:
        for i in range(n):
            v, m = x[i * step], y[i]
            y[i] = v if v > m or v != v else m


@kernel
def row_of_maxima(
    x: Array, p: int, oz: int, oy: int, least: float, kernel: Three, stride: Three, dilation: Three, before: Three,
    columns: Array, rows: Array, y: Array, found: Array,
) -> None:  # fmt: skip
    """One row of maxima and their flat positions, -1 for a window in the padding; columns and rows are scratch."""
    _, depth, height, width = x.shape
    columns[:] = least
    rows[:] = -1
    for kz in range(kernel[0]):
        iz = oz * stride[0] + kz * dilation[0] - before[0]
        if iz < 0 or iz >= depth:
            continue
        for ky in range(kernel[1]):
            iy = oy * stride[1] + ky * dilation[1] - before[1]
            if iy < 0 or iy >= height:
                continue
            row, begin = x[p, iz, iy], (iz * height + iy) * width
            for i in range(width):
                v, m = row[i], columns[i]
                better = rows[i] < 0 or v > m or (v != v and m == m)
                columns[i] = v if better else m
                rows[i] = begin + i if better else rows[i]
    y[:] = least
    found[:] = -1
    for kx in range(kernel[2]):
        offset = kx * dilation[2] - before[2]
        start, stop = inside(offset, stride[2], width, y.size)
        for o in range(start, stop):
            v, m = columns[o * stride[2] + offset], y[o]
            at, best = rows[o * stride[2] + offset], found[o]
            # of tied columns the one with the smaller position comes first in row-major order
            tied = (v == m or (v != v and m != m)) and at < best
            if at >= 0 and (best < 0 or v > m or (v != v and m == m) or tied):
                y[o], found[o] = v, at


@kernel
def max_pool_with_indices(
    first: int, last: int, x: Array, out: Array, indices: Array, least: float,
    kernel: Three, stride: Three, dilation: Three, before: Three,
) -> None:  # fmt: skip
    """Maximum of every window, and where it stands in its plane."""
    width = x.shape[3]
    _, out_depth, out_height, _ = out.shape
    columns, rows = np.empty(width, x.dtype), np.empty(width, np.int64)
    for job in range(first, last):
        oy, oz, p = job % out_height, job // out_height % out_depth, job // out_height // out_depth
        row_of_maxima(
            x, p, oz, oy, least, kernel, stride, dilation, before, columns, rows, out[p, oz, oy], indices[p, oz, oy]
        )  # fmt: skip


@kernel
def max_pool_backward(
    first: int, last: int, dy: Array, x: Array, dx: Array, least: float, first_only: bool, split: bool,
    kernel: Three, stride: Three, dilation: Three, before: Three,
) -> None:  # fmt: skip
    """Give each window's gradient to its first maximum, or to all tied ones, in full or split evenly."""
    width = x.shape[3]
    _, out_depth, out_height, out_width = dy.shape
    columns, rows = np.empty(width, x.dtype), np.empty(width, np.int64)
    y, found = np.empty(out_width, x.dtype), np.empty(out_width, np.int64)
    for p in range(first, last):
        dx[p] = 0
        plane = dx[p].reshape(-1)
        for oz in range(out_depth):
            for oy in range(out_height):
                row_of_maxima(x, p, oz, oy, least, kernel, stride, dilation, before, columns, rows, y, found)
                if first_only:
                    for o in range(out_width):
                        if found[o] >= 0:
                            plane[found[o]] += dy[p, oz, oy, o]
                else:
                    share_out(x[p], y, dy[p, oz, oy], dx[p], oz, oy, split, kernel, stride, dilation, before)


@kernel
def share_out(
    x: Array, y: Array, dy: Array, dx: Array, oz: int, oy: int, split: bool,
    kernel: Three, stride: Three, dilation: Three, before: Three,
) -> None:  # fmt: skip
    """Give the gradients of one row of windows to everything in them that equals its maximum."""
    depth, height, width = x.shape
    z, v = oz * stride[0] - before[0], oy * stride[1] - before[1]
    z0, z1 = inside(z, dilation[0], depth, kernel[0])
    y0, y1 = inside(v, dilation[1], height, kernel[1])
    for o in range(y.size):
        left, m = o * stride[2] - before[2], y[o]
        x0, x1 = inside(left, dilation[2], width, kernel[2])
        tied = 0
        for kz in range(z0, z1):
            for ky in range(y0, y1):
                for kx in range(x0, x1):
                    e = x[z + kz * dilation[0], v + ky * dilation[1], left + kx * dilation[2]]
                    tied += e == m or (e != e and m != m)
        g = dy[o] / dy.dtype.type(max(tied, 1)) if split else dy[o]
        for kz in range(z0, z1):
            for ky in range(y0, y1):
                for kx in range(x0, x1):
                    iz, iy, ix = z + kz * dilation[0], v + ky * dilation[1], left + kx * dilation[2]
                    e = x[iz, iy, ix]
                    if e == m or (e != e and m != m):
                        dx[iz, iy, ix] += g


@kernel
def avg_pool(
    first: int, last: int, x: Array, out: Array, counts: tuple[Array, Array, Array],
    kernel: Three, stride: Three, dilation: Three, before: Three,
) -> None:  # fmt: skip
    """Sum of every window over the product of its counts; sums are float64."""
    _, depth, height, width = x.shape
    _, out_depth, out_height, out_width = out.shape
    columns, sums = np.empty(width, np.float64), np.empty(out_width, np.float64)
    for job in range(first, last):
        oy, oz, p = job % out_height, job // out_height % out_depth, job // out_height // out_depth
        columns[:] = 0
        for kz in range(kernel[0]):
            iz = oz * stride[0] + kz * dilation[0] - before[0]
            if iz < 0 or iz >= depth:
                continue
            for ky in range(kernel[1]):
                iy = oy * stride[1] + ky * dilation[1] - before[1]
                if iy < 0 or iy >= height:
                    continue
                row = x[p, iz, iy]
                for i in range(width):
                    columns[i] += row[i]
        sums[:] = 0
        for kx in range(kernel[2]):
            offset = kx * dilation[2] - before[2]
            start, stop = inside(offset, stride[2], width, out_width)
            source, target = columns[start * stride[2] + offset :], sums[start:]
            if stride[2] == 1:
                for i in range(stop - start):
                    target[i] += source[i]
            else:
                for i in range(stop - start):
                    target[i] += source[i * stride[2]]
        y, rows_counted = out[p, oz, oy], counts[0][oz] * counts[1][oy]
        for o in range(out_width):
            count = rows_counted * counts[2][o]
            y[o] = sums[o] / count if count > 0 else 0.0


@kernel
def avg_pool_backward(
    first: int, last: int, dy: Array, dx: Array, counts: tuple[Array, Array, Array],
    kernel: Three, stride: Three, dilation: Three, before: Three,
) -> None:  # fmt: skip
    """Give each output's gradient, over its count, to every input of its window."""
    _, depth, height, width = dx.shape
    _, out_depth, out_height, out_width = dy.shape
    columns, shares = np.empty(width, dx.dtype), np.empty(out_width, dx.dtype)
    for p in range(first, last):
        dx[p] = 0
        for oz in range(out_depth):
            for oy in range(out_height):
                g, rows_counted = dy[p, oz, oy], counts[0][oz] * counts[1][oy]
                for o in range(out_width):
                    count = rows_counted * counts[2][o]
                    shares[o] = g[o] / count if count > 0 else 0.0
                columns[:] = 0
                for kx in range(kernel[2]):
                    offset = kx * dilation[2] - before[2]
                    start, stop = inside(offset, stride[2], width, out_width)
                    target, source = columns[start * stride[2] + offset :], shares[start:]
                    for i in range(stop - start):
                        target[i * stride[2]] += source[i]
                for kz in range(kernel[0]):
                    iz = oz * stride[0] + kz * dilation[0] - before[0]
                    if iz < 0 or iz >= depth:
                        continue
                    for ky in range(kernel[1]):
                        iy = oy * stride[1] + ky * dilation[1] - before[1]
                        if iy < 0 or iy >= height:
                            continue
                        row = dx[p, iz, iy]
                        for i in range(width):
                            row[i] += columns[i]
