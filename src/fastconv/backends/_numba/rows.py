"""What all loops share: which outputs see a tap, and sums along rows. All lengths fit: nothing is checked here."""

from __future__ import annotations

from ..protocol import Array
from .policy import inlined, kernel

__all__ = ["add_row", "add_rows", "dot", "inside"]


@kernel
def inside(offset: int, step: int, size: int, count: int) -> tuple[int, int]:
    """Outputs [first, last) below ``count`` whose tap, at output * step + offset, lies on an axis of ``size``."""
    first = max(0, (step - 1 - offset) // step)
    last = min(count, (size - offset + step - 1) // step)
    return first, max(first, last)


@inlined
def add_row(y: Array, y_step: int, x: Array, x_step: int, n: int, w: float) -> None:
    """Add w * x to y, for n elements."""
    if y_step == 1 and x_step == 1:
        for i in range(n):
            y[i] += w * x[i]
    else:
        for i in range(n):
            y[i * y_step] += w * x[i * x_step]


@inlined
def add_rows(
    y: Array, y_step: int, a: Array, b: Array, c: Array, d: Array, x_step: int, n: int,
    u: float, v: float, w: float, z: float,
) -> None:  # fmt: skip
    """Add u * a + v * b + w * c + z * d to y, for n elements: four rows are read for each one written."""
    if y_step == 1 and x_step == 1:
        for i in range(n):
            y[i] = y[i] + u * a[i] + v * b[i] + w * c[i] + z * d[i]
    else:
        for i in range(n):
            j, k = i * y_step, i * x_step
            y[j] = y[j] + u * a[k] + v * b[k] + w * c[k] + z * d[k]


@inlined
def dot(y: Array, x: Array, step: int, n: int) -> float:
    """Sum of y * x for n elements, in as many lanes as its caller, a reduction, is allowed."""
    total = y.dtype.type(0)
    if step == 1:
        for i in range(n):
            total += y[i] * x[i]
    else:
        for i in range(n):
            total += y[i] * x[i * step]
    return total  # type: ignore[no-any-return]
