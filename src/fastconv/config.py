"""What this installation is and what it uses: shown to people, and handed to reports of problems."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any

import numpy as np

from ._version import __version__
from .backends import registry
from .threads import get_num_threads

__all__ = ["release_scratch", "show_config"]

_VARIABLES = (
    "FASTCONV_BACKEND",
    "FASTCONV_ISA",
    "FASTCONV_NUM_THREADS",
    "FASTCONV_REQUIRE_CPP",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)
_PROMISES = ("fork_safe", "thread_deterministic", "batch_invariant")


def show_config(*, verbose: bool = True) -> dict[str, Any]:
    """Tell versions, processor, threads, backends with what they promise, and the environment variables in force.

    Parameters
    ----------
    verbose : bool, default True
        Print it; otherwise it is only returned.

    Returns
    -------
    dict
        ``version python numpy blas cpu isa threads backend backends build environment``; ``backends`` holds for each
        name whether it is available, the reason if not, its promises and what it reports of itself.

    Raises
    ------
    UnknownNameError
        If ``FASTCONV_BACKEND`` names no backend.

    Examples
    --------
    >>> import fastconv
    >>> fastconv.show_config(verbose=False)["version"] == fastconv.__version__
    True
    """
    backends: dict[str, Any] = {}
    for status in registry.list_backends():
        line: dict[str, Any] = {"available": status.available, "reason": status.reason}
        if status.available:
            backend = registry.get_backend(status.name)
            line |= {promise: getattr(backend, promise) for promise in _PROMISES}
            line |= backend.config()
        backends[status.name] = line
    config = {
        "version": __version__,
        "python": f"{sys.implementation.name} {sys.version.split()[0]} ({sys.platform})",
        "numpy": np.__version__,
        "blas": _blas(),
        "cpu": _cpu(),
        "isa": backends["cpp"].get("isa"),
        "threads": get_num_threads(),
        "backend": registry.active().name,
        "backends": backends,
        "build": registry.build_info(),
        "environment": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
    }
    if verbose:
        print("\n".join(_lines(config)))
    return config


def release_scratch() -> None:
    """Give back the memory that backends keep for later calls: scratch, and the cache of freed results.

    Arrays in use are untouched; the next calls allocate anew.

    Examples
    --------
    >>> import fastconv
    >>> fastconv.release_scratch()
    """
    for backend in registry.loaded():
        backend.release_scratch()


def _blas() -> str:
    """Name and version of the linear algebra library that NumPy was built with."""
    with contextlib.suppress(Exception):  # its shape is NumPy's own affair and differs between versions
        found = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
        return f"{found.get('name')} {found.get('version')}"
    return "unknown"


def _cpu() -> str:
    import platform

    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _lines(config: dict[str, Any], indent: str = "") -> list[str]:
    lines = []
    for name, value in config.items():
        if isinstance(value, dict):
            lines.append(f"{indent}{name}:" + ("" if value else " none"))
            lines += _lines(value, indent + "  ")
        elif value is not None:
            lines.append(f"{indent}{name}: {value}")
    return lines
