"""Augmentation and scaling as layers: chance in training only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .. import augmentation, random
from ..graph import Array
from .core import Layer

if TYPE_CHECKING:
    from ..program import Call

__all__ = ["RandomAffine", "RandomFlip", "RandomRotation", "RandomTranslation", "RandomZoom", "Rescaling"]


class Rescaling(Layer):
    """``x * scale + offset``, such as ``1/255`` for images of bytes.

    Parameters
    ----------
    scale, offset : float
        What to multiply by and to add.
    name, trainable, dtype, input_shape
        As in :class:`Layer`.
    """

    config_names: ClassVar[tuple[str, ...]] = ("scale", "offset")

    def __init__(self, scale: float, offset: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.scale, self.offset = float(scale), float(offset)

    def forward(self, x: Array, call: Call) -> Array:
        """Scale and shift."""
        y: Array = np.multiply(x, self.scale, out=call.out())
        y += self.offset
        return y

    def backward(self, dy: Array, call: Call) -> Array:
        """Scale."""
        return np.multiply(dy, self.scale, out=call.reuse(dy))


class _Random(Layer):
    """Changes images in training; gradients do not go through it, since it stands at the input."""

    ndim, axes = 4, "(batch, height, width, channels)"

    def __init__(self, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seed = seed
        self._own = None if seed is None else np.random.default_rng(seed)

    @property
    def rng(self) -> np.random.Generator:
        """This layer's own source of chance, or the common one."""
        return random.generator() if self._own is None else self._own

    def change(self, x: Array, out: Array | None) -> Array:
        """The changed images."""
        raise TypeError(f"{type(self).__name__} does not define change(x, out)")

    def forward(self, x: Array, call: Call) -> Array:
        """Change in training, hand through in use."""
        return self.change(x, call.out()) if call.training else x

    def backward(self, dy: Array, call: Call) -> Array:
        """Refuse: behind layers with weights the gradient would be wrong."""
        raise TypeError(f"layer {self.name!r} ({type(self).__name__}) must stand before all layers with weights")


