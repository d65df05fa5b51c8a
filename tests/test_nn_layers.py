"""Layers of fastconv.nn: every gradient by finite differences in float64, shapes, rules, errors."""

from __future__ import annotations

import numpy as np
import pytest

from fastconv import GeometryError, list_backends, nn, use_backend
from fastconv.nn.optimizers import FlatWeights


class Shift(nn.Layer):
    """Adds a weight of the input's shape, whose gradient is the gradient to the layers behind."""

    def build(self, input_shape):
        self.shift = self.add_weight("shift", input_shape[1:], "zeros")

    def forward(self, x, call):
        return x + self.shift.value

    def backward(self, dy, call):
        call.add_gradient(self.shift, dy.sum(axis=0))
        return dy


IMAGE = (6, 7, 4)
CASES = {
    "conv1d": ((9, 3), lambda: nn.Conv1D(4, 3, padding="causal", dilation_rate=2)),
    "conv2d": (IMAGE, lambda: nn.Conv2D(4, 3, strides=2, padding="same", groups=2)),
    "conv2d-relu": (IMAGE, lambda: nn.Conv2D(3, (2, 3), activation="relu", bias_initializer="ones")),
    "conv2d-tanh": (IMAGE, lambda: nn.Conv2D(3, 3, dilation_rate=2, activation="tanh", use_bias=False)),
    "conv3d": ((4, 5, 4, 2), lambda: nn.Conv3D(3, 2, padding="same")),
    "depthwise": (IMAGE, lambda: nn.DepthwiseConv2D(3, depth_multiplier=2, padding="same", activation="leaky_relu")),
    "separable": (IMAGE, lambda: nn.SeparableConv2D(3, 3, strides=2, padding="same", depth_multiplier=2)),
    "transpose-valid": (IMAGE, lambda: nn.Conv2DTranspose(3, 2, strides=3, activation="relu")),
    "transpose-same": (IMAGE, lambda: nn.Conv2DTranspose(3, 3, strides=2, padding="same")),
    "transpose-more": (IMAGE, lambda: nn.Conv2DTranspose(3, 3, strides=2, padding="same", output_padding=1)),
    "dense": ((5,), lambda: nn.Dense(3, activation="relu", kernel_initializer="he_normal")),
    "dense-one": ((2, 5), lambda: nn.Dense(1, kernel_initializer="he_normal")),
    "dense-softmax": ((3, 5), lambda: nn.Dense(4, activation="softmax")),
    "batch-norm": (IMAGE, lambda: nn.BatchNormalization(axis=3)),
    "batch-norm-bare": (IMAGE, lambda: nn.BatchNormalization(center=False, scale=False)),
    "layer-norm": (IMAGE, lambda: nn.LayerNormalization()),
    "relu-capped": (IMAGE, lambda: nn.ReLU(max_value=1.0, negative_slope=0.1, threshold=0.2)),
    "relu6": (IMAGE, lambda: nn.ReLU(6.0)),
    "leaky": (IMAGE, lambda: nn.LeakyReLU()),
    "softmax": (IMAGE, lambda: nn.Softmax(axis=2)),
    "max1d": ((9, 3), lambda: nn.MaxPooling1D(2, padding="same")),
    "max2d": (IMAGE, lambda: nn.MaxPooling2D(3, strides=2, padding="same")),
    "max3d": ((4, 5, 4, 2), lambda: nn.MaxPooling3D()),
    "average1d": ((9, 3), lambda: nn.AveragePooling1D(2)),
    "average2d": (IMAGE, lambda: nn.AveragePooling2D(3, strides=2, padding="same")),
    "average3d": ((4, 5, 4, 2), lambda: nn.AveragePooling3D(2, padding="same")),
    "global-average1d": ((9, 3), lambda: nn.GlobalAveragePooling1D()),
    "global-average2d": (IMAGE, lambda: nn.GlobalAveragePooling2D(keepdims=True)),
    "global-average3d": ((4, 5, 4, 2), lambda: nn.GlobalAveragePooling3D()),
    "global-max2d": (IMAGE, lambda: nn.GlobalMaxPooling2D()),
    "zero-padding1d": ((9, 3), lambda: nn.ZeroPadding1D((1, 2))),
    "zero-padding2d": (IMAGE, lambda: nn.ZeroPadding2D(((0, 1), (2, 3)))),
    "zero-padding3d": ((4, 5, 4, 2), lambda: nn.ZeroPadding3D(1)),
    "flatten": (IMAGE, lambda: nn.Flatten()),
    "reshape": (IMAGE, lambda: nn.Reshape((7, -1))),
    "upsampling": (IMAGE, lambda: nn.UpSampling2D((2, 3))),
    "upsampling-bilinear": (IMAGE, lambda: nn.UpSampling2D(2, interpolation="bilinear")),
    "rescaling": (IMAGE, lambda: nn.layers.Rescaling(2.0, 1.0)),
    **{f"activation-{a}": ((20,), lambda a=a: nn.Activation(a))
       for a in ("relu", "relu6", "leaky_relu", "sigmoid", "tanh", "silu", "gelu", "hard_swish", "softmax", "linear")},
}  # fmt: skip


