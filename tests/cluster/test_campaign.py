"""Nodes that die, drain and are cut off at random, under publishers and clients: what was promised comes, once.

Each seed is a world of its own. `NODES_SEEDS=200 pytest tests/cluster/test_campaign.py` runs more of them.
"""

from __future__ import annotations

import os
from random import Random

import pytest
import trio

from tests.hub.peers import Peer
from trio_ws.core.pool import Ask, Refused
from trio_ws.errors import HubClosed, OwnedElsewhere, StoreUnavailable
from trio_ws.event import Priority
from trio_ws.hub import Identity

from .world import Life, Nodes, running

SEEDS = int(os.environ.get("NODES_SEEDS", "3"))
FAULTS_FOR = 20.0
USERS = 3


class World:
    """One seed's."""

    def __init__(self, nodes: Nodes, seed: int) -> None:
        self.nodes = nodes
        self.random = Random(seed)
        self.healed = self.over = False
        self.promised: dict[str, tuple[str, str, int]] = {}
        self.seen: dict[tuple[str, str, int], str] = {}  # user, epoch and seq: which event it is
        self.processed: dict[str, set[str]] = {}
        self.problems: list[str] = []
        self.lives = 0

    def node(self) -> Life | None:
        living = [life for life in self.nodes.lives if not life.over.is_set()]
        return self.random.choice(living) if living else None

    def named(self, name: str) -> Life | None:
        return next((x for x in self.nodes.lives if x.hub.node == name and not x.over.is_set()), None)

    async def start_node(self) -> None:
        self.lives += 1
        await self.nodes.start(f"n{self.lives}")

    # -- publishers

    async def publish(self, number: int) -> None:
        count = 0
        while not self.healed:
            user, id = f"u{self.random.randrange(USERS)}", f"{number}.{count}"
            count += 1
            if self.random.random() < 0.3:
                await self.try_to_say(user, f"{id} may be lost")
            else:
                await self.publish_one(user, id)
            await trio.sleep(self.random.choice((0.0, 0.05, 0.3)))

    async def try_to_say(self, user: str, id: str) -> None:
        """Publish what may be lost."""
        life = self.node()
        if life is not None:
            try:
                life.hub.publish_nowait(user, "token", id, id=id)
            except (trio.WouldBlock, StoreUnavailable, OwnedElsewhere, HubClosed):
                pass

    async def publish_one(self, user: str, id: str) -> None:
        while not self.over:
            life = self.node()
            if life is not None and (receipt := await self.attempt(life, user, id)) is not None:
                self.promised[id] = receipt
                return
            await trio.sleep(0.05)

    async def attempt(self, life: Life, user: str, id: str) -> tuple[str, str, int] | None:
        """Publish at a node; it may die meanwhile, and nothing more is heard of it."""
        found: list[tuple[str, str, int]] = []
        async with trio.open_nursery() as nursery:

            async def call() -> None:
                try:
                    receipt = await life.hub.publish(user, "alarm", id, id=id, priority=Priority.CRITICAL)
                    if not life.over.is_set() and not life.scope.cancel_called:
                        found.append((user, receipt.epoch, receipt.seq))
                except (StoreUnavailable, OwnedElsewhere, HubClosed):
                    pass
                nursery.cancel_scope.cancel()

            nursery.start_soon(call)
            await life.over.wait()
            nursery.cancel_scope.cancel()
        return found[0] if found else None

    # -- clients

    async def live_as(self, user: str) -> None:
        before: Peer | None = None
        while not self.over:
            life = self.node()
            if life is None:
                await trio.sleep(0.1)
                continue
            peer = await self.connect(life, user, before)
            if peer is None:
                await trio.sleep(0.1)
                continue
            before = peer
            while peer.told is None and peer.dropped_at is None and not self.over:
                if self.named(peer.hub.node) is None:
                    break
                if not self.healed and self.random.random() < 0.01:
                    peer.die()
                    break
                await trio.sleep(0.05)
            self.look_at(peer)
            await trio.sleep(0.1)

    async def connect(self, life: Life, user: str, before: Peer | None) -> Peer | None:
        try:
            with trio.move_on_after(4):
                there = await life.hub.place(user, to_connect=True)
                hub = life.hub
                if there is not None:
                    other = self.named(there.node)
                    if other is None or await other.hub.place(user) is not None:
                        return None
                    hub = other.hub
                ask = Ask(at=trio.current_time())
                if before is not None:
                    told = before.welcome
                    ask = Ask(
                        session=told["session"],
                        epoch=told["epoch"],
                        seq=before.cursor,
                        at=trio.current_time(),
                    )
                peer = Peer(hub, user, acks=True)
                attached = hub.attach(Identity(user), ask, peer)
                if isinstance(attached, Refused):
                    return None
                peer.attachment = attached
                hub.engine.nursery.start_soon(peer._watch)
                return peer
        except (StoreUnavailable, OwnedElsewhere, HubClosed):
            pass
        return None

    def look_at(self, peer: Peer) -> None:
        """What one connection was sent."""
        self.problems += peer.faults
        epoch = peer.welcome["epoch"]
        for frame in peer.kinds("event"):
            at = peer.user, epoch, frame["seq"]
            if self.seen.setdefault(at, frame["id"]) != frame["id"]:
                self.problems.append(f"{at} was {self.seen[at]}, and is {frame['id']}")
            self.processed.setdefault(peer.user, set()).add(frame["id"])

    # -- faults

    async def break_things(self) -> None:
        until = trio.current_time() + FAULTS_FOR
        kinds = [self.kill, self.drain, self.cut_off, self.cut_all_off, self.lose, self.slow, self.hand_over]
        while trio.current_time() < until:
            await trio.sleep(self.random.uniform(0.1, 2.0))
            await self.random.choice(kinds)()
        self.nodes.place.carry = lambda _sender, _to, _message: (0.0,)
        for life in self.nodes.lives:
            if not life.scope.cancel_called:
                life.store.away, life.store.hook = False, None
        self.healed = True

    async def kill(self) -> None:
        if (life := self.node()) is not None:
            await life.kill()
            await trio.sleep(self.random.choice((0.0, 1.0, 4.0)))
            await self.start_node()

    async def drain(self) -> None:
        if (life := self.node()) is not None:
            await self.start_node()
            life.leave.set()

    async def cut_off(self) -> None:
        if (life := self.node()) is not None:
            life.store.away = True
            await trio.sleep(self.random.choice((0.3, 1.5, 4.0)))
            if not life.scope.cancel_called:
                life.store.away = False

    async def cut_all_off(self) -> None:
        cut = [life for life in self.nodes.lives if not life.store.away]
        for life in cut:
            life.store.away = True
        await trio.sleep(self.random.choice((0.3, 3.0)))
        for life in cut:
            if not life.scope.cancel_called:
                life.store.away = False

    async def lose(self) -> None:
        part = self.random.choice((0.0, 0.2, 0.6))

        def carry(_sender: str, _to: str, _message: bytes) -> tuple[float, ...]:
            return () if self.random.random() < part else (self.random.uniform(0.0, 0.02),)

        self.nodes.place.carry = carry

    async def slow(self) -> None:
        if (life := self.node()) is not None:
            most = self.random.choice((0.01, 0.2, 1.0))

            async def wait(_step: str) -> None:
                await trio.sleep(self.random.uniform(0, most))

            life.store.hook = wait
            await trio.sleep(1)
            life.store.hook = None

    async def hand_over(self) -> None:
        if (life := self.node()) is not None:
            for user in list(life.hub.ownership.owned):
                await life.hub.hand_over(user)


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_what_was_promised_comes_once_and_in_order(seed: int) -> None:
    async with running() as (nodes, _), trio.open_nursery() as nursery:
        world = World(nodes, seed)
        for _ in range(3):
            await world.start_node()
        for number in range(4):
            nursery.start_soon(world.publish, number)
        for number in range(USERS):
            nursery.start_soon(world.live_as, f"u{number}")
        await world.break_things()
        await trio.sleep(30)
        nodes.check()
        owners = nodes.place.data.owners
        for life in nodes.lives:
            if not life.over.is_set():
                for user in life.hub.engine.buffer.mailboxes:
                    assert owners[user].node == life.hub.node
        world.over = True
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert not world.problems
    assert len(world.promised) > 20
    lost = {id: at for id, at in world.promised.items() if id not in world.processed.get(at[0], set())}
    assert not lost
    for id, at in world.promised.items():
        assert world.seen.get(at, id) == id
