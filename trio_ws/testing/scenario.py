"""One simulated run of everything: a hub and its server, tabs, publishers, faults; then healing, in which all converge.

The phases: load and faults for `Plan.duration`; then all faults end, one tab for each user stays, and within
`Healing.bound` everything that is pending is delivered, acked and confirmed; then everybody leaves, and nothing
may be left. `run` tells what was seen as an `Outcome`; what did not hold is in its `violations`.
"""

from __future__ import annotations

import math
import time
import traceback
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

import attrs
import trio

from ..config import Config
from ..hub import Hub
from ..server import serve
from .cast.agents import Agents
from .cast.cancels import Cancels
from .cast.chaos import Chaos
from .cast.doors import Doors
from .cast.letters import Letters
from .cast.lives import Lives
from .cast.probe import Probe
from .cast.publishers import Publisher
from .cast.tabs import Tab
from .cast.talk import Talk
from .checkers.agents import OF_RUNS
from .checkers.bookkeeping import IN_THE_BOOKS
from .checkers.conduct import IN_CONDUCT
from .checkers.duties import OF_CLIENTS
from .checkers.record import Record, Watcher
from .checkers.survival import ACROSS_LIVES
from .checkers.tally import IN_FIGURES
from .checkers.timeliness import IN_TIME
from .checkers.traffic import ON_THE_WAY
from .checkers.waiting import IN_LINE
from .convergence import kept_from_the_rest, pending_for_the_next, unsettled
from .determinism import run_simulation
from .disk import Disk
from .logged import Logged
from .looks import Looks
from .network.conditions import Conditions
from .network.levels import LevelName
from .network.network import SimListener
from .outcome import Outcome, singles
from .plan import Plan
from .simulation import Simulation

LOOK_EVERY: Final = 0.25
"""Simulated seconds between two looks at whether all has healed."""

HEALING_BOUND: Final = (30 + 5 + 5 + 20) * 1.5
"""Stall, handshake, confirmation and backoff, and half as much again."""

ODD: Final = ("Zoë \u2603 ", "%2F&=+?", "a\"b<\\'>", "\U0001f600\u200d", "x" * 120)
"""What odd names begin with."""

CHECKERS: Final[Sequence[Watcher]] = (
    *ON_THE_WAY,
    *IN_TIME,
    *IN_CONDUCT,
    *IN_LINE,
    *OF_CLIENTS,
    *IN_THE_BOOKS,
    *IN_FIGURES,
)


def simulate(
    seed: int,
    plan: Plan | None = None,
    *,
    level: LevelName = "wire",
    watchers: Sequence[Watcher] | None = None,
    durable: bool = False,
    runs: bool = False,
) -> Outcome:
    """Run the scenario of `seed`, and tell what came of it. It runs Trio itself: call it outside of any loop.

    Args:
      seed: what everything follows from.
      plan: what happens; None draws it from the seed.
      level: what travels: bytes, or whole messages.
      watchers: the checkers; None takes all that are for such a run.
      durable: a plan that is drawn has a disk under it, which outlives its hubs.
      runs: in a plan that is drawn, agents do their work in runs, and nothing else is published.
    """
    begun = time.process_time()
    sim = Simulation(seed, level=level)
    if plan is None:
        plan = Plan.draw(sim.derive("plan"))
        if durable:
            plan = plan.over_disk(sim.derive("disk's plan"))
        if runs:
            plan = plan.of_runs(sim.derive("runs' plan"))
    if watchers is None:
        watchers = OF_RUNS if plan.runs else ACROSS_LIVES if plan.durable else CHECKERS
    world = World(sim, plan, watchers)
    with Logged(world.record.fail, on_text=world.letters.logged):
        try:
            run_simulation(sim, world.run)
        except Exception as error:
            world.record.on_violation = bool  # there is nothing left to cancel
            for single in singles(error):
                world.record.fail("nothing raises", "".join(traceback.format_exception(single)))
    return attrs.evolve(world.outcome(), cpu_seconds=time.process_time() - begun)


