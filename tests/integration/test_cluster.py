"""Three real nodes over a real Redis: what is broken in them one after the other costs no event, and is over soon."""

from __future__ import annotations

import itertools
import random
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import httpx
import pytest
import trio
from loopback.redis import RedisServer, Sentinels, until
from ordeal.nodes import HERE, Node, Nodes, opened
from ordeal.redises import Single
from ordeal.run import OPTIONS, environment

import trio_ws

pytestmark = pytest.mark.integration

PATIENCE = 20.0


@attrs.define(eq=False)
class Tab:
    """A client, and what it has got."""

    client: trio_ws.Client
    got: list[str] = attrs.Factory(list)
    changed: trio.lowlevel.ParkingLot = attrs.Factory(trio.lowlevel.ParkingLot)

    async def read(self) -> None:
        async for event in self.client:
            self.got.append(event.id)
            self.changed.unpark_all()

    async def wait_live(self) -> None:
        async def live() -> bool:
            return self.client.state.name == "live"

        await until(live)


@attrs.define(eq=False)
class Scene:
    """The nodes, two tabs of one user at different ones, and a publisher.

    Attributes:
      redis: what the nodes share.
      accepted: the ids of what was published, in order.
    """

    redis: RedisServer
    nodes: Nodes
    http: httpx.AsyncClient
    tabs: list[Tab] = attrs.Factory(list)
    accepted: list[str] = attrs.Factory(list)
    _ids: itertools.count[int] = attrs.Factory(itertools.count)

    @property
    def all(self) -> list[Node]:
        return self.nodes.all

    async def start(self, node: Node) -> None:
        await node.lives.start()
        assert await node.lives.ready_or_ended() is None

    async def try_once(self, node: Node, id: str) -> httpx.Response:
        event = {"type": "agent_thinking", "id": id, "payload": None}
        return await self.http.post(f"{node.lives.http}/v1/users/ada/events", json=event)

    async def publish(self, node: Node, *tabs: Tab) -> None:
        """One critical event, asked for until it is accepted; and it comes to these tabs, or to both."""
        id = f"e{next(self._ids)}"

        async def accepted() -> bool:
            try:
                return (await self.try_once(node, id)).status_code == 202
            except httpx.TransportError:
                return False

        await until(accepted)
        self.accepted.append(id)
        await self.wait_delivered(*tabs)

    async def wait_delivered(self, *tabs: Tab) -> None:
        """Wait until these tabs, or both, have all that was accepted: once, in order."""
        for tab in tabs or self.tabs:
            with trio.fail_after(PATIENCE):
                while len(tab.got) < len(self.accepted):
                    await tab.changed.park()
            assert tab.got == self.accepted

    async def wait_ready(self, *nodes: Node, ready: bool = True) -> None:
        """Wait until these nodes say that they are ready, or that they are not."""
        for node in nodes:

            async def so(node: Node = node) -> bool:
                return (await self.http.get(f"{node.lives.http}/readyz")).is_success == ready

            await until(so)

    async def wait_store(self, node: Node, state: str) -> None:
        """Wait until a node's store is in this state."""

        async def so() -> bool:
            told = (await self.http.get(f"{node.lives.http}/v1/stats")).json()
            return bool(told["store"]["state"] == state)

        await until(so)

    async def owner(self) -> Node:
        """Who has ada's log."""
        for node in self.all:
            told = (await self.http.get(f"{node.lives.http}/v1/stats")).json()
            if told["buffer"]["events"]:
                return node
        raise AssertionError("nobody has it")


@asynccontextmanager
async def scene(directory: Path) -> AsyncIterator[Scene]:
    """Three nodes that run, and a tab of ada's at the first two of them; the first is the log's owner."""
    options = [*OPTIONS, "--log-format", "json"]
    async with (
        Single(directory / "redis", "always") as redis,
        opened(directory, redis, 3, options, random.Random(1)) as nodes,
        httpx.AsyncClient(trust_env=False, timeout=5) as http,
        trio.open_nursery() as nursery,
    ):
        setting = Scene(redis.servers[0], nodes, http)
        async with trio.open_nursery() as starting:
            for node in nodes.all:
                starting.start_soon(setting.start, node)
        for node in nodes.all[:2]:
            url = f"ws://{HERE}:{node.lives.port}/ws"
            tab = Tab(await nursery.start(_connected, url))
            setting.tabs.append(tab)
            nursery.start_soon(tab.read)
            await tab.wait_live()
        yield setting
        for tab in setting.tabs:
            told = tab.client.statistics()
            assert (told.resets, told.violations) == (0, 0)
        nursery.cancel_scope.cancel()


