"""The course's functions: its own printed numbers, PyTorch, values by hand; the loops and every backend alike."""

from __future__ import annotations

import re

import numpy as np
import pytest
from support import REASONS

import fastconv
from fastconv import course

WHO = [course.LOOPS, *(name for name, reason in REASONS.items() if reason is None)]


def draws(seed, *shapes):
    """Normal numbers from the course's generator, in its order."""
    rng = np.random.RandomState(seed)
    return [rng.randn(*shape) for shape in shapes]


@pytest.fixture(params=WHO)
def who(request):
    """The loops, and every backend."""
    with course.use(request.param):
        yield request.param


# ----------------------------------------------------------------------- what the course's notebooks print


def test_zero_pad_as_printed(who):
    (x,) = draws(1, (4, 3, 3, 2))
    padded = course.zero_pad(x, 2)
    assert padded.shape == (4, 7, 7, 2)
    np.testing.assert_allclose(
        x[1, 1], [[0.90085595, -0.68372786], [-0.12289023, -0.93576943], [-0.26788808, 0.53035547]], atol=1e-8
    )
    assert not padded[1, 1].any()
    np.testing.assert_array_equal(padded[:, 2:5, 2:5], x)


def test_conv_single_step_as_printed():
    a_slice, W, b = draws(1, (4, 4, 3), (4, 4, 3), (1, 1, 1))
    assert course.conv_single_step(a_slice, W, b) == pytest.approx(-6.99908945068, abs=1e-10)


def test_conv_forward_as_printed(who):
    A_prev, W, b = draws(1, (10, 4, 4, 3), (2, 2, 3, 8), (1, 1, 1, 8))
    Z, cache = course.conv_forward(A_prev, W, b, {"pad": 2, "stride": 2})
    assert np.mean(Z) == pytest.approx(0.0489952035289, abs=1e-12)
    printed = [-0.61490741, -6.7439236, -2.55153897, 1.75698377, 3.56208902, 0.53036437, 5.18531798, 8.75898442]
    np.testing.assert_allclose(Z[3, 2, 1], printed, atol=1e-8)
    np.testing.assert_allclose(cache[0][1][2][3], [-0.20075807, 0.18656139, 0.41005165], atol=1e-8)


def test_conv_backward_as_printed(who):
    A_prev, W, b = draws(1, (10, 4, 4, 3), (2, 2, 3, 8), (1, 1, 1, 8))
    Z, cache = course.conv_forward(A_prev, W, b, {"pad": 2, "stride": 2})
    dA, dW, db = course.conv_backward(Z, cache)
    assert np.mean(dA) == pytest.approx(1.45243777754, abs=1e-10)
    assert np.mean(dW) == pytest.approx(1.72699145831, abs=1e-10)
    assert np.mean(db) == pytest.approx(7.83923256462, abs=1e-10)


def test_pool_forward_as_printed(who):
    (A_prev,) = draws(1, (2, 4, 4, 3))
    hparameters = {"stride": 2, "f": 3}
    largest, _ = course.pool_forward(A_prev, hparameters)
    mean, _ = course.pool_forward(A_prev, hparameters, mode="average")
    np.testing.assert_allclose(
        largest, [[[[1.74481176, 0.86540763, 1.13376944]]], [[[1.13162939, 1.51981682, 2.18557541]]]], atol=1e-8
    )
    np.testing.assert_allclose(
        mean, [[[[0.02105773, -0.20328806, -0.40389855]]], [[[-0.22154621, 0.51716526, 0.48155844]]]], atol=1e-8
    )


def test_pool_backward_as_printed(who):
    rng = np.random.RandomState(1)
    A_prev = rng.randn(5, 5, 3, 2)
    _, cache = course.pool_forward(A_prev, {"stride": 1, "f": 2})
    dA = rng.randn(5, 4, 2, 2)
    assert np.mean(dA) == pytest.approx(0.145713902729, abs=1e-12)
    largest = course.pool_backward(dA, cache, mode="max")
    np.testing.assert_allclose(largest[1, 1], [[0, 0], [5.05844394, -1.68282702], [0, 0]], atol=1e-8)
    mean = course.pool_backward(dA, cache, mode="average")
    np.testing.assert_allclose(
        mean[1, 1], [[0.08485462, 0.2787552], [1.26461098, -0.25749373], [1.17975636, -0.53624893]], atol=1e-8
    )


# --------------------------------------------------------------------------------- PyTorch, as an outside judge


