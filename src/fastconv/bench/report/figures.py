"""The numbers of a report: rows read with care, ratios that compare like with like, and what is missing."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from ..load import MUCH
from ..runner import SCHEMA, Row

__all__ = ["Against", "Contest", "Run", "geometric_mean", "library", "noise"]

_NAMES = {f.name for f in fields(Row)}
_LEAST_NOISE, _LEAST_NOISE_SHORT, _SHORT = 0.10, 0.15, 1e-4  # differences below are none, whatever the spread says
KINDS = ("3x3", "3x3 stride 2", "1x1", "depthwise", "grouped, dilated", "first layer", "other kernels", "image filter",
         "1-D", "3-D", "pooling", "padding", "gradients", "training step")  # fmt: skip


def geometric_mean(values: Iterable[float]) -> float:
    """The mean of ratios; NaN of none.

    Examples
    --------
    >>> geometric_mean([0.5, 2.0])
    1.0
    """
    logs = [math.log(v) for v in values]
    return math.exp(sum(logs) / len(logs)) if logs else math.nan


def library(contender: str) -> str:
    """The library behind a contender's name.

    Examples
    --------
    >>> library("torch channels_last (default allocator)")
    'torch'
    """
    return contender.split(" ")[0]


def noise(*rows: Row) -> float:
    """The relative difference that these times cannot tell from none."""
    least = _LEAST_NOISE_SHORT if min(r.seconds or 0.0 for r in rows) < _SHORT else _LEAST_NOISE
    return max(least, *((r.spread or 0.0) / 2 for r in rows))


@dataclass(frozen=True)
class Against:
    """fastconv's best time of a case against another's: ``ratio`` above 1 means that fastconv is faster."""

    case: tuple[str, int, int]
    kind: str
    mine: Row
    theirs: Row

    @property
    def ratio(self) -> float:
        """Their time over ours."""
        assert self.mine.seconds
        assert self.theirs.seconds
        return self.theirs.seconds / self.mine.seconds

    @property
    def verdict(self) -> int:
        """1 faster, -1 slower, 0 if noise could have made the difference."""
        margin = 1 + noise(self.mine, self.theirs)
        return 1 if self.ratio > margin else -1 if self.ratio < 1 / margin else 0


@dataclass(frozen=True)
class Contest:
    """Like with like: one mode and one layout."""

    name: str
    mode: str | None
    layout: str | None


CONTESTS = (
    Contest("plans, channels first", "plan", "first"),
    Contest("plans, channels last", "plan", "last"),
    Contest("eager, channels first", "eager", "first"),
    Contest("eager, channels last", "eager", "last"),
    Contest("best with best", None, None),
)


@dataclass
class Run:
    """A run as its JSON tells it; whatever that lacks stands in ``missing``, in words for a reader."""

    rows: list[Row]
    regrets: list[dict[str, Any]]
    machine: dict[str, Any]
    peers: dict[str, Any]
    absent: dict[str, str]
    told: dict[str, Any]
    missing: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, told: Any) -> Run:
        """Take what can be taken from a report's JSON, whoever wrote it."""
        missing: list[str] = []
        if not isinstance(told, dict):
            return cls([], [], {}, {}, {}, {}, ["this is no report: JSON, but not an object"])
        if told.get("schema") != SCHEMA:
            what = f"schema {told['schema']!r}" if "schema" in told else "no schema"
            missing.append(f"it was written by another program or version ({what}, here {SCHEMA}): some may be lost")
        rows, lost = [], 0
        given = told.get("rows")
        for one in given if isinstance(given, list) else []:
            row = _row(one)
            lost += row is None
            rows += [row] if row is not None else []
        rows = _named(rows)
        if not rows:
            missing.append("it holds no measured rows")
        if lost:
            missing.append(f"{lost} rows lack a layer, a name or a time and are left out")
        machine = told["machine"] if isinstance(told.get("machine"), dict) else {}
        if not machine:
            missing.append("it does not say on which machine it was measured")
        elif not isinstance(machine.get("limits"), dict) or not machine["limits"]:
            missing.append("the limits of the machine were not measured: there is no roof")
        regrets = [r for r in _list(told.get("regrets")) if isinstance(r, dict) and _is_regret(r)]
        unmeasured = [m for m in _list(told.get("missing")) if isinstance(m, dict)]
        if unmeasured:
            names = list(dict.fromkeys(str(m.get("layer")) for m in unmeasured))
            why = "interrupted" if told.get("interrupted") else "ended by its time limit"
            shown = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
            missing.append(f"the run was {why}: {len(unmeasured)} cases were not measured ({shown})")
        elif told.get("interrupted"):
            missing.append("the run was interrupted")
        busy = {(r.layer, r.threads, r.batch) for r in rows if r.other > MUCH}
        if busy:
            missing.append(f"quiet: other processes disturbed {len(busy)} cases, whose figures mean little")
        absent = told["absent"] if isinstance(told.get("absent"), dict) else {}
        peers = told["peers"] if isinstance(told.get("peers"), dict) else {}
        run = cls(rows, regrets, machine, peers, absent, told, missing)
        if rows and not any(r.contender.startswith("fastconv") for r in run.timed()):
            missing.append("fastconv itself was not measured in a way that compares with others (run with --peers)")
        elif rows and not any(not r.contender.startswith("fastconv") for r in run.timed()):
            missing.append("no other library was measured (run with --peers)")
        return run

    def timed(self, *, default_allocator: bool = False) -> list[Row]:
        """Rows with a time."""
        return [r for r in self.rows if r.seconds and r.contender.endswith("(default allocator)") == default_allocator]

    def cases(self) -> dict[tuple[str, int, int], list[Row]]:
        """The rows with a time, by layer, threads and images."""
        found: dict[tuple[str, int, int], list[Row]] = {}
        for row in self.timed():
            found.setdefault((row.layer, row.threads, row.batch), []).append(row)
        return found

    @property
    def first(self) -> tuple[int, int]:
        """The number of threads and images with most cases: what the report shows unless it says otherwise."""
        counts: dict[tuple[int, int], int] = {}
        for (_, threads, batch), rows in self.cases().items():
            if rows[0].op != "train":
                counts[threads, batch] = counts.get((threads, batch), 0) + 1
        return max(counts, key=lambda k: (counts[k], -k[0], -k[1]), default=(1, 1))

    def in_first(self, row: Row) -> bool:
        """Whether a row belongs there; a training step has more images than the others."""
        threads, batch = self.first
        return row.threads == threads and (row.batch == batch or row.op == "train")

    def against(
        self, whom: Callable[[Row], bool] = lambda row: True, mine: Callable[[Row], bool] = lambda row: True
    ) -> list[Against]:
        """For every case our best row against the best of theirs."""
        found = []
        for case, rows in self.cases().items():
            ours = [r for r in rows if r.contender.startswith("fastconv") and mine(r)]
            theirs = [r for r in rows if not r.contender.startswith("fastconv") and whom(r)]
            if ours and theirs:
                best, other = (min(group, key=lambda r: r.seconds or math.inf) for group in (ours, theirs))
                found.append(Against(case, best.kind, best, other))
        return found

    def contest(self, contest: Contest) -> list[Against]:
        """One mode and one layout; where there are no plans of an operation, our eager call stands for it."""
        if contest.mode is None:
            return self.against()

        def fits(row: Row) -> bool:
            return row.mode == contest.mode and row.layout == contest.layout

        planned = {(r.layer, r.threads, r.batch) for r in self.timed() if r.contender.startswith("fastconv plan")}

        def mine(row: Row) -> bool:
            eager_only = (row.layer, row.threads, row.batch) not in planned and row.layout == contest.layout
            return fits(row) or (contest.mode == "plan" and eager_only)

        return self.against(fits, mine)

    def libraries(self) -> list[str]:
        """The other libraries with a time, in the order of the rows."""
        return list(dict.fromkeys(library(r.contender) for r in self.timed() if not _ours(r)))

    def title(self, name: str) -> str:
        """A library's name as it writes itself."""
        told = self.peers.get(name)
        return str(told.get("title", name)) if isinstance(told, dict) else name

    def kinds(self) -> list[str]:
        """The classes of layers that were measured, in one order everywhere."""
        found = dict.fromkeys(r.kind or "other" for r in self.timed())
        return [k for k in KINDS if k in found] + [k for k in found if k not in KINDS]

    def by_library(self, name: str) -> list[Against]:
        """Our best against the best of one library, at the first number of threads and images."""
        return [a for a in self.against(lambda r: library(r.contender) == name) if self.in_first(a.mine)]

    def allocator(self) -> list[tuple[str, float, int]]:
        """(contender, time with the default allocator over time with kept blocks, cases)."""
        kept = {(r.layer, r.threads, r.batch, r.contender): r for r in self.timed()}
        ratios: dict[str, list[float]] = {}
        for row in self.timed(default_allocator=True):
            name = row.contender.removesuffix(" (default allocator)")
            other = kept.get((row.layer, row.threads, row.batch, name))
            if other and other.seconds and row.seconds:
                ratios.setdefault(name, []).append(row.seconds / other.seconds)
        return [(name, geometric_mean(values), len(values)) for name, values in ratios.items()]

    def spread(self) -> float:
        """The median spread of all rows: how quiet the machine was."""
        return statistics.median([r.spread for r in self.timed() if r.spread is not None] or [math.nan])


