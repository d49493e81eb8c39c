"""Bugs in sessions: where a replay begins, what is acked and sent again, who may come and who has to go."""

from __future__ import annotations

import math
from typing import Any

from trio_ws.core.confirmations import Confirmations
from trio_ws.core.flight import Flight
from trio_ws.core.mailbox import Mailbox
from trio_ws.core.pool import Admitted, Ask, Pool, Refused
from trio_ws.core.session import Session
from trio_ws.core.timers import Timed, Timers

from .planting import Patch, around


def a_gap_of_one_is_not_sent(patch: Patch) -> None:
    """A gap over a single seq is not told. The accounting rule."""

    def put(original: Any, self: Session, gap: Any, now: float, frames: list[bytes]) -> None:
        if gap is None or gap.first != gap.last:
            original(self, gap, now, frames)

    around(patch, Session, "_put_gap", put)


def no_replay(patch: Patch) -> None:
    """Who resumes goes on at the head, and is told that this is where it was. The accounting rule."""

    def attach(original: Any, self: Session, link: Any, position: int, now: float, **options: Any) -> None:
        original(self, link, self.box.head if self.top > self.base else position, now, **options)

    around(patch, Session, "attach", attach)


def a_replay_begins_one_too_late(patch: Patch) -> None:
    """Who resumes with something in flight is not sent the first of it. The accounting rule, order."""

    def attach(original: Any, self: Session, link: Any, position: int, now: float, **options: Any) -> None:
        original(self, link, position + (position < self.top), now, **options)

    around(patch, Session, "attach", attach)


def a_replay_begins_with_what_was_acked(patch: Patch) -> None:
    """Who resumes is sent the last that it had acked once more. What is acked is not sent again."""

    def attach(original: Any, self: Session, link: Any, position: int, now: float, **options: Any) -> None:
        original(self, link, position, now, **options)
        if self.cursor == self.acked > self.base:
            self.cursor -= 1

    around(patch, Session, "attach", attach)


def one_in_seven_is_skipped(patch: Patch) -> None:
    """Now and then an event is passed over. The accounting rule."""

    def take(original: Any, self: Session, now: float, max_bytes: int) -> list[bytes]:
        if self.cursor % 7 == 5 and self.cursor + 1 in self.box.entries:
            self.cursor = self.top = self.box.entries[self.cursor + 1].seq
        frames: list[bytes] = original(self, now, max_bytes)
        return frames

    around(patch, Session, "take", take)


def gone_at_send(patch: Patch) -> None:
    """What is not critical is settled as it is sent, as if it were popped from a queue. Only acks confirm."""

    def take(original: Any, self: Session, now: float, max_bytes: int) -> list[bytes]:
        before = self.cursor
        frames: list[bytes] = original(self, now, max_bytes)
        for entry in list(self.box.within(before, self.cursor)):
            if (
                not entry.tracked
                and not entry.settled
                and not entry.superseded
                and len(self.box.sessions) == 1
            ):
                entry.confirmed_at = now
                self.box._settle([entry])
        return frames

    around(patch, Session, "take", take)


def fire_and_forget(patch: Patch) -> None:
    """What is in flight when a connection goes counts as acked. Only acks confirm."""

    def detach(original: Any, self: Session, now: float) -> None:
        if self.cursor > self.acked:
            self.ack(self.cursor, now)
        original(self, now)

    around(patch, Session, "detach", detach)


def an_ack_counts_for_all_tabs(patch: Patch) -> None:
    """What one tab acks counts as acked by the user's other tabs. Settling."""

    def ack(original: Any, self: Session, seq: int, now: float) -> bool:
        news: bool = original(self, seq, now)
        for other in list(self.box.sessions.values()):
            if other is not self and seq <= other.top:
                original(other, seq, now)
        return news

    around(patch, Session, "ack", ack)


def an_early_ack_is_ignored(patch: Patch) -> None:
    """An ack within a tenth of a second after the connection came has no effect. Settling."""

    def ack(original: Any, self: Session, seq: int, now: float) -> bool:
        early = self.top > self.base and now < self.connected_at + 0.1 and self.created_at < self.connected_at
        return not early and original(self, seq, now)

    around(patch, Session, "ack", ack)


def anything_may_be_acked(patch: Patch) -> None:
    """An ack above what was sent is taken for an ack of all that there is. Only acks confirm."""

    def ack(original: Any, self: Session, seq: int, now: float) -> bool:
        self.top = max(self.top, min(seq, self.box.head))
        self.cursor = max(self.cursor, min(seq, self.box.head))
        news: bool = original(self, min(seq, self.box.head), now)
        return news

    around(patch, Session, "ack", ack)


