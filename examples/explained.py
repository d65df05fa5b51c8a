"""Lesson 4: convolution, padding and pooling explained, in pictures that this file draws.

The pages in docs/lessons/ show them. To draw them all into a folder:

    python examples/explained.py --output build/lessons
"""

from __future__ import annotations

import argparse
import pathlib
import time

import numpy as np

import fastconv
from fastconv import viz

INK, FAINT, ORANGE, BLUE, GREEN = "#1b1b1f", "#6b6b76", "#d9480f", "#1f6feb", "#2b8a3e"


# ------------------------------------------------------------------------------------------- drawing, in a few lines


def figure(width, height):
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=80, facecolor="white")


def panels(fig, count, ratios=None, bottom=0.04, top=0.84):
    grid = fig.add_gridspec(1, count, left=0.02, right=0.98, bottom=bottom, top=top, wspace=0.1, width_ratios=ratios)
    return [fig.add_subplot(grid[0, i]) for i in range(count)]


def show(axes, picture, title, **given):
    axes.imshow(picture, interpolation="nearest", **given)
    axes.set_axis_off()
    axes.set_title(title, fontsize=10, color=INK, loc="left")


def numbers(axes, values, title="", colours="Blues", high=None, size=10, written=True):
    """A grid of numbers; empty where NaN, and without figures if not ``written``."""
    values = np.asarray(values, float)
    high = 1.8 * (np.nanmax(np.abs(values)) or 1) if high is None else high
    axes.imshow(values, cmap=colours, vmin=-high if colours == "RdBu_r" else 0, vmax=high)
    axes.set_xticks(np.arange(values.shape[1] + 1) - 0.5, [])
    axes.set_yticks(np.arange(values.shape[0] + 1) - 0.5, [])
    axes.tick_params(length=0)
    axes.grid(color="#d0d0d8", lw=0.8)
    for spine in axes.spines.values():
        spine.set_color("#d0d0d8")
    for (row, column), value in np.ndenumerate(values):
        if written and np.isfinite(value):
            axes.text(column, row, f"{value:.3g}", ha="center", va="center", fontsize=size, color=INK)
    axes.set_title(title, fontsize=10, color=INK, loc="left")


def frame(axes, column, row, width, height, **given):
    from matplotlib.patches import Rectangle

    look = {"fill": False, "edgecolor": ORANGE, "lw": 2.2, "zorder": 5, "clip_on": False} | given
    axes.add_patch(Rectangle((column - 0.5, row - 0.5), width, height, **look))


