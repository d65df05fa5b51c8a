"""Scratch memory: what a plan says it uses holds, a limit is kept, nothing grows, and it can be given back."""

from __future__ import annotations

import math

import numpy as np
import pytest

import fastconv

_core = pytest.importorskip("fastconv.backends._cpp._core", reason="the compiled backend is not built")
RNG = np.random.default_rng(2)
# channels, size, out, kernel, and the rest
LAYERS = {
    "3x3": (32, (40, 37), 48, 3, {"padding": 1}),
    "wide": (96, (17, 130), 96, 3, {"padding": 1}),
    "deep": (300, (14, 14), 70, 3, {"padding": 1}),
    "strided": (24, (61, 40), 40, 3, {"stride": 2, "padding": 1}),
    "many taps": (3, (64, 64), 32, 11, {"stride": 4, "padding": 2}),
    "1x1": (200, (28, 28), 96, 1, {}),
    "depthwise": (72, (33, 33), 72, 3, {"padding": 1, "groups": 72}),
    "depthwise 7x7": (40, (33, 33), 40, 7, {"padding": 3, "groups": 40}),
    "depthwise narrow": (40, (30, 12), 40, 7, {"padding": 3, "groups": 40}),
    "grouped": (32, (20, 20), 64, 3, {"padding": 1, "groups": 4}),
    "reflect": (16, (30, 30), 16, 5, {"padding": 2, "padding_mode": "reflect"}),
}


