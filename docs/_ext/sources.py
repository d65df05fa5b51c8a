"""Links that leave docs/: to files of the repository that are pages or parts of pages of the site too."""

from __future__ import annotations

import pathlib
import posixpath
import re
from typing import Any

from sphinx.application import Sphinx

ROOT = pathlib.Path(__file__).resolve().parents[2]

# file or folder in the repository -> page (and place) of the site
PLACES = {
    "README.md": "start.md",
    "CHANGELOG.md": "changes.md",
    "CONTRIBUTING.md": "extend/contributing.md",
    "RELEASING.md": "extend/releasing.md",
    "csrc/README.md": "extend/compiled.md",
    "examples": "lessons/code.md",
    **{f"examples/{name}.py": f"lessons/code.md#{name}-py" for name in ("explained", "mood", "signs", "digits")},
}
_LINK = re.compile(r"(?<!!)\]\((?!https?:|#)([^)\s]+)\)")


def relink(text: str, folder: str, here: str) -> str:
    """Links of a file in ``folder`` (both below the repository's root), seen from the page ``here`` (below docs/)."""

    def place(found: re.Match[str]) -> str:
        path, _, anchor = found[1].partition("#")
        target = posixpath.normpath(posixpath.join(folder, path))
        if target in PLACES:
            page = PLACES[target]
        elif target.startswith("docs/"):
            page = target.removeprefix("docs/") + (f"#{anchor}" if anchor else "")
        else:
            return found[0]
        return f"]({posixpath.relpath(page, posixpath.dirname(here) or '.')})"

    return _LINK.sub(place, text)


def read(app: Sphinx, name: str, content: list[str]) -> None:
    """Before a page is parsed: whole files of the repository come in, and links to such files become links to pages."""

    def include(found: re.Match[str]) -> str:
        path = found[1]
        app.env.note_dependency(str(ROOT / path))
        return relink((ROOT / path).read_text(encoding="utf-8"), posixpath.dirname(path), name)

    text = re.sub(r"^<!-- the file (\S+) -->$", include, content[0], flags=re.MULTILINE)
    content[0] = relink(text, posixpath.dirname(f"docs/{name}"), name)


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("source-read", read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
