"""What comes at the wrong moment: claims, hand-overs, fences and deaths in the midst of each other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio

from trio_ws.errors import OwnedElsewhere, StoreError, StoreUnavailable
from trio_ws.event import Priority
from trio_ws.hub import Receipt

from .test_node import connect, payloads
from .world import CutOff, Life, Nodes, running

CRITICAL = Priority.CRITICAL


class Gate:
    """Holds up the first step of a name at a store, until it is let go."""

    def __init__(self, store: CutOff, name: str) -> None:
        self.reached, self._open = trio.Event(), trio.Event()
        self._name = name
        store.hook = self._at

    async def _at(self, step: str) -> None:
        if step == self._name and not self.reached.is_set():
            self.reached.set()
            await self._open.wait()

    def let_go(self) -> None:
        self._open.set()


def ids_of(nodes: Nodes, user: str = "ada") -> list[object]:
    """What the store has of a user's events, in order."""
    kept = nodes.place.data.logs.kept(user)
    return [] if kept is None else [event.payload for event in kept.events]


async def test_two_nodes_that_claim_at_once_have_one_owner() -> None:
    async with running("a", "b", "c") as (nodes, lives):
        receipts: list[Receipt] = []

        async def publish(life: Life, number: int) -> None:
            receipts.append(await life.hub.publish("ada", "alarm", number, priority=CRITICAL))

        async with trio.open_nursery() as nursery:
            for number in range(30):
                nursery.start_soon(publish, lives[number % 3], number)
        assert sorted(receipt.seq for receipt in receipts) == list(range(1, 31))
        assert len({receipt.epoch for receipt in receipts}) == 1
        assert sum("ada" in life.hub.ownership.owned for life in lives) == 1
        nodes.check()


async def test_a_claim_that_is_answered_after_the_lease_was_over_does_no_harm() -> None:
    async with running("a", "b") as (nodes, (a, b)):
        gate = Gate(a.store, "claim!")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connect, a)
            await gate.reached.wait()
            a.store.away = True
            await trio.sleep(3)
            receipt = await b.hub.publish("ada", "alarm", 1, priority=CRITICAL)
            assert receipt.seq == 1
            a.store.away = False
            gate.let_go()
            nursery.cancel_scope.cancel()
        await trio.sleep(4)
        assert "ada" not in a.hub.ownership.owned
        assert (await a.hub.publish("ada", "alarm", 2, priority=CRITICAL)).seq == 2
        nodes.check()


async def test_a_log_that_is_taken_while_it_is_handed_over() -> None:
    async with running("a", "b", "c") as (nodes, (a, b, c)):
        await a.hub.publish("ada", "alarm", 1, priority=CRITICAL)
        gate = Gate(a.store, "release")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: b.hub.place("ada", to_connect=True))
            await gate.reached.wait()
            assert "ada" not in a.hub.users()
            (token,) = [owner.token for owner in nodes.place.data.owners.values()]
            await nodes.place.node("c").claim("ada", instead_of=token)
            gate.let_go()
            with trio.move_on_after(1):
                await a.hub.publish("ada", "alarm", 2, priority=CRITICAL)
            nursery.cancel_scope.cancel()
        assert nodes.place.data.owners["ada"].node == "c"
        assert (await c.hub.publish("ada", "alarm", 3, priority=CRITICAL)).seq in (2, 3)
        nodes.check()


async def test_a_publisher_who_waits_for_room_keeps_the_log_here() -> None:
    limits = {"max_events_per_user": 2, "max_stored_events_per_user": 0}
    async with running("a", "b", **limits) as (_, (a, b)):
        for number in range(2):
            await a.hub.publish("ada", "alarm", number, priority=CRITICAL)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: b.hub.publish("ada", "alarm", 2, priority=CRITICAL))
            await trio.sleep(1)
            assert not await a.hub.hand_over("ada")
            peer = await connect(a, acks=True)
        await trio.sleep(0.1)
        assert payloads(peer) == [0, 1, 2]


async def test_who_waits_for_room_at_a_node_that_is_fenced_goes_on_at_the_next() -> None:
    limits = {"max_events_per_user": 2, "max_stored_events_per_user": 0}
    async with running("a", "b", **limits) as (nodes, (a, b)):
        for number in range(2):
            await a.hub.publish("ada", "alarm", number, priority=CRITICAL)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: a.hub.publish("ada", "alarm", 2, priority=CRITICAL))
            await trio.sleep(0.1)
            token = nodes.place.data.owners["ada"].token
            await b.store.claim("ada", instead_of=token)
            await trio.sleep(3)
            assert a.hub.cluster.stats()["fenced"] == 1
            peer = await connect(b, acks=True)
        await trio.sleep(0.1)
        assert payloads(peer) == [0, 1, 2]
        nodes.check()


async def test_a_node_that_was_fenced_has_the_log_again() -> None:
    async with running("a", "b") as (nodes, (a, b)):
        await a.hub.publish("ada", "alarm", 1, priority=CRITICAL)
        token = nodes.place.data.owners["ada"].token
        await b.store.claim("ada", instead_of=token)
        with pytest.raises(StoreUnavailable):
            await a.hub.publish("ada", "alarm", 2, priority=CRITICAL)
        assert (await b.hub.publish("ada", "alarm", 3, priority=CRITICAL)).seq == 2
        peer = await connect(a, acks=True)
        await trio.sleep(0.1)
        assert payloads(peer) == [1, 3]
        assert list(a.hub.ownership.owned) == ["ada"]
        nodes.check()


