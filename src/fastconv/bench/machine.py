"""What figures depend on: processor, instruction sets, caches, threads, versions, and the limits measured now."""

from __future__ import annotations

import os
import pathlib
import platform
import time
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
_PACKAGES = ("numpy", "numba", "cython", "scipy", "torch", "threadpoolctl")


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


def limits(seconds: float = 0.5) -> dict[str, float]:
    """What this machine can do at best right now: a large matrix product and a large copy, both through NumPy.

    The product runs on as many threads as NumPy's BLAS uses, the copy on one; both are floors of the true limits.
    """
    random = np.random.default_rng(0)
    a = random.standard_normal((1024, 1024)).astype(np.float32)
    product, source = np.empty_like(a), np.zeros(8 << 20, np.float32)
    target = np.ones_like(source)
    return {
        "matmul_gflops": 2 * 1024**3 / 1e9 / _best(lambda: np.matmul(a, a, out=product), seconds),
        "copy_gbs": 2 * source.nbytes / 1e9 / _best(lambda: np.copyto(target, source), seconds),
    }


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
        best = machine["limits"]
        lines.append(
            f"measured now: matrix product {best['matmul_gflops']:.0f} GFLOP/s, copy {best['copy_gbs']:.1f} GB/s"
        )
    return lines
