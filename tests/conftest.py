"""What every test file shares: the backends of this machine, with their algorithms, and fixed numbers of threads."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings
from support import BUILTIN, REASONS

import fastconv

REQUIRED = os.environ.get("FASTCONV_REQUIRE_BACKENDS", "0") not in ("", "0")

settings.register_profile(
    "fastconv", max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("fastconv")


def pytest_report_header() -> list[str]:
    lines = [f"fastconv {fastconv.__version__} from {os.path.dirname(fastconv.__file__)}"]
    return lines + [f"backend {name}: {reason or 'available'}" for name, reason in REASONS.items()]


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> str:
    """The name of a backend, one test for each; without it the test skips, or fails if all are required."""
    name: str = request.param
    reason = REASONS[name]
    if reason is not None:
        if REQUIRED:
            pytest.fail(f"backend {name} is required here, and cannot be had: {reason}")
        pytest.skip(f"backend {name}: {reason}")
    return name


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Whoever asks for ``backend`` without naming any is run on every built-in one."""
    marks = [m for m in metafunc.definition.iter_markers("parametrize") if "backend" in m.args[0]]
    if "backend" in metafunc.fixturenames and not marks:
        metafunc.parametrize("backend", BUILTIN, indirect=True)


@pytest.fixture(autouse=True)
def _as_found() -> object:
    """A test leaves the choice of backend and the number of threads as it found them."""
    threads = fastconv.get_num_threads()
    yield
    fastconv.set_backend(None)
    if fastconv.get_num_threads() != threads:
        fastconv.set_num_threads(threads)
