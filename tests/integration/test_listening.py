"""Ways in other than plain TCP, on real sockets: TLS, Unix sockets, and behind a proxy."""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import websockets.sync.client

import trio_ws
from trio_ws.server.auth import Credentials
from trio_ws.server.proxies import TrustedProxies
from trio_ws.server.tls import Certificates

from ..server.certificates import write_certificate
from ..server.raw import Peer, request
from ..server.tokens import pem, private_key, token

pytestmark = pytest.mark.integration


@asynccontextmanager
async def served(**options: Any) -> AsyncIterator[tuple[trio_ws.Hub, tuple[str, int]]]:
    """A hub and its listener; fails after a while."""
    with trio.fail_after(20):
        async with trio_ws.open_hub(trio_ws.Config(drain_timeout=0.2)) as hub, trio.open_nursery() as nursery:
            options = {"port": 0} | options
            addresses = await nursery.start(partial(trio_ws.serve, hub, **options))
            yield hub, addresses[0]
            nursery.cancel_scope.cancel()


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 - of another task's doing, and nobody sets an event for it
        await trio.sleep(0.01)


async def answer_to(port: int, sent: bytes) -> bytes:
    """All that comes back until the server ends the connection; nothing where it is reset."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        peer = Peer(stream)
        try:
            await peer.send(sent)
            return await peer.rest()
        except trio.BrokenResourceError:
            return b""


def one_event(uri: str, **options: Any) -> str:
    """What a plain client is sent first."""
    with websockets.sync.client.connect(uri, open_timeout=5, **options) as client:
        received = client.recv(timeout=5)
        assert isinstance(received, str)
        return received


async def publish_to(hub: trio_ws.Hub, user: str) -> None:
    await until(lambda: hub.statistics().connections)
    await hub.publish(user, "note", "hello")


async def test_tls_from_the_first_byte(tmp_path: Path) -> None:
    write_certificate(tmp_path / "both.pem")
    certificates = Certificates(tmp_path / "both.pem")
    trusting = ssl.create_default_context(cafile=tmp_path / "both.pem")
    async with served(tls=certificates.current) as (hub, (_, port)), trio.open_nursery() as nursery:
        nursery.start_soon(publish_to, hub, "ada")
        uri = f"wss://localhost:{port}/ws?user=ada"
        assert "hello" in await trio.to_thread.run_sync(lambda: one_event(uri, ssl=trusting))
        assert b"HTTP" not in await answer_to(port, request())
        refused = hub.engine.refusals.counts
        await until(lambda: refused["tls"])
        assert sum(refused.values()) == 1


async def test_a_large_message_over_tls(tmp_path: Path) -> None:
    write_certificate(tmp_path / "both.pem")
    trusting = ssl.create_default_context(cafile=tmp_path / "both.pem")
    options: dict[str, Any] = {"tls": Certificates(tmp_path / "both.pem").current}
    async with served(**options) as (hub, (_, port)):
        uri = f"wss://localhost:{port}/ws"
        async with trio_ws.connect(uri, user="ada", ssl_context=trusting) as client:
            payload = {"text": "x" * 200_000}
            receipts = [hub.publish_nowait("ada", "note", payload) for _ in range(3)]
            for _ in receipts:
                assert (await client.__anext__()).payload == payload


async def test_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "ws.sock"
    async with served(host=f"unix:{path}") as (hub, address), trio.open_nursery() as nursery:
        assert address == (f"unix:{path}", 0)
        assert stat.S_ISSOCK(path.stat().st_mode)
        nursery.start_soon(publish_to, hub, "ada")
        connect = partial(websockets.sync.client.unix_connect, str(path), "ws://localhost/ws?user=ada")

        def talk() -> str:
            with connect(open_timeout=5) as client:
                return str(client.recv(timeout=5))

        assert "hello" in await trio.to_thread.run_sync(talk)
    assert not path.exists()


async def test_a_unix_socket_that_was_left_over_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "ws.sock"
    left = trio.socket.socket(trio.socket.AF_UNIX)
    await left.bind(str(path))
    left.close()
    async with served(host=f"unix:{path}"):
        with pytest.raises(ExceptionGroup) as caught:
            async with served(host=f"unix:{path}"):
                pytest.fail("one that is alive keeps its own")
        assert caught.group_contains(OSError, match="in use")
    path.write_text("no socket")
    with pytest.raises(ExceptionGroup):
        async with served(host=f"unix:{path}"):
            pass
    assert path.read_text() == "no socket"


class TestBehindAProxy:
    @staticmethod
    async def seen(first: bytes, head: bytes, proxies: TrustedProxies | None) -> str | None:
        """Where the server takes a client to come from."""
        remotes: list[str] = []

        async def authenticate(credentials: Credentials) -> None:
            remotes.append(credentials.remote)

        async with served(proxies=proxies, authenticate=authenticate) as (_, (_, port)):
            await answer_to(port, first + head)
        return remotes[0] if remotes else None

    async def test_a_header(self) -> None:
        head = request(b"X-Forwarded-For: 203.0.113.7")
        assert await self.seen(b"", head, TrustedProxies(["127.0.0.0/8"])) == "203.0.113.7"
        assert await self.seen(b"", head, TrustedProxies(["10.0.0.0/8"])) == "127.0.0.1"
        assert await self.seen(b"", head, None) == "127.0.0.1"

    async def test_the_proxy_protocol(self) -> None:
        first = b"PROXY TCP4 203.0.113.7 127.0.0.1 4711 443\r\n"
        trusting = TrustedProxies(["127.0.0.0/8"], "proxy-protocol")
        assert await self.seen(first, request(), trusting) == "203.0.113.7"
        assert await self.seen(b"", request(), trusting) is None
        others = TrustedProxies(["10.0.0.0/8"], "proxy-protocol")
        assert await self.seen(b"", request(), others) == "127.0.0.1"
        assert await self.seen(first, request(), others) is None

    async def test_rates_are_those_of_the_client(self) -> None:
        config = trio_ws.Config(connect_rate=0.01, connect_burst=1, drain_timeout=0.1)
        with trio.fail_after(20):
            async with trio_ws.open_hub(config) as hub, trio.open_nursery() as nursery:
                proxies = TrustedProxies(["127.0.0.1"])
                start = partial(trio_ws.serve, hub, port=0, proxies=proxies)
                ((_, port),) = await nursery.start(start)

                async def status(client: bytes) -> bytes:
                    return (await answer_to(port, request(b"X-Forwarded-For: " + client)))[9:12]

                assert await status(b"203.0.113.1") == b"401"
                assert await status(b"203.0.113.1") == b"429"
                assert await status(b"203.0.113.2") == b"401"
                nursery.cancel_scope.cancel()


def test_the_command_reads_its_files_again_on_a_signal(tmp_path: Path) -> None:
    """Both certificates, the keys of tokens, and those of the admin API; unseen by a look at them."""
    from ..cli.fake_admin import environment, finish, start, trio_ws

    ws, admin, pem_file, keys = (tmp_path / name for name in ("ws.pem", "admin.pem", "tokens.pem", "keys"))

    def write(n: int) -> None:
        write_certificate(ws, serial=n)
        write_certificate(admin, serial=n)
        pem_file.write_bytes(pem("ES256", f"key {n}"))
        keys.write_text(f"key {n}\n")
        for file in (ws, admin, pem_file, keys):
            os.utime(file, ns=(0, 0))

    write(1)
    process = start(
        *("serve", "--store", "memory", "--port", "0", "--admin-port", "0"),
        *("--tls-cert", str(ws), "--admin-tls-cert", str(admin)),
        *("--jwt-public-key", str(pem_file), "--api-key-file", str(keys)),
    )
    assert process.stderr is not None
    try:
        lines = []
        while not (lines and lines[-1].startswith("admin on ")):
            lines.append(process.stderr.readline().decode())
        ws_port, admin_port = (
            int(found[1])
            for found in (re.search(r"s://127.0.0.1:(\d+)", line) for line in lines[-2:])
            if found
        )

        def shown(port: int) -> str:
            return ssl.get_server_certificate(("127.0.0.1", port), timeout=5)

        def published(key: str) -> tuple[int, str]:
            url = ("--url", f"https://127.0.0.1:{admin_port}", "--api-key", key)
            trusting = environment(SSL_CERT_FILE=str(admin))
            status, _, told = trio_ws("publish", *url, "ada", "note", env=trusting)
            return status, told

        def connected(n: int) -> bytes:
            context = ssl.create_default_context(cafile=str(ws))
            bearer = token(private_key("ES256", f"key {n}"), "ES256")
            with (
                socket.create_connection(("127.0.0.1", ws_port), 5) as raw,
                context.wrap_socket(raw, server_hostname="localhost") as stream,
            ):
                stream.sendall(request(b"Authorization: Bearer " + bearer.encode()))
                return stream.recv(100)[9:12]

        first = shown(ws_port), shown(admin_port)
        assert published("key 1") == (0, "")
        assert published("key 2")[0] == 1
        assert (connected(1), connected(2)) == (b"101", b"401")
        write(2)
        process.send_signal(signal.SIGHUP)
        again = 0
        while again < 4:
            again += b"read again" in process.stderr.readline()
        assert not {shown(ws_port), shown(admin_port)} & set(first)
        assert published("key 2") == (0, "")
        assert (connected(1), connected(2)) == (b"401", b"101")
    finally:
        process.send_signal(signal.SIGTERM)
        status, _, told = finish(process)
    assert status == 0
    assert "key 1" not in told
