"""The link, and real servers that are killed, paused, full, loading, or will not let it in."""

from __future__ import annotations

import logging
import socket
import struct
from functools import partial
from pathlib import Path

import pytest
import trio
from loopback.redis import RedisServer, until

from tests.server.certificates import write_certificate
from trio_ws.errors import StoreError
from trio_ws.redis.link import Redis
from trio_ws.redis.refusals import Refused, Unreachable
from trio_ws.redis.script import Script

ADD = Script("add", "return redis.call('INCRBY', KEYS[1], ARGV[1])")


async def test_a_server_that_is_killed_and_comes_back(redis_directory: Path, nursery: trio.Nursery) -> None:
    async with RedisServer(redis_directory, aof="always") as server:
        redis = Redis(server.url)
        await nursery.start(redis.run)
        received: list[bytes] = []
        await nursery.start(redis.subscribe, ["channel"], received.append)
        done = failed = 0
        stop = False

        async def add() -> None:
            nonlocal done, failed
            while not stop:
                [reply] = await redis.scripts(ADD, [(["sum"], [1])])
                done += not isinstance(reply, StoreError)
                failed += isinstance(reply, StoreError)

        async with trio.open_nursery() as adding:
            for _ in range(5):
                adding.start_soon(add)
            for _ in range(3):
                enough = done + 50
                await until(partial(_above, lambda: done, enough))
                await server.restart()
            stop = True
        total = int(await redis.command("GET", "sum"))
        assert done <= total <= done + failed
        assert failed <= 5 * 3  # what was under way; the others have waited

        async def heard() -> bool:
            await redis.publish("channel", b"hello")
            return bool(received)

        await until(heard)


async def _above(number: object, limit: int) -> bool:
    return number() > limit  # type: ignore[operator, no-any-return]


async def test_a_server_that_stands_still(redis_directory: Path, nursery: trio.Nursery) -> None:
    async with RedisServer(redis_directory) as server:
        redis = Redis(server.url, timeout=0.2)
        await nursery.start(redis.run)
        server.pause()
        await fails(redis, "no answer within 0.2 s")
        server.go_on()

        async def answers() -> bool:
            try:
                return await redis.command("PING") == b"PONG"
            except StoreError:
                return False

        await until(answers)


async def fails(redis: Redis, words: str) -> None:
    """Wait until calls fail with such an error."""

    async def told() -> bool:
        with pytest.raises(StoreError) as caught:
            await redis.command("PING")
        return words in str(caught.value)

    await until(told)


async def test_no_server(
    redis_directory: Path, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "trio_ws.redis")
    server = RedisServer(redis_directory, password="se:cret/")
    redis = Redis(f"redis://:wrong@127.0.0.1:{server.port}", timeout=0.2)
    await nursery.start(redis.run)
    await fails(redis, "Connection refused")
    async with server:
        await fails(redis, "password is wrong")
        right = Redis(f"redis://:se%3Acret%2F@127.0.0.1:{server.port}/2")
        await nursery.start(right.run)
        assert await right.command("SET", "a", 1) == b"OK"
        none = Redis(f"redis://127.0.0.1:{server.port}", timeout=100)
        await nursery.start(none.run)
        with pytest.raises(Refused, match="wants a password") as refusal:
            await none.command("PING")
        assert not refusal.value.passes
        own = Redis(f"unix://:se%3Acret%2F@{server.socket}?db=2")
        await nursery.start(own.run)
        assert await own.command("GET", "a") == b"1"
        await right.command(
            "ACL", "SETUSER", "ada", "on", ">secret", "~a", "+get", "+ping", "+role", "+select"
        )
        ada = Redis(f"redis://ada:secret@127.0.0.1:{server.port}/2")
        await nursery.start(ada.run)
        assert await ada.command("GET", "a") == b"1"
        with pytest.raises(Refused, match="its user may not do this") as caught:
            await ada.command("SET", "a", 2)
        assert caught.value.code == "NOPERM"
        cluster = Redis(f"redis+cluster://:se%3Acret%2F@127.0.0.1:{server.port}")
        await nursery.start(cluster.run)
        with pytest.raises(Refused, match="it is no Redis Cluster") as caught:
            await cluster.command("PING")
        assert not caught.value.passes
        nowhere = Redis("redis://two..dots")
        await nursery.start(nowhere.run)
        await fails(nowhere, "two..dots:6379 can't be reached")
        secure = Redis(f"rediss://127.0.0.1:{server.port}", timeout=0.2)
        await nursery.start(secure.run)
        await fails(
            secure, "no answer by TLS within 0.2 s (where it speaks none, the URL begins with redis://)"
        )
    assert "cret" not in caplog.text
    assert "wrong@" not in caplog.text


async def test_a_server_that_is_full(redis_directory: Path, nursery: trio.Nursery) -> None:
    async with RedisServer(redis_directory) as server:
        redis = Redis(server.url)
        await nursery.start(redis.run)
        assert await redis.script(ADD, ["a"], [1]) == 1
        await server.configure(maxmemory=1)
        [full] = await redis.scripts(ADD, [(["a"], [1])])
        assert isinstance(full, Refused)
        assert (full.code, full.passes) == ("OOM", True)
        assert "maxmemory" in str(full)
        await server.configure(maxmemory=0)
        assert await redis.script(ADD, ["a"], [1]) == 2