def what_was_told_as_superseded_is_confirmed(patch: Patch) -> None:
    """An ack also confirms what that session was told of in a gap only. Only acks confirm."""

    def acked(original: Any, self: Mailbox, session: Session, low: int, high: int, now: float) -> Any:
        session.skipped = set()
        return original(self, session, low, high, now)

    around(patch, Mailbox, "acked", acked)


def pending_begins_too_late(patch: Patch) -> None:
    """A new session that asks for what is pending begins after the first of it. Where a session begins."""
    first = Mailbox.first_unconfirmed.fget
    assert first is not None
    patch.setattr(Mailbox, "first_unconfirmed", property(lambda self: min(first(self) + 1, self.head + 1)))


def pending_is_not_kept_to(patch: Patch) -> None:
    """A new session that asks for what is pending is sent what was confirmed as well. Where a session begins."""

    def attach(original: Any, self: Session, link: Any, position: int, now: float, **options: Any) -> None:
        original(self, link, position, now, **(options | {"skip_confirmed": False}))

    around(patch, Session, "attach", attach)


def a_retry_is_not_marked(patch: Patch) -> None:
    """What is sent again comes as if it were new. The accounting rule, redelivery."""
    around(patch, Session, "_run_frame", lambda frame, self, run, retry=0: frame(self, run, 0))


def retries_are_not_counted(patch: Patch) -> None:
    """Each redelivery is called the first. Redelivery."""

    def again(original: Any, self: Flight, seq: int, now: float) -> int:
        original(self, seq, now)
        return 1

    around(patch, Flight, "again", again)


def the_last_retry_is_left_out(patch: Patch) -> None:
    """There is no redelivery after 5 s. Redelivery in time."""

    def init(original: Any, self: Flight, entries: Any, intervals: tuple[float, ...], now: float) -> None:
        original(self, entries, intervals[:-1], now)

    around(patch, Flight, "__init__", init)


def retries_come_early(patch: Patch) -> None:
    """A redelivery comes a tenth of a second before it is due. Redelivery."""

    def retry_at(original: Any, self: Flight) -> float:
        at: float = original(self) - 0.1
        return at

    around(patch, Flight, "_retry_at", retry_at)


def the_newest_is_sent_again(patch: Patch) -> None:
    """The newest of what is unacked is sent again, and not the oldest. Redelivery."""

    def due(original: Any, self: Flight, now: float) -> list[int]:
        seqs: list[int] = original(self, now)
        oldest = self._unacked[0][0] if self._unacked else None
        return [self._unacked[-1][0] if seq == oldest else seq for seq in seqs]

    around(patch, Flight, "due", due)


def the_last_acked_is_sent_again(patch: Patch) -> None:
    """An ack leaves the event that it names in flight. What is acked is not sent again."""

    def acked(original: Any, self: Flight, seq: int, now: float) -> None:
        kept = [item for item in self._unacked or () if item[0] == seq]
        original(self, seq, now)
        if self._unacked is not None:
            self._unacked.extendleft(kept)

    around(patch, Flight, "acked", acked)


def nacks_are_forgotten(patch: Patch) -> None:
    """What a client's handler failed on is not sent again. Redelivery in time."""

    def nacked(original: Any, self: Flight, seq: int, now: float) -> None:
        self.progress_at = now

    around(patch, Flight, "nacked", nacked)


def nacks_are_not_paced(patch: Patch) -> None:
    """What is nacked again and again is sent again at once each time. Redelivery."""

    def nacked(original: Any, self: Flight, seq: int, now: float) -> None:
        original(self, seq, now)
        self._nacked[seq] = now

    around(patch, Flight, "nacked", nacked)


def who_never_acks_is_kept(patch: Patch) -> None:
    """A connection that acks nothing through the whole schedule is not closed. Conduct."""
    patch.setattr(Flight, "_give_up_at", lambda self: math.inf)


def who_acks_slowly_is_closed(patch: Patch) -> None:
    """A connection that acks, but slowly, is closed with 4501 as if it never did. Conduct."""

    def give_up_at(original: Any, self: Flight) -> float:
        progress, self.progress_at = self.progress_at, -math.inf
        try:
            at: float = original(self)
            return at
        finally:
            self.progress_at = progress

    around(patch, Flight, "_give_up_at", give_up_at)


def timeouts_are_not_counted(patch: Patch) -> None:
    """A confirmation that does not come in time counts as one that waits. Figures."""

    def expire(original: Any, self: Confirmations, now: float) -> Any:
        before = self.timed_out
        entries = original(self, now)
        self.timed_out = before
        return entries

    around(patch, Confirmations, "expire", expire)


