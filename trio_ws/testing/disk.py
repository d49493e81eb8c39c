"""A disk for simulated hubs: it outlives them, and loses in a crash what it had not been made to keep.

A commit is *written* first and *synced* some time later; only then does it return. A process that ends leaves what it
has written; where the machine dies, of what was written and not synced a part is there, each commit whole or not at
all: that is what the checksums of a write-ahead log make of writes that were torn. On its way a commit can be slow,
stall, or fail before or after it was written.
"""

from __future__ import annotations

import random
from typing import Any, Final

import trio

from ..core.records import Batch, EventRecord, Kept, Part
from ..errors import StoreError
from ..store import MemoryStore, Opened
from .trace import Trace

SLOW: Final = (0.0, 0.0005, 0.01)
"""Seconds that a sync takes at most, on disks of several kinds."""


class Disk:
    """What is on a disk.

    Args:
      rng: chance: how long things take, and what is left after a crash.
      trace: where crashes and failures are noted.

    Attributes:
      calm: is set when nothing fails or stalls any more.
      lost: how many commits crashes have cost, none of which had returned.
    """

    def __init__(self, rng: random.Random, trace: Trace) -> None:
        self.calm = trio.Event()
        self.lost = 0
        self._rng = rng
        self._trace = trace
        self._slow = rng.choice(SLOW)
        self._synced = MemoryStore()
        self._written: list[Batch] = []
        self._fails_until = self._stalls_until = 0.0
        self._fails_late = False
        self.generation = 0

    def store(self) -> DiskStore:
        """The store on it for the next hub; those of hubs before have no effect any more."""
        self.generation += 1
        return DiskStore(self, self.generation)

    async def opened(self) -> Opened:
        """What is there."""
        self.sync()
        return await self._synced.open()

    # -- faults; none of these is a checkpoint

    def crash(self) -> None:
        """The machine is gone: a part of what was not synced is left."""
        self.generation += 1
        left = self._rng.randint(0, len(self._written))
        self.lost += len(self._written) - left
        self._trace.note("disk", written=len(self._written), left=left)
        self._synced.apply(self._written[:left])
        self._written.clear()

    def fail(self, seconds: float, *, late: bool) -> None:
        """Nothing can be written for so long; `late`: it is written, and said to have failed."""
        self._fails_until, self._fails_late = trio.current_time() + seconds, late

    def stall(self, seconds: float) -> None:
        """Nothing returns for so long."""
        self._stalls_until = trio.current_time() + seconds

    # -- for the store

    async def write(self, batch: Batch, generation: int) -> None:
        """Write a commit, and sync it."""
        await self._wait(generation)
        failing = not self.calm.is_set() and trio.current_time() < self._fails_until
        if failing and not self._fails_late:
            raise StoreError("the disk is full")
        self._written.append(batch)
        await trio.sleep(self._rng.uniform(0, self._slow))
        await self._wait(generation)
        self.sync()
        if failing:
            raise StoreError("the disk says that it has failed")

    def sync(self) -> None:
        """What was written is there for good."""
        self._synced.apply(self._written)
        self._written.clear()

    async def read(self, user: str, generation: int) -> Kept | None:
        """All that is there of a user."""
        await trio.sleep(self._rng.uniform(0, self._slow))
        await self._wait(generation)
        self._synced.apply(self._written)
        self._written.clear()
        return await self._synced.load(user)

    async def read_part(self, user: str, part: Part, generation: int) -> list[EventRecord]:
        """See `Store.read`."""
        await trio.sleep(self._rng.uniform(0, self._slow))
        await self._wait(generation)
        self._synced.apply(self._written)
        self._written.clear()
        return await self._synced.read(user, part)

    async def due(self, now: float, most: int, generation: int) -> list[str]:
        """See `Store`."""
        await self._wait(generation)
        return await self._synced.due(now, most)

    async def _wait(self, generation: int) -> None:
        """Wait while it stalls; for ever where the machine that asks is gone."""
        with trio.move_on_at(self._stalls_until):
            await self.calm.wait()
        if generation != self.generation:
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        if generation != self.generation:
            await trio.sleep_forever()


class DiskStore:
    """A `Store` on a `Disk`, for one hub."""

    def __init__(self, disk: Disk, generation: int) -> None:
        self._disk = disk
        self._generation = generation

    async def open(self) -> Opened:
        """See `Store`."""
        return await self._disk.opened()

    async def commit(self, batch: Batch) -> None:
        """See `Store`."""
        await self._disk.write(batch, self._generation)

    async def load(self, user: str) -> Kept | None:
        """See `Store`."""
        return await self._disk.read(user, self._generation)

    async def read(self, user: str, part: Part) -> list[EventRecord]:
        """See `Store`."""
        return await self._disk.read_part(user, part, self._generation)

    async def due(self, now: float, most: int) -> list[str]:
        """See `Store`."""
        return await self._disk.due(now, most, self._generation)

    async def check(self) -> int | None:
        """See `Store`."""
        await trio.lowlevel.checkpoint()
        return None

    async def close(self) -> None:
        """See `Store`."""
        await trio.lowlevel.checkpoint()

    def stats(self) -> dict[str, Any]:
        """See `Store`."""
        return {"kind": "disk", "quarantined": 0}
