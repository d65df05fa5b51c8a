"""Adaptive, Lp, global pooling and unpooling: against PyTorch where it is installed, and by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import fastconv

LAYOUT = {1: "NWC", 2: "NHWC", 3: "NDHWC"}
SIZES = {1: (11,), 2: (7, 6), 3: (5, 4, 6)}


def torch_or_skip():
    return pytest.importorskip("torch", reason="PyTorch is the oracle here and is not installed")


def both_layouts(rank):
    yield None, lambda a: a
    yield LAYOUT[rank], lambda a: np.moveaxis(a, 1, -1)


def data(rank, seed=0):
    rng = np.random.default_rng(seed)
    return rng.permutation(6 * int(np.prod(SIZES[rank]))).reshape(2, 3, *SIZES[rank]).astype(float) - 30, rng


@pytest.mark.parametrize("kind", ["avg", "max"])
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 9])
def test_adaptive_against_torch(rank, kind, size):
    torch = torch_or_skip()
    x, rng = data(rank)
    t = torch.tensor(x, requires_grad=True)
    wanted = getattr(torch.nn.functional, f"adaptive_{kind}_pool{rank}d")(t, size)
    dy = rng.normal(size=tuple(wanted.shape))
    wanted.backward(torch.tensor(dy))
    for layout, turn in both_layouts(rank):
        y = getattr(fastconv, f"adaptive_{kind}_pool{rank}d")(turn(x), size, layout=layout)
        np.testing.assert_allclose(y, turn(wanted.detach().numpy()), rtol=1e-13, atol=1e-13)
        dx = getattr(fastconv, f"adaptive_{kind}_pool{rank}d_backward")(turn(dy), turn(x), size, layout=layout)
        np.testing.assert_allclose(dx, turn(t.grad.numpy()), rtol=1e-12, atol=1e-13)


def test_adaptive_rules():
    x = np.arange(5.0).reshape(1, 1, 5)
    assert fastconv.adaptive_avg_pool1d(x, 3).ravel().tolist() == [0.5, 2.0, 3.5]
    assert fastconv.adaptive_max_pool2d(np.ones((1, 1, 5, 7)), (None, 2)).shape == (1, 1, 5, 2)
    assert fastconv.adaptive_max_pool1d(np.int64([[2**62, 2**62 + 1, 0]]), 2).tolist() == [[2**62 + 1, 2**62 + 1]]
    assert fastconv.adaptive_max_pool1d(np.array([[True, False, False]]), 2).tolist() == [[True, False]]
    assert np.isnan(fastconv.adaptive_max_pool1d([[np.nan, 1.0, 2.0]], 2)).tolist() == [[True, False]]
    flat = np.zeros((1, 5))
    first, every, split = (
        fastconv.adaptive_max_pool1d_backward(np.ones((1, 3)), flat, 3, ties=t).ravel()
        for t in ("first", "all", "split")
    )
    assert first.tolist() == [1, 1, 0, 1, 0]
    assert every.tolist() == [1, 2, 1, 2, 1]
    np.testing.assert_allclose(split, [1 / 2, 5 / 6, 1 / 3, 5 / 6, 1 / 2])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("size", "outs"),
    [((56, 57), (5, 4)), ((40, 131), (3, 1)), ((19, 33), (1, 2)), ((700,), (3,)), ((11, 12, 40), (2, 1, 3)),
     ((9, 20, 31), (2, 2, 1)), ((31, 31), (1, 1)), ((90, 90), (1, 1)), ((7, 7), (1, 1)), ((3, 5), (7, 9))],
)  # fmt: skip
def test_gradients_of_large_windows(size, outs, dtype):
    """Windows of a plane searched one by one, or turned: ties, infinities and NaN, on one thread and more."""
    rng = np.random.default_rng(sum(size))
    rank, before = len(size), fastconv.get_num_threads()
    x = rng.integers(-5, 6, (3, 11, *size)).astype(dtype)
    x[0, :4] = -np.inf
    x[0, 1][rng.random(size) < 0.3] = np.nan
    x[1, 2][rng.random(size) < 0.3] = np.inf
    x[2, 5] = -0.0
    dy = rng.integers(-8, 9, (3, 11, *outs)).astype(dtype)
    for kind, ties in (("max", {"ties": "first"}), ("max", {"ties": "all"}), ("avg", {})):
        back = getattr(fastconv, f"adaptive_{kind}_pool{rank}d_backward")
        wanted = back(dy, x, outs, backend="numpy", **ties)
        for layout, turn in both_layouts(rank):
            for threads in (1, 3):
                fastconv.set_num_threads(threads)
                memory = np.full(x.size + 40, 77, dtype)
                out = memory[3 : 3 + x.size].reshape(turn(x).shape)
                back(turn(dy), turn(x), outs, layout=layout, out=out, **ties)
                np.testing.assert_allclose(out, turn(wanted), 0, 1e-6 if kind == "avg" else 0)
                assert (memory[:3] == 77).all()
                assert (memory[3 + x.size :] == 77).all()
    fastconv.set_num_threads(before)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("p", [1, 2, 3, 2.5])
@pytest.mark.parametrize(("k", "stride"), [(2, None), (2, 1), (3, 2)])
def test_lp_against_torch(rank, p, k, stride):
    torch = torch_or_skip()
    x = np.abs(data(rank)[0]) / 8 + 0.1
    t = torch.tensor(x, requires_grad=True)
    wanted = getattr(torch.nn.functional, f"lp_pool{rank}d")(t, p, k, stride)
    wanted.backward(torch.ones_like(wanted))
    for layout, turn in both_layouts(rank):
        more = {"stride": stride, "layout": layout}
        y = getattr(fastconv, f"lp_pool{rank}d")(turn(-x), p, k, **more)
        np.testing.assert_allclose(y, turn(wanted.detach().numpy()), rtol=1e-12)
        dx = getattr(fastconv, f"lp_pool{rank}d_backward")(np.ones_like(y), turn(-x), p, k, **more)
        np.testing.assert_allclose(-dx, turn(t.grad.numpy()), rtol=1e-11, atol=1e-13)


def test_lp_rules():
    x = np.array([[3.0, -4.0, 0.0, 0.0, -2.0]])
    assert fastconv.lp_pool1d(x, 2, 2).tolist() == [[5.0, 0.0]]
    assert fastconv.lp_pool1d(x, 2, 2, ceil_mode=True).tolist() == [[5.0, 0.0, 2.0]]
    assert fastconv.lp_pool1d(x, 1, 2, padding=1).tolist() == [[3.0, 4.0, 2.0]]
    assert fastconv.lp_pool1d(x, np.inf, 2).tolist() == [[4.0, 0.0]]
    np.testing.assert_allclose(fastconv.lp_pool1d_backward([[1.0, 1.0]], x, 2, 2), [[0.6, -0.8, 0, 0, 0]], rtol=1e-15)
    assert fastconv.lp_pool1d_backward([[1.0, 1.0]], x, np.inf, 2).tolist()[0][:2] == [0.0, -1.0]
    assert np.isnan(fastconv.lp_pool1d([[np.nan, 1.0]], 3, 2)).all()
    tiny_and_large = np.float32([[1e-30, 1e-30], [1e30, 1e30]])
    np.testing.assert_allclose(
        fastconv.lp_pool1d(tiny_and_large, 2, 2).ravel(), [2**0.5 * 1e-30, 2**0.5 * 1e30], rtol=1e-6
    )
    with pytest.raises(fastconv.GeometryError, match="norm_type must be greater than 0"):
        fastconv.lp_pool1d(x, 0, 2)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_global(rank):
    x, _ = data(rank)
    space = tuple(range(2, rank + 2))
    for layout, turn in both_layouts(rank):
        axes = space if layout is None else tuple(a - 1 for a in space)
        for kind, reduce in (("avg", np.mean), ("max", np.max)):
            pool, back = (getattr(fastconv, f"global_{kind}_pool{tail}") for tail in ("", "_backward"))
            for keep in (True, False):
                y = pool(turn(x), keepdims=keep, layout=layout)
                np.testing.assert_allclose(y, reduce(turn(x), axis=axes, keepdims=keep), rtol=1e-13)
                dx = back(np.full(y.shape, 2.0), turn(x), keepdims=keep, layout=layout)
                np.testing.assert_allclose(dx.sum(axes), 2.0, rtol=1e-12)
                assert kind == "avg" or (dx.argmax() == turn(x)[0].argmax() or (dx != 0).sum() == 6)
    unbatched = fastconv.global_avg_pool(x[0], layout={1: "NCW", 2: "NCHW", 3: "NCDHW"}[rank], keepdims=False)
    np.testing.assert_allclose(unbatched, x[0].mean(tuple(a - 1 for a in space)), rtol=1e-13)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_unpool_against_torch(rank):
    torch = torch_or_skip()
    x, rng = data(rank)
    functional = torch.nn.functional
    for kernel, stride, padding in itertools.product((2, 3), (None, 2), (0, 1)):
        pooled, places = getattr(functional, f"max_pool{rank}d")(
            torch.tensor(x), kernel, stride, padding, return_indices=True
        )
        t = pooled.clone().requires_grad_()
        wanted = getattr(functional, f"max_unpool{rank}d")(t, places, kernel, stride, padding, SIZES[rank])
        dy = rng.normal(size=x.shape)
        wanted.backward(torch.tensor(dy))
        for layout, turn in both_layouts(rank):
            y = getattr(fastconv, f"max_unpool{rank}d")(
                turn(pooled.numpy()), turn(places.numpy()), kernel, stride=stride, padding=padding,
                output_size=SIZES[rank], layout=layout,
            )  # fmt: skip
            np.testing.assert_array_equal(y, turn(wanted.detach().numpy()))
            dx = getattr(fastconv, f"max_unpool{rank}d_backward")(turn(dy), turn(places.numpy()), layout=layout)
            np.testing.assert_allclose(dx, turn(t.grad.numpy()), rtol=1e-12)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_unpool_keeps_the_last_of_a_place(layout):
    """Overlapping windows, in any order in memory, into any memory; some values go nowhere."""
    rng = np.random.default_rng(3)
    x = rng.integers(1, 99, (2, 3, 4, 5)).astype(np.float32)
    indices = rng.integers(-1, 63, x.shape)
    wanted = np.zeros((2, 3, 63), np.float32)
    grad = rng.integers(1, 99, (2, 3, 7, 9)).astype(np.float32)
    back = np.zeros_like(x)
    for n, c, h, w in np.ndindex(*x.shape):
        if (place := indices[n, c, h, w]) >= 0:
            wanted[n, c, place] = x[n, c, h, w]
            back[n, c, h, w] = grad[n, c].flat[place]
    turn = (lambda a: a) if layout == "NCHW" else (lambda a: np.moveaxis(a, 1, -1))
    for order in "CF":
        given = [np.array(turn(a), order=order) for a in (x, indices, grad)]
        out = np.empty(turn(grad).shape[::-1], np.float32).transpose(3, 2, 1, 0)
        keywords = {"stride": 2, "padding": 1, "output_size": (7, 9), "layout": layout}
        for result in (out, None):
            y = fastconv.max_unpool2d(given[0], given[1], 3, **keywords, out=result)
            np.testing.assert_array_equal(y, turn(wanted.reshape(grad.shape)))
        np.testing.assert_array_equal(fastconv.max_unpool2d_backward(given[2], given[1], layout=layout), turn(back))


def test_unpool_errors():
    y, indices = fastconv.max_pool1d_with_indices([[1.0, 2.0, 3.0, 4.0]], 2)
    with pytest.raises(fastconv.GeometryError, match="indices must lie between -1 and 3, received 1 to 9"):
        fastconv.max_unpool1d(y, [[1, 9]], 2)
    with pytest.raises(fastconv.GeometryError, match="output_size along width must be between 3 and 5, received 6"):
        fastconv.max_unpool1d(y, indices, 2, output_size=(6,))
    with pytest.raises(fastconv.DTypeError, match="indices must hold integers"):
        fastconv.max_unpool1d(y, y, 2)
    assert fastconv.max_unpool1d(y, [[-1, 3]], 2).tolist() == [[0, 0, 0, 4.0]]
