"""The poller: who is read from and when, and that it knows of nobody that has gone."""

from __future__ import annotations

import errno
import os
import select
import socket
import sys
import time
from collections.abc import Callable

import pytest
import trio
import trio.testing

from trio_ws.server.pace import BUDGET, CALM, MOST, Pace
from trio_ws.server.poller import BATCH, EFFORT, READ_BYTES, TURN_BYTES, Poller, open_poller

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is no epoll")


class Pair:
    """Two ends of a stream: `ours` is watched, and what came of it is `taken`, unless `take` is given it."""

    def __init__(
        self,
        poller: Poller,
        take: Callable[[bytes], int | None] | None = None,
        *,
        newcomer: bool = False,
    ) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.ours.setblocking(False)
        self.theirs.setblocking(False)
        self.taken: list[bytes] = []
        self.take = take or self.taken.append
        self.poller = poller
        poller.watch(self.ours.fileno(), self.take, newcomer=newcomer)

    def forget(self) -> None:
        self.poller.forget(self.ours.fileno(), self.take)

    def close(self) -> None:
        self.forget()
        self.ours.close()
        self.theirs.close()


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked(0.003)


async def test_what_comes_is_handed_over_and_the_end_ends_it() -> None:
    async with open_poller() as poller:
        assert poller is not None
        pairs = [Pair(poller) for _ in range(3 * BATCH)]
        assert len(poller) == 3 * BATCH
        for n, pair in enumerate(pairs):
            pair.theirs.send(b"%d" % n)
        await settle()
        assert [pair.taken for pair in pairs] == [[b"%d" % n] for n in range(3 * BATCH)]
        for pair in pairs:
            pair.theirs.close()
        await settle()
        assert all(pair.taken[1:] == [b""] for pair in pairs)
        assert len(poller) == 0
        for pair in pairs:
            pair.close()


async def test_an_idle_poller_does_not_run() -> None:
    async with open_poller() as poller:
        assert poller is not None
        pair = Pair(poller)
        pair.theirs.send(b"x")
        await settle()
        steps = 0

        class Count(trio.abc.Instrument):
            def before_task_step(self, task: trio.lowlevel.Task) -> None:
                nonlocal steps
                steps += "Poller" in task.name

        trio.lowlevel.add_instrument(count := Count())
        await trio.sleep(0.05)
        trio.lowlevel.remove_instrument(count)
        assert steps == 0
        pair.close()


async def test_a_flood_holds_up_nobody() -> None:
    """However much one sends, another's few bytes wait for no more than a bounded part of it."""
    async with open_poller() as poller:
        assert poller is not None
        floods = [Pair(poller) for _ in range(10)]
        before: list[int] = []

        def flooded() -> int:
            return sum(len(data) for pair in floods for data in pair.taken)

        quiet = Pair(poller, lambda _: before.append(flooded()))
        others = 0

        async def another_task() -> None:
            nonlocal others
            while True:
                others += 1
                await trio.lowlevel.checkpoint()

        for flood in floods:
            flood.theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            sent = flood.theirs.send(b"x" * 200_000)
            assert sent > 10 * READ_BYTES
        quiet.theirs.send(b"an ack")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(another_task)
            while flooded() < 10 * 10 * READ_BYTES:
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        assert before[0] <= len(floods) * READ_BYTES
        assert all(0 < len(data) <= READ_BYTES for pair in floods for data in pair.taken)
        assert others >= flooded() // (TURN_BYTES + READ_BYTES)  # it had its turns between
        counts = [len(pair.taken) for pair in floods]
        assert max(counts) - min(counts) <= 1  # and each its share
        for pair in [*floods, quiet]:
            pair.close()


