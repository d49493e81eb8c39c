"""WebSockets at message level: `open_messages` for the server's end of a simulated connection, `upgrade_messages` for
the client's. They stand in for trio-websocket, and for all in this package that has to do with bytes.

What is left out is what only bytes have: masks, fragments, halves of headers, and the tasks that read and write them.
What stays is all that the rest can notice: whole messages in order, each as large as it is; a window that fills up, a
backlog, and a peer that takes nothing for `write_timeout`; upgrades that are refused; closing from either side with its
codes, with messages still on the way; ends, resets, silence. The network below is the same at both levels.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Final

import trio

from ...client.transport import SUBPROTOCOL, Address, Closed
from ...client.transport import Refused as UpgradeRefused
from ...config import Config
from ...core import wire
from ...core.closing import BROKEN, INTERNAL_ERROR, NORMAL, TOO_BIG
from ...server.ending import Ending, Refused, TransportClosed, cut_reason
from ...server.lane import MAX_LANE_PAYLOAD
from ...server.transport import CLOSE_TIMEOUT
from ...server.upgrade import Refusal, UpgradeRequest, http_answer, parse_request
from .connection import SimStream
from .message_end import MessageEnd

KEY: Final = "YSBzaW11bGF0ZWQga2V5IQ=="
"""The key of every request: nobody answers it."""

_logger = logging.getLogger(__name__)


class ServerMessages(MessageEnd):
    """The server's end: a `server.websocket.WebSocket`. Each method is what `server.transport.Transport` says of it.

    Args:
      stream: this end of the connection.
      scope: what `abort` cancels.
      config, remote: as `open_messages` has them.
    """

    request: UpgradeRequest

    def __init__(self, stream: SimStream, scope: trio.CancelScope, config: Config, remote: str) -> None:
        super().__init__(stream, patience=config.write_timeout)
        self.remote = remote
        self.subprotocol: str | None = None
        self.ended: Ending | None = None
        self.last_received = trio.current_time()
        self.on_drained: Callable[[], None] | None = None
        self._scope = scope
        self._max_message_bytes = config.max_message_bytes
        self._lane: Callable[[bytes], None] | None = None
        self._in_hand = False  # a message was given to `receive` and is not dealt with
        self._accepted = self._closing = False
        self._gone = trio.Event()

    async def hear_request(self) -> None:
        """Wait for the request to upgrade.

        Raises:
          server.ending.Refused: it is no proper one, and was answered with a 4xx.
          TransportClosed: the connection ended.
        """
        head = await self.receive_head()
        if head is None:
            raise TransportClosed(
                Ending(BROKEN.code, "the connection ended during the request", "network")
            ) from None
        try:
            self.request = parse_request(head)
        except Refusal as refusal:
            await self.refuse(refusal.status, refusal.message, refusal.headers)
            raise Refused(refusal.status, refusal.message) from None

    async def accept(self, subprotocol: str | None) -> None:
        """Complete the handshake."""
        if self.ended is not None:
            raise TransportClosed(self.ended)
        selected = "" if subprotocol is None else f"Sec-WebSocket-Protocol: {subprotocol}\r\n"
        try:
            self.send_bytes(f"HTTP/1.1 101 Switching Protocols\r\n{selected}\r\n".encode())
            self._accepted = True
            self.subprotocol = subprotocol
            self.read()
            await self.flush()
        except trio.BrokenResourceError:
            raise self._broken() from None

    async def refuse(self, status: int, message: str, headers: Iterable[tuple[str, str]] = ()) -> None:
        """Answer in HTTP, and close."""
        if self.ended is None:
            self.ended = Ending(BROKEN.code, f"refused with {status}: {message}", "us")
        with trio.move_on_after(CLOSE_TIMEOUT):
            try:
                self.send_bytes(http_answer(status, message, headers))
                await self.flush()
                await self.drain_input()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass
        self.stream.close()
        self._gone.set()

    async def receive(self) -> str:
        """The next message that did not take the lane."""
        self._in_hand = False
        await trio.lowlevel.checkpoint()
        message = await self.next_message()
        if message is None:
            raise self._broken()
        self._in_hand = True
        return message.decode()

    def open_lane(self, handler: Callable[[bytes], None] | None) -> None:
        """Have small messages handed to `handler`."""
        self._in_hand = False
        self._lane = handler if self.ended is None else None

    def send_nowait(self, messages: bytes) -> bool:
        """Send ready-made frames."""
        if self.said_close:
            raise self._broken()
        try:
            return self.send_bytes(messages)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise self._broken() from None

    async def close(self, code: int, reason: str) -> None:
        """Close it, in `CLOSE_TIMEOUT` at most."""
        with trio.CancelScope(shield=True):
            with trio.move_on_after(CLOSE_TIMEOUT):
                if self._closing:
                    await self._gone.wait()
                    return
                self._closing = True
                await self._close(code, reason)
            self.stream.close()
            self._gone.set()

    def abort(self) -> None:
        """Cut it, and cancel what runs over it."""
        self._end(Ending(BROKEN.code, "aborted", "us"))
        self.poison("aborted")
        self._scope.cancel()

    async def _close(self, code: int, reason: str) -> None:
        if self._gone.is_set() or not self._accepted:
            return
        self._end(Ending(code, reason, "us"))
        ending = self.ended
        assert ending is not None
        self.discard()
        try:
            if ending.by == "us":
                self.say_close(ending.code, cut_reason(ending.reason))
            await self.flush()
            await self.wait_over()
            if ending.by == "us" and self.closed is None:
                await self.drain_input()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    def retire(self) -> None:
        """Let nothing be sent or received any more."""
        self._end(Ending(BROKEN.code, "cancelled", "us"))
        self.discard()

    def _end(self, ending: Ending) -> None:
        if self.ended is None:
            self.ended = ending
        self._lane = None

    def _broken(self) -> TransportClosed:
        ending = self.ended or Ending(BROKEN.code, self.failure or "no close frame", "network")
        self._end(ending)
        return TransportClosed(ending)

    # -- as a message end

    def heard(self, size: int) -> None:
        """Bytes came in."""
        self.last_received = trio.current_time()

    def message(self, text: bytes) -> None:
        """A message came in: by the lane where it would overtake nothing."""
        if len(text) > self._max_message_bytes:
            self._violated(TOO_BIG.code, "the message is too big")
        elif self._lane is None or self._in_hand or self.messages or len(text) > MAX_LANE_PAYLOAD:
            super().message(text)
        else:
            try:
                self._lane(text)
            except TransportClosed:
                self.finish()  # what was to be answered found no connection any more
            except Exception:
                _logger.exception("reading from %s failed", self.remote)
                self._end(Ending(INTERNAL_ERROR.code, "internal error", "us"))
                self.finish()

    def peer_closed(self, code: int, reason: str) -> None:
        """The close frame came."""
        self._end(Ending(code, reason, "peer"))

    def drained(self) -> None:
        """The backlog has gone."""
        if self.on_drained is not None:
            self.on_drained()

    def _violated(self, code: int, reason: str) -> None:
        self._end(Ending(code, reason, "us"))
        self.say_close(code, reason)
        self.finish()


@asynccontextmanager
async def open_messages(
    stream: trio.abc.Stream, *, config: Config, remote: str
) -> AsyncIterator[ServerMessages]:
    """What `serve` takes as `open_transport`: see there, and `server.transport.open_transport`."""
    assert isinstance(stream, SimStream)
    try:
        with trio.CancelScope() as scope:
            end = ServerMessages(stream, scope, config, remote)
            await end.hear_request()
            try:
                yield end
            except Exception:
                await end.close(INTERNAL_ERROR.code, "internal error")
                raise
            else:
                await end.close(NORMAL.code, "")
            finally:
                end.retire()
    finally:
        stream.close()


class ClientMessages(MessageEnd):
    """The client's end: a `client.transport.WebSocket`. Each method is what `client.transport.Transport` says of it.

    Args:
      on_data: called with the size of each piece that comes.
    """

    def __init__(self, stream: SimStream, on_data: Callable[[int], None]) -> None:
        super().__init__(stream)
        self._on_data = on_data

    def heard(self, size: int) -> None:
        """Bytes came in."""
        self._on_data(size)

    async def shake_hands(self, target: str, subprotocol: str | None) -> None:
        """Ask for the upgrade.

        Raises:
          client.transport.Refused: the server said no, or did not select `subprotocol`.
          Closed: the connection broke.
        """
        offered = "" if subprotocol is None else f"Sec-WebSocket-Protocol: {subprotocol}\r\n"
        try:
            self.send_bytes(
                f"GET {target} HTTP/1.1\r\nHost: simulated\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n{offered}\r\n".encode()
            )
            await self.flush()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the reading side knows more
        head = await self.receive_head()
        if head is None:
            raise Closed(BROKEN.code, "no WebSocket handshake")
        first, *lines = head.decode().split("\r\n")
        status = int(first.split(" ")[1])
        headers = dict(line.split(": ", 1) for line in lines if line)
        if status != 101:
            after = headers.get("Retry-After")
            raise UpgradeRefused(status, "the upgrade was refused", None if after is None else float(after))
        if headers.get("Sec-WebSocket-Protocol") != subprotocol:
            raise UpgradeRefused(101, f"did not select the subprotocol {subprotocol}", None)

    async def receive(self) -> str:
        """The next message."""
        await trio.lowlevel.checkpoint_if_cancelled()
        message = await self.next_message()
        if message is None:
            code, reason = self.closed or (BROKEN.code, "")
            raise Closed(code, reason)
        return message.decode()

    async def send(self, message: bytes) -> None:
        """Send one text message."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if self.said_close or self.over:
            raise Closed(BROKEN.code, "closed while sending")
        try:
            if not self.send_bytes(wire.text_message(message)):
                await self.flush()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the reading side knows more

    async def close(self, code: int) -> None:
        """Close it, and wait for the server's answer."""
        await trio.lowlevel.checkpoint_if_cancelled()
        self.discard()
        self.say_close(code, "")
        await self.wait_over()


async def upgrade_messages(
    nursery: trio.Nursery, stream: trio.abc.Stream, address: Address, on_data: Callable[[int], None]
) -> ClientMessages:
    """What `connect` takes as `upgrade`: see there, and `client.transport.upgrade`."""
    assert isinstance(stream, SimStream)
    end = ClientMessages(stream, on_data)
    await end.shake_hands(address.target, SUBPROTOCOL)
    return end
