"""``fastconv bench``: time layers of real networks, or any shape, beside other libraries."""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import fastconv

from ..bench.compare import compare_runs, comparison_lines
from ..bench.layers import QUICK, README, SUITES, TOUR, Layer, find_layers
from ..bench.machine import describe, limits, summary
from ..bench.peers import PEERS, Peer, find_peers
from ..bench.random_problems import measure as measure_cliffs
from ..bench.random_problems import random_problems
from ..bench.random_problems import report as cliff_lines
from ..bench.report import Run, picture
from ..bench.report import html as report_page
from ..bench.runner import Case, Measured, Settings, as_json, cases_of, default_backends
from ..bench.runner import run as measure
from ..bench.table import markdown, rich_table, write_readme
from ._terminal import CommandError, backend_names, choose_backends, console, need, positive, print_json, progress

__all__ = ["add_arguments", "run"]

_EPILOG = """examples:
  fastconv bench                                        a short run over all kinds of layers, every backend
  fastconv bench --peers                                beside every other library that is installed
  fastconv bench resnet50 --peers --threads 1 --json run.json --html report.html
  fastconv bench --peers=torch,openvino --mode plan     only these, weights prepacked
  fastconv bench "3x3 64" --backend cpp,numpy           layers by part of their name
  fastconv bench "64x56x56>128k3s2p1" --batch 1,8       any shape: kernel 3, stride 2, padding 1
  fastconv bench --from run.json --html report.html     a report from figures measured before
  fastconv bench --compare before.json after.json       what became faster or slower, beyond noise
  fastconv bench --cliffs 400 --seed 0,1 --threads 1    random problems: is there one that is slow beyond reason?
  fastconv bench --readme --peers --threads 1           write the table of README.md
"""
_MODES = ("eager", "plan")
PICTURE = "docs/pictures/speed.svg"  # beside the README, which shows it


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of this command."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    add = parser.add_argument
    suites = ", ".join(SUITES)
    add("layers", nargs="*", metavar="LAYER", help=f"a suite ({suites}, all), part of a layer's name, or a shape")
    add("--list", action="store_true", help="list the layers and stop")
    add("--backend", type=backend_names, metavar="A,B", help="only these backends; none beside peers unless named")
    add("--algorithm", default="auto", metavar="NAME", help="force an algorithm of the convolutions")
    add("--peers", nargs="?", const="all", metavar="A,B", help=f"other libraries, all by default: {', '.join(PEERS)}")
    add("--mode", type=_modes, default=_MODES, metavar="A,B", help="eager, plan (weights prepacked), or both")
    add("--backward", action="store_true", help="time the gradients of the layers")
    add("--threads", type=_numbers, metavar="N,N", help="numbers of threads; peers are pinned to as many processors")
    add("--batch", type=_numbers, default=[1], metavar="N,N", help="numbers of images (1)")
    add("--full", action="store_true", help="every layer with every number of threads and images, not only a few")
    add(
        "--minutes", type=float, metavar="N", help="begin no other layer after so long; the report says what is missing"
    )
    add("--quick", action="store_true", help="fewer rounds, shorter turns: figures within some 15%%")
    add("--regret", action=argparse.BooleanOptionalAction, default=None,
        help="time every algorithm: what is the choice worth? (on with --peers)")  # fmt: skip
    add("--default-allocator", action=argparse.BooleanOptionalAction, default=None,
        help="time with the default allocator too, not only one that keeps freed blocks (on with --peers)")  # fmt: skip
    add(
        "--json",
        nargs="?",
        const="-",
        metavar="FILE",
        help="JSON, written after every layer; to the output without FILE",
    )
    add("--html", metavar="FILE", help="write the report: one file, no network needed")
    add("--from", dest="source", metavar="FILE", help="measure nothing: take the figures of this JSON")
    add(
        "--compare",
        nargs=2,
        metavar=("BEFORE", "AFTER"),
        help="compare two JSON files; status 1 if slower beyond noise",
    )
    add(
        "--cliffs",
        type=positive,
        metavar="N",
        help="N random problems of every kind: time over the roofline's, the worst with what may be the reason",
    )
    add("--seed", type=_seeds, default=[0], metavar="N,N", help="other random problems, N for each seed (0)")
    add("--readme", nargs="?", const="README.md", metavar="FILE",
        help="write the table between its markers there, and the picture into docs beside it")  # fmt: skip


def _numbers(text: str) -> list[int]:
    return list(dict.fromkeys(positive(part) for part in text.split(",")))


