"""Pieces of HTML that every section uses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from .charts import mark_of
from .figures import Run
from .svg import Canvas

__all__ = ["WIDE", "both", "count", "keys", "setting", "soft", "table"]

WIDE, NARROW = 920, 362  # the widths that pictures are drawn for: a desktop's page, and a phone's


def count(number: int, what: str) -> str:
    """A number and what is counted.

    Examples
    --------
    >>> count(1, "layer"), count(2, "layer")
    ('1 layer', '2 layers')
    """
    return f"{number} {what}" + ("" if number == 1 else "s")


def soft(text: str) -> str:
    """A paragraph that explains."""
    return f'<p class="soft">{text}</p>'


def setting(run: Run) -> str:
    """What the first picture is about."""
    threads, batch = run.first
    return f"{count(threads, 'thread')}, batch {batch}"


def both(draw: Callable[[int], str]) -> str:
    """A picture for the page and one for the phone; the style sheet shows the one that fits."""
    wide, narrow = draw(WIDE), draw(NARROW)
    return f'<div class="wide">{wide}</div><div class="narrow">{narrow}</div>' if wide else ""


def keys(run: Run, names: Sequence[str], *, ours: bool = False) -> str:
    """What the marks mean."""
    parts = []
    for name in [*(["fastconv"] if ours else []), *names]:
        shape, cls = mark_of(name)
        canvas = Canvas(14, name)
        canvas.mark(7, 7, shape, f"dot {cls}", size=5)
        parts.append(f"<span>{canvas.svg(14)}{escape(run.title(name))}</span>")
    return f'<div class="keys">{"".join(parts)}</div>'


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """A table that scrolls sideways where it must; ``numbers`` are its columns of figures."""

    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(
            f'<{tag}{" class=n" if i in numbers else ""}>{cell}</{tag}>' for i, cell in enumerate(cells)
        ) + "</tr>"  # fmt: skip

    return f'<div class="scroll"><table>{line(heads, "th")}{"".join(line(r, "td") for r in rows)}</table></div>'
