"""What bad input gets: one clear exception, the same from every backend, nothing written, never a crash."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support import BUILTIN, REASONS

import fastconv
from fastconv import DTypeError, GeometryError, UnknownNameError

X = np.ones((2, 4, 8, 9), np.float32)
W = np.ones((6, 4, 3, 3), np.float32)
B = np.ones(6, np.float32)
DY = np.ones((2, 6, 6, 7), np.float32)
POOLED = np.ones((2, 4, 4, 4), np.float32)
AVAILABLE = [name for name in BUILTIN if REASONS[name] is None]

conv, back, tran = fastconv.conv2d, fastconv.conv2d_backward, fastconv.conv_transpose2d
Bad = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], type[Exception], str]

# what came, and what the text must say: the function, the argument, what came and what was expected
ARGUMENTS: list[Bad] = [
    (
        conv,
        (X, W[:, :3]),
        {},
        GeometryError,
        r"conv2d: weight has 3 input channels per group \(shape \(6, 3, 3, 3\)\), but x has 4 channels and groups=1",
    ),
    (
        conv,
        (X[0, 0], W),
        {},
        GeometryError,
        r"conv2d: x must have 4 axes \(NCHW\) or 3 without the batch, received shape",
    ),
    (conv, (X[None], W), {}, GeometryError, r"conv2d: x must have 4 axes .* \(1, 2, 4, 8, 9\)"),
    (
        conv,
        (X, W[0]),
        {},
        GeometryError,
        r"conv2d: weight must have 4 axes, \(C_out, C_in/groups, \*kernel\), received",
    ),
    (
        conv,
        (X, W[:, :, :0]),
        {},
        GeometryError,
        r"conv2d: weight has an empty kernel axis, received shape \(6, 4, 0, 3\)",
    ),
    (conv, (X, W), {"groups": 3}, GeometryError, r"conv2d: groups=3 does not divide the 4 input channels"),
    (conv, (X, W[:5, :1]), {"groups": 4}, GeometryError, r"conv2d: groups=4 does not divide the 5 output channels"),
    (conv, (X, W), {"groups": 0}, GeometryError, r"conv2d: groups must be at least 1, received 0"),
    (conv, (X, W), {"groups": True}, TypeError, r"conv2d: groups must be an integer, received the bool True"),
    (conv, (X, W), {"groups": 1.0}, TypeError, r"conv2d: groups must be an integer, received 1.0"),
    (conv, (X, W), {"groups": (1,)}, TypeError, r"conv2d: groups must be an integer"),
    (conv, (X, W), {"stride": 0}, GeometryError, r"conv2d: stride must be at least 1, received 0"),
    (conv, (X, W), {"stride": -1}, GeometryError, r"conv2d: stride must be at least 1, received -1"),
    (conv, (X, W), {"stride": (1, 2, 3)}, GeometryError, r"conv2d: stride must have 2 entries, received \(1, 2, 3\)"),
    (conv, (X, W), {"stride": 1.5}, TypeError, r"conv2d: stride must be an integer, received 1.5"),
    (conv, (X, W), {"stride": True}, TypeError, r"conv2d: stride must be an integer, received the bool True"),
    (conv, (X, W), {"stride": (1, True)}, TypeError, r"conv2d: stride must be an integer, received the bool True"),
    (conv, (X, W), {"stride": "2"}, TypeError, r"conv2d: stride must be an integer or 2 integers, received '2'"),
    (conv, (X, W), {"stride": None}, TypeError, r"conv2d: stride must be an integer, received None"),
    (conv, (X, W), {"stride": ((1, 1), (1, 1))}, TypeError, r"conv2d: stride must be an integer, received \(1, 1\)"),
    (conv, (X, W), {"stride": np.float32(1)}, TypeError, r"conv2d: stride must be an integer"),
    (conv, (X, W), {"dilation": 0}, GeometryError, r"conv2d: dilation must be at least 1, received 0"),
    (conv, (X, W), {"dilation": (1,)}, GeometryError, r"conv2d: dilation must have 2 entries, received \(1,\)"),
    (conv, (X, W), {"padding": -1}, GeometryError, r"conv2d: padding must be at least 0, received -1"),
    (conv, (X, W), {"padding": ((0, -1), (0, 0))}, GeometryError, r"conv2d: padding must be at least 0, received -1"),
    (conv, (X, W), {"padding": (1, (1, 2))}, GeometryError, r"conv2d: padding mixes integers and pairs, received"),
    (
        conv,
        (X, W),
        {"padding": ((1, 1),)},
        GeometryError,
        r"conv2d: padding must have one \(before, after\) pair per axis",
    ),
    (conv, (X, W), {"padding": ((1, 1, 1), (1, 1, 1))}, GeometryError, r"conv2d: padding must have 2 entries"),
    (conv, (X, W), {"padding": (1, 1, 1)}, GeometryError, r"conv2d: padding must have 2 entries, received \(1, 1, 1\)"),
    (conv, (X, W), {"padding": 1.0}, TypeError, r"conv2d: padding must be an integer, received 1.0"),
    (conv, (X, W), {"padding": False}, TypeError, r"conv2d: padding must be an integer, received the bool False"),
    (
        conv,
        (X, W),
        {"padding": "sane"},
        UnknownNameError,
        r"conv2d: padding must be .* valid, same, same_lower, full.*'sane'",
    ),
    (
        conv,
        (X, W),
        {"padding_mode": "zeros"},
        UnknownNameError,
        r"conv2d: padding_mode must be one of constant, .*'zeros'",
    ),
    (
        conv,
        (X, W),
        {"layout": "NWHC"},
        UnknownNameError,
        r"conv2d: layout must be None, 'NCHW' or 'NHWC', received 'NWHC'",
    ),
    (
        conv,
        (X, W),
        {"layout": "NCW"},
        UnknownNameError,
        r"conv2d: layout must be None, 'NCHW' or 'NHWC', received 'NCW'",
    ),
    (
        conv,
        (X, W),
        {"activation": "rleu"},
        UnknownNameError,
        r"conv2d: activation must be None or one of relu, .*'rleu'",
    ),
    (
        conv,
        (X, W),
        {"algorithm": "fastest"},
        UnknownNameError,
        r"conv2d: algorithm must be 'auto' or one of .*'fastest'",
    ),
    (conv, (X, W, B[:5]), {}, GeometryError, r"conv2d: bias must have shape \(6,\), received \(5,\)"),
    (conv, (X, W, B[:, None]), {}, GeometryError, r"conv2d: bias must have shape \(6,\), received \(6, 1\)"),
    (
        conv,
        (X[:, :, :2], W),
        {},
        GeometryError,
        r"conv2d: the kernel covers 3 positions along height, more than the padded input has \(2 \+ 0 \+ 0 = 2\)",
    ),
    (conv, (X, W), {"dilation": (1, 5)}, GeometryError, r"conv2d: the kernel covers 11 positions along width"),
    (conv, (X[:, :, :, :0], W), {"padding": 2}, GeometryError, r"conv2d: x is empty along width"),
    (fastconv.conv1d, (X, W), {}, GeometryError, r"conv1d: x must have 3 axes \(NCW\) or 2 without the batch"),
    (fastconv.conv3d, (X, W), {"stride": (1, 1)}, GeometryError, r"conv3d: "),
    (
        back,
        (DY[:, :, 1:], X, W),
        {},
        GeometryError,
        r"conv2d_backward: grad_output must have shape \(2, 6, 6, 7\), received",
    ),
    (back, (DY, X, W), {"needs": ("x", "w")}, UnknownNameError, r"conv2d_backward: needs may hold .*received 'w'"),
    (back, (DY, X, W), {"needs": 3}, TypeError, r"conv2d_backward: needs must be a sequence of names, received 3"),
    (back, (DY, X, W), {"out": np.ones(3)}, TypeError, r"conv2d_backward: out must be a tuple \(x, weight, bias\)"),
    (tran, (X, W), {}, GeometryError, r"conv_transpose2d: weight has 6 input channels .*but x has 4 channels"),
    (
        tran,
        (DY, W),
        {"output_padding": 1},
        GeometryError,
        r"conv_transpose2d: output_padding must be smaller than stride or",
    ),
    (
        tran,
        (DY, W),
        {"padding": 9},
        GeometryError,
        r"conv_transpose2d: the result would have -10 positions along height",
    ),
    (tran, (DY, W, B), {}, GeometryError, r"conv_transpose2d: bias must have shape \(4,\), received \(6,\)"),
    (fastconv.max_pool2d, (X, 0), {}, GeometryError, r"max_pool2d: kernel_size must be at least 1, received 0"),
    (fastconv.max_pool2d, (X, (2, 2, 2)), {}, GeometryError, r"max_pool2d: kernel_size must have 2 entries"),
    (fastconv.max_pool2d, (X, 2.0), {}, TypeError, r"max_pool2d: kernel_size must be an integer, received 2.0"),
    (fastconv.max_pool2d, (X, 2), {"stride": 0}, GeometryError, r"max_pool2d: stride must be at least 1, received 0"),
    (
        fastconv.max_pool2d,
        (X, 2),
        {"ceil_mode": 1},
        TypeError,
        r"max_pool2d: ceil_mode must be True or False, received 1",
    ),
    (fastconv.max_pool2d, (X, 10), {}, GeometryError, r"max_pool2d: the kernel covers 10 positions along height"),
    (fastconv.max_pool2d, (X[0, 0], 2), {}, GeometryError, r"max_pool2d: x must have 4 axes"),
    (
        fastconv.avg_pool2d,
        (X, 2),
        {"count_include_pad": None},
        TypeError,
        r"avg_pool2d: count_include_pad must be True or",
    ),
    (
        fastconv.max_pool2d_backward,
        (POOLED, X, 2),
        {"ties": "last"},
        UnknownNameError,
        r"max_pool2d_backward: ties must be one of first, all, split, received 'last'",
    ),
    (
        fastconv.max_pool2d_backward,
        (POOLED[:, :3], X, 2),
        {},
        GeometryError,
        r"max_pool2d_backward: grad_output must have shape \(2, 4, 4, 4\), received \(2, 3, 4, 4\)",
    ),
    (
        fastconv.avg_pool2d_backward,
        (POOLED[1:], X, 2),
        {},
        GeometryError,
        r"avg_pool2d_backward: grad_output must have",
    ),
    (fastconv.pad, (X, -1), {}, GeometryError, r"pad: pad_width must be at least 0, received -1"),
    (fastconv.pad, (X, 1.5), {}, TypeError, r"pad: pad_width must hold integers, received 1.5"),
    (fastconv.pad, (X, True), {}, TypeError, r"pad: pad_width must hold integers, received True"),
    (fastconv.pad, (X, [(1, 2, 3)]), {}, GeometryError, r"pad: pad_width must be an integer, a \(before, after\) pair"),
    (fastconv.pad, (X, [(1, 2)] * 3), {}, GeometryError, r"pad: pad_width must be .* one pair for each of the 4 axes"),
    (
        fastconv.pad,
        (X, 1),
        {"mode": "mirror"},
        UnknownNameError,
        r"pad: mode must be one of constant, edge, .*'mirror'",
    ),
    (
        fastconv.pad,
        (X[:0], 1),
        {"mode": "edge"},
        GeometryError,
        r"pad: axis 0 is empty, mode 'edge' has nothing to repeat",
    ),
    (fastconv.pad, (X.astype(np.uint8), 1), {"value": 256}, GeometryError, r"pad: value 256 does not fit dtype uint8"),
    (fastconv.pad, (X.astype(np.int8), 1), {"value": 0.5}, GeometryError, r"pad: value 0.5 does not fit dtype int8"),
    (fastconv.pad, (X, 1), {"value": [1, 2]}, GeometryError, r"pad: value must be one number"),
    (
        fastconv.pad_backward,
        (X, 5),
        {},
        GeometryError,
        r"pad_backward: grad_output of shape .* is no larger than its padding",
    ),
    (fastconv.im2col, (X, 12), {}, (GeometryError, TypeError), r"im2col: "),
    (fastconv.col2im, (X, (8, 9), (3, 3)), {}, GeometryError, r"col2im: columns must have 3 axes"),
]


def _raised(function: Callable[..., Any], *arrays: Any, **keywords: Any) -> Exception:
    try:
        function(*arrays, **keywords)
    except Exception as error:
        return error
    pytest.fail("nothing was raised")


@pytest.mark.parametrize(
    ("function", "arrays", "keywords", "kind", "text"),
    [pytest.param(*a, id=f"{i}-{a[0].__name__}") for i, a in enumerate(ARGUMENTS)],
)
def test_arguments(function: Any, arrays: Any, keywords: Any, kind: Any, text: str) -> None:
    """The same class and, but for the backend's name, the same text everywhere; twice alike, from the cache too."""
    found = set()
    for name in AVAILABLE:
        for _ in range(2):
            error = _raised(function, *arrays, **keywords, backend=name)
            with pytest.raises(kind, match=text):
                raise error
            if keywords.get("algorithm") is None:
                found.add((type(error), str(error)))
    assert len(found) <= 1, found


