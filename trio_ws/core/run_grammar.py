"""The grammar of agents' runs: which sequences of events are legal in one.

A run begins with ``agent_started`` and ends with exactly one terminal event. This is the whole grammar; what is not in
it is refused (`IllegalTransition`), and changes nothing:

    type                running       cancelling    ended
    ------------------  ------------  ------------  -----
    agent_started       .             .             .       is what makes a run: it comes once, before all else
    agent_cancelling    → cancelling  .             .
    agent_completed     → ended       → ended       .
    agent_lost          → ended       → ended       .
    anything else       stays         stays         .

    tool_executing      opens a call that was not opened before; `MAX_CALLS` may be open
    tool_output         only of an open call
    tool_completed      closes an open call
    question_asked      opens a question that was not asked before; `MAX_QUESTIONS` may be open
    question_closed     closes an open question

Before the terminal event the hub closes what is open. So nothing hangs, whatever its publisher forgot.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Final, Literal, NamedTuple, TypeAlias

import attrs
import msgspec

from ..errors import InvalidEvent
from .entry import CLASS_NORMAL, FIRM
from .run_view import CANCELLING, FOLDED, RUNNING, RunView

STARTED: Final = "agent_started"
THINKING: Final = "agent_thinking"
DELTA: Final = "agent_delta"
PROGRESS: Final = "agent_progress"
EXECUTING: Final = "tool_executing"
OUTPUT: Final = "tool_output"
TOOL_COMPLETED: Final = "tool_completed"
ASKED: Final = "question_asked"
CLOSED: Final = "question_closed"
CANCELLING_EVENT: Final = "agent_cancelling"
COMPLETED: Final = "agent_completed"
LOST: Final = "agent_lost"

TERMINAL: Final = frozenset((COMPLETED, LOST))
DELTAS: Final = frozenset((DELTA, OUTPUT))
OF_THE_HUB: Final = frozenset((STARTED, ASKED, CLOSED, CANCELLING_EVENT, COMPLETED, LOST))
"""What the hub words itself, when it is asked for it by a call of its own."""

RETENTION: Final = {type: CLASS_NORMAL if type in (DELTA, PROGRESS, OUTPUT) else FIRM for type in FOLDED}
"""The retention class of each type that a view is made of, whatever the configuration says."""

_STEPPING: Final = frozenset((EXECUTING, TOOL_COMPLETED, ASKED, CLOSED, COMPLETED, LOST))
"""Types of whose payload something decides what may come next."""

MAX_CALLS: Final = 64
"""How many calls of one run may be open."""

MAX_QUESTIONS: Final = 16
"""How many questions of one run may be open; so many closed ones are remembered, too."""

_Name: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
_Call: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=2**53)]
_loads = msgspec.json.Decoder().decode


class _Thinking(msgspec.Struct):
    text: str


class _Progress(msgspec.Struct):
    fraction: Annotated[float, msgspec.Meta(ge=0, le=1)]
    message: str | None = None


class _Executing(msgspec.Struct):
    call: _Call
    tool: _Name


class _Output(msgspec.Struct):
    call: _Call
    text: str


class _ToolCompleted(msgspec.Struct):
    call: _Call
    tool: _Name
    outcome: Literal["completed", "failed", "cancelled"]
    duration: Annotated[float, msgspec.Meta(ge=0)]


PAYLOADS: Final[dict[str, type[msgspec.Struct]]] = {
    THINKING: _Thinking,
    DELTA: _Thinking,
    PROGRESS: _Progress,
    EXECUTING: _Executing,
    OUTPUT: _Output,
    TOOL_COMPLETED: _ToolCompleted,
}
"""What the payload of each type has to hold that a publisher words; it may hold more."""

_CHECKED: Final = {type: msgspec.json.Decoder[Any](shape) for type, shape in PAYLOADS.items()}


def digest_of(opening: bytes) -> str:
    """What tells the payload of an ``agent_started`` from others."""
    return hashlib.blake2b(opening, digest_size=12).hexdigest()


def check_payload(type: str, encoded: bytes) -> int:
    """Look whether the payload of a publisher's event of a run is as its type has it.

    Returns: the number of the call that it is about; 0 where it is about none.

    Raises:
      InvalidEvent: it is not; or it is of a type that only the hub words.
    """
    if type in OF_THE_HUB:
        raise InvalidEvent(f"{type} is published by the call that is made for it", field="type")
    decoder = _CHECKED.get(type)
    if decoder is None:
        return 0
    try:
        return getattr(decoder.decode(encoded), "call", 0)
    except msgspec.ValidationError as error:
        raise InvalidEvent(f"payload of {type}: {error}", field="payload") from None


@attrs.frozen
class Closed:
    """What became of a question.

    Attributes:
      outcome: ``answered``, ``withdrawn`` or ``expired``.
    """

    outcome: str
    answer: Any = None


class Grammar:
    """Where a run stands: what decides what may come next.

    Attributes:
      state: ``running``, ``cancelling``, or how it ended.
      opened_seq, started: where its ``agent_started`` is, and when that came, in seconds since the Unix epoch.
      digest: of what it was opened with.
      ended_seq, ended_id: where its terminal event is, and that one's id; 0 and "" while it is open.
      calls: the open calls, by number: their tool, and since when.
      next_call: all calls below were opened; of those above, the ones `ahead`.
      questions: the open questions as they were asked, by id.
      closed: what became of the last ones that are closed.
    """

    __slots__ = (
        "ahead",
        "calls",
        "closed",
        "digest",
        "ended_id",
        "ended_seq",
        "next_call",
        "opened_seq",
        "questions",
        "started",
        "state",
    )

    def __init__(self) -> None:
        self.state = RUNNING
        self.digest = self.ended_id = ""
        self.opened_seq = self.ended_seq = 0
        self.started = 0.0
        self.calls: dict[int, tuple[str, float]] = {}
        self.next_call = 1
        self.ahead: set[int] = set()
        self.questions: dict[str, dict[str, Any]] = {}
        self.closed: dict[str, Closed] = {}

    def why_not(self, type: str, call: int, question: str) -> str | None:
        """Why an event of this type may not come now, see the top of this file; None where it may."""
        if self.ended_seq:
            return f"the run is {self.state}"
        if type == DELTA:
            return None
        if type == STARTED:
            return "the run is open already"
        if type == CANCELLING_EVENT and self.state == CANCELLING:
            return "it is being cancelled already"
        if type == EXECUTING:
            if call < self.next_call or call in self.ahead:
                return f"call {call} was opened before"
            if len(self.calls) >= MAX_CALLS or call >= self.next_call + MAX_CALLS:
                return f"at most {MAX_CALLS} calls are open, numbered from 1 on"
        elif type in (OUTPUT, TOOL_COMPLETED) and call not in self.calls:
            return f"call {call} is not open"
        elif type == ASKED:
            if question in self.questions or question in self.closed:
                return f"{question!r} was asked before"
            if len(self.questions) >= MAX_QUESTIONS:
                return f"{MAX_QUESTIONS} questions are open"
        elif type == CLOSED and question not in self.questions:
            return f"{question!r} is not open"
        return None

    def step(self, event: Happened) -> None:
        """An event has come that may."""
        type = event.type
        if type == STARTED:
            self.opened_seq, self.started = event.seq, event.ts
            self.digest = digest_of(event.encoded)
        elif type == CANCELLING_EVENT:
            self.state = CANCELLING
        elif type in _STEPPING:
            self._step(type, _loads(event.encoded), event)

    def _step(self, type: str, payload: dict[str, Any], event: Happened) -> None:
        if type == EXECUTING:
            self.calls[payload["call"]] = (payload["tool"], event.ts)
            self.ahead.add(payload["call"])
            while self.next_call in self.ahead:
                self.ahead.discard(self.next_call)
                self.next_call += 1
        elif type == TOOL_COMPLETED:
            self.calls.pop(payload["call"], None)
        elif type == ASKED:
            self.questions[payload["question"]] = payload
        elif type == CLOSED:
            question = payload["question"]
            self.questions.pop(question, None)
            self.closed[question] = Closed(payload["outcome"], payload.get("answer"))
            if len(self.closed) > MAX_QUESTIONS:
                del self.closed[next(iter(self.closed))]
        else:
            self.state, self.ended_seq, self.ended_id = payload["outcome"], event.seq, event.id

    def to_json(self) -> dict[str, Any]:
        """It without what a view has as well."""
        return {
            "opened_seq": self.opened_seq,
            "digest": self.digest,
            "ended_seq": self.ended_seq,
            "ended_id": self.ended_id,
            "next_call": self.next_call,
            "ahead": sorted(self.ahead),
            "closed": {id: [one.outcome, one.answer] for id, one in self.closed.items()},
        }

    def take_over(self, state: dict[str, Any], view: RunView) -> None:
        """Stand where `to_json` said, and as `view` has it.

        Raises: one of `runs.NONSENSE`, where it makes no sense.
        """
        self.opened_seq, self.digest = int(state["opened_seq"]), str(state["digest"])
        self.ended_seq, self.ended_id = int(state["ended_seq"]), str(state["ended_id"])
        self.next_call, self.ahead = int(state["next_call"]), set(state["ahead"])
        self.closed = {id: Closed(outcome, answer) for id, (outcome, answer) in state["closed"].items()}
        self.state, self.started = view.status, view.started
        self.calls = {
            call: (str(tool.get("tool")), float(tool["since"])) for call, tool in view.tools.items()
        }
        self.questions = dict(view.questions)


class Happened(NamedTuple):
    """An event of a run that was accepted."""

    type: str
    encoded: bytes
    seq: int
    ts: float
    id: str
