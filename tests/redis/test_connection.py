"""One connection, over memory, with a server that answers as it is told: whose reply is whose, whatever happens."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import hiredis
import pytest
import trio
import trio.testing
from trio.testing import MemoryReceiveStream, MemorySendStream, MockClock, memory_stream_pair

from trio_ws.cluster import messages
from trio_ws.redis.connection import Connection
from trio_ws.redis.refusals import Refused, Unreachable
from trio_ws.redis.script import Script, packed
from trio_ws.redis.url import Login, Place

PLACE = Place("fake", 6379)
ECHO = Script("echo", "return ARGV[1]")

Answer = Callable[[list[Any]], bytes]
Server = trio.StapledStream[MemorySendStream, MemoryReceiveStream]


def bulk(value: bytes) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(value), value)


class Fake:
    """A server that echoes, remembers what it was asked, and pauses before each answer for as long as `pause` says."""

    def __init__(self, stream: Server) -> None:
        self.stream = stream
        self.asked: list[list[bytes]] = []
        self.writes = 0
        self.known: set[bytes] = set()
        self.pause: Callable[[], float] = lambda: 0
        self.pieces = 0  # of so many bytes each answer is sent
        self.special: dict[bytes, bytes] = {}

    async def run(self) -> None:
        reader = hiredis.Reader(notEnoughData=None)
        async for data in self.stream:
            self.writes += 1
            reader.feed(bytes(data))
            while (words := reader.gets()) is not None:
                self.asked.append(words)
                await self._send(self._answer(words))

    def _answer(self, words: list[bytes]) -> bytes:
        match words:
            case [name, *_] if name in self.special:
                return self.special[name]
            case [b"PING"]:
                return b"+PONG\r\n"
            case [b"ROLE"]:
                return b"*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n"
            case [b"SCRIPT", b"LOAD", text]:
                self.known.add(Script("", text.decode()).sha1.encode())
                return b"+OK\r\n"
            case [b"EVALSHA", sha1, _, *args]:
                return bulk(args[-1]) if sha1 in self.known else b"-NOSCRIPT No matching script\r\n"
            case [b"ECHO", value]:
                return bulk(value)
            case _:
                return b"+OK\r\n"

    async def _send(self, answer: bytes) -> None:
        if pause := self.pause():
            await trio.sleep(pause)
        step = self.pieces or len(answer) or 1
        for begin in range(0, len(answer), step):
            await self.stream.send_all(answer[begin : begin + step])


@asynccontextmanager
async def connected(timeout: float = 2, **options: Any) -> AsyncIterator[tuple[Connection, Fake]]:
    """A connection that is ready, and the server that it is to."""
    ours, theirs = memory_stream_pair()
    connection, fake, ready = Connection(ours, PLACE, timeout, **options), Fake(theirs), trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fake.run)
        nursery.start_soon(connection.run, Login(), 0, lambda _: ready.set())
        await ready.wait()
        yield connection, fake
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("seed", range(6))
async def test_each_call_has_its_own_reply_whoever_is_cancelled(seed: int, autojump_clock: MockClock) -> None:
    rng = random.Random(seed)
    answered = cancelled = 0
    async with connected(timeout=100) as (connection, fake):
        fake.pause = lambda: rng.choice((0, 0, 0.01))
        fake.pieces = rng.choice((0, 1, 7))

        async def call(n: int) -> None:
            nonlocal answered, cancelled
            await trio.sleep(rng.uniform(0, 0.5))
            value = b"%d" % n * rng.choice((1, 20))
            with trio.move_on_after(rng.choice((0, 0.005, rng.uniform(0, 0.5), 100))) as scope:
                if n % 3:
                    assert await connection.request(packed("ECHO", value)) == [value]
                else:
                    calls = [ECHO.call([], [value + b"x"]), ECHO.call([], [value])]
                    assert await connection.ask(calls, ECHO) == [value + b"x", value]
            answered += not scope.cancelled_caught
            cancelled += scope.cancelled_caught

        async with trio.open_nursery() as nursery:
            for n in range(60):
                nursery.start_soon(call, n)
        assert await connection.request(packed("ECHO", b"last")) == [b"last"]
    assert answered > 5
    assert cancelled > 5


async def test_calls_of_one_turn_go_out_in_one_write() -> None:
    async with connected() as (connection, fake):
        before = fake.writes
        async with trio.open_nursery() as nursery:
            for n in range(100):
                nursery.start_soon(connection.request, packed("ECHO", n))
        assert fake.writes == before + 1


async def test_a_call_that_was_cancelled_before_it_began_is_not_sent() -> None:
    async with connected() as (connection, fake):
        with trio.CancelScope() as scope:
            scope.cancel()
            await connection.request(packed("ECHO", "never"))
        await connection.request(packed("ECHO", "then"))
        assert [b"ECHO", b"never"] not in fake.asked


async def test_no_answer_in_time(autojump_clock: MockClock) -> None:
    async with connected(timeout=2) as (connection, fake):
        fake.pause = lambda: 1.5
        assert await connection.request(packed("ECHO", 1)) == [b"1"]
        fake.pause = lambda: 1000
        failed = 0

        async def call(after: float) -> None:
            nonlocal failed
            await trio.sleep(after)
            with pytest.raises(Unreachable, match="no answer within 2 s"):
                await connection.request(packed("ECHO", 2))
            failed += 1

        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, 0)
            nursery.start_soon(call, 1)
            nursery.start_soon(call, 3)
        assert trio.current_time() - began == pytest.approx(3)
        assert failed == 3


async def test_a_cancelled_call_without_an_answer_takes_the_connection_too(autojump_clock: MockClock) -> None:
    async with connected(timeout=2) as (connection, fake):
        fake.pause = lambda: 1000
        with trio.move_on_after(1):
            await connection.request(packed("ECHO", 1))
        await trio.sleep(1.5)
        assert connection.failure == "no answer within 2 s"


async def test_where_this_process_stood_still_the_answer_is_read_first(mock_clock: MockClock) -> None:
    async with connected(timeout=2) as (connection, fake):
        fake.special[b"WAIT"] = b""
        answers: list[Any] = []

        async def call() -> None:
            answers.extend(await connection.request(packed("WAIT")))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(5)
            await fake.stream.send_all(b":1\r\n")
        assert answers == [1]
        assert connection.failure is None


@pytest.mark.parametrize(
    "answer",
    [b"?\r\n", b":1\r\n:2\r\n", b"%1\r\n*0\r\n+a\r\n", b">0\r\n", b">3\r\n+message\r\n+a\r\n:1\r\n"],
    ids=["garbage", "one too many", "a list as a key", "an empty push", "a message that is none"],
)
async def test_what_is_no_reply(answer: bytes) -> None:
    def take(push: list[Any]) -> None:
        messages.open_parcel(push[2])

    async with connected(on_push=take) as (connection, fake):
        fake.special[b"ECHO"] = answer
        try:
            await connection.request(packed("ECHO", 1))
        except Unreachable:
            pass
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(Unreachable, match="what came is no reply"):
            await connection.request(packed("ECHO", 1))


async def test_the_server_hangs_up_amid_a_reply() -> None:
    async with connected() as (connection, fake):
        fake.special[b"ECHO"] = b"$10\r\nabc"
        async with trio.open_nursery() as nursery:

            async def call() -> None:
                with pytest.raises(Unreachable, match="lost: the server closed it"):
                    await connection.request(packed("ECHO", 1))

            nursery.start_soon(call)
            nursery.start_soon(call)
            await trio.testing.wait_all_tasks_blocked()
            await fake.stream.send_stream.aclose()


async def test_scripts_are_sent_once_and_again_where_they_were_forgotten() -> None:
    async with connected() as (connection, fake):
        for _ in range(2):
            assert await connection.ask([ECHO.call([], ["a"])], ECHO) == [b"a"]
        fake.known.clear()
        calls = [ECHO.call([], ["a"]), ECHO.call([], ["b"])]
        fake.special[b"WAIT"] = b":1\r\n"
        assert await connection.ask(calls, ECHO, packed("WAIT", 1, 1000)) == [b"a", b"b", 1]
        assert [words[0] for words in fake.asked].count(b"SCRIPT") == 2


async def test_a_script_that_can_not_be_made_known_is_refused() -> None:
    async with connected() as (connection, fake):
        fake.special[b"SCRIPT"] = b"-NOPERM this user may not\r\n"
        fake.special[b"WAIT"] = b":1\r\n"
        for after, more in ((b"", []), (packed("WAIT", 1, 1000), [1])):
            reply, *others = await connection.ask([ECHO.call([], ["a"])], ECHO, after)
            assert str(reply) == "NOPERM this user may not"
            assert others == more
        del fake.special[b"SCRIPT"]
        assert await connection.ask([ECHO.call([], ["a"])], ECHO) == [b"a"]


async def test_what_comes_unasked() -> None:
    pushes: list[Any] = []
    async with connected(on_push=pushes.append) as (connection, fake):
        assert [b"HELLO", b"3"] in fake.asked
        fake.special[b"SUBSCRIBE"] = b">3\r\n+subscribe\r\n+a\r\n:1\r\n"
        assert await connection.request(packed("SUBSCRIBE", "a") + packed("PING")) == [b"PONG"]
        await fake.stream.send_all(b">3\r\n+message\r\n+a\r\n+hi\r\n")
        await trio.testing.wait_all_tasks_blocked()
        assert pushes == [[b"subscribe", b"a", 1], [b"message", b"a", b"hi"]]


@pytest.mark.parametrize(
    ("refusal", "error", "why"),
    [
        (b"-WRONGPASS invalid username-password pair\r\n", Refused, "user name or password is wrong"),
        (b"-LOADING Redis is loading the dataset in memory\r\n", Refused, "reading its data"),
        (b"-ERR unknown command 'AUTH', with args beginning with: 'secret'\r\n", Refused, "with: '\\*"),
        (b"", Unreachable, "no answer within 2 s"),
    ],
    ids=["password", "loading", "no AUTH", "mute"],
)
async def test_it_is_not_let_in(
    refusal: bytes, error: type[Exception], why: str, autojump_clock: MockClock
) -> None:
    ours, theirs = memory_stream_pair()
    fake = Fake(theirs)
    fake.special = {b"AUTH": refusal}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fake.run)
        connection = Connection(ours, PLACE, 2)
        with pytest.raises(error, match=why) as caught:
            await connection.run(Login("ada", "secret"), 1, lambda _: pytest.fail("it is ready"))
        assert "secret" not in str(caught.value)
        nursery.cancel_scope.cancel()
    assert fake.asked[:2] == [[b"AUTH", b"ada", b"secret"], [b"SELECT", b"1"]][: len(fake.asked)]


async def test_a_replica_will_not_do() -> None:
    ours, theirs = memory_stream_pair()
    fake = Fake(theirs)
    fake.special = {b"ROLE": b"*5\r\n+slave\r\n+there\r\n:1\r\n+connected\r\n:0\r\n"}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fake.run)
        with pytest.raises(Refused, match="is a replica") as caught:
            await Connection(ours, PLACE, 2).run(
                Login(), 0, lambda _: pytest.fail("it is ready"), only_primary=True
            )
        nursery.cancel_scope.cancel()
    assert caught.value.code == "READONLY"


async def test_it_takes_no_more_than_it_can_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trio_ws.redis.connection.MOST_UNSENT", 1000)
    async with connected() as (connection, _):
        go_on, sender = trio.Event(), connection._stream.send_stream  # type: ignore[attr-defined]
        pump = sender.send_all_hook

        async def hook() -> None:
            await go_on.wait()
            await pump()

        sender.send_all_hook = hook
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.request, packed("ECHO", "x" * 2000))
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(Unreachable, match="takes nothing"):
                await connection.request(packed("ECHO", 1))
            go_on.set()
        assert await connection.request(packed("ECHO", 1)) == [b"1"]
