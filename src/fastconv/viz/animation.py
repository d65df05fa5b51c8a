"""A filter that slides over an image, step by step, with the sum of every step."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

import fastconv

from ._drawing import ACCENT, FAINT, GRID, INK, Array, Path, make_folder, new_figure

if TYPE_CHECKING:
    from matplotlib.animation import FuncAnimation

__all__ = ["animate_convolution", "convolution_step"]


def animate_convolution(
    image: ArrayLike, kernel: ArrayLike, *, stride: int = 1, padding: Any = 0, dilation: int = 1,
    padding_mode: str = "constant", frames_per_second: float = 3, path: Path | None = None,
) -> FuncAnimation:  # fmt: skip
    """Show a convolution at work: the window, its products, and the output that fills up.

    Parameters
    ----------
    image : array_like
        One channel, (H, W); up to about 12x12 the numbers are written into the pixels.
    kernel : array_like
        (kh, kw).
    stride, padding, dilation, padding_mode
        As in :func:`fastconv.conv2d`; padding an int or a name.
    frames_per_second : float, default 3
        Speed; a step for every pixel of the output.
    path : path, optional
        Where to save it: ``.gif``, ``.png`` (animated) or ``.html``, a page with buttons.

    Returns
    -------
    matplotlib.animation.FuncAnimation
        In a notebook: ``IPython.display.HTML(animation.to_jshtml())``.

    Raises
    ------
    ValueError
        If image or kernel have not two axes, they do not fit, or the path ends in something else.
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import viz
    >>> picture = np.arange(25).reshape(5, 5)
    >>> viz.animate_convolution(picture, [[1, 0], [0, -1]], path="sliding.gif")  # doctest: +SKIP
    """
    scene = _Scene("animate_convolution", image, kernel, stride, padding, dilation, padding_mode)
    ending = None if path is None else pathlib.Path(path).suffix.lower()
    if ending not in (None, ".gif", ".png", ".html"):
        raise ValueError(f"animate_convolution: path must end in .gif, .png or .html, received {str(path)!r}")
    from matplotlib.animation import FuncAnimation

    steps = scene.out.size
    if path is not None:
        make_folder(path)
    if ending in (".gif", ".png"):
        _save_frames(scene, steps, path, 1000 / frames_per_second)
    scene.draw(0)
    moving = FuncAnimation(
        scene.figure, scene.draw, frames=steps, interval=1000 / frames_per_second, init_func=lambda: None
    )
    inside: Any = moving  # more than its types say
    if path is not None and ending == ".html":
        pathlib.Path(path).write_text(inside.to_jshtml(fps=frames_per_second), encoding="utf-8")
    inside._draw_was_started = True  # it may be dropped unseen: matplotlib would warn
    return moving


def _save_frames(scene: _Scene, steps: int, path: Any, milliseconds: float) -> None:
    """One file of all frames in the few colours that the last one has: a tenth of what PillowWriter would write."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas: Any = FigureCanvasAgg(scene.figure)

    def frame(step: int) -> Any:
        scene.draw(step)
        canvas.draw()
        return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())

    colours = frame(steps - 1).quantize(32)
    frames = [frame(step).quantize(palette=colours, dither=Image.Dither.NONE) for step in range(steps)]
    last = 4 * milliseconds  # the full output may be looked at
    frames[0].save(path, save_all=True, append_images=frames[1:], loop=0, optimize=True,
                   duration=[milliseconds] * (steps - 1) + [last])  # fmt: skip


def convolution_step(
    image: ArrayLike, kernel: ArrayLike, step: int, *, stride: int = 1, padding: Any = 0, dilation: int = 1,
    padding_mode: str = "constant", path: Path | None = None,
) -> Any:  # fmt: skip
    """One picture of :func:`animate_convolution`: that of the given step.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError, ImportError
        As :func:`animate_convolution`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import viz
    >>> figure = viz.convolution_step(np.eye(5), np.ones((3, 3)), 4)
    """
    from ._drawing import finish

    scene = _Scene("convolution_step", image, kernel, stride, padding, dilation, padding_mode)
    scene.draw(min(step, scene.out.size - 1))
    return finish(scene.figure, path)


