"""What the commands say: one line on standard error when something fails, JSON lines on standard output."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any, NoReturn

import click

if TYPE_CHECKING:
    from rich.console import Console


class Failure(click.ClickException):
    """Ends the command with one line on standard error, and an exit status."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status

    @property
    def exit_code(self) -> int:  # type: ignore[override]  # click has a class variable
        return self.status

    def show(self, file: IO[Any] | None = None) -> None:
        note(self.message)


def note(text: str) -> None:
    """Writes one line to standard error; without one (closed, or a pipe that nobody reads) it is lost."""
    line = " ".join(text.split())
    try:
        click.echo(f"trio-ws: {line}", err=True)
    except OSError:
        pass


def print_json(value: Any) -> None:
    """Writes `value` to standard output as one line of JSON, and flushes.

    Raises:
      BrokenPipeError: nobody reads any more; `end_quietly` is the way out.
    """
    sys.stdout.write(json.dumps(value, ensure_ascii=False, separators=(", ", ": ")) + "\n")
    sys.stdout.flush()


def end_quietly(status: int = 0) -> NoReturn:
    """Exits after the reader of standard output has gone, without Python's complaint about the lost rest."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(status)


def table_console() -> Console:
    """Where tables are printed: as wide as the terminal; in a pipe wide enough for no line to wrap."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=200)


def run_trio(function: Callable[..., Any], *args: Any) -> Any:
    """Runs the async `function` for a command, and turns what may end it into an exit.

    A broken standard output exits 0. An exception that is alone in its group is raised bare.
    """
    import trio

    try:
        return trio.run(function, *args)
    except (Exception, BaseExceptionGroup) as exc:
        alone: BaseException = exc
        while isinstance(alone, BaseExceptionGroup) and len(alone.exceptions) == 1:
            alone = alone.exceptions[0]
        if isinstance(alone, BrokenPipeError):
            end_quietly()
        if alone is exc:
            raise
        raise alone from None