@pytest.fixture
def here(redis_directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a scene may be, with what its processes inherit."""
    monkeypatch.setenv("PYTHONPATH", "")
    environment()
    redis_directory.mkdir()
    return redis_directory


async def test_nodes_die_and_go_and_come(here: Path) -> None:
    async with scene(here) as at:
        first, _, third = at.all
        for node in at.all:
            await at.publish(node)

        # The owner dies: who is elsewhere is served by another; who was there, when that is back.
        first.lives.signal(signal.SIGKILL)
        assert await first.lives.wait_ended() == -signal.SIGKILL
        await at.publish(third, at.tabs[1])
        await at.start(first)
        await at.publish(first)

        # A node stands still for longer than its lease: it is passed over, and is no owner any more afterwards.
        owner = await at.owner()
        others = [node for node in at.all if node is not owner]
        owner.lives.signal(signal.SIGSTOP)
        await at.publish(
            others[0], *(tab for tab, node in zip(at.tabs, at.all, strict=False) if node is not owner)
        )
        owner.lives.signal(signal.SIGCONT)
        await at.publish(owner)

        # A rolling restart: each ends in order, with status 0.
        for node in at.all:
            node.lives.signal(signal.SIGTERM)
            assert await node.lives.wait_ended() == 0
            await at.start(node)
            await at.publish(node)


async def test_redis_dies_stands_still_is_full_and_is_out_of_reach(here: Path) -> None:
    async with scene(here) as at:
        third = at.all[2]
        await at.publish(third)

        # It is killed, with what it had on the disk.
        at.redis.kill()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(at.publish, third)
            await at.redis.start()

        # It stands still for longer than leases are: nodes say that they are not ready, and are again.
        at.redis.pause()
        await at.wait_ready(*at.all, ready=False)
        refused = await at.try_once(third, "refused")
        assert refused.status_code == 503
        at.redis.go_on()
        await at.wait_ready(*at.all)
        await at.publish(third)

        # It is full: what would be promised is not, until there is room.
        owner = await at.owner()
        await at.redis.configure(maxmemory=1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(at.publish, third)
            await at.wait_store(owner, "failing")
            refused = await at.try_once(owner, "refused")
            assert refused.status_code == 503
            assert float(refused.headers["retry-after"]) > 0
            assert len(at.tabs[0].got) == 3
            await at.redis.configure(maxmemory=0)

        # The owner can't reach it: another takes over, and serves who is connected there.
        elsewhere = [tab for tab, node in zip(at.tabs, at.all, strict=False) if node is not owner]
        owner.link.stall(60)
        await at.publish(next(node for node in at.all if node is not owner), *elsewhere)
        owner.link.stall(0)
        await at.wait_ready(owner)
        await at.publish(owner)


async def test_the_primary_dies_and_its_replica_takes_over(redis_directory: Path) -> None:
    async with Sentinels(redis_directory, aof="always") as sentinels:
        store = trio_ws.RedisStore(sentinels.url, wait_replicas=1)
        async with trio_ws.open_node(store=store) as node, node.hub.subscribe("ada") as events:
            numbers = itertools.count(1)
            epochs = set()

            async def publish() -> None:
                number = next(numbers)

                async def accepted() -> bool:
                    try:
                        receipt = await node.hub.publish("ada", "agent_thinking", number, id=f"e{number}")
                    except trio_ws.StoreUnavailable:
                        return False
                    epochs.add(receipt.epoch)
                    return True

                await until(accepted)

            await publish()
            sentinels.primary.kill()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(publish)
                await sentinels.wait_primary(sentinels.replica)
                await sentinels.primary.start()  # a replica from now on: what is promised is in both
            await publish()
            got: list[object] = []
            with trio.fail_after(PATIENCE):
                while len(got) < 3:
                    got += [event.payload for event in await events.receive()]
            assert got == [1, 2, 3]
            assert len(epochs) == 1


async def test_a_redis_that_comes_back_with_nothing_is_a_new_epoch_and_no_silent_hole(
    redis_directory: Path,
) -> None:
    async with RedisServer(redis_directory) as server:  # without a file
        store = trio_ws.RedisStore(server.url)
        async with trio_ws.open_node(store=store) as node, trio.open_nursery() as nursery:
            [(host, port)] = await nursery.start(partial(trio_ws.serve, node.hub, port=0, insecure=True))
            tab = Tab(await nursery.start(_connected, f"ws://{host}:{port}/ws"))
            nursery.start_soon(tab.read)
            before = await node.hub.publish("ada", "agent_started", id="old")
            await before.confirmed()
            await server.restart()

            async def begun_anew() -> bool:
                try:
                    after = await node.hub.publish("ada", "agent_completed", id="new")
                except trio_ws.StoreUnavailable:
                    return False
                return after.epoch != before.epoch

            await until(begun_anew)
            with trio.fail_after(PATIENCE):
                while "new" not in tab.got[-1:]:
                    await tab.changed.park()
            assert tab.client.statistics().resets == 1
            assert tab.got[0] == "old"
            nursery.cancel_scope.cancel()


async def _connected(
    url: str, *, task_status: trio.TaskStatus[trio_ws.Client] = trio.TASK_STATUS_IGNORED
) -> None:
    async with trio_ws.connect(url, user="ada") as client:
        task_status.started(client)
        await trio.sleep_forever()
