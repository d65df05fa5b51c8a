"""Plans give what the plain calls give, bit for bit where that is promised, from any thread and for any batch."""

from __future__ import annotations

import functools
import threading
import time
from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv.testing import values

BACKENDS = [b.name for b in fastconv.list_backends() if b.available]
CASES = {
    "plain": (2, (2, 3, 7, 8), (4, 3, 3, 3), {}),
    "strided-groups": (2, (2, 4, 9, 8), (6, 2, 3, 2), {"stride": 2, "groups": 2, "padding": 1}),
    "reflect": (2, (2, 3, 7, 8), (4, 3, 3, 3), {"padding": 2, "padding_mode": "reflect"}),
    "channels-last": (2, (2, 7, 8, 3), (3, 3, 3, 4), {"layout": "NHWC", "padding": "same", "activation": "gelu"}),
    "sequence": (1, (2, 3, 11), (4, 3, 3), {"dilation": 2, "activation": "relu"}),
    "volume": (3, (1, 2, 5, 4, 6), (3, 2, 2, 2, 2), {"activation": "silu"}),
}


def case(name, dtype="float32"):
    rank, x_shape, w_shape, keywords = CASES[name]
    rng = np.random.default_rng(4)
    bias = rng.integers(-3, 4, w_shape[-1] if "layout" in keywords else w_shape[0])
    # small integers: every sum is exact, so algorithms that add in another order still agree exactly
    x, weight = (rng.integers(-3, 4, s).astype(dtype) for s in (x_shape, w_shape))
    return rank, x, weight, bias.astype(dtype), keywords


def make(name, dtype="float32", **more):
    rank, x, weight, bias, keywords = case(name, dtype)
    plan = getattr(fastconv, f"plan_conv{rank}d")(x.shape, weight, bias, dtype=dtype, **keywords, **more)
    eager = functools.partial(getattr(fastconv, f"conv{rank}d"), **keywords)
    return plan, eager, x, weight, bias


def close(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * max(1.0, float(np.abs(b).max())))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CASES)
def test_plan_gives_what_the_call_gives(name, dtype, backend):
    plan, eager, x, weight, bias = make(name, dtype, backend=backend)
    wanted = eager(x, weight, bias, backend=backend)
    first = plan(x)
    close(first, wanted)
    assert first.dtype == dtype
    out = np.full_like(wanted, np.nan)
    assert plan(x, out=out) is out  # the straight way
    np.testing.assert_array_equal(out, first)
    np.testing.assert_array_equal(plan(np.concatenate([x, x, x]))[: len(x)], first)
    np.testing.assert_array_equal(plan(x[0]), first[0])
    assert plan(x[:0]).shape == (0, *wanted.shape[1:])
    strided = np.zeros((*wanted.shape[:-1], 2 * wanted.shape[-1]), dtype)[..., ::2]
    np.testing.assert_array_equal(plan(x[..., ::-1][..., ::-1], out=strided), first)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", CASES)
def test_add_comes_before_the_activation(name, backend):
    plan, _, x, weight, bias = make(name, "float64", backend=backend)
    rank, *_, keywords = case(name)
    raw = getattr(fastconv, f"conv{rank}d")(x, weight, bias, **(keywords | {"activation": None}), backend=backend)
    add = np.random.default_rng(5).normal(size=raw.shape)
    close(plan(x, add=add), fastconv.activate(raw + add, keywords.get("activation")))


