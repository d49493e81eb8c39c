"""One WebSocket on the server: text messages in, ready-made frames out, and one way in which it ends.

trio-websocket does the handshake, the reading and the control frames, over a `GuardedStream` of ours. This is
the only module of the server that knows it. It leans on private names of version 0.12.2, which a contract
test lists.

How a connection ends is decided once, by the first that happens: a close frame of the peer, a breach of the
protocol or of a limit, a failure of the network, or `close`. `Transport.ended` keeps it, and everything that
can't be done any more raises it.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, Final

import trio
from trio_websocket import CloseReason, ConnectionClosed, WebSocketConnection
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, Pong, Request, TextMessage
from wsproto.utilities import LocalProtocolError

from ..config import Config
from ..core.closing import BROKEN, INTERNAL_ERROR, NORMAL
from .ending import BinaryMessage, Ending, Refused, TransportClosed, cut_reason, unwrap
from .lane import FrameScanner, Violation
from .stream import GuardedStream, cut
from .upgrade import Refusal, UpgradeRequest, http_answer, parse_request

CLOSE_TIMEOUT: Final = 1.0
"""Seconds for all of a close: what is queued, the close frame, and the peer's answer."""

_MAX_PARTS: Final = 64
_logger = logging.getLogger(__name__)


class Transport:
    """One WebSocket, from the client's request to its end. `open_transport` makes it.

    Attributes:
      request: what the client asked for.
      remote: where it came from, as given to `open_transport`.
      subprotocol: the one that was accepted, if any.
      ended: how the WebSocket ended, once it has (or is about to); None before.
    """

    def __init__(
        self,
        guarded: GuardedStream,
        scanner: FrameScanner,
        nursery: trio.Nursery,
        *,
        request: UpgradeRequest,
        remote: str,
        max_message_bytes: int,
    ) -> None:
        self.request = request
        self.remote = remote
        self.subprotocol: str | None = None
        self.ended: Ending | None = None
        self._guarded = guarded
        self._scanner = scanner
        self._nursery = nursery
        self._max_message_bytes = max_message_bytes
        self._connection: _Connection | None = None
        self._delivered = 0
        self._read_to_end = trio.Event()
        self._gone = trio.Event()
        self._closing = False

    @property
    def backlog(self) -> int:
        """Bytes that were accepted and that the network has not taken yet."""
        return self._guarded.backlog

    @property
    def failure(self) -> str | None:
        """Why the connection was cut (``reset``, ``write_timeout``, …); None if it was not."""
        return self._guarded.failure

    @property
    def last_received(self) -> float:
        """When bytes last came in, on Trio's clock."""
        return self._guarded.last_received

    @property
    def on_drained(self) -> Callable[[], None] | None:
        """Called each time a backlog has gone; it must neither wait nor raise."""
        return self._guarded.on_drained

    @on_drained.setter
    def on_drained(self, callback: Callable[[], None] | None) -> None:
        self._guarded.on_drained = callback

    async def accept(self, subprotocol: str | None) -> None:
        """Complete the handshake, and begin to read; a checkpoint.

        Args:
          subprotocol: one of `request.subprotocols`, or None for none.

        Raises TransportClosed when the connection broke. Cancelled, it leaves nothing but the end of the
        connection.
        """
        if self._connection is not None:
            raise RuntimeError("the request has been accepted before")
        if subprotocol is not None and subprotocol not in self.request.subprotocols:
            raise ValueError("a subprotocol that the client did not offer can't be accepted")
        if self.ended is not None:
            raise TransportClosed(self.ended)
        connection = _Connection(self, self._guarded, max_message_bytes=self._max_message_bytes)
        try:
            await connection.shake_hands(self.request, subprotocol)
            self._connection = connection
            self.subprotocol = subprotocol
            self._nursery.start_soon(self._read, connection)
            await self._guarded.flush()
        except (ConnectionClosed, trio.BrokenResourceError):
            raise self._broken() from None

    async def refuse(self, status: int, message: str, headers: Iterable[tuple[str, str]] = ()) -> None:
        """Answer the request in HTTP instead, and close the connection; a checkpoint.

        Args:
          status: the HTTP status.
          message: a sentence for a human: the answer's body.
          headers: more (name, value) pairs, printable ASCII.

        It ends within `CLOSE_TIMEOUT`, whether the client takes the answer or not. Cancelling it cuts the
        answer short.
        """
        if self._connection is not None:
            raise RuntimeError("an accepted WebSocket can't be refused any more")
        answer = http_answer(status, message, headers)
        if self.ended is None:
            self.ended = Ending(BROKEN.code, f"refused with {status}: {message}", "us")
        await self._guarded.send_last(answer, timeout=CLOSE_TIMEOUT)
        self._gone.set()

    async def receive(self) -> str:
        """The next message that did not take the lane; a checkpoint.

        Calling it says that the message before was dealt with: the lane opens again once all are. Cancelling
        it loses nothing.

        Raises:
          TransportClosed: the WebSocket has ended, and all that came before was given back.
          BinaryMessage: the client sent a binary message.
        """
        if self._connection is None:
            raise RuntimeError("the request has not been accepted")
        self._scanner.handled = self._delivered
        try:
            message = await self._connection.get_message()
        except ConnectionClosed:
            if self.ended is None:
                # The reader is about to end, and knows why.
                await self._read_to_end.wait()
            raise self._broken() from None
        self._delivered += 1
        if isinstance(message, bytes):
            raise BinaryMessage("a binary message where all must be text")
        return message

    def open_lane(self, handler: Callable[[bytes], None] | None) -> None:
        """Have small text messages handed to `handler` as they come, not to `receive`; not a checkpoint.

        Args:
          handler: called with the UTF-8 text of a message, in the order of messages, also relative to those
            of `receive`. It must not wait. If it raises, the connection ends with 4500. None shuts the lane.

        Calling it says, as `receive` does, that the message before was dealt with.
        """
        self._scanner.handled = self._delivered
        self._scanner.lane = handler if self.ended is None else None

    def send_nowait(self, messages: bytes) -> bool:
        """Send ready-made frames, whole ones (`core.wire.text_message`), without waiting; not a checkpoint.

        Returns True when all was handed over, False when a backlog is left: hold back then, until
        `on_drained`. Raises TransportClosed when the WebSocket has ended, or does by this very write.
        """
        if self._connection is None:
            raise RuntimeError("the request has not been accepted")
        try:
            return self._guarded.send_nowait(messages)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise self._broken() from None

    async def close(self, code: int, reason: str) -> None:
        """Close the WebSocket: what is queued, a close frame, the peer's answer to it; a checkpoint.

        Args:
          code: the close code.
          reason: words for the client, cut to 123 bytes of UTF-8.

        All of it takes `CLOSE_TIMEOUT` at most; then the connection is cut. It is shielded from cancellation,
        and idempotent: the first call counts, and later ones wait for it. What ended the WebSocket before it
        counts too: after an exception in the lane the close frame says 4500, whatever `code` is.
        """
        # All of it is shielded: a cancellation that came out of here would replace what the block raised.
        with trio.CancelScope(shield=True):
            with trio.move_on_after(CLOSE_TIMEOUT):
                if self._closing:
                    await self._gone.wait()
                    return
                self._closing = True
                await self._close(code, reason)
            await self._guarded.aclose()  # waits for nobody
            self._gone.set()

    def abort(self) -> None:
        """Cut the connection without a word, and cancel what runs in its `open_transport` block.

        Not a checkpoint; idempotent. The block ends as a cancelled scope does: nothing is raised out of it.
        """
        self._end(Ending(BROKEN.code, "aborted", "us"))
        self._guarded.poison("aborted")
        self._nursery.cancel_scope.cancel()

    def retire(self) -> None:
        """Let nothing be sent or received any more; not a checkpoint. `open_transport` calls it in the end."""
        self._end(Ending(BROKEN.code, "cancelled", "us"))
        self._guarded.retire()

    async def _close(self, code: int, reason: str) -> None:
        """The orderly part of `close`; its caller sets the deadline."""
        if self._gone.is_set() or self._connection is None:
            return
        self._end(Ending(code, reason, "us"))
        ending = self.ended
        assert ending is not None
        try:
            self._connection.forget_messages()
            self._connection.say_close(ending.code, ending.reason)
            await self._guarded.flush()
            # The peer's answer, an end of the stream, or the end of a reader that had to stop.
            await self._read_to_end.wait()
            if ending.by == "us" and not self._connection.peer_closed:
                await self._guarded.drain_input()
        except (ConnectionClosed, trio.BrokenResourceError):
            pass

    def _end(self, ending: Ending) -> None:
        """Note how the WebSocket ends, unless that is decided already. The lane takes nothing more."""
        if self.ended is None:
            self.ended = ending
        self._scanner.lane = None

    def _broken(self) -> TransportClosed:
        """What to raise where nothing can be done any more: how it ended, or that the connection broke."""
        reason = self._guarded.failure or "no close frame"
        ending = self.ended or Ending(BROKEN.code, reason, "network")
        self._end(ending)
        return TransportClosed(ending)

    async def _read(self, connection: _Connection) -> None:
        """The reader's task: whatever goes wrong in it ends this connection alone."""
        try:
            await connection.read()
        except Violation as violation:
            self._end(Ending(violation.code, violation.reason, "us"))
            try:
                connection.say_close(violation.code, violation.reason)
            except ConnectionClosed:
                pass
        except TransportClosed:
            pass  # what the lane wanted to answer found no connection any more
        except Exception:
            # Of the lane's handler or of the library: an end, but not yet a close frame, since there are
            # things to say before it.
            _logger.exception("reading from %s failed", self.remote)
            self._end(Ending(INTERNAL_ERROR.code, "internal error", "us"))
        finally:
            self._broken()
            self._read_to_end.set()


