"""The core against a naive model, step by step: Hypothesis draws publishers, sessions, clients and clocks.

Every step is done twice, in the core and in `model.Model`; after each, all that the two can be asked is compared, and
every frame that a session is given is parsed and checked. `TRIO_WS_LONG=1` runs it for minutes instead of seconds.
"""

from __future__ import annotations

import copy
import json
import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from trio_ws.config import Config
from trio_ws.core import gaps
from trio_ws.core.buffer import Buffer
from trio_ws.core.confirmations import Confirmations
from trio_ws.core.entry import CLASS_SETTLED, CLASS_SUPERSEDED, CLASSES, FIRM, Entry
from trio_ws.core.mailbox import Mailbox
from trio_ws.core.pool import Admitted, Ask, Pool, Refused
from trio_ws.core.session import Impossible, Session

from .diary import Diary
from .model import GRAVITY, Log, Model, Piece, Reader, make_entry

USERS = ("ada", "ada", "bob")
PLENTY = 1 << 30
LONG = bool(os.environ.get("TRIO_WS_LONG"))


@attrs.define(eq=False)
class Tab:
    """A session in the core and in the model, and what its present connection has been given."""

    session: Session
    reader: Reader
    sent: dict[int, dict[str, Any]] = attrs.field(factory=dict)


class Counter:
    """Makes ids that are the same in each run."""

    def __init__(self, prefix: str) -> None:
        self.prefix, self.count = prefix, 0

    def __call__(self) -> str:
        self.count += 1
        return f"{self.prefix}{self.count}"


class Choices:
    """Choices among logs that are equally full, by index: those of a script, and then the first.

    Args:
      script: the choices; what is made beyond it is added to it.
    """

    def __init__(self, script: Sequence[int] = ()) -> None:
        self.script = list(script)
        self._widths: list[int] = []

    def __call__(self, among: list[Log]) -> Log:
        at = len(self._widths)
        self._widths.append(len(among))
        if at == len(self.script):
            self.script.append(0)
        return among[self.script[at]]

    def next(self) -> Choices | None:
        """The choices to be tried after these; None after the last."""
        script = self.script[: len(self._widths)]
        while script and script[-1] + 1 == self._widths[len(script) - 1]:
            script.pop()
        return Choices([*script[:-1], script[-1] + 1]) if script else None


class CoreMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.tabs: list[Tab] = []
        self.over: list[str] = []
        self.published = 0
        self.max_runs = gaps.MAX_RUNS

    @initialize(
        per_user=st.integers(2, 7),
        more=st.integers(0, 7),
        bytes_per_user=st.integers(1024, 1400),
        more_bytes=st.integers(0, 900),
        event_bytes=st.sampled_from([128, 220, 1024]),
        max_runs=st.sampled_from([gaps.MAX_RUNS, gaps.MAX_RUNS, 3]),
        connections=st.integers(3, 6),
    )
    def start(
        self,
        per_user: int,
        more: int,
        bytes_per_user: int,
        more_bytes: int,
        event_bytes: int,
        max_runs: int,
        connections: int,
    ) -> None:
        self.config = config = Config(
            max_events_per_user=per_user,
            max_events=per_user + more,
            max_bytes_per_user=bytes_per_user,
            max_bytes=bytes_per_user + more_bytes,
            max_event_bytes=event_bytes,
            max_connections=connections,
            event_ttl=30.0,
            session_ttl=20.0,
        )
        gaps.MAX_RUNS = max_runs  # type: ignore[misc]
        self.buffer = Buffer(config, Counter("epoch"))
        self.confirmations = Confirmations(config.confirm_timeout)
        self.pool = Pool(
            config, books=self.buffer.books, confirmations=self.confirmations, new_id=Counter("s")
        )
        self.model = Model(config)
        self.diary = Diary()
        self.connect("ada", "retained", False, True)
        self.connect("ada", "now", False, False)

    def teardown(self) -> None:
        if hasattr(self, "diary"):
            self.diary.look(self.now)
            self.diary.check(self.config.confirm_timeout)
        gaps.MAX_RUNS = self.max_runs  # type: ignore[misc]

    def exact(self, box: Mailbox) -> bool:
        """Whether no runs of gaps can have been joined: there can't have been more of them than seqs."""
        return box.head <= gaps.MAX_RUNS

    # -- publishers

    def publish(self, user: str, payload: Any, **fields: Any) -> None:
        self.published += 1
        entry = make_entry(f"e{self.published}", payload=payload, now=self.now, **fields)
        box = self.buffer.mailbox(user)
        self.model.log(user)
        accepted = self.buffer.accept(box, entry)
        choices = self.choices(user, entry, payload)
        assert self.model.publish(user, entry, payload, choices) == accepted
        if accepted:
            assert (entry.first, entry.seq) == (box.head, box.head)
            self.diary.accepted(box, entry, self.now)

    def choices(self, user: str, entry: Entry, payload: Any) -> Choices:
        """What the core chose among logs that were equally full: what leads the model to the same logs."""
        if len(self.model.logs) == 1:
            return Choices()
        choices: Choices | None = Choices()
        core = {u: [(e.first, e.seq) for e in b.entries.values()] for u, b in self.buffer.mailboxes.items()}
        while choices is not None:
            model = copy.deepcopy(self.model)
            model.publish(user, entry, payload, choices)
            if {u: [(h.first, h.seq) for h in log.held] for u, log in model.logs.items()} == core:
                return Choices(choices.script)
            choices = choices.next()
        return Choices()  # none does; the invariants say what differs

    @rule(
        user=st.sampled_from(USERS),
        retention=st.sampled_from([2, 3, 4, FIRM]),
        size=st.sampled_from([1, 1, 1, 90]),
        kind=st.sampled_from(["note", "status"]),
        key=st.sampled_from([None, None, "k", "l"]),
        tracked=st.sampled_from([False, False, True]),
        ttl=st.sampled_from([None, None, None, 3.0, 12.0]),
        truncated=st.booleans(),
        times=st.sampled_from([1, 1, 3]),
    )
    def publish_event(
        self,
        user: str,
        retention: int,
        size: int,
        kind: str,
        key: str | None,
        tracked: bool,
        ttl: float | None,
        truncated: bool,
        times: int,
    ) -> None:
        for _ in range(times):
            self.publish(
                user,
                "x" * size,
                type=kind,
                retention=retention,
                key=key,
                tracked=tracked,
                ttl=ttl or (math.inf if retention == FIRM else self.config.event_ttl),
                truncated=truncated,
            )

    @rule(
        user=st.sampled_from(USERS),
        shape=st.sampled_from(["text", "text", "object", "number"]),
        size=st.sampled_from([4, 4, 40]),
        retention=st.sampled_from([3, 3, 2]),
        kind=st.sampled_from(["token", "token", "thought"]),
        key=st.sampled_from([None, None, "k"]),
        ttl=st.sampled_from([None, None, 3.0]),
        times=st.integers(1, 5),
    )
    def publish_deltas(
        self,
        user: str,
        shape: str,
        size: int,
        retention: int,
        kind: str,
        key: str | None,
        ttl: float | None,
        times: int,
    ) -> None:
        for _ in range(times):
            text = f"<{self.published:0{size}}>"
            payload = {"text": text, "object": {"text": text}, "number": self.published}[shape]
            self.publish(
                user,
                payload,
                type=kind,
                retention=retention,
                key=key,
                merge=True,
                ttl=ttl or self.config.event_ttl,
            )

    @rule(
        user=st.sampled_from(USERS),
        times=st.integers(2, 6),
        then=st.sampled_from(["", "take", "ack", "ack"]),
        ttl=st.sampled_from([math.inf, math.inf, 3.0]),
    )
    def run_an_agent(self, user: str, times: int, then: str, ttl: float) -> None:
        """Critical events in a row, that one client of the user is given, and has processed perhaps."""
        for _ in range(times):
            self.publish(user, "", type="agent_thinking", retention=FIRM, ttl=ttl)
        mine = [tab for tab in self.linked() if tab.reader.log.user == user]
        if then and mine:
            self.do_take(mine[0], PLENTY)
            if then == "ack":
                self.do_ack(mine[0], mine[0].reader.cursor)

    @rule(
        user=st.sampled_from(USERS),
        tracked=st.booleans(),
        times=st.integers(2, 3),
        lag=st.sampled_from([0, 0, 1]),
    )
    def follow_a_status(self, user: str, tracked: bool, times: int, lag: int) -> None:
        """States that supersede each other; some clients were given the old one, one processes what it is given."""
        for n in range(times):
            self.publish(user, n, type="status", key="k", tracked=tracked, ttl=self.config.event_ttl)
            mine = [tab for tab in self.linked() if tab.reader.log.user == user]
            if n + 1 < times:
                for tab in mine[:1]:
                    self.do_take(tab, PLENTY)
        for tab in mine[1:]:
            self.do_take(tab, PLENTY)
            self.do_ack(tab, max(0, tab.reader.cursor - lag))

    # -- clients come and go

    def hello(self, user: str, ask: Ask) -> None:
        box, log = self.buffer.mailbox(user), self.model.log(user)
        connected = self.pool.connected
        admitted = self.pool.admit(box, ask, self.now)
        if isinstance(admitted, Refused):
            assert connected == self.config.max_connections
            return
        known = log.readers.get(ask.session or "")
        fits = ask.epoch in (None, box.epoch) and (ask.seq is None or ask.seq <= log.head)
        if known is not None and fits and not ask.plain and not known.plain:
            assert admitted.resumed
            assert admitted.displaced == []
            assert admitted.session is box.sessions[known.id]
            reader = known
            position = known.acked if ask.seq is None else ask.seq
            tab = next(tab for tab in self.tabs if tab.reader is reader)
        else:
            base = position = self.start_of(log, ask, fits and ask.epoch is not None)
            assert admitted.resumed == (fits and ask.epoch is not None and ask.seq is not None)
            if admitted.resumed:
                base = position
            reader = Reader(admitted.session.id, log, base, ask.plain, acked=base, cursor=base, top=base)
            tab = Tab(admitted.session, reader)
            for displaced in admitted.displaced:
                self.end(next(tab for tab in self.tabs if tab.session is displaced))
            self.tabs.append(tab)
        self.attach(tab, admitted, position, ask)

    def start_of(self, log: Log, ask: Ask, known_epoch: bool) -> int:
        """Where a new session of `ask` starts."""
        if known_epoch and ask.seq is not None:
            return log.boundary(ask.seq)
        if ask.plain or ask.start == "now":
            return log.head
        if ask.start == "pending":
            return self.model.first_unconfirmed(log) - 1
        return log.held[0].first - 1 if log.held else log.head

    def attach(self, tab: Tab, admitted: Admitted, position: int, ask: Ask) -> None:
        self.pool.attach(admitted, object(), self.now)
        self.model.attach(tab.reader, position, not admitted.resumed and ask.start == "pending")
        tab.sent = {}

    @rule(
        user=st.sampled_from(USERS),
        start=st.sampled_from(["retained", "retained", "pending", "now"]),
        plain=st.sampled_from([False, False, False, True]),
        eager=st.sampled_from([True, True, False]),
    )
    def connect(self, user: str, start: str, plain: bool, eager: bool) -> None:
        self.hello(user, Ask(start=start, plain=plain))
        if eager:
            for tab in self.tabs[-1:]:
                self.do_take(tab, PLENTY)

    @rule(
        user=st.sampled_from(USERS),
        who=st.integers(0, 9),
        off=st.integers(-2, 2),
        of=st.sampled_from(["low", "head", "acked", "cursor", "top", "amid", "none"]),
        epoch=st.sampled_from(["right", "right", "right", "none", "wrong"]),
        start=st.sampled_from(["retained", "pending", "now"]),
        stranger=st.booleans(),
    )
    def resume(self, user: str, who: int, off: int, of: str, epoch: str, start: str, stranger: bool) -> None:
        log, box = self.model.log(user), self.buffer.mailbox(user)
        mine = [tab for tab in self.tabs if tab.reader.log is log]
        seq: int | None
        if of == "none":
            seq = None
        elif of == "head" or not mine:
            seq = log.head + off
        elif of == "low":
            seq = (log.held[0].first - 1 if log.held else log.head) + off
        elif of == "amid":
            seq = next((h.first for h in log.held if h.seq > h.first), log.head) + max(off, 0)
        else:
            seq = getattr(mine[who % len(mine)].reader, of) + off
        session = None
        if mine and not stranger:
            session = mine[who % len(mine)].session.id
        elif self.over:
            session = self.over[who % len(self.over)]
        self.hello(
            user,
            Ask(
                session=session,
                epoch={"right": box.epoch, "none": None, "wrong": "other"}[epoch],
                seq=None if seq is None else max(0, seq),
                start=start,
            ),
        )

    def end(self, tab: Tab) -> None:
        self.pool.end(tab.session, self.now)
        self.model.end(tab.reader)
        self.tabs.remove(tab)
        self.over.append(tab.session.id)

    def linked(self) -> list[Tab]:
        return [tab for tab in self.tabs if tab.reader.linked]

    def pick(self, who: int) -> Tab:
        tabs = self.linked()
        return tabs[who % len(tabs)]

    @precondition(lambda self: len(self.tabs) > len(self.linked()))
    @rule(who=st.integers(0, 9), behind=st.sampled_from([0, 0, 0, 1, 4]))
    def come_back(self, who: int, behind: int) -> None:
        """As a client does it: from what it was given last, of which the last may have been lost on the way."""
        parked = [tab for tab in self.tabs if not tab.reader.linked]
        tab = parked[who % len(parked)]
        seq = max(tab.reader.acked, tab.reader.cursor - behind)
        box = tab.session.box
        self.hello(box.user, Ask(session=tab.session.id, epoch=box.epoch, seq=seq))

    @precondition(lambda self: self.linked())
    @rule(who=st.integers(0, 9), bye=st.sampled_from([False, False, False, True]))
    def disconnect(self, who: int, bye: bool) -> None:
        tab = self.pick(who)
        if bye or tab.reader.plain:
            self.end(tab)
            return
        assert self.pool.park(tab.session, self.now) == []
        tab.reader.linked = tab.reader.blocked = False
        tab.reader.parked_at = self.now

    @precondition(lambda self: self.linked())
    @rule(who=st.integers(0, 9))
    def stall_or_go_on(self, who: int) -> None:
        tab = self.pick(who)
        tab.reader.blocked = not tab.reader.blocked
        tab.session.blocked = self.now if tab.reader.blocked else None
        tab.session.box.relief_dry = False  # as the hub does

    # -- what clients are given, and answer

    @precondition(lambda self: self.linked())
    @rule(who=st.integers(0, 9), budget=st.sampled_from([1, 150, 400, PLENTY, PLENTY]))
    def take(self, who: int, budget: int) -> None:
        self.do_take(self.pick(who), budget)

    def do_take(self, tab: Tab, budget: int) -> None:
        session, reader = tab.session, tab.reader
        before, top, box = session.cursor, session.top, session.box
        was_pending = session.pending
        frames = session.take(self.now, budget)
        assert not was_pending or session.cursor > before or frames
        pieces = self.model.take(reader, session.cursor, self.now)
        if session.cursor < session.box.head:
            assert sum(map(len, frames)) >= budget
        parsed = [json.loads(frame) for frame in frames]
        for piece in pieces:
            if piece.reason is None:
                whole = any(e.first == piece.first and e.seq == piece.last for e in box.entries.values())
                self.diary.sent(box, session.id, self.now, piece.first, piece.last, top, into=not whole)
        if reader.plain:
            events = [piece for piece in pieces if piece.reason is None]
            assert [(f["type"], f["payload"]) for f in parsed] == [(p.type, p.payload) for p in events]
            assert all(set(f) == {"id", "type", "payload", "ts"} for f in parsed)
            self.diary.answered(box, session.id, self.now, "acked", session.acked + 1, session.cursor)
            session.ack_sent(self.now)
            self.model.ack(reader, reader.cursor)
            return
        if reader.live_at is not None and session.cursor >= reader.live_at:
            reader.live_at = None
            assert parsed.pop() == {"t": "live", "seq": session.cursor}
        self.check_accounting(before, parsed, session.cursor)
        self.check_frames(session.box, parsed, pieces)
        for frame in parsed:
            if frame["t"] == "event":
                tab.sent[frame["seq"]] = frame
            else:
                told = frame["from"], frame["to"], frame["reason"]
                self.diary.told(box, session.id, self.now, *told)

    def check_accounting(self, before: int, frames: list[dict[str, Any]], after: int) -> None:
        """Every seq exactly once, in order, without a hole: what a client proves by itself."""
        cursor = before
        for frame in frames:
            assert "retry" not in frame
            if frame["t"] == "gap":
                first, last = frame["from"], frame["to"]
                assert sum(frame["lost"].values()) == last - first + 1
                assert 0 <= frame["critical"] <= last - first + 1
            else:
                last = frame["seq"]
                first = frame["merged"]["from"] if "merged" in frame else last
                assert "merged" not in frame or frame["merged"]["n"] == last - first > 0
            assert first == cursor + 1
            assert last >= first
            cursor = last
        assert cursor == after

    def check_frames(self, box: Mailbox, frames: list[dict[str, Any]], pieces: list[Piece]) -> None:
        events = [
            (
                f["merged"]["from"] if "merged" in f else f["seq"],
                f["seq"],
                f["type"],
                f["payload"],
                f.get("critical", False),
                f.get("truncated", False),
            )
            for f in frames
            if f["t"] == "event"
        ]
        assert events == [
            (p.first, p.last, p.type, p.payload, bool(p.critical), p.truncated)
            for p in pieces
            if p.reason is None
        ]
        told = [f for f in frames if f["t"] == "gap"]
        missing = [p for p in pieces if p.reason is not None]
        if self.exact(box):
            assert [(f["from"], f["to"], f["reason"], f["lost"], f["critical"]) for f in told] == [
                (p.first, p.last, p.reason, p.lost, p.critical) for p in missing
            ]
        for piece in missing:
            over = [f for f in told if f["from"] <= piece.last and f["to"] >= piece.first]
            assert all(GRAVITY[f["reason"]] >= GRAVITY[piece.reason or ""] for f in over)
        assert sum(f["critical"] for f in told) >= sum(p.critical for p in missing)

    @precondition(lambda self: self.linked())
    @rule(who=st.integers(0, 9), lag=st.sampled_from([0, 0, 1, 3]))
    def process(self, who: int, lag: int) -> None:
        """As a client does it: what is there is taken, and most of it acked."""
        tab = self.pick(who)
        self.do_take(tab, PLENTY)
        self.do_ack(tab, max(0, tab.reader.cursor - lag))

    @precondition(lambda self: self.linked())
    @rule(
        who=st.integers(0, 9),
        of=st.sampled_from(["cursor", "cursor", "top", "acked", "half"]),
        off=st.integers(-1, 1),
    )
    def ack(self, who: int, of: str, off: int) -> None:
        tab = self.pick(who)
        reader = tab.reader
        half = (reader.acked + reader.cursor) // 2
        self.do_ack(tab, max(0, (half if of == "half" else getattr(reader, of)) + off))

    def do_ack(self, tab: Tab, seq: int) -> None:
        reader = tab.reader
        if seq > reader.top:
            with pytest.raises(Impossible):
                tab.session.ack(seq, self.now)
            return
        before = reader.acked
        self.model.ack(reader, seq)
        assert tab.session.ack(seq, self.now) == (reader.acked > before)
        box = tab.session.box
        self.diary.answered(box, tab.session.id, self.now, "acked", before + 1, reader.acked)
        reader.retries = {n: tries for n, tries in reader.retries.items() if n > reader.acked}

    @precondition(lambda self: self.linked())
    @rule(who=st.integers(0, 9), nth=st.integers(0, 12), again=st.booleans())
    def nack(self, who: int, nth: int, again: bool) -> None:
        tab = self.pick(who)
        reader = tab.reader
        known = [seq for seq in tab.sent if seq > reader.acked]
        seq = known[nth % len(known)] if known and nth < 10 else max(0, reader.cursor + nth - 10)
        first = seq
        if (frame := tab.sent.get(seq)) is not None and "merged" in frame:
            first = frame["merged"]["from"]
        in_flight = reader.acked < seq <= reader.cursor
        held = all(reader.log.at(n) is not None for n in range(first, seq + 1))
        if not in_flight:
            with pytest.raises(Impossible):
                tab.session.nack(seq, self.now)
        elif frame is not None:
            assert tab.session.nack(seq, self.now) == held
            if held:
                self.diary.answered(tab.session.box, tab.session.id, self.now, "nacked", first, seq)
            if held and again:
                self.do_redeliver(tab)

    @precondition(lambda self: self.linked())
    @rule(who=st.integers(0, 9))
    def redeliver(self, who: int) -> None:
        self.do_redeliver(self.pick(who))

    def do_redeliver(self, tab: Tab) -> None:
        session, reader = tab.session, tab.reader
        for raw in session.redeliver(self.now):
            frame = json.loads(raw)
            retry = frame.pop("retry")
            seq = frame["seq"]
            assert reader.acked < seq <= reader.cursor
            assert frame == tab.sent[seq]
            assert retry == reader.retries.get(seq, 0) + 1
            reader.retries[seq] = retry
            first = frame["merged"]["from"] if "merged" in frame else seq
            self.diary.sent_again(session.box, session.id, self.now, first, seq, retry)
        assert session.redeliver(self.now) == []
        assert session.deadline() > self.now or session.exhausted(self.now)

    # -- time

    @rule(by=st.sampled_from([0.0, 0.1, 0.5, 1.0, 4.0, 11.0, 40.0]), sweep=st.booleans())
    def advance(self, by: float, sweep: bool) -> None:
        self.now += by
        if sweep:
            self.sweep()

    def sweep(self) -> None:
        for box in self.buffer.mailboxes.values():
            box.sweep(self.now)
        self.model.sweep(self.now)

    @rule()
    def expire_sessions(self) -> None:
        due = [
            tab
            for tab in self.tabs
            if not tab.reader.linked and tab.reader.parked_at + self.config.session_ttl <= self.now
        ]
        assert set(self.pool.expired(self.now)) == {tab.session for tab in due}
        for session in self.pool.expired(self.now):
            self.end(next(tab for tab in due if tab.session is session))

    @rule()
    def time_out_confirmations(self) -> None:
        self.confirmations.expire(self.now)
        self.model.time_out(self.now)
        assert self.confirmations.deadline > self.now

    # -- what must always hold

    @invariant()
    def the_diary_is_kept(self) -> None:
        self.diary.look(self.now)

    @invariant()
    def logs_are_the_same(self) -> None:
        assert set(self.buffer.mailboxes) == set(self.model.logs)
        for user, log in self.model.logs.items():
            box = self.buffer.mailboxes[user]
            assert (box.head, box.sent_high) == (log.head, log.sent_high)
            assert [
                (e.first, e.seq, e.id, e.settled, e.superseded, e.confirmed_at is not None, e.size)
                for e in box.entries.values()
            ] == [(h.first, h.seq, h.id, h.settled, h.superseded, h.confirmed, h.size) for h in log.held]
            for entry, held in zip(box.entries.values(), log.held, strict=True):
                assert entry.first_sent == held.first_sent
                assert entry.timed_out == held.timed_out
            assert set(box._keys.values()) <= set(box.entries.values())

    @invariant()
    def caps_hold(self) -> None:
        config, books = self.config, self.buffer.books
        for box in self.buffer.mailboxes.values():
            entries = list(box.entries.values())
            assert len(entries) <= config.max_events_per_user
            assert box.bytes == sum(e.size for e in entries) <= config.max_bytes_per_user
            firm = [e for e in entries if e.retention == FIRM and not e.settled]
            assert (box.firm_events, box.firm_bytes) == (len(firm), sum(e.size for e in firm))
            assert box.unconfirmed == sum(e.tracked and e.confirmed_at is None for e in entries)
        boxes = self.buffer.mailboxes.values()
        assert books.events == sum(len(box.entries) for box in boxes) <= config.max_events
        assert books.bytes == sum(box.bytes for box in boxes) <= config.max_bytes
        assert books.firm_events == sum(box.firm_events for box in boxes)
        assert books.firm_bytes == sum(box.firm_bytes for box in boxes)

    @invariant()
    def the_books_balance(self) -> None:
        books, model = self.buffer.books, self.model
        assert books.balanced
        held = [h for h in model.everything() if not h.settled]
        assert books.held == sum(h.seq - h.first + 1 for h in held)
        assert (books.accepted, books.settled) == (model.accepted, model.settled)
        assert (books.evicted, books.expired, books.superseded) == tuple(model.lost.values())
        assert (books.merged, books.dead_letters) == (model.merged, model.dead_letters)
        assert len(books.dead) == model.dead_letters
        assert books.history == len(model.history)
        figures = self.confirmations
        assert (figures.confirmed, figures.late, figures.timed_out) == (
            model.confirmed,
            model.late,
            model.timed_out,
        )

    @invariant()
    def queues_hold_what_they_should(self) -> None:
        order = [(entry.first, entry.user) for entry in self.buffer._history]
        assert order == [(h.first, h.log.user) for h in self.model.history]
        for user, log in self.model.logs.items():
            box = self.buffer.mailboxes[user]
            lines = {cls: [e.first for e in box._retention.all(cls)] for cls in CLASSES}
            queues = {cls: line for cls, line in lines.items() if line}
            expected: dict[int, list[int]] = {}
            for held in log.held:
                if not held.settled and not held.superseded and held.retention != FIRM:
                    expected.setdefault(held.retention, []).append(held.first)
            if settled := [h.first for h in self.model.history if h.log is log]:
                expected[CLASS_SETTLED] = settled
            if old := [h.first for h in log.superseded_order if h in log.held and not h.settled]:
                expected[CLASS_SUPERSEDED] = old
            assert queues == expected

    @invariant()
    def every_seq_is_held_or_gone(self) -> None:
        for user, log in self.model.logs.items():
            box = self.buffer.mailboxes[user]
            held = [seq for e in box.entries.values() for seq in range(e.first, e.seq + 1)]
            gone: list[int] = []
            for run in box.gone._runs:
                seqs = range(run.first, run.last + 1)
                gone += seqs
                assert sum(run.lost.values()) == len(seqs)
                truth = [log.gone[seq] for seq in seqs]
                assert run.critical == sum(critical for _, _, critical in truth)
                assert {kind: [t for _, t, _ in truth].count(kind) for kind in run.lost} == run.lost
                if self.exact(box):
                    assert {reason for reason, _, _ in truth} == {run.reason}
            assert gone == sorted(gone)
            assert sorted(held + gone) == list(range(1, box.head + 1))

    @invariant()
    def sessions_are_the_same(self) -> None:
        for tab in self.tabs:
            session, reader = tab.session, tab.reader
            assert (session.acked, session.cursor, session.top) == (reader.acked, reader.cursor, reader.top)
            assert reader.base <= session.acked <= session.top <= session.box.head
            assert reader.base <= session.cursor <= session.top
            assert {n for n in session.skipped if n > session.acked} == {
                n for n in reader.skipped if n > reader.acked
            }
            assert (session.link is not None) == reader.linked
            assert session.dormant == (not reader.linked or reader.blocked)
        for user, log in self.model.logs.items():
            sessions = self.buffer.mailboxes[user].sessions
            assert list(sessions) == list(log.readers)
            assert len(sessions) <= self.config.max_connections_per_user
        assert self.pool.connected == len(self.linked()) <= self.config.max_connections
        assert self.pool.parked == len(self.tabs) - len(self.linked())

    @invariant()
    def nothing_is_left_to_tidy(self) -> None:
        """What is confirmed and owed to nobody is settled; what is superseded and owed to nobody has gone."""
        for box in self.buffer.mailboxes.values():
            for entry in box.entries.values():
                owed = any(session.owes(entry) for session in box.sessions.values())
                assert entry.settled or owed or (entry.confirmed_at is None and not entry.superseded)


CoreMachine.TestCase.settings = settings(
    max_examples=3000 if LONG else 250,
    stateful_step_count=150 if LONG else 60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestCore: Callable[..., Any] = CoreMachine.TestCase
