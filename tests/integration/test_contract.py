"""The contract from outside: a real `trio-ws serve` process, met only through its ports, signals and exit status.

Nothing here imports `trio_ws`: what PROTOCOL and API promise is checked with a foreign WebSocket client and plain HTTP.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
import trio
from websockets import ConnectionClosed, InvalidStatus, Subprotocol
from websockets.trio.client import ClientConnection, connect

pytestmark = pytest.mark.integration

COMMAND = [sys.executable, "-m", "trio_ws"]
SECRET = "an-hmac-key-that-is-long-enough-for-sha-256"
PATIENCE = 15  # seconds until a test gives up; nothing waits that long unless it is broken


class Server:
    """A running `trio-ws serve`: its process, its two addresses, and HTTP calls to the second."""

    def __init__(self, process: trio.Process, ws: str, admin: str) -> None:
        self.process = process
        self.ws = ws
        self.admin = admin
        self.http = httpx.AsyncClient(base_url=admin, timeout=PATIENCE, trust_env=False)

    async def publish(self, user: str, type: str, payload: Any = None, **fields: Any) -> httpx.Response:
        body = {"type": type, "payload": payload} | fields
        return await self.http.post(f"/v1/users/{user}/events", json=body)

    async def stats(self) -> dict[str, Any]:
        stats: dict[str, Any] = (await self.http.get("/v1/stats")).json()
        return stats

    async def assert_balanced(self) -> None:
        """accepted = settled + held + evicted + expired + superseded."""
        d = (await self.stats())["delivery"]
        parts = ("settled", "held", "evicted", "expired", "superseded")
        assert d["events_accepted"] == sum(d[f"events_{part}"] for part in parts), d

    def open_fds(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("TRIO_WS_")}


@asynccontextmanager
async def serving(*options: str, insecure: bool = True, port: int = 0) -> AsyncIterator[Server]:
    """A server on free ports of the loopback; its process ends with the block."""
    command = [*COMMAND, "serve", "--store", "memory", "--port", str(port), "--admin-port", "0", *options]
    if insecure:
        command.append("--insecure")
    with trio.fail_after(4 * PATIENCE):
        process = await trio.lowlevel.open_process(command, stderr=subprocess.PIPE, env=environment())
        assert process.stderr is not None
        try:
            told = b""
            while not (found := re.search(rb"listening on (\S+)\s.*admin on (\S+)\s", told, re.DOTALL)):
                piece = await process.stderr.receive_some()
                assert piece, told
                told += piece
            server = Server(process, found[1].decode(), found[2].decode())
            async with server.http, trio.open_nursery() as nursery:
                nursery.start_soon(drain_pipe, process.stderr)
                yield server
                nursery.cancel_scope.cancel()
        finally:
            process.kill()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + PATIENCE):
                await process.wait()
            await process.stderr.aclose()


async def drain_pipe(stream: trio.abc.ReceiveStream) -> None:
    while await stream.receive_some():
        pass


class Client:
    """A client that speaks the protocol by hand, and proves the accounting rule on all that it is sent."""

    def __init__(self, ws: ClientConnection) -> None:
        self.ws = ws
        self.welcome: dict[str, Any] = {}
        self.cursor: int | None = None
        self.answers = True  # pings, with pongs
        self._waiting: list[dict[str, Any]] = []

    async def send(self, *frames: dict[str, Any]) -> None:
        await self.ws.send(json.dumps(frames[0] if len(frames) == 1 else frames))

    async def next(self) -> dict[str, Any]:
        with trio.fail_after(PATIENCE):
            while not self._waiting:
                message = json.loads(await self.ws.recv())
                self._waiting = message if isinstance(message, list) else [message]
        frame = self._waiting.pop(0)
        self._account(frame)
        if frame["t"] == "ping" and self.answers:
            await self.send({"t": "pong"})
        return frame

    def _account(self, frame: dict[str, Any]) -> None:
        if frame["t"] == "welcome":
            self.welcome = frame
            self.cursor = frame["seq"]
        elif frame["t"] == "event":
            assert self.cursor is not None
            if "retry" in frame:
                assert frame["seq"] <= self.cursor
            else:
                assert frame.get("merged", {}).get("from", frame["seq"]) == self.cursor + 1
                self.cursor = frame["seq"]
        elif frame["t"] == "gap":
            assert self.cursor is not None
            assert frame["from"] == self.cursor + 1 <= frame["to"]
            self.cursor = frame["to"]
        elif frame["t"] == "live":
            assert frame["seq"] == self.cursor

    async def until(self, *kinds: str) -> list[dict[str, Any]]:
        """Frames up to and with the first of one of these kinds, without pings."""
        frames: list[dict[str, Any]] = []
        while not frames or frames[-1]["t"] not in kinds:
            frame = await self.next()
            if frame["t"] != "ping" or "ping" in kinds:
                frames.append(frame)
        return frames

    async def first(self, *kinds: str) -> dict[str, Any]:
        return (await self.until(*kinds))[-1]

    async def replay(self) -> list[dict[str, Any]]:
        """What is sent from here to `live`, without redeliveries."""
        return [frame for frame in (await self.until("live"))[:-1] if "retry" not in frame]

    async def sync(self) -> None:
        """Returns once the server has handled all that was sent."""
        await self.send({"t": "ping"})
        await self.until("pong")

    async def ack(self, seq: int) -> None:
        await self.send({"t": "ack", "seq": seq})
        await self.sync()

    async def ending(self) -> tuple[int, dict[str, Any] | None]:
        """The close code, and the `error` frame before it, if there is one."""
        error = None
        try:
            while True:
                frame = await self.next()
                if frame["t"] == "error":
                    error = frame
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd else 1006, error

    async def assert_ended(self, code: int) -> None:
        """The close code is this, told by a fatal `error` frame with the same one."""
        got, error = await self.ending()
        assert got == code
        assert error is not None
        assert (error["code"], error["fatal"]) == (code, True)
        assert isinstance(error["reason"], str)

    async def cut(self) -> dict[str, Any]:
        """Drops the connection with no farewell; returns what a hello needs to resume there."""
        await trio.aclose_forcefully(self.ws.stream)
        return {key: self.welcome[key] for key in ("session", "epoch")} | {"seq": self.cursor}


@asynccontextmanager
async def knocking(server: Server, **options: Any) -> AsyncIterator[Client]:
    """A connection with the subprotocol, and no hello yet."""
    async with connect(
        server.ws, subprotocols=[Subprotocol("trio-ws.v1")], compression=None, proxy=None, **options
    ) as ws:
        yield Client(ws)


@asynccontextmanager
async def connected(server: Server, user: str | None = None, **fields: Any) -> AsyncIterator[Client]:
    async with knocking(server) as client:
        await client.send({"t": "hello"} | ({"user": user} if user else {}) | fields)
        assert (await client.next())["t"] == "welcome"
        yield client


async def parked(server: Server, user: str) -> None:
    """Returns once the server has seen that every connection of this user is gone."""

    async def gone() -> bool:
        return not (await server.http.get(f"/v1/users/{user}")).json()["connections"]

    await eventually(gone)


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    """Returns once this holds of another process, which can't wake us."""
    with trio.fail_after(PATIENCE):
        while not await condition():  # noqa: ASYNC110
            await trio.sleep(0.02)


