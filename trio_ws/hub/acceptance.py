"""The step in which an event is accepted: it is given its place in a log, and who is to be sent it is marked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ..core.entry import Entry
from ..core.mailbox import Mailbox
from ..core.records import KeyRecord
from ..core.restoring import gone_entry
from ..core.run_grammar import Happened
from ..errors import EventTooLarge
from .attachment import Attachment
from .engine import Engine
from .intake import Intake
from .parcel import Parcel
from .receipt import Receipt

COMPANY: Final = 64
"""How many events wait for each other on a busy connection at the most; then the batch window is over."""


class Acceptance:
    """Accepts what was checked and encoded, where there is room.

    Args:
      engine: the hub's state.
      intake: makes entries of parcels.
      let_sleep: has logs out of memory, but for one user's, where there is a store.
    """

    def __init__(self, engine: Engine, intake: Intake, let_sleep: Callable[[str], bool]) -> None:
        self._engine = engine
        self._let_sleep = let_sleep
        self._intake = intake

    def accept(self, user: str, parcel: Parcel) -> Receipt | None:
        """Accept a parcel if there is room, or know it for one that was accepted before; None where there is none.

        Raises:
          EventTooLarge: it is larger than a user's mailbox may be.
          StoreUnavailable: it must be durable, and can't be made so now.
          IllegalTransition, UnknownRun, TooManyRuns: it has no place in its run.
        """
        engine = self._engine
        buffer = engine.buffer
        box = buffer.mailbox(user)
        timeout, durability = engine.config.confirm_timeout, engine.durability
        if parcel.id is not None and (known := box.find(parcel.id)) is not None:
            engine.books.duplicates += 1
            return Receipt(known, box, timeout, True, durability)
        if parcel.run is not None:
            if box.runs is None:
                box.runs = buffer.runs.of(user)
            box.runs.check(parcel.run, parcel.type, parcel.call, parcel.question)
        if durability is not None and not parcel.beyond:
            durability.check(parcel.retention)
        id = parcel.id or parcel.shared_id or engine.fresh_id()
        entry = self._intake.entry(parcel, id, engine.clock(), engine.wall_clock())
        if entry.size > buffer.largest and not parcel.beyond:
            raise EventTooLarge("the event is larger than a user's mailbox may be", field="payload")
        if box.sessions and buffer.is_pressed(box, entry):
            self._write_first(box)
        if (
            (box.rest is not None or not buffer.accept(box, entry))
            and not self._find_place(box, entry)
            and not parcel.beyond
        ):
            return None
        if not entry.seq:
            buffer.accept_beyond(box, entry)
        if parcel.run is not None:
            self._note_run(box, parcel, entry)
        for session in box.sessions.values():
            link = session.link
            if link is not None and not link.marked and session.cursor < box.ready:
                urgent = entry.tracked or box.head - session.cursor >= COMPANY
                if urgent or not link.waiting:
                    engine.flusher.mark(link, urgent=urgent)
        if parcel.ttl is not None:
            engine.arm(box, entry.expires_at)
        if engine.books.resolved:
            engine.react()
        return Receipt(entry, box, timeout, False, durability)

    def known(self, user: str, id: str, seq: int) -> Receipt:
        """The receipt of an event that was accepted before under this id, at `seq`."""
        engine = self._engine
        box = engine.buffer.mailbox(user)
        entry = box.entries.get(seq) or gone_entry(KeyRecord(id, seq, "settled"))
        return Receipt(entry, box, engine.config.confirm_timeout, True, engine.durability)

    def _note_run(self, box: Mailbox, parcel: Parcel, entry: Entry) -> None:
        """Have the run that `entry` is part of know of it."""
        assert box.runs is not None
        assert parcel.run is not None
        event = Happened(parcel.type, parcel.encoded, entry.seq, entry.ts, entry.id)
        box.runs.accepted(parcel.run, event, parcel.lease, entry.accepted_at, box.safe)

    def _find_place(self, box: Mailbox, entry: Entry) -> bool:
        """Accept `entry`, for which memory has no room, or for what came before it: in the store only, where there is
        one that has room."""
        buffer = self._engine.buffer
        # Where it is for others' events that there is no room, those who are not there need none in memory.
        while box.rest is None and buffer.ledger is not None and buffer.is_full_for_all(box):
            if not self._let_sleep(box.user):
                break
            if buffer.accept(box, entry):
                return True
        placed = buffer.spill(box, entry)
        if not placed and self._engine.see_to_rests is not None:
            self._engine.see_to_rests()  # what is not critical may make room there
        return placed

    def _write_first(self, box: Mailbox) -> None:
        """Let connections take what waits for them, before an event that they were not sent yet makes room for one."""
        now = self._engine.clock()
        for session in list(box.sessions.values()):
            attachment: Attachment | None = session.link
            cursor = -1
            while attachment is not None and attachment.can_take and session.cursor > cursor:
                cursor = session.cursor  # one that fails is being closed, and gets no further
                attachment.flush(now)
