"""Nodes: `trio-ws serve --workers N` over one Redis (AOF always), with 1, 2 and 3 workers on the cores of this machine.

Critical events are published over HTTP by two threads, in batches that each worker gets some of, to users whose clients
ack what they process. Everything floats over all cores: nodes, Redis, the load generator that holds the clients, and
this process, which publishes. The CPU of each is its own clock. *Throughput* is from the first publish to the last ack,
as fast as it goes; *latency* is at a modest rate, from making an event to its arrival at the client.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import attrs
import trio
from loopback.redis import RedisServer

from .compare import Noise, say
from .peers import all_peers
from .processes import Process, cpu_of, module
from .report import P50, P99, Column, Run, table
from .workload import envelope

NODES: Final = (1, 2, 3)
USERS: Final = 200
EVENTS: Final = 150
"""Of each user."""
BATCH: Final = 100
PUBLISHERS: Final = 2
RATE: Final = 200
SECONDS: Final = 5
"""Of the measurement of latency: events a second, and for how long."""
KIND: Final = "tool_completed"

COLUMNS: Final = (
    Column("confirmed events/s", "rate", decimals=0),
    Column("nodes CPU µs/event", "nodes_us"),
    Column("Redis CPU µs/event", "redis_us"),
    Column("load CPU µs/event", "load_us"),
    Column("bytes/event to Redis", "redis_in", decimals=0),
    Column("from Redis", "redis_out", decimals=0),
    Column("Redis memory bytes/event", "redis_bytes", decimals=0),
    P50,
    P99,
    Column("lost", "lost", decimals=0),
)


@attrs.frozen
class Nodes:
    """Workers that serve.

    Attributes:
      ws: their port for clients.
      admin: theirs for publishers.
      pids: of their processes.
    """

    ws: int
    admin: int
    pids: list[int]

    def stats(self) -> dict[str, Any]:
        """The figures of all together."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=30)
        connection.request("GET", "/v1/stats?scope=cluster")
        found: dict[str, Any] = json.loads(connection.getresponse().read())
        connection.close()
        return found


@attrs.frozen
class _Used:
    """What all of it has used: seconds of CPU, bytes to and from Redis, and bytes of its memory."""

    nodes: float
    redis: float
    load: float
    sent: float
    received: float
    memory: float

    @classmethod
    def so_far(cls, nodes: Nodes, redis: RedisServer, load: Process) -> _Used:
        info = trio.run(redis.info)
        return cls(
            sum(map(cpu_of, nodes.pids)),
            cpu_of(redis.pid or 0),
            load.cpu + time.process_time(),
            int(info["total_net_input_bytes"]),
            int(info["total_net_output_bytes"]),
            int(info["used_memory"]),
        )

    def since(self, before: _Used, events: int) -> _Used:
        """What was used since then, for each event."""
        pairs = zip(attrs.astuple(self), attrs.astuple(before), strict=True)
        return _Used(*((now - then) / events for now, then in pairs))


