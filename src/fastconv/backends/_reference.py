"""The definition of right, to be read beside the formulas: loops over output positions, nothing clever.

Names used throughout: n is the image, c and k are input and output channels, o is an output position, t a tap of the
window, and i = o * stride + t * dilation - padding the input position that tap t of output o looks at; o, t and i have
three components. Every sum is taken in float64 and rounded once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..geometry import ConvGeometry, PadGeometry, PoolGeometry, axis_sources
from .protocol import Algorithm, Array, Backend

__all__ = ["ReferenceBackend"]

_ALL = slice(None)


def _at(*index: Any) -> tuple[Any, ...]:
    """An index from its parts."""
    return index


def _positions(geometry: ConvGeometry | PoolGeometry) -> Iterator[tuple[int, ...]]:
    """Every output position, in row-major order."""
    return np.ndindex(*geometry.out_size)


def _zero_padded(geometry: ConvGeometry, x: Array) -> Array:
    """The input in the midst of its zero padding; position 0 of the result is -padding of the input."""
    return np.pad(x, ((0, 0), (0, 0), *geometry.padding))


def _window(geometry: ConvGeometry, o: tuple[int, ...]) -> tuple[slice, ...]:
    """Where the taps of output position o lie in the padded input."""
    axes = zip(o, geometry.kernel, geometry.stride, geometry.dilation, strict=True)
    return tuple(slice(p * s, p * s + (k - 1) * d + 1, d) for p, k, s, d in axes)


def _unpadded(geometry: ConvGeometry, padded: Array) -> Array:
    """The part of a padded array that is not padding."""
    axes = zip(geometry.padding, geometry.in_size, strict=True)
    inner: Array = padded[_at(..., *(slice(lo, lo + n) for (lo, _), n in axes))]
    return inner


def _groups(geometry: ConvGeometry) -> list[tuple[slice, slice]]:
    """For each group its input channels and its output channels."""
    c, k = geometry.in_channels // geometry.groups, geometry.out_channels // geometry.groups
    return [(slice(g * c, (g + 1) * c), slice(g * k, (g + 1) * k)) for g in range(geometry.groups)]


def _inside(geometry: PoolGeometry, o: tuple[int, ...]) -> list[Array]:
    """For each axis the input positions i that the window of output o covers, those in the padding left out."""
    found = []
    for axis, p in enumerate(o):
        taps = np.arange(geometry.kernel[axis]) * geometry.dilation[axis]
        i = p * geometry.stride[axis] + taps - geometry.padding[axis][0]
        found.append(i[(i >= 0) & (i < geometry.in_size[axis])])
    return found


def _flat(geometry: PoolGeometry, o: tuple[int, ...]) -> Array:
    """The same positions as indices into the flattened D*H*W volume, in row-major order."""
    d, h, w = np.ix_(*_inside(geometry, o))
    flat: Array = ((d * geometry.in_size[1] + h) * geometry.in_size[2] + w).ravel()
    return flat


def _counts(geometry: PoolGeometry) -> Array:
    """What each output position's sum is divided by."""
    d, h, w = np.ix_(*(geometry.window_counts(axis) for axis in range(3)))
    counts: Array = d * h * w
    return counts


