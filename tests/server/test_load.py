"""Overload: where the loop lags behind, who comes is told to come later, and who is there goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

import trio_ws
from trio_ws.server.load import EVERY, LEAST_WAIT, MOST_WAIT, Load

from .memory import Closed, Server, serving

LIMIT = 0.25


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Seen(Load):
    """A load that sees turns of these lengths, one after the other."""

    def __init__(self, turns: tuple[float, ...]) -> None:
        self.clock = Clock()
        self.left = list(turns)
        super().__init__(LIMIT, self.clock)

    async def _turn(self) -> float:
        self.clock.now += self.left[0]
        return self.left.pop(0)


async def measured(*turns: float) -> Seen:
    """A load that has measured while turns took so long."""
    load = Seen(turns)
    while load.left:
        load.clock.now += EVERY
        await load.measure()
        left = len(load.left)
        await load.measure()  # it was seen just now
        assert len(load.left) == left
    return load


@pytest.mark.parametrize(
    ("turns", "kept_out"),
    [
        ((), (False, False)),
        ((0.2, 0.25), (False, False)),
        ((9.0, 0.01), (False, False)),  # a machine stops now and then
        ((0.3, 0.26), (True, False)),
        ((0.6, 0.3), (True, False)),
        ((0.6, 0.51), (True, True)),
        ((0.6, 0.6, 0.01), (False, False)),
    ],
)
async def test_two_long_turns_are_an_overload(turns: tuple[float, ...], kept_out: tuple[bool, bool]) -> None:
    load = await measured(*turns)
    found = [load.keeps_out(resuming=resuming) is not None for resuming in (False, True)]
    assert tuple(found) == kept_out


async def test_the_longer_it_lasts_the_later_and_never_all_at_once() -> None:
    load = await measured(0.3, 0.3)
    waits = [load.keeps_out(resuming=False) or 0 for _ in range(20)]
    assert LEAST_WAIT * 2 / 3 <= min(waits) < max(waits) <= LEAST_WAIT
    assert len(set(waits)) == 20
    load = await measured(*[0.3] * 100)
    assert MOST_WAIT * 2 / 3 <= (load.keeps_out(resuming=False) or 0) <= MOST_WAIT
    load.left = [0.3, 0.3]
    load.clock.now += 3600
    await load.measure()
    assert (load.keeps_out(resuming=False) or 0) <= LEAST_WAIT  # another one


@pytest.fixture
def clock(autojump_clock: MockClock) -> MockClock:
    return autojump_clock


@asynccontextmanager
async def slowed(clock: MockClock, seconds: float) -> AsyncIterator[None]:
    """Every turn of the loop takes so long."""
    async with trio.open_nursery() as nursery:

        async def hog() -> None:
            while True:
                clock.jump(seconds)
                await trio.lowlevel.checkpoint()

        nursery.start_soon(hog)
        await trio.lowlevel.checkpoint()
        yield
        nursery.cancel_scope.cancel()


async def told(server: Server, **hello: Any) -> dict[str, Any]:
    """The first frame that somebody is sent who says hello."""
    client = await server.dial()
    await client.open()
    await client.send({"t": "hello", "user": "bob", **hello})
    first = await client.frame()
    if first["t"] == "error":
        assert (await client.closed()).code == first["code"]
    return first


async def test_who_comes_is_told_to_come_later(clock: MockClock) -> None:
    async with serving(trio_ws.Config(max_loop_lag=0.05)) as server:
        there, _ = await server.client(user="ada")
        refused = server.hub.engine.refusals.counts
        async with slowed(clock, 0.12):  # measured as half of that at least
            error = await told(server)
            assert (error["code"], error["fatal"]) == (4503, True)
            assert 1 <= error["retry_after"] <= MOST_WAIT
            assert refused["overloaded"] == 1
            plain = await server.dial()
            with pytest.raises(Closed) as caught:
                await plain.open("/ws?user=eve", subprotocols=())
            assert caught.value.code == 503
            assert refused["overloaded"] == 2
            server.hub.publish_nowait("ada", "agent_started")
            assert (await there.until("event"))["type"] == "agent_started"
        assert (await told(server))["t"] == "welcome"


async def test_who_resumes_is_asked_for_apart(clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Load, "keeps_out", lambda self, *, resuming: None if resuming else 1.25)
    async with serving() as server:
        assert (await told(server))["retry_after"] == 1.25
        assert (await told(server, session="mine", seq=0))["t"] == "welcome"


async def test_the_limit_is_configured(clock: MockClock) -> None:
    async with serving(trio_ws.Config(max_loop_lag=0.5)) as server, slowed(clock, 0.3):
        for user in ("ada", "bob", "eve"):
            await server.client(user=user)
        assert server.hub.stats()["connections"]["refused"]["overloaded"] == 0