def test_all_are_value_or_type_errors() -> None:
    assert issubclass(GeometryError, ValueError)
    assert issubclass(UnknownNameError, ValueError)
    assert issubclass(DTypeError, TypeError)
    assert issubclass(fastconv.BackendUnavailableError, RuntimeError)
    for kind in (GeometryError, UnknownNameError, DTypeError, fastconv.BackendUnavailableError):
        assert issubclass(kind, fastconv.FastconvError)


STRANGE = {
    "complex": np.ones((2, 4, 8, 9), np.complex64), "object": np.full((2, 4, 8, 9), None),
    "longdouble": np.ones((2, 4, 8, 9), np.longdouble), "text": np.full((2, 4, 8, 9), "1"),
    "dates": np.zeros((2, 4, 8, 9), "datetime64[s]"), "records": np.zeros((2, 4, 8, 9), [("a", "f4")]),
    "ragged": [[1.0, 2.0], [3.0]], "none": None, "words": "image",
}  # fmt: skip


@pytest.mark.parametrize("kind", STRANGE)
def test_strange_arrays(backend: str, kind: str) -> None:
    """Complex, object and longdouble arrays, text and the like: a TypeError that names the argument."""
    strange: Any = STRANGE[kind]
    calls: list[tuple[str, Callable[[], Any]]] = [
        (r"conv2d: x ", lambda: conv(strange, W, backend=backend)),
        (r"conv2d: weight ", lambda: conv(X, strange, backend=backend)),
        (r"conv2d_backward: grad_output ", lambda: back(strange, X, W, backend=backend)),
        (r"conv_transpose2d: x ", lambda: tran(strange, W, backend=backend)),
        (r"max_pool2d: x ", lambda: fastconv.max_pool2d(strange, 2, backend=backend)),
        (r"max_pool2d_backward: ", lambda: fastconv.max_pool2d_backward(POOLED, strange, 2, backend=backend)),
        (r"avg_pool2d: x ", lambda: fastconv.avg_pool2d(strange, 2, backend=backend)),
        (r"pad: x ", lambda: fastconv.pad(strange, 1, backend=backend)),
        (r"pad_backward: grad_output ", lambda: fastconv.pad_backward(strange, 1, backend=backend)),
        (r"im2col: x ", lambda: fastconv.im2col(strange, (2, 2), backend=backend)),
    ]
    if strange is not None:
        calls.append((r"conv2d: bias ", lambda: conv(X, W, strange, backend=backend)))
    for text, call in calls:
        with pytest.raises(TypeError, match=text):
            call()