class ReferenceBackend(Backend):
    """Naive loops over output positions, channels first."""

    name = "reference"
    any_strides = True
    max_pool_dtypes = tuple(np.dtype(code) for code in "?bhilqBHILQefd")

    def config(self) -> dict[str, Any]:
        """The version of NumPy."""
        return {"numpy": np.__version__}

    def algorithms(self) -> Sequence[Algorithm]:
        """The formula itself."""
        return (Algorithm("direct"),)

    # -- convolution

    def conv(
        self, geometry: ConvGeometry, x: Array, weight: Array, bias: Array | None,
        activation: str | None, out: Array, algorithm: str,
    ) -> None:  # fmt: skip
        """y[n, k, o] = bias[k] + sum over c, t of weight[k, c, t] * x[n, c, o * stride + t * dilation - padding].

        c runs over the channels of k's group. Goodfellow, Bengio, Courville: Deep Learning (2016), equations 9.6 and
        9.8; Dumoulin, Visin: A guide to convolution arithmetic for deep learning, arXiv:1603.07285.
        """
        padded, w = _zero_padded(geometry, x).astype(np.float64), weight.astype(np.float64)
        b = np.zeros(geometry.out_channels) if bias is None else bias.astype(np.float64)
        with np.errstate(all="ignore"):
            for n in range(len(x)):
                for o in _positions(geometry):
                    for cs, ks in _groups(geometry):
                        window = padded[_at(n, cs, *_window(geometry, o))]
                        out[_at(n, ks, *o)] = b[ks] + (w[ks] * window).sum(axis=(1, 2, 3, 4))

    def conv_backward_data(self, geometry: ConvGeometry, grad_output: Array, weight: Array, dx: Array) -> None:
        """dx[n, c, i] = sum of dy[n, k, o] * weight[k, c, t] over k, o, t with o * stride + t * dilation - padding = i.

        Goodfellow, Bengio, Courville: Deep Learning (2016), equation 9.13.
        """
        dy, w = grad_output.astype(np.float64), weight.astype(np.float64)
        padded = _zero_padded(geometry, np.zeros(dx.shape))
        with np.errstate(all="ignore"):
            for n in range(len(dx)):
                for o in _positions(geometry):
                    for cs, ks in _groups(geometry):
                        d = dy[_at(n, ks, *o)].reshape(-1, 1, 1, 1, 1)
                        padded[_at(n, cs, *_window(geometry, o))] += (d * w[ks]).sum(axis=0)
            dx[...] = _unpadded(geometry, padded)

    def conv_backward_weight(
        self, geometry: ConvGeometry, grad_output: Array, x: Array, dw: Array, db: Array | None
    ) -> None:
        """dweight[k, c, t] = sum over n, o of dy[n, k, o] * x[n, c, o * stride + t * dilation - padding].

        And dbias[k] = sum over n, o of dy[n, k, o]. Goodfellow, Bengio, Courville: Deep Learning (2016), equation 9.11.
        """
        dy, padded = grad_output.astype(np.float64), _zero_padded(geometry, x).astype(np.float64)
        total = np.zeros(dw.shape)
        with np.errstate(all="ignore"):
            for n in range(len(x)):
                for o in _positions(geometry):
                    for cs, ks in _groups(geometry):
                        window = padded[_at(n, cs, *_window(geometry, o))]
                        total[ks] += dy[_at(n, ks, *o)].reshape(-1, 1, 1, 1, 1) * window
            dw[...] = total
            if db is not None:
                db[...] = dy.sum(axis=(0, 2, 3, 4))

    # -- pooling

    def max_pool(self, geometry: PoolGeometry, x: Array, out: Array, indices: Array | None) -> None:
        """y[n, c, o] = max over t of x[n, c, o * stride + t * dilation - padding]; padding takes no part.

        On a tie the first is it; the first NaN is the maximum (argmax counts so too); no input at all: the least value.
        Goodfellow, Bengio, Courville: Deep Learning (2016), section 9.3.
        """
        volume = x.reshape(*x.shape[:2], math.prod(geometry.in_size))
        least = np.dtype(x.dtype).type(
            -np.inf if x.dtype.kind == "f" else 0 if x.dtype.kind == "b" else np.iinfo(x.dtype).min
        )
        for o in _positions(geometry):
            flat = _flat(geometry, o)
            at = _at(_ALL, _ALL, *o)
            if flat.size == 0:
                out[at] = least
                if indices is not None:
                    indices[at] = -1
                continue
            window = volume[:, :, flat]
            first = window.argmax(axis=2)
            out[at] = np.take_along_axis(window, first[:, :, None], axis=2)[:, :, 0]
            if indices is not None:
                indices[at] = flat[first]

    def max_pool_backward(self, geometry: PoolGeometry, grad_output: Array, x: Array, ties: str, dx: Array) -> None:
        """dx[i] = sum over the windows whose maximum is at i of dy[o]: all of it, or an equal share of it.

        Under "first" only the first maximum of a window takes part, under "all" and "split" each equal one (NaNs count
        as equal to each other).
        """
        volume, dy = x.reshape(*x.shape[:2], math.prod(geometry.in_size)), grad_output.astype(np.float64)
        total = np.zeros(volume.shape)
        with np.errstate(all="ignore"):
            for o in _positions(geometry):
                flat = _flat(geometry, o)
                if flat.size == 0:
                    continue
                window = volume[:, :, flat]
                first = window.argmax(axis=2)[:, :, None]
                if ties == "first":
                    tied = np.arange(flat.size) == first
                else:
                    top = np.take_along_axis(window, first, axis=2)
                    tied = (window == top) | (np.isnan(window) & np.isnan(top))
                share = dy[_at(_ALL, _ALL, *o)][:, :, None]
                if ties == "split":
                    share = share / tied.sum(axis=2, keepdims=True)
                total[:, :, flat] += np.where(tied, share, 0.0)
            dx[...] = total.reshape(dx.shape)

    def avg_pool(self, geometry: PoolGeometry, x: Array, out: Array) -> None:
        """y[n, c, o] = (sum over t of x[n, c, o * stride + t * dilation - padding]) / count[o]; zero where count is."""
        volume, counts = x.reshape(*x.shape[:2], math.prod(geometry.in_size)).astype(np.float64), _counts(geometry)
        with np.errstate(all="ignore"):
            for o in _positions(geometry):
                out[_at(_ALL, _ALL, *o)] = (
                    volume[:, :, _flat(geometry, o)].sum(axis=2) / counts[o] if counts[o] else 0.0
                )

    def avg_pool_backward(self, geometry: PoolGeometry, grad_output: Array, dx: Array) -> None:
        """dx[n, c, i] = sum over the windows o that cover i of dy[n, c, o] / count[o]."""
        dy, counts = grad_output.astype(np.float64), _counts(geometry)
        total = np.zeros((*dx.shape[:2], int(np.prod(geometry.in_size))))
        with np.errstate(all="ignore"):
            for o in _positions(geometry):
                if counts[o]:
                    share = dy[_at(_ALL, _ALL, *o)] / counts[o]
                    total[:, :, _flat(geometry, o)] += share[:, :, None]
            dx[...] = total.reshape(dx.shape)

    # -- padding and windows as columns

    def pad(self, geometry: PadGeometry, x: Array, value: Array, out: Array) -> None:
        """out[o] = x[source(o)], where the source of each axis is what the mode says; else the constant."""
        sources = [axis_sources(n, p, geometry.mode) for n, p in zip(x.shape, geometry.pads, strict=True)]
        out[...] = value
        out[np.ix_(*(s >= 0 for s in sources))] = x[np.ix_(*(s[s >= 0] for s in sources))]

    def pad_backward(self, geometry: PadGeometry, grad_output: Array, dx: Array) -> None:
        """dx[i] = sum over all o whose source is i of dy[o]."""
        sources = [axis_sources(n, p, geometry.mode) for n, p in zip(dx.shape, geometry.pads, strict=True)]
        total = np.zeros(dx.shape)
        with np.errstate(all="ignore"):
            dy = grad_output[np.ix_(*(s >= 0 for s in sources))]
            np.add.at(total, np.ix_(*(s[s >= 0] for s in sources)), dy)
            dx[...] = total

    def im2col(self, geometry: ConvGeometry, x: Array, out: Array) -> None:
        """out[n, c, t, o] = x[n, c, o * stride + t * dilation - padding], zero in the padding."""
        padded = _zero_padded(geometry, x)
        for o in _positions(geometry):
            out[_at(..., *o)] = padded[_at(_ALL, _ALL, *_window(geometry, o))]

    def col2im(self, geometry: ConvGeometry, columns: Array, out: Array) -> None:
        """out[n, c, i] = sum over all t, o with o * stride + t * dilation - padding = i of columns[n, c, t, o]."""
        padded = _zero_padded(geometry, np.zeros(out.shape))
        with np.errstate(all="ignore"):
            for o in _positions(geometry):
                padded[_at(_ALL, _ALL, *_window(geometry, o))] += columns[_at(..., *o)]
            out[...] = _unpadded(geometry, padded)
