"""A store in memory: what one hub of a process leaves to the next. Nothing of it outlives the process.

It says in the plainest way what a store has to do, and the simulator's store is built on it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import attrs
import trio

from ..core.records import (
    Batch,
    EventRecord,
    Kept,
    KeptRest,
    KeyRecord,
    Part,
    RevokedRecord,
    RunRecord,
    SessionRecord,
    UserRecord,
)
from ..core.remembered import REMEMBERED_IDS
from ..event import Priority
from .interface import Opened


@attrs.define
class _Log:
    """What is held of one user."""

    user: UserRecord
    events: dict[int, EventRecord] = attrs.field(factory=dict)
    sessions: dict[str, SessionRecord] = attrs.field(factory=dict)
    keys: dict[int, KeyRecord] = attrs.field(factory=dict)
    runs: dict[str, RunRecord] = attrs.field(factory=dict)


def _rest(events: list[EventRecord]) -> KeptRest:
    return KeptRest(
        sum(event.priority < Priority.CRITICAL for event in events),
        min((event.expires for event in events if event.expires is not None), default=None),
        {event.id: event.seq for event in events if event.owned_id},
    )


def _within(events: list[EventRecord], size: float) -> list[EventRecord]:
    """Those of them until so many bytes of payload are reached."""
    total = 0
    for count, event in enumerate(events, 1):
        total += len(event.payload)
        if total >= size:
            return events[:count]
    return events


class MemoryStore:
    """A `Store` whose commits are durable for as long as this object is."""

    def __init__(self) -> None:
        self._logs: dict[str, _Log] = {}
        self._revoked: dict[str, RevokedRecord] = {}
        self._unconfirmed = 0

    async def open(self) -> Opened:
        """See `Store`."""
        await trio.lowlevel.checkpoint()
        self._unconfirmed = sum(
            event.seq - event.first + 1
            for log in self._logs.values()
            for event in log.events.values()
            if not event.confirmed and event.seq > log.user.confirmed
        )
        with_open_runs = [
            user for user, log in self._logs.items() if any(run.open for run in log.runs.values())
        ]
        return Opened(list(self._logs), list(self._revoked.values()), with_open_runs)

    async def commit(self, batch: Batch) -> None:
        """See `Store`."""
        await trio.lowlevel.checkpoint()
        self.apply([batch])

    def apply(self, batches: Iterable[Batch]) -> None:
        """Take these commits over, in order."""
        for batch in batches:
            self._apply(batch)

    @staticmethod
    def _keep_key(log: _Log, key: KeyRecord) -> None:
        log.keys[key.seq] = key
        while len(log.keys) > REMEMBERED_IDS:
            del log.keys[min(log.keys)]

    def _apply(self, batch: Batch) -> None:
        logs = self._logs
        for user in batch.closed:
            logs.pop(user, None)
        for removal in batch.removed:
            log = logs.get(removal.user)
            if log is None:
                continue
            for first in [first for first in log.events if removal.first <= first <= removal.last]:
                event = log.events.pop(first)
                if event.owned_id:
                    self._keep_key(log, KeyRecord(event.id, event.seq, removal.state))
        for record in batch.users:
            log = logs.get(record.user)
            if log is None:
                logs[record.user] = _Log(record)
            else:
                gone = log.user.gone if record.gone is None else record.gone
                log.user = record._replace(gone=gone)
        for user, key in batch.keys:
            self._keep_key(logs[user], key)
        for event in batch.events:
            logs[event.user].events[event.first] = event
        for user, first in batch.confirmed:
            events = logs[user].events
            if first in events:
                events[first] = events[first]._replace(confirmed=True)
        for session in batch.sessions:
            logs[session.user].sessions[session.session] = session
        for user, ended in batch.ended:
            logs[user].sessions.pop(ended, None)
        self._revoked.update((record.user, record) for record in batch.revoked)
        for run in batch.runs:
            logs[run.user].runs[run.run] = run
        for user, forgotten in batch.forgotten:
            logs[user].runs.pop(forgotten, None)

    async def load(self, user: str) -> Kept | None:
        """See `Store`."""
        await trio.lowlevel.checkpoint()
        return self.kept(user)

    def begin_anew(self, user: str, epoch: str) -> None:
        """Have the log of a user go on in another epoch, without its sessions."""
        log = self._logs[user]
        log.user = log.user._replace(epoch=epoch)
        log.sessions.clear()

    def kept(self, user: str) -> Kept | None:
        """As `load`, at once."""
        log = self._logs.get(user)
        if log is None:
            return None
        upto, rest = log.user.confirmed, log.user.rest or math.inf
        events = [log.events[first] for first in sorted(log.events)]
        here = [event for event in events if event.first < rest]
        behind = [event for event in events if event.first >= rest]
        return Kept(
            log.user,
            [event._replace(confirmed=event.confirmed or event.seq <= upto) for event in here],
            list(log.sessions.values()),
            [log.keys[seq] for seq in sorted(log.keys)],
            rest=None if rest == math.inf else _rest(behind),
            runs=list(log.runs.values()),
        )

    async def read(self, user: str, part: Part) -> list[EventRecord]:
        """See `Store`."""
        await trio.lowlevel.checkpoint()
        log = self._logs.get(user)
        found = [
            event
            for first, event in sorted({} if log is None else log.events.items())
            if part.first <= first <= part.last
            and part.id in (None, event.id)
            and not (part.mortal and event.expires is None)
            and (not part.lesser or event.priority < Priority.CRITICAL)
        ]
        if part.mortal:
            found.sort(key=lambda event: (event.expires or 0.0, event.first))
        if part.lesser:
            found.sort(key=lambda event: (event.priority, event.first))
        return _within(found[: part.most], part.size)

    async def due(self, now: float, most: int) -> list[str]:
        """See `Store`."""
        await trio.lowlevel.checkpoint()
        found = [user for user, log in self._logs.items() if log.user.due is not None and log.user.due <= now]
        return found[:most]

    async def check(self) -> int | None:
        """See `Store`. There is nothing that could be damaged."""
        await trio.lowlevel.checkpoint()
        return self._unconfirmed

    async def close(self) -> None:
        """See `Store`."""
        await trio.lowlevel.checkpoint()

    def stats(self) -> dict[str, Any]:
        """See `Store`."""
        return {"kind": "memory", "quarantined": 0}
