"""What the client owes the server: acks, a nack, signs of life, a fresh token, and the application's messages.

Acks are cumulative, so all of them together are one number; only the messages are a queue, and it is bounded. One task
writes: it sleeps in `wait`, on one event and one deadline, and takes what is due with `collect`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Final

import attrs
import trio

from ..core import wire
from ..errors import MessageRejected

MAX_MESSAGES: Final = 64
"""How many messages may be unanswered at a time; a further one waits."""
MAX_PONGS: Final = 16


@attrs.define(eq=False)
class _Waiting:
    frame: bytes
    answered: trio.Event
    error: Exception | None = None


class Outbox:
    """See the module's docstring.

    Args:
      acks: False sends neither acks nor nacks.
      max_bytes: how long one message on the wire may be.
    """

    def __init__(self, *, acks: bool, max_bytes: int) -> None:
        self._acks = acks
        self._max_bytes = max_bytes
        self._wake = trio.Event()
        self._nap: trio.CancelScope | None = None
        self._connected = False
        # Acks. `_acked` is what this connection was told; the deadline is infinite while there is nothing to tell.
        self._processed = self._acked = 0
        self._ack_at = math.inf
        self._unacked = 0
        self._ack_events = 1
        self._ack_delay = 0.0
        self._nack: int | None = None
        self._pongs = 0
        self._pings = 0
        self._token: str | None = None
        # Messages, oldest first; of these the ones that this connection was not sent yet.
        self._waiting: dict[str, _Waiting] = {}
        self._unsent: deque[str] = deque()
        self._room = trio.Semaphore(MAX_MESSAGES)
        self._ended: Callable[[], Exception] | None = None
        self.acks_sent = 0

    # --- The connection ---

    def connected(self, *, events: int, delay: float, processed: int, nack: int | None) -> None:
        """A connection begins: what the one before may have lost is owed again.

        Args:
          events, delay: when to ack at the latest: after so many events, so many seconds after the first.
          processed: everything up to this seq has been processed; 0 tells nothing.
          nack: the seq that waits for its redelivery.
        """
        self._ack_events, self._ack_delay = events, delay
        self._processed, self._acked, self._unacked, self._ack_at = processed, 0, 0, math.inf
        self._nack = nack if self._acks else None
        self._pongs = self._pings = 0
        self._token = None
        self._unsent = deque(self._waiting)
        self._connected = True
        self.wake()

    def disconnected(self) -> None:
        """The connection is over: nothing is due until the next begins."""
        self._connected = False
        self._ack_at = math.inf

    def wake(self) -> None:
        """Makes `wait` return."""
        self._wake.set()

    async def wait(self) -> None:
        """Returns when something is due, or after `wake`. A checkpoint; cancelling it changes nothing."""
        with trio.CancelScope(deadline=self._ack_at) as self._nap:
            await self._wake.wait()
        self._nap = None
        self._wake = trio.Event()

    def collect(self) -> list[bytes]:
        """Everything that is owed now, as messages of at most `max_bytes`; it counts as sent."""
        frames = []
        if self._acks and self._processed > self._acked:
            frames.append(wire.ack(self._processed))
            self.acks_sent += 1
        self._acked, self._unacked, self._ack_at = self._processed, 0, math.inf
        if self._nack is not None:
            frames.append(wire.nack(self._nack))
            self._nack = None
        if self._token is not None:
            frames.append(wire.auth(self._token))
            self._token = None
        frames += [wire.PONG] * self._pongs + [wire.PING] * self._pings
        self._pongs = self._pings = 0
        frames += [self._waiting[id].frame for id in self._unsent if id in self._waiting]
        self._unsent.clear()
        return _batches(frames, self._max_bytes)

    # --- What is owed ---

    def processed(self, seq: int, now: float, *, at_once: bool) -> None:
        """Everything up to `seq` has been processed."""
        self._processed = seq
        if not self._acks or not self._connected:
            return
        self._unacked += 1
        if at_once or self._unacked >= self._ack_events:
            self.wake()
        elif self._unacked == 1:
            self._ack_at = now + self._ack_delay
            if self._nap is not None:
                self._nap.deadline = self._ack_at

    def nack(self, seq: int) -> None:
        """The application could not process `seq`."""
        if self._acks and self._connected:
            self._nack = seq
            self.wake()

    def pong(self) -> None:
        """A `ping` was received. Beyond `MAX_PONGS` that could not be sent yet, one answers for several."""
        self._pongs = min(self._pongs + 1, MAX_PONGS)
        self.wake()

    def ping(self) -> None:
        """The server must hear something from us."""
        self._pings = 1
        self.wake()

    def auth(self, token: str) -> None:
        """A fresh token."""
        self._token = token
        self.wake()

    # --- Messages ---

    async def send(self, id: str, frame: bytes) -> None:
        """Sends a message, again on each new connection, until it is answered; waits while `MAX_MESSAGES` are
        unanswered.

        Raises:
          MessageRejected: the answer was no.
          KeyError: a message of that id is unanswered already.
          Exception: what `end` was told.

        A checkpoint. Cancelling it gives up waiting: the message was handled or will be, or never was.
        """
        async with self._room:
            if self._ended is not None:
                raise self._ended()
            if id in self._waiting:
                raise KeyError(id)
            waiting = self._waiting[id] = _Waiting(frame, trio.Event())
            self._unsent.append(id)
            self.wake()
            try:
                await waiting.answered.wait()
            finally:
                del self._waiting[id]
            if waiting.error is not None:
                raise waiting.error

    def answered(self, id: str, error: str | None = None) -> None:
        """The server has answered message `id`; an answer that nobody waits for is no harm."""
        waiting = self._waiting.get(id)
        if waiting is not None and not waiting.answered.is_set():
            waiting.error = None if error is None else MessageRejected(error)
            waiting.answered.set()

    def end(self, ended: Callable[[], Exception]) -> None:
        """Nothing will be answered any more: each `send`, under way or to come, raises what `ended` makes."""
        self._ended = ended
        for waiting in self._waiting.values():
            if not waiting.answered.is_set():
                waiting.error = ended()
                waiting.answered.set()


def _batches(frames: list[bytes], max_bytes: int) -> list[bytes]:
    """The frames as few messages, each within `max_bytes` unless a single frame is longer."""
    messages: list[bytes] = []
    batch: list[bytes] = []
    size = 0
    for frame in frames:
        if batch and size + len(frame) + 2 > max_bytes:
            messages.append(wire.batch(batch))
            batch, size = [], 0
        batch.append(frame)
        size += len(frame) + 1
    if batch:
        messages.append(wire.batch(batch))
    return messages