OUT_CALLS: dict[str, tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], tuple[int, ...]]] = {
    "conv2d": (conv, (X, W), {}, (2, 6, 6, 7)),
    "conv2d activation": (conv, (X, W), {"activation": "relu"}, (2, 6, 6, 7)),
    "conv_transpose2d": (tran, (DY, W), {}, (2, 4, 8, 9)),
    "max_pool2d": (fastconv.max_pool2d, (X, 2), {}, (2, 4, 4, 4)),
    "avg_pool2d": (fastconv.avg_pool2d, (X, 2), {}, (2, 4, 4, 4)),
    "max_pool2d_backward": (fastconv.max_pool2d_backward, (POOLED, X, 2), {}, (2, 4, 8, 9)),
    "avg_pool2d_backward": (fastconv.avg_pool2d_backward, (POOLED, X, 2), {}, (2, 4, 8, 9)),
    "pad": (fastconv.pad, (X, 1), {}, (4, 6, 10, 11)),
    "pad_backward": (fastconv.pad_backward, (X, ((0, 0), (0, 0), (1, 1), (1, 1))), {}, (2, 4, 6, 7)),
    "lp_pool2d": (fastconv.lp_pool2d, (X, 2, 2), {}, (2, 4, 4, 4)),
    "adaptive_avg_pool2d": (fastconv.adaptive_avg_pool2d, (X, 3), {}, (2, 4, 3, 3)),
}


