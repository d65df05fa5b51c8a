"""The report: figures from any JSON, a page that needs nothing else, and the verdict on two runs."""

from __future__ import annotations

import copy
import json
import math
import pathlib
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import asdict
from html.parser import HTMLParser
from typing import Any

import pytest

from fastconv.bench.compare import compare_runs, comparison_lines
from fastconv.bench.machine import describe
from fastconv.bench.report import Run, html, picture
from fastconv.bench.report.figures import geometric_mean
from fastconv.bench.runner import Row
from fastconv.cli import main

LAYERS = (("resnet50/3x3 64 @56", "3x3"), ("resnet50/1x1 256>64 @56", "1x1"), ("filters/3x3 1 @512", "image filter"))
WHO = (("fastconv", "eager", "first"), ("fastconv plan", "plan", "first"), ("fastconv plan NHWC", "plan", "last"),
       ("torch", "eager", "first"), ("torch channels_last", "eager", "last"),
       ("openvino NHWC", "plan", "last"))  # fmt: skip


def row(layer: str, kind: str, who: str, mode: str, layout: str, seconds: float, **more: Any) -> dict[str, Any]:
    """A row of a made-up run."""
    given = {"spread": 0.04, "gflops": 0.2 / seconds, "correct": True, "error": 2e-7, "flops": 200_000_000,
             "bytes": 2_000_000, "turns": 5}  # fmt: skip
    given |= {"algorithm": "direct" if who.startswith("fastconv") else ""} | more
    return asdict(Row(layer, "conv", who, seconds=seconds, kind=kind, mode=mode, layout=layout, **given))


def made_up(slower_on: str = "resnet50/1x1 256>64 @56") -> dict[str, Any]:
    """A run in which fastconv is twice as fast as everybody, but on one layer half as fast."""
    rows = []
    for threads in (1, 2):
        for layer, kind in LAYERS:
            for who, mode, layout in WHO:
                seconds = 1e-3 if who.startswith("fastconv") else 2e-3
                if layer == slower_on and who.startswith("fastconv"):
                    seconds = 4e-3
                rows.append(row(layer, kind, who, mode, layout, seconds / threads, threads=threads))
    rows.append(
        asdict(Row(LAYERS[0][0], "conv", "jax", note="RuntimeError: <out> of luck", status="failed", kind="3x3"))
    )
    rows.append(row(*LAYERS[0], "torch (default allocator)", "eager", "first", 3e-3))
    regret = {"layer": LAYERS[0][0], "kind": "3x3", "threads": 1, "batch": 1, "layout": "first", "chosen": "direct",
              "best": "winograd_4x3", "regret": 1.5, "candidates": {
                  "direct": {"seconds": 1.5e-3, "spread": 0.02, "error": 2e-7},
                  "winograd_4x3": {"seconds": 1e-3, "spread": 0.02, "error": 7e-7}}}  # fmt: skip
    limits = {"1": {"fma_gflops": 240.0, "copy_gbs": 19.0}, "2": {"fma_gflops": 470.0, "copy_gbs": 30.0}}
    return {
        "schema": 2, "settings": {"seconds": 0.15, "rounds": 5, "algorithm": "auto"},
        "machine": describe() | {"limits": limits}, "rows": rows, "regrets": [regret], "missing": [],
        "peers": {"torch": {"title": "PyTorch", "version": "2.13"}, "openvino": {"title": "OpenVINO", "version": "1"}},
        "absent": {"ncnn": "not installed; to mend it: pip install ncnn"}, "interrupted": False,
        "command": "fastconv bench --peers", "date": "2026-01-01 12:00",
    }  # fmt: skip