@pytest.fixture(autouse=True, params=["numpy", "cpp"])
def _double(request):
    info = {b.name: b for b in list_backends()}[request.param]
    if not info.available:
        pytest.skip(f"backend {request.param}: {info.reason}")
    nn.set_random_seed(1)
    nn.config.set_floatx("float64")
    with use_backend(request.param):
        yield
    nn.config.set_floatx("float32")


def check_gradients(model, inputs, rng):
    """Gradients of every weight, along random directions, against central differences."""
    program = model.program()
    flat = FlatWeights(model.trainable_weights)
    program.prepare()
    for w in flat.weights:
        w.value += 0.1 * rng.standard_normal(w.shape)
    outputs = program.forward(inputs, training=True)
    seeds = [rng.standard_normal(y.shape) for y in outputs]
    program.backward(dict(zip(program.outputs, [s.copy() for s in seeds], strict=True)))
    analytic = flat.grads.copy()

    def loss():
        return sum(float((s * y).sum()) for s, y in zip(seeds, program.forward(inputs, training=True), strict=True))

    step = 1e-6
    for w, part in zip(flat.weights, flat.slices, strict=True):
        for _ in range(3):
            direction = rng.standard_normal(w.value.size).reshape(w.shape)
            w.value += step * direction
            above = loss()
            w.value -= 2 * step * direction
            below = loss()
            w.value += step * direction
            measured = (above - below) / (2 * step)
            assert np.dot(analytic[part], direction.ravel()) == pytest.approx(measured, rel=2e-5, abs=2e-6), w.name


@pytest.mark.parametrize("name", CASES)
def test_gradient(name):
    shape, make = CASES[name]
    rng = np.random.default_rng(0)
    x = nn.Input(shape)
    y = make()(Shift()(x))
    model = nn.Model(x, y)
    data = rng.standard_normal((3, *shape))
    check_gradients(model, [data], rng)
    assert model.predict(data, verbose=0).shape == (3, *y.shape[1:])


@pytest.mark.parametrize("kind", ["relu", "leaky", "gelu"])
def test_gradient_of_fused_neighbours(kind):
    """Padding into convolution, activation into normalisation and addition, shared layers, skips, joins."""
    act = {"relu": nn.ReLU, "leaky": lambda: nn.LeakyReLU(0.01), "gelu": lambda: nn.Activation("gelu")}[kind]
    rng = np.random.default_rng(0)
    x, other = nn.Input((6, 6, 3)), nn.Input((6, 6, 3))
    shared = nn.Conv2D(4, 3, padding="same")
    a = act()(nn.BatchNormalization()(nn.Conv2D(4, 3)(nn.ZeroPadding2D(1)(Shift()(x)))))
    b = shared(shared(a))
    c = act()(nn.Add()([a, b, shared(a)]))
    d = nn.Concatenate()([c, nn.Multiply()([c, a]), nn.Conv2D(2, 1)(other)])
    first, second = nn.GlobalAveragePooling2D()(d), nn.Flatten()(nn.Add()([c, c]))
    model = nn.Model([x, other], [first, second])
    inputs = [rng.standard_normal((2, 6, 6, 3)) for _ in range(2)]
    check_gradients(model, inputs, rng)
    fused = [c.activation for c in model.program().calls if c.activation]
    assert len(fused) == (2 if kind != "gelu" else 1)
    assert not any(isinstance(c.layer, nn.ZeroPadding2D) for c in model.program().calls)


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Conv2D(4, 3),
        lambda: nn.BatchNormalization(),
        lambda: nn.BatchNormalization(trainable=False),
    ],
)
@pytest.mark.parametrize("act", [nn.ReLU, lambda: nn.ReLU(6.0), lambda: nn.LeakyReLU(0.01)])
def test_gradient_through_an_activation_before_max_pooling(make, act):
    """It is taken behind the pooling, where there is less of it."""
    rng = np.random.default_rng(0)
    x = nn.Input((6, 7, 4))
    model = nn.Model(x, nn.MaxPooling2D(3, strides=2, padding="same")(act()(make()(Shift()(x)))))
    assert [c.graded for c in model.program().calls] == [False, True, False]
    check_gradients(model, [3 * rng.standard_normal((3, 6, 7, 4))], rng)


