"""The load generator: one process that holds all sessions, and does what it is told on its standard input.

    python -m benchmarks.loadgen PEER PORT DIALER

One JSON object a line; `cmd` names a method of `LoadGenerator.COMMANDS`, the rest are its arguments. Each is answered.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import resource
import sys
import time
from array import array
from collections.abc import Awaitable, Callable
from typing import Any, Literal

from .dialing import DIALERS, Dial
from .peers import Peer, all_peers
from .session import Session

UNBOUNDED = 1 << 60


class LoadGenerator:
    """Sessions of one peer's client, and what they have received.

    Attributes:
      latencies: of each event, in microseconds.
      received, duplicates, late: events: distinct ones, repeats, and ones that came after a later one.
      gaps: events that the server has said will not come.
      resumed: sessions that were taken up again since the last `connect`, as far as the protocol tells.
      dropped: connections that ended.
      ack_every, per_session: how often to ack; how many events a session gets, after which it acks at once.
      topic: "all" where events go to all alike, for brokers.
    """

    def __init__(self, peer: Peer, port: int, dial: Dial) -> None:
        module, name = peer.client.split(":")
        self._make: Callable[[LoadGenerator, int], Session] = getattr(
            importlib.import_module(f".{module}", __package__), name
        )
        self._port = port
        self._dial = dial
        self._sessions: list[Session] = []
        self._throttled: asyncio.Task[None] | None = None
        self._ready = 0
        self._all_ready = asyncio.Event()
        self.topic = "user"
        self.dropped = self.resumed = 0
        self._begin(UNBOUNDED, UNBOUNDED, 1)

    def _begin(self, target: int, per_session: int, ack_every: int) -> None:
        self.latencies = array("q")
        self.received = self.duplicates = self.late = self.gaps = 0
        self.per_session, self.ack_every = per_session, ack_every
        self._target = target
        self._last = 0
        self._began = time.monotonic_ns() // 1000
        self._cpu = time.process_time()
        self._reached = asyncio.Event()
        for session in self._sessions:
            session.reset()

    # -- called by sessions

    def noted(self, now: int) -> None:
        """An event has come, at `now` in microseconds."""
        self._last = now
        if self.received >= self._target:
            self._reached.set()

    def session_ready(self) -> None:
        """Events can reach one more session."""
        self._ready += 1
        if self._ready >= len(self._sessions):
            self._all_ready.set()

    # -- commands

    async def connect(
        self,
        sessions: int,
        at_once: int,
        topic: str = "user",
        fresh: Literal["user", "session"] | None = None,
    ) -> dict[str, Any]:
        """Connect all sessions, `at_once` at a time; `fresh`: as users who were never there, or in new sessions."""
        self.topic = topic
        if not self._sessions:
            self._sessions = [self._make(self, index) for index in range(sessions)]
        if fresh is not None:
            for session in self._sessions:
                session.forget(user=fresh == "user")
        self._ready = self.resumed = 0
        self._all_ready = asyncio.Event()
        gate = asyncio.Semaphore(at_once)
        began = time.monotonic()

        async def one(session: Session) -> None:
            async with gate:
                await self._dial(session, self._port)

        await asyncio.gather(*map(one, self._sessions))
        await asyncio.wait_for(self._all_ready.wait(), 60)
        return {
            "sessions": len(self._sessions),
            "resumed": self.resumed,
            "ready_s": time.monotonic() - began,
        }

    async def reset(
        self, target: int = UNBOUNDED, per_session: int = UNBOUNDED, ack_every: int = 1
    ) -> dict[str, Any]:
        """Count anew, up to `target` events in all and `per_session` to each."""
        self._begin(target, per_session, ack_every)
        return {}

    async def wait(self, limit: float, quiet: float) -> dict[str, Any]:
        """Wait for the target, at most `limit` seconds, and `quiet` seconds without an event; gives the figures."""
        end = time.monotonic() + limit
        while not self._reached.is_set():
            try:
                await asyncio.wait_for(self._reached.wait(), 0.1)
            except TimeoutError:
                pass
            now = time.monotonic()
            if now > end or now - max(self._last, self._began) / 1e6 > quiet:
                break
        return self._figures()

    async def cut(self) -> dict[str, Any]:
        """Cut all connections, without a close frame."""
        for session in self._sessions:
            if session.connected:
                session.wire.abort()
        await asyncio.sleep(0.2)
        return {"connected": sum(session.connected for session in self._sessions)}

    async def recover(
        self,
        target: int,
        per_session: int,
        ack_every: int,
        at_once: int,
        limit: float,
        quiet: float,
        keep: bool,
    ) -> dict[str, Any]:
        """Connect all sessions again, and wait for what they missed; `keep`: go on counting from before the cut."""
        if not keep:
            self._begin(target, per_session, ack_every)
        connected = await self.connect(0, at_once, self.topic)
        return await self.wait(limit, quiet) | connected

    async def throttle(self, sessions: int, how: Literal["not", "slow", "stuck"]) -> dict[str, Any]:
        """Have the first `sessions` read as they should, a little now and then, or nothing; they aren't measured."""
        if self._throttled is not None:
            self._throttled.cancel()
            self._throttled = None
        subjects = self._sessions[:sessions]
        for session in subjects:
            session.apart = True
        for session in subjects:
            session.wire.pause() if how == "stuck" else session.wire.resume()
        if how == "slow":
            self._throttled = asyncio.create_task(_sip(subjects))
        return {}

    async def settle(self) -> dict[str, Any]:
        """Give what is under way two seconds to come; gives the figures."""
        await asyncio.sleep(2)
        return self._figures()

    def _figures(self) -> dict[str, Any]:
        ordered = sorted(self.latencies)

        def at(share: float) -> int | None:
            return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None

        return {
            "received": self.received,
            "duplicates": self.duplicates,
            "late": self.late,
            "gaps": self.gaps,
            "dropped": self.dropped,
            "wall_s": max(0, self._last - self._began) / 1e6,
            "p50_us": at(0.5),
            "p99_us": at(0.99),
            "max_us": ordered[-1] if ordered else None,
            "client_cpu_s": time.process_time() - self._cpu,
        }

    COMMANDS = ("connect", "reset", "wait", "cut", "recover", "throttle", "settle")

    async def run(self, cmd: str, **arguments: Any) -> dict[str, Any]:
        """Do one of `COMMANDS`."""
        if cmd not in self.COMMANDS:
            raise ValueError(f"no command {cmd!r}")
        method: Callable[..., Awaitable[dict[str, Any]]] = getattr(self, cmd)
        return await method(**arguments)


async def _sip(sessions: list[Session]) -> None:
    """Let sessions read for a moment, once a second: what the kernel holds by then, and no more."""
    while True:
        for act in ("pause", "resume"):
            for session in sessions:
                if session.connected:
                    getattr(session.wire, act)()
            await asyncio.sleep(0.999 if act == "pause" else 0.001)


async def main(load: LoadGenerator) -> None:
    """Take commands until the input ends."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    print("READY", flush=True)
    while line := await reader.readline():
        try:
            answer = await load.run(**json.loads(line))
        except Exception as error:
            answer = {"error": repr(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    _name, _port, _dialer = sys.argv[1:]
    _dial, _new_loop = DIALERS[_dialer]()
    with asyncio.Runner(loop_factory=_new_loop) as _runner:
        _runner.run(main(LoadGenerator(all_peers()[_name], int(_port), _dial)))
