"""The runs of agents, of one user and of all: what is known of each, how far it has come, and how many there may be.

Grammar (run_grammar.py) is looked at as an event is accepted. The view (`RunView`) is folded later, and only as far as
may be shown: what is not durable yet is in nobody's snapshot (`Mailbox.ready`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from ..errors import IllegalTransition, RunEnded, StoreUnavailable, TooManyRuns, UnknownRun
from .entry import FIRM
from .records import RunRecord
from .run_grammar import DELTA, RETENTION, STARTED, TERMINAL, Grammar, Happened
from .run_view import RunView

BACKLOG: Final = 64
"""How many events of one run wait to be folded, where nobody asks for a snapshot."""

MAX_BACKLOG: Final = 1024
"""How many may, where they can't be folded since they are not durable."""

NONSENSE: Final = (AttributeError, KeyError, OverflowError, TypeError, ValueError, msgspec.MsgspecError)
"""What comes of a record that is none."""

_loads = msgspec.json.Decoder().decode
_dumps = msgspec.json.Encoder().encode


class Run(Grammar):
    """One run: where it stands, and as far as that may be shown, its view.

    Attributes:
      id: its name, which is one user's.
      lease: seconds that it outlives its publisher's last sign of life; None where a scope of this process runs it.
      ended_at: when its terminal event was accepted, on the hub's clock.
      newest: the seq of its newest event.
      recorded: the seq up to which the store's record of it goes.
      recorded_at: when that was drawn up.
    """

    __slots__ = (
        "_backlog",
        "_shown",
        "_view",
        "_winners",
        "ended_at",
        "id",
        "lease",
        "newest",
        "recorded",
        "recorded_at",
    )

    def __init__(self, id: str, max_text: int) -> None:
        super().__init__()
        self.id = id
        self.lease: float | None = None
        self.ended_at = self.recorded_at = 0.0
        self.newest = self.recorded = 0
        self._view, self._shown = RunView(id, max_text), Grammar()
        self._backlog: list[Happened] = []
        self._winners: dict[str, tuple[str, str]] = {}

    @property
    def ended(self) -> bool:
        """Its terminal event was accepted."""
        return self.ended_seq > 0

    @property
    def outcome(self) -> str | None:
        """How it ended; None while it is open."""
        return self.state if self.ended_seq else None

    @property
    def ended_ts(self) -> float | None:
        """When it ended, as far as that may be shown, in seconds since the Unix epoch."""
        return self._view.ended

    def check(self, type: str, call: int, question: str) -> None:
        """Whether an event of this type may come now.

        Raises:
          IllegalTransition: it may not.
          StoreUnavailable: too much of this run waits to become durable.
        """
        why = self.why_not(type, call, question)
        if why is not None:
            raise (RunEnded if self.ended_seq else IllegalTransition)(self.id, type, why)
        if len(self._backlog) >= MAX_BACKLOG and RETENTION.get(type) != FIRM:
            raise StoreUnavailable(f"{MAX_BACKLOG} events of the run are not durable yet")

    def accepted(self, event: Happened, ready: int) -> None:
        """An event that was checked has its seq; `ready` is up to where events may be shown."""
        self._backlog.append(event)
        self.newest = event.seq
        if event.type != DELTA:
            self.step(event)
        if len(self._backlog) >= BACKLOG:
            self.view(ready)

    def won(self, question: str, winner: tuple[str, str]) -> None:
        """Note whose answer closed a question: session and message."""
        self._winners = {id: one for id, one in self._winners.items() if id in self.closed}
        self._winners[question] = winner

    def winner(self, question: str) -> tuple[str, str] | None:
        """Whose answer closed a question: session and message."""
        return self._winners.get(question)

    def view(self, upto: int) -> RunView:
        """It with everything up to `upto` folded in, which may be shown, and with what was folded before."""
        backlog = self._backlog
        if backlog and backlog[0].seq <= upto:
            ripe = len(backlog) if backlog[-1].seq <= upto else sum(event.seq <= upto for event in backlog)
            for event in backlog[:ripe]:
                self._fold(event)
            del backlog[:ripe]
        return self._view

    def _fold(self, event: Happened) -> None:
        self._view.fold(event.type, _loads(event.encoded), event.seq, event.ts)
        if event.type != DELTA:
            self._shown.step(event)

    # -- the store

    def record(self, user: str, ready: int, head: int) -> RunRecord:
        """It as a store keeps it: as it may be shown at `ready`, and what has happened since, up to `head`."""
        view = self.view(ready)
        state = {
            "seq": max(view.seq, ready),
            "ts": view.ts,
            "view": view.payload(),
            "grammar": self._shown.to_json(),
            "winners": self._winners,
            "since": [
                event._replace(encoded=msgspec.Raw(event.encoded))
                for event in self._backlog
                if event.seq <= head
            ],
        }
        is_open = not 0 < self.ended_seq <= head
        return RunRecord(user, self.id, is_open, self.lease, msgspec.json.encode(state))

    @classmethod
    def restored(cls, record: RunRecord, max_text: int) -> Run:
        """The run of a record. What the log holds beyond it is folded in by `catch_up`.

        Raises: one of `NONSENSE`, where it is no such record.
        """
        state = _loads(record.state)
        run = cls(record.run, max_text)
        run.lease = record.lease
        run._view = RunView.of(record.run, int(state["seq"]), float(state["ts"]), state["view"], max_text)
        run.recorded = run.newest = run._view.seq
        for grammar in (run, run._shown):
            grammar.take_over(state["grammar"], run._view)
        run._winners = {question: (session, id) for question, (session, id) in state["winners"].items()}
        for type, payload, seq, ts, id in state["since"]:
            run.catch_up(Happened(str(type), _dumps(payload), int(seq), float(ts), str(id)))
        return run

    def catch_up(self, event: Happened) -> None:
        """Take in an event of a log that came from a store, which may be beyond what the record has."""
        if event.seq > self._view.seq:
            self.newest = event.seq
            self._fold(event)
            self.step(event)