class RandomFlip(_Random):
    """Mirror images with probability one half; ``mode`` as of :func:`fastconv.nn.augmentation.random_flip`."""

    config_names: ClassVar[tuple[str, ...]] = ("mode", "seed")

    def __init__(self, mode: str = "horizontal_and_vertical", seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(seed, **kwargs)
        self.mode = mode

    def change(self, x: Array, out: Array | None) -> Array:
        """Flip."""
        return augmentation.random_flip(x, self.mode, rng=self.rng, out=out)


class RandomAffine(_Random):
    """Turn, shift, scale and shear images; arguments as of :func:`fastconv.nn.augmentation.random_affine`."""

    config_names: ClassVar[tuple[str, ...]] = (
        "rotation", "shift", "scale", "shear", "fill_mode", "fill_value", "seed"
    )  # fmt: skip

    def __init__(
        self, rotation: float = 0.0, shift: float = 0.0, scale: float = 0.0, shear: float = 0.0,
        fill_mode: str = "constant", fill_value: float = 0.0, seed: int | None = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(seed, **kwargs)
        self.rotation, self.shift, self.scale, self.shear = rotation, shift, scale, shear
        self.fill_mode, self.fill_value = fill_mode, fill_value

    def change(self, x: Array, out: Array | None) -> Array:
        """Warp."""
        return augmentation.random_affine(
            x, rotation=self.rotation, shift=self.shift, scale=self.scale, shear=self.shear, fill_mode=self.fill_mode,
            fill_value=self.fill_value, rng=self.rng, out=out,
        )  # fmt: skip


def _range(name: str, factor: Any) -> tuple[float, float]:
    """Keras' factors: a number f is from -f to f; two are the range itself."""
    if isinstance(factor, (list, tuple)):
        low, high = factor
        return float(low), float(high)
    if factor < 0:
        raise ValueError(f"{name}: a factor may not be negative, received {factor!r}")
    return -float(factor), float(factor)


class _Warp(_Random):
    """Keras' random warps, each an affine map with one kind of chance."""

    def __init__(self, fill_mode: str, fill_value: float, seed: int | None, **kwargs: Any) -> None:
        kwargs.pop("data_format", None)
        if kwargs.pop("interpolation", "bilinear") != "bilinear":
            raise ValueError(f"{type(self).__name__}: interpolation must be 'bilinear'")
        super().__init__(seed, **kwargs)
        self.fill_mode, self.fill_value = fill_mode, fill_value

    def matrices(self, n: int, h: int, w: int) -> Array:
        """The maps of n images."""
        raise TypeError(f"{type(self).__name__} does not define matrices(n, h, w)")

    def change(self, x: Array, out: Array | None) -> Array:
        """Warp."""
        return augmentation.affine(
            x, self.matrices(*x.shape[:3]), fill_mode=self.fill_mode, fill_value=self.fill_value, out=out
        )

    def straight(self, n: int) -> Array:
        """Maps that change nothing."""
        maps = np.zeros((n, 2, 3))
        maps[:, 0, 0] = maps[:, 1, 1] = 1
        return maps


class RandomRotation(_Warp):
    """Turn images by up to ``factor`` of a full turn; fill modes as of :class:`RandomAffine`, "reflect" by default."""

    config_names: ClassVar[tuple[str, ...]] = ("factor", "fill_mode", "fill_value", "seed")

    def __init__(
        self, factor: Any, fill_mode: str = "reflect", fill_value: float = 0.0, seed: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(fill_mode, fill_value, seed, **kwargs)
        self.factor = factor

    def matrices(self, n: int, h: int, w: int) -> Array:
        """Rotations."""
        angle = 2 * np.pi * self.rng.uniform(*_range(self.name, self.factor), n)
        maps = self.straight(n)
        maps[:, 0, 0] = maps[:, 1, 1] = np.cos(angle)
        maps[:, 1, 0] = np.sin(angle)
        maps[:, 0, 1] = -maps[:, 1, 0]
        return maps


class RandomTranslation(_Warp):
    """Shift images by up to these shares of their height and width; fill modes as of :class:`RandomRotation`."""

    config_names: ClassVar[tuple[str, ...]] = ("height_factor", "width_factor", "fill_mode", "fill_value", "seed")

    def __init__(
        self, height_factor: Any, width_factor: Any, fill_mode: str = "reflect", fill_value: float = 0.0,
        seed: int | None = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(fill_mode, fill_value, seed, **kwargs)
        self.height_factor, self.width_factor = height_factor, width_factor

    def matrices(self, n: int, h: int, w: int) -> Array:
        """Shifts."""
        maps = self.straight(n)
        maps[:, 0, 2] = -h * self.rng.uniform(*_range(self.name, self.height_factor), n)
        maps[:, 1, 2] = -w * self.rng.uniform(*_range(self.name, self.width_factor), n)
        return maps


class RandomZoom(_Warp):
    """Zoom images by up to these shares, positive ones making them smaller; fill modes as of :class:`RandomRotation`.

    Without ``width_factor`` the width is zoomed as the height is.
    """

    config_names: ClassVar[tuple[str, ...]] = ("height_factor", "width_factor", "fill_mode", "fill_value", "seed")

    def __init__(
        self, height_factor: Any, width_factor: Any = None, fill_mode: str = "reflect", fill_value: float = 0.0,
        seed: int | None = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(fill_mode, fill_value, seed, **kwargs)
        self.height_factor, self.width_factor = height_factor, width_factor

    def matrices(self, n: int, h: int, w: int) -> Array:
        """Scalings."""
        maps = self.straight(n)
        maps[:, 0, 0] = maps[:, 1, 1] = 1 + self.rng.uniform(*_range(self.name, self.height_factor), n)
        if self.width_factor is not None:
            maps[:, 1, 1] = 1 + self.rng.uniform(*_range(self.name, self.width_factor), n)
        return maps
