"""Redis for tests: one server for all tests of a worker, emptied before each; or servers of one's own, to be broken.

tests/conftest.py makes the fixtures known to all tests. Without a redis-server the tests are skipped, and say so.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from loopback.redis import RedisServer, installed, speaks_tls


@pytest.fixture(scope="session")
def redis_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One server for all tests of this worker; most want `redis_server`."""
    need_redis()
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    trio.run(server.start)
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture
def redis_server(redis_session: RedisServer) -> RedisServer:
    """A server with nothing in it, which keeps nothing on the disk. Not to be killed, paused or configured."""
    trio.run(redis_session.call, "FLUSHALL")
    return redis_session


@pytest.fixture
def redis_directory(tmp_path: Path) -> Path:
    """Where a test may start servers of its own (`RedisServer`, `Sentinels`, `RedisCluster`)."""
    need_redis()
    return tmp_path / "redis"


@pytest.fixture
def redis_tls_directory(redis_directory: Path) -> Path:
    """The same, for servers that speak TLS."""
    if not speaks_tls():
        pytest.skip("SKIPPED, and nothing was shown: this redis-server was built without TLS")
    return redis_directory


def need_redis() -> None:
    """Skip the test where there is no redis-server."""
    if not installed():
        pytest.skip(
            "SKIPPED, and nothing was shown: there is no redis-server here (apt-get install redis-server)"
        )
