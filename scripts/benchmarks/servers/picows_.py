"""Nothing but picows, on uvloop. Arguments: PORT"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import uvloop
from picows import WSListener, WSMsgType, ws_create_server

from ..workload import Connection, Envelope, OnAsyncio, Thin, encode

TEXT = WSMsgType.TEXT


class OnPicows(Thin):
    """The workload over picows' transports."""

    async def publish(self, user: str, event: Envelope) -> None:
        if (connection := self.to(user)) is not None:
            connection.link.send(TEXT, encode(event).encode())

    async def broadcast(self, event: Envelope) -> None:
        data = encode(event).encode()
        for connection in self.connections.values():
            connection.link.send(TEXT, data)


async def main(port: int) -> None:
    """Serve, and do as told, until the input ends."""
    workload = OnPicows(OnAsyncio())

    class Listener(WSListener):  # type: ignore[misc]
        def __init__(self, user: str) -> None:
            super().__init__()
            self.user = user

        def on_ws_connected(self, transport: Any) -> None:
            self.connection = Connection(workload, self.user, transport)

        def on_ws_frame(self, transport: Any, frame: Any) -> None:
            if frame.msg_type == TEXT:
                self.connection.heard(frame.get_payload_as_utf8_text())

        def on_ws_disconnected(self, transport: Any) -> None:
            self.connection.gone()

    def listen(request: Any) -> Listener:
        return Listener(request.path.decode().partition("user=")[2])

    async with await ws_create_server(listen, "127.0.0.1", port, backlog=2048):
        await workload.serve()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as _runner:
        _runner.run(main(int(sys.argv[1])))
