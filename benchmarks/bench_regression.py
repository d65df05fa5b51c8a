"""Nothing became slower than the saved baseline: ``make bench-check``; ``--update-baseline`` saves a new one.

What is saved and compared are ratios to the NumPy backend, so that the baseline serves on other machines too, with a
wider margin (see ``fastconv.bench.baseline``).
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterator

import pytest

import fastconv
from fastconv.bench import QUICK, Layer
from fastconv.bench.baseline import Baseline, judge, measure_ratio, this_machine

FILE = pathlib.Path(__file__).parent / "baseline.json"


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Everybody on one thread."""
    threadpoolctl = pytest.importorskip("threadpoolctl", reason="threadpoolctl limits NumPy's threads")
    before = fastconv.get_num_threads()
    fastconv.set_num_threads(1)
    with threadpoolctl.threadpool_limits(limits=1, user_api="blas"):
        yield
    fastconv.set_num_threads(before)


@pytest.fixture(scope="module")
def baseline(request: pytest.FixtureRequest) -> Iterator[Baseline]:
    """What was saved; or a new one, which is filled and saved at the end."""
    if not request.config.getoption("--update-baseline"):
        yield Baseline.load(FILE)
        return
    fresh = Baseline(this_machine(), {})
    yield fresh
    fresh.save(FILE)


@pytest.mark.parametrize("layer", QUICK, ids=lambda layer: layer.name.replace(" ", "_"))
def bench_regression(
    layer: Layer, baseline: Baseline, request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
) -> None:
    if not any(status.name == "cpp" and status.available for status in fastconv.list_backends()):
        pytest.skip("the compiled backend is not built")
    if request.config.getoption("--update-baseline"):
        baseline.layers[layer.name] = measure_ratio(layer, 1.0, 11)
        return
    verdict = judge(layer, baseline, measure_ratio)
    record_property("line", verdict.text)
    assert not verdict.slower, verdict.text
