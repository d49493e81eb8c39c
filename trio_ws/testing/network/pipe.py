"""One direction of a simulated connection: a bounded pipe whose contents arrive when they arrive.

No task moves the bytes. Each piece has the time at which it arrives, and an alarm rings then for who waits for it.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable
from typing import Final

from ..timers import Alarm, Timers
from .conditions import Conditions

READ_BYTES: Final = 64 * 1024
"""How much is read at once where the reader sets no limit."""

SLICE: Final = 0.1
"""Seconds of transmission that one piece holds where the rate is limited, so that a slow transfer is seen to go on."""


class Pipe:
    """What is on its way, or has come and was not read.

    Args:
      conditions: how it travels; see `become`.
      rng: where jitter and the sizes of segments come from.
      timers: of the run.
      blocked: until when a partition keeps its two hosts apart in this direction; -inf where none does.

    Attributes:
      stalled_until: until when nothing arrives on this connection, whatever the hosts.
      size: bytes held.
      readable, writable: ring when something may have come, or when there may be room.
    """

    def __init__(
        self, conditions: Conditions, rng: random.Random, timers: Timers, blocked: Callable[[], float]
    ) -> None:
        self.conditions = conditions
        self.stalled_until = -math.inf
        self.size = 0
        self.readable = Alarm(timers)
        self.writable = Alarm(timers)
        self._rng = rng
        self._blocked = blocked
        self._pieces: deque[tuple[float, bytes]] = deque()  # an empty one is the end
        self._idle_at = -math.inf  # when the last byte has been transmitted, at the limited rate
        self._last_at = -math.inf  # when the last piece arrives: none overtakes another

    @property
    def room(self) -> int:
        """How many bytes may be put; 0 or less when it is full."""
        return self.conditions.capacity - self.size

    def become(self, conditions: Conditions, now: float) -> None:
        """Travel like this from now on. Where there is no limit any more, all that waits for its turn has it."""
        self.conditions = conditions
        if math.isinf(conditions.rate) and self._idle_at > now:
            latest = now + conditions.latency + conditions.jitter
            self._pieces = deque((min(at, latest), piece) for at, piece in self._pieces)
            self._idle_at, self._last_at = now, min(self._last_at, latest)

    def held_until(self) -> float:
        """Until when nothing arrives."""
        return max(self.stalled_until, self._blocked())

    def next_at(self) -> float:
        """When there is something to take; inf where nothing is on its way."""
        return max(self._pieces[0][0], self.held_until()) if self._pieces else math.inf

    def put(self, data: bytes, now: float) -> None:
        """Send `data`, which there is room for."""
        rate = self.conditions.rate
        self.size += len(data)
        if math.isinf(rate):
            self._post(data, now)
            return
        length = max(1, int(rate * SLICE))
        for start in range(0, len(data), length):
            piece = data[start : start + length]
            self._idle_at = max(now, self._idle_at) + len(piece) / rate
            self._post(piece, self._idle_at)

    def put_end(self, now: float) -> None:
        """Send the end of the stream."""
        self._post(b"", max(now, self._idle_at))

    def take(self, limit: int | None, now: float) -> bytes | None:
        """What has arrived, at most `limit` bytes; empty at the end of the stream, None where nothing has."""
        if self.next_at() > now:
            return None
        piece = self._pieces[0][1]
        if not piece:
            return b""
        limit = READ_BYTES if limit is None else limit
        if self.conditions.segment is not None:
            limit = min(limit, 1 + int(self._rng.random() * self.conditions.segment))
            data = piece[:limit]
            self._pieces.popleft()
            if len(piece) > limit:
                self._pieces.appendleft((now + self._jitter(), piece[limit:]))
        else:
            data = self._take_all(limit, now)
        self.size -= len(data)
        self.writable.soon()
        return data

    def swallow(self, data: bytes) -> None:
        """Take `data` that nobody will read: it fills the pipe all the same."""
        self.size += len(data)

    def drop(self) -> None:
        """Lose everything that was not read."""
        self._pieces.clear()
        self.size = 0

    def _take_all(self, limit: int, now: float) -> bytes:
        taken: list[bytes] = []
        while limit and self._pieces and self._pieces[0][0] <= now and self._pieces[0][1]:
            at, piece = self._pieces.popleft()
            if len(piece) > limit:
                self._pieces.appendleft((at, piece[limit:]))
                piece = piece[:limit]
            taken.append(piece)
            limit -= len(piece)
        return taken[0] if len(taken) == 1 else b"".join(taken)

    def _post(self, piece: bytes, sent_at: float) -> None:
        at = max(self._last_at, sent_at + self.conditions.latency + self._jitter())
        self._last_at = at
        self._pieces.append((at, piece))
        if len(self._pieces) == 1:
            self.readable.set(self.next_at())

    def _jitter(self) -> float:
        jitter = self.conditions.jitter
        return self._rng.random() * jitter if jitter else 0.0