@pytest.mark.parametrize("trainable", [True, False])
@pytest.mark.parametrize("act", [None, nn.ReLU, lambda: nn.LeakyReLU(0.01), lambda: nn.Activation("gelu")])
def test_gradient_of_a_sum_in_the_normalisation_before_it(act, trainable):
    """As residual blocks end: a plain skip, a skip through a normalisation of its own, maxima behind."""
    rng = np.random.default_rng(0)
    behind = (lambda y: y) if act is None else lambda y: act()(y)
    x = nn.Input((5, 6, 3))
    norms = [nn.BatchNormalization(trainable=trainable) for _ in range(4)]
    a = nn.Conv2D(4, 1)(Shift()(x))
    b = behind(nn.Add()([norms[0](nn.Conv2D(4, 3, padding="same")(a)), a]))
    c = behind(nn.Add()([norms[1](nn.Conv2D(4, 1)(b)), norms[2](nn.Conv2D(4, 1)(b))]))
    d = nn.MaxPooling2D(2)(behind(nn.Add()([c, norms[3](nn.Conv2D(4, 1)(c))])))
    model = nn.Model(x, d)
    for norm in norms:
        norm.moving_mean.assign(rng.standard_normal(4))
    data = rng.standard_normal((3, 5, 6, 3))
    calls = model.program().calls
    assert not any(isinstance(c.layer, nn.Add) for c in calls)
    assert sum(len(c.sources) == 2 for c in calls) == 3
    check_gradients(model, [data], rng)
    parts = nn.Model(x, [b, c, d])  # b and c are asked for, so nothing may take their place
    for training in (False, True):
        np.testing.assert_allclose(parts(data, training=training)[2], model(data, training=training), rtol=1e-12)


def test_sums_that_others_read_too_stay_sums():
    rng = np.random.default_rng(0)
    x = nn.Input((4, 4, 3))
    a = nn.BatchNormalization()(Shift()(x))
    twice = nn.Add()([a, a])

    class Half(nn.Add):
        def forward(self, x, call):
            return super().forward(x, call) / 2

    b = nn.BatchNormalization()(x)
    model = nn.Model(x, [nn.Add()([a, twice]), Half()([b, x])])
    assert sum(isinstance(c.layer, nn.Add) for c in model.program().calls) == 3
    data = rng.standard_normal((2, 4, 4, 3))
    y, half = model(data, training=True)
    normal = (data - data.mean((0, 1, 2))) / np.sqrt(data.var((0, 1, 2)) + 1e-3)
    np.testing.assert_allclose(half, (normal + data) / 2, rtol=1e-12, atol=1e-12)
    assert y.shape == data.shape


def test_frozen_batch_normalisation_uses_its_statistics():
    rng = np.random.default_rng(0)
    x = nn.Input((4, 4, 3))
    norm = nn.BatchNormalization(trainable=False)
    model = nn.Model(x, nn.ReLU()(norm(Shift()(x))))
    norm.moving_mean.assign([0.1, 0.2, 0.3])
    data = rng.standard_normal((2, 4, 4, 3))
    check_gradients(model, [data], rng)
    assert np.array_equal(model(data, training=True), model(data))


def test_dropout_keeps_the_mean_and_hands_the_same_mask_back():
    x = nn.Input((1000,))
    shift = Shift()
    model = nn.Model(x, nn.Dropout(0.25)(shift(x)))
    program, flat = model.program(), FlatWeights(model.trainable_weights)
    program.prepare()
    (y,) = program.forward([np.ones((1, 1000))], training=True)
    assert set(np.unique(y)) == {0.0, 1 / 0.75}
    assert y.mean() == pytest.approx(1, abs=0.1)
    program.backward({program.outputs[0]: np.ones((1, 1000))})
    assert np.array_equal(flat.grads[:1000], y[0])
    assert np.array_equal(model.predict(np.ones((1, 1000)), verbose=0), np.ones((1, 1000)))


