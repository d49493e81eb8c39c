"""What a commit has of one user, in the words of scripts/commit.lua."""

from __future__ import annotations

from typing import Any, TypeAlias

from ..core.records import Batch, UserRecord
from . import records

Word: TypeAlias = str | bytes | int | float


def changes(user: str, part: Batch) -> list[Word]:
    """What `part`, which is of `user` only, changes, in the order that `Batch` has."""
    words: list[Word] = []
    start = records.seed(user)
    if part.closed:
        words += ("close", 0)
    put(
        words, "remove", [word for r in part.removed for word in (r.first, r.last, r.state, int(r.owned_ids))]
    )
    for record in part.users:
        put(words, "log", log_words(record))
    put(words, "keys", [word for _, key in part.keys for word in (key.seq, key.state, key.id)])
    put(words, "events", [word for e in part.events for word in (e.first, records.event_value(e, start))])
    put(words, "confirm", [first for _, first in part.confirmed])
    put(words, "sessions", [word for s in part.sessions for word in (s.session, records.session_value(s))])
    put(words, "end", [session for _, session in part.ended])
    put(words, "runs", [word for r in part.runs for word in (r.run, records.run_value(r), int(r.open))])
    put(words, "forget", [run for _, run in part.forgotten])
    return words


def log_words(log: UserRecord) -> list[Word]:
    """A log as a whole."""
    whole, gone = records.user_values(log)
    return [whole, gone, log.confirmed, log.rest, "" if log.due is None else log.due]


def put(words: list[Word], name: str, arguments: list[Any]) -> None:
    """Add what is to be done, if there is anything."""
    if arguments:
        words += (name, len(arguments))
        words += arguments