def confirmations_are_counted_once_a_tab(patch: Patch) -> None:
    """An event that two tabs ack counts as two confirmations. Figures."""

    def acked(original: Any, self: Mailbox, session: Session, low: int, high: int, now: float) -> Any:
        again = [
            entry for entry in self.within(low, high) if entry.tracked and entry.confirmed_at is not None
        ]
        return original(self, session, low, high, now) + again

    around(patch, Mailbox, "acked", acked)


def foreign_sessions_are_resumed(patch: Patch) -> None:
    """Who names a session gets it, whosever it is. An event comes to its own user."""
    sessions: dict[tuple[int, str], Session] = {}

    def attach(original: Any, self: Pool, admitted: Admitted, link: Any, now: float) -> None:
        original(self, admitted, link, now)
        sessions[id(self), admitted.session.id] = admitted.session

    def admit(original: Any, self: Pool, box: Mailbox, ask: Ask, now: float) -> Admitted | Refused:
        known = sessions.get((id(self), ask.session or ""))
        own = known is None or known.id not in known.box.sessions
        answer: Admitted | Refused = original(self, box if own or known is None else known.box, ask, now)
        return answer

    around(patch, Pool, "attach", attach)
    around(patch, Pool, "admit", admit)


def another_epoch_is_resumed(patch: Patch) -> None:
    """A position in a log that is no more is taken for one in today's. The client sees the protocol kept."""

    def admit(original: Any, self: Pool, box: Mailbox, ask: Ask, now: float) -> Admitted | Refused:
        if ask.epoch is not None and ask.seq is not None and ask.seq <= box.head:
            ask = Ask(session=ask.session, epoch=box.epoch, seq=ask.seq, start=ask.start, plain=ask.plain)
        answer: Admitted | Refused = original(self, box, ask, now)
        return answer

    around(patch, Pool, "admit", admit)


def what_was_resumed_expires(patch: Patch) -> None:
    """A session that was taken up again in time expires all the same. Conduct."""

    def attach(original: Any, self: Pool, admitted: Admitted, link: Any, now: float) -> None:
        waiting = admitted.session in self._parked
        original(self, admitted, link, now)
        if waiting:
            self._parked[admitted.session] = None

    around(patch, Pool, "attach", attach)


def sessions_expire_early(patch: Patch) -> None:
    """The time that a parked session has counts from when it connected. Cleanup takes nothing too soon."""

    def park(original: Any, self: Pool, session: Session, now: float) -> Any:
        over = original(self, session, now)
        session.parked_at = session.connected_at
        return over

    around(patch, Pool, "park", park)


def expired_sessions_stay(patch: Patch) -> None:
    """Parked sessions never expire. Nothing is left."""
    patch.setattr(Pool, "expired", lambda self, now: [])


def the_newest_makes_way(patch: Patch) -> None:
    """At a user's limit the newest connection makes way, though another one is stale. Who makes way."""

    def make_way(original: Any, self: Pool, box: Mailbox, now: float, relayed: bool) -> Any:
        displaced = original(self, box, now, relayed)
        if isinstance(displaced, list) and len(displaced) == 1:
            return [max(box.sessions.values(), key=lambda session: session.connected_at)]
        return displaced

    around(patch, Pool, "_make_way", make_way)


def one_connection_too_many(patch: Patch) -> None:
    """In all, one connection more is let in than may be. Bounds."""

    def admit(original: Any, self: Pool, box: Mailbox, ask: Ask, now: float) -> Any:
        self.connected -= 1
        try:
            return original(self, box, ask, now)
        finally:
            self.connected += 1

    around(patch, Pool, "admit", admit)


def hits_count_as_misses(patch: Patch) -> None:
    """A session that is taken over while it is connected counts as a new one. Figures."""

    def admit(original: Any, self: Pool, box: Mailbox, ask: Ask, now: float) -> Any:
        answer = original(self, box, ask, now)
        if isinstance(answer, Admitted) and answer.session.link is not None:
            self.hits -= 1
            self.created += 1
        return answer

    around(patch, Pool, "admit", admit)


def timers_are_not_brought_forward(patch: Patch) -> None:
    """A deadline that moves earlier is looked at when the old one comes. Redelivery in time."""

    def arm(original: Any, self: Timers, owner: Timed, at: float) -> bool:
        return owner not in self._armed and original(self, owner, at)

    around(patch, Timers, "arm", arm)


def timers_are_not_armed_again(patch: Patch) -> None:
    """A timer that went off is not armed again, until something else arms it. Redelivery, heartbeats in time."""

    def arm(original: Any, self: Timers, owner: Timed, at: float) -> bool:
        again = self._count > 20 and owner not in self._armed and at < math.inf and self._count % 5 == 0
        self._count += again
        return not again and original(self, owner, at)

    around(patch, Timers, "arm", arm)
