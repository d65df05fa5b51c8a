"""Photographs, classic filters and pictures: what the demo and the lessons look at."""

from .filters import FILTERS, gabor_bank
from .overview import draw_overview
from .photographs import PHOTOGRAPHS, photograph, squares

__all__ = ["FILTERS", "PHOTOGRAPHS", "draw_overview", "gabor_bank", "photograph", "squares"]
