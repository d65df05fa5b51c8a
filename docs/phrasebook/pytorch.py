"""PyTorch's functions and ours."""

from . import Row, Table

PYTORCH = Table(
    title="PyTorch",
    package="torch",
    imports="import torch\nimport torch.nn.functional as F",
    given="`x` is a batch of images (N, C, H, W), `w` a weight (K, C, 3, 3), `b` a bias (K,), `d` a depthwise weight "
    "(C, 1, 3, 3), `dy` a gradient of the result of a convolution with padding 1, `s` and `v` are batches of sequences "
    "and of volumes with weights `ws` and `wv`; `mean`, `var`, `gamma` and `beta` hold one number for each channel.",
    rows=(
        Row("convolution", "F.conv2d(x, w, b)", "fastconv.conv2d(x, w, b)"),
        Row(
            "stride and padding",
            "F.conv2d(x, w, b, stride=2, padding=1)",
            "fastconv.conv2d(x, w, b, stride=2, padding=1)",
        ),
        Row("dilation", "F.conv2d(x, w, b, dilation=2)", "fastconv.conv2d(x, w, b, dilation=2)"),
        Row("the same size", 'F.conv2d(x, w, padding="same")', 'fastconv.conv2d(x, w, padding="same")'),
        Row(
            "depthwise",
            "F.conv2d(x, d, padding=1, groups=x.shape[1])",
            "fastconv.conv2d(x, d, padding=1, groups=x.shape[1])",
        ),
        Row("sequences", "F.conv1d(s, ws, padding=2)", "fastconv.conv1d(s, ws, padding=2)"),
        Row("volumes", "F.conv3d(v, wv, padding=1)", "fastconv.conv3d(v, wv, padding=1)"),
        Row(
            "padding that reflects",
            'F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), w)',
            'fastconv.conv2d(x, w, padding=1, padding_mode="reflect")',
        ),
        Row(
            "padding that repeats the edge",
            'F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), w)',
            'fastconv.conv2d(x, w, padding=1, padding_mode="edge")',
        ),
        Row(
            "padding that wraps around",
            'F.conv2d(F.pad(x, (1, 1, 1, 1), mode="circular"), w)',
            'fastconv.conv2d(x, w, padding=1, padding_mode="wrap")',
        ),
        Row(
            "more padding on one side",
            "F.conv2d(F.pad(x, (1, 0, 2, 0)), w)",
            "fastconv.conv2d(x, w, padding=((2, 0), (1, 0)))",
        ),
        Row("with ReLU", "F.relu(F.conv2d(x, w, b))", 'fastconv.conv2d(x, w, b, activation="relu")'),
        Row("with SiLU", "F.silu(F.conv2d(x, w, b))", 'fastconv.conv2d(x, w, b, activation="silu")'),
        Row("with GELU", "F.gelu(F.conv2d(x, w, b))", 'fastconv.conv2d(x, w, b, activation="gelu")'),
        Row(
            "channels last",
            "F.conv2d(x, w).permute(0, 2, 3, 1)",
            'fastconv.conv2d(x.transpose(0, 2, 3, 1), w.transpose(2, 3, 1, 0), layout="NHWC")',
        ),
        Row(
            "transposed convolution",
            "F.conv_transpose2d(dy, w, stride=2, padding=1, output_padding=1)",
            "fastconv.conv_transpose2d(dy, w, stride=2, padding=1, output_padding=1)",
        ),
        Row(
            "gradient to the input",
            "torch.nn.grad.conv2d_input(x.shape, w, dy, padding=1)",
            "fastconv.conv2d_backward(dy, x, w, padding=1).x",
        ),
        Row(
            "gradient to the weight",
            "torch.nn.grad.conv2d_weight(x, w.shape, dy, padding=1)",
            "fastconv.conv2d_backward(dy, x, w, padding=1).weight",
        ),
        Row("max pooling", "F.max_pool2d(x, 3, 2, 1)", "fastconv.max_pool2d(x, 3, stride=2, padding=1)"),
        Row(
            "sizes rounded up",
            "F.max_pool2d(x, 3, 2, ceil_mode=True)",
            "fastconv.max_pool2d(x, 3, stride=2, ceil_mode=True)",
        ),
        Row(
            "where the maxima were",
            "F.max_pool2d(x, 2, return_indices=True)[1]",
            "fastconv.max_pool2d_with_indices(x, 2)[1]",
        ),
        Row(
            "back to where they were",
            "F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2)",
            "fastconv.max_unpool2d(*fastconv.max_pool2d_with_indices(x, 2), 2)",
        ),
        Row("average pooling", "F.avg_pool2d(x, 3, 2, 1)", "fastconv.avg_pool2d(x, 3, stride=2, padding=1)"),
        Row(
            "without counting padding",
            "F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)",
            "fastconv.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False)",
        ),
        Row("Lp pooling", "F.lp_pool2d(x, 2, 2)", "fastconv.lp_pool2d(x, 2, 2)"),
        Row("adaptive pooling", "F.adaptive_avg_pool2d(x, (5, 3))", "fastconv.adaptive_avg_pool2d(x, (5, 3))"),
        Row("mean of every channel", "x.mean((2, 3))", "fastconv.global_avg_pool(x, keepdims=False)"),
        Row(
            "zeros around (there the last axis comes first)",
            "F.pad(x, (1, 2, 3, 4))",
            "fastconv.pad(x, ((0, 0), (0, 0), (3, 4), (1, 2)))",
        ),
        Row("windows as columns", "F.unfold(x, 3, padding=1)", "fastconv.im2col(x, 3, padding=1)"),
        Row(
            "columns added back",
            "F.fold(F.unfold(x, 3), x.shape[2:], 3)",
            "fastconv.col2im(fastconv.im2col(x, 3), x.shape[2:], 3)",
        ),
        Row(
            "batch normalisation, in use",
            "F.batch_norm(x, mean, var, gamma, beta)",
            "fastconv.batch_norm(x, gamma, beta, mean, var)",
        ),
        Row(
            "batch normalisation, in training",
            "F.batch_norm(x, None, None, gamma, beta, training=True)",
            "fastconv.batch_norm_train(x, gamma, beta)[0]",
        ),
        Row("an activation by itself", "F.hardswish(x)", 'fastconv.activate(x, "hard_swish")'),
    ),
)
