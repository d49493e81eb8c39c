"""The scenarios: what is done to a started system, and what is measured of it.

Each takes a `System`, and sizes whose defaults are those that results are published for. CPU is that of the server
process, from before the work until `GRACE` seconds after the last event.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from .processes import System

Result: TypeAlias = dict[str, Any]

GRACE: Final = 0.3
"""Seconds in which the last acks reach the server before its CPU is read."""


def connect(system: System, sessions: int, *, topic: str = "user", at_once: int = 100) -> Result:
    """Connect sessions, and let things settle."""
    connected = system.client.ask(cmd="connect", sessions=sessions, at_once=at_once, topic=topic)
    if system.peer.publisher is not None:
        system.control.ask(cmd="expect", users=sessions)
    time.sleep(GRACE)
    return connected


def work(
    system: System, sessions: int, each: int, *, ack_every: int, timeout: float, **command: Any
) -> Result:
    """Have the server do a command that sends `each` events to every session, and measure until all have come."""
    total = sessions * each
    system.client.ask(cmd="reset", target=total, per_session=each, ack_every=ack_every)
    before = system.server.cpu
    system.client.send(cmd="wait", limit=timeout, quiet=15)
    system.control.send(**command)
    seen = system.client.answer(timeout + 30)
    done = system.control.answer(timeout + 90)
    time.sleep(GRACE)
    cpu = system.server.cpu - before
    return seen | {
        "sent": done["sent"],
        "acked": done["acked"],
        "lost": total - seen["received"],
        "cpu_s": cpu,
        "cpu_us": cpu * 1e6 / total,
        "rate": seen["received"] / seen["wall_s"] if seen["wall_s"] else None,
    }


def stream(system: System, *, sessions: int = 100, rate: float = 20, seconds: float = 10) -> Result:
    """A steady flow to each session, each event acked by itself."""
    connect(system, sessions)
    each = int(rate * seconds)
    return work(
        system, sessions, each, ack_every=1, timeout=seconds + 30, cmd="stream", rate=rate, seconds=seconds
    )


def burst(system: System, *, sessions: int = 100, each: int = 2000, window: int = 256) -> Result:
    """As fast as it goes with a window of unacked events for each session, acked each 32."""
    connect(system, sessions)
    return work(system, sessions, each, ack_every=32, timeout=150, cmd="burst", events=each, window=window)


def fanout(system: System, *, sessions: int = 1000, each: int = 200) -> Result:
    """One event to all, again and again, as fast as broadcasting goes, acked each 32."""
    connect(system, sessions, topic="all")
    return work(system, sessions, each, ack_every=32, timeout=150, cmd="fanout", events=each)


def idle(system: System, *, sessions: int = 2000) -> Result:
    """Connections that do nothing: their memory, and the CPU of their coming."""
    time.sleep(0.5)
    memory, cpu = system.server.memory, system.server.cpu
    connected = connect(system, sessions)
    cpu = system.server.cpu - cpu
    time.sleep(2)
    return {
        "kib": (system.server.memory - memory) / sessions,
        "rss_kib": system.server.memory,
        "connect_us": cpu * 1e6 / sessions,
        "connect_s": connected["ready_s"],
    }


def storm(system: System, *, sessions: int = 500, each: int = 20) -> Result:
    """All sessions are cut without a close frame, miss some events, and come back at once."""
    connect(system, sessions)
    first = work(system, sessions, 1, ack_every=1, timeout=20, cmd="offline", events=1)
    if first["lost"]:
        raise RuntimeError(f"{first['lost']} first events did not come")
    system.client.ask(cmd="cut")
    time.sleep(1.5)
    system.control.ask(cmd="offline", events=each)
    before = system.server.cpu
    total = sessions * each
    seen = system.client.ask(
        cmd="recover",
        target=total,
        per_session=each,
        ack_every=32,
        at_once=sessions,
        limit=60,
        quiet=3 if system.peer.recovers else 1.5,
        keep=False,
    )
    time.sleep(GRACE)
    lost = total - seen["received"]
    return seen | {
        "lost": lost,
        "cpu_s": system.server.cpu - before,
        "recovered_s": None if lost else seen["wall_s"],
    }


def small(system: System, *, sessions: int = 5, rate: int = 5, seconds: float = 8) -> Result:
    """Hardly anything: what one event takes from being made to being received."""
    return stream(system, sessions=sessions, rate=rate, seconds=seconds)


def cut(system: System, *, sessions: int = 100, rate: int = 20, seconds: float = 4) -> Result:
    """A steady flow, amid which all connections are cut: what was acked and what was not, nobody knows."""
    each = int(rate * seconds)
    total = sessions * each
    connect(system, sessions)
    system.client.ask(cmd="reset", target=total, per_session=each, ack_every=1)
    system.control.send(cmd="stream", rate=rate, seconds=seconds)
    time.sleep(seconds * 3 / 8)
    system.client.ask(cmd="cut")
    time.sleep(seconds / 8)
    seen = system.client.ask(
        cmd="recover",
        target=total,
        per_session=each,
        ack_every=1,
        at_once=sessions,
        limit=45,
        quiet=33 if system.peer.name == "nats-js" else 4,  # it sends again after 30 s
        keep=True,
    )
    system.control.answer(90)
    return seen | {"lost": total - seen["received"]}


SCENARIOS: Final[dict[str, Callable[[System], Result]]] = {
    "A": stream,
    "B": burst,
    "C": fanout,
    "D": idle,
    "E": storm,
    "F": small,
    "G": cut,
}