def summary(frames: list[dict[str, Any]]) -> list[Any]:
    """Seq and payload of events; first, last, reason and critical losses of gaps."""
    return [
        (f["seq"], f["payload"]) if f["t"] == "event" else (f["from"], f["to"], f["reason"], f["critical"])
        for f in frames
    ]


def token(user: str, **claims: Any) -> str:
    return jwt.encode({"sub": user, "exp": time.time() + 600} | claims, SECRET, "HS256")


# Frames


async def test_mistakes_are_answered_and_the_tenth_ends_the_connection() -> None:
    mistakes = [
        '{"t": "no-such-kind"}',
        '{"seq": 1}',
        '{"t": "ack"}',
        '{"t": "ack", "seq": 1.5}',
        '{"t": "ack", "seq": -1}',
        '{"t": "ack", "seq": "1"}',
        '{"t": "ack", "seq": 1' + "0" * 400 + "}",
        '{"t": "nack", "seq": 9}',
        '{"t": "hello", "user": "ada"}',
    ]
    async with serving() as server, connected(server, "ada") as client:
        await client.replay()
        await server.publish("ada", "agent_started")
        await client.first("event")
        for mistake in mistakes:
            await client.ws.send(mistake)
            error = await client.first("error")
            assert (error["code"], error["fatal"]) == (4400, False), mistake
        await client.sync()
        buffer = (await server.http.get("/v1/users/ada")).json()["buffer"]
        assert buffer["critical_unconfirmed"] == 1  # none of it has settled anything
        await client.send({"t": "ack", "seq": 2})  # one above what was sent
        await client.assert_ended(4400)


