"""TLS of the admin listener: its end, as a client sees it."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from trio_ws.admin.connection import LINGER, Connection, hypercorn_config
from trio_ws.admin.tls import SecureStream

from ..server.certificates import write_certificate
from .test_connection import app


@pytest.mark.parametrize("unread", [0, 200_000])
async def test_a_last_answer_is_whole_and_its_end_is_told(
    autojump_clock: MockClock, tmp_path: Path, unread: int
) -> None:
    """Also where the peer is still sending a body that nobody reads: it is not reset before it has its answer."""
    write_certificate(tmp_path / "both.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "both.pem")
    theirs, ours = memory_stream_pair()
    begun = trio.current_time()

    async def serve() -> None:
        stream = await SecureStream(ours, context).do_handshake()
        await Connection(stream, app, hypercorn_config(), secure=True).run()
        await trio.aclose_forcefully(stream)

    trust = ssl.create_default_context(cafile=str(tmp_path / "both.pem"))
    client = trio.SSLStream(theirs, trust, server_hostname="localhost")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        size = unread + 1
        await client.send_all(b"POST /large HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % size)
        await client.send_all(b"x" * unread)
        answer = b""
        while len(answer.partition(b"\r\n\r\n")[2]) < 1_000_000:
            answer += await client.receive_some(65536)
        assert b"HTTP/1.1 200" in answer
        if unread:
            with pytest.raises(trio.BrokenResourceError):
                await client.receive_some(1)
        else:
            assert await client.receive_some(1) == b""  # the end of TLS, not only of TCP
    assert trio.current_time() - begun == pytest.approx(LINGER)


async def test_who_does_not_shake_hands_is_told_apart(tmp_path: Path) -> None:
    write_certificate(tmp_path / "both.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "both.pem")
    theirs, ours = memory_stream_pair()
    await theirs.send_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    with pytest.raises(trio.BrokenResourceError):
        await SecureStream(ours, context).do_handshake()
