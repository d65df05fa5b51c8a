"""The reference backend against values worked by hand: one literal for every function of it."""

from __future__ import annotations

import numpy as np
import pytest

from fastconv.backends import registry
from fastconv.geometry import conv_geometry, pad_geometry, pool_geometry

reference = registry.get_backend("reference")
INF = np.inf
NAN = np.nan


def rows(values):
    """A plane as an array with five axes."""
    return np.array(values, dtype=np.float64)[None, None, None]


def line(values):
    """A sequence as an array with five axes."""
    return rows([values])


def new(shape):
    """An array that shows which elements were not written."""
    return np.full(shape, 99.0)


# 1 2 3
# 4 5 6   with the kernel   1 10    (each output's digits name its taps)
# 7 8 9                   100 1000
PLANE = rows([[1, 2, 3], [4, 5, 6], [7, 8, 9]])
DIGITS = rows([[1, 10], [100, 1000]])


def test_conv_adds_bias_to_the_weighted_window():
    g = conv_geometry("conv2d", 2, (1, 1, 3, 3), (1, 1, 2, 2))
    y = new(g.out_shape(1))
    reference.conv(g, PLANE, DIGITS, np.array([0.5]), None, y, "direct")
    assert y[0, 0, 0].tolist() == [[5421.5, 6532.5], [8754.5, 9865.5]]


def test_conv_strides_dilates_and_pads_unevenly():
    g = conv_geometry("conv1d", 1, (1, 1, 4), (1, 1, 3), stride=2, dilation=2, padding=((1, 2),))
    y = new(g.out_shape(1))
    reference.conv(g, line([1, 2, 3, 4]), line([1, 10, 100]), None, None, y, "direct")
    assert y[0, 0, 0, 0].tolist() == [420, 42]  # taps at -1 1 3, then at 1 3 5


def test_conv_keeps_groups_apart():
    g = conv_geometry("conv1d", 1, (1, 2, 2), (4, 1, 1), groups=2)
    x = np.array([1.0, 2, 3, 4]).reshape(1, 2, 1, 1, 2)
    y = new(g.out_shape(1))
    reference.conv(g, x, np.array([1.0, 10, 100, 1000]).reshape(4, 1, 1, 1, 1), None, None, y, "direct")
    assert y[0, :, 0, 0].tolist() == [[1, 2], [10, 20], [300, 400], [3000, 4000]]


def test_conv_sums_wider_than_float32_and_rounds_once():
    g = conv_geometry("conv1d", 1, (1, 3, 1), (1, 3, 1))
    x = np.array([2.0**25, 1, -(2.0**25)], np.float32).reshape(1, 3, 1, 1, 1)
    y = np.empty(g.out_shape(1), np.float32)
    reference.conv(g, x, np.ones(g.weight_shape, np.float32), None, None, y, "direct")
    assert y.item() == 1


def test_conv_backward_data_spreads_each_output_over_its_taps():
    g = conv_geometry("conv2d", 2, (1, 1, 3, 3), (1, 1, 2, 2))
    dx = new(g.x_shape(1))
    reference.conv_backward_data(g, rows([[1, 2], [3, 4]]), DIGITS, dx)
    assert dx[0, 0, 0].tolist() == [[1, 12, 20], [103, 1234, 2040], [300, 3400, 4000]]


def test_conv_backward_weight_correlates_input_and_gradient():
    g = conv_geometry("conv2d", 2, (1, 1, 3, 3), (1, 1, 2, 2))
    dw, db = new(g.weight_shape), new(1)
    reference.conv_backward_weight(g, DIGITS, PLANE, dw, db)
    assert dw[0, 0, 0].tolist() == [[5421, 6532], [8754, 9865]]
    assert db.tolist() == [1111]


def test_conv_backward_leaves_the_padding_out():
    g = conv_geometry("conv1d", 1, (1, 1, 3), (1, 1, 3), stride=2, padding=1)
    dx, dw = new(g.x_shape(1)), new(g.weight_shape)
    reference.conv_backward_data(g, line([1, 2]), line([1, 10, 100]), dx)
    reference.conv_backward_weight(g, line([1, 2]), line([3, 4, 5]), dw, None)
    assert dx[0, 0, 0, 0].tolist() == [10, 102, 20]  # windows at -1 0 1 and 1 2 3
    assert dw[0, 0, 0, 0].tolist() == [8, 13, 4]


def test_max_pool_takes_the_first_of_equals_and_the_first_nan():
    g = pool_geometry("max_pool1d", 1, (1, 1, 8), 2)
    y, at = new(g.out_shape(1)), np.empty(g.out_shape(1), np.int64)
    reference.max_pool(g, line([1, 1, -INF, -INF, 5, NAN, NAN, 9]), y, at)
    np.testing.assert_array_equal(y[0, 0, 0, 0], [1, -INF, NAN, NAN])
    assert at[0, 0, 0, 0].tolist() == [0, 2, 5, 6]


def test_max_pool_indices_are_flat_in_the_unpadded_plane():
    g = pool_geometry("max_pool2d", 2, (1, 1, 3, 3), 2, stride=2, padding=1)
    y, at = new(g.out_shape(1)), np.empty(g.out_shape(1), np.int64)
    reference.max_pool(g, PLANE, y, at)
    assert y[0, 0, 0].tolist() == [[1, 3], [7, 9]]
    assert at[0, 0, 0].tolist() == [[0, 2], [6, 8]]


