"""Which backends exist, why one cannot be had, and which one is active.

The list is explicit and ordered, best first for the default choice; modules are imported only when their backend is
chosen, so that ``import fastconv`` stays light. Third parties add theirs through the entry-point group
``fastconv.backends``, whose values name a subclass of :class:`~fastconv.backends.protocol.Backend`.
"""

from __future__ import annotations

import contextlib
import contextvars
import importlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import BackendUnavailableError, UnknownNameError
from ..threads import get_num_threads, on_change
from .protocol import Backend

__all__ = ["BackendStatus", "active", "get_backend", "list_backends", "loaded", "set_backend", "use_backend"]

# name -> "module:Class"; the first of _DEFAULTS that can be had is the default
_BUILTIN = {
    "cpp": "fastconv.backends._cpp:CppBackend",
    "cython": "fastconv.backends._cython:CythonBackend",
    "numba": "fastconv.backends._numba:NumbaBackend",
    "numpy": "fastconv.backends._numpy:NumpyBackend",
    "reference": "fastconv.backends._reference:ReferenceBackend",
}
_DEFAULTS = ("cpp", "numpy")
_ENTRY_POINTS = "fastconv.backends"
_REBUILD = "install a C++ compiler and Python's headers, then: pip install --force-reinstall --no-cache-dir fastconv"
_MEND = {
    "cpp": _REBUILD,
    "cython": _REBUILD,
    "numba": "pip install 'fastconv[numba]'",
}

_loaded: dict[str, Backend] = {}
_failed: dict[str, str] = {}
_lock = threading.RLock()
_process_choice: str | None = None
_context_choice: contextvars.ContextVar[Backend | None] = contextvars.ContextVar("fastconv_backend", default=None)
_default: Backend | None = None


@dataclass(frozen=True)
class BackendStatus:
    """One line of :func:`list_backends`."""

    name: str
    available: bool
    reason: str | None
    builtin: bool


def _targets() -> dict[str, str]:
    """Every known backend with where it lives; a third party cannot take a built-in name."""
    from importlib import metadata

    found = {ep.name: ep.value for ep in metadata.entry_points(group=_ENTRY_POINTS)}
    return _BUILTIN | {name: value for name, value in sorted(found.items()) if name not in _BUILTIN}


def build_info() -> dict[str, Any]:
    """What the installation recorded about its compiled parts; empty if it recorded nothing."""
    import json  # seldom needed imports stand where they are needed: ``import fastconv`` stays light
    import pathlib

    path = pathlib.Path(__file__).parent.parent / "_build_info.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _load(name: str, target: str) -> Backend:
    module, _, attribute = target.partition(":")
    try:
        kind = getattr(importlib.import_module(module), attribute, None)
        backend = kind() if isinstance(kind, type) and issubclass(kind, Backend) else None
    except ImportError as error:
        reason = str(build_info().get("reason") or error) if name in ("cpp", "cython") else str(error)
        _failed[name] = reason
        mend = _MEND.get(name, "see the documentation of the package that provides it")
        raise BackendUnavailableError(f"backend {name!r} is not available: {reason}; to mend it: {mend}") from error
    if backend is None:
        raise BackendUnavailableError(f"backend {name!r}: {target} is not a subclass of fastconv.backends.Backend")
    backend.set_num_threads(get_num_threads())
    return backend


def get_backend(name: str) -> Backend:
    """The backend of that name, imported now if it was not yet.

    Parameters
    ----------
    name : str
        ``"reference"``, ``"numpy"``, ``"numba"``, ``"cython"``, ``"cpp"`` or one that an installed package provides.

    Returns
    -------
    Backend
        The one instance of that backend in this process.

    Raises
    ------
    UnknownNameError
        If no backend has that name.
    BackendUnavailableError
        If it is known but cannot be had here; the text says why and how to mend it.

    Examples
    --------
    >>> import fastconv
    >>> fastconv.get_backend("numpy").name
    'numpy'
    """
    backend = _loaded.get(name) if isinstance(name, str) else None
    if backend is not None:
        return backend
    targets = _BUILTIN if isinstance(name, str) and name in _BUILTIN else _targets()
    if not isinstance(name, str) or name not in targets:
        import difflib

        near = difflib.get_close_matches(str(name), targets, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UnknownNameError(f"backend must be one of {', '.join(targets)}, received {name!r}{hint}")
    with _lock:
        if name not in _loaded:
            _loaded[name] = _load(name, targets[name])
        return _loaded[name]


def list_backends() -> list[BackendStatus]:
    """Every known backend: its name, whether it can be had here, and if not why.

    Examples
    --------
    >>> import fastconv
    >>> [b.name for b in fastconv.list_backends() if b.builtin]
    ['cpp', 'cython', 'numba', 'numpy', 'reference']
    """
    lines = []
    for name in _targets():
        try:
            get_backend(name)
            reason = None
        except BackendUnavailableError as error:
            reason = _failed.get(name, str(error))
        lines.append(BackendStatus(name, reason is None, reason, name in _BUILTIN))
    return lines


def loaded() -> list[Backend]:
    """The backends that have been imported so far."""
    return list(_loaded.values())


def _follow_threads(count: int) -> None:
    for backend in loaded():
        backend.set_num_threads(count)


on_change(_follow_threads)


def set_backend(name: str | None) -> None:
    """Choose the backend of this process; None goes back to ``FASTCONV_BACKEND`` or the default.

    Raises
    ------
    UnknownNameError, BackendUnavailableError
        As :func:`get_backend`; the choice is then unchanged.

    Examples
    --------
    >>> import fastconv
    >>> fastconv.set_backend("numpy")
    >>> fastconv.set_backend(None)
    """
    global _process_choice, _default
    if name is not None:
        get_backend(name)
    _process_choice, _default = name, None


@contextlib.contextmanager
def use_backend(name: str) -> Iterator[Backend]:
    """Choose the backend inside a ``with`` block, for this thread or asynchronous task only.

    Examples
    --------
    >>> import fastconv
    >>> with fastconv.use_backend("reference") as backend:
    ...     backend.name
    'reference'
    """
    token = _context_choice.set(get_backend(name))
    try:
        yield get_backend(name)
    finally:
        _context_choice.reset(token)


def active() -> Backend:
    """The backend that a call without ``backend=`` runs on."""
    return _context_choice.get() or _default or _find_default()


def _find_default() -> Backend:
    """set_backend, then the environment (validated at first use), then the best that was built."""
    global _default
    with _lock:
        if _process_choice is not None:
            _default = get_backend(_process_choice)
        elif chosen := os.environ.get("FASTCONV_BACKEND"):
            try:
                _default = get_backend(chosen)
            except UnknownNameError as error:
                raise UnknownNameError(f"environment variable FASTCONV_BACKEND: {error}") from None
        else:
            for name in _DEFAULTS:
                with contextlib.suppress(BackendUnavailableError):
                    _default = get_backend(name)
                    break
        assert _default is not None  # numpy is a dependency: it can always be had
        return _default
