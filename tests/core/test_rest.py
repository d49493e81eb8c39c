"""The rest of a log against what was published: Hypothesis draws publishers, acks, commits, reads and crashes.

The log is read through one session, which must be given each critical event once and in order, whatever happens
between; after a crash it goes on from where it was, in a log that is made of what the store has.
"""

from __future__ import annotations

import json
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from trio_ws.config import Config
from trio_ws.core.buffer import Buffer
from trio_ws.core.confirmations import Confirmations
from trio_ws.core.entry import CLASS_LOW, EVICTED, EXPIRED, FIRM, Entry
from trio_ws.core.ledger import Ledger
from trio_ws.core.mailbox import Mailbox
from trio_ws.core.records import EventRecord, Kept, KeptRest
from trio_ws.core.restoring import entry_of, restore, restored_session
from trio_ws.core.session import Session
from trio_ws.core.wire import event_tail
from trio_ws.store import MemoryStore

LIMITS: dict[str, Any] = {"max_events_per_user": 5, "max_events": 5, "max_stored_events_per_user": 12}
INTERVALS = (0.5,)


class Rests(RuleBasedStateMachine):
    """One user's log, larger than memory, over a store."""

    def __init__(self) -> None:
        super().__init__()
        self.store = MemoryStore()
        self.now = 0.0
        self.count = 0
        self.durable: dict[int, bool] = {}  # what was told to be so, by number: whether it is critical
        self.waiting: list[tuple[int, Entry]] = []
        self.got: list[int] = []
        self.acked = 0
        self.gone: set[int] = set()
        self.cursor = 0
        self.begin()

    def begin(self) -> None:
        """A process begins."""
        self.ledger = Ledger("critical", 180.0, 180.0, lambda urgency: None)
        self.buffer = Buffer(Config(**LIMITS), lambda: f"epoch{self.now}", self.ledger)
        self.confirmations = Confirmations(5.0)
        self.box: Mailbox = self.buffer.mailbox("ada")

    @initialize()
    def connect(self) -> None:
        self.session = Session(
            "tab",
            self.box,
            self.cursor,
            books=self.buffer.books,
            confirmations=self.confirmations,
            retry_intervals=INTERVALS,
            now=self.now,
        )
        self.box.sessions["tab"] = self.session
        self.session.attach(object(), self.cursor, self.now)

    # -- what happens

    @rule(
        kinds=st.lists(st.sampled_from(("critical", "critical", "mortal", "keyed")), min_size=1, max_size=9)
    )
    def publish(self, kinds: list[str]) -> None:
        for kind in kinds:
            self._publish(kind == "critical", kind == "mortal", kind == "keyed")

    def _publish(self, critical: bool, mortal: bool, keyed: bool) -> None:
        self.now += 0.001
        number, kind = self.count + 1, FIRM if critical else CLASS_LOW
        tail = event_tail(f"id{number}", "it", str(number).encode(), self.now)
        entry = Entry(
            id=f"id{number}",
            type="it",
            tail=tail,
            size=len(tail),
            bare=not critical,
            retention=kind,
            tracked=critical,
            ts=self.now,
            accepted_at=self.now,
            expires_at=self.now + 1 if mortal and not critical else float("inf"),
            key="k" if keyed and not critical else None,
            owned_id=True,
        )
        buffer, box = self.buffer, self.box
        before = box.head
        if box.rest is None and buffer.accept(box, entry):
            pass
        elif not buffer.spill(box, entry):
            assert box.head == before
            return
        self.count = number
        assert entry.seq == before + 1
        assert box.find(entry.id) is not None
        self.waiting.append((number, entry))

    @rule()
    def commit(self) -> None:
        batch = self.ledger.draw_up(3, 10**9, self.now, 0.0)
        if batch is not None:
            self.store.apply([batch, batch])  # to write it once more changes nothing
            self.ledger.committed()
        track = self.box.track
        assert track is not None
        for number, entry in list(self.waiting):
            if entry.seq <= track.committed:
                self.durable[number] = entry.critical
                self.waiting.remove((number, entry))

    @rule()
    def send(self) -> None:
        for data in self.session.take(self.now, 1 << 20):
            frame = json.loads(data)
            if frame["t"] == "event":
                assert frame["seq"] == self.cursor + 1
                self.cursor = frame["seq"]
                self.got.append(frame["payload"])
            elif frame["t"] == "gap":
                assert frame["from"] == self.cursor + 1
                assert frame["critical"] == 0
                self.cursor = frame["to"]

    @rule()
    def exchange(self) -> None:
        """A client that does all that it should, and a store that does."""
        self.commit()
        self.send()
        self.ack(0)
        self.commit()
        if self.box.rest is not None:
            self.read_back(5)
        self.commit()

    @rule(back=st.integers(0, 3))
    def ack(self, back: int) -> None:
        if self.cursor - back > self.session.acked:
            self.session.ack(self.cursor - back, self.now)
            self.acked = self.session.acked

    @precondition(lambda self: self.box.rest is not None)
    @rule(most=st.integers(1, 5))
    def read_back(self, most: int) -> None:
        track, rest = self.box.track, self.box.rest
        assert track is not None
        assert rest is not None
        room, size = self.buffer.room_to_take_in(self.box)
        most = min(most, room)
        if most <= 0 or size < 1000 or track.committed < rest.first:
            return
        found = [e for e in self.stored() if rest.first <= e.first <= track.committed][:most]
        entries = [entry_of(e, self.now, 0.0) for e in found if self.box.gone.at(e.first) is None]
        upto = found[-1].seq if len(found) == most else track.committed
        self.buffer.take_in(self.box, entries, upto)

    @precondition(lambda self: self.box.rest is not None)
    @rule(later=st.booleans())
    def let_go(self, later: bool) -> None:
        track, rest = self.box.track, self.box.rest
        assert track is not None
        assert rest is not None
        self.now += later
        for event in [e for e in self.stored() if rest.first <= e.first <= track.committed]:
            entry = entry_of(event, self.now, 0.0)
            if self.box.gone.at(event.first) is None and not entry.critical:
                expired = entry.expires_at <= self.now
                rest.let_go(entry, EXPIRED if expired else EVICTED, self.now)

    @rule(after=st.sampled_from(("nothing", "sending", "reading")))
    def crash(self, after: str) -> None:
        """What is not durable is lost; the client goes on from its cursor."""
        if after == "reading" and self.box.rest is not None:
            self.read_back(5)
        if after != "nothing":
            self.send()
        self.now += 1
        self.waiting.clear()
        log = self.store._logs.get("ada")
        self.begin()
        if log is None:
            assert not self.durable
            self.cursor = 0
            self.got.clear()
            self.connect()
            return
        upto, rest = log.user.confirmed, log.user.rest
        events = [e._replace(confirmed=e.confirmed or e.seq <= upto) for e in self.stored()]
        assert all(event.seq <= self.acked for event in events if event.confirmed)
        behind = [e for e in events if rest and e.first >= rest]
        keys = {e.id: e.seq for e in behind}
        kept = Kept(
            log.user,
            [e for e in events if e not in behind],
            list(log.sessions.values()),
            [log.keys[seq] for seq in sorted(log.keys)],
            rest=KeptRest(sum(e.priority < 3 for e in behind), None, keys) if rest else None,
        )
        restore(self.box, kept, self.now, 0.0, asleep=False)
        assert self.box.ready >= self.cursor, "all that was ever shown is here"
        if not kept.sessions:
            self.connect()
            return
        for record in kept.sessions:
            self.session = restored_session(
                record,
                self.box,
                books=self.buffer.books,
                confirmations=self.confirmations,
                retry_intervals=INTERVALS,
                now=self.now,
                wall_offset=0.0,
                parked_at=self.now,
            )
            self.box.sessions["tab"] = self.session
        self.box.settle_again()
        self.buffer.restored(self.box)
        self.session.attach(object(), self.cursor, self.now)

    def stored(self) -> list[EventRecord]:
        log = self.store._logs.get("ada")
        return [] if log is None else [log.events[first] for first in sorted(log.events)]

    # -- what holds

    @invariant()
    def the_books_balance(self) -> None:
        books, box = self.buffer.books, self.box
        behind = 0 if box.rest is None else box.rest.events
        assert books.balanced
        assert books.spilled == behind
        assert books.held - behind == sum(e.weight for e in box.entries.values() if not e.settled)
        assert len(box.entries) <= 10
        assert behind <= LIMITS["max_stored_events_per_user"]

    @invariant()
    def each_seq_is_here_or_gone_or_behind(self) -> None:
        box = self.box
        first = box.head + 1 if box.rest is None else box.rest.first
        assert box.ready < first
        for seq in range(1, first):
            held = any(e.first <= seq <= e.seq for e in box.entries.values())
            assert held != (box.gone.at(seq) is not None), seq
        assert not any(e.seq >= first for e in box.entries.values())

    @invariant()
    def what_is_critical_comes_once_and_in_order(self) -> None:
        assert self.got == sorted(set(self.got))

    def teardown(self) -> None:
        """All that was durable and critical comes in the end."""
        for _ in range(50):
            self.exchange()
        assert self.box.rest is None
        assert self.cursor == self.box.head
        missing = {number for number, critical in self.durable.items() if critical} - set(self.got)
        assert not missing


Rests.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestRests = Rests.TestCase
