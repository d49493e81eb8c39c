"""Nodes of one process, on a place that they share: each can be killed, cut off from the store, or drained."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio

from trio_ws.cluster import ClusteredHub, open_node
from trio_ws.config import Config
from trio_ws.core.records import Batch
from trio_ws.errors import StoreError
from trio_ws.store import Place, SharedMemory

STEPS = ("claim", "release", "lost", "beat", "leave", "load", "commit", "orphans", "due", "revoked", "send")


class CutOff(SharedMemory):
    """One node's store, that can fail before or after what it does, and be held up.

    Attributes:
      away: it can't be reached, and says so.
      hook: is awaited with the name of each step before it, and again with ``step!`` after it.
    """

    def __init__(self, place: Place, node: str) -> None:
        super().__init__(place, node)
        self.away = False
        self.hook: Callable[[str], Any] | None = None

    async def _step(self, name: str) -> None:
        if self.away:
            await trio.sleep(0.01)
            raise StoreError("the store is away")
        if self.hook is not None:
            await self.hook(name)


def _around(name: str) -> Any:
    plain = getattr(SharedMemory, name)

    async def call(self: CutOff, *args: Any, **options: Any) -> Any:
        await self._step(name)
        found = await plain(self, *args, **options)
        if self.hook is not None:
            await self.hook(f"{name}!")
        return found

    return call


for _name in STEPS:
    setattr(CutOff, _name, _around(_name))


@attrs.define
class Life:
    """One life of a node."""

    hub: ClusteredHub
    store: CutOff
    scope: trio.CancelScope
    over: trio.Event = attrs.field(factory=trio.Event)
    leave: trio.Event = attrs.field(factory=trio.Event)

    async def kill(self) -> None:
        """It ends at once: nothing more of it gets through, and its lease stays until it is over."""
        self.store.away = True
        self.scope.cancel()
        await self.over.wait()

    async def drain(self) -> None:
        """It ends in order."""
        self.leave.set()
        await self.over.wait()


class Nodes:
    """Some nodes on one place."""

    def __init__(self, nursery: trio.Nursery, config: Config, *, wall: float = 1e9) -> None:
        self.place = Place()
        self.lives: list[Life] = []
        self._nursery = nursery
        self._config = config
        self._wall = wall

    async def start(self, name: str, **limits: Any) -> Life:
        """One more node, or another life of one; names begin anew with each."""
        config = attrs.evolve(self._config, **limits)
        life: Life = await self._nursery.start(self._run, name, config)
        self.lives.append(life)
        return life

    async def _run(self, name: str, config: Config, *, task_status: trio.TaskStatus[Life]) -> None:
        store = CutOff(self.place, name)
        count = iter(range(10**6))
        with trio.CancelScope() as scope:
            async with open_node(
                config,
                store=store,
                wall_clock=lambda: self._wall + trio.current_time(),
                new_id=lambda: f"{name}-{next(count)}-identifier",
            ) as node:
                life = Life(node.hub, store, scope)
                task_status.started(life)
                try:
                    await life.leave.wait()
                finally:
                    assert node.hub.statistics().balanced
        life.over.set()

    def check(self) -> None:
        """What holds at every moment: books balance, and each log is in one node that the store knows as its owner."""
        for life in self.lives:
            if life.over.is_set():
                continue
            assert life.hub.statistics().balanced
            assert life.hub.engine.buffer.mailboxes.keys() <= life.hub.ownership.owned.keys()
            assert life.hub.engine.buffer.asleep.keys() <= life.hub.ownership.owned.keys()


@asynccontextmanager
async def running(*names: str, **limits: Any) -> AsyncIterator[tuple[Nodes, list[Life]]]:
    """Nodes with these limits, which all live on to the end of the block."""
    async with trio.open_nursery() as nursery:
        nodes = Nodes(nursery, Config(**limits))
        yield nodes, [await nodes.start(name) for name in names]
        nodes.check()
        nursery.cancel_scope.cancel()


__all__ = ["Batch", "CutOff", "Life", "Nodes", "Place", "running"]
