"""Pairs of case and kernel, and what each kernel promises: read from the backends, never from their names."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv.testing import RANDOM, ConvCase, conv_inputs, tolerance

BUILTIN = ("cpp", "cython", "numba", "numpy", "reference")
REASONS = {b.name: b.reason for b in fastconv.list_backends() if b.builtin}  # None where it can be had
SLOW = ("reference",)  # naive loops: every third case, and none of the large ones
LARGE = 3_000_000  # multiply-adds


def without(library: str) -> None:
    """A test that needs a library which is not there: skipped, or failed where oracles are required."""
    text = f"{library} is not installed: pip install {library}"
    if os.environ.get("FASTCONV_REQUIRE_ORACLES", "0") not in ("", "0"):
        pytest.fail(text)
    pytest.skip(text)


def algorithms(name: str) -> list[str]:
    """What ``algorithm=`` takes on a backend; one entry for a backend that cannot be had, so that it is reported."""
    if REASONS[name] is not None:
        return ["direct"]
    found = [a.name for a in fastconv.get_backend(name).algorithms()]
    return found if len(found) == 1 else ["auto", *found]


def promise(name: str, algorithm: str) -> tuple[bool, int, str]:
    """(exact on integers, longest chain, whose constants); "auto" promises what the weakest of all promises."""
    listed = {a.name: a for a in fastconv.get_backend(name).algorithms()}
    chosen = list(listed.values()) if algorithm == "auto" else [listed[algorithm]]
    chain = 0 if any(a.chain == 0 for a in chosen) else max(a.chain for a in chosen)
    weakest = max(chosen, key=lambda a: RANDOM.get(a.name, (0, 0, 0)))
    return all(a.exact_on_integers for a in chosen), chain, weakest.name


def work(case: Any) -> int:
    """Multiply-adds of a case, roughly: positions of the input times taps."""
    if isinstance(case, ConvCase):
        return case.n * case.k * math.prod(case.size) * case.terms // math.prod(case.strides)
    return case.n * case.c * math.prod(case.size) * math.prod(case.kernel)


def suits(name: str, case: Any, turn: int) -> bool:
    return name not in SLOW or (turn % 3 == 0 and work(case) < LARGE)


def pairs(cases: Iterable[Any]) -> list[Any]:
    """Every case with every backend that is quick enough for it."""
    return [
        pytest.param(case, name, id=f"{case.name}-{name}")
        for turn, case in enumerate(cases)
        for name in BUILTIN
        if suits(name, case, turn)
    ]


def kernels(cases: Iterable[ConvCase]) -> list[Any]:
    """Every case with every backend and algorithm."""
    listed = {name: algorithms(name) for name in BUILTIN}
    return [
        pytest.param(case, name, algorithm, id=f"{case.name}-{name}-{algorithm}")
        for turn, case in enumerate(cases)
        for name in BUILTIN
        if suits(name, case, turn)
        for algorithm in listed[name]
    ]


def run_or_skip(function: Any, *arrays: Any, **keywords: Any) -> Any:
    """Call; an algorithm that says it cannot do the problem skips the test with its reason."""
    try:
        return function(*arrays, **keywords)
    except fastconv.GeometryError as error:
        if "cannot do this" in str(error):
            pytest.skip(str(error))
        raise


def conv_tolerance(
    case: ConvCase, name: str, algorithm: str, kind: str, magnitude: np.ndarray, *, terms: int | None = None
) -> np.ndarray:
    """What a convolution may err by; a gradient to the input is one too, by an algorithm that is not told: "auto"."""
    exact, chain, constants = promise(name, algorithm)
    spatial = range(1, case.rank + 1) if case.channels_last else range(2, case.rank + 2)
    return tolerance(
        case.dtype, (case.terms if terms is None else terms) + 1, magnitude, chain=chain, algorithm=constants,
        random=kind == "normal", exact=exact and kind == "integers", spatial_axes=tuple(spatial),
    )  # fmt: skip


def function(stem: str, rank: int, suffix: str = "") -> Any:
    """The public function of a rank, such as ``conv2d_backward``."""
    return getattr(fastconv, f"{stem}{rank}d{suffix}")


def run_with_isa(isa: str, program: str, *arguments: str) -> None:
    """A program in a process of its own, since the instruction set is chosen when the module loads; it prints right."""
    path = os.pathsep.join([str(Path(__file__).parent), *(p for p in sys.path if p)])
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=400, check=False,
        env={**os.environ, "FASTCONV_ISA": isa, "PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == "right\n"


ADVERSARIAL = ["constant", "offset", "alternating"]


def adversarial_inputs(case: ConvCase, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Equal terms, a mean far from zero, alternating signs: what is easy to get right on random data and hard here."""
    x, w, _ = conv_inputs(case, "normal")
    if kind == "constant":
        return np.ones_like(x), np.ones_like(w)
    if kind == "offset":
        return x + np.float32(1000), w
    signs = (-1) ** np.indices(x.shape).sum(axis=0)
    return np.abs(x) * signs.astype(np.float32), w