async def test_a_server_that_loads_its_data(redis_directory: Path, nursery: trio.Nursery) -> None:
    slow = {"key-load-delay": 200}  # microseconds; each 1,000 keys it looks who is there
    async with RedisServer(redis_directory, aof="no", options=slow) as server:
        redis = Redis(server.url, timeout=10)
        await nursery.start(redis.run)
        await redis.commands([("SET", n, "x" * 100) for n in range(2100)])
        await server.stop()
        server.spawn()

        async def there() -> bool:
            try:
                return await redis.command("GET", 7) == b"x" * 100
            except Unreachable:  # but never Refused
                return False

        await until(there)


async def test_tls(redis_tls_directory: Path, tmp_path: Path, nursery: trio.Nursery) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    write_certificate(cert, key)
    async with RedisServer(redis_tls_directory, tls=(cert, key), password="secret") as server:
        redis = Redis(f"{server.url}?ssl_ca_certs={cert}")
        await nursery.start(redis.run)
        calls = [(["a"], [1])] * 1000
        assert await redis.scripts(ADD, calls) == list(range(1, 1001))
        assert await redis.command("SET", "large", "x" * 1_000_000) == b"OK"
        assert len(await redis.command("GET", "large")) == 1_000_000
        received: list[bytes] = []
        await nursery.start(redis.subscribe, ["channel"], received.append)
        assert await redis.publish("channel", b"hello") == 1
        stranger = Redis(server.url, timeout=0.2)
        await nursery.start(stranger.run)
        await fails(stranger, "ssl_ca_certs names the file of those that are trusted")
        plain = Redis(server.url.replace("rediss", "redis"), timeout=0.2)
        await nursery.start(plain.run)
        await fails(plain, "where it speaks TLS, the URL begins with rediss://")
        other_name = f"{server.url.replace('@127.0.0.1', '@127.1')}?ssl_ca_certs={cert}"
        misled = Redis(other_name)
        await nursery.start(misled.run)
        await fails(misled, "certificate is not valid for '127.1'")
        careless = Redis(f"{other_name}&ssl_check_hostname=false")
        await nursery.start(careless.run)
        assert await careless.command("PING") == b"PONG"
        await server.restart()
        assert await redis.command("PING") == b"PONG"


async def test_a_connection_that_is_reset_amid_a_reply(
    redis_server: RedisServer, nursery: trio.Nursery
) -> None:
    """Through a proxy that lets through so many bytes of answers on each connection, and then resets it."""
    allowed = 0

    async def serve(client: trio.SocketStream) -> None:
        server = await trio.open_tcp_stream("127.0.0.1", redis_server.port)
        left = allowed

        async def forward() -> None:
            async for data in client:
                await server.send_all(data)

        async with server, trio.open_nursery() as both:
            both.start_soon(forward)
            async for data in server:
                await client.send_all(data[:left])
                left -= len(data)
                if left <= 0:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    both.cancel_scope.cancel()

    [listener] = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
    redis = Redis(f"redis://127.0.0.1:{listener.socket.getsockname()[1]}")
    greeting = len(b"+PONG\r\n*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n")
    allowed = greeting + 10
    await nursery.start(redis.run)
    outcomes: list[object] = []

    async def ask(n: int) -> None:
        try:
            outcomes.append(await redis.command("ECHO", f"{n:04}") == b"%04d" % n)
        except Unreachable as error:
            outcomes.append(str(error))

    for allowed in range(greeting + 10, greeting + 60, 7):  # noqa: B007 - the proxy sees it
        async with trio.open_nursery() as asking:
            for n in range(5):
                asking.start_soon(ask, n)
    assert outcomes.count(True) > 5
    assert False not in outcomes
    assert len(outcomes) > outcomes.count(True)


async def test_a_subscription_that_was_cut_is_made_again(
    redis_server: RedisServer, nursery: trio.Nursery
) -> None:
    redis = Redis(redis_server.url)
    await nursery.start(redis.run)
    received: list[bytes] = []
    await nursery.start(redis.subscribe, ["channel"], received.append)
    await redis.command("CLIENT", "KILL", "TYPE", "pubsub")

    async def heard() -> bool:
        await redis.publish("channel", b"hello")
        return bool(received)

    await until(heard)


async def test_after_a_restart_it_is_not_known_for_a_while_that_nobody_listens(
    redis_directory: Path, nursery: trio.Nursery
) -> None:
    async with RedisServer(redis_directory) as server:
        redis = Redis(server.url)
        await nursery.start(redis.run)
        assert await redis.publish("channel", b"hello") == 0
        await server.restart()

        async def told() -> bool:
            try:
                await redis.publish("channel", b"hello")
            except Unreachable as error:
                return "nobody listens yet" in str(error)
            return False

        await until(told)
        other = Redis(server.url)  # who comes now has no reason to doubt it
        await nursery.start(other.run)
        assert await other.publish("channel", b"hello") == 0
