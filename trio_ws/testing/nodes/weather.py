"""What lies between a node and what it shares with the others: a store that is slow, away, or forgets to say so."""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable, Collection
from typing import Any, Final, TypeVar

import trio

from ...core.records import Batch, EventRecord, Kept, Part, RevokedRecord
from ...errors import StoreError
from ...store import Fenced, NodeRecord, Opened, Owner, Place, SharedMemory
from .plan import NodesPlan

T = TypeVar("T")

PATIENCE: Final = 2.0
"""Seconds that a call waits for a store that does not answer."""


class Away(StoreError):
    """The store is not reached, or its answer did not come."""

    passes = True


class Weather:
    """What all nodes have between them and the place; and what carries what they tell each other.

    Attributes:
      calm: nothing fails any more.
      away_until: until when nobody reaches the store; `silent_until` until when the bus brings nothing.
    """

    def __init__(self, plan: NodesPlan, place: Place, rng: random.Random) -> None:
        self.calm = False
        self.away_until = self.silent_until = -math.inf
        self.plan = plan
        self._rng = rng
        place.carry = self._carry

    def _carry(self, _sender: str, _to: str, _message: bytes) -> Collection[float]:
        plan, rng = self.plan, self._rng
        if not self.calm and (trio.current_time() < self.silent_until or rng.random() < plan.lost):
            return ()
        copies = 2 if not self.calm and rng.random() < plan.twice else 1
        return [rng.uniform(0, plan.bus) for _ in range(copies)]

    def delay(self) -> float:
        """Seconds that one call takes on one way."""
        return self._rng.uniform(0, self.plan.store) / 2

    def fails_after(self) -> float:
        """Seconds until a call finds out that the store is away: at once, where the connection is refused, or not."""
        return self._rng.choice((0.0, 0.01, PATIENCE))


class Exposed:
    """One life of a node's store, with the weather before it.

    Attributes:
      dead: the node has died: nothing that its tasks still do has an effect.
      over: it has ended in whatever way.
      made: see `SharedMemory`.
      cut_until: until when it does not reach the store; `forgetful_until` until when it is told that what it asked has
        failed, and it has not.
    """

    def __init__(self, store: SharedMemory, weather: Weather) -> None:
        self.node = store.node
        self.made = store.made
        self.dead = self.over = False
        self.cut_until = self.forgetful_until = -math.inf
        self._store = store
        self._weather = weather

    async def _pass(self, do: Callable[..., Awaitable[T]], *args: Any) -> T:
        await trio.sleep(self._weather.delay())
        if self.is_away():
            await trio.sleep(self._weather.fails_after())
            raise Away("the store is not reached")
        done = await do(*args)
        await trio.sleep(self._weather.delay())
        if self.dead or (not self._weather.calm and trio.current_time() < self.forgetful_until):
            raise Away("the connection broke before the answer came")
        return done

    def is_away(self) -> bool:
        """Whether the node does not reach the store."""
        if self.dead or self._weather.calm:
            return self.dead
        return trio.current_time() < max(self.cut_until, self._weather.away_until)

    # -- see `SharedStore`

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """See `SharedStore`."""
        task_status.started()
        await self._store.run()

    async def open(self) -> Opened:
        """See `Store`."""
        return await self._pass(self._store.open)

    async def close(self) -> None:
        """See `Store`."""
        self.over = True
        await self._store.close()

    def stats(self) -> dict[str, Any]:
        """See `Store`."""
        return self._store.stats()

    async def check(self) -> int | None:
        """See `Store`."""
        return await self._store.check()

    async def commit(self, batch: Batch) -> None:
        """See `Store`."""
        await self._pass(self._store.commit, batch)

    async def load(self, user: str) -> Kept | None:
        """See `Store`."""
        return await self._pass(self._store.load, user)

    async def read(self, user: str, part: Part) -> list[EventRecord]:
        """See `Store`."""
        return await self._pass(self._store.read, user, part)

    async def due(self, now: float, most: int) -> list[str]:
        """See `Store`."""
        return await self._pass(self._store.due, now, most)

    async def claim(self, user: str, instead_of: str | None = None) -> Owner:
        """See `SharedStore`."""
        return await self._pass(self._store.claim, user, instead_of)

    async def release(self, users: Collection[str]) -> None:
        """See `SharedStore`."""
        await self._pass(self._store.release, users)

    async def lost(self, users: Collection[str]) -> Fenced | None:
        """See `SharedStore`."""
        return await self._pass(self._store.lost, users)

    async def beat(self, about: bytes, lease: float) -> list[NodeRecord]:
        """See `SharedStore`."""
        return await self._pass(self._store.beat, about, lease)

    async def leave(self) -> None:
        """See `SharedStore`."""
        await self._pass(self._store.leave)

    async def orphans(self, most: int) -> list[tuple[str, str]]:
        """See `SharedStore`."""
        return await self._pass(self._store.orphans, most)

    async def users(self, prefix: str, most: int, after: str = "") -> list[str]:
        """See `SharedStore`."""
        return await self._pass(self._store.users, prefix, most, after)

    async def revoked(self) -> list[RevokedRecord]:
        """See `SharedStore`."""
        return await self._pass(self._store.revoked)

    async def send(self, node: str, message: bytes) -> bool:
        """See `SharedStore`."""
        return await self._pass(self._store.send, node, message)

    async def listen(self, take: Callable[[bytes], None]) -> None:
        """See `SharedStore`. What comes while the store is away does not arrive."""

        def heard(message: bytes) -> None:
            if not self.is_away():
                take(message)

        await self._store.listen(heard)

    async def put(self, name: str, value: bytes, ttl: float) -> None:
        """See `SharedStore`."""
        await self._pass(self._store.put, name, value, ttl)

    async def take(self, name: str) -> bytes | None:
        """See `SharedStore`."""
        return await self._pass(self._store.take, name)
