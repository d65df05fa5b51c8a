"""Training with fastconv.nn: the course's models, seeds, data of every kind, callbacks, errors, Ctrl-C."""

from __future__ import annotations

import os
import re
import signal
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import fastconv
from fastconv import nn
from fastconv.nn import callbacks, losses, metrics, optimizers, schedules


@pytest.fixture(autouse=True)
def _seed():
    nn.set_random_seed(0)
    nn.clear_session()


def blobs(count=60, classes=3):
    """Easy images: a bright corner says the class."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, classes, count)
    x = rng.random((count, 8, 8, 1)).astype(np.float32)
    for i, label in enumerate(y):
        x[i, 4 * (label // 2) : 4 * (label // 2) + 4, 4 * (label % 2) : 4 * (label % 2) + 4] += 1
    return x, y


def small(classes=3, **options):
    model = nn.Sequential(
        [nn.Input((8, 8, 1)), nn.Conv2D(8, 3, padding="same"), nn.BatchNormalization(momentum=0.5), nn.ReLU(),
         nn.MaxPooling2D(), nn.Flatten(), nn.Dense(classes, activation="softmax")]
    )  # fmt: skip
    model.compile(options.pop("optimizer", "adam"), "sparse_categorical_crossentropy", metrics=["accuracy"], **options)
    return model


# ------------------------------------------------------------------------------------------------ the course's models


def happy_model(tf):
    """The course's Sequential model as the course writes it, with ``tf.keras`` replaced."""
    tfl = tf.keras.layers
    return tf.keras.Sequential(
        [
            tfl.ZeroPadding2D(padding=3, input_shape=(64, 64, 3)),
            tfl.Conv2D(32, (7, 7), strides=(1, 1)),
            tfl.BatchNormalization(axis=3),
            tfl.ReLU(max_value=None, negative_slope=0.0, threshold=0.0),
            tfl.MaxPooling2D(),
            tfl.Flatten(),
            tfl.Dense(1, activation="sigmoid"),
        ]
    )


def signs_model(tf, input_shape):
    """The course's Functional model."""
    tfl = tf.keras.layers
    input_img = tf.keras.Input(shape=input_shape)
    z1 = tfl.Conv2D(filters=8, kernel_size=4, strides=1, padding="SAME")(input_img)
    a1 = tfl.ReLU()(z1)
    p1 = tfl.MaxPool2D(pool_size=8, strides=8, padding="SAME")(a1)
    z2 = tfl.Conv2D(filters=16, kernel_size=2, strides=1, padding="SAME")(p1)
    p2 = tfl.MaxPool2D(pool_size=4, strides=4, padding="SAME")(tfl.ReLU()(z2))
    outputs = tfl.Dense(units=6, activation="softmax")(tfl.Flatten()(p2))
    return tf.keras.Model(inputs=input_img, outputs=outputs)


def test_the_courses_models(capsys):
    model = happy_model(nn)
    model.compile(optimizer="adam", loss="binary_crossentropy", metrics=["accuracy"])
    model.summary()
    text = capsys.readouterr().out
    assert 'Model: "sequential"' in text
    assert "zero_padding2d (ZeroPadding2D)            (None, 70, 70, 3)   0" in text
    assert "Total params: 37,633\nTrainable params: 37,569\nNon-trainable params: 64" in text
    rng = np.random.default_rng(0)
    x = rng.random((8, 64, 64, 3))
    model.fit(x, rng.integers(0, 2, (8, 1)), epochs=1, batch_size=4)
    assert "Epoch 1/1" in capsys.readouterr().out

    model = signs_model(nn, (64, 64, 3))
    model.compile(optimizer=nn.keras.optimizers.Adam(), loss="categorical_crossentropy", metrics=["accuracy"])
    model.summary()
    text = capsys.readouterr().out
    assert "[(None, 64, 64, 3)]" in text
    assert "Total params: 1,310\n" in text
    y = nn.utils.to_categorical(rng.integers(0, 6, 8), 6)
    batches = [(x[:4], y[:4]), (x[4:], y[4:])]
    history = model.fit(batches, epochs=2, validation_data=batches[:1], verbose=0)
    assert set(history.history) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert [len(v) for v in history.history.values()] == [2, 2, 2, 2]


