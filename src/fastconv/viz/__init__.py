"""Pictures of convolutions, of networks and of their training, for your own arrays and models.

They are drawn with matplotlib (``pip install 'fastconv[viz]'``), which is imported when the first one is drawn;
:func:`plot_model` writes its SVG without it. Also here: the photographs, filters and overview that the demo shows.
"""

from __future__ import annotations

from .animation import animate_convolution, convolution_step
from .filters import FILTERS, gabor_bank
from .graph import plot_model
from .maps import show_feature_maps, show_filters
from .overview import draw_overview
from .photographs import PHOTOGRAPHS, photograph, squares
from .training import confusion_matrix, plot_history

__all__ = [
    "FILTERS",
    "PHOTOGRAPHS",
    "animate_convolution",
    "confusion_matrix",
    "convolution_step",
    "draw_overview",
    "gabor_bank",
    "photograph",
    "plot_history",
    "plot_model",
    "show_feature_maps",
    "show_filters",
    "squares",
]
