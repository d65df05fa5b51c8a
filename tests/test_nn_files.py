"""Models and weights in files: round trips, Keras both ways, and files that do not fit."""

from __future__ import annotations

import os
import zipfile

import numpy as np
import pytest

from fastconv import nn

h5py = pytest.importorskip("h5py", reason="Keras' files need h5py")


# Keras' own use of NumPy
KERAS_WARNS = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


@pytest.fixture(autouse=True)
def _seed():
    nn.set_random_seed(3)


@pytest.fixture(scope="module")
def keras():
    os.environ.setdefault("KERAS_BACKEND", "torch")
    pytest.importorskip("torch", reason="Keras is checked with PyTorch as its engine")
    return pytest.importorskip("keras", reason="Keras is not installed")


def functional(k, rate=0.3):
    """Two inputs, a shared layer, skips and every kind of layer with weights; ``k`` is Keras or this package."""
    layers = k.layers
    image, side = k.Input((12, 12, 3), name="image"), k.Input((4,), name="side")
    x = layers.ZeroPadding2D(((1, 0), (2, 1)))(image)
    small = k.regularizers.L2(0.01)
    x = layers.Conv2D(4, 3, strides=2, padding="same", activation="relu", kernel_regularizer=small)(x)
    skip = layers.Conv2D(6, 1, use_bias=False)(x)
    x = layers.SeparableConv2D(6, 3, padding="same", depth_multiplier=2)(x)
    x = layers.BatchNormalization()(x)
    x = layers.ReLU()(layers.Add()([x, skip]))
    x = layers.DepthwiseConv2D(3, padding="same", activation="tanh")(x)
    x = layers.Conv2DTranspose(3, 3, strides=2, padding="valid")(x)
    x = layers.LayerNormalization()(layers.LeakyReLU()(x))
    x = layers.MaxPooling2D(2)(x)
    x = layers.Concatenate()([x, layers.AveragePooling2D(3, strides=1, padding="same")(x)])
    x = layers.UpSampling2D(2)(x)
    shared = layers.Dense(4, activation="sigmoid")
    wide = layers.Dense(4)(layers.GlobalAveragePooling2D()(x))
    x = layers.Multiply()([shared(wide), shared(side)])
    x = layers.Dropout(rate)(layers.Activation("gelu")(x))
    first = layers.Dense(3, activation="softmax", name="first")(x)
    second = layers.Dense(1, name="second")(layers.Flatten()(layers.Reshape((2, 2))(x)))
    return k.Model([image, side], [first, second])


def sequential(k):
    layers = k.layers
    stack = [
        layers.ZeroPadding1D(1), layers.Conv1D(4, 3, padding="causal"), layers.ReLU(max_value=6.0),
        layers.MaxPooling1D(2), layers.Reshape((2, 3, 4, 1)), layers.Conv3D(2, 2, padding="same"),
        layers.AveragePooling3D((1, 1, 2)), layers.GlobalMaxPooling3D(), layers.Dense(3), layers.Softmax(),
    ]  # fmt: skip
    return k.Sequential([k.Input((10, 2)), *stack])


def inputs(seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((5, 12, 12, 3)).astype(np.float32), rng.standard_normal((5, 4)).astype(np.float32)]


def stir(model):
    """Weights that are no longer the first ones, statistics among them."""
    rng = np.random.default_rng(1)
    model.set_weights([w + 0.1 * rng.random(w.shape).astype(np.float32) for w in model.get_weights()])


