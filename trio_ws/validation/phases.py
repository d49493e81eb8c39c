"""The phases of a validation: each does the same to every server, and writes down what it sees."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from itertools import count, pairwise
from typing import Final

import attrs
import trio

from .. import client
from ..event import LIFECYCLE_TYPES
from .arm import Arm
from .findings import Findings, Sample, Side
from .journal import Journal, Sent, close_cut
from .plan import RUN, TYPES, Plan, numbers

COMPLETE_WITHIN: Final = 20.0
"""Seconds after a phase in which what is still on its way has to come."""
STUCK_SIZE: Final = 192 * 1024
"""Characters of each event for a client that takes nothing: soon more than the network holds."""
BATCH: Final = 50
SETTLE: Final = 0.2
"""Seconds in which a server sees to what has just happened, before its CPU is read."""


@attrs.define
class Stage:
    """What the phases share.

    Attributes:
      nursery: where watchers live.
      another: runs a further trio-ws, with these arguments on top.
      prefix: of the users' names, where the server may have others.
    """

    plan: Plan
    arms: Sequence[Arm]
    findings: Findings
    nursery: trio.Nursery
    another: Callable[[Sequence[str]], AbstractAsyncContextManager[Arm]]
    prefix: str = ""

    @property
    def users(self) -> list[str]:
        """Those who watch during the load."""
        return [f"{self.prefix}user-{n + 1}" for n in range(self.plan.users)]

    async def on_each(self, function: Callable[[Arm], Awaitable[None]]) -> None:
        """Runs it for all servers at once."""
        async with trio.open_nursery() as nursery:
            for arm in self.arms:
                nursery.start_soon(function, arm)

    async def add(self, users: Sequence[str]) -> None:
        """Has each of them watch, on every server, who does not yet; their journals belong to the findings."""

        async def one(arm: Arm, user: str) -> None:
            watcher = await arm.add(user, self.nursery)
            self.side(arm).journals.append(watcher.journal)

        async with trio.open_nursery() as nursery:
            for arm in self.arms:
                for user in users:
                    if user not in arm.watchers:
                        nursery.start_soon(one, arm, user)

    def side(self, arm: Arm) -> Side:
        """Where it is written down."""
        return self.findings.after if arm.seqs else self.findings.before


def new_event(arm: Arm, user: str, type: str, phase: str, *, waited: bool = False) -> tuple[Journal, Sent]:
    """Numbers an event for `user`; where the server can't confirm, nobody waits for that."""
    journal = arm.watchers[user].journal
    critical = type in LIFECYCLE_TYPES
    sent = journal.publish(
        type, trio.current_time(), critical=critical, phase=phase, waited=waited and arm.seqs
    )
    return journal, sent


async def complete(arm: Arm, users: Sequence[str]) -> None:
    """Waits until all that was accepted for `users` has come or is accounted for; not for what the stock server has
    lost."""
    with trio.move_on_after(COMPLETE_WITHIN if arm.seqs else 1.0):
        for user in users:
            await arm.watchers[user].journal.wait_complete()


# --- Load and drops ---


async def load(stage: Stage) -> None:
    """All users at once, each with agents' runs at a steady rate; now and then each one's connection is cut."""
    users = stage.users
    await stage.add(users)

    async def one(arm: Arm) -> None:
        until = trio.current_time() + stage.plan.duration
        async with trio.open_nursery() as nursery:
            for number, user in enumerate(users):
                nursery.start_soon(_agent, stage, arm, number, user, until)
                nursery.start_soon(_drops, stage, arm, number, user, until)
        await complete(arm, users)
        for user in users:
            journal = arm.watchers[user].journal
            for cut in journal.cuts:
                close_cut(cut, journal)
        await _reconnect(arm, users)

    await stage.on_each(one)


async def _reconnect(arm: Arm, users: Sequence[str]) -> None:
    """Frees those who are still cut off, so that the next phase begins with everybody there."""
    for user in users:
        cuts = arm.watchers[user].journal.cuts
        if cuts and cuts[-1].back is None:
            arm.network.cut(user)
            await arm.watchers[user].wait_live()


async def _agent(stage: Stage, arm: Arm, number: int, user: str, until: float) -> None:
    """Publishes runs for `user`. A task of its own waits for each confirmation, so that the next event goes out in
    time."""
    interval = 1 / stage.plan.rate
    due = trio.current_time() + interval * number / stage.plan.users
    async with trio.open_nursery() as nursery:
        for turn in count():
            if due >= until:
                return
            await trio.sleep_until(due)
            due += interval
            type = RUN[turn % len(RUN)]
            event = new_event(arm, user, type, "load", waited=type in LIFECYCLE_TYPES)
            if event[1].waited:
                nursery.start_soon(_publish, stage, arm, event)
            else:
                await _publish(stage, arm, event)


