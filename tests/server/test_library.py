"""What `library.py` leans on beyond the public API of the library whose version is pinned."""

from __future__ import annotations

import inspect

import pytest
import trio
import trio.testing
import trio_websocket
from trio_websocket import WebSocketConnection
from wsproto.connection import ConnectionState

from trio_ws.config import Config
from trio_ws.server.transport import open_transport

from .raw import PING, REQUEST, Peer, frame


def test_the_version() -> None:
    assert trio_websocket.__version__ == "0.12.2"


@pytest.mark.parametrize(
    "name",
    [
        "_close_stream",
        "_close_web_socket",
        "_handle_close_connection_event",
        "_handle_message_event",
        "_handle_ping_event",
        "_handle_pong_event",
        "_reader_task",
        "_send",
    ],
)
def test_its_methods(name: str) -> None:
    assert inspect.iscoroutinefunction(getattr(WebSocketConnection, name))


async def test_its_attributes() -> None:
    theirs, ours = trio.testing.memory_stream_pair()
    peer = Peer(theirs)
    await peer.send(REQUEST, frame(PING))
    async with open_transport(ours, config=Config(), remote="test") as transport:
        await transport.accept(None)
        await peer.head()
        await peer.frame()
        library = transport._messages._library
        assert library is not None
        assert library._close_reason is None
        assert library._message_parts == []
        assert library._reader_running is True
        assert not library._close_handshake.is_set()
        assert library._wsproto.state is ConnectionState.OPEN
        assert isinstance(library._send_channel, trio.MemorySendChannel)
        assert isinstance(library._recv_channel, trio.MemoryReceiveChannel)
        assert library._stream is transport._messages._passed
        transport.abort()
        await trio.sleep_forever()