class _Scene:
    """The padded image on the left, the kernel in the middle, the output on the right, the sum below."""

    def __init__(
        self, func: str, image: ArrayLike, kernel: ArrayLike, stride: int, padding: Any, dilation: int,
        padding_mode: str,
    ) -> None:  # fmt: skip
        self.image, self.kernel = np.asarray(image, np.float64), np.asarray(kernel, np.float64)
        if self.image.ndim != 2 or self.kernel.ndim != 2:
            raise ValueError(
                f"{func}: image and kernel must have two axes, received {self.image.shape} and {self.kernel.shape}"
            )
        given: dict[str, Any] = {"stride": stride, "dilation": dilation, "padding_mode": padding_mode}
        self.out = fastconv.conv2d(self.image[None], self.kernel[None, None], padding=padding, **given)[0]
        self.stride, self.dilation = stride, dilation
        self.reach = [(k - 1) * dilation + 1 for k in self.kernel.shape]
        before = [
            _before(func, padding, size, reach, stride)
            for size, reach in zip(self.image.shape, self.reach, strict=True)
        ]
        # what the windows touch, and all of the image
        width = []
        for axis in (0, 1):
            last = (self.out.shape[axis] - 1) * stride + self.reach[axis]
            width.append((before[axis], max(last - before[axis] - self.image.shape[axis], 0)))
        self.top, self.left = before
        self.padded = fastconv.pad(self.image, width, mode=padding_mode)
        self.figure = new_figure(func, 9.2, 3.9, dpi=80)
        self.draw_still()

    def draw_still(self) -> None:
        ratios = [self.padded.shape[1], max(self.kernel.shape[1], self.padded.shape[1] * 0.35), self.out.shape[1]]
        grid = self.figure.add_gridspec(1, 3, left=0.02, right=0.98, top=0.86, bottom=0.15, wspace=0.12,
                                        width_ratios=ratios)  # fmt: skip
        panels = [self.figure.add_subplot(grid[0, i]) for i in range(3)]
        pads = self.padded.shape != self.image.shape
        kernel_name = f"kernel {_by(self.kernel)}" + (f", dilation {self.dilation}" if self.dilation > 1 else "")
        names = (f"image {_by(self.image)}" + (", padded" if pads else ""), kernel_name,
                 f"output {_by(self.out)}" + (f", stride {self.stride}" if self.stride > 1 else ""))  # fmt: skip
        size = max(float(np.abs(self.kernel).max()), 1e-9)
        _cells(panels[0], self.padded, "Greys", 0, float(self.padded.max()) * 1.9 or 1)
        _cells(panels[1], self.kernel, "RdBu_r", -1.6 * size, 1.6 * size)
        for axes, name in zip(panels, names, strict=True):
            axes.set_title(name, fontsize=11, color=INK, pad=7)
        self.left_panel, self.right_panel = panels[0], panels[2]
        if pads:
            _frame(self.left_panel, self.left, self.top, *self.image.shape[::-1], color=FAINT, ls="--", lw=1.2)
        self.moving: list[Any] = []
        self.sum = self.figure.text(0.02, 0.05, "", fontsize=10.5, color=INK, family="monospace")

    def draw(self, step: int) -> None:
        """Everything as it is after so many steps."""
        for artist in self.moving:
            artist.remove()
        row, column = divmod(step, self.out.shape[1])
        shown = np.where(np.arange(self.out.size).reshape(self.out.shape) <= step, self.out, np.nan)
        size = max(float(np.abs(self.out).max()), 1e-9)
        self.right_panel.cla()
        self.right_panel.set_title(
            f"output {_by(self.out)}" + (f", stride {self.stride}" if self.stride > 1 else ""),
            fontsize=11, color=INK, pad=7,
        )  # fmt: skip
        _cells(self.right_panel, shown, "RdBu_r", -1.6 * size, 1.6 * size)
        _frame(self.right_panel, column, row, 1, 1, color=ACCENT, lw=2.5)
        top, left = row * self.stride, column * self.stride
        rows = top + self.dilation * np.arange(self.kernel.shape[0])
        columns = left + self.dilation * np.arange(self.kernel.shape[1])
        self.moving = [_frame(self.left_panel, left, top, self.reach[1], self.reach[0], color=ACCENT, lw=2.5)]
        if self.dilation > 1:
            self.moving += [_frame(self.left_panel, c, r, 1, 1, color=ACCENT, lw=1.2) for r in rows for c in columns]
        taken = self.padded[np.ix_(rows, columns)]
        terms = [f"{_text(a)}·{_bracket(k)}" for a, k in zip(taken.ravel(), self.kernel.ravel(), strict=True) if k]
        if len(terms) > 9:
            terms = [*terms[:8], "..."]
        self.sum.set_text(" + ".join(terms) + f" = {_text(float(self.out[row, column]))}")


def _before(func: str, padding: Any, size: int, reach: int, stride: int) -> int:
    """How many rows or columns lie in front of an axis."""
    if isinstance(padding, int):
        return padding
    if padding in ("valid", "full"):
        return 0 if padding == "valid" else reach - 1
    if padding not in ("same", "same_lower"):
        raise ValueError(f"{func}: padding must be an int, valid, same, same_lower or full, received {padding!r}")
    total = max((-(-size // stride) - 1) * stride + reach - size, 0)
    return total // 2 if padding == "same" else total - total // 2


def _by(array: Array) -> str:
    return f"{array.shape[0]}x{array.shape[1]}"


def _text(value: float) -> str:
    return f"{value:.3g}"


def _bracket(value: float) -> str:
    return f"({_text(value)})" if value < 0 else _text(value)


def _cells(axes: Any, values: Array, colours: str, low: float, high: float) -> None:
    """Pixels with their numbers, if they are few."""
    axes.imshow(values, cmap=colours, vmin=low, vmax=high)
    height, width = values.shape
    axes.set_xticks(np.arange(width + 1) - 0.5, [])
    axes.set_yticks(np.arange(height + 1) - 0.5, [])
    axes.tick_params(length=0)
    axes.grid(color=GRID, lw=0.8)
    axes.set_anchor("C")
    for spine in axes.spines.values():
        spine.set_color(GRID)
    if max(height, width) > 12:
        return
    for (row, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            axes.text(column, row, _text(float(value)), ha="center", va="center", fontsize=9 if width < 9 else 7,
                      color=INK)  # fmt: skip


def _frame(axes: Any, column: float, row: float, width: float, height: float, **given: Any) -> Any:
    from matplotlib.patches import Rectangle

    given["edgecolor"] = given.pop("color")
    box = Rectangle((column - 0.5, row - 0.5), width, height, fill=False, zorder=5, clip_on=False, **given)
    return axes.add_patch(box)
