"""`GET /v1/stream`: what those who watch are sent, and that one who does not read costs the others nothing."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock, lockstep_stream_pair, memory_stream_pair, wait_all_tasks_blocked

from trio_ws.admin import create_app
from trio_ws.admin.connection import WRITE_TIMEOUT, Connection, hypercorn_config
from trio_ws.admin.sampler import BACKLOG, BOUNDS, COLUMNS, KEPT, Sampler, distribution
from trio_ws.admin.stream import MAX_STREAMS
from trio_ws.core.histogram import Histogram
from trio_ws.hub import Hub, open_hub


class Watcher:
    """A client that has asked for the stream; by HTTP/1.0, whose answers are in one piece."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._data = b""

    async def until(self, end: bytes) -> bytes:
        """What comes up to `end`."""
        while end not in self._data:
            piece = await self.stream.receive_some(65536)
            assert piece, self._data
            self._data += piece
        got, self._data = self._data.split(end, 1)
        return got

    async def event(self) -> tuple[str, Any]:
        """The next event: its name and its data."""
        name = "message"
        for line in (await self.until(b"\n\n")).decode().split("\n"):
            field, _, value = line.partition(": ")
            if field == "event":
                name = value
            elif field == "data":
                return name, json.loads(value)
        return await self.event()  # only `retry` so far


@attrs.frozen
class World:
    hub: Hub
    sampler: Sampler
    app: Any
    nursery: trio.Nursery

    async def watch(self, query: str = "", headers: str = "", pair: Any = memory_stream_pair) -> Watcher:
        ours, theirs = pair()

        async def serve() -> None:
            await Connection(theirs, self.app, hypercorn_config()).run()
            await trio.aclose_forcefully(theirs)

        self.nursery.start_soon(serve)
        await ours.send_all(f"GET /v1/stream{query} HTTP/1.0\r\nhost: x\r\n{headers}\r\n".encode())
        return Watcher(ours)

    async def answer(self, query: str = "", headers: str = "") -> tuple[int, str]:
        """Status and head of an answer."""
        watcher = await self.watch(query, headers)
        head = (await watcher.until(b"\r\n\r\n")).decode().lower()
        return int(head.split()[1]), head


@asynccontextmanager
async def open_world(**options: Any) -> AsyncIterator[World]:
    async with open_hub() as hub, trio.open_nursery() as nursery:
        sampler = Sampler(hub)
        nursery.start_soon(sampler.run)
        app = create_app(hub, sampler=sampler, **options)
        await wait_all_tasks_blocked()
        yield World(hub, sampler, app, nursery)
        nursery.cancel_scope.cancel()


