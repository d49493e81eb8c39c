"""A simulated connection: two pipes, a stream at each end, and the faults that can happen to it."""

from __future__ import annotations

import math
import operator
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, TypeAlias

import trio

from ..timers import Timers
from .conditions import Conditions
from .pipe import Pipe

if TYPE_CHECKING:
    from .network import SimNetwork

Direction: TypeAlias = Literal["up", "down", "both"]


class Connection:
    """One connection of a `SimNetwork`, as those see it who disturb it.

    Attributes:
      number: its place in the order of connections, from 1.
      client, server: the names of the two hosts.
      up, down: the pipes from the client to the server, and back. See `set_conditions`.
      client_stream, server_stream: the two ends.
    """

    def __init__(
        self, network: SimNetwork, number: int, client: str, server: str, conditions: Conditions, seed: int
    ) -> None:
        rng, timers = random.Random(seed), Timers.of()
        self.number = number
        self.client = client
        self.server = server
        self.up = Pipe(conditions, rng, timers, lambda: network.blocked_until(client, server))
        self.down = Pipe(conditions, rng, timers, lambda: network.blocked_until(server, client))
        self.client_stream = SimStream(self, self.up, self.down, network.now, network.sent)
        self.server_stream = SimStream(self, self.down, self.up, network.now, network.sent)
        self.client_stream.peer, self.server_stream.peer = self.server_stream, self.client_stream
        self._network = network

    @property
    def over(self) -> bool:
        """Both ends have closed it."""
        return self.client_stream.closed and self.server_stream.closed

    def stall(self, direction: Direction = "both", seconds: float = math.inf) -> None:
        """Let nothing arrive for so long, the end of the stream and a reset by the peer included. Nothing is lost."""
        until = self._network.now() + seconds
        for pipe in self._pipes(direction):
            pipe.stalled_until = until
        self._network.fault("stall", connection=self.number, direction=direction, seconds=seconds)
        self.wake()

    def resume(self, direction: Direction = "both") -> None:
        """End a stall; what has waited arrives now."""
        for pipe in self._pipes(direction):
            pipe.stalled_until = -math.inf
        self._network.note("resume", connection=self.number, direction=direction)
        self.wake()

    def reset(self) -> None:
        """Break it at both ends, here and now; what is in flight is lost."""
        self._network.fault("reset", connection=self.number, lost=self.up.size + self.down.size)
        self.client_stream.break_off()
        self.server_stream.break_off()

    def set_conditions(self, conditions: Conditions, direction: Direction = "both") -> None:
        """From now on, this is what it is like."""
        for pipe in self._pipes(direction):
            pipe.become(conditions, self._network.now())
        self.wake()

    def wake(self) -> None:
        """Let all who wait for this connection look again."""
        for pipe in (self.up, self.down):
            pipe.readable.soon()
            pipe.writable.soon()

    def closed_one(self) -> None:
        """One of its ends was closed."""
        self.wake()
        if self.over:
            self._network.forget(self)

    def _pipes(self, direction: Direction) -> tuple[Pipe, ...]:
        return {"up": (self.up,), "down": (self.down,), "both": (self.up, self.down)}[direction]

    def __repr__(self) -> str:
        return f"<connection {self.number} from {self.client} to {self.server}>"


