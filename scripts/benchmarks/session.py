"""The client's side of one session: counts, and checks order, loss and duplicates.

A peer's client derives from `Session`: it says where to connect to and what to send then, takes messages apart, and
hands the envelope of each event to `event`. It knows nothing of sockets: `dialing.py` gives it a `send`.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic_ns
from typing import Protocol


class Load(Protocol):
    """What all sessions of a load generator share."""

    latencies: array[int]
    received: int
    duplicates: int
    late: int
    gaps: int
    resumed: int
    dropped: int
    ack_every: int
    per_session: int
    topic: str

    def noted(self, now: int) -> None:
        """An event has come, at `now` in microseconds."""

    def session_ready(self) -> None:
        """Events can reach one more session."""


@dataclass(frozen=True)
class Wire:
    """What a session may do with its connection: send a message, cut it, stop reading, and go on reading."""

    send: Callable[[bytes], None]
    abort: Callable[[], None]
    pause: Callable[[], None]
    resume: Callable[[], None]


class Session:
    """One user's client.

    Args:
      load: the load generator's.
      index: which session this is; its user is named after it.

    Attributes:
      subprotocol: what it offers.
      binary: whether it sends binary messages.
      wire: the connection, the last one where there is none at the moment.
      send: sends a message over it.
      expected: the next seq, over all connections. Envelopes count from 0.
      received: distinct events since the last `reset`.
      apart: what it receives is not what is measured.
    """

    subprotocol: str | None = None
    binary = False

    def __init__(self, load: Load, index: int) -> None:
        self.load = load
        self.index = index
        self.user = f"u{index:04d}"
        self.wire: Wire
        self.send: Callable[[bytes], None]
        self.expected = 0
        self.received = 0
        self.connected = self.apart = False
        self._missing: set[int] = set()
        self._unacked = 0
        self._ready = False

    # -- for peers to fill in

    def url(self, port: int) -> str:
        """Where to connect to."""
        return f"ws://127.0.0.1:{port}/?user={self.user}"

    def opened(self) -> None:
        """The connection is open, the first one or a later one."""
        self.ready()

    def message(self, data: bytes) -> None:
        """One message has come."""
        raise NotImplementedError

    def forget(self, *, user: bool) -> None:
        """Have nothing to recover the next time; `user`: come as somebody new then."""
        if user:
            self.user = f"{self.user}x"
        self.expected = 0
        self._missing.clear()

    # -- for peers to call

    def ready(self) -> None:
        """Events can reach this session from now on."""
        if not self._ready:
            self._ready = True
            self.load.session_ready()

    def event(self, data: bytes) -> int:
        """Note an event.

        Args:
          data: JSON that holds ``"seq":`` and, somewhere after it, ``"ts":`` in microseconds of the monotonic clock.

        Returns: its seq.
        """
        now, load = monotonic_ns() // 1000, self.load
        begin = data.find(b'"seq":') + 6
        end = data.find(b",", begin)
        seq = int(data[begin:end])
        begin = data.find(b'"ts":', end) + 5
        if self.apart:
            self.expected = max(self.expected, seq + 1)
            return seq
        load.latencies.append(now - int(data[begin : data.find(b",", begin)]))
        if seq == self.expected:
            self.expected = seq + 1
        elif seq > self.expected:
            self._missing.update(range(self.expected, seq))
            self.expected = seq + 1
        elif seq in self._missing:
            self._missing.discard(seq)
            load.late += 1
        else:
            load.duplicates += 1
            load.noted(now)
            return seq
        self.received += 1
        load.received += 1
        load.noted(now)
        return seq

    def wants_ack(self) -> bool:
        """Whether a client that acks cumulatively should do so now; asked once for each event."""
        self._unacked += 1
        if self._unacked >= self.load.ack_every or self.received >= self.load.per_session:
            self._unacked = 0
            return True
        return False

    # -- for whoever dials

    def reset(self) -> None:
        """Count anew."""
        self.received = self._unacked = 0

    def connection_made(self, wire: Wire) -> None:
        """It is connected."""
        self.wire, self.send = wire, wire.send
        self.connected = True
        self.opened()

    def connection_lost(self) -> None:
        """It is not any more."""
        self.connected = self._ready = False
        self.load.dropped += 1


class JsonAck(Session):
    """An envelope a message, confirmed cumulatively: what the servers that are nothing but a library speak."""

    def message(self, data: bytes) -> None:
        seq = self.event(data)
        if self.wants_ack():
            self.send(b'{"t":"ack","seq":%d}' % seq)
