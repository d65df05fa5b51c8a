"""Light augmentation: images moved, turned and resized as one would by hand, and in training only."""

from __future__ import annotations

import numpy as np
import pytest

from fastconv import nn


@pytest.fixture(autouse=True)
def _seed():
    nn.set_random_seed(0)


def test_augmentation():
    x = np.arange(32.0).reshape(2, 4, 4, 1)
    maps = np.zeros((2, 2, 3))
    maps[:, 0, 0] = maps[:, 1, 1] = 1
    assert np.array_equal(nn.augmentation.affine(x, maps), x)
    maps[:, 0, 2] = 1
    assert np.array_equal(nn.augmentation.affine(x, maps)[:, :3], x[:, 1:])
    assert not nn.augmentation.affine(x, maps)[:, 3].any()
    assert np.array_equal(nn.augmentation.affine(x, maps, fill_mode="nearest")[:, 3], x[:, 3])
    assert np.array_equal(nn.augmentation.affine(x, maps, fill_mode="reflect")[:, 3], x[:, 3])
    assert np.array_equal(nn.augmentation.affine(x, maps, fill_mode="wrap")[:, 3], x[:, 0])
    turned = np.array([[[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]]] * 2)
    assert np.allclose(nn.augmentation.affine(x, turned)[0, ..., 0], np.rot90(x[0, ..., 0], -1))
    flipped = nn.augmentation.random_flip(np.repeat(x, 50, 0), "horizontal")
    kinds = {tuple(f[0, :, 0]) for f in flipped[:50]}
    assert kinds == {(0, 1, 2, 3), (3, 2, 1, 0)}


@pytest.mark.parametrize(
    "make",
    [lambda: nn.RandomFlip("horizontal"), lambda: nn.RandomRotation(0.1), lambda: nn.RandomTranslation(0.1, 0.2),
     lambda: nn.RandomZoom(0.1), lambda: nn.RandomAffine(rotation=10, shift=0.1, scale=0.1, shear=5)],
)  # fmt: skip
def test_augmentation_layers_change_in_training_only(make):
    rng = np.random.default_rng(0)
    x, y = rng.random((20, 8, 8, 1)).astype(np.float32), rng.integers(0, 3, 20)
    layer = make()
    assert np.array_equal(layer(x), x)
    assert not np.array_equal(layer(x, training=True), x)
    model = nn.Sequential([nn.Input((8, 8, 1)), layer, nn.Flatten(), nn.Dense(3, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, y, epochs=2, verbose=0)
