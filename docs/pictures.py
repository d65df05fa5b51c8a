"""Draw the pictures of docs/explanation from what the library computes: python docs/pictures.py"""

from __future__ import annotations

import argparse
import pathlib

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

import fastconv
from fastconv import viz

INK, FAINT, ORANGE, BLUE, GREEN, LINE = "#1b1b1f", "#6b6b76", "#d9480f", "#1f6feb", "#2b8a3e", "#d0d0d8"
WINDOWS = ("#ffd8a8", "#a5d8ff", "#b2f2bb", "#eebefa")


def figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), dpi=110, facecolor="white")


def save(fig: Figure, path: pathlib.Path) -> None:
    """In 64 colours: a fifth of the bytes, and no eye sees it."""
    from PIL import Image

    canvas = FigureCanvasAgg(fig)
    canvas.draw()
    Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy()).quantize(64).save(path, optimize=True)


def grid(axes: Axes, values: np.ndarray, title: str = "", colours: dict[tuple[int, int], str] | None = None) -> None:
    """Numbers in squares, some of them coloured."""
    rows, columns = values.shape
    for (row, column), value in np.ndenumerate(values):
        fill = (colours or {}).get((row, column), "white")
        axes.add_patch(Rectangle((column, row), 1, 1, facecolor=fill, edgecolor=LINE, lw=0.9))
        axes.text(column + 0.5, row + 0.54, f"{value + 0:.3g}", ha="center", va="center", fontsize=9, color=INK)
    axes.set_xlim(-0.05, columns + 0.05)
    axes.set_ylim(rows + 0.05, -0.05)
    axes.set_aspect("equal")
    axes.set_axis_off()
    axes.set_title(title, fontsize=9.5, color=INK, loc="left")


def plain(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x, color=FAINT, fontsize=9)
    axes.set_title(y, loc="left", fontsize=10, color=INK)
    axes.grid(color="#e4e4ea")
    axes.tick_params(colors=FAINT, labelsize=8.5)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def im2col(path: pathlib.Path) -> None:
    """Four windows of an image become four columns; the filter becomes a row; their product is the output."""
    image = np.arange(1, 10.0).reshape(3, 3)
    kernel = np.array([[1.0, 2], [0, -1]])
    columns = fastconv.im2col(image[None], (2, 2))
    y = kernel.reshape(1, -1) @ columns
    assert np.array_equal(y.reshape(2, 2), fastconv.conv2d(image[None], kernel[None, None])[0])
    fig = figure(7.2, 1.9)
    at = fig.add_gridspec(1, 5, width_ratios=(3, 4, 4, 4, 2), left=0.01, right=0.99, bottom=0.02, top=0.84, wspace=0.28)
    first, row, middle, product, result = (fig.add_subplot(at[0, i]) for i in range(5))
    grid(first, image, "image", {(r, c): WINDOWS[0] for r in (0, 1) for c in (0, 1)})
    first.add_patch(Rectangle((1, 1), 2, 2, fill=False, edgecolor="#9c36b5", lw=2.2))
    first.add_patch(Rectangle((0, 0), 2, 2, fill=False, edgecolor=ORANGE, lw=2.2))
    grid(row, kernel.reshape(1, -1), "filter as a row")
    grid(middle, columns, "windows as columns", {(r, c): WINDOWS[c] for r in range(4) for c in range(4)})
    grid(product, y, "their product", {(0, c): WINDOWS[c] for c in range(4)})
    grid(result, y.reshape(2, 2), "output", {(r, c): WINDOWS[2 * r + c] for r in (0, 1) for c in (0, 1)})
    save(fig, path)


