"""One end of a connection that carries whole messages: what both ends have in common.

No task reads or writes. Alarms of the network call `read` when something has come and `_write` when there is room, so a
message costs no switch of tasks until somebody waits for it. What travels are the frames of RFC 6455, whole and
without masks; where the window is too small for all of one, the rest follows when there is room.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final

import trio

from .connection import SimStream

TEXT: Final = 0x81
CLOSE: Final = 0x88
PING: Final = 0x89
PONG: Final = 0x8A


class MessageEnd:
    """See the module's docstring. Those who are an end override `heard`, `message`, `peer_closed` and `drained`.

    Args:
      stream: this end of the connection.
      patience: seconds without any progress after which a backlog has failed.

    Attributes:
      messages: what has come and nobody has taken; while there are any, no more is read.
      closed: code and reason of the peer's close frame, once it has come.
      said_close: ours was sent: nothing may follow it.
      over: nothing more will come.
      failure: why it was cut; None where it was not.
    """

    def __init__(self, stream: SimStream, *, patience: float = math.inf) -> None:
        self.stream = stream
        self.messages: deque[bytes] = deque()
        self.closed: tuple[int, str] | None = None
        self.said_close = False
        self.over = False
        self.failure: str | None = None
        self._patience = patience
        self._progress_at = -math.inf
        self._rest = b""  # accepted, and no room for it yet
        self._begun = b""  # of a head or a frame that is not all there
        self._head: bytes | None = None
        self._discards = False
        self._news = trio.lowlevel.ParkingLot()

    @property
    def backlog(self) -> int:
        """Bytes that were accepted and that the network has not taken yet."""
        return len(self._rest)

    # -- What those who are an end do with it

    def heard(self, size: int) -> None:
        """So many bytes have come."""

    def message(self, text: bytes) -> None:
        """A message has come."""
        self.messages.append(text)
        self._news.unpark_all()

    def peer_closed(self, code: int, reason: str) -> None:
        """The peer's close frame has come."""

    def drained(self) -> None:
        """A backlog has gone."""

    # -- Receiving

    async def receive_head(self) -> bytes | None:
        """The head of an HTTP request or answer; None where the connection ended before. A checkpoint."""
        await trio.lowlevel.checkpoint()
        while self._head is None and not self.over:
            self.read()
            await self._wait()
        return self._head

    async def next_message(self) -> bytes | None:
        """The next message; None where there is none any more. A checkpoint only where it has to wait."""
        while not self.messages:
            if self.over:
                return None
            self.read()
            await self._wait()
        return self.messages.popleft()

    async def wait_over(self) -> None:
        """Return when nothing more will come. A checkpoint only where it has to wait."""
        while not self.over:
            self.read()
            await self._wait()

    async def drain_input(self) -> None:
        """End the sending side, and throw away what still comes, until the peer has closed. A checkpoint."""
        await self.stream.send_eof()
        while await self.stream.receive_some():
            pass

    def discard(self) -> None:
        """Throw away what has come and what will."""
        self._discards = True
        self.messages.clear()

    def finish(self) -> None:
        """Read no more."""
        self.over = True
        self._news.unpark_all()

    def read(self) -> None:
        """Take what has come, unless something waits to be taken from here; goes on by itself when more comes."""
        head = self._head
        try:
            while not (self.over or self.messages) and self._head is head:
                data = self.stream.take()
                if data is None:
                    self.stream.when_readable(self.read)
                    return
                if not data:
                    self.finish()
                    return
                self.heard(len(data))
                self._parse(self._begun + data if self._begun else data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.finish()

    async def _wait(self) -> None:
        """Wait for news, where there are none yet."""
        if not (self.messages or self.over):
            await self._news.park()

    def _parse(self, data: bytes) -> None:
        """Frames, after the head."""
        at, end = 0, len(data)
        if self._head is None:
            at = data.find(b"\r\n\r\n") + 4
            if at < 4:
                self._begun = data
                return
            self._head = data[:at]
            self._news.unpark_all()
        while end - at >= 2 and not self.over:
            start = at + 2
            length = data[at + 1]
            if length >= 126:
                start += 2 if length == 126 else 8
                length = int.from_bytes(data[at + 2 : start], "big")
                if start > end:
                    break
            if start + length > end:
                break
            self._frame(data[at], data[start : start + length])
            at = start + length
        self._begun = data[at:]

    def _frame(self, kind: int, payload: bytes) -> None:
        if kind == TEXT:
            if not self._discards:
                self.message(payload)
        elif kind == CLOSE:
            code, reason = int.from_bytes(payload[:2], "big"), payload[2:].decode()
            self.closed = (code, reason)
            self.peer_closed(code, reason)
            self.say_close(code, reason)
            self.finish()
        elif kind == PING and not self.said_close:
            self._send_quietly(bytes((PONG, len(payload))) + payload)

    # -- Sending

    def send_bytes(self, data: bytes) -> bool:
        """Send whole frames, or a head. False where some of it has to wait for room.

        Raises:
          trio.BrokenResourceError, trio.ClosedResourceError: it can't be sent.
        """
        if self.failure is not None:
            raise trio.BrokenResourceError(self.failure)
        if self._rest:
            self._rest += data
            return False
        try:
            taken = self.stream.put(data)
        except trio.BrokenResourceError:
            self.poison("reset")
            raise
        if taken == len(data):
            return True
        self._rest = data[taken:]
        self._progress_at = trio.current_time()
        self.stream.when_writable(self._write, self._progress_at + self._patience)
        return False

    def say_close(self, code: int, reason: str) -> None:
        """Send a close frame, if none was sent, and if it can be."""
        if not self.said_close:
            self.said_close = True
            payload = code.to_bytes(2, "big") + reason.encode()
            self._send_quietly(bytes((CLOSE, len(payload))) + payload)

    async def flush(self) -> None:
        """Wait until there is no backlog. A checkpoint only where it has to wait.

        Raises:
          trio.BrokenResourceError: it was cut.
        """
        while self._rest:
            await self._news.park()
        if self.failure is not None:
            raise trio.BrokenResourceError(self.failure)

    def poison(self, reason: str) -> None:
        """Cut the connection."""
        if self.failure is None:
            self.failure = reason
            self._rest = b""
            self.stream.close()
            self.finish()

    def _send_quietly(self, data: bytes) -> None:
        try:
            self.send_bytes(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    def _write(self) -> None:
        """There may be room, or patience is at its end."""
        if self.failure is not None:
            return
        now = trio.current_time()
        try:
            while self._rest and (taken := self.stream.put(self._rest)):
                self._rest = self._rest[taken:]
                self._progress_at = now
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.poison("reset")
            return
        if not self._rest:
            self._news.unpark_all()
            self.drained()
        elif now >= self._progress_at + self._patience:
            self.poison("write_timeout")
        else:
            self.stream.when_writable(self._write, self._progress_at + self._patience)
