"""Other libraries beside fastconv: adapters that give right results, and peers that fail, lie, die or hang."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from fastconv.bench import Layer, find_layers, parse_shape
from fastconv.bench.peers import PEERS, Contender, Peer, find_peers, ours
from fastconv.bench.peers.case import Case, Library, Ready, Unsupported
from fastconv.bench.runner import Measured, Row, Settings, cases_of, make_problem, run
from fastconv.bench.seats import Failed, InProcess, Own, Seat

QUICK = Settings(seconds=0.004, rounds=2, patience=0.0)
SMALL = parse_shape("4x9x8>6k3p1")


class Fake(Library):
    """Computes by the numpy backend, or does whatever its variant says: a peer for these tests."""

    def prepare(self, variant: str, case: Case) -> Ready:
        problem = make_problem(case.layer, case.batch)
        right = problem.call("numpy")  # type: ignore[union-attr]
        if variant == "refuses":
            raise Unsupported("it does not like it")
        if variant == "fails":
            raise RuntimeError("out of luck")
        if variant == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if variant == "hangs":
            time.sleep(60)
        if variant == "prints":
            print("a library that talks")
        if variant == "dies later":
            calls = iter([right])
            return Ready(lambda: next(calls, lambda: os._exit(7))(), list)
        if variant == "slow":
            return Ready(lambda: (time.sleep(0.01), right())[1], list)
        return Ready(right, lambda results: [r + (0.1 if variant == "lies" else 0.0) for r in results])


def seat(*variants: str, patience: float = 60.0) -> Own:
    """A process with the fake library in it."""
    me = f"{pathlib.Path(__file__).stem}:Fake"
    return Own([Contender(f"fake {v}", me, v) for v in variants], 1, patience=patience)


def rows_of(layers: list[Layer], *seats: Seat, settings: Settings = QUICK) -> dict[str, Row]:
    """Rows by contender, of one run on these seats."""
    found: list[Measured] = list(run(cases_of(layers, [1], [1]), settings, seats=lambda threads: list(seats)))
    return {row.contender: row for one in found for row in one.rows}


def test_every_kind_of_bad_peer_is_reported_and_the_run_goes_on() -> None:
    rows = rows_of(
        [SMALL], seat("refuses", "fails", "lies", "prints"), seat("dies"), seat("dies later"),
        InProcess([Contender("numpy", "fastconv", "eager first numpy auto")], 1),
    )  # fmt: skip
    told = {name: (row.status, row.note) for name, row in rows.items()}
    assert told["fake refuses"] == ("unsupported", "it does not like it")
    assert told["fake fails"] == ("failed", "RuntimeError: out of luck")
    assert told["fake lies"][0] == "wrong"
    assert "relative error" in told["fake lies"][1]
    assert told["fake dies"][0] == "failed"
    assert "signal 9" in told["fake dies"][1]
    assert "status 7" in told["fake dies later"][1]
    assert rows["fake prints"].seconds is not None
    assert rows["numpy"].seconds is not None
    assert all(rows[f"fake {v}"].seconds is None for v in ("refuses", "fails", "lies", "dies", "dies later"))


def test_a_peer_that_hangs_is_ended() -> None:
    start = time.monotonic()
    rows = rows_of([SMALL], seat("hangs", patience=3.0))
    assert "no answer within 3 s" in rows["fake hangs"].note
    assert time.monotonic() - start < 50


def test_a_peer_that_died_is_started_again_but_not_for_ever() -> None:
    layers = [parse_shape(f"2x{n}x5>3k3") for n in (5, 6, 7, 8)]
    taken = seat("dies", "prints")
    every = [row for one in run(cases_of(layers, [1], [1]), QUICK, seats=lambda t: [taken]) for row in one.rows]
    assert [row.status for row in every if row.contender == "fake prints"] == ["measured"] * 2 + ["failed"] * 2
    assert "given up after 3 times" in every[-1].note


def test_a_slow_peer_is_measured_as_slow() -> None:
    rows = rows_of([SMALL], seat("slow", "prints"))
    slow, fast = rows["fake slow"].seconds, rows["fake prints"].seconds
    assert slow is not None
    assert fast is not None
    assert slow > 0.01 > fast


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="this system cannot stop a process")
def test_a_process_sleeps_between_its_turns(tmp_path: pathlib.Path) -> None:
    taken = seat("prints")
    try:
        problem = make_problem(SMALL, 1)
        case = problem.case()
        for name in ("x", "weight", "bias"):
            np.save(tmp_path / f"{name}.npy", getattr(case, name))
        assert len(taken.prepare(taken.contenders[0], case, tmp_path).arrays) == 1
        stat, seen = pathlib.Path(f"/proc/{taken._process.pid}/stat"), set()  # type: ignore[union-attr]
        for _ in range(5):  # someone else may let it go on
            assert taken.turn("fake prints", 0.001).calls >= 1
            time.sleep(0.05)
            seen.add(stat.read_text().rpartition(")")[2].split()[0] if stat.exists() else "T")
        assert "T" in seen
    finally:
        taken.close()
    with pytest.raises(Failed):
        taken.turn("fake prints", 0.001)


def test_a_library_that_cannot_be_imported_is_told_once_and_kept_out() -> None:
    rows = rows_of([SMALL], Own([Contender("nobody", "nobody_knows_this:Thing")], 1))
    assert rows["nobody"].status == "failed"
    assert "cannot be imported: ModuleNotFoundError" in rows["nobody"].note


def test_an_interrupted_run_leaves_no_process() -> None:
    taken = seat("prints")
    pid = taken._process.pid  # type: ignore[union-attr]

    def interrupt(case: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(run(cases_of([SMALL], [1], [1]), QUICK, seats=lambda t: [taken], progress=interrupt))
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="this system cannot stop a process")
def test_a_stopped_process_does_not_outlive_its_parent() -> None:
    code = """
