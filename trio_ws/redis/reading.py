"""One user's log, read from Redis: what makes no sense is told apart, and the rest goes on without it.

It is as in a file (store/reading.py): an event that is damaged leaves a gap, a session goes on by what its client
knows, a key is forgotten. Where the record of the log as a whole is damaged or missing, or commits of it were lost,
nobody knows what any seq has meant to a client: the log goes on in a new epoch, with all events that it has, and its
sessions are over.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Final, TypeVar

import attrs

from ..core.gaps import Run
from ..core.records import EventRecord, Kept, KeptRest, UserRecord
from ..store.reading import AT_ONCE, Misfit, lost, new_epoch, new_log
from ..store.rows import Damaged, is_seq, is_text
from . import records
from .changes import Word, log_words, put

T = TypeVar("T")

MOST: Final = AT_ONCE + 1
"""How many events are asked for of a log that has no record of itself: the last of them says where its rest begins."""


@attrs.define
class Reply:
    """What scripts/load.lua answers where all is well. Lists are of pairs, flat, but for `confirmed` and `keys`."""

    void: bytes
    user: bytes
    gone: bytes
    rest: bytes
    events: list[bytes]
    newest: list[bytes]
    confirmed: list[bytes]
    sessions: list[bytes]
    keys: list[bytes]
    runs: list[bytes]
    lesser: int
    due: list[bytes]
    ids: list[bytes]


@attrs.define
class Found:
    """What was read of one user.

    Attributes:
      kept: what a hub is given; None where nothing is kept, and where there is a `log`.
      misfits: what is to be set aside; `Misfit.key` is what it is called, or is, in its key of Redis.
      damaged: what was lost by that.
      log: what takes the place of the record of the log as a whole, which begins anew: its sessions are over. Once that
        is written, all is to be read again.
      void: the log was void, and is not any more.
    """

    void: bool
    kept: Kept | None = None
    misfits: list[Misfit] = attrs.field(factory=list)
    damaged: list[Run] = attrs.field(factory=list)
    log: UserRecord | None = None

    def changes(self, now: float) -> list[Word]:
        """What is to be changed by that; nothing where all is well."""
        words: list[Word] = []
        put(words, "aside", [word for misfit in self.misfits for word in _aside(misfit, now)])
        if self.log is not None:
            put(words, "log", log_words(self.log))
        if self.log is not None or self.void:
            words += ("renew", 0)
        return words


def read(user: str, reply: Reply) -> Found:
    """What a reply says of `user`.

    Raises:
      Newer: a newer version of this package has written it.
    """
    found = Found(void=bool(reply.void))
    misfits = found.misfits
    events = events_of(user, reply.events, misfits)
    keys = _sift(
        misfits, "keys", [(key, key) for key in reply.keys], lambda key, _: records.key_of(user, key)
    )
    try:
        log = _log(user, reply, events)
    except Damaged as error:
        if reply.user or events or misfits:
            found.log = _unknown_log(user, reply, events, max((key.seq for key in keys), default=0))
            found.damaged = lost(misfits, 0, found.log.head)
            misfits.append(Misfit("log", reply.user, str(error), (user,)))
        return found
    found.damaged = lost(misfits, log.confirmed, log.head)
    if found.void:
        found.log = log._replace(epoch=new_epoch(), reserved=max(log.reserved, log.head + 1))
        return found
    sessions = _sift(
        misfits,
        "sessions",
        _pairs(reply.sessions),
        lambda id, value: records.session_of(user, _text(id), value, log.reserved),
    )
    runs = _sift(
        misfits, "runs", _pairs(reply.runs), lambda id, value: records.run_of(user, _text(id), value)
    )
    found.kept = Kept(
        log,
        confirmed(events, reply.confirmed, log.confirmed),
        sessions,
        keys,
        found.damaged,
        _rest(reply) if log.rest else None,
        sorted(runs, key=lambda run: run.run),
    )
    return found


def _log(user: str, reply: Reply, events: list[EventRecord]) -> UserRecord:
    if not reply.user:
        raise Damaged("it is missing")
    log = records.user_of(user, reply.user, reply.gone)
    if events and events[-1].seq > log.head:
        raise Damaged("its head is below an event")
    return log


def events_of(
    user: str, found: list[bytes], misfits: list[Misfit], *, in_order: bool = True
) -> list[EventRecord]:
    """The events of these values and where they are; those that make no sense become `misfits`."""
    start, events, end = records.seed(user), [], 0
    for value, at in _pairs(found):
        try:
            event = records.event_of(user, value, start)
            if not event.first == _seq(at) <= event.seq:
                raise Damaged("its seqs make no sense")
            if in_order and event.first <= end:
                raise Damaged("it overlaps the one before")
        except Damaged as error:
            misfits.append(Misfit("events", value, str(error), records.what_is_left(user, value, _seq(at))))
        else:
            events.append(event)
            end = event.seq
    return events


def confirmed(events: list[EventRecord], marked: list[bytes], upto: int) -> list[EventRecord]:
    """These events, and that they are confirmed who are: all up to a seq, and those at the marks."""
    marks = {_seq(at) for at in marked}
    return [
        event if event.confirmed else event._replace(confirmed=event.seq <= upto or event.first in marks)
        for event in events
    ]


def _unknown_log(user: str, reply: Reply, events: list[EventRecord], newest_key: int) -> UserRecord:
    """The log of events of which nothing else is known: what is not there may have been lost, the newest one, too."""
    rest = _seq(reply.rest)
    if not reply.user and len(reply.events) == 2 * MOST:
        rest = _seq(reply.events[-1])
    found = [*events, *events_of(user, reply.newest, [])]
    head = max([_seq(at) for _, at in _pairs(reply.newest)] + [e.seq for e in found] + [newest_key])
    return new_log(user, head, rest)


def _rest(reply: Reply) -> KeptRest:
    keys = {_text(id): _seq(seq) for id, seq in _pairs(reply.ids)}
    known = {id: seq for id, seq in keys.items() if is_text(id) and seq}
    return KeptRest(reply.lesser, float(reply.due[1]) if reply.due else None, known)


def _sift(
    misfits: list[Misfit],
    place: str,
    found: list[tuple[bytes, bytes]],
    record_of: Callable[[bytes, bytes], T],
) -> list[T]:
    """The records of these pairs; those that are damaged become `misfits`."""
    kept = []
    for name, value in found:
        try:
            kept.append(record_of(name, value))
        except Damaged as error:
            misfits.append(Misfit(place, name, str(error), (value,)))
    return kept


def _pairs(flat: list[bytes]) -> list[tuple[bytes, bytes]]:
    return list(zip(flat[::2], flat[1::2], strict=True))


def _seq(number: bytes) -> int:
    """The seq that is meant; 0 where none is."""
    try:
        seq = int(float(number))
    except (ValueError, OverflowError):
        return 0
    return seq if is_seq(seq) else 0


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _aside(misfit: Misfit, now: float) -> tuple[Word, Word, Word]:
    """What the script is to do with it, and what is to be kept of it."""
    value = misfit.row[0] if misfit.table in ("sessions", "runs") else misfit.key
    told = {
        "found": now,
        "place": misfit.table,
        "name": None if value is misfit.key else repr(misfit.key),
        "why": misfit.why,
        "content": base64.b64encode(value).decode(),
    }
    return misfit.table, misfit.key, json.dumps(told)
