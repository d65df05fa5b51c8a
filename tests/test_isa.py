"""Every instruction set that the compiled backend knows here: ``FASTCONV_ISA`` caps it, results stay the right ones."""

from __future__ import annotations

import pytest
from support import REASONS, run_with_isa

import fastconv

# a process of its own, since the choice is made when the module loads; the numpy backend, held to oracles elsewhere,
# says what is right
PROGRAM = """
import sys
import numpy as np, fastconv
from fastconv.testing import CONV_CASES, POOL_CASES, assert_close, conv_inputs, values

cpp = fastconv.get_backend("cpp")
assert cpp.config()["isa"] == sys.argv[1], cpp.config()
exact = [a.name for a in cpp.algorithms() if a.exact_on_integers]

def both(function, *arrays, **keywords):
    return [function(*arrays, **keywords, backend=name) for name in ("cpp", "numpy")]

for case in CONV_CASES[::4]:
    x, w, b = conv_inputs(case, "integers")
    conv = getattr(fastconv, f"conv{case.rank}d")
    right = conv(x, w, b, **case.keywords, backend="numpy")
    for algorithm in exact:
        try:
            y = conv(x, w, b, **case.keywords, backend="cpp", algorithm=algorithm)
        except fastconv.GeometryError:
            continue  # it cannot do this case
        assert_close(y, right, 0, f"{algorithm} {case.name}")
    assert_close(np.rint(conv(x, w, b, **case.keywords, backend="cpp")), right, 0, f"auto {case.name}")
    backward = getattr(fastconv, f"conv{case.rank}d_backward")
    ours, theirs = both(backward, right, x, w, **case.keywords)
    for name, one, other in zip(ours._fields, ours, theirs):
        if abs(other).max(initial=0) < 2**20 or case.dtype == "float64":
            assert_close(np.rint(one), other, 0, f"gradient to {name}, {case.name}")

for case in POOL_CASES[::4]:
    x = values("integers", case.x_shape, case.dtype, case.name)
    y, other = both(getattr(fastconv, f"max_pool{case.rank}d"), x, case.kernel, **case.max_keywords)
    assert_close(y, other, 0, case.name)
    backward = getattr(fastconv, f"max_pool{case.rank}d_backward")
    assert_close(*both(backward, y, x, case.kernel, **case.max_keywords), 0, case.name)
print("right")
"""


def all_isas() -> list[str]:
    if REASONS["cpp"] is not None:
        return []
    listed: list[str] = fastconv.get_backend("cpp").config()["isas"]
    return listed


def isas() -> list[str]:
    """Those with kernels of their own for everything; "amx" is AVX-512 and one algorithm more (test_bf16x3.py)."""
    return [isa for isa in all_isas() if isa != "amx"]


@pytest.mark.skipif(REASONS["cpp"] is not None, reason=f"backend cpp: {REASONS['cpp']}")
@pytest.mark.parametrize("isa", all_isas() or ["none"])
def test_instruction_set(isa: str) -> None:
    run_with_isa(isa, PROGRAM, isa)
