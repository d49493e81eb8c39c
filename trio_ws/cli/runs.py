"""`trio-ws runs`: a user's runs as a server knows them, as a table or as JSON lines."""

from __future__ import annotations

import time
from typing import Any

import click

from .arguments import Text
from .http import Unreachable, admin_options, open_admin, user_path
from .output import Failure, print_json, run_trio, table_console

SHOWN = 60
"""Characters of what a run is about that a table shows."""


@click.command("runs")
@click.argument("user", type=Text())
@click.option("--json", "as_json", is_flag=True, help="Print each run's snapshot as a JSON line.")
@admin_options
def command(user: str, as_json: bool, url: str, api_key: str | None) -> None:
    """Show the runs of USER: those that are open, and the ones that ended last."""
    runs = run_trio(_runs, user, url, api_key)
    if as_json:
        for run in runs:
            print_json(run)
    else:
        _print_table(runs)


async def _runs(user: str, url: str, api_key: str | None) -> list[dict[str, Any]]:
    async with open_admin(url, api_key) as admin:
        try:
            answer = await admin.call("GET", f"{user_path(user)}/runs")
        except Unreachable as exc:
            raise Failure(str(exc)) from None
    if answer.error is not None:
        raise Failure(answer.reason)
    runs: list[dict[str, Any]] = answer.body["runs"]
    return runs


def _print_table(runs: list[dict[str, Any]]) -> None:
    from rich.table import Table
    from rich.text import Text as Plain

    table = Table(box=None, header_style="dim")
    for column in ("run", "name", "status", "seconds", "at"):
        table.add_column(column, justify="right" if column == "seconds" else "left")
    for run in runs:
        took = (run.get("ended") or time.time()) - run["started"]
        cells = (run["run"], run.get("name", "-"), run["status"], f"{took:.1f}", _doing(run))
        table.add_row(*(Plain(cell) for cell in cells))
    table_console().print(table)


def _doing(run: dict[str, Any]) -> str:
    """What a run is at, in a few words."""
    if run["questions"]:
        said = f"asks: {run['questions'][-1]['prompt']}"
    elif run["tools"]:
        said = f"tool: {run['tools'][-1]['tool']}"
    elif "error" in run:
        said = ": ".join(str(run["error"][name]) for name in ("kind", "message") if name in run["error"])
    else:
        said = run["text"] or run.get("thought", "")
    words = " ".join(said.split())
    return words if len(words) <= SHOWN else f"…{words[1 - SHOWN :]}"