class Runs:
    """One user's runs: all that are open, and the ended ones that were not forgotten yet.

    Args:
      user: whose.
      books: over all users.

    Attributes:
      first_end: none of them ended earlier, on the hub's clock; infinity where none has ended.
      forgotten: ids that the store is to forget, too.
    """

    __slots__ = ("_books", "_runs", "first_end", "forgotten", "user")

    def __init__(self, user: str, books: RunBooks) -> None:
        self.user = user
        self.first_end = math.inf
        self.forgotten: list[str] = []
        self._books = books
        self._runs: dict[str, Run] = {}

    def __len__(self) -> int:
        return len(self._runs)

    @property
    def max_text(self) -> int:
        """Characters of a run's text that are kept."""
        return self._books.max_text

    def __iter__(self) -> Iterator[Run]:
        return iter(self._runs.values())

    def get(self, id: str) -> Run | None:
        """The run of this id, if it is known."""
        return self._runs.get(id)

    @property
    def open(self) -> list[Run]:
        """Those that have not ended, in the order in which they began."""
        return [run for run in self._runs.values() if not run.ended_seq]

    def check(self, id: str, type: str, call: int, question: str) -> None:
        """Whether an event of this type may come now in the run `id`.

        Raises:
          UnknownRun: there is no such run, and `type` opens none.
          TooManyRuns: it would be one more than may be open.
          IllegalTransition: see `Run.check`.
        """
        run = self._runs.get(id)
        if run is not None:
            try:
                run.check(type, call, question)
            except IllegalTransition:
                self._books.illegal += 1
                raise
        elif type != STARTED:
            raise UnknownRun(id)
        else:
            self._books.check(self)

    def add(self, run: Run) -> None:
        """A run begins, or comes from a store. Where they are too many, the one that ended first is forgotten."""
        self._runs[run.id] = run
        if run.ended_seq:
            self.first_end = min(self.first_end, run.ended_at)
        self._books.added(self, run)

    def forget(self, run: Run) -> None:
        """Let go of a run."""
        del self._runs[run.id]
        self.forgotten.append(run.id)
        self._books.removed(run)

    def forget_ended(self, before: float) -> None:
        """Let go of those that ended before then, on the hub's clock."""
        if self.first_end > before:
            return
        for run in [run for run in self._runs.values() if run.ended_seq and run.ended_at <= before]:
            self.forget(run)
        self.first_end = min((run.ended_at for run in self._runs.values() if run.ended_seq), default=math.inf)

    def accepted(self, id: str, event: Happened, lease: float | None, at: float, ready: int) -> None:
        """An event of the run `id` that was checked has its seq.

        Args:
          lease: of the run, where it begins.
          at: when, on the hub's clock.
          ready: up to where events may be shown.
        """
        run = self._runs.get(id)
        if run is None:
            run = Run(id, self._books.max_text)
            run.lease = lease
            run.accepted(event, ready)
            self.add(run)
            return
        run.accepted(event, ready)
        if event.type in TERMINAL:
            run.ended_at = at
            self.first_end = min(self.first_end, at)
            self._books.ended(self, run)

    def view(self, id: str, upto: int) -> RunView | None:
        """The view of a run with everything up to `upto`; None where it is not known, or began later."""
        run = self._runs.get(id)
        if run is None or run.opened_seq > upto:
            return None
        return run.view(upto)

    def standing(self, upto: int) -> list[dict[str, Any]]:
        """The questions that are open as of `upto`, each with its run."""
        found = []
        for run in self._runs.values():
            if run.opened_seq <= upto:
                found += [{"run": run.id, **question} for question in run.view(upto).questions.values()]
        return found

    def views(self, upto: int) -> list[RunView]:
        """The views of all runs that began by `upto`."""
        return [run.view(upto) for run in self._runs.values() if run.opened_seq <= upto]


