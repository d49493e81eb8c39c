"""Calls at a node that has not the user's log: answered as if it had, and done once; or it is said that they may be."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
import trio
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_ws.admin.forwarding import LONGEST_PAUSE, PATIENCE
from trio_ws.admin.requests import HOP
from trio_ws.config import Config
from trio_ws.hub.elsewhere import HttpAnswer, HttpCall, NoAnswer

from .nodes import open_nodes

EVENTS = "/v1/users/a%2Fb/events"
RUNS = "/v1/users/a%2Fb/runs"
SESSIONS = "/v1/users/a%2Fb/sessions"

Make = Callable[[], Awaitable[HttpAnswer]]


class Faults:
    """Does something else with the first calls: loses the `call` or its `answer`, or has a node say that the log is
    `away`."""

    def __init__(self, *kinds: str) -> None:
        self._kinds = list(kinds)

    async def carry(self, node: str, call: HttpCall, make: Make) -> HttpAnswer:
        kind = self._kinds.pop(0) if self._kinds else "carry"
        if kind == "away":
            raise NoAnswer(in_doubt=False)
        if kind != "call":
            answer = await make()
        if kind != "carry":
            raise NoAnswer
        return answer


def unanswered(response: httpx.Response) -> None:
    """Hold that a call was refused as one that may have been done."""
    assert (response.status_code, response.json()["error"]["code"]) == (503, "unanswered")
    assert "may have been accepted" in response.json()["error"]["message"]
    assert response.headers["retry-after"] == "1"


async def test_any_node_answers_any_call() -> None:
    async with open_nodes() as nodes:
        nodes.owners["a/b"] = "a"
        there = nodes.clients["b"]
        published = await there.post(EVENTS, json={"type": "note", "id": "x", "payload": {"text": "ä"}})
        assert (published.status_code, published.json()["seq"]) == (202, 1)
        with nodes.hubs["a"].subscribe("a/b") as tab:
            [event] = await tab.receive()
        assert event.payload == {"text": "ä"}
        for path in (
            "/v1/users/a%2Fb",
            EVENTS,
            f"{EVENTS}/x",
            RUNS,
            f"{EVENTS}?limit=1",
            "/v1/users/a%2Fb/x",
        ):
            answers = [await client.get(path) for client in nodes.clients.values()]
            statuses = {answer.status_code for answer in answers}
            assert len(statuses) == 1, path
            assert {answer.headers["content-type"] for answer in answers} == {"application/json"}
        assert "a/b" not in nodes.hubs["b"].users()


async def test_a_run_is_played_from_every_node() -> None:
    async with open_nodes() as nodes:
        nodes.owners["a/b"] = "c"
        a, b = nodes.clients["a"], nodes.clients["b"]
        assert (await a.post(RUNS, json={"run": "r"})).status_code == 201
        assert (await b.post(RUNS, json={"run": "r"})).json()["duplicate"]
        assert (await b.post(f"{RUNS}/r/heartbeat")).status_code == 200
        lines = b'{"type":"agent_delta","payload":{"text":"a"},"id":"1"}\n{"type":"nonsense"\n{"type":"x"}'
        headers = {"content-type": "application/x-ndjson; charset=utf-8"}
        response = await a.post(f"{RUNS}/r/events", content=lines, headers=headers)
        first, second, third = map(json.loads, response.text.splitlines())
        assert (first["id"], second["error"]["status"], third["seq"]) == ("1", 400, 3)
        closed = await b.post(f"{RUNS}/r/close", json={"outcome": "completed"})
        assert closed.json()["outcome"] == "completed"
        late = await a.post(f"{RUNS}/r/events", content=lines, headers=headers)
        first, _, third = map(json.loads, late.text.splitlines())
        assert (first["duplicate"], third["error"]["code"]) == (True, "run_ended")
        unknown = await a.post(f"{RUNS}/none/events", content=lines, headers=headers)
        assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "unknown_run")


async def test_refusals_are_the_owners_own() -> None:
    async with open_nodes(config=Config(max_events_per_user=1, max_event_bytes=1024)) as nodes:
        nodes.owners["a/b"] = "a"
        client = nodes.clients["b"]
        critical = {"type": "note", "priority": "critical"}
        assert (await client.post(EVENTS, json=critical)).status_code == 202
        full = await client.post(EVENTS, json=critical)
        assert (full.status_code, full.json()["error"]["code"]) == (503, "buffer_full")
        assert full.headers["retry-after"] == "1"
        assert (await client.post(EVENTS, content=b"oops")).status_code == 400
        assert (await client.post(EVENTS, content=b"[1]")).status_code == 422
        assert (await client.post(EVENTS, json={"type": "a", "payload": "x" * 99_999})).status_code == 413
        assert (await client.post(f"{EVENTS}?wait=x", json={"type": "a"})).json()["error"]["field"] == "wait"
        assert (await client.put(EVENTS)).status_code == 405
        # What is no name is nobody's.
        assert (await client.get("/v1/users/%00/events")).status_code == 422
        assert len(nodes.owners) == 1


async def test_a_confirmation_is_waited_for_over_there(autojump_clock: MockClock) -> None:
    async with open_nodes() as nodes, trio.open_nursery() as nursery:
        nodes.owners["a/b"] = "a"

        async def process() -> None:
            with nodes.hubs["a"].subscribe("a/b") as tab:
                await tab.receive()
                await trio.sleep(12)
                await tab.receive()

        nursery.start_soon(process)
        url = f"{EVENTS}?wait=confirmed&timeout=60"
        response = await nodes.clients["b"].post(url, json={"type": "agent_started"}, timeout=None)
        assert (response.status_code, response.json()["confirmed_after"]) == (200, pytest.approx(12))
        late = await nodes.clients["b"].post(f"{EVENTS}?wait=confirmed&timeout=3", json={"type": "note"})
        assert (late.status_code, late.json()["error"]["state"]) == (504, "sent")


@pytest.mark.parametrize("fault", ["call", "answer"])
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", EVENTS, {"type": "agent_started", "id": None}),
        ("POST", EVENTS, {"type": "note", "priority": "critical"}),
        ("POST", RUNS, {"name": "researcher"}),
        ("POST", f"{RUNS}/r/questions", {"prompt": "Well?", "question": None}),
        ("POST", f"{RUNS}/r/events", {"type": "agent_thinking", "payload": {"text": "hm"}}),
        ("POST", f"{RUNS}/r/close", {"outcome": "completed"}),
        ("POST", f"{RUNS}/r/cancel", None),
        ("DELETE", SESSIONS, None),
        ("GET", f"{RUNS}/r", None),
    ],
)
async def test_what_is_lost_on_the_way_is_done_once(
    autojump_clock: MockClock, fault: str, method: str, path: str, body: Any
) -> None:
    async with open_nodes() as nodes:
        hub = nodes.hubs["a"]
        nodes.owners["a/b"] = "a"
        await hub.open_run("a/b", "r")
        before = hub.engine.books.accepted
        nodes.carry = Faults(fault, fault).carry
        response = await nodes.clients["b"].request(method, path, json=body)
        assert response.is_success, response.text
        assert len(nodes.calls) == 3
        once = hub.engine.books.accepted - before
        nodes.carry = Faults().carry
        again = await nodes.clients["b"].request(method, path, json=body)
        assert again.is_success
        twice = hub.engine.books.accepted - before
        assert once == (method == "POST")
        assert twice == once * (1 if path.endswith(("close", "cancel")) else 2)


async def test_a_session_that_was_ended_by_who_died_is_ended(autojump_clock: MockClock) -> None:
    async with open_nodes() as nodes:
        nodes.owners["a/b"] = "a"
        with nodes.hubs["a"].subscribe("a/b") as tab:
            url = f"{SESSIONS}/{tab._attachment.session.id}"
            nodes.carry = Faults("answer").carry
            assert (await nodes.clients["b"].delete(url)).status_code == 204
            assert (await nodes.clients["b"].delete(url)).status_code == 404


async def test_a_call_goes_where_the_log_is_when_its_node_is_dead(autojump_clock: MockClock) -> None:
    async with open_nodes() as nodes:
        nodes.owners["a/b"] = "a"
        del nodes.hubs["a"]
        response = await nodes.clients["b"].post(EVENTS, json={"type": "note"})
        assert (response.status_code, nodes.owners["a/b"]) == (202, "b")
        assert nodes.hubs["b"].describe("a/b")


async def test_a_call_follows_a_log_that_moves(autojump_clock: MockClock) -> None:
    async with open_nodes() as nodes:
        nodes.owners["a/b"] = "a"

        async def carry(node: str, call: HttpCall, make: Make) -> HttpAnswer:
            nodes.owners["a/b"] = "c"
            return await make()

        nodes.carry = carry
        response = await nodes.clients["b"].post(EVENTS, json={"type": "note"})
        assert response.status_code == 202
        assert [node for node, _ in nodes.calls] == ["a", "c"]
        assert nodes.hubs["a"].users() == []


async def test_what_can_not_be_asked_again_says_that_it_may_have_been_done(autojump_clock: MockClock) -> None:
    async def pay(request: Request) -> Response:
        assert HOP in request.scope
        return Response(status_code=204)

    routes = [Route("/v1/users/{user}/payments", pay, methods=["POST"])]
    async with open_nodes(extra_routes=routes) as nodes:
        nodes.owners["a/b"] = "a"
        url = "/v1/users/a%2Fb/payments"
        assert (await nodes.clients["b"].post(url)).status_code == 204
        nodes.carry = Faults("answer").carry
        unanswered(await nodes.clients["b"].post(url))
        assert len(nodes.calls) == 2


@pytest.mark.parametrize("path", [EVENTS, f"{RUNS}/r/events"])
async def test_what_need_not_be_durable_and_has_no_id_is_not_asked_for_again(
    autojump_clock: MockClock, path: str
) -> None:
    async with open_nodes() as nodes:
        nodes.owners["a/b"] = "a"
        await nodes.hubs["a"].open_run("a/b", "r")
        client, note = nodes.clients["b"], {"type": "note", "priority": "low"}
        nodes.carry = Faults("answer").carry
        unanswered(await client.post(path, json=note))
        nodes.carry = Faults("answer").carry
        assert (await client.post(path, json={**note, "id": "x"})).json()["id"] == "x"
        told = (await client.post(path, json=note)).json()
        assert (told["seq"], told["id"][8]) == (4, "-")  # the hub's own: its key is not kept
        nodes.carry = Faults("away").carry  # where it is certain that nothing was done, it goes on
        assert (await client.post(path, json=note)).json()["seq"] == 5


async def test_who_never_answers_is_given_up(autojump_clock: MockClock) -> None:
    async with open_nodes() as nodes:
        nodes.owners["a/b"] = "a"
        nodes.carry = Faults(*["call"] * 99).carry
        unanswered(await nodes.clients["b"].post(EVENTS, json={"type": "agent_started"}))
        assert trio.current_time() == pytest.approx(PATIENCE)
        assert len(nodes.calls) < PATIENCE / LONGEST_PAUSE + 10

        async def hang(node: str, call: HttpCall, make: Make) -> HttpAnswer:
            await trio.sleep_forever()
            raise AssertionError

        nodes.carry = hang
        unanswered(await nodes.clients["b"].get(EVENTS))
        # What was asked to be waited for comes on top, once.
        begun = trio.current_time()
        nodes.carry = Faults(*["call"] * 999).carry
        body = {"type": "agent_started"}
        unanswered(await nodes.clients["b"].post(f"{EVENTS}?wait=confirmed&timeout=30", json=body))
        assert trio.current_time() - begun == pytest.approx(PATIENCE + 30)
        waits = [
            float(call.target.partition("timeout=")[2]) for _, call in nodes.calls if "wait" in call.target
        ]
        assert waits == sorted(waits, reverse=True)
        assert (waits[0], waits[-1]) == (30, 0.001)


async def test_a_node_that_can_not_reach_the_store_says_so_and_ends_sessions_all_the_same() -> None:
    async with open_nodes() as nodes:
        hub, client = nodes.hubs["a"], nodes.clients["a"]
        with hub.subscribe("a/b"):
            nodes.away.add("a")
            refused = await client.post(EVENTS, json={"type": "note"})
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "store_unavailable")
            assert (await client.delete(f"{SESSIONS}?revoke=60")).status_code == 503
            assert hub.engine.pool.connected == 0
            assert len(hub.engine.revocations) == 1


async def test_the_key_is_asked_for_where_the_call_comes() -> None:
    async with open_nodes(api_key="secret") as nodes:
        nodes.owners["a/b"] = "a"
        client = nodes.clients["b"]
        assert (await client.get(EVENTS)).status_code == 401
        assert not nodes.calls
        answer = await client.get(EVENTS, headers={"authorization": "Bearer secret", "x-other": "y"})
        assert answer.status_code == 404
        [(_, call)] = nodes.calls
        assert {name for name, _ in call.headers} <= {"accept", "content-type"}


async def test_a_caller_who_is_cut_off_leaves_nothing_behind(autojump_clock: MockClock) -> None:
    async with open_nodes() as nodes:
        nodes.owners["a/b"] = "a"
        with trio.move_on_after(1):
            await nodes.clients["b"].post(
                f"{EVENTS}?wait=confirmed&timeout=60", json={"type": "agent_started"}
            )
        await wait_all_tasks_blocked()
        assert nodes.hubs["a"].describe("a/b")
