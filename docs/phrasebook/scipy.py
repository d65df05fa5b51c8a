"""SciPy's and NumPy's functions, and ours."""

from . import Row, Table

SCIPY = Table(
    title="SciPy and NumPy",
    package="scipy",
    imports="import numpy as np\nfrom scipy import ndimage, signal",
    given="`image` is (H, W), `k` a kernel (3, 3), `even` a kernel (2, 4), `volume` is (D, H, W) with a kernel `k3` "
    "(3, 3, 3), `sound` has one axis, and so has the filter `taps`, of odd length.",
    rows=(
        Row(
            "correlation, SciPy's default border",
            "ndimage.correlate(image, k)",
            'fastconv.conv2d(image[None], k[None, None], padding="same", padding_mode="symmetric")[0]',
        ),
        Row(
            "convolution flips the kernel",
            "ndimage.convolve(image, k)",
            'fastconv.conv2d(image[None], k[None, None, ::-1, ::-1], padding="same", padding_mode="symmetric")[0]',
        ),
        Row(
            "border `mirror`",
            'ndimage.correlate(image, k, mode="mirror")',
            'fastconv.conv2d(image[None], k[None, None], padding="same", padding_mode="reflect")[0]',
        ),
        Row(
            "border `nearest`",
            'ndimage.correlate(image, k, mode="nearest")',
            'fastconv.conv2d(image[None], k[None, None], padding="same", padding_mode="edge")[0]',
        ),
        Row(
            "border `wrap`",
            'ndimage.correlate(image, k, mode="wrap")',
            'fastconv.conv2d(image[None], k[None, None], padding="same", padding_mode="wrap")[0]',
        ),
        Row(
            "zeros around",
            'ndimage.correlate(image, k, mode="constant")',
            'fastconv.conv2d(image[None], k[None, None], padding="same")[0]',
        ),
        Row(
            "a kernel of even size",
            'ndimage.correlate(image, even, mode="constant")',
            'fastconv.conv2d(image[None], even[None, None], padding="same_lower")[0]',
        ),
        Row(
            "a volume",
            "ndimage.correlate(volume, k3)",
            'fastconv.conv3d(volume[None], k3[None, None], padding="same", padding_mode="symmetric")[0]',
        ),
        Row(
            "only where the kernel fits",
            'signal.correlate2d(image, k, mode="valid")',
            "fastconv.conv2d(image[None], k[None, None])[0]",
        ),
        Row(
            "wherever they touch",
            "signal.convolve2d(image, k)",
            'fastconv.conv2d(image[None], k[None, None, ::-1, ::-1], padding="full")[0]',
        ),
        Row(
            "mirrored border",
            'signal.convolve2d(image, k, mode="same", boundary="symm")',
            'fastconv.conv2d(image[None], k[None, None, ::-1, ::-1], padding="same", padding_mode="symmetric")[0]',
        ),
        Row(
            "a signal, full",
            "np.convolve(sound, taps)",
            'fastconv.conv1d(sound[None], taps[None, None, ::-1], padding="full")[0]',
        ),
        Row(
            "a signal, the same length",
            'signal.convolve(sound, taps, mode="same")',
            'fastconv.conv1d(sound[None], taps[None, None, ::-1], padding="same")[0]',
        ),
        Row(
            "Sobel",
            "ndimage.sobel(image, axis=1)",
            "fastconv.conv2d(image[None], np.outer([1, 2, 1], [-1, 0, 1])[None, None], "
            'padding="same", padding_mode="symmetric")[0]',
        ),
        Row(
            "mean of 5x5",
            "ndimage.uniform_filter(image, 5)",
            'fastconv.avg_pool2d(fastconv.pad(image, 2, mode="symmetric")[None], 5, stride=1)[0]',
        ),
        Row(
            "largest of 3x3",
            "ndimage.maximum_filter(image, 3)",
            "fastconv.max_pool2d(image[None], 3, stride=1, padding=1)[0]",
        ),
        Row(
            "smallest of 3x3",
            "ndimage.minimum_filter(image, 3)",
            "-fastconv.max_pool2d(-image[None], 3, stride=1, padding=1)[0]",
        ),
        Row("padding", 'np.pad(image, 3, mode="reflect")', 'fastconv.pad(image, 3, mode="reflect")'),
        Row(
            "every window",
            "np.lib.stride_tricks.sliding_window_view(image, (3, 3)).reshape(-1, 9).T",
            "fastconv.im2col(image[None], (3, 3))",
        ),
    ),
)
