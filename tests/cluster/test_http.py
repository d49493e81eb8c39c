"""The admin API of real nodes over one place: any of them answers any call, whatever becomes of the others."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random
from typing import Any

import attrs
import httpx
import pytest
import trio

from tests.hub.peers import Peer
from trio_ws.admin import create_app
from trio_ws.server import Credentials, SharedTickets

from .world import Life, Nodes, running

LINES = {"content-type": "application/x-ndjson"}


@attrs.define
class World:
    """Some nodes, and a client of each one's API."""

    nodes: Nodes
    lives: list[Life]
    clients: list[httpx.AsyncClient]

    @property
    def owner(self) -> int:
        """Which node has the log of ``ada``."""
        [at] = [at for at, life in enumerate(self.lives) if "ada" in life.hub.engine.buffer.mailboxes]
        return at


@asynccontextmanager
async def world(*names: str, **limits: Any) -> AsyncIterator[World]:
    async with running(*(names or ("a", "b", "c")), **limits) as (nodes, lives), AsyncExitStack() as stack:
        clients = []
        for life in lives:
            app = create_app(life.hub, issue_ticket=SharedTickets(life.store).issue)
            client = httpx.AsyncClient(
                transport=httpx.ASGITransport(app=app), base_url="http://x.test", timeout=None
            )
            clients.append(await stack.enter_async_context(client))
        yield World(nodes, lives, clients)


def critical(**more: Any) -> dict[str, Any]:
    return {"type": "alarm", "priority": "critical", **more}


async def lines(client: httpx.AsyncClient, *bodies: dict[str, Any], path: str = "/v1/events") -> Any:
    content = "".join(json.dumps(body) + "\n" for body in bodies)
    response = await client.post(path, content=content, headers=LINES)
    assert response.status_code == 200, response.text
    return [json.loads(line) for line in response.text.splitlines()]


async def kill_at(step: int, life: Life) -> None:
    """Kill a node when it commits, or sends something over the bus, for the so-manieth time from now on."""
    dies = trio.Event()

    async def hook(name: str) -> None:
        nonlocal step
        step -= name.startswith(("commit", "send"))
        if not step:
            dies.set()
            await trio.sleep(0.001)

    life.store.hook = hook
    await dies.wait()
    await life.kill()


async def test_one_log_behind_all_nodes() -> None:
    async with world() as w:
        a, b, c = w.clients
        for number, client in enumerate((b, a, c), 1):
            told = (await client.post("/v1/users/ada/events", json=critical())).json()
            assert (told["seq"], told["duplicate"]) == (number, False)
        assert w.owner == 1
        listed = [(await client.get("/v1/users/ada/events")).json() for client in w.clients]
        assert listed[0] == listed[1] == listed[2]
        assert len(listed[0]["events"]) == 3
        found = (await c.get("/v1/users")).json()
        assert [user["user"] for user in found["users"]] == ["ada"]
        stats = (await a.get("/v1/stats?scope=cluster")).json()
        assert [line["owned"] for line in stats["nodes"]] == [0, 1, 0]
        assert stats["delivery"]["events_accepted"] == 3


async def test_a_confirmation_and_a_cancel_are_heard_of_at_any_node() -> None:
    async with world() as w, trio.open_nursery() as nursery:
        assert await w.lives[0].hub.place("ada") is None
        peer = Peer(w.lives[0].hub, "ada").connect()

        async def ack() -> None:
            await trio.sleep(2)
            peer.ack(1)

        nursery.start_soon(ack)
        response = await w.clients[2].post("/v1/users/ada/events?wait=confirmed&timeout=20", json=critical())
        assert (response.status_code, response.json()["confirmed_after"]) == (200, pytest.approx(2, abs=0.1))
        assert (await w.clients[1].post("/v1/users/ada/runs", json={"run": "r"})).status_code == 201

        async def cancel() -> None:
            await trio.sleep(3)
            assert (await w.clients[1].post("/v1/users/ada/runs/r/cancel")).status_code == 202

        nursery.start_soon(cancel)
        signs = (await w.clients[2].post("/v1/users/ada/runs/r/heartbeat?wait=cancelling&timeout=10")).json()
        assert signs["cancelling"]
        told = await lines(
            w.clients[2],
            *[{"type": "note", "id": str(n)} for n in range(5)],
            path="/v1/users/ada/runs/r/events",
        )
        assert [answer["id"] for answer in told] == ["0", "1", "2", "3", "4"]
        peer.die()


@pytest.mark.parametrize("step", range(1, 7))
async def test_a_publish_whose_node_is_killed_is_accepted_once_by_the_next(step: int) -> None:
    """The owner dies before or after its commit, or before or after it could answer."""
    async with world() as w, trio.open_nursery() as nursery:
        await w.clients[0].post("/v1/users/ada/events", json=critical())
        nursery.start_soon(kill_at, step, w.lives[0])
        response = await w.clients[1].post("/v1/users/ada/events", json=critical())
        assert response.status_code == 202, response.text
        told = (await w.clients[2].post("/v1/users/ada/events", json=critical(id="last"))).json()
        assert told["seq"] > response.json()["seq"] > 1
        events = (await w.clients[2].get("/v1/users/ada/events")).json()["events"]
        assert [event["id"] for event in events][:2] == ["last", response.json()["id"]]
        assert len(events) == 3
        nursery.cancel_scope.cancel()


