"""The directive ``commandline``: what every command of ``fastconv`` answers to ``--help``."""

from __future__ import annotations

import contextlib
import io
import os
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import fastconv.cli


def help_text(*words: str) -> str:
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "90"
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            fastconv.cli.main([*words, "--help"])
    finally:
        os.environ.pop("COLUMNS") if before is None else os.environ.update(COLUMNS=before)
    return printed.getvalue()


class CommandLine(SphinxDirective):
    """One block for ``fastconv``, and one for each of its commands."""

    def run(self) -> list[nodes.Node]:
        found: list[nodes.Node] = []
        for words in ((), *((name,) for name in fastconv.cli._COMMANDS)):
            title = " ".join(("fastconv", *words))
            text = help_text(*words)
            found += [
                nodes.rubric(title, title, ids=[nodes.make_id(title)]),
                nodes.literal_block(text, text, language="text"),
            ]
        return found


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("commandline", CommandLine)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
