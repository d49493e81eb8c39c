"""Connections of the protocol, from hello to close: a real server over memory streams, on Trio's clock."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from wsproto.events import BytesMessage, TextMessage

import trio_ws
from trio_ws.server.auth import Credentials
from trio_ws.server.handshake import LAST_CALL

from .memory import Closed, WireClient, serving


@pytest.fixture
def clock(autojump_clock: Any) -> Any:
    return autojump_clock


async def test_hello_is_answered_and_the_held_events_come(clock: Any) -> None:
    async with serving() as server:
        receipt = await server.hub.publish("ada", "agent_started", {"run": 1})
        client, welcome = await server.client()
        assert welcome["seq"] == 0
        assert welcome["head"] == 1
        assert welcome["resumed"] is False
        assert welcome["heartbeat"] == {"active": 2.0, "idle": 25.0, "grace": 2.0}
        assert welcome["ack"] == {"events": 32, "delay": 0.05}
        event = await client.frame()
        assert {k: event[k] for k in ("t", "seq", "id", "type", "payload", "critical")} == {
            "t": "event",
            "seq": 1,
            "id": receipt.id,
            "type": "agent_started",
            "payload": {"run": 1},
            "critical": True,
        }
        assert await client.frame() == {"t": "live", "seq": 1}
        await client.send({"t": "ack", "seq": 1})
        assert not (await receipt.confirmed()).late


async def test_what_is_replayed_goes_with_the_welcome(clock: Any) -> None:
    """In one write, as messages of their own."""
    async with serving() as server:
        await server.hub.publish("ada", "note", {"n": 1})
        client = await server.dial()
        await client.open()
        await client.send({"t": "hello", "user": "ada"})
        written = bytes(await client.stream.receive_some())
        assert written.startswith(b"\x81")
        assert b'"welcome"' in written
        assert b'"note"' in written
        assert b'"live"' in written
        assert written[2:4] != b"[{"


async def test_an_empty_log_is_live_at_once(clock: Any) -> None:
    async with serving() as server:
        client, welcome = await server.client()
        assert (welcome["seq"], welcome["head"]) == (0, 0)
        assert await client.frame() == {"t": "live", "seq": 0}


async def test_a_cut_session_resumes_where_the_client_says(clock: Any) -> None:
    async with serving() as server:
        for n in range(5):
            await server.hub.publish("ada", "agent_started", n)
        client, welcome = await server.client()
        await client.until("live")
        await client.send({"t": "ack", "seq": 2})
        await client.stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert server.hub.stats()["sessions"] == {"active": 0, "parked": 1}
        await server.hub.publish("ada", "agent_completed", 5)
        again, second = await server.client(session=welcome["session"], epoch=welcome["epoch"], seq=3)
        assert second["resumed"] is True
        assert second["session"] == welcome["session"]
        assert second["seq"] == 3
        assert [(await again.until("event"))["seq"] for _ in range(3)] == [4, 5, 6]
        assert await again.frame() == {"t": "live", "seq": 6}
        assert server.hub.stats()["pool"]["connections_reused"] == 1


@pytest.mark.parametrize(
    ("seq", "resumed", "position"),
    [(0, True, 0), (2, True, 2), (3, True, 3), (4, False, 0), (2**62, False, 0)],
)
async def test_an_unknown_session_goes_on_from_its_seq(
    clock: Any, seq: int, resumed: bool, position: int
) -> None:
    async with serving() as server:
        for n in range(3):
            await server.hub.publish("ada", "agent_started", n)
        _, welcome = await server.client()
        epoch = welcome["epoch"]
        _, second = await server.client(session="no-such-session", epoch=epoch, seq=seq)
        assert second["resumed"] is resumed
        assert second["seq"] == position
        assert second["session"] not in ("no-such-session", welcome["session"])


async def test_another_epoch_is_not_resumed(clock: Any) -> None:
    async with serving() as server:
        await server.hub.publish("ada", "agent_started")
        _, welcome = await server.client()
        _, second = await server.client(session=welcome["session"], epoch="another", seq=1)
        assert second["resumed"] is False
        assert second["session"] != welcome["session"]
        assert second["seq"] == 0


async def test_another_users_session_is_as_good_as_unknown(clock: Any) -> None:
    async with serving() as server:
        await server.hub.publish("ada", "agent_started", "ada's")
        await server.hub.publish("eve", "agent_started", "eve's")
        ada, welcome = await server.client("ada")
        eve, other = await server.client("eve", session=welcome["session"], epoch=welcome["epoch"], seq=0)
        assert other["resumed"] is False
        assert (await eve.until("event"))["payload"] == "eve's"
        await ada.until("live")  # ada's connection is untouched


@pytest.mark.parametrize(("start", "seqs"), [("retained", [1, 2, 3]), ("pending", [2, 3]), ("now", [])])
async def test_a_new_session_starts_where_it_asks_to(clock: Any, start: str, seqs: list[int]) -> None:
    async with serving() as server:
        await server.hub.publish("ada", "agent_started", 1)
        client, _ = await server.client()
        await client.until("live")
        await client.send({"t": "ack", "seq": 1}, {"t": "bye"})
        assert (await client.closed()).code == 1000
        for n in (2, 3):
            await server.hub.publish("ada", "agent_started", n)
        again, welcome = await server.client(**{"from": start})
        assert welcome["seq"] == (seqs[0] - 1 if seqs else 3)
        assert [(await again.until("event"))["seq"] for _ in seqs] == seqs
        assert (await again.frame())["t"] == "live"


async def test_the_newest_connection_of_a_session_fences_the_old_one(clock: Any) -> None:
    async with serving() as server:
        old, welcome = await server.client()
        await old.until("live")
        new, second = await server.client(session=welcome["session"], epoch=welcome["epoch"], seq=0)
        assert second["resumed"] is True
        error = await old.frame()
        assert (error["t"], error["code"], error["fatal"]) == ("error", 4409, True)
        assert (await old.closed()).code == 4409
        await server.hub.publish("ada", "agent_started")
        assert (await new.until("event"))["seq"] == 1
        assert server.hub.stats()["connections"]["current"] == 1


async def test_the_users_limit_takes_the_oldest_connection(clock: Any) -> None:
    async with serving(trio_ws.Config(max_connections_per_user=2)) as server:
        clients = []
        for _ in range(2):
            clients.append((await server.client())[0])
            await trio.sleep(1)
        third, _ = await server.client()
        assert (await clients[0].closed()).code == 4409
        await server.hub.publish("ada", "agent_started")
        assert (await clients[1].until("event"))["seq"] == (await third.until("event"))["seq"] == 1
        assert server.hub.stats()["connections"]["superseded"] == 1


async def test_welcome_comes_first_where_a_connection_makes_room_for_publishers_by_coming(clock: Any) -> None:
    limits = trio_ws.Config(max_events_per_user=2, max_connections_per_user=2)
    async with serving(limits) as server, trio.open_nursery() as publishers:
        await server.client()  # it acks nothing, and makes way
        await trio.sleep(1)
        other, _ = await server.client()
        for _ in range(2):
            await server.hub.publish("ada", "agent_started")
        await other.until("event")
        await other.until("event")
        await other.send({"t": "ack", "seq": 1})
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(2):
            publishers.start_soon(server.hub.publish, "ada", "agent_started")
        await trio.testing.wait_all_tasks_blocked()
        assert server.hub.statistics().publishers_waiting == 2
        third = await server.dial()
        await third.open()
        await third.send({"t": "hello", "user": "ada"})
        assert [(await third.frame())["t"] for _ in range(4)] == ["welcome", "gap", "event", "event"]
        assert server.hub.statistics().publishers_waiting == 1
        publishers.cancel_scope.cancel()


async def test_a_parked_session_makes_way_first(clock: Any) -> None:
    async with serving(trio_ws.Config(max_connections_per_user=2)) as server:
        parked, _ = await server.client()
        live, _ = await server.client()
        await parked.stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        await server.client()
        await live.until("live")
        assert server.hub.stats()["sessions"] == {"active": 2, "parked": 0}


async def test_the_policy_may_be_to_reject(clock: Any) -> None:
    async with serving(trio_ws.Config(max_connections_per_user=1, over_limit="reject")) as server:
        first, _ = await server.client()
        second = await server.dial()
        await second.open()
        await second.send({"t": "hello", "user": "ada"})
        assert (await second.frame())["code"] == 4429
        assert (await second.closed()).code == 4429
        await server.hub.publish("ada", "agent_started")
        await first.until("event")
        assert server.hub.stats()["connections"]["rejected"] == 1


@pytest.mark.parametrize(("over_limit", "code"), [("replace", 4503), ("reject", 4429)])
async def test_all_connections_taken(clock: Any, over_limit: Any, code: int) -> None:
    config = trio_ws.Config(max_connections=1, max_connections_per_user=1, over_limit=over_limit)
    async with serving(config) as server:
        await server.client("ada")
        bob = await server.dial()
        await bob.open()
        await bob.send({"t": "hello", "user": "bob"})
        error = await bob.frame()
        assert error["code"] == code
        assert ("retry_after" in error) is (code == 4503)
        assert (await bob.closed()).code == code


@pytest.mark.parametrize(
    "said",
    [
        "not json",
        "[]",
        "7",
        '[[{"t":"hello"}]]',
        '{"t":"ack","seq":1}',
        '{"t":"nope"}',
        '{"t":"hello","seq":-1}',
    ],
)
async def test_nothing_but_hello_comes_first(clock: Any, said: str) -> None:
    async with serving() as server:
        client = await server.dial()
        await client.open()
        await client.send(said)
        error = await client.frame()
        assert (error["t"], error["code"], error["fatal"]) == ("error", 4400, True)
        assert (await client.closed()).code == 4400


async def test_hello_must_come_in_time(clock: Any) -> None:
    async with serving() as server:
        began = trio.current_time()
        client = await server.dial()
        await client.open()
        assert (await client.frame())["code"] == 4501
        assert (await client.closed()).code == 4501
        assert trio.current_time() - began == pytest.approx(5, abs=0.1)


async def test_a_silent_socket_is_closed_after_the_handshakes_whole_time(clock: Any) -> None:
    async with serving() as server:
        client = await server.dial()
        began = trio.current_time()
        await client.stream.send_all(b"GET /ws HTTP/1.1\r\n")
        await trio.sleep(4)
        await client.stream.send_all(b"Host: server\r\n")
        assert not await client.stream.receive_some()
        assert trio.current_time() - began == pytest.approx(5, abs=0.1)


async def test_frames_that_come_with_hello_count(clock: Any) -> None:
    async with serving() as server:
        await server.hub.publish("ada", "token", "x")
        client = await server.dial()
        await client.open()
        await client.send({"t": "hello", "user": "ada"}, {"t": "ping"}, {"t": "hello", "user": "ada"})
        assert (await client.frame())["t"] == "welcome"
        assert (await client.until("pong")) == {"t": "pong"}
        assert (await client.until("error"))["fatal"] is False


async def test_the_tenth_mistake_closes(clock: Any) -> None:
    async with serving() as server:
        client, _ = await server.client()
        await client.until("live")
        for _ in range(9):
            await client.send({"t": "ack", "seq": 1})
            assert (await client.frame()) | {"reason": ""} == {
                "t": "error",
                "code": 4400,
                "reason": "",
                "fatal": False,
            }
        await client.send({"t": "nope"})
        assert (await client.frame())["fatal"] is True
        assert (await client.closed()).code == 4400


@pytest.mark.parametrize("breach", [["garbage"], ['{"t":"nope"}'] * 10], ids=["no frame", "ten mistakes"])
async def test_what_comes_behind_a_breach_has_no_effect(clock: Any, breach: list[str]) -> None:
    async with serving() as server:
        client, _ = await server.client()
        await client.until("live")
        await server.hub.publish("ada", "agent_started")
        await client.until("event")
        said = [*breach, '{"t":"ack","seq":1}', '{"t":"message","id":"m","type":"a","payload":1}']
        # In one segment, so that all of it is read before the connection has begun to close.
        await client.stream.send_all(b"".join(client.ws.send(TextMessage(data=text)) for text in said))
        while not (frame := await client.frame())["fatal"]:
            pass
        assert frame["code"] == (await client.closed()).code == 4400
        assert server.hub.engine.books.settled == 0


async def test_ten_messages_that_are_none_end_a_plain_client(clock: Any) -> None:
    handled = []

    async def on_message(user: str, message: trio_ws.Message) -> None:
        handled.append(message.payload)

    async with serving(on_message=on_message) as server:
        client = await plain(server)
        said = [f'{{"type":"note","payload":{n}}}' for n in range(2)]
        said[1:1] = ["no message"] * 10
        await client.stream.send_all(b"".join(client.ws.send(TextMessage(data=text)) for text in said))
        assert (await client.closed()).code == 4400
        assert handled == [0]


async def test_a_binary_message_is_a_protocol_error(clock: Any) -> None:
    async with serving() as server:
        client, _ = await server.client()
        await client.until("live")
        await client.stream.send_all(client.ws.send(BytesMessage(data=b"\x00")))
        assert (await client.frame())["code"] == 4400
        assert (await client.closed()).code == 4400


async def test_a_message_over_the_limit(clock: Any) -> None:
    async with serving(trio_ws.Config(max_message_bytes=1024)) as server:
        client, _ = await server.client()
        await client.until("live")
        await client.send('{"t":"ping","pad":"' + "x" * 2000 + '"}')
        assert (await client.closed()).code == 1009


async def test_bye_ends_the_session_for_good(clock: Any) -> None:
    async with serving() as server:
        client, welcome = await server.client()
        await client.until("live")
        await client.send({"t": "bye"})
        closed = await client.closed()
        assert closed.code == 1000
        assert server.hub.stats()["sessions"] == {"active": 0, "parked": 0}
        _, again = await server.client(session=welcome["session"], epoch=welcome["epoch"], seq=0)
        assert again["session"] != welcome["session"]


async def test_each_end_is_counted_by_its_code(clock: Any) -> None:
    async with serving() as server:
        client, _ = await server.client()
        await client.send({"t": "bye"})
        with pytest.raises(Closed):
            await client.until("never")
        client, _ = await server.client()
        await client.stream.aclose()
        client = await server.dial()
        await client.open()
        await client.send({"t": "ack", "seq": 1})
        with pytest.raises(Closed):
            await client.until("never")
        await trio.sleep(2)
        assert server.hub.engine.closes == {(1000, "us"): 1, (1006, "network"): 1, (4400, "us"): 1}
        assert server.hub.stats()["connections"]["closed"] == {"1000": 1, "1006": 1, "4400": 1}


async def test_a_silent_client_is_dropped_and_its_session_parked(clock: Any) -> None:
    async with serving() as server:
        await server.hub.publish("ada", "agent_started")
        client, _ = await server.client()
        began = trio.current_time()
        assert (await client.closed()).code == 4501
        assert trio.current_time() - began == pytest.approx(4, abs=0.3)
        assert server.hub.stats()["sessions"] == {"active": 0, "parked": 1}


async def test_a_client_that_answers_pings_stays(clock: Any) -> None:
    async with serving() as server:
        client, _ = await server.client()
        began = trio.current_time()
        last = began
        while trio.current_time() < began + 120:
            frame = await client.frame()
            assert trio.current_time() - last <= 25.1
            last = trio.current_time()
            if frame["t"] == "ping":
                assert frame["next"] in (2.0, 25.0)
                await client.send({"t": "pong"})
        assert server.hub.stats()["connections"]["current"] == 1


async def test_heartbeats_are_quick_while_it_matters(clock: Any) -> None:
    async with serving() as server:
        client, _ = await server.client()
        assert (await client.until("ping"))["next"] == 25.0
        await client.send({"t": "pong"})
        await server.hub.publish("ada", "agent_started")
        await client.until("event")
        event_at = trio.current_time()
        await client.send({"t": "ack", "seq": 1})
        ping = await client.until("ping")
        assert ping["next"] == 2.0
        assert ping["seq"] == 1
        assert trio.current_time() - event_at == pytest.approx(2, abs=0.1)


async def test_redelivery_keeps_its_times_and_ends_in_4501(clock: Any) -> None:
    async with serving() as server:
        client, _ = await server.client()
        await client.until("live")
        await server.hub.publish("ada", "agent_started")
        first = await client.until("event")
        written = trio.current_time()
        assert "retry" not in first
        came = []
        with pytest.raises(Closed) as closed:
            while True:
                frame = await client.frame()
                if frame["t"] == "event":
                    came.append((frame["retry"], round(trio.current_time() - written, 2)))
                elif frame["t"] == "ping":
                    await client.send({"t": "pong"})
        assert closed.value.code == 4501
        assert came == [(1, 0.5), (2, 1.0), (3, 2.0), (4, 5.0)]
        assert trio.current_time() - written == pytest.approx(10, abs=0.1)
        stats = server.hub.stats()["delivery"]
        assert stats["messages_timeout"] == 1
        assert stats["events_held"] == 1


async def test_what_was_nacked_comes_again(clock: Any) -> None:
    async with serving() as server:
        client, _ = await server.client()
        await client.until("live")
        await server.hub.publish("ada", "token", "x")
        await client.until("event")
        await client.send({"t": "nack", "seq": 1})
        again = await client.until("event")
        assert (again["seq"], again["retry"], again["payload"]) == (1, 1, "x")


async def test_messages_are_handled_once_and_answered_each_time(clock: Any) -> None:
    handled = []

    async def on_message(user: str, message: trio_ws.Message) -> None:
        handled.append((user, message.id, message.type, message.payload))
        if message.type == "bad":
            raise trio_ws.MessageRejected("not like this")
        if message.type == "bug":
            raise RuntimeError("secret")

    async with serving(on_message=on_message) as server:
        client, _ = await server.client()
        await client.until("live")
        note = {"t": "message", "id": "m1", "type": "note", "payload": {"a": [1]}}
        await client.send(note)
        assert await client.frame() == {"t": "accepted", "id": "m1"}
        await client.send(note)
        assert await client.frame() == {"t": "accepted", "id": "m1"}
        await client.send(note | {"id": "m2", "type": "bad"})
        assert await client.frame() == {"t": "rejected", "id": "m2", "error": "not like this"}
        await client.send(note | {"id": "m3", "type": "bug"})
        assert await client.frame() == {"t": "rejected", "id": "m3", "error": "handler_failed"}
        assert handled == [
            ("ada", "m1", "note", {"a": [1]}),
            ("ada", "m2", "bad", {"a": [1]}),
            ("ada", "m3", "bug", {"a": [1]}),
        ]


async def test_without_a_handler_messages_are_rejected(clock: Any) -> None:
    async with serving() as server:
        client, _ = await server.client()
        await client.until("live")
        await client.send({"t": "message", "id": "m1", "type": "note", "payload": None})
        assert await client.frame() == {"t": "rejected", "id": "m1", "error": "no_handler"}


# -- plain clients


async def plain(server: Any, target: str = "/ws?user=ada", **options: Any) -> WireClient:
    client: WireClient = await server.dial()
    assert await client.open(target, subprotocols=(), **options) is None
    return client


async def test_a_plain_client_gets_bare_events_and_confirms_by_being_sent_to(clock: Any) -> None:
    async with serving() as server:
        early = await server.hub.publish("ada", "agent_started", "early")
        client = await plain(server)
        await trio.testing.wait_all_tasks_blocked()
        receipt = await server.hub.publish("ada", "agent_completed", {"ok": True})
        event = await client.frame()
        assert event | {"ts": 0} == {
            "id": receipt.id,
            "type": "agent_completed",
            "payload": {"ok": True},
            "ts": 0,
        }
        await receipt.confirmed()
        assert early.state == "held"
        await client.stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert server.hub.stats()["sessions"] == {"active": 0, "parked": 0}


async def test_a_plain_clients_messages_are_handled_unanswered(clock: Any) -> None:
    handled = []

    async def on_message(user: str, message: trio_ws.Message) -> None:
        handled.append((user, message.type, message.payload))

    async with serving(on_message=on_message) as server:
        client = await plain(server)
        await client.send({"type": "note", "payload": 1})
        await client.send({"type": "note", "payload": 2, "id": "x"})
        await client.send({"type": "note", "payload": 2, "id": "x"})
        await client.send("no message")
        await trio.testing.wait_all_tasks_blocked()
        assert handled == [("ada", "note", 1), ("ada", "note", 2)]
        await server.hub.publish("ada", "token")
        assert (await client.frame())["type"] == "token"


async def test_a_plain_client_is_pinged_and_stays_while_it_pongs(clock: Any) -> None:
    async with serving() as server:
        client = await plain(server)
        with trio.move_on_after(130):
            await client.frame()
        assert client.pings == 5
        await server.hub.publish("ada", "token")
        await client.frame()


async def test_a_plain_client_that_does_not_pong_is_dropped(clock: Any) -> None:
    async with serving() as server:
        client = await plain(server)
        client.answers_pings = False
        began = trio.current_time()
        assert (await client.closed()).code == 4501
        assert trio.current_time() - began == pytest.approx(27, abs=0.3)
        assert server.hub.stats()["sessions"] == {"active": 0, "parked": 0}


@pytest.mark.parametrize("target", ["/ws", "/ws?user=", "/ws?user=a%00b", "/ws?token=x"])
async def test_a_plain_client_without_credentials_is_refused_in_http(clock: Any, target: str) -> None:
    async with serving() as server:
        client = await server.dial()
        with pytest.raises(Closed) as refused:
            await client.open(target, subprotocols=())
        assert refused.value.code == 401


async def test_an_unknown_subprotocol_makes_a_plain_client(clock: Any) -> None:
    async with serving() as server:
        client = await server.dial()
        assert await client.open("/ws?user=ada", subprotocols=("graphql-ws",)) is None
        await trio.testing.wait_all_tasks_blocked()
        await server.hub.publish("ada", "token", 1)
        assert "t" not in await client.frame()


# -- who may come in


async def test_other_paths_are_refused(clock: Any) -> None:
    async with serving() as server:
        client = await server.dial()
        with pytest.raises(Closed) as refused:
            await client.open("/elsewhere")
        assert refused.value.code == 404


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        (None, True),
        ("https://app.example.com", True),
        ("https://APP.example.com:443", True),
        ("https://app.example.com.evil.io", False),
        ("http://app.example.com", False),
        ("https://app.example.com:444", False),
        ("null", False),
        ("", False),
        ("http://localhost:3000", False),
    ],
)
async def test_origins_are_matched_exactly(clock: Any, origin: str | None, allowed: bool) -> None:
    async with serving(allowed_origins=["https://app.example.com"]) as server:
        client = await server.dial()
        headers = [] if origin is None else [(b"Origin", origin.encode())]
        if allowed:
            await client.open(headers=headers)
        else:
            with pytest.raises(Closed) as refused:
                await client.open(headers=headers)
            assert refused.value.code == 403


async def test_where_users_are_believed_only_local_pages_may_connect(clock: Any) -> None:
    async with serving() as server:
        client = await server.dial()
        await client.open(headers=[(b"Origin", b"http://localhost:5173")])
        foreign = await server.dial()
        with pytest.raises(Closed):
            await foreign.open(headers=[(b"Origin", b"https://evil.example")])


async def test_tokens_expire_and_are_renewed(clock: Any) -> None:
    import time

    async def authenticate(credentials: Credentials) -> trio_ws.Identity | None:
        assert credentials.token is not None
        user, _, life = credentials.token.partition(":")
        return trio_ws.Identity(user, time.time() + float(life)) if life else None

    async with serving(authenticate=authenticate) as server:
        short, welcome = await server.client(token="ada:10")
        assert welcome["expires"] == pytest.approx(time.time() + 10, abs=5)
        longer, _ = await server.client(token="ada:10")
        await longer.until("live")
        await longer.send({"t": "auth", "token": "ada:10000"})
        wrong, _ = await server.client(token="bob:10000")
        await wrong.send({"t": "auth", "token": "eve:10000"})
        assert (await wrong.closed()).code == 4403
        bad, _ = await server.client("x", token="cyd:10000")
        await bad.send({"t": "auth", "token": "nonsense"})
        assert (await bad.closed()).code == 4401

        async def stay(client: WireClient) -> Closed:
            try:
                while True:
                    if (await client.frame())["t"] == "ping":
                        await client.send({"t": "pong"})
            except Closed as closed:
                return closed

        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stay, longer)
            assert (await stay(short)).code == 4401
            assert trio.current_time() - began < 30
            await trio.sleep(60)
            assert server.hub.describe("ada")["connections"] == 1
            nursery.cancel_scope.cancel()


async def test_no_credentials(clock: Any) -> None:
    async def nobody(credentials: Credentials) -> None:
        if credentials.token == "raise":
            raise RuntimeError("secret")

    async with serving(authenticate=nobody) as server:
        answers = []
        for token in (None, "wrong", "raise", "x" * 20_000):
            client = await server.dial()
            await client.open()
            await client.send({"t": "hello", "user": "ada"} | ({} if token is None else {"token": token}))
            answers.append(await client.frame())
            assert (await client.closed()).code == 4401
        assert answers == [answers[0]] * 4


async def test_a_bearer_header_stands_in_for_the_token(clock: Any) -> None:
    async def by_token(credentials: Credentials) -> str | None:
        return credentials.token

    async with serving(authenticate=by_token) as server:
        client = await server.dial()
        await client.open(headers=[(b"Authorization", b"Bearer ada")])
        await client.hello()
        bare = await server.dial()
        await bare.open(subprotocols=(), headers=[(b"Authorization", b"Bearer ada")])
        await trio.testing.wait_all_tasks_blocked()
        await server.hub.publish("ada", "token", 1)
        assert (await client.until("event"))["seq"] == 1
        assert (await bare.frame())["payload"] == 1


# -- the end


async def test_drain_tells_flushes_and_closes(clock: Any) -> None:
    async with serving() as server:
        client, _ = await server.client()
        await client.until("live")
        await server.hub.publish("ada", "agent_started")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.hub.drain)
            assert (await client.until("event"))["seq"] == 1
            drain = await client.until("drain")
            assert 0 <= drain["after"][0] <= drain["after"][1]
            await client.send({"t": "ack", "seq": 1})
            error = await client.until("error")
            assert error["code"] == 4503
            assert (await client.closed()).code == 4503
        with pytest.raises(trio_ws.HubClosed):
            await server.hub.publish("ada", "agent_started")
        assert server.hub.stats()["delivery"]["events_settled"] == 1


async def test_who_has_not_said_hello_is_told_of_the_drain_too(clock: Any) -> None:
    async with serving() as server:
        client = await server.dial()
        await client.open()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.hub.drain)
            error = await client.frame()
            assert (error["code"], error["fatal"]) == (4503, True)
            assert (await client.closed()).code == 4503


async def test_whose_request_comes_as_the_server_goes_is_answered_and_who_is_silent_does_not_hold_it(
    clock: Any,
) -> None:
    async with serving() as server:
        late, silent = await server.dial(), await server.dial()
        await trio.sleep(1)
        server.hub.engine.draining = True
        server.hub.engine.stopping.set()
        await trio.sleep(LAST_CALL / 2)
        await late.stream.send_all(b"GET /ws HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await late.stream.receive_some()).startswith(b"HTTP/1.1 426 ")
        begun = trio.current_time()
        assert await silent.stream.receive_some() == b""
        assert trio.current_time() - begun == pytest.approx(LAST_CALL / 2)


async def test_a_connection_that_came_back_counts_as_new_at_the_limit(clock: Any) -> None:
    async with serving(trio_ws.Config(max_connections_per_user=2)) as server:
        first, welcome = await server.client()
        await trio.sleep(0.5)
        second, _ = await server.client()
        await first.stream.aclose()
        await trio.sleep(0.5)
        again, _ = await server.client(session=welcome["session"], epoch=welcome["epoch"], seq=0)
        await server.client()
        assert (await second.closed()).code == 4409
        await server.hub.publish("ada", "token")
        await again.until("event")
