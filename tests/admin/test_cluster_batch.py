"""Batches at a node: each line is published where its user's log is, once, in order, and answered in its place."""

from __future__ import annotations

import json
import random
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
import trio
from trio.testing import MockClock

from trio_ws.admin import couriers
from trio_ws.admin import lines as lines_of
from trio_ws.config import Config
from trio_ws.core.records import Batch, UserRecord
from trio_ws.core.wire import payload_of
from trio_ws.errors import StoreError
from trio_ws.hub.elsewhere import HttpAnswer, HttpCall, NoAnswer

from .nodes import Nodes, open_nodes
from .test_batch import URL, answers, lines

Make = Callable[[], Awaitable[HttpAnswer]]


def held(nodes: Nodes, node: str, user: str) -> list[Any]:
    """The payloads of a user's events, in order."""
    box = nodes.hubs[node].engine.buffer.mailboxes.get(user)
    return [] if box is None else [json.loads(payload_of(entry.tail)) for entry in box.entries.values()]


async def post(nodes: Nodes, *bodies: dict[str, Any], at: str = "b") -> list[dict[str, Any]]:
    return answers(await nodes.clients[at].post(URL, content=lines(*bodies)))


def note(user: str, payload: Any = None, **more: Any) -> dict[str, Any]:
    return {"user": user, "type": "note", "payload": payload, **more}


async def test_lines_go_to_their_users_in_groups_and_are_answered_in_order(autojump_clock: MockClock) -> None:
    async with open_nodes() as nodes:

        async def carry(node: str, call: HttpCall, make: Make) -> HttpAnswer:
            await trio.sleep(0.001)
            return await make()

        nodes.carry = carry
        nodes.owners.update(ann="a", bob="b", cyd="c", dan="a")
        users = ["ann", "bob", "cyd", "dan", "ann"] * 100
        answered = await post(nodes, *[note(user, n, id=f"{n}") for n, user in enumerate(users)])
        assert [answer["id"] for answer in answered] == [f"{n}" for n in range(500)]
        for user, node in nodes.owners.items():
            assert held(nodes, node, user) == [n for n, name in enumerate(users) if name == user][-200:]
        # Some lines a call, not a call a line.
        assert len(nodes.calls) <= 6


async def test_a_bad_line_spoils_no_other() -> None:
    async with open_nodes(config=Config(max_events_per_user=2)) as nodes:
        nodes.owners.update(ann="a", bob="b")
        content = b"\n".join(
            [
                b'{"user":"ann","type":"note"}',
                b"oops",
                b'{"user":"ann","type":"agent_started"}',
                b'{"user":"ann","type":"agent_started","payload":"' + b"x" * 10 + b'"}',
                b'{"user":"ann","type":"agent_started"}',
                b'{"user":"a\\u0000","type":"note"}',
                b'{"user":"ann","type":"a\\u0000"}',
                b'{"user":"bob","type":"note"}',
                b'{"user":"ann","type":"note","id":null}',
            ]
        )
        told = answers(await nodes.clients["b"].post(URL, content=content))
        statuses = [answer.get("error", {}).get("status", 202) for answer in told]
        assert statuses == [202, 400, 202, 202, 503, 422, 422, 202, 503]


async def test_a_line_for_several_users_is_one_event_for_each() -> None:
    async with open_nodes() as nodes:
        nodes.owners.update(ann="a", bob="b", cyd="c")
        body = {"users": ["ann", "bob", "cyd", "ann", "a\0"], "type": "note", "payload": 1, "id": "x"}
        [told, again, wrong] = await post(nodes, body, body, {**body, "type": "\0"})
        assert [result["user"] for result in told["results"]] == ["ann", "bob", "cyd", "a\0"]
        assert [result.get("duplicate") for result in told["results"]] == [False, False, False, None]
        assert told["results"][3]["error"]["status"] == 422
        assert [result.get("duplicate") for result in again["results"]] == [True, True, True, None]
        assert (wrong["error"]["status"], wrong["error"]["field"]) == (422, "type")
        assert [held(nodes, node, user) for user, node in nodes.owners.items() if user != "a\0"] == [[1]] * 3


def noting(accept: Any, order: dict[str, list[int]]) -> Any:
    """`publish_nowait`, which notes what is published to whom."""

    def publish(user: str, type: str, payload: Any, **more: Any) -> Any:
        order[user].append(json.loads(payload))
        return accept(user, type, payload, **more)

    return publish


