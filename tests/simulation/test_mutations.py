"""A green simulator proves nothing until planted bugs turn it red: each of these must be caught, and soon."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from trio_ws.core import deltas
from trio_ws.core.buffer import Buffer
from trio_ws.core.mailbox import Mailbox
from trio_ws.core.retention import Retention
from trio_ws.core.session import Session
from trio_ws.hub.attachment import Attachment
from trio_ws.hub.engine import Engine
from trio_ws.hub.flusher import Flusher
from trio_ws.hub.reception import Reception
from trio_ws.testing.scenario import Outcome, simulate

WITHIN = 60
"""Seeds in which each must be caught."""

Patch = Callable[[pytest.MonkeyPatch], None]


def gap_not_sent(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Session, "_put_gap", lambda self, gap, frames: None)


def replay_begins_one_too_late(patch: pytest.MonkeyPatch) -> None:
    attach = Session.attach

    def late(self: Session, link: Any, position: int, now: float, **options: Any) -> None:
        attach(self, link, min(position + 1, self.box.head), now, **options)

    patch.setattr(Session, "attach", late)


def no_replay(patch: pytest.MonkeyPatch) -> None:
    attach = Session.attach

    def skip(self: Session, link: Any, position: int, now: float, **options: Any) -> None:
        attach(self, link, self.box.head, now, **options)

    patch.setattr(Session, "attach", skip)


def acked_is_sent_again(patch: pytest.MonkeyPatch) -> None:
    attach = Session.attach

    def again(self: Session, link: Any, position: int, now: float, **options: Any) -> None:
        attach(self, link, position, now, **options)
        self.cursor = max(self.base, self.cursor - 1)

    patch.setattr(Session, "attach", again)


def one_over_the_cap(patch: pytest.MonkeyPatch) -> None:
    make = Buffer._make_room

    def less(self: Buffer, box: Mailbox, size: int) -> None:
        if len(box.entries) > self.config.max_events_per_user:
            make(self, box, size)

    patch.setattr(Buffer, "_make_room", less)


def no_fence(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Attachment, "fence", lambda self: None)


def sent_is_confirmed(patch: pytest.MonkeyPatch) -> None:
    wrote = Session._wrote

    def confirmed(self: Session, entry: Any, now: float) -> None:
        wrote(self, entry, now)
        self.ack(self.cursor, now)

    patch.setattr(Session, "_wrote", confirmed)


def the_newest_goes(patch: pytest.MonkeyPatch) -> None:
    oldest = Retention.oldest

    def highest(self: Retention, cls: int) -> Any:
        found = [oldest(self, other) for other in (4, 3, 2)] if cls in (2, 3, 4) else [oldest(self, cls)]
        return next((entry for entry in found if entry is not None), None)

    patch.setattr(Retention, "oldest", highest)


def merged_across_a_barrier(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(deltas, "_joinable", lambda start, entry: start.merge and entry.payload is not None)
    accept = Buffer.accept

    def accept_all(self: Buffer, box: Mailbox, entry: Any) -> bool:
        if entry.payload is None and not entry.tracked:
            entry.payload = entry.tail[entry.tail.index(b'"payload":') + 10 : entry.tail.rindex(b',"ts"')]
        return accept(self, box, entry)

    patch.setattr(Buffer, "accept", accept_all)


def one_in_seven_is_skipped(patch: pytest.MonkeyPatch) -> None:
    take = Session.take

    def forgetful(self: Session, now: float, max_bytes: int) -> list[bytes]:
        if self.cursor % 7 == 5 and self.cursor + 1 in self.box.entries:
            self.cursor = self.top = self.box.entries[self.cursor + 1].seq
        return take(self, now, max_bytes)

    patch.setattr(Session, "take", forgetful)


def a_wakeup_is_lost(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Flusher, "on_timer", lambda self, now: float("inf"))


def keys_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Mailbox, "find", lambda self, id: None)


def two_users_share_a_log(patch: pytest.MonkeyPatch) -> None:
    mailbox = Buffer.mailbox
    patch.setattr(Buffer, "mailbox", lambda self, user: mailbox(self, "user0"))


def acks_are_ignored(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Session, "ack", lambda self, seq, now: False)


def anything_may_be_acked(patch: pytest.MonkeyPatch) -> None:
    ack = Session.ack

    def believing(self: Session, seq: int, now: float) -> bool:
        self.top = max(self.top, min(seq, self.box.head))
        self.cursor = max(self.cursor, min(seq, self.box.head))
        return ack(self, min(seq, self.box.head), now)

    patch.setattr(Session, "ack", believing)


def the_gone_are_not_parked(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Reception, "park", lambda self, attachment, cut_at: None)


def expired_sessions_stay(patch: pytest.MonkeyPatch) -> None:
    from trio_ws.core.pool import Pool

    patch.setattr(Pool, "expired", lambda self, now: [])


def history_is_never_swept(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Mailbox, "sweep", lambda self, now: None)


def a_retry_is_not_marked(patch: pytest.MonkeyPatch) -> None:
    run_frame = Session._run_frame
    patch.setattr(Session, "_run_frame", lambda self, run, retry=0: run_frame(self, run, 0))


def no_timer_is_armed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Engine, "arm", lambda self, owner, at: None)


BUGS: list[Patch] = [
    gap_not_sent,
    replay_begins_one_too_late,
    no_replay,
    acked_is_sent_again,
    one_over_the_cap,
    no_fence,
    sent_is_confirmed,
    the_newest_goes,
    merged_across_a_barrier,
    one_in_seven_is_skipped,
    a_wakeup_is_lost,
    keys_are_forgotten,
    two_users_share_a_log,
    acks_are_ignored,
    anything_may_be_acked,
    the_gone_are_not_parked,
    expired_sessions_stay,
    history_is_never_swept,
    a_retry_is_not_marked,
    no_timer_is_armed,
]


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_a_planted_bug_is_caught(bug: Patch, monkeypatch: pytest.MonkeyPatch) -> None:
    bug(monkeypatch)
    outcome: Outcome | None = next((o for seed in range(WITHIN) if (o := simulate(seed)).violations), None)
    assert outcome is not None, f"{bug.__name__} was not caught in {WITHIN} seeds"
    print(f"{bug.__name__}: seed {outcome.seed}, {outcome.violations[0].invariant}")