class World:
    """All that takes part in a run.

    Attributes:
      lives: the server.
      disk: where its store is; None without one.
      cancels: what of the tabs and publishers may be cancelled.
      tabs: the real clients.
      on_catching_up: is called with the next tab that has something to catch up with.
      faults: how many happened, by kind.
    """

    def __init__(self, sim: Simulation, plan: Plan, watchers: Sequence[Watcher]) -> None:
        self.sim = sim
        self.plan = plan
        self.record = Record(
            sim.clock.current_time,
            watchers,
            durable=plan.durable,
            of_runs=plan.runs > 0,
            sometimes=sim.sometimes,
        )
        self.disk = Disk(sim.derive("disk"), sim.trace) if plan.durable else None
        self.config = Config(**plan.limits)
        self.cancels = Cancels(sim.sometimes)
        self.on_catching_up: Callable[[Tab], object] | None = None
        self.users = [
            f"{ODD[number % len(ODD)]}{number}" if plan.odd else f"user{number}"
            for number in range(plan.users)
        ]
        self.doors = Doors(self)
        self.talk = Talk(self)
        self.letters = Letters(sim, self.record)
        self.tabs = [
            Tab(
                sim,
                plan,
                self.record,
                user,
                number,
                cancels=self.cancels,
                doors=self.doors,
                on_catching_up=self._catching_up,
            )
            for user in self.users
            for number in range(plan.tabs)
        ]
        self.lives = Lives(
            sim,
            self.config,
            self.record,
            self._serve,
            self._over,
            on_dead_letter=self.letters.take,
            disk=self.disk,
            chunk=plan.chunk,
        )
        self.faults: Counter[str] = Counter()
        self._healed: float | None = None
        self._steps = 0
        self._last: dict[str, Any] = {}

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
            steps=self._steps,
            faults=dict(self.faults),
            sometimes=self.sim.sometimes.counts,
            trace_hash=self.sim.trace.hash,
            wire_hash=self.sim.network.hash,
            trace=self.sim.trace.tail(),
        )

    async def run(self, sim: Simulation) -> None:
        """All phases; ends early at the first violation."""
        plan = self.plan
        sim.network.conditions = Conditions(
            latency=plan.latency,
            jitter=plan.jitter,
            segment=plan.segment if plan.segment and sim.level.in_bytes else None,
            capacity=plan.window,
        )
        if plan.dies_at:
            self.lives.die_after(plan.dies_at)
        with trio.CancelScope() as scope:
            self.record.on_violation = scope.cancel
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.lives.run)
                await self.lives.up.wait()
                self.record.on_step = Looks(sim.timers, self._look).stepped
                async with trio.open_nursery() as tabs:
                    for tab in self.tabs:
                        tabs.start_soon(tab.run)
                    await self._disturb()
                    await self._heal(tabs)
                    self.record.healed()
                    if not plan.runs:
                        await Probe(self, list(self._staying().values())).run()
                    await self._converge()  # what was probed with is acked too, before everybody leaves
                    for tab in self.tabs:
                        await tab.stop()
                await self._empty()
                nursery.cancel_scope.cancel()

    # -- the server

    @property
    def hub(self) -> Hub | None:
        """The hub that runs now; None between two, and while one goes away."""
        return self.lives.hub

    def _serve(self, hub: Hub, listener: SimListener, **options: Any) -> Coroutine[Any, Any, None]:
        return serve(
            hub,
            listeners=[listener],
            authenticate=self.doors.authenticate,
            on_message=self.talk.take,
            **self.sim.level.serve,
            **options,
        )

    def _look(self) -> float:
        """Let the checkers see what should have happened and did not; returns when to look again."""
        return math.inf if self.hub is None else self.record.look()

    def _catching_up(self, tab: Tab) -> None:
        if self.on_catching_up is not None:
            self.on_catching_up(tab)

    def _over(self, hub: Hub) -> None:
        """A hub is about to end."""
        self._count(hub)
        self.record.end_life()

    def _count(self, hub: Hub) -> None:
        """Note which rare states this hub has reached."""
        stats = hub.stats()
        for group, names in _STATES.items():
            for name in names:
                self.sim.sometimes(f"{group}: {name}", stats[group][name] > 0)
        if self.plan.durable:
            self.sim.sometimes("store: spilled", hub.engine.books.ever_spilled > 0)

    # -- the phases

    async def _disturb(self) -> None:
        """Load and faults."""
        with trio.move_on_after(self.plan.duration):
            async with trio.open_nursery() as nursery:
                for user in self.users:
                    worker = Agents(self, user) if self.plan.runs else Publisher(self, user)
                    nursery.start_soon(worker.run)
                nursery.start_soon(self.talk.run)
                nursery.start_soon(Chaos(self).run)

    def _staying(self) -> dict[str, Tab]:
        """The tabs that stay to the end, one for each user."""
        return {tab.user: tab for tab in reversed(self.tabs)}

    async def _heal(self, tabs: trio.Nursery) -> None:
        """Faults end, one tab stays for each user; all must converge in time."""
        self.sim.trace.note("healing")
        self.lives.let_go()
        self.lives.steps.forget()
        self.on_catching_up = None
        self.doors.calm = self.talk.calm = True
        if self.disk is not None:
            self.disk.calm.set()
        network = self.sim.network
        network.heal()
        network.conditions = Conditions()
        for connection in network.connections:
            connection.resume()
            connection.set_conditions(network.conditions)
        stay = self._staying()
        for tab in self.tabs:
            tab.calm = True
            if tab.looks_on:
                await tab.leave()
            if stay[tab.user] is not tab:
                tabs.start_soon(tab.stop)
        begun = trio.current_time()
        await self._converge()
        self._healed = trio.current_time() - begun
        self._steps = self.lives.steps.count
        self.lives.safe = True
        self.sim.trace.note("healed")

    async def _converge(self) -> None:
        """Wait until all is delivered and confirmed, which must be in time; where not, the run ends here."""
        stay = list(self._staying().values())
        begun = trio.current_time()
        why = "the server is away"
        while trio.current_time() <= begun + HEALING_BOUND + self.plan.handler:
            await trio.sleep(LOOK_EVERY)
            why = unsettled(self, stay)
            again = kept_from_the_rest(self, stay) if why else pending_for_the_next(self, stay)
            if again:
                # Its session was forgotten before it could ack: that stays pending for the user's next session.
                self.sim.sometimes("pending for the next session")
                if self.plan.durable:
                    self.sim.sometimes("kept from the rest by what is pending", bool(why))
                for tab in again:
                    await tab.leave()
            elif not why:
                return
        self.record.fail("all converges once the faults are over", why)
        await trio.sleep_forever()

    async def _empty(self) -> None:
        """Everybody has left: when all times to live are over, nothing is left."""
        hub = self.hub
        assert hub is not None  # faults are over, and it was there when all had healed
        config = hub.config
        await trio.sleep(10)
        engine = hub.engine
        self._nothing(connections=engine.pool.connected, attachments=len(engine.attachments))
        await trio.sleep(config.session_ttl + config.event_ttl + 3 * config.cleanup_interval)
        self._nothing(
            mailboxes=len(engine.buffer.mailboxes),
            events=engine.books.events,
            bytes=engine.books.bytes,
            held=engine.books.held,
            parked=engine.pool.parked,
            publishers=engine.room.waiting,
            timers=len(engine.timers),
            # flusher, deadlines, cleanup, alerts; and what commits
            tasks=len(engine.nursery.child_tasks) - (4 if self.disk is None else 5),
            users=0 if self.disk is None else len((await self.disk.opened()).users),
            journals=engine.buffer.journals.count,
            connections=len(self.sim.network.connections),
        )
        if self.disk is None:
            self.letters.count()
        self._nothing(runs=len(engine.buffer.runs))
        self._over(hub)

    def _nothing(self, **left: int) -> None:
        for what, count in left.items():
            if count:
                self.record.fail("nothing is left when all have gone", f"{count} {what}")


_STATES: Final = {
    "connections": ("rejected", "superseded", "mistakes"),
    "pool": ("pool_hits", "pool_misses", "connections_reused"),
    "delivery": (
        "events_evicted",
        "events_expired",
        "events_superseded",
        "events_refused",
        "events_duplicate",
        "redelivered",
        "messages_timeout",
        "messages_late",
        "dead_letters",
    ),
    "buffer": ("critical_messages_preserved", "overflow_events", "merged"),
    "recovery": ("count",),
}
"""Figures of the hub's `stats` that must each be above 0 in some run of a campaign."""
