"""A node that is started before its Redis, or with a wrong password to it."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from redis_servers import RedisServer
from trio.testing import MockClock

from trio_ws.cli import shared
from trio_ws.cli.serve import waited_for_store
from trio_ws.cli.systemd import ServiceManager
from trio_ws.errors import StoreError
from trio_ws.redis.refusals import Refused, Unreachable
from trio_ws.settings import load

from .fake_admin import finish, start

AWAY = Unreachable("Redis at x:6379 can't be reached: connection refused")


class FakeStore:
    """Answers with each of these in turn."""

    def __init__(self, answers: list[StoreError | None]) -> None:
        self.answers = answers

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await trio.sleep_forever()

    async def revoked(self) -> list[Any]:
        await trio.lowlevel.checkpoint()
        if (answer := self.answers.pop(0)) is not None:
            raise answer
        return []


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[StoreError | None]:
    found: list[StoreError | None] = []
    monkeypatch.setattr(shared, "shared_store", lambda settings: FakeStore(found))
    return found


async def wait() -> None:
    await shared.wait_for_store(load({"store": "redis://x"}, {}).settings, ServiceManager())


async def test_a_store_that_is_there_is_not_waited_for(
    answers: list[StoreError | None], caplog: pytest.LogCaptureFixture
) -> None:
    answers[:] = [None]
    await wait()
    assert not caplog.messages


async def test_one_that_is_not_is_waited_for(
    answers: list[StoreError | None], caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    caplog.set_level("INFO")
    answers[:] = [AWAY, AWAY, Refused("LOADING", "Redis at x:6379 refused: it is reading its data"), None]
    await wait()
    assert caplog.messages == [f"waiting for the store: {AWAY}", "the store is there"]
    assert trio.current_time() == pytest.approx(3 * shared.PAUSE)


@pytest.mark.parametrize(
    "trouble", [Refused("WRONGPASS", "wrong"), Refused("NOAUTH", "no"), StoreError("old")]
)
async def test_what_waiting_does_not_mend_is_an_error(
    answers: list[StoreError | None], trouble: StoreError
) -> None:
    answers[:] = [trouble]
    with pytest.raises(StoreError) as caught:
        await wait()
    assert caught.value is trouble


async def test_a_signal_ends_the_wait(answers: list[StoreError | None], autojump_clock: MockClock) -> None:
    answers[:] = [AWAY] * 100

    settings = load({"store": "redis://x"}, {}).settings
    send, signals = trio.open_memory_channel[int](1)
    async with trio.open_nursery() as nursery:

        async def end() -> None:
            await trio.sleep(20)
            await send.send(signal.SIGTERM)

        nursery.start_soon(end)
        assert not await waited_for_store(settings, ServiceManager(), signals)
    assert len(answers) == pytest.approx(60, abs=1)


@pytest.mark.integration
def test_a_node_before_its_redis(redis_directory: Path) -> None:
    server = RedisServer(redis_directory, aof="no", password="hunter2")
    process = start("serve", "--insecure", "--port", "0", "--admin-port", "0", "--store", server.url)
    assert process.stderr is not None
    while b"waiting for the store" not in (line := process.stderr.readline()):
        assert line
    try:
        trio.run(server.start)
        while not (line := process.stderr.readline()).startswith(b"admin on"):
            assert line
        assert httpx.get(f"{line.split()[-1].decode()}/readyz", trust_env=False).status_code == 200
        process.send_signal(signal.SIGTERM)
        status, _, err = finish(process)
        assert status == 0
        assert "hunter2" not in err
    finally:
        server.kill()
