"""Connections whose user's log another node has: as a client sees them, nothing differs."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from tests.server.memory import Closed
from trio_ws.hub import Identity

from .relaying import WALL, acked, cluster


async def test_hello_is_answered_and_events_come_and_are_confirmed() -> None:
    async with cluster("a", "b") as (nodes, (a, b)):
        await nodes.publish(a, 1)
        client, welcome = await b.client()
        assert (welcome["seq"], welcome["head"], welcome["resumed"]) == (0, 1, False)
        first = await client.frame()
        assert (first["t"], first["seq"], first["payload"]) == ("event", 1, 1)
        assert await client.frame() == {"t": "live", "seq": 1}
        receipt = await a.hub.publish("ada", "agent_completed", 2)
        assert (await client.until("event"))["seq"] == 2
        await client.send(acked(2))
        assert not (await receipt.confirmed()).late
        assert a.hub.stats()["sessions"]["active"] == 1
        assert a.hub.stats()["connections"]["current"] == 0
        assert b.hub.stats()["sessions"]["active"] == 0
        assert b.hub.stats()["connections"]["current"] == 1


async def test_a_session_that_was_cut_on_one_node_resumes_on_another() -> None:
    async with cluster("a", "b", "c") as (nodes, (a, b, c)):
        await nodes.publish(a, 1, 2, 3, 4)
        client, welcome = await b.client()
        await client.until("live")
        await client.send(acked(2))
        await client.stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert a.hub.stats()["sessions"] == {"active": 0, "parked": 1}
        await nodes.publish(a, 5)
        where = {"session": welcome["session"], "epoch": welcome["epoch"]}
        again, second = await c.client(**where, seq=3)
        assert (second["session"], second["seq"], second["resumed"]) == (welcome["session"], 3, True)
        assert [(await again.until("event"))["seq"] for _ in range(2)] == [4, 5]
        here, third = await a.client(**where, seq=5)
        assert (third["seq"], third["resumed"]) == (5, True)
        assert (await again.closed()).code == 4409
        assert await here.frame() == {"t": "live", "seq": 5}
        assert c.hub.stats()["connections"]["current"] == 0
        assert a.hub.stats()["connections"]["current"] == 1


async def test_what_was_evicted_meanwhile_is_a_gap_on_the_other_node() -> None:
    async with cluster("a", "b", max_events_per_user=3) as (nodes, (a, b)):
        client, welcome = await a.client()
        await client.stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        await nodes.publish(a, *range(6), type="token")
        await trio.sleep(1)  # all of it is durable
        again, _ = await b.client(session=welcome["session"], epoch=welcome["epoch"], seq=0)
        gap = await again.frame()
        assert (gap["t"], gap["from"], gap["to"], gap["reason"]) == ("gap", 1, 3, "evicted")
        assert [(await again.frame())["seq"] for _ in range(3)] == [4, 5, 6]


async def test_what_is_not_acked_is_sent_again() -> None:
    async with cluster("a", "b") as (nodes, (a, b)):
        client, _ = await b.client()
        await client.until("live")
        sent = trio.current_time()
        await nodes.publish(a, 1)
        assert "retry" not in await client.until("event")
        tries = []
        for _ in range(2):
            event = await client.until("event")
            tries.append((event["retry"], trio.current_time() - sent))
        assert tries == [(1, pytest.approx(0.5, abs=0.05)), (2, pytest.approx(1.0, abs=0.05))]


async def test_a_users_connections_are_bounded_over_all_nodes() -> None:
    async with cluster("a", "b", "c") as (_, (a, b, c)):
        clients = [await node.client() for node in (b, a, c)]
        await trio.sleep(0.1)
        await c.client()
        assert (await clients[0][0].closed()).code == 4409
        assert a.hub.stats()["sessions"]["active"] == 3
        assert [n.hub.stats()["connections"]["current"] for n in (a, b, c)] == [1, 0, 2]


async def test_who_is_one_too_many_is_refused_where_that_is_the_policy() -> None:
    async with cluster("a", "b", over_limit="reject", max_connections_per_user=1) as (_, (a, b)):
        await a.client()
        late = await b.dial()
        await late.open()
        await late.send({"t": "hello", "user": "ada"})
        assert (await late.closed()).code == 4429
        assert b.hub.stats()["connections"]["refused"]["limit"] == 1


async def test_the_sockets_of_a_node_are_bounded_wherever_their_sessions_are() -> None:
    async with cluster("a", "b", max_connections=2) as (_, (a, b)):
        await b.client()
        await b.client(user="bob")
        assert await a.hub.place("eve") is None
        for user in ("ada", "eve", "carol"):
            full = await b.dial()
            await full.open()
            await full.send({"t": "hello", "user": user})
            assert (await full.closed()).code in (4503, 4409)
        assert b.hub.engine.pool.sockets == 2
        for user in ("ada", "eve"):
            await a.client(user=user)  # of sockets elsewhere this node has room for as many as it likes


async def test_a_session_that_is_ended_is_told_wherever_it_is() -> None:
    async with cluster("a", "b") as (_, (a, b)):
        client, welcome = await b.client()
        assert a.hub.end_session("ada", welcome["session"])
        frames = [await client.frame(), await client.frame()]
        assert frames[1] == {"t": "error", "code": 4403, "reason": "ended by the operator", "fatal": True}
        assert (await client.closed()).code == 4403
        other, _ = await b.client()
        await other.send({"t": "bye"})
        assert (await other.closed()).code == 1000
        assert a.hub.stats()["sessions"] == {"active": 0, "parked": 0}


@pytest.mark.parametrize(
    ("said", "code"),
    [("not JSON", 4400), ('["no", "frame"]', 4400), ('{"t":"ack","seq":9}', None), ('{"t":"hello"}', None)],
)
async def test_what_makes_no_sense_is_judged_by_the_owner(said: str, code: int | None) -> None:
    async with cluster("a", "b") as (_, (a, b)):
        client, _ = await b.client()
        await client.until("live")
        if code is None:
            for _ in range(9):
                await client.send(said)
                error = await client.until("error")
                assert (error["code"], error["fatal"]) == (4400, False)
        await client.send(said)
        assert (await client.closed()).code == 4400
        assert a.hub.stats()["connections"]["mistakes"] == (0 if code else 10)


async def test_a_client_that_is_silent_is_dropped_and_its_session_parked() -> None:
    async with cluster("a", "b") as (_, (a, b)):
        client, _ = await b.client()
        await client.until("live")
        pings = 0
        with pytest.raises(Closed) as closed:
            while True:
                frame = await client.frame()
                pings += frame["t"] == "ping"
        assert closed.value.code == 4501
        assert pings
        assert a.hub.stats()["sessions"] == {"active": 0, "parked": 1}
        (session,) = a.hub.engine.buffer.mailboxes["ada"].sessions.values()
        assert session.cut_at < trio.current_time() - 1


async def test_a_client_that_answers_pings_stays() -> None:
    async with cluster("a", "b") as (_, (_, b)):
        client, _ = await b.client()
        with trio.move_on_after(100):
            while True:
                if (await client.frame())["t"] == "ping":
                    await client.send({"t": "pong"})
        assert b.edge.holds


async def test_messages_are_handled_by_the_owner_and_answered() -> None:
    taken = []

    async def on_message(user: str, message: Any) -> None:
        taken.append((user, message.id, message.payload))

    async with cluster("a", "b", serving={"on_message": on_message}) as (_, (_, b)):
        client, _ = await b.client()
        await client.send(*[{"t": "message", "id": i, "type": "say", "payload": i} for i in ("x", "y")])
        assert [(await client.until("accepted"))["id"] for _ in range(2)] == ["x", "y"]
        plain = await b.plain()
        await plain.send({"type": "say", "payload": "z"})
        await trio.testing.wait_all_tasks_blocked()
        assert taken == [("ada", "x", "x"), ("ada", "y", "y"), ("ada", "plain-1", "z")]


async def test_what_comes_with_hello_is_handled() -> None:
    async with cluster("a", "b") as (_, (_, b)):
        client = await b.dial()
        await client.open()
        await client.send({"t": "hello", "user": "ada"}, {"t": "ping"})
        assert [(await client.frame())["t"] for _ in range(3)] == ["welcome", "live", "pong"]


# -- credentials


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ('{"t":"auth","token":"ada-secret-2"}', None),
        ('[{"t":"ping"},{"t":"\\u0061uth","token":"ada-secret-2"}]', None),
        ('{"t":"auth","token":"bob-secret-2"}', 4403),
        ('{"t":"auth","token":"eve-secret-2"}', 4401),
    ],
)
async def test_fresh_tokens_are_checked_at_the_edge_and_go_no_further(frame: str, code: int | None) -> None:
    said = []
    until = [WALL + 20, WALL + 1020]

    async def authenticate(credentials: Any) -> Identity | None:
        user, _, n = credentials.token.partition("-secret-")
        return Identity(user, until[int(n) - 1]) if user in ("ada", "bob") else None

    async with cluster("a", "b", serving={"authenticate": authenticate}) as (nodes, (a, b)):

        def overheard(_sender: str, _to: str, message: bytes) -> bool:
            said.append(message)
            return False

        nodes.lose = overheard
        client = await b.dial()
        await client.open()
        await client.hello(token="ada-secret-1")
        (attachment,) = a.hub.engine.attachments
        assert attachment.expires_at == pytest.approx(20)
        await client.send(frame)
        if code is None:
            await client.send({"t": "ping"})
            await client.until("pong")
            assert attachment.expires_at == pytest.approx(1020)
        else:
            assert (await client.closed()).code == code
        await client.stream.aclose()
        await trio.sleep(1)
        assert said
        assert not [message for message in said if b"secret" in message]


async def test_credentials_that_run_out_end_a_relayed_connection_unless_they_are_renewed() -> None:
    until = [WALL + 20, WALL + 60]

    async def authenticate(credentials: Any) -> Identity | None:
        return Identity("ada", until[int(credentials.token)])

    async with cluster("a", "b", serving={"authenticate": authenticate}) as (_, (_, b)):
        client = await b.dial()
        await client.open()
        await client.hello(token="0")
        with trio.move_on_after(10):
            while True:
                if (await client.frame())["t"] == "ping":
                    await client.send({"t": "pong"})
        await client.send({"t": "auth", "token": "1"})
        with pytest.raises(Closed) as closed:
            while True:
                if (await client.frame())["t"] == "ping":
                    await client.send({"t": "pong"})
        assert closed.value.code == 4401
        assert trio.current_time() == pytest.approx(60, abs=0.1)


# -- plain clients


async def test_a_plain_client_gets_bare_events_and_confirms_by_being_sent_to() -> None:
    async with cluster("a", "b") as (_, (a, b)):
        plain = await b.plain()
        receipt = await a.hub.publish("ada", "agent_started", 1)
        event = await plain.frame()
        assert (event["type"], event["payload"]) == ("agent_started", 1)
        assert not (await receipt.confirmed()).late
        with trio.move_on_after(100):
            await plain.frame()
        assert plain.pings == 3  # and its pongs keep it
        plain.answers_pings = False
        assert (await plain.closed()).code == 4501
        await trio.testing.wait_all_tasks_blocked()
        assert a.hub.stats()["sessions"] == {"active": 0, "parked": 0}


async def test_ten_messages_that_are_none_end_a_relayed_plain_client() -> None:
    async with cluster("a", "b") as (_, (_, b)):
        plain = await b.plain()
        for _ in range(10):
            await plain.send({"no": "type"})
        assert (await plain.closed()).code == 4400


# -- going away


async def test_an_edge_that_drains_tells_its_guests() -> None:
    async with cluster("a", "b") as (_, (a, b)):
        client, _ = await b.client()
        plain = await b.plain()
        await client.until("live")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(b.hub.drain)
            assert (await client.until("drain"))["after"] == [0.5, 0.54]
            closed = [await client.closed(), await plain.closed()]
        assert [(one.code, one.reason) for one in closed] == [(4503, "the server is going away")] * 2
        await trio.testing.wait_all_tasks_blocked()
        assert a.hub.stats()["sessions"] == {"active": 0, "parked": 1}


async def test_an_owner_that_drains_tells_those_it_is_relayed_to() -> None:
    async with cluster("a", "b") as (nodes, (a, b)):
        client, _ = await b.client()
        await client.until("live")
        await nodes.publish(a, 1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(a.hub.drain)
            kinds = [(await client.frame())["t"] for _ in range(2)]
            assert sorted(kinds) == ["drain", "event"]
            await client.send(acked(1))
            assert (await client.closed()).code == 4503
        assert trio.current_time() < 0.5  # nobody was waited for in vain
        assert not a.hub.engine.attachments
