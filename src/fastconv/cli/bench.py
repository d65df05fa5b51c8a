"""``fastconv bench``: time layers of real networks, or any shape."""

from __future__ import annotations

import argparse
import pathlib
from dataclasses import replace

import fastconv

from ..bench.layers import QUICK, README, SUITES, Layer, find_layers
from ..bench.machine import summary
from ..bench.peers import PEERS, find_peers
from ..bench.runner import Row, Settings, as_json, default_backends
from ..bench.runner import run as measure
from ..bench.table import markdown, rich_table, write_readme
from ._terminal import CommandError, backend_names, choose_backends, console, need, positive, print_json, progress

__all__ = ["add_arguments", "run"]

_EPILOG = """examples:
  fastconv bench                                      a short run over all kinds of layers
  fastconv bench resnet50 --threads 1                 every distinct layer of a network
  fastconv bench "3x3 64" --backend cpp,numpy         layers by part of their name
  fastconv bench "64x56x56>128k3s2p1" --batch 8       any shape: kernel 3, stride 2, padding 1
  fastconv bench --readme --peers torch               write the table of README.md
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of this command."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    add = parser.add_argument
    suites = ", ".join(SUITES)
    add("layers", nargs="*", metavar="LAYER", help=f"a suite ({suites}, all), part of a layer's name, or a shape")
    add("--list", action="store_true", help="list the layers and stop")
    add("--backend", type=backend_names, metavar="A,B", help="only these backends")
    add("--algorithm", default="auto", metavar="NAME", help="force an algorithm of the convolutions")
    add("--peers", type=backend_names, default=[], metavar="A,B", help=f"other libraries: {', '.join(PEERS)}")
    add("--backward", action="store_true", help="time the gradients of the layers")
    add("--threads", type=positive, metavar="N", help="number of threads")
    add("--batch", type=positive, default=1, metavar="N", help="number of images (1)")
    add("--quick", action="store_true", help="fewer rounds, shorter turns: figures within some 15%%")
    add("--json", action="store_true", help="print JSON instead of a table")
    add("--readme", nargs="?", const="README.md", metavar="FILE", help="write the table between its markers there")


def _layers(args: argparse.Namespace) -> list[Layer]:
    try:
        layers = find_layers(args.layers) if args.layers else list(README if args.readme else QUICK)
    except ValueError as error:
        raise CommandError(str(error)) from None
    if args.backward:
        layers = [layer if layer.backward else layer.gradient() for layer in layers]
    return layers


def _command(args: argparse.Namespace) -> str:
    """The words that make the same table again."""
    words = ["fastconv bench", *args.layers, "--readme"]
    for name in ("backend", "peers"):
        if getattr(args, name):
            words.append(f"--{name} {','.join(getattr(args, name))}")
    words += [f"--threads {args.threads}"] if args.threads else []
    words += [f"--batch {args.batch}"] if args.batch != 1 else []
    return " ".join(words)


def run(args: argparse.Namespace) -> int:
    """Measure, and print a table or JSON."""
    layers = _layers(args)
    if args.list:
        for layer in layers if args.layers else find_layers(["all"]):
            print(layer.name)
        return 0
    if not args.json:
        need("rich")
    names = choose_backends(args.backend, default_backends())
    try:
        peers = find_peers(args.peers)
    except ValueError as error:
        raise CommandError(str(error)) from None
    settings = Settings(names, args.batch, args.threads, args.algorithm)
    if args.quick:
        settings = replace(settings, seconds=0.15, rounds=3, patience=0.5)
    rows: list[Row] = []
    interrupted = False
    with progress(len(layers)) as step:
        try:
            for measured in measure(layers, settings, peers, progress=lambda layer: step(layer.name)):
                rows += measured
        except KeyboardInterrupt:
            interrupted = True  # what was measured is shown all the same
    report = as_json(rows, settings) | {"interrupted": interrupted}
    if args.readme and not interrupted:
        try:
            write_readme(pathlib.Path(args.readme), markdown(rows, layers, report, _command(args)))
        except ValueError as error:
            raise CommandError(str(error)) from None
    if args.json:
        print_json(report)
    else:
        out = console()
        for line in summary(report["machine"]):
            out.print(line, style="dim", markup=False)
        out.print()
        out.print(rich_table(rows, f"batch {args.batch}, {fastconv.get_num_threads()} threads, float32"))
    if interrupted:
        raise KeyboardInterrupt
    return 1 if any(row.correct is False for row in rows) else 0