def test_it_learns():
    x, y = blobs()
    model = small()
    history = model.fit(x[:45], y[:45], epochs=15, batch_size=8, validation_data=(x[45:], y[45:]), verbose=0)
    assert history.history["val_accuracy"][-1] == 1
    assert model.evaluate(x[45:], y[45:], verbose=0)[1] == 1
    assert (model.predict(x, verbose=0).argmax(1) == y).mean() == 1
    assert model.history is history


def test_same_seed_same_bits():
    x, y = blobs()

    def weights(seed):
        nn.set_random_seed(seed)
        model = nn.Sequential([nn.Input((8, 8, 1)), nn.Conv2D(4, 3), nn.Dropout(0.2), nn.Flatten(), nn.Dense(3)])
        model.compile("adam", losses.SparseCategoricalCrossentropy(from_logits=True))
        model.fit(x, y, epochs=2, batch_size=16, verbose=0)
        return b"".join(w.tobytes() for w in model.get_weights())

    assert weights(5) == weights(5)
    assert weights(5) != weights(6)


def test_buffers_are_reused():
    x, y = blobs(16)
    model = small()
    model.train_on_batch(x, y)
    model.train_on_batch(x, y)
    program = model.program()
    before = [c.y.ctypes.data for c in program.calls if c.y is not None]
    free = sorted(program.pool._sizes)
    model.train_on_batch(x[:8], y[:8])
    model.train_on_batch(x, y)
    assert [c.y.ctypes.data for c in program.calls if c.y is not None] == before
    assert sorted(program.pool._sizes) == free
    assert not program.pool._lent


def test_a_step_allocates_nothing():
    """NumPy and Python together; an activation of this net holds half a megabyte."""
    x = nn.Input((32, 32, 3))
    first = nn.ReLU()(nn.BatchNormalization()(nn.Conv2D(16, 3, padding="same", use_bias=False)(x)))
    second = nn.BatchNormalization()(nn.Conv2D(16, 3, padding="same", use_bias=False)(first))
    y = nn.MaxPooling2D()(nn.ReLU()(nn.Add()([second, first])))
    y = nn.ReLU()(nn.Add()([y, nn.Conv2D(16, 1)(y)]))
    model = nn.Model(x, nn.Dense(4, activation="softmax")(nn.GlobalAveragePooling2D()(y)))
    model.compile("adam", "sparse_categorical_crossentropy")
    rng = np.random.default_rng(0)
    images, labels = rng.random((8, 32, 32, 3), dtype=np.float32), rng.integers(0, 4, 8)
    for _ in range(3):
        model.train_on_batch(images, labels)
    tracemalloc.start()
    model.train_on_batch(images, labels)
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    model.train_on_batch(images, labels)
    after, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 10_000
    assert peak - before < 40_000


def test_a_model_inside_and_shared_layers_train():
    x, y = blobs(24)
    inner = nn.Sequential([nn.Conv2D(4, 3, activation="relu"), nn.GlobalAveragePooling2D()])
    a, b = nn.Input((8, 8, 1)), nn.Input((8, 8, 1))
    model = nn.Model([a, b], nn.Dense(3, activation="softmax")(nn.Concatenate()([inner(a), inner(b)])))
    assert model.count_params() == 40 + 27
    model.compile(optimizers.Adam(0.05), "sparse_categorical_crossentropy")
    first = model.evaluate([x, x], y, verbose=0)
    model.fit([x, x], y, epochs=20, verbose=0)
    assert model.evaluate([x, x], y, verbose=0) < first / 2
    look = nn.Model(inner.input, inner.layers[0].output)
    assert look.predict(x, verbose=0).shape == (24, 6, 6, 4)