async def test_who_is_in_comes_first_and_newcomers_a_few_at_a_time() -> None:
    async with open_poller() as poller:
        assert poller is not None
        order: list[str] = []
        turns: list[int] = []
        turn = 0

        class Turns(trio.abc.Instrument):
            def after_io_wait(self, timeout: float) -> None:
                nonlocal turn
                turn += 1

        def come(_: bytes) -> None:
            order.append("newcomer")
            turns.append(turn)
            if order.count("newcomer") == 5:
                for pair in those_in:
                    pair.theirs.send(b"x")

        async def handle() -> None:
            while len(order) < 26:
                time.sleep(BUDGET)  # noqa: ASYNC251 - a long step in each turn, as that of a handshake
                await trio.lowlevel.checkpoint()

        newcomers = [Pair(poller, come, newcomer=True) for _ in range(20)]
        those_in = [Pair(poller, lambda _: order.append("in")) for _ in range(3)]
        trio.lowlevel.add_instrument(instrument := Turns())
        for pair in [*newcomers, *those_in]:
            pair.theirs.send(b"x")
        with trio.fail_after(5):
            await handle()
        trio.lowlevel.remove_instrument(instrument)
        assert order[:3] == ["in"] * 3
        assert order[3:11] == ["newcomer"] * 5 + ["in"] * 3
        assert order.count("newcomer") == 20
        assert len(set(turns)) == 20
        for pair in newcomers + those_in:
            pair.close()
        assert len(poller) == 0


async def test_a_newcomer_who_has_gone_is_not_read() -> None:
    async with open_poller() as poller:
        assert poller is not None
        first = Pair(poller, lambda _: second.forget(), newcomer=True)
        second = Pair(poller, lambda _: first.forget(), newcomer=True)
        for pair in (first, second):
            pair.theirs.send(b"x")
        await settle()
        assert len(poller) == 1
        first.close()
        second.close()
        assert len(poller) == 0


async def test_where_newcomers_take_little_or_nobody_else_is_there_more_are_read_in_a_turn() -> None:
    took = [0.0]
    pace = Pace(lambda: took.pop() if took else 0.0)

    async def handle(seconds: float, turns: int) -> int:
        for _ in range(turns):
            took[:] = [seconds * pace.many, 0.0]
            await pace.turn(pace.many)
        return pace.many

    assert await handle(BUDGET, 10) == 1
    pace.others()
    assert await handle(BUDGET / 2.2, 20) == 2
    pace.others()
    assert await handle(BUDGET / 100, 20) == MOST
    pace.others()
    assert await handle(10 * BUDGET, 20) == 1
    assert await handle(10 * BUDGET, CALM) == MOST
    pace.others()
    assert await handle(10 * BUDGET, 1) == 1


async def test_what_comes_meanwhile_is_read_in_the_same_turn() -> None:
    async with open_poller() as poller:
        assert poller is not None
        turns: list[int] = []

        class Turns(trio.abc.Instrument):
            count = 0

            def after_io_wait(self, timeout: float) -> None:
                self.count += 1

        def answer(data: bytes) -> None:
            turns.append(instrument.count)
            second.theirs.send(b"sent while the first was read")

        first = Pair(poller, answer)
        second = Pair(poller, lambda _: turns.append(instrument.count))
        trio.lowlevel.add_instrument(instrument := Turns())
        first.theirs.send(b"x")
        await settle()
        trio.lowlevel.remove_instrument(instrument)
        assert len(turns) == 2
        assert turns[0] == turns[1]
        first.close()
        second.close()


async def test_what_makes_much_to_do_is_not_all_read_in_one_turn() -> None:
    async with open_poller() as poller:
        assert poller is not None
        turns = 0
        read_in: list[int] = []

        def ended(data: bytes) -> int:
            read_in.append(turns)
            return EFFORT

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await trio.lowlevel.checkpoint()

        pairs = [Pair(poller, ended) for _ in range(40)]
        for pair in pairs:
            pair.theirs.shutdown(socket.SHUT_WR)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(others)
            while len(read_in) < 40:
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        assert (
            max(map(read_in.count, read_in)) <= 2 * TURN_BYTES // EFFORT
        )  # two turns of it may follow each other
        for pair in pairs:
            pair.close()


async def test_who_ends_anothers_connection_in_the_same_batch() -> None:
    """Also where the number stands for a new connection at once."""
    async with open_poller() as poller:
        assert poller is not None
        successor: list[Pair] = []

        def end_the_other(data: bytes) -> None:
            other = second if data == b"1" else first
            number = other.ours.fileno()
            other.close()
            while not successor or successor[-1].ours.fileno() != number:
                successor.append(Pair(poller))

        first, second = Pair(poller, end_the_other), Pair(poller, end_the_other)
        first.theirs.send(b"1")
        second.theirs.send(b"2")
        await settle()
        assert len(successor) >= 1
        assert all(pair.taken == [] for pair in successor)
        successor[-1].theirs.send(b"for the successor")
        await settle()
        assert successor[-1].taken == [b"for the successor"]
        for pair in (first, second, *successor):
            if pair.ours.fileno() >= 0:
                pair.close()
        assert len(poller) == 0


