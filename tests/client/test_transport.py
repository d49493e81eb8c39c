"""The border to trio-websocket: URLs, and that the private names leaned upon are there."""

from __future__ import annotations

import ssl

import pytest
import trio
import trio_websocket
from trio.testing import MockClock
from wsproto.events import TextMessage

from trio_ws.client import connect
from trio_ws.client import transport as transport_module
from trio_ws.client.transport import Address, parse_url
from trio_ws.errors import InvalidConfig, SessionEnded

from .scripted import Server


@pytest.mark.parametrize(
    ("url", "address", "header"),
    [
        ("ws://h/ws", Address(False, "h", 80, "/ws"), "h"),
        ("ws://h", Address(False, "h", 80, "/"), "h"),
        ("ws://h:8765?a=1&b", Address(False, "h", 8765, "/?a=1&b"), "h:8765"),
        ("wss://h/x%20y", Address(True, "h", 443, "/x%20y"), "h"),
        ("wss://h:80/", Address(True, "h", 80, "/"), "h:80"),
        ("ws://[::1]:9/ws#part", Address(False, "::1", 9, "/ws"), "[::1]:9"),
        ("WS://H/", Address(False, "h", 80, "/"), "h"),
    ],
)
def test_urls(url: str, address: Address, header: str) -> None:
    assert parse_url(url) == address
    assert parse_url(url).header == header


@pytest.mark.parametrize(
    "url",
    [
        "",
        "h:80",
        "http://h/",
        "ws:///ws",
        "ws://h:99999/",
        "ws://h:x/",
        "ws://[::1/",
        "ws://u:p@h/",
        "ws://h/a b",
        "ws://h/\u00e9",
        "ws://h/?q=\u00e9",
    ],
)
def test_what_is_no_url_for_us(url: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        connect(url)
    assert "p@" not in str(caught.value)


def test_arguments_out_of_bounds() -> None:
    with pytest.raises(InvalidConfig, match="from_"):
        connect("ws://h/", from_="all")  # type: ignore[arg-type]
    with pytest.raises(InvalidConfig, match="ssl_context"):
        connect("ws://h/", ssl_context=ssl.create_default_context())
    with pytest.raises(InvalidConfig, match="max_message_bytes"):
        connect("ws://h/", max_message_bytes=255)


def test_the_private_names_of_trio_websocket_are_there() -> None:
    assert trio_websocket.__version__ == "0.12.2"
    ours, _ = trio.testing.memory_stream_pair()
    connection = trio_websocket.WebSocketConnection(
        ours,
        trio_websocket._impl.WSConnection(trio_websocket._impl.ConnectionType.CLIENT),
        host="h",
        path="/",
    )
    assert connection._reject_status == 0
    assert connection._reject_headers == ()
    assert connection._wsproto.state.name == "CONNECTING"


async def test_a_message_above_the_limit_ends_the_session(
    server: Server, clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport_module, "MAX_MESSAGE", 1000)
    async with server.connect() as client:
        peer = await server.session()
        await peer.say("x" * 1001)
        with pytest.raises(SessionEnded) as caught:
            await client.receive()
        assert caught.value.code == 1009


async def test_fragments_make_one_message(server: Server, clock: MockClock) -> None:
    async with server.connect() as client:
        peer = await server.session()
        text = '{"t":"event","seq":1,"id":"a","type":"x","ts":1,"payload":null}'
        for n, part in enumerate((text[:9], "", text[9:])):
            await peer.stream.send_all(peer.ws.send(TextMessage(data=part, message_finished=n == 2)))
        assert (await client.receive()).payload is None
        await peer.close(1000)


async def test_a_ping_while_the_client_closes_is_no_harm(server: Server, clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        async with server.connect():
            peer = await server.session()

            @nursery.start_soon
            async def ping() -> None:
                assert await peer.receive() == {"t": "bye"}
                assert await peer.receive() == 1000
                await peer.stream.send_all(b"\x89\x00")
                await peer.close(1000)

            began = trio.current_time()
        assert trio.current_time() - began <= 1
