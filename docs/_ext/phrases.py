"""Directives that show the phrasebook: ``phrases`` one library's table, ``rules`` one group of rules side by side."""

from __future__ import annotations

from typing import Any, ClassVar

from docutils import nodes
from phrasebook import LIBRARIES, RULES, TABLES, Row, Rule, spelling
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


def code(text: str) -> nodes.literal:
    return nodes.literal(text, text, classes=["code", "python"], language="python")


def cell(*parts: nodes.Node) -> nodes.entry:
    return nodes.entry("", nodes.paragraph("", "", *parts))


def table(widths: tuple[int, ...], head: tuple[str, ...], rows: list[list[nodes.entry]], kind: str) -> nodes.table:
    group = nodes.tgroup(cols=len(widths))
    group += [nodes.colspec(colwidth=width) for width in widths]
    if head:
        group += nodes.thead("", nodes.row("", *(cell(nodes.Text(name)) for name in head)))
    group += nodes.tbody("", *(nodes.row("", *cells) for cells in rows))
    return nodes.table(
        "", group, classes=["phrases", kind, "colwidths-auto" if kind == "measured" else "colwidths-given"]
    )


class Phrases(SphinxDirective):
    """``{phrases} pytorch``: you write, here you write."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        found = TABLES[self.arguments[0]]
        self.env.note_dependency(__file__)
        shown = [self._row(row) for row in found.rows]
        given, _ = self.state.inline_text(f"In these lines {found.given}".replace("`", "``"), self.lineno)
        return [
            nodes.paragraph("", "", *given),
            table((20, 40, 40), ("", f"{found.title}: you write", "here you write"), shown, "pairs"),
        ]

    @staticmethod
    def _row(row: Row) -> list[nodes.entry]:
        return [cell(nodes.Text(row.what)), cell(code(row.theirs)), cell(code(row.ours))]


class Rules(SphinxDirective):
    """``{rules} pooling``: every rule with its spelling in each library."""

    required_arguments = 1
    names: ClassVar[dict[str, str]] = {"ours": "here"} | LIBRARIES

    def run(self) -> list[nodes.Node]:
        group = self.arguments[0]
        shown: list[nodes.Node] = []
        for rule in RULES[group]:
            name = nodes.make_id(f"{group} {rule.name}")
            shown.append(nodes.rubric(rule.name, rule.name, ids=[name], names=[name]))
            shown.append(nodes.paragraph(rule.why, rule.why))
            shown.append(table((18, 82), (), [self._line(rule, field) for field in self.names], "rule"))
        return shown

    def _line(self, rule: Rule, field: str) -> list[nodes.entry]:
        remark, expression = spelling(getattr(rule, field))
        if field == "ours":
            expression = f"fastconv.{expression}"
        parts: list[nodes.Node] = [nodes.Text(remark + (": " if remark and expression else ""))] if remark else []
        return [cell(nodes.Text(self.names[field])), cell(*parts, *([code(expression)] if expression else []))]


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("phrases", Phrases)
    app.add_directive("rules", Rules)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
