"""Other libraries on the same problems: one class each, imported only when asked for.

A peer says why it cannot do a problem, or gives a call to time that returns arrays comparable with ours. It runs in its
own best public form on one layout, channels first, with its own tensors made beforehand.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol

from .problem import Array, Problem

__all__ = ["PEERS", "Peer", "find_peers"]


class Peer(Protocol):
    """What the runner needs of another library."""

    name: ClassVar[str]
    package: ClassVar[str]

    def set_num_threads(self, count: int) -> None:
        """Use at most ``count`` threads."""

    def why_not(self, problem: Problem) -> str | None:
        """One sentence why this library cannot do a problem, or None."""

    def call(self, problem: Problem) -> Callable[[], Any]:
        """What is timed."""

    def arrays(self, result: Any) -> Sequence[Array]:
        """The result of a call as NumPy arrays in fastconv's order."""


class Torch:
    """PyTorch, eager, contiguous tensors."""

    name: ClassVar[str] = "torch"
    package: ClassVar[str] = "torch"

    def __init__(self) -> None:
        import torch

        self._torch = torch

    def set_num_threads(self, count: int) -> None:
        self._torch.set_num_threads(count)

    def why_not(self, problem: Problem) -> str | None:
        layer = problem.layer
        if layer.op == "pad":
            return "padding is not compared"
        if layer.mode != "constant":
            return f"its convolution has no padding mode {layer.mode!r}"
        return None

    def call(self, problem: Problem) -> Callable[[], Any]:
        torch, layer = self._torch, problem.layer
        functional = torch.nn.functional
        x = torch.from_numpy(problem.x)
        if layer.op == "conv":
            weight, bias = torch.from_numpy(problem.weight), torch.from_numpy(problem.bias)
            function = getattr(functional, f"conv{layer.rank}d")
            leaves = [x, weight, bias]
            given = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation,
                     "groups": layer.groups}  # fmt: skip

            def forward() -> Any:
                return function(x, weight, bias, **given)
        else:
            function = getattr(functional, f"{layer.op}{layer.rank}d")
            leaves = [x]

            def forward() -> Any:
                return function(x, layer.kernel, layer.stride, layer.padding)

        if not layer.backward:

            def inference() -> Any:
                with torch.inference_mode():
                    return forward()

            return inference
        for leaf in leaves:
            leaf.requires_grad_(True)
        # the graph is built once and kept: only the backward pass is timed
        y, grad_output = forward(), torch.from_numpy(problem.grad_output)
        return lambda: torch.autograd.grad(y, leaves, grad_output, retain_graph=True)

    def arrays(self, result: Any) -> Sequence[Array]:
        results = result if isinstance(result, tuple) else (result,)
        return [tensor.detach().numpy() for tensor in results]


PEERS: dict[str, Callable[[], Peer]] = {"torch": Torch}


def find_peers(names: Sequence[str]) -> list[Peer]:
    """The peers of these names, imported now.

    Raises
    ------
    ValueError
        If a name is unknown, or its package is not installed.
    """
    found = []
    for name in names:
        if name not in PEERS:
            raise ValueError(f"peer {name!r} is unknown, there are: {', '.join(PEERS)}")
        if importlib.util.find_spec(name) is None:
            raise ValueError(f"peer {name!r} is not installed; to mend it: pip install {name}")
        found.append(PEERS[name]())
    return found
