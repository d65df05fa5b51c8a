"""Which backend runs: the order of choices, names that are close, backends that cannot be had, third parties."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv.backends import registry

X, W = np.ones((1, 1, 5, 5)), np.ones((1, 1, 3, 3))


def run(code: str, *, path: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter, with this process's import path."""
    folders = ([str(path)] if path else []) + [p for p in sys.path if p]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(folders), **environment}
    if "FASTCONV_BACKEND" not in environment:
        env.pop("FASTCONV_BACKEND", None)
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=240, env=env
    )


def active() -> str:
    return registry.active().name


def test_order_of_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    """backend= over use_backend over set_backend over the environment over the default."""
    monkeypatch.setenv("FASTCONV_BACKEND", "numpy")
    fastconv.set_backend(None)
    assert active() == "numpy"
    fastconv.set_backend("reference")
    assert active() == "reference"
    with fastconv.use_backend("numpy"):
        assert active() == "numpy"
        with fastconv.use_backend("reference"):
            assert active() == "reference"
        assert active() == "numpy"
        with pytest.raises(fastconv.UnknownNameError):
            fastconv.conv2d(X, W, backend="nonesuch")
    assert active() == "reference"
    fastconv.set_backend(None)
    assert active() == "numpy"
    monkeypatch.delenv("FASTCONV_BACKEND")
    fastconv.set_backend(None)
    built = {b.name: b.available for b in fastconv.list_backends()}["cpp"]
    assert active() == ("cpp" if built else "numpy")


class Spy:
    """Counts the convolutions that a backend runs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ran: list[str] = []
        for name in ("numpy", "reference"):
            kind = type(fastconv.get_backend(name))

            def conv(this: Any, *rest: Any, name: str = name, real: Any = kind.conv) -> None:
                self.ran.append(name)
                real(this, *rest)

            monkeypatch.setattr(kind, "conv", conv)


def test_the_chosen_one_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A repeated call follows the choice too, however well it is remembered."""
    spy = Spy(monkeypatch)
    for _ in range(2):
        fastconv.conv2d(X, W, backend="reference")
        with fastconv.use_backend("numpy"):
            fastconv.conv2d(X, W)
            fastconv.conv2d(X, W, backend="reference")
        fastconv.set_backend("reference")
        fastconv.conv2d(X, W)
    assert spy.ran == ["reference", "numpy", "reference", "reference"] * 2


def test_context_belongs_to_its_thread() -> None:
    seen: dict[str, str] = {}
    fastconv.set_backend("reference")
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        seen["before"] = active()
        with fastconv.use_backend("reference"):
            inside.set()
            leave.wait(60)
            seen["inside"] = active()

    with fastconv.use_backend("numpy"):
        thread = threading.Thread(target=other)
        thread.start()
        assert inside.wait(60)
        assert active() == "numpy"
        leave.set()
        thread.join(60)
    assert seen == {"before": "reference", "inside": "reference"}
    assert active() == "reference"


def test_context_belongs_to_its_task() -> None:
    """Two asynchronous tasks that take turns keep each its own."""
    fastconv.set_backend("reference")
    seen = []

    async def task(name: str) -> None:
        with fastconv.use_backend(name):
            for _ in range(3):
                await asyncio.sleep(0)
                seen.append(active() == name)

    async def both() -> None:
        await asyncio.gather(task("numpy"), task("reference"))

    asyncio.run(both())
    assert seen == [True] * 6


@pytest.mark.parametrize(
    ("name", "hint"), [("nunpy", "numpy"), ("cppp", "cpp"), ("referense", "reference"), ("Numba", "numba")]
)
def test_did_you_mean(name: str, hint: str) -> None:
    text = rf"backend must be one of .*received '{name}'; did you mean '{hint}'\?"
    for choose in (fastconv.get_backend, fastconv.set_backend, lambda n: fastconv.conv2d(X, W, backend=n)):
        with pytest.raises(fastconv.UnknownNameError, match=text):
            choose(name)
    with pytest.raises(fastconv.UnknownNameError, match=text), fastconv.use_backend(name):
        pass


def test_no_names() -> None:
    for nothing in (3, b"cpp", ("cpp",), ""):
        with pytest.raises(fastconv.UnknownNameError, match="backend must be one of"):
            fastconv.get_backend(nothing)  # type: ignore[arg-type]


def test_a_failed_choice_changes_nothing() -> None:
    fastconv.set_backend("reference")
    with pytest.raises(fastconv.UnknownNameError):
        fastconv.set_backend("nonesuch")
    assert active() == "reference"


