"""The command line ``fastconv``: demo, bench, check, info.

Every command is a module here with ``add_arguments(parser)`` and ``run(args) -> exit status``; it is imported when it
is called. Exit status: 0 well, 1 a check failed or a result was wrong, 2 bad arguments or something not installed, 130
interrupted. Results go to standard output, progress and complaints to standard error.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from .._version import __version__
from ..errors import FastconvError
from ._terminal import CommandError

__all__ = ["main"]

_COMMANDS = {
    "demo": "filter real photographs and run real layers with every backend; writes pictures",
    "bench": "time layers of real networks, or any shape, on every backend",
    "check": "hold every backend and algorithm against the reference on this machine",
    "info": "version, build, instruction set, backends and what mends those that are missing",
}


class _Parser(argparse.ArgumentParser):
    """Complains in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _parser(command: str | None) -> argparse.ArgumentParser:
    parser = _Parser(prog="fastconv", description="Fast convolution, padding and pooling for NumPy arrays.")
    parser.add_argument("--version", action="version", version=f"fastconv {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, text in _COMMANDS.items():
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if name == command:  # only the module of the command that is called is imported
            importlib.import_module(f".{name}", __name__).add_arguments(sub)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    command = next((word for word in words if not word.startswith("-")), None)
    try:
        args = _parser(command).parse_args(words)
        status: int = importlib.import_module(f".{args.command}", __name__).run(args)
        sys.stdout.flush()
    except SystemExit as stop:  # argparse: 2 for bad arguments, 0 after --help
        return stop.code if isinstance(stop.code, int) else 2
    except (CommandError, FastconvError) as error:
        print(f"fastconv {command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\nfastconv {command}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status
