"""Which layers are timed: those of real networks beside small and awkward ones, as data with names.

A layer holds no batch size. Its name says what it is: ``resnet50/3x3 64 @56`` is a 3x3 convolution from 64 to 64
channels on a 56x56 image. Layers that occur several times in a network are listed once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

__all__ = ["LAYOUTS", "QUICK", "README", "SUITES", "TOUR", "Layer", "find_layers", "parse_shape"]

Size = tuple[int, ...]

LAYOUTS = {1: ("NCW", "NWC"), 2: ("NCHW", "NHWC"), 3: ("NCDHW", "NDHWC")}  # by rank: channels first, channels last


@dataclass(frozen=True)
class Layer:
    """One operation on one shape; ``op`` names the function: ``conv``, ``max_pool``, ``avg_pool`` or ``pad``.

    ``padding`` is whatever the function takes; for ``pad`` the widths of the spatial axes. The operation ``train`` is a
    whole training step of the small network that the name ends with.
    """

    name: str
    op: str
    channels: int
    size: Size
    kernel: Size = ()
    out_channels: int = 0
    stride: int | Size = 1
    padding: Any = 0
    dilation: int | Size = 1
    groups: int = 1
    mode: str = "constant"
    backward: bool = False

    @property
    def rank(self) -> int:
        """Number of spatial axes."""
        return len(self.size)

    @property
    def suite(self) -> str:
        """The network or collection that it belongs to."""
        return self.name.split("/")[0]

    def x_shape(self, batch: int) -> Size:
        """Shape of the input, channels first."""
        return (batch, self.channels, *self.size)

    @property
    def weight_shape(self) -> Size:
        """Shape of the weight, channels first."""
        return (self.out_channels, self.channels // self.groups, *self.kernel)

    @property
    def strides(self) -> Size:
        """Stride of every axis."""
        return self._each(self.stride)

    @property
    def dilations(self) -> Size:
        """Dilation of every axis."""
        return self._each(self.dilation)

    def _each(self, value: int | Size) -> Size:
        return (value,) * self.rank if isinstance(value, int) else tuple(value)

    @property
    def pads(self) -> tuple[tuple[int, int], ...]:
        """Padding as a pair for every axis, which is what all libraries understand."""
        if not isinstance(self.padding, str):
            given = (self.padding,) * self.rank if isinstance(self.padding, int) else self.padding
            return tuple((p, p) if isinstance(p, int) else tuple(p) for p in given)
        reach = [d * (k - 1) for k, d in zip(self.kernel, self.dilations, strict=True)]
        if self.padding != "same":
            return tuple((r, r) if self.padding == "full" else (0, 0) for r in reach)
        axes = zip(self.size, self.strides, reach, strict=True)
        ends = [max((-(-n // s) - 1) * s + r + 1 - n, 0) for n, s, r in axes]
        return tuple((end // 2, end - end // 2) for end in ends)

    @property
    def kind(self) -> str:
        """The class that a report counts it in."""
        if self.op == "train":
            return "training step"
        if self.backward:
            return "gradients"
        if self.op != "conv":
            return "padding" if self.op == "pad" else "pooling"
        return "1-D" if self.rank == 1 else "3-D" if self.rank == 3 else self._kind_of_image()

    def _kind_of_image(self) -> str:
        if self.channels == self.out_channels == 1:
            return "image filter"
        if self.groups > 1:
            return "depthwise" if self.groups == self.channels else "grouped, dilated"
        if set(self.dilations) != {1}:
            return "grouped, dilated"
        if self.channels <= 4:
            return "first layer"
        if set(self.kernel) == {1}:
            return "1x1"
        if set(self.kernel) == {3}:
            return "3x3" if set(self.strides) == {1} else "3x3 stride 2"
        return "other kernels"

    def arguments(self) -> dict[str, Any]:
        """What the public function takes beside its arrays."""
        if self.op == "pad":
            return {"pad_width": ((0, 0), (0, 0), *self.padding), "mode": self.mode}
        given: dict[str, Any] = {"stride": self.stride, "padding": self.padding}
        if self.op == "conv":
            given |= {"dilation": self.dilation, "groups": self.groups, "padding_mode": self.mode}
        return given

    def gradient(self) -> Layer:
        """The same layer backwards."""
        suite, _, rest = self.name.partition("/")
        return replace(self, name=f"backward/{suite} {rest}", backward=True)


def _text(kernel: Size) -> str:
    return "x".join(map(str, kernel))


def _conv(suite: str, channels: int, size: int | Size, out: int, kernel: int | Size, *, rank: int = 2, what: str = "",
          **given: Any) -> Layer:  # fmt: skip
    """A convolution whose padding, unless given, keeps the size at stride 1."""
    size = (size,) * rank if isinstance(size, int) else size
    kernel = (kernel,) * len(size) if isinstance(kernel, int) else kernel
    dilation = given.get("dilation", 1)
    given.setdefault("padding", tuple(dilation * (k - 1) // 2 for k in kernel))
    stride, groups = given.get("stride", 1), given.get("groups", 1)
    parts = [
        what,
        ("depthwise " if groups == channels > 1 else f"groups{groups} " if groups > 1 else "") + _text(kernel),
        f"s{stride}" if stride != 1 else "",
        f"d{dilation}" if dilation != 1 else "",
        f"{channels}>{out}" if channels != out else str(out),
        "@" + (str(size[0]) if len(set(size)) == 1 else _text(size)),
    ]
    return Layer(f"{suite}/{' '.join(p for p in parts if p)}", "conv", channels, size, kernel, out, **given)


def _pool(name: str, op: str, channels: int, size: int, kernel: int, stride: int, padding: int = 0) -> Layer:
    return Layer(f"pooling/{name}", op, channels, (size, size), (kernel, kernel), 0, stride, padding)


def _pad(channels: int, size: int, width: int, mode: str) -> Layer:
    pairs = ((width, width), (width, width))
    return Layer(f"padding/{mode} {width} {channels} @{size}", "pad", channels, (size, size), padding=pairs, mode=mode)


def _distinct(layers: Iterable[Layer]) -> tuple[Layer, ...]:
    return tuple({layer.name: layer for layer in layers}.values())


def _resnet50() -> Iterable[Layer]:
    """He et al. 2015, stride in the 3x3 as everyone runs it."""
    net = "resnet50"
    yield _conv(net, 3, 224, 64, 7, stride=2, what="stem")
    channels, size = 64, 56
    for stage, (mid, out) in enumerate([(64, 256), (128, 512), (256, 1024), (512, 2048)]):
        stride = 2 if stage else 1
        yield _conv(net, channels, size, mid, 1)
        yield _conv(net, channels, size, out, 1, stride=stride)
        yield _conv(net, mid, size, mid, 3, stride=stride)
        size //= stride
        yield _conv(net, mid, size, mid, 3)
        yield _conv(net, mid, size, out, 1)
        yield _conv(net, out, size, mid, 1)
        channels = out


def _vgg16() -> Iterable[Layer]:
    channels, size = 3, 224
    for repeats, out in [(2, 64), (2, 128), (3, 256), (3, 512), (3, 512)]:
        for _ in range(repeats):
            yield _conv("vgg16", channels, size, out, 3)
            channels = out
        size //= 2


def _mobilenetv2() -> Iterable[Layer]:
    net = "mobilenetv2"
    yield _conv(net, 3, 224, 32, 3, stride=2, what="stem")
    channels, size = 32, 112
    blocks = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    for expand, out, repeats, first_stride in blocks:
        for repeat in range(repeats):
            stride, wide = (1 if repeat else first_stride), channels * expand
            if expand > 1:
                yield _conv(net, channels, size, wide, 1)
            yield _conv(net, wide, size, wide, 3, stride=stride, groups=wide)
            size //= stride
            yield _conv(net, wide, size, out, 1)
            channels = out
    yield _conv(net, 320, 7, 1280, 1)


# the two nets of the course: 7x7 on an image that was padded by 3 beforehand, and even kernels with "same"
_TEACHING = (
    _conv("teaching", 3, 70, 32, 7, padding=0, what="padded by 3"),
    _conv("teaching", 3, 64, 8, 4, padding="same", what="same"),
    _conv("teaching", 8, 8, 16, 2, padding="same", what="same"),
)

# small calls, primes, wide images, rarer arguments
_ODD = (
    _conv("odd", 1, 8, 1, 3, padding=0, what="tiny"),
    _conv("odd", 17, (31, 37), 13, (3, 5), what="primes"),
    _conv("odd", 64, (1, 3000), 64, (1, 9), what="wide"),
    _conv("odd", 64, 28, 64, 3, dilation=2),
    _conv("odd", 64, 28, 64, 3, groups=4),
    _conv("odd", 64, 28, 64, 5),
    _conv("odd", 512, 1, 512, 3, what="one pixel"),
    _conv("odd", 64, 56, 64, 3, mode="reflect", what="reflect"),
)

# one image, one filter: what image libraries are made for
_FILTERS = tuple(_conv("filters", 1, size, 1, kernel) for size, kernel in ((512, 3), (512, 7), (512, 15), (1024, 31)))

_ONE = (
    _conv("1d", 64, 1000, 64, 3, rank=1),
    _conv("1d", 64, 4000, 64, 9, rank=1, dilation=4),
    _conv("1d", 2, 16000, 32, 25, rank=1, stride=4, what="audio"),
    _conv("1d", 1, 44100, 32, 251, rank=1, stride=4, padding=0, what="audio"),
)

_THREE = (
    _conv("3d", 16, 24, 32, 3, rank=3),
    _conv("3d", 64, (8, 28, 28), 64, 3),
    _conv("3d", 32, (16, 28, 28), 32, 3, groups=32),
    _conv("3d", 1, 48, 16, 5, rank=3, stride=2, what="volume"),
)

# a whole step (forward, loss, backward, Adam) of small networks; batches of 16 images at least (training.py)
_TRAINING = tuple(
    Layer(f"training/{name}", "train", 3, (size, size))
    for name, size in (("happy", 64), ("signs", 64), ("cifar20", 32))
)

_POOLING = (
    _pool("max 3x3 s2 64 @112", "max_pool", 64, 112, 3, 2, 1),
    _pool("max 2x2 s2 64 @224", "max_pool", 64, 224, 2, 2),
    _pool("max 2x2 s2 256 @56", "max_pool", 256, 56, 2, 2),
    _pool("max 5x5 s1 256 @20", "max_pool", 256, 20, 5, 1, 2),
    _pool("max 8x8 s8 8 @64", "max_pool", 8, 64, 8, 8),
    _pool("avg 2x2 s2 128 @56", "avg_pool", 128, 56, 2, 2),
    _pool("avg 3x3 s1 288 @35", "avg_pool", 288, 35, 3, 1, 1),
    _pool("avg 7x7 2048 @7", "avg_pool", 2048, 7, 7, 7),
)

_PADDING = (
    _pad(3, 224, 3, "constant"),
    _pad(64, 56, 1, "constant"),
    *(_pad(3, 512, 8, mode) for mode in ("constant", "edge", "reflect", "symmetric", "wrap")),
)

_FORWARD: dict[str, tuple[Layer, ...]] = {
    "resnet50": _distinct(_resnet50()),
    "vgg16": _distinct(_vgg16()),
    "mobilenetv2": _distinct(_mobilenetv2()),
    "teaching": _TEACHING,
    "odd": _ODD,
    "filters": _FILTERS,
    "1d": _ONE,
    "3d": _THREE,
    "pooling": _POOLING,
    "padding": _PADDING,
}
_ALL = {layer.name: layer for suite in _FORWARD.values() for layer in suite}

# what a short run looks at, and what the README's table shows
README = tuple(
    _ALL[name]
    for name in (
        "resnet50/stem 7x7 s2 3>64 @224",
        "resnet50/3x3 64 @56",
        "resnet50/3x3 s2 128 @56",
        "resnet50/1x1 256>64 @56",
        "mobilenetv2/1x1 24>144 @56",
        "mobilenetv2/depthwise 3x3 144 @56",
        "teaching/padded by 3 7x7 3>32 @70",
        "pooling/max 2x2 s2 256 @56",
        "pooling/avg 2x2 s2 128 @56",
    )
)
QUICK = (
    *README,
    *(_ALL[name] for name in ("teaching/same 4x4 3>8 @64", "odd/tiny 3x3 1 @8", "padding/reflect 8 3 @512")),
    _ALL["resnet50/3x3 64 @56"].gradient(),
    _ALL["pooling/max 2x2 s2 256 @56"].gradient(),
)
_BACKWARD = tuple(
    layer.gradient()
    for layer in (
        *(layer for layer in README if layer.op != "pad"),
        *_TEACHING,
        _ALL["vgg16/3x3 128 @112"],
        _ALL["resnet50/3x3 256 @14"],
        _ALL["padding/reflect 8 3 @512"],
    )
)

# what `fastconv bench --peers` looks at unless told otherwise: every kind of layer
TOUR = (
    *README,
    *(
        _ALL[name]
        for name in (
            "resnet50/3x3 256 @14",
            "resnet50/1x1 256>1024 @14",
            "mobilenetv2/depthwise 3x3 s2 144 @56",
            "vgg16/3x3 128 @112",
            "teaching/same 4x4 3>8 @64",
            "odd/3x3 d2 64 @28",
            "odd/groups4 3x3 64 @28",
            "odd/5x5 64 @28",
            "filters/3x3 1 @512",
            "filters/15x15 1 @512",
            "1d/3 64 @1000",
            "3d/3x3x3 16>32 @24",
        )
    ),
    _ALL["resnet50/3x3 64 @56"].gradient(),
    _ALL["pooling/max 2x2 s2 256 @56"].gradient(),
    _TRAINING[1],
)

SUITES: dict[str, tuple[Layer, ...]] = {
    **_FORWARD, "backward": _distinct(_BACKWARD), "training": _TRAINING, "quick": QUICK, "tour": TOUR,
}  # fmt: skip

_SHAPE = re.compile(
    r"(?P<c>\d+)x(?P<size>\d+(?:x\d+){0,2})>(?P<out>\d+)(?P<rest>(?:[kspdg](?:\d+(?:x\d+)*|same|full|valid))*)$"
)


def _numbers(text: str) -> Any:
    """``3`` is a number, ``3x5`` a tuple, anything else a name."""
    if not text[0].isdigit():
        return text
    values = tuple(map(int, text.split("x")))
    return values[0] if len(values) == 1 else values


def parse_shape(text: str) -> Layer:
    """A convolution from its shape: ``64x56x56>128k3s2p1``, 64 channels of 56x56 to 128, kernel 3, stride 2, padding 1.

    ``k s p d g`` are kernel (1 if left out), stride, padding (a number, ``same``, ``full`` or ``valid``), dilation and
    groups; ``k3x5`` gives each axis its own. One to three sizes make a 1-D to 3-D convolution.

    Raises
    ------
    ValueError
        If the text is no such shape.
    """
    compact = text.replace(" ", "")
    found = _SHAPE.match(compact)
    if not found:
        raise ValueError(f"{text!r} is not a shape like 64x56x56>128k3s2p1")
    size = tuple(map(int, found["size"].split("x")))
    letters = re.findall(r"([kspdg])(\d+(?:x\d+)*|same|full|valid)", found["rest"])
    given = {letter: _numbers(value) for letter, value in letters}
    kernel = given.get("k", 1)
    kernel = (kernel,) * len(size) if isinstance(kernel, int) else kernel
    channels, groups = int(found["c"]), given.get("g", 1)
    if not isinstance(groups, int) or groups < 1 or channels % groups:
        raise ValueError(f"{text!r}: groups must be a number that divides the {channels} channels")
    if len(kernel) != len(size):
        raise ValueError(f"{text!r}: the kernel has {len(kernel)} axes, the image {len(size)}")
    return Layer(f"shape/{compact}", "conv", channels, size, kernel, int(found["out"]), given.get("s", 1),
                 given.get("p", 0), given.get("d", 1), groups)  # fmt: skip


def find_layers(words: Sequence[str]) -> list[Layer]:
    """Layers by suite (``resnet50``), by part of their name (``"3x3 64"``) or by shape; each once, in this order.

    Raises
    ------
    ValueError
        If a word names nothing.
    """
    found: dict[str, Layer] = {}
    everything = {layer.name: layer for suite in SUITES.values() for layer in suite}
    for word in words:
        if word in SUITES or word == "all":
            chosen = list(SUITES.get(word, everything.values()))
        else:
            chosen = [layer for name, layer in everything.items() if word in name]
        if not chosen and ">" in word:
            chosen = [parse_shape(word)]
        for layer in chosen:
            found[layer.name] = layer
        if not chosen:
            raise ValueError(
                f"nothing is called {word!r}: give a suite ({', '.join(SUITES)}, all), part of a layer's name "
                "(fastconv bench --list shows them) or a shape like 64x56x56>128k3s2p1"
            )
    return list(found.values())
