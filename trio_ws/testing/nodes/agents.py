"""Agents whose runs outlive nodes: those with leases come to any node, and blocks run at one, and die with it.

Where a plan has `runs`, these take the place of the publishers. What only the node that has the user's log can do is
done there, as the admin API brings a call to it.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from ...errors import (
    HubClosed,
    IllegalTransition,
    OwnedElsewhere,
    RunEnded,
    StoreError,
    StoreUnavailable,
    TooManyRuns,
    UnknownRun,
)
from ...hub import Hub, RunHandle
from ..checkers.sight import Deliberate, Told
from .publishers import PATIENCE, TRIES

if TYPE_CHECKING:
    from .scenario import World

T = TypeVar("T")

LEASES: Final = (1.0, 2.0, 8.0)
"""Seconds."""

MOST_UNDERWAY: Final = 4
"""How many runs of one user may be under way."""

AWAY: Final = (HubClosed, StoreUnavailable, StoreError)
"""What a node says that can't do something now; OwnedElsewhere tells who can."""


class NotDone(Exception):
    """No node could do it in time."""


class Agents:
    """The agents that work for one user, until cancelled."""

    def __init__(self, world: World, user: str) -> None:
        self._world = world
        self._user = user
        self._rng = world.sim.derive(f"agents of {user}")
        self._underway = self._count = 0

    async def run(self) -> None:
        """Begin runs now and then."""
        async with trio.open_nursery() as nursery:
            while True:
                await trio.sleep(self._rng.expovariate(self._world.plan.runs))
                if self._underway >= MOST_UNDERWAY:
                    continue
                self._count += 1
                name, rng = f"{self._user}-{self._count}", random.Random(self._rng.getrandbits(64))
                if self._rng.random() < 0.7:
                    nursery.start_soon(self._counted, self._leased, name, rng)
                else:
                    self._begin_block(name, rng)

    async def _counted(
        self, agent: Callable[[str, random.Random], Awaitable[None]], name: str, rng: random.Random
    ) -> None:
        self._underway += 1
        try:
            await agent(name, rng)
        except (RunEnded, UnknownRun):
            self._world.sim.sometimes("an agent heard that its run is over")
        except (NotDone, TooManyRuns):
            self._world.sim.sometimes("an agent gave up")
        finally:
            self._underway -= 1

    # -- agents elsewhere

    async def _leased(self, name: str, rng: random.Random) -> None:
        """An agent that is none of the nodes' tasks: it goes on when they die, and dies without a word at times."""
        world, lease = self._world, rng.choice(LEASES)
        told = world.record.opening(self._user, name, lease)
        await self._ask(rng, lambda hub: hub.open_run(self._user, name, lease=lease))
        told.opened = True
        self._was_there(told)
        for number in range(rng.randint(0, 12)):
            await self._ask(rng, self._say(name, f"{name}-{number}", rng))
            self._was_there(told)
            await trio.sleep(rng.uniform(0, 0.8 * lease))
        if rng.random() < 0.3:
            world.sim.sometimes("an agent died without a word")
            return
        outcome = rng.choice(("completed", "failed"))

        async def close(hub: Hub) -> None:
            await (await self._find(hub, name)).close(outcome, result=name)

        await self._ask(rng, close)

    def _was_there(self, told: Told) -> None:
        """A call of an agent was answered."""
        self._world.record.alive(told, self._world.sim.wall_clock())

    def _say(self, name: str, id: str, rng: random.Random) -> Callable[[Hub], Awaitable[None]]:
        """What says something in a run, the same each time that it is asked for."""
        kind, payload = rng.choice(
            (
                ("agent_delta", {"text": f"{id} "}),
                ("agent_delta", {"text": f"{id} "}),
                ("agent_progress", {"fraction": 0.5}),
                ("agent_thinking", {"text": id}),
            )
        )

        async def say(hub: Hub) -> None:
            await (await self._find(hub, name)).publish(kind, payload, id=id)

        return say

    async def _find(self, hub: Hub, name: str) -> RunHandle:
        run = await hub.find_run(self._user, name)
        if run is None:
            raise UnknownRun(name)
        run.renew()
        return run

    async def _ask(self, rng: random.Random, do: Callable[[Hub], Awaitable[T]]) -> T:
        """Have something done by one node or another.

        Raises:
          NotDone: none could.
        """
        there = ""
        for _ in range(TRIES):
            hubs = self._world.hubs()
            hub = next((hub for hub in hubs if hub.node == there), None) or (
                rng.choice(hubs) if hubs else None
            )
            there = ""
            if hub is not None:
                try:
                    with trio.move_on_after(PATIENCE):
                        return await do(hub)
                except OwnedElsewhere as error:
                    there = error.node
                except AWAY:
                    self._world.sim.sometimes("a node could not do what an agent asked for")
            await trio.sleep(rng.uniform(0.05, 0.5))
        raise NotDone

    # -- agents at a node

    def _begin_block(self, name: str, rng: random.Random) -> None:
        """Have one of the nodes run an agent in a block."""
        nodes = [node for node in self._world.nodes if node.hub is not None and node.tasks is not None]
        if nodes:
            node = rng.choice(nodes)
            assert node.hub is not None
            assert node.tasks is not None
            node.tasks.start_soon(self._counted, partial(self._block, node.hub), name, rng)

    async def _block(self, hub: Hub, name: str, rng: random.Random) -> None:
        """An agent that is a task of a node: it ends as its block does, and is lost with its node."""
        told = self._world.record.opening(self._user, name, None)
        try:
            async with hub.run(self._user, name) as run:
                told.opened = True
                for number in range(rng.randint(0, 8)):
                    await run.publish("agent_thinking", {"text": f"{name}-{number}"})
                    await trio.sleep(rng.uniform(0, 0.5))
                if rng.random() < 0.2:
                    raise Deliberate
        except (Deliberate, IllegalTransition, OwnedElsewhere, *AWAY):
            self._world.sim.sometimes("a block did not complete")
