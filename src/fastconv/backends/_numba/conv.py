"""Convolution and its gradients as plain loops.

Arrays have five axes with channels first, as protocol.py says. A job is one row of the result (a weight, for the
gradient to it), and jobs are counted so that neighbours read the same rows of the input. No job writes what another
one writes, and the order of additions within a job does not depend on its neighbours: however jobs are shared out, the
bits are the same.
"""

from __future__ import annotations

import numpy as np

from ..protocol import Array
from .policy import kernel, reduction
from .rows import add_row, add_rows, dot, inside

__all__ = ["col2im", "conv_backward_data", "conv_backward_weight", "conv_forward", "im2col"]

Three = tuple[int, int, int]


@kernel
def conv_forward(
    first: int, last: int, x: Array, weight: Array, bias: Array, out: Array,
    per_group: int, stride: Three, dilation: Three, before: Three,
) -> None:  # fmt: skip
    """out[n, k] = bias[k] + sum of weight[k, c] * x[n, c] over channels and taps; ``per_group`` outputs share c."""
    _, _, depth, height, width = x.shape
    _, outputs, out_depth, out_height, out_width = out.shape
    _, channels, kd, kh, kw = weight.shape
    for job in range(first, last):
        row, k = job // outputs, job % outputs
        oy, oz, n = row % out_height, row // out_height % out_depth, row // out_height // out_depth
        c0 = k // per_group * channels
        y = out[n, k, oz, oy]
        y[:] = bias[k]
        for kz in range(kd):
            iz = oz * stride[0] + kz * dilation[0] - before[0]
            if iz < 0 or iz >= depth:
                continue
            for ky in range(kh):
                iy = oy * stride[1] + ky * dilation[1] - before[1]
                if iy < 0 or iy >= height:
                    continue
                for kx in range(kw):
                    offset = kx * dilation[2] - before[2]
                    start, stop = inside(offset, stride[2], width, out_width)
                    if start >= stop:
                        continue
                    at, count, target = start * stride[2] + offset, stop - start, y[start:]
                    for c in range(0, channels - 3, 4):
                        add_rows(
                            target, 1,
                            x[n, c0 + c, iz, iy, at:], x[n, c0 + c + 1, iz, iy, at:],
                            x[n, c0 + c + 2, iz, iy, at:], x[n, c0 + c + 3, iz, iy, at:],
                            stride[2], count, weight[k, c, kz, ky, kx], weight[k, c + 1, kz, ky, kx],
                            weight[k, c + 2, kz, ky, kx], weight[k, c + 3, kz, ky, kx],
                        )  # fmt: skip
                    for c in range(channels - channels % 4, channels):
                        add_row(target, 1, x[n, c0 + c, iz, iy, at:], stride[2], count, weight[k, c, kz, ky, kx])


@kernel
def conv_backward_data(
    first: int, last: int, dy: Array, weight: Array, dx: Array,
    per_group: int, stride: Three, dilation: Three, before: Three,
) -> None:  # fmt: skip
    """dx[n, c] = sum of weight[k, c] * dy[n, k] over outputs k and the taps that read each position."""
    _, inputs, depth, height, width = dx.shape
    _, _, out_depth, out_height, out_width = dy.shape
    _, channels, kd, kh, kw = weight.shape
    for job in range(first, last):
        row, c = job // inputs, job % inputs
        iy, iz, n = row % height, row // height % depth, row // height // depth
        k0, c = c // channels * per_group, c % channels
        target_row = dx[n, job % inputs, iz, iy]
        target_row[:] = 0
        for kz in range(kd):
            z = iz + before[0] - kz * dilation[0]
            oz = z // stride[0]
            if z % stride[0] != 0 or oz < 0 or oz >= out_depth:
                continue
            for ky in range(kh):
                y = iy + before[1] - ky * dilation[1]
                oy = y // stride[1]
                if y % stride[1] != 0 or oy < 0 or oy >= out_height:
                    continue
                for kx in range(kw):
                    offset = kx * dilation[2] - before[2]
                    start, stop = inside(offset, stride[2], width, out_width)
                    if start >= stop:
                        continue
                    count, target = stop - start, target_row[start * stride[2] + offset :]
                    for k in range(k0, k0 + per_group - 3, 4):
                        add_rows(
                            target, stride[2],
                            dy[n, k, oz, oy, start:], dy[n, k + 1, oz, oy, start:],
                            dy[n, k + 2, oz, oy, start:], dy[n, k + 3, oz, oy, start:],
                            1, count, weight[k, c, kz, ky, kx], weight[k + 1, c, kz, ky, kx],
                            weight[k + 2, c, kz, ky, kx], weight[k + 3, c, kz, ky, kx],
                        )  # fmt: skip
                    for k in range(k0 + per_group - per_group % 4, k0 + per_group):
                        add_row(target, stride[2], dy[n, k, oz, oy, start:], 1, count, weight[k, c, kz, ky, kx])