@pytest.mark.parametrize("call", OUT_CALLS)
def test_out(backend: str, call: str) -> None:
    """Wrong shape, dtype, read-only, no array, overlapping: refused, and nothing is written."""
    function, arrays, keywords, shape = OUT_CALLS[call]
    name = function.__name__
    sentinel = np.full(shape, 7, np.float32)

    def refused(out: Any, kind: type[Exception], text: str) -> None:
        with pytest.raises(kind, match=text):
            function(*arrays, **keywords, out=out, backend=backend)

    refused(np.full((*shape[:-1], shape[-1] + 1), 7, np.float32), GeometryError, f"{name}: out must have shape")
    refused(np.full(shape[1:], 7, np.float32), GeometryError, f"{name}: out must have shape")
    for dtype in ("float64", "float16", "int32"):
        wrong = np.full(shape, 7, dtype)
        refused(wrong, DTypeError, f"{name}: out must have dtype float32, received {dtype}")
        assert (wrong == 7).all()
    refused(sentinel.tolist(), TypeError, f"{name}: out must be a NumPy array, received list")
    frozen = sentinel.copy()
    frozen.flags.writeable = False
    refused(frozen, ValueError, f"{name}: out is read-only")
    assert (frozen == 7).all()
    x = arrays[0]
    if x.size >= int(np.prod(shape)):
        overlapping = x.reshape(-1)[: int(np.prod(shape))].reshape(shape)
        refused(overlapping, ValueError, f"{name}: out shares memory with an input")
        assert (x == 1).all()


