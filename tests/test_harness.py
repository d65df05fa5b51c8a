"""The harness is tested: deliberately wrong backends must fail it, and a right one must not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import oracles
import pytest
from support import work

import fastconv
from fastconv.backends import registry
from fastconv.backends._reference import ReferenceBackend
from fastconv.testing import CONV_CASES, PAD_CASES, POOL_CASES, assert_close, largest_excess, tolerance

CONVS = [c for c in CONV_CASES[::9] if work(c) < 100_000]
POOLS = [c for c in POOL_CASES[::6] if work(c) < 20_000]


class Right(ReferenceBackend):
    """The reference by another name."""

    name = "right"


class OffByOne(Right):
    """Every window one to the right."""

    def conv(self, geometry: Any, x: Any, *rest: Any) -> None:
        super().conv(geometry, np.roll(x, -1, axis=-1), *rest)


class NoBias(Right):
    """Forgets the bias."""

    def conv(self, geometry: Any, x: Any, weight: Any, bias: Any, *rest: Any) -> None:
        super().conv(geometry, x, weight, None, *rest)


class SwappedStride(Right):
    """Steps of height and width exchanged, wherever the sizes allow it."""

    def conv(self, geometry: Any, x: Any, *rest: Any) -> None:
        d, h, w = geometry.stride
        super().conv(replace(geometry, stride=(d, w, h)), np.pad(x, [(0, 0)] * 3 + [(0, 40)] * 2), *rest)


class NoGroups(Right):
    """Every group sees the channels of the first."""

    def conv(self, geometry: Any, x: Any, *rest: Any) -> None:
        first = x[:, : geometry.in_channels // geometry.groups]
        super().conv(geometry, np.tile(first, (1, geometry.groups, 1, 1, 1)), *rest)


class NoDilation(Right):
    """Taps side by side."""

    def conv(self, geometry: Any, *rest: Any) -> None:
        super().conv(replace(geometry, dilation=(1, 1, 1)), *rest)


class Flipped(Right):
    """Convolution as mathematicians mean it."""

    def conv(self, geometry: Any, x: Any, weight: Any, *rest: Any) -> None:
        super().conv(geometry, x, weight[:, :, ::-1, ::-1, ::-1], *rest)


class Forgetful(Right):
    """Leaves the last output as it was."""

    def conv(self, geometry: Any, x: Any, weight: Any, bias: Any, activation: Any, out: Any, algorithm: Any) -> None:
        super().conv(geometry, x, weight, bias, activation, out, algorithm)
        out.reshape(-1)[-1:] = 99


class Sloppy(Right):
    """Computes in half precision."""

    def conv(self, geometry: Any, x: Any, weight: Any, *rest: Any) -> None:
        super().conv(geometry, x.astype(np.float16).astype(x.dtype), weight, *rest)


class WrongGradient(Right):
    """The gradient to the input with the kernel turned round."""

    def conv_backward_data(self, geometry: Any, grad_output: Any, weight: Any, dx: Any) -> None:
        super().conv_backward_data(geometry, grad_output, weight[:, :, ::-1, ::-1, ::-1], dx)


class HalfTheBatch(Right):
    """The gradient to the weight from the first image alone."""

    def conv_backward_weight(self, geometry: Any, grad_output: Any, x: Any, dw: Any, db: Any) -> None:
        super().conv_backward_weight(geometry, grad_output[:1], x[:1], dw, db)


class NaNIgnored(Right):
    """A maximum that passes NaN over."""

    def max_pool(self, geometry: Any, x: Any, out: Any, indices: Any) -> None:
        super().max_pool(geometry, np.nan_to_num(x, nan=-np.inf), out, indices)


class LastIndex(Right):
    """On a tie the last."""

    def max_pool(self, geometry: Any, x: Any, out: Any, indices: Any) -> None:
        super().max_pool(geometry, x, out, indices)
        if indices is not None:
            flat = np.ascontiguousarray(x).reshape(*x.shape[:2], -1)
            same = flat[..., 1:] == flat[..., :-1]
            indices[...] = np.where((indices == 0) & same[:, :, :1, None, None], 1, indices)


class CountsPadding(Right):
    """An average that always divides by the whole window."""

    def avg_pool(self, geometry: Any, x: Any, out: Any) -> None:
        super().avg_pool(replace(geometry, count_include_pad=True), x, out)


class EdgeForReflect(Right):
    """Pads with the edge whatever is asked for."""

    def pad(self, geometry: Any, x: Any, value: Any, out: Any) -> None:
        super().pad(replace(geometry, mode="edge") if geometry.mode != "constant" else geometry, x, value, out)


def check_conv(name: str) -> None:
    import test_conv

    test_conv.test_by_hand(name)
    for case in CONVS:
        test_conv.test_integers(case, name, "direct")
        test_conv.test_random(case, name, "direct")


def check_gradients(name: str) -> None:
    import test_conv_backward

    for case in CONVS:
        test_conv_backward.test_gradients(case, name, "integers")


def check_pool(name: str) -> None:
    import test_pool

    for case in POOLS:
        test_pool.test_max(case, name, "integers")
        if not case.dilated:
            test_pool.test_average(case, name, "integers")
    test_pool.test_nan(name, "NCHW", "float32")


def check_pad(name: str) -> None:
    import test_pad

    for case in PAD_CASES:
        test_pad.test_numpy(case, name)


WRONG = [
    (check_conv, (OffByOne, NoBias, SwappedStride, NoGroups, NoDilation, Flipped, Forgetful, Sloppy)),
    (check_gradients, (WrongGradient, HalfTheBatch)),
    (check_pool, (NaNIgnored, LastIndex, CountsPadding)),
    (check_pad, (EdgeForReflect,)),
]


def install(monkeypatch: pytest.MonkeyPatch, kind: type[Right]) -> str:
    """Make a backend known for the time of a test."""
    name = kind.__name__
    backend = kind()
    monkeypatch.setitem(registry._loaded, name, backend)
    return name


@pytest.mark.parametrize("check", [c for c, _ in WRONG], ids=lambda c: c.__name__)
def test_right(monkeypatch: pytest.MonkeyPatch, check: Callable[[str], None]) -> None:
    check(install(monkeypatch, Right))


@pytest.mark.parametrize(("check", "kind"), [pytest.param(c, k, id=k.__name__) for c, kinds in WRONG for k in kinds])
def test_wrong(monkeypatch: pytest.MonkeyPatch, check: Callable[[str], None], kind: type[Right]) -> None:
    name = install(monkeypatch, kind)
    with pytest.raises((AssertionError, ValueError)):
        check(name)


def test_comparison() -> None:
    """The comparison sees what it must, and lets pass what it may."""
    one = np.array([1.0, 2.0, np.nan, np.inf])
    assert_close(one, one)
    assert_close(one + np.array([0.5, 0, 0, 0]), one, 0.5)
    for other in (
        [1.0, 2.0, 3.0, np.inf],
        [1.0, 2.0, np.nan, -np.inf],
        [1.0, np.nan, np.nan, np.inf],
        [1.5, 2, np.nan, np.inf],
    ):
        with pytest.raises(AssertionError, match="1 of 4 elements are wrong"):
            assert_close(np.array(other), one, 0.25, "comparison")
    with pytest.raises(AssertionError, match=r"shape \(4,\), expected \(1, 4\)"):
        assert_close(one, one[None])
    with pytest.raises(AssertionError):
        assert_close(np.array([np.inf]), np.array([1e308]), 1e308)
    assert largest_excess(np.array([2.0]), np.array([1.0]), 0.25) == 0.75
    assert largest_excess(np.zeros(0), np.zeros(0)) == 0


def test_tolerance() -> None:
    """It grows with magnitude and length, shrinks with precision and with bounded chains, and is zero where exact."""
    one = np.ones(3)
    assert (tolerance("float32", 100, one, exact=True) == 0).all()
    assert (tolerance("float32", 100, 2 * one) > tolerance("float32", 100, one)).all()
    assert (tolerance("float32", 1000, one) > tolerance("float32", 100, one)).all()
    assert (tolerance("float32", 1000, one, chain=50) < tolerance("float32", 1000, one)).all()
    assert (tolerance("float64", 100, one) < tolerance("float32", 100, one)).all()
    assert (tolerance("float16", 100, one) > tolerance("float32", 100, one)).all()
    assert (tolerance("float32", 1000, one, random=True) < tolerance("float32", 1000, one)).all()
    assert (tolerance("float32", 9, 0 * one) > 0).all()
    spot = np.zeros((1, 1, 9, 9))
    spot[0, 0, 4, 4] = 1
    spread = tolerance("float32", 9, spot, algorithm="winograd_2x3", spatial_axes=(2, 3))
    assert (spread > 1e-9).sum() == 49


def test_oracles_fail_too() -> None:
    """An oracle with a wrong pad is noticed by the comparison of oracles."""
    case = CONVS[0]
    x = np.ones(case.x_shape)
    w = np.ones(case.weight_shape)
    right = oracles.taps_conv(case, x, w, None)
    wrong = oracles.taps_conv(case, x, w, None, pairs=[(0, 2), (2, 0)])
    assert right.shape == wrong.shape
    assert (right != wrong).any()
    assert fastconv.conv2d(x, w, **case.keywords, backend="reference").tolist() == right.tolist()
