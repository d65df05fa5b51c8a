"""The sections of the page below its first picture, in their order: the losses first."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from html import escape

from ..load import MUCH
from ..machine import summary
from ..runner import Row
from ..table import duration
from .charts import Axis, Dots, Point, dots, mark_of, roofline, times
from .figures import CONTESTS, Against, Run, geometric_mean, library
from .parts import both, count, keys, setting, soft, table

__all__ = ["sections"]


def _where(threads: int, batch: int, layout: str = "") -> str:
    """What distinguishes cases of one layer."""
    words = [{"first": "NCHW", "last": "NHWC"}.get(layout, ""), count(threads, "thread"), f"batch {batch}"]
    return f' <span class="soft">{escape(", ".join(w for w in words if w))}</span>'


def _losses(run: Run) -> str:
    pairs = sorted(run.against(), key=lambda a: a.ratio)
    if not pairs:
        return ""
    lost = [a for a in pairs if a.verdict < 0]
    if not lost:
        return "<p>None beyond the noise in this run.</p>"
    several = len({(a.mine.threads, a.mine.batch) for a in pairs}) > 1
    rows = [
        [
            escape(a.case[0]) + (_where(a.case[1], a.case[2]) if several else ""),
            f"{duration(a.mine.seconds)}",
            f"{escape(a.theirs.contender)} {duration(a.theirs.seconds)}",
            f"<span class='bad'>{times(a.ratio)}</span>",
        ]
        for a in lost
    ]  # fmt: skip
    text = (f"<p>{count(len(lost), 'case')} of {len(pairs)} where the best of the others is faster than the best of "
            "fastconv, by more than the noise. Below 1 means slower.</p>")  # fmt: skip
    return text + table(("layer", "fastconv", "fastest other", "ratio"), rows, (1, 3))


def _numbers(run: Run) -> str:
    """The picture's figures, and the contests of like with like."""
    names = run.libraries()
    against = {name: run.by_library(name) for name in names}
    rows = []
    for kind in run.kinds():
        cells = []
        for name in names:
            ratios = [a.ratio for a in against[name] if a.kind == kind]
            mean = geometric_mean(ratios)
            cls = "bad" if mean < 0.97 else ""
            cells.append(f'<span class="{cls}">{times(mean)}</span>' if ratios else "")
        if any(cells):
            rows.append([escape(kind), *cells])
    exact = table(["", *(escape(run.title(n)) for n in names)], rows, range(1, len(names) + 1))
    contests = []
    for contest in CONTESTS:
        pairs = run.contest(contest)
        if pairs:
            worst = min(pairs, key=lambda a: a.ratio)
            contests.append([
                contest.name, times(geometric_mean(a.ratio for a in pairs)), str(len(pairs)),
                str(sum(a.verdict < 0 for a in pairs)),
                f"{times(worst.ratio)} {escape(worst.case[0])} ({escape(worst.theirs.contender)})",
            ])  # fmt: skip
    like = table(("contest", "mean", "cases", "lost", "worst"), contests, (1, 2, 3))
    text = soft(
        "The fastest other library of the same kind: weights prepacked (plan) or not (eager), arrays channels first or "
        "channels last, over all numbers of threads and images."
    )
    return f"{exact}<h3>Like with like</h3>{text}{like}"


def _layer(run: Run, against: Against | None, rows: Sequence[Row]) -> str:
    """One layer: a line with the result, and below it a bar for everybody."""
    done = sorted((r for r in rows if r.seconds), key=lambda r: r.seconds or 0.0)
    longest = max((r.seconds or 0.0 for r in done), default=1.0)
    threads, batch = rows[0].threads, rows[0].batch
    where = "" if run.in_first(rows[0]) else _where(threads, batch)
    result = ""
    if against:
        cls = {1: "good", 0: "", -1: "bad"}[against.verdict]
        result = f'<span class="n {cls}">{times(against.ratio)}</span>'
    elif done:
        result = f'<span class="n soft">{duration(done[0].seconds)}</span>'
    bars = []
    for row in done:
        assert row.seconds
        _, cls = mark_of(library(row.contender))
        spread = f" ±{(row.spread or 0.0) / 2:.0%}"
        rate = f"{row.gflops:.0f} GFLOP/s" if row.gflops else f"{row.gbs:.1f} GB/s" if row.gbs else ""
        said = f"{row.contender}: {duration(row.seconds)}{spread} {rate} {row.algorithm} {row.note}".strip()
        name = escape(row.contender) + (f" <span class='soft'>{escape(row.algorithm)}</span>" if row.algorithm else "")
        width = 100 * row.seconds / longest
        bars.append(f'<div class="who">{name}</div><div class="track" title="{escape(said)}"><div class="bar {cls}" '
                    f'style="width:{width:.1f}%"></div></div><div class="n">{duration(row.seconds)}</div>')  # fmt: skip
    bad = [r for r in rows if r.status in ("wrong", "failed")]
    notes = "".join(
        f"<p class='soft'>{escape(r.contender)}: <span class='bad'>{escape(r.note)}</span></p>" for r in bad
    )
    name = f'<span class="name">{escape(rows[0].layer)}{where}</span>'
    return f'<details><summary>{name}{result}</summary><div class="bars">{"".join(bars)}</div>{notes}</details>'


