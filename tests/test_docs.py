"""The documentation: its programs run, its pictures are what the code draws, its pages are complete and build."""

from __future__ import annotations

import doctest
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fastconv

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
# the lessons' pages quote from examples/, which test_examples.py runs; nn.md is run by test_nn_training.py
PAGES = [ROOT / "README.md", DOCS / "index.md", DOCS / "start.md", *sorted(DOCS.glob("howto/*.md")),
         *sorted(DOCS.glob("explanation/*.md")), *sorted(DOCS.glob("extend/*.md"))]  # fmt: skip
_FENCE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def programs(page: Path) -> list[tuple[int, str]]:
    """(line, text) of every Python block of a page."""
    text = page.read_text(encoding="utf-8")
    return [(text[: found.start(1)].count("\n"), found[1]) for found in _FENCE.finditer(text)]


@pytest.mark.parametrize("page", [p for p in PAGES if programs(p)], ids=lambda p: p.stem)
def test_programs_run(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Blocks run one after the other, sharing their names; those with prompts must give what they show."""
    if not fastconv.list_backends()[0].available:
        pytest.skip("the pages describe an installation with the compiled backend")
    names: dict[str, object] = {"__name__": page.stem}
    options = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL
    for line, text in programs(page):
        if ">>> " not in text:
            exec(compile("\n" * line + text, str(page), "exec"), names)
            continue
        runner, example = doctest.DocTestRunner(optionflags=options), doctest.DocTestParser()
        test = example.get_doctest(text, names, page.name, str(page), line)
        runner.run(test, clear_globs=False)
        names = test.globs
        assert runner.failures == 0, capsys.readouterr().out


def test_the_check_of_programs_checks(tmp_path: Path) -> None:
    """Every page with code is looked at, and a wrong result is seen."""
    assert {p.stem for p in PAGES if programs(p)} >= {"README", "start", "images", "plans", "numerics", "algorithms"}
    example = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "x", None, 0)
    assert doctest.DocTestRunner(verbose=False).run(example, out=lambda text: None).failed == 1


def test_pictures(tmp_path: Path) -> None:
    """Pages show what docs/pictures.py draws, and it draws."""
    pytest.importorskip("matplotlib", reason="matplotlib draws the pictures and is not installed")
    pytest.importorskip("skimage", reason="scikit-image holds the photograph and is not installed")
    if not fastconv.list_backends()[0].available:
        pytest.skip("one picture compares algorithms of the compiled backend")
    spec = importlib.util.spec_from_file_location("docs_pictures", DOCS / "pictures.py")
    assert spec
    assert spec.loader
    pictures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pictures)
    text = "".join(page.read_text(encoding="utf-8") for page in DOCS.glob("explanation/*.md"))
    shown = set(re.findall(r"!\[[^\]]+\]\(pictures/([^)]+)\)", text))
    assert shown == set(pictures.PICTURES)
    assert shown == {path.name for path in (DOCS / "explanation/pictures").iterdir()}
    pictures.main(["--output", str(tmp_path)])
    for name in shown:
        assert 2_000 < (tmp_path / name).stat().st_size < 60_000, name


def test_the_backend_that_a_page_builds(tmp_path: Path) -> None:
    """Installed by its entry point, it passes the check of all cases."""
    (text,) = [text for _, text in programs(DOCS / "extend/backend.md")]
    (tmp_path / "my_package.py").write_text(text)
    info = tmp_path / "my_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[fastconv.backends]\neinsum = my_package:EinsumBackend\n")
    paths = [str(tmp_path), *(p for p in sys.path if p)]
    done = subprocess.run(
        [sys.executable, "-m", "fastconv", "check", "--quick", "--backend", "einsum"],
        capture_output=True, text=True, timeout=300, env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "einsum" in done.stdout


def test_the_kernel_that_a_page_adds() -> None:
    """It compiles against the headers as they are now."""
    compiler = next((c for c in ("c++", "g++", "clang++") if shutil.which(c)), None)
    if compiler is None:
        pytest.skip("there is no C++ compiler")
    command = [compiler, "-std=c++17", "-fsyntax-only", "-Wall", "-Werror", "-Wno-psabi", "-Wno-ignored-attributes"]
    done = subprocess.run(
        [*command, "-I", str(ROOT / "csrc"), str(DOCS / "extend/rowwise.cpp")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_reference_is_complete() -> None:
    """Every public name has its place in the reference, once."""
    text = "".join(page.read_text(encoding="utf-8") for page in sorted(DOCS.glob("reference/*.md")))
    of_package = re.findall(r"currentmodule:: fastconv\n(.*?)```", text, re.DOTALL)
    names = re.findall(r"auto(?:function|class):: (\w+)", "".join(of_package))
    assert sorted(names) == sorted(set(fastconv.__all__) - {"__version__"})


def test_links_between_pages() -> None:
    """Pages of the site link to files that exist; README and its like too."""
    everywhere = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "RELEASING.md")]
    for page in [*everywhere, *DOCS.rglob("*.md")]:
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for target in re.findall(r"\[[^\]]*\]\(([^)#:\s]+)(?:#[^)]*)?\)", text):
            assert (page.parent / target).exists(), (page.name, target)


def test_the_site_builds(tmp_path: Path) -> None:
    """With warnings as errors: links, references, tables. The whole build is what `make docs` does."""
    for package in ("sphinx", "furo", "myst_parser", "sphinx_copybutton"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: make docs builds the site in its own environment")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "dummy", str(DOCS), str(tmp_path)],
        capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
