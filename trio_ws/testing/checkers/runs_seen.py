"""What a record has seen of agents' runs, and of what their users said to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from ...core import payload as payloads
from ...core.entry import FIRM
from ...core.run_grammar import RETENTION, TERMINAL
from ...hub import Hub, Receipt
from ...hub.parcel import Parcel
from .sight import Step, Told

RECORDED_AFTER: Final = 10.0
"""Seconds after which what is in no log is in the record of its run, in a hub that could write."""


class RunsSeen:
    """The part of a `Record` that is of runs.

    Attributes:
      runs: those of agents, by user and id; where there are any, nothing else is published.
      answers: what users said to a question, and when; `accepted_answers` what was called accepted.
    """

    hub: Hub | None
    life: int
    clock: Callable[[], float]

    def __init__(self) -> None:
        self.runs: dict[tuple[str, str], Told] = {}
        self.answers: dict[str, list[tuple[str, float]]] = {}
        self.accepted_answers: dict[str, list[str]] = {}

    def _tell(self, what: str, *args: Any) -> None:
        """See `Record`."""
        raise NotImplementedError

    def opening(self, user: str, run: str, lease: float | None) -> Told:
        """An agent is about to open a run."""
        return self.runs.setdefault((user, run), Told(user=user, run=run, lease=lease))

    def run_event(self, receipt: Receipt, parcel: Parcel) -> None:
        """An event of a run was accepted."""
        assert parcel.run is not None
        told = self.opening(receipt.user, parcel.run, parcel.lease)
        told.doubtful = {seq for seq in told.doubtful if seq < receipt.seq}
        told.history = [step for step in told.history if step.seq < receipt.seq]
        told.ends += parcel.beyond
        payload = payloads.decode(parcel.encoded)
        step = Step(
            seq=receipt.seq,
            type=parcel.type,
            payload=payload,
            ts=receipt._entry.ts,
            life=self.life,
            at=self.clock(),
            receipt=receipt,
        )
        told.history.append(step)
        told.ended = told.ended or step.type in TERMINAL
        self._tell("run_event", told, step)

    def standing(self, user: str) -> tuple[list[str], list[str]]:
        """What a user may answer, some of it late, and the runs that may be open."""
        asked: dict[str, None] = {}
        open = [told for told in self.runs.values() if told.user == user and told.history and not told.ended]
        for step in (step for told in open for step in told.history):
            if step.type == "question_asked":
                asked[step.payload["question"]] = None
            elif step.type == "question_closed" and step.payload["question"] in self.answers:
                asked.pop(step.payload["question"], None)
        return list(asked), [told.run for told in open]

    def answer_accepted(self, question: str, answer: str) -> None:
        """A client was told that its answer is accepted."""
        self.accepted_answers.setdefault(question, []).append(answer)
        self._tell("answered", question, answer)

    def forget_unwritten_runs(self) -> None:
        """A hub has ended: what it had accepted, and neither made durable nor shown to anybody, may not have been."""
        for told in self.runs.values():
            told.doubtful |= {step.seq for step in told.history if self._is_doubtful(step)}
            told.ended = any(s.type in TERMINAL and s.seq not in told.doubtful for s in told.history)

    def _is_doubtful(self, step: Step) -> bool:
        """Whether a crash may have cost an event of a run."""
        assert self.hub is not None
        bare = self.hub.config.durability == "none" and RETENTION.get(step.type) != FIRM
        return is_unwritten(step.receipt) or (bare and step.at > self.clock() - RECORDED_AFTER)


def is_unwritten(receipt: Receipt) -> bool:
    """Whether an event is not durable yet, as far as its hub knows."""
    track = receipt._box.track
    return track is not None and track.committed < receipt.seq
