"""Problems computed along another axis or in the other layout: narrow planes, few channels, axes of one pixel."""

from __future__ import annotations

import numpy as np
import pytest

import fastconv

# channels in, channels out, groups, size, kernel, stride, padding, dilation
FORWARD = {
    "rows of one": (48, 4, 1, (33, 3), (3, 3), 1, 0, 1),
    "rows of three, depthwise": (24, 24, 24, (89, 6), (4, 4), 1, (1, 0), 1),
    "rows of three, 7x7": (24, 24, 24, (13, 3), (7, 7), 1, 3, 1),
    "multiplier": (16, 48, 16, (21, 3), (3, 3), 1, 1, 1),
    "five a group, strided": (20, 8, 4, (31, 5), (3, 3), (2, 1), 1, 1),
    "volume": (12, 24, 12, (6, 3, 2), (7, 7, 7), 1, 3, 1),
    "long depth": (8, 12, 4, (40, 3, 5), (3, 3, 3), 1, (1, 0, 1), 1),
    "one output": (32, 1, 1, (20, 25), (3, 3), 1, (0, 1), 1),
    "two groups": (4, 4, 2, (30, 13), (3, 3), 1, 1, 1),
    "sixteen to two": (64, 8, 4, (40, 39), (4, 4), 1, (0, 1), 1),
    "three channels": (3, 3, 3, (50, 5), (3, 3), 1, 1, 1),
    "one pixel wide": (5, 6, 1, (20, 1), (3, 5), 1, (1, 4), 1),
    "one pixel wide, groups": (8, 12, 4, (20, 1), (3, 3), 1, (1, 2), 1),
    "one pixel high": (6, 3, 1, (1, 17), (4, 3), 1, (3, 1), 1),
    "one pixel, gaps": (5, 3, 1, (19, 1), (3, 4), 1, (0, 6), 2),
    "one pixel, groups and gaps": (6, 4, 2, (9, 1), (1, 3), 1, (0, 6), 3),
    "one pixel in two axes": (7, 5, 1, (12, 1, 1), (3, 3, 2), 1, (0, 2, 1), 1),
    "two axes of one pixel, groups": (4, 8, 2, (12, 1, 1), (3, 3, 2), 1, (0, 2, 1), 1),
}


def _given(case, layout):
    *_, stride, padding, dilation = case
    return {"stride": stride, "padding": padding, "dilation": dilation, "groups": case[2], "layout": layout}