@pytest.mark.parametrize("newcomer", [False, True])
async def test_a_number_that_was_closed_without_a_word(newcomer: bool) -> None:
    async with open_poller() as poller:
        assert poller is not None
        gone = Pair(poller, newcomer=newcomer)
        number = gone.ours.fileno()
        gone.ours.close()
        others = [Pair(poller)]
        while others[-1].ours.fileno() != number:
            others.append(Pair(poller))
        there = others[-1]
        poller.forget(number, gone.take)  # it is another's by now, whom it must not touch
        there.theirs.send(b"x")
        await settle()
        assert there.taken == [b"x"]
        assert gone.taken == []
        poller.forget(number, there.take)
        there.theirs.send(b"not read any more")
        await settle()
        poller.forget(number, there.take)
        assert there.taken == [b"x"]
        os.close(there.ours.detach())
        for pair in others[:-1]:
            pair.close()
        assert len(poller) == 0
        gone.theirs.close()
        there.theirs.close()


async def test_who_can_not_handle_it_is_read_no_more_and_nobody_else_suffers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with open_poller() as poller:
        assert poller is not None

        def fail(_: bytes) -> None:
            raise LookupError("a mistake of ours")

        broken, sound = Pair(poller, fail), Pair(poller)
        for _ in range(2):
            broken.theirs.send(b"x")
            sound.theirs.send(b"x")
            await settle()
        assert b"".join(sound.taken) == b"xx"
        assert caplog.text.count("could not be handled") == 1
        broken.close()
        sound.close()


async def test_no_memory_to_read_into(monkeypatch: pytest.MonkeyPatch) -> None:
    read = os.read
    async with open_poller() as poller:
        assert poller is not None
        starved, other = Pair(poller), Pair(poller)

        def reading(number: int, size: int) -> bytes:
            if number == starved.ours.fileno():
                raise MemoryError
            return read(number, size)

        monkeypatch.setattr(os, "read", reading)
        for pair in (starved, other):
            pair.theirs.send(b"x")
        await settle()
        assert (starved.taken, other.taken) == ([b""], [b"x"])
        for pair in (starved, other):
            pair.close()


async def test_thousands_come_and_go_and_nothing_is_left() -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = descriptors()
    async with open_poller() as poller:
        assert poller is not None
        for _ in range(20):
            pairs = [Pair(poller) for _ in range(100)]
            for n, pair in enumerate(pairs):
                pair.theirs.send(b"x")
                if n % 3 == 0:
                    pair.theirs.close()
                elif n % 3 == 1:
                    pair.close()
            await settle()
            for n, pair in enumerate(pairs):
                if n % 3 != 1:
                    assert pair.taken[0] == b"x"
                    pair.close()
            assert len(poller) == 0
    assert descriptors() == before


async def test_cancelled_it_reads_on_until_its_block_ends() -> None:
    """Connections close in order while all is cancelled, and hear what the peers answer."""
    with trio.CancelScope() as scope:
        async with open_poller() as poller:
            assert poller is not None
            pair = Pair(poller)
            scope.cancel()
            with trio.CancelScope(shield=True):
                pair.theirs.send(b"the answer")
                await settle()
            assert pair.taken == [b"the answer"]
            pair.close()


@pytest.mark.parametrize("left", [0, 1])
async def test_no_descriptor_for_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, left: int
) -> None:
    there = [select.epoll() for _ in range(left)]
    opened = list(there)

    def another() -> select.epoll:
        if not there:
            raise OSError(errno.EMFILE, "Too many open files")
        return there.pop()

    monkeypatch.setattr(select, "epoll", another)
    async with open_poller() as poller:
        assert poller is None
    assert "Too many open files" in caplog.text
    assert all(epoll.closed for epoll in opened)


async def test_another_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    async with open_poller() as poller:
        assert poller is None
