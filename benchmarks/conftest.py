"""What the benchmarks share: which layers and backends, one checked and timed call, and the table at the end.

Run them by ``make bench`` and ``make bench-quick``, or ``python -m pytest benchmarks --quick -k depthwise``. Layers,
arrays and the check come from ``fastconv.bench``, as for ``fastconv bench``; here every call is timed by
pytest-benchmark, one after the other, and can be saved and compared (``--benchmark-autosave``,
``--benchmark-compare``). ``--report FILE`` writes the page of ``fastconv bench --html``. Whether anything became slower
than the saved baseline is for ``bench_regression.py`` to say (``make bench-check``).
"""

from __future__ import annotations

import functools
import json
import pathlib
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest

import fastconv
from fastconv.bench import QUICK, SUITES, Layer, Problem
from fastconv.bench.machine import describe, limits, summary
from fastconv.bench.problem import promised
from fastconv.bench.report import html
from fastconv.bench.runner import Row, Settings, as_json, rate
from fastconv.bench.table import plain_lines

_ROWS: list[Row] = []
# the naive reference takes microseconds for each position: beyond this it is left out
_REFERENCE_OUTPUTS = {True: 5_000, False: 100_000}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("fastconv")
    group.addoption("--quick", action="store_true", help="the quick suite with short timings: under two minutes")
    group.addoption("--batch", type=int, default=1, help="number of images (1)")
    group.addoption("--report", metavar="FILE", help="write the report there, and its figures beside it as JSON")
    group.addoption("--update-baseline", action="store_true", help="save a new baseline instead of checking against it")


def pytest_configure(config: pytest.Config) -> None:
    """Short timings unless asked otherwise; pytest-benchmark's defaults suit calls of microseconds."""
    quick = config.getoption("--quick")
    config.option.benchmark_max_time = 0.1 if quick else 0.5
    config.option.benchmark_min_rounds = 3
    config.option.benchmark_warmup = "off"  # the check has called it already
    config.option.benchmark_quiet = True  # its table knows no GFLOP/s: ours follows


@functools.cache
def _machine() -> dict[str, Any]:
    return describe() | {"limits": limits(0.3, [fastconv.get_num_threads()])}


def pytest_report_header() -> list[str]:
    return ["fastconv benchmarks", *(f"  {line}" for line in summary(_machine()))]


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    machine_info["fastconv"] = _machine()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Time and rate of everything that was measured."""
    terminalreporter.section("median time, rate, difference from float64")
    for line in plain_lines(_ROWS) if _ROWS else ():
        terminalreporter.write_line(line)
    for report in terminalreporter.stats.get("passed", ()):
        for kind, line in report.user_properties:
            if kind == "line":
                terminalreporter.write_line(line)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """The report of ``fastconv bench``, of what was measured here."""
    if not (given := session.config.getoption("--report")) or not _ROWS:
        return
    page = pathlib.Path(given)
    told = as_json([], Settings(), machine=_machine(), command="make bench")
    told["rows"] = [asdict(row) for row in _ROWS]
    page.parent.mkdir(parents=True, exist_ok=True)
    page.with_suffix(".json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    page.write_text(html(told), encoding="utf-8")


@pytest.fixture
def rows() -> list[Row]:
    """Where every measured row goes: into the table and the report."""
    return _ROWS


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Layers x backends for every benchmark that names the operations it is for (``OPERATIONS`` of its module)."""
    operations = getattr(metafunc.module, "OPERATIONS", ())
    backward = getattr(metafunc.module, "BACKWARD", False)
    if "backend" not in metafunc.fixturenames:
        return
    suites = [QUICK] if metafunc.config.getoption("--quick") else list(SUITES.values())
    layers = {layer.name: layer for suite in suites for layer in suite}
    chosen = [layer for layer in layers.values() if layer.op in operations and backward in (None, layer.backward)]
    names = [status.name for status in fastconv.list_backends() if status.available]
    metafunc.parametrize(
        ("layer", "backend"),
        [(layer, name) for layer in chosen for name in names],
        ids=[f"{layer.name}-{name}".replace(" ", "_") for layer in chosen for name in names],
    )


# backends of one layer follow each other: its arrays and the exact result are made once
@functools.lru_cache(maxsize=1)
def _problem(layer: Layer, batch: int) -> Problem:
    return Problem(layer, batch)


@pytest.fixture
def run_layer(benchmark: Any, request: pytest.FixtureRequest) -> Callable[[Layer, str], None]:
    """Check the result of one call, then time it."""

    def run(layer: Layer, backend: str) -> None:
        quick, batch = request.config.getoption("--quick"), request.config.getoption("--batch")
        problem = _problem(layer, batch)
        if backend == "reference" and problem.outputs > _REFERENCE_OUTPUTS[quick]:
            pytest.skip(f"{problem.outputs} outputs are too many for naive loops")
        call, algorithm = problem.call(backend), problem.algorithm(backend)
        result = call()
        difference = problem.check(result, promised(backend, algorithm))
        assert difference.ok, f"differs by {difference.largest:.3g}, {difference.share:.3g} times what is allowed"
        benchmark.group = layer.name
        benchmark(call)
        median, spread = benchmark.stats.stats.median, benchmark.stats.stats.iqr
        gflops, gbs = rate(problem, median)
        row = Row(
            layer.name, layer.op, backend, algorithm, median, spread / median, gflops, gbs, difference.largest,
            difference.share, True, kind=layer.kind, threads=fastconv.get_num_threads(), batch=batch,
            flops=problem.flops, bytes=problem.bytes, error=problem.distance(result)[1], best=benchmark.stats.stats.min,
        )  # fmt: skip
        _ROWS.append(row)
        benchmark.extra_info.update(
            layer=layer.name, backend=backend, algorithm=algorithm, batch=batch, threads=fastconv.get_num_threads(),
            gflops=gflops, gbs=gbs, largest_difference=difference.largest,
        )  # fmt: skip

    return run
