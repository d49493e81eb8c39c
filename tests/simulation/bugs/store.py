"""Bugs in what is durable: they show only in runs with a disk, over several lives of the server."""

from __future__ import annotations

from typing import Any

from trio_ws.core.buffer import Buffer
from trio_ws.core.entry import Entry
from trio_ws.core.ledger import Ledger
from trio_ws.core.mailbox import Mailbox
from trio_ws.core.records import Batch
from trio_ws.core.track import Track
from trio_ws.hub.durability import Durability
from trio_ws.hub.overflow import Overflow
from trio_ws.hub.receipt import Receipt
from trio_ws.testing.disk import Disk

from .planting import Patch, around


def commits_are_not_synced(patch: Patch) -> None:
    """A commit returns when it is written, before it is on the disk. Nothing that was confirmed is lost."""

    async def write(original: Any, self: Disk, batch: Batch, generation: int) -> None:
        await self._wait(generation)
        self._written.append(batch)

    around(patch, Disk, "write", write)


def publishers_are_told_before_the_commit(patch: Patch) -> None:
    """`publish` returns without waiting for the commit. Nothing that was confirmed is lost."""

    async def wait(original: Any, self: Durability, box: Mailbox, seq: int) -> None:
        assert box.track is not None
        box.track.committed = max(box.track.committed, seq)

    around(patch, Durability, "wait", wait)


def nothing_counts_as_to_be_committed(patch: Patch) -> None:
    """A receipt says that there is nothing to wait for. Nothing that was confirmed is lost."""
    patch.setattr(Receipt, "to_be_committed", property(lambda self: False))


def a_failed_commit_is_not_tried_again(patch: Patch) -> None:
    """What could not be written is forgotten. Nothing that was confirmed is lost."""

    async def commit(original: Any, self: Durability, batch: Batch) -> None:
        try:
            await self.store.commit(batch)
        except Exception:
            pass
        for box in self.ledger.committed():
            self._on_ready(box)

    around(patch, Durability, "_commit", commit)


def heads_are_used_again(patch: Patch) -> None:
    """No seqs are reserved, and what was shown at one is another event after a crash. (epoch, seq) names one event."""

    def reserve(original: Any, self: Track, now: float) -> None:
        original(self, now)
        self._drawn_reserved = self._box.head

    around(patch, Track, "_reserve", reserve)

    def see_ready(original: Any, self: Track) -> None:
        self._reserved = self._box.head
        original(self)

    around(patch, Track, "_see_ready", see_ready)


def shown_before_it_is_safe(patch: Patch) -> None:
    """Sessions are given what is not committed yet. (epoch, seq) names one event, who comes back goes on."""
    patch.setattr(Track, "_see_ready", lambda self: setattr(self._box, "ready", self._box.head))


def removals_are_not_written(patch: Patch) -> None:
    """What has left the log stays in the store. Nothing is left."""

    def draw_up(original: Any, self: Ledger, *args: Any) -> Batch | None:
        batch: Batch | None = original(self, *args)
        if batch is not None:
            batch.removed.clear()
        return batch

    around(patch, Ledger, "draw_up", draw_up)


def cursors_are_not_stored(patch: Patch) -> None:
    """Where a session is, is not written. What was acked long before a crash does not come again."""

    def moved(original: Any, self: Track, session: Any) -> None:
        if session.acked == session.base or session.link is None:
            original(self, session)

    around(patch, Track, "moved", moved)


def sessions_are_not_stored(patch: Patch) -> None:
    """Sessions are not written. Who comes back goes on with the session that it had."""
    patch.setattr(Track, "moved", lambda self, session: None)


def losses_are_not_stored(patch: Patch) -> None:
    """What was evicted is not written as lost, and is called settled after a crash. Reasons of gaps."""

    def removed(original: Any, self: Track, entry: Any) -> None:
        changed = self._gone_changed
        original(self, entry)
        self._gone_changed = changed

    around(patch, Track, "removed", removed)


def the_rest_is_forgotten_in_a_crash(patch: Patch) -> None:
    """What waited in the store only is not taken up by the next life. Nothing that was confirmed is lost."""

    def put_rest_back(original: Any, self: Mailbox, *args: Any) -> None:
        """It is as if there were none."""

    around(patch, Mailbox, "put_rest_back", put_rest_back)


def where_the_rest_begins_is_written_once(patch: Patch) -> None:
    """What was read back, and shown, is in the rest again after a crash. Who comes back goes on."""
    begins: dict[tuple[str, str], int] = {}

    def draw_up(original: Any, self: Ledger, *args: Any) -> Batch | None:
        batch: Batch | None = original(self, *args)
        for at, user in enumerate(() if batch is None else batch.users):
            if user.rest and batch is not None:
                batch.users[at] = user._replace(rest=begins.setdefault((user.user, user.epoch), user.rest))
            else:
                begins.pop((user.user, user.epoch), None)
        return batch

    around(patch, Ledger, "draw_up", draw_up)


def the_last_that_is_read_back_is_left_out(patch: Patch) -> None:
    """Of each part of the rest, one event too few comes into memory. Nothing that was confirmed is lost."""

    def take_in(original: Any, self: Buffer, box: Mailbox, entries: list[Entry], upto: int) -> None:
        original(self, box, entries[:-1], upto)

    around(patch, Buffer, "take_in", take_in)


def what_was_let_go_is_let_go_again(patch: Patch) -> None:
    """What has left the rest, and not the store yet, is let go once more. The books balance."""
    patch.setattr(Overflow, "_is_gone", lambda self, box, event: False)
