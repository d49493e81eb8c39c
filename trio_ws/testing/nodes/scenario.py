"""A simulated run of several nodes: load and faults, then healing, in which all converge, then everybody leaves.

Users' tabs come to any node, and so do publishers, who hand an event to another one under the same id until one has
accepted it. `simulate_nodes` tells what was seen as an `Outcome`, as `scenario.simulate` does for one node.
"""

from __future__ import annotations

import logging
import random
import time
import traceback
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, Final

import attrs
import trio

from ...config import Config
from ...errors import HubClosed, StoreError, StoreUnavailable
from ...event import Priority
from ...hub import Hub, Identity
from ...server import Credentials, serve
from ...store import Place
from ..cast.cancels import Cancels
from ..cast.tabs import Tab
from ..checkers.sight import Deliberate
from ..determinism import run_simulation
from ..network.conditions import Conditions
from ..network.levels import LevelName
from ..network.network import SimListener
from ..outcome import Outcome, singles
from ..plan import Plan
from ..simulation import Simulation
from ..steps import Steps
from ..timers import Alarm
from .lives import NodeLives
from .plan import NodesPlan
from .record import Balance, NodesRecord, Published
from .weather import Weather

LOOK_EVERY: Final = 0.25
"""Simulated seconds between two looks at how things stand."""

HEALING_BOUND: Final = (30 + 5 + 5 + 20) * 1.5
"""Stall, handshake, confirmation and backoff, and half as much again."""

MISDIRECTED: Final = 0.1
"""Share of the connections that come to a node whether it lives or not."""

TRIES: Final = 20
"""How often a publisher hands over an event until it gives up."""

PATIENCE: Final = 10.0
"""Seconds that a publisher waits for one node."""


