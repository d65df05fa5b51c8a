"""The lessons run, and reach what their pages say; their pages show pictures that exist."""

from __future__ import annotations

import importlib.util
import pathlib
import re
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
EXAMPLES, PAGES = ROOT / "examples", ROOT / "docs" / "lessons"

pytest.importorskip("matplotlib", reason="matplotlib draws the pictures and is not installed")


def lesson(name):
    """An example as a module."""
    spec = importlib.util.spec_from_file_location(f"lesson_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def written(folder, *names):
    return all((folder / name).stat().st_size > 500 for name in names)


def test_mood_of_drawn_faces_runs(tmp_path):
    mood = lesson("mood")
    assert 0 <= mood.main(["--quick", "--data", "drawn", "--output", str(tmp_path)]) <= 1
    assert written(tmp_path, "mood-confusion.png", "mood-filters.png", "mood-feature-maps.png", "mood-model.svg")
    assert mood.build((64, 64, 3)).count_params() == 37_633  # as the course prints it
    with pytest.raises(FileNotFoundError, match="train_happy"):
        mood.main(["--quick", "--data", "course", "--folder", str(tmp_path)])


def test_mood_finds_faces():
    pytest.importorskip("skimage", reason="scikit-image holds the faces and is not installed")
    mood = lesson("mood")
    model, _, test, _ = mood.train("faces", seed=0, epochs=25)
    assert len(test[0]) == 50
    assert mood.accuracy(model, test) >= 0.9


def test_signs_run(tmp_path):
    signs = lesson("signs")
    for kind in ("course", "deeper"):
        signs.main(["--quick", "--model", kind, "--output", str(tmp_path / kind)])
        assert written(tmp_path / kind, "signs-confusion.png", "signs-history.png", "signs-model.svg")
    assert signs.build().count_params() == 1_310
    (x, y), (test_x, test_y) = signs.load(quick=True)
    assert (x.shape[1:], y.shape[1:], test_x.shape[1:], test_y.shape[1:]) == ((64, 64, 3), (6,), (64, 64, 3), (6,))


def test_digits_are_read(tmp_path):
    pytest.importorskip("sklearn", reason="scikit-learn holds the digits and is not installed")
    digits = lesson("digits")
    (x, y), (test_x, test_y) = digits.load()
    assert (len(x), len(y), len(test_x), len(test_y)) == (1437, 1437, 360, 360)
    assert digits.main(["--plain", "--epochs", "5", "--output", str(tmp_path)]) >= 0.93
    assert written(
        tmp_path, "digits-confusion.png", "digits-filters.png", "digits-feature-maps.png", "digits-model.svg"
    )
    assert digits.main(["--quick"]) > 0.5


def test_pages_show_pictures_that_the_lesson_draws(tmp_path):
    pytest.importorskip("skimage", reason="scikit-image holds the photographs and is not installed")
    pytest.importorskip("sklearn", reason="scikit-learn holds the digits and is not installed")
    explained = lesson("explained")
    shown = {
        pathlib.PurePosixPath(name).name
        for page in PAGES.glob("*.md")
        for name in re.findall(r"!\[[^\]]*\]\((pictures/[^)]+)\)", page.read_text(encoding="utf-8"))
    }
    assert shown == set(explained.PICTURES)
    assert {path.name for path in (PAGES / "pictures").iterdir()} == shown
    explained.main(["--quick", "--output", str(tmp_path)])
    for name in shown:
        assert 500 < (tmp_path / name).stat().st_size < 60_000, name
        assert (PAGES / "pictures" / name).stat().st_size < 60_000, name


def test_links_between_pages():
    for page in PAGES.glob("*.md"):
        for target in re.findall(r"(?<!!)\[[^\]]*\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), (page.name, target)
