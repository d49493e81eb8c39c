"""A simulated run of several nodes: load and faults, then healing, in which all converge, then everybody leaves.

Users' tabs come to any node, and so do publishers, who hand an event to another one under the same id until one has
accepted it. `simulate_nodes` tells what was seen as an `Outcome`, as `scenario.simulate` does for one node.
"""

from __future__ import annotations

import math
import time
import traceback
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, Final

import attrs
import trio

from ...cluster import ClusteredHub
from ...config import Config
from ...errors import StoreError
from ...hub import Hub, Identity
from ...server import Credentials, serve
from ...store import Place
from ..cast.cancels import Cancels
from ..cast.tabs import Tab
from ..convergence import lag
from ..determinism import run_simulation
from ..logged import Logged
from ..network.conditions import Conditions
from ..network.levels import LevelName
from ..network.network import SimListener
from ..outcome import Outcome, singles
from ..plan import Plan
from ..simulation import Simulation
from ..steps import Steps
from .agents import Agents
from .faults import Faults
from .lives import NodeLives
from .plan import NodesPlan
from .publishers import PATIENCE, Publisher
from .record import Balance, NodesRecord
from .weather import Exposed, Weather

LOOK_EVERY: Final = 0.25
"""Simulated seconds between two looks at how things stand."""

HEALING_BOUND: Final = (30 + 5 + 5 + 20) * 1.5
"""Stall, handshake, confirmation and backoff, and half as much again."""

MISDIRECTED: Final = 0.1
"""Share of the connections that come to a node whether it lives or not."""


def simulate_nodes(
    seed: int, plan: NodesPlan | None = None, *, level: LevelName = "message", runs: bool = False
) -> Outcome:
    """Run several nodes by `seed`, and tell what came of it. It runs Trio itself: call it outside of any loop.

    Args:
      seed: what everything follows from.
      plan: what happens; None draws it from the seed.
      level: what travels: bytes, or whole messages.
      runs: in a plan that is drawn, agents do their work in runs, and nothing else is published.
    """
    begun = time.process_time()
    sim = NodesSimulation(seed, level=level)
    if plan is None:
        plan = NodesPlan.draw(sim.derive("plan of nodes"))
        if runs:
            plan = plan.of_runs(sim.derive("runs' plan of nodes"))
    world = World(sim, plan)
    with Logged(world.record.fail, StoreError):
        try:
            run_simulation(sim, world.run)
        except Exception as error:
            world.record.on_violation = bool  # there is nothing left to cancel
            for single in singles(error):
                world.record.fail("nothing raises", "".join(traceback.format_exception(single)))
    return attrs.evolve(world.outcome(), cpu_seconds=time.process_time() - begun)


class NodesSimulation(Simulation):
    """A world in which clients are sent to any of several nodes.

    Attributes:
      pick: chooses the host that the next connection goes to.
    """

    pick: Callable[[], str]

    def dialer(self, to: str, host: str) -> Callable[[], Any]:
        """See `Simulation.dialer`; `to` is whoever the balancer takes."""

        async def dial() -> trio.abc.Stream:
            return await self.network.connect(self.pick(), client=host)

        return dial


class _Doors:
    """Everybody is let in by the name of the client, as `cast.doors` has it."""

    def token(self, name: str) -> str:
        """What a tab has to come in with."""
        return name

    async def authenticate(self, credentials: Credentials) -> Identity | None:
        """See `trio_ws.serve`."""
        await trio.lowlevel.checkpoint()
        user, slash, _ = (credentials.token or "").partition("/")
        return Identity(user) if slash else None


