"""Two runs of the same cases: what became faster or slower, by more than the noise of both.

Every time is compared with its own earlier one. How much the machine itself changed shows in the other libraries: where
three of them or more were measured in both runs, in the same versions, fastconv's ratios are taken relative to theirs.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import Any

from .report.figures import Run, geometric_mean, library, noise
from .runner import Row
from .table import duration

__all__ = ["Change", "Comparison", "compare_runs", "comparison_lines"]

_ENOUGH = 3  # times of other libraries, before their drift is believed to be the machine's
_DRIFT_NOISE = 0.02  # of a mean over many times, which errs less than one


@dataclass(frozen=True)
class Change:
    """One contender on one case in both runs; ``ratio`` below 1 means that it became faster."""

    before: Row
    after: Row
    drift: float

    @property
    def ratio(self) -> float:
        """Time after over time before, without what the machine did."""
        assert self.before.seconds
        assert self.after.seconds
        return self.after.seconds / self.before.seconds / self.drift

    @property
    def margin(self) -> float:
        """The change that noise could have made: that of both times together."""
        return math.hypot(noise(self.before, self.before), noise(self.after, self.after)) / math.sqrt(2)

    @property
    def verdict(self) -> str:
        """``faster``, ``slower`` or ``same``."""
        high = 1 + self.margin
        return "slower" if self.ratio > high else "faster" if self.ratio < 1 / high else "same"


@dataclass(frozen=True)
class Comparison:
    """All changes of fastconv, the drift of the machine, and what could not be compared."""

    changes: list[Change]
    drift: float
    judges: int
    remarks: list[str]

    def of(self, verdict: str) -> list[Change]:
        """The changes with this verdict, the largest first."""
        chosen = [c for c in self.changes if c.verdict == verdict]
        return sorted(chosen, key=lambda c: abs(math.log(c.ratio)), reverse=True)

    @property
    def mean(self) -> float:
        """Geometric mean of all changes."""
        return geometric_mean(c.ratio for c in self.changes)

    @property
    def spread(self) -> float:
        """What the mean may be off by: the scatter of its terms over the root of their number, and the drift's."""
        logs = [math.log(c.ratio) for c in self.changes]
        scatter = statistics.stdev(logs) / math.sqrt(len(logs)) if len(logs) > 1 else _DRIFT_NOISE
        return 2 * math.hypot(scatter, _DRIFT_NOISE)

    @property
    def verdict(self) -> str:
        """One word for the whole: ``slower`` if anything is, beyond noise, and the mean is not faster."""
        if not self.changes:
            return "nothing to compare"
        if self.of("slower"):
            return "slower in places" if self.of("faster") or abs(math.log(self.mean)) <= self.spread else "slower"
        if self.of("faster") or math.log(self.mean) < -self.spread:
            return "faster"
        return "slower" if math.log(self.mean) > self.spread else "the same within the noise"


def compare_runs(before: Any, after: Any) -> Comparison:
    """Compare the JSON of two runs.

    Examples
    --------
    >>> compare_runs({}, {}).verdict
    'nothing to compare'
    """
    first, second = Run.read(before), Run.read(after)
    remarks = [f"{name}: {text}" for name, run in (("before", first), ("after", second)) for text in run.missing]
    for what, pick in (("processor", lambda r: r.machine.get("cpu")), ("settings", _settings)):
        one, two = pick(first), pick(second)
        if one != two:
            remarks.append(f"the runs differ in their {what} ({one} and {two}): this compares more than the code")
    earlier = {_key(row): row for row in first.timed()}
    pairs = [(earlier[_key(row)], row) for row in second.timed() if _key(row) in earlier]
    known = {name for name in second.libraries() if _version(first, name) == _version(second, name)}
    judged = [(b, a) for b, a in pairs if library(a.contender) in known]
    drift = geometric_mean(_over(b, a) for b, a in judged) if len(judged) >= _ENOUGH else 1.0
    mine = [(b, a) for b, a in pairs if library(a.contender) not in first.libraries()]
    lost = len({_key(r) for r in first.timed()} ^ {_key(r) for r in second.timed()})
    if lost:
        remarks.append(f"{lost} times stand in one run only and are not compared")
    judges = len(judged) if len(judged) >= _ENOUGH else 0
    return Comparison([Change(b, a, drift) for b, a in mine], drift, judges, remarks)


def _key(row: Row) -> tuple[str, int, int, str]:
    return row.layer, row.threads, row.batch, row.contender


def _over(before: Row, after: Row) -> float:
    assert before.seconds
    assert after.seconds
    return after.seconds / before.seconds


def _settings(run: Run) -> Any:
    told = run.told.get("settings")
    return {k: told.get(k) for k in ("seconds", "rounds", "algorithm")} if isinstance(told, dict) else None


def _version(run: Run, name: str) -> Any:
    told = run.peers.get(name)
    return told.get("version") if isinstance(told, dict) else None


def comparison_lines(found: Comparison) -> list[str]:
    """The comparison as plain text: the verdict first, then the changes beyond noise, the losses before the gains."""
    lines = [f"fastconv is {found.verdict}."] if found.changes else ["There is nothing to compare."]
    if found.changes:
        counts = ", ".join(f"{len(found.of(word))} {word}" for word in ("slower", "faster", "same"))
        lines.append(
            f"{len(found.changes)} times in both runs: {counts}; mean {found.mean:.3f} (±{found.spread:.3f}) of before."
        )
    if found.judges:
        lines.append(
            f"The other libraries took {found.drift:.3f} as long ({found.judges} times): taken as the machine's change."
        )
    elif found.changes:
        lines.append("Too few other libraries in both runs to tell a change of the machine from one of the code.")
    lines += [f"note: {remark}" for remark in found.remarks]
    for word in ("slower", "faster"):
        for change in found.of(word):
            where = f"{change.after.layer} (threads {change.after.threads}, batch {change.after.batch})"
            lines.append(
                f"  {word} {change.ratio:.2f} (noise ±{change.margin:.0%})  {where}  {change.after.contender}: "
                f"{duration(change.before.seconds)} -> {duration(change.after.seconds)}"
            )
    return lines
