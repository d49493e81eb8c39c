"""Nothing but `websockets`, on asyncio or uvloop. Arguments: PORT [--uvloop]"""

from __future__ import annotations

import asyncio
import sys

import uvloop
from websockets import ConnectionClosed
from websockets.asyncio.server import ServerConnection, broadcast, serve

from ..workload import Connection, Envelope, OnAsyncio, Thin, encode


class OnWebsockets(Thin):
    """The workload over connections of `websockets`."""

    async def publish(self, user: str, event: Envelope) -> None:
        if (connection := self.to(user)) is not None:
            try:
                await connection.link.send(encode(event))
            except ConnectionClosed:
                pass

    async def broadcast(self, event: Envelope) -> None:
        broadcast([connection.link for connection in self.connections.values()], encode(event))


async def main(port: int) -> None:
    """Serve, and do as told, until the input ends."""
    workload = OnWebsockets(OnAsyncio())

    async def handle(link: ServerConnection) -> None:
        assert link.request is not None
        connection = Connection(workload, link.request.path.partition("user=")[2], link)
        try:
            async for text in link:
                connection.heard(text)
        except ConnectionClosed:
            pass
        finally:
            connection.gone()

    async with serve(handle, "127.0.0.1", port, backlog=2048):
        await workload.serve()


if __name__ == "__main__":
    _new_loop = uvloop.new_event_loop if "--uvloop" in sys.argv else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=_new_loop) as _runner:
        _runner.run(main(int(sys.argv[1])))
