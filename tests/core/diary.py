"""What was seen to happen to each event, seq by seq, as it happened: what the stories of `core/story.py` must tell."""

from __future__ import annotations

from collections import defaultdict

import attrs

from trio_ws.core import story
from trio_ws.core.entry import Entry
from trio_ws.core.mailbox import Mailbox

Seen = tuple[float, str, str, int, int, str | None]
"""When, the step, the session, `retry`, `into`, `reason`."""


@attrs.define(eq=False)
class Fate:
    """One event, and when something was first seen to have happened to it."""

    box: Mailbox
    seq: int
    entry: Entry
    accepted_at: float
    confirmed_at: float | None = None
    settled_at: float | None = None
    gone_at: float | None = None


class Diary:
    """Told by a test of all that it does; `check` compares it with every story."""

    def __init__(self) -> None:
        self._steps: dict[tuple[str, int], list[Seen]] = defaultdict(list)
        self._had: set[tuple[str, str, int]] = set()
        self.fates: list[Fate] = []

    def accepted(self, box: Mailbox, entry: Entry, now: float) -> None:
        self.fates.append(Fate(box, entry.seq, entry, now))

    def sent(
        self, box: Mailbox, session: str, now: float, first: int, last: int, top: int, *, into: bool
    ) -> None:
        """One event went to a session that had been sent all up to `top`; `into`: it was joined on its way."""
        for seq in range(first, last + 1):
            step = "sent" if seq > top else "redelivered"
            self._steps[box.user, seq].append((now, step, session, 0, 0, None))
            self._had.add((box.user, session, seq))
            if into and seq != last:
                self._steps[box.user, seq].append((now, "merged", session, 0, last, None))

    def sent_again(self, box: Mailbox, session: str, now: float, first: int, last: int, retry: int) -> None:
        for seq in range(first, last + 1):
            self._steps[box.user, seq].append((now, "redelivered", session, retry, 0, None))

    def told(self, box: Mailbox, session: str, now: float, first: int, last: int, reason: str) -> None:
        for seq in range(first, last + 1):
            self._steps[box.user, seq].append((now, "gap", session, 0, 0, reason))

    def answered(self, box: Mailbox, session: str, now: float, step: str, first: int, last: int) -> None:
        for seq in range(first, last + 1):
            if (box.user, session, seq) in self._had:
                self._steps[box.user, seq].append((now, step, session, 0, 0, None))

    def look(self, now: float) -> None:
        """A step is over: see what it has done to each event."""
        for fate in self.fates:
            entry = story.heir(fate.entry)
            if fate.confirmed_at is None and entry.confirmed_at is not None:
                fate.confirmed_at = now
            if fate.settled_at is None and entry.settled:
                fate.settled_at = now
            if fate.gone_at is None and fate.box.entries.get(entry.first) is not entry:
                fate.gone_at = now

    def check(self, confirm_timeout: float) -> int:
        """Every story tells what was seen, no more and no less; returns how many there were."""
        told = 0
        for fate in self.fates:
            found = story.tell(fate.box, fate.entry.id, confirm_timeout)
            if found is None:
                assert fate.gone_at is not None  # nothing of so long ago is kept
                continue
            told += 1
            assert (found.seq, found.accepted_at) == (fate.seq, fate.accepted_at)
            steps = found.steps
            assert [s.at for s in steps] == sorted(s.at for s in steps)
            assert steps[0].step == "accepted"
            assert all(s.into > fate.seq for s in steps if s.step in ("merged", "superseded"))
            of_sessions = [s for s in steps if s.session is not None and s.step != "confirmed"]
            seen = [(s.at, s.step, s.session, s.retry, s.into, s.reason) for s in of_sessions]
            assert sorted(seen, key=repr) == sorted(self._steps[fate.box.user, fate.seq], key=repr)
            self._check_fate(fate, {s.step: s for s in steps if s.session is None or s.step == "confirmed"})
        return told

    def _check_fate(self, fate: Fate, once: dict[str, story.Step]) -> None:
        entry = story.heir(fate.entry)
        assert ("confirmed" in once) == (fate.confirmed_at is not None)
        if fate.confirmed_at is not None:
            confirmed = once["confirmed"]
            assert confirmed.at == fate.confirmed_at
            acks = [seen for seen in self._steps[fate.box.user, fate.seq] if seen[1] == "acked"]
            assert acks[0][0] == confirmed.at
            assert acks[0][2] == confirmed.session
        assert ("settled" in once) == (fate.settled_at is not None)
        if fate.settled_at is not None:
            assert once["settled"].at == fate.settled_at
        assert ("timed_out" in once) == entry.timed_out
        ends = once.keys() & {"evicted", "expired", "forgotten"}
        if fate.gone_at is None:
            assert not ends
        elif entry.reason == "superseded":
            assert not ends
            assert once["superseded"].at <= fate.gone_at
        else:
            (end,) = ends
            assert once[end].at == fate.gone_at
            assert end == (entry.reason or "forgotten")
        assert ("superseded" in once) == (entry.superseded or entry.reason == "superseded")
        if "superseded" in once:
            successor = once["superseded"].into
            other = next(f for f in self.fates if f.box is fate.box and f.seq == successor)
            assert (other.entry.type, other.entry.key) == (entry.type, entry.key)
            assert successor > fate.seq
        merged = once.get("merged")
        assert (merged is not None) == (fate.entry.into is not None and entry.seq != fate.seq)
