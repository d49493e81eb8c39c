"""The same commits on a store in memory and on one in Redis: what both give back is the same, after each of them."""

from __future__ import annotations

import itertools
import math
from typing import Any

import attrs
import trio
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from loopback.redis import RedisServer

from tests.store.records import event, log, session
from trio_ws.core.gaps import Run
from trio_ws.core.records import Batch, EventRecord, Kept, KeyRecord, Part, Removal, RunRecord
from trio_ws.redis import RedisStore
from trio_ws.store import MemoryStore

STATES = ("settled", "evicted", "expired", "superseded", "merged")
ODD = st.sampled_from(["r", "é☃", "a b", "{x}", "", "0", "n" * 100])
RUNS = itertools.count()


@attrs.define
class Log:
    """What of a log the next batch has to fit: what a hub would not do is not tried."""

    head: int = 0
    upto: int = 0
    events: dict[int, EventRecord] = attrs.field(factory=dict)

    def bounds(self) -> list[int]:
        """Seqs behind which an event may begin."""
        inside = {seq for e in self.events.values() for seq in range(e.first, e.seq)}
        return [seq for seq in range(self.head + 1) if seq not in inside]


@st.composite
def an_event(draw: st.DrawFn, first: int, seq: int) -> EventRecord:
    owned = draw(st.booleans())
    return event(
        "ada",
        seq,
        first=first,
        id=f"{draw(ODD)}-{first}-{seq}-{draw(st.integers(0, 9))}" if owned else draw(ODD),
        type=draw(st.sampled_from(["alarm", "é"])),
        priority=draw(st.integers(0, 3)),
        payload=draw(st.sampled_from([b"1", b'"\xc3\xa9"', b"[" + b"0," * 400 + b"0]"])),
        ts=draw(st.floats(1.6e9, 1.9e9)),
        expires=draw(st.none() | st.sampled_from([1.7e9, 1.7e9 + 0.1]) | st.floats(1.6e9, 1.9e9)),
        key=draw(st.none() | ODD),
        merge=draw(st.booleans()),
        tracked=draw(st.booleans()),
        truncated=draw(st.booleans()),
        owned_id=owned,
        confirmed=draw(st.booleans()),
        run=draw(st.none() | ODD),
    )


@st.composite
def a_batch(draw: st.DrawFn, known: Log) -> Batch:
    batch = Batch()
    if draw(st.integers(0, 9)) == 0:
        batch.closed = ["ada"]
        known.head, known.upto, known.events = 0, 0, {}
    removals, owned = [], False
    for _ in range(draw(st.integers(0, 2))):
        low, high = sorted((draw(st.sampled_from(known.bounds())), draw(st.sampled_from(known.bounds()))))
        gone = [known.events.pop(first) for first in list(known.events) if low < first <= high]
        batch.events = [event for event in batch.events if event not in gone]
        if low < high and draw(st.booleans()):
            joined = draw(an_event(low + 1, high))
            batch.events.append(joined)
            known.events[low + 1] = joined
        removals.append((low + 1, high, draw(st.sampled_from(STATES))))
        owned = owned or any(event.owned_id for event in (*gone, *batch.events))
    # For all of them: where the batch is committed once more, one may remove what comes in the place of another.
    batch.removed = [Removal("ada", *removal, owned) for removal in removals]
    for _ in range(draw(st.integers(0, 4))):
        first = known.head + draw(st.integers(1, 2))
        known.head = first + draw(st.integers(0, 1))
        batch.events.append(draw(an_event(first, known.head)))
        known.events[first] = batch.events[-1]
    known.upto = draw(st.sampled_from([seq for seq in known.bounds() if seq >= known.upto] or [known.head]))
    batch.confirmed = [("ada", draw(st.integers(1, known.head + 1))) for _ in range(draw(st.integers(0, 2)))]
    gone_runs = (Run(1, 2, "evicted", {draw(ODD): 2}, 1, draw(st.none() | st.just({"r": 1}))),)
    batch.users = [
        log(
            "ada",
            known.head,
            epoch=draw(ODD),
            reserved=known.head + draw(st.integers(0, 2)),
            confirmed=known.upto,
            due=draw(st.none() | st.floats(0.0, 2e9)),
            partial=draw(st.booleans()),
            gone=draw(st.none() | st.just(()) | st.just(gone_runs)),
            rest=draw(st.just(0) | st.sampled_from([seq + 1 for seq in known.bounds() if seq >= known.upto])),
        )
    ]
    batch.sessions = [
        session(
            "ada",
            draw(ODD),
            acked=draw(st.integers(0, known.head)),
            skipped=(draw(st.integers(0, known.head)),),
        )
        for _ in range(draw(st.integers(0, 2)))
    ]
    batch.ended = [("ada", draw(ODD)) for _ in range(draw(st.integers(0, 1)))]
    batch.keys = [
        ("ada", KeyRecord(draw(ODD), draw(st.integers(1, 9)), draw(st.sampled_from(STATES))))
        for _ in range(draw(st.integers(0, 2)))
    ]
    batch.runs = [
        RunRecord("ada", draw(ODD), draw(st.booleans()), draw(st.none() | st.just(1.5)), '{"é":1}'.encode())
        for _ in range(draw(st.integers(0, 2)))
    ]
    batch.forgotten = [("ada", draw(ODD)) for _ in range(draw(st.integers(0, 1)))]
    return batch


@st.composite
def batches(draw: st.DrawFn) -> list[tuple[Batch, bool, Part]]:
    """Batches, whether each is committed once more, and what of the rest is read then."""
    known, found = Log(), []
    for _ in range(draw(st.integers(1, 8))):
        batch = draw(a_batch(known))
        way = draw(st.sampled_from([{}, {"mortal": True}, {"lesser": True}, {"id": draw(ODD)}]))
        first = max(1, batch.users[0].rest)
        part = Part(
            first=first,
            last=first + draw(st.integers(0, 20)),
            most=draw(st.integers(1, 9)),
            size=draw(st.sampled_from([1, 900, math.inf])),
            **way,
        )
        found.append((batch, draw(st.booleans()), part))
    return found


def plain(kept: Kept | None) -> Any:
    """Kept, comparable."""
    if kept is None:
        return None
    gone = [
        (run.first, run.last, run.reason, run.lost, run.critical, run.agents) for run in kept.user.gone or ()
    ]
    return (
        kept.user[:7],
        kept.user.rest,
        gone,
        kept.events,
        sorted(kept.sessions),
        kept.keys,
        kept.damaged,
        kept.rest,
        sorted(kept.runs, key=lambda run: run.run),
    )


@settings(
    max_examples=20,
    phases=[Phase.generate],
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(batches())
def test_both_give_back_the_same(redis_server: RedisServer, given: list[tuple[Batch, bool, Part]]) -> None:
    async def main() -> None:
        memory = MemoryStore()
        redis = RedisStore(f"unix://{redis_server.socket}", prefix=f"{next(RUNS)}:")
        async with trio.open_nursery() as nursery:
            await nursery.start(redis.run)
            await redis.claim("ada")
            for batch, again, part in given:
                for _ in range(1 + again):
                    await memory.commit(batch)
                    await redis.commit(batch)
                assert plain(await redis.load("ada")) == plain(await memory.load("ada"))
                if batch.users[0].rest:
                    assert await redis.read("ada", part) == await memory.read("ada", part)
            nursery.cancel_scope.cancel()

    trio.run(main)