async def test_what_is_lost_or_moves_on_the_way_is_one_event_in_its_place(autojump_clock: MockClock) -> None:
    """By many seeds: the log of a user is where it is all the time, but the bus and what nodes believe are not so."""
    for seed in range(30):
        chance = random.Random(seed)
        async with open_nodes() as nodes:

            async def carry(
                node: str, call: HttpCall, make: Make, chance: random.Random = chance
            ) -> HttpAnswer:
                await trio.sleep(chance.random() * 0.01)
                kind = chance.random()
                if kind < 0.2:
                    raise NoAnswer
                answer = await make()
                if kind < 0.4:
                    raise NoAnswer
                return answer

            nodes.carry = carry
            nodes.owners.update(ann="a", bob="b", cyd="c")
            users = chance.choices(["ann", "bob", "cyd"], k=60)
            answered = await post(
                nodes, *[note(user, n, priority="critical") for n, user in enumerate(users)]
            )
            assert all("error" not in answer for answer in answered), seed
            for user, node in nodes.owners.items():
                assert held(nodes, node, user) == [n for n, name in enumerate(users) if name == user], seed
                seqs = [answer["seq"] for answer, name in zip(answered, users, strict=True) if name == user]
                assert seqs == list(range(1, len(seqs) + 1)), seed