def test_frozen_layers_stay():
    x, y = blobs(16)
    model = small()
    model.layers[0].trainable = False
    before = model.get_weights()
    model.fit(x, y, verbose=0)
    after = model.get_weights()
    assert np.array_equal(before[0], after[0])
    assert not np.array_equal(before[2], after[2])
    assert len(model.trainable_weights) == 4


def test_several_outputs():
    x, y = blobs(20)
    image = nn.Input((8, 8, 1))
    flat = nn.Flatten()(image)
    model = nn.Model(image, [nn.Dense(3, activation="softmax", name="kind")(flat), nn.Dense(1, name="size")(flat)])
    model.compile(
        "sgd", {"kind": "sparse_categorical_crossentropy", "size": "mse"}, {"kind": ["accuracy"], "size": ["mae"]},
        loss_weights={"kind": 1.0, "size": 0.1},
    )  # fmt: skip
    logs = model.fit(x, {"kind": y, "size": np.ones(20)}, validation_split=0.25, verbose=0).history
    assert set(logs) >= {"loss", "kind_loss", "size_loss", "kind_accuracy", "size_mae", "val_loss", "val_kind_accuracy"}
    assert logs["loss"][0] == pytest.approx(logs["kind_loss"][0] + 0.1 * logs["size_loss"][0])


# ------------------------------------------------------------------------------------------------ losses and metrics


def probabilities(rng, shape):
    p = rng.random(shape) + 0.05
    return p / p.sum(-1, keepdims=True)


@pytest.mark.parametrize("from_logits", [False, True])
@pytest.mark.parametrize("loss", [losses.BinaryCrossentropy, losses.CategoricalCrossentropy,
                                  losses.SparseCategoricalCrossentropy, losses.MeanSquaredError,
                                  losses.MeanAbsoluteError])  # fmt: skip
def test_gradient_of_losses(loss, from_logits):
    rng = np.random.default_rng(0)
    made = loss(from_logits=from_logits) if issubclass(loss, losses._Crossentropy) else loss()
    p = rng.standard_normal((4, 5)) if from_logits else probabilities(rng, (4, 5))
    y = rng.integers(0, 5, 4) if "Sparse" in loss.__name__ else np.eye(5)[rng.integers(0, 5, 4)]
    weight = rng.random(4)
    y = made.targets(y, p.shape, p.dtype)
    _, gradient = made.value_and_gradient(y, p.copy(), weight)
    for i in np.ndindex(p.shape):
        step = np.zeros_like(p)
        step[i] = 1e-6
        difference = made(y, p + step, weight) - made(y, p - step, weight)
        assert gradient[i] == pytest.approx(difference / 2e-6, rel=1e-5, abs=1e-7)


def test_losses_by_hand():
    assert losses.get("mse")([[1.0, 3.0]], [[2.0, 5.0]]) == pytest.approx(2.5)
    assert losses.get("mae")([[1.0, 3.0]], [[2.0, 5.0]]) == pytest.approx(1.5)
    assert losses.get("binary_crossentropy")([[1.0], [0.0]], [[0.8], [0.4]]) == pytest.approx(
        -(np.log(0.8) + np.log(0.6)) / 2
    )
    assert losses.get(losses.categorical_crossentropy)([[0, 1]], [[0.3, 0.7]]) == pytest.approx(-np.log(0.7))
    logits = losses.SparseCategoricalCrossentropy(from_logits=True)
    assert logits([1], [[0.0, 1000.0]]) == pytest.approx(0)
    assert losses.BinaryCrossentropy(from_logits=True)([[0.0]], [[1000.0]]) == pytest.approx(1000)
    assert losses.sparse_categorical_crossentropy([1], [[0.5, 0.5]]).shape == (1,)
    with pytest.raises(ValueError, match="loss must be one of"):
        losses.get("best")


