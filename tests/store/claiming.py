"""A store that nodes share, used as one that one hub has: whoever is written or read is claimed first."""

from __future__ import annotations

from typing import Any

import attrs

from trio_ws.core.records import Batch, Kept
from trio_ws.store import SharedStore
from trio_ws.store.interface import Opened
from trio_ws.store.shared import divided


@attrs.define
class Claiming:
    """A `Store` over a `SharedStore`, which takes whoever it needs from any other node."""

    shared: SharedStore
    _claimed: set[str] = attrs.field(factory=set)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.shared, name)

    async def claim(self, user: str) -> None:
        owner = await self.shared.claim(user)
        if owner.node != self.shared.node:
            owner = await self.shared.claim(user, owner.token)
        assert owner.node == self.shared.node
        self._claimed.add(user)

    async def open(self) -> Opened:
        opened = await self.shared.open()
        assert opened.users == opened.with_open_runs == []
        return attrs.evolve(opened, users=await self.shared.users("", 1000))

    async def commit(self, batch: Batch) -> None:
        for user in divided(batch):
            await self.claim(user)
        await self.shared.commit(batch)

    async def load(self, user: str) -> Kept | None:
        await self.claim(user)
        return await self.shared.load(user)

    async def due(self, now: float, most: int) -> list[str]:
        await self.shared.release(self._claimed)
        self._claimed.clear()
        return await self.shared.due(now, most)
