"""A hub with scripted clients, in one process: no sockets, and a clock that jumps.

A `Peer` is both a client and the link to it. It can take only so much, go silent, fail or die; it checks the accounting
rule on all that it is sent, and says by when the hub wanted to hear from it. `running` runs a hub, and holds at its end
that the books balance and that nothing is left over.
"""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
from trio.testing import wait_all_tasks_blocked

from trio_ws.config import Config
from trio_ws.core import wire
from trio_ws.core.closing import CloseCode
from trio_ws.core.pool import Ask, Refused
from trio_ws.hub import Attachment, Hub, Identity, OnMessage, open_hub

settled = wait_all_tasks_blocked


class Peer:
    """One client and its link.

    Args:
      acks: whether it acks each event as it comes.
      lives: whether it answers pings; the hub drops it when it is silent for too long.
      plain: a client without the subprotocol.

    Attributes:
      writes: each call of `send` that had frames, with its time.
      took: how many bytes it was handed.
      room: how many bytes its transport takes before the rest has to wait.
      told: the first close that was asked for: its code, reason and `retry_after`.
      dropped_at: when it was dropped for its silence.
      signs: how often it was sent a sign of life without frames.
    """

    def __init__(
        self, hub: Hub, user: str = "ada", *, acks: bool = False, lives: bool = True, plain: bool = False
    ) -> None:
        self.hub = hub
        self.user = user
        self.acks, self.lives, self.plain = acks, lives, plain
        self.attachment: Attachment | None = None
        self.writes: list[tuple[float, list[dict[str, Any]]]] = []
        self.took = self.signs = 0
        self.room = math.inf
        self.failure: Exception | None = None
        self.stubborn = False
        self.told: tuple[int, str, float | None] | None = None
        self.tokens: list[str] = []
        self.expected_by = math.inf
        self.dropped_at: float | None = None
        self.faults: list[str] = []
        self._cursor: int | None = None
        self._wait: trio.CancelScope | None = None

    # -- the client

    def connect(
        self,
        *,
        on_message: OnMessage | None = None,
        expires: float | None = None,
        **ask: Any,
    ) -> Peer:
        """Say hello; `ask` is what it asks for."""
        answer = self.hub.attach(
            Identity(self.user, expires), Ask(plain=self.plain, **ask), self, on_message=on_message
        )
        assert not isinstance(answer, Refused), answer
        self.attachment = answer
        if self.lives:
            self.hub.engine.nursery.start_soon(self._watch)
        return self

    def say(self, frame: bytes) -> None:
        """Send the hub a frame."""
        assert self.attachment is not None
        self.attachment.receive(frame)

    def ack(self, seq: int) -> None:
        """Ack everything up to `seq`."""
        self.say(wire.ack(seq))

    def die(self, *, silent: bool = False) -> None:
        """The connection is gone."""
        assert self.attachment is not None
        if self._wait is not None:
            self._wait.cancel()
        self.attachment.detach(silent=silent)

    def again(self, seq: int | None = None, **options: Any) -> Peer:
        """A new connection of the same client, which asks to go on from `seq`."""
        welcome = self.welcome
        other = Peer(self.hub, self.user, acks=self.acks, lives=self.lives)
        other.faults = self.faults
        position = self.cursor if seq is None else seq
        return other.connect(session=welcome["session"], epoch=welcome["epoch"], seq=position, **options)

    def take_all(self, room: float = math.inf) -> None:
        """The transport takes what has waited, and `room` bytes more."""
        assert self.attachment is not None
        self.room, self.took = room, 0
        self.attachment.drained()

    # -- what it was sent

    @property
    def frames(self) -> list[dict[str, Any]]:
        return [frame for _, frames in self.writes for frame in frames]

    def kinds(self, *kinds: str) -> list[dict[str, Any]]:
        """The frames of these kinds."""
        return [frame for frame in self.frames if frame.get("t") in kinds]

    @property
    def seqs(self) -> list[int]:
        """The seqs of the events, redeliveries included."""
        return [frame["seq"] for frame in self.kinds("event")]

    @property
    def welcome(self) -> dict[str, Any]:
        (welcome,) = self.kinds("welcome")
        return welcome

    @property
    def cursor(self) -> int:
        """The last seq that it has accounted for."""
        assert self._cursor is not None
        return self._cursor

    def times(self, keep: Callable[[dict[str, Any]], bool]) -> list[float]:
        """When frames that `keep` accepts were written."""
        return [at for at, frames in self.writes for frame in frames if keep(frame)]

    @property
    def code(self) -> int | None:
        """The code of the close that was asked for."""
        return None if self.told is None else self.told[0]

    # -- the link

    def send(self, frames: list[bytes]) -> bool:
        if self.failure is not None:
            raise self.failure
        if self.told is not None:
            return True
        if not frames:
            self.signs += 1
            return True
        if self.attachment is not None and self.attachment.fenced:
            self.faults.append("sent after the fence")
        self.took += sum(map(len, frames))
        decoded = [json.loads(frame) for frame in frames]
        self.writes.append((trio.current_time(), decoded))
        for frame in decoded:
            self._check(frame)
        return self.took <= self.room

    def _check(self, frame: dict[str, Any]) -> None:
        kind = frame.get("t")
        if kind == "welcome":
            self._cursor = frame["seq"]
        elif kind == "ping" and self.lives:
            self.hub.engine.nursery.start_soon(self._reply, wire.PONG)
        elif kind in ("event", "gap") and not frame.get("retry"):
            first = frame["from"] if kind == "gap" else frame.get("merged", {}).get("from", frame["seq"])
            last = frame["to"] if kind == "gap" else frame["seq"]
            if first != self.cursor + 1:
                self.faults.append(f"{first} after {self.cursor}")
            self._cursor = last
            if self.acks:
                self.hub.engine.nursery.start_soon(self._reply, wire.ack(last))

    async def _reply(self, frame: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if self.attachment is not None and self.told is None:
            self.say(frame)

    def close(self, code: CloseCode, reason: str, retry_after: float | None = None) -> None:
        if self.failure is not None:
            raise self.failure
        if self.told is None:
            self.told = (code.code, reason, retry_after)
            if not self.stubborn:
                self.hub.engine.nursery.start_soon(self._go)

    async def _go(self) -> None:
        await trio.lowlevel.checkpoint()
        self.die()

    def expect_by(self, deadline: float) -> None:
        self.expected_by = deadline
        if self._wait is not None and not self._wait.cancel_called:
            self._wait.deadline = deadline

    def authenticate(self, token: str) -> None:
        self.tokens.append(token)

    async def _watch(self) -> None:
        with trio.CancelScope(deadline=self.expected_by) as self._wait:
            await trio.sleep_forever()
        if trio.current_time() >= self.expected_by:
            self.dropped_at = trio.current_time()
            assert self.attachment is not None
            self.attachment.detach(silent=True)


class World:
    """A running hub, and its peers."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.peers: list[Peer] = []

    def peer(self, user: str = "ada", **options: Any) -> Peer:
        """A client that is still to connect."""
        peer = Peer(self.hub, user, **options)
        self.peers.append(peer)
        return peer

    def check(self) -> None:
        """What holds at every moment."""
        hub = self.hub
        assert hub.engine.books.balanced
        assert hub.statistics().balanced
        assert hub.engine.pool.connected == len(hub.engine.attachments)
        assert hub.engine.room.waiting == sum(map(hub.engine.room.line, hub.engine.buffer.mailboxes))
        for peer in self.peers:
            assert not peer.faults, peer.faults

    def check_empty(self) -> None:
        """Nothing is left over of connections that have gone."""
        hub = self.hub
        assert not hub.engine.attachments
        assert hub.engine.pool.connected == 0
        waiting = [hub.engine.flusher, *hub.engine.buffer.mailboxes.values(), *hub.desk.handles.values()]
        assert all(owner in waiting for owner in hub.engine.timers._armed)
        assert not hub.engine.flusher._marked
        assert not hub.engine.flusher._waiting
        assert hub.engine.room.waiting == 0
        assert not hub.channels


@asynccontextmanager
async def running(*, on_dead_letter: Any = None, **limits: Any) -> AsyncIterator[World]:
    """A hub with these limits. At the end all peers die, and nothing may be left over."""
    count = iter(range(10**6))
    async with open_hub(
        Config(**limits),
        on_dead_letter=on_dead_letter,
        wall_clock=lambda: 1e9 + trio.current_time(),
        new_id=lambda: f"identifier-{next(count)}",
    ) as hub:
        world = World(hub)
        yield world
        world.check()
        for attachment in list(hub.engine.attachments):
            attachment.detach()
        await trio.sleep(hub.config.batch_interval)
        await settled()
        world.check()
        world.check_empty()
