"""Padding and its gradient as plain loops over rows of arrays with five axes; sources say where positions come from."""

from __future__ import annotations

from ..protocol import Array
from .policy import kernel

__all__ = ["pad", "pad_backward"]

Sources = tuple[Array, Array, Array, Array, Array]


@kernel
def pad(first: int, last: int, x: Array, value: int, out: Array, sources: Sources, before: int) -> None:
    """out[i] = x[source of i], ``value`` where a source is -1; a job is a row, whose data begins at ``before``."""
    _, n1, n2, n3, width = out.shape
    size = x.shape[4]
    for job in range(first, last):
        i3, i2, i1, i0 = job % n3, job // n3 % n2, job // n3 // n2 % n1, job // n3 // n2 // n1
        row = out[i0, i1, i2, i3]
        j0, j1, j2, j3 = sources[0][i0], sources[1][i1], sources[2][i2], sources[3][i3]
        if j0 < 0 or j1 < 0 or j2 < 0 or j3 < 0:
            row[:] = value
            continue
        source = x[j0, j1, j2, j3]
        for i in range(before):
            j = sources[4][i]
            row[i] = source[j] if j >= 0 else value
        row[before : before + size] = source
        for i in range(before + size, width):
            j = sources[4][i]
            row[i] = source[j] if j >= 0 else value


@kernel
def pad_backward(first: int, last: int, dy: Array, dx: Array, sources: Sources, before: int) -> None:
    """dx[source of i] += dy[i] for all i whose first index is in [first, last); dx is zero before."""
    _, n1, n2, n3, width = dy.shape
    size = dx.shape[4]
    for i0 in range(first, last):
        for i1 in range(n1):
            for i2 in range(n2):
                for i3 in range(n3):
                    j0, j1, j2, j3 = sources[0][i0], sources[1][i1], sources[2][i2], sources[3][i3]
                    if j0 < 0 or j1 < 0 or j2 < 0 or j3 < 0:
                        continue
                    row, target = dy[i0, i1, i2, i3], dx[j0, j1, j2, j3]
                    data = row[before:]
                    for i in range(size):
                        target[i] += data[i]
                    for i in range(before):
                        if sources[4][i] >= 0:
                            target[sources[4][i]] += row[i]
                    for i in range(before + size, width):
                        if sources[4][i] >= 0:
                            target[sources[4][i]] += row[i]
