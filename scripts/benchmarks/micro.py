"""The parts of an event's way, one by one, under pyperf: `scripts/bench micro [--fast] [-o FILE] …` (pyperf's options).

`append` to `frame` are of the core alone, on the event that the other benchmarks use; `event` is the whole way in this
process. Each figure is of one event.
"""

from __future__ import annotations

import math
import sys
import time

import trio

from trio_ws.config import Config
from trio_ws.core import payload, wire
from trio_ws.core.buffer import Buffer
from trio_ws.core.confirmations import Confirmations
from trio_ws.core.entry import CLASS_NORMAL, Entry
from trio_ws.core.pool import Admitted, Ask, Pool
from trio_ws.core.session import Session
from trio_ws.server.lane import FrameScanner

from .inprocess import EVENT, PLENTY, Client, hub_of, publish, taken

WINDOW = 32
JSON = payload.encode(EVENT)
TAIL = wire.event_tail("u0000-00000000", "build.finished", JSON, 1_700_000_000.25)


class World:
    """A buffer of one user, and a session of hers."""

    def __init__(self, limit: int = PLENTY) -> None:
        config = Config(
            max_events_per_user=limit, max_events=PLENTY, max_bytes_per_user=PLENTY, max_bytes=PLENTY
        )
        self._ids = iter(map(str, range(1 << 30)))
        self.buffer = Buffer(config, lambda: next(self._ids))
        self.box = self.buffer.mailbox("ada")
        self._pool = Pool(
            config,
            books=self.buffer.books,
            confirmations=Confirmations(config.confirm_timeout),
            new_id=lambda: next(self._ids),
        )

    def session(self) -> Session:
        """A session, connected."""
        admitted = self._pool.admit(self.box, Ask(), 0.0)
        assert isinstance(admitted, Admitted)
        self._pool.attach(admitted, object(), 0.0)
        return admitted.session

    def accept(self, events: int) -> None:
        """Have so many events accepted."""
        for entry in entries(events):
            self.buffer.accept(self.box, entry)


def entries(events: int) -> list[Entry]:
    """So many entries, to be accepted."""
    return [
        Entry(
            id="u0000-00000000",
            type="build.finished",
            tail=TAIL,
            size=len(TAIL),
            bare=True,
            retention=CLASS_NORMAL,
            tracked=False,
            ts=0.0,
            accepted_at=0.0,
            expires_at=math.inf,
        )
        for _ in range(events)
    ]


def append(loops: int) -> float:
    """Accept an event where there is room."""
    world, ready = World(), entries(loops)
    return _accept(world, ready)


def evict(loops: int) -> float:
    """Accept an event into a full mailbox of 200: the oldest has to go."""
    world, ready = World(limit=200), entries(loops)
    world.accept(200)
    return _accept(world, ready)


def _accept(world: World, ready: list[Entry]) -> float:
    accept, box = world.buffer.accept, world.box
    began = time.perf_counter()
    for entry in ready:
        accept(box, entry)
    return time.perf_counter() - began


def take(loops: int) -> float:
    """Have a session take an event, in batches of 32."""
    world = World()
    session = world.session()
    spent = 0.0
    for _ in range(loops):
        world.accept(WINDOW)
        began = time.perf_counter()
        session.take(0.0, PLENTY)
        spent += time.perf_counter() - began
        session.ack(session.cursor, 0.0)
    return spent


def ack(loops: int) -> float:
    """Take note that an event was processed, 32 at once."""
    world = World()
    session = world.session()
    spent = 0.0
    for _ in range(loops):
        world.accept(WINDOW)
        session.take(0.0, PLENTY)
        began = time.perf_counter()
        session.ack(session.cursor, 0.0)
        spent += time.perf_counter() - began
    return spent


def event(loops: int) -> float:
    """The whole way in process: published, flushed, acked, 32 at a time to each of 100 users in turn."""

    async def measure() -> float:
        async with hub_of(max_events_per_user=512) as hub:
            users = [f"user-{number}" for number in range(100)]
            clients = [Client(hub, user) for user in users]
            began = time.perf_counter()
            for number in range(loops):
                publish(hub, users[number % 100], WINDOW)
                await taken(clients[number % 100])
                clients[number % 100].ack()
            return time.perf_counter() - began

    return trio.run(measure)


def main(arguments: list[str]) -> int:
    """Run them all; the exit status."""
    import pyperf

    sys.argv[1:] = arguments
    runner = pyperf.Runner(program_args=("-m", f"{__package__}.micro"))
    runner.bench_func("encode a payload", payload.encode, EVENT)
    runner.bench_func(
        "make an event's wire form", wire.event_tail, "u0000-00000000", "build.finished", JSON, 1.25
    )
    runner.bench_time_func("append", append)
    runner.bench_time_func("evict", evict)
    runner.bench_time_func("take", take, inner_loops=WINDOW)
    runner.bench_time_func("ack", ack, inner_loops=WINDOW)
    runner.bench_func("frame", lambda: wire.text_message(wire.batch([wire.event_frame(123_456, TAIL)])))
    scanner = FrameScanner(max_message_bytes=65536, max_fragments=256)
    scanner.lane = lambda _: None
    runner.bench_func("lane scan of an ack", scanner.feed, masked(wire.ack(123_456)))
    runner.bench_func("decode an ack", wire.decode_client, wire.ack(123_456))
    runner.bench_time_func("event, from publish to ack", event, inner_loops=WINDOW)
    return 0


def masked(text: bytes) -> bytes:
    """A short text message as a client sends it."""
    key = b"\x12\x34\x56\x78"
    return bytes((0x81, 0x80 | len(text))) + key + bytes(b ^ key[at % 4] for at, b in enumerate(text))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