def test_out_between_the_elements_of_an_input(backend: str) -> None:
    """Memory bounds count: interleaved arrays share no element, yet are refused."""
    wide = np.ones((2, 4, 8, 18), np.float32)
    x, out = wide[..., ::2], wide[..., 1::2]
    with pytest.raises(ValueError, match=r"conv2d: out shares memory with an input"):
        conv(x, np.ones((4, 4, 1, 1), np.float32), out=out, backend=backend)
    assert (wide == 1).all()


def test_out_of_gradients(backend: str) -> None:
    dx, dw, db = np.full(X.shape, 7, np.float32), np.full(W.shape, 7, np.float32), np.full(6, 7, np.float32)
    frozen = db.copy()
    frozen.flags.writeable = False
    for outs, kind, text in (
        ((dx, dw[1:], db), GeometryError, r"conv2d_backward: out\[1\] must have shape"),
        ((dx, dw, db.astype(float)), DTypeError, r"conv2d_backward: out\[2\] must have dtype float32"),
        ((dx, dw, frozen), ValueError, r"conv2d_backward: out\[2\] is read-only"),
        ((dx, X.reshape(-1)[: W.size].reshape(W.shape), db), ValueError, r"out\[1\] shares memory with an input"),
        ((dx, dw), TypeError, r"conv2d_backward: out must be a tuple"),
    ):
        with pytest.raises(kind, match=text):
            back(DY, X, W, out=outs, backend=backend)
        assert (dx == 7).all()
        assert (dw == 7).all()


def test_gradients_may_not_share_one_out(backend: str) -> None:
    """Two results in one memory would spoil each other."""
    square = np.ones((4, 4, 3, 3), np.float32)
    one = np.full(square.shape, 7, np.float32)
    with pytest.raises(ValueError, match=r"shares memory"):
        back(np.ones((4, 4, 1, 1), np.float32), square, square, out=(one, one, None), backend=backend)
    assert (one == 7).all()


HUGE, VAST = (np.broadcast_to(np.float32(1), (1, 1, n, n)) for n in (2**24, 2**28))  # one number, 2**48 and 2**56 times


@pytest.mark.parametrize(
    "call",
    [
        lambda b: conv(HUGE, np.ones((1, 1, 1, 1), np.float32), backend=b),
        lambda b: conv(HUGE, np.ones((1, 1, 3, 3), np.float32), padding=1, padding_mode="reflect", backend=b),
        lambda b: tran(HUGE, np.ones((1, 1, 1, 1), np.float32), backend=b),
        lambda b: fastconv.max_pool2d(HUGE, 2, backend=b),
        lambda b: fastconv.avg_pool2d(HUGE, 2, backend=b),
        lambda b: fastconv.im2col(HUGE, (1, 1), backend=b),
        lambda b: fastconv.pad(np.ones((1, 1)), 2**28, backend=b),
        lambda b: fastconv.adaptive_avg_pool2d(np.ones((1, 1, 1, 1)), 2**27, backend=b),
    ],
)
def test_no_memory(backend: str, call: Callable[[str], Any]) -> None:
    """More than any machine has, but addressable: MemoryError."""
    with pytest.raises(MemoryError):
        call(backend)


