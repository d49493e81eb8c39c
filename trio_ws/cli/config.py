"""`trio-ws config`: the effective configuration, and where each value came from."""

from __future__ import annotations

from typing import Any

import click

from ..settings import FIELDS, Loaded
from .options import load_settings, server_options
from .output import print_json, table_console


@click.command("config")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: name to value and origin.")
@server_options
def command(as_json: bool, **given: Any) -> None:
    """Show the effective configuration and where each value came from.

    Takes the flags of `trio-ws serve`: a flag beats the environment (TRIO_WS_MAX_EVENTS, lists as JSON), the
    environment beats the file, and the file the preset. Secrets are masked.
    """
    loaded = load_settings(given)
    if as_json:
        print_json(
            {name: {"value": loaded.shown(name), "from": str(loaded.origins[name])} for name in FIELDS}
        )
    else:
        _print_table(loaded)


def _print_table(loaded: Loaded) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table("setting", "value", "from", box=None, header_style="bold")
    for name in sorted(FIELDS):
        origin = loaded.origins[name]
        style = "" if origin.kind == "default" else "bold"
        table.add_row(Text(name, style), Text(_shown(loaded.shown(name)), style), Text(str(origin), style))
    table_console().print(table)


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return "none" if value is None else str(value)
