"""Rows of a run as a table: for the terminal (rich), for plain text, and for the README (markdown)."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from .layers import Layer
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


def _cells(rows: Sequence[Row]) -> Iterator[tuple[bool, Row, list[str]]]:
    """(fastest of its layer, row, the cells) of every row; the layer's name stands once."""
    for _, group in groupby(rows, key=lambda row: row.layer):
        same = list(group)
        best = min((r.seconds for r in same if r.seconds is not None), default=0.0)
        for i, row in enumerate(same):
            fastest = row.seconds is not None and row.seconds == best
            yield (
                fastest,
                row,
                [
                    row.layer if i == 0 else "",
                    row.backend,
                    row.algorithm,
                    duration(row.seconds),
                    "" if row.spread is None else f"±{row.spread / 2:.0%}",
                    rate_text(row),
                    "" if row.seconds is None else f"{row.seconds / best:.3g}x",
                    "" if row.largest_difference is None else f"{row.largest_difference:.1e}",
                    row.note,
                ],
            )


_HEADS = ("layer", "backend", "algorithm", "time", "spread", "rate", "of best", "difference", "")


def rich_table(rows: Sequence[Row], title: str) -> Table:
    """A table for the terminal; the fastest of every layer is green, wrong results are red."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for head in _HEADS:
        right = head in ("time", "spread", "rate", "of best", "difference")
        table.add_column(head, justify="right" if right else "left", no_wrap=bool(head))
    for fastest, row, cells in _cells(rows):
        style = "red" if row.correct is False else "green" if fastest else "dim" if row.seconds is None else ""
        table.add_row(escape(cells[0]), *(f"[{style}]{escape(c)}[/]" if style and c else escape(c) for c in cells[1:]))
    return table


def plain_lines(rows: Sequence[Row]) -> list[str]:
    """The same without rich, for logs."""
    table = [list(_HEADS), *(cells for _, _, cells in _cells(rows))]
    widths = [max(len(line[i]) for line in table) for i in range(len(_HEADS))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table]


def markdown(rows: Sequence[Row], layers: Sequence[Layer], report: dict[str, Any], command: str) -> str:
    """Layers down, backends and peers across: the table of the README."""
    names = list(dict.fromkeys(row.backend for row in rows))
    by_place = {(row.layer, row.backend): row for row in rows}
    threads = report["machine"]["threads"]
    lines = [
        f"Median time of one call, batch {report['settings']['batch']}, float32, "
        f"{threads} thread{'s' if threads > 1 else ''}; NumPy arrays in, new NumPy arrays out "
        f"(PyTorch: its own tensors). Written by `{command}`.",
        "",
        "| layer | " + " | ".join(names) + " | `cpp` runs at |",
        "|---|" + "--:|" * (len(names) + 1),
    ]
    for layer in layers:
        found = [by_place.get((layer.name, name)) for name in names]
        best = min((r.seconds for r in found if r and r.seconds is not None), default=None)
        cells = []
        for row in found:
            text = "-" if row is None else duration(row.seconds)
            cells.append(f"**{text}**" if row is not None and best is not None and row.seconds == best else text)
        cpp = by_place.get((layer.name, "cpp"))
        lines.append(f"| {layer.name} | " + " | ".join(cells) + f" | {rate_text(cpp) if cpp else '-'} |")
    lines += ["", "Measured on: " + "; ".join(summary(report["machine"])) + "."]
    disturbed = sum("disturbed" in row.note for row in rows)
    if disturbed:
        lines[-1] += f" Other work disturbed turns of {disturbed} of these {len(rows)} times."
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
