"""The codebase itself: imports point downwards, versions agree, names are documented, stubs match, import is light."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import json
import os
import pkgutil
import re
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import fastconv

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path(fastconv.__file__).resolve().parent
SOURCES = sorted(PACKAGE.rglob("*.py"))

# rooms from the roof down; a file belongs to the first whose name begins its path
ROOMS = (
    ("roof", ("cli", "bench", "viz", "course", "nn", "testing", "demo", "__main__")),
    ("public names", ("__init__",)),
    ("ops", ("ops", "config")),
    ("backends", ("backends/_reference", "backends/_num", "backends/_cython", "backends/_cpp", "backends/__init__")),
    ("registry", ("backends/registry",)),
    ("protocol", ("backends/protocol", "backends/composed")),
    ("geometry", ("geometry",)),
    ("ground", ("errors", "threads", "_version")),
)
# what the package of backends exports is its own room's business; a backend reaches its list by name, at run time
LEVEL = {name: len(ROOMS) - i for i, (name, _) in enumerate(ROOMS)}
PUBLIC = ("", "testing")  # all that the roof may know of what lies below it: the public names


def room(module: str) -> str:
    """The room of a module, given by its path below the package without the suffix."""
    for name, beginnings in ROOMS:
        if any(module == b or module.startswith((b + "/", b)) for b in beginnings if b):
            return name
    raise AssertionError(f"{module} belongs to no room: say in ROOMS where it stands")


def imports(path: Path) -> Iterator[str]:
    """Modules of this package that a file imports, as paths below the package; typing-only imports count too."""
    here = path.relative_to(PACKAGE).with_suffix("").parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.split(".")[0] == "fastconv"]
            yield from ("/".join(name.split(".")[1:]) for name in names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                base = list(here[: len(here) - node.level])
            elif node.module and node.module.split(".")[0] == "fastconv":
                base = []
            else:
                continue
            inner = (node.module or "").split(".") if node.level else (node.module or "").split(".")[1:]
            base += [part for part in inner if part]
            for alias in node.names:
                whole = PACKAGE.joinpath(*base, alias.name)
                is_module = whole.with_suffix(".py").exists() or (whole / "__init__.py").exists()
                yield "/".join([*base, alias.name] if is_module else base)


def as_file(module: str) -> str:
    """``backends`` and ``backends/__init__`` are one."""
    return f"{module}/__init__".lstrip("/") if (PACKAGE / module / "__init__.py").exists() else module


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_downwards(path: Path) -> None:
    """A room knows the rooms below it, and its own; the roof knows the public names."""
    module = path.relative_to(PACKAGE).with_suffix("").as_posix()
    mine = room(module)
    for other in imports(path):
        theirs = room(as_file(other))
        if mine == theirs:
            continue
        allowed = LEVEL[theirs] < LEVEL[mine]
        # ops ask the registry; the package of backends shows what registry and protocol offer
        assert allowed, f"{module} ({mine}) imports {other} ({theirs}), which stands above it"


def test_the_check_of_imports_checks(tmp_path: Path) -> None:
    """It sees relative, absolute and nested imports."""
    assert "ops/conv" in set(imports(PACKAGE / "__init__.py"))
    assert "backends/registry" in set(imports(PACKAGE / "ops/pad.py"))
    assert LEVEL[room("ops/conv")] > LEVEL[room("geometry")]
    assert LEVEL[room("backends/_cpp/conv")] > LEVEL[room("backends/protocol")]


def test_versions() -> None:
    """Written once."""
    from importlib import metadata

    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|rc\d+)?", fastconv.__version__)
    try:
        assert metadata.version("fastconv") == fastconv.__version__
    except metadata.PackageNotFoundError:
        pytest.skip("fastconv is not installed but found on the path")
    text = (ROOT / "pyproject.toml").read_text()
    assert 'version = { attr = "fastconv._version.__version__" }' in text


def test_compiled_version() -> None:
    core = pytest.importorskip("fastconv.backends._cpp._core", reason="the compiled backend is not built")
    assert core.__version__ == fastconv.__version__


def public() -> list[tuple[str, object]]:
    return [(name, getattr(fastconv, name)) for name in fastconv.__all__ if not name.startswith("__")]


def test_public_names_are_sorted_and_complete() -> None:
    assert len(set(fastconv.__all__)) == len(fastconv.__all__)
    for stem in ("conv", "conv_transpose", "max_pool", "avg_pool", "lp_pool", "adaptive_avg_pool", "adaptive_max_pool"):
        for rank in (1, 2, 3):
            for suffix in ("", "_backward"):
                assert f"{stem}{rank}d{suffix}" in fastconv.__all__
    listed = """pad pad_backward im2col col2im global_avg_pool global_max_pool max_unpool1d max_unpool2d max_unpool3d
        max_pool1d_with_indices max_pool2d_with_indices max_pool3d_with_indices plan_conv1d plan_conv2d plan_conv3d
        plan_chain fold_batch_norm set_num_threads get_num_threads show_config release_scratch set_backend
        use_backend get_backend
        list_backends batch_norm ConvGrads"""
    assert not set(listed.split()) - set(fastconv.__all__)


@pytest.mark.parametrize(("name", "thing"), public(), ids=[n for n, _ in public()])
def test_documented(name: str, thing: object) -> None:
    """A docstring; for a function its parameters, result and a runnable example too."""
    text = inspect.getdoc(thing) or ""
    assert len(text) > 20, f"{name} has no docstring"
    if inspect.isfunction(thing):
        assert ">>>" in text, f"{name} has no example"
        for parameter in inspect.signature(thing).parameters:
            if parameter not in ("self", "cls") and len(inspect.signature(thing).parameters) > 1:
                assert re.search(rf"\b{parameter}\b", text), f"{name} does not document {parameter}"


def modules() -> list[str]:
    skipped = ("_core", "_cython.", "__main__")
    found = [m.name for m in pkgutil.walk_packages([str(PACKAGE)], "fastconv.", onerror=lambda name: None)]
    return ["fastconv", *(m for m in found if not any(s in m for s in skipped))]


@pytest.mark.parametrize("name", modules())
def test_examples(name: str) -> None:
    """Every example in a docstring runs and gives what it shows."""
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        pytest.skip(f"{name} needs what is not installed: {error}")
    failed, _ = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    assert failed == 0


@pytest.mark.parametrize("module", ["fastconv.backends._cpp._core", "fastconv.backends._cython"])
def test_stubs_match(module: str, tmp_path: Path) -> None:
    """Mypy's stubtest compares the stubs with what was compiled."""
    pytest.importorskip("mypy", reason="mypy is not installed")
    try:
        importlib.import_module(module)
    except ImportError as error:
        pytest.skip(f"{module}: {error}")
    allowed = tmp_path / "allowed.txt"
    allowed.write_text(r"fastconv\.backends\._cpp\._core\.[A-Z]\w*" + "\n")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    if "site-packages" not in PACKAGE.parts:  # mypy finds what is installed by itself, and refuses to be told
        env["MYPYPATH"] = str(PACKAGE.parent)
    done = subprocess.run(
        [sys.executable, "-m", "mypy.stubtest", "--ignore-missing-stub", "--allowlist", str(allowed),
         "--ignore-unused-allowlist", module], capture_output=True, text=True, timeout=400, env=env, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def repository_files() -> list[Path]:
    folders = ("src", "csrc", "tests", "benchmarks", "examples", "docs")
    kinds = (".py", ".pyi", ".pyx", ".pxd", ".cpp", ".hpp", ".inc", ".h")
    return [p for folder in folders for p in sorted((ROOT / folder).rglob("*")) if p.suffix in kinds]


def test_files_fit_a_head() -> None:
    long = {str(p.relative_to(ROOT)): n for p in repository_files() if (n := len(p.read_text().splitlines())) > 500}
    assert not long


def test_no_loose_ends() -> None:
    """Nothing is left for later in the sources."""
    words = re.compile(r"\b(TODO|FIX" + r"ME|XX" + r"X|HACK)\b|raise Not" + r"Implemented")
    found = {
        str(p.relative_to(ROOT)): words.findall(p.read_text())
        for p in repository_files()
        if p != Path(__file__).resolve() and words.search(p.read_text())
    }
    assert not found


def test_package_is_small() -> None:
    """All files of the package, compressed as a wheel is: the wheel itself is measured by .ci/run."""
    files = [p for p in PACKAGE.rglob("*") if p.is_file() and p.suffix != ".pyc"]
    packed = sum(len(zlib.compress(path.read_bytes())) for path in files)
    assert packed < 4_000_000, f"{packed / 1e6:.2f} MB"


def test_import_is_light() -> None:
    """Nothing optional is imported, and it costs at most 30 ms on top of NumPy's own import."""
    code = """
import json, sys, time
import numpy
before, start = set(sys.modules), time.process_time()
import fastconv
spent = time.process_time() - start
print(json.dumps([spent, sorted({m.split(".")[0] for m in set(sys.modules) - before})]))
"""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    times, found = [], set()
    for _ in range(9):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=env)
        assert done.returncode == 0, done.stderr
        spent, names = json.loads(done.stdout)
        times.append(spent)
        found |= set(names)
    heavy = ("numba", "scipy", "matplotlib", "rich", "h5py", "skimage", "torch", "Cython", "pytest", "safetensors")
    assert not found & set(heavy)
    # the least of nine, in processor time: what a disturbed machine adds is no cost of ours; where all processors
    # are taken by others, two threads share one core and each runs at about half its speed
    busy = hasattr(os, "getloadavg") and os.getloadavg()[0] > (os.cpu_count() or 1)
    assert min(times) < (0.060 if busy else 0.030), f"import took {min(times) * 1e3:.0f} ms"
