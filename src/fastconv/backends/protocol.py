"""What a backend offers: the kernel contract in words, and the base class that states it.

The contract. Every array that reaches a backend has been checked and prepared by ``fastconv.ops``:

- data has five axes, ``(N, C, D, H, W)`` or, where the geometry is channels last, ``(N, D, H, W, C)``; a weight
  is ``(K, C/groups, kd, kh, kw)`` or ``(kd, kh, kw, C/groups, K)``; all as the geometry's ``x_shape``,
  ``weight_shape`` and ``out_shape`` say. Only layouts, dtypes and strides that the backend declares arrive;
  C-contiguous, aligned and in native byte order unless ``any_strides`` is set (then still native and aligned).
- all floating arrays of one call have the same dtype; ``out`` is allocated, has the right shape and dtype, its
  contents are arbitrary, it overlaps no input, and the kernel writes every element of it. Kernels return nothing
  and raise nothing.
- batch, channels and output channels may be zero; spatial sizes and ``out_size`` are at least one, except in ``pad``.
- forward convolution gets ``padding_mode`` other than "constant" only if declared; gradients never do.
- padding is implicit: positions outside the input count as zero (convolution), as the least value (max pooling),
  as absent or zero (average pooling: divide by the product of ``geometry.window_counts``, zero counts giving zero).
- NaN: the first NaN of a window is its maximum. Ties: the first position in row-major order is the index.
- activations and optimizer updates get flat arrays; batch normalisation sees its data as ``(outer, C, inner)``, where
  inner is 1 if the channels are last, and its statistics and parameters as ``(C,)`` of the data's dtype. These methods
  are optional: what a backend does not bring is composed of NumPy calls (``composed``).
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..geometry import PADDING_MODES, ConvGeometry, PadGeometry, PoolGeometry
from . import composed

__all__ = [
    "ACTIVATIONS", "FLOATS", "TIES", "Algorithm", "Array", "Backend", "Candidate", "ChainRun", "ConvRun", "PoolStep"
]  # fmt: skip

Array: TypeAlias = NDArray[Any]

ACTIVATIONS = ("relu", "relu6", "leaky_relu", "sigmoid", "tanh", "silu", "gelu", "hard_swish")
TIES = ("first", "all", "split")
FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


@dataclass(frozen=True)
class Algorithm:
    """One way in which a backend convolves.

    ``exact_on_integers`` promises exact results for small integer-valued inputs; ``chain`` is the longest chain of
    additions into one accumulator (0: the whole reduction in one), which the error bound follows from.
    """

    name: str
    exact_on_integers: bool = True
    chain: int = 0


@dataclass(frozen=True)
class Candidate:
    """What a backend knows beforehand of one algorithm and one problem.

    ``seconds`` is predicted, for one image on one thread; ``why_not`` is None where the algorithm takes the problem.
    """

    name: str
    seconds: float
    workspace_bytes: int
    automatic: bool
    why_not: str | None


@dataclass(frozen=True)
class PoolStep:
    """A pooling as a step of a chain: the maximum, or the mean."""

    geometry: PoolGeometry
    average: bool


class ChainRun(Protocol):
    """Several steps made ready to run as one."""

    def run(self, x: Array, out: Array, add: Array | None) -> None:
        """Run the steps; ``add`` (only where the last is a convolution) comes before the last activation."""

    def workspace_bytes(self, batch: int) -> int:
        """Scratch memory of a run, at most."""

    def describe(self, first: int) -> str:
        """What runs in one pass and why the rest does not; steps are counted from ``first``."""


class ConvRun(Protocol):
    """A convolution made ready to run: geometry, algorithm and weights are settled.

    It may have a method ``call(x, out, add)`` beside these, which takes the user's own arrays (of the user's rank) and
    gives the result, or None for arrays that it does not take as they are.
    """

    @property
    def algorithm(self) -> str:
        """Name of the algorithm that runs."""

    @property
    def workspace_bytes(self) -> int:
        """Scratch memory of a run, at most."""

    def run(self, x: Array, out: Array, add: Array | None) -> None:
        """Convolve ``x`` into ``out``; ``add`` (only where ``fuses_add``) comes before the activation."""

    def update(self, weight: Array, bias: Array | None) -> None:
        """Take new weights of the same shapes and dtype."""

    def describe(self) -> str:
        """Candidates, the choice, and why."""


class ConvDataRun(Protocol):
    """The gradient of a convolution to its input made ready to run: geometry and weights are settled."""

    def run(self, grad_output: Array, dx: Array) -> None:
        """Compute the gradient into ``dx``."""

    def update(self, weight: Array, bias: Array | None = None) -> None:
        """Take new weights of the same shape and dtype; a bias only in a transposed convolution that fuses it."""


class Backend(abc.ABC):
    """Base class of every backend; subclasses fill in the kernels and say what they accept as it is."""

    name: ClassVar[str]
    layouts: ClassVar[tuple[str, ...]] = ("channels_first",)
    any_strides: ClassVar[bool] = False
    padding_modes: ClassVar[tuple[str, ...]] = PADDING_MODES[:1]
    activations: ClassVar[tuple[str, ...]] = ()
    fuses_add: ClassVar[bool] = False
    fuses_transposed: ClassVar[bool] = False  # bias and its activations, in a transposed convolution
    max_pool_dtypes: ClassVar[tuple[np.dtype[Any], ...]] = FLOATS
    adaptive_windows: ClassVar[bool] = False  # pooling over windows of unequal sizes; else ops reduces them one by one
    # what is promised of results and processes; the tests hold every backend to what it publishes
    fork_safe: ClassVar[bool] = True
    thread_deterministic: ClassVar[bool] = True
    batch_invariant: ClassVar[bool] = True

    def set_num_threads(self, count: int) -> None:  # noqa: B027  a single-threaded backend has nothing to do
        """Use at most ``count`` threads from now on."""

    def config(self) -> dict[str, Any]:
        """What ``show_config`` reports about this backend: versions, instruction set, compiler."""
        return {}

    def release_scratch(self) -> None:  # noqa: B027  most backends keep nothing
        """Give kept memory back."""

    def empty(self, shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
        """A new array for a result; a backend may keep the memory of results that died."""
        return np.empty(shape, dtype)

    def cast(self, array: Array, into: Array) -> None:
        """Write ``array`` into an array of its shape and another dtype; what is too large for it becomes infinite."""
        with np.errstate(over="ignore", invalid="ignore"):
            into[...] = array

    # -- convolution

    @abc.abstractmethod
    def algorithms(self) -> Sequence[Algorithm]:
        """Algorithms of the forward convolution, best first; "direct" is one of them."""

    def why_not(self, algorithm: str, geometry: ConvGeometry, dtype: np.dtype[Any]) -> str | None:
        """One sentence why an algorithm of this backend cannot do a problem, or None if it can."""
        return None

    def choose(self, geometry: ConvGeometry, dtype: np.dtype[Any]) -> str:
        """The algorithm that "auto" stands for: the first that accepts the problem."""
        return next(a.name for a in self.algorithms() if self.why_not(a.name, geometry, dtype) is None)

    @abc.abstractmethod
    def conv(
        self, geometry: ConvGeometry, x: Array, weight: Array, bias: Array | None,
        activation: str | None, out: Array, algorithm: str,
    ) -> None:  # fmt: skip
        """Cross-correlate ``x`` with ``weight``; ``bias`` is (K,); ``algorithm`` is "auto" or one that accepts."""

    # What a backend binds runs a whole eager call in one step on the user's own arrays, of the user's rank and of the
    # dtypes named, the last of which is the result's; `out` may be None. It returns None for arrays that have to be
    # prepared first (strides) and for all whose dtypes and shapes are not the ones bound, with a batch or without; it
    # serves small calls, whose cost is what happens around the kernel. A backend that binds nothing gives None instead.

    def bind_conv(
        self, geometry: ConvGeometry, dtypes: tuple[np.dtype[Any], ...], activation: str | None, algorithm: str
    ) -> Callable[[Any, Any, Any, Any], Array | None] | None:
        """A convolution ``(x, weight, bias, out) -> result``; dtypes of x, weight, result."""
        return None

    def plan_conv(
        self, geometry: ConvGeometry, weight: Array, bias: Array | None, activation: str | None,
        algorithm: str, batch_hint: int, workspace_limit: int | None, batch_invariant: bool,
    ) -> ConvRun:  # fmt: skip
        """Make a convolution ready; a backend that packs nothing keeps geometry and weights."""
        return _PlainRun(self, geometry, weight, bias, activation, algorithm)

    def plan_conv_backward_data(self, geometry: ConvGeometry, weight: Array) -> ConvDataRun:
        """Make the gradient to the input ready; a backend that packs nothing keeps geometry and weights."""
        return _PlainDataRun(self, geometry, weight)

    def conv_transpose(
        self, geometry: ConvGeometry, x: Array, weight: Array, bias: Array | None, activation: str | None, out: Array
    ) -> None:
        """The gradient of ``geometry`` to its input; then, only where ``fuses_transposed``, bias and activation."""
        self.conv_backward_data(geometry, x, weight, out)

    def bind_conv_transpose(
        self, geometry: ConvGeometry, dtypes: tuple[np.dtype[Any], ...], activation: str | None
    ) -> Callable[[Any, Any, Any, Any], Array | None] | None:
        """As :meth:`bind_conv`, only where ``fuses_transposed``."""
        return None

    def bind_conv_backward(
        self, geometry: ConvGeometry, dtypes: tuple[np.dtype[Any], ...], needs: tuple[bool, ...]
    ) -> Callable[[Any, Any, Any], tuple[Array | None, ...] | None] | None:
        """Gradients ``(grad_output, x, weight) -> (dx, dw, db)``, None where not needed; dtypes of all these."""
        return None

    def bind_pool(
        self, geometry: PoolGeometry, dtypes: tuple[np.dtype[Any], ...], average: bool
    ) -> Callable[[Any, Any], Array | None] | None:
        """A pooling ``(x, out) -> result``; dtypes of x, of what is computed in, of the result."""
        return None

    def bind_pool_backward(
        self, geometry: PoolGeometry, dtypes: tuple[np.dtype[Any], ...], ties: str | None
    ) -> Callable[[Any, Any, Any], Array | None] | None:
        """The gradient ``(grad_output, x, out) -> dx`` of a maximum under ``ties``, or of an average (None).

        The dtypes are those of grad_output, of x, of what is computed in, of the result.
        """
        return None

    def bind_pad(
        self, geometry: PadGeometry, shape: tuple[int, ...], out_shape: tuple[int, ...], value: Array
    ) -> Callable[[Any], Array | None] | None:
        """A padding ``(x) -> result`` of arrays of value's dtype and these shapes, which the geometry has merged."""
        return None

    def plan_conv_transpose(
        self, geometry: ConvGeometry, weight: Array, bias: Array | None, activation: str | None
    ) -> ConvDataRun:
        """Make a transposed convolution ready; bias and activation only where ``fuses_transposed``."""
        return self.plan_conv_backward_data(geometry, weight)

    def candidates(self, geometry: ConvGeometry, dtype: np.dtype[Any]) -> Sequence[Candidate]:
        """Every algorithm with its predicted time, fastest first; without a model, in the order of the list."""
        reasons = [(a.name, self.why_not(a.name, geometry, dtype)) for a in self.algorithms()]
        return [Candidate(name, 0.0, 0, True, why_not) for name, why_not in reasons]

    def chain(self, steps: Sequence[ConvRun | PoolStep]) -> ChainRun | None:
        """Plans of this backend and poolings made into one run, or None: they then run one after the other."""
        return None

    @abc.abstractmethod
    def conv_backward_data(self, geometry: ConvGeometry, grad_output: Array, weight: Array, dx: Array) -> None:
        """Gradient of the convolution with respect to its input."""

    @abc.abstractmethod
    def conv_backward_weight(
        self, geometry: ConvGeometry, grad_output: Array, x: Array, dw: Array, db: Array | None
    ) -> None:
        """Gradient with respect to the weight and, where ``db`` (K,) is given, to the bias."""

    # -- pooling

    @abc.abstractmethod
    def max_pool(self, geometry: PoolGeometry, x: Array, out: Array, indices: Array | None) -> None:
        """Maximum of every window; ``indices`` (int64, or None) are flat in the unpadded D*H*W volume.

        A window that lies wholly in the padding gives -inf or the dtype's least value, and index -1.
        """

    @abc.abstractmethod
    def max_pool_backward(self, geometry: PoolGeometry, grad_output: Array, x: Array, ties: str, dx: Array) -> None:
        """Gradient to the maxima: the "first" of each window, "all" tied ones in full, or "split" evenly.

        NaNs are tied with each other under "all" and "split".
        """

    @abc.abstractmethod
    def avg_pool(self, geometry: PoolGeometry, x: Array, out: Array) -> None:
        """Mean of every window, divided as ``geometry.window_counts`` says."""

    @abc.abstractmethod
    def avg_pool_backward(self, geometry: PoolGeometry, grad_output: Array, dx: Array) -> None:
        """Gradient of the mean: each output's gradient over its count, to every input of its window."""

    # -- padding and windows as columns

    @abc.abstractmethod
    def pad(self, geometry: PadGeometry, x: Array, value: Array, out: Array) -> None:
        """Pad an array of 1, 2, 4 or 8 byte unsigned integers (any dtype, seen as bits); ``value`` is 0-d of x's dtype.

        At most five axes arrive. ``geometry.in_shape`` and ``pads`` describe x as it arrives.
        """

    @abc.abstractmethod
    def pad_backward(self, geometry: PadGeometry, grad_output: Array, dx: Array) -> None:
        """Adjoint of ``pad``: sum the gradients of all copies of each element. At most five axes."""

    @abc.abstractmethod
    def im2col(self, geometry: ConvGeometry, x: Array, out: Array) -> None:
        """Every window as a column: x seen as unsigned integers, out (N, C, kd, kh, kw, D', H', W'), padding zero.

        The geometry has ``groups == in_channels == out_channels`` and is channels first.
        """

    @abc.abstractmethod
    def col2im(self, geometry: ConvGeometry, columns: Array, out: Array) -> None:
        """Adjoint of ``im2col`` on floats: add every column back to where it came from."""

    # -- activations, batch normalisation, optimizer updates: optional; C-contiguous, aligned, native float32 or float64

    def activate(self, x: Array, activation: str, out: Array) -> None:
        """Activation by name (PyTorch's definitions) of a flat array; ``out`` may be ``x`` itself."""
        composed.activate(x, activation, out)

    def add(self, a: Array, b: Array, activation: str | None, out: Array) -> None:
        """``a + b``, then the activation; flat arrays, ``out`` may be either itself."""
        composed.add(a, b, activation, out)

    def activation_backward(self, grad_output: Array, x: Array, activation: str, dx: Array) -> None:
        """Gradient to the pre-activation ``x``; flat arrays, ``dx`` may be ``grad_output`` or ``x`` itself."""
        composed.activation_backward(grad_output, x, activation, dx)

    def batch_norm(self, x: Array, mean: Array, scale: Array, bias: Array, activation: str | None, out: Array) -> None:
        """``(x - mean) * scale + bias`` for each channel, then the activation."""
        composed.batch_norm(x, mean, scale, bias, activation, out)

    def batch_norm_train(
        self, x: Array, weight: Array, bias: Array, eps: float, activation: str | None, out: Array,
        mean: Array, var: Array, add: Array | None,
    ) -> None:  # fmt: skip
        """Normalise by the mean and biased variance over outer and inner, which are written to ``mean`` and ``var``.

        Sums are float64, the variance is computed about the mean; outer * inner is at least one. ``add``, if given, is
        added before the activation; it shares no memory with ``out``.
        """
        composed.batch_norm_train(x, weight, bias, eps, activation, out, mean, var, add)

    def batch_norm_backward(
        self, grad_output: Array, x: Array, weight: Array, bias: Array, mean: Array, var: Array, eps: float,
        activation: str | None, dx: Array, dweight: Array, dbias: Array,
    ) -> None:  # fmt: skip
        """Gradients of ``batch_norm_train``, through mean and variance; ``grad_output`` is after the activation.

        The pre-activation is computed again from ``x`` and the statistics.
        """
        composed.batch_norm_backward(grad_output, x, weight, bias, mean, var, eps, activation, dx, dweight, dbias)

    def sgd_update(
        self, param: Array, grad: Array, velocity: Array | None, lr: float, momentum: float, nesterov: bool,
        decay: float,
    ) -> None:  # fmt: skip
        """In place and in this order: ``param -= decay * param``; ``step = lr * grad``; with a velocity

        ``velocity = momentum * velocity - step`` and ``param += velocity`` (nesterov: ``momentum * velocity - step``),
        without one ``param -= step``.
        """
        composed.sgd_update(param, grad, velocity, lr, momentum, nesterov, decay)

    def rmsprop_update(
        self, param: Array, grad: Array, square: Array, mean: Array | None, velocity: Array | None, lr: float,
        rho: float, momentum: float, eps: float, decay: float,
    ) -> None:  # fmt: skip
        """In place: ``param -= decay * param``; the averages ``square`` and ``mean`` move by ``1 - rho``;

        ``step = lr * grad / sqrt(square - mean**2 + eps)``; with a velocity ``velocity = momentum * velocity + step``
        and ``param -= velocity``, without one ``param -= step``. Without ``mean`` it counts as zero.
        """
        composed.rmsprop_update(param, grad, square, mean, velocity, lr, rho, momentum, eps, decay)

    def adam_update(
        self, param: Array, grad: Array, m: Array, v: Array, alpha: float, beta1: float, beta2: float, eps: float,
        decay: float, l2: float,
    ) -> None:  # fmt: skip
        """In place: ``param -= decay * param``; ``g = grad + l2 * param``; ``m += (g - m) * (1 - beta1)``;

        ``v += (g * g - v) * (1 - beta2)``; ``param -= alpha * m / (sqrt(v) + eps)``.
        """
        composed.adam_update(param, grad, m, v, alpha, beta1, beta2, eps, decay, l2)


