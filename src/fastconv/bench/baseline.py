"""A saved baseline, and the check that nothing became slower, on whatever machine it runs.

Times of two machines cannot be compared, so what is saved is a ratio: the time of the compiled backend over that of the
NumPy backend, taken within the same round on one thread. A slow moment meets both. A ratio that looks worse than its
baseline is measured again, for longer; only what stays worse is a regression.
"""

from __future__ import annotations

import json
import pathlib
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import fastconv

from .layers import Layer
from .problem import Problem
from .timing import Probe, settle, timed_turn

__all__ = ["Baseline", "Ratio", "Verdict", "judge", "measure_ratio"]

SCHEMA = 1
_ATTEMPTS = 3
_MARGIN = 1.25  # worse than this on the baseline's own kind of machine, three times over, is no noise
_MOST_SPREAD = 0.25  # what a baseline that was noisy itself may add to that
_FOREIGN_MARGIN = 2.0  # elsewhere the processor and NumPy's linear algebra differ as well


@dataclass(frozen=True)
class Ratio:
    """Time over that of the NumPy backend: the median of the rounds, and the range of their middle half over it."""

    ratio: float
    spread: float


@dataclass(frozen=True)
class Baseline:
    """The saved ratios by layer, and where they come from."""

    machine: dict[str, Any]
    layers: dict[str, Ratio]

    @classmethod
    def load(cls, path: pathlib.Path) -> Baseline:
        """Read the file.

        Raises
        ------
        ValueError
            If it is no baseline.
        """
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            if told["schema"] != SCHEMA:
                raise ValueError(f"schema {told['schema']}, expected {SCHEMA}")
            return cls(told["machine"], {name: Ratio(**one) for name, one in told["layers"].items()})
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is no baseline: {error}") from None

    def save(self, path: pathlib.Path) -> None:
        """Write the file."""
        told = {"schema": SCHEMA, "machine": self.machine, "layers": {n: asdict(r) for n, r in self.layers.items()}}
        path.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")

    @property
    def at_home(self) -> bool:
        """Whether it was saved on a machine like this one."""
        return self.machine == this_machine()


@dataclass(frozen=True)
class Verdict:
    """``slower`` says that a layer became slower; ``text`` how it stands against its baseline."""

    slower: bool
    text: str


def this_machine() -> dict[str, Any]:
    """What a ratio depends on beside the code."""
    config = fastconv.show_config(verbose=False)
    return {name: config[name] for name in ("cpu", "isa", "blas")}


def measure_ratio(layer: Layer, seconds: float = 0.4, rounds: int = 7, backend: str = "cpp") -> Ratio:
    """The time of a backend over that of ``numpy``, on one thread, checked first."""
    problem = Problem(layer, 1)
    calls = [problem.call(name) for name in (backend, "numpy")]
    difference = problem.check(calls[0](), "winograd_6x3")
    if not difference.ok:
        raise AssertionError(f"{layer.name}: wrong by {difference.largest:.3g}")
    calls[1]()
    probe, taken = Probe(patience=1.0), []
    for _ in range(rounds):
        good = probe.wait()
        mine, theirs = (_turn(call, seconds / rounds / 2) for call in calls)
        taken.append((good and probe.good(), mine / theirs))
    ratios = [ratio for good, ratio in taken if good]
    ratios = ratios if len(ratios) > rounds // 2 else [ratio for _, ratio in taken]
    low, median, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return Ratio(median, (high - low) / median)


def _turn(call: Callable[[], Any], seconds: float) -> float:
    median = timed_turn(call, seconds).median
    settle()
    return median


def judge(layer: Layer, baseline: Baseline, measure: Callable[[Layer, float], Ratio]) -> Verdict:
    """Measure a layer, again where it looks slower than its baseline, and say how it stands.

    Parameters
    ----------
    layer : Layer
        What is measured.
    baseline : Baseline
        What it is held against; a layer that is not in it passes.
    measure : callable
        Gives the ratio of a layer, spending about so many seconds.
    """
    saved = baseline.layers.get(layer.name)
    if saved is None:
        return Verdict(False, f"{layer.name} is not in the baseline")
    margin = (_MARGIN if baseline.at_home else _FOREIGN_MARGIN) + min(saved.spread, _MOST_SPREAD)
    best = 0.0
    for attempt in range(_ATTEMPTS):
        now = measure(layer, 0.4 * (1 + attempt)).ratio
        best = min(best, now) if best else now
        if best <= margin * saved.ratio:
            break
    change = best / saved.ratio
    where = "" if baseline.at_home else ", on another machine than the baseline's"
    text = f"{layer.name}: {best:.3f} of numpy's time, {change:.2f} of the baseline (allowed {margin:.2f}{where})"
    return Verdict(change > margin, text)
