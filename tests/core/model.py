"""A naive model of the core: plain lists, everything found anew by looking at all of it. Slow, and plainly right.

The model follows the words of the design, not the code: what is accepted, who goes when room is needed, what a
session is given, what settles. `tests/core/test_machine.py` does everything twice, here and in the core, and compares.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import attrs

from trio_ws.config import Config
from trio_ws.core import wire
from trio_ws.core.entry import FIRM, Entry

GRAVITY = {"settled": 0, "superseded": 1, "evicted": 2, "expired": 3}


def dumps(value: object) -> bytes:
    """The JSON of `value`, as the wire has it."""
    return json.dumps(value, separators=(",", ":")).encode()


def make_entry(
    id: str = "e",
    type: str = "note",
    payload: Any = None,
    *,
    retention: int = 3,
    tracked: bool = False,
    now: float = 0.0,
    ttl: float = math.inf,
    key: str | None = None,
    merge: bool = False,
    owned_id: bool = False,
    truncated: bool = False,
) -> Entry:
    """An entry as the hub's intake makes it."""
    encoded = dumps(payload)
    tail = wire.event_tail(id, type, encoded, now)
    tracked = tracked or retention == FIRM
    return Entry(
        id=id,
        type=type,
        tail=tail,
        size=len(tail) + (len(encoded) if merge else 0),
        bare=not (tracked or merge or truncated),
        retention=retention,
        tracked=tracked,
        ts=now,
        accepted_at=now,
        expires_at=now + ttl,
        key=None if retention == FIRM else key,
        merge=merge,
        payload=encoded if merge else None,
        owned_id=owned_id,
        truncated=truncated,
    )


@attrs.define(eq=False)
class Held:
    """What stands in a log: one event, or deltas that were joined."""

    log: Log
    first: int
    seq: int
    id: str
    type: str
    payload: Any
    retention: int
    tracked: bool
    key: str | None
    merge: bool
    truncated: bool
    accepted_at: float
    expires_at: float
    confirmed: bool = False
    settled: bool = False
    superseded: bool = False
    first_sent: float | None = None
    timed_out: bool = False

    @property
    def firm(self) -> bool:
        return self.retention == FIRM and not self.settled

    @property
    def size(self) -> int:
        text = dumps(self.payload)
        return len(wire.event_tail(self.id, self.type, text, self.last_ts)) + (len(text) if self.merge else 0)

    last_ts: float = 0.0


@attrs.define(eq=False)
class Reader:
    """A session."""

    id: str
    log: Log
    base: int
    plain: bool
    acked: int = 0
    cursor: int = 0
    top: int = 0
    linked: bool = False
    blocked: bool = False
    parked_at: float = 0.0
    pending_upto: int = 0
    live_at: int | None = None
    skipped: set[int] = attrs.field(factory=set)
    retries: dict[int, int] = attrs.field(factory=dict)

    def owes(self, held: Held) -> bool:
        """Whether it is still to process `held`."""
        return held.seq > self.acked and held.first > self.base and held.first not in self.skipped

    def spared(self, held: Held, now: float) -> str | None:
        """Why it is not given `held`."""
        if held.superseded:
            return "superseded"
        if held.seq <= self.acked or (held.seq <= self.pending_upto and held.confirmed):
            return "settled"
        if held.expires_at <= now and not held.settled:
            return "settled" if held.confirmed else "expired"
        return None


@attrs.define(eq=False)
class Log:
    """One user's log."""

    user: str
    head: int = 0
    sent_high: int = 0
    held: list[Held] = attrs.field(factory=list)
    gone: dict[int, tuple[str, str, bool]] = attrs.field(factory=dict)  # seq -> reason, type, critical loss
    readers: dict[str, Reader] = attrs.field(factory=dict)
    superseded_order: list[Held] = attrs.field(factory=list)

    def at(self, seq: int) -> Held | None:
        """What stands at `seq`."""
        return next((h for h in self.held if h.first <= seq <= h.seq), None)

    def boundary(self, seq: int) -> int:
        """Where to go on from for one who says `seq`: not amid joined deltas."""
        inside = self.at(seq + 1)
        return inside.first - 1 if inside is not None else seq

    def bytes(self) -> int:
        return sum(h.size for h in self.held)


