"""Keras' functions and layers, and ours."""

from . import Row, Table

KERAS = Table(
    title="Keras",
    package="keras",
    imports="import keras",
    given="`x` is a batch of images (N, H, W, C), `w` a weight (3, 3, C, K), `d` a depthwise weight (3, 3, C, 1), `e` "
    "a weight of one pixel (1, 1, C, K), `t` a transposed weight (3, 3, K, C), `s` a batch of sequences (N, W, C); "
    "`mean`, `var`, `gamma` and `beta` hold one number for each channel.",
    rows=(
        Row("convolution", "keras.ops.conv(x, w)", 'fastconv.conv2d(x, w, layout="NHWC")'),
        Row(
            "the same size, stride 2",
            'keras.ops.conv(x, w, strides=2, padding="same")',
            'fastconv.conv2d(x, w, stride=2, padding="same", layout="NHWC")',
        ),
        Row(
            "dilation",
            "keras.ops.conv(x, w, dilation_rate=2)",
            'fastconv.conv2d(x, w, dilation=2, layout="NHWC")',
        ),
        Row(
            "with ReLU",
            "keras.ops.relu(keras.ops.conv(x, w))",
            'fastconv.conv2d(x, w, layout="NHWC", activation="relu")',
        ),
        Row(
            "channels first",
            'keras.ops.conv(keras.ops.transpose(x, (0, 3, 1, 2)), w, data_format="channels_first")',
            "fastconv.conv2d(x.transpose(0, 3, 1, 2), w.transpose(3, 2, 0, 1))",
        ),
        Row(
            "depthwise",
            'keras.ops.depthwise_conv(x, d, padding="same")',
            'fastconv.conv2d(x, d.transpose(0, 1, 3, 2), padding="same", groups=x.shape[-1], layout="NHWC")',
        ),
        Row(
            "separable",
            "keras.ops.separable_conv(x, d, e)",
            'fastconv.conv2d(fastconv.conv2d(x, d.transpose(0, 1, 3, 2), groups=x.shape[-1], layout="NHWC"), e, '
            'layout="NHWC")',
        ),
        Row(
            "transposed convolution",
            'keras.ops.conv_transpose(x, t, strides=2, padding="same")',
            'fastconv.conv_transpose2d(x, t, stride=2, padding="same", layout="NHWC")',
        ),
        Row("max pooling", "keras.ops.max_pool(x, 2)", 'fastconv.max_pool2d(x, 2, layout="NHWC")'),
        Row(
            "max pooling, the same size",
            'keras.ops.max_pool(x, 3, strides=1, padding="same")',
            'fastconv.max_pool2d(x, 3, stride=1, padding="same", layout="NHWC")',
        ),
        Row(
            "average pooling, the same size (not as Keras on PyTorch)",
            'keras.ops.average_pool(x, 3, strides=2, padding="same")',
            'fastconv.avg_pool2d(x, 3, stride=2, padding="same", count_include_pad=False, layout="NHWC")',
        ),
        Row(
            "mean of every channel",
            "keras.layers.GlobalAveragePooling2D()(x)",
            'fastconv.global_avg_pool(x, keepdims=False, layout="NHWC")',
        ),
        Row(
            "zeros around",
            "keras.layers.ZeroPadding2D(((1, 2), (3, 4)))(x)",
            "fastconv.pad(x, ((0, 0), (1, 2), (3, 4), (0, 0)))",
        ),
        Row(
            "batch normalisation, in use",
            "keras.ops.batch_normalization(x, mean, var, axis=-1, offset=beta, scale=gamma)",
            'fastconv.batch_norm(x, gamma, beta, mean, var, eps=1e-3, layout="NHWC")',
        ),
        Row(
            "a layer",
            'keras.layers.Conv2D(4, 3, padding="same", activation="relu", kernel_initializer="ones")(x)',
            'nn.Sequential([nn.Conv2D(4, 3, padding="same", activation="relu", kernel_initializer="ones")])'
            ".predict(x, verbose=0)",
        ),
        Row(
            "a causal layer",
            'keras.layers.Conv1D(4, 3, padding="causal", kernel_initializer="ones")(s)',
            'nn.Sequential([nn.Conv1D(4, 3, padding="causal", kernel_initializer="ones")]).predict(s, verbose=0)',
        ),
    ),
)