def winograd(path: pathlib.Path) -> None:
    """F(2, 3) on one tile: 16 multiplications for four outputs, which would take 36 directly."""
    rng = np.random.default_rng(4)
    d, g = rng.integers(0, 6, (4, 4)).astype(float), np.array([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]])
    bt = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1.0]])
    gm = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1.0]])
    at = np.array([[1, 1, 1, 0], [0, 1, -1, -1.0]])
    v, u = bt @ d @ bt.T, gm @ g @ gm.T
    y = at @ (v * u) @ at.T
    assert np.array_equal(y, fastconv.conv2d(d[None], g[None, None])[0])
    fig = figure(7.2, 4.1)
    places = fig.add_gridspec(2, 4, width_ratios=(4, 4, 4, 2.6), left=0.01, right=0.99, bottom=0.02, top=0.92)
    places.update(hspace=0.3, wspace=0.35)
    grid(fig.add_subplot(places[0, 0]), d, "a tile of the image, 4x4")
    grid(fig.add_subplot(places[0, 1]), v, "transformed: additions only")
    grid(fig.add_subplot(places[1, 0]), g, "the filter, 3x3")
    grid(fig.add_subplot(places[1, 1]), u, "transformed, once")
    every = {(r, c): WINDOWS[0] for r in range(4) for c in range(4)}
    grid(fig.add_subplot(places[:, 2]), v * u, "16 products", every)
    grid(fig.add_subplot(places[:, 3]), y, "4 outputs", {(r, c): WINDOWS[1] for r in (0, 1) for c in (0, 1)})
    save(fig, path)


def fft(path: pathlib.Path) -> None:
    """A blur in the frequency domain: two spectra, multiplied, are the spectrum of the result."""
    image = viz.squares(96)[1].mean(axis=0)
    line = np.exp(-((np.arange(15) - 7.0) ** 2) / 18)
    kernel = np.outer(line, line) / line.sum() ** 2
    size = (128, 128)
    spectrum, of_kernel = np.fft.rfft2(image, size), np.conj(np.fft.rfft2(kernel, size))
    y = np.fft.irfft2(spectrum * of_kernel, size)[:82, :82]
    expected = fastconv.conv2d(image[None], kernel[None, None])[0]
    assert np.abs(y - expected).max() < 1e-6
    shown = (image, np.pad(kernel, 40), np.fft.fftshift(np.log(np.abs(np.fft.fft2(image, size)) + 1)),
             np.fft.fftshift(np.log(np.abs(np.fft.fft2(kernel, size)) + 1e-3)), y)  # fmt: skip
    titles = ("image", "filter, 15x15", "its spectrum", "its spectrum", "product, back")
    fig = figure(7.2, 1.75)
    places = fig.add_gridspec(1, 5, left=0.01, right=0.99, bottom=0.02, top=0.86, wspace=0.08)
    for i, k in enumerate((0, 2, 1, 3, 4)):
        axes = fig.add_subplot(places[0, i])
        axes.imshow(shown[k], cmap="magma" if k in (2, 3) else "gray")
        axes.set_axis_off()
        axes.set_title(titles[k], fontsize=9.5, color=INK, loc="left")
    save(fig, path)