@pytest.mark.parametrize(("dtype", "least"), [("float16", -INF), ("uint8", 0), ("int64", -(2**63)), ("bool", False)])
def test_max_pool_of_padding_alone_is_the_least_value(dtype, least):
    g = pool_geometry("max_pool1d", 1, (1, 1, 2), 2, padding=2)
    y, at = np.empty(g.out_shape(1), dtype), np.empty(g.out_shape(1), np.int64)
    reference.max_pool(g, line([1, 0]).astype(dtype), y, at)
    assert y[0, 0, 0, 0].tolist() == [least, 1, least]
    assert at[0, 0, 0, 0].tolist() == [-1, 0, -1]


@pytest.mark.parametrize(
    ("ties", "expected"),
    [("first", [1, 0, 20, 300, 0]), ("all", [1, 1, 20, 320, 300]), ("split", [0.5, 0.5, 10, 160, 150])],
)
def test_max_pool_backward_ties(ties, expected):
    g = pool_geometry("max_pool1d", 1, (1, 1, 5), 2, stride=1)
    dx = new(g.x_shape(1))
    reference.max_pool_backward(g, line([1, 0, 20, 300]), line([2, 2, NAN, NAN, NAN]), ties, dx)
    # windows 2 2, 2 nan, nan nan, nan nan
    assert dx[0, 0, 0, 0].tolist() == expected


@pytest.mark.parametrize(
    ("include", "expected"),
    [(True, [1 / 3, 3, 5]), (False, [1 / 2, 3, 5])],
)
def test_avg_pool_never_counts_what_ceil_mode_adds(include, expected):
    g = pool_geometry("avg_pool1d", 1, (1, 1, 5), 3, stride=2, padding=((1, 0),), ceil_mode=True,
                      count_include_pad=include)  # fmt: skip
    y = new(g.out_shape(1))
    reference.avg_pool(g, line([0, 1, 2, 6, 4]), y)
    assert y[0, 0, 0, 0].tolist() == expected


def test_avg_pool_of_padding_alone_is_zero():
    g = pool_geometry("avg_pool1d", 1, (1, 1, 2), 2, padding=2, count_include_pad=False)
    y, dx = new(g.out_shape(1)), new(g.x_shape(1))
    reference.avg_pool(g, line([3, 5]), y)
    reference.avg_pool_backward(g, line([7, 8, 9]), dx)
    assert y[0, 0, 0, 0].tolist() == [0, 4, 0]
    assert dx[0, 0, 0, 0].tolist() == [4, 4]


def test_avg_pool_backward_shares_each_gradient():
    g = pool_geometry("avg_pool2d", 2, (1, 1, 3, 3), 2, stride=1)
    dx = new(g.x_shape(1))
    reference.avg_pool_backward(g, rows([[4, 8], [12, 16]]), dx)
    assert dx[0, 0, 0].tolist() == [[1, 3, 2], [4, 10, 6], [3, 7, 4]]


PADDED = {  # 1 2 3 with two before and four after
    "constant": ([7, 7, 1, 2, 3, 7, 7, 7, 7], [4, 8, 16]),
    "edge": ([1, 1, 1, 2, 3, 3, 3, 3, 3], [7, 8, 496]),
    "reflect": ([3, 2, 1, 2, 3, 2, 1, 2, 3], [68, 170, 273]),
    "symmetric": ([2, 1, 1, 2, 3, 3, 2, 1, 1], [390, 73, 48]),
    "wrap": ([2, 3, 1, 2, 3, 1, 2, 3, 1], [292, 73, 146]),
}


@pytest.mark.parametrize("mode", PADDED)
def test_pad_and_its_adjoint(mode):
    padded, gradient = PADDED[mode]
    g, _ = pad_geometry("pad", (3,), (2, 4), mode)
    out, dx = np.empty(9, np.uint8), new(3)
    reference.pad(g, np.array([1, 2, 3], np.uint8), np.array(7, np.uint8), out)
    reference.pad_backward(g, 2.0 ** np.arange(9), dx)  # the bits of dx name the copies of each element
    assert out.tolist() == padded
    assert dx.tolist() == gradient


def test_im2col_lays_windows_out_tap_by_tap():
    g = conv_geometry("im2col", 1, (1, 1, 3), (1, 1, 2), padding=((1, 0),))
    out = np.empty((1, 1, *g.kernel, *g.out_size), np.uint64)
    reference.im2col(g, line([1, 2, 3]).astype(np.uint64), out)
    assert out.reshape(2, 3).tolist() == [[0, 1, 2], [1, 2, 3]]


def test_col2im_adds_columns_back():
    g = conv_geometry("col2im", 1, (1, 1, 3), (1, 1, 2), padding=((1, 0),))
    out = new(g.x_shape(1))
    reference.col2im(g, np.array([1.0, 2, 3, 10, 20, 30]).reshape(1, 1, 1, 1, 2, 1, 1, 3), out)
    assert out[0, 0, 0, 0].tolist() == [12, 23, 30]
