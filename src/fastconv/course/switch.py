"""The one switch: who computes the course's functions, its own loops or a backend of fastconv."""

from __future__ import annotations

import contextvars
from types import TracebackType

from ..backends import get_backend

__all__ = ["LOOPS", "chosen", "use"]

LOOPS = "loops"  # the lesson's own loops, in plain NumPy

_choice: contextvars.ContextVar[str] = contextvars.ContextVar("fastconv_course", default=LOOPS)


class use:
    """Choose who computes, from now on or inside a ``with`` block, for this thread.

    Parameters
    ----------
    name : str
        ``"loops"``, the lesson's own loops (where everyone starts), or a backend: ``"numpy"``, ``"cpp"``, ...

    Raises
    ------
    UnknownNameError, BackendUnavailableError
        As :func:`fastconv.get_backend`; the choice is then unchanged.

    Examples
    --------
    >>> from fastconv import course
    >>> with course.use("numpy"):
    ...     Z = course.zero_pad([[[[1.0]]]], 1)
    >>> Z.shape
    (1, 3, 3, 1)
    """

    def __init__(self, name: str) -> None:
        if name != LOOPS:
            get_backend(name)
        self._token = _choice.set(name)

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _choice.reset(self._token)


def chosen(backend: str | None) -> str | None:
    """The backend that computes a call; None for the loops. What a call names comes before the switch."""
    name = _choice.get() if backend is None else backend
    return None if name == LOOPS else name
