"""What a network has learned and what it sees: its filters, and its feature maps of an image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ._drawing import INK, Array, Path, columns_for, finish, mosaic, new_figure, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["show_feature_maps", "show_filters"]


def show_filters(
    weight: Any, *, layout: str | None = None, columns: int | None = None, title: str | None = None,
    path: Path | None = None,
) -> Figure:  # fmt: skip
    """Draw the filters of a convolution.

    Filters of three input channels are drawn in colour (grey is zero), all others as one map for each input channel,
    red where positive and blue where negative; every filter has its own scale.

    Parameters
    ----------
    weight : array_like, layer or model
        ``(C_out, C_in, kh, kw)``; channels last ``(kh, kw, C_in, C_out)``. Of a layer its first weight is drawn, of a
        model that of its first layer with filters.
    layout : str, optional
        ``"NCHW"`` (also None) or ``"NHWC"``; not asked for layers and models.
    columns : int, optional
        Filters side by side.
    title : str, optional
        Above the picture.
    path : path, optional
        Where to save it; the ending says in which format.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If the weight has not four axes, or a model has no filters.
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import viz
    >>> figure = viz.show_filters(np.random.default_rng(0).normal(size=(16, 3, 5, 5)))
    """
    name, kernels = _kernels(weight, layout)
    count, channels, height, width = kernels.shape
    size = np.maximum(np.abs(kernels).max(axis=(1, 2, 3), keepdims=True), np.finfo(np.float32).tiny)
    scaled = kernels / size
    if channels == 3:
        columns = columns or columns_for(count)
        picture = mosaic(0.5 + 0.5 * scaled.transpose(0, 2, 3, 1), columns, 1, 1.0)
        given: dict[str, Any] = {}
    else:
        columns = columns or (columns_for(count) if channels == 1 else min(channels, 32))
        flat = scaled.reshape(-1, height, width) if channels == 1 else scaled[:16, :columns].reshape(-1, height, width)
        picture = mosaic(flat, columns, 1, np.nan)
        given = {"cmap": "RdBu_r", "vmin": -1, "vmax": 1}
    shown = f"{count} filters of {height}x{width}" + (f" for {channels} channels" if channels > 1 else "")
    if channels not in (1, 3) and (count > 16 or channels > columns):
        shown += f", the first {min(count, 16)} for the first {min(channels, columns)}"
    elif channels not in (1, 3):
        shown += ": a row for each filter"
    return _picture("show_filters", picture, title or f"{name}{shown}", path, given)


def show_feature_maps(
    maps: Any, x: Any = None, *, layer: str | None = None, layout: str | None = None, columns: int | None = None,
    title: str | None = None, path: Path | None = None,
) -> Figure:  # fmt: skip
    """Draw feature maps: what every filter of a layer sees in one image; bright where it answers most.

    Parameters
    ----------
    maps : array_like or model
        ``(C, H, W)``; channels last ``(H, W, C)``. Or a model, which is then run on ``x``.
    x : array_like, optional
        For a model: one image, as the model takes it.
    layer : str, optional
        For a model: the layer whose output is drawn; by default the first convolution.
    layout : str, optional
        For arrays: ``"NCHW"`` (also None) or ``"NHWC"``.
    columns, title, path
        As in :func:`show_filters`.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If the maps have not three axes, the model has no such layer, or x is missing.
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> import fastconv
    >>> from fastconv import viz
    >>> image = viz.squares(64)[0]
    >>> figure = viz.show_feature_maps(fastconv.conv2d(image, viz.gabor_bank(), activation="relu"))
    """
    if hasattr(maps, "get_weights"):
        name, maps = _outputs(maps, x, layer)
    else:
        name, maps = "", np.asarray(maps)
        if maps.ndim == 3 and layout == "NHWC":
            maps = maps.transpose(2, 0, 1)
    if maps.ndim != 3:
        raise ValueError(f"show_feature_maps: maps must be (C, H, W), received shape {maps.shape}")
    count, height, width = maps.shape
    low = np.minimum(maps.min(axis=(1, 2), keepdims=True), 0)
    # the brightest half percent may saturate, so that one bright pixel does not darken its map
    high = np.quantile(maps, 0.995, axis=(1, 2), keepdims=True)
    bright = np.clip((maps - low) / np.maximum(high - low, np.finfo(np.float32).tiny), 0, 1)
    picture = mosaic(bright.astype(np.float32), columns or columns_for(count), max(1, height // 16), np.nan)
    text = title or f"{name}{count} feature maps of {height}x{width}"
    return _picture("show_feature_maps", picture, text, path, {"cmap": "magma", "vmin": 0, "vmax": 1})


def _kernels(weight: Any, layout: str | None) -> tuple[str, Array]:
    """(what it is, (C_out, C_in, kh, kw)) of an array, a layer or a model."""
    name = ""
    if hasattr(weight, "get_weights"):
        for one in getattr(weight, "layers", [weight]):
            found = [w for w in one.get_weights() if w.ndim == 4]
            if found:
                name, weight, layout = f"{one.name}: ", found[0], "NHWC"
                break
        else:
            raise ValueError(f"show_filters: {weight.name!r} has no layer with filters of two dimensions")
    kernels: Array = np.asarray(weight, np.float64)
    if kernels.ndim != 4:
        raise ValueError(f"show_filters: weight must be (C_out, C_in, kh, kw), received shape {kernels.shape}")
    return name, kernels.transpose(3, 2, 0, 1) if layout == "NHWC" else kernels


def _outputs(model: Any, x: Any, layer: str | None) -> tuple[str, Array]:
    """(which layer, its maps of one image) of a model."""
    from ..nn import Model

    if x is None:
        raise ValueError("show_feature_maps: a model needs an image x to look at")
    named = {one.name: one for one in model.layers}
    if layer is None:
        layer = next((name for name, one in named.items() if any(w.ndim == 4 for w in one.get_weights())), None)
    if layer not in named:
        raise ValueError(f"show_feature_maps: layer must be one of {', '.join(named)}, received {layer!r}")
    image = np.asarray(x, np.float32)
    want = len(model.inputs[0].shape)
    seen = Model(model.inputs, named[layer].output).predict(
        image[None] if image.ndim == want - 1 else image[:1], verbose=0
    )
    if seen.ndim != 4:
        raise ValueError(f"show_feature_maps: layer {layer!r} gives {seen.shape[1:]} for an image, which is no maps")
    return f"{layer}: ", seen[0].transpose(2, 0, 1)


def _picture(func: str, picture: Array, title: str, path: Path | None, given: dict[str, Any]) -> Figure:
    """A figure of one mosaic, as wide as the page or less."""
    height, width = picture.shape[:2]
    scale = min(9 / width, 8 / height, 0.14)
    across, down = max(width * scale, 3.2), max(height * scale, 0.6)
    figure = new_figure(func, across + 0.3, down + 0.5)
    axes = figure.add_axes((0.15 / (across + 0.3), 0.12 / (down + 0.5), across / (across + 0.3), down / (down + 0.5)))
    axes.imshow(picture, interpolation="nearest", **given)
    axes.set_anchor("NW")
    plain(axes)
    figure.text(0.15 / (across + 0.3), 1 - 0.1 / (down + 0.5), title, fontsize=10, color=INK, va="top")
    return finish(figure, path)
