"""The invariants on runs of agents: that each has one end, what its snapshots hold, who answered, and when it is lost.

They keep the whole history of each run as the hub accepted it (`Told.history`), and fold it by themselves. Of what a
crash may have cost nobody knows whether it happened (`Told.doubtful`); they say nothing of a run that has any of it.
"""

from __future__ import annotations

import math
from typing import Any, Final

from ...core.run_grammar import TERMINAL
from ...core.run_view import RunView
from .bookkeeping import Balance, Bounds
from .sight import Checker, Line, Step, Told
from .traffic import Accounting, Fencing

PATIENCE: Final = 3.0
"""Seconds after which a lapsed lease must have been noticed, and a block that was cancelled be over."""

NOT_FOLDED: Final = "note"


class OneEnd(Checker):
    """A run begins once, ends once, and nothing comes before or after; what is open is closed before its end."""

    invariant = "a run has exactly one end"

    def due(self) -> float:
        return math.inf

    def run_event(self, told: Told, step: Step) -> None:
        before = [s for s in told.history[:-1] if s.seq not in told.doubtful]
        if step.type == "agent_started" and before:
            self.fail(f"{told} begins again at {step.seq}")
        if step.type != "agent_started" and not told.history[:-1]:
            self.fail(f"{told} has {step.type} at {step.seq} before its beginning")
        if ends := [s for s in before if s.type in TERMINAL]:
            self.fail(f"{told} has {step.type} at {step.seq}, and has ended at {ends[0].seq}")
        if step.type in TERMINAL and not told.doubtful:
            view = folded(told, step.seq)
            if view["tools"] or view["questions"]:
                self.fail(f"{told} has ended with {view['tools']} and {view['questions']} open")

    def healed(self) -> None:
        for told in self.record.runs.values():
            ends = [s for s in told.history if s.type in TERMINAL]
            if told.opened and not told.over and not ends:
                self.fail(f"{told} was opened, and has no end")


