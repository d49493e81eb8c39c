"""A node that is started before its Redis, or with a wrong password to it."""

from __future__ import annotations

import math
import signal
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from loopback.redis import RedisServer, free_port
from trio.testing import MockClock

from trio_ws.cli.shared import Interrupted, opened_node, told_to_others
from trio_ws.cli.systemd import ServiceManager
from trio_ws.errors import StoreError
from trio_ws.hub.opening import ATTEMPT_PAUSE, own_nursery
from trio_ws.redis.refusals import Refused, Unreachable
from trio_ws.settings import load
from trio_ws.store.interface import Opened
from trio_ws.store.shared import NodeRecord, SharedStore
from trio_ws.store.shared_memory import Place, SharedMemory

from .fake_admin import finish, start

AWAY = Unreachable("Redis at x:6379 can't be reached: connection refused")


class Late(SharedMemory):
    """A store that fails to open with each of these first, and then, if it is one, to beat."""

    def __init__(self, *troubles: StoreError) -> None:
        super().__init__(Place(), "node")
        self.troubles = list(troubles)

    async def open(self) -> Opened:
        await trio.lowlevel.checkpoint()
        if self.troubles:
            raise self.troubles.pop(0)
        return await super().open()

    async def beat(self, about: bytes, lease: float) -> list[NodeRecord]:
        assert b'"name":"a"' in about
        return await super().beat(about, lease)


async def nobody_asks(reason: Callable[[], str]) -> None:
    await trio.sleep_forever()


async def enter(
    store: SharedStore,
    signal_after: float = math.inf,
    answering: Callable[[Callable[[], str]], Awaitable[None]] = nobody_asks,
) -> float:
    """Open a node, and leave it at once; gives how long the opening took."""
    settings = load({"store": "redis://x", "node_name": "a", "drain_timeout": 0}, {}).settings
    send, signals = trio.open_memory_channel[int](1)

    async def end() -> None:
        await trio.sleep(signal_after)
        await send.send(signal.SIGTERM)

    began = trio.current_time()
    async with own_nursery() as nursery:
        nursery.start_soon(end)
        async with opened_node(
            settings, store, None, signals=signals, manager=ServiceManager(), answering=answering
        ) as hub:
            took = trio.current_time() - began
            assert (await hub.publish("ada", "agent_started")).seq == 1
            # From here on signals are for who serves.
            send.send_nowait(signal.SIGINT)
            assert await anext(signals) == signal.SIGINT
    return took


async def test_a_store_that_is_there_is_not_waited_for(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    assert await enter(Late()) == 0
    assert not [text for text in caplog.messages if "store" in text]


async def test_one_that_is_not_is_waited_for(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    caplog.set_level("INFO")
    loading = Refused("LOADING", "Redis at x:6379 refused: it is reading its data")
    assert await enter(Late(AWAY, AWAY, loading)) == pytest.approx(3 * ATTEMPT_PAUSE)
    assert [text for text in caplog.messages if "store" in text] == [
        f"waiting for the store: {AWAY}",
        f"waiting for the store: {loading}",
        "the store is there",
    ]


@pytest.mark.parametrize(
    "trouble", [Refused("WRONGPASS", "wrong"), Refused("NOAUTH", "no"), StoreError("old")]
)
async def test_what_waiting_does_not_mend_is_an_error(trouble: StoreError, autojump_clock: MockClock) -> None:
    with pytest.raises(StoreError) as caught:
        await enter(Late(AWAY, trouble))
    assert caught.value is trouble


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ({"admin_host": "0.0.0.0", "admin_port": 8766}, f"{socket.gethostname()}:8766"),
        ({"admin_host": "::", "admin_port": 0}, None),
        ({"admin_host": "127.0.0.1"}, None),
        ({"admin_host": "unix:/run/x"}, None),
    ],
)
def test_what_is_told_to_the_other_nodes(given: dict[str, Any], address: str | None) -> None:
    told = told_to_others(load({"store": "redis://x", "node_name": "a", **given}, {}).settings)
    assert (told["name"], told.get("address")) == ("a", address)


async def test_who_asks_meanwhile_is_told_why(autojump_clock: MockClock) -> None:
    told: list[str] = []

    async def ask(reason: Callable[[], str]) -> None:
        while True:
            await trio.sleep(1)
            told.append(reason())

    await enter(Late(AWAY, AWAY, AWAY), answering=ask)
    assert told == [str(AWAY)]


async def test_a_signal_ends_the_wait(autojump_clock: MockClock) -> None:
    store = Late(*[AWAY] * 100)
    with pytest.raises(Interrupted):
        await enter(store, signal_after=20)
    assert len(store.troubles) == pytest.approx(60, abs=1)


@pytest.mark.integration
def test_a_node_before_its_redis(redis_directory: Path) -> None:
    server = RedisServer(redis_directory, aof="no", password="hunter2")
    admin = f"http://127.0.0.1:{(port := free_port())}"
    process = start(*("serve", "--insecure", "--port", "0", "--admin-port", str(port), "--store", server.url))
    assert process.stderr is not None
    while b"waiting for the store" not in (line := process.stderr.readline()):
        assert line
    try:
        with httpx.Client(base_url=admin, trust_env=False, timeout=30) as client:
            assert client.get("/healthz").status_code == 200
            for answer in (client.get("/readyz"), client.post("/v1/users/ada/events", json={"type": "x"})):
                error = answer.json()["error"]
                assert (answer.status_code, error["code"], answer.headers["retry-after"]) == (
                    503,
                    "starting",
                    "1",
                )
                assert "Connection refused" in error["message"]
        trio.run(server.start)
        while not (line := process.stderr.readline()).startswith(b"admin on"):
            assert line
        assert httpx.get(f"{admin}/readyz", trust_env=False).status_code == 200
        process.send_signal(signal.SIGTERM)
        status, _, err = finish(process)
        assert status == 0
        assert "hunter2" not in err
    finally:
        server.kill()
