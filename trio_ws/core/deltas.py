"""Deltas: neighbours of one stream in a log, and how several of them become one event.

Two events are neighbours of one stream where nothing lies between them and type, key, run, retention class and shape
of payload are the same; so any other event, a lifecycle event above all, is a barrier. They are joined in two places:
for one session, when it is sent several that wait (`Deltas.neighbours`, `Deltas.tail_of`), and in the log itself, where
room is needed and no session was sent any of them yet (`Deltas.next_run`, `joined`).
"""

from __future__ import annotations

from collections import deque

from . import payload, wire
from .entry import GONE, Entry


class Deltas:
    """The deltas of one log that could be joined.

    Args:
      entries: the log, by first seq; read, never written.
      max_bytes: how large an event that is made of several may become.
    """

    __slots__ = ("_cached", "_entries", "_max_bytes", "_starts")

    def __init__(self, entries: dict[int, Entry], max_bytes: int) -> None:
        self._entries = entries
        self._max_bytes = max_bytes
        self._starts: deque[int] | None = None
        self._cached: tuple[int, int, bytes] | None = None

    def note(self, last: Entry | None, entry: Entry, sent_high: int) -> None:
        """Keep in mind that `entry` could be joined with `last`, if that is the delta right before it.

        Args:
          last: the newest entry but this one, whatever has become of it.
          entry: the newest entry, a delta.
          sent_high: the highest seq that a session was sent.
        """
        if last is None or last.first <= sent_high or self._entries.get(last.first) is not last:
            return
        if not _joinable(last, entry):
            return
        if self._starts is None:
            self._starts = deque()
        self._starts.append(last.first)
        if len(self._starts) > 2 * len(self._entries) + 64:
            self._starts = deque(s for s in self._starts if s > sent_high and s in self._entries)

    def next_run(self, sent_high: int) -> list[Entry] | None:
        """The oldest neighbours that no session was sent yet, at least two, to be joined; None where there are none."""
        while self._starts:
            start = self._entries.get(self._starts.popleft())
            if start is not None and start.first > sent_high and len(run := self.neighbours(start)) > 1:
                self._starts.appendleft(start.first)  # what they become may have room for the next
                return run
        return None

    def neighbours(self, start: Entry, upto: int | None = None) -> list[Entry]:
        """The deltas from `start` on that may be joined: of one stream, and not too large together.

        Args:
          upto: the last seq that counts; None for no end.
        """
        run, size, entries = [start], start.size, self._entries
        entry = entries.get(start.seq + 1)
        while entry is not None and (upto is None or entry.seq <= upto) and _joinable(start, entry):
            size += len(entry.payload or b"")
            if size > self._max_bytes:
                break
            run.append(entry)
            entry = entries.get(entry.seq + 1)
        return run

    def tail_of(self, run: list[Entry]) -> bytes:
        """The wire form of the deltas of `run` as one event; kept, as the user's other sessions ask for the same."""
        cached, first, last = self._cached, run[0].first, run[-1].seq
        if cached is None or cached[:2] != (first, last):
            cached = self._cached = (first, last, _append(run)[0])
        return cached[2]

    def removed(self, entry: Entry) -> None:
        """`entry` has left the log: nobody can be sent it any more."""
        if self._cached is not None and self._cached[0] <= entry.first <= self._cached[1]:
            self._cached = None


def joined(run: list[Entry]) -> Entry:
    """One entry in the place of the deltas of `run`, which become part of it; id and time are the last one's."""
    start, last = run[0], run[-1]
    tail, text = _append(run)
    entry = Entry(
        id=last.id,
        type=last.type,
        tail=tail,
        size=len(tail) + len(text),
        bare=False,
        retention=last.retention,
        tracked=False,
        ts=last.ts,
        accepted_at=start.accepted_at,
        expires_at=max(delta.expires_at for delta in run),
        key=last.key,
        merge=True,
        payload=text,
        truncated=any(delta.truncated for delta in run),
        owned_id=last.owned_id,
        run=last.run,
    )
    entry.first, entry.seq = start.first, last.seq
    entry.line, entry.user = start.line, start.user
    entry.waiters = [waiter for delta in run for waiter in delta.waiters or ()] or None
    for delta in run:
        delta.into, delta.line = entry, GONE
        delta.tail, delta.payload, delta.waiters = b"", None, None
    return entry


def _append(run: list[Entry]) -> tuple[bytes, bytes]:
    """The wire form, and the payload, of the deltas of `run` as one event."""
    text = payload.append_all([delta.payload or b"null" for delta in run])
    last = run[-1]
    return wire.event_tail(last.id, last.type, text, last.ts, last.run), text


def _joinable(start: Entry, entry: Entry) -> bool:
    """Whether two neighbouring entries are deltas of one stream, and nothing is lost by joining them."""
    return (
        start.merge
        and entry.merge
        and start.type == entry.type
        and start.key == entry.key
        and start.run == entry.run
        and start.retention == entry.retention
        and payload.joinable(start.payload or b"", entry.payload or b"")
    )