async def test_what_is_no_frame_ends_the_connection_at_once() -> None:
    no_frames: list[str | bytes] = [
        "",
        "hello",
        "1",
        "null",
        "[]",
        '[{"t": "ping"}, 1]',
        '{"t": "ping"} x',
        "[" * 60_000,
        b'{"t": "ping"}',
    ]
    async with serving() as server:
        for message in no_frames:
            async with connected(server, "ada") as client:
                await client.ws.send(message)
                await client.assert_ended(4400)
        for frame in ({"t": "ping"}, {"t": "ack", "seq": 0}, {"t": "bye"}):
            async with knocking(server) as client:
                await client.send(frame)
                await client.assert_ended(4400)
        async with connected(server, "ada") as client:
            await client.ws.send('{"t": "ping", "x": "' + "y" * 65_536 + '"}')
            assert (await client.ending())[0] == 1009


async def test_batches_and_messages_are_answered_in_order() -> None:
    async with serving() as server, connected(server, "ada") as client:
        await client.replay()
        message = {"t": "message", "id": "m", "type": "question", "payload": {}}
        await client.send({"t": "ping", "unknown": 1}, {"t": "nonsense"}, message, message, {"t": "ping"})
        frames = [await client.next() for _ in range(5)]
        assert [frame["t"] for frame in frames] == ["pong", "error", "rejected", "rejected", "pong"]
        assert frames[2] == frames[3] == {"t": "rejected", "id": "m", "error": "no_handler"}
        await client.send({"t": "bye"})
        assert await client.ending() == (1000, None)
        assert (await server.stats())["sessions"] == {"active": 0, "parked": 0}


# Sessions


async def test_a_resume_goes_on_from_every_cursor() -> None:
    async with serving() as server:
        async with connected(server, "ada") as client:
            await client.replay()
            for n in range(1, 7):
                await server.publish("ada", "agent_started" if n % 2 else "note", n)
            while client.cursor != 6:
                await client.next()
            await client.ack(2)
            known = await client.cut()
        await parked(server, "ada")
        for k in range(7):
            async with connected(server, "ada", **known | {"seq": k}) as client:
                start = max(k, 2)
                assert client.welcome["session"] == known["session"]
                assert (client.welcome["resumed"], client.welcome["seq"]) == (True, start)
                assert summary(await client.replay()) == [(n, n) for n in range(start + 1, 7)]
                await client.cut()
            await parked(server, "ada")
        for wrong in ({"seq": 7}, {"epoch": "another"}):
            async with connected(server, "ada", **known | wrong | {"from": "now"}) as client:
                assert (client.welcome["resumed"], client.welcome["seq"]) == (False, 6)
                assert client.welcome["session"] != known["session"]
                await client.send({"t": "bye"})
        async with connected(server, "ada", **known | {"session": "unknown", "seq": 4}) as client:
            assert (client.welcome["resumed"], client.welcome["seq"]) == (True, 4)
            assert client.welcome["session"] not in ("unknown", known["session"])
        async with connected(server, "bob", **known) as client:
            assert client.welcome["resumed"] is False
            assert client.welcome["session"] != known["session"]
            assert await client.replay() == []


