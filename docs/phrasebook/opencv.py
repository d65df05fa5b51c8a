"""OpenCV's filters and ours."""

from . import Row, Table

OPENCV = Table(
    title="OpenCV",
    package="cv2",
    imports="import cv2\nimport numpy as np",
    given="`image` is (H, W) in float32, `photo` (H, W, 3) in uint8, `k` a kernel (3, 3), `row` and `column` are "
    "filters with one axis of length 5, and `g` is the array [1, 4, 6, 4, 1] / 16.",
    rows=(
        Row(
            "a filter, OpenCV's default border",
            "cv2.filter2D(image, -1, k)",
            'fastconv.conv2d(image[None], k[None, None], padding="same", padding_mode="reflect")[0]',
        ),
        Row(
            "the edge repeated",
            "cv2.filter2D(image, -1, k, borderType=cv2.BORDER_REPLICATE)",
            'fastconv.conv2d(image[None], k[None, None], padding="same", padding_mode="edge")[0]',
        ),
        Row(
            "mirrored with the edge",
            "cv2.filter2D(image, -1, k, borderType=cv2.BORDER_REFLECT)",
            'fastconv.conv2d(image[None], k[None, None], padding="same", padding_mode="symmetric")[0]',
        ),
        Row(
            "zeros around",
            "cv2.filter2D(image, -1, k, borderType=cv2.BORDER_CONSTANT)",
            'fastconv.conv2d(image[None], k[None, None], padding="same")[0]',
        ),
        Row(
            "every colour by itself",
            "cv2.filter2D(photo, cv2.CV_32F, k)",
            "fastconv.conv2d(photo, np.stack([k] * 3, axis=-1)[:, :, None], groups=3, "
            'padding="same", padding_mode="reflect", layout="NHWC")',
        ),
        Row(
            "a separable filter",
            "cv2.sepFilter2D(image, -1, row, column)",
            "fastconv.conv2d(image[None], np.outer(column, row)[None, None], "
            'padding="same", padding_mode="reflect")[0]',
        ),
        Row(
            "Gaussian blur",
            "cv2.GaussianBlur(image, (5, 5), 0)",
            'fastconv.conv2d(image[None], np.outer(g, g)[None, None], padding="same", padding_mode="reflect")[0]',
        ),
        Row(
            "Sobel",
            "cv2.Sobel(image, cv2.CV_32F, 1, 0)",
            "fastconv.conv2d(image[None], np.outer([1, 2, 1], [-1, 0, 1])[None, None], "
            'padding="same", padding_mode="reflect")[0]',
        ),
        Row(
            "Laplacian",
            "cv2.Laplacian(image, cv2.CV_32F)",
            "fastconv.conv2d(image[None], np.array([[[[0, 1, 0], [1, -4, 1], [0, 1, 0]]]]), "
            'padding="same", padding_mode="reflect")[0]',
        ),
        Row(
            "mean of 5x5",
            "cv2.blur(image, (5, 5))",
            'fastconv.avg_pool2d(fastconv.pad(image, 2, mode="reflect")[None], 5, stride=1)[0]',
        ),
        Row(
            "dilation: the largest of 3x3",
            "cv2.dilate(image, np.ones((3, 3)))",
            "fastconv.max_pool2d(image[None], 3, stride=1, padding=1)[0]",
        ),
        Row(
            "erosion: the smallest of 3x3",
            "cv2.erode(image, np.ones((3, 3)))",
            "-fastconv.max_pool2d(-image[None], 3, stride=1, padding=1)[0]",
        ),
        Row(
            "half the size, by means",
            "cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)",
            "fastconv.avg_pool2d(image[None], 2)[0]",
        ),
        Row(
            "padding",
            "cv2.copyMakeBorder(image, 2, 2, 3, 3, cv2.BORDER_REFLECT_101)",
            'fastconv.pad(image, ((2, 2), (3, 3)), mode="reflect")',
        ),
    ),
)
