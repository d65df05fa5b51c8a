"""The pictures of a report, each drawn for a given width: points on a logarithmic axis, and the roofline."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..runner import Row
from .figures import Run, geometric_mean, library
from .svg import MARKS, Canvas, Log, ticks_of

__all__ = ["Axis", "Dots", "Point", "by_kind", "dots", "mark_of", "roofline", "times"]

LIBRARIES = ("torch", "onnxruntime", "openvino", "ncnn", "mnn", "tensorflow", "jax", "scipy", "opencv",
             "numpy", "numba", "cython", "reference")  # fmt: skip


@dataclass(frozen=True)
class Point:
    """One mark: where, whose colour and shape, and what is said when it is pointed at."""

    value: float
    who: str
    tip: str = ""


@dataclass(frozen=True)
class Dots:
    """A line of the picture: its name, its points, and one of them labelled directly."""

    label: str
    points: Sequence[Point]
    said: str = ""
    at: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Axis:
    """What the points are measured in."""

    caption: str
    unit: str = "×"
    line: float | None = 1.0
    left: str = ""
    right: str = ""
    low: float = math.inf
    high: float = 0.0
    names: dict[float, str] = field(default_factory=dict)


def mark_of(name: str) -> tuple[str, str]:
    """(shape, class of the colour) of a library: the same in every picture."""
    if name not in LIBRARIES:
        return "circle", "ours"
    return MARKS[LIBRARIES.index(name) % len(MARKS)], f"lib-{name}"


def times(ratio: float) -> str:
    """A ratio as people say it.

    Examples
    --------
    >>> times(2.345), times(12.3), times(345.6)
    ('2.3×', '12×', '346×')
    """
    return f"{ratio:.2f}×" if ratio < 1.95 else f"{ratio:.1f}×" if ratio < 9.95 else f"{ratio:.0f}×"


def _tick(value: float, unit: str) -> str:
    if unit == "e":
        return f"1e{round(math.log10(value))}" if value > 0 else "0"
    return f"{value:g}{unit}"


def dots(width: int, lines: Sequence[Dots], axis: Axis, *, style: str = "", title: str = "") -> str:
    """Lines of points on one logarithmic axis, with a marked line where fastconv and the others are equal."""
    narrow = width < 600
    left = 108 if narrow else 190
    right, row, top = 14, 30 if not narrow else 34, 58 if axis.left else 34
    canvas = Canvas(width, title or axis.caption)
    values = [p.value for line in lines for p in line.points] + ([axis.line] if axis.line else [])
    low, high = min(*values, axis.low), max(*values, axis.high)
    if axis.left:  # room for a name left of the leftmost mark
        low /= 1.5 if narrow else 2.2
    scale = Log(low / 1.12, high * 1.12, left, width - right)
    bottom = top + row * len(lines)
    if axis.line is not None and axis.left:
        canvas.add("rect", x=float(left), y=float(top - 8), width=float(max(scale(axis.line) - left, 0)),
                   height=float(bottom - top + 8), cls="slower")  # fmt: skip
    for tick in ticks_of(scale, 7 if narrow else 11):
        canvas.line(scale(tick), top - 8, scale(tick), bottom)
        canvas.text(scale(tick), top - 14, _tick(tick, axis.unit), "tick", "middle")
    if axis.line is not None:
        canvas.line(scale(axis.line), top - 12, scale(axis.line), bottom + 2, "equal")
        room = scale(axis.line) - left
        if room > (60 if narrow else 130):
            canvas.text(scale(axis.line) - 6, top - 34, "← " + axis.left, "tick", "end")
        if axis.right:
            canvas.text(scale(axis.line) + 6, top - 34, axis.right + " →", "tick")
    for i, line in enumerate(lines):
        middle = top + row * i + row / 2
        canvas.text(left - 8, middle + (0 if narrow and line.note else 4), line.label, "label", "end")
        if line.note:
            canvas.text(left - 8, middle + 12, line.note, "tick", "end") if narrow else None
        canvas.line(left, middle, width - right, middle, "rule")
        for point in line.points:
            shape, cls = mark_of(point.who)
            canvas.mark(scale(point.value), middle, shape, f"dot {cls}", point.tip, 5.2)
        if line.said and line.at is not None:
            _say(canvas, line, scale(line.at), middle, left)
    return canvas.svg(bottom + 8, style)


def _say(canvas: Canvas, line: Dots, x: float, middle: float, left: int) -> None:
    """Name a mark: left of it if it is the first and there is room, else above it, within the picture."""
    wide = 7.2 * len(line.said)
    if line.at == min(p.value for p in line.points) and x - 12 - wide > left:
        canvas.text(x - 10, middle + 4, line.said, "said", "end")
        return
    anchor = "end" if x + wide / 2 > canvas.width else "start" if x - wide / 2 < left else "middle"
    canvas.text(x, middle - 9, line.said, "said", anchor)


def by_kind(run: Run) -> list[Dots]:
    """For every class of layers how many times faster fastconv is than each library, each at its best."""
    found = []
    against = {name: run.by_library(name) for name in run.libraries()}
    for kind in run.kinds():
        points = []
        for name, every in against.items():
            ratios = [a.ratio for a in every if a.kind == kind]
            if ratios:
                ratio = geometric_mean(ratios)
                tip = f"{kind}: {times(ratio)} as fast as {run.title(name)} ({len(ratios)} layers)"
                points.append(Point(ratio, name, tip))
        if points:
            nearest = min(points, key=lambda p: p.value)
            said = f"{run.title(nearest.who)} {times(nearest.value)}"
            found.append(Dots(kind, sorted(points, key=lambda p: -p.value), said, nearest.value))
    return found


def roofline(width: int, run: Run) -> str:
    """Every layer as a point under the roof of this machine: ours filled, the best of the others hollow."""
    threads, _ = run.first
    limit = run.machine.get("limits", {}).get(str(threads)) or {}
    peak, copy = limit.get("fma_gflops"), limit.get("copy_gbs")
    pairs = [
        a for a in run.against() if run.in_first(a.mine) and a.mine.flops and a.mine.bytes and a.kind != "gradients"
    ]
    if not pairs or not peak or not copy:
        return ""
    narrow = width < 600
    left, right, top, bottom = 44, 12, 26, (300 if narrow else 400)
    canvas = Canvas(width, "Roofline: work for each byte, and the rate reached")

    def place(row: Row) -> tuple[float, float]:
        assert row.seconds
        return row.flops / row.bytes, row.flops / row.seconds / 1e9

    spots = [(a, place(a.mine), place(a.theirs)) for a in pairs]
    xs = [p[0] for _, p, _ in spots]
    ys = [y for _, p, q in spots for y in (p[1], q[1])]
    x = Log(min(xs) / 1.5, max(*xs, 2 * peak / copy) * 1.5, left, width - right)
    y = Log(min(ys) / 1.4, max(*ys, peak) * 1.4, bottom, top)
    for tick in ticks_of(x, 6 if narrow else 10):
        canvas.line(x(tick), top, x(tick), bottom)
        canvas.text(x(tick), bottom + 16, f"{tick:g}", "tick", "middle")
    for tick in ticks_of(y, 8):
        canvas.line(left, y(tick), width - right, y(tick))
        canvas.text(left - 6, y(tick) + 4, f"{tick:g}", "tick", "end")
    knee = peak / copy
    start = max(x.low, y.low / copy)
    canvas.line(x(start), y(start * copy), x(knee), y(peak), "roof")
    canvas.line(x(knee), y(peak), width - right, y(peak), "roof")
    # nothing is measured above the slope: the names of both roofs stand there, as far as there is room
    canvas.text(left + 6, y(peak) - 8, f"multiply-adds {peak:.0f} GFLOP/s", "said")
    middle = start * (knee / start) ** 0.55
    fits = x(middle) - 100 > left
    anchor, aside, below = ("end", -8, 0) if fits else ("start", 8, 12)
    canvas.text(x(middle) + aside, y(middle * copy) + below, f"copy {copy:.0f} GB/s", "said", anchor)
    for against, (mine_x, mine_y), (their_x, their_y) in spots:
        canvas.line(x(mine_x), y(mine_y), x(their_x), y(their_y), "link")
        shape, cls = mark_of(library(against.theirs.contender))
        tip = f"{against.case[0]}: {against.theirs.contender} {their_y:.0f} GFLOP/s"
        canvas.mark(x(their_x), y(their_y), shape, f"hollow {cls}", tip, 3.4)
    for against, (mine_x, mine_y), _ in spots:
        tip = f"{against.case[0]}: {against.mine.contender} {mine_y:.0f} GFLOP/s, {mine_y / peak:.0%} of the peak"
        canvas.mark(x(mine_x), y(mine_y), "circle", "dot ours", tip, 4.4)
    farthest = sorted(spots, key=lambda spot: spot[1][1] / min(peak, copy * spot[1][0]))[: 0 if narrow else 3]
    for against, (mine_x, mine_y), _ in farthest:  # where most is left to be gained
        name = against.case[0].partition("/")[2]
        late = x(mine_x) + 8 + 7 * len(name) > width
        canvas.text(x(mine_x) + (-8 if late else 8), y(mine_y) + 4, name, "said", "end" if late else "start")
    canvas.text(left, top - 10, "GFLOP/s", "tick")
    canvas.text(width - right, bottom + 32, "operations for each byte of input, weight and output", "tick", "end")
    return canvas.svg(bottom + 42)
