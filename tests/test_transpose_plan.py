"""Transposed convolutions by phases, and their plans: oracles, bits of eager calls, threads, batches, no allocation."""

from __future__ import annotations

import threading
import tracemalloc

import numpy as np
import oracles
import pytest
from support import REASONS, conv_tolerance, function

import fastconv
from fastconv.testing import ConvCase, assert_close, conv_inputs, values

# Whose phases are one: sizes even and odd, ways of unequal sizes, stride 3, depth, a line.
JOINED = [
    ConvCase((13, 12), (4, 4), c=24, k=5, n=2, stride=(2, 2), padding=1, transposed=True),
    ConvCase((14, 13), (6, 4), c=20, k=7, n=3, stride=(2, 2), padding=1, transposed=True),
    ConvCase((12, 13), (4, 4), c=18, k=3, n=2, stride=(2, 2), padding=1, output_padding=(1, 0), transposed=True),
    ConvCase((9, 8), (6, 6), c=16, k=4, n=2, stride=(3, 3), padding=2, transposed=True),
    ConvCase((3, 9, 10), (2, 4, 4), c=18, k=4, n=2, stride=(2, 2, 2), padding=1, transposed=True),
    ConvCase((50,), (4,), c=20, k=3, n=2, stride=(2,), padding=1, transposed=True),
]
# Strides, phases that merge (2x2, 4x4 without padding, 16 taps with stride 8), phases that no tap reaches, tiles of
# F(4, 2) and F(5, 2), groups, one channel, depth.
CASES = [
    ConvCase((9, 14), (2, 2), c=20, k=17, n=3, stride=(2, 2), transposed=True),
    ConvCase((14, 13), (4, 4), c=33, k=18, n=4, stride=(2, 2), padding=1, transposed=True),
    ConvCase((12, 11), (4, 4), c=16, k=3, n=2, stride=(2, 2), transposed=True),
    ConvCase((11, 7), (3, 3), c=17, k=19, n=3, stride=(2, 2), padding=1, output_padding=(1, 1), transposed=True),
    ConvCase((5, 6), (1, 2), c=3, k=5, n=2, stride=(3, 2), output_padding=(2, 0), transposed=True),
    ConvCase((7, 8), (3, 3), c=6, k=6, n=2, stride=(2, 2), padding=1, groups=6, transposed=True),
    ConvCase((7, 8), (3, 3), c=12, k=8, n=2, stride=(2, 2), padding=1, groups=4, transposed=True),
    ConvCase((10, 9), (3, 3), c=8, k=8, n=2, padding=2, dilation=(2, 2), transposed=True),
    ConvCase((6, 7), (5, 3), c=4, k=3, n=2, stride=(3, 2), dilation=(2, 1), transposed=True),
    ConvCase((40,), (16,), c=9, k=5, n=2, stride=(8,), padding=4, transposed=True),
    ConvCase((300,), (9,), c=3, k=2, stride=(8,), padding=3, transposed=True),
    ConvCase((281,), (3,), c=5, k=3, stride=(4,), output_padding=(2,), transposed=True),
    ConvCase((7, 9), (5, 6), c=3, k=4, n=2, stride=(3, 8), padding=1, output_padding=(0, 7), transposed=True),
    ConvCase((3, 4, 5), (2, 3, 2), c=3, k=4, n=2, stride=(2, 2, 2), transposed=True),
    ConvCase((4, 5), (2, 2), c=1, k=1, n=2, stride=(2, 2), transposed=True),
    *JOINED,
]
BOTH = [c for case in CASES for c in (case, ConvCase(**{**case.__dict__, "channels_last": True}))]
ACTIVATIONS = {
    None: lambda y: y,
    "relu": lambda y: np.maximum(y, 0),
    "relu6": lambda y: np.clip(y, 0, 6),
    "leaky_relu": lambda y: np.where(y > 0, y, 0.01 * y),
}


def _plan(
    case: ConvCase, weight: np.ndarray, bias: np.ndarray | None, x_shape: tuple[int, ...], **more: object
) -> object:
    make = getattr(fastconv, f"plan_conv_transpose{case.rank}d")
    return make(x_shape, weight, bias, **case.keywords, dtype=case.dtype, **more)


