"""All runs of one user, folded from what a client receives: what a user interface shows of them.

client.js has its like in runs.js; tests hold the two against each other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

from ..event import Event, Gap
from .run_view import ENDED, FOLDED, MAX_TEXT, RUNNING, RunView

KEPT: Final = 50
"""Runs that are kept where nobody says otherwise, as many as a server keeps (`max_runs_per_user`)."""


class RunFold(Mapping[str, RunView]):
    """The runs of a user by their ids, the oldest first, as what was folded so far has them.

    ::

        runs = trio_ws.RunFold()
        async with trio_ws.connect(url, from_="snapshot", on_gap=runs.fold) as client:
            async for event in client:
                runs.fold(event)

    Args:
      kept: how many; beyond that those that ended first are forgotten.
      max_text: characters of a run's text that are kept, the last ones.

    Attributes:
      incomplete: ids of runs of which events may be missing: their beginning was not heard, or a gap took some that no
        snapshot has healed yet.
    """

    def __init__(self, *, kept: int = KEPT, max_text: int = MAX_TEXT) -> None:
        self.incomplete: set[str] = set()
        self._kept = kept
        self._max_text = max_text
        self._views: dict[str, RunView] = {}
        self._standing = 0  # up to this seq we were told which questions are open

    def __getitem__(self, run: str) -> RunView:
        return self._views[run]

    def __iter__(self) -> Iterator[str]:
        return iter(self._views)

    def __len__(self) -> int:
        return len(self._views)

    @property
    def questions(self) -> list[dict[str, Any]]:
        """All questions that wait for the user, each with its `run`."""
        return [
            {"run": view.run, **asked} for view in self._views.values() for asked in view.questions.values()
        ]

    def fold(self, item: Event | Gap) -> None:
        """Take in what came, in the order in which it came; what is of no run changes nothing.

        Where the server's log has begun anew, runs that were open are ``lost``: nobody may be left to tell of their
        end. One that is heard of again goes on.
        """
        if isinstance(item, Gap):
            self._gap(item)
        elif not item.id:
            if item.type == "snapshot" and item.run is not None:
                self._snapshot(item, item.run)
            elif item.type == "standing":
                self._stand(item)
        elif item.run is not None and item.type in FOLDED:
            self._event(item, item.run)
        self._forget()

    def _event(self, event: Event, run: str) -> None:
        view = self._views.get(run)
        if view is not None and event.seq <= view.seq:
            return
        if event.type == "agent_started":
            view = self._begin(run, event.ts, {} if view is None else view.questions)
            self.incomplete.discard(run)
        elif view is None:
            view = self._begin(run, event.ts, {})
            self.incomplete.add(run)
        elif _given_up(view):
            view.status = RUNNING
        if event.type.startswith("question_") and event.seq <= self._standing:
            view.seq = event.seq
        else:
            view.fold(event.type, event.payload, event.seq, event.ts)

    def _snapshot(self, event: Event, run: str) -> None:
        view = self._views.get(run)
        if view is None or event.seq >= view.seq:
            self._put(RunView.of(run, event.seq, event.ts, event.payload, self._max_text))
            self.incomplete.discard(run)

    def _stand(self, event: Event) -> None:
        self._standing = event.seq
        asked = event.payload["questions"]
        for question in asked:
            if question["run"] not in self._views:
                self._begin(question["run"], question["ts"], {})
                self.incomplete.add(question["run"])
        for view in self._views.values():
            view.questions = {
                question["question"]: {key: value for key, value in question.items() if key != "run"}
                for question in asked
                if question["run"] == view.run
            }

    def _gap(self, gap: Gap) -> None:
        still_open = [view for view in self._views.values() if view.status not in ENDED]
        if gap.reason == "reset" and not gap.anew:
            # Whatever a crash took that is in no snapshot which came before.
            self.incomplete.update(view.run for view in still_open if view.seq < gap.last)
            return
        if gap.reason == "reset":
            self._standing = 0
            for view in self._views.values():
                view.seq = 0
            for view in still_open:
                view.status, view.tools, view.questions = "lost", {}, {}
            self.incomplete.update(view.run for view in still_open)
            return
        holes = sum(n for type, n in gap.lost.items() if type in FOLDED or type == "*") - gap.healed
        if gap.reason != "superseded" and holes > 0:
            self.incomplete.update(view.run for view in still_open if view.run not in gap.snapshots)

    def _begin(self, run: str, ts: float, questions: dict[str, Any]) -> RunView:
        return self._put(RunView(run=run, max_text=self._max_text, started=ts, questions=questions))

    def _put(self, view: RunView) -> RunView:
        self._views[view.run] = view
        return view

    def _forget(self) -> None:
        if len(self._views) <= self._kept:
            return
        over = sorted((view for view in self._views.values() if view.status in ENDED), key=_ended_at)
        for view in over[: len(self._views) - self._kept]:
            del self._views[view.run]
            self.incomplete.discard(view.run)


def _ended_at(view: RunView) -> float:
    """When it ended; one that is given up, and may be heard of again, after all others."""
    return math.inf if view.ended is None else view.ended


def _given_up(view: RunView) -> bool:
    """Whether it is lost by a reset, and not by its server's word."""
    return view.status == "lost" and view.ended is None
