"""Who is not let in, and that it is counted by reason: a real server over memory streams, on Trio's clock."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import trio
import wsproto.events

import trio_ws
from trio_ws.server.auth import Credentials

from .memory import Closed, serving


@pytest.fixture
def clock(autojump_clock: Any) -> Any:
    return autojump_clock


async def by_token(credentials: Credentials) -> trio_ws.Identity | None:
    """Takes tokens such as ``ada@1000``: the user, and when it was issued."""
    user, _, issued = (credentials.token or "").partition("@")
    return trio_ws.Identity(user, issued=float(issued)) if issued else None


async def test_each_reason_is_counted(clock: Any) -> None:
    async with serving(authenticate=by_token, config=trio_ws.Config(max_connections=1)) as server:
        refused = server.hub.engine.refusals.counts

        async def expect(reason: str, code: int, **hello: Any) -> None:
            before = dict(refused)
            client = await server.dial()
            await client.open()
            if hello:
                await client.send({"t": "hello"} | hello)
            else:
                await client.send({"t": "ping"})
            assert (await client.closed()).code == code
            await trio.testing.wait_all_tasks_blocked()
            assert {name: n - before[name] for name, n in refused.items() if n != before[name]} == {reason: 1}

        await expect("protocol", 4400)
        await expect("credentials", 4401, token="nobody")
        server.hub.end_sessions("ada", revoke=60)
        await expect("revoked", 4401, token="ada@1000")
        await server.client(token="bob@1000")
        await expect("limit", 4503, token="eve@1000")
        assert server.hub.stats()["connections"]["refused"] == refused


async def test_a_revoked_user_s_fresh_token_is_no_better(clock: Any) -> None:
    async with serving(authenticate=by_token) as server:
        server.hub.end_sessions("ada", revoke=60)
        new = server.hub.engine.wall_clock() + 1
        client, _ = await server.client(token=f"ada@{new}")
        await client.send({"t": "auth", "token": "ada@1000"})
        with pytest.raises(Closed) as caught:
            await client.until("never")
        assert caught.value.code == 4401


async def test_who_can_not_be_checked_now_is_told_to_come_again(clock: Any) -> None:
    away = False

    async def authenticate(credentials: Credentials) -> trio_ws.Identity | None:
        if away:
            raise trio_ws.StoreUnavailable("the store is away")
        return await by_token(credentials)

    async with serving(authenticate=authenticate) as server:
        ada, _ = await server.client(token="ada@1000")
        away = True
        bob = await server.dial()
        await bob.open()
        await bob.send({"t": "hello", "token": "bob@1000"})
        assert ((await bob.until("error"))["code"], (await bob.closed()).code) == (4503, 4503)
        await ada.send({"t": "auth", "token": "ada@1001"})
        assert (await ada.until("error"))["code"] == 4503
        plain = await server.dial()
        with pytest.raises(Closed) as caught:
            await plain.open("/ws?token=eve@1000", subprotocols=())
        assert caught.value.code == 503
        assert server.hub.engine.refusals.counts["store"] == 2


async def test_one_user_connects_only_so_often(clock: Any) -> None:
    config = trio_ws.Config(user_connect_rate=1, user_connect_burst=2, max_connections_per_user=10)
    async with serving(config=config) as server:
        for _ in range(2):
            await server.client(user="ada")
        client = await server.dial()
        await client.open()
        await client.send({"t": "hello", "user": "ada"})
        error = await client.until("error")
        assert (error["code"], error["fatal"]) == (4503, True)
        assert 0.6 < error["retry_after"] <= 2
        assert (await client.closed()).code == 4503
        assert server.hub.stats()["connections"]["refused"]["user_rate"] == 1
        await server.client(user="bob")
        await trio.sleep(2)
        await server.client(user="ada")


async def test_who_is_refused_together_comes_back_apart(clock: Any) -> None:
    async with serving(config=trio_ws.Config(max_connections=1)) as server:
        await server.client(user="ada")
        told = []
        for n in range(20):
            client = await server.dial()
            await client.open()
            await client.send({"t": "hello", "user": f"user{n}"})
            told.append((await client.until("error"))["retry_after"])
        assert 3.3 < min(told) < max(told) <= 5
        in_order = sorted(told)
        assert max(later - sooner for sooner, later in itertools.pairwise(in_order)) < 0.5


async def test_one_user_s_messages_to_the_application_are_only_so_many(clock: Any) -> None:
    seen = []

    async def on_message(user: str, message: trio_ws.Message) -> None:
        seen.append((user, message.payload))

    config = trio_ws.Config(message_rate=1, message_burst=3)
    async with serving(config=config, on_message=on_message) as server:
        client, _ = await server.client(user="ada")

        async def say(id: str) -> dict[str, Any]:
            await client.send({"t": "message", "id": id, "type": "note", "payload": id})
            while (frame := await client.frame())["t"] not in ("accepted", "rejected"):
                pass
            return frame

        for n in range(3):
            assert (await say(f"m{n}"))["t"] == "accepted"
        assert await say("m3") == {"t": "rejected", "id": "m3", "error": "rate_limited"}
        assert (await say("m2"))["t"] == "accepted"  # said before: answered again, and no message more
        await trio.sleep(1)
        assert (await say("m3"))["t"] == "accepted"
        assert [payload for _, payload in seen] == ["m0", "m1", "m2", "m3"]
        assert server.hub.stats()["messages"] == {"accepted": 4, "rejected": 1, "rate_limited": 1}


@pytest.mark.parametrize("kind", ["ack", "ping", "WebSocket ping"])
async def test_who_sends_too_much_is_not_read_for_a_while(clock: Any, kind: str) -> None:
    config = trio_ws.Config(receive_rate=2500, receive_burst=2500)
    async with serving(config=config) as server:
        client, _ = await server.client(user="ada")
        await client.until("live")
        begin = trio.current_time()
        sent = 1200 if kind == "WebSocket ping" else 4000
        one = {"ack": '{"t":"ack","seq":0}', "ping": '{"t":"ping"}'}.get(kind)

        async def read() -> None:
            with reading:
                while True:
                    if (await client.frame())["t"] == "error":
                        answered.set()

        reading, answered = trio.CancelScope(), trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            for _ in range(sent):
                if one is None:
                    await client.stream.send_all(client.ws.send(wsproto.events.Ping(b"p")))
                else:
                    await client.send(one)
            await client.send({"t": "nack", "seq": 77})
            await answered.wait()  # a mistake: by then all before it is handled
            reading.cancel()
        took = trio.current_time() - begin
        # Small messages that come in a flood are cut into pieces by the reads, and don't all take the lane.
        least, most = (8, 8) if one is None else (1, 8)
        last = 4700  # what comes with the last read is handled before it is weighed
        assert (sent * least - 2500 - last) / 2500 <= took <= (sent * most + 500) / 2500
        assert server.hub.stats()["connections"]["held_back"] > 0
        assert server.hub.stats()["connections"]["current"] == 1


async def test_who_is_late_is_counted(clock: Any) -> None:
    async with serving() as server:
        client = await server.dial()
        await client.open()
        assert (await client.closed()).code == 4501
        await trio.sleep(2)  # the client does not close its end
        assert server.hub.stats()["connections"]["refused"]["hello_timeout"] == 1


async def test_an_address_over_its_rate_is_told_so_and_then_cut(clock: Any) -> None:
    config = trio_ws.Config(connect_rate=0.01, connect_burst=1)
    async with serving(config=config) as server:
        statuses = []
        for _ in range(150):
            client = await server.dial()
            try:
                await client.open()
                statuses.append(101)
            except Closed as closed:
                statuses.append(closed.code)
            except trio.BrokenResourceError:
                statuses.append(0)
        assert statuses[:101] == [101] + [429] * 100
        assert set(statuses[101:]) <= {0, 1006}
        assert server.hub.stats()["connections"]["refused"]["address_rate"] == 149