def made(name, layout, dtype="float32", **more):
    channels, size, out, kernel, given = LAYERS[name]
    weight = np.random.default_rng(3).standard_normal((out, channels // given.get("groups", 1), kernel, kernel))
    shape = (1, channels, *size)
    if layout == "NHWC":
        weight, shape = weight.transpose(2, 3, 1, 0), (1, *size, channels)
    return fastconv.plan_conv2d(shape, weight, layout=layout, dtype=dtype, backend="cpp", **(given | more))


def used(plan, x):
    out = plan(x)
    _core.take_scratch_peak()
    plan(x, out=out)
    return out, _core.take_scratch_peak()


@pytest.fixture(autouse=True)
def threads_as_before():
    before = fastconv.get_num_threads()
    yield
    fastconv.set_num_threads(before)


def accepting(name, layout, dtype):
    return [c.name for c in made(name, layout, dtype).candidates() if c.why_not is None]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("name", LAYERS)
def test_workspace_told_beforehand_holds(name, layout, dtype):
    for algorithm in accepting(name, layout, dtype):
        plan = made(name, layout, dtype, algorithm=algorithm)
        for threads in (1, 2, 3):
            fastconv.set_num_threads(threads)
            for batch in (1, 2, 9):
                told = plan.workspace_bytes
                _, peak = used(plan, RNG.standard_normal((batch, *plan._x_shape)).astype(dtype))
                assert peak <= told, f"{algorithm}, {threads} threads, batch {batch}: {peak} of {told}"


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("name", LAYERS)
def test_a_limit_is_kept_and_changes_no_bit_of_an_algorithm(name, layout):
    free = made(name, layout)
    x = RNG.standard_normal((4, *free._x_shape)).astype(np.float32)
    fastconv.set_num_threads(2)
    for limit in (2_000_000, 500_000, 150_000, 50_000):
        if limit < 150_000 and name == "deep" and layout == "NCHW":
            continue  # a band of one row of 300 channels with its sums is more
        plan = made(name, layout, workspace_limit=limit)
        assert plan.workspace_bytes <= limit
        y, peak = used(plan, x)
        assert peak <= plan.workspace_bytes
        np.testing.assert_array_equal(y, made(name, layout, algorithm=plan.algorithm)(x))
        fastconv.set_num_threads(5)  # a limit is of the plan, not of a number of threads
        assert used(plan, x)[1] <= limit
        fastconv.set_num_threads(2)


def test_a_limit_chooses_smaller_blocks_first_then_another_algorithm():
    free = made("3x3", "NCHW")
    assert free.algorithm == "winograd_4x3"
    fastconv.set_num_threads(1)
    tight = made("3x3", "NCHW", workspace_limit=free.workspace_bytes // 4)
    assert tight.algorithm.startswith("winograd")
    assert tight.workspace_bytes <= free.workspace_bytes // 4
    assert made("deep", "NHWC").algorithm.startswith("winograd")
    assert made("deep", "NHWC", workspace_limit=20_000).algorithm == "direct"
    with pytest.raises(fastconv.GeometryError, match="bytes of workspace, more than workspace_limit=100"):
        made("3x3", "NCHW", workspace_limit=100)
    with pytest.raises(fastconv.GeometryError, match=r"'winograd_4x3' needs .* more than workspace_limit=1000"):
        made("3x3", "NCHW", algorithm="winograd_4x3", workspace_limit=1000)


def test_scratch_does_not_grow_with_the_shapes_seen_and_is_given_back():
    fastconv.set_num_threads(2)
    fastconv.release_scratch()
    most = 0
    for size in range(20, 60):
        weight = RNG.standard_normal((16, 16, 3, 3)).astype(np.float32)
        fastconv.conv2d(RNG.standard_normal((2, 16, size, size)).astype(np.float32), weight, padding=1, backend="cpp")
        most = max(most, _core.scratch_bytes())
    assert most <= 16 << 20
    fastconv.release_scratch()
    assert _core.scratch_bytes() == 0
    assert _core.cached_block_bytes() == 0


def test_describe_tells_time_workspace_and_reason_of_every_candidate():
    plan = made("3x3", "NCHW")
    lines = plan.describe().splitlines()[1:]
    names = {a.name for a in fastconv.get_backend("cpp").algorithms()}
    assert {line[2:].split()[0] for line in lines} == names
    assert sum(line.startswith("* ") for line in lines) == 1
    taken = [line for line in lines if "predicted" in line]
    assert all(" us an image on one thread, workspace " in line and " bytes" in line for line in taken)
    assert any("it needs a kernel of one tap" in line for line in lines)
    assert any("only on request" in line for line in taken)
    candidates = plan.candidates()
    assert [c.seconds for c in candidates if c.why_not is None] == sorted(
        c.seconds for c in candidates if c.why_not is None
    )
    assert {c.name for c in candidates} == names
    assert next(c for c in candidates if c.name == plan.algorithm).workspace_bytes == plan.workspace_bytes


def test_tuning_times_three_and_remembers(monkeypatch):
    from fastconv.ops import _plan_calls

    measured = []
    fastest = _plan_calls._fastest
    monkeypatch.setattr(_plan_calls, "_fastest", lambda runs, x, y: measured.append(runs) or fastest(runs, x, y))
    monkeypatch.setattr(_plan_calls, "_tuned", {})
    plan = made("3x3", "NHWC")
    x = RNG.standard_normal((2, *plan._x_shape)).astype(np.float32)
    before = plan(x)
    assert not measured  # never inside an ordinary call
    assert plan.tune() is plan
    (runs,) = measured
    names = [r.algorithm for r in runs]
    by_model = [c.name for c in plan.candidates() if c.why_not is None and c.automatic]
    assert sorted(names) == sorted(by_model[:3])
    np.testing.assert_allclose(plan(x), before, rtol=1e-4, atol=1e-4)
    again = made("3x3", "NHWC")
    again.tune()
    assert len(measured) == 1
    assert again.algorithm == plan.algorithm
    np.testing.assert_array_equal(again(x), plan(x))
    assert made("3x3", "NHWC", algorithm="direct").tune().algorithm == "direct"
    limited = made("3x3", "NHWC", workspace_limit=100_000).tune()
    assert limited.workspace_bytes <= 100_000
    assert math.isfinite(float(plan(x).sum()))


def test_a_plan_for_one_batch_chooses_for_that_batch():
    for name, batch in (("deep", 1), ("deep", 16), ("3x3", 1)):
        plan = made(name, "NHWC", batch_invariant=False)
        assert plan.algorithm in accepting(name, "NHWC", "float32")
        x = RNG.standard_normal((batch, *plan._x_shape)).astype(np.float32)
        np.testing.assert_allclose(plan(x), made(name, "NHWC")(x), rtol=1e-3, atol=1e-3)


# layout, channels, size, out, kernel, and the rest
TIGHT = {
    "groups share their threads": ("NHWC", 40, (32, 20), 32, (7, 3), {"stride": 2, "padding": (3, 1), "groups": 8}),
    "few pixels": ("NHWC", 256, (18, 2), 144, (1, 1), {"stride": 2}),
    "strided planes": ("NCHW", 96, (40, 22), 5, (1, 1), {"stride": 2}),
    "one row": ("NCHW", 64, (2, 7), 37, (5, 5), {"stride": 2, "padding": 2}),
}


@pytest.mark.parametrize("limit", [None, 200_000, 20_000])
@pytest.mark.parametrize("name", TIGHT)
def test_what_is_told_holds_within_tight_limits(name, limit):
    layout, channels, size, out, kernel, given = TIGHT[name]
    w = np.random.default_rng(4).standard_normal((out, channels // given.get("groups", 1), *kernel))
    shape = (1, channels, *size)
    if layout == "NHWC":
        w, shape = w.transpose(2, 3, 1, 0), (1, *size, channels)
    tried = 0
    for algorithm in ("auto", "direct", "pointwise", "grouped"):
        for threads in (1, 2, 3):
            fastconv.set_num_threads(threads)
            try:
                plan = fastconv.plan_conv2d(
                    shape, w, **given, layout=layout, algorithm=algorithm, workspace_limit=limit, backend="cpp"
                )
            except fastconv.GeometryError:  # it cannot do this, or needs more
                continue
            for batch in (1, 2, 5):
                told = plan.workspace_bytes
                _, peak = used(plan, RNG.standard_normal((batch, *plan._x_shape)).astype(np.float32))
                assert peak <= told, f"{algorithm}, {threads} threads, batch {batch}: {peak} of {told}"
                assert limit is None or told <= limit
                tried += 1
    assert tried > 0 or limit is not None


def test_an_eager_call_does_not_stage_its_whole_output():
    x, w = np.ones((1, 160, 160, 8), np.float32), np.ones((1, 1, 8, 384), np.float32)
    fastconv.set_num_threads(1)
    fastconv.conv2d(x, w, layout="NHWC", backend="cpp")
    _core.take_scratch_peak()
    fastconv.conv2d(x, w, layout="NHWC", backend="cpp")
    assert _core.take_scratch_peak() < 1 << 20
