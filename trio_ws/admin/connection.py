"""One HTTP connection of the admin listener: Hypercorn's HTTP/1.1 on a Trio stream, with a deadline for each wait.

Hypercorn's own `TCPServer` shields its writes without a deadline (a peer that does not read can't be cancelled),
blocks for good where a request is answered before its body was read, and lets an exception of one connection end
the process. Here

- a request's head is read within `HEAD_TIMEOUT`, counted from the end of the request before it; a body within the
  deadline of the call that reads it; a write within `WRITE_TIMEOUT`;
- what is left of a body when its call was answered is read and thrown away for a moment (`LINGER`), so that the
  client gets to see the answer;
- HTTP/2 is never switched to: one connection is one call at a time.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

import h11
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import (
    AppWrapper,
    ASGIReceiveEvent,
    ASGISendEvent,
    ConnectionState,
    H11SendableEvent,
)
from hypercorn.typing import Scope as HypercornScope
from starlette.types import ASGIApp

from ..config import KIB, MIB

Address: TypeAlias = tuple[str, int]

logger = logging.getLogger(__name__)

HEAD_TIMEOUT: Final = 10.0
"""Seconds within which the head of a request is there; also how long an idle connection is kept."""

WRITE_TIMEOUT: Final = 10.0
"""Seconds within which the peer takes one piece of an answer."""

LINGER: Final = 2.0
"""Seconds for which a connection that is over is still read, so that its last answer is not reset away."""

LINGER_BYTES: Final = 4 * MIB

_RECEIVE = 64 * KIB


def hypercorn_config() -> Config:
    """Hypercorn's part of the settings: no logs of its own, heads of 16 KiB at most."""
    config = Config()
    config.accesslog = config.errorlog = None
    config.include_server_header = False
    config.h11_max_incomplete_size = 16 * KIB
    return config


class Connection:
    """Serves the calls of one connection, one after the other.

    Args:
      stream: the connection; closed by force by whoever opened it, when this has ended.
      app: what answers.
      config: see `hypercorn_config`.
      server, client: the addresses of both ends, for the app.
      secure: it is spoken over TLS.
    """

    def __init__(
        self,
        stream: trio.abc.HalfCloseableStream,
        app: ASGIApp,
        config: Config,
        *,
        server: Address | None = None,
        client: Address | None = None,
        secure: bool = False,
    ) -> None:
        self._stream = stream
        self._secure = secure
        self._app = app
        self._server, self._client = server, client
        self._config = config
        self._write = trio.Lock()
        self._reading = trio.CancelScope()
        self._read_by = trio.current_time() + HEAD_TIMEOUT
        self._over = False
        self._protocol: H11Protocol
        self._nursery: trio.Nursery

    async def run(self) -> None:
        """Serve until either side ends it. Cancelled, the call at hand is cancelled and its answer cut off."""
        async with trio.open_nursery() as self._nursery:
            self._protocol = _Http1(
                _wrapped(self._app),
                self._config,
                WorkerContext(None),
                _Calls(self._nursery),
                ConnectionState({}),
                self._secure,
                self._client,
                self._server,
                self._send,
            )
            await self._read()

    async def _read(self) -> None:
        dropped = 0
        while data := await self._receive():
            if not self._over:
                await self._protocol.handle(RawData(data))
            elif (dropped := dropped + len(data)) > LINGER_BYTES:
                break
        if not self._over:
            await self._protocol.handle(RawData(b""))
        await self._protocol.handle(Closed())

    async def _receive(self) -> bytes:
        """What comes next; nothing when the peer is done, or it took too long."""
        with trio.CancelScope(deadline=self._read_by) as self._reading:
            try:
                return bytes(await self._stream.receive_some(_RECEIVE))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass
        return b""

    def _expect_within(self, seconds: float) -> None:
        self._read_by = self._reading.deadline = trio.current_time() + seconds

    async def _send(self, event: Event) -> None:
        """What the protocol asks for."""
        if isinstance(event, RawData):
            await self._send_all(event.data)
        elif isinstance(event, Updated):
            self._expect_within(HEAD_TIMEOUT if event.idle else math.inf)
        elif isinstance(event, Closed) and not self._over:
            self._over = True
            async with self._write:
                try:
                    with trio.move_on_after(WRITE_TIMEOUT):
                        await self._stream.send_eof()
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    pass
            self._expect_within(LINGER)

    async def _send_all(self, data: bytes) -> None:
        async with self._write:
            try:
                with trio.fail_after(WRITE_TIMEOUT):
                    await self._stream.send_all(data)
            except (trio.TooSlowError, trio.BrokenResourceError, trio.ClosedResourceError):
                # Nobody is there to be answered: what was asked for is given up.
                self._nursery.cancel_scope.cancel()
            except trio.Cancelled:
                # Half a piece may be out; whatever followed would be read as its rest.
                self._nursery.cancel_scope.cancel()
                raise


