"""How the load generator connects its sessions: `picows` on uvloop for figures, `websockets` where those are missing.

A dialer connects a session to its URL and returns once it is open; from then on the session is called with what comes.
What the client costs is not measured, but a slow one is what is measured in the end: take `picows` for figures.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from .session import Session, Wire

Dial: TypeAlias = Callable[[Session, int], Awaitable[None]]
"""Connects a session to the server on a port."""
NewLoop: TypeAlias = Callable[[], asyncio.AbstractEventLoop]

HANDSHAKE_TIMEOUT = 60.0


def picows() -> tuple[Dial, NewLoop]:
    """picows, and uvloop to run it on; ImportError where either is missing."""
    import uvloop
    from picows import WSListener, WSMsgType, ws_connect

    text, binary = WSMsgType.TEXT, WSMsgType.BINARY
    data_frames = {text, binary, WSMsgType.CONTINUATION}

    class Listener(WSListener):  # type: ignore[misc]
        def __init__(self, session: Session) -> None:
            super().__init__()
            self.session = session
            self.kind = binary if session.binary else text

        def on_ws_connected(self, transport: Any) -> None:
            kind, send, tcp = self.kind, transport.send, transport.underlying_transport
            self.session.connection_made(
                Wire(lambda data: send(kind, data), tcp.abort, tcp.pause_reading, tcp.resume_reading)
            )

        def on_ws_frame(self, transport: Any, frame: Any) -> None:
            if frame.msg_type in data_frames:
                self.session.message(frame.get_payload_as_bytes())

        def on_ws_disconnected(self, transport: Any) -> None:
            self.session.connection_lost()

    async def dial(session: Session, port: int) -> None:
        headers = {"Sec-WebSocket-Protocol": session.subprotocol} if session.subprotocol else None
        await ws_connect(
            lambda: Listener(session),
            session.url(port),
            extra_headers=headers,
            websocket_handshake_timeout=HANDSHAKE_TIMEOUT,
            read_buffer_init_size=8192,
        )

    return dial, uvloop.new_event_loop


def websockets() -> tuple[Dial, NewLoop]:
    """`websockets`, on asyncio's own loop: for a try, and for the tests."""
    from websockets import ConnectionClosed, Subprotocol
    from websockets.asyncio.client import ClientConnection, connect

    tasks: set[asyncio.Task[None]] = set()

    async def carry(session: Session, connection: ClientConnection) -> None:
        async def write() -> None:
            while True:
                data = await waiting.get()
                await connection.send(data if session.binary else data.decode())

        waiting: asyncio.Queue[bytes] = asyncio.Queue()
        tcp = connection.transport
        session.connection_made(Wire(waiting.put_nowait, tcp.abort, tcp.pause_reading, tcp.resume_reading))
        writer = asyncio.create_task(write())
        try:
            async for message in connection:
                session.message(message.encode() if isinstance(message, str) else message)
        except ConnectionClosed:
            pass
        finally:
            writer.cancel()
            session.connection_lost()

    async def dial(session: Session, port: int) -> None:
        connection = await connect(
            session.url(port),
            subprotocols=[Subprotocol(session.subprotocol)] if session.subprotocol else None,
            open_timeout=HANDSHAKE_TIMEOUT,
            compression=None,
            proxy=None,
            ping_interval=None,
        )
        task = asyncio.create_task(carry(session, connection))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    return dial, asyncio.new_event_loop


DIALERS: dict[str, Callable[[], tuple[Dial, NewLoop]]] = {"picows": picows, "websockets": websockets}