def _layers(run: Run) -> str:
    every: dict[tuple[str, int, int], list[Row]] = {}
    for row in run.rows:
        if row.status != "unsupported" and not row.contender.endswith("(default allocator)"):
            every.setdefault((row.layer, row.threads, row.batch), []).append(row)
    results = {a.case: a for a in run.against()}
    text = (
        "Times of one call, shorter is better; the number is how many times faster fastconv is than the fastest other. "
        "Open a line for everybody's time."
    )
    parts = [soft(text)]
    for kind in [*run.kinds(), ""]:
        chosen = {case: rows for case, rows in every.items() if rows[0].kind == kind}
        if chosen:
            parts.append(f"<h3>{escape(kind or 'other')}</h3>")
            parts += [_layer(run, results.get(case), rows) for case, rows in chosen.items()]
    return "".join(parts)


def _scaling(run: Run) -> str:
    """What a second thread and a larger batch give, to fastconv and to the others."""
    best: dict[tuple[str, int, int], dict[str, float]] = {}
    for case, rows in run.cases().items():
        for row in rows:
            name, seconds = library(row.contender), (row.seconds or 0.0) / row.batch
            best.setdefault(case, {})[name] = min(seconds, best.get(case, {}).get(name, math.inf))
    threads, batch = run.first
    pictures = []
    for what, others in (("threads", sorted({t for _, t, b in best if b == batch and t != threads})),
                         ("batch", sorted({b for _, t, b in best if t == threads and b != batch}))):  # fmt: skip
        for other in others:
            lines = []
            for layer in dict.fromkeys(layer for layer, _, _ in best):
                one = best.get((layer, threads, batch), {})
                two = best.get((layer, other, batch) if what == "threads" else (layer, threads, other), {})
                points = [Point(one[n] / two[n], n, f"{run.title(n)} on {layer}: {times(one[n] / two[n])}")
                          for n in one if n in two]  # fmt: skip
                ours = [p for p in points if p.who == "fastconv"]
                if ours:
                    short = layer.partition("/")[2] or layer
                    said = times(ours[0].value)
                    lines.append(Dots(short, [*(p for p in points if p.who != "fastconv"), *ours], said, ours[0].value))
            if lines:
                base = count(threads, "thread") if what == "threads" else f"batch {batch}"
                new = count(other, "thread") if what == "threads" else f"batch {other}"
                axis = Axis(f"images per second with {new}, over those with {base}", low=0.8, high=2.2)
                text = soft(f"Images per second over those with {base}; the figure is fastconv's.")
                pictures.append(f"<h3>From {base} to {new}</h3>{text}" + both(partial(dots, lines=lines, axis=axis)))
    return keys(run, run.libraries(), ours=True) + "".join(pictures) if pictures else ""


def _accuracy(run: Run) -> str:
    """Errors relative to float64: of every algorithm of ours, and of every library."""
    ours: dict[str, list[float]] = {}
    for regret in run.regrets:
        for name, candidate in regret["candidates"].items():
            if candidate.get("error"):
                ours.setdefault(name, []).append(candidate["error"])
    if not ours:
        for row in run.timed():
            if row.contender.startswith("fastconv") and row.error and row.algorithm:
                ours.setdefault(row.algorithm, []).append(row.error)
    theirs: dict[str, list[float]] = {}
    for row in run.rows:
        if not row.contender.startswith("fastconv") and row.error and row.op == "conv" and math.isfinite(row.error):
            theirs.setdefault(library(row.contender), []).append(row.error)
    lines = [
        Dots(label, [Point(e, who, f"{label}: {e:.1e}") for e in errors], f"{statistics.median(errors):.0e}",
             statistics.median(errors))
        for group, own in ((ours, True), (theirs, False))
        for name, errors in group.items()
        for label, who in [(name, "fastconv") if own else (run.title(name), name)]
    ]  # fmt: skip
    if not lines:
        return ""
    axis = Axis("relative error", "e", None, low=1e-8, high=1e-4)
    text = (
        "Norm of the difference from float64 over the norm of the result, a mark for every layer, the median written "
        "out. First fastconv's algorithms, then the libraries; float32 has a unit of 6e-8."
    )
    return soft(text) + both(lambda w: dots(w, lines, axis))


