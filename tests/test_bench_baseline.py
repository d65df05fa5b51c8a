"""The saved baseline: a regression is found, noise is not one, and another machine gets a wider margin."""

from __future__ import annotations

import itertools
import pathlib

import pytest

import fastconv
from fastconv.bench import QUICK, parse_shape
from fastconv.bench.baseline import Baseline, Ratio, judge, measure_ratio, this_machine

LAYER = parse_shape("4x9x8>6k3p1")
SAVED = Ratio(0.5, 0.02)
FILE = pathlib.Path(__file__).parent.parent / "benchmarks" / "baseline.json"


def held(*ratios: float, saved: Ratio = SAVED, foreign: bool = False) -> tuple[bool, int]:
    """(whether it counts as slower, how often it was measured), when the measurements give these ratios in turn."""
    machine = {"cpu": "elsewhere"} if foreign else this_machine()
    given, asked = itertools.cycle(ratios), []

    def measure(layer: object, seconds: float) -> Ratio:
        asked.append(seconds)
        return Ratio(next(given), 0.0)

    verdict = judge(LAYER, Baseline(machine, {LAYER.name: saved}), measure)
    assert LAYER.name in verdict.text
    assert asked == sorted(asked)
    return verdict.slower, len(asked)


def test_a_slower_layer_is_found_and_only_after_three_looks() -> None:
    assert held(0.8) == (True, 3)
    assert held(0.5) == (False, 1)
    assert held(0.3) == (False, 1)


def test_a_slow_moment_is_no_regression() -> None:
    assert held(0.9, 0.9, 0.52) == (False, 3)
    assert held(0.9, 0.52) == (False, 2)
    assert held(0.6) == (False, 1)


def test_a_noisy_baseline_allows_more_but_not_everything() -> None:
    assert held(0.7, saved=Ratio(0.5, 0.2)) == (False, 1)
    assert held(0.9, saved=Ratio(0.5, 50.0)) == (True, 3)


def test_another_machine_gets_a_wider_margin() -> None:
    assert held(0.8, foreign=True) == (False, 1)
    assert held(1.2, foreign=True) == (True, 3)


def test_a_layer_that_was_not_saved_passes() -> None:
    verdict = judge(LAYER, Baseline(this_machine(), {}), lambda layer, seconds: Ratio(9.0, 0.0))
    assert not verdict.slower
    assert "not in the baseline" in verdict.text


def test_a_ratio_is_measured_on_checked_results(monkeypatch: pytest.MonkeyPatch) -> None:
    ratio = measure_ratio(LAYER, 0.02, 3, backend="reference")
    assert ratio.ratio > 1
    right = fastconv.get_backend("reference").conv

    def wrong(geometry, x, weight, bias, activation, out, algorithm) -> None:  # type: ignore[no-untyped-def]
        right(geometry, x, weight, bias, activation, out, algorithm)
        out += 1

    monkeypatch.setattr(fastconv.get_backend("reference"), "conv", wrong)
    with pytest.raises(AssertionError, match="wrong by"):
        measure_ratio(LAYER, 0.02, 3, backend="reference")


def test_the_file_is_read_as_it_was_written(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "b.json"
    baseline = Baseline(this_machine(), {"a": Ratio(0.5, 0.1)})
    baseline.save(path)
    assert Baseline.load(path) == baseline
    assert Baseline.load(path).at_home
    for text in ("", "[]", '{"schema": 7}', '{"schema": 1, "machine": {}, "layers": {"a": {}}}'):
        path.write_text(text)
        with pytest.raises(ValueError, match="is no baseline"):
            Baseline.load(path)
    with pytest.raises(ValueError, match="is no baseline"):
        Baseline.load(tmp_path / "nothing.json")


def test_the_saved_baseline_knows_the_quick_layers() -> None:
    if not FILE.exists():
        pytest.skip("the benchmarks are not beside the tests")
    assert set(Baseline.load(FILE).layers) == {layer.name for layer in QUICK}
