"""A batch of JSON lines: each answered for itself, in order, while the rest still comes; within bounds."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import httpx
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_ws.admin import batch
from trio_ws.admin.batch import Lines
from trio_ws.admin.events import Events
from trio_ws.config import Config

from .conftest import post_pieces

URL = "/v1/events"


def lines(*bodies: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(body).encode() + b"\n" for body in bodies)


def answers(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/x-ndjson"
    assert response.content.endswith(b"\n") or not response.content
    return [json.loads(line) for line in response.content.splitlines()]


async def test_each_line_is_answered_as_the_single_call_would_be(open_api) -> None:
    async with open_api() as (hub, client):
        content = lines(
            {"user": "ada", "type": "note", "id": "a"},
            {"user": "bob", "type": "note", "payload": [1]},
            {"user": "ada", "type": "note", "id": "a"},
        )
        first, second, third = answers(await client.post(URL, content=content))
        assert (first["id"], first["seq"], first["state"], first["duplicate"]) == ("a", 1, "held", False)
        assert second["seq"] == 1
        assert third == {**first, "duplicate": True}
        assert hub.describe("bob")["head"] == 1


async def test_a_bad_line_spoils_no_other(open_api) -> None:
    content = b"\n".join(
        [
            b'{"user":"ada","type":"note"}',
            b"not json",
            b"",
            b"  \r",
            b'{"user":"ada"}',
            b'{"user":"a\\u0000","type":"note"}',
            b'{"type":"note"}',
            b'{"user":"ada","users":["bob"],"type":"note"}',
            b'{"users":[],"type":"note"}',
            b'{"users":"all","type":"note"}',
            b'{"users":["ada","bob"],"type":"a\\u0000"}',
            b'{"user":"ada","type":"note","payload":1e999}\r',
            b'{"user":"ada","type":"note"}',
        ]
    )
    async with open_api() as (hub, client):
        first, *refused, last = answers(await client.post(URL, content=content))
        assert (first["seq"], last["seq"]) == (1, 2)
        assert [(a["error"]["status"], a["error"].get("field")) for a in refused] == [
            (400, None),
            (422, "type"),
            (422, "user"),
            (422, "user"),
            (422, "user"),
            (422, "users"),
            (422, "users"),
            (422, "type"),
            (422, "payload"),
        ]
        assert hub.statistics().events_accepted == 2
        assert list(hub.engine.buffer.mailboxes) == ["ada"]


async def test_an_empty_batch_has_no_answers(open_api) -> None:
    async with open_api() as (_, client):
        assert answers(await client.post(URL, content=b"")) == []
        assert answers(await client.post(URL, content=b"\n\n")) == []


async def test_several_users_are_answered_each(open_api) -> None:
    async with open_api(Config(max_events_per_user=1)) as (hub, client):
        hub.publish_nowait("bob", "agent_started")
        content = lines({"users": ["ada", "bob", "ada", "a\x00"], "type": "agent_started", "id": "x"})
        [answer] = answers(await client.post(URL, content=content))
        ada, bob, bad = answer["results"]
        assert answer["id"] == "x"
        assert (ada["user"], ada["id"], ada["seq"], ada["duplicate"]) == ("ada", "x", 1, False)
        assert (bob["user"], bob["error"]["code"], bob["error"]["status"]) == ("bob", "buffer_full", 503)
        assert bob["error"]["retry_after"] >= 1
        assert (bad["user"], bad["error"]["status"]) == ("a\x00", 422)


async def test_all_who_are_known_are_counted(open_api) -> None:
    async with open_api(Config(max_events_per_user=2)) as (hub, client):
        for user in ("ada", "bob", "eve"):
            hub.publish_nowait(user, "agent_started")
        hub.publish_nowait("eve", "agent_started")
        [answer] = answers(await client.post(URL, content=lines({"users": "*", "type": "agent_completed"})))
        id = answer.pop("id")
        assert answer == {"users": 3, "accepted": 2, "refused": 1}
        # The same line again is for whom it did not reach; the others have it already.
        repeated = lines({"users": "*", "type": "agent_completed", "id": id})
        [again] = answers(await client.post(URL, content=repeated))
        assert again == {"id": id, "users": 3, "accepted": 2, "refused": 1}
        assert hub.describe("ada")["head"] == 2


async def test_a_full_buffer_and_a_drain_are_told_by_line(open_api) -> None:
    async with open_api(Config(max_events_per_user=1)) as (hub, client):
        line = {"user": "ada", "type": "agent_started"}
        accepted, full = answers(await client.post(URL, content=lines(line, line)))
        assert accepted["seq"] == 1
        assert (full["error"]["code"], full["error"]["status"]) == ("buffer_full", 503)
        await hub.drain()
        [draining] = answers(await client.post(URL, content=lines(line)))
        assert (draining["error"]["code"], draining["error"]["retry_after"]) == ("draining", 5)


async def test_a_line_over_the_limit_is_skipped(open_api) -> None:
    async with open_api(Config(max_event_bytes=1024)) as (_, client):
        line = lines({"user": "ada", "type": "note"})
        long = b"x" * 30_000
        pieces = [line, long[:1000], long[1000:] + long, b"x\n" + line]
        first, refused, last = answers(await post_pieces(client, URL, *pieces))
        assert (first["seq"], last["seq"]) == (1, 2)
        assert (refused["error"]["code"], refused["error"]["status"]) == ("too_large", 413)


async def test_too_large_a_batch_is_refused_at_once_or_cut_off(open_api, monkeypatch) -> None:
    monkeypatch.setattr(batch, "MAX_BATCH", 100)
    line = lines({"user": "ada", "type": "note"})
    async with open_api() as (hub, client):
        refused = await client.post(URL, content=line * 4)
        assert (refused.status_code, refused.json()["error"]["code"]) == (413, "too_large")
        assert hub.statistics().events_accepted == 0
        *accepted, cut = answers(await post_pieces(client, URL, line, line, line, line, line))
        assert len(accepted) == 2 + (len(line) * 3 <= 100)
        assert cut["error"]["code"] == "too_large"


async def test_lines_are_published_while_the_rest_still_comes(open_api) -> None:
    async with open_api() as (hub, client):
        seen = []

        async def before(_: int) -> None:
            await wait_all_tasks_blocked()
            seen.append(hub.statistics().events_accepted)

        line = lines({"user": "ada", "type": "note"})
        await post_pieces(client, URL, line, line + line[:5], line[5:], before=before)
        assert seen == [0, 1, 2]


async def test_a_batch_that_stalls_is_ended(open_api, autojump_clock: MockClock) -> None:
    async with open_api() as (_, client):

        async def before(number: int) -> None:
            if number == 1:
                await trio.sleep_forever()

        line = lines({"user": "ada", "type": "note"})
        accepted, ended = answers(await post_pieces(client, URL, line, line, before=before))
        assert accepted["seq"] == 1
        assert (ended["error"]["code"], ended["error"]["status"]) == ("request_timeout", 408)
        assert trio.current_time() == pytest.approx(batch.IDLE_TIMEOUT)


async def test_a_batch_that_trickles_is_ended(open_api, autojump_clock: MockClock) -> None:
    async with open_api() as (_, client):

        async def before(_: int) -> None:
            await trio.sleep(batch.IDLE_TIMEOUT - 1)

        content = await post_pieces(client, URL, *[b"\n"] * 100, before=before)
        [ended] = answers(content)
        assert ended["error"]["code"] == "request_timeout"
        assert trio.current_time() == pytest.approx(batch.BATCH_TIMEOUT)


async def test_answers_that_nobody_reads_stop_the_reading(open_api, monkeypatch) -> None:
    monkeypatch.setattr(batch, "MAX_PENDING", 1000)
    async with open_api() as (hub, _):
        answer = batch.BatchAnswer(lambda _: Events(hub))
        may_write = trio.Event()
        sent = bytearray()
        pieces = 0

        async def receive() -> dict[str, Any]:
            nonlocal pieces
            await trio.lowlevel.checkpoint()
            pieces += 1
            line = lines({"user": "ada", "type": "note"})
            return {"type": "http.request", "body": line, "more_body": pieces < 1000}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.body":
                await may_write.wait()
                sent.extend(message["body"])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer, {"type": "http"}, receive, send)
            await wait_all_tasks_blocked()
            assert 5 < pieces < 50
            may_write.set()
        assert pieces == 1000
        assert [json.loads(line)["seq"] for line in sent.splitlines()] == list(range(1, 1001))


@pytest.mark.parametrize("declared", [True, False])
async def test_of_a_declared_length_answers_begin_when_all_has_come(open_api, declared: bool) -> None:
    async with open_api() as (hub, _):
        body = lines({"user": "ada", "type": "note"})
        sent, rest = bytearray(), trio.Event()
        messages = [(body, True), (body, False)]

        async def receive() -> dict[str, Any]:
            if len(messages) == 1:
                await rest.wait()
            data, more = messages.pop(0)
            return {"type": "http.request", "body": data, "more_body": more}

        async def send(message: dict[str, Any]) -> None:
            sent.extend(message.get("body", b""))

        headers = [(b"content-length", str(2 * len(body)).encode())] if declared else []
        scope = {"type": "http", "method": "POST", "path": "/v1/events", "headers": headers}
        answer = await batch.publish_batch(lambda _: Events(hub), Request(scope))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer, scope, receive, send)
            await wait_all_tasks_blocked()
            assert hub.statistics().events_accepted == 1
            assert len(sent.splitlines()) == (0 if declared else 1)
            rest.set()
        assert len(sent.splitlines()) == 2


async def test_a_client_that_leaves_ends_the_batch(open_api) -> None:
    async with open_api() as (hub, _):
        messages = [
            {"type": "http.request", "body": lines({"user": "ada", "type": "note"}), "more_body": True},
            {"type": "http.disconnect"},
        ]

        async def receive() -> dict[str, Any]:
            await trio.lowlevel.checkpoint()
            return messages.pop(0)

        async def send(message: dict[str, Any]) -> None:
            await trio.lowlevel.checkpoint()

        await batch.BatchAnswer(lambda _: Events(hub))({"type": "http"}, receive, send)
        assert hub.statistics().events_accepted == 1


@given(
    text=st.lists(st.binary(max_size=12).map(lambda line: line.replace(b"\n", b".")), max_size=8),
    ends=st.booleans(),
    cuts=st.lists(st.integers(0, 100), max_size=8),
)
def test_lines_are_cut_the_same_however_they_come(text: list[bytes], ends: bool, cuts: list[int]) -> None:
    data = b"\n".join(text) + (b"\n" if ends else b"")
    expected = [None if len(line) > 8 else line for line in data.split(b"\n")]
    if expected[-1] == b"":
        expected.pop()
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    reader, found = Lines(8), []
    for start, end in pairwise(places):
        found += reader.feed(data[start:end])
    found += reader.feed(b"", last=True)
    assert found == expected
