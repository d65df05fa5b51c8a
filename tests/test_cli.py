"""The command line: exit status, clean JSON, complaints in one line."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest

import fastconv
from fastconv.cli import main


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    """What was complained: one line on standard error, nothing on standard output."""
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith("\n")
    assert len(err.splitlines()) == 1
    return err


def test_it_runs_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "fastconv", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"fastconv {fastconv.__version__}\n"


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in ("demo", "bench", "check", "info"))


@pytest.mark.parametrize("command", ["demo", "bench", "check", "info"])
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert "--json" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "COMMAND"),
        (["bnech"], "invalid choice"),
        (["bench", "--threads", "0"], "must be at least 1"),
        (["bench", "--batch", "two"], "not an integer"),
        (["bench", "--colour"], "--colour"),
        (["bench", "resnet51"], "nothing is called 'resnet51'"),
        (["bench", "3x8x8>4g2"], "groups"),
        (["bench", "--backend", "cuda"], "backend must be one of"),
        (["bench", "--peers", "caffe", "tiny"], "peer 'caffe' is unknown"),
        (["bench", "1x2x2>1k9", "--backend", "numpy"], "the kernel covers 9 positions"),
        (["check", "--backend", "nunpy"], "did you mean 'numpy'"),
        (["info", "extra"], "unrecognized arguments"),
    ],
)
def test_bad_arguments_are_one_line_and_status_2(
    words: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert text in capsys.readouterr().err.splitlines()[-1]


def test_complaints_leave_standard_output_clean(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "nothing of that name", "--json"]) == 2
    assert one_line(capsys).startswith("fastconv bench: ")


# -------------------------------------------------------------------------------------------------------- info


def test_info_tells_version_and_backends(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"fastconv {fastconv.__version__}")
    assert all(status.name in out for status in fastconv.list_backends())


def test_info_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["version"] == fastconv.__version__
    assert told["machine"]["backends"]["numpy"]["available"] is True


def test_info_says_how_to_mend_a_missing_backend() -> None:
    # a backend whose package is missing: numba, hidden from this process
    code = "import sys; sys.modules['numba'] = None; from fastconv.cli import main; sys.exit(main(['info']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "missing" in done.stdout
    assert "pip install 'fastconv[numba]'" in done.stdout


# ------------------------------------------------------------------------------------------------------- bench


def test_bench_lists_layers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--list", "vgg16"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 9


def test_bench_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rich")
    assert main(["bench", "2x6x6>3k3", "--quick", "--backend", "numpy,reference"]) == 0
    out, _ = capsys.readouterr()
    assert "shape/2x6x6>3k3" in out
    assert "GFLOP/s" in out
    assert "reference" in out


def test_bench_as_json_is_alone_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    before = fastconv.get_num_threads()
    words = ["bench", "odd/tiny", "--quick", "--json", "--backend", "numpy", "--batch", "3", "--threads", "1"]
    try:
        assert main(words) == 0
    finally:
        fastconv.set_num_threads(before)
    told = json.loads(capsys.readouterr().out)
    assert told["schema"] == 2
    assert told["machine"]["limits"]["1"]["fma_gflops"] > 0
    (row,) = told["rows"]
    assert (row["contender"], row["batch"], row["threads"]) == ("numpy", 3, 1)
    assert row["correct"] is True
    assert told["interrupted"] is False


def test_bench_of_gradients(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "2x6x6>3k3", "--backward", "--quick", "--json", "--backend", "numpy"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"][0]["layer"] == "backward/shape 2x6x6>3k3"


def test_an_interrupted_bench_shows_what_it_has(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastconv.bench import runner

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "take_turns", interrupt)
    assert main(["bench", "odd/tiny", "--json", "--backend", "numpy"]) == 130
    out, err = capsys.readouterr()
    assert json.loads(out)["interrupted"] is True
    assert "interrupted" in err


# ------------------------------------------------------------------------------------------------------- check


def test_check_finds_a_right_backend_right(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--quick", "--json", "--backend", "numpy"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is True
    operations = {line["operation"] for line in told["lines"]}
    assert {"conv", "conv backward", "conv_transpose", "max_pool, indices", "avg_pool backward", "pad"} <= operations
    assert all(line["cases"] > 0 and not line["failures"] for line in told["lines"] if line["operation"] != "conv")


def test_check_finds_a_wrong_backend_wrong(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rich")
    backend = fastconv.get_backend("numpy")
    right = backend.avg_pool

    def wrong(geometry, x, out) -> None:  # type: ignore[no-untyped-def]
        right(geometry, x, out)
        np.multiply(out, 1.001, out=out)

    monkeypatch.setattr(backend, "avg_pool", wrong)
    assert main(["check", "--quick", "--backend", "numpy"]) == 1
    assert "times what is allowed" in capsys.readouterr().out


# --------------------------------------------------------------------------------------------- what is missing


@pytest.mark.parametrize(
    ("words", "package"),
    [(["bench"], "rich"), (["check"], "rich"), (["demo"], "skimage"), (["demo"], "matplotlib")],
)
def test_what_is_not_installed_is_said_with_its_remedy(
    words: list[str], package: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec

    def without(name: str, *rest: object) -> object:
        return None if name == package else find(name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(importlib.util, "find_spec", without)
    assert main(words) == 2
    text = one_line(capsys)
    assert package in text
    assert "pip install 'fastconv[demo]'" in text


def test_a_reader_that_stops_early_is_no_error() -> None:
    code = f"{sys.executable} -m fastconv bench --list | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", code], capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0
    assert done.stderr == ""