import os, time
from fastconv.bench.peers import ours
from fastconv.bench.seats import Own
seat = Own(ours(modes=("eager",)), 1)
seat._be_there()
print(seat._process.pid, flush=True)
time.sleep(60)
"""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=env) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    status = pathlib.Path(f"/proc/{pid}/stat")
    for _ in range(200):
        if not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z":
            break
        time.sleep(0.05)
    else:
        raise AssertionError("a stopped worker outlives its parent")


# ---------------------------------------------------------------------------------------- the libraries themselves

LAYERS = [
    parse_shape("3x9x8>4k4psame"), parse_shape("4x9x8>6k3s2p1g2"), parse_shape("6x9x9>6k3p1g6"),
    parse_shape("5x20>3k3"), parse_shape("2x5x6x7>3k3p1"), parse_shape("1x16x16>1k3p1"), parse_shape("4x9x8>6k3p1d2"),
    Layer("t/max", "max_pool", 3, (9, 8), (3, 3), 0, 2, 1), Layer("t/avg", "avg_pool", 3, (9, 8), (3, 3), 0, 2, 1),
    parse_shape("4x9x8>6k3p1").gradient(), Layer("t/max b", "max_pool", 3, (9, 8), (3, 3), 0, 2, 1, backward=True),
    Layer("t/pad", "pad", 3, (9, 8), padding=((1, 2), (2, 1)), mode="reflect"),
]  # fmt: skip
ABLE = {
    "torch": 12,
    "onnxruntime": 9,
    "openvino": 9,
    "ncnn": 8,
    "mnn": 7,
    "tensorflow": 8,
    "jax": 11,
    "scipy": 1,
    "opencv": 1,
}


def results(peer: Peer, contenders: tuple[Contender, ...], folder: pathlib.Path) -> tuple[int, list[str]]:
    """How many layers a library computed by any of its ways, and what it got wrong."""
    taken, able, wrong = Own(contenders, 1), 0, []
    try:
        for layer in LAYERS:
            problem = make_problem(layer, 2)
            case = problem.case()
            for name in ("x", "weight", "bias", "grad_output"):
                if (array := getattr(case, name)) is not None:
                    np.save(folder / f"{name}.npy", array)
            done = False
            for contender in contenders:
                try:
                    error = problem.distance(taken.prepare(contender, case, folder).arrays)[1]
                except Unsupported:
                    continue
                except Failed as failure:
                    wrong.append(f"{contender.name} on {layer.name}: {failure}")
                    continue
                done = True
                if error > 1e-3:
                    wrong.append(f"{contender.name} on {layer.name}: relative error {error:.1e}")
            able += done
    finally:
        taken.close()
    return able, wrong


@pytest.mark.parametrize("name", PEERS)
def test_a_library_computes_what_we_mean(name: str, tmp_path: pathlib.Path) -> None:
    try:
        ((peer,), _) = find_peers([name])
    except ValueError as absent:
        pytest.skip(str(absent))
    able, wrong = results(peer, peer.contenders, tmp_path)
    assert not wrong
    assert able >= ABLE[name]


@pytest.mark.parametrize("name", ["torch", "tensorflow"])
@pytest.mark.parametrize("net", ["happy", "signs", "cifar20"])
def test_a_library_trains_as_we_mean(name: str, net: str, tmp_path: pathlib.Path) -> None:
    try:
        ((peer,), _) = find_peers([name])
    except ValueError as absent:
        pytest.skip(str(absent))
    (layer,) = find_layers([f"training/{net}"])
    problem = make_problem(layer, 4)
    case = problem.case()
    assert case.bias is not None
    np.save(tmp_path / "x.npy", case.x)
    np.save(tmp_path / "bias.npy", case.bias)
    taken = Own(peer.contenders[:1], 1)
    try:
        assert problem.distance(taken.prepare(peer.contenders[0], case, tmp_path).arrays)[1] < 1e-3
    except Unsupported as reason:
        pytest.skip(str(reason))
    finally:
        taken.close()


def test_fastconv_computes_what_we_mean_in_every_mode_and_layout(tmp_path: pathlib.Path) -> None:
    pytest.importorskip("fastconv.backends._cpp._core", reason="the compiled backend is not built")
    own = Peer("fastconv", "fastconv", "", "fastconv", "fastconv", tuple(ours()))
    for contender in own.contenders:
        able, wrong = results(own, (contender,), tmp_path)
        assert not wrong
        assert able >= 7


def test_every_layout_is_held_to_what_its_own_algorithm_promises() -> None:
    pytest.importorskip("fastconv.backends._cpp._core", reason="the compiled backend is not built")
    layers = [parse_shape("17x31x37>13k3x5p1x2"), parse_shape("16x20x20>16k3p1")]
    for row in rows_of(layers, InProcess(ours(), 1)).values():
        assert row.status == "measured", row.note
        assert row.algorithm


def test_absent_peers_are_listed_with_their_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: None)
    found, absent = find_peers([])
    assert found == []
    assert set(absent) == set(PEERS)
    assert "pip install" in absent["torch"]
    with pytest.raises(ValueError, match="peer 'torch' is not installed"):
        find_peers(["torch"])


def test_a_training_step_is_held_against_float64() -> None:
    (layer,) = find_layers(["training/signs"])
    problem = make_problem(layer, 16)
    from fastconv.bench.peers import load

    library = load("fastconv", 1)
    ready = library.prepare("eager last numpy auto", problem.case())
    arrays = ready.arrays(ready.call())
    assert problem.distance(arrays)[1] < 1e-4
    assert problem.distance([arrays[0] * 1.1])[1] > 0.05
