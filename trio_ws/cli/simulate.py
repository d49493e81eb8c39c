"""`trio-ws simulate`: hub, server, clients and a hostile network on simulated time, by seed."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import attrs
import click

from .output import Failure, note

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..testing.campaign import Summary
    from ..testing.network.levels import LevelName
    from ..testing.nodes.plan import NodesPlan
    from ..testing.outcome import Outcome
    from ..testing.plan import Plan

SHOWN_FAILURES = 10


@click.command("simulate")
@click.option("--seeds", type=click.IntRange(1), metavar="N", help="How many runs. [default: 100]")
@click.option(
    "--first", type=click.IntRange(0), default=0, show_default=True, metavar="K", help="The first seed."
)
@click.option("--minutes", type=click.FloatRange(0), metavar="M", help="Begin no further run after so long.")
@click.option("--jobs", type=click.IntRange(1), metavar="N", help="Processes. [default: one for each core]")
@click.option(
    "--level",
    type=click.Choice(("wire", "message")),
    default="wire",
    show_default=True,
    help="What travels: bytes, or whole messages, which is faster.",
)
@click.option("--seed", type=click.IntRange(0), metavar="K", help="One run, in full; the same each time.")
@click.option(
    "--plan",
    "plan_text",
    metavar="JSON",
    help="This plan in place of the seeds' own; `everyday` is that of five people at work.",
)
@click.option(
    "--durable",
    is_flag=True,
    help="With a disk under the server, which outlives it and has faults of its own.",
)
@click.option(
    "--runs",
    is_flag=True,
    help="Agents work in runs, die and are cancelled, and their users answer; nothing else is published.",
)
@click.option(
    "--nodes",
    is_flag=True,
    help="Several nodes on one store, which die, are cut off and lose what they tell each other.",
)
@click.option(
    "--crash-each-step",
    is_flag=True,
    help="With --seed: a small run for each step of the server's tasks, which dies there. --plan takes another run.",
)
@click.option("--shrink", is_flag=True, help="With --seed: find a smaller plan that fails alike.")
def command(
    seeds: int | None,
    first: int,
    minutes: float | None,
    jobs: int | None,
    level: LevelName,
    seed: int | None,
    plan_text: str | None,
    crash_each_step: bool,
    shrink: bool,
    durable: bool,
    runs: bool,
    nodes: bool,
) -> None:
    """Run the server, real clients and a network that drops, stalls and lies, on simulated time.

    Everything in a run follows from its seed. Invariants are checked at each step; exits 1 if one did not hold,
    and says how to replay it.
    """
    if nodes and (durable or crash_each_step):
        raise click.UsageError("--nodes goes with --runs, and with none of the other kinds")
    if seed is None:
        if shrink or crash_each_step:
            raise click.UsageError("--shrink and --crash-each-step need --seed")
        _many(seeds, first, minutes, jobs, level, plan_text, durable, runs, nodes)
    elif seeds is not None or minutes is not None:
        raise click.UsageError("--seed is one run: it does not go with --seeds or --minutes")
    elif crash_each_step and runs:
        raise click.UsageError("--crash-each-step takes a run of runs by --plan")
    elif crash_each_step:
        _each_step(seed, level, plan_text, jobs, durable)
    else:
        _one(seed, level, plan_text, shrink, durable, runs, nodes)


def _one(
    seed: int,
    level: LevelName,
    plan_text: str | None,
    shrink: bool,
    durable: bool,
    runs: bool,
    nodes: bool,
) -> None:
    from ..testing.campaign import shrink as shrunk
    from ..testing.nodes.scenario import simulate_nodes
    from ..testing.scenario import simulate

    if nodes:
        outcome = simulate_nodes(seed, _nodes_plan(plan_text), level=level, runs=runs)
    else:
        outcome = simulate(seed, _plan(plan_text), level=level, durable=durable, runs=runs)
    if shrink and outcome.violations:
        outcome = shrunk(outcome, run=partial(simulate_nodes, level=level) if nodes else None)
    click.echo(f"seed {seed} at {level} level: {outcome.plan}")
    click.echo(outcome.trace)
    click.echo(_line("faults", outcome.faults))
    click.echo(_line("reached", {name: count for name, count in outcome.sometimes.items() if count}))
    healed = "did not converge" if outcome.healed is None else f"converged after {outcome.healed:.2f} s"
    click.echo(f"{outcome.seconds:.0f} simulated seconds, {outcome.events} events, {healed}")
    for violation in outcome.violations:
        click.echo(f"VIOLATED {violation}")
    if shrink and outcome.violations:
        click.echo(_replay(outcome, planned=True))
    click.echo(f"wire {outcome.wire_hash}")
    click.echo(f"trace {outcome.trace_hash}")
    if outcome.violations:
        sys.exit(1)


def _each_step(seed: int, level: LevelName, plan_text: str | None, jobs: int | None, durable: bool) -> None:
    from ..testing.each_step import BUSY, crash_each_step

    with _progress(None) as advance:
        plan = attrs.evolve(BUSY, durable=durable)
        summary = crash_each_step(
            seed, _plan(plan_text) or plan, level=level, jobs=jobs or os.cpu_count() or 1, on_run=advance
        )
    _tell(summary, planned=True)
    if summary.failures:
        sys.exit(1)


def _plan(text: str | None) -> Plan | None:
    from ..testing.plan import EVERYDAY, Plan

    if text == "everyday":
        return EVERYDAY
    try:
        return None if text is None else Plan.from_json(text)
    except ValueError as exc:
        raise Failure(f"--plan: {exc}", 2) from None


def _nodes_plan(text: str | None) -> NodesPlan | None:
    from ..testing.nodes.plan import NodesPlan

    try:
        return None if text is None else NodesPlan.from_json(text)
    except ValueError as exc:
        raise Failure(f"--plan: {exc}", 2) from None


def _many(
    seeds: int | None,
    first: int,
    minutes: float | None,
    jobs: int | None,
    level: LevelName,
    plan_text: str | None,
    durable: bool,
    runs: bool,
    nodes: bool,
) -> None:
    from ..testing.campaign import run_campaign

    count = seeds if seeds is not None or minutes is not None else 100
    numbers = itertools.count(first) if count is None else range(first, first + count)
    with _progress(count) as advance:
        summary = run_campaign(
            numbers,
            plan=None if nodes else _plan(plan_text),
            level=level,
            durable=durable,
            runs=runs,
            run=_nodes_run(plan_text, level, runs) if nodes else None,
            jobs=jobs or os.cpu_count() or 1,
            seconds=None if minutes is None else 60 * minutes,
            on_run=advance,
        )
    _tell(summary, planned=plan_text is not None, nodes=nodes)
    if summary.failures:
        sys.exit(1)


def _nodes_run(plan_text: str | None, level: LevelName, runs: bool) -> Callable[[int], Outcome]:
    from ..testing.nodes.scenario import simulate_nodes

    return partial(simulate_nodes, plan=_nodes_plan(plan_text), level=level, runs=runs)


@contextmanager
def _progress(count: int | None) -> Iterator[Callable[[Outcome], None]]:
    """A bar on a terminal, nothing elsewhere; failures are told as they come."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    failures = 0
    with Progress(*columns, disable=not sys.stderr.isatty(), transient=True) as progress:
        task = progress.add_task("simulating", total=count)

        def advance(outcome: Outcome) -> None:
            nonlocal failures
            if outcome.violations:
                failures += 1
                note(f"seed {outcome.seed}: {outcome.violations[0]}"[:300])
            progress.update(task, advance=1, description=f"simulating, {failures} failed")

        yield advance


