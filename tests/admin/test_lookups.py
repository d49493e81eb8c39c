"""Who is known, a user's newest events, and what became of one of them."""

from __future__ import annotations

import time

import pytest

from trio_ws.config import Config
from trio_ws.core.pool import Ask
from trio_ws.hub import Identity

from .test_calls import Link


async def test_the_story_of_an_event(open_api) -> None:
    async with open_api() as (hub, client):
        before = time.time()
        attachment = hub.attach(Identity("ada"), Ask(), Link())
        hub.publish_nowait("ada", "agent_started", {"run": 7}, id="a/b ü")
        attachment.flush(hub.engine.clock())
        attachment.session.ack(1, hub.engine.clock())
        response = await client.get("/v1/users/ada/events/a%2Fb%20%C3%BC")
        assert response.status_code == 200
        story = response.json()
        steps = story.pop("steps")
        assert story == {
            "user": "ada",
            "epoch": hub.describe("ada")["epoch"],
            "id": "a/b ü",
            "seq": 1,
            "type": "agent_started",
            "state": "settled",
            "critical": True,
        }
        session = {"session": attachment.session.id}
        assert [{k: v for k, v in step.items() if k != "at"} for step in steps] == [
            {"step": "accepted"},
            {"step": "sent", **session},
            {"step": "acked", **session},
            {"step": "confirmed", **session},
            {"step": "settled"},
        ]
        times = [step["at"] for step in steps]
        assert times == sorted(times)
        assert before - 0.01 <= times[0]
        assert times[-1] <= time.time() + 0.01


async def test_what_is_not_known(open_api) -> None:
    async with open_api() as (hub, client):
        hub.publish_nowait("ada", "note", id="one")
        for path in ("/v1/users/ada/events/two", "/v1/users/eve/events/one"):
            response = await client.get(path)
            assert (response.status_code, response.json()["error"]["code"]) == (404, "unknown_event")
        response = await client.get("/v1/users/eve/events")
        assert (response.status_code, response.json()["error"]["code"]) == (404, "unknown_user")


async def test_the_newest_events_page_by_page(open_api) -> None:
    async with open_api(Config(max_events_per_user=3)) as (hub, client):
        for n in range(5):
            hub.publish_nowait("ada", "note", {"n": n}, id=f"e{n}")
        found = (await client.get("/v1/users/ada/events", params={"limit": 3})).json()
        assert (found["user"], found["head"]) == ("ada", 5)
        assert [(e["seq"], e["id"], e["state"]) for e in found["events"]] == [
            (5, "e4", "held"),
            (4, "e3", "held"),
            (3, "e2", "held"),
        ]
        assert set(found["events"][0]) == {
            "seq",
            "id",
            "type",
            "state",
            "critical",
            "ts",
            "size",
            "confirmed_after",
        }
        rest = (await client.get("/v1/users/ada/events", params={"before": 3})).json()["events"]
        assert [(e["seq"], e["state"], e["confirmed_after"]) for e in rest] == [
            (2, "evicted", None),
            (1, "evicted", None),
        ]


async def test_confirmed_after_is_told(open_api) -> None:
    async with open_api() as (hub, client):
        attachment = hub.attach(Identity("ada"), Ask(), Link())
        hub.publish_nowait("ada", "note")
        attachment.flush(hub.engine.clock())
        attachment.session.ack(1, hub.engine.clock() + 2)
        (event,) = (await client.get("/v1/users/ada/events")).json()["events"]
        assert event["confirmed_after"] == pytest.approx(2, abs=0.1)


async def test_users_by_name(open_api) -> None:
    async with open_api() as (hub, client):
        for user in ("bob", "ada", "adam", "eve"):
            hub.publish_nowait(user, "note")
        hub.attach(Identity("ada"), Ask(), Link())
        found = (await client.get("/v1/users")).json()
        assert [user["user"] for user in found["users"]] == ["ada", "adam", "bob", "eve"]
        assert found["more"] is False
        assert found["users"][0] == {"user": "ada", "connections": 1, "sessions": 1, "held": 1, "lag": 1}
        found = (await client.get("/v1/users", params={"prefix": "ad", "limit": 1})).json()
        assert ([user["user"] for user in found["users"]], found["more"]) == (["ada"], True)
        assert (await client.get("/v1/users?prefix=zoe")).json() == {"users": [], "more": False}


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/users?limit=0", "limit"),
        ("/v1/users?limit=501", "limit"),
        ("/v1/users?limit=x", "limit"),
        ("/v1/users?limit=", "limit"),
        ("/v1/users?page=1", "page"),
        ("/v1/users?prefix=" + "a" * 129, "prefix"),
        ("/v1/users/ada/events?limit=201", "limit"),
        ("/v1/users/ada/events?limit=%D9%A1", "limit"),
        ("/v1/users/ada/events?before=0", "before"),
        ("/v1/users/ada/events?before=99999999999999999999", "before"),
        ("/v1/users/ada/events/%00", "id"),
        ("/v1/users/%00/events", "user"),
    ],
)
async def test_what_is_asked_wrongly_is_told(open_api, path: str, field: str) -> None:
    async with open_api() as (hub, client):
        hub.publish_nowait("ada", "note")
        response = await client.get(path)
        assert (response.status_code, response.json()["error"]["field"]) == (422, field)
