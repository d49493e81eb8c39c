"""Bugs in a user's log: who makes room, what is joined, superseded, expired and remembered, and what is told of it."""

from __future__ import annotations

import math
from typing import Any

from trio_ws.core import deltas
from trio_ws.core.books import Books
from trio_ws.core.buffer import Buffer, _Fullest
from trio_ws.core.entry import CLASS_SETTLED, EVICTED, EXPIRED, SUPERSEDED, Entry
from trio_ws.core.gaps import Gone, Run
from trio_ws.core.mailbox import Mailbox
from trio_ws.core.remembered import Remembered
from trio_ws.core.retention import Retention

from .planting import Patch, around


def one_over_the_cap(patch: Patch) -> None:
    """A mailbox takes one event more than it may. Bounds."""

    def less(make: Any, self: Buffer, box: Mailbox, size: int) -> None:
        if len(box.entries) > self.config.max_events_per_user:
            make(self, box, size)

    around(patch, Buffer, "_make_room", less)


def bytes_are_not_bounded(patch: Patch) -> None:
    """Room is made for the number of events, never for their bytes. Bounds."""

    def count_only(make: Any, self: Buffer, box: Mailbox, size: int) -> None:
        if len(box.entries) >= self.config.max_events_per_user:
            make(self, box, 0)

    around(patch, Buffer, "_make_room", count_only)


def the_emptiest_makes_room(patch: Patch) -> None:
    """Room in all is made from the emptiest mailbox, not from the fullest. Who makes room."""
    around(patch, _Fullest, "__init__", lambda init, self, measure: init(self, lambda box: -measure(box)))


def the_highest_class_goes(patch: Patch) -> None:
    """HIGH goes before LOW when room is needed. Who makes room."""

    def highest(oldest: Any, self: Retention, cls: int) -> Any:
        found = [oldest(self, other) for other in (4, 3, 2)] if cls in (2, 3, 4) else [oldest(self, cls)]
        return next((entry for entry in found if entry is not None), None)

    around(patch, Retention, "oldest", highest)


def the_newest_of_a_class_goes(patch: Patch) -> None:
    """Of a class, the newest goes and not the oldest. Who makes room."""

    def newest(oldest: Any, self: Retention, cls: int) -> Any:
        line = self.all(cls)
        if cls <= CLASS_SETTLED + 1 or len(line) < 2:
            return oldest(self, cls)
        return line[-1]

    around(patch, Retention, "oldest", newest)


def history_outlives_what_is_held(patch: Patch) -> None:
    """Where room is needed, what has settled stays, and what has not goes. Who makes room."""

    def spare(forget_oldest: Any, self: Mailbox) -> None:
        if not self.make_room():
            forget_oldest(self)

    around(patch, Mailbox, "forget_oldest", spare)


def relief_takes_the_unconfirmed(patch: Patch) -> None:
    """To spare a publisher a wait, critical events are settled that nobody confirmed. Only acks confirm."""

    def relieve(original: Any, self: Mailbox) -> bool:
        if original(self):
            return True
        for entry in self.entries.values():
            if entry.critical and not entry.settled and entry.first_sent is not None:
                self._settle([entry])
                return True
        return False

    around(patch, Mailbox, "relieve", relieve)


def nobody_is_relieved(patch: Patch) -> None:
    """What only parked sessions still owe holds up publishers. Nobody waits in vain."""
    patch.setattr(Mailbox, "relieve", lambda self: False)


def an_ack_settles_for_all(patch: Patch) -> None:
    """What one tab acks is settled, though another tab still owes it. Settling."""
    patch.setattr(Mailbox, "_owed", lambda self, entry: entry.confirmed_at is None)


def an_ack_settles_nothing_with_two_tabs(patch: Patch) -> None:
    """Once there was a second session, acks confirm and never settle. Settling."""

    def owed(original: Any, self: Mailbox, entry: Entry) -> bool:
        return len(self.sessions) > 1 or original(self, entry)

    around(patch, Mailbox, "_owed", owed)


