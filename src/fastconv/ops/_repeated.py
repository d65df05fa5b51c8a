"""Calls that come again: arguments are checked once, and what runs the checked call is kept for the next time.

Two ways lead to it. The settings of the last call are compared by identity, and what runs it in one step looks at the
arrays itself: that serves a loop over one layer, and costs less than building a key. Any other call is looked up by all
that its checks looked at: the settings with their types, and shape and dtype of the arrays.
"""

from __future__ import annotations

from collections.abc import Callable
from marshal import dumps
from operator import is_
from typing import Any, Generic, Protocol, TypeVar

from numpy import ndarray

from ..backends.protocol import Backend

__all__ = ["Bounded", "CheckedCall", "Repeated", "call_key"]

_CONSTANT = (int, str, bool, float, type(None))


class CheckedCall(Protocol):
    """A call whose arguments have been checked."""

    @property
    def at_once(self) -> Callable[..., Any] | None:
        """What runs it in one step on arrays that need no preparing, and gives None for all others."""


CallT = TypeVar("CallT", bound=CheckedCall)


KeptT = TypeVar("KeptT")


class Bounded(dict[Any, KeptT]):
    """What was made once for each key; it forgets everything when it is full: bounded, and as cheap as a dict."""

    LIMIT = 1024

    def recall(self, key: tuple[Any, ...] | None) -> KeptT | None:
        """What was kept under this key, or None; a key that cannot be hashed was never kept."""
        try:
            return self.get(key)
        except TypeError:
            return None

    def remember(self, key: tuple[Any, ...] | None, value: KeptT) -> None:
        """Keep it, unless there is no key for it."""
        if key is None:
            return
        if len(self) >= self.LIMIT:
            self.clear()
        self[key] = value


class Repeated(Bounded[tuple[CallT, bool]], Generic[CallT]):
    """The checked calls of one operation."""

    def __init__(self) -> None:
        super().__init__()
        self._last: tuple[tuple[Any, ...], Any] = (self,), _nothing  # settings that no call has

    def again(self, settings: tuple[Any, ...]) -> Callable[..., Any]:
        """What runs the last call in one step, if these are its settings; else what gives None."""
        last, at_once = self._last
        return at_once if all(map(is_, settings, last)) else _nothing

    def find(self, key: tuple[Any, ...] | None, settings: tuple[Any, ...]) -> CallT | None:
        """What was kept under this key, or None."""
        kept = self.recall(key)
        if kept is None:
            return None
        call, constant = kept
        if constant:
            self._last = settings, call.at_once
        return call

    def keep(self, key: tuple[Any, ...] | None, settings: tuple[Any, ...], call: CallT) -> None:
        """Remember a call, unless there is no key for it."""
        constant = call.at_once is not None and all(map(_is_constant, settings))
        self.remember(key, (call, constant))
        if constant and key is not None:
            self._last = settings, call.at_once


def _nothing(*arrays: Any) -> None:
    """Runs no call."""


def call_key(numbers: tuple[Any, ...], names: tuple[Any, ...], *arrays: Any) -> tuple[Any, ...] | None:
    """What a call is remembered by; None for arguments that are looked at each time.

    Those are NumPy's integers and arrays among the settings, and arrays of any class but NumPy's own: masked arrays,
    matrices and other libraries' tensors are converted in every call, which a remembered call does not do.
    marshal writes numbers with their types (True, 1 and 1.0 differ) and costs less than looking at each of them.
    """
    seen: list[Any] = []
    for a in arrays:
        if a is not None and a.__class__ is not ndarray:
            return None
        seen.append(None if a is None else (a.shape, a.dtype))
    try:
        written = dumps(numbers, 2)
    except ValueError:
        return None
    # NumPy's numbers are written as bare bytes ("s"), in which np.int8(1) and np.True_ are the same
    if b"s" in written and not _is_plain(numbers):
        return None
    return (written, names, *seen)


def _is_plain(value: Any) -> bool:
    """Whether an argument is made of Python's own numbers, strings and sequences."""
    if isinstance(value, (tuple, list)):
        return all(_is_plain(v) for v in value)
    return value is None or value.__class__ in (int, bool, float, str)


def _is_constant(value: Any) -> bool:
    """Whether a setting, being the same object, has the same value."""
    if value.__class__ is tuple:
        return all(map(_is_constant, value))
    return value.__class__ in _CONSTANT or isinstance(value, Backend)
