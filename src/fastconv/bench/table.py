"""Rows of a run as a table: for the terminal (rich), for plain text, and for the README (markdown)."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from .layers import Layer
from .load import MUCH
from .machine import summary
from .runner import Row

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["duration", "markdown", "plain_lines", "rate_text", "rich_table", "write_readme"]

_BEGIN, _END = "<!-- begin: measured speed -->", "<!-- end: measured speed -->"


def duration(seconds: float | None) -> str:
    """Seconds as people read them: ``1.23 ms``.

    Examples
    --------
    >>> duration(0.00123)
    '1.23 ms'
    """
    if seconds is None:
        return "-"
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:#.3g}".rstrip(".") + f" {unit}"
    return f"{seconds / 1e-6:#.3g}".rstrip(".") + " µs"


def rate_text(row: Row) -> str:
    """GFLOP/s where there is arithmetic, GB/s where there is only traffic."""
    if row.gflops is not None:
        return f"{row.gflops:.3g} GFLOP/s" if row.gflops < 100 else f"{row.gflops:.0f} GFLOP/s"
    return "-" if row.gbs is None else f"{row.gbs:.3g} GB/s"


def _case(row: Row) -> tuple[str, int, int]:
    return row.layer, row.threads, row.batch


def _cells(rows: Sequence[Row]) -> Iterator[tuple[bool, Row, list[str]]]:
    """(fastest of its case, row, the cells) of every row; the layer's name stands once for each case."""
    several = len({(row.threads, row.batch) for row in rows}) > 1
    for _, group in groupby(rows, key=_case):
        same = list(group)
        if several:
            same.sort(key=lambda r: math.inf if r.seconds is None else r.seconds)
        best = min((r.seconds for r in same if r.seconds is not None), default=0.0)
        for i, row in enumerate(same):
            where = f" ({row.threads} threads, batch {row.batch})" if several else ""
            yield (
                row.seconds is not None and row.seconds == best,
                row,
                [
                    row.layer + where if i == 0 else "",
                    row.contender,
                    row.algorithm,
                    duration(row.seconds),
                    "" if row.spread is None else f"±{row.spread / 2:.0%}",
                    rate_text(row),
                    "" if row.seconds is None else f"{row.seconds / best:.3g}x",
                    "" if row.error is None else f"{row.error:.1e}",
                    row.note,
                ],
            )


_HEADS = ("layer", "who", "algorithm", "time", "spread", "rate", "of best", "error", "")


def rich_table(rows: Sequence[Row], title: str) -> Table:
    """A table for the terminal; the fastest of every case is green, wrong results and failures are red.

    Contenders that cannot do a layer are left out of it: what they lack is told in the JSON and in the report.
    """
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for head in _HEADS:
        right = head in ("time", "spread", "rate", "of best", "error")
        table.add_column(head, justify="right" if right else "left", no_wrap=bool(head))
    for fastest, row, cells in _cells(_shown(rows)):
        bad = row.status in ("wrong", "failed")
        style = "red" if bad else "green" if fastest else "dim" if row.seconds is None else ""
        table.add_row(escape(cells[0]), *(f"[{style}]{escape(c)}[/]" if style and c else escape(c) for c in cells[1:]))
    return table


def _shown(rows: Sequence[Row]) -> list[Row]:
    some = {_case(row) for row in rows if row.status != "unsupported"}
    return [row for row in rows if row.status != "unsupported" or _case(row) not in some]


def plain_lines(rows: Sequence[Row]) -> list[str]:
    """The same without rich, for logs."""
    table = [list(_HEADS), *(cells for _, _, cells in _cells(_shown(rows)))]
    widths = [max(len(line[i]) for line in table) for i in range(len(_HEADS))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table]


def _column(row: Row) -> str:
    """Where a row stands in the README: the ways of a library share a column, but plans of ours have their own."""
    first = row.contender.split(" ")[0]
    return "fastconv plan" if first == "fastconv" and row.mode == "plan" else first


def markdown(rows: Sequence[Row], layers: Sequence[Layer], machine: dict[str, Any], command: str) -> str:
    """The README's table: layers down, libraries across, each at its best, of one number of threads and images."""
    measured = [row for row in rows if row.seconds is not None and not row.contender.endswith("allocator)")]
    threads = min((row.threads for row in measured), default=1)
    batch = min((row.batch for row in measured if row.op != "train"), default=1)
    wanted = {layer.name for layer in layers}
    best: dict[tuple[str, str], float] = {}
    for row in measured:
        if (row.threads, row.batch) == (threads, batch) and row.layer in wanted and row.seconds is not None:
            place = row.layer, _column(row)
            best[place] = min(row.seconds, best.get(place, math.inf))
    names = list(dict.fromkeys(name for _, name in best))
    lines = [
        f"Median time of one call, batch {batch}, float32, {threads} thread{'s' if threads > 1 else ''}; each library "
        "at the best of its layouts and ways, every result checked first. A plan, like the engines, has its weights "
        f"prepacked. Written by `{command}`.",
        "",
        "| layer | " + " | ".join(names) + " |",
        "|---|" + "--:|" * len(names),
    ]
    for layer in layers:
        times = [best.get((layer.name, name)) for name in names]
        least = min((t for t in times if t is not None), default=None)
        cells = [f"**{duration(t)}**" if t == least else duration(t) for t in times]
        if least is not None:
            lines.append(f"| {layer.name} | " + " | ".join(cells) + " |")
    lines += ["", "Measured on: " + "; ".join(summary(machine)) + "."]
    disturbed = sum(row.disturbed == row.turns or row.other > MUCH for row in measured)
    if disturbed:
        lines[-1] += f" {disturbed} of {len(measured)} figures come from turns that other work disturbed."
    return "\n".join(lines)


def write_readme(path: pathlib.Path, text: str) -> None:
    """Put the table between its two markers.

    Raises
    ------
    ValueError
        If the file or its markers are missing.
    """
    if not path.exists():
        raise ValueError(f"{path} does not exist: run this in a checkout of the repository")
    before, begin, rest = path.read_text(encoding="utf-8").partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"{path} lacks the markers {_BEGIN} and {_END}")
    path.write_text(f"{before}{_BEGIN}\n{text}\n{_END}{after}", encoding="utf-8")
