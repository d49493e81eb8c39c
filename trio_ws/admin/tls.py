"""TLS of the admin listener: a stream whose own side can be ended while the peer's goes on, as a last answer takes.

Trio's `SSLStream` can only be closed as a whole. A connection that is closed while something is unread is reset, and
the answer before it may be lost.
"""

from __future__ import annotations

import ssl
from typing import Self

import trio


class SecureStream(trio.abc.HalfCloseableStream):
    """TLS, as a server, over a connection. Closing it is closing the connection, at once."""

    def __init__(self, raw: trio.abc.HalfCloseableStream, context: ssl.SSLContext) -> None:
        self._raw = raw
        self._tls = trio.SSLStream(_Ending(raw), context, server_side=True)
        self._ended = False

    async def do_handshake(self) -> Self:
        """Shake hands; a checkpoint. Raises trio.BrokenResourceError; cancelled, it is of no use any more."""
        await self._tls.do_handshake()
        return self

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """What comes; once our side has ended, as it is on the wire: it is only to be thrown away."""
        if not self._ended:
            try:
                return bytes(await self._tls.receive_some(max_bytes))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                if not self._ended:
                    raise
        return bytes(await self._raw.receive_some(max_bytes))

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """As any stream's. Cancelled, the stream is broken."""
        await self._tls.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """As any stream's."""
        await self._tls.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        """Say that no more comes from our side, by TLS and by TCP. Cancelled, the stream is broken.

        Where something is unread, OpenSSL has no end to send: then the peer has only TCP's.
        """
        self._ended = True
        await self._tls.aclose()

    async def aclose(self) -> None:
        """Close the connection."""
        await self._raw.aclose()


class _Ending(trio.abc.Stream):
    """A connection that is half closed where it would be closed."""

    def __init__(self, raw: trio.abc.HalfCloseableStream) -> None:
        self._raw = raw

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._raw.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._raw.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._raw.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self._raw.send_eof()
