"""What attackers cost the others: `scripts/attack`.

A client has its messages answered by a real server, under load and with its default limits, while a process
of its own attacks in one way or another; the phases take turns, and are compared with those in which nobody does.
A flood of handshakes takes processors from everybody on the machine by being made: so it is also compared with the same
flood against a listener of another process, which closes what it accepts. The steadiest figures are those that the
loop's turns give, whatever else the machine does: how much of a processor they take, and how long one in a hundred of
those who come at any time has to wait until the loop is free.
"""

from __future__ import annotations

import argparse
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import attrs
import pytest
import trio

import trio_ws

from ..server.raw import PING, REQUEST, frame, request
from .test_attacks import RESET, V1, good, greeted, text, under_load
from .victim import ROOT, Victim, attacked

GOAL: Final = 1.2
"""The others' p99 is to be at most so many times what it is without."""

HANDSHAKES: Final = 1000
"""How many a second."""

LINGER: Final = 0.2
"""Seconds that who floods waits for an answer."""

ADDRESSES: Final = 500
"""Of how many a flood of many comes: few enough for the limit of each to let all of it in."""

DEFAULTS: Final = {"connect_rate": 100, "connect_burst": 500, "hello_timeout": 5, "write_timeout": 5}


def flooder(port: int) -> None:
    """One connection that acks as fast as it is read."""
    with _connected(port, "flooder") as connection:
        acks = text({"t": "ack", "seq": 0}) * 200
        while True:
            connection.sendall(acks)


def never_reader(port: int) -> None:
    """One connection of a user who is sent events all the time, and reads none."""
    while True:
        with _connected(port, "busy0"):
            time.sleep(2)


def handshakes(port: int, addresses: int = 1) -> None:
    """`HANDSHAKES` a second, with a token that is not valid; tells in the end how many it were."""
    sent = request(V1) + text({"t": "hello", "token": good(exp=1)})
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    opened: deque[tuple[float, socket.socket]] = deque()
    begin, count = time.perf_counter(), 0
    try:
        while True:
            opened.append((time.perf_counter(), _shake(port, sent, count % addresses)))
            while opened and opened[0][0] < time.perf_counter() - LINGER:
                _, connection = opened.popleft()
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                connection.close()
            count += 1
            ahead = begin + count / HANDSHAKES - time.perf_counter()
            if ahead > 0:
                time.sleep(ahead)
    finally:
        print(count)


def _shake(port: int, sent: bytes, address: int) -> socket.socket:
    connection = socket.socket()
    connection.bind((f"127.0.{address // 250}.{1 + address % 250}", 0))
    connection.connect(("127.0.0.1", port))
    try:
        connection.sendall(sent)
    except OSError:
        pass  # it was cut already
    return connection


ATTACKS: Final = {
    "a flooder": flooder,
    "a never-reader": never_reader,
    f"{HANDSHAKES} handshakes/s of one address": handshakes,
    f"{HANDSHAKES} handshakes/s of {ADDRESSES} addresses": partial(handshakes, addresses=ADDRESSES),
}
ELSEWHERE: Final = f"{HANDSHAKES} handshakes/s elsewhere"


@contextmanager
def elsewhere() -> Iterator[int]:
    """A listener in a process of its own, which closes what it accepts; gives its port."""
    listens = (
        "import socket; s = socket.create_server(('127.0.0.1', 0), backlog=1024); "
        "print(s.getsockname()[1], flush=True)\nwhile True: s.accept()[0].close()"
    )
    with subprocess.Popen([sys.executable, "-c", listens], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


@attrs.define
class Seen:
    """What was seen while one attack was under way, in all its phases."""

    took: list[float] = attrs.field(factory=list)
    waits: list[float] = attrs.field(factory=list)
    busy: float = 0.0
    seconds: float = 0.0
    handshakes: int = 0

    @property
    def p99(self) -> float:
        return sorted(self.took)[int(len(self.took) * 0.99)]


def _connected(port: int, user: str) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port))
    connection.sendall(request(V1) + text({"t": "hello", "token": good(user)}))
    return connection


async def main(rounds: int, seconds: float) -> int:
    """Measure and print; the exit status: 1 where the goal is missed."""
    with tempfile.TemporaryDirectory() as directory:
        async with attacked(Path(directory), **DEFAULTS) as victim:
            seen = await compare(victim, rounds, seconds)
        worst = report(seen)
        print("\n| a connection that is | takes KiB |\n|---|---|")
        for name, abuse in MEMORY.items():
            print(f"| {name} | {await memory(Path(directory), abuse) / 1024:.1f} |", flush=True)
    print(f"\nGoal: p99 at most {GOAL:g} times: {'met' if worst <= GOAL else '**missed**'} ({worst:.2f}).")
    return int(worst > GOAL)