async def _publish(stage: Stage, arm: Arm, event: tuple[Journal, Sent], size: int = 0) -> None:
    after = await arm.backend.publish(*event, size=size)
    if after is not None:
        stage.side(arm).confirmations.append((event[1].at, after))


async def _drops(stage: Stage, arm: Arm, number: int, user: str, until: float) -> None:
    began = trio.current_time()
    cuts = [(began + at, how) for at, how in stage.plan.cuts(number)]
    for (at, how), (end, _) in pairwise([*cuts, (until, "")]):
        await trio.sleep_until(at)
        await arm.cut(user, how, end)


# --- Event types ---


async def types(stage: Stage) -> None:
    """Every type of event to every user, one after the other, each confirmed before the next."""
    users = stage.users
    await stage.add(users)

    async def one(arm: Arm) -> None:
        async with trio.open_nursery() as nursery:
            for user in users:
                nursery.start_soon(to_user, arm, user)
        await complete(arm, users)

    async def to_user(arm: Arm, user: str) -> None:
        for _ in range(stage.plan.rounds):
            for type in TYPES:
                await _publish(stage, arm, new_event(arm, user, type, "types", waited=True))

    await stage.on_each(one)


# --- Buffer overflow ---


async def overflow(stage: Stage) -> None:
    """Users are away while more comes for them than the buffer holds, critical events first among the rest; one is sent
    nothing but critical ones. Then all come back."""
    users = [f"away-{n + 1}" for n in range(stage.plan.away)]
    await stage.add([*users, "away-critical"])

    async def one(arm: Arm) -> None:
        for user in (*users, "away-critical"):
            arm.network.cut(user, 3600)
        plan = stage.plan
        # The critical ones among the first: the oldest are what a plain buffer drops.
        kinds = (["tool_completed"] + ["bulk"] * 4) * plan.critical
        kinds += ["bulk"] * max(0, plan.flood + plan.critical - len(kinds))
        # A part to each in turn, so that what all have together overflows too.
        for begin in range(0, len(kinds), BATCH):
            for user in users:
                batch = [new_event(arm, user, kind, "overflow") for kind in kinds[begin : begin + BATCH]]
                await arm.backend.publish_all(batch)
                await look(stage, arm, user)
        await _critical_alone(stage, arm, "away-critical")
        for user in (*users, "away-critical"):
            arm.watchers[user].expect()
            arm.network.cut(user, 0)
        with trio.move_on_after(2 * COMPLETE_WITHIN):
            for user in (*users, "away-critical"):
                await arm.watchers[user].wait_live()
        await complete(arm, [*users, "away-critical"])
        await look(stage, arm, users[0])

    await stage.on_each(one)


async def _critical_alone(stage: Stage, arm: Arm, user: str) -> None:
    """More critical events than one user's buffer holds: what has no room must be refused, not dropped."""
    for _ in range(5):
        await arm.backend.publish_all(
            [new_event(arm, user, "tool_completed", "overflow") for _ in range(BATCH)]
        )
        await look(stage, arm, user)


async def look(stage: Stage, arm: Arm, user: str | None = None) -> None:
    """Notes how full the buffers are, in all and for `user`."""
    told = (await arm.backend.stats())["buffer"]
    mine = (await arm.backend.user(user)).get("buffer", {}) if user is not None and arm.seqs else {}
    stage.side(arm).samples.append(
        Sample(
            at=trio.current_time(),
            events=told["events"],
            fullest=mine.get("events"),
            dropped=told.get("non_critical_messages_dropped"),
            memory=None if arm.process is None else arm.process.memory,
        )
    )


# --- Pool reuse ---


