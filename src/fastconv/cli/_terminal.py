"""What the commands share: complaints, consoles, progress, JSON, and the arguments that several of them take."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import fastconv

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["CommandError", "backend_names", "choose_backends", "console", "need", "positive", "print_json", "progress"]


class CommandError(Exception):
    """A complaint in one line; the command ends with status 2."""


def need(*packages: str) -> None:
    """Say what to install if a package that a command needs is missing."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise CommandError(f"needs {', '.join(missing)}; to mend it: pip install 'fastconv[demo]'")


def console(*, stderr: bool = False) -> Console:
    """A rich console; wide enough for the tables where the output is no terminal."""
    need("rich")
    from rich.console import Console

    made = Console(stderr=stderr, highlight=False)
    return made if made.is_terminal else Console(stderr=stderr, highlight=False, width=200)


@contextlib.contextmanager
def progress(total: int, *, shown: bool = True) -> Iterator[Callable[[str], None]]:
    """A bar on standard error that moves on with every call; plain lines where that is no terminal."""
    if not shown or not sys.stderr.isatty() or importlib.util.find_spec("rich") is None:
        count = 0

        def line(text: str) -> None:
            nonlocal count
            count += 1
            if shown:
                print(f"[{min(count, total)}/{total}] {text}", file=sys.stderr, flush=True)

        yield line
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    text = TextColumn("{task.description}")
    columns = (SpinnerColumn(), BarColumn(24), MofNCompleteColumn(), TimeElapsedColumn(), text)
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)
        begun = False

        def step(name: str) -> None:
            nonlocal begun
            bar.update(task, description=escape(name), advance=1 if begun else 0)
            begun = True

        yield step


def print_json(value: dict[str, Any]) -> None:
    """The whole answer as JSON, alone on standard output."""
    json.dump(value, sys.stdout, indent=2, allow_nan=True)
    sys.stdout.write("\n")


def positive(text: str) -> int:
    """An argument that must be an integer of at least one."""
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer") from None
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, received {number}")
    return number


def backend_names(text: str) -> list[str]:
    """``a,b`` as a list."""
    return [name for name in text.split(",") if name]


def choose_backends(names: Sequence[str] | None, default: Sequence[str]) -> tuple[str, ...]:
    """The backends asked for, each loaded; or a complaint that says what is wrong and what mends it."""
    if not names:
        return tuple(default)
    for name in names:
        try:
            fastconv.get_backend(name)
        except (fastconv.UnknownNameError, fastconv.BackendUnavailableError) as error:
            raise CommandError(str(error)) from None
    return tuple(dict.fromkeys(names))
