"""Where contenders sit: backends in this process, every library in a process of its own that sleeps between its turns.

A library's threads may spin for a while after a call. Here they do so for themselves alone: the process is stopped as
soon as its turn is over and goes on when the next begins, so nobody's threads disturb anybody's turn.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import IO, Any, Protocol

import numpy as np

from .peers import Contender, load
from .peers.case import Array, Case, Library, Ready, Unsupported
from .timing import Times, settle, timed_turn

__all__ = ["Failed", "InProcess", "Own", "Prepared", "Seat", "environment"]

_PATIENCE = 120.0  # seconds for one answer; compiling a graph takes some
_STOPS = hasattr(signal, "SIGSTOP")


class Failed(Exception):
    """A library raised, died or did not answer."""


@dataclass(frozen=True)
class Prepared:
    """The results of a contender's first call, to be checked before it is timed."""

    arrays: Sequence[Array]
    algorithm: str = ""


class Seat(Protocol):
    """What the runner needs of a place."""

    contenders: Sequence[Contender]

    @property
    def pid(self) -> int | None:
        """The process, if it is another than ours."""

    def prepare(self, contender: Contender, case: Case, folder: pathlib.Path) -> Prepared:
        """Make a contender ready and call it once; raises ``Unsupported`` or ``Failed``."""

    def turn(self, name: str, seconds: float) -> Times:
        """Time a prepared contender for so long."""

    def forget(self) -> None:
        """Drop what was prepared."""

    def close(self) -> None:
        """No more turns."""


class InProcess:
    """A library in this process; its own errors are those of its user."""

    def __init__(self, contenders: Sequence[Contender], threads: int, library: Library | None = None) -> None:
        self.contenders = contenders
        self._library = library or load(contenders[0].peer, threads)
        self._ready: dict[str, Ready] = {}

    @property
    def pid(self) -> int | None:
        """As of every seat."""
        return None

    def prepare(self, contender: Contender, case: Case, folder: pathlib.Path) -> Prepared:
        """As of every seat."""
        try:
            ready = self._library.prepare(contender.variant, case)
            arrays = ready.arrays(ready.call())  # compiles what is compiled at the first call
        except (Unsupported, KeyboardInterrupt):
            raise
        except Exception as error:
            raise Failed(f"{type(error).__name__}: {error}") from error
        self._ready[contender.name] = ready
        return Prepared(arrays, ready.algorithm)

    def turn(self, name: str, seconds: float) -> Times:
        """As of every seat."""
        times = timed_turn(self._ready[name].call, seconds)
        settle()
        return times

    def forget(self) -> None:
        """As of every seat."""
        self._ready.clear()

    def close(self) -> None:
        """As of every seat."""
        self.forget()


def environment(threads: int, *, default_allocator: bool = False) -> dict[str, str]:
    """What a library must find in its environment before it is imported."""
    numbers = (
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "NUMBA_NUM_THREADS",
        "FASTCONV_NUM_THREADS",
    )
    given = dict(os.environ) | dict.fromkeys(numbers, str(threads))
    given |= {"TF_CPP_MIN_LOG_LEVEL": "3", "JAX_PLATFORMS": "cpu", "GLOG_minloglevel": "3", "KMP_WARNINGS": "0",
              "CUDA_VISIBLE_DEVICES": "", "PYTHONUNBUFFERED": "1"}  # fmt: skip
    for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"):
        given.pop(name, None)
        if not default_allocator:  # freed blocks are kept: a new result costs no page faults
            given[name] = "8000000000"
    if threads == 1:
        given["XLA_FLAGS"] = (given.get("XLA_FLAGS", "") + " --xla_cpu_multi_thread_eigen=false").strip()
    given["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
    return given


@contextlib.contextmanager
def _pinned(processors: Sequence[int]) -> Iterator[None]:
    if not processors or not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, processors)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _listen(answers: IO[bytes], into: queue.Queue[bytes]) -> None:
    """Hand on line by line, an empty one at the end: pipes cannot be waited for with a limit on every system."""
    with answers:
        for line in answers:
            into.put(line)
    into.put(b"")


