"""What backends publish: same bits for any threads and any batch, safe after a fork; then NaN, infinity, subnormals."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support import function

import fastconv
from fastconv.testing import ConvCase, assert_close, conv_inputs, values

CASES = [
    ConvCase((31, 33), (3, 3), c=37, k=53, n=3, padding=1),
    ConvCase((31, 33), (3, 3), c=37, k=53, n=3, padding=1, channels_last=True),
    ConvCase((14, 14), (3, 3), c=64, k=64, n=5, padding=1),
    ConvCase((17, 19), (1, 1), c=53, k=37, n=3, dtype="float64"),
    ConvCase((29, 31), (5, 5), c=24, k=24, n=3, padding=2, groups=24),
    ConvCase((40, 41), (7, 7), c=3, k=17, n=2, stride=(2, 2), padding=3, channels_last=True),
    ConvCase((7, 7), (3, 3), c=96, k=40, n=4, padding=1, groups=4),
    ConvCase((301,), (9,), c=8, k=12, n=3, padding=4),
    ConvCase((9, 10, 11), (3, 3, 3), c=5, k=7, n=2, padding=1),
]


def _results(case: ConvCase, backend: str) -> dict[str, np.ndarray]:
    """Everything that a case can be asked for."""
    x, w, b = conv_inputs(case, "normal")
    conv, keywords = function("conv", case.rank), {**case.keywords, "backend": backend}
    found = {}
    for algorithm in ["auto", *(a.name for a in fastconv.get_backend(backend).algorithms())]:
        with contextlib.suppress(fastconv.GeometryError):  # an algorithm that cannot do this case
            found[algorithm] = conv(x, w, b, **keywords, algorithm=algorithm)
    dy = values("normal", found["auto"].shape, case.dtype, "dy")
    dx, dw, db = function("conv", case.rank, "_backward")(dy, x, w, **keywords)
    assert dx is not None
    assert dw is not None
    assert db is not None
    found |= {"dx": dx, "dw": dw, "db": db}
    pool = {"layout": case.layout, "backend": backend}
    found["max"] = function("max_pool", case.rank)(x, 3, stride=2, **pool)
    found["average"] = function("avg_pool", case.rank)(x, 3, stride=2, **pool)
    found["max gradient"] = function("max_pool", case.rank, "_backward")(found["max"], x, 3, stride=2, **pool)
    found["average gradient"] = function("avg_pool", case.rank, "_backward")(found["max"], x, 3, stride=2, **pool)
    return found


def _same_bits(one: np.ndarray, other: np.ndarray, what: str) -> None:
    assert np.isfinite(one).all(), f"{what}: nothing but numbers was expected"
    assert np.array_equal(one.view(f"u{one.itemsize}"), other.view(f"u{one.itemsize}")), f"{what} differs in its bits"


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_threads(backend: str, case: ConvCase) -> None:
    """1, 2, 3 and 7 threads, on any machine."""
    if not fastconv.get_backend(backend).thread_deterministic:
        pytest.skip(f"backend {backend} does not promise it")
    if backend == "reference" and case != CASES[2]:
        pytest.skip("one case of the slowest backend is enough: it has no threads")
    fastconv.set_num_threads(1)
    expected = _results(case, backend)
    for threads in (2, 3, 7):
        fastconv.set_num_threads(threads)
        for name, result in _results(case, backend).items():
            _same_bits(result, expected[name], f"{name} with {threads} threads")


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_batch(backend: str, case: ConvCase) -> None:
    """An image gives the same bits alone, in a batch, and at another place of it."""
    if not fastconv.get_backend(backend).batch_invariant:
        pytest.skip(f"backend {backend} does not promise it")
    if backend == "reference" and case != CASES[2]:
        pytest.skip("one case of the slowest backend is enough: it goes image by image")
    fastconv.set_num_threads(2)
    x, w, b = conv_inputs(case, "normal")
    conv, back = function("conv", case.rank), function("conv", case.rank, "_backward")
    names = ["auto", *(a.name for a in fastconv.get_backend(backend).algorithms())]
    for algorithm in names:
        keywords = {**case.keywords, "backend": backend, "algorithm": algorithm}
        try:
            y = conv(x, w, b, **keywords)
        except fastconv.GeometryError:
            continue  # an algorithm that cannot do this case
        turned = conv(x[::-1], w, b, **keywords)[::-1]
        for i in range(case.n):
            _same_bits(np.ascontiguousarray(turned[i]), y[i], f"{algorithm}, image {i} at another place")
            _same_bits(conv(x[i : i + 1], w, b, **keywords)[0], y[i], f"{algorithm}, image {i} alone")
            _same_bits(conv(x[i], w, b, **keywords), y[i], f"{algorithm}, image {i} without a batch")
    dy = values("normal", y.shape, case.dtype, "dy")
    keywords = {**case.keywords, "backend": backend, "needs": ("x",)}
    dx = back(dy, x, w, **keywords).x
    for i in range(case.n):
        _same_bits(back(dy[i : i + 1], x[i : i + 1], w, **keywords).x[0], dx[i], f"gradient, image {i} alone")


@pytest.mark.parametrize("algorithm", ["auto", "direct"])
def test_weights_changed_in_place(backend: str, algorithm: str) -> None:
    """Whatever a backend keeps of the weights, a call uses the values they have now."""
    rng = np.random.default_rng(11)
    x = rng.integers(-3, 4, (1, 32, 20, 20)).astype(np.float32)
    w = rng.integers(-3, 4, (40, 32, 3, 3)).astype(np.float32)
    for place in [(0, 0, 0, 0), (39, 31, 2, 2), (17, 5, 1, 0)]:
        before = fastconv.conv2d(x, w, padding=1, backend=backend, algorithm=algorithm)
        w[place] += 1
        after = fastconv.conv2d(x, w, padding=1, backend=backend, algorithm=algorithm)
        fresh = fastconv.conv2d(x, w.copy(), padding=1, backend=backend, algorithm=algorithm)
        assert np.array_equal(after, fresh)
        assert not np.array_equal(after, before)


def test_twice(backend: str) -> None:
    """The same call gives the same bits."""
    first, second = _results(CASES[4], backend), _results(CASES[4], backend)
    for name, result in first.items():
        _same_bits(result, second[name], name)


def test_plan_gives_the_bits_of_a_call(backend: str) -> None:
    case = CASES[2]
    x, w, b = conv_inputs(case, "normal")
    y = fastconv.conv2d(x, w, b, padding=1, activation="relu", backend=backend)
    plan = fastconv.plan_conv2d(x.shape, w, b, padding=1, activation="relu", backend=backend)
    _same_bits(plan(x), y, "a plan")
    _same_bits(plan(x[:1]), y[:1], "a plan on one image")


def _script(backend: str, body: str) -> str:
    """Run a program of its own and return what it printed; it may not hang."""
    head = f"""
    import os, sys, threading, warnings
    import numpy as np, fastconv
    warnings.simplefilter("ignore")
    rng = np.random.default_rng(0)
    x = rng.integers(-3, 4, (4, 16, 32, 32)).astype(np.float32)
    w = rng.integers(-3, 4, (16, 16, 3, 3)).astype(np.float32)
    fastconv.set_backend({backend!r})
    fastconv.set_num_threads(3)

    def work():
        y = fastconv.conv2d(x, w, padding=1)
        dx, dw, _ = fastconv.conv2d_backward(y, x, w, padding=1)
        return float(abs(y).sum() + abs(dx).sum() / 64 + abs(dw).sum() / 64 + fastconv.max_pool2d(x, 2).sum())
    """
    code = textwrap.dedent(head) + textwrap.dedent(body)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


FORK = """
before = work()
for _ in range(3):
    child = os.fork()
    if child == 0:
        ok = work() == before and fastconv.get_num_threads() == 3
        grandchild = os.fork()
        if grandchild == 0:
            os._exit(0 if work() == before else 1)
        ok = ok and os.waitpid(grandchild, 0)[1] == 0
        os._exit(0 if ok else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert work() == before
print("computed")
"""

FORK_WHILE_BUSY = """
before = work()
stop = threading.Event()
def busy():
    while not stop.is_set():
        work()
threads = [threading.Thread(target=busy) for _ in range(2)]
for t in threads: t.start()
try:
    for _ in range(5):
        child = os.fork()
        if child == 0:
            os._exit(0 if work() == before else 1)
        assert os.waitpid(child, 0)[1] == 0
finally:
    stop.set()
for t in threads: t.join()
print("computed")
"""


@pytest.mark.skipif(not hasattr(sys.modules["os"], "fork"), reason="this system has no fork")
@pytest.mark.parametrize("body", [FORK, FORK_WHILE_BUSY], ids=["idle", "busy"])
def test_fork(backend: str, body: str) -> None:
    """A child computes on, and its child; the parent too; also when other threads were in the middle of a call."""
    if backend == "reference":
        pytest.skip("the reference has neither threads nor compiled state")
    if not fastconv.get_backend(backend).fork_safe:
        pytest.skip(f"backend {backend} does not promise it")
    if body == FORK_WHILE_BUSY and backend == "numpy":
        pytest.skip("NumPy's linear algebra library decides what a fork during its work does")
    assert _script(backend, body) == "computed\n"


def test_many_python_threads(backend: str) -> None:
    """Calls from many threads at once, with the number of threads changed meanwhile."""
    if backend == "reference":
        pytest.skip("nothing is shared in the reference")
    small = [values("integers", (2, 5, 9 + i, 11), "float32", f"x{i}") for i in range(8)]
    w = values("integers", (6, 5, 3, 3), "float32", "w")

    def work(i: int) -> list[np.ndarray]:
        y = fastconv.conv2d(small[i], w, padding=1, backend=backend)
        dx, dw, db = fastconv.conv2d_backward(y, small[i], w, padding=1, backend=backend)
        pooled, indices = fastconv.max_pool2d_with_indices(y, 3, stride=2, backend=backend)
        return [y, dx, dw, db, pooled, indices, fastconv.avg_pool2d(y, 2, backend=backend)]

    expected = [work(i) for i in range(8)]
    wrong: list[str] = []

    def loop(i: int) -> None:
        try:
            for turn in range(12):
                if i == 0:
                    fastconv.set_num_threads(1 + turn % 3)
                for result, right in zip(work(i), expected[i], strict=True):
                    assert_close(result, right, 0, f"thread {i}, turn {turn}")
        except BaseException as error:
            wrong.append(repr(error))

    threads = [threading.Thread(target=loop, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(240)
    assert not any(t.is_alive() for t in threads)
    assert not wrong


def _spread(x: np.ndarray, backend: str, algorithm: str = "direct") -> np.ndarray:
    w = np.ones((5, x.shape[1], 3, 3), x.dtype)
    return fastconv.conv2d(x, w, padding=1, backend=backend, algorithm=algorithm)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nan_stays_where_it_is(backend: str, dtype: str) -> None:
    """One NaN, one infinity: seen by the windows over them and by no other (algorithm "direct")."""
    x = np.ones((1, 3, 12, 19), dtype)
    x[0, 1, 4, 6], x[0, 2, 9, 15] = np.nan, np.inf
    y = _spread(x, backend)
    expected = _spread(np.ones_like(x), backend)
    expected[:, :, 3:6, 5:8], expected[:, :, 8:11, 14:17] = np.nan, np.inf
    assert_close(y, expected)
    x[0, 2, 9, 16] = -np.inf  # both infinities in one window: NaN
    assert np.isnan(_spread(x, backend)[0, :, 9, 15]).all()


@pytest.mark.parametrize("activation", ["relu", "relu6", "leaky_relu", "sigmoid", "tanh", "silu", "gelu", "hard_swish"])
def test_activations_keep_nan(backend: str, activation: str) -> None:
    x = np.array([[[1.0, np.nan, -1.0] * 9]], np.float32)
    y = fastconv.conv1d(x, np.ones((1, 1, 1), np.float32), activation=activation, backend=backend)
    assert np.array_equal(np.isnan(y), np.isnan(x))


def test_gradients_pass_nan_on(backend: str) -> None:
    x, w = np.ones((1, 2, 9, 9), np.float32), np.ones((3, 2, 3, 3), np.float32)
    dy = np.ones((1, 3, 9, 9), np.float32)
    dy[0, 1, 4, 4] = np.nan
    dx, dw, db = fastconv.conv2d_backward(dy, x, w, padding=1, backend=backend)
    assert np.isnan(dx[:, :, 3:6, 3:6]).all()
    assert np.isnan(dx).sum() == 2 * 9
    assert np.isnan(dw[1]).all()
    assert np.isfinite(dw[[0, 2]]).all()
    assert np.isnan(db).tolist() == [False, True, False]


def test_subnormals(backend: str) -> None:
    """Arithmetic may flush them to zero; copies and comparisons keep every bit."""
    least = np.finfo(np.float32).smallest_subnormal
    x = (np.arange(1, 1 + 2 * 6 * 7, dtype=np.float32) * least).reshape(1, 2, 6, 7)
    y = _spread(x, backend)
    exact = _spread(x.astype(np.float64), backend)
    assert (np.abs(y - exact) <= 18 * np.finfo(np.float32).tiny).all()
    kept = fastconv.max_pool2d(x, 2, backend=backend)
    assert_close(kept, x[:, :, 1::2, 1:7:2])
    assert (kept > 0).all()
    assert_close(fastconv.pad(x, 1, backend=backend), np.pad(x, 1))


CALLS: dict[str, Callable[[np.ndarray, str], Any]] = {
    "conv": lambda x, b: fastconv.conv2d(x, np.ones((4, 4, 3, 3), np.float32), padding=1, backend=b),
    "gradient": lambda x, b: fastconv.conv2d_backward(x, x, np.ones((4, 4, 3, 3), np.float32), padding=1, backend=b),
    "max": lambda x, b: fastconv.max_pool2d(x, 3, backend=b),
    "average": lambda x, b: fastconv.avg_pool2d(x, 3, backend=b),
    "pad": lambda x, b: fastconv.pad(x, 1, backend=b),
}


@pytest.mark.parametrize("call", CALLS)
def test_the_callers_float_mode_is_kept(backend: str, call: str) -> None:
    """Subnormals work as before after every call, in NumPy and in Python."""
    least = np.full(64, np.finfo(np.float32).smallest_subnormal)
    for threads in (1, 3):
        fastconv.set_num_threads(threads)
        CALLS[call](np.ones((2, 4, 40, 40), np.float32), backend)
        assert (least * np.float32(1) == least).all()
        assert (least + least > least).all()
        assert 5e-324 * 1.0 > 0
