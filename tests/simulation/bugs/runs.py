"""Bugs in the runs of agents: they show only in simulations of runs; the last ones only over a disk."""

from __future__ import annotations

import math
from typing import Any

from trio_ws.core import wire
from trio_ws.core.mailbox import Mailbox
from trio_ws.core.run_grammar import Grammar
from trio_ws.core.runs import Run, Runs
from trio_ws.core.session import Session
from trio_ws.core.track import Track
from trio_ws.hub.attachment import Attachment
from trio_ws.hub.receipt import Receipt
from trio_ws.hub.run import RunHandle
from trio_ws.hub.runs import RunDesk

from .planting import Patch, around


def a_cancelled_run_has_no_end(patch: Patch) -> None:
    """A block that is cancelled tells nobody. A run has exactly one end, all converges."""

    async def end(original: Any, self: RunDesk, handle: RunHandle, outcome: str, error: Any) -> None:
        if outcome != "cancelled":
            await original(self, handle, outcome, error)

    around(patch, RunDesk, "_end_block", end)


def a_run_ends_twice(patch: Patch) -> None:
    """What comes after the end is let in. A run has exactly one end."""
    patch.setattr(Run, "check", lambda self, type, call, question: None)


def open_calls_are_left_open(patch: Patch) -> None:
    """At the end of a run its calls are not closed. What is open is closed before the end."""

    def end(original: Any, self: RunDesk, handle: RunHandle, ending: Any) -> Receipt:
        calls, handle._run.calls = handle._run.calls, {}
        try:
            receipt: Receipt = original(self, handle, ending)
        finally:
            handle._run.calls = calls
        return receipt

    around(patch, RunDesk, "_end", end)


def events_do_not_renew_a_lease(patch: Patch) -> None:
    """Only a heartbeat does. A lease lapses in time, and not before."""

    async def submit(original: Any, self: RunHandle, parcel: Any) -> Any:
        before = self._renewed
        try:
            return await original(self, parcel)
        finally:
            self._renewed = before

    around(patch, RunHandle, "_submit", submit)


def heartbeats_do_not_renew_a_lease(patch: Patch) -> None:
    """A sign of life is not noted. A lease lapses in time, and not before."""
    patch.setattr(RunHandle, "renew", lambda self, lease=None: None)


def leases_never_lapse(patch: Patch) -> None:
    """Whoever died is waited for. A lease lapses in time, all converges."""

    def look(original: Any, self: RunDesk, handle: RunHandle, now: float) -> float:
        handle._renewed = now
        again: float = original(self, handle, now)
        return again

    around(patch, RunDesk, "look", look)


def a_cancel_does_not_reach_the_block(patch: Patch) -> None:
    """The user is told that a run is being cancelled, and it goes on. A cancel works in time."""

    def cancel(original: Any, self: RunDesk, user: str, run_id: str, reason: Any, by: str) -> None:
        runs = self._books.users.get(user)
        run = None if runs is None else runs.get(run_id)
        handle = None if run is None else self.handles.get(run)
        scope = None if handle is None else handle._scope
        if handle is not None:
            handle._scope = None
        try:
            original(self, user, run_id, reason, by)
        finally:
            if handle is not None:
                handle._scope = scope

    around(patch, RunDesk, "_cancel", cancel)


def a_snapshot_is_one_event_behind(patch: Patch) -> None:
    """It lacks the newest event up to its seq. Who folds has the run as it is."""
    around(patch, Runs, "view", lambda original, self, id, upto: original(self, id, upto - 1))


def a_gap_is_not_healed(patch: Patch) -> None:
    """No snapshot follows a gap that says so. Who folds has the run as it is."""

    def tell(original: Any, self: Session, id: str, frames: list[bytes]) -> int:
        size: int = original(self, id, frames)
        if self.cursor > self.base:
            frames.pop()
        return size

    around(patch, Session, "_tell", tell)


def deltas_are_joined_across_a_snapshot(patch: Patch) -> None:
    """Half of what comes as one is in the snapshot. Who folds has the run as it is."""

    def tell(original: Any, self: Session, id: str, frames: list[bytes]) -> int:
        high = self.box.sent_high
        size: int = original(self, id, frames)
        self.unjoined, self.box.sent_high = 0, high
        return size

    around(patch, Session, "_tell", tell)


def deltas_of_two_runs_are_joined(patch: Patch) -> None:
    """Neighbours are taken for one stream, whose run they are of does not count. Who folds has the run as it is."""

    def append(original: Any, self: Mailbox, entry: Any) -> None:
        if entry.merge:
            entry.key = None
        original(self, entry)

    around(patch, Mailbox, "append", append)
    from trio_ws.core import deltas

    joinable = deltas._joinable

    def alike(start: Any, entry: Any) -> bool:
        run, entry.run = entry.run, start.run
        try:
            return joinable(start, entry)
        finally:
            entry.run = run

    patch.setattr(deltas, "_joinable", alike)


def a_question_is_answered_twice(patch: Patch) -> None:
    """An answer does not close its question. A question is answered once."""

    def step(original: Any, self: Grammar, type: str, payload: dict[str, Any], event: Any) -> None:
        if type != "question_closed" or payload["outcome"] != "answered":
            original(self, type, payload, event)

    around(patch, Grammar, "_step", step)


def standing_questions_are_not_told(patch: Patch) -> None:
    """Who comes late is not asked. A standing frame has the questions that are open."""
    patch.setattr(Attachment, "_standing", lambda self: [])


def standing_questions_stay(patch: Patch) -> None:
    """A question that was closed is announced again. A standing frame has the questions that are open."""
    seen: dict[str, dict[str, Any]] = {}

    def standing(original: Any, seq: int, questions: list[dict[str, Any]]) -> bytes:
        seen.update({question["question"]: question for question in questions})
        frame: bytes = original(seq, list(seen.values()))
        return frame

    around(patch, wire, "standing", standing)


def a_block_is_not_lost_by_a_crash(patch: Patch) -> None:
    """Runs whose process has died stay open. All converges, and each has its end."""

    def adopt(original: Any, self: RunDesk, box: Mailbox) -> None:
        for run in () if box.runs is None else box.runs.open:
            if run.lease is None:
                run.lease = math.inf
        original(self, box)

    around(patch, RunDesk, "adopt", adopt)


def runs_are_not_recorded(patch: Patch) -> None:
    """The store knows nothing of runs. A run has exactly one end."""
    patch.setattr(Track, "_draw_up_runs", lambda self, batch, head, now: self._runs.clear())


def a_record_is_one_event_behind(patch: Patch) -> None:
    """What is recorded of a run lacks its newest event. Who folds has the run as it is."""

    def record(original: Any, self: Run, user: str, ready: int, head: int) -> Any:
        return original(self, user, ready, head)._replace(
            state=original(self, user, ready, self.recorded or head).state
        )

    around(patch, Run, "record", record)


def what_is_not_committed_is_in_a_snapshot(patch: Patch) -> None:
    """A snapshot shows all that was accepted. Who folds has the run as it is, after a crash too."""
    around(patch, Run, "view", lambda original, self, upto: original(self, math.inf))