async def test_new_sessions_start_where_they_ask() -> None:
    async with serving() as server:
        await server.publish("ada", "agent_started", 1)
        async with connected(server, "ada", **{"from": "now"}) as client:
            assert client.welcome["seq"] == client.welcome["head"] == 1
            await client.replay()
            await server.publish("ada", "agent_started", 2)
            await client.first("event")
            await client.ack(2)  # it was never sent 1: that stays pending
            await client.send({"t": "bye"})
            await client.ending()
        await server.publish("ada", "note", 3)
        async with connected(server, "ada", **{"from": "pending"}) as client:
            assert summary(await client.replay()) == [(1, 1), (2, 2, "settled", 0), (3, 3)]
            await client.send({"t": "bye"})
        async with connected(server, "ada") as client:
            assert summary(await client.replay()) == [(1, 1), (2, 2), (3, 3)]
        await server.assert_balanced()


async def test_one_connection_a_session_and_three_a_user() -> None:
    async with serving() as server:
        async with connected(server, "ada") as old:
            known = {key: old.welcome[key] for key in ("session", "epoch", "seq")}
            async with connected(server, "ada", **known) as new:
                await old.assert_ended(4409)
                await new.send({"t": "bye"})
        async with connected(server, "bob") as first, connected(server, "bob"), connected(server, "bob"):  # noqa: SIM117
            async with connected(server, "bob"):
                await first.assert_ended(4409)
    limits = ("--over-limit", "reject", "--max-connections-per-user", "1")
    async with serving(*limits) as server, connected(server, "ada"), knocking(server) as late:
        await late.send({"t": "hello", "user": "ada"})
        await late.assert_ended(4429)


# What is kept, and what goes


async def test_room_is_made_by_class_and_told_by_gaps() -> None:
    async with serving("--max-events-per-user", "10") as server:
        async with connected(server, "ada") as client:
            await client.replay()
            known = await client.cut()
        await parked(server, "ada")
        for n, priority in enumerate(["high", "low", "low", "critical", "normal"] * 2, 1):
            await server.publish("ada", priority, n, priority=priority)
        for n in range(11, 16):
            await server.publish("ada", "normal", n)
        assert (await server.publish("ada", "low", 16, priority="low")).status_code == 202
        async with connected(server, "ada", **known) as client:
            frames = await client.replay()
            assert [f["payload"] for f in frames if f["t"] == "event"] == [1, 4, 6, 9, 11, 12, 13, 14, 15, 16]
            gaps = [f for f in frames if f["t"] == "gap"]
            assert {(f["reason"], f["critical"]) for f in gaps} == {("evicted", 0)}
            lost: dict[str, int] = {}
            for gap in gaps:
                for kind, count in gap["lost"].items():
                    lost[kind] = lost.get(kind, 0) + count
            assert lost == {"low": 4, "normal": 2}
        await server.assert_balanced()


async def test_a_publisher_is_refused_where_all_is_critical() -> None:
    async with serving("--max-events-per-user", "3") as server:
        for n in range(3):
            assert (await server.publish("ada", "agent_started", n)).status_code == 202
        for kind in ("agent_started", "note"):
            refused = await server.publish("ada", kind, "late", id=kind)
            assert refused.status_code == 503
            assert int(refused.headers["Retry-After"]) >= 1
            assert set(refused.json()["error"]) >= {"code", "message"}
        async with connected(server, "ada") as client:
            assert [payload for _, payload in summary(await client.replay())] == [0, 1, 2]
            await client.ack(3)
            again = await server.publish("ada", "note", "late", id="note")
            assert (again.status_code, again.json()["duplicate"]) == (202, False)
            assert (await client.first("event"))["id"] == "note"
        await server.assert_balanced()