def _seeds(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _modes(text: str) -> tuple[str, ...]:
    names = tuple(backend_names(text))
    if not names or set(names) - set(_MODES):
        raise argparse.ArgumentTypeError(f"{text!r} is not of {', '.join(_MODES)}")
    return names


def _peers(args: argparse.Namespace) -> tuple[list[Peer], dict[str, str]]:
    """The peers asked for; a word after --peers that names layers and no peer is one of the layers."""
    if args.peers is None:
        return [], {}
    names = [] if args.peers == "all" else backend_names(args.peers)
    if names and not set(names) & set(PEERS):
        try:
            find_layers([args.peers])
            args.layers, names = [args.peers, *args.layers], []
        except ValueError:
            pass  # it is no layer either: the complaint about peers follows
    try:
        return find_peers(names)
    except ValueError as error:
        raise CommandError(str(error)) from None


def _layers(args: argparse.Namespace) -> list[Layer]:
    usual = README if args.readme else TOUR if args.peers else QUICK
    try:
        layers = find_layers(args.layers) if args.layers else list(usual)
    except ValueError as error:
        raise CommandError(str(error)) from None
    if args.backward:
        layers = [layer if layer.backward or layer.op == "train" else layer.gradient() for layer in layers]
    return layers


def _command(args: argparse.Namespace) -> str:
    """The words that make the same figures again."""
    words = ["fastconv bench", *(f'"{w}"' if " " in w or ">" in w else w for w in args.layers)]
    words += ["--readme"] if args.readme else []
    if args.peers:
        words.append("--peers" if args.peers == "all" or args.peers in args.layers else f"--peers={args.peers}")
    words += [f"--backend {','.join(args.backend)}"] if args.backend else []
    words += [f"--threads {','.join(map(str, args.threads))}"] if args.threads else []
    words += [f"--batch {','.join(map(str, args.batch))}"] if args.batch != [1] else []
    words += [f"--minutes {args.minutes:g}"] if args.minutes else []
    words += ["--quick"] if args.quick else []
    return " ".join(words)


def _settings(args: argparse.Namespace, peers: Sequence[Peer]) -> Settings:
    backends = choose_backends(args.backend, () if peers else default_backends())
    settings = Settings(
        backends, args.mode, args.algorithm,
        seconds=0.1 if peers else 0.5,
        regret=bool(peers) if args.regret is None else args.regret,
        default_allocator=bool(peers) if args.default_allocator is None else args.default_allocator,
    )  # fmt: skip
    if args.quick:
        settings = replace(settings, seconds=0.06 if peers else 0.15, rounds=3, patience=0.3, quick=True)
    return settings


def run(args: argparse.Namespace) -> int:
    """Measure, and print a table or JSON; or read what was measured before."""
    if args.compare:
        return _compare(args)
    if args.source:
        return _from_file(args)
    if args.cliffs:
        return _cliffs(args)
    peers, absent = _peers(args)
    layers = _layers(args)
    if args.list:
        for layer in layers if args.layers else find_layers(["all"]):
            print(layer.name)
        return 0
    if args.json != "-":
        need("rich")
    settings = _settings(args, peers)
    threads = args.threads or [fastconv.get_num_threads()]
    scaling = None if args.full or len(layers) <= len(README) else README
    cases = cases_of(layers, threads, args.batch, scaling)
    report, measured = _run(args, cases, settings, peers, absent)
    rows = [row for one in measured for row in one.rows]
    _write_pages(args, report, interrupted=report["interrupted"])
    if args.json == "-":
        print_json(report)
    else:
        out = console()
        for line in summary(report["machine"]):
            out.print(line, style="dim", markup=False)
        for name, reason in absent.items():
            out.print(f"{name}: {reason}", style="dim", markup=False)
        out.print()
        out.print(rich_table(rows, "float32, median of the turns' medians"))
    if report["interrupted"]:
        raise KeyboardInterrupt
    return 1 if any(row.status in ("wrong", "failed") and row.contender in _own_names(settings) for row in rows) else 0


def _cliffs(args: argparse.Namespace) -> int:
    """The distribution of random problems' times over what the machine's limits ask, and the worst of them."""
    if args.threads:
        fastconv.set_num_threads(args.threads[0])
    drawn = {seed: list(random_problems(args.cliffs, seed)) for seed in args.seed}
    with progress(sum(map(len, drawn.values()))) as step:
        found = {seed: measure_cliffs(problems, progress=step) for seed, problems in drawn.items()}
    for seed, cliffs in found.items():
        print(f"seed {seed}: ", end="")
        print(*cliff_lines(cliffs), sep="\n")
    if len(found) > 1:
        together = sorted((cliff for cliffs in found.values() for cliff in cliffs), key=lambda c: -c.quotient)
        print("all seeds: ", end="")
        print(*cliff_lines(together), sep="\n")
    return 0


def _compare(args: argparse.Namespace) -> int:
    """The verdict on two runs; 1 if fastconv became slower."""
    found = compare_runs(*(_read(path) for path in args.compare))
    for line in comparison_lines(found):
        print(line)
    if not found.changes:
        return 2
    return 1 if found.verdict.startswith("slower") else 0


def _from_file(args: argparse.Namespace) -> int:
    """Report what was measured before, here or elsewhere."""
    told = _read(args.source)
    if not (args.html or args.readme):
        raise CommandError("--from wants --html FILE or --readme, or both")
    _write_pages(args, told)
    for lack in Run.read(told).missing:
        print(f"what this report lacks: {lack}", file=sys.stderr)
    return 0


def _read(path: str) -> Any:
    try:
        return json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise CommandError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise CommandError(f"{path} holds no JSON: {error}") from None


def _write_pages(args: argparse.Namespace, report: Any, *, interrupted: bool = False) -> None:
    """The report, and the table and the picture of the README, as far as asked for."""
    if args.html:
        _write(pathlib.Path(args.html), report_page(report))
    if args.readme and not interrupted:
        readme = pathlib.Path(args.readme)
        run, command = Run.read(report), str(report.get("command", "")) if isinstance(report, dict) else ""
        try:
            write_readme(readme, markdown(run.rows, README, run.machine, command))
        except ValueError as error:
            raise CommandError(str(error)) from None
        except (KeyError, TypeError):
            raise CommandError("the JSON does not describe the machine it comes from") from None
        if drawn := picture(report):
            (readme.parent / PICTURE).parent.mkdir(parents=True, exist_ok=True)
            _write(readme.parent / PICTURE, drawn)


def _own_names(settings: Settings) -> set[str]:
    """Those whose failure is ours."""
    return {*settings.backends, "fastconv", "fastconv NHWC", "fastconv plan", "fastconv plan NHWC"}


def _run(
    args: argparse.Namespace, cases: Sequence[Case], settings: Settings, peers: Sequence[Peer], absent: dict[str, str]
) -> tuple[dict[str, Any], list[Measured]]:
    """Everything that is measured, in the order of the cases; the JSON file is written after each of them."""
    machine = describe() | {"limits": limits(0.3, sorted({case.threads for case in cases}))}
    measured: list[Measured] = []
    begun, interrupted = time.monotonic(), False

    def report() -> dict[str, Any]:
        done = {one.case for one in measured}
        missing = [{"layer": c.layer.name, "threads": c.threads, "batch": c.batch} for c in cases if c not in done]
        return as_json(measured, settings, peers=peers, absent=absent, machine=machine, interrupted=interrupted,
                       missing=missing, command=_command(args), date=time.strftime("%Y-%m-%d %H:%M"))  # fmt: skip

    several = len({(case.threads, case.batch) for case in cases}) > 1
    with progress(len(cases)) as step:

        def tell(case: Case) -> None:
            step(case.layer.name + (f" (threads {case.threads}, batch {case.batch})" if several else ""))

        every = measure(cases, settings, peers, progress=tell)
        try:
            for one in every:
                measured.append(one)
                if args.json not in (None, "-"):
                    _write(pathlib.Path(args.json), _as_text(report()))
                if args.minutes and time.monotonic() - begun > 60 * args.minutes:
                    break
        except KeyboardInterrupt:
            interrupted = True  # what was measured is kept and shown all the same
        finally:
            every.close()
    machine["limits"] = _better(
        machine["limits"], {} if interrupted else limits(0.2, [int(t) for t in machine["limits"]])
    )
    final = report()
    if args.json not in (None, "-"):
        _write(pathlib.Path(args.json), _as_text(final))
    return final, measured


def _better(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """The limits of the machine are the best that was seen, before or after."""
    return {t: {k: max(v, after.get(t, {}).get(k, 0.0)) for k, v in now.items()} for t, now in before.items()}


def _as_text(report: dict[str, Any]) -> str:
    return json.dumps(report, indent=1) + "\n"


def _write(path: pathlib.Path, text: str) -> None:
    """Whole or not at all: an interrupted run leaves the last good file."""
    beside = path.with_name(path.name + ".tmp")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        raise CommandError(f"cannot write {path}: {error.strerror}") from None
