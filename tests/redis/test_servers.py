"""The servers that the other tests break do what those rely on."""

from __future__ import annotations

from pathlib import Path

import pytest
from loopback.redis import RedisCluster, RedisServer, Refused, Sentinels, until

from tests.server.certificates import write_certificate


async def test_a_server_is_empty_for_each_test(redis_server: RedisServer) -> None:
    assert await redis_server.call("DBSIZE") == 0
    await redis_server.call("SET", "name", "value")


async def test_a_server_is_empty_for_the_next_test(redis_server: RedisServer) -> None:
    assert await redis_server.call("DBSIZE") == 0
    await redis_server.call("SET", "name", "value")


async def test_what_was_answered_is_there_after_a_kill(redis_directory: Path) -> None:
    async with RedisServer(redis_directory, aof="always") as server:
        await server.call("SET", "name", "value")
        port = server.port
        await server.restart()
        assert (server.port, await server.call("GET", "name")) == (port, b"value")
        await server.stop()
        with pytest.raises(OSError):
            await server.call("PING")
        await server.start()


async def test_without_a_file_all_is_gone_after_a_kill(redis_directory: Path) -> None:
    async with RedisServer(redis_directory) as server:
        await server.call("SET", "name", "value")
        await server.restart()
        assert await server.call("GET", "name") is None


async def test_a_full_server_refuses(redis_directory: Path) -> None:
    async with RedisServer(redis_directory, options={"maxmemory": "1"}) as server:
        with pytest.raises(Refused, match="OOM"):
            await server.call("SET", "name", "value")
        await server.configure(maxmemory=0)
        await server.call("SET", "name", "value")


async def test_password_and_tls(redis_tls_directory: Path) -> None:
    redis_tls_directory.mkdir()  # noqa: ASYNC240
    files = redis_tls_directory / "cert.pem", redis_tls_directory / "key.pem"
    write_certificate(*files)
    async with RedisServer(redis_tls_directory, password="secret", tls=files) as server:
        assert server.url == f"rediss://:secret@127.0.0.1:{server.port}"
        assert await server.call("PING") == b"PONG"


async def test_the_replica_takes_over(redis_directory: Path) -> None:
    async with Sentinels(redis_directory, aof="always") as sentinels:
        await sentinels.primary.call("SET", "name", "value")
        await until_there(sentinels.replica, "name")
        sentinels.primary.kill()
        await sentinels.wait_primary(sentinels.replica)
        assert await sentinels.replica.call("GET", "name") == b"value"


async def test_a_cluster_sends_callers_on(redis_directory: Path) -> None:
    async with RedisCluster(redis_directory) as cluster:
        with pytest.raises(Refused, match=r"MOVED 12182 127\.0\.0\.1:"):
            await cluster.servers[0].call("SET", "foo", "1")
        assert await cluster.servers[2].call("SET", "foo", "1") == b"OK"


async def until_there(server: RedisServer, name: str) -> None:
    async def there() -> bool:
        return bool(await server.call("GET", name))

    await until(there)
