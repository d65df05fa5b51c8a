"""Convolutions made ready once and run many times: plans, and chains of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from numpy.typing import ArrayLike, DTypeLike

from ..geometry import IntOrTuple, Padding
from ._chain_calls import ChainPlan, make_chain
from ._plan_calls import ConvPlan, make_plan

__all__ = ["ChainPlan", "ConvPlan", "plan_chain", "plan_conv1d", "plan_conv2d", "plan_conv3d"]


def plan_conv1d(
    x_shape: Sequence[int], weight: ArrayLike, bias: ArrayLike | None = None, *, stride: IntOrTuple = 1,
    padding: Padding = 0, dilation: IntOrTuple = 1, groups: int = 1, padding_mode: str = "constant",
    layout: str | None = None, dtype: DTypeLike = "float32", algorithm: str = "auto", activation: str | None = None,
    workspace_limit: int | None = None, batch_invariant: bool = True, backend: str | None = None,
) -> ConvPlan:  # fmt: skip
    """Make a convolution of sequences ready; everything as in :func:`plan_conv2d`.

    Parameters
    ----------
    x_shape : tuple of int
        ``(N, C_in, W)`` or without N, in the layout.
    weight, bias, stride, padding, dilation, groups, padding_mode, layout, dtype, algorithm, activation, workspace_limit
        As in :func:`plan_conv2d`.
    batch_invariant, backend
        As in :func:`plan_conv2d`.

    Returns
    -------
    ConvPlan
        As of :func:`plan_conv2d`.

    Raises
    ------
    GeometryError, UnknownNameError, TypeError, BackendUnavailableError
        As :func:`plan_conv2d`.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> plan = fastconv.plan_conv1d((1, 1, 4), np.ones((1, 1, 3)))
    >>> plan(np.ones((5, 1, 4), np.float32)).shape
    (5, 1, 2)
    """
    return make_plan(
        1, x_shape, weight, bias, stride, padding, dilation, groups, padding_mode, layout, dtype, algorithm,
        activation, workspace_limit, batch_invariant, backend,
    )  # fmt: skip


def plan_conv2d(
    x_shape: Sequence[int], weight: ArrayLike, bias: ArrayLike | None = None, *, stride: IntOrTuple = 1,
    padding: Padding = 0, dilation: IntOrTuple = 1, groups: int = 1, padding_mode: str = "constant",
    layout: str | None = None, dtype: DTypeLike = "float32", algorithm: str = "auto", activation: str | None = None,
    workspace_limit: int | None = None, batch_invariant: bool = True, backend: str | None = None,
) -> ConvPlan:  # fmt: skip
    """Make a convolution of images ready: checked, its algorithm chosen and its weight packed, to be run many times.

    Parameters
    ----------
    x_shape : tuple of int
        Shape of the input, ``(N, C_in, H, W)`` or without N, in the layout. N is a hint: the plan runs on any.
    weight, bias : array_like
        As in :func:`conv2d`; they are copied, cast to ``dtype`` and packed now.
    stride, padding, dilation, groups, padding_mode, layout, activation
        As in :func:`conv2d`.
    dtype : dtype, default "float32"
        float16, float32 or float64: of the result and, but for float16, of the computation. Inputs are cast to it.
    algorithm : str, default "auto"
        As in :func:`conv2d`.
    workspace_limit : int, optional
        Bytes of scratch that the plan may use, all threads together: blocks are made smaller, then fewer threads
        used, or another algorithm taken. ``plan.workspace_bytes`` tells what a call uses at most.
    batch_invariant : bool, default True
        Whether an image's result may not depend, bit for bit, on the batch it sits in. False lets the algorithm be
        chosen for the planned number of images instead of one that serves small and large batches alike.
    backend : str, optional
        Who computes; by default the backend that is active now.

    Returns
    -------
    ConvPlan
        Call it as ``plan(x, out=None, add=None)``; see :class:`ConvPlan`.

    Raises
    ------
    GeometryError, UnknownNameError, TypeError, BackendUnavailableError
        As :func:`conv2d`; also a workspace limit that no algorithm keeps.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> plan = fastconv.plan_conv2d((1, 1, 4, 4), np.ones((1, 1, 3, 3)))
    >>> plan(np.ones((5, 1, 4, 4), np.float32)).shape
    (5, 1, 2, 2)
    """
    return make_plan(
        2, x_shape, weight, bias, stride, padding, dilation, groups, padding_mode, layout, dtype, algorithm,
        activation, workspace_limit, batch_invariant, backend,
    )  # fmt: skip


def plan_conv3d(
    x_shape: Sequence[int], weight: ArrayLike, bias: ArrayLike | None = None, *, stride: IntOrTuple = 1,
    padding: Padding = 0, dilation: IntOrTuple = 1, groups: int = 1, padding_mode: str = "constant",
    layout: str | None = None, dtype: DTypeLike = "float32", algorithm: str = "auto", activation: str | None = None,
    workspace_limit: int | None = None, batch_invariant: bool = True, backend: str | None = None,
) -> ConvPlan:  # fmt: skip
    """Make a convolution of volumes ready; everything as in :func:`plan_conv2d`.

    Parameters
    ----------
    x_shape : tuple of int
        ``(N, C_in, D, H, W)`` or without N, in the layout.
    weight, bias, stride, padding, dilation, groups, padding_mode, layout, dtype, algorithm, activation, workspace_limit
        As in :func:`plan_conv2d`.
    batch_invariant, backend
        As in :func:`plan_conv2d`.

    Returns
    -------
    ConvPlan
        As of :func:`plan_conv2d`.

    Raises
    ------
    GeometryError, UnknownNameError, TypeError, BackendUnavailableError
        As :func:`plan_conv2d`.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> plan = fastconv.plan_conv3d((1, 1, 4, 4, 4), np.ones((1, 1, 3, 3, 3)))
    >>> plan(np.ones((5, 1, 4, 4, 4), np.float32)).shape
    (5, 1, 2, 2, 2)
    """
    return make_plan(
        3, x_shape, weight, bias, stride, padding, dilation, groups, padding_mode, layout, dtype, algorithm,
        activation, workspace_limit, batch_invariant, backend,
    )  # fmt: skip


def plan_chain(plans: Sequence[ConvPlan | ChainPlan | Callable[..., Any]]) -> ChainPlan:
    """Run several plans one after the other, in one pass where that saves a trip to memory.

    The ``cpp`` backend joins depthwise convolutions with the 1x1 convolutions around them, and convolutions with
    the pooling that follows: a few rows of the first step are made, of them a few rows of the next, so that what
    lies between stays in the cache. The bits are those of the steps run one by one. What is not joined runs step
    after step through scratch memory; ``chain.describe()`` says what was joined and why the rest was not.

    Parameters
    ----------
    plans : sequence
        Plans, each fitting the result of the one before, and functions of one array between or after them. A max or
        average pooling with its arguments bound by :func:`functools.partial` can be joined with the plan before it.

    Returns
    -------
    ChainPlan
        Call it as ``chain(x, out=None, add=None)``; ``add`` is added before the activation of the last step.

    Raises
    ------
    TypeError, GeometryError
        Entries that cannot be called, an empty sequence, or plans that do not fit together.

    Examples
    --------
    >>> import numpy as np, fastconv
    >>> depthwise = fastconv.plan_conv2d((1, 2, 4, 4), np.ones((2, 1, 3, 3)), groups=2)
    >>> pointwise = fastconv.plan_conv2d((1, 2, 2, 2), np.ones((3, 2, 1, 1)))
    >>> chain = fastconv.plan_chain([depthwise, pointwise])
    >>> chain(np.ones((1, 2, 4, 4), np.float32))[0, :, 0, 0]
    array([18., 18., 18.], dtype=float32)

    A residual block adds its own input: ``chain(x, add=x)``. A convolution with its pooling is
    ``plan_chain([plan, functools.partial(fastconv.max_pool2d, kernel_size=2)])``.
    """
    return make_chain(plans)
