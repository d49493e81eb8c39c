"""The simulated agents: whole runs, and a rest while nobody looks."""

from __future__ import annotations

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
    types = [event.type for event in run]
    assert types[0] == "agent_started"
    assert types.count("tool_executing") == types.count("tool_completed") > 0
    assert len({event.run for event in run}) == 1
    answer = "".join(event.payload["text"] for event in run if event.type == "agent_delta")
    assert answer.endswith(".")
    assert "  " not in answer


async def test_a_finished_run_is_followed_by_what_its_publisher_knows(autojump_clock: MockClock) -> None:
    async with open_hub() as hub, trio.open_nursery() as nursery:
        with hub.subscribe("ada") as events:
            nursery.start_soon(lambda: work(hub, seed=1))
            run = await one_run(events, "run_report")
        nursery.cancel_scope.cancel()
    report = run[-1].payload
    assert report["run"] == int(run[0].run or "")
    assert 0 <= report["after"] < 1


async def test_a_twin_is_sent_the_same_and_confirms_nothing(autojump_clock: MockClock) -> None:
    async with open_hub() as hub, trio.open_nursery() as nursery:
        with hub.subscribe("ada-bare") as twin:
            nursery.start_soon(lambda: work(hub, seed=1))
            run = await one_run(twin)
        assert run[0].type == "agent_started"
        assert {event.payload["run"] for event in run} == {run[0].payload["run"]}
        assert not any(event.critical or event.run for event in run)
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


async def test_an_agent_asks_and_goes_on_with_the_answer_or_without_one(autojump_clock: MockClock) -> None:
    async with open_hub() as hub, trio.open_nursery() as nursery:
        nursery.start_soon(lambda: work(hub, seed=1))
        with hub.subscribe("bob") as events:
            runs = await one_run(events, "question_closed")
            assert runs[-1].payload["outcome"] == "expired"
            [thought] = await one_run(events, "agent_thinking")
            assert thought.payload["text"].startswith("Nobody was there")
            child = next(event for event in runs if event.payload.get("parent"))
            assert child.payload["parent"] == runs[0].run
            ends = [event.type for event in runs if event.run == child.run]
            assert ends[-1] == "agent_completed"
        nursery.cancel_scope.cancel()


async def test_a_run_that_the_user_cancels_ends_and_the_next_begins(autojump_clock: MockClock) -> None:
    async with open_hub() as hub, trio.open_nursery() as nursery:
        nursery.start_soon(lambda: work(hub, seed=1))
        with hub.subscribe("bob") as events:
            started = (await one_run(events, "tool_executing"))[0]
            await hub.cancel_run("bob", started.run or "")
            ending = await one_run(events, "run_over")
            assert [event.payload["outcome"] for event in ending if "outcome" in event.payload] == [
                "cancelled"
            ] * 2
            assert (await one_run(events, "agent_started"))[-1].run != started.run
        nursery.cancel_scope.cancel()


async def one_run(events: Subscription, last: str = "agent_completed") -> list[Event]:
    """What comes up to the end of a run, or to an event that is called `last`."""
    run = []
    while True:
        for event in await events.receive():
            assert isinstance(event, Event)
            run.append(event)
            if event.type == last:
                return run


async def test_agents_outlive_a_store_that_fails(autojump_clock: MockClock) -> None:
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
        assert "agent_started" in [event.type for event in run]
        assert run[-1].payload["after"] >= 0
        nursery.cancel_scope.cancel()
