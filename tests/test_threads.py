"""What the threads of the compiled backend owe to others: no CPU when idle, no waiting for another caller's work."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

import numpy as np
import pytest
from support import REASONS

import fastconv

pytestmark = pytest.mark.skipif(REASONS["cpp"] is not None, reason=f"backend cpp: {REASONS['cpp']}")


def _values(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def test_idle_workers_use_no_cpu() -> None:
    x, w = _values(4, 32, 56, 56), _values(32, 32, 3, 3)
    fastconv.set_num_threads(4)
    fastconv.conv2d(x, w, backend="cpp")
    time.sleep(0.05)
    before = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - before < 0.03


def test_a_second_thread_does_not_wait_for_the_first() -> None:
    """Small calls of one thread end while a large call of another one runs."""
    large, small, weight = _values(16, 128, 96, 96), _values(1, 8, 12, 12), _values(128, 128, 3, 3)
    fastconv.set_num_threads(2)
    begun, ended = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        fastconv.conv2d(large, weight, backend="cpp", algorithm="direct")
        ended.set()

    thread = threading.Thread(target=work)
    thread.start()
    begun.wait()
    calls = 0
    while not ended.is_set():
        fastconv.conv2d(small, weight[:8, :8], backend="cpp")
        calls += not ended.is_set()
    thread.join()
    assert calls >= 3


def test_calls_leave_the_affinity_of_all_threads() -> None:
    """A worker that sleeps on the caller's core is woken on another one, but stays free to run on any."""
    x, w = _values(2, 32, 56, 56), _values(32, 32, 3, 3)
    fastconv.set_num_threads(2)
    for _ in range(20):
        fastconv.conv2d(x, w, backend="cpp")
        time.sleep(0.001)
    mine = os.sched_getaffinity(0)
    for _ in range(100):
        others = [os.sched_getaffinity(int(thread)) for thread in os.listdir("/proc/self/task")]
        if all(other == mine for other in others):
            return
        fastconv.conv2d(x, w, backend="cpp")
        time.sleep(0.01)
    pytest.fail(f"threads may run on {others}, this one on {mine}")
