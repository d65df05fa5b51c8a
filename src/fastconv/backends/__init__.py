"""Who computes: which backends exist, which is active, and what a backend offers."""

from .protocol import Algorithm, Backend, ConvRun
from .registry import get_backend, list_backends, set_backend, use_backend

__all__ = ["Algorithm", "Backend", "ConvRun", "get_backend", "list_backends", "set_backend", "use_backend"]
