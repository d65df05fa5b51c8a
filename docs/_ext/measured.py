"""The directives ``measured`` and ``measured-on``: tables of what ``fastconv bench --json`` wrote, and the machine.

``docs/measured/keep.py`` makes the file.
"""

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

Seconds = dict[tuple[str, str], float]


class Measured(SphinxDirective):
    """``{measured} layers.json plan``: for one mode a table of each suite, layers down, libraries across.

    A library's time is that of its fastest form, whichever layout that takes.
    """

    required_arguments = 2

    def run(self) -> list[nodes.Node]:
        name, mode = self.arguments
        path = pathlib.Path(self.env.srcdir) / "measured" / name
        self.env.note_dependency(str(path))
        report = json.loads(path.read_text(encoding="utf-8"))
        libraries = {"fastconv": "fastconv"} | {key: peer["title"] for key, peer in report["peers"].items()}
        seconds: Seconds = {}
        suites: dict[str, list[str]] = {}
        ours = {row["layer"] for row in report["rows"] if row["mode"] == "plan" and row["contender"] == "fastconv plan"}
        for row in report["rows"]:
            # what fastconv has no plan for, such as pooling, stands in one table, whatever form the others have
            if mode != (row["mode"] if row["layer"] in ours else "eager"):
                continue
            place = row["layer"], library(row["contender"], libraries)
            seconds[place] = min(row["seconds"], seconds.get(place, row["seconds"]))
            layers = suites.setdefault(row["layer"].split("/")[0], [])
            if row["layer"] not in layers:
                layers.append(row["layer"])
        if not seconds:
            raise self.error(f"{path.name} holds no time of mode {mode}")
        found: list[nodes.Node] = []
        for suite, layers in suites.items():
            there = [key for key in libraries if any((layer, key) in seconds for layer in layers)]
            found.append(nodes.rubric(suite, suite, ids=[nodes.make_id(f"measured {suite} {mode}")]))
            lines = [self._line(layer, there, seconds) for layer in layers]
            head = ("layer", *(libraries[key] for key in there))
            found.append(table((30, *(10 for _ in there)), head, lines, "measured"))
        return found

    @staticmethod
    def _line(layer: str, libraries: list[str], seconds: Seconds) -> list[nodes.entry]:
        times = [seconds.get((layer, key)) for key in libraries]
        best = min(time for time in times if time is not None)
        cells = [cell(nodes.Text(layer.partition("/")[2]))]
        for time in times:
            text = duration(time)
            cells.append(cell(nodes.strong(text, text) if time == best else nodes.Text(text)))
        return cells


class Machine(SphinxDirective):
    """``{measured-on} layers.json``: processor, versions, and how often other work disturbed."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        path = pathlib.Path(self.env.srcdir) / "measured" / self.arguments[0]
        self.env.note_dependency(str(path))
        report = json.loads(path.read_text(encoding="utf-8"))
        turns, disturbed = (sum(row[name] for row in report["rows"]) for name in ("turns", "disturbed"))
        lines = [*summary(report["machine"]), f"turns disturbed by other work: {disturbed} of {turns}"]
        items = [nodes.list_item("", nodes.paragraph(line, line)) for line in lines]
        return [nodes.bullet_list("", *items)]


def library(contender: str, libraries: dict[str, str]) -> str:
    """The library that a contender is a form of: the longest of their names that its own name begins with."""
    names = [name for name in libraries if contender == name or contender.startswith((f"{name} ", f"{name}_"))]
    return max(names, key=len) if names else contender


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("measured", Measured)
    app.add_directive("measured-on", Machine)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
