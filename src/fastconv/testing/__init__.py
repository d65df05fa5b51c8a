"""Cases, inputs, tolerances and comparisons: what tests, benchmarks and ``fastconv check`` share.

Examples
--------
>>> import fastconv
>>> from fastconv.testing import CONV_CASES, assert_close, conv_inputs
>>> case = CONV_CASES[0]
>>> x, weight, bias = conv_inputs(case, "integers")
>>> result = fastconv.conv2d(x, weight, bias, **case.keywords, algorithm="direct")
>>> assert_close(result, fastconv.conv2d(x, weight, bias, **case.keywords, backend="reference"), what=case.name)
"""

from __future__ import annotations

from .cases import CONV_CASES, PAD_CASES, POOL_CASES, TRANSPOSE_CASES, ConvCase, PadCase, PoolCase
from .tolerance import RANDOM, assert_close, largest_excess, tolerance
from .values import conv_inputs, values

__all__ = [
    "CONV_CASES",
    "PAD_CASES",
    "POOL_CASES",
    "RANDOM",
    "TRANSPOSE_CASES",
    "ConvCase",
    "PadCase",
    "PoolCase",
    "assert_close",
    "conv_inputs",
    "largest_excess",
    "tolerance",
    "values",
]
