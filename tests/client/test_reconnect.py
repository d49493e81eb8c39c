"""Losing the connection and coming back: the schedule, each row of the close table, silence, violations, tokens."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked
from wsproto.events import TextMessage

from trio_ws.client import Client, ClientState, SavedSession
from trio_ws.core import closing
from trio_ws.core.closing import Reaction
from trio_ws.errors import ConnectionRefused, LocalError, SessionEnded

from .scripted import MidRandom, Peer, Server, event, gap

Break = Callable[[Peer], Awaitable[None]]


async def ended_with(client: Client) -> BaseException | None:
    """How receiving ends; None for normally."""
    try:
        async for _ in client:
            pass
    except (SessionEnded, ConnectionRefused) as error:
        return error
    return None


# --- Hello ---


async def test_hello_offers_the_protocol_and_asks_for_a_new_session(server: Server, clock: MockClock) -> None:
    async with server.connect(token="secret", user="ada"):
        peer, hello = await server.hello()
        assert hello == {"t": "hello", "token": "secret", "user": "ada", "from": "retained"}
        assert peer.request is not None
        assert peer.request.subprotocols == ["trio-ws.v1"]
        assert (peer.request.host, peer.request.target) == ("test", "/ws")
        assert not [name for name, _ in peer.request.extra_headers if name.lower() == b"authorization"]


async def test_hello_resumes_a_saved_session(server: Server, clock: MockClock) -> None:
    saved = SavedSession(session="s9", epoch="e9", seq=41)
    async with server.connect(session=saved) as client:
        assert client.saved() == saved
        peer, hello = await server.hello()
        assert hello == {"t": "hello", "session": "s9", "epoch": "e9", "seq": 41, "from": "retained"}
        await peer.welcome(43, session="s9", epoch="e9", resumed=True)
        assert await peer.expect("ack") == {"t": "ack", "seq": 43}, "the ack before may have been lost"
        await peer.send(event(44))
        assert (await client.receive()).seq == 44
        await peer.close(1000)
    assert client.gaps == ()


@pytest.mark.parametrize(
    ("asked", "resuming"), [("retained", "retained"), ("pending", "pending"), ("now", "pending")]
)
async def test_where_a_new_session_starts(
    server: Server, clock: MockClock, asked: str, resuming: str
) -> None:
    async with server.connect(from_=asked):
        peer, hello = await server.hello()
        assert hello["from"] == asked
        peer.cut()
        peer, hello = await server.hello()
        assert hello["from"] == asked
        await peer.welcome()
        await wait_all_tasks_blocked()
        peer.cut()
        peer, hello = await server.hello()
        assert hello["from"] == resuming, "what came while we were away must not be skipped"


# --- The schedule ---


async def test_the_schedule_of_attempts(server: Server, clock: MockClock) -> None:
    server.absent = True
    async with server.connect():
        await trio.sleep(100)
    delays = [b - a for a, b in pairwise(server.attempts)]
    assert delays == pytest.approx([0.1, 0.5, 1.0, 1.0, 2.0, 4.0, 8.0, *[10.0] * (len(delays) - 7)])
    assert len(delays) > 10


async def test_jitter_stays_in_its_bounds(server: Server, clock: MockClock) -> None:
    server.absent = True
    async with server.connect(rng=random.Random(3)):
        await trio.sleep(200)
    delays = [b - a for a, b in pairwise(server.attempts)]
    for delay, mid in zip(delays, (0.1, 0.5, 1.0), strict=False):
        assert 0.95 * mid <= delay <= 1.05 * mid
    for delay, cap in zip(delays[3:], (2, 4, 8, 16, *[20] * 99), strict=False):
        assert 0 <= delay <= cap
    assert delays[0] != 0.1


@pytest.mark.parametrize(("lasted", "delay"), [(4.9, 0.5), (5.0, 0.1)])
async def test_the_schedule_starts_over_after_a_stable_connection(
    server: Server, clock: MockClock, lasted: float, delay: float
) -> None:
    async with server.connect():
        peer = await server.session()
        await trio.sleep(10)
        peer.cut()
        peer = await server.session()
        await trio.sleep(lasted)
        lost = trio.current_time()
        peer.cut()
        await server.accept()
        assert trio.current_time() - lost == pytest.approx(delay)


async def test_an_attempt_that_gets_no_connection_is_abandoned_after_four_seconds(
    server: Server, clock: MockClock
) -> None:
    attempts: list[float] = []

    async def hang() -> trio.abc.Stream:
        attempts.append(trio.current_time())
        await trio.sleep_forever()
        raise AssertionError

    async with server.connect(open_stream=hang):
        await trio.sleep(4.5)
    assert attempts[1] - attempts[0] == pytest.approx(4.1)


@pytest.mark.parametrize("upgraded", [False, True])
async def test_an_attempt_has_four_seconds_in_all(server: Server, clock: MockClock, upgraded: bool) -> None:
    async def slow() -> trio.abc.Stream:
        await trio.sleep(3)
        return await server.open_stream()

    async with server.connect(open_stream=slow) as client:
        began = trio.current_time()
        peer = await server.accept()
        if upgraded:
            await peer.handshake()
            await peer.expect("hello")
            assert await peer.receive() is None
        else:
            assert await peer.next() is not None
            assert await peer.next() is None
        assert trio.current_time() - began == pytest.approx(4)
        await wait_all_tasks_blocked()
        assert client.state.name == "offline"
        assert client.state.retry_in == pytest.approx(0.1)


async def test_a_server_that_hangs_up_during_the_handshake_is_noticed_at_once(
    server: Server, clock: MockClock
) -> None:
    async with server.connect():
        peer = await server.accept()
        await peer.next()
        lost = trio.current_time()
        peer.cut()
        await server.accept()
        assert trio.current_time() - lost == pytest.approx(0.1)


# --- The close table ---


@pytest.mark.parametrize("row", closing.TABLE.values(), ids=lambda row: row.name)
async def test_each_row_of_the_close_table(server: Server, clock: MockClock, row: closing.CloseCode) -> None:
    async with server.connect(token="fixed") as client, trio.open_nursery() as nursery:
        outcome: list[BaseException | None] = []

        @nursery.start_soon
        async def receive() -> None:
            outcome.append(await ended_with(client))

        peer = await server.session()
        await peer.send(event(1))
        if row is closing.BROKEN:
            peer.cut()
        else:
            await peer.fail(row.code)
        await wait_all_tasks_blocked()
        if row.reaction is Reaction.RETRY:
            assert client.state.name == "offline"
            peer = await server.session(1)
            await peer.close(1000)
            await wait_all_tasks_blocked()
            assert outcome == [None]
        elif row is closing.NORMAL:
            assert outcome == [None]
        else:
            assert isinstance(outcome[0], SessionEnded)
            assert (outcome[0].code, outcome[0].reason) == (row.code, "because")
            assert client.statistics().given == 1, "what had arrived was given first"
            assert client.state.name == "ended"
    assert client.statistics().attempts == (2 if row.reaction is Reaction.RETRY else 1)


@pytest.mark.parametrize(
    ("code", "retries"), [(1001, True), (1011, True), (1012, True), (4404, False), (4599, True)]
)
async def test_codes_outside_the_table(server: Server, clock: MockClock, code: int, retries: bool) -> None:
    async with server.connect() as client:
        peer = await server.session()
        await peer.close(code)
        await wait_all_tasks_blocked()
        assert client.state.name == ("offline" if retries else "ended")


async def test_the_error_frame_stands_for_a_close_that_got_lost(server: Server, clock: MockClock) -> None:
    async with server.connect() as client:
        peer = await server.session()
        await peer.send({"t": "error", "code": 4409, "reason": "elsewhere", "fatal": True})
        peer.cut()
        with pytest.raises(SessionEnded) as caught:
            await client.receive()
        assert (caught.value.code, caught.value.reason) == (4409, "elsewhere")
        with pytest.raises(SessionEnded):
            await client.receive()


@pytest.mark.parametrize("code", [None, 1000, 1011])
async def test_the_error_frame_counts_whatever_the_close_says(
    server: Server, clock: MockClock, code: int | None
) -> None:
    async with server.connect() as client:
        peer, _ = await server.hello()
        await peer.welcome()
        await peer.send({"t": "error", "code": 4403, "reason": "the operator", "fatal": True})
        if code is not None:
            await peer.close(code)
        error = await ended_with(client)
        assert isinstance(error, SessionEnded)
        assert (error.code, error.reason) == (4403, "the operator")


async def test_a_drain_counts_though_the_close_gets_lost(server: Server, clock: MockClock) -> None:
    async with server.connect():
        peer = await server.session()
        await peer.send({"t": "drain", "after": [20, 30]})
        await wait_all_tasks_blocked()
        lost = trio.current_time()
        peer.cut()
        await server.accept()
        assert trio.current_time() - lost == pytest.approx(25)


async def test_an_error_that_is_not_fatal_changes_nothing(server: Server, clock: MockClock) -> None:
    async with server.connect() as client:
        peer = await server.session()
        await peer.send({"t": "error", "code": 4400, "reason": "what?", "fatal": False}, event(1))
        assert (await client.receive()).seq == 1
        peer.cut()
        await wait_all_tasks_blocked()
        assert client.state.name == "offline"


async def test_a_refusal_before_the_welcome(server: Server, clock: MockClock) -> None:
    async with server.connect() as client:
        peer, _ = await server.hello()
        await peer.fail(4429)
        assert isinstance(await ended_with(client), SessionEnded)


@pytest.mark.parametrize("how", ["drain", "retry_after"])
async def test_the_server_says_when_to_come_back(server: Server, clock: MockClock, how: str) -> None:
    async with server.connect():
        peer = await server.session()
        if how == "drain":
            await peer.send({"t": "drain", "after": [20, 30]})
            await trio.sleep(3)
            await peer.close(4503)
        else:
            await peer.fail(4503, retry_after=25)
        lost = trio.current_time()
        server.absent = True
        await trio.sleep(26)
        assert server.attempts[1] - lost == pytest.approx(25)
        assert server.attempts[2] - server.attempts[1] == pytest.approx(0.5), "that was for once"


# --- HTTP ---


@pytest.mark.parametrize("status", [400, 401, 403, 404, 426, 302])
async def test_a_refused_upgrade_is_raised(server: Server, clock: MockClock, status: int) -> None:
    async with server.connect(token=lambda: "t") as client:
        peer = await server.accept()
        await peer.refuse(status, body=b"no")
        with pytest.raises(ConnectionRefused) as caught:
            await client.receive()
        assert caught.value.status == status
        with pytest.raises(ConnectionRefused):
            await client.send("x")
        with pytest.raises(ConnectionRefused):
            await client.wait_live()
        assert client.state.name == "ended"
    assert len(server.attempts) == 1


async def test_a_refusal_whose_body_ends_with_the_connection(server: Server, clock: MockClock) -> None:
    async with server.connect() as client:
        peer = await server.accept()
        await peer.next()
        await peer.stream.send_all(b"HTTP/1.1 404 Not Found\r\n\r\nnothing he")
        peer.cut()
        with pytest.raises(ConnectionRefused) as caught:
            await client.receive()
        assert caught.value.status == 404


@pytest.mark.parametrize(
    ("status", "headers", "delay"),
    [
        (429, [(b"retry-after", b"7")], 7),
        (503, [(b"Retry-After", b"12")], 12),
        (503, [], 0.1),
        (503, [(b"retry-after", b"Wed, 21 Oct 2030 07:28:00 GMT")], 0.1),
        (503, [(b"retry-after", b"-5")], 0.1),
        (502, [], 0.1),
        (500, [], 0.1),
    ],
)
async def test_a_server_that_is_busy_is_tried_again(
    server: Server, clock: MockClock, status: int, headers: list[tuple[bytes, bytes]], delay: float
) -> None:
    async with server.connect():
        peer = await server.accept()
        await peer.refuse(status, headers, b"busy")
        lost = trio.current_time()
        await server.accept()
        assert trio.current_time() - lost == pytest.approx(delay)


@pytest.mark.parametrize("answer", [b"hello?\r\n\r\n", b"HTTP/1.1 101 Nope\r\n\r\n", b"\x00" * 100])
async def test_an_answer_that_is_no_handshake(server: Server, clock: MockClock, answer: bytes) -> None:
    async with server.connect() as client:
        peer = await server.accept()
        await peer.next()
        await peer.stream.send_all(answer)
        peer = await server.session()
        await peer.close(1000)
        assert await ended_with(client) is None


async def test_a_server_that_does_not_select_the_protocol(server: Server, clock: MockClock) -> None:
    async with server.connect() as client:
        peer = await server.accept()
        await peer.handshake(subprotocol=None)
        with pytest.raises(ConnectionRefused, match=r"trio-ws\.v1"):
            await client.receive()


# --- Liveness ---


@pytest.mark.parametrize(
    ("say", "silence"),
    [
        ([], 2.5 + 1.5),
        ([{"t": "ping", "seq": 0, "next": 30.0}], 31.5),
        ([{"t": "ping", "seq": 0, "next": 30.0}, event(1)], 4),
        ([{"t": "ping", "seq": 0, "next": 30.0}, {"t": "accepted", "id": "x"}], 31.5),
        ([{"t": "ping", "seq": 0, "next": 30.0}, gap(1, 1)], 31.5),
        ([{"t": "ping", "seq": 0, "next": 0.5}, {"t": "pong"}], 2),
    ],
)
async def test_silence_is_noticed(
    server: Server, clock: MockClock, say: list[dict[str, Any]], silence: float
) -> None:
    async with server.connect() as client:
        peer, _ = await server.hello()
        await peer.welcome(heartbeat={"active": 2.5, "idle": 25, "grace": 1.5}, head=5)
        for frame in say:
            await trio.sleep(0.25)
            await peer.send(frame)
        began = trio.current_time()
        while await peer.receive() is not None:
            pass
        assert trio.current_time() - began == pytest.approx(silence)
        await wait_all_tasks_blocked()
        assert client.state.reason == "the server fell silent"


async def test_what_arrives_slowly_is_no_silence(server: Server, clock: MockClock) -> None:
    async with server.connect() as client:
        peer, _ = await server.hello()
        await peer.welcome()
        data = peer.ws.send(
            TextMessage(
                data='{"t":"event","seq":1,"id":"a","type":"x","ts":1,"payload":"' + "x" * 5000 + '"}'
            )
        )
        for start in range(0, len(data), 500):
            await peer.stream.send_all(data[start : start + 500])
            await trio.sleep(3)
        assert (await client.receive()).seq == 1
        assert client.statistics().reconnects == 0
        await peer.close(1000)


async def test_a_proxys_pings_are_no_life_of_the_server(server: Server, clock: MockClock) -> None:
    async with server.connect():
        peer, _ = await server.hello()
        await peer.welcome()
        began = trio.current_time()
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def ping() -> None:
                while True:
                    await trio.sleep(1)
                    await peer.ws_ping()

            while await peer.receive() is not None:
                pass
            nursery.cancel_scope.cancel()
        assert trio.current_time() - began == pytest.approx(4)
        assert peer.pongs == 3


async def test_each_ping_is_answered(server: Server, clock: MockClock) -> None:
    async with server.connect():
        peer = await server.session()
        for _ in range(3):
            await peer.ping()
        for _ in range(3):
            assert await peer.expect("pong") == {"t": "pong"}


async def test_a_server_that_takes_nothing_is_left(server: Server, clock: MockClock) -> None:
    async with server.connect() as client:
        peer = await server.session()
        server.ends[0].stuck = True
        await peer.ping()
        began = trio.current_time()
        assert await peer.receive() is None
        assert trio.current_time() - began == pytest.approx(5)
        await wait_all_tasks_blocked()
        assert client.state.reason == "the server takes nothing"


async def test_a_write_that_fails_does_not_hide_the_close(server: Server, clock: MockClock) -> None:
    async with server.connect() as client:
        peer = await server.session()
        peer.stream.receive_stream.close()
        await peer.send({"t": "ping", "seq": 0, "next": 100})
        await wait_all_tasks_blocked()
        await peer.fail(4409)
        error = await ended_with(client)
        assert isinstance(error, SessionEnded)
        assert error.code == 4409


# --- Violations ---

WELCOME = {
    "t": "welcome",
    "session": "s1",
    "epoch": "e1",
    "seq": 1,
    "head": 1,
    "resumed": True,
    "heartbeat": {"active": 2, "idle": 25, "grace": 2},
    "ack": {"events": 32, "delay": 0.05},
}


@pytest.mark.parametrize(
    "frames",
    [
        [event(1)],
        [event(3)],
        [event(0)],
        [gap(3, 4)],
        [gap(2, 1)],
        [event(4, merged={"from": 2, "n": 1})],
        [event(2), event(2)],
        [event(3, retry=1)],
        [{"t": "live", "seq": 2}],
        [WELCOME],
        [{"t": "ping", "seq": 1, "next": 0}],
        [{"t": "ping", "seq": 1, "next": -1}],
        [{"t": "event", "seq": "2"}],
        [{"t": "ping"}],
    ],
    ids=repr,
)
async def test_a_violation_is_counted_and_resumed(
    server: Server, clock: MockClock, frames: list[dict[str, Any]]
) -> None:
    async with server.connect() as client:
        peer = await server.session()
        await peer.send(event(1))
        await peer.send(*frames)
        assert (await client.receive()).seq == 1
        peer, hello = await server.hello()
        assert client.statistics().violations == 1
        at = hello["seq"]
        assert at == (2 if frames[0] == event(2) else 1)
        await peer.welcome(at, resumed=True)
        await peer.send(event(at + 1))
        await peer.close(1000)
        assert [e.seq async for e in client] == list(range(2, at + 2))
    assert client.statistics().violations == 1


@pytest.mark.parametrize("text", ["", "null", "[]", "3", "{", '{"t":"event"', "[1]", '"x"'])
async def test_what_is_no_frame_is_a_violation(server: Server, clock: MockClock, text: str) -> None:
    async with server.connect() as client:
        peer = await server.session()
        await peer.say(text)
        await server.session()
        assert client.statistics().violations == 1


async def test_what_is_no_text_is_a_violation(server: Server, clock: MockClock) -> None:
    async with server.connect() as client:
        peer = await server.session()
        await peer.say_bytes(b"{}")
        peer = await server.session()
        assert client.statistics().violations == 1
        await peer.stream.send_all(b"\x81\x02\xff\xff")
        peer = await server.session()
        assert client.statistics().violations == 2
        await peer.stream.send_all(b"\xff\xff\xff\xff")
        await server.session()
        assert client.statistics().violations == 3


@pytest.mark.parametrize(
    "over",
    [
        {"seq": 2, "head": 1},
        {"heartbeat": {"active": 0, "idle": 25, "grace": 2}},
        {"heartbeat": {"active": 2, "idle": 25, "grace": -1}},
        {"heartbeat": None},
        {"seq": -1},
    ],
    ids=repr,
)
async def test_a_welcome_that_makes_no_sense(server: Server, clock: MockClock, over: dict[str, Any]) -> None:
    async with server.connect() as client:
        peer, _ = await server.hello()
        await peer.send(WELCOME | {"seq": 0, "resumed": False} | over)
        await server.session()
        assert client.statistics().violations == 1


@pytest.mark.parametrize("frame", [event(1), gap(1, 1), {"t": "live", "seq": 0}], ids=repr)
async def test_nothing_comes_before_the_welcome(
    server: Server, clock: MockClock, frame: dict[str, Any]
) -> None:
    async with server.connect() as client:
        peer, _ = await server.hello()
        await peer.send(frame)
        await server.session()
        assert client.statistics().violations == 1


async def test_a_broken_server_is_not_hammered(server: Server, clock: MockClock) -> None:
    async with server.connect(), trio.open_nursery() as nursery:

        @nursery.start_soon
        async def serve() -> None:
            while True:
                peer = await server.session()
                await peer.send(event(9))

        await trio.sleep(60)
        nursery.cancel_scope.cancel()
    assert 5 <= len(server.attempts) <= 12


async def test_a_session_that_another_client_has_used_meanwhile_is_left_to_it(
    server: Server, clock: MockClock
) -> None:
    async with server.connect() as client:
        peer = await server.session()
        await peer.send(event(1))
        assert (await client.receive()).seq == 1
        peer.cut()
        peer, hello = await server.hello()
        assert (hello["session"], hello["seq"]) == ("s1", 1)
        await peer.welcome(3, head=4, resumed=True)  # the other one has acked 2 and 3
        peer, hello = await server.hello()
        assert hello == {"t": "hello", "epoch": "e1", "seq": 1, "from": "retained"}
        await peer.welcome(1, session="s2", head=4, resumed=True)
        await peer.send(event(2), event(3), event(4))
        assert [(await client.receive()).seq for _ in range(3)] == [2, 3, 4]
        peer.cut()
        peer, hello = await server.hello()
        assert (hello["session"], hello["seq"]) == ("s2", 4), "this one is its own"
        await peer.welcome(4, session="s2", resumed=True)
        await peer.close(1000)
    assert client.gaps == ()
    assert client.statistics().violations == 0


async def test_a_server_that_leaves_events_out_of_a_session_of_ones_own_breaks_the_protocol(
    server: Server, clock: MockClock
) -> None:
    async with server.connect() as client:
        peer = await server.session()
        for count in (0, 1):
            peer.cut()
            peer, _ = await server.hello()
            assert client.statistics().violations == 0
            await peer.welcome(3, resumed=True)
            await wait_all_tasks_blocked()
            assert client.statistics().violations == count


async def test_unknown_frames_and_keys_are_skipped(server: Server, clock: MockClock) -> None:
    async with server.connect() as client:
        peer = await server.session()
        await peer.send({"t": "news", "seq": 1}, event(1, more=3))
        await peer.send({"t": "news"})
        assert (await client.receive()).seq == 1
        await peer.close(1000)
    assert client.statistics().violations == 0


# --- Tokens ---


class Tokens:
    """A source of tokens that counts."""

    def __init__(self) -> None:
        self.asked = 0

    async def __call__(self) -> str:
        await trio.lowlevel.checkpoint()
        self.asked += 1
        return f"token{self.asked}"


async def test_a_token_is_kept_over_reconnects_and_replaced_when_refused(
    server: Server, clock: MockClock
) -> None:
    tokens = Tokens()
    async with server.connect(token=tokens):
        peer, hello = await server.hello()
        assert hello["token"] == "token1"
        await peer.welcome()
        await wait_all_tasks_blocked()
        peer.cut()
        peer, hello = await server.hello()
        assert hello["token"] == "token1"
        await peer.welcome(resumed=True)
        await peer.fail(4401)
        peer, hello = await server.hello()
        assert hello["token"] == "token2"
        assert hello["session"] == "s1"
        await peer.welcome(resumed=True)
        await peer.fail(4401)
        peer, hello = await server.hello()
        assert hello["token"] == "token3", "it was welcomed between: not twice in a row"


async def test_a_fresh_token_that_is_refused_too_ends_it(server: Server, clock: MockClock) -> None:
    tokens = Tokens()
    async with server.connect(token=tokens) as client:
        for expected in ("token1", "token2"):
            peer, hello = await server.hello()
            assert hello["token"] == expected
            await peer.fail(4401)
        error = await ended_with(client)
        assert isinstance(error, SessionEnded)
        assert error.code == 4401
    assert len(server.attempts) == 2


async def test_a_source_that_fails_is_asked_again(server: Server, clock: MockClock) -> None:
    calls: list[float] = []

    async def token() -> str:
        calls.append(trio.current_time())
        if len(calls) == 1:
            raise OSError("secret words")
        if len(calls) == 2:
            await trio.sleep_forever()
        return "good"

    async with server.connect(token=token) as client:
        states: list[str] = []
        await wait_all_tasks_blocked()
        states.append(client.state.reason)
        _, hello = await server.hello()
        assert hello["token"] == "good"
        assert [at - calls[0] for at in calls] == pytest.approx([0, 0.1, 10.6])
        assert states == ["no token"]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (LocalError("logged out"), "logged out"),
        (None, "must return a string"),
        ("\udcff", "half of a surrogate pair"),
    ],
)
async def test_a_source_can_end_it(server: Server, clock: MockClock, given: Any, told: str) -> None:
    def token() -> str:
        if isinstance(given, Exception):
            raise given
        return given  # type: ignore[no-any-return]

    async with server.connect(token=token) as client:
        with pytest.raises(LocalError, match=told):
            await client.receive()
        with pytest.raises(LocalError):
            await client.send("x")
    assert server.attempts == []


async def test_a_token_is_replaced_before_it_runs_out(server: Server, clock: MockClock) -> None:
    tokens = Tokens()
    async with server.connect(token=tokens, wall_clock=lambda: 1000.0):
        peer, _ = await server.hello()
        began = trio.current_time()
        await peer.welcome(expires=1300.0)
        await peer.ping()
        await peer.expect("pong")
        assert await peer.expect("auth") == {"t": "auth", "token": "token2"}
        assert trio.current_time() - began == pytest.approx(270)
        peer.cut()
        _, hello = await server.hello()
        assert hello["token"] == "token2"


async def test_replacing_a_token_goes_on_when_the_source_fails(server: Server, clock: MockClock) -> None:
    calls: list[float] = []

    async def token() -> str:
        calls.append(trio.current_time())
        if len(calls) == 2:
            raise OSError
        if len(calls) == 4:
            raise LocalError("logged out")
        return f"token{len(calls)}"

    async with server.connect(token=token, wall_clock=lambda: 1000.0) as client:
        peer, _ = await server.hello()
        await peer.welcome(expires=1300.0)
        await peer.ping(next=1e6)
        await peer.expect("pong")
        assert await peer.expect("auth") == {"t": "auth", "token": "token3"}
        await trio.sleep(1000)
        assert [at - calls[0] for at in calls] == pytest.approx([0, 270, 275, 545])
        assert client.state.name == "catching_up", "the token that it has may be good for long"


async def test_short_lived_tokens_are_each_replaced_in_time(server: Server, clock: MockClock) -> None:
    tokens = Tokens()
    async with server.connect(token=tokens, wall_clock=lambda: 1000.0):
        peer, _ = await server.hello()
        began = trio.current_time()
        await peer.welcome(expires=1010.0)
        await peer.ping(next=1e6)
        await peer.expect("pong")
        for count in (1, 2, 3):
            assert await peer.expect("auth") == {"t": "auth", "token": f"token{count + 1}"}
            assert trio.current_time() - began == pytest.approx(8 * count)


async def test_a_fixed_token_is_not_replaced(server: Server, clock: MockClock) -> None:
    async with server.connect(token="t", wall_clock=lambda: 1000.0):
        peer, _ = await server.hello()
        await peer.welcome(expires=1001.0)
        await peer.ping()
        await peer.expect("pong")
        with trio.move_on_after(100) as scope:
            await peer.receive()
        assert scope.cancelled_caught


# --- State and figures ---


async def test_states_are_told(server: Server, clock: MockClock) -> None:
    states: list[ClientState] = []
    async with server.connect(on_state=states.append) as client:
        assert client.state == ClientState(name="connecting")
        peer, _ = await server.hello()
        await peer.welcome(0, head=2)
        await wait_all_tasks_blocked()
        assert client.state == ClientState(name="catching_up", behind=2)
        await peer.send(event(1), event(2), {"t": "live", "seq": 2})
        await client.wait_live()
        now = trio.current_time()
        peer.cut()
        await trio.sleep(0.04)
        state = client.state
        assert state.retry_at == pytest.approx(now + 0.1)
        assert state.retry_in == pytest.approx(0.06)
        peer = await server.session(2)
        await peer.fail(4409)
        await wait_all_tasks_blocked()
    names = [str(state) for state in states]
    assert names == ["catching_up", "live", "offline", "connecting", "catching_up", "live", "ended"]
    assert (states[0].behind, states[1].behind) == (2, 0)
    assert "4409" in states[-1].reason


async def test_each_failed_attempt_is_told(server: Server, clock: MockClock) -> None:
    server.absent = True
    states: list[ClientState] = []
    async with server.connect(on_state=states.append):
        await trio.sleep(0.3)
    assert [s.name for s in states] == ["offline", "connecting", "offline", "ended"]
    assert states[0].reason == "nobody there"


async def test_what_on_state_raises_leaves_the_block(server: Server, clock: MockClock) -> None:
    class Oops(Exception):
        pass

    def on_state(state: ClientState) -> None:
        if state.name == "catching_up":
            raise Oops

    with pytest.raises(Oops):
        async with server.connect(on_state=on_state):
            peer, _ = await server.hello()
            await peer.welcome()
            await trio.sleep_forever()


async def test_a_recovery_lasts_until_the_last_missed_event_is_processed(
    server: Server, clock: MockClock
) -> None:
    async with server.connect() as client:
        peer = await server.session()
        await peer.send(event(1))
        await client.receive()
        peer.cut()
        await wait_all_tasks_blocked()
        peer, _ = await server.hello()  # 0.1 s later
        await peer.welcome(1, resumed=True, head=3, heartbeat={"active": 100})
        await trio.sleep(0.25)
        await peer.send(event(2), event(3), event(4))
        assert [(await client.receive()).seq for _ in range(3)] == [2, 3, 4]
        assert client.statistics().recoveries == 1
        assert client.statistics().last_recovery == pytest.approx(0.35)
        # Of two cuts without a recovery between them the first counts: 4 is not processed before the second.
        peer.cut()
        peer = await server.session(4)  # 0.5 s later
        peer.cut()
        peer = await server.session(4)  # 1 s later
        await trio.sleep(0.25)
        assert client.statistics().recoveries == 1
        await peer.send(event(5))
        await client.receive()
    figures = client.statistics()
    assert figures.recoveries == 2
    assert (figures.connections, figures.reconnects, figures.attempts) == (4, 3, 4)
    assert figures.longest_recovery == pytest.approx(1.75)


async def test_a_cut_by_hand_is_a_cut(server: Server, clock: MockClock) -> None:
    async with server.connect() as client:
        client.cut()  # nothing to cut yet
        peer = await server.session()
        client.cut()
        assert await peer.receive() is None, "without a close frame"
        _, hello = await server.hello()
        assert hello["session"] == "s1"


def test_the_tests_jitter_is_in_the_middle() -> None:
    assert MidRandom(1).uniform(2, 4) == 3
