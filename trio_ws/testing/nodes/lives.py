"""The lives of a node: a hub of the cluster and its listener, and after their end the next ones, however they end."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from ...cluster import ClusteredHub, Node, open_node
from ...config import Config
from ...store import Place
from ..network.network import SimListener
from ..simulation import Simulation
from ..steps import Steps
from .record import NodesRecord
from .weather import Exposed, Weather

REST = (0.1, 6.0)
"""Seconds between two lives, from and to: shorter than a lease, and longer."""


class NodeLives:
    """Runs a node, again and again.

    Args:
      name: what its listener is found under; its lives have numbers behind it.
      serve: serves a hub on a listener; for `trio.Nursery.start`.
      steps: counts the steps of all nodes' tasks.

    Attributes:
      hub: of the life that runs now; None between two, and while one goes away.
      store: its store; `tasks` is where what it runs for applications is started, and ends with it.
      safe: it does not end any more.
    """

    def __init__(
        self,
        sim: Simulation,
        name: str,
        place: Place,
        weather: Weather,
        config: Config,
        record: NodesRecord,
        serve: Callable[..., Awaitable[None]],
        steps: Steps,
    ) -> None:
        self.name = name
        self.hub: ClusteredHub | None = None
        self.store: Exposed | None = None
        self.tasks: trio.Nursery | None = None
        self.safe = False
        self._sim = sim
        self._place = place
        self._weather = weather
        self._config = config
        self._record = record
        self._serve = serve
        self._steps = steps
        self._rng: random.Random = sim.derive(name)
        self._count = self._number = 0
        self._leave = trio.Event()
        self._scope = trio.CancelScope()
        self._listener: SimListener | None = None

    async def run(self) -> None:
        """Live, end and live again, until cancelled."""
        self._steps.watch(trio.lowlevel.current_task())
        while True:
            await self._live()
            await trio.sleep(self._rng.uniform(*REST))

    async def _live(self) -> None:
        self._count += 1
        self._leave = trio.Event()
        self.store = store = Exposed(self._place.node(f"{self.name}.{self._count}"), self._weather)
        with trio.CancelScope() as self._scope:
            async with (
                open_node(
                    self._config,
                    store=store,
                    on_waiting=lambda error: self._sim.sometimes("a node waits for the store"),
                    wall_clock=self._sim.wall_clock,
                    new_id=self._sim.new_id,
                ) as node,
                trio.open_nursery() as nursery,
            ):
                self._record.watch(node.hub)
                self._number = self._record.life
                self._listener = self._sim.network.listen(self.name)
                await nursery.start(partial(self._serve, node.hub, self._listener))
                if not store.dead:
                    self.hub, self.tasks = node.hub, nursery
                await self._leave.wait()
                self.hub = self.tasks = None
                await node.hub.drain()
        self.hub = self.tasks = None
        if not store.dead:
            self._look_back(node)

    def _look_back(self, node: Node) -> None:
        if node.hub.engine.attachments:
            self._record.fail("nothing is left", f"{self.name} had connections after its end")

    # -- how it ends: none of these is a checkpoint

    def leave(self) -> bool:
        """Go away in order; False where nothing runs."""
        self._leave.set()
        return self.hub is not None

    def die_after(self, steps: int) -> None:
        """Die when the nodes' tasks have made so many more steps, wherever they are then."""
        self._steps.after(steps, self._die, of_watched=True)

    def _die(self) -> None:
        if self.safe or self.store is None or self.store.dead or self._listener is None:
            return
        self.store.dead = self.store.over = True
        self.hub = self.tasks = None
        self._record.buried(self._number)
        self._place.channels.pop(self.store.node, None)
        self._sim.trace.note("died", node=self.store.node)
        self._sim.network.unlisten(self._listener)
        for connection in self._sim.network.connections:
            if connection.server == self.name:
                connection.reset()
        self._scope.cancel()
