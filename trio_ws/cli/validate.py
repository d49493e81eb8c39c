"""`trio-ws validate`: what is required of a server, measured on a real one; a table, a report, an exit status."""

from __future__ import annotations

import random
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click
import trio

from ..settings import ENV_PREFIX
from .arguments import Text
from .http import check_url
from .output import Failure, note, print_json, run_trio, table_console

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from ..validation.findings import Findings
    from ..validation.requirements import Row
    from ..validation.run import Target

MODULES = {"pygal", "markdown_it"}
"""What the extra `validate` brings."""


@click.command("validate")
@click.option("--quick", is_flag=True, help="About a minute, in place of about eleven.")
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("trio-ws-validation"),
    show_default=True,
    metavar="DIR",
    help="Where the report goes: report.md, report.html, plots, results.json.",
)
@click.option("--users", type=click.IntRange(1, 60), metavar="N", help="Users at once. [default: 5]")
@click.option(
    "--rate",
    type=click.FloatRange(0.1, 200),
    metavar="X",
    help="Events a second for each user. [default: 10]",
)
@click.option(
    "--duration",
    type=click.FloatRange(1, 86400),
    metavar="SECONDS",
    help="How long the load goes on. [default: 600, quick 40]",
)
@click.option(
    "--cut-every",
    type=click.FloatRange(1, 86400),
    metavar="SECONDS",
    help="Time between two drops of one user's connection. [default: 120, quick 12]",
)
@click.option("--seed", type=click.IntRange(0), metavar="K", help="Of all chance. [default: any]")
@click.option("--url", metavar="URL", help="The admin API of a server that runs already; with --ws-url.")
@click.option(
    "--ws-url", metavar="URL", help="Its WebSocket address, ws:// only: drops are made on the way to it."
)
@click.option(
    "--api-key",
    envvar=f"{ENV_PREFIX}API_KEY",
    type=Text(),
    metavar="KEY",
    help=f"Key that its API asks for. [{ENV_PREFIX}API_KEY]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the results as one JSON line.")
@click.argument("serve_args", nargs=-1, type=click.UNPROCESSED)
def command(
    quick: bool,
    output: Path,
    url: str | None,
    ws_url: str | None,
    api_key: str | None,
    as_json: bool,
    seed: int | None,
    serve_args: tuple[str, ...],
    **changed: Any,
) -> None:
    """Check a real server against what is required of it, and write a report with plots.

    Starts `trio-ws serve` with a memory store on free ports, and beside it a bare broadcaster to compare with; puts
    both under load, cuts connections, overflows buffers, resumes sessions, has a client get stuck. What comes
    after `--` is handed to `trio-ws serve`. Exits 1 if a requirement is missed, 130 when it is interrupted; there
    is a report then, too.
    """
    try:
        from ..validation import findings as found
        from ..validation import report
        from ..validation import requirements as required
        from ..validation.plan import FULL, QUICK, Plan
    except ModuleNotFoundError as exc:
        if exc.name not in MODULES:
            raise
        raise Failure(
            f"validate needs {exc.name}, which the extra of its name brings: pip install 'trio-ws[server,validate]'"
        ) from None
    given = {name: value for name, value in changed.items() if value is not None}
    seed = random.randrange(10**6) if seed is None else seed
    plan: Plan = attrs.evolve(QUICK if quick else FULL, seed=seed, **given)
    findings = found.Findings(plan=plan, arguments=serve_args)
    target = _target(url, ws_url, api_key, serve_args)
    _make(output)
    status = run_trio(_validate, findings, target)
    rows = report.write(findings, output)
    if as_json:
        print_json(report.results(findings, rows))
    else:
        _print(rows)
    note(f"{report.headline(findings, rows)}; the report is in {shlex.quote(str(output / 'report.html'))}")
    sys.exit(status or int(not required.passed(rows)))


def _target(
    url: str | None, ws_url: str | None, api_key: str | None, serve_args: tuple[str, ...]
) -> Target | None:
    from ..validation.run import Target

    if (url is None) != (ws_url is None):
        raise Failure("--url and --ws-url go together", 2)
    if url is None or ws_url is None:
        return None
    if serve_args:
        raise Failure("a server that runs already takes no arguments: leave out what is after --", 2)
    check_url(url, "http", "https", example="http://127.0.0.1:8766")
    check_url(ws_url, "ws", example="ws://127.0.0.1:8765/ws")
    return Target(http=url, ws=ws_url, api_key=api_key)


def _make(output: Path) -> None:
    """Before ten minutes are spent, not after them."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        (output / "results.json").touch()
    except OSError as exc:
        raise Failure(f"--output {output}: {(exc.strerror or str(exc)).lower()}", 2) from None


async def _validate(findings: Findings, target: Target | None) -> int:
    """Returns 0, or 128 + n when signal n ended it."""
    from ..validation.backend import BackendFailed
    from ..validation.process import ServerFailed
    from ..validation.run import validate

    received: list[int] = []
    with (
        trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals,
        _progress(sum(findings.plan.seconds().values())) as progress,
    ):
        async with trio.open_nursery() as nursery:

            async def end() -> None:
                received.append(await anext(signals))
                findings.interrupted = True
                nursery.cancel_scope.cancel()

            nursery.start_soon(end)
            try:
                await validate(findings, progress, target=target)
            except* (BackendFailed, ServerFailed) as group:
                raise Failure(str(_first(group))) from None
            nursery.cancel_scope.cancel()
    return 128 + received[0] if received else 0


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


class _Lines:
    """Progress where there is no terminal: a line for each phase."""

    def begin(self, title: str, seconds: float) -> None:
        note(f"{title}: about {seconds:.0f} s")

    def advance(self, seconds: float) -> None:
        pass

    def end(self, title: str, seconds: float) -> None:
        note(f"{title}: done, {seconds:.0f} s")


class _Bar:
    """A bar for each phase."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._task: TaskID | None = None

    def begin(self, title: str, seconds: float) -> None:
        self._task = self._bars.add_task(title, total=seconds)

    def advance(self, seconds: float) -> None:
        if self._task is not None:
            total = self._bars.tasks[-1].total or 0.0
            self._bars.update(self._task, completed=min(seconds, 0.99 * total))

    def end(self, title: str, seconds: float) -> None:
        if self._task is not None:
            self._bars.update(self._task, completed=self._bars.tasks[-1].total)


@contextmanager
def _progress(seconds: float) -> Iterator[_Lines | _Bar]:
    if not sys.stderr.isatty():
        note(f"about {seconds / 60:.0f} min in all")
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description:16}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        yield _Bar(bars)


def _print(rows: list[Row]) -> None:
    from rich.table import Table
    from rich.text import Text

    from ..validation.requirements import Verdict, shown

    styles = {Verdict.MET: "green", Verdict.MISSED: "bold red"}
    table = Table("", "requirement", "required", "measured", "before", box=None, header_style="bold")
    for row in rows:
        requirement = row.requirement
        unit = requirement.unit
        table.add_row(
            Text(row.verdict.value, styles.get(row.verdict, "dim")),
            requirement.title,
            f"{requirement.relation} {shown(requirement.bound, unit)}",
            shown(row.measured, unit),
            shown(row.before, unit),
        )
    table_console().print(table)
