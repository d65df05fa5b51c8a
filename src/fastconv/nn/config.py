"""The dtype that layers compute in unless told otherwise."""

from __future__ import annotations

__all__ = ["floatx", "set_floatx"]

_floatx = "float32"


def floatx() -> str:
    """Dtype of new layers: ``"float32"``, or what :func:`set_floatx` said."""
    return _floatx


def set_floatx(dtype: str) -> None:
    """Let new layers compute in ``"float32"`` or ``"float64"``."""
    global _floatx
    if dtype not in ("float32", "float64"):
        raise ValueError(f"set_floatx: dtype must be 'float32' or 'float64', received {dtype!r}")
    _floatx = dtype
