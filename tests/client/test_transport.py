"""The border to trio-websocket: URLs, and that the private names leaned upon are there."""

from __future__ import annotations

import datetime
import pathlib
import ssl

import pytest
import trio
import trio_websocket
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from trio.testing import MockClock, wait_all_tasks_blocked
from wsproto.events import TextMessage

from trio_ws.client import connect
from trio_ws.client import transport as transport_module
from trio_ws.client.transport import Address, parse_url
from trio_ws.errors import InvalidConfig, SessionEnded

from .scripted import Server, event


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
    for name in ("user", "token"):
        with pytest.raises(InvalidConfig, match=f"{name} holds half of a surrogate pair"):
            connect("ws://h/", **{name: "\udcff"})  # type: ignore[arg-type]


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


# --- TLS ---


def make_certificate(name: str) -> tuple[str, str]:
    """A self-signed certificate for `name`, and its key, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode(), private.decode()


@pytest.mark.parametrize("trusted", [True, False])
async def test_tls(
    server: Server,
    clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: pathlib.Path,
    trusted: bool,
) -> None:
    async def open_tcp_stream(host: str, port: int) -> trio.abc.Stream:
        assert (host, port) == ("test", 443)
        return await server.open_stream()

    monkeypatch.setattr(trio, "open_tcp_stream", open_tcp_stream)
    certificate, key = make_certificate("test")
    (tmp_path / "certificate").write_text(certificate)
    (tmp_path / "key").write_text(key)
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.load_cert_chain(tmp_path / "certificate", tmp_path / "key")
    ours = ssl.create_default_context(cadata=certificate if trusted else None)
    if not trusted:
        ours = None  # Python's default, which trusts no such thing
    async with trio.open_nursery() as nursery:
        async with connect("wss://test/ws", ssl_context=ours) as client:
            peer = await server.accept()
            tls = trio.SSLStream(peer.stream, theirs, server_side=True, https_compatible=True)
            if trusted:
                peer.stream = tls
                await peer.handshake()
                await peer.expect("hello")
                await peer.welcome()
                await peer.send(event(1))
                assert (await client.receive()).seq == 1
                nursery.start_soon(peer.bye)
            else:
                with pytest.raises(trio.BrokenResourceError):
                    await tls.do_handshake()
                await wait_all_tasks_blocked()
                assert "not trusted" in client.state.reason
        assert all(end.closed for end in server.ends)
