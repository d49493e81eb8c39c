"""What is known of an agent's run: its events folded into one bounded value. Server, clients and checkers fold alike.

A late tab is not told the history of a run; it is given this (docs/runs.md). Folding is forgiving: what has no place in
the view changes nothing, and what was folded before is not folded again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import attrs
import msgspec

MAX_TEXT: Final = 16384
"""Characters of a run's text that are kept, the last ones, where nobody says otherwise (`max_run_text`)."""

MAX_TOOL_TEXT: Final = 2048
"""Characters of an open call's output that are kept, the last ones."""

MAX_WORDS: Final = 1024
"""Characters that are kept of a thought and of a message, the first ones."""

MAX_VALUE: Final = 4096
"""Bytes of JSON up to which a value of the application's (input, result, …) is kept; a larger one is left out."""

RUNNING: Final = "running"
CANCELLING: Final = "cancelling"
ENDED: Final = ("completed", "failed", "cancelled", "lost")

Payload: TypeAlias = Mapping[str, Any]

_dumps = msgspec.json.Encoder().encode


@attrs.define(eq=True)
class RunView:
    """One run as it stands.

    Attributes:
      run: its id.
      seq: everything of it up to here is folded in; `ts` is when the newest of that came.
      status: ``running``, ``cancelling``, ``completed``, ``failed``, ``cancelled`` or ``lost``.
      started, ended: in seconds since the Unix epoch.
      thought: the last one.
      text: the answer as far as it was written; `text_from` characters were cut off at its front.
      tools: the calls that are open, by their number: ``{call, tool, input?, since, text?}``.
      last_tool: the call that was completed last: ``{call, tool, outcome, duration}``.
      calls: how many there were.
      questions: the ones that are open, by their id, as they were asked.
      left_out: which of `input`, `result`, `error` were too large to be kept.
    """

    run: str
    max_text: int = attrs.field(default=MAX_TEXT, eq=False, repr=False)
    seq: int = 0
    ts: float = 0.0
    status: str = RUNNING
    name: str | None = None
    parent: str | None = None
    started: float = 0.0
    ended: float | None = None
    thought: str | None = None
    _text: str = attrs.field(default="", alias="text", eq=False)
    _text_from: int = attrs.field(default=0, alias="text_from", eq=False)
    progress: float | None = None
    message: str | None = None
    tools: dict[int, dict[str, Any]] = attrs.field(factory=dict)
    last_tool: dict[str, Any] | None = None
    calls: int = 0
    questions: dict[str, dict[str, Any]] = attrs.field(factory=dict)
    result: Any = None
    error: Any = None
    left_out: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The last `max_text` characters that were written."""
        return self._text[-self.max_text :]

    @property
    def text_from(self) -> int:
        """How many characters were written before `text`."""
        return self._text_from + max(0, len(self._text) - self.max_text)

    def fold(self, type: str, payload: Any, seq: int, ts: float) -> None:
        """Take in one event of this run; one at or below `seq` was taken in before."""
        if seq <= self.seq:
            return
        self.seq, self.ts = seq, ts
        step = _STEPS.get(type)
        if step is not None:
            step(self, payload if isinstance(payload, Mapping) else {}, ts)

    def payload(self) -> dict[str, Any]:
        """It as the payload of a ``snapshot``; what is None is left out."""
        optional = {
            "name": self.name,
            "parent": self.parent,
            "ended": self.ended,
            "thought": self.thought,
            "progress": self.progress,
            "message": self.message,
            "last_tool": self.last_tool,
            "result": self.result,
            "error": self.error,
            "left_out": list(self.left_out) or None,
        }
        return {
            "status": self.status,
            "started": self.started,
            "text": self.text,
            "text_from": self.text_from,
            "tools": list(self.tools.values()),
            "calls": self.calls,
            "questions": list(self.questions.values()),
            **{key: value for key, value in optional.items() if value is not None},
        }

    @classmethod
    def of(cls, run: str, seq: int, ts: float, payload: Payload, max_text: int = MAX_TEXT) -> RunView:
        """The view of a ``snapshot``."""
        known = {key: payload[key] for key in _FIELDS if key in payload}
        return cls(
            run=run,
            seq=seq,
            ts=ts,
            max_text=max_text,
            tools={tool["call"]: dict(tool) for tool in payload.get("tools", ())},
            questions={question["question"]: dict(question) for question in payload.get("questions", ())},
            left_out=tuple(payload.get("left_out", ())),
            **known,
        )

    # -- what each type does

    def _start(self, payload: Payload, ts: float) -> None:
        self.name, self.parent, self.started = payload.get("name"), payload.get("parent"), ts

    def _think(self, payload: Payload, ts: float) -> None:
        self.thought = _words(payload.get("text"))

    def _write(self, payload: Payload, ts: float) -> None:
        text = self._text + _string(payload.get("text"))
        if len(text) > 2 * self.max_text + 64:  # now and then, so that a delta costs what it holds
            self._text_from += len(text) - self.max_text
            text = text[-self.max_text :]
        self._text = text

    def _advance(self, payload: Payload, ts: float) -> None:
        self.progress, self.message = payload.get("fraction"), _words(payload.get("message"))

    def _open_call(self, payload: Payload, ts: float) -> None:
        call = payload.get("call")
        if isinstance(call, int):
            tool = {"call": call, "tool": payload.get("tool"), "since": ts}
            if (input := payload.get("input")) is not None and self._fits("input", input):
                tool["input"] = input
            self.tools[call] = tool
            self.calls += 1

    def _output(self, payload: Payload, ts: float) -> None:
        tool = self.tools.get(payload.get("call", 0))
        if tool is not None:
            tool["text"] = (tool.get("text", "") + _string(payload.get("text")))[-MAX_TOOL_TEXT:]

    def _close_call(self, payload: Payload, ts: float) -> None:
        self.tools.pop(payload.get("call", 0), None)
        self.last_tool = {
            key: payload[key] for key in ("call", "tool", "outcome", "duration") if key in payload
        }

    def _ask(self, payload: Payload, ts: float) -> None:
        kept = ("question", "prompt", "choices", "schema", "expires")
        question = {key: payload[key] for key in kept if payload.get(key) is not None}
        self.questions[str(payload.get("question"))] = question | {"ts": ts}

    def _close_question(self, payload: Payload, ts: float) -> None:
        self.questions.pop(str(payload.get("question")), None)

    def _cancel(self, payload: Payload, ts: float) -> None:
        self.status = CANCELLING

    def _end(self, payload: Payload, ts: float) -> None:
        outcome = payload.get("outcome")
        self.status, self.ended = outcome if outcome in ENDED else "completed", ts
        for name in ("result", "error"):
            value = payload.get(name)
            if value is not None and self._fits(name, value):
                setattr(self, name, value)

    def _fits(self, name: str, value: Any) -> bool:
        fits = len(_dumps(value)) <= MAX_VALUE
        if not fits and name not in self.left_out:
            self.left_out += (name,)
        return fits


_FIELDS: Final = (
    "status",
    "started",
    "text",
    "text_from",
    "calls",
    "name",
    "parent",
    "ended",
    "thought",
    "progress",
    "message",
    "last_tool",
    "result",
    "error",
)

_STEPS: Final[dict[str, Callable[[RunView, Payload, float], None]]] = {
    "agent_started": RunView._start,
    "agent_thinking": RunView._think,
    "agent_delta": RunView._write,
    "agent_progress": RunView._advance,
    "tool_executing": RunView._open_call,
    "tool_output": RunView._output,
    "tool_completed": RunView._close_call,
    "question_asked": RunView._ask,
    "question_closed": RunView._close_question,
    "agent_cancelling": RunView._cancel,
    "agent_completed": RunView._end,
    "agent_lost": RunView._end,
}

FOLDED: Final = frozenset(_STEPS)
"""The types of event that a view is made of; any other in a run is no part of it."""


def _string(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _words(value: Any) -> str | None:
    return value[:MAX_WORDS] if isinstance(value, str) else None
