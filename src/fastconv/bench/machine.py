"""What figures depend on: processor, instruction sets, caches, threads, versions, and the limits measured now."""

from __future__ import annotations

import contextlib
import os
import pathlib
import platform
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from typing import Any

import numpy as np

import fastconv

__all__ = ["describe", "limits", "summary"]

_CPUINFO = pathlib.Path("/proc/cpuinfo")
_CACHES = pathlib.Path("/sys/devices/system/cpu/cpu0/cache")
# what convolution kernels care about, in the kernel's spelling: x86, then ARM
_FEATURES = ("sse4_2", "avx", "f16c", "fma", "avx2", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16",
             "amx_tile", "neon", "asimd", "asimdhp", "asimddp", "sve", "i8mm", "bf16")  # fmt: skip
_PACKAGES = ("numpy", "numba", "cython", "threadpoolctl", "torch", "onnxruntime", "openvino", "ncnn", "mnn",
             "tensorflow-cpu", "jax", "scipy", "opencv-python-headless")  # fmt: skip


def _cpuinfo() -> dict[str, str]:
    """The first processor's lines of /proc/cpuinfo; empty elsewhere than on Linux."""
    try:
        text = _CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    first = text.split("\n\n")[0]
    return {k.strip(): v.strip() for k, _, v in (line.partition(":") for line in first.splitlines())}


def _caches() -> dict[str, str]:
    """Data caches of one processor, as the system writes them: {"L1": "48K", ...}."""
    found = {}
    for folder in sorted(_CACHES.glob("index*")):
        try:
            kind, level, size = ((folder / name).read_text().strip() for name in ("type", "level", "size"))
        except OSError:
            continue
        if kind != "Instruction":
            found[f"L{level}"] = size
    return found


def _versions() -> dict[str, str]:
    found = {"fastconv": fastconv.__version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def describe() -> dict[str, Any]:
    """What ``fastconv.show_config`` tells, and what else figures depend on; plain values, ready for JSON."""
    info = _cpuinfo()
    flags = set((info.get("flags") or info.get("Features") or "").split())
    return fastconv.show_config(verbose=False) | {
        "architecture": platform.machine(),
        "features": [name for name in _FEATURES if name in flags],
        "caches": _caches(),
        "processors": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "versions": _versions(),
    }


def limits(seconds: float = 0.5, threads: Sequence[int] = (1,)) -> dict[str, Any]:
    """What this machine can do at best right now, for each number of threads: the roof of everything measured.

    Multiply-adds on registers and a large copy (bytes read and written), each on as many threads as told. Without the
    compiled backend NumPy's matrix product on one thread stands for the first; then it is a floor of the true limit.
    """
    return {str(count): {"fma_gflops": _multiply_adds(count, seconds), "copy_gbs": _copy(count, seconds)}
            for count in threads}  # fmt: skip


def _together(count: int, job: Callable[[int], float]) -> list[float]:
    """What the job gives on so many threads at once, each on a processor of its own where the system can hold it."""
    usable = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    start = threading.Barrier(count)

    def one(i: int) -> float:
        if len(usable) >= count:
            os.sched_setaffinity(0, {usable[-1 - i]})
        start.wait()
        return job(i)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def _multiply_adds(count: int, seconds: float) -> float:
    with contextlib.suppress(Exception):  # not built, or not to be had
        measure = getattr(fastconv.get_backend("cpp"), "multiply_add_gflops", None)
        if measure is not None:
            return sum(_together(count, lambda _: float(measure(seconds))))
    a = np.random.default_rng(0).standard_normal((1024, 1024)).astype(np.float32)
    product = np.empty_like(a)
    return 2 * 1024**3 / 1e9 / _best(lambda: np.matmul(a, a, out=product), seconds)


def _copy(count: int, seconds: float) -> float:
    sources = [np.zeros((32 << 20) // count, np.float32) for _ in range(count)]
    targets = [np.ones_like(source) for source in sources]

    def job(i: int) -> float:
        return 2 * sources[i].nbytes / 1e9 / _best(lambda: np.copyto(targets[i], sources[i]), seconds)

    return sum(_together(count, job))


def _best(call: Any, seconds: float) -> float:
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best


def summary(machine: dict[str, Any]) -> list[str]:
    """The lines that stand above every table: what was measured, on what."""
    versions = " ".join(f"{name} {version}" for name, version in machine["versions"].items())
    caches = " ".join(f"{name} {size}" for name, size in machine["caches"].items())
    isa = machine["isa"]
    lines = [
        f"{machine['cpu']}, {machine['processors']} processors, caches {caches or 'unknown'}",
        f"features: {' '.join(machine['features']) or 'unknown'}" + (f"; kernels in use: {isa}" if isa else ""),
        f"threads: {machine['threads']}; {versions}; BLAS {machine['blas']}; {machine['system']}",
    ]
    if "limits" in machine:
        lines.append("measured now: " + "; ".join(
            f"on {count} thread{'s' if count != '1' else ''} {best['fma_gflops']:.0f} GFLOP/s of multiply-adds, "
            f"copy {best['copy_gbs']:.1f} GB/s"
            for count, best in machine["limits"].items()
        ))  # fmt: skip
    return lines