def report(seen: dict[str, Seen]) -> float:
    """Print a table; how many times worse the worst p99 was, of handshakes beside the same elsewhere."""
    nobody, same = seen["nobody"], seen[ELSEWHERE]
    print(
        "| while there is | answers | p50 ms | p99 ms | times nobody's | elsewhere's | busy | each | 1 % wait, ms |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    worst = 0.0
    for name, one in seen.items():
        of_nobody, of_same, each = one.p99 / nobody.p99, "", ""
        fair = of_nobody
        if one.handshakes and name != ELSEWHERE:
            fair = one.p99 / same.p99
            of_same = f"{fair:.2f}"
            each = f"{(one.busy - nobody.busy / nobody.seconds * one.seconds) / one.handshakes * 1e6:.0f} µs"
        if name != ELSEWHERE:
            worst = max(worst, fair)
        print(
            f"| {name} | {len(one.took)} | {statistics.median(one.took) * 1e3:.2f} | {one.p99 * 1e3:.2f} "
            f"| {of_nobody:.2f} | {of_same} | {one.busy / one.seconds:.1%} | {each} "
            f"| {statistics.median(one.waits) * 1e3:.2f} |"
        )
    return worst


async def compare(victim: Victim, rounds: int, seconds: float) -> dict[str, Seen]:
    """What was seen, by the attack that was under way; the order of phases alternates."""
    ports = dict.fromkeys(("nobody", *ATTACKS), victim.port)
    with ExitStack() as stack:
        ports[ELSEWHERE] = stack.enter_context(elsewhere())
        seen = {name: Seen() for name in ports}
        async with under_load(victim), victim.client("probe") as probe:
            await probe.wait_live()
            for n in range(rounds):
                for name in seen if n % 2 == 0 else list(seen)[::-1]:
                    await phase(victim, probe, name, ports[name], seconds, seen[name])
                    print(f"round {n + 1}, {name}: p99 {seen[name].p99 * 1e3:.2f} ms so far", file=sys.stderr)
    return seen


async def phase(
    victim: Victim, probe: trio_ws.Client, name: str, port: int, seconds: float, seen: Seen
) -> None:
    """Have messages answered while one attack is under way."""
    attacker = None
    if name != "nobody":
        attack = name if port == victim.port else next(reversed(ATTACKS))
        arguments = ["-m", "tests.integration.measure", "--attack", attack, "--port", str(port)]
        attacker = subprocess.Popen(  # noqa: ASYNC220 - it waits for nothing
            [sys.executable, *arguments], cwd=ROOT, stdout=subprocess.PIPE
        )
        assert attacker.stdout is not None
        await trio.to_thread.run_sync(attacker.stdout.readline)  # it begins
    try:
        await victim.turns()
        begin = time.perf_counter()
        while (sent := time.perf_counter()) < begin + seconds:
            with pytest.raises(trio_ws.MessageRejected):
                await probe.send("echo", None)
            seen.took.append(time.perf_counter() - sent)
            await trio.sleep(0.011)  # messages of one user have a rate as well
        turns, took = await victim.turns(), time.perf_counter() - begin
        seen.waits.append(turns["wait"])
        seen.busy += turns["busy"] * took
        seen.seconds += took
        if attacker is not None and attacker.poll() is not None:
            raise RuntimeError(f"the attack of {name} is over: {attacker.returncode}")
    finally:
        if attacker is not None:
            attacker.terminate()
            assert attacker.stdout is not None
            told = await trio.to_thread.run_sync(attacker.stdout.read)
            seen.handshakes += int(told or 0)
            attacker.wait()
        await trio.sleep(1)


Abuse = Callable[[Victim, AsyncExitStack, int], Awaitable[None]]


def _unheard(*sent: bytes) -> Abuse:
    """One that sends this, and nothing more."""

    async def abuse(victim: Victim, stack: AsyncExitStack, n: int) -> None:
        await stack.enter_async_context(victim.peer(*sent))

    return abuse


def _greeted(*sent: bytes) -> Abuse:
    """One that has said hello, sends this, and reads nothing."""

    async def abuse(victim: Victim, stack: AsyncExitStack, n: int) -> None:
        peer, _ = await stack.enter_async_context(greeted(victim, f"u{n}"))
        with trio.move_on_after(0.1):  # the server reads no more of somebody who does not read
            await peer.send(*sent)

    return abuse


async def _never_reads(victim: Victim, stack: AsyncExitStack, n: int) -> None:
    """One who is sent the event of 200,000 bytes that is held for him."""
    hello = text({"t": "hello", "token": good(f"u{n}")})
    peer = await stack.enter_async_context(victim.peer(request(V1), hello, SO_RCVBUF=4096))
    await peer.head()


CONNECTIONS: Final = 90
_HALF: Final = bytes([0x81, 0xFF]) + (65_536).to_bytes(8) + b"mask" + bytes(60_000)
MEMORY: Final[dict[str, Abuse]] = {
    "silent from the start": _unheard(),
    "half a request": _unheard(REQUEST[:60]),
    "a request of 15 KiB that has no end": _unheard(REQUEST[:-2] + b"X: " + b"a" * 15_000),
    "a request and no hello": _unheard(request(V1)),
    "idle after hello": _greeted(),
    "in the middle of a message of 64 KiB": _greeted(_HALF),
    "pings, and never reads": _greeted(frame(PING, bytes(125)) * 20_000),
    "is sent 200 KB, and never reads": _never_reads,
}
"""What each of `CONNECTIONS` does."""


async def memory(directory: Path, abuse: Abuse) -> float:
    """Resident bytes for each connection of a kind, of a server that has had none before."""
    async with attacked(directory, **DEFAULTS | {"hello_timeout": 60, "write_timeout": 60}) as victim:
        if abuse is _never_reads:  # first: what is held in logs is not the connections'
            users = [f"u{n}" for n in range(CONNECTIONS)]
            line = {"users": users, "type": "note", "payload": "x" * 200_000}
            (await victim.http.post("/v1/events", json=line)).raise_for_status()
        before = (await victim.inside())["rss"]
        async with AsyncExitStack() as stack:
            for n in range(CONNECTIONS):
                await abuse(victim, stack, n)
            await trio.sleep(0.5)
            return ((await victim.inside())["rss"] - before) / CONNECTIONS


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="scripts/attack", description=__doc__.partition("\n\n")[2])
    parser.add_argument("--rounds", type=int, default=3, help="how often each phase comes (3)")
    parser.add_argument("--seconds", type=float, default=5, help="how long a phase takes (5)")
    parser.add_argument("--attack", choices=ATTACKS, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.attack:
        print("begins", flush=True)
        ATTACKS[given.attack](given.port)
    else:
        sys.exit(trio.run(main, given.rounds, given.seconds))