async def test_lines_follow_a_log_that_moves_and_keep_their_order(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log that moves takes no events along here: what counts is the order in which lines are published, wherever."""
    monkeypatch.setattr(couriers, "MOST_WAITING", 500)
    for seed in range(30):
        chance = random.Random(seed)
        async with open_nodes() as nodes:
            order: dict[str, list[int]] = {"ann": [], "bob": []}

            async def carry(
                node: str, call: HttpCall, make: Make, chance: random.Random = chance
            ) -> HttpAnswer:
                await trio.sleep(chance.random() * 0.01)
                return await make()

            def move(nodes: Nodes = nodes, chance: random.Random = chance) -> None:
                if chance.random() < 0.2:
                    nodes.owners[chance.choice(["ann", "bob"])] = chance.choice("abc")

            nodes.carry, nodes.meanwhile = carry, move
            nodes.owners.update(ann="a", bob="c")
            users = chance.choices(["ann", "bob"], k=40)
            for hub in nodes.hubs.values():
                hub.publish_nowait = noting(hub.publish_nowait, order)  # type: ignore[method-assign]
            told = await post(nodes, *[note(user, n) for n, user in enumerate(users)])
            assert all("error" not in answer for answer in told), seed
            for user, published in order.items():
                assert published == [n for n, name in enumerate(users) if name == user], seed


async def test_a_dead_node_spoils_only_what_nobody_else_can_take(autojump_clock: MockClock) -> None:
    async with open_nodes() as nodes:
        nodes.owners.update(ann="a", cyd="c")
        del nodes.hubs["a"]
        told = await post(nodes, note("ann", 1), note("cyd", 2), note("ann", 3))
        assert [answer["seq"] for answer in told] == [1, 1, 2]
        assert (nodes.owners["ann"], held(nodes, "b", "ann")) == ("b", [1, 3])


async def test_who_never_answers_is_given_up_and_the_others_are_served(autojump_clock: MockClock) -> None:
    async with open_nodes() as nodes:
        nodes.owners.update(ann="a", cyd="c")

        async def carry(node: str, call: HttpCall, make: Make) -> HttpAnswer:
            if node == "a":
                raise NoAnswer
            return await make()

        nodes.carry = carry
        mine, durable = note("ann", 1, id="mine"), note("ann", 3, priority="critical")
        one, two, three, four = await post(nodes, mine, note("cyd", 2), durable, note("ann", 4))
        assert (one["error"]["code"], one["error"]["id"], one["error"]["retry_after"]) == (
            "unanswered",
            "mine",
            1,
        )
        assert three["error"]["id"]  # it can be sent again, and is one event
        assert (four["error"]["code"], "id" in four["error"]) == ("unanswered", False)
        assert two["seq"] == 1
        assert trio.current_time() < 60


async def test_all_who_are_known_in_the_cluster_are_reached_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines_of, "PAGE", 100)
    async with open_nodes() as nodes:
        nodes.owners.update(ann="a", bob="b", cyd="c")
        await post(nodes, *[note(user, "x") for user in nodes.owners])
        # Of whom the store knows, and no node has loaded.
        store = nodes.place.node("b")
        for name in ["ann", "zoe", *[f"u{n:04}" for n in range(300)]]:
            await store.claim(name)
            await store.commit(Batch(users=[UserRecord(name, "e", 0, 0, 0, None, False, None)]))
        body = {"users": "*", "type": "note", "payload": "all", "id": "e"}
        [told, again] = await post(nodes, body, body)
        assert told == {"id": "e", "users": 304, "accepted": 304, "refused": 0}
        assert again == told
        for user, node in list(nodes.owners.items()):
            assert held(nodes, node, user).count("all") == 1


async def test_a_store_that_fails_while_everybody_is_reached_is_told_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_nodes() as nodes:

        async def fail(*_: object) -> None:
            raise StoreError("away")

        monkeypatch.setattr(nodes.clusters["b"].store, "users", fail)
        [told, other] = await post(nodes, {"users": "*", "type": "note", "id": "e"}, note("ann"))
        assert (told["error"]["code"], told["error"]["status"]) == ("store_unavailable", 503)
        assert other["seq"] == 1


async def test_who_moves_while_everybody_is_reached_counts_once(autojump_clock: MockClock) -> None:
    async with open_nodes() as nodes:
        nodes.owners.update(ann="a", bob="b", cyd="c")
        await post(nodes, *[note(user) for user in nodes.owners])

        async def carry(node: str, call: HttpCall, make: Make) -> HttpAnswer:
            if node == "c":
                await trio.sleep(1)
                nodes.owners["ann"] = "c"
                nodes.hubs["c"].publish_nowait("ann", "note", None)
            return await make()

        nodes.carry = carry
        [told] = await post(nodes, {"users": "*", "type": "note", "id": "e", "payload": "all"})
        assert told == {"id": "e", "users": 3, "accepted": 3, "refused": 0}


async def test_a_node_that_lives_and_does_not_answer_is_told_of(autojump_clock: MockClock) -> None:
    async with open_nodes() as nodes:
        nodes.owners.update(ann="a", bob="b")
        await post(nodes, note("ann"), note("bob"))

        async def carry(node: str, call: HttpCall, make: Make) -> HttpAnswer:
            if node == "c":
                raise NoAnswer
            return await make()

        nodes.carry = carry
        [told] = await post(nodes, {"users": "*", "type": "note", "id": "e", "payload": "all"})
        assert (told["error"]["code"], told["error"]["id"]) == ("unanswered", "e")
        del nodes.hubs["c"]
        [told] = await post(nodes, {"users": "*", "type": "note", "id": "e", "payload": "all"})
        assert told == {"id": "e", "users": 2, "accepted": 2, "refused": 0}
        assert held(nodes, "a", "ann") == [None, "all"]


async def test_behind_a_line_of_a_run_that_is_refused_for_now_all_are(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(couriers, "MOST_LINES", 3)
    async with open_nodes(config=Config(max_events_per_user=8)) as nodes:
        nodes.owners["ann"] = "a"
        client = nodes.clients["b"]
        assert (await client.post("/v1/users/ann/runs", json={"run": "r"})).status_code == 201
        content = lines(*[{"type": "agent_thinking", "payload": {"text": f"{n}"}} for n in range(20)])
        headers = {"content-type": "application/x-ndjson"}
        told = answers(await client.post("/v1/users/ann/runs/r/events", content=content, headers=headers))
        refused = [answer.get("error", {}).get("code") for answer in told]
        taken = refused.index("buffer_full")
        assert refused == [None] * taken + ["buffer_full"] * (20 - taken)
        assert 0 < taken < 20


async def test_a_batch_reads_no_more_than_may_wait_for_a_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(couriers, "MOST_WAITING", 2000)
    async with open_nodes() as nodes:
        nodes.owners["ann"] = "a"
        released, most = trio.Event(), 0

        async def carry(node: str, call: HttpCall, make: Make) -> HttpAnswer:
            nonlocal most
            most = max(most, len(call.body))
            await released.wait()
            return await make()

        nodes.carry = carry
        async with trio.open_nursery() as nursery:
            got: list[httpx.Response] = []

            async def send() -> None:
                got.append(await nodes.clients["b"].post(URL, content=lines(*[note("ann", "x" * 100)] * 200)))

            nursery.start_soon(send)
            await trio.testing.wait_all_tasks_blocked()
            released.set()
        assert len(answers(got[0])) == 200
        assert most < 4000


@pytest.mark.parametrize("ids", [False, True])
async def test_lines_of_a_run_whose_answer_is_lost_are_sent_again_or_all_refused(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, ids: bool
) -> None:
    monkeypatch.setattr(couriers, "MOST_LINES", 3)
    async with open_nodes() as nodes:
        nodes.owners["ann"] = "a"
        client = nodes.clients["b"]
        assert (await client.post("/v1/users/ann/runs", json={"run": "r"})).status_code == 201

        async def carry(node: str, call: HttpCall, make: Make) -> HttpAnswer:
            answer = await make()
            if (
                len(nodes.calls) == 4
            ):  # behind the opening, the question whether there is such a run, and three lines
                raise NoAnswer
            return answer

        nodes.carry = carry
        body = {"type": "agent_delta", "payload": {"text": "a"}}
        content = lines(*[{**body, "id": f"{n}"} if ids else body for n in range(10)])
        headers = {"content-type": "application/x-ndjson"}
        told = answers(await client.post("/v1/users/ann/runs/r/events", content=content, headers=headers))
        if ids:
            assert [answer["seq"] for answer in told] == list(range(2, 12))
        else:
            assert [answer.get("seq") for answer in told] == [2, 3, 4, *[None] * 7]
            assert {answer["error"]["code"] for answer in told[3:]} == {"unanswered"}