def _arrays(case, last, dtype, images=5):
    c, k, groups, size, kernel = case[:5]
    rng = np.random.default_rng(3)
    x = rng.integers(-3, 4, (images, c, *size)).astype(dtype)
    weight = rng.integers(-3, 4, (k, c // groups, *kernel)).astype(dtype)
    bias = rng.integers(-9, 10, k).astype(dtype)
    if last:
        x, weight = np.moveaxis(x, 1, -1).copy(), np.moveaxis(weight, (0, 1), (-1, -2)).copy()
    return x, weight, bias


@pytest.fixture(autouse=True)
def threads_as_before():
    before = fastconv.get_num_threads()
    yield
    fastconv.set_num_threads(before)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("last", [False, True], ids=["first", "last"])
@pytest.mark.parametrize("name", FORWARD)
def test_exact_on_integers(name, last, dtype):
    case = FORWARD[name]
    rank = len(case[3])
    layout = {1: "NWC", 2: "NHWC", 3: "NDHWC"}[rank] if last else None
    x, weight, bias = _arrays(case, last, dtype)
    given = _given(case, layout)
    conv, plan_of = getattr(fastconv, f"conv{rank}d"), getattr(fastconv, f"plan_conv{rank}d")
    wanted = conv(x, weight, bias, backend="numpy", **given)
    add = np.random.default_rng(4).integers(-5, 6, wanted.shape).astype(dtype)
    for algorithm in ("direct", "grouped", "depthwise"):
        try:
            plan = plan_of(x.shape, weight, bias, dtype=dtype, algorithm=algorithm, **given)
        except fastconv.GeometryError:
            continue
        clamped = plan_of(x.shape, weight, bias, dtype=dtype, algorithm=algorithm, activation="relu", **given)
        for threads in (1, 2, 3):
            fastconv.set_num_threads(threads)
            memory = np.full(wanted.size + 40, 77, dtype)
            out = memory[3 : 3 + wanted.size].reshape(wanted.shape)
            plan(x, out=out)
            np.testing.assert_array_equal(out, wanted, err_msg=f"{algorithm}, {threads} threads")
            assert (memory[:3] == 77).all()
            assert (memory[3 + wanted.size :] == 77).all()
            np.testing.assert_array_equal(conv(x, weight, bias, algorithm=algorithm, **given), wanted)
            np.testing.assert_array_equal(plan(x[1:2]), wanted[1:2])
            np.testing.assert_array_equal(clamped(x, add=add), np.maximum(wanted + add, 0))
        for limit in (0, 4000, 40000):
            try:
                small = plan_of(x.shape, weight, bias, dtype=dtype, algorithm=algorithm, workspace_limit=limit, **given)
            except ValueError:
                continue
            np.testing.assert_array_equal(small(x), wanted)


@pytest.mark.parametrize("limit", [None, 400_000, 150_000])
@pytest.mark.parametrize("name", ["rows of three, depthwise", "one output", "two groups", "one pixel, gaps"])
def test_what_is_added_is_copied_only_where_it_is_there(name, limit):
    core = pytest.importorskip("fastconv.backends._cpp._core")
    x, weight, bias = _arrays(FORWARD[name], True, "float32", images=40)
    given = _given(FORWARD[name], "NHWC")
    wanted = fastconv.conv2d(x, weight, bias, backend="numpy", **given)
    for threads in (1, 2):
        fastconv.set_num_threads(threads)
        plan = fastconv.plan_conv2d(x.shape, weight, bias, algorithm="direct", workspace_limit=limit, **given)
        for n in (1, 2, 7, 40):
            out, peaks = np.empty_like(wanted[:n]), []
            for add in (None, wanted[:n]):
                core.take_scratch_peak()
                plan(x[:n], out=out, add=add)
                peaks.append(core.take_scratch_peak())
                np.testing.assert_array_equal(out, wanted[:n] * (1 if add is None else 2))
            assert max(peaks) <= plan.workspace_bytes
            assert limit is None or plan.workspace_bytes <= limit
            if n == 1:
                assert peaks[1] >= peaks[0]


@pytest.mark.parametrize("activation", ["gelu", "sigmoid"])
@pytest.mark.parametrize("name", ["one pixel, gaps", "one pixel, groups and gaps", "one pixel wide"])
def test_bias_and_activation_between_outputs(name, activation):
    case = FORWARD[name]
    x, weight, bias = _arrays(case, False, "float64")
    given = _given(case, None)
    wanted = fastconv.conv2d(x, weight, bias, activation=activation, backend="numpy", **given)
    found = fastconv.conv2d(x, weight, bias, activation=activation, **given)
    np.testing.assert_allclose(found, wanted, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", ["one pixel, gaps", "rows of three, depthwise", "one output"])
@pytest.mark.parametrize("last", [False, True], ids=["first", "last"])
def test_infinite_inputs_reach_only_what_reads_them(name, last):
    case = FORWARD[name]
    x, weight, bias = _arrays(case, last, "float32")
    weight[weight == 0] = 1
    x[1].flat[7] = np.inf
    given = _given(case, "NHWC" if last else None)
    wanted = fastconv.conv2d(x, weight, bias, backend="reference", **given)
    found = fastconv.conv2d(x, weight, bias, algorithm="direct", **given)
    np.testing.assert_array_equal(np.isfinite(found), np.isfinite(wanted))


@pytest.mark.parametrize("last", [False, True], ids=["first", "last"])
@pytest.mark.parametrize(
    "case",
    [
        (10, 8, 2, (30, 1), (3, 3), 1, (1, 0), 1),
        (10, 3, 1, (19, 1), (7, 7), 1, 0, 2),
        (4, 6, 2, (19, 1, 1), (5, 5, 2), 1, (2, 0, 0), 1),
        (7, 9, 1, (12, 1, 1), (3, 3, 3), 2, 0, 1),
        (12, 24, 12, (30, 5), (5, 5), 1, (2, 0), 1),
        (1, 5, 1, (24, 2), (7, 7), 2, (0, 3), 1),
    ],
    ids=str,
)
def test_transposed(case, last):
    c, k, groups, size, kernel, stride, padding, dilation = case
    rank = len(size)
    rng = np.random.default_rng(5)
    x = rng.integers(-3, 4, (4, c, *size)).astype("float32")
    weight = rng.integers(-3, 4, (c, k // groups, *kernel)).astype("float32")
    bias = rng.integers(-9, 10, k).astype("float32")
    given = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    if last:
        given["layout"] = {2: "NHWC", 3: "NDHWC"}[rank]
        x, weight = np.moveaxis(x, 1, -1).copy(), np.moveaxis(weight, (0, 1), (-1, -2)).copy()
    transposed = getattr(fastconv, f"conv_transpose{rank}d")
    wanted = transposed(x, weight, bias, activation="relu", backend="numpy", **given)
    for threads in (1, 2):
        fastconv.set_num_threads(threads)
        np.testing.assert_allclose(transposed(x, weight, bias, activation="relu", **given), wanted, rtol=0, atol=2e-3)