@pytest.mark.parametrize(("stride", "pad", "f"), [(1, 0, 3), (1, 2, 3), (2, 1, 3), (3, 0, 2), (2, 3, 5)])
def test_convolution_and_gradients_against_torch(stride, pad, f, who):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle here and is not installed")
    A, W, b = draws(3, (2, 7, 6, 3), (f, f, 3, 4), (1, 1, 1, 4))
    Z, cache = course.conv_forward(A, W, b, {"stride": stride, "pad": pad})
    (dZ,) = draws(4, Z.shape)
    dA, dW, db = course.conv_backward(dZ, cache)
    a, w, bias = (torch.tensor(v, requires_grad=True) for v in (A, W, b))
    z = torch.nn.functional.conv2d(
        a.permute(0, 3, 1, 2), w.permute(3, 2, 0, 1), bias.reshape(-1), stride=stride, padding=pad
    ).permute(0, 2, 3, 1)
    z.backward(torch.tensor(dZ))
    for ours, theirs in ((Z, z.detach()), (dA, a.grad), (dW, w.grad), (db, bias.grad)):
        assert ours.shape == tuple(theirs.shape)
        np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-12)


@pytest.mark.parametrize("mode", ["max", "average"])
@pytest.mark.parametrize(("f", "stride"), [(2, 2), (3, 1), (2, 3), (4, 2)])
def test_pooling_and_gradients_against_torch(f, stride, mode, who):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle here and is not installed")
    (A_prev,) = draws(5, (2, 7, 6, 3))
    A, cache = course.pool_forward(A_prev, {"f": f, "stride": stride}, mode)
    (dA,) = draws(6, A.shape)
    a = torch.tensor(A_prev, requires_grad=True)
    pool = getattr(torch.nn.functional, "max_pool2d" if mode == "max" else "avg_pool2d")
    out = pool(a.permute(0, 3, 1, 2), f, stride).permute(0, 2, 3, 1)
    out.backward(torch.tensor(dA))
    np.testing.assert_allclose(A, out.detach().numpy(), atol=1e-14)
    np.testing.assert_allclose(course.pool_backward(dA, cache, mode), a.grad.numpy(), atol=1e-14)


# --------------------------------------------------------------------------------------------- rules, by hand


def test_every_tied_maximum_gets_the_full_gradient(who):
    A_prev = np.ones((1, 2, 2, 1))
    _, cache = course.pool_forward(A_prev, {"f": 2, "stride": 1})
    assert course.pool_backward([[[[3.0]]]], cache).ravel().tolist() == [3, 3, 3, 3]
    assert course.create_mask_from_window([[2, 2], [1, 0]]).tolist() == [[True, True], [False, False]]
    assert course.distribute_value(2, (2, 2)).tolist() == [[0.5, 0.5], [0.5, 0.5]]


def test_caches_and_dtypes(who):
    A_prev, W, b = (v.astype(np.float32) for v in draws(0, (2, 5, 5, 2), (3, 3, 2, 3), (1, 1, 1, 3)))
    hparameters = {"stride": 1, "pad": 1, "f": 2}
    Z, cache = course.conv_forward(A_prev, W, b, hparameters)
    assert cache[3] is hparameters
    assert [v.shape for v in cache[:3]] == [A_prev.shape, W.shape, b.shape]
    A, cache_pool = course.pool_forward(Z, hparameters, "average")
    assert cache_pool[1] is hparameters
    dZ = course.pool_backward(np.ones_like(A), cache_pool, "average")
    gradients = course.conv_backward(dZ, cache)
    assert {v.dtype for v in (Z, A, dZ, *gradients)} == {np.dtype(np.float32)}
    assert gradients[2].shape == (1, 1, 1, 3)


def test_switch():
    X = np.ones((1, 2, 2, 1))
    with pytest.raises(fastconv.UnknownNameError, match="backend must be one of"):
        course.use("fortran")
    with course.use("numpy"), pytest.raises(fastconv.UnknownNameError):
        course.zero_pad(X, 1, backend="fortran")
    course.use("reference")
    course.use(course.LOOPS)
    assert course.zero_pad(X, 1, backend="numpy").sum() == 4


