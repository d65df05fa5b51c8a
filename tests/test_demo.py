"""The demo in its short form, on real photographs, and what it draws."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest

import fastconv
from fastconv.cli import demo, main

pytest.importorskip("skimage")
pytest.importorskip("rich")
matplotlib = pytest.importorskip("matplotlib")


def test_demo_runs_with_every_backend(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--quick", "--json", "--output", str(tmp_path)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is True
    filters, networks, picture = told["steps"][:3]
    available = {status.name for status in fastconv.list_backends() if status.available}
    for row in filters["rows"]:
        assert set(row["differences"]) == available - {"reference"}
        assert row["agree"]
    assert {row["backend"] for row in networks["rows"]} == available
    assert {row["network"] for row in networks["rows"]} == {"ResNet-50 stem", "MobileNetV2 block"}
    assert all(row["seconds"] > 0 for row in networks["rows"])
    (path,) = picture["pictures"]
    pixels = matplotlib.image.imread(path)
    assert pixels.shape[0] > 1000
    assert pixels[..., :3].std() > 0.1  # something is drawn


def test_demo_prints_tables(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--quick", "--backend", "numpy", "--output", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    for text in ("Sobel", "all agree", "ResNet-50 stem", "MobileNetV2 block", "times the reference", "All backends"):
        assert text in out


def test_demo_fails_where_a_backend_is_wrong(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = fastconv.get_backend("numpy")
    right = backend.max_pool

    def wrong(geometry, x, out, indices) -> None:  # type: ignore[no-untyped-def]
        right(geometry, x, out, indices)
        out += np.float32(0.5)

    monkeypatch.setattr(backend, "max_pool", wrong)
    monkeypatch.setattr(demo, "STEPS", demo.STEPS[:1])
    assert main(["demo", "--quick", "--backend", "numpy", "--output", str(tmp_path)]) == 1
    assert "they differ" in capsys.readouterr().out


def test_demo_says_where_it_cannot_write(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str],
                                         monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    monkeypatch.setattr(demo, "STEPS", demo.STEPS[2:3])
    assert main(["demo", "--quick", "--backend", "numpy", "--output", str(tmp_path / "file" / "below")]) == 2
    assert "cannot write to" in capsys.readouterr().err


def test_photographs_are_real_and_need_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    from fastconv.viz import PHOTOGRAPHS, photograph, squares

    def refuse(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(socket, "socket", refuse)
    for name in PHOTOGRAPHS:
        pixels = photograph(name)
        assert pixels.shape[0] == 3
        assert pixels.dtype == np.float32
        assert 0 <= pixels.min() < 0.1 < 0.9 < pixels.max() <= 1
    assert squares(32).shape == (len(PHOTOGRAPHS), 3, 32, 32)
    with pytest.raises(ValueError, match="photograph must be one of"):
        photograph("lenna")


def test_oriented_filters_answer_to_no_even_surface() -> None:
    from fastconv.viz import gabor_bank

    bank = gabor_bank()
    assert bank.shape == (64, 3, 7, 7)
    even = fastconv.conv2d(np.ones((1, 3, 9, 9), np.float32), bank, backend="reference")
    assert np.abs(even).max() < 1e-6