@reduction
def conv_backward_weight(
    first: int, last: int, dy: Array, x: Array, dw: Array,
    per_group: int, stride: Three, dilation: Three, before: Three,
) -> None:  # fmt: skip
    """dw[k, c] at each tap = sum of dy[n, k] * x[n, c] there; rows in the arrays' dtype, their total in float64."""
    batch, _, depth, height, width = x.shape
    _, _, out_depth, out_height, out_width = dy.shape
    _, channels, kd, kh, kw = dw.shape
    totals = np.empty((kd, kh, kw), np.float64)
    for job in range(first, last):
        k, c = job // channels, job % channels
        ci = k // per_group * channels + c
        totals[:] = 0
        for n in range(batch):
            for kz in range(kd):
                for ky in range(kh):
                    z, y = kz * dilation[0] - before[0], ky * dilation[1] - before[1]
                    z0, z1 = inside(z, stride[0], depth, out_depth)
                    y0, y1 = inside(y, stride[1], height, out_height)
                    for kx in range(kw):
                        offset = kx * dilation[2] - before[2]
                        start, stop = inside(offset, stride[2], width, out_width)
                        if start >= stop:
                            continue
                        at = start * stride[2] + offset
                        for oz in range(z0, z1):
                            for oy in range(y0, y1):
                                source = x[n, ci, oz * stride[0] + z, oy * stride[1] + y, at:]
                                totals[kz, ky, kx] += dot(dy[n, k, oz, oy, start:], source, stride[2], stop - start)
        dw[k, c] = totals


@kernel
def im2col(first: int, last: int, x: Array, out: Array, stride: Three, dilation: Three, before: Three) -> None:
    """out[p, kz, ky, kx] = plane p of x (P, D, H, W) as each tap sees it, zero outside; a job is a plane."""
    _, depth, height, width = x.shape
    _, kd, kh, kw, out_depth, out_height, out_width = out.shape
    for p in range(first, last):
        for kz in range(kd):
            for ky in range(kh):
                z, y = kz * dilation[0] - before[0], ky * dilation[1] - before[1]
                for kx in range(kw):
                    offset = kx * dilation[2] - before[2]
                    start, stop = inside(offset, stride[2], width, out_width)
                    for oz in range(out_depth):
                        for oy in range(out_height):
                            iz, iy = oz * stride[0] + z, oy * stride[1] + y
                            row = out[p, kz, ky, kx, oz, oy]
                            if iz < 0 or iz >= depth or iy < 0 or iy >= height or start >= stop:
                                row[:] = 0
                                continue
                            row[:start] = 0
                            row[stop:] = 0
                            source = x[p, iz, iy, start * stride[2] + offset :]
                            if stride[2] == 1:
                                row[start:stop] = source[: stop - start]
                            else:
                                for i in range(stop - start):
                                    row[start + i] = source[i * stride[2]]


@kernel
def col2im(first: int, last: int, columns: Array, out: Array, stride: Three, dilation: Three, before: Three) -> None:
    """Add every column back to where it came from; shapes as in im2col, a job is a plane."""
    _, depth, height, width = out.shape
    _, kd, kh, kw, out_depth, out_height, out_width = columns.shape
    for p in range(first, last):
        out[p] = 0
        for kz in range(kd):
            for ky in range(kh):
                z, y = kz * dilation[0] - before[0], ky * dilation[1] - before[1]
                z0, z1 = inside(z, stride[0], depth, out_depth)
                y0, y1 = inside(y, stride[1], height, out_height)
                for kx in range(kw):
                    offset = kx * dilation[2] - before[2]
                    start, stop = inside(offset, stride[2], width, out_width)
                    if start >= stop:
                        continue
                    at = start * stride[2] + offset
                    for oz in range(z0, z1):
                        for oy in range(y0, y1):
                            target = out[p, oz * stride[0] + z, oy * stride[1] + y, at:]
                            source = columns[p, kz, ky, kx, oz, oy, start:]
                            add_row(target, stride[2], source, 1, stop - start, out.dtype.type(1))
