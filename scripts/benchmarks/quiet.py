"""What connections cost that have nothing to do: their heartbeats, at an interval that makes many of them."""

from __future__ import annotations

import time

from .compare import Noise, say, started
from .peers.trio_ws import with_options
from .report import Column, Run, table
from .scenarios import connect

SESSIONS = 1000
INTERVALS = {"a ping and its pong": 1.0, "nothing": 3600.0}
"""Seconds between two heartbeats of a connection."""
SECONDS = 8
COLUMNS = (Column("server CPU ms/s", "cpu_s", SECONDS / 1e3, 1), Column("CPU µs/heartbeat", "beat_us"))


def run(repetitions: int) -> int:
    """Measure, and print; the exit status."""
    runs: dict[str, list[Run]] = {name: [] for name in INTERVALS}
    for _ in range(repetitions):
        for name, interval in INTERVALS.items():
            runs[name].append(one(interval))
            say(name, runs[name][-1])
    rows = [
        [f"{SESSIONS} connections, {name}", *(c.show(found) for c in COLUMNS)] for name, found in runs.items()
    ]
    print(table(["each second", *(column.title for column in COLUMNS)], rows))
    return 0


def one(interval: float) -> Run:
    """One run, with a fresh server."""
    noise = Noise()
    with started(
        with_options("--heartbeat", str(min(interval, 60)), "--idle-heartbeat", str(interval))
    ) as system:
        connect(system, SESSIONS)
        time.sleep(interval if interval < SECONDS else 1)
        before = system.server.cpu
        time.sleep(SECONDS)
        used = system.server.cpu - before
    beats = SECONDS / interval * SESSIONS
    return {"cpu_s": used, "beat_us": used / beats * 1e6 if interval < SECONDS else None} | noise.since()
