"""``fastconv info``: what is installed here. It needs NumPy alone, so that it works where something is missing."""

from __future__ import annotations

import argparse
import sys
from typing import Any

import fastconv

from ..bench.machine import describe, summary
from ._terminal import print_json

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of this command."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print the facts."""
    machine = describe()
    if args.json:
        print_json({"schema": 1, "version": fastconv.__version__, "machine": machine})
        return 0
    print(f"fastconv {fastconv.__version__} in {fastconv.__path__[0]}")
    print(f"{machine['python']}, {sys.executable}")
    for line in summary(machine):
        print(line)
    build = machine["build"]
    if build.get("compiled"):
        isas = " ".join(build.get("isas", []))
        print(f"compiled parts: {build.get('compiler')}, {build.get('build_type')}, for {isas}")
    else:
        print(f"no compiled parts: {build.get('reason') or 'the installation recorded nothing about them'}")
    print(f"\nbackends, {machine['backend']} where none is named")
    for status in fastconv.list_backends():
        print(f"  {status.name:10} {'available' if status.available else 'missing'}{_details(machine, status.name)}")
        if not status.available:
            print(f"             {_why(status.name)}")
    return 0


def _details(machine: dict[str, Any], name: str) -> str:
    """What a backend tells about itself: instruction set, compiler, versions, promises."""
    facts = {k: v for k, v in machine["backends"][name].items() if k not in ("available", "reason")}
    plain = [f"{key} {value}" for key, value in facts.items() if not isinstance(value, (bool, dict, list, tuple))]
    promises = [key.replace("_", "-") for key, value in facts.items() if value is True]
    return "".join(f", {text}" for text in plain + promises)


def _why(name: str) -> str:
    """Why a backend is missing, and the command that mends it."""
    try:
        fastconv.get_backend(name)
    except fastconv.BackendUnavailableError as error:
        return str(error)
    return ""