def save(fig, path):
    """In 64 colours: a fifth of the bytes, and no eye sees it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas = FigureCanvasAgg(fig)
    canvas.draw()
    Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy()).quantize(64).save(path, optimize=True)


def cat(side):
    """Chelsea in shades of grey, (side, side)."""
    return viz.squares(side)[1].mean(axis=0)


def filtered(image, kernel, **given):
    return fastconv.conv2d(image[None], kernel, **given)[0]


# ------------------------------------------------------------------------------------------------------ convolution


def sliding(path):
    """A filter for vertical edges on its way over a bright bar."""
    image = np.zeros((6, 6))
    image[:, 2:4] = 9
    viz.animate_convolution(image, [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], frames_per_second=2, path=path)


def filters(path):
    """One photograph, and what five filters make of it."""
    image = cat(112)
    same = {"padding": "same", "padding_mode": "reflect"}
    blurred = image
    for _ in range(4):
        blurred = filtered(blurred, viz.FILTERS["Gaussian 5x5"], **same)
    sobel = fastconv.conv2d(image[None], viz.FILTERS["Sobel, both directions"], **same)
    fig = figure(11, 2.2)
    axes = panels(fig, 6)
    show(axes[0], image, "the image", cmap="gray", vmin=0, vmax=1)
    show(axes[1], blurred, "blur", cmap="gray", vmin=0, vmax=1)
    show(axes[2], filtered(image, viz.FILTERS["sharpen"], **same), "sharpen", cmap="gray", vmin=0, vmax=1)
    show(axes[3], sobel[0], "edges, left to right", cmap="RdBu_r", vmin=-0.5, vmax=0.5)
    show(axes[4], sobel[1], "edges, top to bottom", cmap="RdBu_r", vmin=-0.5, vmax=0.5)
    show(axes[5], filtered(image, viz.FILTERS["Laplacian"], **same), "Laplacian", cmap="RdBu_r", vmin=-0.25, vmax=0.25)
    save(fig, path)


def sizes(path):
    """Valid, same, full: what is padded, where the filter starts and ends, and how large the output is."""
    fig = figure(11, 2.7)
    axes = panels(fig, 6, (9, 7, 9, 7, 9, 7))
    image = np.ones((1, 5, 5))
    for i, (name, pad) in enumerate((("valid", 0), ("same", 1), ("full", 2))):
        inside = np.full((9, 9), np.nan)
        inside[2 - pad : 7 + pad, 2 - pad : 7 + pad] = 0
        inside[2:7, 2:7] = 1
        left, right = axes[2 * i], axes[2 * i + 1]
        left.imshow(inside, cmap="Blues", vmin=-0.15, vmax=2.2)
        frame(left, 2 - pad, 2 - pad, 3, 3)
        frame(left, 4 + pad, 4 + pad, 3, 3, ls=(0, (3, 2)))
        frame(left, 2, 2, 5, 5, edgecolor=BLUE, lw=1.4)
        out = fastconv.conv2d(image, np.ones((1, 1, 3, 3)), padding=name)[0]
        canvas = np.full((7, 7), np.nan)
        at = (7 - len(out)) // 2
        canvas[at : at + len(out), at : at + len(out)] = out
        numbers(right, canvas, f"output {len(out)}x{len(out)}", high=20, size=9)
        left.set_title(f'"{name}": padded by {pad}', fontsize=10, color=INK, loc="left")
        for one in (left, right):
            one.set_axis_off()
    save(fig, path)


def stride_and_dilation(path):
    """Where the windows lie for strides 1 to 3, and the taps of one window for dilations 1 to 3."""
    fig = figure(11, 2.4)
    axes = panels(fig, 6, bottom=0.03)
    for i, stride in enumerate((1, 2, 3)):
        places = np.arange(0, 9 - 3 + 1, stride)
        middles = np.zeros((9, 9))
        middles[np.ix_(places + 1, places + 1)] = 1
        title = f"stride {stride}: {len(places)}x{len(places)} outputs"
        numbers(axes[i], middles, title, "Oranges", high=2, written=False)
        frame(axes[i], 0, 0, 3, 3)
        frame(axes[i], stride, 0, 3, 3, edgecolor=BLUE, ls=(0, (3, 2)))
    for i, dilation in enumerate((1, 2, 3)):
        taps = np.zeros((9, 9))
        taps[: 2 * dilation + 1 : dilation, : 2 * dilation + 1 : dilation] = 1
        reach = 2 * dilation + 1
        numbers(axes[3 + i], taps, f"dilation {dilation}: reaches {reach}x{reach}", high=1.7, written=False)
        frame(axes[3 + i], 0, 0, reach, reach)
    save(fig, path)


def receptive_field(path):
    """How far one output looks: the gradient of the middle output with respect to the input, layer by layer."""
    ones = np.ones((1, 1, 3, 3))

    def seen(layers):
        """Which inputs the middle output depends on, and how often; layers are (stride, dilation)."""
        shapes, x = [], np.zeros((1, 1, 31, 31))
        for stride, dilation in layers:
            shapes.append(x)
            x = fastconv.conv2d(x, ones, stride=stride, padding=dilation, dilation=dilation)
        gradient = np.zeros_like(x)
        gradient[..., x.shape[2] // 2, x.shape[3] // 2] = 1
        for (stride, dilation), x in zip(reversed(layers), reversed(shapes), strict=True):
            gradient = fastconv.conv2d_backward(
                gradient, x, ones, stride=stride, padding=dilation, dilation=dilation, needs=("x",)
            ).x
        return gradient[0, 0]

    fig = figure(11, 2.5)
    cases = (
        ("1 layer of 3x3", [(1, 1)]),
        ("2 layers", [(1, 1)] * 2),
        ("4 layers", [(1, 1)] * 4),
        ("3 layers, stride 2", [(2, 1)] * 3),
        ("dilations 1, 2, 4", [(1, 1), (1, 2), (1, 4)]),
    )
    for axes, (name, layers) in zip(panels(fig, 5), cases, strict=True):
        field = seen(layers)
        side = int(np.ptp(np.nonzero(field.any(axis=1))[0])) + 1
        show(axes, np.where(field > 0, np.sqrt(field / field.max()), np.nan), f"{name}: {side}x{side}", cmap="Oranges",
             vmin=-0.3, vmax=1)  # fmt: skip
        frame(axes, 0, 0, 31, 31, edgecolor="#d0d0d8", lw=1)
    save(fig, path)


# ---------------------------------------------------------------------------------------------------------- padding


def border(path):
    """What padding keeps at the border: the same blur fourteen times."""
    image = cat(96)
    fig = figure(11, 2.5)
    axes = panels(fig, 5)
    show(axes[0], image, "the image, 96x96", cmap="gray", vmin=0, vmax=1)
    cases = (("valid", "constant", "no padding"), ("same", "constant", "zeros: a dark frame"),
             ("same", "edge", "edge"), ("same", "reflect", "reflect"))  # fmt: skip
    for one, (padding, mode, name) in zip(axes[1:], cases, strict=True):
        blurred = image
        for _ in range(14):
            blurred = filtered(blurred, viz.FILTERS["Gaussian 5x5"], padding=padding, padding_mode=mode)
        side = len(blurred)
        canvas = np.full((96, 96), np.nan)
        at = (96 - side) // 2
        canvas[at : at + side, at : at + side] = blurred
        show(one, canvas, f"{name}, {side}x{side}", cmap="gray", vmin=0, vmax=1)
        frame(one, 0, 0, 96, 96, edgecolor="#d0d0d8", lw=1)
    save(fig, path)


def padding_modes(path):
    """Five ways to go on past the border, in numbers."""
    fig = figure(8, 3.2)
    modes = ("constant", "edge", "reflect", "symmetric", "wrap")
    row = np.array([[1, 2, 3, 4, 5]])
    for i, mode in enumerate(modes):
        axes = fig.add_axes((0.2, 0.81 - 0.19 * i, 0.78, 0.15))
        numbers(axes, fastconv.pad(row, ((0, 0), (3, 3)), mode=mode), high=12, size=12)
        frame(axes, 3, 0, 5, 1, edgecolor=ORANGE)
        fig.text(0.02, 0.885 - 0.19 * i, mode, fontsize=12, color=INK, va="center", family="monospace")
    save(fig, path)


# ---------------------------------------------------------------------------------------------------------- pooling


def pooling(path):
    """The largest and the mean of every window, in numbers and on edges."""
    rng = np.random.default_rng(3)
    x = rng.integers(0, 10, (4, 4)).astype(float)
    edges = np.abs(
        fastconv.conv2d(cat(112)[None], viz.FILTERS["Sobel, both directions"], padding="same", padding_mode="reflect")[
            :1
        ]
    )
    fig = figure(11, 2.5)
    axes = panels(fig, 6, (1, 0.6, 0.6, 1, 1, 1))
    numbers(axes[0], x, "x", high=20)
    frame(axes[0], 0, 0, 2, 2)
    for one, pool, name in ((axes[1], fastconv.max_pool2d, "largest"), (axes[2], fastconv.avg_pool2d, "mean")):
        numbers(one, pool(x[None], 2)[0], f"{name} of 2x2", high=20)
        frame(one, 0, 0, 1, 1)
    show(axes[3], edges[0], "edges", cmap="magma", vmin=0, vmax=0.5)
    show(axes[4], fastconv.max_pool2d(edges, 8)[0], "largest of 8x8", cmap="magma", vmin=0, vmax=0.5)
    show(axes[5], fastconv.avg_pool2d(edges, 8)[0], "mean of 8x8", cmap="magma", vmin=0, vmax=0.5)
    save(fig, path)


def shifts(path):
    """How much the output changes when the image moves: with no pooling, with both kinds, with global pooling."""
    photographs = viz.squares(96)
    bank = viz.gabor_bank()

    def features(move):
        moved = np.roll(photographs, move, axis=3)[..., 16:80, 16:80]
        return fastconv.conv2d(moved, bank, padding="same", activation="relu")

    still = features(0)
    ways = {
        "no pooling": lambda maps: maps,
        "mean of 4x4": lambda maps: fastconv.avg_pool2d(maps, 4),
        "largest of 4x4": lambda maps: fastconv.max_pool2d(maps, 4),
        "largest of 8x8": lambda maps: fastconv.max_pool2d(maps, 8),
        "mean of all": fastconv.global_avg_pool,
    }
    fig = figure(7.5, 3.4)
    axes = fig.add_axes((0.09, 0.17, 0.68, 0.72))
    moves = np.arange(9)
    for (name, pool), colour in zip(ways.items(), ("#868e96", BLUE, ORANGE, "#a61e4d", GREEN), strict=True):
        base = pool(still)
        change = [float(np.linalg.norm(pool(features(int(m))) - base) / np.linalg.norm(base)) for m in moves]
        axes.plot(moves, change, color=colour, lw=2)
        axes.text(8.15, change[-1], f"{name}", color=colour, fontsize=10, va="center")
    axes.set_xlabel("pixels that the image moves", color=FAINT)
    axes.set_title("change of the feature maps, relative", loc="left", fontsize=11, color=INK)
    axes.grid(color="#e4e4ea")
    axes.set_ylim(0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    save(fig, path)


def gradients(path):
    """Where pooling sends the gradient: to the largest entry (three rules for ties), or to all alike."""
    x = np.array([[[3.0, 1, 5, 5], [2, 0, 4, 1], [7, 7, 2, 6], [7, 1, 8, 0]]])
    dy = np.array([[[12.0, 8], [6, 4]]])
    fig = figure(11, 2.4)
    axes = panels(fig, 6, (1, 0.62, 1, 1, 1, 1))
    numbers(axes[0], x[0], "x", high=18)
    numbers(axes[1], dy[0], "dy, of 2x2", "RdBu_r", high=25)
    for one, ties in zip(axes[2:], ("first", "all", "split"), strict=False):
        dx = fastconv.max_pool2d_backward(dy, x, 2, ties=ties)[0]
        numbers(one, np.where(dx != 0, dx, np.nan), f'max, ties="{ties}"', "RdBu_r", high=25)
    numbers(axes[5], fastconv.avg_pool2d_backward(dy, x, 2)[0], "mean", "RdBu_r", high=25)
    save(fig, path)


# ---------------------------------------------------------------------------------------------------- whole networks


def trained(quick):
    """A small network that reads digits, trained for some seconds."""
    from sklearn.datasets import load_digits

    from fastconv import nn

    digits = load_digits()
    x, y = (digits.images[..., None] / 16).astype(np.float32), digits.target
    nn.set_random_seed(0)
    model = nn.Sequential(
        [
            nn.Input((8, 8, 1)),
            nn.Conv2D(16, 3, padding="same", activation="relu", name="first"),
            nn.Conv2D(16, 3, padding="same", activation="relu", name="second"),
            nn.MaxPooling2D(2, name="pooled"),
            nn.Flatten(),
            nn.Dense(10),
        ]
    )
    model.compile("adam", nn.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x[:1437], y[:1437], batch_size=32, epochs=1 if quick else 8, verbose=0)
    return model, x[1437:]


def feature_maps(path, quick=False):
    """The filters of a trained network, and what its layers see in a digit."""
    model, x = trained(quick)
    kernels = model.layers[0].get_weights()[0][:, :, 0, :].transpose(2, 0, 1)
    fig = figure(11, 2.7)
    axes = panels(fig, 5)
    show(axes[0], x[2, ..., 0], "a digit, 8x8", cmap="gray_r")
    size = np.abs(kernels).max()
    show(axes[1], tiles(kernels), "16 filters learned", cmap="RdBu_r", vmin=-size, vmax=size)
    for one, layer in zip(axes[2:], ("first", "second", "pooled"), strict=True):
        maps = viz_outputs(model, x[2:3], layer)
        show(one, tiles(maps / np.maximum(maps.max(axis=(1, 2), keepdims=True), 1e-6)), f'layer "{layer}"',
             cmap="magma", vmin=0, vmax=1)  # fmt: skip
    save(fig, path)


def viz_outputs(model, x, layer):
    from fastconv import nn

    part = nn.Model(model.inputs, model.get_layer(layer).output)
    return part.predict(x, verbose=0)[0].transpose(2, 0, 1)


def tiles(maps, columns=4):
    """Maps (16, h, w) in rows of four, a gap between them."""
    padded = np.pad(maps, ((0, 0), (0, 1), (0, 1)), constant_values=np.nan)
    rows = [np.concatenate(padded[i : i + columns], axis=1) for i in range(0, len(maps), columns)]
    return np.concatenate(rows)[:-1, :-1]


def sequential_graph(path):
    """One layer after the other: the mood classifier."""
    from fastconv import nn

    model = nn.Sequential(
        [
            nn.Input((64, 64, 3)),
            nn.ZeroPadding2D(3),
            nn.Conv2D(32, 7),
            nn.BatchNormalization(),
            nn.ReLU(),
            nn.MaxPooling2D(),
            nn.Flatten(),
            nn.Dense(1, activation="sigmoid"),
        ]
    )
    viz.plot_model(model, path)


def functional_graph(path):
    """A layer may take from any before it: a residual block with two ways through."""
    from fastconv import nn

    image = nn.Input((32, 32, 3))
    x = nn.Conv2D(16, 3, padding="same", activation="relu")(image)
    y = nn.Conv2D(16, 3, padding="same")(x)
    y = nn.BatchNormalization()(y)
    y = nn.ReLU()(y)
    y = nn.Conv2D(16, 3, padding="same")(y)
    x = nn.Add()([x, y])
    left, right = nn.MaxPooling2D(2)(x), nn.AveragePooling2D(2)(x)
    x = nn.Concatenate()([left, right])
    x = nn.GlobalAveragePooling2D()(x)
    viz.plot_model(nn.Model(image, nn.Dense(10)(x)), path)


PICTURES = {
    "sliding.gif": sliding,
    "filters.png": filters,
    "sizes.png": sizes,
    "stride_and_dilation.png": stride_and_dilation,
    "receptive_field.png": receptive_field,
    "border.png": border,
    "padding_modes.png": padding_modes,
    "pooling.png": pooling,
    "shifts.png": shifts,
    "gradients.png": gradients,
    "feature_maps.png": feature_maps,
    "sequential.svg": sequential_graph,
    "functional.svg": functional_graph,
}


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default="build/lessons", type=pathlib.Path, help="folder (build/lessons)")
    parser.add_argument("--only", choices=PICTURES, nargs="+", help="only these pictures")
    parser.add_argument("--quick", action="store_true", help="train for one epoch only")
    given = parser.parse_args(arguments)
    given.output.mkdir(parents=True, exist_ok=True)
    for name, draw in PICTURES.items():
        if given.only and name not in given.only:
            continue
        start, path = time.perf_counter(), given.output / name
        draw(path, quick=True) if draw is feature_maps and given.quick else draw(path)
        print(f"{path}  {path.stat().st_size / 1000:.0f} kB  {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