async def test_a_batch_over_nodes_that_die_loses_nothing_and_keeps_its_order() -> None:
    for seed in range(6):
        chance = Random(seed)
        async with world(max_events=5000) as w:
            users = [f"user{n}" for n in range(9)]
            await lines(w.clients[0], *[critical(user=user) for user in users[:3]])
            await lines(w.clients[1], *[critical(user=user) for user in users[3:6]])
            bodies = [critical(user=chance.choice(users), id=f"{n}", payload=n) for n in range(300)]
            async with trio.open_nursery() as nursery:
                nursery.start_soon(kill_at, chance.randrange(1, 10), w.lives[0])
                told = await lines(w.clients[2], *bodies)
                assert w.lives[0].store.away
            for body, answer in zip(bodies, told, strict=True):
                assert answer.get("id") == body["id"], answer
            for user in users:
                seqs = [
                    answer["seq"] for body, answer in zip(bodies, told, strict=True) if body["user"] == user
                ]
                assert seqs == sorted(set(seqs)), (seed, user)
                events = (await w.clients[1].get(f"/v1/users/{user}/events?limit=200")).json()["events"]
                held = [event["id"] for event in events if event["id"].isdigit()]
                assert sorted(held, key=int) == [body["id"] for body in bodies if body["user"] == user]


async def test_everybody_is_reached_also_who_is_nobodys() -> None:
    async with world() as w:
        await lines(w.clients[0], *[critical(user=f"u{n}") for n in range(5)])
        await w.lives[0].drain()
        await lines(w.clients[1], *[{"user": f"v{n}", "type": "note"} for n in range(5)])
        [told] = await lines(w.clients[2], {"users": "*", **critical(id="e")})
        assert told == {"id": "e", "users": 10, "accepted": 10, "refused": 0}
        for user in ("u0", "v4"):
            events = (await w.clients[1].get(f"/v1/users/{user}/events")).json()["events"]
            assert [event["id"] for event in events if event["id"] == "e"] == ["e"]


async def test_who_is_revoked_is_so_at_every_node_within_a_second() -> None:
    async with world() as w:
        tickets = [SharedTickets(life.store, life.hub.engine.wall_clock) for life in w.lives]
        issued = (await w.clients[0].post("/v1/tickets", json={"user": "ada", "ttl": 3000})).json()
        ticket, _ = await tickets[0].issue("ada", 300)
        assert await w.lives[1].hub.place("ada") is None
        peer = Peer(w.lives[1].hub, "ada").connect()
        ended = await w.clients[2].delete("/v1/users/ada/sessions?revoke=60")
        assert ended.json() == {"ended": 1}
        await trio.sleep(1)
        assert peer.code == 4403
        identity = await tickets[2].authenticate(Credentials(token=ticket))
        assert identity is not None
        assert [life.hub.is_revoked(identity) for life in w.lives] == [True, True, True]
        assert await tickets[1].authenticate(Credentials(token=ticket)) is None
        assert issued["ticket"] != ticket
        await trio.sleep(2)
        fresh, _ = await tickets[1].issue("ada", 300)
        later = await tickets[0].authenticate(Credentials(token=fresh))
        assert later is not None
        assert not any(life.hub.is_revoked(later) for life in w.lives)


async def test_a_node_that_is_cut_off_is_not_ready_and_refuses_until_it_is_back() -> None:
    async with world("a", "b") as w:
        await w.clients[0].post("/v1/users/ada/events", json=critical())
        w.lives[0].store.away = True
        await trio.sleep(3)
        assert (await w.clients[0].get("/readyz")).status_code == 503
        refused = await w.clients[0].post("/v1/users/ada/events", json=critical())
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "store_unavailable")
        assert (await w.clients[1].post("/v1/users/ada/events", json=critical())).json()["seq"] >= 2
        stats = (await w.clients[1].get("/v1/stats?scope=cluster")).json()
        assert [line["node"] for line in stats["nodes"]] == ["b"]
        w.lives[0].store.away = False
        await trio.sleep(3)
        assert (await w.clients[0].get("/readyz")).status_code == 200
        assert (await w.clients[0].post("/v1/users/ada/events", json=critical())).json()["seq"] >= 3
        assert w.owner == 1


async def test_the_figures_of_a_real_node_are_as_they_are_described() -> None:
    async with world("a", "b") as w:
        await w.clients[0].post("/v1/users/ada/events", json=critical())
        await w.clients[1].post("/v1/users/ada/events", json=critical())
        told = (await w.clients[1].get("/v1/stats?scope=cluster")).json()
        described = (await w.clients[1].get("/openapi.json")).json()["components"]["schemas"]["Figures"]
        assert told["cluster"].keys() == described["properties"]["cluster"]["properties"].keys()
        assert told["cluster"]["calls_forwarded"] == 1
        scraped = (await w.clients[1].get("/metrics?scope=cluster")).text
        assert 'trio_ws_cluster_calls_forwarded_total{node="b"} 1.0' in scraped


async def test_who_publishes_at_another_node_does_not_notice_that_one_goes_away() -> None:
    async with world("a", "b", drain_timeout=3) as w, trio.open_nursery() as nursery:
        assert await w.lives[0].hub.place("ada") is None
        peer = Peer(w.lives[0].hub, "ada")
        peer.connect()  # who acks nothing: the node waits for it
        await w.clients[1].post("/v1/users/ada/events", json=critical())
        nursery.start_soon(w.lives[0].drain)
        await trio.sleep(0.1)
        assert w.lives[0].hub.draining
        begun = trio.current_time()
        told: list[Any] = []

        async def batch() -> None:
            told.extend(await lines(w.clients[1], *[critical(user="ada", payload=n) for n in range(3)]))

        async with trio.open_nursery() as publishing:
            publishing.start_soon(batch)
            response = await w.clients[1].post("/v1/users/ada/events", json=critical())
        assert response.status_code == 202, response.text
        assert trio.current_time() > begun + 1
        assert [answer["duplicate"] for answer in told] == [False] * 3
        events = (await w.clients[1].get("/v1/users/ada/events")).json()["events"]
        assert len({event["id"] for event in events}) == len(events) == 5
