"""A run as something to look at: one HTML file, and the picture of the README."""

from .figures import Run
from .page import html, picture

__all__ = ["Run", "html", "picture"]