def _regret(run: Run) -> str:
    if not run.regrets:
        return ""
    chosen = Counter(r["chosen"] for r in run.regrets)
    near = sum(r["regret"] <= 1.05 for r in run.regrets)
    mean = geometric_mean(r["regret"] for r in run.regrets)
    worst = sorted(run.regrets, key=lambda r: -r["regret"])[:12]
    rows = [
        [
            escape(str(r.get("layer", ""))) + _where(r.get("threads", 1), r.get("batch", 1), r.get("layout", "")),
            escape(r["chosen"]), escape(str(r.get("best", ""))), f"{r['regret']:.2f}",
        ]
        for r in worst if r["regret"] > 1.05
    ]  # fmt: skip
    text = (f"<p>The choice was the fastest, or within 5% of it, in {near} of {count(len(run.regrets), 'case')}; on "
            f"average it took {mean:.3f} times as long as the fastest. Chosen: "
            + ", ".join(f"{escape(n)} {c}" for n, c in chosen.most_common()) + ".</p>")  # fmt: skip
    return text + (table(("layer", "chosen", "fastest", "regret"), rows, (3,)) if rows else "")


def _troubles(run: Run) -> str:
    parts = [f"<li>{escape(run.title(n))}: {escape(str(why))}</li>" for n, why in run.absent.items()]
    told: dict[tuple[str, str, str], list[str]] = {}
    for row in run.rows:
        if row.status in ("wrong", "failed"):
            told.setdefault((row.contender, row.status, row.note), []).append(row.layer)
    for (who, status, note), layers in told.items():
        shown = ", ".join(layers[:3]) + (f" and {len(layers) - 3} more" if len(layers) > 3 else "")
        parts.append(f"<li>{escape(who)} {status} on {escape(shown)}: {escape(note)}</li>")
    return f"<ul class='plain'>{''.join(parts)}</ul>" if parts else "<p>None.</p>"


def _machine(run: Run) -> str:
    lines: list[str] = []
    try:
        lines = summary(run.machine)
    except (KeyError, TypeError, AttributeError, ValueError):  # someone else's machine: what it tells, as it tells it
        lines = [f"{k}: {v}" for k, v in run.machine.items() if isinstance(v, (str, int, float))]
    peers = [f"{run.title(n)} {p.get('version', '')}" for n, p in run.peers.items() if isinstance(p, dict)]
    settings = run.told.get("settings") if isinstance(run.told.get("settings"), dict) else {}
    assert isinstance(settings, dict)
    lines += ["libraries: " + ", ".join(peers)] if peers else []
    how = [f"median spread of the turns {run.spread():.0%}"] if run.timed() else []
    if settings.get("rounds"):
        how.append(
            f"{settings['rounds']} interleaved turns of {settings.get('seconds', 0) / settings['rounds'] * 1e3:.0f} ms"
        )
    disturbed = sum((r.turns > 0 and r.disturbed == r.turns) or r.other > MUCH for r in run.timed())
    how.append(f"{disturbed} of {len(run.timed())} times were disturbed by other work") if run.timed() else None
    command = run.told.get("command")
    made = [f"made by <code>{escape(str(command))}</code>"] if command else []
    made += [f"on {escape(str(run.told['date']))}"] if run.told.get("date") else []
    items = [*(escape(line) for line in lines), escape("; ".join(how)), " ".join(made)]
    return "<ul class='plain'>" + "".join(f"<li>{item}</li>" for item in items if item) + "</ul>"


def _allocator(run: Run) -> str:
    rows = [[escape(name), f"{ratio:.2f}", str(count)] for name, ratio, count in run.allocator()]
    if not rows:
        return ""
    text = (
        "Everybody keeps freed memory blocks above; with the system's default allocator a call takes so many times as "
        "long, in the mean."
    )
    return soft(text) + table(("", "times as long", "cases"), rows, (1, 2))


_HOW = (
    "Every library runs in a process of its own, pinned to the same processors, with its own threads and their default "
    "spinning, and sleeps while the others have their turn. Calls take turns; a small matrix product before and after "
    "each turn tells whether the machine was disturbed, and such turns are dropped where others remain. Every result "
    "is held against float64 before it is timed. Differences below 10% (15% below 0.1 ms), or below half the spread of "
    "the turns, count as none."
)


def sections(run: Run) -> Iterator[tuple[str, str]]:
    yield "Where fastconv loses", _losses(run)
    yield "The same in numbers", _numbers(run) if run.against() else ""
    roof = both(lambda w: roofline(w, run))
    text = (
        "Filled: fastconv; hollow: the fastest other library; a line joins the two. The roof is what this machine was "
        "measured to do at most. Winograd saves operations, so its points may rise above it."
    )
    yield (
        f"How near to the machine's limits ({setting(run)})",
        soft(text) + keys(run, run.libraries(), ours=True) + roof if roof else "",
    )
    yield "Every layer", _layers(run) if run.rows else ""
    yield "Threads and batch", _scaling(run)
    yield "Accuracy", _accuracy(run)
    yield "The algorithm chosen, and what a better choice would have saved", _regret(run)
    yield "The default allocator", _allocator(run)
    yield "Absent, failed or wrong", _troubles(run) if run.rows else ""
    yield "Machine and versions", _machine(run) + soft(_HOW)