# ------------------------------------------------------------------------------------------------ sizes and rules


def test_same_padding_is_tensorflows():
    """ceil(size / stride) outputs, the odd zero at the end."""
    x = nn.Input((5, 6, 1))
    assert nn.Conv2D(1, 4, strides=2, padding="SAME")(x).shape == (None, 3, 3, 1)
    assert nn.MaxPool2D(pool_size=8, strides=8, padding="same")(nn.Input((64, 60, 2))).shape == (None, 8, 8, 2)
    layer = nn.Conv2D(1, 2, padding="same", kernel_initializer="ones")
    assert layer(np.arange(3.0).reshape(1, 1, 3, 1))[0, 0, :, 0].tolist() == [1, 3, 2]


@pytest.mark.parametrize(("padding", "size"), [("valid", 12), ("same", 10)])
def test_transposed_size(padding, size):
    assert nn.Conv2DTranspose(1, 4, strides=2, padding=padding)(nn.Input((5, 5, 1))).shape == (None, size, size, 1)


def test_open_lengths():
    x = nn.Input((None, None, 3))
    model = nn.Model(x, nn.GlobalAveragePooling2D()(nn.Conv2D(2, 3, activation="relu")(x)))
    assert model.predict(np.ones((2, 5, 6, 3)), verbose=0).shape == (2, 2)
    assert model.predict(np.ones((2, 9, 4, 3)), verbose=0).shape == (2, 2)


@pytest.mark.parametrize(
    ("make", "shape", "text"),
    [
        (
            lambda: nn.Conv2D(4, 3, name="c"),
            (8, 8),
            r"layer 'c' \(Conv2D\) wants an input with 4 axes .*\(None, 8, 8\)",
        ),
        (lambda: nn.Conv2D(4, 9, name="c"), (8, 8, 3), r"layer 'c' \(Conv2D\) cannot take .*\(None, 8, 8, 3\)"),
        (lambda: nn.Conv2D(4, 3, groups=2, name="c"), (8, 8, 3), "layer 'c' .*multiples of groups=2"),
        (lambda: nn.MaxPool2D(9, name="p"), (8, 8, 3), r"layer 'p' \(MaxPooling2D\)"),
        (lambda: nn.Reshape((5, -1), name="r"), (8, 2), r"layer 'r' .*fill \(5, -1\).*\(None, 8, 2\)"),
        (lambda: nn.BatchNormalization(axis=1, name="b"), (8, 8, 3), "layer 'b' .*axis 1"),
        (lambda: nn.ZeroPadding2D(1, name="z"), (8,), "layer 'z' "),
        (lambda: nn.Softmax(axis=3, name="s"), (8,), "layer 's' "),
    ],
)
def test_shape_errors_name_the_layer(make, shape, text):
    with pytest.raises(GeometryError, match=text):
        make()(nn.Input(shape))


def test_merge_errors():
    a, b = nn.Input((4, 4, 2)), nn.Input((4, 5, 2))
    with pytest.raises(GeometryError, match=r"layer 'add' \(Add\) wants inputs of one shape.*\(None, 4, 5, 2\)"):
        nn.Add(name="add")([a, b])
    with pytest.raises(GeometryError, match="differ in axis -1 alone"):
        nn.Concatenate()([a, b])
    assert nn.Concatenate(axis=2)([a, b]).shape == (None, 4, 9, 2)


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: nn.Conv2D(4, 3, padding="full"), ValueError, "padding must be 'valid', 'same', received 'full'"),
        (lambda: nn.Conv2D(4, 3, data_format="channels_first"), ValueError, "data_format must be 'channels_last'"),
        (lambda: nn.Conv2D(0, 3), ValueError, "filters"),
        (lambda: nn.Conv2D(4, 3, activation="swoosh"), ValueError, "activation must be"),
        (lambda: nn.Dropout(1.0), ValueError, r"rate must be in \[0, 1\)"),
        (lambda: nn.Dense(3, kernel_initializer="best"), ValueError, "initializer must be one of"),
        (lambda: nn.Dense(3, kernel_regularizer="l3"), ValueError, "regularizer must be"),
    ],
)
def test_argument_errors(make, error, text):
    with pytest.raises(error, match=text):
        make()