class World:
    """All that takes part in a run."""

    def __init__(self, sim: NodesSimulation, plan: NodesPlan) -> None:
        self.sim = sim
        self.plan = plan
        self.faults: Counter[str] = Counter()
        self.place = Place()
        self.record = NodesRecord(sim.clock.current_time, plan, self.place, sim.sometimes)
        self.weather = Weather(plan, self.place, sim.derive("weather"))
        self._steps = Steps(lambda error: self.record.fail("nothing raises", repr(error)))
        self._balance = Balance(self.record)
        self._rng = sim.derive("balancer")
        self._doors = _Doors()
        self._healed: float | None = None
        config = Config(**plan.limits)
        self._config = config
        self.nodes = [
            NodeLives(
                sim, f"node{n}", self.place, self.weather, config, self.record, self._serve, self._steps
            )
            for n in range(plan.nodes)
        ]
        sim.pick = self._pick
        cancels = Cancels(sim.sometimes)
        tabs = Plan(handler=plan.handler)
        self.users = [f"user{n}" for n in range(plan.users)]
        self.tabs = [
            Tab(
                sim,
                tabs,
                self.record,
                user,
                n,
                cancels=cancels,
                doors=self._doors,  # type: ignore[arg-type]
                on_catching_up=lambda tab: None,
            )
            for user in self.users
            for n in range(plan.tabs)
        ]

    def outcome(self) -> Outcome:
        """What came of it, as far as it went."""
        return Outcome(
            seed=self.sim.seed,
            plan=self.plan,
            level=self.sim.level.name,
            violations=self.record.violations,
            seconds=self.sim.clock.current_time(),
            healed=self._healed,
            events=self.record.accepted_events,
            steps=self._steps.count,
            faults=dict(self.faults),
            sometimes=self.sim.sometimes.counts,
            trace_hash=self.sim.trace.hash,
            wire_hash=self.sim.network.hash,
            trace=self.sim.trace.tail(),
        )

    # -- the nodes

    def _serve(self, hub: Hub, listener: SimListener, **options: Any) -> Coroutine[Any, Any, None]:
        return serve(
            hub,
            listeners=[listener],
            authenticate=self._doors.authenticate,
            **self.sim.level.serve,
            **options,
        )

    def _is_alone(self, user: str) -> bool:
        """Whether a user comes when all is over, and not before."""
        return self.plan.alone and user == self.users[-1]

    def _pick(self) -> str:
        living = [node for node in self.nodes if node.hub is not None]
        if not living or self._rng.random() < MISDIRECTED:
            living = self.nodes
        return self._rng.choice(living).name

    def hubs(self) -> list[ClusteredHub]:
        """Those that run now."""
        return [node.hub for node in self.nodes if node.hub is not None]

    def living_stores(self) -> list[Exposed]:
        """Those of nodes that have not ended."""
        return [node.store for node in self.nodes if node.store is not None and not node.store.over]

    def _is_held_up(self, store: Exposed) -> bool:
        """Whether a node does not reach the store, or has not found its way back yet."""
        [node] = [node for node in self.nodes if node.store is store]
        return store.is_away() or node.hub is None or node.hub.engine.suspended

    # -- the phases

    async def run(self, sim: Simulation) -> None:
        """All of them; ends early at the first violation."""
        sim.network.conditions = Conditions(latency=self.plan.latency, jitter=self.plan.jitter)
        trio.lowlevel.add_instrument(self._steps)
        try:
            with trio.CancelScope() as scope:
                self.record.on_violation = scope.cancel
                async with trio.open_nursery() as nursery:
                    for node in self.nodes:
                        nursery.start_soon(node.run)
                    nursery.start_soon(self._look)
                    async with trio.open_nursery() as tabs:
                        for tab in self.tabs:
                            if not self._is_alone(tab.user):
                                tabs.start_soon(tab.run)
                        await self._disturb()
                        await self._heal(tabs)
                        for tab in self.tabs:
                            await tab.stop()
                    await self._empty()
                    nursery.cancel_scope.cancel()
        finally:
            trio.lowlevel.remove_instrument(self._steps)

    async def _look(self) -> None:
        while True:
            await trio.sleep(LOOK_EVERY)
            hubs = {
                node.store.node: node.hub
                for node in self.nodes
                if node.hub is not None and node.store is not None and not node.hub.engine.suspended
            }
            self._balance.look(hubs)
            self.record.losses.look(self._is_held_up)

    async def _disturb(self) -> None:
        """Load and faults."""
        with trio.move_on_after(self.plan.duration):
            async with trio.open_nursery() as nursery:
                for user in self.users:
                    nursery.start_soon(self._work_for, user)
                nursery.start_soon(Faults(self).run)

    async def _work_for(self, user: str) -> None:
        """Publish to a user; of one who is alone nobody takes care from half-time on, but the nodes."""
        worker = Agents(self, user) if self.plan.runs else Publisher(self, user)
        with trio.move_on_after(self.plan.duration / 2 if self._is_alone(user) else math.inf):
            await worker.run()

    async def _heal(self, tabs: trio.Nursery) -> None:
        """Faults end, one tab stays for each user; all must converge in time."""
        self.sim.trace.note("healing")
        self.weather.calm = True
        for node in self.nodes:
            node.safe = True
        self._steps.forget()
        self.sim.network.conditions = Conditions()
        stay = {tab.user: tab for tab in reversed(self.tabs)}
        for tab in self.tabs:
            tab.calm = True
            if stay[tab.user] is not tab and not self._is_alone(tab.user):
                tabs.start_soon(tab.stop)
        await self._converge([tab for tab in stay.values() if not self._is_alone(tab.user)])
        for tab in stay.values():
            if self._is_alone(tab.user):
                tabs.start_soon(tab.run)
        # A publisher that gave up does not take back what it had asked for, and nodes may still see to that.
        await trio.sleep(PATIENCE)
        await self._converge(list(stay.values()))
        self.record.healed()

    async def _converge(self, stay: list[Tab]) -> None:
        """Wait until all is delivered and acked, which must be in time; where not, the run ends here."""
        begun = trio.current_time()
        why = "nobody has looked"
        while trio.current_time() <= begun + HEALING_BOUND:
            await trio.sleep(LOOK_EVERY)
            why = self._unsettled(stay)
            again = [] if why else self._pending_for_the_next(stay)
            for tab in again:
                # Its session was forgotten before its ack was kept: that is pending for the user's next session.
                self.sim.sometimes("pending for the next session")
                await tab.leave()
            if not why and not again:
                self._healed = self._healed or trio.current_time() - begun
                self.sim.trace.note("healed")
                return
        self.record.fail("all converges once the faults are over", why)
        await trio.sleep_forever()

    def _unsettled(self, tabs: list[Tab]) -> str:
        """What is still to be delivered or acked; empty where nothing is."""
        hubs = self.hubs()
        if len(hubs) < len(self.nodes):
            return f"{len(hubs)} nodes are up"
        if any(hub.engine.suspended for hub in hubs):
            return "a node is suspended"
        for tab in tabs:
            boxes = [box for hub in hubs if (box := hub.engine.buffer.mailboxes.get(tab.user)) is not None]
            if len(boxes) > 1:
                return f"{tab.user} is at {len(boxes)} nodes"
            if why := lag(tab, boxes[0] if boxes else None, known=True):
                return why
        if left_open := [user for user, runs in self.place.data.with_open_runs.items() if runs]:
            return f"a run of {left_open[0]} is open"
        here = {tab.user for tab in tabs}
        if left := [event for event in self.record.left() if event.user in here]:
            return f"event {left[0].token}, {left[0]}, was promised"
        return ""

    def _pending_for_the_next(self, tabs: list[Tab]) -> list[Tab]:
        """The tabs of those for whom something critical was processed, and no ack of it was kept."""
        boxes = {user: box for hub in self.hubs() for user, box in hub.engine.buffer.mailboxes.items()}
        return [tab for tab in tabs if boxes[tab.user].unconfirmed]

    async def _empty(self) -> None:
        """Everybody has left: when all times to live are over, nothing is left."""
        config = self._config
        until = (
            trio.current_time() + config.session_ttl + config.event_ttl + 4 * config.cleanup_interval + 200
        )
        while left := self._left():
            if trio.current_time() >= until:
                self.record.fail("nothing is left when all have gone", left)
                return
            await trio.sleep(LOOK_EVERY)

    def _left(self) -> str:
        """What there still is; empty where nothing is."""
        data, hubs = self.place.data, self.hubs()
        left = {
            "users in the store": len(data.users),
            "histories": sum(not history.void for history in data.histories.values()),
            "logs in memory": sum(len(hub.engine.buffer.mailboxes) for hub in hubs),
            "events": sum(hub.engine.books.events for hub in hubs),
            "connections": sum(hub.engine.pool.connected for hub in hubs),
            "open connections": len(self.sim.network.connections),
            "owners": len(data.owners),
        }
        return ", ".join(f"{count} {what}" for what, count in left.items() if count)