@pytest.mark.parametrize("backend", BACKENDS)
def test_update_tune_and_what_a_plan_tells(backend):
    plan, eager, x, weight, bias = make("plain", backend=backend)
    assert plan.flops == 2 * 2 * 4 * 5 * 6 * 3 * 9
    assert plan.algorithm in [a.name for a in fastconv.get_backend(backend).algorithms()]
    assert plan.workspace_bytes >= 0
    assert "plan_conv2d: (2, 3, 7, 8) -> (2, 4, 5, 6), float32" in plan.describe()
    plan.update(2 * weight, bias)
    close(plan(x), eager(x, 2 * weight, bias))
    weight[...] = 0  # the plan has its own copy
    assert plan(x).any()
    before = plan(x)
    assert plan.tune() is plan
    close(plan(x), before)
    plan.update(weight)
    assert not plan(x).any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_threads_share_a_plan_and_a_chain(backend):
    plan, eager, x, weight, bias = make("plain", backend=backend)
    second = fastconv.plan_conv2d(plan.out_shape, np.ones((2, 4, 1, 1)), backend=backend)
    chain = fastconv.plan_chain([plan, second])
    wrong = []

    def work(seed):
        mine = np.random.default_rng(seed).integers(-3, 4, (seed % 3 + 1, *x.shape[1:])).astype(np.float32)
        wanted = eager(mine, weight, bias, backend=backend)
        for _ in range(5):
            if not np.allclose(plan(mine), wanted) or not np.allclose(chain(mine)[:, 1], wanted.sum(1), atol=1e-3):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_chain():
    plan, eager, x, weight, bias = make("plain")
    pool = functools.partial(fastconv.max_pool2d, kernel_size=2)
    chain = fastconv.plan_chain([plan, pool])
    wanted = fastconv.max_pool2d(eager(x, weight, bias), 2)
    close(chain(x), wanted)
    out = np.empty_like(wanted)
    assert chain(x, out=out) is out
    close(out, wanted)
    first = chain(x)
    kept = first.copy()
    chain(x + 1)
    np.testing.assert_array_equal(first, kept)  # a result is never overwritten by the next call
    handed_on = fastconv.plan_chain([plan, lambda y: y])
    first = handed_on(x)
    kept = first.copy()
    handed_on(x + 1)
    np.testing.assert_array_equal(first, kept)
    assert chain.flops == plan.flops
    assert plan.describe() in chain.describe()


def test_half_precision_and_casts():
    plan, eager, x, weight, bias = make("plain", "float16")
    assert plan(x).dtype == np.float16
    close(plan(x).astype(float), eager(x, weight, bias).astype(float))
    wide, _, x, *_ = make("plain", "float64")
    np.testing.assert_array_equal(wide(x.astype(np.int16)), wide(x))


