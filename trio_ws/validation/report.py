"""The report of a validation: one text in Markdown, which the page is made of too, plots beside it, figures as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs

from .findings import Findings, Side
from .measures import delay, percentile, recovery, undisturbed
from .page import page
from .plan import PHASES
from .plots import plots
from .requirements import Row, Verdict, judge, passed, shown

CAPTIONS = {
    "before-after": "**Before and after.** The same events, drops and absences on both sides.",
    "latency": "**Latency under load**, from the call that publishes to the client; the slowest event of each moment. "
    "While a connection is cut, what comes late is shown on both sides; what the stock server loses has no latency.",
    "distribution": "**Latency while nothing is cut.**",
    "recovery": "**Recovery from each drop**: from the cut to the last missed event processed. The client notices a "
    "reset at once, and a half-open connection when the next frame is overdue, after 4 s at most.",
    "buffer": "**The buffer while users are away.** It stays within 200 events for one user and 1,000 in all; what is "
    "not critical goes.",
    "confirmation": "**Confirmation** of critical events, with the drops.",
}

PHASE_TEXTS = {
    "load": "{users} users, {rate:g} events/s for each, {duration:g} s: agents' runs over and over, with all five "
    "lifecycle events, deltas and progress. Each user's connection is cut every {cut_every:g} s, in turn by a reset, "
    "and so that it stands and carries nothing any more.",
    "types": "Each type of event {rounds} times to each user, each to be confirmed before the next is published.",
    "overflow": "{away} users are away while {flood} events that are not critical and {critical} critical ones come "
    "for each, the critical ones among the oldest; to one more come 250 critical ones and nothing else, which is more "
    "than one user's buffer holds: {refused} were refused, so that the publisher knew.",
    "pool": "{tabs} tabs with {held} events held for each come back {turns} times with their session, and as often "
    "without.",
    "stuck": "One client takes nothing for {stuck:g} s while 192 KiB come for it each {interval:g} s. Each time the "
    "others are sent an event by the same call, after the stuck one.",
}

MODEL = """\
*Before* is measured, not remembered: a bare broadcaster as one writes it on FastAPI ran beside the server, and was
given the same events and the same faults at the same moments (`trio_ws/validation/stock.py`). It is Starlette, which
FastAPI is made of. It sends each event once and forgets it; keeps at most 200 events for a user who is away, and 1,000
in all, of which the oldest goes, critical or not; serialises in a thread pool; confirms nothing. Its client reconnects
after 1 s with 50 % jitter, and does not notice a connection that is silent; 40 s after such a cut it is reset, which is
when a server's keepalive would end it. What the caches held, and how slow their cleanup was, is not modelled."""


def write(findings: Findings, directory: Path) -> list[Row]:
    """Writes ``report.md``, ``report.html``, the plots and ``results.json`` into `directory`, which is made; returns
    the judged requirements.

    Raises:
      OSError: it can't be written.
    """
    rows = judge(findings)
    charts = plots(findings)
    text = markdown(findings, rows, list(charts))
    directory.mkdir(parents=True, exist_ok=True)
    for name, chart in charts.items():
        (directory / f"{name}.svg").write_text(chart)
    (directory / "report.md").write_text(text)
    (directory / "report.html").write_text(page(text, charts))
    (directory / "results.json").write_text(json.dumps(results(findings, rows), indent=1) + "\n")
    return rows


def headline(findings: Findings, rows: list[Row]) -> str:
    """How it went, in one line."""
    missed = sum(row.verdict is Verdict.MISSED for row in rows)
    unmeasured = sum(row.verdict is Verdict.UNMEASURED for row in rows)
    if findings.interrupted:
        return f"Interrupted: {missed} requirements missed so far, {unmeasured} not measured to the end"
    if passed(rows):
        left_out = sum(row.verdict is Verdict.SKIPPED for row in rows)
        return "All requirements met" + (f"; {left_out} left out" if left_out else "")
    return f"{missed} of {len(rows)} requirements missed" + (
        f", {unmeasured} not measured" if unmeasured else ""
    )


def markdown(findings: Findings, rows: list[Row], charts: list[str]) -> str:
    """The report; plots are named by where they lie beside it."""
    parts = [
        "# Validation of trio-ws",
        f"**{headline(findings, rows)}.** {_scope(findings)}",
        "## Requirements",
        _table(
            ["", "requirement", "required", "aim", "measured", "before"],
            [
                [
                    _mark(row.verdict),
                    row.requirement.title,
                    f"{row.requirement.relation} {shown(row.requirement.bound, row.requirement.unit)}",
                    row.requirement.aim,
                    shown(row.measured, row.requirement.unit),
                    shown(row.before, row.requirement.unit),
                ]
                for row in rows
            ],
        ),
        MODEL,
        "## Plots",
        *(f"{CAPTIONS[name]}\n\n![{name}]({name}.svg)" for name in CAPTIONS if name in charts),
        "## What was done",
        *_phases(findings),
        "## Figures",
        _table(["", "trio-ws", "stock"], _figures(findings)),
        "## To repeat it",
        f"```console\n$ {command(findings)}\n```",
        "## Machine",
        _table(["", ""], [[name, value] for name, value in findings.machine.items()]),
        *_config(findings),
    ]
    return "\n\n".join(parts) + "\n"


def command(findings: Findings) -> str:
    """What to call to do it again."""
    more = ["--", *findings.arguments] if findings.arguments else []
    return " ".join(["trio-ws validate", findings.plan.command(), *more])