class _PlainRun:
    """The plan of a backend that has nothing to prepare."""

    def __init__(
        self, backend: Backend, geometry: ConvGeometry, weight: Array, bias: Array | None,
        activation: str | None, algorithm: str,
    ) -> None:  # fmt: skip
        self.backend, self.geometry, self.activation = backend, geometry, activation
        self.algorithm = backend.choose(geometry, weight.dtype) if algorithm == "auto" else algorithm
        self.workspace_bytes = 0
        self.update(weight, bias)

    def update(self, weight: Array, bias: Array | None) -> None:
        self.weights = weight.copy(), None if bias is None else bias.copy()  # at once: another thread may be running

    def run(self, x: Array, out: Array, add: Array | None) -> None:
        assert add is None  # this backend does not fuse additions: ops adds
        weight, bias = self.weights
        self.backend.conv(self.geometry, x, weight, bias, self.activation, out, self.algorithm)

    def describe(self) -> str:
        return f"{self.backend.name}: {self.algorithm}"


class _PlainDataRun:
    """The planned gradient of a backend that has nothing to prepare."""

    def __init__(self, backend: Backend, geometry: ConvGeometry, weight: Array) -> None:
        self.backend, self.geometry = backend, geometry
        self.update(weight)

    def update(self, weight: Array, bias: Array | None = None) -> None:
        assert bias is None  # this backend does not fuse: ops adds
        self.weight = weight.copy()

    def run(self, grad_output: Array, dx: Array) -> None:
        self.backend.conv_backward_data(self.geometry, grad_output, self.weight, dx)