async def test_keys_supersede_and_deltas_join() -> None:
    async with serving() as server:
        async with connected(server, "ada") as client:
            await client.replay()
            known = await client.cut()
        await parked(server, "ada")
        for n in (1, 2, 3):
            await server.publish("ada", "progress", n, key="bar")
        for text in "abc":
            await server.publish("ada", "token", {"text": text, "n": len(text)}, merge="append")
        await server.publish("ada", "agent_started", "barrier")
        await server.publish("ada", "token", {"text": "d"}, merge="append")
        async with connected(server, "ada", **known) as client:
            frames = await client.replay()
            assert summary(frames) == [
                (1, 2, "superseded", 0),
                (3, 3),
                (6, {"text": "abc", "n": 1}),
                (7, "barrier"),
                (8, {"text": "d"}),
            ]
            assert frames[2]["merged"] == {"from": 4, "n": 2}
            assert frames[3]["critical"] is True
            await client.cut()
        await parked(server, "ada")
        async with connected(server, "ada", **known | {"seq": 5}) as client:  # inside what was joined
            assert summary(await client.replay())[0] == (6, {"text": "c", "n": 1})
        await server.assert_balanced()


async def test_what_outlives_its_ttl_is_a_gap_that_counts_the_critical() -> None:
    async with serving("--cleanup-interval", "0.1") as server:
        async with connected(server, "ada") as client:
            await client.replay()
            known = await client.cut()
        await server.publish("ada", "note", 1, ttl=0.05)
        await server.publish("ada", "agent_started", 2, ttl=0.05)
        await server.publish("ada", "note", 3)

        async def expired() -> bool:
            return bool((await server.stats())["delivery"]["events_expired"] == 2)

        await eventually(expired)
        async with connected(server, "ada", **known) as client:
            assert summary(await client.replay()) == [(1, 2, "expired", 1), (3, 3)]
        assert (await server.stats())["delivery"]["dead_letters"] == 1
        await server.assert_balanced()


async def test_oversized_payloads_are_cut_or_refused() -> None:
    async with serving("--max-event-bytes", "1000") as server, connected(server, "ada") as client:
        await client.replay()
        text = {"text": "é" * 2000, "n": 1}
        assert (await server.publish("ada", "note", text)).status_code == 202
        event = await client.first("event")
        assert event["truncated"] is True
        assert event["payload"]["n"] == 1
        assert len(json.dumps(event["payload"], ensure_ascii=False, separators=(",", ":")).encode()) <= 1000
        assert (await server.publish("ada", "agent_started", text)).status_code == 413
        assert (await server.publish("ada", "note", [0] * 2000)).status_code == 413


# Confirmation


async def test_the_oldest_unacked_critical_event_is_redelivered() -> None:
    async with serving("--retry-intervals", "[0.1, 0.2, 0.4]") as server, connected(server, "ada") as client:
        await client.replay()
        await server.publish("ada", "agent_started", "first")
        await server.publish("ada", "note", "second", confirm=True)
        frames = [await client.first("event") for _ in range(5)]
        assert [(f["payload"], f.get("retry")) for f in frames] == [
            ("first", None),
            ("second", None),
            ("first", 1),
            ("first", 2),
            ("first", 3),
        ]
        await client.send({"t": "nack", "seq": 2})
        again = await client.first("event")
        assert (again["seq"], again["retry"]) == (2, 1)
        await client.ack(2)
        delivery = (await server.stats())["delivery"]
        assert (delivery["redelivered"], delivery["messages_confirmed"]) == (4, 2)