def test_metrics_resolve_as_in_keras():
    assert isinstance(metrics.get("accuracy", (5,), (None, 1)), metrics.BinaryAccuracy)
    assert isinstance(metrics.get("accuracy", (5,), (None, 3)), metrics.SparseCategoricalAccuracy)
    assert isinstance(metrics.get("acc", (5, 1), (None, 3)), metrics.SparseCategoricalAccuracy)
    assert isinstance(metrics.get("accuracy", (5, 3), (None, 3)), metrics.CategoricalAccuracy)
    assert metrics.BinaryAccuracy()([[1], [0], [1]], [[0.9], [0.6], [0.2]]) == pytest.approx(1 / 3)
    assert metrics.Precision()([[1], [0], [1]], [[0.9], [0.6], [0.2]]) == 0.5
    assert metrics.Recall()([[1], [0], [1]], [[0.9], [0.6], [0.2]]) == 0.5
    assert metrics.SparseCategoricalAccuracy()([1, 0], [[0.1, 0.9], [0.4, 0.6]], [1.0, 3.0]) == 0.25


def test_sample_and_class_weights():
    x, y = blobs(30)
    model = small()
    weights = np.where(y == 0, 2.0, 1.0)
    assert model.test_on_batch(x, y, weights)[0] == pytest.approx(
        float((weights * losses.sparse_categorical_crossentropy(y, model.predict(x, verbose=0))).mean()), rel=1e-5
    )
    nn.set_random_seed(1)
    a = small()
    a.fit(x, y, class_weight={0: 2.0}, verbose=0)
    nn.set_random_seed(1)
    b = small()
    b.fit(x, y, sample_weight=weights, verbose=0)
    np.testing.assert_allclose(a.get_weights()[0], b.get_weights()[0], rtol=1e-5)


# ------------------------------------------------------------------------------------------ optimizers and schedules


@pytest.mark.parametrize(
    "optimizer",
    [optimizers.SGD(0.1, momentum=0.9, nesterov=True), optimizers.RMSprop(0.01, momentum=0.5, centered=True),
     optimizers.AdamW(0.02), optimizers.Adam(schedules.ExponentialDecay(0.05, 10, 0.9), clipnorm=1.0),
     optimizers.SGD(0.2, global_clipnorm=0.5), optimizers.SGD(0.2, clipvalue=0.1, weight_decay=1e-3)],
)  # fmt: skip
def test_optimizers_learn(optimizer):
    x, y = blobs()
    model = small(optimizer=optimizer)
    model.fit(x, y, epochs=15, verbose=0)
    assert model.evaluate(x, y, verbose=0)[1] > 0.9


def test_regularisation_is_in_loss_and_gradient():
    model = nn.Sequential([nn.Input((2,)), nn.Dense(1, use_bias=False, kernel_regularizer=nn.regularizers.l2(0.5))])
    model.compile(optimizers.SGD(0.1), "mse")
    model.set_weights([np.array([[1.0], [2.0]])])
    assert model.train_on_batch(np.zeros((1, 2)), np.zeros((1, 1))) == pytest.approx(2.5)
    np.testing.assert_allclose(model.get_weights()[0], [[0.9], [1.8]], rtol=1e-6)


def test_schedules():
    assert schedules.ExponentialDecay(1.0, 2, 0.5, staircase=True)(3) == 0.5
    assert schedules.InverseTimeDecay(1.0, 1, 1.0)(3) == 0.25
    assert [schedules.PiecewiseConstantDecay([2, 4], [1.0, 0.5, 0.1])(s) for s in (2, 3, 5)] == [1.0, 0.5, 0.1]
    assert schedules.PolynomialDecay(1.0, 10, 0.0)(5) == 0.5
    assert schedules.CosineDecay(0.0, 10, warmup_target=1.0, warmup_steps=2)(1) == 0.5
    assert schedules.CosineDecay(1.0, 10, alpha=0.1)(20) == pytest.approx(0.1)


# --------------------------------------------------------------------------------------------------------- callbacks