class Own:
    """A library in a process of its own, pinned to the processors given; started anew after it died."""

    def __init__(self, contenders: Sequence[Contender], threads: int, processors: Sequence[int] = (), *,
                 patience: float = _PATIENCE) -> None:  # fmt: skip
        self.contenders = contenders
        self._peer, self._threads, self._processors = contenders[0].peer, threads, processors
        self._default_allocator = contenders[0].default_allocator
        self._patience, self._count, self._deaths = patience, 0, 0
        self._process: subprocess.Popen[bytes] | None = None
        self._broken = ""
        self._start()

    @property
    def pid(self) -> int | None:
        """As of every seat."""
        return None if self._process is None else self._process.pid

    def _start(self) -> None:
        with _pinned(self._processors):  # a child inherits the processors of the thread that starts it
            self._process = subprocess.Popen(
                [sys.executable, "-m", "fastconv.bench.worker", self._peer, str(self._threads)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                env=environment(self._threads, default_allocator=self._default_allocator),
            )  # fmt: skip
        self._answers: queue.Queue[bytes] = queue.Queue()
        threading.Thread(target=_listen, args=(self._process.stdout, self._answers), daemon=True).start()
        self._started = False

    def prepare(self, contender: Contender, case: Case, folder: pathlib.Path) -> Prepared:
        """As of every seat."""
        self._be_there()
        self._count += 1
        arrays = [name for name in ("x", "weight", "bias", "grad_output") if getattr(case, name) is not None]
        told = self._ask({
            "do": "prepare", "name": contender.name, "variant": contender.variant, "folder": str(folder),
            "file": f"{self._peer.rpartition(':')[2]}{int(self._default_allocator)}-{self._count}", "arrays": arrays,
            "layer": asdict(case.layer), "out_shape": case.out_shape,
        })  # fmt: skip
        if "unsupported" in told:
            raise Unsupported(told["unsupported"])
        if "error" in told:
            raise Failed(told["error"])
        results = [np.load(path) for path in told["files"]]
        for path in told["files"]:
            os.remove(path)
        return Prepared(results, told["algorithm"])

    def _be_there(self) -> None:
        """Wait for the start; start again after a death, but not for ever."""
        if self._broken:
            raise Failed(self._broken)
        if self._process is None:
            self._start()
        if not self._started:
            told = self._read()
            if "error" in told:
                self._broken = f"cannot be imported: {told['error']}"
                self.close()
                raise Failed(self._broken)
            self._started = True

    def turn(self, name: str, seconds: float) -> Times:
        """As of every seat."""
        told = self._ask({"do": "turn", "name": name, "seconds": seconds})
        return Times(*told["times"])

    def forget(self) -> None:
        """As of every seat."""
        if self._process is not None and self._started:
            with contextlib.suppress(Failed):
                self._ask({"do": "forget"})

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()  # a stopped process dies all the same
            self._process.wait()
            with contextlib.suppress(OSError):
                self._process.stdin.close()  # type: ignore[union-attr]
            self._process = None

    def _ask(self, order: dict[str, Any]) -> dict[str, Any]:
        process = self._process
        if process is None:
            raise Failed("its process has ended")
        assert process.stdin is not None
        self._signal("SIGCONT")
        try:
            process.stdin.write(json.dumps(order).encode() + b"\n")
            process.stdin.flush()
        except OSError:
            raise self._death() from None
        return self._read()

    def _read(self) -> dict[str, Any]:
        silence = 0.0
        while True:
            try:
                line = self._answers.get(timeout=0.5)
                break
            except queue.Empty:  # counted in steps: time during which all of us were stopped is none
                silence += 0.5
                if silence >= self._patience:
                    raise self._death(f"no answer within {self._patience:.0f} s") from None
        if not line:
            raise self._death()
        self._signal("SIGSTOP")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _signal(self, name: str) -> None:
        if _STOPS and self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(getattr(signal, name))

    def _death(self, why: str = "") -> Failed:
        process = self._process
        assert process is not None
        if why:
            process.kill()
        code = process.wait()
        self.close()
        self._deaths += 1
        why = why or (
            f"its process was ended by signal {-code}" if code < 0 else f"its process ended with status {code}"
        )
        if self._deaths >= 3:
            self._broken = f"{why}; given up after {self._deaths} times"
        return Failed(why)
