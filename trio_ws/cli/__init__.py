"""The `trio-ws` command: one file a subcommand, imported when it is called, so that ``--help`` is quick.

Exit statuses: 0 done; 1 refused, or the server can't be reached; 2 a wrong argument, setting or address;
128 + n ended by signal n (130 for Ctrl-C). `run` ends with the status of its command.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click

from .output import Failure

# The subcommands in the order of the help: name to what it does. Each is the `command` of the module of its
# name.
COMMANDS = {
    "serve": "Run the server until SIGTERM or SIGINT.",
    "demo": "Run the server with simulated agents, and a page to look at.",
    "publish": "Publish one event, or JSON lines from standard input.",
    "run": "Run a command as an agent run.",
    "runs": "Show a user's runs.",
    "tail": "Print a user's events as they come.",
    "status": "Show the figures of a running server.",
    "simulate": "Run server, clients and a hostile network on simulated time.",
    "validate": "Check a real server against what is required of it.",
    "backup": "Copy the database while the server runs.",
    "config": "Show the effective configuration and where each value came from.",
}


class LazyGroup(click.Group):
    """A group that knows its commands by name, and imports one when it is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        try:
            module = importlib.import_module(f".{cmd_name}", __name__)
        except ModuleNotFoundError as exc:
            if exc.name is None or exc.name.startswith("trio_ws"):
                raise
            raise Failure(
                f"{cmd_name} needs {exc.name}, which the server extra brings: pip install 'trio-ws[server]'"
            ) from None
        command: click.Command = module.command
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, BaseExceptionGroup) as exc:
            if isinstance(exc, BaseExceptionGroup) and exc.split(KeyboardInterrupt)[1] is not None:
                raise
            sys.exit(130)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _print_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from .. import COMPILED, __version__

        click.echo(f"trio-ws {__version__}{' (compiled)' if COMPILED else ''}")
        ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version)
def cli() -> None:
    """Delivers the events of AI agents to the people who watch them: in order, confirmed, over networks that
    drop."""


def main(args: list[str] | None = None) -> Any:
    """Runs the command line with `args` (the process's own without), and exits."""
    return cli.main(args, prog_name="trio-ws")