class Shown(Checker):
    """What is sent of a run is what was accepted; a snapshot is the history up to its seq, folded; a standing frame has
    the questions that are open; and who folds what a connection is sent has the run as it is."""

    invariant = "who folds has the run as it is"

    def __init__(self, record: Any) -> None:
        super().__init__(record)
        self._views: dict[tuple[Line, str], RunView] = {}
        self._told: dict[tuple[str, str], set[int]] = {}

    def due(self) -> float:
        return math.inf

    def frame(self, line: Line, frame: dict[str, Any]) -> None:
        kind = frame["t"]
        if kind == "welcome":
            line.standing = self._owed_questions(line)
        elif kind == "snapshot":
            self._look_at_snapshot(line, frame)
        elif kind == "standing":
            if line.standing is not None and line.standing != {q["question"] for q in frame["questions"]}:
                self.fail(f"{line} is told of {frame['questions']}, and {line.standing} are open")
            line.standing = None
        elif line.standing:
            self.fail(f"{line} is not told of {line.standing}, which are open")
        else:
            line.standing = None
        if kind == "event" and "run" in frame and not frame.get("retry"):
            self._look_at_event(line, frame)
        elif kind == "gap":
            missing = sum(frame["lost"].values()) - frame["lost"].get(NOT_FOLDED, 0) - frame.get("healed", 0)
            kept = frame.get("snapshots", ())
            for where, view in list(self._views.items()) if missing else ():
                if where[0] is line and where[1] not in kept and view.seq < frame["to"]:
                    del self._views[where]

    def _owed_questions(self, line: Line) -> set[str] | None:
        """What is open as this connection is welcomed; None where that is not certain."""
        if any(told.doubtful for told in self.record.runs.values()):
            return None
        assert self.record.hub is not None
        head = self.record.hub.engine.buffer.mailboxes[line.user].safe
        mine = [told for told in self.record.runs.values() if told.user == line.user and not told.over]
        return {q["question"] for told in mine for q in folded(told, head)["questions"]}

    def _look_at_event(self, line: Line, frame: dict[str, Any]) -> None:
        told = self.record.runs.get((line.user, frame["run"]))
        seq, first = frame["seq"], frame.get("merged", {}).get("from", frame["seq"])
        if told is None or not any(s.seq == seq and s.type == frame["type"] for s in told.history):
            self.fail(f"{line} is sent {frame['type']} at {seq}, which was not accepted in {frame['run']}")
            return
        if any(first <= upto < seq for upto in self._told.get((_session(line), told.run), ())):
            self.fail(f"{line}: {first} to {seq} came as one, and half of it is in a snapshot")
        view = self._views.get((line, told.run))
        if view is None and frame["type"] == "agent_started":
            view = self._views[line, told.run] = RunView(told.run, self._max_text)
        if view is None:
            return
        view.fold(frame["type"], frame["payload"], seq, frame["ts"])

    def _look_at_snapshot(self, line: Line, frame: dict[str, Any]) -> None:
        told = self.record.runs.get((line.user, frame["run"]))
        if told is None:
            self.fail(f"{line} is sent a snapshot of {frame['run']}, which nobody opened")
            return
        self.record.sometimes("a snapshot was sent", True)
        view = RunView.of(told.run, frame["seq"], frame["ts"], frame["payload"], self._max_text)
        self._views[line, told.run] = view
        self._told.setdefault((_session(line), told.run), set()).add(frame["seq"])
        self._compare(f"{line}: the snapshot", told, frame["payload"], frame["seq"])

    def _compare(self, what: str, told: Told, payload: dict[str, Any], upto: int) -> None:
        if told.doubtful:
            self.record.sometimes("a snapshot of what is in doubt", True)
            return
        expected = folded(told, upto, self._max_text)
        wrong = {
            key: (value, expected.get(key)) for key, value in payload.items() if expected.get(key) != value
        }
        if wrong or payload.keys() != expected.keys():
            missing = expected.keys() - payload.keys()
            self.fail(f"{what} of {told} at {upto} has {wrong}, lacks {missing}")

    @property
    def _max_text(self) -> int:
        assert self.record.hub is not None
        return self.record.hub.config.max_run_text

    def healed(self) -> None:
        for (line, run), view in self._views.items():
            told = self.record.runs[line.user, run]
            if line.open and line.life == self.record.life:
                self.record.sometimes("a folded view was compared", True)
                self._compare(f"{line}: what it folds", told, view.payload(), line.cursor)


def _session(line: Line) -> str:
    return "" if line.welcome is None else line.welcome.session


class OneAnswer(Checker):
    """A question is closed once, by an answer that somebody gave; and one answer at most is called accepted."""

    invariant = "a question is answered once"

    def due(self) -> float:
        return math.inf

    def run_event(self, told: Told, step: Step) -> None:
        if step.type != "question_closed":
            return
        question = step.payload["question"]
        closed = [s for s in told.history if s.type == step.type and s.payload["question"] == question]
        if sum(s.seq not in told.doubtful for s in closed) > 1:
            self.fail(f"{question} of {told} is closed again, at {step.seq}")
        answers = [answer for answer, _ in self.record.answers.get(question, ())]
        if step.payload["outcome"] == "answered" and step.payload["answer"] not in answers:
            self.fail(f"{question} of {told} is answered {step.payload['answer']!r}, which nobody said")

    def answered(self, question: str, answer: str) -> None:
        accepted = self.record.accepted_answers[question]
        if len(accepted) > 1:
            self.fail(f"{question} was answered, they were told, by {accepted}")
        for told in self.record.runs.values():
            for s in told.history:
                if s.type != "question_closed" or s.payload["question"] != question:
                    continue
                if s.payload.get("answer") == answer:
                    return
        if not self.record.durable or not any(told.doubtful for told in self.record.runs.values()):
            self.fail(f"{answer!r} to {question} was called accepted, and is in no history")


