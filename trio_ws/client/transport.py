"""The client's WebSocket: trio-websocket over a stream that belongs to us, with its exceptions translated at this
border.

Four habits of trio-websocket 0.12.2 are kept from the rest of the client. An exception in its reader task would leave
through the nursery: `_Reader` stands in for that nursery and catches it. A handshake that ends by EOF would never
return: the reader's end ends it. A write that fails makes it drop what has come and was not read, the close code among
it: `_Tap` lets such a write pass, and the reading side finds out by itself. And closing waits for a mute peer without a
limit: callers bound `close`, and whoever opened the stream closes it by force in the end.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol, cast
from urllib.parse import urlsplit

import attrs
import trio
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    WebSocketConnection,
    wrap_client_stream,
)
from wsproto.connection import ConnectionState
from wsproto.utilities import LocalProtocolError

from ..addresses import cause_of, netloc
from ..core import closing
from ..errors import InvalidConfig

SUBPROTOCOL: Final = "trio-ws.v1"
MAX_MESSAGE: Final = 16 * 1024 * 1024
"""The longest message that is taken, in characters; a longer one closes the connection with 1009."""
READ_SIZE: Final = 64 * 1024


class Closed(Exception):
    """The connection is over: the peer closed it (with its code), or it broke (1006)."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason


class Malformed(Exception):
    """The peer broke RFC 6455, or sent what this protocol has no use for."""


class Refused(Exception):
    """The server answered the upgrade with something else than 101."""

    def __init__(self, status: int, reason: str, retry_after: float | None) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status
        self.reason = reason
        self.retry_after = retry_after


@attrs.frozen
class Address:
    """Where a WebSocket URL leads.

    Attributes:
      target: path and query, as the request line has them.
    """

    secure: bool
    host: str
    port: int
    target: str

    @property
    def header(self) -> str:
        """The value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.secure else 80) else f"{host}:{self.port}"


def parse_url(url: str) -> Address:
    """Takes a ``ws:`` or ``wss:`` URL apart; InvalidConfig if it is none. The message never holds its query."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise InvalidConfig(f"url: {error}") from None
    if parts.scheme not in ("ws", "wss"):
        raise InvalidConfig(f"url must begin with ws:// or wss://, not {parts.scheme!r}")
    if not parts.hostname:
        raise InvalidConfig("url names no host")
    if parts.username is not None or parts.password is not None:
        raise InvalidConfig("url holds a user name or password: hand credentials over as token")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not target.isascii() or any(c <= " " or c == "\x7f" for c in target):
        raise InvalidConfig("url: path and query must be percent-encoded")
    secure = parts.scheme == "wss"
    return Address(secure, parts.hostname, port if port is not None else (443 if secure else 80), target)


async def open_stream(address: Address, ssl_context: ssl.SSLContext | None) -> trio.abc.Stream:
    """A TCP connection to `address`, with TLS on it where the address says so.

    Raises:
      OSError: no connection, or the TLS handshake failed: no trust in the certificate, for one.

    A checkpoint. Cancelling it leaves no socket behind.
    """
    try:
        tcp = await trio.open_tcp_stream(address.host, address.port)
    except OSError as error:
        raise OSError(f"{netloc(address.host, address.port)} can't be reached: {cause_of(error)}") from error
    if not address.secure:
        return tcp
    context = ssl_context or ssl.create_default_context()
    stream = trio.SSLStream(tcp, context, server_hostname=address.host, https_compatible=True)
    try:
        await stream.do_handshake()
    except trio.BrokenResourceError as error:
        await trio.aclose_forcefully(stream)
        raise OSError(f"TLS: {cause_of(error)}") from error
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


class WebSocket(Protocol):
    """What a connection needs of its WebSocket; `Transport` says what each of these promises."""

    async def receive(self) -> str: ...
    async def send(self, message: bytes) -> None: ...
    async def close(self, code: int) -> None: ...


class Upgrade(Protocol):
    """Makes a WebSocket of a stream, as `upgrade` does, which says what it promises."""

    async def __call__(
        self, nursery: trio.Nursery, stream: trio.abc.Stream, address: Address, on_data: Callable[[int], None]
    ) -> WebSocket: ...


