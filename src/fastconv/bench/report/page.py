"""The report as one HTML file: the answer first, then the losses, then everything else."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from .charts import Axis, by_kind, dots, mark_of, times
from .figures import Run, geometric_mean
from .parts import WIDE, both, count, keys, setting, soft
from .sections import sections
from .style import PAGE, PICTURE
from .svg import Canvas

__all__ = ["headline", "html", "picture"]

_FASTER = Axis("times faster than each library", left="fastconv slower", right="fastconv faster", low=0.5, high=4.0)


def headline(run: Run) -> str:
    """One sentence: what this run found."""
    pairs = [a for a in run.against() if run.in_first(a.mine)]
    if not pairs:
        return "This run holds no figures of fastconv beside another library."
    faster, slower = (sum(a.verdict == v for a in pairs) for v in (1, -1))
    mean = geometric_mean(a.ratio for a in pairs)
    level = len(pairs) - faster - slower
    others, backends = len(run.libraries()), set(run.libraries()) <= {"numpy", "numba", "cython", "reference"}
    what = "other backend" + "s" * (others > 1) if backends else "other library" if others == 1 else "other libraries"
    rest = " and ".join([f"level on {level}"] * bool(level) + [f"slower on {slower or 'none'}"])
    return (
        f"fastconv is faster than the best of {others} {what} on {faster} "
        f"of {count(len(pairs), 'layer')}, {rest}; {times(mean)} as fast in the mean."
    )


def html(told: Any) -> str:
    """The whole page; ``told`` is a run's JSON, from here or from elsewhere."""
    run = Run.read(told)
    lines = by_kind(run)
    parts = ["<h1>fastconv bench</h1>", f'<p class="lead">{escape(headline(run))}</p>']
    if run.missing:
        lacks = "".join(f"<li>{escape(m)}</li>" for m in run.missing)
        parts.append(f'<div class="note">What this report lacks:<ul>{lacks}</ul></div>')
    if lines:
        cpu = str(run.machine.get("cpu", "an unknown processor"))
        text = (
            f"{escape(cpu)}, {setting(run)}, float32. A mark is the geometric mean over the layers of one class, each "
            "side at its best; the nearest library is named."
        )
        parts.append(soft(text))
        parts.append(keys(run, run.libraries()) + both(lambda w: dots(w, lines, _FASTER)))
    for title, body in sections(run):
        if body:
            parts.append(f"<h2>{escape(title)}</h2>{body}")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/><title>fastconv bench</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
        f"<style>{PAGE}</style></head><body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def picture(told: Any) -> str:
    """The first picture alone, as an SVG file with its own colours, or an empty text if there is nothing to show."""
    run = Run.read(told)
    lines = by_kind(run)
    if not lines:
        return ""
    names = run.libraries()
    body = dots(WIDE, lines, _FASTER, style=PICTURE, title=headline(run))
    return _with_keys(body, [(run.title(n), *mark_of(n)) for n in names])


def _with_keys(body: str, keys: Sequence[tuple[str, str, str]]) -> str:
    """The picture with its marks explained in a line below it."""
    head, _, rest = body.partition(">")
    height = int(head.partition('height="')[2].partition('"')[0])
    canvas, x = Canvas(WIDE, ""), 14.0
    for title, shape, cls in keys:
        canvas.mark(x, height + 14, shape, f"dot {cls}", size=5)
        canvas.text(x + 11, height + 18, title, "label")
        x += 34 + 7.6 * len(title)
    inner = canvas.svg(1).partition(">")[2].removesuffix("</svg>")
    tall = head.replace(f'height="{height}"', f'height="{height + 30}"').replace(f' {height}"', f' {height + 30}"')
    return f"{tall}>{rest.removesuffix('</svg>')}{inner}</svg>\n"
