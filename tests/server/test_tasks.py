"""The tasks of one connection: ended together, and nobody else suffers from them."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from trio_ws.server.tasks import Tasks
from trio_ws.server.waiter import Waiter


async def test_they_are_counted_cancelled_and_waited_for() -> None:
    ended: list[int] = []

    async def work(n: int) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(n)

    async with trio.open_nursery() as nursery:
        ours, others = Tasks(nursery), Tasks(nursery)
        await ours.wait_done()
        for n in (1, 2):
            ours.start_soon(work, n)
        others.start_soon(work, 3)
        assert len(ours) == 2
        await trio.testing.wait_all_tasks_blocked()
        ours.cancel()
        await ours.wait_done()
        assert sorted(ended) == [1, 2]
        assert len(ours) == 0
        assert len(others) == 1
        others.cancel()


async def test_one_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise LookupError("a mistake of ours")

    async with trio.open_nursery() as nursery:
        tasks = Tasks(nursery)
        tasks.start_soon(fail)
        tasks.start_soon(trio.testing.wait_all_tasks_blocked)
        await tasks.wait_done()
    assert "a mistake of ours" in caplog.text


async def test_a_nursery_that_has_ended() -> None:
    async with trio.open_nursery() as nursery:
        tasks = Tasks(nursery)
    with pytest.raises(RuntimeError):
        tasks.start_soon(trio.sleep_forever)
    assert len(tasks) == 0


class TestWaiter:
    async def test_it_is_woken_once(self) -> None:
        waiter, woken = Waiter(), []

        async def wait() -> None:
            await waiter.wait()
            woken.append(True)

        async with trio.open_nursery() as nursery:
            waiter.wake()  # nobody waits: it is not remembered
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            assert not woken
            waiter.wake()
            waiter.wake()
        assert woken == [True]

    async def test_cancelled_it_is_free_for_another(self) -> None:
        waiter = Waiter()
        with trio.CancelScope() as scope:
            scope.cancel()
            await waiter.wait()

        async def wait() -> None:
            await waiter.wait()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await waiter.wait()
            waiter.wake()
