"""What users of other libraries write, and what they write here, as data: pages show it, and tests run every line.

A row holds an expression of the other library and one of ours that gives the same array. Both see the same numbers
under the names that ``given`` explains; the other library sees them as its own tensors. ``rules`` sets four libraries
side by side.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LIBRARIES", "RULES", "TABLES", "Row", "Rule", "Table", "spelling"]


@dataclass(frozen=True)
class Row:
    """What is computed, the other library's expression, and ours."""

    what: str
    theirs: str
    ours: str


@dataclass(frozen=True)
class Table:
    """One library's table: its title, the package to be imported, and what the expressions may use."""

    title: str
    package: str
    imports: str
    given: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Rule:
    """One rule and its spelling everywhere.

    A spelling is an expression, or a remark, a bar and then perhaps an expression: see :func:`spelling`. Expressions
    of TensorFlow and Keras see the data channels last, those of PyTorch, ONNX and ours channels first. ONNX has no
    functions: ``Conv(x, w, strides=[2, 2])`` stands for a node of that operator with these attributes.
    """

    name: str
    why: str
    ours: str
    pytorch: str
    tensorflow: str
    keras: str
    onnx: str


def spelling(text: str) -> tuple[str, str]:
    """(remark, expression) of one library's entry in a rule; either may be empty."""
    remark, _, code = text.rpartition("|")
    return remark.strip(), code.strip()


from .keras import KERAS  # noqa: E402  the modules of rows need the classes above
from .opencv import OPENCV  # noqa: E402
from .pytorch import PYTORCH  # noqa: E402
from .rules import RULES  # noqa: E402
from .scipy import SCIPY  # noqa: E402

TABLES = {"pytorch": PYTORCH, "keras": KERAS, "scipy": SCIPY, "opencv": OPENCV}

LIBRARIES = {"pytorch": "PyTorch", "tensorflow": "TensorFlow", "keras": "Keras", "onnx": "ONNX"}
