"""SciPy's ways to filter an image: correlation by the method it chooses, overlap-add, and its image package."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .case import Array, Case, Library, Ready, single_filter

__all__ = ["SciPy"]


class SciPy(Library):
    """Variants ``signal``, ``oaconvolve`` and ``ndimage``."""

    def prepare(self, variant: str, case: Case) -> Ready:
        case.only("conv")
        single_filter(case)
        assert case.weight is not None
        assert case.bias is not None
        images, weight, bias = [image[0] for image in case.x], case.weight[0, 0], case.bias[0]
        run = self._filter(variant, images[0], weight)
        return Ready(lambda: [run(image) + bias for image in images], lambda ys: [np.stack(ys)[:, None]])

    def _filter(self, variant: str, image: Array, weight: Array) -> Callable[[Array], Any]:
        if variant == "ndimage":
            from scipy import ndimage

            return lambda image: ndimage.correlate(image, weight, mode="constant")
        import scipy.fft
        from scipy import signal

        if variant == "oaconvolve":
            flipped = np.ascontiguousarray(np.flip(weight))

            def overlap_add(image: Array) -> Any:
                with scipy.fft.set_workers(self.threads):
                    return signal.oaconvolve(image, flipped, mode="same")

            return overlap_add
        method = signal.choose_conv_method(image, weight, mode="same")

        def correlate(image: Array) -> Any:
            with scipy.fft.set_workers(self.threads):
                return signal.correlate(image, weight, mode="same", method=method)

        return correlate
