"""An echo on the server's own way in: its listener, poller, read lane, stream, and trio-websocket where it is needed.

Only what `Connection` makes of a WebSocket is left out: `open_echo` stands where `serve(open_transport=…)` has the
package's own, holds one, and answers each message with itself.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import trio

import trio_ws
from trio_ws.core.wire import text_message
from trio_ws.server.ending import BinaryMessage
from trio_ws.server.poller import Poller, open_poller
from trio_ws.server.transport import Transport, open_transport

MIB = 2**20
CONFIG = trio_ws.Config(
    # What Autobahn's cases on limits send: 16 MiB in one message, 4 MiB in pieces of 64 bytes.
    max_message_bytes=16 * MIB,
    max_fragments=2**17,
    receive_rate=1e9,
    receive_burst=10**9,
    # An echo is never past its handshake.
    hello_timeout=3600,
    write_timeout=60,
)


@asynccontextmanager
async def serving_echo(
    config: trio_ws.Config = CONFIG, *, lane: bool = True, polled: bool = True
) -> AsyncIterator[int]:
    """An echo server on a free port of the loopback while the block runs; gives the port.

    Args:
      config: its limits.
      lane: whether small messages take the read lane.
      polled: whether the poller reads; else each connection has a task that does.
    """
    async with trio_ws.open_hub(config) as hub, open_poller() as poller, trio.open_nursery() as nursery:
        opening = partial(open_echo, lane=lane, poller=poller if polled else None)
        ((_, port),) = await nursery.start(
            partial(trio_ws.serve, hub, port=0, path="/", open_transport=opening)
        )
        yield port
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_echo(
    stream: trio.abc.Stream, *, config: trio_ws.Config, remote: str, lane: bool, poller: Poller | None
) -> AsyncIterator[Transport]:
    """Echo until the WebSocket ends. It never comes to the block: it raises `TransportClosed` before."""
    async with open_transport(stream, config=config, remote=remote, poller=poller) as transport:
        await transport.accept(None)

        def take(message: bytes) -> None:
            transport.send_nowait(text_message(message))

        if lane:
            transport.open_lane(take)
        while True:
            try:
                take((await transport.receive()).encode())
            except BinaryMessage as message:
                transport.send_nowait(binary_message(message.payload))
        yield transport


def binary_message(payload: bytes) -> bytes:
    """A server's binary message: the frame that a text would have, with the other opcode."""
    return b"\x82" + text_message(payload)[1:]
