"""The invariant on runs over nodes: each has exactly one end, whoever dies, and no lease lapses of who is there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import attrs

from ...core.run_grammar import LOST, TERMINAL
from ..checkers.sight import Checker, Line

if TYPE_CHECKING:
    from ..checkers.record import Record
    from .record import NodesRecord


@attrs.define
class _Seen:
    """What was shown of a run in one epoch: up to which seq, and its terminal event."""

    upto: int = 0
    end: tuple[int, str] | None = None


class OneEnd(Checker):
    """Over all that was ever sent, a run has one terminal event, and nothing behind it. What was sent in an epoch of
    which changes were lost counts no more."""

    invariant = "a run has exactly one end"
    record: NodesRecord

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self._seen: dict[tuple[str, str], dict[str, _Seen]] = {}

    def frame(self, line: Line, frame: dict[str, Any]) -> None:
        if frame["t"] != "event" or "run" not in frame or line.welcome is None:
            return
        run = (line.user, frame["run"])
        seen = self._seen.setdefault(run, {}).setdefault(line.welcome.epoch, _Seen())
        seq, is_end = frame["seq"], frame["type"] in TERMINAL
        if is_end:
            if seen.end is None and frame["type"] == LOST:
                self._look_at_lease(run, frame)
            seen.end = seen.end or (seq, frame["id"])
        seen.upto = max(seq, seen.upto)
        if self.record.losses.is_void(line.user, line.welcome.epoch):
            return
        if seen.end is not None and seen.upto > seen.end[0]:
            self.fail(f"{run} goes on to {seen.upto}, and has ended at {seen.end[0]}")
        if is_end and len(ends := set(self._ends(run))) > 1:
            self.fail(f"{run} has ended as {sorted(ends)}")

    def _ends(self, run: tuple[str, str]) -> Iterable[str]:
        """The ids of the terminal events of a run that count."""
        for epoch, seen in self._seen.get(run, {}).items():
            if seen.end is not None and not self.record.losses.is_void(run[0], epoch):
                yield seen.end[1]

    def _look_at_lease(self, run: tuple[str, str], frame: dict[str, Any]) -> None:
        told, why, at = self.record.runs[run], frame["payload"]["reason"], frame["ts"]
        self.record.sometimes(f"a run was lost: {why}", True)
        if why == "crash" and told.lease is not None:
            self.fail(f"{told} has a lease, and is lost by a crash")
        if why == "lease" and self.record.was_alive(told, at):
            self.fail(f"{told} is lost at {at:.3f}, and its agent was there")

    def healed(self) -> None:
        for run, told in self.record.runs.items():
            if told.opened and not self.record.losses.happened and not list(self._ends(run)):
                self.fail(f"{told} was opened, and has no end")