@pytest.mark.skipif(REASONS["cpp"] is not None, reason=f"backend cpp: {REASONS['cpp']}")
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("case", JOINED, ids=lambda c: c.name)
def test_phases_that_are_one(case: ConvCase, last: bool) -> None:
    """What the cases above are there for: ways of both axes in one phase."""
    case = ConvCase(**{**case.__dict__, "channels_last": last})
    x, w, b = conv_inputs(case, "normal")
    lines = [line for line in _plan(case, w, b, x.shape, backend="cpp").describe().splitlines() if "pixels" in line]
    assert len(lines) == (case.stride[0] if case.rank == 3 else 1)


@pytest.mark.skipif(REASONS["cpp"] is not None, reason=f"backend cpp: {REASONS['cpp']}")
def test_large_images_take_little_scratch() -> None:
    """Channels last, where all phases in one would wait beside the output."""
    w = np.zeros((4, 4, 16, 32), np.float32)
    few, many = (
        fastconv.plan_conv_transpose2d((1, n, n, 32), w, stride=2, padding=1, layout="NHWC", backend="cpp").describe()
        for n in (64, 300)
    )
    assert few.count("pixels") == 1
    assert many.count("pixels") == 4


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("case", BOTH, ids=lambda c: c.name)
def test_bias_and_activation_reach_every_pixel(case: ConvCase, activation: str | None) -> None:
    """Against the definition stamp by stamp; integers, so that a phase without taps shows."""
    x, w, b = conv_inputs(case, "integers")
    y = function("conv_transpose", case.rank)(x, w, b, **case.keywords, activation=activation)
    expected, magnitude = oracles.conv_transpose(case, "integers")
    terms = case.c // case.groups * int(np.prod(case.kernel)) + 1
    allowed = conv_tolerance(case, "cpp", "auto", "normal", magnitude, terms=terms)
    assert_close(y, ACTIVATIONS[activation](expected), allowed, case.name)


@pytest.mark.parametrize("activation", [None, "relu", "gelu"])
@pytest.mark.parametrize("case", BOTH, ids=lambda c: c.name)
def test_same_bits_as_a_call(backend: str, case: ConvCase, activation: str | None) -> None:
    x, w, b = conv_inputs(case, "normal")
    keywords = {**case.keywords, "backend": backend, "activation": activation}
    eager = function("conv_transpose", case.rank)
    plan = _plan(case, w, b, x.shape, backend=backend, activation=activation)
    expected = eager(x, w, b, **keywords)
    assert plan.out_shape == expected.shape
    assert np.array_equal(plan(x), expected)
    assert np.array_equal(plan(x[0]), eager(x[0], w, b, **keywords))
    out = np.full_like(expected, np.nan)
    assert plan(x, out=out) is out
    assert np.array_equal(out, expected)
    assert np.array_equal(eager(x[:, ::-1], w, b, **keywords), plan(x[:, ::-1].copy()))  # strides to be prepared
    for turn in range(3):  # the memory of weights that nobody uses is used again
        plan.update(w * (turn + 2), b if turn else None)
        assert np.array_equal(plan(x), eager(x, w * (turn + 2), b if turn else None, **keywords))
    assert plan.describe().startswith(f"plan_conv_transpose{case.rank}d: ")
    assert plan.flops > 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", BOTH, ids=lambda c: c.name)
def test_threads_and_batch(case: ConvCase, dtype: str) -> None:
    """The same bits for any number of threads, and for an image by itself."""
    case = ConvCase(**{**case.__dict__, "n": 5, "dtype": dtype})
    x, w, b = conv_inputs(case, "normal")
    run = function("conv_transpose", case.rank)
    before = fastconv.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 3):
            fastconv.set_num_threads(threads)
            found.append(run(x, w, b, **case.keywords))
        assert np.isfinite(found[0]).all()
        assert np.ptp(found[0]) > 0
        assert np.array_equal(found[0], found[1])
        assert np.array_equal(found[0], found[2])
        assert np.array_equal(found[0][3:4], run(x[3:4], w, b, **case.keywords))
    finally:
        fastconv.set_num_threads(before)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_a_pixel_that_is_not_finite_stays_where_it_reaches(layout: str) -> None:
    case = ConvCase((16, 15), (4, 4), c=24, k=20, n=2, stride=(2, 2), padding=1, channels_last=layout == "NHWC")
    case = ConvCase(**{**case.__dict__, "transposed": True})
    x, w, b = conv_inputs(case, "normal")
    expected, magnitude = oracles.conv_transpose(case, "normal")
    allowed = conv_tolerance(case, "cpp", "auto", "normal", magnitude, terms=24 * 16 + 1)
    to_last = (0, 1, 2, 3) if case.channels_last else (0, 2, 3, 1)
    allowed = np.broadcast_to(allowed, expected.shape).transpose(to_last)
    at = (1, 7, 6, 3) if case.channels_last else (1, 3, 7, 6)
    for value in (np.inf, np.nan):
        spoiled = x.copy()
        spoiled[at] = value
        y = fastconv.conv_transpose2d(spoiled, w, b, **case.keywords)
        view = y.transpose(to_last)
        reached = np.zeros(view.shape, bool)
        reached[1, 13:17, 11:15] = True  # 2 * (7, 6) - 1, four taps each
        assert not np.isfinite(view[reached]).any()
        # the tile around it is summed directly: not the same bits
        assert_close(view[~reached], expected.transpose(to_last)[~reached], allowed[~reached])