class _Connection(WebSocketConnection):
    """trio-websocket's connection, with what it does wrong put right. Its stream is a `GuardedStream`.

    - It never waits for a write: a reader that does answers no ping and takes no ack.
    - A ping is answered only while the WebSocket is open; at any other time the library raises.
    - A breach of the protocol is told to the peer in a close frame.
    - It never closes the stream: the transport does, once what is queued has gone.
    """

    def __init__(self, transport: Transport, guarded: GuardedStream, *, max_message_bytes: int) -> None:
        super().__init__(guarded, WSConnection(ConnectionType.SERVER), max_message_size=max_message_bytes)
        self.peer_closed = False
        self._transport = transport
        self._guarded = guarded

    async def shake_hands(self, request: UpgradeRequest, subprotocol: str | None) -> None:
        """Send the answer that accepts `request`; not a checkpoint."""
        self._wsproto.receive_data(request.canonical(subprotocol))
        (event,) = self._wsproto.events()
        assert isinstance(event, Request)
        await self._accept(event, subprotocol, [])

    async def read(self) -> None:
        """Read until the WebSocket ends. Raises `Violation`, and what the lane raises."""
        await self._reader_task()

    def say_close(self, code: int, reason: str) -> None:
        """Send a close frame, if none was sent; not a checkpoint."""
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
        self._transport._end(Ending(code, reason, "peer" if self.peer_closed else "us"))
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
        self._guarded.stop_reading()


