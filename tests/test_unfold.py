"""im2col and col2im: columns gathered by hand, PyTorch's unfold and fold where it has them, and the adjoint."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import oracles
import pytest

import fastconv
from fastconv.testing import assert_close, values

CASES: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((2, 3, 5, 6), (3, 3), {}),
    ((2, 3, 5, 6), (2, 3), {"stride": (2, 1), "padding": 1}),
    ((1, 2, 7, 9), (3, 2), {"dilation": (2, 3), "padding": (2, 0)}),
    ((2, 1, 6, 5), (4, 4), {"padding": "same"}),
    ((1, 2, 4, 4), (2, 2), {"stride": 3, "padding": ((1, 2), (0, 1))}),
    ((2, 3, 9), (4,), {"stride": 2}),
    ((1, 2, 4, 5, 3), (2, 3, 2), {"padding": 1, "stride": (1, 2, 1)}),
    ((1, 1, 1, 1), (1, 1), {}),
]
IDS = ["x".join(map(str, kernel)) + f"-{i}" for i, (_, kernel, _) in enumerate(CASES)]


def columns(x: np.ndarray, kernel: tuple[int, ...], keywords: dict[str, Any]) -> np.ndarray:
    """Every window flattened, in the order of output positions."""
    rank = len(kernel)

    def each(name: str) -> tuple[int, ...]:
        value = keywords.get(name, 1)
        return (value,) * rank if isinstance(value, int) else tuple(value)

    stride, dilation = each("stride"), each("dilation")
    around = oracles.pads(keywords.get("padding", 0), x.shape[2:], kernel, stride, dilation)
    padded = np.pad(x, [(0, 0), (0, 0), *around])
    starts = [
        range(0, n - (k - 1) * d, s) for n, k, d, s in zip(padded.shape[2:], kernel, dilation, stride, strict=True)
    ]
    found = []
    for start in itertools.product(*starts):
        window = tuple(slice(i, i + (k - 1) * d + 1, d) for i, k, d in zip(start, kernel, dilation, strict=True))
        found.append(padded[(slice(None), slice(None), *window)].reshape(x.shape[0], -1))
    return np.stack(found, axis=-1)


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8", "int16"])
@pytest.mark.parametrize(("shape", "kernel", "keywords"), CASES, ids=IDS)
def test_im2col(backend: str, shape: Any, kernel: Any, keywords: Any, dtype: str) -> None:
    x = values("integers", shape, dtype, "im2col")
    found = fastconv.im2col(x, kernel, **keywords, backend=backend)
    assert found.dtype == dtype
    assert_close(found, columns(x, kernel, keywords))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("shape", "kernel", "keywords"), CASES, ids=IDS)
def test_col2im(backend: str, shape: Any, kernel: Any, keywords: Any, dtype: str) -> None:
    """Each column is added back to where it came from: told by the columns of an array of element numbers."""
    source = columns(np.arange(1, np.prod(shape) + 1).reshape(shape), kernel, keywords)
    cols = values("integers", source.shape, dtype, "col2im")
    expected = np.zeros(int(np.prod(shape)) + 1)
    np.add.at(expected, source.ravel(), cols.ravel().astype(float))
    found = fastconv.col2im(cols, shape[2:], kernel, **keywords, backend=backend)
    assert found.dtype == dtype
    assert_close(found, expected[1:].reshape(shape))


@pytest.mark.parametrize("padding", [0, 1, (1, 0)])
def test_torch(backend: str, padding: Any) -> None:
    oracles.needs_torch()
    torch = oracles.torch
    x = values("normal", (2, 3, 8, 9), "float64", "x")
    cols = fastconv.im2col(x, (3, 2), stride=(2, 1), padding=padding, dilation=(1, 2), backend=backend)
    theirs = torch.nn.functional.unfold(torch.from_numpy(x), (3, 2), (1, 2), padding, (2, 1)).numpy()
    assert_close(cols, theirs)


def test_convolution_is_a_product(backend: str) -> None:
    x, w = values("integers", (2, 3, 6, 7), "float64", "x"), values("integers", (5, 3, 3, 2), "float64", "w")
    cols = fastconv.im2col(x, (3, 2), padding=1, backend=backend)
    y = fastconv.conv2d(x, w, padding=1, backend=backend)
    assert_close((w.reshape(5, -1) @ cols).reshape(y.shape), y)
