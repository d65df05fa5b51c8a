"""Calls are remembered by their arguments: what only looks alike is not taken for it. Nor do results warn."""

from __future__ import annotations

import numpy as np
import pytest

import fastconv

X, W = np.ones((1, 1, 5)), np.ones((1, 1, 2))


@pytest.mark.parametrize(
    ("good", "bad"), [(1, True), (np.int8(1), np.True_), (2, 2.0), (np.int64(2), np.float64(1e-323))]
)
def test_a_remembered_number_does_not_admit_another_type(good, bad):
    fastconv.conv1d(X, W, stride=good, backend="numpy")
    with pytest.raises(TypeError, match="stride must be an integer"):
        fastconv.conv1d(X, W, stride=bad, backend="numpy")


@pytest.mark.parametrize("backend", ["reference", "numpy"])
def test_infinite_and_overflowing_values_raise_no_warning(backend):
    x, w = np.full((1, 1, 4), np.inf, np.float32), np.ones((1, 1, 2), np.float32)
    assert fastconv.conv1d(x, w, [1e300], backend=backend).tolist() == [[[np.inf] * 3]]
    assert np.isnan(fastconv.conv_transpose1d(x, w, [-np.inf], backend=backend)).all()
    grads = fastconv.conv1d_backward(np.array([[[np.inf, -np.inf, 0]]]), x, w, needs="bias", backend=backend)
    assert np.isnan(grads.bias).all()
    large = np.full(5, 6e4, np.float16)
    assert fastconv.pad_backward(large, 1, mode="edge", backend=backend).tolist()[0] == np.inf
