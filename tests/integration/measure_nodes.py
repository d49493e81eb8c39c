"""What an attack on one node of three costs clients of all of them, and what it leaves behind: `scripts/attack nodes`.

Three servers over one Redis, with their default limits. The attack is on the first. Clients whose messages are answered
stand in each relation to it: their socket there, their user's log there, both, or neither. The phases take turns.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import attrs
import pytest
import trio
from loopback.redis import RedisServer

import trio_ws

from ..server.raw import frame, request
from .measure import DEFAULTS, handshakes
from .test_attacks import V1, good, text
from .victim import ROOT, Victim, attacked

WAYS: Final = {
    "at the first": (0, 0),
    "there, log at the second": (1, 0),
    "at the second, log at the first": (0, 1),
    "at the second": (1, 1),
    "at the third": (2, 2),
}
"""Clients: at which node the log of their user is, and at which their socket."""


@attrs.frozen
class Target:
    """Where the nodes are."""

    ports: list[int]
    admins: list[str]

    def post(self, node: int, path: str, body: bytes, timeout: float = 30) -> int:
        """The status of a call of the admin API."""
        asked = urllib.request.Request(self.admins[node] + path, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(asked, timeout=timeout) as answer:
                answer.read()
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code


# -- what attackers do, each in a process of its own, until it is ended


def _greet(port: int, user: str, **hello: Any) -> tuple[socket.socket, dict[str, Any]]:
    """A connection that has said hello, and its welcome; {} where there is none."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=5)
    connection.sendall(request(V1) + text({"t": "hello", "token": good(user), **hello}))
    got = b""
    with suppress(OSError):
        while b'"welcome"' not in got or got[-1:] not in b"}]":
            more = connection.recv(65536)
            if not more or b'"error"' in got:
                break
            got += more
    at = got.find(b'{"t":"welcome"')
    if at < 0:
        return connection, {}
    return connection, dict(json.JSONDecoder().raw_decode(got[at:].decode("utf-8", "replace"))[0])


def _owned_elsewhere(target: Target, user: str) -> socket.socket:
    """Have the log of `user` at the second node, and connect at the first. Returns that connection."""
    first, _ = _greet(target.ports[1], user, **{"from": "now"})
    threading.Thread(target=_read_all, args=(first,), daemon=True).start()
    return _greet(target.ports[0], user)[0]


