"""Types of the compiled module; ``csrc/bindings`` defines it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

_Size = tuple[int, int, int]
_Dtypes = tuple[np.dtype[Any], ...]
_Pairs = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]

__version__: str

def isa() -> str: ...
def isas() -> list[str]: ...
def vector_bytes() -> int: ...
def cache_bytes() -> tuple[int, int]: ...
def multiply_add_gflops(seconds: float) -> float: ...
def cached_product_gflops() -> float: ...
def get_num_threads() -> int: ...
def set_num_threads(threads: int) -> None: ...
def release_scratch() -> int: ...
def scratch_bytes() -> int: ...
def take_scratch_peak() -> int: ...
def cached_block_bytes() -> int: ...
def empty(shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]: ...
def cast_half(array: NDArray[Any], into: NDArray[Any]) -> None: ...

class ConvProblem:
    def __init__(
        self,
        channels_last: bool,
        in_channels: int,
        out_channels: int,
        groups: int,
        in_size: _Size,
        kernel: _Size,
        stride: _Size,
        dilation: _Size,
        padding: _Pairs,
        padding_mode: str,
        out_size: _Size,
    ) -> None: ...

class ConvKernel:
    def __init__(
        self,
        problem: ConvProblem,
        dtype: np.dtype[Any],
        algorithm: str,
        workspace_limit: int | None = None,
        batch_hint: int = 0,
    ) -> None: ...
    def run(
        self,
        x: NDArray[Any],
        weight: NDArray[Any],
        bias: NDArray[Any] | None,
        activation: str | None,
        out: NDArray[Any],
        add: NDArray[Any] | None = None,
    ) -> None: ...
    def describe(self) -> str: ...
    @property
    def algorithm(self) -> str: ...
    @property
    def workspace_bytes(self) -> int: ...

class ConvCall:
    def __init__(self, kernel: ConvKernel, activation: str | None, rank: int, dtypes: _Dtypes) -> None: ...
    def __call__(self, x: object, weight: object, bias: object, out: object) -> NDArray[Any] | None: ...

class ConvPlan:
    def __init__(
        self, kernel: ConvKernel, weight: NDArray[Any], bias: NDArray[Any] | None, activation: str | None, rank: int
    ) -> None: ...
    def run(self, x: NDArray[Any], out: NDArray[Any], add: NDArray[Any] | None = None) -> None: ...
    def call(self, x: object, out: object, add: object) -> NDArray[Any] | None: ...
    def update(self, weight: NDArray[Any], bias: NDArray[Any] | None) -> None: ...
    def split(self, batch: int) -> list[tuple[int, int, int]]: ...
    def describe(self) -> str: ...
    @property
    def algorithm(self) -> str: ...
    @property
    def workspace_bytes(self) -> int: ...

class ChainPool:
    def __init__(
        self,
        channels_last: bool,
        channels: int,
        in_size: _Size,
        kernel: _Size,
        stride: _Size,
        dilation: _Size,
        before: _Size,
        out_size: _Size,
        counts: Sequence[NDArray[np.int64]],
    ) -> None: ...

class ChainRun:
    def __init__(self, steps: list[Any]) -> None: ...
    def run(self, x: NDArray[Any], out: NDArray[Any], add: NDArray[Any] | None = None) -> None: ...
    def call(self, x: object, out: object, add: object) -> NDArray[Any] | None: ...
    def workspace_bytes(self, batch: int) -> int: ...
    def describe(self, first: int) -> str: ...

def conv_candidates(problem: ConvProblem, dtype: np.dtype[Any]) -> list[tuple[str, float, int, bool, str | None]]: ...
def conv_algorithms() -> list[tuple[str, bool, int]]: ...
def conv_why_not(problem: ConvProblem, dtype: np.dtype[Any], algorithm: str) -> str | None: ...

class Pool:
    def __init__(
        self,
        channels_last: bool,
        channels: int,
        in_size: _Size,
        kernel: _Size,
        stride: _Size,
        dilation: _Size,
        before: _Size,
        out_size: _Size,
        counts: Sequence[NDArray[np.int64]],
        adaptive: bool,
    ) -> None: ...
    def max(self, x: NDArray[Any], out: NDArray[Any], indices: NDArray[Any] | None = None) -> None: ...
    def max_backward(self, grad_output: NDArray[Any], x: NDArray[Any], ties: str, dx: NDArray[Any]) -> None: ...
    def average(self, x: NDArray[Any], out: NDArray[Any]) -> None: ...
    def average_backward(self, grad_output: NDArray[Any], dx: NDArray[Any]) -> None: ...

class PoolCall:
    def __init__(self, pool: Pool, average: bool, rank: int, dtypes: _Dtypes) -> None: ...
    def __call__(self, x: object, out: object) -> NDArray[Any] | None: ...

class PoolBackwardCall:
    def __init__(self, pool: Pool, ties: str | None, rank: int, dtypes: _Dtypes) -> None: ...
    def __call__(self, grad_output: object, x: object, out: object) -> NDArray[Any] | None: ...

class PadCall:
    def __init__(
        self,
        dtype: np.dtype[Any],
        shape: tuple[int, ...],
        out_shape: tuple[int, ...],
        merged: tuple[int, ...],
        padded: tuple[int, ...],
        pads: Sequence[tuple[int, int]],
        mode: str,
        value: NDArray[Any],
    ) -> None: ...
    def __call__(self, x: object) -> NDArray[Any] | None: ...

class Unfold:
    def __init__(
        self,
        channels: int,
        in_size: _Size,
        kernel: _Size,
        stride: _Size,
        dilation: _Size,
        before: _Size,
        out_size: _Size,
    ) -> None: ...
    def im2col(self, x: NDArray[Any], out: NDArray[Any]) -> None: ...
    def col2im(self, columns: NDArray[Any], out: NDArray[Any]) -> None: ...

def pad(
    x: NDArray[Any], pads: Sequence[tuple[int, int]], mode: str, value: NDArray[Any], out: NDArray[Any]
) -> None: ...
def pad_backward(grad_output: NDArray[Any], pads: Sequence[tuple[int, int]], mode: str, dx: NDArray[Any]) -> None: ...

class ConvBackwardData:
    def __init__(self, problem: ConvProblem, dtype: np.dtype[Any]) -> None: ...
    def run(self, grad_output: NDArray[Any], weight: NDArray[Any], dx: NDArray[Any]) -> None: ...
    def run_transposed(
        self,
        x: NDArray[Any],
        weight: NDArray[Any],
        bias: NDArray[Any] | None,
        activation: str | None,
        out: NDArray[Any],
    ) -> None: ...

class ConvTransposedCall:
    def __init__(self, gradient: ConvBackwardData, activation: str | None, rank: int, dtypes: _Dtypes) -> None: ...
    def __call__(self, x: object, weight: object, bias: object, out: object) -> NDArray[Any] | None: ...

class ConvBackwardCall:
    def __init__(self, gradient: ConvBackwardData, rank: int, dtypes: _Dtypes, needs: tuple[bool, ...]) -> None: ...
    def __call__(self, grad_output: object, x: object, weight: object) -> tuple[NDArray[Any] | None, ...] | None: ...

class ConvBackwardDataPlan:
    def __init__(
        self,
        gradient: ConvBackwardData,
        weight: NDArray[Any],
        bias: NDArray[Any] | None,
        activation: str | None,
        rank: int,
    ) -> None: ...
    def update(self, weight: NDArray[Any], bias: NDArray[Any] | None = None) -> None: ...
    def run(self, grad_output: NDArray[Any], dx: NDArray[Any]) -> None: ...
    def call(self, grad_output: object, out: object) -> NDArray[Any] | None: ...
    def describe(self) -> str: ...

def conv_backward_weight(
    problem: ConvProblem, grad_output: NDArray[Any], x: NDArray[Any], dw: NDArray[Any], db: NDArray[Any] | None
) -> None: ...

_Real = NDArray[Any]

def batch_norm(x: _Real, mean: _Real, scale: _Real, bias: _Real, activation: str | None, out: _Real) -> None: ...
def batch_norm_train(
    x: _Real,
    weight: _Real,
    bias: _Real,
    eps: float,
    activation: str | None,
    out: _Real,
    mean: _Real,
    var: _Real,
    add: _Real | None,
) -> None: ...
def batch_norm_backward(
    grad_output: _Real,
    x: _Real,
    weight: _Real,
    bias: _Real,
    mean: _Real,
    var: _Real,
    eps: float,
    activation: str | None,
    dx: _Real,
    dweight: _Real,
    dbias: _Real,
) -> None: ...
def activate(x: _Real, activation: str, out: _Real) -> None: ...
def add(a: _Real, b: _Real, activation: str | None, out: _Real) -> None: ...
def activation_backward(grad_output: _Real, x: _Real, activation: str, dx: _Real) -> None: ...
def sgd_update(
    param: _Real, grad: _Real, velocity: _Real | None, lr: float, momentum: float, nesterov: bool, decay: float
) -> None: ...
def rmsprop_update(
    param: _Real,
    grad: _Real,
    square: _Real,
    mean: _Real | None,
    velocity: _Real | None,
    lr: float,
    rho: float,
    momentum: float,
    eps: float,
    decay: float,
) -> None: ...
def adam_update(
    param: _Real,
    grad: _Real,
    m: _Real,
    v: _Real,
    alpha: float,
    beta1: float,
    beta2: float,
    eps: float,
    decay: float,
    l2: float,
) -> None: ...