async def test_the_figures_come_at_once_and_each_second(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        watcher = await world.watch()
        head = (await watcher.until(b"\r\n\r\n")).lower()
        assert b"content-type: text/event-stream" in head
        assert b"cache-control: no-store" in head
        assert (await watcher.until(b"\n\n")).startswith(b"retry: ")
        for second in range(4):
            name, stats = await watcher.event()
            assert (name, trio.current_time()) == ("message", second)
            assert stats.keys() == world.hub.stats().keys() | {"at"}
            assert stats["delivery"]["events_accepted"] == second
            await world.hub.publish("ada", "note", None)


async def test_the_history_has_a_row_for_each_second_and_points_go_on_from_it(
    autojump_clock: MockClock,
) -> None:
    async with open_world() as world:
        await trio.sleep(0.5)  # between two samples
        for n in range(5):
            for _ in range(n):
                await world.hub.publish("ada", "note", None)
            await trio.sleep(1)
        watcher = await world.watch("?history=true")
        await watcher.until(b"\r\n\r\n")
        name, history = await watcher.event()
        assert name == "history"
        assert tuple(history["columns"]) == COLUMNS
        rows = [dict(zip(COLUMNS, row, strict=True)) for row in history["rows"]]
        assert [row["accepted"] for row in rows] == [0, 0, 1, 2, 3, 4]
        assert [row["held"] for row in rows] == [0, 0, 1, 3, 6, 10]
        name, stats = await watcher.event()
        assert (name, stats["at"]) == ("message", rows[-1]["at"])
        await world.hub.publish("ada", "note", None)
        name, point = await watcher.event()
        assert name == "point"
        assert dict(zip(COLUMNS, point["row"], strict=True))["accepted"] == 1
        assert len(point["distributions"]["recovery"]) == len(BOUNDS) + 1
        assert (await watcher.event())[0] == "message"


async def test_the_history_is_bounded(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        for _ in range(2 * KEPT):
            world.sampler.sample()
        watcher = await world.watch("?history=true")
        await watcher.until(b"\r\n\r\n")
        assert len((await watcher.event())[1]["rows"]) == KEPT


async def test_percentiles_are_those_of_the_last_minute(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        confirmations = world.hub.engine.confirmations

        def recent() -> list[float | None]:
            world.sampler.sample()
            _, opened = world.sampler.opening(history=True)
            return json.loads(opened.split(b"\n")[1].removeprefix(b"data: "))["rows"][-1][-4:]

        assert recent() == [None] * 4
        confirmations.latency.record(2.0)
        confirmations.confirmed += 1
        confirmations.timed_out += 1
        assert recent() == [pytest.approx(2, rel=0.1)] * 3 + [0.5]
        await trio.sleep(70)
        assert recent() == [None] * 4
        confirmations.latency.record(0.1)
        confirmations.confirmed += 1
        assert recent() == [pytest.approx(0.1, rel=0.1)] * 3 + [1]


async def test_it_goes_on_while_the_hub_drains(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        watcher = await world.watch()
        await watcher.until(b"\r\n\r\n")
        assert not (await watcher.event())[1]["draining"]
        await world.hub.drain()
        assert (await watcher.event())[1]["draining"]
        assert (await watcher.event())[1]["draining"]


async def test_it_needs_the_key(autojump_clock: MockClock) -> None:
    async with open_world(api_key="secret") as world:
        assert (await world.answer())[0] == 401
        assert (await world.answer(headers="authorization: Bearer secret\r\n"))[0] == 200


@pytest.mark.parametrize("query", ["?history=1", "?historic=true", "?history=true&history=x"])
async def test_a_query_that_means_nothing_is_refused(autojump_clock: MockClock, query: str) -> None:
    async with open_world() as world:
        assert (await world.answer(query))[0] == 422


async def test_so_many_streams_and_no_more(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        watchers = [await world.watch() for _ in range(MAX_STREAMS)]
        for watcher in watchers:
            await watcher.until(b"\n\n")
        status, head = await world.answer()
        assert status == 503
        assert "retry-after: 5" in head
        await watchers[0].stream.aclose()
        await trio.sleep(2)  # the next second's event finds nobody
        assert (await world.answer())[0] == 200


async def test_one_who_does_not_read_is_cut_and_others_miss_nothing(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        stuck = await world.watch("?history=true", pair=lockstep_stream_pair)
        watcher = await world.watch()
        await watcher.until(b"\r\n\r\n")
        times = [(await watcher.event())[1]["uptime"] for _ in range(int(WRITE_TIMEOUT) + 2)]
        assert times == list(range(int(WRITE_TIMEOUT) + 2))
        with pytest.raises(trio.BrokenResourceError):
            await stuck.stream.send_all(b"x")
        assert world.sampler.opening(history=False)[0] < BACKLOG


async def test_one_who_is_slow_is_sent_what_was_missed(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        place, _ = world.sampler.opening(history=True)
        await trio.sleep(5.5)
        place, events = await world.sampler.following(place, points=True)
        assert events.count(b"event: point\n") == events.count(b'data: {"uptime"') == 5
        with trio.move_on_after(0.1) as waiting:
            await world.sampler.following(place, points=True)
        assert waiting.cancelled_caught


async def test_a_sample_that_fails_ends_nothing(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_world() as world:
        watcher = await world.watch()
        await watcher.until(b"\n\n")
        with monkeypatch.context() as patch:
            patch.setattr(world.hub, "stats", lambda: 1 / 0)
            await trio.sleep(3.5)
        assert "could not be sampled" in caplog.text
        await watcher.event()
        assert (await watcher.event())[1]["uptime"] == 4


async def test_a_head_is_no_stream(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        ours, theirs = memory_stream_pair()
        world.nursery.start_soon(Connection(theirs, world.app, hypercorn_config()).run)
        await ours.send_all(b"HEAD /v1/stream HTTP/1.1\r\nhost: x\r\n\r\n")
        watcher = Watcher(ours)
        assert b"text/event-stream" in await watcher.until(b"\r\n\r\n")
        await ours.send_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        assert b"200" in await watcher.until(b"alive")


def test_a_distribution_has_each_duration_once() -> None:
    durations = Histogram()
    for seconds in (0.001, 0.15, 0.15, 2.5, 100, 1000):
        durations.record(seconds)
    counts = distribution(durations)
    assert counts[0] == 1
    assert counts[BOUNDS.index(0.2)] == 2
    assert counts[BOUNDS.index(3.0)] == 1
    assert counts[-1] == 2
    assert sum(counts) == durations.count
    assert distribution(Histogram()) == [0] * (len(BOUNDS) + 1)
