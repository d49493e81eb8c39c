"""trio-websocket, for all that does not take the lane: control frames, fragments, large messages, and closing.

This is the only module of the server that knows it. It leans on private names of version 0.12.2, which a contract test
lists. A connection that never sends any of these never has one: it is made when the first of them comes, and takes up
a WebSocket that is open already, since its request was read and answered before (`upgrade.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import trio
from trio_websocket import CloseReason, ConnectionClosed, WebSocketConnection
from wsproto import ConnectionType
from wsproto.connection import Connection, ConnectionState
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, Pong, TextMessage
from wsproto.utilities import LocalProtocolError

from .ending import Ending, cut_reason
from .inflow import Inflow
from .stream import GuardedStream
from .waiter import Waiter

__all__ = ["ConnectionClosed", "Library", "Passed"]

MAX_WAITING: Final = 16 * 1024
"""Bytes that passed on and wait for the library, beyond which nothing more is read."""

_MAX_PARTS: Final = 64


class Passed(trio.abc.ReceiveStream):
    """What passed on, as the stream that the library reads from; bounded by holding back the inflow.

    Args:
      inflow: where it comes from.
    """

    def __init__(self, inflow: Inflow) -> None:
        self._inflow = inflow
        self._data = b""
        self._error: Exception | None = None
        self._deaf = False
        self._waiter = Waiter()

    def put(self, data: bytes, error: Exception | None) -> None:
        """More has passed on, and behind it nothing more will where there was an `error`; not a checkpoint."""
        self._data += data
        self._error = error
        if error is not None or len(self._data) > MAX_WAITING:
            self._inflow.pause()
        self._waiter.wake()

    def wake(self) -> None:
        """Have it seen that the inflow has ended; not a checkpoint."""
        self._waiter.wake()

    def stop(self) -> None:
        """Let nothing more be received; idempotent, not a checkpoint."""
        self._deaf = True
        self._inflow.pause()
        self._waiter.wake()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """All that waits; a checkpoint. Cancelling it loses nothing.

        Raises:
          trio.ClosedResourceError: `stop` was called.
          The error that came behind what passed on, when all that is given back.
        """
        await trio.lowlevel.checkpoint()
        while True:
            if self._deaf:
                raise trio.ClosedResourceError("nothing more is read")
            if self._data:
                data, self._data = self._data, b""
                if self._error is None:
                    self._inflow.resume()
                return data
            if self._error is not None:
                raise self._error
            if self._inflow.ended:
                return b""
            await self._waiter.wait()

    async def aclose(self) -> None:
        """Receive nothing more; a checkpoint."""
        self.stop()
        await trio.lowlevel.checkpoint()


class Library(WebSocketConnection):
    """trio-websocket's connection, with what it does wrong put right.

    - It never waits for a write: a reader that does answers no ping and takes no ack.
    - A ping is answered only while the WebSocket is open; at any other time the library raises.
    - A breach of the protocol is told to the peer in a close frame.
    - It never closes the stream: the transport does, once what is queued has gone.

    Args:
      passed: what it reads.
      guarded: where it writes.
      end: is told how the WebSocket ends, where the peer or a breach of the protocol ends it.
      max_message_bytes: how large a message may be; the scanner saw to that before.

    Attributes:
      peer_closed: the peer's close frame has come.
    """

    def __init__(
        self,
        passed: Passed,
        guarded: GuardedStream,
        end: Callable[[Ending], None],
        *,
        max_message_bytes: int,
    ) -> None:
        # Not a `WSConnection`, which would want to read the request and answer it; and of the stream the library only
        # reads.
        opened: Any = Connection(ConnectionType.SERVER)
        stream: Any = passed
        super().__init__(stream, opened, max_message_size=max_message_bytes)
        self.peer_closed = False
        self._passed = passed
        self._guarded = guarded
        self._end = end

    async def read(self) -> None:
        """Read until the WebSocket ends. Raises what came as an error behind what passed on."""
        await self._reader_task()

    def say_close(self, code: int, reason: str) -> None:
        """Send a close frame, if none was sent; not a checkpoint. ConnectionClosed where it can't be."""
        if self._wsproto.state in (ConnectionState.OPEN, ConnectionState.REMOTE_CLOSING):
            self._close_reason = CloseReason(code, reason)
            self._write(CloseConnection(code=code, reason=cut_reason(reason)))

    def forget_messages(self) -> None:
        """Throw away what was received, so that the reader need not wait for anyone; not a checkpoint."""
        self._recv_channel.close()

    def _write(self, event: Event) -> None:
        try:
            data = self._wsproto.send(event)
            self._guarded.send_control(bytes(data), last=isinstance(event, CloseConnection))
        except (LocalProtocolError, trio.BrokenResourceError, trio.ClosedResourceError):
            # What can't be said any more: to the library, a connection that has closed.
            self._reader_running = False
            raise ConnectionClosed(self._close_reason) from None

    async def _send(self, event: Event) -> None:
        self._write(event)

    async def _handle_ping_event(self, event: Ping) -> None:
        if self._wsproto.state is ConnectionState.OPEN:
            self._write(event.response())
        # One read may hold hundreds: the other connections have their turn between them.
        await trio.lowlevel.checkpoint()

    async def _handle_pong_event(self, event: Pong) -> None:
        await trio.lowlevel.checkpoint()

    async def _handle_message_event(self, event: BytesMessage | TextMessage) -> None:
        await super()._handle_message_event(event)
        if len(self._message_parts) > _MAX_PARTS:
            # A frame that comes in tiny segments must not become a long list of tiny strings.
            parts: Any = self._message_parts
            self._message_parts = [type(parts[0])().join(parts)]

    async def _handle_close_connection_event(self, event: CloseConnection) -> None:
        code, reason = int(event.code), event.reason or ""
        state = self._wsproto.state
        self.peer_closed = state in (ConnectionState.REMOTE_CLOSING, ConnectionState.CLOSED)
        self._end(Ending(code, reason, "peer" if self.peer_closed else "us"))
        try:
            if state is ConnectionState.OPEN:
                # The library found a breach of the protocol; the code and the reason are its own.
                self.say_close(code, reason)
            elif state is ConnectionState.REMOTE_CLOSING:
                self._close_reason = CloseReason(code, reason)
                self._write(event.response())
        finally:
            await self._close_web_socket(code, reason)
            self._close_handshake.set()
            await self._close_stream()

    async def _close_stream(self) -> None:
        self._reader_running = False
        self._passed.stop()