class _Strict(h11.Connection):
    """Refuses two things that h11 lets pass.

    A body that has two lengths: a proxy in front may have gone by the other one, and seen other requests. A head that
    is too long, but came in one piece.
    """

    def __init__(self, max_head: int) -> None:
        super().__init__(h11.SERVER, max_incomplete_event_size=max_head)
        self._max_head = max_head

    def next_event(self) -> Any:
        """As h11's."""
        event = super().next_event()
        if isinstance(event, h11.Request):
            lines = sum(len(name) + len(value) + 4 for name, value in event.headers)
            if len(event.target) + lines > self._max_head:
                raise h11.RemoteProtocolError("the head is too long", error_status_hint=431)
            lengths = {name for name, _ in event.headers} & {b"content-length", b"transfer-encoding"}
            if len(lengths) == 2:
                raise h11.RemoteProtocolError("both Content-Length and Transfer-Encoding")
        return event


class _Http1(H11Protocol):
    """HTTP/1.1 and 1.0, and nothing else. The head of an answer goes out with what follows it, in one write."""

    _head = b""

    def __init__(self, app: AppWrapper, config: Config, *args: Any) -> None:
        super().__init__(app, config, *args)
        self.connection = _Strict(config.h11_max_incomplete_size)

    async def _send_h11_event(self, event: H11SendableEvent) -> None:
        try:
            data = self.connection.send(event) or b""
        except h11.LocalProtocolError:
            if self.connection.their_state is not h11.ERROR:
                raise
            return
        if isinstance(event, h11.Response):
            self._head = data
            return
        data, self._head = self._head + data, b""
        if data:
            await self.send(RawData(data))

    async def _check_protocol(self, event: h11.Request) -> None:
        """Hypercorn switches to HTTP/2 here, where it is asked for; a server may leave it at what it speaks."""


class _Calls:
    """Runs the calls of a connection: Hypercorn's idea of a task group.

    In place of Hypercorn's own because of the queue between connection and call: there a full one blocks the end
    of the call; here that end is a closed channel, which blocks nobody.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery

    async def spawn_app(
        self,
        app: AppWrapper,
        config: Config,
        scope: HypercornScope,
        send: Callable[[ASGISendEvent | None], Awaitable[None]],
    ) -> Callable[[ASGIReceiveEvent], Awaitable[None]]:
        """Start `app` on one call; returns what hands it the parts of the request."""
        to_call, from_connection = trio.open_memory_channel[ASGIReceiveEvent](1)

        async def put(message: ASGIReceiveEvent) -> None:
            if message["type"] == "http.disconnect":
                to_call.close()
                return
            try:
                await to_call.send(message)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass  # the call has ended without it

        async def receive() -> ASGIReceiveEvent:
            try:
                return await from_connection.receive()
            except trio.EndOfChannel:
                return {"type": "http.disconnect"}

        async def run() -> None:
            with from_connection:
                try:
                    await app(scope, receive, send, trio.to_thread.run_sync, trio.from_thread.run)
                except Exception:
                    logger.exception("a call of the admin API failed")
            await send(None)

        self._nursery.start_soon(run)
        return put

    def spawn(self, function: Callable[..., Awaitable[Any]], *args: Any) -> None:
        """Run something beside the call."""
        self._nursery.start_soon(function, *args)

    async def __aenter__(self) -> _Calls:
        return self

    async def __aexit__(self, *args: object) -> None:
        return None


def _wrapped(app: ASGIApp) -> AppWrapper:
    """`app` as Hypercorn calls it."""

    async def call(scope: Any, receive: Any, send: Any, sync_spawn: Any, call_soon: Any) -> None:
        await app(scope, receive, send)

    return call
