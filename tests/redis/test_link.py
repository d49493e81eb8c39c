"""The link, with real servers: calls, and what becomes of them when something breaks."""

from __future__ import annotations

import pytest
import trio
from loopback.redis import RedisServer

from trio_ws.redis.link import Redis
from trio_ws.redis.refusals import Refused
from trio_ws.redis.script import Script

SET = Script("set", "return redis.call('SET', KEYS[1], ARGV[1])")


async def test_calls(redis_server: RedisServer, nursery: trio.Nursery) -> None:
    redis = Redis(redis_server.url)
    await nursery.start(redis.run)
    assert await redis.command("SET", "a", b"\0\xff") == b"OK"
    assert await redis.command("GET", "a") == b"\0\xff"
    assert await redis.command("GET", "b") is None
    assert await redis.command("RPUSH", "c", 1, 2.5, "é") == 3
    assert await redis.command("LRANGE", "c", 0, -1) == [b"1", b"2.5", "é".encode()]
    with pytest.raises(Refused, match="WRONGTYPE") as caught:
        await redis.command("GET", "c")
    assert caught.value.code == "WRONGTYPE"


async def test_scripts(redis_server: RedisServer, nursery: trio.Nursery) -> None:
    redis = Redis(redis_server.url)
    await nursery.start(redis.run)
    assert await redis.script(SET, ["a"], ["1"]) == b"OK"
    await redis.command("SCRIPT", "FLUSH")
    await redis.command("RPUSH", "list", "x")
    wrong = Script("wrong", "return redis.call('GET', KEYS[1])")
    first, second, third = await redis.scripts(wrong, [(["a"], []), (["list"], []), (["b"], [])])
    assert (first, third) == (b"1", None)
    assert isinstance(second, Refused)
    await redis.command("SCRIPT", "FLUSH")
    assert await redis.scripts(SET, [(["a"], ["2"]), (["b"], ["3"])]) == [b"OK", b"OK"]
    assert await redis.command("MGET", "a", "b") == [b"2", b"3"]


async def test_a_subscription(redis_server: RedisServer, nursery: trio.Nursery) -> None:
    redis = Redis(redis_server.url)
    await nursery.start(redis.run)
    send, receive = trio.open_memory_channel[bytes](10)
    await nursery.start(redis.subscribe, ["channel", "both"], send.send_nowait)
    assert await redis.publish("channel", b"hello") == 1
    assert await redis.publish("other", b"hello") == 0
    assert await redis.publish("both", b"again") == 1
    assert await receive.receive() == b"hello"
    assert await receive.receive() == b"again"
