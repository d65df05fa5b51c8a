"""OpenCV's filter2D: one filter, one channel."""

from __future__ import annotations

from typing import Any

import numpy as np

from .case import Case, Library, Ready, single_filter

__all__ = ["OpenCv"]


class OpenCv(Library):
    """One variant."""

    def __init__(self, threads: int) -> None:
        import cv2

        super().__init__(threads)
        self._cv2: Any = cv2
        cv2.setNumThreads(threads)

    def prepare(self, variant: str, case: Case) -> Ready:
        case.only("conv", ranks=(2,))
        single_filter(case)
        assert case.weight is not None
        assert case.bias is not None
        cv2, images, weight, bias = self._cv2, [image[0] for image in case.x], case.weight[0, 0], float(case.bias[0])
        border = cv2.BORDER_CONSTANT
        return Ready(
            lambda: [cv2.filter2D(image, cv2.CV_32F, weight, delta=bias, borderType=border) for image in images],
            lambda ys: [np.stack(ys)[:, None]],
        )