async def test_a_publisher_can_wait_for_the_confirmation() -> None:
    async with serving() as server, connected(server, "ada") as client, trio.open_nursery() as nursery:
        await client.replay()

        async def wait(timeout: float, status: int) -> None:
            url = f"/v1/users/ada/events?wait=confirmed&timeout={timeout}"
            answer = await server.http.post(url, json={"type": "agent_started"})
            assert answer.status_code == status
            if status == 200:
                assert set(answer.json()) >= {"id", "seq", "epoch", "state", "duplicate", "confirmed_after"}
            else:
                assert answer.json()["error"]["state"] == "sent"

        nursery.start_soon(wait, 10, 200)
        await client.ack((await client.first("event"))["seq"])
        nursery.start_soon(wait, 0.2, 504)
        await client.first("event")


# Publishing


async def test_an_id_makes_one_event() -> None:
    async with serving() as server, connected(server, "ada") as client:
        await client.replay()
        answers = [(await server.publish("ada", "note", n, id="once")).json() for n in range(3)]
        assert [answer["duplicate"] for answer in answers] == [False, True, True]
        assert {(answer["id"], answer["seq"], answer["epoch"]) for answer in answers} == {
            ("once", 1, client.welcome["epoch"])
        }
        await server.publish("ada", "note", "next")
        assert (await client.first("event"))["payload"] == 0
        assert (await client.first("event"))["payload"] == "next"


async def test_wrong_calls_get_the_fitting_status() -> None:
    url = "/v1/users/ada/events"
    calls: list[tuple[str, str, str, int]] = [
        ("POST", url, "{", 400),
        ("POST", url, '{"type": "x", "payload": NaN}', 400),
        ("POST", url, "{}", 422),
        ("POST", url, '{"type": ""}', 422),
        ("POST", url, '{"type": "x", "priority": "urgent"}', 422),
        ("POST", url, '{"type": "x", "ttl": 0}', 422),
        ("POST", url, '{"type": "x", "unknown": 1}', 422),
        ("POST", f"{url}?wait=confirmed&timeout=61", '{"type": "x"}', 422),
        ("POST", "/v1/users/a%0Ab/events", '{"type": "x"}', 422),
        ("PUT", url, "", 405),
        ("GET", "/v1/users/nobody", "", 404),
        ("GET", "/nowhere", "", 404),
    ]
    async with serving() as server:
        for method, path, body, status in calls:
            answer = await server.http.request(method, path, content=body)
            assert answer.status_code == status, (method, path, body, answer.text)
            assert {"code", "message"} <= set(answer.json()["error"])
        assert (await server.stats())["delivery"]["events_accepted"] == 0


async def test_a_batch_is_answered_line_by_line() -> None:
    lines = [
        '{"user": "ada", "type": "note", "payload": 1}',
        "junk",
        '{"type": "note"}',
        '{"users": ["ada", "bob"], "type": "note", "payload": 2}',
        '{"users": "*", "type": "note", "payload": 3}',
    ]
    async with serving() as server:
        answer = await server.http.post("/v1/events", content="\n".join(lines))
        assert answer.status_code == 200
        results = [json.loads(line) for line in answer.text.splitlines()]
        assert ["error" in result for result in results] == [False, True, True, False, False]
        for user, payloads in {"ada": [1, 2, 3], "bob": [2, 3]}.items():
            async with connected(server, user) as client:
                assert [payload for _, payload in summary(await client.replay())] == payloads


async def test_the_admin_api_asks_for_its_key() -> None:
    async with serving("--api-key", "k") as server:
        for path, without in (("/healthz", 200), ("/readyz", 200), ("/v1/stats", 401), ("/v1/users/a", 401)):
            assert (await server.http.get(path)).status_code == without
            wrong = await server.http.get(path, headers={"Authorization": "Bearer K"})
            assert wrong.status_code == without
        right = await server.http.get("/v1/stats", headers={"Authorization": "Bearer k"})
        assert right.status_code == 200


# Who connects