def agree(a, b):
    for p, q in zip(a, b, strict=True):
        np.testing.assert_allclose(np.asarray(p), np.asarray(q), rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------------------------------------------- our own files


@pytest.mark.parametrize("suffix", [".keras", ".fastconv"])
def test_model_round_trip(tmp_path, suffix):
    model = functional(nn)
    model.compile("adam", {"first": "sparse_categorical_crossentropy", "second": "mse"}, {"first": ["accuracy"]})
    x, y = inputs(), [np.array([0, 1, 2, 0, 1]), np.ones((5, 1))]
    model.train_on_batch(x, y)
    model.save(tmp_path / f"m{suffix}")
    again = nn.load_model(tmp_path / f"m{suffix}")
    for p, q in zip(model.get_weights(), again.get_weights(), strict=True):
        assert np.array_equal(p, q)
    agree(model.predict(x, verbose=0), again.predict(x, verbose=0))
    assert again.optimizer.iterations == 1
    nn.set_random_seed(1)
    first = model.train_on_batch(x, y)
    nn.set_random_seed(1)
    assert again.train_on_batch(x, y)[0] == pytest.approx(first[0], rel=1e-6)
    agree(model.get_weights(), again.get_weights())


@pytest.mark.parametrize("suffix", [".weights.h5", ".safetensors", ".npz"])
def test_weights_round_trip(tmp_path, suffix):
    if suffix == ".safetensors":
        pytest.importorskip("safetensors", reason="safetensors is not installed")
    model, other = functional(nn), functional(nn)
    model.save_weights(tmp_path / f"w{suffix}")
    other.load_weights(tmp_path / f"w{suffix}")
    for p, q in zip(model.get_weights(), other.get_weights(), strict=True):
        assert np.array_equal(p, q)


class Scale(nn.Layer):
    def __init__(self, start=1.0, **kwargs):
        super().__init__(**kwargs)
        self.start = start

    config_names = ("start",)

    def build(self, input_shape):
        self.factor = self.add_weight("factor", (input_shape[-1],), nn.initializers.Constant(self.start))

    def forward(self, x, call):
        return x * self.factor.value


def test_own_layer(tmp_path):
    model = nn.Sequential([nn.Input((3,)), Scale(2.0)])
    model.save(tmp_path / "m.fastconv")
    with pytest.raises(nn.WeightsError, match="'Scale', which is not known"):
        nn.load_model(tmp_path / "m.fastconv")
    again = nn.load_model(tmp_path / "m.fastconv", custom_objects={"Scale": Scale})
    assert again.predict(np.ones((1, 3)), verbose=0).tolist() == [[2.0, 2.0, 2.0]]


# ---------------------------------------------------------------------------------------------------------- Keras


@KERAS_WARNS
@pytest.mark.parametrize("make", [functional, sequential])
def test_keras_reads_and_writes_the_same(tmp_path, keras, make):
    data = inputs() if make is functional else [inputs()[0][:, :2, :10, :1].transpose(0, 2, 1, 3)[..., 0]]
    theirs = make(keras)
    stir(theirs)
    theirs.save(tmp_path / "theirs.keras")
    theirs.save_weights(tmp_path / "theirs.weights.h5")
    x = data if len(data) > 1 else data[0]
    expected = theirs.predict(x, verbose=0)
    expected = expected if isinstance(expected, list) else [expected]

    def ours_gives(model):
        got = model.predict(x, verbose=0)
        return got if isinstance(got, list) else [got]

    loaded = nn.load_model(tmp_path / "theirs.keras")
    agree(ours_gives(loaded), expected)
    built = make(nn)
    assert built.count_params() == theirs.count_params()
    built.load_weights(tmp_path / "theirs.weights.h5")
    agree(ours_gives(built), expected)

    stir(built)
    built.save(tmp_path / "ours.keras")
    built.save_weights(tmp_path / "ours.weights.h5")
    back = keras.models.load_model(tmp_path / "ours.keras").predict(x, verbose=0)
    agree(back if isinstance(back, list) else [back], ours_gives(built))
    theirs.load_weights(tmp_path / "ours.weights.h5")
    back = theirs.predict(x, verbose=0)
    agree(back if isinstance(back, list) else [back], ours_gives(built))


@KERAS_WARNS
def test_gradients_are_pytorchs(keras):
    """Of every weight of a model with every kind of layer, through Keras on PyTorch."""
    import torch

    theirs, ours = functional(keras, rate=0.0), functional(nn, rate=0.0)
    stir(theirs)
    ours.set_weights(theirs.get_weights())
    x = inputs()
    outputs = theirs([torch.from_numpy(a) for a in x], training=True)
    program, flat = ours.program(), nn.optimizers.FlatWeights(ours.trainable_weights)
    program.prepare()
    mine = program.forward(x, training=True)
    agree(mine, [o.detach() for o in outputs])
    rng = np.random.default_rng(0)
    seeds = [rng.standard_normal(y.shape).astype(np.float32) for y in mine]
    sum((o * torch.from_numpy(s)).sum() for o, s in zip(outputs, seeds, strict=True)).backward()
    program.backward(dict(zip(program.outputs, seeds, strict=True)))
    expected = [v.value.grad.numpy() for v in theirs.trainable_weights]
    largest = max(np.abs(g).max() for g in expected)  # biases before a normalisation have rounding for a gradient
    for w, gradient in zip(flat.weights, expected, strict=True):
        np.testing.assert_allclose(w.grad, gradient, rtol=1e-3, atol=1e-6 * largest, err_msg=w.name)


@KERAS_WARNS
def test_a_model_in_a_model_is_read(tmp_path, keras):
    layers = keras.layers
    image = keras.Input((8, 8, 2))
    inside = keras.Sequential([layers.Conv2D(3, 3), layers.BatchNormalization(), layers.ReLU()])
    x = inside(layers.Conv2D(2, 1)(image))
    theirs = keras.Model(image, layers.Dense(2)(layers.Flatten()(x)))
    stir(theirs)
    theirs.save(tmp_path / "m.keras")
    data = np.random.default_rng(0).random((2, 8, 8, 2)).astype(np.float32)
    agree([nn.load_model(tmp_path / "m.keras").predict(data, verbose=0)], [theirs.predict(data, verbose=0)])


@KERAS_WARNS
@pytest.mark.parametrize(
    ("optimizer", "loss"),
    [("Adam", "sparse_categorical_crossentropy"), ("AdamW", "mse"), ("SGD", "categorical_crossentropy"),
     ("SGD", "mae"), ("RMSprop", "mse")],
)  # fmt: skip
def test_keras_trains_to_the_same_weights(tmp_path, keras, optimizer, loss):
    """A few steps here and there, from the same start; and on, here, from what Keras wrote in the middle."""
    layers = keras.layers
    penalty = keras.regularizers.L2(0.01)
    stack = [
        # no bias: its gradient before a normalisation is rounding alone, which Adam blows up
        layers.Conv2D(4, 3, use_bias=False), layers.BatchNormalization(), layers.ReLU(),
        layers.GlobalAveragePooling2D(),
        layers.Dense(3, activation="softmax", kernel_regularizer=penalty),
    ]  # fmt: skip
    theirs = keras.Sequential([keras.Input((6, 6, 2)), *stack])
    options = {"momentum": 0.9, "nesterov": True} if optimizer == "SGD" else {}
    theirs.compile(getattr(keras.optimizers, optimizer)(learning_rate=0.01, **options), loss, metrics=["accuracy"])
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((8, 6, 6, 2)).astype(np.float32), rng.integers(0, 3, 8)
    y = labels if loss.startswith("sparse") else np.eye(3, dtype=np.float32)[labels]
    theirs.save(tmp_path / "m.keras")
    ours = nn.load_model(tmp_path / "m.keras")
    for _ in range(3):
        expected = theirs.train_on_batch(x, y)
        got = ours.train_on_batch(x, y)
        assert got[0] == pytest.approx(float(expected[0]), rel=1e-4)
        assert got[1] == pytest.approx(float(expected[1]))
    agree(ours.get_weights(), theirs.get_weights())
    theirs.save(tmp_path / "m.keras")
    further = nn.load_model(tmp_path / "m.keras")
    agree([further.train_on_batch(x, y)[0]], [float(theirs.train_on_batch(x, y)[0])])
    if optimizer != "RMSprop":
        agree(further.get_weights(), theirs.get_weights())


# -------------------------------------------------------------------------------------------- files that do not fit


def small(units=2):
    return nn.Sequential([nn.Input((4,)), nn.Dense(3), nn.Dense(units)])


@pytest.mark.parametrize("suffix", [".weights.h5", ".safetensors", ".npz", ".keras"])
def test_weights_of_another_model_change_nothing(tmp_path, suffix):
    other = nn.Sequential([nn.Input((4,)), nn.Dense(3), nn.Dense(5)])
    path = tmp_path / f"w{suffix}"
    (other.save if suffix == ".keras" else other.save_weights)(path)
    model = small()
    before = model.get_weights()
    with pytest.raises(nn.WeightsError, match="another model"):
        model.load_weights(path)
    deeper = nn.Sequential([nn.Input((4,)), nn.Dense(3), nn.Dense(2), nn.Dense(2)])
    with pytest.raises(nn.WeightsError, match="another model"):
        deeper.load_weights(path)
    for p, q in zip(before, model.get_weights(), strict=True):
        assert np.array_equal(p, q)


@pytest.mark.parametrize("suffix", [".weights.h5", ".safetensors", ".npz", ".keras", ".fastconv"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_truncated_file(tmp_path, suffix, share):
    model = small()
    path = tmp_path / f"w{suffix}"
    whole = suffix in (".keras", ".fastconv")
    (model.save if whole else model.save_weights)(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    before = model.get_weights()
    with pytest.raises(nn.WeightsError, match=r"damaged|incomplete"):
        nn.load_model(path) if whole else model.load_weights(path)
    for p, q in zip(before, model.get_weights(), strict=True):
        assert np.array_equal(p, q)


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    model, path = small(), tmp_path / "m.fastconv"
    model.save(path)
    old = path.read_bytes()

    def fail(*arguments, **options):
        raise OSError("no space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", fail)
    with pytest.raises(OSError, match="no space"):
        model.save(path)
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["m.fastconv"]


def test_names_and_absence(tmp_path):
    model = small()
    with pytest.raises(ValueError, match=r"must end in \.keras"):
        model.save(tmp_path / "model.bin")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        model.load_weights(tmp_path / "none.npz")
    model.save(tmp_path / "m.fastconv")
    with pytest.raises(FileExistsError):
        model.save(tmp_path / "m.fastconv", overwrite=False)
