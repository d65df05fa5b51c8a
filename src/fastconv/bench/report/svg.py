"""Drawing in SVG: a list of elements on a canvas, and scales. Colours are classes, so that a page can turn dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

__all__ = ["MARKS", "Canvas", "Log", "ticks_of"]

MARKS = ("circle", "square", "diamond", "triangle")


class Log:
    """Values to positions, by their logarithm.

    Examples
    --------
    >>> round(Log(1, 100, 0, 200)(10), 6)
    100.0
    """

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self.low, self.high = low, high
        self._start, self._per = start, (end - start) / (math.log(high) - math.log(low))

    def __call__(self, value: float) -> float:
        value = min(max(value, self.low), self.high)
        return self._start + (math.log(value) - math.log(self.low)) * self._per


def ticks_of(scale: Log, most: int) -> list[float]:
    """Round values within a scale, not more than so many.

    Examples
    --------
    >>> ticks_of(Log(0.4, 9, 0, 1), 6)
    [0.5, 1.0, 2.0, 5.0]
    """
    low, high = math.floor(math.log10(scale.low)), math.ceil(math.log10(scale.high))
    for steps in ((1.0, 2.0, 5.0), (1.0,)):
        found = [s * 10.0**e for e in range(low, high + 1) for s in steps]
        found = [round(v, 12) if v > 1e-6 else v for v in found if scale.low <= v <= scale.high]
        if len(found) <= most:
            return found
    return found[:: math.ceil(len(found) / most)]


class Canvas:
    """Elements in order; ``svg`` gives the whole."""

    def __init__(self, width: int, title: str) -> None:
        self.width, self._title, self._parts = width, title, list[str]()

    def add(self, tag: str, text: str | None = None, tip: str = "", **given: float | str) -> None:
        """One element; names with underscores stand for hyphens, ``cls`` for class."""
        names = {"cls": "class"}
        attributes = " ".join(
            f'{names.get(k, k.replace("_", "-"))}="{v:.4g}"' if isinstance(v, float)
            else f'{names.get(k, k.replace("_", "-"))}="{escape(str(v))}"'
            for k, v in given.items()
        )  # fmt: skip
        inner = (f"<title>{escape(tip)}</title>" if tip else "") + escape(text or "")
        self._parts.append(f"<{tag} {attributes}>{inner}</{tag}>" if inner else f"<{tag} {attributes}/>")

    def text(self, x: float, y: float, text: str, cls: str = "label", anchor: str = "start") -> None:
        """A line of text; ``y`` is its baseline."""
        self.add("text", text, x=float(x), y=float(y), cls=cls, text_anchor=anchor)

    def line(self, x1: float, y1: float, x2: float, y2: float, cls: str = "grid") -> None:
        """A straight line."""
        self.add("line", x1=float(x1), y1=float(y1), x2=float(x2), y2=float(y2), cls=cls)

    def mark(self, x: float, y: float, shape: str, cls: str, tip: str = "", size: float = 4.5) -> None:
        """A point in one of the shapes."""
        if shape == "circle":
            self.add("circle", tip=tip, cx=float(x), cy=float(y), r=size, cls=cls)
            return
        r = size * (0.9 if shape == "square" else 1.25)
        corners: dict[str, Sequence[tuple[float, float]]] = {
            "square": ((-r, -r), (r, -r), (r, r), (-r, r)),
            "diamond": ((0, -r), (r, 0), (0, r), (-r, 0)),
            "triangle": ((0, -r), (r, 0.8 * r), (-r, 0.8 * r)),
        }
        points = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners[shape])
        self.add("polygon", tip=tip, points=points, cls=cls)

    def svg(self, height: float, style: str = "", cls: str = "") -> str:
        """The picture; with a style it stands alone."""
        head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {height:.0f}" width="{self.width}" '
        head += f'height="{height:.0f}" role="img" aria-label="{escape(self._title)}"'
        head += f' class="{cls}">' if cls else ">"
        return head + (f"<style>{style}</style>" if style else "") + "".join(self._parts) + "</svg>"
