"""The outbox of a run: what is joined, what waits, what is cut, and that nothing overtakes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import trio
import trio.testing

from trio_ws.cli import outbox as outbox_module
from trio_ws.cli.http import Answer, Unreachable
from trio_ws.cli.outbox import MAX_BATCH, MAX_WAITING, Outbox

Line = Mapping[str, Any]


class Server:
    """Stands for the admin API: keeps each batch with its time, and answers by `answer`."""

    def __init__(self) -> None:
        self.batches: list[tuple[float, list[Line]]] = []
        self.answer: Callable[[Line], Answer] = lambda line: Answer({"id": line["id"]})
        self.away = False

    async def publish(self, events: Sequence[Line]) -> list[Answer]:
        await trio.lowlevel.checkpoint()
        if self.away:
            raise Unreachable("away", refused=True)
        self.batches.append((trio.current_time(), [dict(event) for event in events]))
        return [self.answer(event) for event in events]

    @property
    def accepted(self) -> list[Line]:
        seen: dict[str, Line] = {}
        for _, batch in self.batches:
            for line in batch:
                if self.answer(line).error is None:
                    assert seen.setdefault(line["id"], line) == line
        return list(seen.values())


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def outbox(notes: list[str]) -> Outbox:
    return Outbox(note=notes.append)


def texts(lines: Sequence[Line]) -> list[str]:
    return [line["payload"].get("text", line["type"]) for line in lines]


async def test_pieces_that_come_close_together_are_one_event(
    outbox: Outbox, server: Server, autojump_clock: trio.testing.MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outbox.send, server)
        for _ in range(10):
            outbox.output("x")
            await trio.sleep(0.01)
        outbox.close()
    times = [time for time, _ in server.batches]
    assert texts(server.accepted) == ["xxxxxx", "xxxx"] or texts(server.accepted) == ["xxxxx", "xxxxx"]
    assert times[0] == pytest.approx(0.05)


async def test_much_output_and_lifecycle_do_not_wait(
    outbox: Outbox, server: Server, autojump_clock: trio.testing.MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outbox.send, server)
        outbox.output("x" * 4096)
        await trio.testing.wait_all_tasks_blocked()
        assert len(server.batches) == 1
        outbox.output("y")
        outbox.event("tool_completed", exit_status=0)
        await trio.testing.wait_all_tasks_blocked()
        assert texts(server.accepted)[1:] == ["y", "tool_completed"]
        assert trio.current_time() == 0
        outbox.close()


async def test_output_is_one_text_in_its_order(
    outbox: Outbox, server: Server, autojump_clock: trio.testing.MockClock
) -> None:
    for text in "abcd":
        outbox.output(text)
    outbox.close()
    await outbox.send(server)
    assert [line["payload"] for line in server.accepted] == [{"call": 1, "text": "abcd"}]


async def test_a_server_that_is_away_for_long_costs_the_oldest_output_only(
    outbox: Outbox, server: Server, notes: list[str], autojump_clock: trio.testing.MockClock
) -> None:
    server.away = True
    outbox.event("agent_started")
    sent = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outbox.send, server)
        for n in range(4 * MAX_WAITING // 1000):
            outbox.output(f"{n:<999}\n")
            sent += 1000
            if n == 2000:
                outbox.event("tool_completed")
            if n % 100 == 0:
                await trio.sleep(0.01)
            assert sum(entry.size for entry in outbox._entries) <= MAX_WAITING + MAX_BATCH
        outbox.event("agent_completed")
        outbox.close()
        await trio.sleep(5)
        server.away = False
    lines = server.accepted
    lifecycle = [line["type"] for line in lines if line["type"] != "tool_output"]
    assert lifecycle == ["agent_started", "tool_completed", "agent_completed"]
    text = "".join(line["payload"].get("text", "") for line in lines)
    notes_of_cuts = [part for part in text.split("\n") if part.startswith("[...")]
    cut = sum(int(part.split()[1]) for part in notes_of_cuts)
    kept = len(text) - sum(len(part) + 2 for part in notes_of_cuts)
    assert cut == outbox.cut > 2 * MAX_WAITING
    assert kept + cut == sent
    assert f"{4 * MAX_WAITING // 1000 - 1:<999}" in text
    assert notes == ["away; the run goes on, its events are kept", "the server takes events again"]


async def test_many_small_pieces_are_bounded_too(
    outbox: Outbox, autojump_clock: trio.testing.MockClock
) -> None:
    for n in range(30_000):
        outbox.output("x")
        if n % 2:
            outbox.event("tool_completed")
    pieces = sum(entry.is_output for entry in outbox._entries)
    assert pieces <= MAX_WAITING // outbox_module.ENTRY_COST


async def test_nothing_overtakes_a_lifecycle_event_that_is_refused_for_now(
    outbox: Outbox, server: Server, autojump_clock: trio.testing.MockClock
) -> None:
    def answer(line: Line) -> Answer:
        if line["type"] == "tool_executing" and trio.current_time() < 3:
            return Answer(
                {"error": {"code": "overloaded", "message": "full", "status": 503}}, retry_after=0.5
            )
        return Answer({})

    server.answer = answer
    outbox.event("agent_started")
    outbox.event("tool_executing")
    outbox.output("a")
    outbox.event("tool_completed")
    outbox.close()
    await outbox.send(server)
    flat = [line["type"] for _, batch in server.batches for line in batch]
    assert flat[0] == "agent_started"
    assert flat[-2:] == ["tool_output", "tool_completed"]
    assert set(flat[1:-2]) == {"tool_executing"}
    assert trio.current_time() >= 3


async def test_tries_come_at_least_every_two_seconds_and_say_the_same(
    outbox: Outbox, server: Server, autojump_clock: trio.testing.MockClock
) -> None:
    tries: list[tuple[float, list[Line]]] = []

    class Broken(Server):
        async def publish(self, events: Sequence[Line]) -> list[Answer]:
            tries.append((trio.current_time(), list(events)))
            if len(tries) < 20:
                outbox.output("more")
                raise Unreachable("broke")
            return await super().publish(events)

    server = Broken()
    outbox.output("a")
    with trio.move_on_after(100):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outbox.send, server)
            await trio.sleep(60)
            outbox.close()
    first = tries[0][1]
    assert all(events == first for _, events in tries[:20])
    pauses = [after - before for (before, _), (after, _) in itertools.pairwise(tries[:20])]
    assert max(pauses) <= 2.0 + 1e-6
    assert texts(server.accepted) == ["a", "more" * 19]


async def test_a_final_refusal_of_one_event_spoils_no_other(
    outbox: Outbox, server: Server, notes: list[str], autojump_clock: trio.testing.MockClock
) -> None:
    server.answer = lambda line: (
        Answer({"error": {"code": "invalid", "message": "bad"}})
        if line["type"] == "tool_executing"
        else Answer({})
    )
    outbox.event("agent_started")
    outbox.event("tool_executing")
    outbox.event("agent_completed")
    outbox.close()
    await outbox.send(server)
    assert [line["type"] for line in server.accepted] == ["agent_started", "agent_completed"]
    assert notes == ["the server refuses events of this run: bad (invalid)"]
    assert outbox.refused == 1