def _tell(summary: Summary, *, planned: bool = False, nodes: bool = False) -> None:
    hours = summary.seconds / 3600
    click.echo(
        f"{summary.runs} runs, {summary.twice} of them twice, {hours:.1f} simulated hours, {summary.events} events"
    )
    click.echo(f"{summary.seconds / summary.cpu_seconds:,.0f} simulated seconds a CPU second")
    click.echo(_line("faults", dict(summary.faults.most_common())))
    click.echo(_line("reached", {name: n for name, n in summary.sometimes.most_common() if n}))
    if summary.never and not planned and not nodes:
        click.echo(f"never reached: {', '.join(summary.never)}")
    click.echo(f"longest healing: {summary.longest_healing:.2f} s")
    for outcome in sorted(summary.failures, key=lambda o: o.seed)[:SHOWN_FAILURES]:
        click.echo(f"FAILED seed {outcome.seed}: {outcome.violations[0]}")
        click.echo(f"  {outcome.plan}")
        click.echo(f"  {_replay(outcome, planned=planned)}")
    click.echo(f"{len(summary.failures)} failed" if summary.failures else "all held")


def _line(name: str, counts: dict[str, int]) -> str:
    return f"{name}: " + (", ".join(f"{kind} {count}" for kind, count in counts.items()) or "none")


def _replay(outcome: Outcome, *, planned: bool = False) -> str:
    from ..testing.plan import Plan

    kind = "" if isinstance(outcome.plan, Plan) else " --nodes"
    if not planned:
        durable = isinstance(outcome.plan, Plan) and outcome.plan.durable
        kind += " --durable" * durable + " --runs" * (outcome.plan.runs > 0)
    plan = f" --plan '{outcome.plan.to_json()}'" if planned else ""
    return f"replay: trio-ws simulate --level {outcome.level} --seed {outcome.seed}{kind}{plan}"