async def test_plain_clients_get_bare_events_and_no_other_frame() -> None:
    async with serving() as server:
        await server.publish("ada", "note", "before")
        async with connect(server.ws + "?user=ada", proxy=None) as ws:
            assert ws.subprotocol is None
            await ws.send('{"t": "ping"}')
            await ws.send('{"type": "question", "payload": 1, "id": "q"}')
            for n in (1, 2):
                await server.publish("ada", "agent_started", n)
            for n in (1, 2):
                event = json.loads(await ws.recv())
                assert set(event) == {"id", "type", "payload", "ts"}
                assert event["payload"] == n
            assert (await server.stats())["delivery"]["messages_confirmed"] == 2
        async with connect(server.ws + "?user=ada", subprotocols=[Subprotocol("other.v9")], proxy=None) as ws:
            assert ws.subprotocol is None
        with pytest.raises(InvalidStatus) as refusal:
            await connect(server.ws, proxy=None).__aenter__()
        assert refusal.value.response.status_code == 401


async def test_tokens_are_checked() -> None:
    good = token("ada")
    bad = [
        "junk",
        good[:-5] + "AAAAA",
        token("ada", exp=time.time() - 60),
        token("ada", nbf=time.time() + 600),
        jwt.encode({"sub": "ada", "exp": time.time() + 600}, "", "none"),
    ]
    async with serving("--jwt-secret", SECRET, insecure=False) as server:
        for wrong in bad:
            async with knocking(server) as client:
                await client.send({"t": "hello", "token": wrong, "user": "ada"})
                await client.assert_ended(4401)
        async with connected(server, token=good) as client:
            await client.replay()
            await client.send({"t": "auth", "token": token("ada")})
            await client.sync()
            await client.send({"t": "auth", "token": token("bob")})
            await client.assert_ended(4403)
        async with knocking(server, additional_headers={"Authorization": f"Bearer {good}"}) as client:
            await client.send({"t": "hello"})
            assert (await client.next())["t"] == "welcome"
        async with connect(f"{server.ws}?token={good}", proxy=None) as ws:
            await server.publish("ada", "note", 1)
            assert json.loads(await ws.recv())["payload"] == 1
        with pytest.raises(InvalidStatus) as refusal:
            await connect(f"{server.ws}?token=junk", proxy=None).__aenter__()
        assert refusal.value.response.status_code == 401


async def test_silence_ends_a_connection_and_parks_its_session() -> None:
    limits = ("--hello-timeout", "0.3", "--heartbeat-active", "0.3", "--heartbeat-grace", "0.3")
    async with serving(*limits) as server:
        async with knocking(server) as client:
            await client.assert_ended(4501)
        async with connected(server, "ada") as client:
            await server.publish("ada", "note", 1)
            ping = await client.first("ping")  # answered
            assert (ping["seq"], ping["next"]) == (1, 0.3)
            known = {key: client.welcome[key] for key in ("session", "epoch")} | {"seq": 1}
            client.answers = False  # from now on it is mute, but for a WebSocket pong, which is no life
            await client.ws.pong()
            await client.assert_ended(4501)
        async with connected(server, "ada", **known) as client:
            assert (client.welcome["session"], client.welcome["resumed"]) == (known["session"], True)


# The process


async def test_sigterm_drains_and_a_restart_begins_a_new_epoch() -> None:
    async with serving() as server, connected(server, "ada") as client:
        await client.replay()
        await server.publish("ada", "agent_started", 1)
        await client.first("event")
        await client.ack(1)
        server.process.send_signal(signal.SIGTERM)
        low, high = (await client.first("drain"))["after"]
        assert 0 <= low <= high
        await client.assert_ended(4503)
        assert await server.process.wait() == 0
        port = int(server.ws.split(":")[2].removesuffix("/ws"))
        known = await client.cut()
        async with serving(port=port) as restarted, connected(restarted, "ada", **known) as client:
            assert client.welcome["resumed"] is False
            assert client.welcome["epoch"] != known["epoch"]
            assert client.welcome["seq"] == 0


