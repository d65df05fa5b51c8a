"""The bench: layers as data, problems that are checked, timing in turns, rows and tables."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import os
import pathlib
import subprocess
import sys
import time

import numpy as np
import pytest

import fastconv
from fastconv.bench import QUICK, SUITES, Layer, Problem, find_layers, parse_shape
from fastconv.bench.load import Load
from fastconv.bench.machine import describe, limits, summary
from fastconv.bench.peers import find_peers
from fastconv.bench.problem import compare
from fastconv.bench.runner import SCHEMA, Case, Row, Settings, as_json, cases_of, run
from fastconv.bench.table import duration, markdown, plain_lines, write_readme
from fastconv.bench.timing import Probe, interleave, settle

EVERY = {layer.name: layer for suite in SUITES.values() for layer in suite}
SMALL = ["teaching/same 2x2 8>16 @8", "odd/tiny 3x3 1 @8"]


def fast(**given: object) -> Settings:
    """Settings of a run that takes no time."""
    values = {"backends": ("numpy", "reference"), "seconds": 0.004, "rounds": 2, "patience": 0.0} | given
    return Settings(**values)  # type: ignore[arg-type]


def once(*layers: Layer, threads: int = 1, batch: int = 1) -> list[Case]:
    """Every layer with one number of threads and images."""
    return cases_of(layers, [threads], [batch])


# ------------------------------------------------------------------------------------------------------ layers


def test_networks_have_the_layers_that_they_are_known_for() -> None:
    counts = {name: len(layers) for name, layers in SUITES.items()}
    assert counts["resnet50"] == 23
    assert counts["vgg16"] == 9
    assert counts["mobilenetv2"] == 30
    assert counts["teaching"] == 3


@pytest.mark.parametrize(
    ("name", "gflop"),
    [("resnet50/stem 7x7 s2 3>64 @224", 0.236), ("vgg16/3x3 64 @224", 3.699), ("mobilenetv2/1x1 320>1280 @7", 0.0401)],
)
def test_work_of_known_layers(name: str, gflop: float) -> None:
    layer = EVERY[name]
    plan = getattr(fastconv, f"plan_conv{layer.rank}d")(
        layer.x_shape(1), np.zeros(layer.weight_shape, np.float32), **layer.arguments(), backend="numpy"
    )
    assert plan.flops / 1e9 == pytest.approx(gflop, rel=2e-3)


def test_names_are_unique_and_layers_are_distinct() -> None:
    forward = [layer for layer in EVERY.values() if not layer.backward and layer.op != "train"]
    assert len(forward) == len({dataclasses.replace(layer, name="") for layer in forward})


def test_find_layers_by_suite_part_and_shape() -> None:
    assert find_layers(["vgg16"]) == list(SUITES["vgg16"])
    assert find_layers(["stem"])[0].name.startswith("resnet50/stem")
    assert find_layers(["8x9x7>4k3"])[0].size == (9, 7)
    assert len(find_layers(["vgg16", "vgg16"])) == 9
    with pytest.raises(ValueError, match="nothing is called 'resnet51'"):
        find_layers(["resnet51"])


def test_shapes_are_read_in_full() -> None:
    layer = parse_shape("6x20x30>12k3x5s2p1x2d1g3")
    assert (layer.channels, layer.size, layer.out_channels, layer.kernel) == (6, (20, 30), 12, (3, 5))
    assert (layer.stride, layer.padding, layer.groups) == (2, (1, 2), 3)
    assert parse_shape("1x100>3k9psame").padding == "same"
    assert parse_shape("2x3x4x5>1").kernel == (1, 1, 1)


@pytest.mark.parametrize("text", ["3x8x8", "x8>4", "3x8x8>4q3", "3x8x8>4k3x3x3", "3x8x8>4g2", "3x8x8>4g0", "3>4", ""])
def test_wrong_shapes_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a shape|groups|axes"):
        parse_shape(text)


# ---------------------------------------------------------------------------------------------------- problems


@pytest.mark.parametrize("layer", [EVERY[n] for n in SMALL] + [
    parse_shape("4x9x8>6k3s2p1g2"), parse_shape("4x9x8>6k3").gradient(),
    Layer("t/max", "max_pool", 3, (9, 8), (3, 3), 0, 2, 1), Layer("t/avg", "avg_pool", 3, (9, 8), (3, 3), 0, 2, 1),
    Layer("t/max b", "max_pool", 3, (9, 8), (3, 3), 0, 2, 1, backward=True),
    Layer("t/avg b", "avg_pool", 3, (9, 8), (3, 3), 0, 2, 1, backward=True),
    Layer("t/pad", "pad", 3, (9, 8), padding=((1, 2), (2, 1)), mode="reflect"),
    Layer("t/pad b", "pad", 3, (9, 8), padding=((1, 2), (2, 1)), mode="reflect", backward=True),
], ids=lambda layer: layer.name)  # fmt: skip
def test_right_results_pass_and_wrong_ones_do_not(layer: Layer) -> None:
    problem = Problem(layer, 2)
    results = problem.call("reference")()
    assert problem.check(results).ok
    wrong = [r.copy() for r in results]
    wrong[-1].flat[-1] += 1e-3
    assert not problem.check(wrong).ok
    wrong[-1].flat[-1] = np.nan
    assert problem.check(wrong).share == math.inf
    assert problem.check([r[:1] for r in results]).share == math.inf


def test_every_layer_can_be_made_and_has_work() -> None:
    for layer in QUICK:
        problem = Problem(layer, 1)
        assert problem.bytes > 0
        assert (problem.flops > 0) == (layer.op == "conv")


def test_compare_measures_against_what_is_allowed() -> None:
    exact = np.array([1.0, 2.0, np.nan])
    assert compare(np.array([1.0, 2.5, np.nan]), exact, 1.0) == (0.5, 0.5)
    assert compare(exact, exact, 0.0) == (0.0, 0.0)
    assert compare(np.array([1.0, 2.0, 3.0]), exact, 1.0).share == math.inf


# ------------------------------------------------------------------------------------------------------ timing


def test_turns_are_interleaved_and_counted() -> None:
    order: list[str] = []
    calls = {name: (lambda name=name: order.append(name)) for name in "ab"}
    timings = interleave(calls, seconds=0.002, rounds=3)
    changes = sum(a != b for a, b in itertools.pairwise(order))
    assert changes == 5
    assert all(t.turns == 3 and t.calls > 3 and t.best <= t.median for t in timings.values())


def test_a_slower_call_is_measured_as_slower() -> None:
    calls = {"short": lambda: time.sleep(0.001), "long": lambda: time.sleep(0.004)}
    timings = interleave(calls, seconds=0.05, rounds=2)
    assert timings["short"].median < timings["long"].median


def test_a_slow_call_gets_no_more_turns_than_its_limit() -> None:
    assert interleave({"a": lambda: time.sleep(0.02)}, seconds=0.001, rounds=50, limit=0.03)["a"].turns < 5


def test_the_probe_waits_no_longer_than_its_patience() -> None:
    probe = Probe(patience=0.05)
    probe.best *= 100  # a machine that is never good again
    start = time.perf_counter()
    assert not probe.wait()
    assert time.perf_counter() - start < 2
    settle(0.03)


# ------------------------------------------------------------------------------------------- runs and their rows


def test_a_run_checks_times_and_reports() -> None:
    seen: list[str] = []
    cases = once(*(EVERY[name] for name in SMALL))
    measured = list(run(cases, fast(), progress=lambda case: seen.append(case.layer.name)))
    rows = [row for one in measured for row in one.rows]
    assert seen == SMALL
    assert {(row.layer, row.contender) for row in rows} == {(n, b) for n in SMALL for b in ("numpy", "reference")}
    for row in rows:
        assert row.correct
        assert row.seconds is not None
        assert row.seconds > 0
        assert row.gflops is not None
        assert row.algorithm in ("im2col", "direct")
    report = as_json(measured, fast(), machine=describe())
    again = json.loads(json.dumps(report))
    assert again["schema"] == SCHEMA
    assert again["machine"]["cpu"]
    assert again["rows"][0]["layer"] == SMALL[0]


def test_a_wrong_backend_is_reported_and_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = fastconv.get_backend("numpy").conv

    def wrong(geometry, x, weight, bias, activation, out, algorithm) -> None:  # type: ignore[no-untyped-def]
        right(geometry, x, weight, bias, activation, out, algorithm)
        if out.dtype == np.float32:
            out += 1e-2

    monkeypatch.setattr(fastconv.get_backend("numpy"), "conv", wrong)
    ((row,),) = (one.rows for one in run(once(EVERY[SMALL[0]]), fast(backends=("numpy",))))
    assert row.correct is False
    assert row.seconds is None
    assert row.status == "wrong"
    assert "wrong result" in row.note


def test_an_algorithm_that_is_not_there_is_said() -> None:
    ((row,),) = (one.rows for one in run(once(EVERY[SMALL[0]]), fast(backends=("numpy",), algorithm="winograd_9x9")))
    assert row.seconds is None
    assert row.status == "failed"
    assert "algorithm must be" in row.note


def test_unknown_peers_are_refused() -> None:
    with pytest.raises(ValueError, match="peer 'caffe' is unknown"):
        find_peers(["caffe"])


def test_the_machine_is_described() -> None:
    machine = describe()
    assert machine["processors"] >= 1
    assert machine["versions"]["numpy"] == np.__version__
    machine["limits"] = limits(0.02, [1])
    assert machine["limits"]["1"]["fma_gflops"] > 0
    assert machine["limits"]["1"]["copy_gbs"] > 0
    assert "GFLOP/s" in summary(machine)[-1]
    json.dumps(machine)


# ------------------------------------------------------------------------------------------------------ tables


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (2.5, "2.50 s"), (0.0999, "99.9 ms"), (1.234e-3, "1.23 ms"), (123e-6, "123 µs"), (4e-6, "4.00 µs")],
)
def test_durations_read_well(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def rows_of_two() -> list[Row]:
    return [
        Row(SMALL[0], "conv", "numpy", "im2col", 2e-3, 0.02, 1.0, None, 1e-7, 0.1, True),
        Row(SMALL[0], "conv", "cpp", "direct", 1e-3, 0.02, 2.0, None, 1e-7, 0.1, True),
    ]


def test_plain_table_holds_time_rate_and_ratio() -> None:
    text = "\n".join(plain_lines(rows_of_two()))
    assert "2.00 ms" in text
    assert "1 GFLOP/s" in text
    assert text.count(SMALL[0]) == 1


def test_readme_table_goes_between_its_markers(tmp_path: pathlib.Path) -> None:
    text = markdown(rows_of_two(), [EVERY[SMALL[0]]], describe(), "fastconv bench --readme")
    assert "**1.00 ms**" in text
    path = tmp_path / "README.md"
    markers = "<!-- begin: measured speed -->\nold\n<!-- end: measured speed -->"
    path.write_text(f"before\n{markers}\nafter\n", encoding="utf-8")
    write_readme(path, text)
    write_readme(path, text)
    written = path.read_text(encoding="utf-8")
    assert written.startswith("before\n")
    assert written.endswith("after\n")
    assert "old" not in written
    assert written.count("**1.00 ms**") == 1
    path.write_text("no markers", encoding="utf-8")
    with pytest.raises(ValueError, match="lacks the markers"):
        write_readme(path, text)
    with pytest.raises(ValueError, match="does not exist"):
        write_readme(tmp_path / "nothing.md", text)


# -------------------------------------------------------------------------------------------------------- others


def test_the_work_of_others_is_seen_and_ours_is_not() -> None:
    if not pathlib.Path("/proc/stat").exists():
        pytest.skip("this system does not tell who works")
    # It works for 0.6 seconds of its own processor time, however much of the processor others leave to it.
    work = "end = time.process_time() + 0.6\nwhile time.process_time() < end: pass"
    code = f"import time\ninput()\n{work}\nprint('done', flush=True)\ninput()"
    place = [max(os.sched_getaffinity(0))]
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as busy:
        assert busy.stdin is not None
        assert busy.stdout is not None
        os.sched_setaffinity(busy.pid, place)
        stranger, own, began = Load(place), Load(place, [busy.pid]), time.perf_counter()
        busy.stdin.write("\n")
        busy.stdin.flush()
        assert busy.stdout.readline() == "done\n"
        seen, ours, took = stranger(), own(), time.perf_counter() - began
        busy.kill()
    assert seen * took > 0.4
    assert 0.4 < (seen - ours) * took < 0.8


def test_a_disturbed_measurement_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    loads = iter([0.9, 0.5, 0.0])
    monkeypatch.setattr(Load, "__call__", lambda self: next(loads, 0.0))
    monkeypatch.setattr(Load, "calm", lambda self, limit: True)
    ((row,),) = (one.rows for one in run(once(EVERY[SMALL[0]]), fast(backends=("numpy",))))
    assert row.other == 0.0
    loads = iter([0.9])
    ((row,),) = (one.rows for one in run(once(EVERY[SMALL[0]]), fast(backends=("numpy",), quick=True)))
    assert row.other == 0.9
