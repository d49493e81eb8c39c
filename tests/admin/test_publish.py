"""Publishing one event over HTTP: what is accepted, and how what is not is told."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_ws.config import Config
from trio_ws.event import Event

from .conftest import post_pieces

URL = "/v1/users/ada/events"


async def test_an_accepted_event_is_answered_with_its_place(open_api) -> None:
    async with open_api() as (hub, client):
        response = await client.post(URL, json={"type": "note", "payload": {"n": 1}, "id": "first"})
        assert response.status_code == 202
        answer = response.json()
        epoch = answer.pop("epoch")
        assert answer == {"id": "first", "seq": 1, "state": "held", "duplicate": False}
        assert hub.describe("ada")["epoch"] == epoch
        assert (await client.post(URL, json={"type": "note"})).json()["seq"] == 2


async def test_every_field_reaches_the_event(open_api) -> None:
    body = {
        "type": "note",
        "payload": {"text": "grüße", "n": [1, 2.5, None]},
        "id": "x",
        "priority": "high",
        "key": "k",
        "ttl": 30,
        "confirm": True,
    }
    async with open_api() as (hub, client):
        assert (await client.post(URL, json=body)).status_code == 202
        entry = hub.engine.buffer.mailboxes["ada"].find("x")
        assert (entry.type, entry.key, entry.tracked) == ("note", "k", True)
        assert entry.expires_at - entry.accepted_at == 30
        assert hub.describe("ada")["buffer"]["by_priority"]["high"] == 1
        with hub.subscribe("ada") as events:
            [event] = await events.receive()
        assert isinstance(event, Event)
        assert event.payload == body["payload"]


async def test_deltas_are_joined(open_api) -> None:
    async with open_api() as (hub, client):
        for text in "ab":
            await client.post(URL, json={"type": "token", "payload": {"text": text}, "merge": "append"})
        with hub.subscribe("ada") as events:
            [event] = await events.receive()
        assert event.payload == {"text": "ab"}


async def test_without_a_payload_it_is_null(open_api) -> None:
    async with open_api() as (hub, client):
        await client.post(URL, json={"type": "note"})
        with hub.subscribe("ada") as events:
            [event] = await events.receive()
        assert event.payload is None


async def test_the_same_id_again_is_the_same_event(open_api) -> None:
    async with open_api() as (hub, client):
        first = (await client.post(URL, json={"type": "note", "id": "once"})).json()
        again = (await client.post(URL, json={"type": "note", "id": "once"})).json()
        assert again == {**first, "duplicate": True}
        assert hub.statistics().events_accepted == 1


@pytest.mark.parametrize("user", ["a/b", "größe", "a b", "%2F", "*", "..", "x" * 128])
async def test_a_user_may_be_called_anything_printable(open_api, user: str) -> None:
    async with open_api() as (hub, client):
        path = f"/v1/users/{quote(user, safe='').replace('.', '%2E')}"
        assert (await client.post(f"{path}/events", json={"type": "note"})).status_code == 202
        assert list(hub.engine.buffer.mailboxes) == [user]
        assert (await client.get(path)).json()["user"] == user


@pytest.mark.parametrize("user", ["%00", "%0d%0a", "%ff", "%ed%a0%80", "x" * 129])
async def test_what_is_no_name_is_refused(open_api, user: str) -> None:
    async with open_api() as (hub, client):
        response = await client.post(f"/v1/users/{user}/events", json={"type": "note"})
        assert (response.status_code, response.json()["error"]["field"]) == (422, "user")
        assert not hub.engine.buffer.mailboxes


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "type"),
        ({"type": 1}, "type"),
        ({"type": ""}, "type"),
        ({"type": "x" * 129}, "type"),
        ({"type": "a\nb"}, "type"),
        ({"type": "a", "id": 7}, "id"),
        ({"type": "a", "id": ""}, "id"),
        ({"type": "a", "priority": "urgent"}, "priority"),
        ({"type": "a", "priority": 3}, "priority"),
        ({"type": "a", "key": ["k"]}, "key"),
        ({"type": "a", "merge": "prepend"}, "merge"),
        ({"type": "a", "ttl": 0}, "ttl"),
        ({"type": "a", "ttl": -1}, "ttl"),
        ({"type": "a", "ttl": "5"}, "ttl"),
        ({"type": "a", "ttl": True}, "ttl"),
        ({"type": "a", "confirm": 1}, "confirm"),
        ({"type": "a", "colour": "red"}, "colour"),
        ({"type": "a", "user": "eve"}, "user"),
        ([], None),
        ("text", None),
    ],
)
async def test_an_invalid_event_is_refused_by_field(open_api, body: Any, field: str | None) -> None:
    async with open_api() as (hub, client):
        response = await client.post(URL, json=body)
        assert response.status_code == 422
        error = response.json()["error"]
        assert error["code"] == "invalid"
        assert error["message"]
        assert error.get("field") == field
        assert hub.statistics().events_accepted == 0


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"nonsense", 400),
        (b'{"type":"a"} trailing', 400),
        (b'{"type":"a","id":"\xff"}', 400),
        (b'{"type":"a","id":"\\ud800"}', 400),
        (b'{"type":"a","payload":' + b"[" * 60_000 + b"]" * 60_000 + b"}", 400),
        (b'{"type":"a","payload":' + b"[" * 200 + b"]" * 200 + b"}", 422),
        (b'{"type":"a","payload":"\\ud800 "}', 400),
        (b'{"type":"a","payload":NaN}', 400),
        (b'{"type":"a","payload":1e999}', 422),
        (b'{"type":"a","payload":' + b"9" * 10_000 + b"}", 422),
        (b'{"type":"a","ttl":1e999}', 422),
        (b'{"type":"a","' + b"k" * 100_000 + b'":1}', 422),
    ],
)
async def test_hostile_json_is_refused(open_api, body: bytes, status: int) -> None:
    async with open_api() as (hub, client):
        response = await client.post(URL, content=body)
        assert response.status_code == status, response.text
        assert len(response.content) < 1000
        assert hub.statistics().events_accepted == 0


async def test_a_body_over_the_limit_is_refused(open_api) -> None:
    config = Config(max_event_bytes=1024)
    async with open_api(config) as (_, client):
        limit = 4 * 1024 + 16 * 1024
        head, tail = b'{"type":"a","payload":"', b'"}'
        fits = head + b"x" * (limit - len(head) - len(tail)) + tail
        assert (await client.post(URL, content=fits)).status_code == 202
        declared = await client.post(URL, content=fits + b" ")
        for response in (declared, await post_pieces(client, URL, fits, b" ")):
            assert (response.status_code, response.json()["error"]["code"]) == (413, "too_large")


async def test_too_large_an_event_is_cut_or_refused(open_api) -> None:
    async with open_api(Config(max_event_bytes=1024)) as (hub, client):
        body = {"type": "note", "payload": {"text": "x" * 2000}}
        assert (await client.post(URL, json=body)).status_code == 202
        with hub.subscribe("ada") as events:
            [event] = await events.receive()
        assert event.truncated
        for refused in ({**body, "priority": "critical"}, {**body, "payload": [1] * 2000}):
            response = await client.post(URL, json=refused)
            assert response.status_code == 413
            error = response.json()["error"]
            assert (error["code"], error["field"]) == ("event_too_large", "payload")


async def test_a_full_buffer_refuses_and_says_when_to_come_back(open_api) -> None:
    async with open_api(Config(max_events_per_user=2)) as (hub, client):
        for number in range(2):
            body = {"type": "agent_started", "id": str(number)}
            assert (await client.post(URL, json=body)).status_code == 202
        response = await client.post(URL, json={"type": "agent_completed", "id": "last"})
        assert response.status_code == 503
        assert response.json()["error"]["code"] == "buffer_full"
        assert response.json()["error"]["retry_after"] == int(response.headers["retry-after"]) >= 1
        assert hub.stats()["delivery"]["events_refused"] == 1
        with hub.subscribe("ada") as events:
            await events.receive()
            with trio.move_on_after(0.01):
                await events.receive()
        assert (await client.post(URL, json={"type": "agent_completed", "id": "last"})).status_code == 202


async def test_a_draining_hub_refuses(open_api) -> None:
    async with open_api() as (hub, client):
        await hub.drain()
        response = await client.post(URL, json={"type": "note"})
        assert (response.status_code, response.json()["error"]["code"]) == (503, "draining")
        assert int(response.headers["retry-after"]) >= 1


async def test_waiting_ends_with_the_confirmation(open_api, autojump_clock: MockClock) -> None:
    async with open_api() as (hub, client), trio.open_nursery() as nursery:

        async def watch() -> None:
            with hub.subscribe("ada") as events:
                await trio.sleep(2)
                await events.receive()
                await events.receive()

        nursery.start_soon(watch)
        await wait_all_tasks_blocked()
        response = await client.post(f"{URL}?wait=confirmed", json={"type": "agent_started", "id": "x"})
        assert response.status_code == 200
        answer = response.json()
        assert answer["confirmed_after"] == pytest.approx(2, abs=0.01)
        assert (answer["id"], answer["seq"], answer["duplicate"]) == ("x", 1, False)
        assert answer["state"] in ("confirmed", "settled")
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("query", "seconds"), [("", 5), ("&timeout=0.5", 0.5), ("&timeout=60", 60)])
async def test_waiting_ends_with_the_timeout(
    open_api, autojump_clock: MockClock, query: str, seconds: float
) -> None:
    async with open_api() as (hub, client):
        started = trio.current_time()
        response = await client.post(f"{URL}?wait=confirmed{query}", json={"type": "note", "id": "x"})
        assert trio.current_time() - started == pytest.approx(seconds, abs=0.01)
        assert response.status_code == 504
        error = response.json()["error"]
        assert (error["code"], error["state"]) == ("confirmation_timeout", "held")
        assert (error["id"], error["seq"]) == ("x", 1)
        assert hub.statistics().events_held == 1


async def test_waiting_ends_when_the_event_is_gone(open_api, autojump_clock: MockClock) -> None:
    async with open_api(Config(cleanup_interval=1)) as (_, client):
        body = {"type": "note", "ttl": 0.5}
        response = await client.post(f"{URL}?wait=confirmed&timeout=60", json=body)
        assert (response.status_code, response.json()["error"]["state"]) == (504, "expired")
        assert trio.current_time() < 3


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("wait=sent", "wait"),
        ("wait=", "wait"),
        ("wait=confirmed&timeout=0", "timeout"),
        ("wait=confirmed&timeout=60.1", "timeout"),
        ("wait=confirmed&timeout=-1", "timeout"),
        ("wait=confirmed&timeout=nan", "timeout"),
        ("wait=confirmed&timeout=inf", "timeout"),
        ("wait=confirmed&timeout=5_0", "timeout"),
        ("wait=confirmed&timeout=", "timeout"),
        ("timeout=x", "timeout"),
        ("wiat=confirmed", "wiat"),
    ],
)
async def test_a_wrong_query_publishes_nothing(open_api, query: str, field: str) -> None:
    async with open_api() as (hub, client):
        response = await client.post(f"{URL}?{query}", content=json.dumps({"type": "note"}))
        assert (response.status_code, response.json()["error"]["field"]) == (422, field)
        assert hub.statistics().events_accepted == 0


async def test_one_user_is_sent_only_so_much(open_api) -> None:
    async with open_api(Config(publish_rate=1, publish_burst=2)) as (hub, client):
        for expected in (202, 202, 429):
            response = await client.post("/v1/users/ada/events", json={"type": "note"})
            assert response.status_code == expected
        assert response.json()["error"] == {
            "code": "rate_limited",
            "message": "too many events to this user",
            "retry_after": 1,
        }
        assert response.headers["retry-after"] == "1"
        assert (await client.post("/v1/users/bob/events", json={"type": "note"})).status_code == 202
        assert hub.stats()["delivery"]["events_accepted"] == 3