class WellFormed(HTMLParser):
    """Complains about tags that are not closed, and collects what would be fetched."""

    VOID = ("meta", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.fetched += [v or "" for k, v in attrs if k in ("src", "href", "srcset", "data", "xlink:href")]
        self.fetched += [tag] if tag in ("script", "link", "iframe", "img", "object") else []

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in self.VOID or not self.open or "svg" in self.open, tag

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read_page(page: str) -> str:
    """The words of a page, after seeing that it is whole and needs no network."""
    parser = WellFormed()
    parser.feed(page)
    parser.close()
    assert not parser.open
    assert not parser.fetched
    assert "url(" not in page
    assert "@import" not in page
    assert set(re.findall(r"https?://[^\"' <)]+", page)) <= {"http://www.w3.org/2000/svg"}
    for drawing in re.findall(r"<svg.*?</svg>", page):
        ElementTree.fromstring(drawing)
    return " ".join(" ".join(parser.text).split())


def test_the_page_is_whole_and_says_the_result_first() -> None:
    page = html(made_up())
    text = read_page(page)
    assert "fastconv is faster than the best of 2 other libraries on 2 of 3 layers, slower on 1" in text
    assert text.index("Where fastconv loses") < text.index("Every layer")
    assert text.index("resnet50/1x1 256>64 @56") < text.index("Like with like")
    for section in ("How near to the machine's limits", "Threads and batch", "Accuracy", "The algorithm chosen",
                    "The default allocator", "Absent, failed or wrong", "Machine and versions"):  # fmt: skip
        assert section in text
    assert "jax failed on resnet50/3x3 64 @56: RuntimeError: <out> of luck" in text
    assert "ncnn: not installed; to mend it: pip install ncnn" in text
    assert "What this report lacks" not in text
    assert "prefers-color-scheme:dark" in page
    assert 'name="viewport"' in page


def test_the_picture_stands_alone() -> None:
    drawn = picture(made_up())
    root = ElementTree.fromstring(drawn)
    assert root.tag.endswith("svg")
    assert "PyTorch" in drawn
    assert "prefers-color-scheme:dark" in drawn
    assert picture({"rows": []}) == ""


def damaged(name: str) -> Any:
    """A run's JSON with something wrong with it."""
    told = copy.deepcopy(made_up())
    if name == "no machine":
        del told["machine"]
    elif name == "no limits":
        del told["machine"]["limits"]
    elif name == "other schema":
        told["schema"] = 99
    elif name == "cut short":
        told["missing"] = [{"layer": "vgg16/3x3 64 @224", "threads": 1, "batch": 1}]
        told["interrupted"] = True
    elif name == "rows that are none":
        told["rows"] += [None, {"layer": 3}, {"layer": "a", "contender": "b"}, 17]
    elif name == "odd numbers":
        told["rows"][0]["seconds"] = "fast"
        told["rows"][1]["seconds"] = math.nan
        told["rows"][2]["threads"] = None
        told["rows"][3]["kind"] = 12
    elif name == "disturbed":
        told["rows"][0]["other"] = 0.7
    elif name == "fastconv alone":
        told["rows"] = [r for r in told["rows"] if r["contender"].startswith("fastconv")]
    elif name == "others alone":
        told["rows"] = [r for r in told["rows"] if not r["contender"].startswith("fastconv")]
    elif name == "odd regrets":
        told["regrets"] = [{}, 3, {"regret": 1.0, "chosen": "x", "candidates": {"a": 1}}]
    return told


@pytest.mark.parametrize(
    ("name", "lack"),
    [("no machine", "on which machine"), ("no limits", "no roof"), ("other schema", "another program or version"),
     ("cut short", "1 cases were not measured (vgg16/3x3 64 @224)"), ("rows that are none", "4 rows lack"),
     ("odd numbers", ""), ("disturbed", "disturbed 1 cases"),
     ("fastconv alone", "no other library"), ("others alone", "fastconv itself was not"),
     ("odd regrets", "")],
)  # fmt: skip
def test_an_incomplete_run_says_what_it_lacks(name: str, lack: str) -> None:
    text = read_page(html(damaged(name)))
    assert lack in text
    assert ("What this report lacks" in text) == bool(lack)


@pytest.mark.parametrize("told", [{}, [], 3, None, "text", {"rows": 4}, {"benchmarks": [{"name": "x"}]},
                                  {"schema": 2, "rows": [], "machine": {"cpu": 5}}])  # fmt: skip
def test_a_foreign_file_is_a_page_that_says_so(told: Any) -> None:
    text = read_page(html(told))
    assert "What this report lacks" in text
    assert "no figures of fastconv" in text


def test_names_from_outside_are_only_text() -> None:
    told = made_up()
    told["rows"][0]["layer"] = "<script>alert(1)</script>"
    told["peers"]["torch"]["title"] = '<img src="x">'
    told["machine"]["cpu"] = "<b>"
    assert "<script>" not in html(told)
    read_page(html(told))
    ElementTree.fromstring(picture(told))


def test_contests_compare_like_with_like() -> None:
    run = Run.read(made_up())
    assert run.libraries() == ["torch", "openvino"]
    ratios = {a.case[0]: a.ratio for a in run.by_library("torch")}
    assert ratios["resnet50/3x3 64 @56"] == pytest.approx(2.0)
    assert ratios["resnet50/1x1 256>64 @56"] == pytest.approx(0.5)
    assert run.allocator() == [("torch", pytest.approx(1.5), 1)]
    assert geometric_mean([2.0, 8.0]) == pytest.approx(4.0)


# ------------------------------------------------------------------------------------------------------ two runs


def scaled(told: dict[str, Any], ours: float = 1.0, theirs: float = 1.0, only: str = "") -> dict[str, Any]:
    """The run again, with other times."""
    again = copy.deepcopy(told)
    for one in again["rows"]:
        if one["seconds"]:
            mine = one["contender"].startswith("fastconv")
            one["seconds"] *= (ours if only in one["layer"] else 1.0) if mine else theirs
    return again


@pytest.mark.parametrize(
    ("ours", "theirs", "verdict"),
    [(1.0, 1.0, "the same within the noise"), (1.04, 1.02, "the same within the noise"), (1.5, 1.0, "slower"),
     (0.6, 1.0, "faster"), (1.4, 1.4, "the same within the noise"), (1.0, 0.6, "slower"), (1.06, 0.99, "slower")],
)  # fmt: skip
def test_the_verdict_knows_the_noise_and_the_machine(ours: float, theirs: float, verdict: str) -> None:
    found = compare_runs(made_up(), scaled(made_up(), ours, theirs))
    assert found.verdict == verdict
    assert "fastconv is " + verdict in comparison_lines(found)[0]


def test_a_change_in_one_layer_is_found_and_named() -> None:
    found = compare_runs(made_up(), scaled(made_up(), 1.6, only="1x1"))
    assert found.verdict.startswith("slower")
    assert {c.after.layer for c in found.of("slower")} == {"resnet50/1x1 256>64 @56"}
    assert not found.of("faster")
    assert any("1x1 256>64 @56" in line and "->" in line for line in comparison_lines(found))


def test_noisy_times_need_a_larger_change() -> None:
    before, after = made_up(), scaled(made_up(), 1.3, only="1x1")
    assert compare_runs(before, after).of("slower")
    for told in (before, after):
        for one in told["rows"]:
            one["spread"] = 0.9
    assert not compare_runs(before, after).of("slower")


def test_other_versions_do_not_judge_the_machine() -> None:
    after = scaled(made_up(), 1.0, 0.5)
    after["peers"]["torch"]["version"] = "2.14.0"
    after["peers"]["openvino"]["version"] = "2"
    found = compare_runs(made_up(), after)
    assert found.judges == 0
    assert found.verdict == "the same within the noise"


def test_what_differs_between_the_runs_is_said() -> None:
    after = made_up()
    after["machine"]["cpu"] = "another"
    after["rows"] = after["rows"][6:]
    lines = "\n".join(comparison_lines(compare_runs(made_up(), after)))
    assert "differ in their processor" in lines
    assert "6 times stand in one run only" in lines


def test_compare_and_report_from_the_command_line(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, after, page = tmp_path / "a.json", tmp_path / "b.json", tmp_path / "r.html"
    before.write_text(json.dumps(made_up()))
    after.write_text(json.dumps(scaled(made_up(), 1.5)))
    assert main(["bench", "--compare", str(before), str(before)]) == 0
    assert main(["bench", "--compare", str(before), str(after)]) == 1
    assert "fastconv is slower." in capsys.readouterr().out
    assert main(["bench", "--from", str(before), "--html", str(page)]) == 0
    read_page(page.read_text(encoding="utf-8"))
    readme = tmp_path / "README.md"
    readme.write_text("<!-- begin: measured speed -->\n<!-- end: measured speed -->\n")
    assert main(["bench", "--from", str(before), "--readme", str(readme)]) == 0
    assert "fastconv bench --peers" in readme.read_text()
    ElementTree.parse(tmp_path / "docs" / "pictures" / "speed.svg")


@pytest.mark.parametrize(("words", "text"), [
    (["--from", "nothing.json", "--html", "r.html"], "cannot read nothing.json"),
    (["--from", "README", "--html", "r.html"], "holds no JSON"), (["--from", "good"], "--from wants --html"),
    (["--compare", "README", "good"], "holds no JSON"),
])  # fmt: skip
def test_files_that_are_none_are_complained_about(
    words: list[str],
    text: str,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "README").write_text("# text")
    (tmp_path / "good").write_text(json.dumps(made_up()))
    assert main(["bench", *words]) == 2
    assert text in capsys.readouterr().err