def simulate_nodes(seed: int, plan: NodesPlan | None = None, *, level: LevelName = "message") -> Outcome:
    """Run several nodes by `seed`, and tell what came of it. It runs Trio itself: call it outside of any loop.

    Args:
      seed: what everything follows from.
      plan: what happens; None draws it from the seed.
      level: what travels: bytes, or whole messages.
    """
    begun = time.process_time()
    sim = NodesSimulation(seed, level=level)
    world = World(sim, plan or NodesPlan.draw(sim.derive("plan of nodes")))
    with _Errors(world.record):
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
        self.record = NodesRecord(sim.clock.current_time)
        self.faults: Counter[str] = Counter()
        self._place = Place()
        self._weather = Weather(plan, self._place, sim.derive("weather"))
        self._steps = Steps(lambda error: self.record.fail("nothing raises", repr(error)))
        self._balance = Balance(self.record)
        self._rng = sim.derive("balancer")
        self._doors = _Doors()
        self._healed: float | None = None
        config = Config(**plan.limits)
        self._config = config
        self.nodes = [
            NodeLives(
                sim, f"node{n}", self._place, self._weather, config, self.record, self._serve, self._steps
            )
            for n in range(plan.nodes)
        ]
        self.record.is_dead = self._is_dead
        sim.pick = self._pick
        cancels = Cancels(sim.sometimes)
        tabs = Plan(handler=plan.handler)
        self.users = [f"user{n}" for n in range(plan.users)]
        self.tabs = [
            Tab(
                sim,
                tabs,
                self.record,  # type: ignore[arg-type]
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
            events=sum(event.promised_at < 1e9 for event in self.record.events.values()),
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

    def _is_dead(self, node: str) -> bool:
        return any(n.store is not None and n.store.node == node and n.store.dead for n in self.nodes)

    def _pick(self) -> str:
        living = [node for node in self.nodes if node.hub is not None]
        if not living or self._rng.random() < MISDIRECTED:
            living = self.nodes
        return self._rng.choice(living).name

    def _hubs(self) -> list[Hub]:
        return [node.hub for node in self.nodes if node.hub is not None]

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

    async def _disturb(self) -> None:
        """Load and faults."""
        with trio.move_on_after(self.plan.duration):
            async with trio.open_nursery() as nursery:
                for user in self.users:
                    nursery.start_soon(self._publish_to, user)
                for kind, rate in self.plan.faults.items():
                    nursery.start_soon(self._repeat, kind, rate)

    async def _heal(self, tabs: trio.Nursery) -> None:
        """Faults end, one tab stays for each user; all must converge in time."""
        self.sim.trace.note("healing")
        self._weather.calm = True
        for node in self.nodes:
            node.safe = True
        self._steps.forget()
        self.sim.network.conditions = Conditions()
        stay = {tab.user: tab for tab in reversed(self.tabs)}
        for tab in self.tabs:
            tab.calm = True
            if stay[tab.user] is not tab:
                tabs.start_soon(tab.stop)
        await self._converge(list(stay.values()))
        # A publisher that gave up does not take back what it had asked for, and nodes may still see to that.
        await trio.sleep(PATIENCE)
        await self._converge(list(stay.values()))

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
        hubs = self._hubs()
        if len(hubs) < len(self.nodes):
            return f"{len(hubs)} nodes are up"
        if any(hub.engine.suspended for hub in hubs):
            return "a node is suspended"
        for tab in tabs:
            client = tab.client
            saved = None if client is None else client.saved()
            if client is None or saved is None or client.state.name != "live":
                return f"{tab.name} is {'away' if client is None else client.state}"
            boxes = [box for hub in hubs if (box := hub.engine.buffer.mailboxes.get(tab.user)) is not None]
            if len(boxes) != 1:
                return f"{tab.user} is at {len(boxes)} nodes"
            [box] = boxes
            if (saved.epoch, saved.seq) != (box.epoch, box.head):
                return f"{tab.name} is at {saved.seq}, its log at {box.head}"
            session = box.sessions.get(saved.session)
            if session is None:
                return f"{tab.name} has a session that is not known"
            if session.acked < box.head:
                return f"{tab.name} is at {saved.seq}, and has acked {session.acked}"
        if left := self.record.left():
            return f"{left[0]} was promised"
        return ""

    def _pending_for_the_next(self, tabs: list[Tab]) -> list[Tab]:
        """The tabs of those for whom something critical was processed, and no ack of it was kept."""
        boxes = {user: box for hub in self._hubs() for user, box in hub.engine.buffer.mailboxes.items()}
        return [tab for tab in tabs if boxes[tab.user].unconfirmed]

    async def _empty(self) -> None:
        """Everybody has left: when all times to live are over, nothing is left."""
        config = self._config
        await trio.sleep(config.session_ttl + config.event_ttl + 4 * config.cleanup_interval + 200)
        data = self._place.data
        left = {
            "users in the store": len(data.users),
            "logs in memory": sum(len(hub.engine.buffer.mailboxes) for hub in self._hubs()),
            "events": sum(hub.engine.books.events for hub in self._hubs()),
            "connections": sum(hub.engine.pool.connected for hub in self._hubs()),
            "open connections": len(self.sim.network.connections),
            "owners": len(data.owners),
        }
        for what, count in left.items():
            if count:
                self.record.fail("nothing is left when all have gone", f"{count} {what}")

    # -- publishers

    async def _publish_to(self, user: str) -> None:
        rng = self.sim.derive(f"publisher of {user}")
        async with trio.open_nursery() as nursery:
            while True:
                await trio.sleep(rng.expovariate(self.plan.rate))
                event = self.record.publish(user, critical=rng.random() < self.plan.critical)
                text = "x" * rng.randint(0, self.plan.text)
                nursery.start_soon(self._publish, event, text, random.Random(rng.getrandbits(64)))

    async def _publish(self, event: Published, text: str, rng: random.Random) -> None:
        """Hand an event to one node after the other, until one has accepted it."""
        for attempt in range(TRIES):
            hubs = self._hubs()
            if hubs:
                hub = rng.choice(hubs)
                try:
                    with trio.move_on_after(PATIENCE):
                        receipt = await hub.publish(
                            event.user,
                            "tool_completed" if event.critical else "note",
                            {"n": event.token, "text": text},
                            id=f"{event.user}-{event.token}",
                            priority=Priority.CRITICAL if event.critical else None,
                        )
                        self.sim.trace.note("accepted", token=event.token, seq=receipt.seq)
                        self.sim.sometimes("accepted at another try", attempt > 0)
                        self.sim.sometimes("accepted twice", receipt.duplicate)
                        self.record.promised(event)
                        return
                except (HubClosed, StoreUnavailable, StoreError):
                    self.sim.sometimes("a node did not take an event")
            await trio.sleep(rng.uniform(0.05, 1))

    # -- faults

    async def _repeat(self, kind: str, rate: float) -> None:
        rng = self.sim.derive(f"fault {kind}")
        act: Callable[[random.Random], bool] = getattr(self, f"_{kind}")
        while True:
            await trio.sleep(max(0.01, rng.expovariate(rate)))
            if act(rng):
                self.faults[kind] += 1
                self.sim.trace.note("fault", fault=kind)

    def _die(self, rng: random.Random) -> bool:
        node = rng.choice(self.nodes)
        node.die_after(rng.randint(1, 400))
        return node.hub is not None

    def _leave(self, rng: random.Random) -> bool:
        return rng.choice(self.nodes).leave()

    def _cut_off(self, rng: random.Random) -> bool:
        store = rng.choice(self.nodes).store
        if store is not None:
            store.cut_until = trio.current_time() + rng.choice((0.3, 1.5, 2.5, 6.0))
        return store is not None

    def _forgetful(self, rng: random.Random) -> bool:
        store = rng.choice(self.nodes).store
        if store is not None:
            store.forgetful_until = trio.current_time() + rng.uniform(0.01, 1)
        return store is not None

    def _outage(self, rng: random.Random) -> bool:
        self._weather.away_until = trio.current_time() + rng.choice((0.1, 1.0, 3.0, 8.0))
        return True

    def _silence(self, rng: random.Random) -> bool:
        self._weather.silent_until = trio.current_time() + rng.choice((0.1, 1.0, 4.0))
        return True

    def _reset(self, rng: random.Random) -> bool:
        connections = self.sim.network.connections
        if connections:
            rng.choice(connections).reset()
        return bool(connections)

    def _storm(self, rng: random.Random) -> bool:
        for connection in self.sim.network.connections:
            connection.reset()
        return True

    def _roll_back(self, rng: random.Random) -> bool:
        before, seconds = self._place.snapshot(), rng.uniform(0, 3)

        def restore() -> None:
            if self._weather.calm:
                return
            self._place.restore(before)
            self.record.set_back()

        Alarm(self.sim.timers).arm(trio.current_time() + seconds, restore)
        return True


class _Errors(logging.Handler):
    """Takes the package's log while the block lasts: what was logged as an error did not end where it should have."""

    def __init__(self, record: NodesRecord) -> None:
        super().__init__(logging.WARNING)
        self._record = record
        self._logger = logging.getLogger("trio_ws")

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and not isinstance(record.exc_info[1], Deliberate | StoreError):
            self._record.fail("nothing fails inside", f"{record.getMessage()}\n{self.format(record)}")

    def __enter__(self) -> None:
        self._before = (self._logger.propagate, self._logger.level)
        self._logger.addHandler(self)
        self._logger.propagate = False

    def __exit__(self, *_: object) -> None:
        self._logger.removeHandler(self)
        self._logger.propagate = self._before[0]