def test_errors_name_what_came():
    plan, _, x, weight, _ = make("plain")
    with pytest.raises(fastconv.GeometryError, match=r"plan_conv2d: x must have shape \(N, 3, 7, 8\)"):
        plan(x[:, :2])
    with pytest.raises(fastconv.GeometryError, match=r"add must have shape \(2, 4, 5, 6\), received \(1,\)"):
        plan(x, add=[1.0])
    with pytest.raises(fastconv.GeometryError, match="out must have shape"):
        plan(x, out=np.empty((1, 4, 5, 6), np.float32))
    with pytest.raises(ValueError, match="read-only"):
        plan(x, out=np.broadcast_to(np.float32(0), (2, 4, 5, 6)))
    big = np.zeros(1000, np.float32)
    with pytest.raises(ValueError, match="shares memory"):
        plan(big[: x.size].reshape(x.shape), out=big[100 : 100 + 240].reshape(2, 4, 5, 6))
    with pytest.raises(fastconv.GeometryError, match="weight must have shape"):
        plan.update(weight[:1])
    with pytest.raises(fastconv.DTypeError, match="dtype must be float16, float32 or float64, received int32"):
        fastconv.plan_conv2d(x.shape, weight, dtype="int32")
    with pytest.raises(fastconv.UnknownNameError, match="algorithm must be 'auto' or one of"):
        fastconv.plan_conv2d(x.shape, weight, algorithm="magic")
    with pytest.raises(fastconv.GeometryError, match=r"plans\[0\] gives \(N, 4, 5, 6\), but plans\[1\] takes"):
        fastconv.plan_chain([plan, plan])
    with pytest.raises(TypeError, match="neither a plan nor a function"):
        fastconv.plan_chain([plan, 3])


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_what_a_call_takes_as_it_is(layout: str) -> None:
    """The short way through a call refuses what the long way refuses, and gives the same bits."""
    shape = (2, 3, 6, 5) if layout == "NCHW" else (2, 6, 5, 3)
    weight = values("normal", (3, 3, 3, 3), "float32", "weight")
    plan = fastconv.plan_conv2d(shape, weight, padding=1, layout=layout, activation="relu")
    x, add = values("normal", shape, "float32", "x"), values("normal", shape, "float32", "add")
    y = plan(x, add=add)
    wide = np.zeros((2, *shape), np.float32)
    for other in (np.asfortranarray(x), x.astype(">f4"), x.astype(np.float64), x.tolist(), x[..., ::-1][..., ::-1]):
        assert np.array_equal(plan(other, add=add), y)
    for out in (wide[0], np.zeros(shape, np.float32, order="F"), wide.transpose(1, 2, 3, 4, 0)[..., 1]):
        assert plan(x, out=out, add=add) is out
        assert np.array_equal(out, y)
    assert np.array_equal(plan(x[0], out=wide[0][0], add=add[0]), y[0])
    assert plan(x[:0]).shape == (0, *shape[1:])
    locked = np.zeros(shape, np.float32)
    locked.flags.writeable = False
    both = np.zeros(3 * x.size, np.float32)
    left, right = both[: x.size].reshape(shape), both[x.size - 1 : 2 * x.size - 1].reshape(shape)
    refused: list[dict[str, Any]] = [
        {"out": x}, {"out": locked}, {"out": wide[0][:1]}, {"out": wide[0].reshape(shape[::-1])}, {"add": add[:1]},
        {"out": wide[0].astype(np.float64)}, {"out": left, "add": right},
    ]  # fmt: skip
    for keywords in refused:
        with pytest.raises((ValueError, TypeError)):
            plan(x, **keywords)
    with pytest.raises(ValueError, match="share"):
        plan(left, out=right)
    with pytest.raises(ValueError, match="shape"):
        plan(x.reshape(shape[::-1]))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize(("kernel", "stride"), [((1, 1), 1), ((3, 3), 1), ((3, 3), 2), ((1, 7), 1), ((9, 9), 1)])
def test_planning_does_not_grow_with_the_image(layout: str, kernel: tuple[int, int], stride: int) -> None:
    """A search that went through rows one by one took minutes for what is then refused for want of memory."""
    side = 2**24
    shape = (1, 16, side, side) if layout == "NCHW" else (1, side, side, 16)
    filters = (16, 16, *kernel) if layout == "NCHW" else (*kernel, 16, 16)
    weight = values("normal", filters, "float32", "weight")
    begin = time.process_time()
    fastconv.plan_conv2d(shape, weight, stride=stride, layout=layout, backend="cpp")
    assert time.process_time() - begin < 2


@pytest.mark.parametrize("mode", ["constant", "reflect"])
@pytest.mark.parametrize(("channels", "filters", "stride"), [(3, 24, 2), (16, 16, 1), (1, 130, 1)])
def test_planning_does_not_grow_with_a_row(channels: int, filters: int, stride: int, mode: str) -> None:
    """Nor is a stage as long as the row."""
    groups = channels if channels == filters else 1
    weight = values("normal", (3, 3, channels // groups, filters), "float32", "weight")
    begin = time.process_time()
    keywords = {"stride": stride, "padding": 1, "padding_mode": mode, "groups": groups, "layout": "NHWC"}
    plan = fastconv.plan_conv2d((1, 4, 2**28, channels), weight, **keywords, backend="cpp")
    assert time.process_time() - begin < 2
    assert plan.workspace_bytes < 2**28 * channels * 4