def test_environment() -> None:
    """Looked at when first needed, not at import; a wrong name is said to be the variable's."""
    show = "import fastconv.backends.registry as r; print(r.active().name)"
    assert run(show, FASTCONV_BACKEND="reference").stdout == "reference\n"
    assert run("import fastconv; print('imported')", FASTCONV_BACKEND="nonesuch").stdout == "imported\n"
    failed = run(show, FASTCONV_BACKEND="nunpy")
    assert "environment variable FASTCONV_BACKEND: backend must be one of" in failed.stderr
    assert "did you mean 'numpy'?" in failed.stderr
    chosen = run("import fastconv; fastconv.set_backend('numpy'); " + show, FASTCONV_BACKEND="nonesuch")
    assert chosen.stdout == "numpy\n"


def test_unavailable(tmp_path: Path) -> None:
    """Without numba its backend stays listed, with the reason; choosing it says which command mends it."""
    (tmp_path / "numba.py").write_text("raise ImportError('no numba here')\n")
    code = """
    import fastconv
    status = {b.name: b for b in fastconv.list_backends()}["numba"]
    assert not status.available and status.builtin and "no numba here" in status.reason, status
    for choose in (fastconv.get_backend, fastconv.set_backend):
        try:
            choose("numba")
        except fastconv.BackendUnavailableError as error:
            assert isinstance(error, RuntimeError)
            print(error)
    """
    done = run(code, path=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = set(done.stdout.splitlines())
    assert len(lines) == 1
    text = lines.pop()
    assert text.startswith("backend 'numba' is not available: ")
    assert "pip install 'fastconv[numba]'" in text


def third_party(folder: Path, module: str) -> Path:
    """Install a tiny package the way pip does: a module, and metadata that names its entry point."""
    (folder / "tiny_backend.py").write_text(textwrap.dedent(module))
    info = folder / "tiny_backend-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-backend\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[fastconv.backends]\ntiny = tiny_backend:TinyBackend\nnumpy = tiny_backend:TinyBackend\n"
        "broken = tiny_backend:Nothing\nwrong = tiny_backend:NotABackend\nabsent = no_such_module:Backend\n"
    )
    return folder


TINY = """
    from fastconv.backends._reference import ReferenceBackend

    class TinyBackend(ReferenceBackend):
        name = "tiny"
        calls = 0

        def conv(self, *arguments):
            TinyBackend.calls += 1
            super().conv(*arguments)

    class NotABackend:
        pass
"""


def test_third_party(tmp_path: Path) -> None:
    """By entry point: listed after the built-in ones, chosen by every means, and no built-in name can be taken."""
    code = """
    import json, numpy as np, fastconv
    names = [b.name for b in fastconv.list_backends()]
    with fastconv.use_backend("tiny"):
        y = fastconv.conv2d(np.ones((1, 1, 3, 3)), np.ones((1, 1, 2, 2)))
    import tiny_backend
    status = {b.name: [b.available, b.builtin] for b in fastconv.list_backends()}
    errors = {}
    for name in ("broken", "wrong", "absent"):
        try:
            fastconv.set_backend(name)
        except Exception as error:
            errors[name] = f"{type(error).__name__}: {error}"
    print(json.dumps({"names": names, "y": y.tolist(), "calls": tiny_backend.TinyBackend.calls, "status": status,
                      "errors": errors, "numpy": type(fastconv.get_backend("numpy")).__name__}))
    """
    done = run(code, path=third_party(tmp_path, TINY))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["names"][:5] == ["cpp", "cython", "numba", "numpy", "reference"]
    assert sorted(found["names"][5:]) == ["absent", "broken", "tiny", "wrong"]
    assert found["y"] == [[[[4.0, 4.0], [4.0, 4.0]]]]
    assert found["calls"] == 1
    assert found["status"]["tiny"] == [True, False]
    assert found["status"]["absent"] == [False, False]
    assert found["numpy"] == "NumpyBackend"
    for name, text in found["errors"].items():
        assert text.startswith(f"BackendUnavailableError: backend {name!r}"), text
    assert len(found["errors"]) == 3
    chosen = run(
        "import fastconv.backends.registry as r; print(r.active().name)", path=tmp_path, FASTCONV_BACKEND="tiny"
    )
    assert chosen.stdout == "tiny\n"


def test_import_imports_no_backend() -> None:
    code = """
    import sys, fastconv
    print([m for m in sys.modules if m.startswith("fastconv.backends._")], "numba" in sys.modules)
    fastconv.conv2d([[[[1.0]]]], [[[[1.0]]]], backend="reference")
    print("numba" in sys.modules)
    """
    assert run(code).stdout == "[] False\nFalse\n"