def _read_all(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.settimeout(None)
        while connection.recv(65536):
            connection.sendall(text({"t": "ping"}))


def relayed_flooder(target: Target) -> None:
    """Acks, as fast as they are read, on a connection that is relayed."""
    _send_for_ever(target, "flooder", text({"t": "ack", "seq": 0}) * 200)


def relayed_messages(target: Target) -> None:
    """Messages of 60 KB, as fast as they are read, on a connection that is relayed."""
    _send_for_ever(target, "talker", text({"t": "message", "id": "m", "type": "x", "payload": "x" * 60_000}))


def _send_for_ever(target: Target, user: str, data: bytes) -> None:
    while True:
        connection = _owned_elsewhere(target, user)
        connection.settimeout(None)
        with suppress(OSError):
            while True:
                connection.sendall(data)


def relayed_never_readers(target: Target) -> None:
    """Twenty who are sent events of 100 KB all the time at another node than their log's, and read none."""
    held = []
    for n in range(20):
        held.append(_owned_elsewhere(target, f"mute{n}"))
    line = {"users": [f"mute{n}" for n in range(20)], "type": "note", "payload": "x" * 100_000}
    while True:
        target.post(1, "/v1/events", json.dumps(line).encode())
        for n, connection in enumerate(held):
            connection.setblocking(False)
            with suppress(BlockingIOError):
                while True:
                    try:
                        if not connection.recv(1):
                            held[n] = _owned_elsewhere(target, f"mute{n}")
                            break
                    except ConnectionError:
                        held[n] = _owned_elsewhere(target, f"mute{n}")
                        break
                    break
        time.sleep(0.05)


def takeovers(target: Target) -> None:
    """One user's session, taken over at two nodes by turns, up to 100 times a second."""
    known: dict[str, Any] = {}
    n = 0
    while True:
        begin = time.monotonic()
        with suppress(OSError):
            connection, welcome = _greet(target.ports[n % 2], "hopper", **known)
            if welcome:
                known = {name: welcome[name] for name in ("session", "epoch", "seq")}
            connection.close()
        n += 1
        time.sleep(max(0.0, 0.01 - (time.monotonic() - begin)))


def movers(target: Target) -> None:
    """Fifty users who come, are sent something critical, ack nothing and go, at a node after the other."""
    n = 0
    while True:
        user, node = f"mover{n % 50}", n // 50 % 3
        with suppress(OSError):
            connection, _ = _greet(target.ports[node], user)
            body = {"type": "agent_completed", "payload": "x" * 1000}
            target.post(node, f"/v1/users/{user}/events", json.dumps(body).encode())
            connection.sendall(text({"t": "bye"}))
            connection.close()
        n += 1


def publishers(target: Target, size: int = 200_000, at_once: int = 64) -> None:
    """Who publish large events at the first node, as fast as that is answered, to users whose log is at the second."""
    body = json.dumps({"type": "note", "payload": "x" * size}).encode()

    def publish(user: str) -> None:
        _owned_elsewhere(target, user)
        while True:
            with suppress(OSError):
                target.post(0, f"/v1/users/{user}/events", body)

    for n in range(at_once):
        threading.Thread(target=publish, args=(f"big{n % 8}",), daemon=True).start()
        time.sleep(0.01)
    time.sleep(3600)


def waiters(target: Target) -> None:
    """Many who wait for confirmations that never come, of users whose log is at the second node."""

    def wait(n: int) -> None:
        _greet(target.ports[1], f"slow{n % 8}")
        while True:
            with suppress(OSError):
                body = json.dumps({"type": "agent_completed", "ttl": 5}).encode()
                target.post(0, f"/v1/users/slow{n % 8}/events?wait=confirmed&timeout=2", body)

    for n in range(100):
        threading.Thread(target=wait, args=(n,), daemon=True).start()
    time.sleep(3600)


def askers(target: Target) -> None:
    """Calls that all nodes have to answer, and of users who are at no node, by 20 at once."""

    def ask(n: int) -> None:
        at = 0
        while True:
            at += 1
            for path in ("/v1/stats", "/v1/nodes", f"/v1/users/nobody{n}-{at % 500}", "/metrics"):
                with (
                    suppress(OSError, urllib.error.HTTPError),
                    urllib.request.urlopen(target.admins[0] + path) as answer,
                ):
                    answer.read()

    for n in range(20):
        threading.Thread(target=ask, args=(n,), daemon=True).start()
    time.sleep(3600)


def oversize(target: Target) -> None:
    """Messages that are too large, on relayed connections, again and again."""
    while True:
        with suppress(OSError):
            connection = _owned_elsewhere(target, "giant")
            connection.sendall(frame(1, b"x" * 70_000))
            _read_all(connection)


def tickets(target: Target) -> None:
    """Handshakes with what could be a ticket of any node's: Redis is asked for each."""
    n = 0
    while True:
        with suppress(OSError):
            connection = socket.socket()
            connection.bind((f"127.0.{n % 500 // 250}.{1 + n % 250}", 0))
            connection.connect(("127.0.0.1", target.ports[0]))
            connection.sendall(request(V1) + text({"t": "hello", "token": f"{n:032d}"}))
            connection.settimeout(1)
            connection.recv(4096)
            connection.close()
        n += 1


def slow_requests(target: Target) -> None:
    """Four hundred requests at a time, a byte each second of each."""
    while True:
        held = []
        for _ in range(400):
            with suppress(OSError):
                connection = socket.create_connection(("127.0.0.1", target.ports[0]))
                held.append(connection)
        for at in range(6):
            for connection in held:
                with suppress(OSError):
                    connection.sendall(request(V1)[at : at + 1])
            time.sleep(1)
        for connection in held:
            connection.close()


ATTACKS: Final[dict[str, Callable[[Target], None]]] = {
    "1000 handshakes/s of 500 addresses": lambda target: handshakes(target.ports[0], 500),
    "slow requests": slow_requests,
    "handshakes with tickets": tickets,
    "a flooder, relayed": relayed_flooder,
    "large messages, relayed": relayed_messages,
    "messages too large, relayed": oversize,
    "20 never-readers, relayed": relayed_never_readers,
    "a session taken over 100 times a second": takeovers,
    "50 users whose log moves": movers,
    "64 publishers of 200 KB, forwarded": publishers,
    "100 who wait for confirmations elsewhere": waiters,
    "20 who ask for all nodes' figures": askers,
}


# -- what others see of it


@attrs.define
class Seen:
    """Of one phase or several: how long answers took, by relation; what was cut; what nodes and Redis hold."""

    took: dict[str, list[float]] = attrs.field(factory=lambda: {way: [] for way in WAYS})
    cut: dict[str, int] = attrs.field(factory=lambda: dict.fromkeys(WAYS, 0))
    most: list[int] = attrs.field(factory=lambda: [0, 0, 0, 0])

    def p99(self, way: str) -> float:
        ranked = sorted(self.took[way])
        return ranked[int(len(ranked) * 0.99)] if ranked else float("nan")


@asynccontextmanager
async def three_nodes(directory: Path) -> AsyncIterator[tuple[list[Victim], RedisServer]]:
    """Three servers over one Redis, which drain and exit with 0 in the end."""
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(RedisServer(directory / "redis", aof="everysec"))
        nodes = []
        for n in range(3):
            (directory / str(n)).mkdir()
            nodes.append(
                await stack.enter_async_context(attacked(directory / str(n), store=redis.url, **DEFAULTS))
            )
        yield nodes, redis


async def held(nodes: list[Victim], redis: RedisServer) -> list[int]:
    """Bytes that the nodes and Redis hold."""
    info = await redis.call("INFO", "memory")
    used = next(line for line in info.decode().splitlines() if line.startswith("used_memory:"))
    return [*[(await node.inside())["rss"] for node in nodes], int(used.partition(":")[2])]


async def phase(
    nodes: list[Victim],
    redis: RedisServer,
    probes: dict[str, trio_ws.Client],
    name: str,
    seconds: float,
    seen: Seen,
) -> None:
    """Have messages answered while one attack is under way."""
    target = Target([node.port for node in nodes], [node.admin for node in nodes])
    attacker = None
    if name != "nobody":
        given = json.dumps(attrs.asdict(target))
        attacker = subprocess.Popen(  # noqa: ASYNC220 - it waits for nothing
            [sys.executable, "-m", "tests.integration.measure_nodes", "--attack", name, "--target", given],
            cwd=ROOT,
            stdout=subprocess.PIPE,
        )
        assert attacker.stdout is not None
        await trio.to_thread.run_sync(attacker.stdout.readline)  # it begins
        await trio.sleep(1)
    try:
        end = trio.current_time() + seconds
        async with trio.open_nursery() as nursery:
            for way, probe in probes.items():
                nursery.start_soon(probe_on, probe, way, end, seen)
            nursery.start_soon(watch, nodes, redis, end, seen)
        if attacker is not None and attacker.poll() is not None:
            raise RuntimeError(f"the attack is over: {name}")
    finally:
        if attacker is not None:
            attacker.kill()
            attacker.wait()
        await trio.sleep(1)


async def probe_on(probe: trio_ws.Client, way: str, end: float, seen: Seen) -> None:
    while trio.current_time() < end:
        begin, connected = time.perf_counter(), probe.statistics().connections
        with pytest.raises(trio_ws.MessageRejected):
            await probe.send("echo", None)
        seen.took[way].append(time.perf_counter() - begin)
        seen.cut[way] += probe.statistics().connections - connected
        await trio.sleep(0.011)  # messages of one user have a rate as well


async def watch(nodes: list[Victim], redis: RedisServer, end: float, seen: Seen) -> None:
    while trio.current_time() < end:
        now = await held(nodes, redis)
        seen.most = [max(pair) for pair in zip(seen.most, now, strict=True)]
        await trio.sleep(1)


async def main(rounds: int, seconds: float, only: str) -> int:
    """Measure and print; the exit status: 1 where another client was cut, or something failed."""
    names = ["nobody", *(name for name in ATTACKS if only in name)]
    seen = {name: Seen() for name in names}
    with tempfile.TemporaryDirectory() as directory:
        async with three_nodes(Path(directory)) as (nodes, redis), AsyncExitStack() as stack:
            probes = {}
            for n, (way, (owner, edge)) in enumerate(WAYS.items()):
                for node in dict.fromkeys((owner, edge)):
                    probes[way] = await stack.enter_async_context(nodes[node].client(f"probe{n}"))
                    await probes[way].wait_live()
            for n in range(rounds):
                for name in names if n % 2 == 0 else names[::-1]:
                    await phase(nodes, redis, probes, name, seconds, seen[name])
                    print(f"round {n + 1}, {name}", file=sys.stderr)
            lost = [(await node.stats())["cluster"]["lost_messages"] for node in nodes]
        failed = sum((Path(directory) / str(n) / "log").read_text().count("Traceback") for n in range(3))
    print(f"| while there is | {' | '.join(WAYS)} | MiB: nodes, Redis |\n|{'---|' * (2 + len(WAYS))}")
    for name in names:
        tell(name, seen[name], seen["nobody"])
    cut = sum(sum(one.cut.values()) for one in seen.values())
    print(f"\nClients cut: {cut}. Messages lost between nodes: {sum(lost)}. Errors in logs: {failed}.")
    return int(cut > 0 or failed > 0)


def tell(name: str, seen: Seen, nobody: Seen) -> None:
    """Print a line of the table: the middle and the 99th of a hundred answers, in ms, and that to nobody's."""
    cells = []
    for way in WAYS:
        median, p99 = statistics.median(seen.took[way]) * 1e3, seen.p99(way) * 1e3
        cut = f", cut {seen.cut[way]} times" if seen.cut[way] else ""
        cells.append(f"{median:.1f} / {p99:.1f} ({seen.p99(way) / nobody.p99(way):.1f} x{cut})")
    print(f"| {name} | {' | '.join(cells)} | {' '.join(str(size >> 20) for size in seen.most)} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="scripts/attack nodes", description=__doc__.partition("\n\n")[2])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--only", default="")
    parser.add_argument("--attack", choices=ATTACKS, help=argparse.SUPPRESS)
    parser.add_argument("--target", type=json.loads, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.attack:
        print("begins", flush=True)
        ATTACKS[given.attack](Target(**given.target))
    else:
        sys.exit(trio.run(main, given.rounds, given.seconds, given.only))
