"""The graph of a model as an SVG, written by hand: a box for every call of a layer, shapes on the edges."""

from __future__ import annotations

import html
import pathlib
from dataclasses import dataclass, field
from typing import Any

from ._drawing import FAINT, INK, Path, make_folder

__all__ = ["plot_model"]

BOX_WIDTH, BOX_HEIGHT, ACROSS, DOWN, MARGIN = 190.0, 46.0, 46.0, 50.0, 24.0
LANE = 26.0  # the width an edge takes beside boxes that it passes

# the first word that a layer's class contains decides its colours: (box, border)
_KINDS = (
    ("Input", "#f1f3f5", "#868e96"),
    ("Padding", "#fff4e6", "#e8590c"),
    ("Pooling", "#e6fcf5", "#099268"),
    ("Normalization", "#f3f0ff", "#7048e8"),
    ("Conv", "#e7f5ff", "#1c7ed6"),
    ("Dense", "#fff0f6", "#d6336c"),
    ("Add", "#fff9db", "#b08900"),
    ("Concatenate", "#fff9db", "#b08900"),
    ("", "#f8f9fa", "#adb5bd"),
)


@dataclass(eq=False)
class _Spot:
    """Where a node, or an edge on its way past a row, is drawn."""

    row: int
    node: Any = None  # None: an edge passes
    x: float = 0.0
    above: list[_Spot] = field(default_factory=list)

    @property
    def width(self) -> float:
        return LANE if self.node is None else BOX_WIDTH

    @property
    def y(self) -> float:
        return MARGIN + self.row * (BOX_HEIGHT + DOWN)


def plot_model(model: Any, path: Path | None = None, *, show_shapes: bool = True) -> str:
    """Draw the graph of a model from top to bottom.

    Parameters
    ----------
    model : fastconv.nn.Model
        Sequential or Functional; several inputs and outputs, shared layers and skip connections are drawn as they are.
    path : path, optional
        Where to save it; by custom it ends in ``.svg``.
    show_shapes : bool, default True
        Whether the shape of what flows is written on the edges.

    Returns
    -------
    str
        The SVG.

    Raises
    ------
    ValueError
        If a Sequential model does not know the shape of its input yet.

    Examples
    --------
    >>> from fastconv import nn, viz
    >>> model = nn.Sequential([nn.Input((8, 8, 1)), nn.Conv2D(4, 3), nn.Flatten(), nn.Dense(2)])
    >>> viz.plot_model(model)[:4]
    '<svg'
    """
    outputs = list(getattr(model, "outputs", None) or [])
    if not outputs:
        raise ValueError(f"plot_model: model {model.name!r} has no graph yet: give it an Input or build it first")
    stop = {tensor.node for tensor in model.inputs}
    rows = _rows(_order([tensor.node for tensor in outputs], stop), stop)
    width = _place(rows)
    height = MARGIN * 2 + len(rows) * (BOX_HEIGHT + DOWN) - DOWN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" font-family="Helvetica, Arial, sans-serif">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0,0.5 L8,4 L0,7.5 z" fill="{FAINT}"/></marker></defs>',
        f'<rect width="{width:.0f}" height="{height:.0f}" fill="white"/>',
        f"<title>{html.escape(str(model.name))}</title>",
    ]
    for row in rows:
        for spot in row:
            if spot.node is not None:
                parts += [_edge(spot, above, i) for i, above in enumerate(spot.above)]
    if show_shapes:
        parts += [_label(spot, takers) for spot, takers in _takers(rows).items() if spot.node is not None]
    for row in rows:
        parts += [_box(spot, spot.node.output in outputs) for spot in row if spot.node is not None]
    svg = "\n".join([*parts, "</svg>\n"])
    if path is not None:
        make_folder(path)
        pathlib.Path(path).write_text(svg, encoding="utf-8")
    return svg


def _order(ends: list[Any], stop: set[Any]) -> list[Any]:
    """Nodes, each after those it takes from."""
    done: list[Any] = []
    seen: set[Any] = set()
    stack = [(node, False) for node in reversed(ends)]
    while stack:
        node, ready = stack.pop()
        if ready:
            done.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            if node not in stop:
                stack += [(tensor.node, False) for tensor in reversed(node.inputs)]
    return done


def _rows(nodes: list[Any], stop: set[Any]) -> list[list[_Spot]]:
    """Every node below all it takes from; an edge that passes rows gets a spot in each of them."""
    spots: dict[Any, _Spot] = {}
    for node in nodes:
        taken = [] if node in stop else [spots[tensor.node] for tensor in node.inputs]
        spots[node] = _Spot(max((spot.row + 1 for spot in taken), default=0), node)
    for node in nodes:  # an input stands right above who takes it first
        if node in stop:
            takers = [spots[n].row for n in nodes if n not in stop and any(t.node is node for t in n.inputs)]
            spots[node].row = min(takers, default=1) - 1
    rows: list[list[_Spot]] = [[] for _ in range(max(spot.row for spot in spots.values()) + 1)]
    for node in nodes:
        spot = spots[node]
        for tensor in () if node in stop else node.inputs:
            above = spots[tensor.node]
            for row in range(above.row + 1, spot.row):
                passing = _Spot(row, above=[above])
                rows[row].append(passing)
                above = passing
            spot.above.append(above)
        rows[spot.row].append(spot)
    return rows


def _place(rows: list[list[_Spot]]) -> float:
    """Give every spot its x, near what it takes from and what takes from it; return the width of the picture."""
    below = _takers(rows)
    _spread(rows)
    for turn in range(8):  # down, up, down, ...
        for row in rows if turn % 2 == 0 else rows[::-1]:
            wanted = {}
            for spot in row:
                near = spot.above if turn % 2 == 0 else below.get(spot, [])
                wanted[spot] = sum(s.x for s in near) / len(near) if near else spot.x
            row.sort(key=lambda spot: wanted[spot])
            _settle(row, wanted)
    left = min(spot.x - spot.width / 2 for row in rows for spot in row) - MARGIN
    for row in rows:
        for spot in row:
            spot.x -= left
    return max(spot.x + spot.width / 2 for row in rows for spot in row) + MARGIN


