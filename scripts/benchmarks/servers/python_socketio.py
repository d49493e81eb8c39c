"""python-socketio, as an ASGI application on uvicorn and uvloop. Arguments: PORT"""

from __future__ import annotations

import asyncio
import sys
from typing import Any
from urllib.parse import parse_qs

import socketio
import uvicorn
import uvloop

from ..workload import Connection, Envelope, OnAsyncio, Thin


class OnSocketIO(Thin):
    """The workload over a Socket.IO server; each event has a callback for its ack, which a broadcast can't have."""

    acks_broadcast = False

    def __init__(self, server: Any) -> None:
        super().__init__(OnAsyncio())
        self._server = server

    async def publish(self, user: str, event: Envelope) -> None:
        if (connection := self.to(user)) is not None:
            await self._server.emit("ev", event, to=connection.link, callback=lambda *_: connection.ack_one())

    async def broadcast(self, event: Envelope) -> None:
        await self._server.emit("ev", event)


async def main(port: int) -> None:
    """Serve, and do as told, until the input ends."""
    server = socketio.AsyncServer(async_mode="asgi", transports=["websocket"])
    workload = OnSocketIO(server)
    connections: dict[str, Connection] = {}

    @server.event  # type: ignore[untyped-decorator]
    async def connect(sid: str, environ: dict[str, str]) -> None:
        user = parse_qs(environ["QUERY_STRING"])["user"][0]
        connections[sid] = Connection(workload, user, sid)

    @server.event  # type: ignore[untyped-decorator]
    async def disconnect(sid: str) -> None:
        connections.pop(sid).gone()

    config = uvicorn.Config(
        socketio.ASGIApp(server),
        host="127.0.0.1",
        port=port,
        loop="uvloop",
        ws="auto",
        log_level="warning",
        backlog=2048,
    )
    http = uvicorn.Server(config)
    async with asyncio.TaskGroup() as group:
        group.create_task(http.serve())
        while not http.started:  # noqa: ASYNC110 - uvicorn has nothing to wait for
            await asyncio.sleep(0.02)
        await workload.serve()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as _runner:
        _runner.run(main(int(sys.argv[1])))