class SimStream(trio.abc.HalfCloseableStream):
    """One end of a simulated connection. It behaves as a `trio.SocketStream` does, of a TCP that is true to its word:

    - `send_all` returns when the pipe has taken all, and waits while it is full. Cancelled, it may have sent a part.
    - After `aclose` the peer reads what was sent before, then the end. But who closes without having read everything
      resets the connection: the peer loses what it has not read yet.
    - Who sends to an end that has closed hears of it one round trip later, by `trio.BrokenResourceError`.

    One task may send and one receive at a time.

    Attributes:
      connection: what it is an end of.
      closed: `aclose` was called.
      peer: the other end.
    """

    peer: SimStream

    def __init__(
        self,
        connection: Connection,
        out: Pipe,
        incoming: Pipe,
        now: Callable[[], float],
        sent: Callable[[SimStream, bytes], None],
    ) -> None:
        self.connection = connection
        self.closed = False
        self._out = out
        self._in = incoming
        self._sent = sent
        self._now = now
        self._ended = self._broken = self._sending = self._receiving = False
        self._reset_at = math.inf  # when the peer's reset arrives
        self._rejected_at = math.inf  # when something sent from here reached a peer that had closed

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of `data`. See `trio.abc.SendStream`."""
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._sending = True
        try:
            rest = bytes(data)
            await trio.lowlevel.checkpoint()
            self._check(sends=True)
            while rest:
                await self._wait_for_room()
                room = self._out.room
                self._send(rest[:room])
                rest = rest[room:]
        finally:
            self._sending = False

    async def wait_send_all_might_not_block(self) -> None:
        """Wait for room. See `trio.abc.SendStream`."""
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._sending = True
        try:
            await trio.lowlevel.checkpoint()
            self._check(sends=True)
            await self._wait_for_room()
        finally:
            self._sending = False

    async def send_eof(self) -> None:
        """Send the end of the stream, and go on receiving. See `trio.abc.HalfCloseableStream`."""
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        await trio.lowlevel.checkpoint()
        if self._ended and not self.closed:
            return
        self._check(sends=True)
        self._ended = True
        self._out.put_end(self._now())

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive what has arrived. See `trio.abc.ReceiveStream`; cancelling it loses nothing."""
        if max_bytes is not None and operator.index(max_bytes) < 1:
            raise ValueError("max_bytes must be at least 1")
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving on this stream")
        self._receiving = True
        waited = False
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            while (data := self.take(max_bytes)) is None:
                await self._in.readable.wait(min(self._in.next_at(), self._breaks_at()))
                waited = True
            return data
        finally:
            self._receiving = False
            if not waited:
                await trio.lowlevel.cancel_shielded_checkpoint()

    async def aclose(self) -> None:
        """Close this end. See `trio.abc.AsyncResource`."""
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """As `aclose`, and not a checkpoint."""
        if self.closed:
            return
        self.closed = True
        if not self._broken:
            if self._in.size:
                self.peer._reset_at = min(self.peer._reset_at, self._now() + self._out.conditions.latency)
            elif not self._ended:
                self._out.put_end(self._now())
            self._in.drop()
        self.connection.closed_one()

    # -- For those who don't wait: none of these is a checkpoint

    def take(self, max_bytes: int | None = None) -> bytes | None:
        """As `receive_some`; None where nothing has come yet."""
        self._check()
        return self._in.take(max_bytes, self._now())

    def put(self, data: bytes) -> int:
        """As `send_all`, with as much of `data` as there is room for; returns how much that is."""
        self._check(sends=True)
        room = self._out.room
        if room <= 0:
            return 0
        if room < len(data):
            data = data[:room]
        self._send(data)
        return len(data)

    def when_readable(self, call: Callable[[], object]) -> None:
        """Call `call` once, when `take` may have something to give or to raise."""
        self._in.readable.arm(min(self._in.next_at(), self._breaks_at()), call)

    def when_writable(self, call: Callable[[], object], until: float) -> None:
        """Call `call` once, when `put` may have room or something to raise; at this time at the latest."""
        self._out.writable.arm(min(until, self._breaks_at()), call)

    def break_off(self) -> None:
        """It is broken from now on: nothing can be sent, nothing received, and what was not read is lost."""
        self._broken = True
        self._in.drop()
        self._in.readable.soon()
        self._out.writable.soon()

    def _send(self, data: bytes) -> None:
        self._sent(self, data)
        if not self.peer.closed:
            self._out.put(data, self._now())
            return
        self._out.swallow(data)
        self._rejected_at = min(self._rejected_at, self._now() + self._out.conditions.latency)

    async def _wait_for_room(self) -> None:
        while True:
            self._check(sends=True)
            if self._out.room > 0:
                return
            await self._out.writable.wait(self._breaks_at())

    def _breaks_at(self) -> float:
        """When word comes that the peer has closed, and will not take what it was sent."""
        at = self._reset_at
        if self._rejected_at < math.inf:
            at = min(at, max(self._rejected_at, self._out.held_until()) + self._in.conditions.latency)
        return at if math.isinf(at) else max(at, self._in.held_until())

    def _check(self, *, sends: bool = False) -> None:
        """Raise what keeps this end from sending or receiving."""
        if self.closed or (sends and self._ended):
            raise trio.ClosedResourceError("this end of the connection was closed")
        if not self._broken and self._breaks_at() <= self._now():
            self.break_off()
        if self._broken:
            raise trio.BrokenResourceError("the connection was reset")

    def __repr__(self) -> str:
        side = "client" if self is self.connection.client_stream else "server"
        return f"<{side}'s end of {self.connection!r}>"
