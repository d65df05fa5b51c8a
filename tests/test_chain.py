"""Chains give the bits of their steps run one by one, however many steps a pass joins, however it is cut."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest
from support import run_with_isa

import fastconv

pytest.importorskip("fastconv.backends._cpp._core", reason="the compiled backend is not built")
RNG = np.random.default_rng(9)


def array(*shape, dtype="float32"):
    return RNG.standard_normal(shape).astype(dtype)


class Steps:
    """Convolutions of one layout, made one after the other, with what stands between them."""

    def __init__(self, layout, channels, size, dtype="float32"):
        self.layout, self.shape, self.dtype, self.steps = layout, (channels, *size), dtype, []

    def x_shape(self, batch=1):
        c, *size = self.shape
        return (batch, *size, c) if self.layout == "NHWC" else (batch, c, *size)

    def conv(self, out, kernel, groups=1, **given):
        kernel = (kernel, kernel) if isinstance(kernel, int) else kernel
        weight = array(out, self.shape[0] // groups, *kernel, dtype=self.dtype)
        if self.layout == "NHWC":
            weight = np.ascontiguousarray(weight.transpose(2, 3, 1, 0))
        plan = fastconv.plan_conv2d(
            self.x_shape(),
            weight,
            array(out),
            groups=groups,
            layout=self.layout,
            dtype=self.dtype,
            backend="cpp",
            **given,
        )
        return self._then(plan, out)

    def depthwise(self, kernel, times=1, **given):
        return self.conv(self.shape[0] * times, kernel, groups=self.shape[0], **given)

    def pool(self, function, **given):
        return self._then(functools.partial(function, layout=self.layout, **given), self.shape[0])

    def _then(self, step, out):
        y = step(np.zeros(self.x_shape(), self.dtype))
        self.steps.append(step)
        self.shape = (out, *(y.shape[1:3] if self.layout == "NHWC" else y.shape[2:]))
        return self

    def one_by_one(self, x, add=None):
        for i, step in enumerate(self.steps):
            x = step(x, add=add) if add is not None and i + 1 == len(self.steps) else step(x)
        return x


def inverted_residual(layout, dtype="float32", size=(30, 29), kernel=3, stride=1, activation="relu6"):
    made = Steps(layout, 20, size, dtype).conv(72, 1, activation=activation)
    return made.depthwise(kernel, stride=stride, padding=kernel // 2, activation=activation).conv(20, 1)


def separable(layout, channels, size, out, kernel, times=1, **given):
    return (
        Steps(layout, channels, size)
        .depthwise(kernel, times, activation="relu", **given)
        .conv(out, 1, activation="silu")
    )


CASES = {
    "expand-depthwise-project": inverted_residual,
    "in doubles": functools.partial(inverted_residual, dtype="float64", activation="gelu"),
    "5x5 with stride 2": functools.partial(inverted_residual, kernel=5, stride=2),
    "7x7": functools.partial(inverted_residual, size=(7, 7)),
    "14x14 with stride 2": functools.partial(inverted_residual, size=(14, 14), stride=2),
    "narrow": lambda layout: separable(layout, 192, (130, 9), 24, 3, padding=1),
    "narrow 5x5": lambda layout: separable(layout, 192, (131, 13), 24, 5, padding=2, stride=2),
    "one row": functools.partial(inverted_residual, size=(1, 40)),
    "one column": functools.partial(inverted_residual, size=(40, 1)),
    "many rows": lambda layout: separable(layout, 96, (61, 67), 24, 3, padding=1),
    "uneven padding": lambda layout: separable(layout, 37, (33, 31), 53, 3, padding=((2, 0), (0, 1))),
    "dilated": lambda layout: separable(layout, 16, (40, 21), 8, 3, padding=2, dilation=2),
    "oblong": lambda layout: separable(layout, 48, (50, 47), 16, (1, 7), padding=(0, 3)),
    "stride 3": lambda layout: separable(layout, 64, (58, 56), 16, 4, stride=3),
    "same": lambda layout: separable(layout, 64, (57, 56), 32, 3, stride=2, padding="same"),
    "multiplier": lambda layout: separable(layout, 24, (40, 40), 16, 3, 2, padding=1),
    "no padding": lambda layout: separable(layout, 20, (9, 8), 5, 3),
    "heavy weights": lambda layout: separable(layout, 600, (5, 6), 520, 3, padding=1),
    "rows left over": lambda layout: separable(layout, 24, (9, 9), 16, 2, stride=3),
    "strided 1x1": lambda layout: Steps(layout, 24, (10, 12)).depthwise(3, padding=1).conv(33, 1, stride=2),
    "max pooling": lambda layout: Steps(layout, 64, (64, 62)).conv(64, 3, padding=1, activation="relu").pool(
        fastconv.max_pool2d, kernel_size=2),
    "overlapping pooling": lambda layout: Steps(layout, 3, (75, 70)).conv(
        40, 7, stride=2, padding=3, activation="tanh").pool(fastconv.max_pool2d, kernel_size=3, stride=2, padding=1),
    "mean": lambda layout: Steps(layout, 16, (57, 40)).conv(48, 3, padding=1).pool(
        fastconv.avg_pool2d, kernel_size=3, stride=2, padding=1, ceil_mode=True, count_include_pad=False),
    "tower": lambda layout: separable(layout, 64, (56, 56), 32, 3, padding=1).pool(
        fastconv.max_pool2d, kernel_size=2).conv(48, 3, padding=1).pool(fastconv.avg_pool2d, kernel_size=2),
    "dense": lambda layout: Steps(layout, 16, (20, 20)).conv(24, 3, padding=1).conv(16, 3, stride=2).conv(40, 1),
}  # fmt: skip


@pytest.fixture(autouse=True)
def threads_as_before():
    before = fastconv.get_num_threads()
    yield
    fastconv.set_num_threads(before)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("name", CASES)
def test_chain_gives_the_bits_of_its_steps(name, layout):
    if name == "multiplier" and layout == "NHWC":
        pytest.skip("no depthwise algorithm of several outputs each, channels last")
    made = CASES[name](layout)
    x = array(5, *made.steps[0]._x_shape, dtype=made.dtype)
    wanted = made.one_by_one(x)
    chain = fastconv.plan_chain(made.steps)
    for threads in (1, 2, 3, 7):
        fastconv.set_num_threads(threads)
        np.testing.assert_array_equal(chain(x), wanted, err_msg=f"{threads} threads, {chain.describe()}")
        np.testing.assert_array_equal(chain(x[3:4]), wanted[3:4])
    np.testing.assert_array_equal(chain(x[0]), wanted[0])
    out = np.full_like(wanted, np.nan)
    assert chain(x, out=out) is out
    np.testing.assert_array_equal(out, wanted)
    strided = np.zeros((*wanted.shape[:-1], 2 * wanted.shape[-1]), made.dtype)[..., ::2]
    np.testing.assert_array_equal(chain(x[:, ::-1][:, ::-1], out=strided), wanted)
    assert chain(x[:0]).shape == (0, *wanted.shape[1:])
    if name not in ("dense", "tower", "one column", "heavy weights"):  # a column runs as one row, which has no bands
        assert f"steps 1 to {len(made.steps)} in one pass" in chain.describe(), chain.describe()


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("size", [(14, 14), (59, 57)])
def test_residual_is_added_before_the_last_activation(layout, size):
    made = inverted_residual(layout, size=size)
    x = array(3, *made.steps[0]._x_shape)
    wanted = made.one_by_one(x, add=x)
    for threads in (1, 2):
        fastconv.set_num_threads(threads)
        np.testing.assert_array_equal(fastconv.plan_chain(made.steps)(x, add=x), wanted)
    with pytest.raises(fastconv.GeometryError, match="plan_chain: add must have shape"):
        fastconv.plan_chain(made.steps)(x, add=x[:1])
    pooled = fastconv.plan_chain([*made.steps, functools.partial(fastconv.max_pool2d, kernel_size=2, layout=layout)])
    with pytest.raises(TypeError, match="add needs a plan as the last step, which is max_pool2d"):
        pooled(x, add=x)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_infinities_and_nans_stay_where_they_are(layout):
    made = CASES["max pooling"](layout)
    x = array(2, *made.steps[0]._x_shape)
    x[0, 3, 4, 5], x[1, 20, 21, 22] = np.inf, np.nan
    np.testing.assert_array_equal(fastconv.plan_chain(made.steps)(x), made.one_by_one(x))


@pytest.mark.parametrize("algorithm", ["direct", "winograd_2x3", "winograd_4x3", "winograd_6x3"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_every_algorithm_runs_on_bands(layout, algorithm):
    made = Steps(layout, 32, (53, 50)).conv(64, 3, padding=1, algorithm=algorithm, activation="leaky_relu")
    made.pool(fastconv.max_pool2d, kernel_size=3, stride=2)
    x = array(2, *made.steps[0]._x_shape)
    chain = fastconv.plan_chain(made.steps)
    wanted = made.one_by_one(x)
    for threads in (1, 2, 5):
        fastconv.set_num_threads(threads)
        np.testing.assert_array_equal(chain(x), wanted)


def check_workspace(name, layout):
    from fastconv.backends._cpp import _core

    made = CASES[name](layout)
    chain = fastconv.plan_chain(made.steps)
    for threads, batch in itertools.product((1, 2), (1, 3)):
        fastconv.set_num_threads(threads)
        x = array(batch, *made.steps[0]._x_shape)
        out = chain(x)
        _core.take_scratch_peak()
        chain(x, out=out)
        taken = _core.take_scratch_peak()  # before the next chain packs weights in scratch
        assert taken <= fastconv.plan_chain(made.steps)._parts[0].current().workspace_bytes(batch)
    assert chain.workspace_bytes > 0


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize(
    "name", ["expand-depthwise-project", "7x7", "many rows", "heavy weights", "max pooling", "tower", "dense"]
)
def test_workspace_is_told_beforehand(name, layout):
    """In a process of its own: workers that earlier tests left may take turns, and their peaks would add up."""
    program = "import sys, test_chain as t\nt.check_workspace(*sys.argv[1:])\nprint('right')"
    run_with_isa(fastconv.show_config()["isa"], program, name, layout)


def check_workspace_of_pooling():
    """Poolings that take more scratch than the convolution before them, in its pass and by themselves."""
    from fastconv.backends._cpp import _core

    fastconv.set_num_threads(1)
    for layout, k, size, pool, kernel_size, stride in itertools.product(
        ("NCHW", "NHWC"), (64, 256), (14, 56), (fastconv.max_pool2d, fastconv.avg_pool2d), (3, 5), (1, 2)
    ):
        if pool is fastconv.avg_pool2d and kernel_size == 5:
            continue
        steps = Steps(layout, 16, (size, size)).conv(k, 1).pool(pool, kernel_size=kernel_size, stride=stride).steps
        chain = fastconv.plan_chain(steps)
        x = array(1, *steps[0]._x_shape)
        out = chain(x)
        _core.take_scratch_peak()
        chain(x, out=out)
        assert _core.take_scratch_peak() <= chain.workspace_bytes, (layout, k, size, pool, kernel_size, stride)


def test_workspace_counts_the_pooling():
    run_with_isa(
        fastconv.show_config()["isa"], "import test_chain as t\nt.check_workspace_of_pooling()\nprint('right')"
    )


def test_new_weights_and_tuning_reach_the_chain():
    made = inverted_residual("NHWC")
    chain = fastconv.plan_chain(made.steps)
    x = array(2, *made.steps[0]._x_shape)
    before = chain(x)
    made.steps[1].update(array(3, 3, 1, 72), array(72))
    np.testing.assert_array_equal(chain(x), made.one_by_one(x))
    assert not np.array_equal(chain(x), before)
    assert chain.tune() is chain
    np.testing.assert_array_equal(chain(x), made.one_by_one(x))


def test_describe_says_why_not():
    def said(*steps):
        return fastconv.plan_chain(list(steps)).describe()

    dense = CASES["dense"]("NCHW").steps
    assert "step 1 by itself; the next apart: neither is depthwise" in said(*dense)
    first, last = CASES["many rows"]("NCHW").steps
    assert "steps 1 to 2 in one pass" in said(first, last)
    reflected = fastconv.plan_conv2d((1, 24, 61, 67), array(24, 1, 3, 3), padding=1, padding_mode="reflect", groups=24)
    assert "its padding copies rows from elsewhere" in said(last, reflected)
    assert "step 2 by itself: <lambda> is a function of arrays" in said(first, lambda y: y)
    half = fastconv.plan_conv2d((1, 8, 9, 9), array(8, 1, 3, 3), groups=8, dtype="float16")
    assert "its arrays are cast" in said(half, fastconv.plan_conv2d((1, 8, 7, 7), array(4, 8, 1, 1)))
    nested = fastconv.plan_chain([fastconv.plan_chain([first]), last])
    assert "steps 1 to 2 in one pass" in nested.describe()
    plain = fastconv.plan_conv2d((1, 8, 9, 9), array(8, 1, 3, 3), groups=8, backend="numpy")
    assert "step 1 by itself" in said(plain, fastconv.plan_conv2d((1, 8, 7, 7), array(4, 8, 1, 1), backend="numpy"))