async def test_while_draining_nothing_new_is_taken_and_a_second_signal_ends_it() -> None:
    async with serving("--drain-timeout", "10") as server, connected(server, "ada") as client:
        await client.replay()
        await server.publish("ada", "agent_started", 1)
        await client.first("event")  # not acked: the drain gives it a little time
        server.process.send_signal(signal.SIGTERM)
        await client.first("drain")
        assert (await server.http.get("/readyz")).status_code == 503
        assert (await server.http.get("/healthz")).status_code == 200
        refused = await server.publish("ada", "agent_started", 2)
        assert refused.status_code == 503
        assert "Retry-After" in refused.headers
        server.process.send_signal(signal.SIGTERM)
        assert await server.process.wait() != 0


async def test_connections_that_come_and_go_leave_nothing() -> None:
    async with serving() as server:
        await server.stats()
        before = server.open_fds()
        for n in range(60):
            async with connected(server, f"user-{n % 6}") as client:
                if n % 2:
                    await client.cut()
                else:
                    await client.send({"t": "bye"})
                    await client.ending()
            async with connect(f"{server.ws}?user=plain", proxy=None):
                pass

        async def back() -> bool:
            stats = await server.stats()
            return not stats["connections"]["current"] and server.open_fds() <= before

        await eventually(back)
        stats = await server.stats()
        assert stats["sessions"]["active"] == 0
        assert stats["sessions"]["parked"] <= 3 * 3  # the odd users', three each
        assert stats["connections"]["total"] == 120


async def test_a_start_that_cannot_be_is_one_line_and_exit_2(tmp_path: Path) -> None:
    config = tmp_path / "bad.toml"
    config.write_text("no_such_key = 1\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        refusals = {
            "in use": ["--insecure", "--port", str(taken.getsockname()[1])],
            "no_such_key": ["--config", str(config)],
            "max_events": ["--max-events", "many"],
            "insecure": ["--host", "0.0.0.0", "--insecure"],
        }
        for word, options in refusals.items():
            result = await trio.run_process(
                [*COMMAND, "serve", "--store", "memory", "--port", "0", "--admin-port", "0", *options],
                capture_stderr=True,
                check=False,
                env=environment(),
            )
            assert result.returncode == 2
            [line] = result.stderr.decode().splitlines()
            assert word in line


async def test_a_run_reaches_a_tail() -> None:
    async with serving() as server, trio.open_nursery() as nursery:
        tail = await trio.lowlevel.open_process(
            [*COMMAND, "tail", "--url", server.ws, "ada"], stdout=subprocess.PIPE, env=environment()
        )
        assert tail.stdout is not None
        try:
            script = "echo out; exit 7"
            run = [*COMMAND, "run", "--quiet", "--url", server.admin, "ada", "--", "sh", "-c", script]
            result = await trio.run_process(run, capture_stdout=True, check=False, env=environment())
            assert result.returncode == 7
            seen = b""
            with trio.fail_after(PATIENCE):
                while b"agent_completed" not in seen or not seen.endswith(b"\n"):
                    seen += await tail.stdout.receive_some()
            events = [json.loads(line) for line in seen.splitlines()]
            assert [event["type"] for event in events] == [
                "agent_started",
                "tool_executing",
                "tool_output",
                "tool_completed",
                "agent_completed",
            ]
            assert events[2]["payload"]["text"] == "out\n"
            assert events[3]["payload"]["output"] == {"exit_status": 7}

            async def acked() -> bool:  # by the tail, after it has printed
                return bool((await server.stats())["delivery"]["events_settled"] == 5)

            await eventually(acked)
            tail.send_signal(signal.SIGINT)
            assert await tail.wait() == 130
        finally:
            tail.kill()
            await tail.stdout.aclose()
        nursery.cancel_scope.cancel()
