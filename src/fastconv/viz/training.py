"""How a training went and what it led to: curves of its history, and the confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ._drawing import FAINT, GRID, INK, SERIES, Path, finish, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["confusion_matrix", "plot_history"]


def plot_history(history: Any, *, title: str | None = None, path: Path | None = None) -> Figure:
    """Draw loss and metrics over the epochs; validation dashed, in the colour of its training curve.

    Parameters
    ----------
    history : History or dict
        What ``fit`` returned, or its ``history``: lists of numbers by name, those of validation as ``val_...``.
    title : str, optional
        Above the picture.
    path : path, optional
        Where to save it; the ending says in which format.

    Returns
    -------
    matplotlib.figure.Figure
        The losses on the left; the other metrics, if any, on the right.

    Raises
    ------
    ValueError
        If the history is empty.
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> from fastconv import viz
    >>> figure = viz.plot_history({"loss": [1.2, 0.7, 0.5], "val_loss": [1.3, 0.9, 0.8], "accuracy": [0.4, 0.8, 0.9]})
    """
    curves: dict[str, Sequence[float]] = getattr(history, "history", history)
    if not any(len(values) for values in curves.values()):
        raise ValueError("plot_history: the history is empty; it has numbers after the first epoch")
    rate = {"lr", "learning_rate"}
    plain = [name for name in curves if not name.startswith("val_") and name not in rate]
    losses = [name for name in plain if name.endswith("loss")]
    panels = [group for group in (losses, [name for name in plain if name not in losses]) if group]
    figure = new_figure("plot_history", 4.8 * len(panels), 3.4)
    for i, names in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), i + 1)
        for name, colour in zip(names, SERIES * (1 + len(names) // len(SERIES)), strict=False):
            for key, line, width in ((name, "-", 2.0), (f"val_{name}", (0, (4, 2)), 1.6)):
                if key not in curves:
                    continue
                values = np.asarray(curves[key], float)
                epochs = np.arange(1, len(values) + 1)
                axes.plot(epochs, values, ls=line, color=colour, lw=width, marker="o" if len(values) < 3 else None)
                text = "validation" if key.startswith("val_") else name
                axes.annotate(f" {text} {values[-1]:.3g}", (epochs[-1], values[-1]), color=colour, fontsize=9,
                              va="center", annotation_clip=False)  # fmt: skip
        axes.set_xlabel("epoch", color=FAINT, fontsize=9)
        axes.set_title(names[0] if len(names) == 1 else ", ".join(names), loc="left", fontsize=11, color=INK)
        axes.grid(color=GRID)
        axes.set_axisbelow(True)
        axes.tick_params(colors=FAINT, labelsize=9)
        axes.locator_params(axis="x", integer=True)
        for side, spine in axes.spines.items():
            spine.set_visible(side == "bottom")
            spine.set_color(GRID)
        _keep_labels_apart(axes)
    figure.subplots_adjust(left=0.1 / len(panels) + 0.02, right=1 - 0.22 / len(panels), bottom=0.17,
                           top=0.8 if title else 0.88, wspace=0.62)  # fmt: skip
    if title:
        figure.suptitle(title, x=0.02, ha="left", fontsize=12, color=INK)
    return finish(figure, path)


def _keep_labels_apart(axes: Any) -> None:
    """Move the names at the ends of curves up and down until no two overlap."""
    low, high = axes.get_ylim()
    least = (high - low) * 0.075
    labels = sorted(axes.texts, key=lambda label: float(label.xy[1]))
    places: list[float] = []
    for label in labels:
        places.append(max(float(label.xy[1]), places[-1] + least) if places else float(label.xy[1]))
    for label, place in zip(labels, places, strict=True):
        label.set_position((label.xy[0], place))


def confusion_matrix(
    truth: Any, predicted: Any, classes: Sequence[Any] | None = None, *, title: str | None = None,
    path: Path | None = None,
) -> Figure:  # fmt: skip
    """Draw how often each class was taken for each other.

    Parameters
    ----------
    truth : array_like
        Right labels, (m,), or one-hot, (m, classes).
    predicted : array_like
        Predicted labels, (m,), or what a model predicts, (m, classes); one column is the probability of class 1.
    classes : sequence, optional
        Names of the classes.
    title : str, optional
        Above the picture, in front of the accuracy.
    path : path, optional
        Where to save it; the ending says in which format.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If there are no examples, the lengths differ, or a label lies outside the names.
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> from fastconv import viz
    >>> figure = viz.confusion_matrix([0, 1, 1, 0], [0, 1, 0, 0], ["sad", "smiles"])
    """
    right, guess = _labels(truth), _labels(predicted)
    if len(right) != len(guess) or not len(right):
        raise ValueError(f"confusion_matrix: truth has {len(right)} labels and predicted {len(guess)}")
    largest = int(max(right.max(), guess.max()))
    count = largest + 1 if classes is None else len(classes)
    if largest >= count or min(right.min(), guess.min()) < 0:
        raise ValueError(f"confusion_matrix: labels must be 0 .. {count - 1}, received up to {largest}")
    names = [str(name) for name in (range(count) if classes is None else classes)]
    table = np.zeros((count, count), int)
    np.add.at(table, (right, guess), 1)
    share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)

    side = 2.0 + 0.42 * count
    figure = new_figure("confusion_matrix", side + 0.6, side)
    axes = figure.add_axes((1.1 / (side + 0.6), 0.6 / side, (side - 0.6) / (side + 0.6), (side - 1.2) / side))
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1.15)
    for row, column in np.ndindex(count, count):
        if table[row, column]:
            wrong = row != column
            colour = SERIES[1] if wrong else ("white" if share[row, column] > 0.6 else INK)
            axes.text(column, row, str(table[row, column]), ha="center", va="center", color=colour, fontsize=10,
                      weight="bold" if wrong else "normal")  # fmt: skip
    ticks = range(count)
    axes.set_xticks(ticks, names, rotation=0 if max(map(len, names)) < 8 else 30)
    axes.set_yticks(ticks, names)
    axes.tick_params(length=0, colors=FAINT, labelsize=10)
    axes.set_xlabel("predicted", color=FAINT)
    axes.set_ylabel("truth", color=FAINT)
    for spine in axes.spines.values():
        spine.set_color(GRID)
    wrong = int(table.sum() - np.trace(table))
    text = f"{np.trace(table) / table.sum():.1%} right, {wrong} of {table.sum()} wrong"
    figure.text(0.03, 0.97, f"{title}: {text}" if title else text, fontsize=11, color=INK, va="top")
    return finish(figure, path)


def _labels(given: Any) -> Any:
    """Labels of labels, of one-hot rows, and of probabilities."""
    array = np.asarray(given)
    if array.ndim == 2 and array.shape[1] > 1:
        return array.argmax(axis=1)
    flat = array.reshape(-1)
    return (flat > 0.5).astype(int) if flat.dtype.kind == "f" else flat.astype(int)
