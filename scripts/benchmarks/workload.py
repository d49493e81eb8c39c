"""What every server is made to do, the same for all, and told on its standard input: one JSON object a line.

`Workload` holds the scenarios' side of the server; `workload.js` is the same for Node. A server fills in how an event
goes to one user and to all, who is there, and when there is room; `Thin` does most of that for servers that are
nothing but a library.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, Protocol, TypeAlias

PAYLOAD = {
    "title": "Build finished",
    "text": "Pipeline 4711 for main passed all of its 214 checks",
    "link": "https://example.test/p/4711",
    "tags": ["ci", "build"],
    "count": 17,
    "pad": "x" * 34,
}
TICK = 0.005
SETTLE_TIMEOUT = 60.0
SETTLE_STEP = 0.02
Envelope: TypeAlias = dict[str, Any]


def envelope(user: str, seq: int, pad: int = 34) -> Envelope:
    """An event: 297 bytes of JSON, unless `pad` makes it more."""
    payload = PAYLOAD if pad == 34 else PAYLOAD | {"pad": "x" * pad}
    return {
        "id": f"{user}-{seq:08d}",
        "type": "build.finished",
        "seq": seq,
        "user": user,
        "ts": time.monotonic_ns() // 1000,
        "payload": payload,
    }


encode: Callable[[Envelope], str] = json.JSONEncoder(separators=(",", ":")).encode


class Event(Protocol):
    """What asyncio's and Trio's events have in common."""

    def set(self) -> None: ...
    async def wait(self) -> object: ...


class Runtime(Protocol):
    """What a workload needs of asyncio or Trio."""

    async def sleep(self, seconds: float) -> None: ...
    def event(self) -> Event: ...
    async def all(self, jobs: Iterable[Awaitable[None]]) -> None: ...
    def lines(self) -> AsyncIterator[bytes]: ...


class OnAsyncio:
    """asyncio."""

    def __init__(self) -> None:
        import asyncio

        self._asyncio = asyncio
        self.event = asyncio.Event

    async def sleep(self, seconds: float) -> None:
        await self._asyncio.sleep(seconds)

    async def all(self, jobs: Iterable[Awaitable[None]]) -> None:
        await self._asyncio.gather(*jobs)

    async def lines(self) -> AsyncIterator[bytes]:
        reader = self._asyncio.StreamReader()
        loop = self._asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: self._asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            yield line


class OnTrio:
    """Trio."""

    def __init__(self) -> None:
        import trio

        self._trio = trio
        self.event = trio.Event

    async def sleep(self, seconds: float) -> None:
        await self._trio.sleep(seconds)

    async def all(self, jobs: Iterable[Awaitable[None]]) -> None:
        async def do(job: Awaitable[None]) -> None:
            await job

        async with self._trio.open_nursery() as nursery:
            for job in jobs:
                nursery.start_soon(do, job)

    async def lines(self) -> AsyncIterator[bytes]:
        stream, unread = self._trio.lowlevel.FdStream(os.dup(0)), b""
        while chunk := await stream.receive_some():
            *lines, unread = (unread + chunk).split(b"\n")
            for line in lines:
                yield line


class Workload:
    """The workload of one server.

    Args:
      runtime: what it runs on.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self._seqs: dict[str, int] = {}

    # -- for servers to fill in

    async def publish(self, user: str, event: Envelope) -> None:
        """Have `user` get it, who may be away."""
        raise NotImplementedError

    async def broadcast(self, event: Envelope) -> None:
        """Have all users get it."""
        raise NotImplementedError

    def users(self) -> list[str]:
        """Who is connected."""
        raise NotImplementedError

    async def room(self, user: str, window: int) -> int:
        """How many events may be sent, with at most `window` unacked; where none may, half of them are waited for."""
        raise NotImplementedError

    async def settled(self) -> int:
        """Wait until all that was sent is acked, a minute at the most; how many are."""
        raise NotImplementedError

    def before_broadcast(self) -> None:
        """A broadcast follows."""

    # -- commands

    async def stream(self, rate: float, seconds: float, pad: int = 34, users: list[str] | None = None) -> int:
        """`rate` events a second to each of `users` (those who are connected), in turn and evenly spread."""
        names = users or self.users()
        total, done, began = int(rate * seconds * len(names)), 0, time.monotonic()
        while done < total:
            due = min(total, int((time.monotonic() - began) * rate * len(names)))
            while done < due:
                user = names[done % len(names)]
                await self.publish(user, self._next(user, pad))
                done += 1
            await self.runtime.sleep(TICK)
        return total

    async def bulk(self, rate: float, seconds: float, subjects: int, bulk_rate: float, pad: int) -> int:
        """As `stream`, while the first `subjects` users get larger events at another rate; those aren't counted."""
        names = sorted(self.users())
        counted = 0

        async def to_all_others() -> None:
            nonlocal counted
            counted = await self.stream(rate, seconds, users=names[subjects:])

        async def to_subjects() -> None:
            await self.stream(bulk_rate, seconds, pad, users=names[:subjects])

        await self.runtime.all([to_all_others(), to_subjects()])
        return counted

    async def burst(self, events: int, window: int) -> int:
        """`events` to each user who is connected, as fast as it goes with at most `window` unacked for each."""

        async def feed(user: str) -> None:
            room = 0
            for _ in range(events):
                room = room or await self.room(user, window)
                room -= 1
                await self.publish(user, self._next(user))

        users = self.users()
        await self.runtime.all([feed(user) for user in users])
        return events * len(users)

    async def fanout(self, events: int) -> int:
        """`events` to all, one after the other, as fast as broadcasting goes."""
        users = len(self.users())
        for number in range(events):
            self.before_broadcast()
            await self.broadcast(envelope("all", number))
            await self.runtime.sleep(0)
        return events * users

    async def offline(self, events: int) -> int:
        """`events` to everybody who was ever there, connected or not."""
        names = list(self._seqs) or self.users()
        for _ in range(events):
            for user in names:
                await self.publish(user, self._next(user))
        return events * len(names)

    COMMANDS: tuple[str, ...] = ("stream", "bulk", "burst", "fanout", "offline")
    UNSETTLED = ("bulk", "offline")
    """After these not all is acked, since not all are there or read."""

    def _next(self, user: str, pad: int = 34) -> Envelope:
        seq = self._seqs.get(user, 0)
        self._seqs[user] = seq + 1
        return envelope(user, seq, pad)

    async def serve(self) -> None:
        """Say READY, and do what is told until the input ends; then the process ends."""
        print("READY", flush=True)
        async for line in self.runtime.lines():
            command: dict[str, Any] = json.loads(line)
            name = command.pop("cmd")
            if name == "connections":
                answer: dict[str, Any] = {"connections": len(self.users())}
            elif name in self.COMMANDS:
                sent = await getattr(self, name)(**command)
                answer = {"sent": sent, "acked": None if name in self.UNSETTLED else await self.settled()}
            else:
                answer = {"error": f"no command {name!r}"}
            print(json.dumps(answer), flush=True)
        os._exit(0)