def test_float16_and_other_inputs(backend: str) -> None:
    w, b = values("normal", (3, 4, 2, 2), "float32", "w"), values("normal", (4,), "float32", "b")
    x = values("normal", (2, 3, 5, 6), "float32", "x").astype(np.float16)
    plan = fastconv.plan_conv_transpose2d(x.shape, w, b, stride=2, dtype="float16", activation="relu", backend=backend)
    y = plan(x)
    assert y.dtype == np.float16
    half = fastconv.conv_transpose2d(x, w.astype(np.float16), b, stride=2, activation="relu", backend=backend)
    assert_close(y, half, 1e-2)
    assert plan(x.astype(np.float64)[:, :, ::-1]).shape == (2, 4, 10, 12)


def test_mistakes(backend: str) -> None:
    w = values("normal", (3, 4, 2, 2), "float32", "w")
    plan = fastconv.plan_conv_transpose2d((3, 5, 6), w, stride=2, backend=backend)
    with pytest.raises(ValueError, match=r"plan_conv_transpose2d: x must have shape \(N, 3, 5, 6\) with any N"):
        plan(np.ones((2, 3, 5, 7), np.float32))
    with pytest.raises(ValueError, match=r"plan_conv_transpose2d: out must have shape \(2, 4, 10, 12\)"):
        plan(np.ones((2, 3, 5, 6), np.float32), out=np.empty((2, 4, 10, 11), np.float32))
    with pytest.raises(ValueError, match=r"plan_conv_transpose2d: weight must have shape \(3, 4, 2, 2\)"):
        plan.update(w[:, :2])
    with pytest.raises(ValueError, match=r"plan_conv_transpose2d: bias must have shape \(4,\)"):
        fastconv.plan_conv_transpose2d((3, 5, 6), w, np.ones(3), backend=backend)
    with pytest.raises(ValueError, match="activation"):
        fastconv.plan_conv_transpose2d((3, 5, 6), w, activation="sine", backend=backend)
    shared = np.ones((2, 4, 10, 12), np.float32)
    with pytest.raises(ValueError, match="shares memory"):
        plan(shared.reshape(-1)[: 2 * 3 * 5 * 6].reshape(2, 3, 5, 6), out=shared)


def test_many_threads() -> None:
    """Calls beside each other and beside new weights: each result is that of one of the weights."""
    x, w = values("normal", (2, 16, 9, 9), "float32", "x"), values("normal", (16, 12, 4, 4), "float32", "w")
    plan = fastconv.plan_conv_transpose2d(x.shape, w, stride=2, padding=1)
    right = [fastconv.conv_transpose2d(x, w * s, stride=2, padding=1) for s in (1, 2)]
    wrong: list[int] = []

    def run() -> None:
        for _ in range(50):
            y = plan(x)
            if not any(np.array_equal(y, r) for r in right):
                wrong.append(1)

    workers = [threading.Thread(target=run) for _ in range(3)]
    for worker in workers:
        worker.start()
    for turn in range(50):
        plan.update(w * (turn % 2 + 1))
    for worker in workers:
        worker.join()
    assert not wrong


def test_a_call_allocates_nothing() -> None:
    w = values("normal", (16, 12, 4, 4), "float32", "w")
    x = values("normal", (8, 16, 20, 20), "float32", "x")
    plan = fastconv.plan_conv_transpose2d(x.shape, w, stride=2, padding=1)
    out = plan(x)
    tracemalloc.start()
    try:
        for _ in range(3):
            plan(x, out=out)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10_000
