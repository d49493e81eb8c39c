"""What goes wrong with several nodes, each kind at its own rate; and the plain clients, who come to any of them."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING
from urllib.parse import quote

import trio

from ..cast.raw import misbehave
from ..timers import Alarm

if TYPE_CHECKING:
    from .scenario import World


class Faults:
    """All of a plan, until it is cancelled."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._sim = world.sim
        self._is_going_back = False

    async def run(self) -> None:
        """Have them happen."""
        plan = self._world.plan
        async with trio.open_nursery() as nursery:
            for kind, rate in plan.faults.items():
                nursery.start_soon(self._repeat, kind, rate)
            for number in range(plan.plain):
                nursery.start_soon(self._be_plain, f"plain{number}")

    async def _repeat(self, kind: str, rate: float) -> None:
        rng = self._sim.derive(f"fault {kind}")
        act: Callable[[random.Random], bool] = getattr(self, f"_{kind}")
        while True:
            await trio.sleep(max(0.01, rng.expovariate(rate)))
            if act(rng):
                self._world.faults[kind] += 1
                self._sim.trace.note("fault", fault=kind)

    async def _be_plain(self, label: str) -> None:
        """A client that speaks no protocol, and only listens; again and again."""
        rng = self._sim.derive(label)
        while True:
            name = f"{rng.choice(self._world.users)}/{label}"
            with trio.move_on_after(rng.uniform(1, 20)):
                try:
                    stream = await self._sim.network.connect(self._sim.pick(), client=name)
                except OSError:
                    pass
                else:
                    with closing(stream):
                        await misbehave("plain", stream, quote(name, safe=""), rng, {}, self._sim.level.speak)
            await trio.sleep(rng.uniform(0.1, 5))

    # -- of nodes

    def _die(self, rng: random.Random) -> bool:
        node = rng.choice(self._world.nodes)
        node.die_after(rng.randint(1, 400))
        return node.hub is not None

    def _leave(self, rng: random.Random) -> bool:
        return rng.choice(self._world.nodes).leave()

    # -- of the store, and of what nodes tell each other

    def _cut_off(self, rng: random.Random) -> bool:
        store = rng.choice(self._world.nodes).store
        if store is not None:
            store.cut_until = trio.current_time() + rng.choice((0.3, 1.5, 2.5, 6.0))
        return store is not None

    def _forgetful(self, rng: random.Random) -> bool:
        store = rng.choice(self._world.nodes).store
        if store is not None:
            store.forgetful_until = trio.current_time() + rng.uniform(0.01, 1)
        return store is not None

    def _outage(self, rng: random.Random) -> bool:
        self._world.weather.away_until = trio.current_time() + rng.choice((0.1, 1.0, 3.0, 8.0))
        return True

    def _silence(self, rng: random.Random) -> bool:
        self._world.weather.silent_until = trio.current_time() + rng.choice((0.1, 1.0, 4.0))
        return True

    def _roll_back(self, rng: random.Random) -> bool:
        if self._is_going_back:
            return False
        world, at = self._world, trio.current_time()
        before = world.place.snapshot()
        self._is_going_back = True

        def restore() -> None:
            self._is_going_back = False
            if not world.weather.calm:
                world.record.losses.set_back(before, at, world.living_stores())
                world.place.restore(before)

        Alarm(self._sim.timers).arm(at + rng.uniform(0, 3), restore)
        return True

    # -- of connections

    def _reset(self, rng: random.Random) -> bool:
        connections = self._sim.network.connections
        if connections:
            rng.choice(connections).reset()
        return bool(connections)

    def _storm(self, rng: random.Random) -> bool:
        for connection in self._sim.network.connections:
            connection.reset()
        return True