def test_errors_are_the_same_everywhere(who):
    A, W, b = np.ones((1, 4, 4, 2)), np.ones((3, 3, 2, 5)), np.ones((1, 1, 1, 5))
    good = {"stride": 1, "pad": 0}

    def refuses(match, call, *given):
        with pytest.raises(ValueError, match=re.escape(match)):
            call(*given)

    refuses("conv_forward: A_prev must be (m, n_H, n_W, n_C)", course.conv_forward, A[0], W, b, good)
    refuses("n_C_prev = 2 as A_prev", course.conv_forward, A, W[:, :, :1], b, good)
    refuses("b must have shape (1, 1, 1, 5), received (5,)", course.conv_forward, A, W, np.ones(5), good)
    refuses('hparameters must hold "pad"', course.conv_forward, A, W, b, {"stride": 1})
    refuses('hparameters["stride"] must be an integer of at least 1, received 0', course.conv_forward, A, W, b,
            {"stride": 0, "pad": 0})  # fmt: skip
    refuses("a window of 3 does not fit in 2 with a padding of 0", course.conv_forward, A[:, :2], W, b, good)
    Z, cache = course.conv_forward(A, W, b, good)
    refuses("dZ must have the output's shape (1, 2, 2, 5)", course.conv_backward, Z[:, :1], cache)
    refuses('mode must be "max" or "average", received \'mean\'', course.pool_forward, A, {"f": 2, "stride": 1}, "mean")
    A_pool, cache = course.pool_forward(A, {"f": 2, "stride": 1})
    refuses("dA must have the output's shape (1, 3, 3, 2)", course.pool_backward, A_pool[0], cache)


# ------------------------------------------------------------------------------------------------- the helpers


def test_one_hot_and_columns():
    Y = course.convert_to_one_hot(np.array([[0, 5, 2]]), 6)
    assert Y.shape == (6, 3)
    assert Y.argmax(axis=0).tolist() == [0, 5, 2]
    assert Y.sum() == 3
    with pytest.raises(ValueError, match=r"labels must be 0 \.\. 5, received 0 \.\. 6"):
        course.convert_to_one_hot([0, 6], 6)
    with pytest.raises(ValueError, match="labels must be integers"):
        course.convert_to_one_hot([0.5], 6)
    assert course.as_column(np.zeros((1, 7))).shape == (7, 1)
    assert course.normalize(np.uint8([0, 51, 255])).tolist() == pytest.approx([0, 0.2, 1])


def test_mini_batches_hold_every_example_once():
    X = np.arange(20).reshape(10, 2)
    batches = course.random_mini_batches(X, X[:, 0], 4, seed=1)
    assert [len(x) for x, _ in batches] == [4, 4, 2]
    assert all((x[:, 0] == y).all() for x, y in batches)
    assert sorted(np.concatenate([y for _, y in batches])) == sorted(X[:, 0])
    again = course.random_mini_batches(X, X[:, 0], 4, seed=1)
    assert all((a[0] == b[0]).all() for a, b in zip(batches, again, strict=True))
    with pytest.raises(ValueError, match="X has 10 examples and Y 9"):
        course.random_mini_batches(X, X[:9])


@pytest.mark.parametrize(("load", "stem"), [("load_happy_dataset", "happy"), ("load_signs_dataset", "signs")])
def test_datasets_are_read_as_the_course_wrote_them(load, stem, tmp_path):
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    load = getattr(course, load)
    with pytest.raises(FileNotFoundError, match=rf"train_{stem}\.h5 and test_{stem}\.h5 not found in .*put them"):
        load(tmp_path)
    for part, m in (("train", 3), ("test", 2)):
        with h5py.File(tmp_path / f"{part}_{stem}.h5", "w") as file:
            file[f"{part}_set_x"] = np.full((m, 64, 64, 3), 7, np.uint8)
            file[f"{part}_set_y"] = np.arange(m)
            file["list_classes"] = np.arange(6)
    train_x, train_y, test_x, test_y, classes = load(tmp_path)
    assert (train_x.shape, train_x.dtype, test_x.shape) == ((3, 64, 64, 3), np.uint8, (2, 64, 64, 3))
    assert (train_y.tolist(), test_y.tolist(), classes.tolist()) == ([[0, 1, 2]], [[0, 1]], [0, 1, 2, 3, 4, 5])
    with h5py.File(tmp_path / f"test_{stem}.h5", "a") as file:
        del file["list_classes"]
    with pytest.raises(ValueError, match="lacks list_classes"):
        load(tmp_path)
    (tmp_path / f"train_{stem}.h5").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="no readable HDF5 file"):
        load(tmp_path)


@pytest.mark.parametrize(("draw", "classes"), [(course.draw_faces, 2), (course.draw_hands, 6)])
def test_drawn_data(draw, classes):
    images, labels = draw(12, seed=3)
    assert (images.shape, images.dtype) == ((12, 64, 64, 3), np.uint8)
    assert np.bincount(labels).tolist() == [12 // classes] * classes
    assert (draw(12, seed=3)[0] == images).all()
    assert not (draw(12, seed=4)[0] == images).all()
    assert images.std(axis=(1, 2, 3)).min() > 5
    assert draw(0)[0].shape == (0, 64, 64, 3)