@contextmanager
def serving(count: int, store: str) -> Iterator[Nodes]:
    """So many workers over this store."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "trio_ws", "serve", "--insecure", "--port", "0", "--admin-port", "0"),
            *("--store", store, "--workers", str(count), "--max-connections", "1000"),
            *("--max-events", "1000000", "--max-events-per-user", "1000", "--connect-burst", "5000"),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        ports: list[int] = []
        while len(ports) < 2:  # beside what is logged
            line = process.stderr.readline()
            if not line:
                raise SystemExit("the nodes did not start")
            if line.startswith(("listening on ", "admin on ")):
                ports.append(urlsplit(line.split()[-1]).port or 0)
        pids = [process.pid] if count == 1 else children(process.pid)
        yield Nodes(ports[0], ports[1], pids)
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stderr.close()


def children(pid: int) -> list[int]:
    """The processes that another has started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def publish(nodes: Nodes, users: list[str], first: int, count: int, rate: float | None = None) -> None:
    """Publish so many events to each of these users, numbered from `first`; in batches, or at a rate."""
    numbered = [(user, first + n) for n in range(count) for user in users]
    size = BATCH if rate is None else 1
    began = time.monotonic()
    # A connection of its own for each turn: it comes to any of the nodes.
    turn = max(size, len(numbered) // 20)
    for start in range(0, len(numbered), turn):
        connection = http.client.HTTPConnection("127.0.0.1", nodes.admin, timeout=60)
        for position in range(start, min(start + turn, len(numbered)), size):
            if rate is not None:
                time.sleep(max(0.0, began + position / rate - time.monotonic()))
            lines = [
                _line(user, number)
                for user, number in numbered[position : min(position + size, start + turn)]
            ]
            _post(connection, b"".join(lines))
        connection.close()


def _line(user: str, number: int) -> bytes:
    event = envelope(user, number)
    return json.dumps({"user": user, "id": event["id"], "type": KIND, "payload": event}).encode() + b"\n"


def _post(connection: http.client.HTTPConnection, body: bytes) -> None:
    connection.request("POST", "/v1/events", body, {"Content-Type": "application/x-ndjson"})
    answer = connection.getresponse()
    text = answer.read()
    if answer.status != 200 or b'"error"' in text:
        raise SystemExit(f"refused: {answer.status} {text[:300]!r}")


def measure(count: int, folder: Path) -> Run:
    """One run with so many workers."""
    redis = RedisServer(folder / "redis", aof="always")
    trio.run(redis.start)
    try:
        with serving(count, redis.url) as nodes:
            load = Process(module("loadgen", "trio-ws", nodes.ws, "picows"), None, folder / "log.txt")
            try:
                load.wait_ready()
                return _measure(nodes, redis, load)
            finally:
                load.stop()
    finally:
        redis.kill()


def _measure(nodes: Nodes, redis: RedisServer, load: Process) -> Run:
    users = [f"u{n:04d}" for n in range(USERS)]
    load.ask(cmd="connect", sessions=USERS, at_once=50)
    load.ask(cmd="reset", target=2 * USERS, per_session=2)
    publish(nodes, users, 0, 2)  # for warming up
    load.ask(cmd="wait", limit=30, quiet=5)

    total = USERS * EVENTS
    confirmed = nodes.stats()["delivery"]["messages_confirmed"] + total
    load.ask(cmd="reset", target=total, per_session=EVENTS, ack_every=32)
    before = _Used.so_far(nodes, redis, load)
    began = time.monotonic()
    with ThreadPoolExecutor(PUBLISHERS) as pool:
        shares = [users[n::PUBLISHERS] for n in range(PUBLISHERS)]
        for done in [pool.submit(publish, nodes, share, 2, EVENTS) for share in shares]:
            done.result()
    found = load.ask(cmd="wait", limit=60, quiet=10)
    while nodes.stats()["delivery"]["messages_confirmed"] < confirmed:
        if time.monotonic() > began + 90:
            raise SystemExit("not all was confirmed")
        time.sleep(0.02)
    took = time.monotonic() - began
    used = _Used.so_far(nodes, redis, load).since(before, total)

    load.ask(cmd="reset", target=RATE * SECONDS, per_session=RATE * SECONDS // USERS)
    publish(nodes, users, 2 + EVENTS, RATE * SECONDS // USERS, RATE)
    paced = load.ask(cmd="wait", limit=30, quiet=5)
    return {
        "rate": total / took,
        "nodes_us": used.nodes * 1e6,
        "redis_us": used.redis * 1e6,
        "load_us": used.load * 1e6,
        "redis_in": used.sent,
        "redis_out": used.received,
        "redis_bytes": used.memory,
        "p50_us": paced["p50_us"],
        "p99_us": paced["p99_us"],
        "lost": total - found["received"] + RATE * SECONDS - paced["received"],
    }


def run(repetitions: int) -> int:
    """Measure, and print; the exit status."""
    assert "trio-ws" in all_peers()
    runs: dict[str, list[Run]] = {}
    for _ in range(repetitions):
        for count in NODES:
            noise = Noise()
            with tempfile.TemporaryDirectory(prefix="trio-ws-") as folder:
                result = measure(count, Path(folder))
            result |= noise.since()
            name = f"{count} node{'s' * (count > 1)}"
            runs.setdefault(name, []).append(result)
            say(name, result)
    rows = [[name, *(column.show(found) for column in COLUMNS)] for name, found in runs.items()]
    print(table(["", *(column.title for column in COLUMNS)], rows))
    return 0
