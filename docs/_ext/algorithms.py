"""The directive ``algorithms``: the compiled backend's list, from the file that is the list."""

from __future__ import annotations

import importlib
import pathlib
import re
from typing import Any

from docutils import nodes
from phrases import cell, code, table
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

LIST = pathlib.Path(__file__).resolve().parents[2] / "csrc" / "plan" / "algorithms.inc"
_LINE = re.compile(r"^FASTCONV_ALGORITHM\((\w+), (true|false), (\d+), (true|false)\)", re.MULTILINE)
_DOES = {
    "direct": "everything; small blocks of outputs stay in registers",
    "pointwise": "filters of one pixel: a product of matrices",
    "depthwise": "each channel by itself",
    "first_layer": "images with few channels, as the first layer of a network has them",
    "grouped": "many groups of few channels; depthwise filters of volumes, or with several outputs for a channel",
    "winograd_2x3": "3 x 3, stride 1: tiles of 2 x 2 outputs",
    "winograd_4x3": "3 x 3, stride 1: tiles of 4 x 4 outputs",
    "winograd_6x3": "3 x 3, stride 1: tiles of 6 x 6 outputs, on request",
    "winograd_stride2": "stride 2 to 4: even and odd rows and columns (every third, fourth) apart, each by Winograd",
    "winograd_tile6": "any kernel at stride 1, 1-D to 3-D, dilated too: input tiles of up to 6 along an axis",
    "winograd_tile8": "the same with tiles of up to 8, for larger kernels",
    "bf16x3": "float32 on matrix tiles (AMX): every number is the sum of three of bfloat16",
    "fft": "large filters, by their spectra",
    "im2col": "windows as columns and one product of matrices",
}


class Algorithms(SphinxDirective):
    """``{algorithms}``: what each is for; ``{algorithms} numerics``: what each promises."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(LIST))
        listed = _LINE.findall(LIST.read_text(encoding="utf-8"))
        if not listed:
            raise self.error(f"no algorithm found in {LIST.name}")
        if not self.arguments:
            rows = [
                [cell(code(name)), self._text(_DOES.get(name, "")), self._text(auto)] for name, _, _, auto in listed
            ]
            return [table((24, 56, 20), ("algorithm", "what it is for", "may be chosen"), rows, "plain")]
        rules = importlib.import_module("fastconv.testing.tolerance")
        rows = []
        for name, exact, chain, _ in listed:
            random, factor, _ = rules.RANDOM.get(name, rules._DIRECT)
            rows.append([cell(code(name)), *(self._text(str(v)) for v in (exact, chain, factor, random))])
        head = ("algorithm", "exact on integers", "longest chain", "factor", "random data")
        return [table((28, 18, 18, 18, 18), head, rows, "plain")]

    @staticmethod
    def _text(text: str) -> nodes.entry:
        return cell(nodes.Text({"true": "yes", "false": "no"}.get(text, text)))


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("algorithms", Algorithms)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
