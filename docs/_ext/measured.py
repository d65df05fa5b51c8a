"""The directive ``measured``: the tables of a JSON that ``fastconv bench --json`` wrote."""

from __future__ import annotations

import json
import pathlib
from typing import Any

from docutils import nodes
from phrases import cell, table
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from fastconv.bench.machine import summary
from fastconv.bench.table import duration


class Measured(SphinxDirective):
    """``{measured} layers.json``: one table for each suite, layers down, backends and peers across."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        path = pathlib.Path(self.env.srcdir) / "measured" / self.arguments[0]
        self.env.note_dependency(str(path))
        report = json.loads(path.read_text(encoding="utf-8"))
        rows = report["rows"]
        names = list(dict.fromkeys(row["backend"] for row in rows))
        seconds = {(row["layer"], row["backend"]): row["seconds"] for row in rows}
        suites: dict[str, list[str]] = {}
        for layer in dict.fromkeys(row["layer"] for row in rows):
            suites.setdefault(layer.split("/")[0], []).append(layer)
        found: list[nodes.Node] = []
        for suite, layers in suites.items():
            found.append(nodes.rubric(suite, suite, ids=[nodes.make_id(f"measured {suite}")]))
            lines = [self._line(layer, names, seconds) for layer in layers]
            found.append(table((30, *(10 for _ in names)), ("layer", *names), lines, "measured"))
        machine = "Measured on: " + "; ".join(summary(report["machine"])) + "."
        return [*found, nodes.paragraph(machine, machine)]

    @staticmethod
    def _line(layer: str, names: list[str], seconds: dict[tuple[str, str], float | None]) -> list[nodes.entry]:
        times = [seconds.get((layer, name)) for name in names]
        best = min((t for t in times if t is not None), default=None)
        cells = [cell(nodes.Text(layer.partition("/")[2]))]
        for time in times:
            text = duration(time)
            cells.append(cell(nodes.strong(text, text) if time is not None and time == best else nodes.Text(text)))
        return cells


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("measured", Measured)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
