"""A crowd: 5,000 connections on one core, each with one event a second, which it acks; heartbeats as by default."""

from __future__ import annotations

from . import scenarios
from .compare import Noise, available, say, started
from .report import P50, P99, Column, Run, table

PEERS = ("trio-ws", "trio-ws-critical", "picows")
SESSIONS = 5000
SECONDS = 20
MOST_MS = 50.0
COLUMNS = (P50, P99, Column("server CPU ms/s", "cpu_s", SECONDS / 1e3, 0), Column("lost", "lost", decimals=0))


def run(repetitions: int) -> int:
    """Measure, and print; the exit status."""
    runs: dict[str, list[Run]] = {}
    for _ in range(repetitions):
        for peer in available(list(PEERS)):
            noise = Noise()
            with started(peer) as system:
                result = scenarios.stream(system, sessions=SESSIONS, rate=1, seconds=SECONDS)
            result |= noise.since()
            runs.setdefault(peer.name, []).append(result)
            say(peer.name, result)
    rows = [[name, *(column.show(found) for column in COLUMNS)] for name, found in runs.items()]
    print(table(["peer", *(column.title for column in COLUMNS)], rows))
    worst = max(P99.of(runs["trio-ws"]))
    print(f"\nGoal: p99 under {MOST_MS:g} ms in each run: {'met' if worst < MOST_MS else '**missed**'}.")
    return 0
