"""Plans of gradients: the bits of the eager calls, new weights, threads; training that allocates nothing per step."""

from __future__ import annotations

import threading
import tracemalloc

import numpy as np
import pytest
from support import function

import fastconv
from fastconv import nn
from fastconv.testing import ConvCase, conv_inputs, values

CASES = [
    ConvCase((14, 14), (3, 3), c=24, k=40, n=3, padding=1),
    ConvCase((15, 13), (3, 3), c=20, k=17, n=2, padding=1, stride=(2, 2), channels_last=True),
    ConvCase((9, 8), (3, 3), c=6, k=6, n=2, padding=1, groups=6, dtype="float64"),
    ConvCase((9, 8), (2, 3), c=3, k=5, n=2, padding=((1, 0), (2, 1)), padding_mode="reflect"),
    ConvCase((50,), (4,), c=3, k=5, n=2, stride=(3,)),
    ConvCase((5, 6, 7), (2, 3, 2), c=3, k=4, n=2, channels_last=True),
]


def _same(one: np.ndarray | None, other: np.ndarray | None) -> None:
    assert one is not None
    assert other is not None
    assert one.dtype == other.dtype
    assert np.array_equal(one, other)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_same_bits_as_a_call(backend: str, case: ConvCase) -> None:
    x, w, _ = conv_inputs(case, "normal")
    keywords = {**case.keywords, "backend": backend}
    dy = values("normal", function("conv", case.rank)(x, w, **keywords).shape, case.dtype, "dy")
    eager = function("conv", case.rank, "_backward")
    plan = getattr(fastconv, f"plan_conv{case.rank}d_backward")(x.shape, w, **keywords, dtype=case.dtype)
    assert plan.needs == ("x", "weight", "bias")
    for one, other in zip(plan(dy, x), eager(dy, x, w, **keywords), strict=True):
        _same(one, other)
    for one, other in zip(plan(dy[0], x[0]), eager(dy[0], x[0], w, **keywords), strict=True):
        _same(one, other)
    for turn in range(3):  # the memory of weights that nobody uses is used again
        plan.update(w * (turn + 2))
        _same(plan(dy, x).x, eager(dy, x, w * (turn + 2), **keywords).x)
    out = tuple(np.full_like(a, np.nan) for a in (x, w, np.zeros(case.k, case.dtype)))
    found = plan(dy, x, out=out)
    for one, other in zip(found, out, strict=True):
        assert one is other
        assert np.isfinite(one).all()


def test_only_what_is_needed(backend: str) -> None:
    w = values("normal", (4, 3, 3, 3), "float32", "w")
    dy = values("normal", (2, 4, 5, 6), "float32", "dy")
    plan = fastconv.plan_conv2d_backward((3, 7, 8), w, needs=("x",), backend=backend)
    found = plan(dy)
    assert found.weight is None
    assert found.bias is None
    _same(found.x, fastconv.conv2d_backward(dy, np.zeros((2, 3, 7, 8), "float32"), w, needs="x", backend=backend).x)
    with pytest.raises(TypeError, match="x is needed for the gradient to the weight"):
        fastconv.plan_conv2d_backward((3, 7, 8), w, backend=backend)(dy)


def test_mistakes(backend: str) -> None:
    w = np.ones((4, 3, 3, 3), "float32")
    plan = fastconv.plan_conv2d_backward((1, 3, 7, 8), w, backend=backend)
    dy = np.ones((2, 4, 5, 6), "float32")
    with pytest.raises(fastconv.GeometryError, match=r"x must have shape \(N, 3, 7, 8\)"):
        plan(dy, np.ones((2, 3, 7, 9)))
    with pytest.raises(fastconv.GeometryError, match="grad_output must have shape"):
        plan(dy[:, :, 1:], np.ones((2, 3, 7, 8)))
    with pytest.raises(fastconv.GeometryError, match="weight must have shape"):
        plan.update(w[:2])
    with pytest.raises(fastconv.UnknownNameError, match="needs may hold"):
        fastconv.plan_conv2d_backward((1, 3, 7, 8), w, needs=("y",), backend=backend)
    with pytest.raises(TypeError, match="dtype must be"):
        fastconv.plan_conv2d_backward((1, 3, 7, 8), w, dtype="int32", backend=backend)


def test_many_threads() -> None:
    """Weights change while others compute: every result is that of one set of weights or of the other."""
    w = values("normal", (32, 24, 3, 3), "float32", "w")
    dy = values("normal", (2, 32, 20, 20), "float32", "dy")
    plan = fastconv.plan_conv2d_backward((24, 20, 20), w, padding=1, needs=("x",), backend="cpp")
    once = plan(dy).x
    plan.update(-w)
    minus = plan(dy).x
    wrong: list[str] = []

    def run() -> None:
        for _ in range(30):
            found = plan(dy).x
            if not (np.array_equal(found, once) or np.array_equal(found, minus)):
                wrong.append("neither")

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for turn in range(60):
        plan.update(w if turn % 2 else -w)
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("batch", [8, 64])
def test_training_allocates_nothing_that_grows_with_the_batch(batch: int) -> None:
    """After a few steps a step allocates small objects only, of which none stays."""
    x = values("normal", (batch, 16, 16, 3), "float32", "x")
    y = np.arange(batch) % 4
    inputs = nn.Input((16, 16, 3))
    z = nn.ReLU()(nn.BatchNormalization()(nn.Conv2D(16, 3, padding="same")(inputs)))
    z = nn.Conv2D(32, 3, strides=2, padding="same")(nn.MaxPooling2D(2)(z))
    model = nn.Model(inputs=inputs, outputs=nn.Dense(4, activation="softmax")(nn.Flatten()(z)))
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
    for _ in range(12):
        model.train_on_batch(x, y)
    tracemalloc.start()
    try:
        model.train_on_batch(x, y)
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        for _ in range(5):
            model.train_on_batch(x, y)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before < 64 << 10, "a step allocates arrays"
    assert after - before < 16 << 10, "steps leave memory behind"