def what_ended_sessions_owed_stays(patch: Patch) -> None:
    """When a session ends, what it alone still owed does not settle. Settling."""

    def release(original: Any, self: Mailbox, session: Any) -> None:
        disown, Mailbox.disown = Mailbox.disown, lambda self, first: None  # type: ignore[method-assign]
        try:
            original(self, session)
        finally:
            Mailbox.disown = disown  # type: ignore[method-assign]

    around(patch, Mailbox, "release", release)


def deltas_of_two_streams_are_joined(patch: Patch) -> None:
    """Deltas of two types, or of two keys, are put together. An event comes as it was published."""

    def careless(original: Any, start: Entry, entry: Entry) -> bool:
        if not (start.merge and entry.merge):
            return False
        return start.retention == entry.retention

    around(patch, deltas, "_joinable", careless)


def deltas_are_joined_across_a_barrier(patch: Patch) -> None:
    """A HIGH note between two deltas becomes part of them. An event comes as it was published."""
    patch.setattr(deltas, "_joinable", lambda start, entry: start.merge and entry.payload is not None)

    def accept(original: Any, self: Buffer, box: Mailbox, entry: Entry) -> bool:
        if entry.payload is None and not entry.tracked and entry.retention == 4:
            entry.payload = entry.tail[entry.tail.index(b'"payload":') + 10 : entry.tail.rindex(b',"ts"')]
        done: bool = original(self, box, entry)
        return done

    around(patch, Buffer, "accept", accept)


def the_fourth_delta_is_lost(patch: Patch) -> None:
    """Where more than three deltas are put together, the fourth one's text is lost. An event comes as published."""
    around(patch, deltas, "_append", lambda append, run: append(run[:3] + run[4:]))


def joined_though_sent(patch: Patch) -> None:
    """Deltas are joined in the log although a session was sent some of them. The accounting rule."""
    around(patch, deltas.Deltas, "next_run", lambda original, self, sent_high: original(self, 0))
    around(patch, deltas.Deltas, "note", lambda note, self, last, entry, high: note(self, last, entry, 0))


def joined_expires_with_the_first(patch: Patch) -> None:
    """Joined deltas live as long as the shortest-lived of them. Nothing expires before its time."""

    def joined(original: Any, run: list[Entry]) -> Entry:
        entry: Entry = original(run)
        entry.expires_at = min(delta.expires_at for delta in run)
        return entry

    patch.setattr("trio_ws.core.mailbox.joined", lambda run, original=deltas.joined: joined(original, run))


def keys_supersede_across_types(patch: Patch) -> None:
    """An event takes the place of one of another type that has the same key. Reasons."""

    def supersede(original: Any, self: Mailbox, entry: Entry) -> None:
        original(self, entry)
        if entry.key is None or entry.merge or entry.critical:
            return
        for (type, key), old in list(self._keys.items()):
            if key == entry.key and type != entry.type and not old.settled and old.first > self.sent_high:
                self._drop(old, SUPERSEDED)

    around(patch, Mailbox, "supersede", supersede)


def superseded_too_soon(patch: Patch) -> None:
    """Every second keyed event goes as superseded at once where another key comes. Reasons."""

    def supersede(original: Any, self: Mailbox, entry: Entry) -> None:
        key = entry.key
        if key is not None and self.head % 4 == 3:
            entry.key = next((k for t, k in self._keys if t == entry.type), key)
        try:
            original(self, entry)
        finally:
            entry.key = key

    around(patch, Mailbox, "supersede", supersede)


def history_is_never_swept(patch: Patch) -> None:
    """What has settled is never let go. Nothing is left."""
    patch.setattr(Mailbox, "sweep", lambda self, now: None)


def times_to_live_are_rounded_down(patch: Patch) -> None:
    """Events expire up to a fifth of their time too early. Nothing expires before its time."""

    def sweep(original: Any, self: Mailbox, now: float) -> None:
        for entry in self.entries.values():
            if not entry.settled and entry.expires_at < math.inf:
                left = entry.expires_at - now
                if 0 < left < 0.2 * (entry.expires_at - entry.accepted_at):
                    entry.expires_at = self.next_expiry = now
        original(self, now)

    around(patch, Mailbox, "sweep", sweep)


