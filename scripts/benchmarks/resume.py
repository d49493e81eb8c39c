"""What a parked session saves: CPU of the server for a new connection, and for one that resumes."""

from __future__ import annotations

import time
from statistics import median

from .compare import say, started
from .peers.trio_ws import with_options
from .processes import System
from .report import table
from .scenarios import GRACE, connect

SESSIONS = 1000
PAUSE = 1.0
"""Seconds after a cut in which the server sees to it."""
GAIN = 0.3
"""The goal: so much less for one that resumes."""
MOST_NEW, MOST_RESUMED = 400, 280
"""The goals in µs."""


def run(repetitions: int) -> int:
    """Measure new and resumed connections in turn, with one server, and print; the exit status."""
    new, resumed = list[float](), list[float]()
    with started(with_options()) as system:
        connect(system, SESSIONS)
        for _ in range(2 * repetitions):
            new.append(_cost(system, fresh=True))
            resumed.append(_cost(system, fresh=False))
            say(f"new {new[-1]:.0f} µs, resumed {resumed[-1]:.0f} µs")
    gain = 1 - median(resumed) / median(new)
    rows = [
        [
            name,
            f"{median(costs):.0f} ({min(costs):.0f}-{max(costs):.0f})",
            f"at most {most}",
            _verdict(median(costs) <= most),
        ]
        for name, costs, most in (("new", new, MOST_NEW), ("resumed", resumed, MOST_RESUMED))
    ]
    rows.append(["saved by resuming", f"{gain:.0%}", f"at least {GAIN:.0%}", _verdict(gain >= GAIN)])
    print(table(["connection", "server CPU µs", "goal", ""], rows))
    return 0


def _cost(system: System, *, fresh: bool) -> float:
    """µs of CPU to connect one session, after all have been cut."""
    system.client.ask(cmd="cut")
    time.sleep(PAUSE)
    before = system.server.cpu
    done = system.client.ask(cmd="connect", sessions=SESSIONS, at_once=100, fresh=fresh)
    if done["resumed"] != (0 if fresh else SESSIONS):
        raise RuntimeError(f"{done['resumed']} sessions were resumed")
    time.sleep(GRACE)
    return (system.server.cpu - before) * 1e6 / SESSIONS


def _verdict(met: bool) -> str:
    return "met" if met else "**missed**"
