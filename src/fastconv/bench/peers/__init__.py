"""The libraries that fastconv is compared with, as one list; each is a file here, imported only in its own process.

To add a peer is its file, with a subclass of :class:`~fastconv.bench.peers.case.Library`, and its lines in ``PEERS``.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata

from .case import Library

__all__ = ["PEERS", "Contender", "Peer", "find_peers", "load", "ours", "version"]


@dataclass(frozen=True)
class Contender:
    """One way of using a library, with a place in the table.

    ``mode`` is ``plan`` where weights are prepacked once, else ``eager``; ``layout`` is ``first`` (NCHW) or ``last``;
    ``allocates`` says that every call makes a new result, so that the allocator matters.
    """

    name: str
    peer: str
    variant: str = ""
    mode: str = "eager"
    layout: str = "first"
    allocates: bool = False
    default_allocator: bool = False

    @property
    def ours(self) -> bool:
        """Whether this is fastconv."""
        return self.peer == "fastconv"


@dataclass(frozen=True)
class Peer:
    """A library: the module to import, the package to install, and the ways in which it is used."""

    name: str
    title: str
    adapter: str
    module: str
    package: str
    contenders: tuple[Contender, ...]


_TORCH = (
    Contender("torch", "torch", "first", allocates=True),
    Contender("torch channels_last", "torch", "last", layout="last", allocates=True),
    Contender("torch prepacked", "torch", "prepacked", "plan", "last"),
)
_OPENVINO = (
    Contender("openvino", "openvino", "first", "plan"),
    Contender("openvino NHWC", "openvino", "last", "plan", "last"),
)
_SCIPY = (
    Contender("scipy", "scipy", "signal"),
    Contender("scipy oaconvolve", "scipy", "oaconvolve"),
    Contender("scipy ndimage", "scipy", "ndimage"),
)

PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        Peer("torch", "PyTorch", "_torch:Torch", "torch", "torch", _TORCH),
        Peer("onnxruntime", "ONNX Runtime", "_onnxruntime:OnnxRuntime", "onnxruntime", "onnxruntime",
             (Contender("onnxruntime", "onnxruntime", "", "plan"),)),
        Peer("openvino", "OpenVINO", "_openvino:OpenVino", "openvino", "openvino", _OPENVINO),
        Peer("ncnn", "ncnn", "_ncnn:Ncnn", "ncnn", "ncnn", (Contender("ncnn", "ncnn", "", "plan"),)),
        Peer("mnn", "MNN", "_mnn:Mnn", "MNN", "mnn", (Contender("mnn", "mnn", "", "plan"),)),
        Peer("tensorflow", "TensorFlow", "_tensorflow:TensorFlow", "tensorflow", "tensorflow-cpu",
             (Contender("tensorflow", "tensorflow", "", layout="last"),)),
        Peer("jax", "JAX", "_jax:Jax", "jax", "jax", (Contender("jax", "jax", "", layout="last"),)),
        Peer("scipy", "SciPy", "_scipy:SciPy", "scipy", "scipy", _SCIPY),
        Peer("opencv", "OpenCV", "_opencv:OpenCv", "cv2", "opencv-python-headless",
             (Contender("opencv", "opencv", ""),)),
    )
}  # fmt: skip
_OURS = Peer("fastconv", "fastconv", "_fastconv:Fastconv", "fastconv", "fastconv", ())


def ours(backend: str = "cpp", modes: Sequence[str] = ("eager", "plan"), algorithm: str = "auto") -> list[Contender]:
    """Fastconv's own contenders: every mode in both layouts.

    Examples
    --------
    >>> [contender.name for contender in ours(modes=("plan",))]
    ['fastconv plan', 'fastconv plan NHWC']
    """
    return [
        Contender(
            "fastconv" + (" plan" if mode == "plan" else "") + (" NHWC" if layout == "last" else ""),
            "fastconv", f"{mode} {layout} {backend} {algorithm}", mode, layout, mode == "eager",
        )
        for mode in modes
        for layout in ("first", "last")
    ]  # fmt: skip


def find_peers(names: Sequence[str]) -> tuple[list[Peer], dict[str, str]]:
    """The installed peers of these names (all, if none are given), and why the others are left out.

    Raises
    ------
    ValueError
        If a name is unknown, or a peer asked for by name is not installed.
    """
    unknown = [name for name in names if name not in PEERS]
    if unknown:
        raise ValueError(f"peer {unknown[0]!r} is unknown, there are: {', '.join(PEERS)}")
    found, absent = [], {}
    for peer in [PEERS[name] for name in names] or PEERS.values():
        needs = [peer.module, *(["onnx"] if peer.name in ("onnxruntime", "mnn") else [])]
        missing = [module for module in needs if importlib.util.find_spec(module) is None]
        if not missing:
            found.append(peer)
        else:
            packages = " ".join(peer.package if module == peer.module else module for module in missing)
            absent[peer.name] = f"not installed; to mend it: pip install {packages}"
            if names:
                raise ValueError(f"peer {peer.name!r} is {absent[peer.name]}")
    return found, absent


def version(peer: Peer) -> str:
    """Version of the installed package, as its metadata say; empty if they do not."""
    for package in (peer.package, peer.name):
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return ""


def load(name: str, threads: int) -> Library:
    """Import a library and make it ready for so many threads; ``module:Class`` is one that is not listed."""
    adapter = _OURS.adapter if name == "fastconv" else PEERS[name].adapter if name in PEERS else name
    module, _, kind = adapter.partition(":")
    package = f"{__name__}.{module}" if module.startswith("_") else module
    library: Library = getattr(importlib.import_module(package), kind)(threads)
    return library
