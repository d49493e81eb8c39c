"""What attackers cost the others: `scripts/attack`.

A client has its messages answered by a real server, under load and with its default limits, while a process
of its own attacks in one way or another; the phases take turns, and are compared with those in which nobody does.
"""

from __future__ import annotations

import argparse
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import pytest
import trio

import trio_ws

from ..server.raw import REQUEST, request
from .test_attacks import RESET, V1, good, greeted, text, under_load
from .victim import ROOT, Victim, attacked

GOAL: Final = 1.2
"""The others' p99 is to be at most so many times what it is without."""

HANDSHAKES: Final = 1000
"""How many a second."""

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


def handshakes(port: int) -> None:
    """`HANDSHAKES` a second, with a token that is not valid."""
    sent = request(V1) + text({"t": "hello", "token": good(exp=1)})
    begin, count = time.perf_counter(), 0
    while True:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            connection.sendall(sent)
        count += 1
        ahead = begin + count / HANDSHAKES - time.perf_counter()
        if ahead > 0:
            time.sleep(ahead)


ATTACKS: Final = {
    "a flooder": flooder,
    "a never-reader": never_reader,
    f"{HANDSHAKES} handshakes/s": handshakes,
}


def _connected(port: int, user: str) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port))
    connection.sendall(request(V1) + text({"t": "hello", "token": good(user)}))
    return connection


async def main(rounds: int, seconds: float) -> int:
    """Measure and print; the exit status: 1 where the goal is missed."""
    with tempfile.TemporaryDirectory() as directory:
        async with attacked(Path(directory), **DEFAULTS) as victim:
            took = await compare(victim, rounds, seconds)
        base = _p99(took["nobody"])
        print("| while there is | answers | p50 ms | p99 ms | p99, times |\n|---|---|---|---|---|")
        worst = 0.0
        for name, seen in took.items():
            ratio = _p99(seen) / base
            worst = max(worst, ratio)
            print(
                f"| {name} | {len(seen)} | {statistics.median(seen) * 1e3:.2f} | {_p99(seen) * 1e3:.2f} | {ratio:.2f} |"
            )
        async with attacked(Path(directory), **DEFAULTS) as victim:
            for name, size in (await memory(victim)).items():
                print(f"\n{name}: {size / 1024:.1f} KiB each")
    print(f"\nGoal: p99 at most {GOAL:g} times: {'met' if worst <= GOAL else '**missed**'} ({worst:.2f}).")
    return int(worst > GOAL)


async def compare(victim: Victim, rounds: int, seconds: float) -> dict[str, list[float]]:
    """How long answers took, by the attack that was under way; the order of phases alternates."""
    took: dict[str, list[float]] = {name: [] for name in ("nobody", *ATTACKS)}
    async with under_load(victim), victim.client("probe") as probe:
        await probe.wait_live()
        for n in range(rounds):
            for name in took if n % 2 == 0 else list(took)[::-1]:
                took[name] += await phase(victim, probe, name, seconds)
                print(f"round {n + 1}, {name}: p99 {_p99(took[name]) * 1e3:.2f} ms so far", file=sys.stderr)
    return took


async def phase(victim: Victim, probe: trio_ws.Client, name: str, seconds: float) -> list[float]:
    """How long answers took while one attack was under way."""
    attacker = None
    if name != "nobody":
        arguments = ["-m", "tests.integration.measure", "--attack", name, "--port", str(victim.port)]
        attacker = subprocess.Popen([sys.executable, *arguments], cwd=ROOT)  # noqa: ASYNC220 - it waits for nothing
    try:
        await trio.sleep(1.5)
        took = []
        end = time.perf_counter() + seconds
        while (begin := time.perf_counter()) < end:
            with pytest.raises(trio_ws.MessageRejected):
                await probe.send("echo", None)
            took.append(time.perf_counter() - begin)
            await trio.sleep(0.011)  # messages of one user have a rate as well
        if attacker is not None and attacker.poll() is not None:
            raise RuntimeError(f"the attack of {name} is over: {attacker.returncode}")
        return took
    finally:
        if attacker is not None:
            attacker.kill()
            attacker.wait()
        await trio.sleep(1)


async def memory(victim: Victim) -> dict[str, float]:
    """Resident bytes of the server for each connection of a kind."""
    found: dict[str, float] = {}
    half = bytes([0x81, 0xFF]) + (65_536).to_bytes(8) + b"mask" + bytes(60_000)
    kinds = {"half-open": 200, "idle after hello": 90, "in the middle of a message of 64 KiB": 90}
    for name, count in kinds.items():
        before = (await victim.inside())["rss"]
        async with AsyncExitStack() as stack:
            for n in range(count):
                if name == "half-open":
                    await stack.enter_async_context(victim.peer(REQUEST[:60]))
                else:
                    peer, _ = await stack.enter_async_context(greeted(victim, f"u{n}"))
                    if name.startswith("in"):
                        await peer.send(half)
            await trio.sleep(0.3)
            found[name] = ((await victim.inside())["rss"] - before) / count
        await trio.sleep(0.5)
    return found


def _p99(took: list[float]) -> float:
    return sorted(took)[int(len(took) * 0.99)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="scripts/attack", description=__doc__.partition("\n\n")[2])
    parser.add_argument("--rounds", type=int, default=3, help="how often each phase comes (3)")
    parser.add_argument("--seconds", type=float, default=5, help="how long a phase takes (5)")
    parser.add_argument("--attack", choices=ATTACKS, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.attack:
        ATTACKS[given.attack](given.port)
    else:
        sys.exit(trio.run(main, given.rounds, given.seconds))