class Connection:
    """One user's connection to a server that is nothing but a library: acks are counted, nothing is kept."""

    __slots__ = ("_base", "_limit", "_waiter", "_workload", "acked", "link", "sent", "user")

    def __init__(self, workload: Thin, user: str, link: Any) -> None:
        self._workload, self.user, self.link = workload, user, link
        self._base = workload.first_seq(user)
        self.sent = self.acked = 0
        self._limit = 0
        self._waiter: Event | None = None
        workload.connections[user] = self

    def heard(self, text: str | bytes) -> None:
        """Take what the client sent: an ack, if anything."""
        frame = json.loads(text)
        if frame.get("t") == "ack":
            self.ack_upto(frame["seq"])

    def ack_upto(self, seq: int) -> None:
        """The client has processed everything up to `seq`."""
        self.acked = seq + 1 - self._base
        if self._waiter is not None and self.sent - self.acked <= self._limit:
            self._waiter.set()
            self._waiter = None

    def ack_one(self) -> None:
        """The client has processed one more."""
        self.ack_upto(self.acked + self._base)

    async def room(self, window: int) -> int:
        """See `Workload.room`."""
        if self.sent - self.acked >= window:
            self._limit = window // 2
            self._waiter = self._workload.runtime.event()
            await self._waiter.wait()
        return window - (self.sent - self.acked)

    def gone(self) -> None:
        """It has ended."""
        if self._workload.connections.get(self.user) is self:
            del self._workload.connections[self.user]


class Thin(Workload):
    """The workload of a server that is nothing but a library. It makes a `Connection` of each; the rest is filled in.

    Attributes:
      acks_broadcast: whether a broadcast is acked.
    """

    acks_broadcast = True

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime)
        self.connections: dict[str, Connection] = {}

    def first_seq(self, user: str) -> int:
        """The seq of the first event on a connection of `user` that begins now."""
        return self._seqs.setdefault(user, 0)

    def to(self, user: str) -> Connection | None:
        """Where an event to `user`, which is sent now, goes; None: it is lost."""
        connection = self.connections.get(user)
        if connection is not None:
            connection.sent += 1
        return connection

    def users(self) -> list[str]:
        return list(self.connections)

    def before_broadcast(self) -> None:
        for user, connection in self.connections.items():
            self._seqs[user] += 1
            connection.sent += self.acks_broadcast

    async def room(self, user: str, window: int) -> int:
        return await self.connections[user].room(window)

    async def settled(self) -> int:
        end = time.monotonic() + SETTLE_TIMEOUT
        while time.monotonic() < end:
            if all(c.acked >= c.sent for c in self.connections.values()):
                break
            await self.runtime.sleep(SETTLE_STEP)
        return sum(c.acked for c in self.connections.values())