async def pool(stage: Stage) -> None:
    """Tabs that come back and resume, and tabs that begin anew, in turn, with events held for each; how much CPU both
    cost a server, which has room for so many and nothing else to do. The stock server has no sessions, and takes no
    part."""
    plan, reuse = stage.plan, stage.findings.reuse
    room = ("--max-events", str(2 * plan.tabs * plan.held), "--max-connections", str(3 * plan.tabs))
    async with stage.another(room) as arm:
        tabs = [_Tab(arm, f"tab-{n + 1}", plan.held) for n in range(plan.tabs)]
        for tab in tabs:
            stage.findings.after.journals.append(tab.journal)
            await arm.backend.publish_all([(tab.journal, tab.new_event()) for _ in range(plan.held)])
        await _all_at_once(arm, [partial(tab.visit, keep=True) for tab in tabs])
        for turn in range(plan.turns):
            # In turn which comes first, so that what the machine does meanwhile meets both alike.
            for resumed in (True, False) if turn % 2 else (False, True):
                before = await _hits(arm)
                visits = [partial(tab.visit, resume=resumed, keep=resumed) for tab in tabs]
                cpu, seconds = await _all_at_once(arm, visits)
                reuse.add(resumed, cpu, seconds, sessions=len(tabs), hits=await _hits(arm) - before)


async def _hits(arm: Arm) -> int:
    hits: int = (await arm.backend.stats())["pool"]["pool_hits"]
    return hits


class _Tab:
    """One tab of a user of its own, who has so many events; each visit is a new client."""

    def __init__(self, arm: Arm, user: str, held: int) -> None:
        self.journal = Journal(user)
        self._arm = arm
        self._held = held
        self._saved: client.SavedSession | None = None

    def new_event(self) -> Sent:
        """The next event, to be published."""
        return self.journal.publish("bulk", trio.current_time(), critical=False, phase="pool")

    async def visit(
        self, leave: trio.Event, *, resume: bool = False, keep: bool, task_status: trio.TaskStatus[None]
    ) -> None:
        """Connects, and has started once it has all that it is to be sent; goes when `leave` is set.

        Args:
          resume: the session that was kept, which is sent nothing; else a new one, which is sent all that is held.
          keep: leave as a page that is reloaded does, so that the session can be resumed.
        """
        first = self._saved is None
        saved = self._saved if resume else None
        async with client.connect(
            self._arm.url(self.journal.user), user=self.journal.user, session=saved, bye=not keep
        ) as here:
            for _ in range(0 if resume else self._held):
                event = await here.receive()
                if first:
                    self.journal.given(numbers(event.payload), trio.current_time(), event.seq, event.seq)
            await here.wait_live()
            task_status.started()
            await leave.wait()
        if keep:
            self._saved = here.saved()


async def _all_at_once(
    arm: Arm, visits: Sequence[Callable[..., Awaitable[None]]]
) -> tuple[float | None, float]:
    """Lets all tabs come, and go again; the server's CPU for their coming in seconds, and how long it took."""
    leave = trio.Event()
    async with trio.open_nursery() as nursery:
        await trio.sleep(SETTLE)
        meter = _Meter(arm)
        with trio.fail_after(COMPLETE_WITHIN):
            async with trio.open_nursery() as coming:
                for visit in visits:
                    coming.start_soon(nursery.start, partial(visit, leave))
        measured = await meter.read()
        leave.set()
    return measured


class _Meter:
    """The CPU of a server and the time, from when it is made."""

    def __init__(self, arm: Arm) -> None:
        assert arm.process is not None
        self._process = arm.process
        self._cpu = arm.process.cpu
        self._began = time.perf_counter()

    async def read(self) -> tuple[float | None, float]:
        """Both since then; the CPU after the server has seen to the last acks."""
        seconds = time.perf_counter() - self._began
        await trio.sleep(SETTLE)
        now = self._process.cpu
        return (None if now is None or self._cpu is None else now - self._cpu), seconds


# --- A stuck client ---


async def stuck(stage: Stage) -> None:
    """One client takes nothing while large events come for it. Broadcasts go to everybody, the stuck one first."""
    users = stage.users
    victim = f"{stage.prefix}stuck-1"
    stage.findings.stuck_users.add(victim)
    await stage.add([victim, *users])

    async def one(arm: Arm) -> None:
        plan = stage.plan
        arm.watchers[victim].expect()
        until = trio.current_time() + plan.stuck
        arm.network.silence(victim, plan.stuck)
        rng = random.Random(plan.seed)
        async with trio.open_nursery() as nursery:
            due = trio.current_time()
            for turn in count():
                due += 1 / plan.rate
                if due >= until:
                    break
                await trio.sleep_until(due)
                first = "tool_completed" if turn % 20 == 0 else "bulk"
                batch = [new_event(arm, victim, first, "stuck")]
                order = rng.sample(users, len(users))
                batch += [new_event(arm, user, "bulk", "stuck") for user in order]
                nursery.start_soon(partial(arm.backend.publish_all, batch, size=STUCK_SIZE))
        await complete(arm, [victim, *users])

    await stage.on_each(one)