def test_callbacks(tmp_path):
    x, y = blobs()
    model = small()
    log = tmp_path / "log.csv"
    seen = []
    history = model.fit(
        x, y, epochs=30, validation_split=0.2, verbose=0,
        callbacks=[
            callbacks.EarlyStopping("val_accuracy", patience=2, restore_best_weights=True),
            callbacks.ModelCheckpoint(tmp_path / "best-{epoch:02d}.fastconv", save_best_only=True),
            callbacks.CSVLogger(log),
            callbacks.LearningRateScheduler(lambda epoch, rate: 0.01 * 0.9**epoch),
            callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(batch)),
        ],
    )  # fmt: skip
    epochs = len(history.epoch)
    assert 3 <= epochs < 30
    assert history.history["learning_rate"][1] == pytest.approx(0.009)
    rows = log.read_text().splitlines()
    assert rows[0].startswith("epoch,accuracy,loss,val_accuracy,val_loss")
    assert len(rows) == epochs + 1
    assert seen == [0, 1] * epochs
    saved = sorted(tmp_path.glob("best-*.fastconv"))
    best = int(np.argmin(history.history["val_loss"])) + 1
    assert saved[-1].name == f"best-{best:02d}.fastconv"
    nn.load_model(saved[-1]).evaluate(x, y, verbose=0)
    with pytest.raises(ValueError, match="monitor 'val_loss' is not among loss, accuracy"):
        model.fit(x, y, verbose=0, callbacks=[callbacks.EarlyStopping()])


def test_history_draws_itself(tmp_path):
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    x, y = blobs(20)
    small().fit(x, y, epochs=2, validation_split=0.2, verbose=0).plot(tmp_path / "history.png")
    assert (tmp_path / "history.png").stat().st_size > 5000


def test_output_is_lines_where_it_is_no_terminal(capsys):
    x, y = blobs(20)
    small().fit(x, y, epochs=2, validation_split=0.2)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("Epoch 2/2 - ")
    assert " images/s - loss: " in lines[1]
    assert " - val_accuracy: " in lines[1]


def test_bar_on_a_terminal(monkeypatch, capsys):
    pytest.importorskip("rich", reason="the bar needs rich")
    x, y = blobs(20)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    small().fit(x, y, epochs=2, verbose=1)
    assert capsys.readouterr().out.count("Epoch 2/2 - ") == 1


# ------------------------------------------------------------------------------------------- interruption, bad input


class Interrupt(callbacks.Callback):
    def on_train_batch_end(self, batch, logs):
        if len(self.model.history.epoch) == 2 and batch == 1:
            os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_leaves_a_usable_model_and_history():
    x, y = blobs()
    model = small()
    # a shell's background job begins with Ctrl-C ignored, and the tests with it
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            model.fit(x, y, epochs=50, batch_size=8, verbose=0, callbacks=[Interrupt()])
        assert len(model.history.history["loss"]) == 2
        assert np.isfinite(model.predict(x, verbose=0)).all()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        model.fit(x, y, epochs=1, verbose=0)
    finally:
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_stays_ignored_where_it_was():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        small().fit(*blobs(), epochs=4, batch_size=8, verbose=0, callbacks=[Interrupt()])
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_loss_that_is_not_finite_stops_and_says_where():
    x, y = blobs()
    model = small()
    bad = x.copy()
    bad[7, 2, 2] = np.nan
    before = model.get_weights()
    with pytest.raises(nn.NonFiniteLossError, match=r"epoch 1, step 1: .*nan: .*input data"):
        model.fit(bad, y, batch_size=60, verbose=0)
    for p, q in zip(before, model.get_weights(), strict=True):
        assert np.array_equal(p, q)
    model.layers[0].own_weights[0].value[0, 0, 0, 0] = np.inf
    with pytest.raises(nn.NonFiniteLossError, match="weight 'kernel' of layer 'conv2d'"):
        model.fit(x, y, verbose=0)

    class Burst(nn.Layer):
        def forward(self, x, call):
            return x / np.zeros((), x.dtype)

    model = nn.Sequential([nn.Input((8, 8, 1)), nn.Flatten(), Burst(name="burst"), nn.Dense(3, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    with np.errstate(all="ignore"), pytest.raises(nn.NonFiniteLossError, match="output of layer 'burst'"):
        model.fit(x, y, verbose=0)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda x, y: (x, y + 1), r"labels in y must be from 0 to 2 \(3 classes\), received 1 to 3"),
        (lambda x, y: (x, y - 1), "received -1 to"),
        (lambda x, y: (x, y + 0.5), "whole numbers"),
        (lambda x, y: (x, y[:-1]), "x has 60 examples, but y has 59"),
        (lambda x, y: (x[:0], y[:0]), "empty"),
        (lambda x, y: (x[..., 0], y), r"input 'input_layer' wants .*\(None, 8, 8, 1\), received \(60, 8, 8\)"),
        (lambda x, y: (x, np.eye(3)[y]), "one-hot labels go with categorical_crossentropy"),
        (lambda x, y: (x, None), "no targets"),
        (lambda x, y: (iter([]), None), "no batches"),
        (lambda x, y: ([(x, y[:5])], None), "60 examples in x, but .5. in y"),
        (lambda x, y: (x.astype(str), y), "real numbers"),
    ],
)  # fmt: skip
def test_bad_data_is_refused_and_nothing_changes(change, text):
    model = small()
    before = model.get_weights()
    x, y = change(*blobs())
    with pytest.raises(nn.DataError, match=text):
        model.fit(x, y, verbose=0)
    for p, q in zip(before, model.get_weights(), strict=True):
        assert np.array_equal(p, q)