class RunBooks:
    """The runs of all users, counted and bounded.

    Args:
      most_of_user, most: how many runs of one user, and in all, are known at once; so many may be open.
      max_text: characters of a run's text that are kept.

    Attributes:
      users: who has any.
      open: how many are open.
      illegal: how many events were refused, since the start, that had no place in their run.
    """

    def __init__(self, most_of_user: int, most: int, max_text: int) -> None:
        self.users: dict[str, Runs] = {}
        self.open = self.illegal = 0
        self.max_text = max_text
        self._most_of_user, self._most = most_of_user, most
        self._known = 0
        self._ended: dict[Run, Runs] = {}

    def __len__(self) -> int:
        return self._known

    def of(self, user: str) -> Runs:
        """The runs of a user."""
        runs = self.users.get(user)
        if runs is None:
            runs = self.users[user] = Runs(user, self)
        return runs

    def check(self, runs: Runs) -> None:
        """Whether one more may be opened.

        Raises:
          TooManyRuns: no.
        """
        open = len(runs.open)
        if open >= self._most_of_user:
            raise TooManyRuns(f"{open} runs of this user are open")
        if self.open >= self._most:
            raise TooManyRuns(f"{self.open} runs are open in all")

    def added(self, runs: Runs, run: Run) -> None:
        """A run is known from now on."""
        self._known += 1
        if run.ended_seq:
            self._ended[run] = runs
        else:
            self.open += 1
        if len(runs) > self._most_of_user:
            oldest = min((r for r in runs if r.ended_seq), key=lambda r: r.ended_at, default=None)
            if oldest is not None:
                runs.forget(oldest)
        while self._known > self._most and self._ended:
            old, its = next(iter(self._ended.items()))
            its.forget(old)

    def ended(self, runs: Runs, run: Run) -> None:
        """A run's terminal event was accepted."""
        self.open -= 1
        self._ended[run] = runs

    def removed(self, run: Run) -> None:
        """A run is not known any more."""
        self._known -= 1
        if self._ended.pop(run, None) is None:
            self.open -= 1

    def drop(self, user: str) -> None:
        """The log of `user` leaves memory: what is known of its runs does, too; the store has it."""
        runs = self.users.pop(user, None)
        for run in runs or ():
            self.removed(run)