@pytest.mark.parametrize(
    "call",
    [
        lambda b: conv(VAST, np.ones((16, 1, 1, 1), np.float32), backend=b),
        lambda b: conv(np.ones((1, 1, 2, 2)), np.ones((1, 1, 1, 1)), padding=2**40, backend=b),
        lambda b: conv(np.ones((1, 1, 2, 2)), np.ones((1, 1, 1, 1)), padding=2**200, backend=b),
        lambda b: tran(np.ones((1, 1, 2, 2)), np.ones((1, 1, 1, 1)), stride=2**40, backend=b),
        lambda b: fastconv.max_pool2d(np.ones((1, 1, 2, 2)), 1, stride=1, padding=2**33, backend=b),
        lambda b: fastconv.pad(np.ones((1, 1)), 2**40, backend=b),
        lambda b: fastconv.im2col(VAST, (16, 16), backend=b),
        lambda b: fastconv.adaptive_avg_pool2d(np.ones((1, 1, 2, 2)), 2**40, backend=b),
    ],
)
def test_sizes_that_overflow(backend: str, call: Callable[[str], Any]) -> None:
    with pytest.raises(GeometryError, match="more elements than memory can address"):
        call(backend)


def test_huge_strides_that_are_no_error(backend: str) -> None:
    """One window: how far the next one or the next tap would lie does not matter."""
    for huge in (2**31, 2**63, 2**70):
        y = conv(X, np.ones((6, 4, 8, 9), np.float32), stride=huge, backend=backend)
        assert (y == 8 * 9 * 4).all()
        y = conv(X, W[:, :, :1, :1], dilation=huge, stride=(7, 8), backend=backend)
        assert y.shape == (2, 6, 2, 2)
        assert (y == 4).all()
        dx, dw, _ = back(y, X, W[:, :, :1, :1], dilation=huge, stride=(7, 8), backend=backend)
        assert dx[0, 0, 0, 0] == 24
        assert (dw == 8 * 4).all()
        assert fastconv.max_pool2d(X, (8, 9), stride=huge, backend=backend).shape == (2, 4, 1, 1)
        assert fastconv.avg_pool2d(X, (8, 9), stride=huge, backend=backend).shape == (2, 4, 1, 1)
        assert fastconv.max_pool2d(X, 1, dilation=huge, backend=backend).shape == X.shape


def test_wrong_thread_counts() -> None:
    before = fastconv.get_num_threads()
    for count, kind in ((0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError), ("2", TypeError)):
        with pytest.raises(kind, match="set_num_threads: count must be"):
            fastconv.set_num_threads(count)  # type: ignore[arg-type]
    assert fastconv.get_num_threads() == before


def test_keywords_only() -> None:
    """Beyond the arrays everything is named, and nothing unknown is swallowed."""
    for arrays, keywords in (((X, W, B, 2), {}), ((X, W), {"strides": 2})):
        with pytest.raises(TypeError):
            conv(*arrays, **keywords)


def test_interpreter_survives_everything(backend: str) -> None:
    """All of the above once more in a process of its own, with garbage in place of every argument."""
    code = f"""
import itertools, numpy as np, fastconv, warnings
warnings.simplefilter("ignore")
x, w = np.ones((1, 2, 5, 6), np.float32), np.ones((3, 2, 2, 2), np.float32)
garbage = [None, -1, 0, 2**31, 2**63, 2**64, 1.5, float("nan"), True, "same", b"x", (), (1,), (0, 0)]
garbage += [(-1, 1), (2**62,) * 2]
garbage += [((1, 2), (3, 4)), ((2**62, 2**62),) * 2, [], {{}}, np.float32(2), np.arange(3), object(), np.array(None)]
steps = ("stride", "padding", "dilation", "out")
dy = np.ones((1, 3, 4, 5), np.float32)
calls = [
    (fastconv.conv2d, (x, w), (*steps, "groups", "padding_mode", "layout", "activation", "algorithm")),
    (fastconv.conv2d_backward, (dy, x, w), (*steps, "groups", "needs")),
    (fastconv.conv_transpose2d, (dy, w), (*steps, "output_padding", "groups")),
    (fastconv.max_pool2d, (x, 2), (*steps, "ceil_mode", "layout")),
    (fastconv.avg_pool2d, (x, 2), ("stride", "padding", "out", "ceil_mode", "count_include_pad")),
    (fastconv.im2col, (x, (2, 2)), ("stride", "padding", "dilation", "layout")),
    (fastconv.pad, (x, 1), ("mode", "value", "out")),
]
ok = (ValueError, TypeError, MemoryError)
raised = 0
for function, arrays, names in calls:
    for name, value in itertools.product(names, garbage):
        try:
            function(*arrays, **{{name: value}}, backend="{backend}")
        except ok:
            raised += 1
    for place, value in itertools.product(range(len(arrays)), garbage):
        changed = list(arrays)
        changed[place] = value
        try:
            function(*changed, backend="{backend}")
        except ok:
            raised += 1
print(raised)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 500