def _spread(rows: list[list[_Spot]]) -> None:
    for row in rows:
        x = 0.0
        for spot in row:
            spot.x = x + spot.width / 2
            x += spot.width + ACROSS


def _settle(row: list[_Spot], wanted: dict[_Spot, float]) -> None:
    """Put a row's spots where they want to be, pushed apart, and the whole row back to its middle."""
    for i, spot in enumerate(row):
        spot.x = wanted[spot]
        if i:
            before = row[i - 1]
            spot.x = max(spot.x, before.x + (before.width + spot.width) / 2 + ACROSS)
    shift = sum(wanted[spot] - spot.x for spot in row) / len(row)
    for spot in row:
        spot.x += shift


def _edge(spot: _Spot, above: _Spot, turn: int) -> str:
    """A curve from the node above, past any rows between."""
    chain = [above]
    while chain[-1].node is None:
        chain.append(chain[-1].above[0])
    start = chain[-1]
    inputs = len(spot.above)
    # arrows come in from left to right as their last rows stand
    place = sorted(range(inputs), key=lambda i: spot.above[i].x).index(turn)
    end_x = spot.x + (place - (inputs - 1) / 2) * min(BOX_WIDTH * 0.7 / inputs, 56)
    points = [(start.x, start.y + BOX_HEIGHT)]
    for passing in reversed(chain[:-1]):
        points += [(passing.x, passing.y), (passing.x, passing.y + BOX_HEIGHT)]
    points.append((end_x, spot.y - 1))
    path = f"M{points[0][0]:.1f},{points[0][1]:.1f}"
    for i in range(len(points) - 1):
        (x0, y0), (x1, y1) = points[i], points[i + 1]
        bend = (y1 - y0) / 2
        straight = i % 2 == 1
        path += (f" L{x1:.1f},{y1:.1f}" if straight else
                 f" C{x0:.1f},{y0 + bend:.1f} {x1:.1f},{y1 - bend:.1f} {x1:.1f},{y1:.1f}")  # fmt: skip
    return f'<path d="{path}" fill="none" stroke="{FAINT}" stroke-width="1.4" marker-end="url(#tip)"/>'


def _label(spot: _Spot, takers: list[_Spot]) -> str:
    """The shape of what a node gives, where its edges begin, where none of them runs."""
    goes_right, goes_left = (any(side * (t.x - spot.x) > 1 for t in takers) for side in (1, -1))
    x, y = spot.x, spot.y + BOX_HEIGHT + 17
    if goes_left and goes_right:  # between the branches
        y, anchor = y + 22, "middle"
    elif goes_right:
        x, anchor = x - 7, "end"
    else:
        x, anchor = x + 7, "start"
    text = f'x="{x:.1f}" y="{y:.1f}" font-size="11" text-anchor="{anchor}"'
    shape = _shape(spot.node.output.shape)
    # the same in white below it, wider, keeps an edge off the figures
    return f'<text {text} stroke="white" stroke-width="4">{shape}</text><text {text} fill="{FAINT}">{shape}</text>'


def _takers(rows: list[list[_Spot]]) -> dict[_Spot, list[_Spot]]:
    """For every spot those right below that take from it."""
    below: dict[_Spot, list[_Spot]] = {}
    for row in rows:
        for spot in row:
            for above in spot.above:
                below.setdefault(above, []).append(spot)
    return below


def _shape(shape: Any) -> str:
    """The shape of one example: the batch is understood."""
    return " × ".join("?" if n is None else str(n) for n in shape[1:])


def _box(spot: _Spot, is_output: bool) -> str:
    layer = spot.node.layer
    kind = type(layer).__name__
    fill, border = next((f, b) for word, f, b in _KINDS if word in kind)
    left = spot.x - BOX_WIDTH / 2
    params = layer.count_params()
    second = html.escape(layer.name) + (f" · {params:,}" if params else "")
    if is_output:
        second += f" · gives {_shape(spot.node.output.shape)}"
    return (
        f'<rect x="{left:.1f}" y="{spot.y:.1f}" width="{BOX_WIDTH:.0f}" height="{BOX_HEIGHT:.0f}" rx="7" '
        f'fill="{fill}" stroke="{border}" stroke-width="1.3"/>'
        f'<text x="{spot.x:.1f}" y="{spot.y + 19:.1f}" text-anchor="middle" font-size="13" font-weight="bold" '
        f'fill="{INK}">{html.escape(_says(layer, kind))}</text>'
        f'<text x="{spot.x:.1f}" y="{spot.y + 36:.1f}" text-anchor="middle" font-size="11" '
        f'fill="{FAINT}">{second}</text>'
    )


def _says(layer: Any, kind: str) -> str:
    """The layer in a few words: its class and the numbers that matter most."""
    words = [kind.removesuffix("Layer")]
    for name in ("filters", "units", "rate"):
        if isinstance(value := getattr(layer, name, None), (int, float)):
            words.append(f"{value:g}")
    for name in ("kernel_size", "pool_size"):
        size = getattr(layer, name, None)
        if isinstance(size, (tuple, list)) and size:
            words.append("×".join(str(n) for n in size))
    strides = getattr(layer, "strides", None)
    if isinstance(strides, (tuple, list)) and set(strides) != {1} and not getattr(layer, "pool_size", None):
        words.append("/" + "×".join(str(n) for n in strides))
    return " ".join(words)
