"""A batch of JSON lines, answered line by line while it comes in: memory is bounded however long it is.

Lines are published as they arrive, and answered in their order, as fast as the client reads. Where the length of the
batch is declared, answers begin when all of it has come: nginx stops sending a body whose answer has begun, and both
would wait for each other. A client that sends all before it reads anything is read on, until `MAX_PENDING` bytes of
answers wait here besides what the sockets hold; one that goes on without ever reading is cut off by the connection's
write deadline.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol, TypeAlias

import msgspec
import trio
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from ..config import KIB, MIB
from .answers import ApiError
from .events import Line, Turn
from .requests import declared_length, too_large

MAX_BATCH: Final = 16 * MIB
MAX_PENDING: Final = 8 * MIB
IDLE_TIMEOUT: Final = 30.0
"""Seconds within which something of the rest comes."""

BATCH_TIMEOUT: Final = 300.0
"""Seconds within which all of it comes."""

LINES: Final = "application/x-ndjson"
"""What a body of JSON lines says that it is."""

ROUGHLY: Final = 200
"""Bytes that an answer counts as that is not known yet."""

_PIECE: Final = 64 * KIB
_encode = msgspec.json.encode


def has_lines(request: Request) -> bool:
    """Whether the body says that it is JSON lines."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() == LINES


async def publish_batch(begin: Begin, request: Request) -> BatchAnswer:
    """The call: ``POST /v1/events``.

    Args:
      begin: gives what takes the lines.

    Raises:
      ApiError: 413, if the head declares more than `MAX_BATCH` bytes.
    """
    length = declared_length(request)
    if length > MAX_BATCH:
        raise too_large(MAX_BATCH)
    return BatchAnswer(begin, held=length > 0)


class Takes(Protocol):
    """What takes the lines of a batch, each of at most `max_body` bytes, and answers them."""

    max_body: int

    async def publish_line(self, line: bytes) -> Line:
        """The answer to a line, and what must be durable before it is given."""
        ...

    async def durable(self, line: Line) -> dict[str, Any]:
        """The answer to a line, once what it tells of is durable."""
        ...


Begin: TypeAlias = Callable[[trio.Nursery], Takes]
"""Gives what takes the lines of a batch; it may have tasks in this nursery, which end when all lines are answered."""


class BatchAnswer:
    """The answer to a batch: an ASGI app that reads, publishes and answers.

    Args:
      begin: gives what publishes the lines.
      held: answer when the batch has ended, or `MAX_PENDING` bytes of answers wait.
    """

    def __init__(self, begin: Begin, *, held: bool = False) -> None:
        self._begin = begin
        self._events: Takes
        self._held = held
        self._pending: list[tuple[bytes, Line]] = []
        self._pending_bytes = 0
        self._done = False
        self._changed = trio.lowlevel.ParkingLot()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"application/x-ndjson"), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async with trio.open_nursery() as nursery:
            self._events = self._begin(nursery)
            nursery.start_soon(self._answer, send)
            await self._publish(receive)
            self._done = True
            self._changed.unpark_all()

    async def _publish(self, receive: Receive) -> None:
        """Publish the lines as they come, until the last one, the client's end, or a limit."""
        lines = Lines(self._events.max_body)
        end = trio.current_time() + BATCH_TIMEOUT
        size, turn = 0, Turn()
        while True:
            message: Any = None
            with trio.CancelScope(deadline=min(end, trio.current_time() + IDLE_TIMEOUT)):
                message = await receive()
            if message is None:
                self._put(ApiError(408, "request_timeout", "the rest of the batch did not come in time"))
                return
            if message["type"] == "http.disconnect":
                return
            chunk, more = message.get("body", b""), message.get("more_body", False)
            size += len(chunk)
            if size > MAX_BATCH:
                self._put(too_large(MAX_BATCH))
                return
            for line in lines.feed(chunk, last=not more):
                if line is None:
                    self._put(too_large(self._events.max_body))
                elif line.strip():
                    self._put(await self._events.publish_line(line))
                    await turn.spend(len(line))
                while self._pending_bytes > MAX_PENDING:
                    await self._changed.park()
            if not more:
                return

    def _put(self, answer: Line | ApiError) -> None:
        line = Line(answer.body(status=answer.status)) if isinstance(answer, ApiError) else answer
        encoded = _encode(line.body) + b"\n"
        self._pending.append((encoded, line))
        self._pending_bytes += len(encoded) if line.later is None else ROUGHLY
        self._changed.unpark_all()

    async def _answer(self, send: Send) -> None:
        """Send the answers that wait, until there are no more to come."""
        while self._held and not self._done and self._pending_bytes <= MAX_PENDING:
            await self._changed.park()
        while self._pending or not self._done:
            if not self._pending:
                await self._changed.park()
                continue
            pending, self._pending = self._pending, []
            self._pending_bytes = 0
            data = b"".join([await self._encoded(*answer) for answer in pending])
            self._changed.unpark_all()
            for start in range(0, len(data), _PIECE):
                piece = data[start : start + _PIECE]
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def _encoded(self, encoded: bytes, line: Line) -> bytes:
        """An answer as it is sent: what must be durable is so by then."""
        if line.later is not None:
            return await line.later() + b"\n"
        if not line.receipts:
            return encoded
        return _encode(await self._events.durable(line)) + b"\n"


class Lines:
    """Cuts a stream of bytes into lines of at most `limit` bytes; of a longer one only the fact is kept."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._rest = bytearray()
        self._skipping = False

    def feed(self, data: bytes, *, last: bool = False) -> list[bytes | None]:
        """The lines that `data` completes, without their ends; None for one that was too long.

        Args:
          last: nothing follows; the last line needs no end.
        """
        found: list[bytes | None] = []
        *ended, rest = data.split(b"\n")
        for part in ended:
            self._add(part, found)
            if not self._skipping:
                found.append(bytes(self._rest))
            self._rest.clear()
            self._skipping = False
        self._add(rest, found)
        if last and not self._skipping and self._rest:
            found.append(bytes(self._rest))
            self._rest.clear()
        return found

    def _add(self, part: bytes, found: list[bytes | None]) -> None:
        if self._skipping:
            return
        if len(self._rest) + len(part) > self._limit:
            self._rest.clear()
            self._skipping = True
            found.append(None)
        else:
            self._rest += part