class Transport:
    """An open WebSocket that carries this protocol. One task receives, one task sends."""

    def __init__(self, connection: WebSocketConnection) -> None:
        self._connection = connection

    async def receive(self) -> str:
        """The next message.

        Raises:
          Closed: there is none any more.
          Malformed: it is binary, or what came is no WebSocket traffic.

        A checkpoint. Cancelling it loses nothing.
        """
        try:
            message = await self._connection.get_message()
        except ConnectionClosed as closed:
            # Without a reason the reader gave up by itself. With one while wsproto takes the connection for open,
            # wsproto found fault with what came, and the reason is its own.
            reason = closed.reason
            if reason is None or self._connection._wsproto.state is ConnectionState.OPEN:
                raise Malformed("not WebSocket traffic") from None
            raise Closed(reason.code, reason.reason or "") from None
        if not isinstance(message, str):
            raise Malformed("binary message")
        return message

    async def send(self, message: bytes) -> None:
        """Sends one text message.

        Raises:
          Closed: the connection is over.

        A checkpoint. Cancelling it may leave half a message on the wire: close the stream then.
        """
        try:
            await self._connection.send_message(message.decode())
        except (ConnectionClosed, LocalProtocolError) as error:
            raise Closed(closing.BROKEN.code, "closed while sending") from error

    async def close(self, code: int) -> None:
        """Closes with `code` and waits for the peer's answer, which may never come: bound it.

        A checkpoint.
        """
        try:
            await self._connection.aclose(code)
        except LocalProtocolError:  # the peer's close came between
            pass


async def upgrade(
    nursery: trio.Nursery, stream: trio.abc.Stream, address: Address, on_data: Callable[[int], None]
) -> Transport:
    """The opening handshake, over a stream that stays the caller's to close.

    Args:
      nursery: what reads lives in it until the stream is closed or the nursery is cancelled; it raises nothing into it.
      on_data: called with the size of each piece of data that arrives, in bytes.

    Raises:
      Refused: the server answered with another status than 101, or did not select our subprotocol.
      Closed: the connection broke first.

    A checkpoint. When it is cancelled the stream is of no more use.
    """
    reader = _Reader(nursery)
    with trio.CancelScope() as handshake:
        reader.on_end = handshake.cancel
        connection = await wrap_client_stream(
            cast(trio.Nursery, reader),
            cast(trio.SocketStream, _Tap(stream, on_data)),
            address.header,
            address.target,
            subprotocols=[SUBPROTOCOL],
            message_queue_size=1,
            max_message_size=MAX_MESSAGE,
            receive_buffer_size=READ_SIZE,
        )
        reader.on_end = _nothing
        if connection.subprotocol != SUBPROTOCOL:
            raise Refused(101, f"did not select the subprotocol {SUBPROTOCOL}", None)
        return Transport(connection)
    raise reader.why()


def _nothing() -> None:
    pass


class _Reader:
    """Stands in for the nursery in which trio-websocket starts its reader: what that raises ends only itself."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._connection: Any = None
        self._error: Exception | None = None
        self.on_end: Callable[[], object] = _nothing

    def start_soon(self, reader_task: Callable[[], Awaitable[None]]) -> None:
        self._connection = reader_task.__self__  # type: ignore[attr-defined]
        self._nursery.start_soon(self._run, reader_task)

    async def _run(self, reader_task: Callable[[], Awaitable[None]]) -> None:
        try:
            await reader_task()
        except Exception as error:  # wsproto's and trio-websocket's: they are about this connection alone
            self._error = error
        finally:
            self.on_end()

    def why(self) -> Exception:
        """Why the handshake came to nothing."""
        if isinstance(self._error, ConnectionRejected):
            status, headers = self._error.status_code, self._error.headers
        else:
            # A refusal whose body ends by EOF is not reported; but its head was read.
            status, headers = self._connection._reject_status, self._connection._reject_headers
        if status:
            return Refused(status, "the upgrade was refused", _retry_after(headers))
        return Closed(closing.BROKEN.code, "no WebSocket handshake")


def _retry_after(headers: tuple[tuple[bytes, bytes], ...]) -> float | None:
    """The header's seconds. A date is left alone: it would have to be measured with a clock that may be wrong."""
    for name, value in headers:
        if name.lower() == b"retry-after" and value.isdigit() and len(value) < 10:
            return float(value)
    return None


class _Tap(trio.abc.Stream):
    """A stream that tells how much arrives, and lets writes to a peer that is gone pass unheard."""

    def __init__(self, stream: trio.abc.Stream, on_data: Callable[[int], None]) -> None:
        self._stream = stream
        self._on_data = on_data
        self._deaf = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self._deaf:
            await trio.lowlevel.checkpoint()
            return
        try:
            await self._stream.send_all(data)
        except trio.BrokenResourceError:
            self._deaf = True

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data = await self._stream.receive_some(max_bytes)
        self._on_data(len(data))
        return data

    async def aclose(self) -> None:
        await self._stream.aclose()
