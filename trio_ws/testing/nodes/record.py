"""What is seen of several nodes: what was promised to publishers, what each session was sent, what clients processed.

Each node's hub is watched where its connections are attached, wherever their sockets are: so what a session is sent is
seen once, by whoever has its user's log then.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

import trio

from ...core import wire
from ...core.session import Session
from ...event import Event, Gap
from ...hub import Hub, Receipt
from ...store import Place
from ..checkers.record import Record
from ..checkers.sight import Checker, Line, Published, Told
from ..checkers.survival import Order
from ..checkers.traffic import Accounting, Content
from ..counters import Sometimes
from .losses import Losses
from .plan import NodesPlan
from .runs import OneEnd

FENCED_WITHIN: Final = 5.0
"""Seconds after which who was fenced off from a user must know: a lease, and two sweeps."""


class NodesRecord(Record):
    """All that a run has seen.

    Attributes:
      losses: what was lost where the store was set back.
    """

    def __init__(
        self, clock: Callable[[], float], plan: NodesPlan, place: Place, sometimes: Sometimes
    ) -> None:
        # Where a log may begin anew, an event alone does not say in which epoch a tab was given it.
        order = () if "roll_back" in plan.faults else (Order,)
        of_events = (OneEnd,) if plan.runs else (Content, PlainLive, *order)
        self._alive: dict[Told, list[float]] = {}  # when the agent of a run was answered, by the time of day
        self._epochs: dict[str, dict[str, None]] = {}  # those in which a log was shown, by user
        self._names: dict[Published, set[tuple[str, int]]] = {}
        super().__init__(
            clock,
            (Accounting, OneDrains, *of_events),
            durable=True,
            of_runs=plan.runs > 0,
            sometimes=sometimes,
        )
        self.losses = Losses(place, self.fail, self._epochs, sometimes)

    # -- nodes

    def watch(self, hub: Hub) -> None:
        """See `Record`; several may be watched at the same time, and `life` is the number of the last one."""
        super().watch(hub)
        hub.engine.after_step = None  # no checker here looks at each step

    def buried(self, life: int) -> None:
        """A hub has died, here and now: nothing that its tasks still do has an effect."""
        self._dead.add(life)

    # -- publishers

    def promised(self, event: Published, receipt: Receipt) -> None:
        """Its publisher was told that it is accepted, by one node or another."""
        event.accepted_at = min(self.clock(), event.accepted_at)

    @property
    def accepted_events(self) -> int:
        """How many events were accepted, as far as their publishers know."""
        return sum(event.accepted_at < math.inf for event in self.events.values())

    def left(self) -> list[Published]:
        """What is critical and was promised, and nobody has processed."""
        return [event for event in self.events.values() if self._is_owed(event)]

    def _is_owed(self, event: Published) -> bool:
        if not event.critical or event.processed or event.acked_by or event.accepted_at == math.inf:
            return False
        return not self.losses.may_have_cost(event.user, event.asked_at, event.accepted_at)

    # -- agents

    def alive(self, told: Told, at: float) -> None:
        """The agent of a run was answered, at this time of day."""
        self._alive.setdefault(told, []).append(at)

    def was_alive(self, told: Told, at: float) -> bool:
        """Whether a run's lease, which has lapsed as they say, can't have. For some seconds a node may have answered
        it that another had taken the log from."""
        assert told.lease is not None
        since, until = at - told.lease + 0.001, at - FENCED_WITHIN
        return any(since < alive < until for alive in self._alive.get(told, ()))

    # -- what is shown

    def sent(self, line: Line, frames: list[bytes]) -> None:
        """See `Record`."""
        super().sent(line, frames)
        if line.welcome is not None:
            self._show(line.user, line.welcome)

    def _show(self, user: str, welcome: wire.Welcome) -> None:
        known = self._epochs.setdefault(user, {})
        if welcome.epoch in known:
            return
        if not self.losses.happened:
            for event in self.left():
                if event.user == user and self._names.get(event):
                    self.fail(
                        "a log goes on", f"{user} begins anew in {welcome.epoch}, and {event} was promised"
                    )
        known[welcome.epoch] = None

    def bind(self, event: Published, epoch: str, seq: int) -> None:
        """See `Record`. In a log that has begun anew an event may have another name."""
        if self.losses.is_void(event.user, epoch):
            return
        there = self.log.setdefault((event.user, epoch), {}).setdefault(seq, event)
        if there is not event:
            self.fail(
                "(epoch, seq) names one event", f"{event.user} {seq} is {there.token} and {event.token}"
            )
        names = self._names.setdefault(event, set())
        names.add((epoch, seq))
        if event.critical and sum(name[0] == epoch for name in names) > 1:
            self.fail("the same idempotency key makes one event", f"event {event.token}: {sorted(names)}")
        event.seq, event.epoch = seq, epoch

    def processed(self, client: str, seen: Event) -> None:
        """See `Record`."""
        event = None if self.of_runs else self.events.get(seen.payload["n"])
        if event is not None and event.user != client.partition("/")[0]:
            self.fail("each gets what is for its user", f"{client} was given {seen}")
        super().processed(client, seen)

    def told(self, client: str, gap: Gap) -> None:
        """See `Record`."""
        if gap.critical and gap.reason != "expired" and not self.losses.happened:
            self.fail("nothing critical is lost", f"{client} was told of {gap}")
        super().told(client, gap)


class OneDrains(Checker):
    """An older connection of a session is silent, soon after a newer one has it, wherever that is."""

    invariant = "one connection drains a session"

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self._newest: dict[str, tuple[Line, float]] = {}

    def sent(self, line: Line, frame: wire.ServerFrame) -> None:
        now = self.record.clock()
        if isinstance(frame, wire.Welcome):
            self._newest[frame.session] = line, now
        elif line.welcome is not None:
            newest, since = self._newest[line.welcome.session]
            if newest is not line and now > since + FENCED_WITHIN:
                self.fail(f"{line} still does, {now - since:.2f} s later")


class PlainLive(Checker):
    """Over one connection a plain client is given an event once, and nothing that could have been shown before it came.
    What waits in the store only, or is not durable yet, is given to it as it comes in."""

    invariant = "a plain client is given what comes, once"

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self._given: set[tuple[Line, Published]] = set()
        self._from: dict[Line, tuple[str, int]] = {}

    def attached(self, line: Line, session: Session) -> None:
        if line.plain:
            self._from[line] = session.box.epoch, session.box.ready

    def sent_plain(self, line: Line, event: Published) -> None:
        self.record.sometimes("a plain client was given an event", True)
        if event.user != line.user:
            self.fail(f"{line} of {line.user} was sent event {event.token}")
        if (line, event) in self._given:
            self.fail(f"{line} was sent event {event.token} again")
        epoch, ready = self._from.get(line, ("", 0))
        if event.epoch == epoch and event.seq <= ready:
            self.fail(f"{line} was sent event {event.token}, of before it came")
        self._given.add((line, event))


class Balance:
    """Looks at the books of nodes that live, and at who believes to own whom."""

    def __init__(self, record: NodesRecord) -> None:
        self._record = record
        self._twice: dict[str, float] = {}

    def look(self, hubs: Mapping[str, Hub]) -> None:
        """Have all of them looked at: by node, those that are neither suspended nor ending."""
        owners: dict[str, list[str]] = {}
        for node, hub in hubs.items():
            books = hub.stats()["delivery"]
            parts = ("settled", "held", "evicted", "expired", "superseded", "moved")
            if books["events_accepted"] != sum(books[f"events_{part}"] for part in parts):
                self._record.fail("the counters balance", f"{node}: {books}")
            for user in hub.engine.buffer.mailboxes:
                owners.setdefault(user, []).append(node)
        now = trio.current_time()
        for user, nodes in owners.items():
            if len(nodes) > 1:
                since = self._twice.setdefault(user, now)
                if now > since + FENCED_WITHIN:
                    self._record.fail("a log has one owner", f"{user} has {nodes}, for {now - since:.2f} s")
        self._twice = {user: since for user, since in self._twice.items() if len(owners.get(user, ())) > 1}