def test_binary_labels_outside():
    model = nn.Sequential([nn.Input((2,)), nn.Dense(1, activation="sigmoid")])
    model.compile("adam", "binary_crossentropy")
    with pytest.raises(nn.DataError, match="between 0 and 1, received -1 to 1"):
        model.fit(np.zeros((2, 2)), [-1, 1], verbose=0)


def test_use_before_it_is_ready():
    model = nn.Sequential([nn.Dense(2)])
    with pytest.raises(ValueError, match="has no shapes yet"):
        model.summary()
    with pytest.raises(RuntimeError, match=r"call compile\(optimizer, loss\)"):
        model.fit(np.zeros((2, 3)), np.zeros((2, 2)))
    model.compile("sgd", "mse")
    model.fit(np.zeros((2, 3)), np.zeros((2, 2)), verbose=0)
    assert model.input_shape == (None, 3)
    with pytest.raises(ValueError, match="optimizer must be one of sgd, rmsprop, adam, adamw"):
        model.compile("adagrad", "mse")
    with pytest.raises(fastconv.GeometryError, match="has 2 weights, received 1"):
        model.set_weights([np.zeros((3, 2))])


def test_predict_takes_arrays_lists_and_batches():
    model = nn.Sequential([nn.Dense(2)])
    assert model.predict([[1.0, 2.0, 3.0]], verbose=0).shape == (1, 2)
    assert model.predict((np.ones((n, 3)) for n in (2, 3)), verbose=0).shape == (5, 2)
    assert np.array_equal(model.predict_on_batch(np.ones((70, 3))), model(np.ones((70, 3))))


def test_graph_errors():
    a, b = nn.Input((2,), name="a"), nn.Input((2,), name="b")
    both = nn.Add()([a, b])
    with pytest.raises(ValueError, match="depends on input 'b'"):
        nn.Model(a, both)
    with pytest.raises(ValueError, match="input 'b' is not connected"):
        nn.Model([a, b], nn.Dense(1)(a))
    with pytest.raises(ValueError, match="names must differ, but same"):
        nn.Model(a, nn.Dense(1, name="same")(nn.Dense(1, name="same")(a)))


# ------------------------------------------------------------------------------------------------------ documentation


def test_the_page_runs(capsys):
    page = (Path(__file__).parent.parent / "docs" / "nn.md").read_text()
    names = {}
    exec("\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL)), names)  # its own layer among them
    model = nn.Sequential([nn.Input((4, 4, 3)), names["Scale"](2.0), nn.Flatten(), nn.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(np.ones((4, 4, 4, 3)), np.ones((4, 1)), verbose=0)
    assert model.layers[0].factor.value.tolist() != [2.0, 2.0, 2.0]
    assert "Total params: 3,002" in capsys.readouterr().out