async def test_a_commit_of_a_life_before_is_not_written_in_the_next() -> None:
    async with running("a", "b") as (nodes, (a, b)):
        await a.hub.publish("ada", "alarm", 1, priority=CRITICAL)
        gate = Gate(a.store, "commit")
        late = a.hub.publish_nowait("ada", "alarm", "late", priority=CRITICAL)
        await gate.reached.wait()
        token = nodes.place.data.owners["ada"].token
        await b.store.claim("ada", instead_of=token)
        await b.hub.publish("ada", "alarm", 2, priority=CRITICAL)
        await b.hub.hand_over("ada")
        a.hub.drop("ada")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connect, a)
            await trio.sleep(1)
            assert "ada" not in a.hub.ownership.owned  # it waits for the commit that is under way
            gate.let_go()
        await a.hub.publish("ada", "alarm", 3, priority=CRITICAL)
        assert ids_of(nodes) == [b"1", b"2", b"3"]
        assert late.state == "moved"


async def test_a_run_that_ends_while_its_node_drains_has_its_end() -> None:
    async with running("a", "b") as (_, (a, b)):
        await connect(a)  # it does not ack, so draining takes its time
        async with trio.open_nursery() as nursery:

            async def work() -> None:
                async with a.hub.run("ada", "block"):
                    await trio.sleep(0.2)

            nursery.start_soon(work)
            await trio.sleep(0.1)
            nursery.start_soon(a.drain)
        (run,) = await b.hub.runs("ada")
        assert run["status"] == "completed"


Fault = Callable[[Nodes, Life, str], Awaitable[None]]


async def die(nodes: Nodes, life: Life, step: str) -> None:
    """The node dies at this step."""
    life.store.away = True
    life.scope.cancel()
    await trio.lowlevel.checkpoint()


async def fail(nodes: Nodes, life: Life, step: str) -> None:
    """The step fails; before it was done, or after."""
    raise StoreError("it failed")


@pytest.mark.parametrize("fault", [die, fail])
async def test_whatever_goes_wrong_at_any_step_of_the_owner_an_event_is_one(fault: Fault) -> None:
    reached = 0
    for number in range(40):
        async with running("a", "b") as (nodes, (a, b)):
            await a.hub.publish("ada", "alarm", 1, priority=CRITICAL)
            left = number

            async def at(step: str, nodes: Nodes = nodes, a: Life = a) -> None:
                nonlocal left, reached
                left -= 1
                if left == -1:
                    reached += 1
                    await fault(nodes, a, step)

            a.store.hook = at
            receipt = await b.hub.publish("ada", "alarm", 2, priority=CRITICAL)
            a.store.hook = None
            again = await b.hub.publish("ada", "alarm", 2, priority=CRITICAL, id=receipt.id)
            assert again.seq == receipt.seq
            elsewhere = await b.hub.place("ada", to_connect=True)
            assert elsewhere is None
            peer = await connect(b, acks=True)
            await trio.sleep(0.1)
            assert payloads(peer) == [1, 2]
            assert not peer.faults
            nodes.check()
    assert reached > 3


async def test_whatever_is_lost_on_the_bus_while_a_log_is_asked_for() -> None:
    for number in range(12):
        async with running("a", "b") as (nodes, (a, b)):
            await a.hub.publish("ada", "alarm", 1, priority=CRITICAL)
            count = iter(range(10**6))
            nodes.place.carry = lambda _a, _b, _m, lost=number, count=count: (
                () if next(count) == lost else (0.0,)
            )
            peer = await connect(b, acks=True)
            with pytest.raises(OwnedElsewhere):
                await a.hub.load("ada")
            await trio.sleep(1)
            assert payloads(peer) == [1]
            nodes.check()


async def test_who_comes_for_a_log_that_is_taken_is_sent_to_who_has_it() -> None:
    async with running("a", "b") as (nodes, (a, b)):
        await a.hub.publish("ada", "alarm", 1, priority=CRITICAL)
        a.hub.loader.let_sleep()
        assert "ada" in a.hub.engine.buffer.asleep
        token = nodes.place.data.owners["ada"].token
        await b.store.claim("ada", instead_of=token)
        elsewhere = await a.hub.place("ada")
        assert elsewhere is not None
        assert elsewhere.node == "b"


async def test_a_claim_whose_answer_was_lost_is_made_good_though_nobody_asks_again() -> None:
    async with running("a", "b") as (nodes, (a, b)):
        await b.hub.publish("ada", "alarm", 1, priority=CRITICAL)
        assert await b.hub.hand_over("ada")

        async def lose(step: str) -> None:
            if step == "claim!":
                a.store.hook = None
                raise StoreError("the answer is lost")

        a.store.hook = lose
        with pytest.raises(StoreUnavailable):
            await a.hub.place("ada")
        assert nodes.place.data.owners["ada"].node == "a"
        await trio.sleep(5)
        assert not nodes.place.data.owners


async def test_a_log_that_could_not_be_given_back_is_given_back_later() -> None:
    async with running("a") as (nodes, (a,)):
        await a.hub.publish("ada", "alarm", 1, priority=CRITICAL)

        async def fail(step: str) -> None:
            if step == "release":
                a.store.hook = None
                raise StoreError("the store fails")

        a.store.hook = fail
        await a.hub.hand_over("ada")
        assert nodes.place.data.owners["ada"].node == "a"
        await trio.sleep(5)
        assert not nodes.place.data.owners