class InTime(Checker):
    """A lease lapses when it should and not before; a block that was cancelled is over soon, and only what somebody
    cancelled is cancelled by a user."""

    invariant = "a lease lapses, and a cancel works, in time"

    def due(self) -> float:
        return -math.inf

    def run_event(self, told: Told, step: Step) -> None:
        now = self.record.clock()
        if step.type == "agent_lost":
            why = step.payload["reason"]
            alive_at = told.alive_at if told.opened else -math.inf
            if why == "lease" and (told.lease is None or now < alive_at + told.lease - 0.001):
                self.fail(f"{told} is lost, and its agent was there at {told.alive_at:.3f}")
            if why == "crash" and told.lease is not None:
                self.fail(f"{told} has a lease, and is lost by a crash")
            self.record.sometimes(f"a run was lost: {why}", True)
        if step.type == "agent_cancelling":
            told.cancelling_at = now
            if not told.cancels:
                self.fail(f"{told} is cancelled, and nobody asked for it")

    def stepped(self) -> None:
        record = self.record
        now = record.clock()
        since = max(record.jumped_at, record.begun_at) + PATIENCE
        if record.durable or record.hub is None or record.hub.draining or now < since:
            return
        for handle in record.hub.desk.handles.values():
            told = record.runs[handle.user, handle.id]
            heard = max(told.alive_at, handle._renewed)
            if told.lease is not None and now > heard + told.lease + PATIENCE and not handle._busy:
                self.fail(f"{told} should be lost: its agent was there at {told.alive_at:.3f} last")
            if told.lease is None and now > told.cancelling_at + PATIENCE:
                self.fail(f"{told} was cancelled at {told.cancelling_at:.3f}, and goes on")


class Room(Bounds):
    """As `Bounds`; what ends a run, and a cancel, may come in beyond them."""

    def allowed_beyond(self, user: str | None) -> int:
        return sum(told.ends for told in self.record.runs.values() if user in (None, told.user))


def folded(told: Told, upto: int, max_text: int = 16384) -> dict[str, Any]:
    """The payload of a snapshot of a run at `upto`, made of its history by the plainest means."""
    view: dict[str, Any] = {"status": "running", "text": "", "calls": 0}
    tools: dict[int, dict[str, Any]] = {}
    questions: dict[str, dict[str, Any]] = {}
    for step in told.history:
        if step.seq > upto:
            break
        payload, ts = step.payload, step.ts
        match step.type:
            case "agent_started":
                view["started"] = ts
                view |= {key: payload[key] for key in ("name", "parent") if key in payload}
            case "agent_delta":
                view["text"] += payload["text"]
            case "agent_thinking":
                view["thought"] = payload["text"]
            case "agent_progress":
                view["progress"] = payload["fraction"]
            case "agent_cancelling":
                view["status"] = "cancelling"
            case "tool_executing":
                view["calls"] += 1
                tools[payload["call"]] = payload | {"since": ts}
            case "tool_output":
                tool = tools[payload["call"]]
                tool["text"] = tool.get("text", "") + payload["text"]
            case "tool_completed":
                del tools[payload["call"]]
                view["last_tool"] = {key: payload[key] for key in ("call", "tool", "outcome", "duration")}
            case "question_asked":
                questions[payload["question"]] = payload | {"ts": ts}
            case "question_closed":
                questions.pop(payload["question"], None)
            case "agent_completed" | "agent_lost":
                view |= {"status": payload["outcome"], "ended": ts}
                view |= {key: payload[key] for key in ("result", "error") if key in payload}
    cut = max(0, len(view["text"]) - max_text)
    return view | {
        "text": view["text"][cut:],
        "text_from": cut,
        "tools": list(tools.values()),
        "questions": list(questions.values()),
    }


OF_RUNS: Final = (Accounting, Fencing, OneEnd, Shown, OneAnswer, InTime, Room, Balance)
"""What is watched in a run of runs."""
