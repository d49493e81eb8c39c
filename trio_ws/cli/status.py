"""`trio-ws status`: the figures of a running server, or of one user, or the story of one event, as tables."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import quote

import click
import trio

from .arguments import Text
from .http import Admin, Answer, Unreachable, admin_options, open_admin, user_path
from .output import Failure, note, print_json, run_trio, table_console

if TYPE_CHECKING:
    from rich.console import RenderableType

RECENT = 20
"""How many of a user's newest events are shown."""


@click.command("status")
@click.argument("user", type=Text(), required=False)
@click.argument("event", type=Text(), required=False)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as one JSON line.")
@click.option(
    "--watch", is_flag=True, help="Show them again each second, until Ctrl-C; also while the server is away."
)
@click.option(
    "--cluster", is_flag=True, help="The figures of all nodes together, and a line for each of them."
)
@admin_options
def command(
    user: str | None,
    event: str | None,
    as_json: bool,
    watch: bool,
    cluster: bool,
    url: str,
    api_key: str | None,
) -> None:
    """Show the figures of a running server, what it knows of USER and of their newest events, or what has become of
    the EVENT with that id.
    """
    if cluster and user:
        raise click.UsageError("--cluster is for figures; what is known of a user is the same at every node.")
    path = "/v1/stats?scope=cluster" if cluster else "/v1/stats"
    if user:
        path = user_path(user) + (f"/events/{quote(event, safe='')}" if event else "")
    run_trio(_status, path, as_json, watch, url, api_key)


async def _status(path: str, as_json: bool, watch: bool, url: str, api_key: str | None) -> None:
    async with open_admin(url, api_key) as admin:
        if watch:
            await (_watch_json if as_json else _watch_tables)(admin, path)
        try:
            figures = await _get(admin, path)
        except Unreachable as exc:
            raise Failure(str(exc)) from None
        if as_json:
            print_json(figures)
        else:
            table_console().print(render(figures))


async def _watch_tables(admin: Admin, path: str) -> NoReturn:
    from rich.live import Live
    from rich.text import Text

    with Live(console=table_console(), auto_refresh=False, screen=False) as live:
        while True:
            try:
                live.update(render(await _get(admin, path)), refresh=True)
            except Unreachable as exc:  # it may come back: that is what one watches for
                live.update(Text(str(exc)), refresh=True)
            await trio.sleep(1)


async def _watch_json(admin: Admin, path: str) -> NoReturn:
    away = False
    while True:
        try:
            print_json(await _get(admin, path))
            away = False
        except Unreachable as exc:
            if not away:
                note(str(exc))
            away = True
        await trio.sleep(1)


async def _get(admin: Admin, path: str) -> dict[str, Any]:
    """The figures. Raises `Unreachable`, and `Failure` where the server refuses."""
    answer = await admin.call("GET", path)
    if answer.error is not None:
        raise Failure(answer.reason)
    figures = answer.body
    if "sessions" in figures and "user" in figures:
        recent = await admin.call("GET", f"{path}/events", params={"limit": RECENT})
        figures["events"] = _events(recent)
    if "nodes" in figures:
        figures = {"nodes": figures.pop("nodes"), **figures}  # first what one looks for first
    return figures


def _events(answer: Answer) -> list[dict[str, Any]]:
    """The events of an answer; none where a server does not know that call."""
    events = answer.body.get("events")
    return events if isinstance(events, list) else []


def render(figures: dict[str, Any]) -> RenderableType:
    """Alerts that fire first; then tables of nested figures: what is a single value, then each group and each list."""
    from rich.console import Group

    firing = [alert for alert in figures.get("alerts", []) if alert.get("state") == "firing"]
    return Group(*map(_alert, firing), *_tables("", figures))


def _alert(alert: dict[str, Any]) -> RenderableType:
    """One line for an alert that fires."""
    from rich.text import Text

    line = f"ALERT {alert.get('name')}: {alert.get('summary')}"
    measured = (
        f"{shown(alert.get('value'))} {alert.get('unit', '')}, threshold {shown(alert.get('threshold'))}"
    )
    since = alert.get("since")
    return Text(f"{line} ({measured}{f', since {_clock(since)}' if since else ''})", style="bold red")


def _tables(title: str, figures: dict[str, Any]) -> Iterator[RenderableType]:
    from rich.table import Table
    from rich.text import Text

    single = {name: value for name, value in figures.items() if not isinstance(value, dict | list)}
    if single or not figures:
        table = Table(
            title=title or None,
            title_justify="left",
            title_style="bold",
            box=None,
            show_header=False,
            min_width=len(title),
        )
        for name, value in single.items():
            table.add_row(Text(name.replace("_", " ")), Text(shown(value), justify="right"))
        yield table
    for name, value in figures.items():
        inner = f"{title} {name}".strip().replace("_", " ")
        if isinstance(value, dict):
            yield from _tables(inner, value)
        elif isinstance(value, list) and value:
            yield _rows(inner, value)


def _rows(title: str, rows: list[Any]) -> RenderableType:
    """A table with a line for each of `rows`, and the columns that any of them has."""
    from rich.table import Table
    from rich.text import Text

    objects = [_timed(row) if isinstance(row, dict) else {"": row} for row in rows]
    columns = list(dict.fromkeys(name for row in objects for name in row))
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=None,
        header_style="dim",
        min_width=len(title),
    )
    for name in columns:
        table.add_column(Text(name.replace("_", " ")))
    for row in objects:
        table.add_row(*(Text(shown(row.get(name))) for name in columns))
    return table


def _timed(row: dict[str, Any]) -> dict[str, Any]:
    """`row` with its moments, in Unix time, as a clock shows them."""
    return {name: _clock(value) if name in ("at", "ts") else value for name, value in row.items()}


def _clock(at: Any) -> str:
    """A moment in Unix time, to the millisecond, in the time of this machine."""
    if not isinstance(at, int | float):
        return shown(at)
    return datetime.fromtimestamp(at).astimezone().isoformat(" ", "milliseconds")


def shown(value: Any) -> str:
    """One figure: numbers without digits that say nothing, a dash where there is none."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{name}: {shown(inner)}" for name, inner in value.items())
    return ", ".join(map(shown, value)) if isinstance(value, list) else str(value)
