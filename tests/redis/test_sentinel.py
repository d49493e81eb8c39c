"""Which of the sentinels' answers counts."""

from __future__ import annotations

from typing import Any

import attrs
import hiredis
import pytest
import trio
from trio.testing import MockClock

from trio_ws.errors import StoreError
from trio_ws.redis.refusals import Unreachable
from trio_ws.redis.sentinel import PATIENCE, Sentinels
from trio_ws.redis.url import Place, parse


@attrs.define
class Told:
    """A line to a sentinel that knows of an epoch, and a primary's port; amid a failover, it still has an old one."""

    epoch: int
    port: int
    old: int = 0
    delay: float = 0
    place: str = "26379"
    trouble: StoreError | None = None

    async def connection(self) -> Told:
        await trio.sleep(self.delay)
        return self

    async def ask(self, questions: list[bytes]) -> list[Any]:
        about = [b"ip", b"h", b"port", b"%d" % (self.old or self.port), b"config-epoch", b"%d" % self.epoch]
        return [about, [b"h", b"%d" % self.port]]


class Ignorant(Told):
    async def ask(self, questions: list[bytes]) -> list[Any]:
        return [hiredis.ReplyError("ERR No such master with that name"), None]


class Forgetful(Told):
    """It is told to forget the primary between two questions."""

    async def ask(self, questions: list[bytes]) -> list[Any]:
        return [(await super().ask(questions))[0], None]


class NoSentinel(Told):
    async def ask(self, questions: list[bytes]) -> list[Any]:
        return [
            hiredis.ReplyError("ERR unknown command 'SENTINEL', with args beginning with: 'MASTER' 'n'")
        ] * 2


def sentinels(*told: Told) -> Sentinels:
    found = Sentinels(parse("redis+sentinel://a,b,c/name"), 2, lambda place: None)
    found._lines = list(told)  # type: ignore[arg-type]
    return found


@pytest.mark.parametrize(
    ("told", "port"),
    [
        ([Told(3, 1), Told(3, 1), Told(3, 1)], 1),
        ([Told(3, 1), Told(4, 2, delay=0.1), Told(3, 1, delay=0.3)], 2),
        ([Told(4, 2, old=1), Told(3, 1)], 2),
        ([Told(3, 1, delay=100), Told(3, 1, delay=100), Told(2, 2)], 2),
        ([Ignorant(0, 0), Told(3, 1), Told(3, 1)], 1),
    ],
    ids=["agreed", "the newest", "amid a failover", "one that answers", "one that knows"],
)
async def test_the_newest_configuration_counts(
    told: list[Told], port: int, autojump_clock: MockClock
) -> None:
    assert await sentinels(*told).find() == Place("h", port)


async def test_no_more_is_waited_for_than_most(autojump_clock: MockClock) -> None:
    began = trio.current_time()
    await sentinels(Told(3, 1), Told(3, 1), Told(3, 1, delay=100)).find()
    assert trio.current_time() == began
    await sentinels(Told(3, 1), Told(3, 1, delay=100), Told(3, 1, delay=100)).find()
    assert trio.current_time() == began + PATIENCE


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ([Ignorant(0, 0), Ignorant(0, 0)], "no sentinel tells: sentinel 26379: ERR No such master"),
        ([Forgetful(1, 1)], "no sentinel tells: sentinel 26379"),
        ([Told(1, 1, delay=100)], "none has answered within 0.5 s"),
        (
            [Told(1, 1, delay=100, trouble=Unreachable("nobody is there"))],
            "no sentinel tells: nobody is there",
        ),
        ([NoSentinel(1, 1), Told(1, 1, delay=100)], "26379 is no sentinel: its URL begins with redis://"),
    ],
)
async def test_nobody_knows(told: list[Told], why: str, autojump_clock: MockClock) -> None:
    with pytest.raises(Unreachable, match=why):
        await sentinels(*told).find()


async def test_where_none_is_a_sentinel_nobody_waits(autojump_clock: MockClock) -> None:
    with pytest.raises(StoreError, match="is no sentinel") as caught:
        await sentinels(NoSentinel(1, 1), NoSentinel(1, 1)).find()
    assert not caught.value.passes
