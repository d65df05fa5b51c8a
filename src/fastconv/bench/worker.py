"""The process that a library runs in: ``python -m fastconv.bench.worker NAME THREADS``; a line of JSON in, a line out.

Orders: ``prepare`` (a contender on the arrays of a folder: runs it once and saves its results there), ``turn`` (calls
it for some seconds and tells the times) and ``forget`` (drops what was prepared). What libraries print goes to standard
error.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import pathlib
import signal
import sys
import time
from typing import Any

import numpy as np

from .layers import Layer
from .peers import load
from .peers.case import Case, Library, Ready, Unsupported
from .timing import timed_turn

__all__ = ["as_case", "main"]

_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of <sys/prctl.h>


def as_case(told: dict[str, Any], folder: pathlib.Path) -> Case:
    """The layer as it was before JSON, with the arrays of the folder."""
    layer = Layer(**{name: _tuples(value) for name, value in told["layer"].items()})
    arrays = {name: np.load(folder / f"{name}.npy") for name in told["arrays"]}
    return Case(layer, tuple(told["out_shape"]), **arrays)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


class _Worker:
    def __init__(self, library: Library) -> None:
        self._library = library
        self._ready: dict[str, Ready] = {}

    def answer(self, order: dict[str, Any]) -> dict[str, Any]:
        """Do one order."""
        if order["do"] == "prepare":
            return self._prepare(order)
        if order["do"] == "turn":
            times = timed_turn(self._ready[order["name"]].call, order["seconds"])
            return {"times": times}
        self._ready.clear()
        gc.collect()
        return {}

    def _prepare(self, order: dict[str, Any]) -> dict[str, Any]:
        folder, name = pathlib.Path(order["folder"]), order["name"]
        try:
            start = time.perf_counter()
            ready = self._library.prepare(order["variant"], as_case(order, folder))
            arrays = ready.arrays(ready.call())
            seconds = time.perf_counter() - start
        except Unsupported as reason:
            return {"unsupported": str(reason)}
        except Exception as error:  # a foreign library may raise anything: it is told, and the run goes on
            return {"error": f"{type(error).__name__}: {str(error).strip()[:300]}"}
        self._ready[name] = ready
        files = [str(folder / f"{order['file']}.{i}.npy") for i in range(len(arrays))]
        for path, array in zip(files, arrays, strict=True):
            np.save(path, np.asarray(array))
        return {"files": files, "algorithm": ready.algorithm, "prepared_in": seconds}


def main(name: str, threads: int) -> None:
    """Answer orders until there are none."""
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # Ctrl-C is for the parent to handle; if that dies, the system hangs up on a stopped orphan
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if sys.platform == "linux":  # not on one that is about to stop: Linux can be told to end it
        ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, int(signal.SIGKILL))
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints must not mix with the answers

    def tell(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    try:
        worker = _Worker(load(name, threads))
    except Exception as error:
        tell({"error": f"{type(error).__name__}: {str(error).strip()[:300]}"})
        return
    tell({"started": name})
    for line in sys.stdin:
        tell(worker.answer(json.loads(line)))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