def multiplications(path: pathlib.Path) -> None:
    """Multiplications for one output and one channel, by size of the kernel."""
    kernels = np.array([3, 5, 7, 9, 11, 13, 15])
    fig = figure(6.4, 3.1)
    axes = fig.add_axes((0.06, 0.16, 0.67, 0.72))
    axes.semilogy(kernels, kernels**2, color=BLUE, lw=2, marker="o", ms=4)
    axes.text(15.3, 225, "direct, im2col: k²", color=BLUE, fontsize=9, va="center")
    for tile, colour in ((16, GREEN), (32, "#868e96")):
        fits = kernels[kernels < tile]
        cost = 2 * tile**2 / (tile - fits + 1.0) ** 2
        axes.semilogy(fits, cost, color=colour, lw=2, marker="o", ms=4)
        axes.text(15.3, cost[-1], f"FFT, tiles of {tile}x{tile}", color=colour, fontsize=9, va="center")
    for m, name in ((2, "F(2,3)"), (4, "F(4,3)"), (6, "F(6,3)")):
        cost = (m + 2) ** 2 / m**2
        axes.semilogy([3], [cost], color=ORANGE, marker="D", ms=5)
        place = cost * (1.1, 1.0, 0.88)[m // 2 - 1]
        axes.text(2.75, place, f"Winograd {name}: {cost:.3g}", color=ORANGE, fontsize=8, va="center", ha="right")
    axes.set_xlim(-2.6, 15.3)
    axes.set_xticks(kernels, [f"{k}x{k}" for k in kernels])
    axes.set_yticks([1, 3, 10, 30, 100], ["1", "3", "10", "30", "100"])
    axes.minorticks_off()
    plain(axes, "kernel", "multiplications for one output of one channel")
    save(fig, path)


def errors(path: pathlib.Path) -> None:
    """The largest error on random data, relative to the same sum of absolute values, for more and more channels."""
    rng = np.random.default_rng(0)
    names = {"direct": BLUE, "winograd_2x3": GREEN, "winograd_4x3": ORANGE, "winograd_6x3": "#a61e4d"}
    channels = [1, 4, 16, 64, 256]
    fig = figure(6.4, 3.1)
    axes = fig.add_axes((0.1, 0.16, 0.68, 0.72))
    for name, colour in names.items():
        found = []
        for c in channels:
            x = rng.standard_normal((1, c, 30, 30)).astype(np.float32)
            w = rng.standard_normal((16, c, 3, 3)).astype(np.float32)
            exact = fastconv.conv2d(x.astype(np.float64), w.astype(np.float64), backend="numpy")
            size = fastconv.conv2d(np.abs(x).astype(np.float64), np.abs(w).astype(np.float64), backend="numpy")
            y = fastconv.conv2d(x, w, algorithm=name, backend="cpp")
            found.append(float((np.abs(y - exact) / size).max() * 2**24))
        axes.loglog(channels, found, color=colour, lw=2, marker="o", ms=4)
        axes.text(channels[-1] * 1.15, found[-1], name, color=colour, fontsize=9, va="center")
    axes.set_xticks(channels, [str(c) for c in channels])
    axes.set_yticks([1, 3, 10, 30, 100], ["1", "3", "10", "30", "100"])
    axes.set_ylim(0.6, 400)
    axes.minorticks_off()
    plain(axes, "input channels of a 3x3 convolution", "largest error, in units of 2⁻²⁴ of the sum of magnitudes")
    save(fig, path)


def same(path: pathlib.Path) -> None:
    """Where the windows of two rules lie on a row of eight pixels, kernel 3, stride 2."""
    row = np.arange(1, 9.0)
    fig = figure(6.4, 2.5)
    for i, (padding, name, lo, hi) in enumerate((("same", 'padding="same"', 0, 1), (1, "padding=1", 1, 1))):
        axes = fig.add_axes((0.02, 0.55 - 0.5 * i, 0.96, 0.38))
        padded = np.concatenate([np.full(lo, np.nan), row, np.full(hi, np.nan)])
        for j, value in enumerate(padded):
            outside = np.isnan(value)
            axes.add_patch(Rectangle((j - lo, 0), 1, 1, facecolor="#f1f3f5" if outside else "white", edgecolor=LINE))
            axes.text(j - lo + 0.5, 0.5, "0" if outside else f"{value:.0f}", ha="center", va="center", fontsize=10,
                      color=FAINT if outside else INK)  # fmt: skip
        middle = np.array([[[0.0, 1, 0]]])
        seen = fastconv.conv1d(row[None], middle, stride=2, padding=padding)[0]
        for j, value in enumerate(seen):
            start = 2 * j - lo
            axes.plot([start + 0.08, start + 2.92], [1.18 + 0.16 * (j % 2)] * 2, color=(ORANGE, BLUE)[j % 2], lw=3)
            axes.text(start + 1.5, 1.34 + 0.16 * (j % 2), f"{value:.0f}", ha="center", fontsize=8,
                      color=(ORANGE, BLUE)[j % 2])  # fmt: skip
        axes.text(9.4, 0.5, f"{name}\nmiddle pixels {', '.join(f'{v:.0f}' for v in seen)}", fontsize=9.5, va="center",
                  color=INK)  # fmt: skip
        axes.set_xlim(-1.1, 14)
        axes.set_ylim(-0.1, 1.9)
        axes.set_axis_off()
    save(fig, path)


PICTURES = {
    "im2col.png": im2col,
    "winograd.png": winograd,
    "fft.png": fft,
    "multiplications.png": multiplications,
    "errors.png": errors,
    "same.png": same,
}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    here = pathlib.Path(__file__).parent / "explanation" / "pictures"
    parser.add_argument("--output", default=here, type=pathlib.Path, help="folder (docs/explanation/pictures)")
    given = parser.parse_args(arguments)
    given.output.mkdir(parents=True, exist_ok=True)
    for name, draw in PICTURES.items():
        draw(given.output / name)
        print(f"{given.output / name}  {(given.output / name).stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