def what_has_expired_is_sent(patch: Patch) -> None:
    """An event whose time has passed while its session was away is sent all the same. Nothing is sent expired."""
    from trio_ws.core.session import Session

    def spared(original: Any, self: Session, entry: Entry, now: float) -> Any:
        reason = original(self, entry, now)
        return None if reason == EXPIRED and entry.expires_at > now - 30 else reason

    around(patch, Session, "_spared", spared)
    patch.setattr(Mailbox, "on_timer", lambda self, now: math.inf)


def criticals_expire_with_the_rest(patch: Patch) -> None:
    """A critical event lives no longer than others do. Nothing critical is lost."""
    from trio_ws.hub.intake import Intake

    def entry(original: Any, self: Intake, *args: Any, **options: Any) -> Entry:
        made: Entry = original(self, *args, **options)
        made.expires_at = min(made.expires_at, made.accepted_at + self._config.event_ttl)
        return made

    around(patch, Intake, "entry", entry)


def keys_are_forgotten(patch: Patch) -> None:
    """An idempotency key is known only while nobody has confirmed its event. Idempotency."""

    def find(original: Any, self: Mailbox, id: str) -> Entry | None:
        entry: Entry | None = original(self, id)
        return entry if entry is not None and entry.confirmed_at is None else None

    around(patch, Mailbox, "find", find)


def keys_of_joined_deltas_are_forgotten(patch: Patch) -> None:
    """The key of a delta that was joined into a later one is forgotten. Idempotency."""

    def joined(original: Any, self: Remembered, entry: Entry) -> None:
        original(self, entry)
        if self._by_id is not None:
            for id in [id for id, known in self._by_id.items() if known.into is not None]:
                del self._by_id[id]

    around(patch, Remembered, "joined", joined)


def gaps_give_one_reason_for_all(patch: Patch) -> None:
    """What was evicted is told as superseded where it borders on that. Reasons."""
    around(
        patch,
        Gone,
        "add",
        lambda add, self, first, last, kind, reason, critical, agent=None: add(
            self,
            first,
            last,
            kind,
            "superseded" if (run := self.at(first - 1)) and run.reason == "superseded" else reason,
            critical,
            agent,
        ),
    )


def gaps_name_one_type(patch: Patch) -> None:
    """A gap over events of several types counts all of them as the first one's. Reasons."""

    def absorb(original: Any, self: Run, other: Run) -> None:
        kind = next(iter(self.lost))
        original(self, other)
        self.lost = {kind: sum(self.lost.values())}

    around(patch, Run, "absorb", absorb)


def dead_letters_are_not_counted(patch: Patch) -> None:
    """A critical event that expires is told as one of no importance. Reasons, figures."""

    def expire(original: Any, self: Mailbox, entry: Entry) -> None:
        before = self._books.dead_letters
        original(self, entry)
        self._books.dead_letters = before

    around(patch, Mailbox, "expire", expire)


def a_joined_delta_is_lost_in_the_books(patch: Patch) -> None:
    """What was evicted as several joined deltas is counted as one. The balance."""

    def lose(original: Any, self: Books, entry: Entry, reason: str) -> None:
        original(self, entry, reason)
        if reason == EVICTED and entry.weight > 1:
            self.evicted -= entry.weight - 1

    around(patch, Books, "lose", lose)


def two_users_share_a_log(patch: Patch) -> None:
    """Every third user reads the log of the first. An event comes to its own user."""

    def mailbox(original: Any, self: Buffer, user: str) -> Mailbox:
        box: Mailbox = original(self, "user0" if user == "user2" else user)
        return box

    around(patch, Buffer, "mailbox", mailbox)


def mailboxes_are_never_forgotten(patch: Patch) -> None:
    """The mailbox of a user who has gone stays. Nothing is left."""
    patch.setattr(Buffer, "close", lambda self, box: None)
