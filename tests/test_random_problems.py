"""The random problems of the benchmark: a seed draws the same ones, each of them runs, and the NumPy backend agrees."""

from __future__ import annotations

import numpy as np
import pytest
from support import REASONS

import fastconv
from fastconv.bench.random_problems import Cliff, RandomProblem, measure, random_problems, report
from fastconv.cli import main
from fastconv.testing import largest_excess


def test_a_seed_draws_the_same() -> None:
    """Other seeds draw others; every kind and dtype comes up."""
    first = list(random_problems(400, seed=3))
    assert first == list(random_problems(400, seed=3))
    assert first != list(random_problems(400, seed=4))
    assert len({p.kind for p in first}) == 9
    assert {p.dtype for p in first} >= {"float32", "float64", "float16", "uint8", "bool"}
    assert {p.rank for p in first} == {1, 2, 3}
    assert all(min(p.out_size) >= 1 and p.operations <= 4e8 for p in first if p.kind != "pad")


@pytest.mark.skipif(REASONS["cpp"] is not None, reason=f"backend cpp: {REASONS['cpp']}")
@pytest.mark.parametrize("problem", [p for p in random_problems(150, seed=1) if p.operations < 2e7], ids=str)
def test_against_numpy(problem: RandomProblem) -> None:
    """What the compiled backend computes lies near what the NumPy backend does, whatever is drawn."""
    call = problem.call()
    with fastconv.use_backend("cpp"):
        ours = call()
    with fastconv.use_backend("numpy"):
        theirs = call()
    pairs = zip(ours, theirs, strict=True) if isinstance(ours, tuple) else [(ours, theirs)]
    for one, other in pairs:
        if other is None:
            assert one is None
            continue
        assert one.dtype == other.dtype
        eps = float(np.finfo(one.dtype).eps) if one.dtype.kind == "f" else 0.0
        assert largest_excess(one, other, 200 * eps * max(1.0, float(abs(other.astype(float)).max(initial=0)))) <= 0


def test_report() -> None:
    """The quotient is time over demand; the report names the worst."""
    problems = list(random_problems(3, seed=5))
    found = [Cliff(p, seconds, 1.0) for p, seconds in zip(problems, (9.0, 2.0, 1.0), strict=True)]
    assert found[0].quotient == 9.0
    lines = report(found, worst=1)
    assert lines[0].startswith("3 problems")
    assert f"{problems[0]}: {found[0].reason}" in lines[-1]
    assert Cliff(problems[0], 3.0, 1.0, empty_call=1.0).reason == "the call: 3 times an empty one"
    drawn = RandomProblem("conv", "int16", False, 1, 6, 4, 2, (9, 9), (3, 3), (1, 1), (0, 0), (1, 1))
    assert Cliff(drawn, 1.0, 1.0).reason == f"{drawn.algorithm}, int16 is cast, 3 > 2 channels a group, rows of 7"
    measured = measure([p for p in random_problems(30, seed=6) if p.operations < 1e6][:3], seconds=0.001)
    assert [m.quotient for m in measured] == sorted((m.quotient for m in measured), reverse=True)


def test_command_tells_all_seeds_together(capsys: pytest.CaptureFixture[str]) -> None:
    """The distribution of each seed, and that of all of them."""
    before = fastconv.get_num_threads()
    try:
        assert main(["bench", "--cliffs", "2", "--seed", "1,2", "--threads", "1"]) == 0
    finally:
        fastconv.set_num_threads(before)
    told = capsys.readouterr().out
    assert "seed 1: 2 problems" in told
    assert "seed 2: 2 problems" in told
    assert "all seeds: 4 problems" in told
