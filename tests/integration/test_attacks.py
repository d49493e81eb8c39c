"""Attacks on a real server under load, one after the other: each ends what it is made of, and nothing else.

The server is *alive* when another client, which was there all the time, has its messages answered within 100 ms (the
median while the attack goes on) and is never cut; when tasks and descriptors are back at where they were; and when
memory is, but for `SLACK`. Each row says besides as what it is to be counted.
"""

from __future__ import annotations

import json
import resource
import socket
import statistics
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import attrs
import pytest
import trio

import trio_ws
from trio_ws.store import SqliteStore

from ..server.raw import BINARY, CONTINUATION, PING, REQUEST, TEXT, Peer, close_frame, frame, request
from ..server.tokens import SECRET, token
from .victim import BUSY, ORIGIN, Victim, attacked

pytestmark = pytest.mark.integration

V1 = b"Sec-WebSocket-Protocol: trio-ws.v1"
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing resets the connection
SLACK = 24 * 2**20
AT_ONCE = 20
PATIENCE = 60.0


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for another process."""
    while not await condition():  # noqa: ASYNC110
        await trio.sleep(0.05)


async def some(took: list[float]) -> bool:
    """Whether anything was answered."""
    return bool(took)


async def times(n: int, act: Callable[[], Awaitable[object]], at_once: int = AT_ONCE) -> None:
    """Do it `n` times, some at once."""
    left = iter(range(n))

    async def worker() -> None:
        for _ in left:
            await act()

    async with trio.open_nursery() as nursery:
        for _ in range(at_once):
            nursery.start_soon(worker)


async def answer(victim: Victim, *sent: bytes, reset: bool = False) -> bytes:
    """What comes back until the server ends the connection; nothing where it is reset."""
    async with victim.peer() as peer:
        try:
            await peer.send(*sent)
            if reset:
                assert isinstance(peer.stream, trio.SocketStream)
                peer.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                peer.stream.socket.close()
                return b""
            return await peer.rest()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return b""


async def status_of(victim: Victim, sent: bytes) -> int:
    """What a call of the admin API is answered, all of which may not be taken: httpx would leave it behind."""
    host, port = victim.admin.removeprefix("http://").split(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream, trio.open_nursery() as nursery:

        async def send() -> None:
            try:
                await stream.send_all(sent)
            except trio.BrokenResourceError:
                pass

        nursery.start_soon(send)
        status = int((await Peer(stream).head())[9:12])
        nursery.cancel_scope.cancel()
        return status


def text(value: Any) -> bytes:
    """A client's text message."""
    return frame(TEXT, value if isinstance(value, bytes) else json.dumps(value).encode())


USED: set[str] = set()
"""Every token and ticket that was given to a server: none of them may show anywhere."""


def good(user: str = "mallory", **claims: Any) -> str:
    made = token(**{"sub": user, "aud": "us", "exp": time.time() + 300, **claims})
    USED.add(made)
    return made


@asynccontextmanager
async def greeted(
    victim: Victim, user: str = "mallory", **hello: Any
) -> AsyncIterator[tuple[Peer, dict[str, Any]]]:
    """A raw connection that has said hello, and its welcome."""
    async with victim.peer(request(V1), text({"t": "hello", "token": good(user), **hello})) as peer:
        assert b" 101 " in await peer.head()
        yield peer, await until_frame(peer, "welcome")


async def until_frame(peer: Peer, kind: str) -> dict[str, Any]:
    """The next frame of a kind."""
    while True:
        value = json.loads(await peer.text())
        for one in value if isinstance(value, list) else [value]:
            if one["t"] == kind:
                return dict(one)


async def closed(peer: Peer) -> int:
    """The code that the server closes with, once the peer has read all before it."""
    while (got := await peer.frame()) is not None:
        if got[0] == 8:
            await peer.send(close_frame(int.from_bytes(got[1][:2])))
            return int.from_bytes(got[1][:2])
    return 1006


# -- the rows