@asynccontextmanager
async def open_transport(stream: trio.abc.Stream, *, config: Config, remote: str) -> AsyncIterator[Transport]:
    """Read the request to upgrade from `stream`, and own the WebSocket while the block runs.

    The caller limits the time of the handshake with a cancel scope. When the block ends, the WebSocket is
    closed: with 1000, or with 4500 if it raised, unless it has been before. `stream` is closed in every case.

    Args:
      stream: a byte stream that was just accepted; owned from here on.
      config: for `max_message_bytes`, `max_fragments` and `write_timeout`.
      remote: where it comes from, for logs.

    Raises:
      Refused: the request was no proper one, and was answered with a 4xx.
      TransportClosed: the connection ended during the request.
      Whatever the block raises, as it is, without an exception group around it.

    Cancelling it cuts the connection at once, with no close frame.
    """
    failure: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            scanner = FrameScanner(
                max_message_bytes=config.max_message_bytes, max_fragments=config.max_fragments
            )
            guarded = GuardedStream(stream, nursery, scanner=scanner, write_timeout=config.write_timeout)
            transport = Transport(
                guarded,
                scanner,
                nursery,
                request=await _receive_request(guarded),
                remote=remote,
                max_message_bytes=config.max_message_bytes,
            )
            try:
                yield transport
            except Exception:
                await transport.close(INTERNAL_ERROR.code, "internal error")
                raise
            else:
                await transport.close(NORMAL.code, "")
            finally:
                transport.retire()
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        failure = unwrap(group)
    finally:
        await cut(stream)
    if failure is not None:
        raise failure


async def _receive_request(guarded: GuardedStream) -> UpgradeRequest:
    """The client's request; what is none is answered, and raised as `Refused`."""
    try:
        return parse_request(await guarded.receive_head())
    except Refusal as refusal:
        answer = http_answer(refusal.status, refusal.message, refusal.headers)
        await guarded.send_last(answer, timeout=CLOSE_TIMEOUT)
        raise Refused(refusal.status, refusal.message) from None
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        raise TransportClosed(
            Ending(BROKEN.code, "the connection ended during the request", "network")
        ) from None
