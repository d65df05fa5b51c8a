"""A full training step (forward, loss, backward, Adam): images per second of fastconv.nn, and of PyTorch if installed.

The course's two models at batch 16 and 64, and a 20-layer residual network on 32x32x3 at batch 64; the networks and the
checked first steps are those of ``fastconv bench training``. Each library has a process of its own; they take turns;
the ratio is to PyTorch's better layout.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import pytest

import fastconv
from fastconv.bench import find_layers
from fastconv.bench.peers import PEERS
from fastconv.bench.runner import Case, Row, Settings, run

CASES = (("happy", 16), ("happy", 64), ("signs", 16), ("signs", 64), ("cifar20", 64))


@pytest.mark.parametrize(("name", "batch"), CASES)
def bench_training_step(
    name: str, batch: int, rows: list[Row], request: pytest.FixtureRequest,
    record_property: Callable[[str, object], None],
) -> None:  # fmt: skip
    (layer,) = find_layers([f"training/{name}"])
    quick, threads = request.config.getoption("--quick"), fastconv.get_num_threads()
    peers = [PEERS["torch"]] if importlib.util.find_spec("torch") is not None else []
    settings = Settings(
        backends=() if peers else (fastconv.show_config(verbose=False)["backend"],), modes=("eager",),
        seconds=0.3 if quick else 1.5, rounds=3 if quick else 7,
    )  # fmt: skip
    (measured,) = run([Case(layer, threads, batch)], settings, peers)
    rates = {row.contender: batch / row.seconds for row in measured.rows if row.seconds is not None}
    rows += measured.rows
    wrong = [row for row in measured.rows if row.status in ("wrong", "failed")]
    assert not wrong, wrong[0].note
    line = f"{name} batch {batch}, {threads} threads: " + ", ".join(f"{w} {r:,.0f}/s" for w, r in rates.items())
    others = [rate for who, rate in rates.items() if not who.startswith("fastconv")]
    mine = [rate for who, rate in rates.items() if who.startswith("fastconv")]
    if others and mine:
        line += f", ratio {max(mine) / max(others):.2f}"
    record_property("line", line)
