"""Results as tables in Markdown: median (lowest-highest), the ratio of this server to each peer, and the goals."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median
from typing import Any, Final, TypeAlias

Run: TypeAlias = dict[str, Any]

OURS: Final = "trio-ws"
ABSENT: Final = "-"


@dataclass(frozen=True)
class Column:
    """A figure of a run: its key, what it is divided by, and how many decimals are shown."""

    title: str
    key: str
    unit: float = 1
    decimals: int = 1

    def of(self, runs: Iterable[Run]) -> list[float]:
        """Its values in `runs`, as they are shown."""
        return [run[self.key] / self.unit for run in runs if run.get(self.key) is not None]

    def show(self, runs: Iterable[Run]) -> str:
        """Median and range."""
        if not (values := self.of(runs)):
            return ABSENT
        middle, low, high = (f"{x:.{self.decimals}f}" for x in (median(values), min(values), max(values)))
        return f"**{middle}**" if low == high else f"**{middle}** ({low}-{high})"


LOST, DUPLICATES = Column("lost", "lost", decimals=0), Column("duplicates", "duplicates", decimals=0)
P50, P99 = Column("p50 ms", "p50_us", 1e3, 2), Column("p99 ms", "p99_us", 1e3, 1)
CPU = Column("CPU µs/event", "cpu_us")

TABLES: Final[dict[str, tuple[str, tuple[Column, ...]]]] = {
    "A": ("stream: 100 connections x 20 events/s, each acked by itself", (CPU, P50, P99, LOST)),
    "B": (
        "burst: 100 connections x 2,000 events, window 256, acked each 32",
        (CPU, Column("events/s", "rate", decimals=0), LOST, DUPLICATES),
    ),
    "C": (
        "fan-out: one event to 1,000 connections, 200 times",
        (Column("CPU µs/delivery", "cpu_us"), Column("deliveries/s", "rate", decimals=0), LOST, DUPLICATES),
    ),
    "D": (
        "idle: 2,000 connections",
        (Column("KiB/connection", "kib"), Column("CPU µs to connect", "connect_us", decimals=0)),
    ),
    "E": (
        "storm: 500 sessions cut, 20 events missed each, all back at once",
        (
            Column("s to last event", "recovered_s", decimals=2),
            Column("server CPU ms", "cpu_s", 1e-3, 0),
            LOST,
            DUPLICATES,
        ),
    ),
    "F": ("small: 5 users x 5 events/s", (P50, P99, Column("server CPU ms/s", "cpu_s", 8e-3, 0), LOST)),
    "G": (
        "cut in mid-stream: 100 sessions x 20 events/s",
        (LOST, DUPLICATES, Column("late", "late", decimals=0), Column("worst delay s", "max_us", 1e6, 2)),
    ),
}
"""Of each scenario: its name, and its figures; ratios are of the first one."""


@dataclass(frozen=True)
class Goal:
    """A figure's median must not be above `most`, nor above `share` of what `peer` has in the same runs."""

    scenario: str
    column: Column
    most: float
    share: float | None = None
    peer: str | None = None


GOALS: Final = (
    Goal("A", CPU, 50),
    Goal("A", CPU, 0, 1, "picows"),
    Goal("B", CPU, 5),
    Goal("B", CPU, 0, 0.4, "ws-node"),
    Goal("C", TABLES["C"][1][0], 9),
    Goal("C", TABLES["C"][1][0], 0, 0.9, "picows"),
    Goal("D", TABLES["D"][1][0], 14),
    Goal("D", TABLES["D"][1][1], 400),
    Goal("E", TABLES["E"][1][0], 0.35),
    Goal("E", TABLES["E"][1][0], 0, 1, "mosquitto"),
    Goal("E", LOST, 0),
    Goal("F", P50, 0.3),
    Goal("F", P99, 0.6),
    Goal("G", LOST, 0),
    Goal("G", DUPLICATES, 0),
    Goal("G", TABLES["G"][1][3], 1),
)


def render(book: dict[str, Any]) -> str:
    """The report on a run of `compare`, as Markdown."""
    runs: list[Run] = book["runs"]
    good = [run for run in runs if "error" not in run]
    parts = [f"{book['machine']}; median (lowest-highest).", _peers(book["peers"])]
    parts += [_table(scenario, list(book["peers"]), good) for scenario in TABLES]
    parts += [_goals(good), _noise(good), _failures(runs)]
    return "\n\n".join(part for part in parts if part) + "\n"


def table(titles: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown: the first column is words, the others are figures."""
    heads = list(titles)
    lines = ["| " + " | ".join(heads) + " |", "| --- |" + " ---: |" * (len(heads) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def _of(runs: Iterable[Run], scenario: str, peer: str) -> list[Run]:
    return [run for run in runs if run["scenario"] == scenario and run["peer"] == peer]


def _peers(peers: dict[str, dict[str, str]]) -> str:
    rows = [f"| {name} | {peer['version']} | {peer['reliability']} |" for name, peer in peers.items()]
    return "\n".join(["| peer | what runs | what its reliability is |", "| --- | --- | --- |", *rows])


def _table(scenario: str, peers: list[str], runs: list[Run]) -> str:
    title, columns = TABLES[scenario]
    ours = columns[0].of(_of(runs, scenario, OURS))
    rows = []
    for peer in peers:
        if found := _of(runs, scenario, peer):
            theirs = columns[0].of(found)
            ratio = (
                f"{median(ours) / median(theirs):.2f}" if ours and theirs and median(theirs) > 0 else ABSENT
            )
            rows.append([peer, *(column.show(found) for column in columns), ratio, str(len(found))])
    if not rows:
        return ""
    titles = ["peer", *(column.title for column in columns), f"{OURS} / it", "runs"]
    return f"### {scenario}. {title}\n\n{table(titles, rows)}"


def _goals(runs: list[Run]) -> str:
    rows = []
    for goal in GOALS:
        found = goal.column.of(_of(runs, goal.scenario, OURS))
        if found:
            value = median(found)
            words, limit = _limit(goal, runs)
            verdict = ABSENT if limit is None else "met" if value <= limit else "**missed**"
            rows.append([f"{goal.scenario}: {goal.column.title}", words, f"{value:.2f}", verdict])
    return f"### Goals of {OURS}\n\n{table(['figure', 'goal', 'median', ''], rows)}" if rows else ""


def _limit(goal: Goal, runs: list[Run]) -> tuple[str, float | None]:
    """What a goal demands in these runs; no number where it hangs on a peer that was not run."""
    if goal.peer is None or goal.share is None:
        return f"at most {goal.most:g}", goal.most
    words = f"at most {goal.share:g} x {goal.peer}"
    theirs = goal.column.of(_of(runs, goal.scenario, goal.peer))
    if not theirs:
        return f"{words}, which was not run", None
    limit = goal.share * median(theirs)
    return f"{words} = {limit:.2f}", limit


def _noise(runs: list[Run]) -> str:
    foreign = [run["foreign_cpu_s"] for run in runs]
    if not foreign:
        return ""
    loud = sum(seconds > 0.5 for seconds in foreign)
    return (
        f"Other work took more than half a second of CPU in {loud} of {len(foreign)} runs, {max(foreign):.1f} s at the "
        f"most. In B that flatters servers that write event by event: see docs/performance.md."
    )


def _failures(runs: list[Run]) -> str:
    failed = [f"- {run['scenario']} {run['peer']}: {run['error']}" for run in runs if "error" in run]
    return "### Failed runs\n\n" + "\n".join(failed) if failed else ""
