"""Nothing but trio-websocket: what this server is built on. Arguments: PORT"""

from __future__ import annotations

import sys
from functools import partial

import trio
from trio_websocket import ConnectionClosed, WebSocketRequest, serve_websocket

from ..workload import Connection, Envelope, OnTrio, Thin, encode


class OnTrioWebsocket(Thin):
    """The workload over connections of trio-websocket."""

    async def publish(self, user: str, event: Envelope) -> None:
        if (connection := self.to(user)) is not None:
            await _send(connection, encode(event))

    async def broadcast(self, event: Envelope) -> None:
        text = encode(event)
        for connection in list(self.connections.values()):
            await _send(connection, text)


async def _send(connection: Connection, text: str) -> None:
    try:
        await connection.link.send_message(text)
    except ConnectionClosed:
        pass


async def main(port: int) -> None:
    """Serve, and do as told, until the input ends."""
    workload = OnTrioWebsocket(OnTrio())

    async def handle(request: WebSocketRequest) -> None:
        link = await request.accept()
        connection = Connection(workload, request.path.partition("user=")[2], link)
        try:
            while True:
                connection.heard(await link.get_message())
        except ConnectionClosed:
            pass
        finally:
            connection.gone()

    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve_websocket, handle, "127.0.0.1", port, None))
        await workload.serve()


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]))
