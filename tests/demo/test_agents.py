"""The simulated agents: whole runs, and a rest while nobody looks."""

from __future__ import annotations

from typing import Any

import trio
from trio.testing import MockClock

from trio_ws.config import Config
from trio_ws.core.records import Batch
from trio_ws.demo import USERS, work
from trio_ws.errors import StoreError
from trio_ws.event import Event
from trio_ws.hub import Subscription, open_hub
from trio_ws.store import MemoryStore


async def test_runs_are_whole_and_end_in_a_rest_while_nobody_sees_them(autojump_clock: MockClock) -> None:
    async with open_hub() as hub, trio.open_nursery() as nursery:
        nursery.start_soon(lambda: work(hub, seed=1))
        await trio.sleep(600)
        for user in USERS:
            described = hub.describe(user)
            assert described is not None
            assert described["buffer"]["critical_unconfirmed"] < 40
        head = hub.describe("ada")["head"]  # type: ignore[index]
        await trio.sleep(600)
        assert hub.describe("ada")["head"] == head, "nobody has seen the last runs"  # type: ignore[index]
        nursery.cancel_scope.cancel()


async def test_a_run_tells_a_story(autojump_clock: MockClock) -> None:
    async with open_hub() as hub, trio.open_nursery() as nursery:
        with hub.subscribe("ada") as events:
            nursery.start_soon(lambda: work(hub, seed=1))
            run = await one_run(events)
        nursery.cancel_scope.cancel()
    types = [type for type, _ in run]
    assert types[0] == "agent_started"
    assert types.count("tool_executing") == types.count("tool_completed") > 0
    answer = "".join(payload["text"] for type, payload in run if type == "text")
    assert answer.endswith(".")
    assert "  " not in answer


async def test_a_finished_run_is_followed_by_what_its_publisher_knows(autojump_clock: MockClock) -> None:
    async with open_hub() as hub, trio.open_nursery() as nursery:
        with hub.subscribe("ada") as events:
            nursery.start_soon(lambda: work(hub, seed=1))
            run = await one_run(events, "run_report")
        nursery.cancel_scope.cancel()
    critical = [type for type, _ in run if type.startswith(("agent_", "tool_")) and type != "tool_output"]
    report = run[-1][1]
    assert report["events"] == report["confirmed"] >= len(critical) - 1
    assert 0 <= report["median"] <= report["slowest"] < 1


async def test_a_twin_is_sent_the_same_and_confirms_nothing(autojump_clock: MockClock) -> None:
    async with open_hub() as hub, trio.open_nursery() as nursery:
        with hub.subscribe("ada-bare") as twin:
            nursery.start_soon(lambda: work(hub, seed=1))
            run = await one_run(twin)
        assert next(type for type, _ in run) == "agent_started"
        await trio.sleep(30)
        described = hub.describe("ada")
        assert described is not None
        assert described["buffer"]["critical_unconfirmed"] > 5
        nursery.cancel_scope.cancel()


async def test_agents_outlive_the_runs_that_nobody_ever_saw(autojump_clock: MockClock) -> None:
    config = Config(critical_ttl=60, cleanup_interval=5)
    async with open_hub(config) as hub, trio.open_nursery() as nursery:
        nursery.start_soon(lambda: work(hub, seed=1))
        await trio.sleep(600)
        assert hub.stats()["delivery"]["dead_letters"] > 0
        head = hub.describe("ada")["head"]  # type: ignore[index]
        await trio.sleep(600)
        assert hub.describe("ada")["head"] > head  # type: ignore[index]
        nursery.cancel_scope.cancel()


async def test_agents_stop_when_the_hub_drains(autojump_clock: MockClock) -> None:
    async with open_hub() as hub:
        with trio.fail_after(100):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lambda: work(hub, seed=1))
                await trio.sleep(10)
                await hub.drain()


async def one_run(events: Subscription, last: str = "agent_completed") -> list[tuple[str, dict[str, Any]]]:
    """Types and payloads up to the end of a run, or what is called `last`."""
    run = []
    async for batch in events:
        for event in batch:
            assert isinstance(event, Event)
            run.append((event.type, event.payload))
            if event.type == last:
                return run
    raise AssertionError("the events have ended")


async def test_agents_wait_for_a_store_that_fails(autojump_clock: MockClock) -> None:
    class Full(MemoryStore):
        full = False

        async def commit(self, batch: Batch) -> None:
            if self.full:
                raise StoreError("the disk is full")
            await super().commit(batch)

    store = Full()
    async with open_hub(store=store) as hub, trio.open_nursery() as nursery:
        nursery.start_soon(lambda: work(hub, seed=1, pace=4))
        await trio.sleep(5)
        store.full = True
        await trio.sleep(60)
        store.full = False
        with hub.subscribe("ada") as events:
            run = await one_run(events, "run_report")
        assert run[-1][1]["events"] > 2
        nursery.cancel_scope.cancel()
