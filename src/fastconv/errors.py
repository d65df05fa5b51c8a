"""The few exception types that fastconv raises beside plain ValueError, TypeError and MemoryError."""

from __future__ import annotations

__all__ = ["BackendUnavailableError", "DTypeError", "FastconvError", "GeometryError", "UnknownNameError"]


class FastconvError(Exception):
    """Base of every exception that is fastconv's own."""


class GeometryError(FastconvError, ValueError):
    """Shapes, strides, paddings or sizes that do not fit together."""


class UnknownNameError(FastconvError, ValueError):
    """A name outside its closed list: a backend, algorithm, layout, activation or padding mode."""


class DTypeError(FastconvError, TypeError):
    """An array whose dtype an operation does not take."""


class BackendUnavailableError(FastconvError, RuntimeError):
    """A known backend that cannot be had here; the text says why and which command mends it."""