def _named(rows: list[Row]) -> list[Row]:
    """Where only backends were timed the compiled one stands for fastconv, and is held against the others."""
    taken = {(r.layer, r.threads, r.batch) for r in rows if r.contender.startswith("fastconv")}
    return [
        replace(r, contender="fastconv") if r.contender == "cpp" and (r.layer, r.threads, r.batch) not in taken else r
        for r in rows
    ]


def _ours(row: Row) -> bool:
    return row.contender.startswith("fastconv")


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else []


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _row(told: Any) -> Row | None:
    """A row, or None if it lacks what every row has; numbers that are none are dropped."""
    if not isinstance(told, dict) or not all(isinstance(told.get(k), str) for k in ("layer", "contender")):
        return None
    known = {k: v for k, v in told.items() if k in _NAMES}
    for name in ("seconds", "spread", "gflops", "gbs", "error", "best"):
        value = _number(known.get(name))
        known[name] = value if value is not None and math.isfinite(value) and value >= 0 else None
    for name, usual in (("threads", 1), ("batch", 1), ("flops", 0), ("bytes", 0), ("disturbed", 0), ("turns", 0)):
        known[name] = int(_number(known.get(name)) or usual)
    known["other"] = _number(known.get("other")) or 0.0
    for name, text in (("op", "conv"), ("algorithm", ""), ("note", ""), ("kind", ""), ("status", "")):
        known[name] = known[name] if isinstance(known.get(name), str) else text
    if known["seconds"] is None and not (known["note"] or known["status"]):
        return None
    return Row(**known)


def _is_regret(told: dict[str, Any]) -> bool:
    candidates = told.get("candidates")
    return (
        _number(told.get("regret")) is not None
        and isinstance(told.get("chosen"), str)
        and isinstance(candidates, dict)
        and all(isinstance(c, dict) and _number(c.get("seconds")) for c in candidates.values())
    )