def _scope(findings: Findings) -> str:
    plan = findings.plan
    kind = "The quick one" if plan.quick else "The full one"
    return f"{kind}: {plan.users} users, {plan.duration:g} s of load, {len(findings.after.cuts)} drops."


def _mark(verdict: Verdict) -> str:
    return {Verdict.MET: "✓ met", Verdict.MISSED: "✗ **missed**"}.get(verdict, verdict.value)


def _phases(findings: Findings) -> list[str]:
    plan = findings.plan
    values = attrs.asdict(plan) | {
        "refused": findings.after.account.refused,
        "interval": 1 / plan.rate,
    }
    lines = []
    for name, title in PHASES.items():
        if name in findings.skipped:
            lines.append(f"- **{title}**: left out, {findings.skipped[name]}.")
        elif name in findings.phases:
            unfinished = "" if findings.done(name) else " *It was not finished.*"
            lines.append(f"- **{title}**: {PHASE_TEXTS[name].format(**values)}{unfinished}")
    return ["\n".join(lines)]


def _figures(findings: Findings) -> list[list[str]]:
    after, before = findings.after, findings.before
    rows: list[tuple[str, Callable[[Side], str]]] = [
        ("events accepted", lambda side: _count(side.account.accepted)),
        ("delivered", lambda side: _count(side.account.delivered)),
        ("accounted for by a gap", _reasons),
        ("neither", lambda side: _count(side.account.silent)),
        ("critical events accepted", lambda side: _count(side.account.critical)),
        ("critical events lost", lambda side: _count(side.account.critical_lost)),
        ("refused, and told so", lambda side: _count(side.account.refused)),
        ("latency under load, 50 %, 95 %, 99 %, all", lambda side: _spread([*map(delay, undisturbed(side))])),
        ("recovery from a reset, 50 %, 95 %, 99 %, all", lambda side: _spread(recovery(side.cuts, "reset"))),
        ("recovery from half-open, the same", lambda side: _spread(recovery(side.cuts, "half-open"))),
        ("confirmation, the same", lambda side: _spread([took for _, took in side.confirmations])),
        ("reconnections of clients", lambda side: _count(side.clients.get("reconnects"))),
        ("CPU of the server", lambda side: shown(side.cpu, "s")),
        ("memory of the server, highest", _memory),
    ]
    table = [[name, function(after), function(before)] for name, function in rows]
    told = after.stats
    for group, names in (
        ("pool", ("pools_created", "pool_hits", "pool_misses", "connections_reused")),
        ("buffer", ("critical_messages_preserved", "non_critical_messages_dropped", "merged", "superseded")),
        (
            "delivery",
            ("confirmation_rate", "messages_timeout", "messages_late", "redelivered", "dead_letters"),
        ),
    ):
        table += [[f"`{n}`", f"{told[group][n]:.6g}", "-"] for n in names if n in told.get(group, {})]
    return table


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _reasons(side: Side) -> str:
    explained = side.account.explained
    return ", ".join(f"{count:,} {reason}" for reason, count in sorted(explained.items())) or "-"


def _spread(values: list[float]) -> str:
    return (
        ", ".join(shown(percentile(values, share), "s") for share in (0.5, 0.95, 0.99, 1)) if values else "-"
    )


def _memory(side: Side) -> str:
    most = max((sample.memory for sample in side.samples if sample.memory), default=None)
    return "-" if most is None else f"{most / 2**20:.0f} MiB"


def _config(findings: Findings) -> list[str]:
    if not findings.config:
        return ["The server was not ours: its settings are not known."]
    rows = [
        [f"`{name}`", "none" if told["value"] is None else f"{told['value']}", told["from"]]
        for name, told in sorted(findings.config.items())
    ]
    return ["## Settings of the server", _table(["setting", "value", "from"], rows)]


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def results(findings: Findings, rows: list[Row]) -> dict[str, Any]:
    """The raw figures, in seconds from the start where they are times, without names of machines and paths."""
    return {
        "verdict": headline(findings, rows),
        "passed": passed(rows) and not findings.interrupted,
        "command": command(findings),
        "machine": findings.machine,
        "plan": attrs.asdict(findings.plan),
        "config": {name: told["value"] for name, told in findings.config.items()},
        "skipped": findings.skipped,
        "requirements": [
            {
                "name": row.requirement.name,
                "title": row.requirement.title,
                "unit": row.requirement.unit,
                "required": f"{row.requirement.relation} {row.requirement.bound:g}",
                "measured": _number(row.measured),
                "before": _number(row.before),
                "verdict": row.verdict.value,
            }
            for row in rows
        ],
        "phases": {
            name: [begin - findings.began, end and end - findings.began]
            for name, (begin, end) in findings.phases.items()
        },
        "trio-ws": _raw(findings, findings.after),
        "stock": _raw(findings, findings.before),
        "reuse": attrs.asdict(findings.reuse),
    }


def _raw(findings: Findings, side: Side) -> dict[str, Any]:
    began = findings.began
    account = attrs.asdict(side.account)
    shares = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1)
    return {
        "account": account,
        "latency": {str(s): percentile([*map(delay, undisturbed(side))], s) for s in shares},
        "confirmation": {str(s): percentile([took for _, took in side.confirmations], s) for s in shares},
        "cuts": [
            {"user": cut.user, "how": cut.how, "at": cut.at - began, "took": cut.took} for cut in side.cuts
        ],
        "samples": [{**attrs.asdict(sample), "at": sample.at - began} for sample in side.samples],
        "clients": side.clients,
        "cpu": side.cpu,
        "stats": side.stats,
    }


def _number(value: float | None) -> float | None:
    """JSON has no infinity; what never came is null there."""
    return None if value is None or math.isinf(value) else value
