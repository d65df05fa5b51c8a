"""Timing of every backend, and of peers, on layers of real networks: what `fastconv bench` and `benchmarks/` share."""

from .layers import QUICK, SUITES, Layer, find_layers, parse_shape
from .problem import Problem

__all__ = ["QUICK", "SUITES", "Layer", "Problem", "find_layers", "parse_shape"]
