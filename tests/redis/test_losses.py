"""Nodes claim, change, let go of and die with logs, while Redis goes back to what it was before, by seed: a log of
which a node that lives has lost changes never goes on in an epoch that it had."""

from __future__ import annotations

import os
import random
from collections import defaultdict

import pytest
import trio
from loopback.redis import RedisServer

from tests.store.records import event, log
from trio_ws.core.records import Batch
from trio_ws.redis import RedisStore
from trio_ws.store import Fenced

USERS = ("ada", "bob", "eve")
STEPS = 80
GAPS = 4  # as scripts/claim.lua has it
SEEDS = range(int(os.environ.get("LOSS_SEEDS", "5")))  # LOSS_SEEDS=500: a campaign


class World:
    """Some nodes, and a Redis that goes back.

    Attributes:
      noticed: how often a node was told that changes of its were lost.
    """

    def __init__(self, server: RedisServer, nursery: trio.Nursery, seed: int) -> None:
        self.noticed = 0
        self._server = server
        self._nursery = nursery
        self._rng = random.Random(seed)
        self._nodes: list[RedisStore] = []
        self._now = 0
        self._epochs: dict[str, str] = {}  # the present ones
        self._changed: dict[str, dict[str, int]] = defaultdict(
            dict
        )  # by user: when each node changed it last
        self._claims: dict[str, list[int]] = defaultdict(list)  # by user: when it went from one to another
        self._to_notice: dict[
            tuple[str, str], tuple[int, set[str]]
        ] = {}  # by node and user: since when, and epochs
        self._over: dict[str, set[str]] = defaultdict(set)  # by user: epochs that are over
        self._anew: set[str] = set()  # who may begin anew
        self._copies: list[tuple[int, dict[bytes, bytes], dict[str, str]]] = []

    async def run(self) -> None:
        """So many steps; then whatever was lost is to be noticed."""
        for _ in range(3):
            await self._be_born()
        await self._copy()
        steps = [self._write] * 10 + [self._let_go, self._look, self._die, self._copy, self._go_back]
        for self._now in range(1, STEPS):
            await self._rng.choice(steps)()
        for node in self._nodes:
            self._told(node, await node.lost(list(node._logs.owned)))
        assert not self._to_notice
        for user in USERS:
            await self._load(self._nodes[0], user)

    async def _be_born(self) -> None:
        store = RedisStore(f"unix://{self._server.socket}")
        await self._nursery.start(store.run)
        self._nodes.append(store)

    async def _die(self) -> None:
        node = self._nodes.pop(self._rng.randrange(3))
        self._to_notice = {key: what for key, what in self._to_notice.items() if key[0] != node.node}
        await self._be_born()

    async def _write(self) -> None:
        """A node commits an event, after it has taken the log over now and then."""
        node, user = self._rng.choice(self._nodes), self._rng.choice(USERS)
        if user not in node._logs.owned or self._rng.random() < 0.2:
            await self._load(node, user)
        record = log(user, self._now, epoch=self._epochs[user])
        try:
            await node.commit(Batch(events=[event(user, self._now)], users=[record]))
        except Fenced as fenced:
            self._told(node, fenced)
        else:
            self._changed[user][node.node] = self._now

    async def _load(self, node: RedisStore, user: str) -> None:
        knew = node._logs.owned.get(user)
        owner = await node.claim(user)
        if owner.node != node.node:
            owner = await node.claim(user, owner.token)
        if knew is None or owner.token != knew.token:
            self._claims[user].append(self._now)
            self._noticed(node, user)  # or it has nothing to lose
        try:
            kept = await node.load(user)
        except Fenced as fenced:
            self._told(node, fenced)
            await self._load(node, user)
            return
        epoch = kept.user.epoch if kept else f"{user} since {self._now}"
        assert epoch not in self._over[user], "it goes on as if nothing was lost"
        if kept and epoch != self._epochs.get(user):
            assert user in self._anew, "it begins anew, and Redis has not gone back"
            self._changed[user][node.node] = self._now
        self._epochs[user] = epoch

    async def _let_go(self) -> None:
        node = self._rng.choice(self._nodes)
        users = list(node._logs.owned)
        await node.release(users)
        for user in users:
            self._noticed(node, user)

    async def _look(self) -> None:
        node = self._rng.choice(self._nodes)
        self._told(node, await node.lost(list(node._logs.owned)))

    async def _copy(self) -> None:
        keys = await self._server.call("KEYS", "*")
        values = {key: await self._server.call("DUMP", key) for key in keys}
        self._copies.append((self._now, values, dict(self._epochs)))

    async def _go_back(self) -> None:
        then, values, epochs = self._rng.choice(self._copies[-3:])
        await self._server.call("FLUSHALL")
        for key, value in values.items():
            await self._server.call("RESTORE", key, 0, value)
        for user in USERS:
            for node in self._nodes:
                if user in node._logs.owned and self._changed[user].get(node.node, 0) > then:
                    since, over = self._to_notice.get((node.node, user), (self._now, set()))
                    over |= {self._epochs[user], epochs.get(user, ""), *self._over[user]}
                    self._to_notice[node.node, user] = since, over
            self._over[user].clear()  # that it was noticed may be lost, too
        self._copies = [copy for copy in self._copies if copy[0] <= then]
        self._epochs |= epochs
        self._anew.update(USERS)

    def _told(self, node: RedisStore, fenced: Fenced | None) -> None:
        if fenced is None:
            return
        for user in fenced.rolled_back:
            self.noticed += 1
            self._noticed(node, user)
        for user in fenced.taken:
            since, _ = self._to_notice.get((node.node, user), (0, set()))
            if len([at for at in self._claims[user] if at >= since]) > 1:
                self._to_notice.pop(
                    (node.node, user), None
                )  # where two have had it since, it may go unnoticed
            self._noticed(node, user)

    def _noticed(self, node: RedisStore, user: str) -> None:
        _, over = self._to_notice.pop((node.node, user), (0, set()))
        self._over[user] |= over
        self._changed[user].pop(node.node, None)


@pytest.mark.parametrize("seed", SEEDS)
async def test_what_was_lost_is_noticed(redis_server: RedisServer, nursery: trio.Nursery, seed: int) -> None:
    world = World(redis_server, nursery, seed)
    await world.run()
    nursery.cancel_scope.cancel()
