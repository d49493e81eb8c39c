"""Nothing but `websockets`, on Trio. Arguments: PORT"""

from __future__ import annotations

import sys
from functools import partial

import trio
from websockets import ConnectionClosed
from websockets.trio.connection import broadcast
from websockets.trio.server import ServerConnection, serve

from ..workload import Connection, Envelope, OnTrio, Thin, encode


class OnWebsockets(Thin):
    """The workload over connections of `websockets`."""

    async def publish(self, user: str, event: Envelope) -> None:
        if (connection := self.to(user)) is not None:
            try:
                await connection.link.send(encode(event))
            except ConnectionClosed:
                pass

    async def broadcast(self, event: Envelope) -> None:
        await broadcast([connection.link for connection in self.connections.values()], encode(event))


async def main(port: int) -> None:
    """Serve, and do as told, until the input ends."""
    workload = OnWebsockets(OnTrio())

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

    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve, handle, port, host="127.0.0.1", backlog=2048))
        await workload.serve()


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]))