@attrs.define
class Piece:
    """What a session is given at once: an event of the seqs `first` to `last`, or word that they will not come."""

    first: int
    last: int
    reason: str | None = None
    payload: Any = None
    type: str = ""
    critical: int = 0
    truncated: bool = False
    lost: dict[str, int] = attrs.field(factory=dict)


class Model:
    """All logs, within the bounds of `config`."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.logs: dict[str, Log] = {}
        self.history: list[Held] = []
        self.lost = {"evicted": 0, "expired": 0, "superseded": 0}
        self.accepted = self.settled = self.merged = self.dead_letters = 0
        self.confirmed = self.late = self.timed_out = 0

    def log(self, user: str) -> Log:
        return self.logs.setdefault(user, Log(user))

    def everything(self) -> Iterator[Held]:
        for log in self.logs.values():
            yield from log.held

    # -- publishing

    def publish(self, user: str, entry: Entry, payload: Any, choose: Callable[[list[Log]], Log]) -> bool:
        """Accept an event, or not.

        Args:
          choose: which of these logs, all equally full, lets something go: the design leaves that open.
        """
        log, config = self.log(user), self.config
        held = Held(
            log=log,
            first=0,
            seq=0,
            id=entry.id,
            type=entry.type,
            payload=payload,
            retention=entry.retention,
            tracked=entry.tracked,
            key=entry.key,
            merge=entry.merge,
            truncated=entry.truncated,
            accepted_at=entry.accepted_at,
            expires_at=entry.expires_at,
        )
        held.last_ts = entry.ts
        assert held.size == entry.size
        size = held.size

        def too_firm(of: list[Held], events: int, size_limit: int) -> bool:
            firm = [h for h in of if h.firm]
            return len(firm) >= events or sum(h.size for h in firm) + size > size_limit

        while too_firm(log.held, config.max_events_per_user, config.max_bytes_per_user):
            if not self.relieve(log):
                return False
        while too_firm(list(self.everything()), config.max_events, config.max_bytes):
            if not (self.relieve(log) or any(self.relieve(other) for other in self.logs.values())):
                return False

        if held.key is not None and not held.merge:
            self.supersede(log, held)
        while len(log.held) >= config.max_events_per_user or log.bytes() + size > config.max_bytes_per_user:
            self.make_room(log, history=True)

        def total_bytes() -> int:
            return sum(h.size for h in self.everything())

        while len(list(self.everything())) >= config.max_events:
            self.make_room_in_all(lambda log: len(log.held), choose)
        while total_bytes() + size > config.max_bytes:
            self.make_room_in_all(lambda log: log.bytes(), choose)
        log.head += 1
        held.first = held.seq = log.head
        log.held.append(held)
        self.accepted += 1
        return True

    def supersede(self, log: Log, new: Held) -> None:
        for old in list(log.held):
            if (old.type, old.key) != (new.type, new.key) or old.merge or old.settled or old.superseded:
                continue
            if old.first > log.sent_high:
                self.lose(old, "superseded")
            else:
                old.superseded = True
                log.superseded_order.append(old)
                self.tidy(log)

    def relieve(self, log: Log) -> bool:
        for held in log.held:
            awake = [r for r in log.readers.values() if r.linked and not r.blocked]
            if held.firm and held.confirmed and not any(r.owes(held) for r in awake):
                self.settle(held)
                return True
        return False

    def victim(self, log: Log, history: bool) -> Held | list[Held] | None:
        """Who goes next: an entry, or a run of deltas that becomes one."""
        if history:
            mine = [h for h in self.history if h.log is log]
            if mine:
                return mine[0]
        superseded = [h for h in log.superseded_order if h in log.held and not h.settled]
        if superseded:
            return superseded[0]
        for held in log.held:
            if held.first > log.sent_high and len(run := self.run(log, held)) > 1:
                return run
        for retention in (2, 3, 4):
            for held in log.held:
                if held.retention == retention and not held.settled:
                    return held
        return None

    def make_room(self, log: Log, history: bool) -> None:
        victim = self.victim(log, history)
        assert victim is not None
        if isinstance(victim, list):
            self.join(log, victim)
        elif victim.settled:
            self.forget(victim)
        else:
            self.lose(victim, "superseded" if victim.superseded else "evicted")

    def make_room_in_all(self, measure: Callable[[Log], int], choose: Callable[[list[Log]], Log]) -> None:
        if self.history:
            self.forget(self.history[0])
            return
        able = [log for log in self.logs.values() if any(not h.firm for h in log.held)]
        most = max(measure(log) for log in able)
        fullest = [log for log in able if measure(log) == most]
        self.make_room(fullest[0] if len(fullest) == 1 else choose(fullest), history=False)

    def run(self, log: Log, start: Held) -> list[Held]:
        """The deltas from `start` on that may become one."""
        run, size = [start], start.size
        for held in log.held[log.held.index(start) + 1 :]:
            size += len(dumps(held.payload))
            alike = (
                start.merge
                and held.merge
                and (start.type, start.key, start.retention) == (held.type, held.key, held.retention)
                and type(start.payload) is type(held.payload)
                and isinstance(held.payload, str | dict)
            )
            if held.first != run[-1].seq + 1 or not alike or size > self.config.max_event_bytes:
                break
            run.append(held)
        return run

    def join(self, log: Log, run: list[Held]) -> None:
        new = attrs.evolve(
            run[-1],
            first=run[0].first,
            payload=concatenated([h.payload for h in run]),
            truncated=any(h.truncated for h in run),
            accepted_at=run[0].accepted_at,
            expires_at=max(h.expires_at for h in run),
        )
        at = log.held.index(run[0])
        log.held[at : at + len(run)] = [new]
        self.merged += len(run) - 1

    # -- what goes

    def settle(self, held: Held) -> None:
        held.settled = True
        self.settled += held.seq - held.first + 1
        self.history.append(held)

    def forget(self, held: Held) -> None:
        self.history.remove(held)
        self.leave(held, "settled")

    def lose(self, held: Held, reason: str) -> None:
        assert not held.settled
        assert held.retention != FIRM or reason == "expired"
        self.lost[reason] += held.seq - held.first + 1
        self.leave(held, reason)

    def leave(self, held: Held, reason: str) -> None:
        held.log.held.remove(held)
        for seq in range(held.first, held.seq + 1):
            held.log.gone[seq] = (reason, held.type, held.retention == FIRM and reason == "expired")

    def expire(self, held: Held) -> None:
        if held.confirmed:
            self.settle(held)
            self.forget(held)
        else:
            self.dead_letters += held.retention == FIRM
            self.lose(held, "expired")

    def sweep(self, now: float) -> None:
        for held in list(self.everything()):
            if held.settled:
                if held.accepted_at + self.config.event_ttl <= now:
                    self.forget(held)
            elif held.expires_at <= now:
                self.expire(held)

    def tidy(self, log: Log) -> None:
        """Settle what is confirmed and owed to nobody; drop what is superseded and owed to nobody."""
        for held in list(log.held):
            if held.settled or any(r.owes(held) for r in log.readers.values()):
                continue
            if held.confirmed:
                self.settle(held)
            elif held.superseded:
                self.lose(held, "superseded")

    # -- sessions

    def first_unconfirmed(self, log: Log) -> int:
        return next((h.first for h in log.held if not h.confirmed), log.head + 1)

    def attach(self, reader: Reader, position: int, pending: bool) -> None:
        log = reader.log
        log.readers[reader.id] = reader
        reader.linked, reader.blocked = True, False
        reader.cursor = log.boundary(max(position, reader.acked))
        # What it claims to have and was never sent is not its to confirm.
        reader.skipped |= {h.first for h in log.held if reader.top < h.first and h.seq <= reader.cursor}
        self.tidy(log)
        reader.top = max(reader.top, reader.cursor)
        log.sent_high = max(log.sent_high, reader.cursor)
        reader.live_at = None if reader.plain else log.head
        reader.pending_upto = log.head if pending else 0
        reader.retries = {}

    def end(self, reader: Reader) -> None:
        reader.log.readers.pop(reader.id, None)
        reader.linked = False
        self.tidy(reader.log)

    def take(self, reader: Reader, upto: int, now: float) -> list[Piece]:
        """What `reader` is given next, until its cursor is `upto`; neighbouring gaps of one reason come as one."""
        log, pieces = reader.log, list[Piece]()
        while reader.cursor < upto:
            seq = reader.cursor + 1
            held = log.at(seq)
            if held is None:
                reason, kind, critical = log.gone[seq]
                self._gap(pieces, Piece(seq, seq, reason, critical=int(critical), lost={kind: 1}))
                reader.cursor = seq
                continue
            assert held.first == seq
            if (why := reader.spared(held, now)) is not None:
                width = held.seq - held.first + 1
                lost = width if why == "expired" and held.retention == FIRM else 0
                self._gap(pieces, Piece(seq, held.seq, why, critical=lost, lost={held.type: width}))
                reader.cursor = held.seq
                if why == "superseded":
                    reader.skipped.add(held.first)
                    self.tidy(log)
                elif held.expires_at <= now and not held.settled:
                    self.expire(held)
                continue
            run = self.run(log, held) if held.merge else [held]
            spared = [i for i, h in enumerate(run) if reader.spared(h, now) is not None]
            run = run[: spared[0]] if spared else run
            pieces.append(
                Piece(
                    seq,
                    run[-1].seq,
                    payload=concatenated([h.payload for h in run]),
                    type=held.type,
                    critical=int(held.retention == FIRM),
                    truncated=any(h.truncated for h in run),
                )
            )
            self.merged += len(run) - 1
            for each in run:
                reader.skipped.discard(each.first)  # whoever claimed to have it is sent it after all
                if each.first_sent is None:
                    each.first_sent = now
            reader.cursor = run[-1].seq
        reader.top = max(reader.top, reader.cursor)
        log.sent_high = max(log.sent_high, reader.cursor)
        return pieces

    def _gap(self, pieces: list[Piece], new: Piece) -> None:
        last = pieces[-1] if pieces else None
        if last is not None and last.reason == new.reason:
            last.last = new.last
            last.critical += new.critical
            for kind, count in new.lost.items():
                last.lost[kind] = last.lost.get(kind, 0) + count
        else:
            pieces.append(new)

    def ack(self, reader: Reader, seq: int) -> None:
        log = reader.log
        seq = log.boundary(seq)
        if seq <= reader.acked:
            return
        for held in log.held:
            if reader.acked < held.first and held.seq <= seq and held.first not in reader.skipped:
                if not held.confirmed:
                    self.confirmed += held.tracked
                    self.late += held.tracked and held.timed_out
                held.confirmed = True
        reader.acked = seq
        self.tidy(log)

    def time_out(self, now: float) -> None:
        """Mark the confirmations that are overdue."""
        for held in self.everything():
            overdue = held.first_sent is not None and held.first_sent + self.config.confirm_timeout <= now
            if held.tracked and overdue and not held.confirmed and not held.timed_out:
                held.timed_out = True
                self.timed_out += 1


def concatenated(payloads: list[Any]) -> Any:
    """The payloads of neighbouring deltas as one."""
    if len(payloads) == 1:
        return payloads[0]
    if isinstance(payloads[0], str):
        return "".join(payloads)
    return {"text": "".join(payload["text"] for payload in payloads)}