async def requests_that_end_a_stock_server(victim: Victim) -> None:
    heads = [
        request(b"Sec-WebSocket-Protocol: \xff"),
        request(b"Sec-WebSocket-Extensions: \xff"),
        REQUEST.replace(b"Connection: Upgrade", b"Connection: Upgrade, \xff"),
        REQUEST.replace(b"localhost", b"\xff"),
    ]

    async def act() -> None:
        for head in heads:
            assert b" 400 " in (await answer(victim, head))[:20]
        await answer(victim, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", reset=True)

    await times(1000, act)


async def a_ping_while_the_server_closes(victim: Victim) -> None:
    async def act() -> None:
        async with victim.peer(request(V1), text({"t": "ping"})) as peer:
            await peer.head()
            assert await closed(peer) == 4400
            try:
                await peer.send(frame(PING, b"legal"))
                await peer.rest()
            except trio.BrokenResourceError:
                pass

    await times(1000, act)


async def silence(victim: Victim) -> None:
    """Without a word, with one byte at a time, in the middle of a request, with a TLS hello, and before hello."""

    async def ended(*sent: bytes, drip: bytes = b"") -> None:
        begin = trio.current_time()
        async with victim.peer(*sent) as peer, trio.open_nursery() as nursery:

            async def dripping() -> None:
                try:
                    for byte in drip * 100:
                        await trio.sleep(0.3)
                        await peer.send(bytes([byte]))
                except trio.BrokenResourceError:
                    pass

            nursery.start_soon(dripping)
            try:
                await peer.rest()
            except trio.BrokenResourceError:
                pass
            assert trio.current_time() - begin < 6  # 1.5 s in all, and a second to close
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            for sent in (b"", REQUEST[:50], b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", request(V1)):
                nursery.start_soon(ended, sent)
            nursery.start_soon(partial(ended, b"GET /ws HTTP/1.1\r\nX: ", drip=b"a"))


async def requests_that_are_none(victim: Victim) -> None:
    bad = [
        (request(b"X: " + b"a" * 20_000), b"431"),
        (request(*[b"X: a"] * 200), b"431"),
        (REQUEST.replace(b"HTTP/1.1", b"HTTP/1.0"), b"400"),
        (REQUEST.replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"short"), b"400"),
        (request(b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="), b"400"),
        (REQUEST.replace(b"GET", b"POST"), b"400"),
        (request(b"Content-Length: 5") + b"12345", b"400"),
        (REQUEST.replace(b"Upgrade: websocket", b"Upgrade: h2c"), b"426"),
        (REQUEST.replace(b"Version: 13", b"Version: 8"), b"426"),
        (REQUEST.replace(b"/ws", b"/other"), b"404"),
    ]
    for head, status in bad * 10:
        assert (await answer(victim, head))[9:12] == status, head[:200]


async def foreign_pages(victim: Victim) -> None:
    foreign = [
        b"null",
        b"https://evil.io",
        b"https://app.example.com.evil.io",
        b"http://app.example.com",
        b"https://app.example.com:8443",
        b"https://app.example.com@evil.io",
        b"https://evil.io/https://app.example.com",
        b"",
    ]
    for origin in foreign * 10:
        assert (await answer(victim, request(V1, b"Origin: " + origin)))[9:12] == b"403", origin
    for origin in (ORIGIN, "https://APP.example.COM", ORIGIN + ":443"):
        async with victim.peer(request(V1, b"Origin: " + origin.encode())) as peer:
            assert b" 101 " in await peer.head()


async def bad_credentials(victim: Victim) -> None:
    """The answer is the same for all."""
    now = time.time()
    issued = (await victim.http.post("/v1/tickets", json={"user": "mallory"})).json()["ticket"]
    USED.add(issued)
    async with victim.peer(request(V1), text({"t": "hello", "token": issued})) as peer:
        await peer.head()
        await until_frame(peer, "welcome")
    unsigned = good().rpartition(".")[0].replace("eyJhbGciOiJIUzI1NiIs", "eyJhbGciOiJub25lIiwi")
    tokens = [
        None,
        "",
        good(exp=now - 60),
        good(exp=None),
        good(nbf=now + 600),
        good(sub=None),
        good(aud="others"),
        good(aud=None),
        f"{unsigned}.",
        good()[:-3] + "AAA",
        token("another secret of more than 32 bytes", sub="mallory", aud="us"),
        "x" * 20_000,
        issued,
    ]
    answers = set()
    for bad in tokens * 3:
        async with victim.peer(request(V1), text({"t": "hello", "token": bad, "user": "ada"})) as peer:
            await peer.head()
            error = await until_frame(peer, "error")
            assert await closed(peer) == 4401
            answers.add(json.dumps(error))
        plain = await answer(victim, request(b"Authorization: Bearer " + (bad or "").encode()))
        assert plain[9:12] in (b"401", b"431")
        if plain[9:12] == b"401":
            answers.add(plain.decode())
    assert len(answers) == 2, answers


async def a_token_that_expires(victim: Victim) -> None:
    async with (
        greeted(victim, token=good(exp=time.time() + 2)) as (quiet, _),
        greeted(victim, token=good(exp=time.time() + 2)) as (fresh, _),
    ):
        await fresh.send(text({"t": "auth", "token": good()}))
        with trio.fail_after(30):
            assert (await until_frame(quiet, "error"))["code"] == 4401
            assert await closed(quiet) == 4401
        await fresh.send(text({"t": "ping"}))
        await until_frame(fresh, "pong")
        await fresh.send(text({"t": "auth", "token": good("somebody-else")}))
        assert (await until_frame(fresh, "error"))["code"] == 4403


async def sessions_of_others(victim: Victim) -> None:
    """One that is another's, and one that nobody has, are answered alike."""
    async with greeted(victim, "ada") as (_, hers):
        seen = set()
        for id in (hers["session"], "guessed", "x" * 5000, hers["session"][:-1] + "?"):
            async with greeted(victim, session=id, epoch=hers["epoch"], seq=0) as (peer, welcome):
                seen.add((welcome["resumed"], welcome["session"] == id, sorted(welcome)[0]))
                await peer.send(text({"t": "bye"}))
        assert seen == {(False, False, "ack")}


async def acks_of_all_kinds(victim: Victim) -> None:
    """What is not an ack of what was sent settles nothing."""
    receipt = (await victim.http.post("/v1/users/mallory/events", json={"type": "agent_started"})).json()
    seqs = [-1, 1.5, 10**30, 2**63, "1", None, True, [1], receipt["seq"] + 1, receipt["seq"] + 1000]
    for seq in seqs:
        async with greeted(victim) as (peer, _):
            await peer.send(text({"t": "ack", "seq": seq}))
            error = await until_frame(peer, "error")
            assert (error["code"], error["fatal"]) == (4400, False), seq
            await peer.send(text({"t": "bye"}))
    user = (await victim.http.get("/v1/users/mallory")).json()
    assert user["buffer"]["critical_unconfirmed"] == 1
    async with greeted(victim) as (peer, welcome):
        await until_frame(peer, "event")
        await peer.send(*[text({"t": "ack", "seq": welcome["head"]})] * 500, text({"t": "bye"}))
        assert await closed(peer) == 1000
    user = (await victim.http.get("/v1/users/mallory")).json()
    assert user["buffer"]["critical_unconfirmed"] == 0


async def what_is_no_json(victim: Victim) -> None:
    fatal = [
        b"",
        b"no json",
        b"[" * 60_000,
        b'{"t":' * 10_000,
        b"[]",
        b"[1]",
        b"7",
        b"\x00",
        b'{"t":"ack","seq":NaN}',
        b"'{}'",
        b'{"t":"ack"} {"t":"ack"}',
    ]
    mistakes = [
        b'{"t":"ack","seq":' + b"9" * 10_000 + b"}",
        b'{"t":"ack","seq":1e999}',
        b'{"t":"ack","seq":1,"seq":2}',
        b'{"t":"message","id":"\\ud800","type":"a","payload":1}',
        b'{"t":"message","id":7,"type":[],"payload":1}',
        b'{"t":"auth","token":{}}',
        b'{"t":"' + b"x" * 60_000 + b'"}',
        b'{"t":null}',
        b"{}",
        b'[{"t":"ping"},{"t":"nothing"}]',
    ]
    for sent in fatal:
        async with greeted(victim) as (peer, _):
            await peer.send(text(sent))
            error = await until_frame(peer, "error")
            assert (error["code"], error["fatal"]) == (4400, True), sent[:40]
            assert await closed(peer) == 4400
    for sent in mistakes:
        async with greeted(victim) as (peer, _):
            await peer.send(text(sent), text({"t": "ping"}))
            error = await until_frame(peer, "error")
            assert (error["code"], error["fatal"]) == (4400, False), sent[:40]
            await peer.send(text({"t": "bye"}))
            assert await closed(peer) == 1000
    async with greeted(victim) as (peer, _):
        await peer.send(text({"t": "nothing"}) * 20)
        assert await closed(peer) == 4400


async def events_that_are_none(victim: Victim) -> None:
    post = partial(victim.http.post, "/v1/users/mallory/events")
    bad = [
        b'{"type":"note","payload":"\\ud800"}',
        b'{"type":"note","payload":NaN}',
        b'{"type":"note","payload":1e999}',
        b'{"type":"note","payload":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"type":"a\\nb"}',
        b"\xff",
    ]
    before = (await victim.stats())["delivery"]["events_accepted"]
    assert before
    for content in bad:
        assert (await post(content=content)).status_code in (400, 422), content[:60]
    large = b'{"type":"agent_started","payload":"' + b"x" * 10_000_000 + b'"}'
    head = f"POST /v1/users/mallory/events HTTP/1.1\r\nHost: x\r\nContent-Length: {len(large)}\r\n\r\n"
    assert await status_of(victim, head.encode() + large) == 413
    held = (await victim.http.get("/v1/users/mallory")).json()
    assert held.get("buffer", {"events": 0})["events"] == 0


async def frames_that_break_the_rules(victim: Victim) -> None:
    rules = [
        (frame(BINARY, b"x"), 4400),
        (frame(TEXT, b"\xff"), 1007),
        (frame(TEXT, b"x" * 65_537), 1009),
        (frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) * 256, 1009),
        (bytes([0x81, 0xFF]) + (1 << 62).to_bytes(8) + b"mask" + bytes(100_000), 1009),
        (frame(TEXT, b"plain", masked=False), 1002),
        (frame(TEXT, b"rsv", rsv=0x40), 1002),
        (frame(PING, b"x" * 126), 1002),
    ]
    for sent, code in rules * 5:
        async with greeted(victim) as (peer, _):
            try:
                await peer.send(sent)
                assert await closed(peer) == code, sent[:20]
            except trio.BrokenResourceError:
                pass  # it was closed while much was still being sent
    begin = await victim.inside()
    async with trio.open_nursery() as nursery:
        half = bytes([0x81, 0xFF]) + (65_536).to_bytes(8) + b"mask" + bytes(60_000)
        released = trio.Event()

        async def hold(n: int) -> None:
            async with greeted(victim, f"holder{n}") as (peer, _):
                await peer.send(half)
                await released.wait()

        for n in range(50):
            nursery.start_soon(hold, n)
            await trio.sleep(0.01)
        await trio.sleep(0.5)
        held = (await victim.inside())["rss"] - begin["rss"]
        assert held / 50 < 3 * 65_536, f"{held / 50} bytes a connection"
        released.set()


async def floods(victim: Victim) -> None:
    async def flood(n: int, sent: bytes) -> None:
        async with greeted(victim, f"flooder{n}") as (peer, _), trio.open_nursery() as nursery:
            assert isinstance(peer.stream, trio.SocketStream)
            # What the kernel holds is still read, at the rate that the flooder has: let it be little, and end soon.
            peer.stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
            peer.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            nursery.start_soon(peer.rest)
            with trio.move_on_after(1):
                try:
                    while True:
                        await peer.send(sent)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    pass
            nursery.cancel_scope.cancel()

    kinds = [
        text({"t": "ack", "seq": 0}) * 200,
        text({"t": "ping"}) * 200,
        frame(PING, bytes(125)) * 200,
        b"".join(text({"t": "message", "id": f"m{n}", "type": "a", "payload": n}) for n in range(200)),
    ]
    async with trio.open_nursery() as nursery:
        for n, sent in enumerate(kinds):
            nursery.start_soon(flood, n, sent)
    assert (await victim.stats())["connections"]["held_back"] > 0


async def one_user_who_reconnects_without_end(victim: Victim) -> None:
    async def act() -> None:
        async with victim.peer(request(V1), text({"t": "hello", "token": good()})) as peer:
            try:
                await peer.head()
                await peer.frame()
            except (trio.BrokenResourceError, AssertionError):
                pass

    await times(400, act)


async def peers_that_never_read(victim: Victim) -> None:
    """Critical events stay, for whoever comes after."""
    payload = {"text": "x" * 100_000}
    for _ in range(2):
        async with victim.peer(
            request(V1), text({"t": "hello", "token": good("mute")}), SO_RCVBUF=4096
        ) as peer:
            await peer.head()
            for _ in range(8):
                await victim.http.post(
                    "/v1/users/mute/events", json={"type": "note", "priority": "low", "payload": payload}
                )
            response = await victim.http.post("/v1/users/mute/events", json={"type": "agent_started"})
            assert response.status_code == 202

            async def gone() -> bool:
                return (await victim.http.get("/v1/users/mute")).json()["connections"] == 0

            with trio.fail_after(20):
                await until(gone)
    user = (await victim.http.get("/v1/users/mute")).json()
    assert user["buffer"]["critical_unconfirmed"] == 2


async def letters_that_do_not_belong_there(victim: Victim) -> None:
    """In user ids, paths and headers; the log is looked at in the end."""
    million = "x" * 1_000_000
    for name, kind in (
        ("a\r\nX: y", "error"),
        ("\x1b[31mred", "error"),
        ("\x9b31mred", "error"),
        ("x" * 129, "error"),
        ("%s%n%x", "welcome"),
        ("\u202egnp", "welcome"),
    ):
        async with victim.peer(request(V1), text({"t": "hello", "token": good(name)})) as peer:
            await peer.head()
            value = json.loads(await peer.text())
            assert (value if isinstance(value, dict) else value[0])["t"] == kind, name
        path = f"/v1/users/{quote(name, safe='')}/events"
        status = (await victim.http.post(path, json={"type": "note"})).status_code
        assert status == (422 if kind == "error" else 202), name
    async with victim.peer(request(V1)) as peer:
        await peer.head()
        try:
            await peer.send(text({"t": "hello", "user": million}))
            assert await closed(peer) == 1009
        except trio.BrokenResourceError:
            pass  # it was closed while much was still being sent
    for target, status in (
        (b"/ws%0d%0aX:%20y", b"400"),
        (b"/\x1b[31m", b"400"),
        (b"/%1b%5b31m", b"400"),
        (b"/" + million.encode(), b"431"),
        (b"/ws?user=" + million.encode(), b"431"),
    ):
        told = await answer(victim, REQUEST.replace(b"/ws", target))
        assert told[9:12] == status or (status == b"431" and not told), target[:20]
        assert b"\nX:" not in told
    assert b"431" in (await answer(victim, request(b"X: " + million.encode())))[:20]
    assert await status_of(victim, f"GET /v1/users/{million} HTTP/1.1\r\nHost: x\r\n\r\n".encode()) == 431
    assert (await victim.http.post("/v1/users/ada/events", json={"type": "\x1b[31m"})).status_code == 422


async def tokens_in_addresses(victim: Victim) -> None:
    """They are in no line of the log and no figure; that is looked at in the end."""
    target = b"/ws?token=" + good("leaky").encode()
    async with victim.peer(REQUEST.replace(b"/ws", target)) as peer:
        assert b" 101 " in await peer.head()
    await answer(victim, REQUEST.replace(b"/ws", b"/ws?token=" + good("leaky", exp=1).encode()))
    await answer(victim, REQUEST.replace(b"/ws", b"/other?token=" + good("leaky").encode()))
    await answer(victim, request(b"Authorization: Bearer " + good("leaky", exp=1).encode()))
    await answer(victim, REQUEST.replace(b"/ws", b"/ws?token=" + good("leaky").encode() * 100))
    await answer(victim, REQUEST.replace(b"/ws", target + b"&token=x"))
    await victim.http.get(f"/v1/stats?token={good('leaky')}")
    await victim.http.get(f"/v1/users/{good('leaky')}", headers={"Authorization": f"Bearer {good('leaky')}"})


@attrs.frozen
class Row:
    """One attack, and as what its connections are to be counted."""

    attack: Callable[[Victim], Awaitable[None]]
    counted: tuple[str, ...] = ()
    """Reasons of `connections.refused` that it has to bring."""


ROWS = [
    Row(requests_that_end_a_stock_server, ("request",)),
    Row(a_ping_while_the_server_closes, ("protocol",)),
    Row(silence, ("hello_timeout",)),
    Row(requests_that_are_none, ("request", "head_too_long", "not_websocket", "path")),
    Row(foreign_pages, ("origin",)),
    Row(bad_credentials, ("credentials",)),
    Row(a_token_that_expires),
    Row(sessions_of_others),
    Row(acks_of_all_kinds),
    Row(what_is_no_json),
    Row(events_that_are_none),
    Row(frames_that_break_the_rules),
    Row(floods),
    Row(one_user_who_reconnects_without_end, ("user_rate",)),
    Row(peers_that_never_read),
    Row(letters_that_do_not_belong_there),
    Row(tokens_in_addresses),
]


@asynccontextmanager
async def under_load(victim: Victim) -> AsyncIterator[list[float]]:
    """Five who are sent events all the time, and one whose messages are answered; gives how long that took."""
    took: list[float] = []
    states: list[str] = []
    async with trio.open_nursery() as nursery:

        async def watch(user: str) -> None:
            async with victim.client(user) as client:
                async for _ in client:
                    pass

        async def echo(*, task_status: trio.TaskStatus[None]) -> None:
            async with victim.client("witness") as client:
                await client.wait_live()
                task_status.started()
                while True:
                    begin = time.perf_counter()
                    with pytest.raises(trio_ws.MessageRejected, match="no_handler"):
                        await client.send("echo", None)
                    took.append(time.perf_counter() - begin)
                    states.append(client.state.name)
                    await trio.sleep(0.02)

        for user in BUSY:
            nursery.start_soon(watch, user)
        await nursery.start(echo)
        yield took
        nursery.cancel_scope.cancel()
    assert set(states) == {"live"}, "the other client was cut"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("victim")


async def rested(victim: Victim, before: dict[str, int]) -> None:
    """Wait until the server is where it was. A look at it is a connection and a task, too."""
    now = before

    async def back() -> bool:
        nonlocal now
        now = await victim.inside()
        return now["tasks"] <= before["tasks"] and now["fds"] <= before["fds"]

    # What the kernel holds of a flood is still read, at the rate that the flooder had.
    with trio.move_on_after(30) as waiting:
        await until(back)
    assert not waiting.cancelled_caught, (before, now)
    assert now["rss"] - before["rss"] < SLACK


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.attack.__name__)
async def test_it_comes_through(row: Row, tmp_path: Path) -> None:
    with trio.fail_after(PATIENCE):
        async with attacked(tmp_path) as victim, under_load(victim) as took:
            before, refused = await victim.inside(), await victim.refused()
            del took[:]
            await row.attack(victim)
            await until(partial(some, took))
            assert statistics.median(took) < 0.1
            await rested(victim, before)
            now = await victim.refused()
            assert all(now[reason] > refused[reason] for reason in row.counted), (refused, now)
            metrics = (await victim.http.get("/metrics")).text
            shown = metrics + "".join(
                [(await victim.http.get(f"/v1/{path}")).text for path in ("stats", "users")]
            )
        log = (tmp_path / "log").read_text()
        assert not [c for c in log if ord(c) < 32 and c != "\n"], "a control character in the log"
        hides_secrets(log + shown)
        assert not [user for user in ("mallory", "witness", "busy") if user in metrics], (
            "a user in the metrics"
        )
        assert len(log) < 100_000, "the log is flooded"


def hides_secrets(shown: str) -> None:
    """No token is in what a server has said, nor the part of one that makes it good, nor the secret."""
    assert SECRET not in shown
    assert "eyJ" not in shown, "a token"
    assert not [used for used in USED if used.rpartition(".")[2] in shown]


@asynccontextmanager
async def a_page_beside_it(victim: Victim) -> AsyncIterator[list[float]]:
    """A page of the right origin whose pings are answered all the time; gives how long that took."""
    took: list[float] = []
    hello = text({"t": "hello", "token": good("witness")})
    async with (
        victim.peer(request(V1, b"Origin: " + ORIGIN.encode()), hello) as peer,
        trio.open_nursery() as nursery,
    ):
        await peer.head()
        await until_frame(peer, "live")

        async def echo() -> None:
            while True:
                begin = time.perf_counter()
                await peer.send(text({"t": "ping"}))
                await until_frame(peer, "pong")
                took.append(time.perf_counter() - begin)
                await trio.sleep(0.02)

        nursery.start_soon(echo)
        yield took
        nursery.cancel_scope.cancel()


async def test_who_comes_from_where_is_believed_of_nobody_but_the_proxy(tmp_path: Path) -> None:
    """An origin is required; 127.0.0.2 is a proxy that is trusted, 127.0.0.3 is anybody."""
    flags: dict[str, Any] = {"require_origin": True, "trusted_proxies": ["127.0.0.2"]}
    rates = {"connect_rate": 0.1, "connect_burst": 10}

    async def status(source: str, told: str, *lines: bytes) -> int:
        async with await victim.dial(source=source) as stream:
            peer = Peer(stream)
            await peer.send(request(V1, b"X-Forwarded-For: " + told.encode(), *lines))
            return int((await peer.head())[9:12])

    page = b"Origin: " + ORIGIN.encode()
    with trio.fail_after(PATIENCE):
        async with attacked(tmp_path, **flags, **rates) as victim, a_page_beside_it(victim) as took:
            before = await victim.inside()
            del took[:]
            anybody = [await status("127.0.0.3", f"203.0.113.{n}", page) for n in range(20)]
            assert anybody[:10] == [101] * 10
            assert set(anybody[11:]) == {429}
            assert {await status("127.0.0.2", f"203.0.113.{n}", page) for n in range(20)} == {101}
            forged = [await status("127.0.0.2", f"203.0.113.{n}, 198.51.100.7", page) for n in range(20)]
            assert forged[:10] == [101] * 10
            assert set(forged[11:]) == {429}
            for n, lines in enumerate(
                [(), (b"Origin:",), (b"Origin: null",), (b"Origin: https://evil.io",), (b"Referer: " + page,)]
                * 4
            ):
                assert await status("127.0.0.2", f"192.0.2.{n}", *lines) == 403, lines
            await until(partial(some, took))
            assert statistics.median(took) < 0.1
            await rested(victim, before)
            refused = await victim.refused()
            assert refused["origin"] == 20
            assert refused["address_rate"] >= 18


def half_open(victim: Victim, count: int) -> list[socket.socket]:
    """Connections from an address of their own, of which every other has sent half a request."""
    opened = []
    for n in range(count):
        connection = socket.create_connection(("127.0.0.1", victim.port), source_address=("127.0.0.2", 0))
        opened.append(connection)
        if n % 2:
            try:
                connection.sendall(REQUEST[:60])
            except OSError:
                pass  # it was cut already
    return opened


class TestExhaustion:
    """What there is too little of is refused, and it recovers by itself."""

    async def test_ten_thousand_half_open_handshakes(self, tmp_path: Path) -> None:
        """Others get in meanwhile, and memory stays. They come from one address, and never take all that there is."""
        with trio.fail_after(PATIENCE):
            async with attacked(tmp_path, hello_timeout=5) as victim, under_load(victim) as took:
                before = await victim.inside()
                del took[:]
                most = 0
                for batch in range(10):
                    opened: list[socket.socket] = []
                    while len(opened) < 1000:
                        opened += half_open(victim, 100)
                        await trio.lowlevel.checkpoint()
                    async with greeted(victim, f"honest{batch}"):
                        now = await victim.inside()
                        most = max(most, now["fds"])
                        assert now["rss"] - before["rss"] < 2 * SLACK
                    for connection in opened:
                        connection.close()
                assert most < before["fds"] + 300 + 50
                await until(partial(some, took))
                assert statistics.median(took) < 0.1
                assert (await victim.refused())["handshakes"] > 5000
                await rested(victim, before)

    async def test_descriptors(self, tmp_path: Path) -> None:
        with trio.fail_after(PATIENCE):
            limits = {resource.RLIMIT_NOFILE: 80}
            async with (
                attacked(tmp_path, limits=limits, hello_timeout=2) as victim,
                under_load(victim) as took,
            ):
                async with victim.silent(300):
                    with trio.fail_after(20):
                        while "can't accept" not in victim.log.read_text():  # noqa: ASYNC110
                            await trio.sleep(0.05)
                del took[:]
                hello = text({"t": "hello", "token": good()})
                with trio.fail_after(20):
                    await until(partial(victim.lets_in, request(V1), hello))
                response = await victim.http.post("/v1/users/ada/events", json={"type": "agent_started"})
                assert response.status_code == 202
                await until(partial(some, took))

    async def test_disk(self, tmp_path: Path) -> None:
        """A file that may not grow any more is a disk that is full, to the server."""
        file = tmp_path / "events.db"
        accepted: dict[str, int] = {}

        async def publish(user: str) -> int:
            body = {"type": "agent_started", "payload": "x" * 100_000}
            response = await victim.http.post(f"/v1/users/{user}/events", json=body)
            if response.status_code == 202:
                accepted[user] = accepted.get(user, 0) + 1
            else:
                assert (response.status_code, response.json()["error"]["code"]) == (503, "store_unavailable")
            return response.status_code

        with trio.fail_after(PATIENCE):
            async with attacked(tmp_path, store=f"sqlite:{file}") as victim, under_load(victim) as took:
                limit = partial(resource.prlimit, victim.process.pid, resource.RLIMIT_FSIZE)
                limit((2 * 2**20, resource.RLIM_INFINITY))
                async with trio.open_nursery() as publishers:
                    number = 0
                    while (await victim.http.get("/readyz")).status_code == 200:
                        # Nobody is waited for: the one who finds the disk full is answered after a while.
                        publishers.start_soon(publish, f"hoard{number // 5}")
                        number += 1
                        assert number < 100
                    assert await publish("late") == 503
                    del took[:]
                    await until(partial(some, took))
                    limit((resource.RLIM_INFINITY, resource.RLIM_INFINITY))

                    async def takes_events() -> bool:
                        return await publish("late") == 202

                    with trio.fail_after(20):
                        await until(takes_events)
                assert (await victim.http.get("/readyz")).status_code == 200
        async with trio_ws.open_hub(store=SqliteStore(file)) as hub:
            for user, count in accepted.items():
                await hub.load(user)
                described = hub.describe(user)
                assert described is not None
                assert described["buffer"]["critical_unconfirmed"] >= count, user

    async def test_memory(self, tmp_path: Path) -> None:
        """Its bounds hold: publishers who fill the buffer and clients who fill theirs never come near the limit."""
        limits = {resource.RLIMIT_AS: 450 * 2**20}
        full = {
            "max_bytes_per_user": 2**26,
            "max_events": 10**6,
            "max_events_per_user": 10**6,
            "hello_timeout": 30,
        }
        with trio.fail_after(PATIENCE):
            async with attacked(tmp_path, limits=limits, **full) as victim, trio.open_nursery() as nursery:
                released = trio.Event()

                async def hold(n: int) -> None:
                    async with greeted(victim, f"holder{n}") as (peer, _):
                        await peer.send(bytes([0x81, 0xFF]) + (65_536).to_bytes(8) + b"mask" + bytes(60_000))
                        await released.wait()

                for n in range(90):
                    nursery.start_soon(hold, n)
                line = json.dumps({"user": "hoard", "type": "agent_started", "payload": "x" * 250_000})
                accepted, refused = 0, False
                while not refused:
                    response = await victim.http.post("/v1/events", content="\n".join([line] * 10))
                    answers = [json.loads(answer) for answer in response.text.splitlines()]
                    accepted += sum("error" not in answer for answer in answers)
                    refused = any("error" in answer for answer in answers)
                assert 240 < accepted < 280  # 64 MiB
                async with greeted(victim, "ada") as (peer, _):
                    await peer.send(text({"t": "ping"}))
                    await until_frame(peer, "pong")
                assert (await victim.inside())["rss"] < 300 * 2**20
                assert "the limits add up to" in victim.log.read_text()
                released.set()
