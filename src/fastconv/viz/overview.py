"""One picture of what the library does: a photograph padded, filtered, seen by a first layer, and pooled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

import fastconv

from ._drawing import FAINT, INK, Array, mosaic, new_figure
from .filters import FILTERS, gabor_bank

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_overview"]

_MODES = {
    "constant": "constant: zeros",
    "edge": "edge: the border repeats",
    "reflect": "reflect: mirror, border once",
    "symmetric": "symmetric: border twice",
    "wrap": "wrap: the other side follows",
}


def draw_overview(square: Array, title: str) -> Figure:
    """Draw the picture of one square photograph.

    Parameters
    ----------
    square : ndarray
        (3, side, side), float32 in 0 .. 1, side 224 or so.
    title : str
        What is seen on it.

    Returns
    -------
    matplotlib.figure.Figure
        To be saved or shown.
    """
    figure = new_figure("draw_overview", 16, 16.4)
    rows = figure.add_gridspec(4, 1, left=0.025, right=0.975, top=0.91, bottom=0.015, hspace=0.24,
                               height_ratios=(1, 1, 2, 1))  # fmt: skip
    figure.text(0.025, 0.965, f"What fastconv makes of {title}", fontsize=25, color=INK, weight="bold")
    _padding_row(figure, rows[0], square)
    _filter_row(figure, rows[1], square)
    maps = _feature_row(figure, rows[2], square)
    _pooling_row(figure, rows[3], square, maps)
    return figure


def _panels(figure: Figure, row: Any, head: str, text: str, columns: int, ratios: Any = None) -> list[Axes]:
    """The panels of one row beneath its headline."""
    box = row.get_position(figure)
    figure.text(box.x0, box.y1 + 0.0235, head, fontsize=15, color=INK, weight="bold", va="bottom")
    figure.text(box.x0 + 0.013 + 0.0088 * len(head), box.y1 + 0.0242, text, fontsize=12, color=FAINT, va="bottom")
    grid = row.subgridspec(1, columns, wspace=0.045, width_ratios=ratios)
    return [figure.add_subplot(grid[0, i]) for i in range(columns)]


def _show(axes: Axes, picture: Array, title: str, **given: Any) -> None:
    """One panel: colours (3, h, w) or a map (h, w)."""
    axes.imshow(np.clip(picture.transpose(1, 2, 0), 0, 1) if picture.ndim == 3 else picture, **given)
    axes.set_title(title, fontsize=11.5, color=INK, loc="left", pad=5)
    axes.set_axis_off()


def _padding_row(figure: Figure, row: Any, square: Array) -> None:
    panels = _panels(figure, row, "Padding", "pad(x, ...) in NumPy's five modes, here by a third of the photograph", 6)
    _show(panels[0], square, "the photograph")
    side, width = square.shape[-1], square.shape[-1] // 3
    for axes, (mode, text) in zip(panels[1:], _MODES.items(), strict=True):
        padded = fastconv.pad(square, ((0, 0), (width, width), (width, width)), mode=mode)
        _show(axes, padded, text)
        axes.plot(*_outline(width - 0.5, width + side - 0.5), color="white", lw=1.4)


def _outline(low: float, high: float) -> tuple[list[float], list[float]]:
    return [low, high, high, low, low], [low, low, high, high, low]


def _filter_row(figure: Figure, row: Any, square: Array) -> None:
    text = 'conv2d(x, kernel, padding="same", padding_mode="reflect") on every colour'
    panels = _panels(figure, row, "Filters", text, 6)
    colours = square[:, None]  # every colour is an image of its own

    def filtered(name: str) -> Array:
        return fastconv.conv2d(colours, FILTERS[name], padding="same", padding_mode="reflect")

    blurred = colours
    for _ in range(4):  # four times, so that the eye sees it
        blurred = fastconv.conv2d(blurred, FILTERS["Gaussian 5x5"], padding="same", padding_mode="reflect")
    _show(panels[0], blurred[:, 0], "Gaussian 5x5, four times")
    _show(panels[1], filtered("sharpen")[:, 0], "sharpen")
    sobel = filtered("Sobel, both directions").mean(axis=0)
    _show(panels[2], sobel[0], "Sobel, left to right", cmap="RdBu_r", vmin=-0.5, vmax=0.5)
    _show(panels[3], sobel[1], "Sobel, top to bottom", cmap="RdBu_r", vmin=-0.5, vmax=0.5)
    strength = np.hypot(sobel[0], sobel[1])
    _show(panels[4], strength, "Sobel, strength of the edges", cmap="magma", vmin=0, vmax=np.quantile(strength, 0.99))
    laplacian = filtered("Laplacian").mean(axis=0)[0]
    _show(panels[5], laplacian, "Laplacian", cmap="RdBu_r", vmin=-0.25, vmax=0.25)


def _feature_row(figure: Figure, row: Any, square: Array) -> Array:
    text = 'conv2d(x, weight, stride=2, padding=3, activation="relu"): a first layer as in ResNet-50, 7x7, 3 to 64'
    panels = _panels(figure, row, "Feature maps", text, 2, (1, 2))
    bank = gabor_bank()
    maps = fastconv.conv2d(square, bank, stride=2, padding=3, activation="relu")
    kernels = 0.5 + 0.5 * bank / np.abs(bank).max(axis=(1, 2, 3), keepdims=True)
    _show_mosaic(panels[0], mosaic(kernels.transpose(0, 2, 3, 1), 8, 1, 1.0),
                 "64 kernels: eight directions, brightness and opponent colours")  # fmt: skip
    chosen = maps.reshape(8, 8, *maps.shape[1:])[::2].reshape(32, *maps.shape[1:])
    bright = np.sqrt(chosen / np.maximum(np.quantile(chosen, 0.995, axis=(1, 2), keepdims=True), 1e-6))
    _show_mosaic(panels[1], mosaic(bright, 8, 4, np.nan), "what the kernels of every second row see",
                 cmap="magma", vmin=0, vmax=1)  # fmt: skip
    return maps


def _show_mosaic(axes: Axes, picture: Array, title: str, **given: Any) -> None:
    axes.imshow(picture, interpolation="nearest", **given)
    axes.set_title(title, fontsize=11.5, color=INK, loc="left", pad=5)
    axes.set_axis_off()


def _pooling_row(figure: Figure, row: Any, square: Array, maps: Array) -> None:
    text = "max_pool2d and avg_pool2d side by side: the photograph in windows of 8x8, a feature map in windows of 4x4"
    panels = _panels(figure, row, "Pooling", text, 6)
    _show(panels[0], square, "the photograph")
    _show(panels[1], fastconv.max_pool2d(square, 8), "largest of every 8x8", interpolation="nearest")
    _show(panels[2], fastconv.avg_pool2d(square, 8), "mean of every 8x8", interpolation="nearest")
    busiest = maps[int(maps[:32].mean(axis=(1, 2)).argmax())]
    for axes, one, title in (
        (panels[3], busiest, "one feature map"),
        (panels[4], fastconv.max_pool2d(busiest[None], 4)[0], "largest of every 4x4"),
        (panels[5], fastconv.avg_pool2d(busiest[None], 4)[0], "mean of every 4x4"),
    ):  # every map in its own scale: means are smaller than maxima
        _show(axes, np.sqrt(one), title, interpolation="nearest", cmap="magma", vmin=0,
              vmax=float(np.sqrt(np.quantile(one, 0.99))))  # fmt: skip
