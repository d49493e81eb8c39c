"""What a parked session saves: CPU of the server for one that resumes, and for one that begins anew.

It saves two things. Where nothing is held, only what making a session takes, which is little beside a TCP connection
and an HTTP request. Where events are held, that they are not sent again: who begins anew is sent all that the user's
mailbox holds, who resumes only what was missed.
"""

from __future__ import annotations

import time
from statistics import median
from typing import Final

from .compare import say, started
from .peers.trio_ws import with_options
from .processes import System
from .report import table
from .scenarios import GRACE, connect, work

SESSIONS: Final = 1000
HELD: Final = (20, 100)
"""Events in each mailbox, all of them acked. By default a mailbox holds at most 200."""
PAUSE: Final = 1.0
"""Seconds after a cut in which the server sees to it."""
GAIN: Final = 0.3
"""The goal: so much less for one that resumes where events are held."""
MOST_NEW, MOST_RESUMED = 400, 280
"""The goals in µs where nothing is held."""


def run(repetitions: int) -> int:
    """Measure those who begin anew and those who resume in turn, with one server, and print; the exit status."""
    rows = list[list[str]]()
    with started(with_options()) as system:
        connect(system, SESSIONS)
        new, resumed = _pair(system, "user", 0, 2 * repetitions)
        rows.append(_row("a new user", new, MOST_NEW))
        rows.append(_row("resumed", resumed, MOST_RESUMED))
        rows.append(_saved("", new, resumed, None))
        before = 0
        for held in HELD:
            more = held - before
            there = work(system, SESSIONS, more, ack_every=more, timeout=30, cmd="offline", events=more)
            if there["lost"]:
                raise RuntimeError(f"{there['lost']} events were lost")
            new, resumed = _pair(system, "session", held, 2 * repetitions)
            rows.append(_row(f"a new session, {held} events held", new, None))
            rows.append(_row(f"resumed, {held} events held", resumed, None))
            rows.append(_saved(f", {held} events held", new, resumed, GAIN))
            before = held
    print(table(["connection", "server CPU µs", "goal", ""], rows))
    return 0


def _pair(system: System, fresh: str, held: int, repetitions: int) -> tuple[list[float], list[float]]:
    """µs of CPU of those who begin anew, and of those who resume."""
    new, resumed = list[float](), list[float]()
    for _ in range(repetitions):
        new.append(_cost(system, fresh=fresh, events=held))
        resumed.append(_cost(system, fresh=None, events=0))
        say(f"{held} held: new {new[-1]:.0f} µs, resumed {resumed[-1]:.0f} µs")
    return new, resumed


def _cost(system: System, *, fresh: str | None, events: int) -> float:
    """µs of CPU to connect one session that is then sent so many events, after all have been cut."""
    system.client.ask(cmd="cut")
    time.sleep(PAUSE)
    total = SESSIONS * events
    if events:
        system.client.ask(cmd="reset", target=total, per_session=events, ack_every=events)
    before = system.server.cpu
    done = system.client.ask(cmd="connect", sessions=SESSIONS, at_once=100, fresh=fresh)
    if done["resumed"] != (SESSIONS if fresh is None else 0):
        raise RuntimeError(f"{done['resumed']} sessions were resumed")
    if events:
        seen = system.client.ask(cmd="wait", limit=20, quiet=5)
        if seen["received"] != total or seen["duplicates"]:
            raise RuntimeError(f"{seen['received']} of {total} events came, {seen['duplicates']} twice")
    time.sleep(GRACE)
    return (system.server.cpu - before) * 1e6 / SESSIONS


def _row(name: str, costs: list[float], most: float | None) -> list[str]:
    figure = f"{median(costs):.0f} ({min(costs):.0f}-{max(costs):.0f})"
    if most is None:
        return [name, figure, "", ""]
    return [name, figure, f"at most {most}", _verdict(median(costs) <= most)]


def _saved(name: str, new: list[float], resumed: list[float], least: float | None) -> list[str]:
    gain = 1 - median(resumed) / median(new)
    row = [f"saved by resuming{name}", f"{gain:.0%}"]
    return [*row, "", ""] if least is None else [*row, f"at least {least:.0%}", _verdict(gain >= least)]


def _verdict(met: bool) -> str:
    return "met" if met else "**missed**"
