"""What every picture shares: its colours, a mosaic of maps, and matplotlib, imported when the first one is drawn."""

from __future__ import annotations

import os
import pathlib
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "ACCENT",
    "FAINT",
    "GRID",
    "INK",
    "PAPER",
    "SERIES",
    "Array",
    "Path",
    "finish",
    "mosaic",
    "new_figure",
    "plain",
]

Array = NDArray[Any]
Path = str | os.PathLike[str]

INK, FAINT, GRID, PAPER, ACCENT = "#1b1b1f", "#6b6b76", "#e4e4ea", "#ffffff", "#d9480f"
SERIES = ("#1f6feb", "#d9480f", "#2b8a3e", "#7048e8", "#b08900", "#c2255c")


def new_figure(func: str, width: float, height: float, dpi: int = 110) -> Figure:
    """An empty figure; an ImportError that says what to install where matplotlib is absent."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError(
            f"{func} draws with matplotlib, which is not installed: pip install 'fastconv[viz]'"
        ) from None
    return Figure(figsize=(width, height), dpi=dpi, facecolor=PAPER)


def finish(figure: Figure, path: Path | None) -> Figure:
    """Save the figure if a path is given, making its folder; the ending says in which format."""
    if path is not None:
        make_folder(path)
        figure.savefig(path)
    return figure


def make_folder(path: Path) -> None:
    """The folder that a file is to lie in."""
    pathlib.Path(path).absolute().parent.mkdir(parents=True, exist_ok=True)


def plain(axes: Any, title: str = "", **given: Any) -> None:
    """No frame, and a small title on the left."""
    axes.set_axis_off()
    if title:
        axes.set_title(title, **{"fontsize": 10, "color": INK, "loc": "left", "pad": 5, **given})


def mosaic(maps: Array, columns: int, gap: int, fill: float) -> Array:
    """Maps (n, h, w) or colour images (n, h, w, 3) side by side, with a gap between them."""
    n, height, width = maps.shape[:3]
    lines = -(-n // columns)
    shape = (lines * (height + gap) - gap, columns * (width + gap) - gap, *maps.shape[3:])
    picture = np.full(shape, fill, maps.dtype)
    for i, one in enumerate(maps):
        top, left = (i // columns) * (height + gap), (i % columns) * (width + gap)
        picture[top : top + height, left : left + width] = one
    return picture


def columns_for(count: int, wide: float = 1.6) -> int:
    """How many columns make ``count`` squares about ``wide`` times as wide as high, with full rows if that is near."""
    best = max(1, round(float(np.sqrt(count * wide))))
    near = [c for c in range(max(1, best - 2), best + 4) if count % c == 0]
    return min(near, key=lambda c: abs(c - best)) if near else min(best, count)
