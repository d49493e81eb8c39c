"""From the events of a run to AG-UI's: `AguiEncoder`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import attrs

from ..event import Event
from .grammar import OWNER, AguiEvent, Gate, fault
from .words import METADATA, VERBATIM

_ENDED: Final = {"completed", "failed", "cancelled", "lost"}
_AT_WORK: Final = {"agent_delta", "agent_thinking", "tool_executing"}
_BETWEEN_TEXTS: Final = {"agent_thinking", "tool_executing", "question_asked"}
_MAY_BE_NULL: Final = {"value", "snapshot", "event"}


@attrs.define
class _Lane:
    """What is told of one run: the encoder's own, or one that is nested in it.

    Attributes:
      owner: the subagent that its events are; None for the encoder's own run.
      upto: what a snapshot told; events up to there are in it.
      text: the message that is being written.
      written: the characters of the answer that were told.
      calls: the names of the open calls, by their numbers.
    """

    run: str
    owner: str | None
    parent: _Lane | None
    started: bool = False
    ended: bool = False
    upto: int = 0
    text: str | None = None
    written: int = 0
    thought: str | None = None
    calls: dict[int, str] = attrs.Factory(dict)
    pending: list[str] = attrs.Factory(list)
    questions: set[str] = attrs.Factory(set)


class AguiEncoder:
    """One run as a legal stream of AG-UI, from whatever of it comes: nested runs are its subagents.

    It takes the events of a user as a client has them, in order. Where some are missing, in a gap or before the first,
    the stream is legal all the same: snapshots are folded in, and what is open is ended before the run is.

    Args:
      run: the run to tell of; events of others, but for those nested in it, give nothing.
      thread: AG-UI's name for the conversation that the run is in; None takes the run's own.
    """

    def __init__(self, run: str, *, thread: str | None = None) -> None:
        self.run = run
        self.thread = thread or run
        self._root = _Lane(run, None, None)
        self._lanes = {run: self._root}
        self._gate = Gate()
        self._ending: AguiEvent = {}
        self._told: list[AguiEvent] = []
        self._handlers: dict[str, Callable[[_Lane, dict[str, Any], Event], None]] = {
            "agent_started": self._nothing,
            "agent_thinking": self._thinking,
            "agent_delta": self._delta,
            "tool_executing": self._call,
            "tool_completed": self._return,
            "question_asked": self._ask,
            "agent_completed": self._finished,
            "agent_lost": self._finished,
            "snapshot": self._snapshot,
            VERBATIM: self._verbatim,
        }

    @property
    def ended(self) -> bool:
        """Whether the run has ended, and all that may be told of it is told."""
        return self._root.ended

    def encode(self, event: Event) -> list[AguiEvent]:
        """What `event` is in AG-UI: none, one or several events, as their JSON form has them."""
        self._told = []
        if event.type == "standing":
            self._standing(event)
        elif (lane := self._lane_of(event)) and not (lane.ended or self.ended):
            self._event(lane, _object(event.payload), event)
        if event.ts:
            for told in self._told:
                told["timestamp"] = round(event.ts * 1000)
        return self._told

    def _event(self, lane: _Lane, payload: dict[str, Any], event: Event) -> None:
        if event.type == "snapshot":
            lane.upto = max(lane.upto, event.seq)
        elif event.seq <= lane.upto:
            return
        self._begin(lane, payload if event.type in ("agent_started", "snapshot") else {})
        if event.type in _AT_WORK and lane.parent is None:
            self._ending = {}  # the agent was run again
        if event.type in _BETWEEN_TEXTS:
            self._close_text(lane)
        self._handlers.get(event.type, self._custom)(lane, payload, event)

    # Each run's part

    def _lane_of(self, event: Event) -> _Lane | None:
        lane = self._lanes.get(event.run or "")
        if lane is None and event.run and event.type in ("agent_started", "snapshot"):
            parent = self._lanes.get(str(_object(event.payload).get("parent")))
            if parent is not None and not parent.ended:
                lane = self._lanes[event.run] = _Lane(event.run, event.run, parent)
        return lane

    def _begin(self, lane: _Lane, payload: Mapping[str, Any]) -> None:
        """Tells that the run has started, if that was not told yet, and those that it is nested in before it."""
        if lane.started:
            return
        lane.started = True
        about = {key: payload[key] for key in ("name", "input") if payload.get(key) is not None}
        if lane.parent is None:
            started: AguiEvent = {"type": "RUN_STARTED", "threadId": self.thread, "runId": self.run}
            if isinstance(parent := payload.get("parent"), str):
                started["parentRunId"] = parent
            self._told.append(started | _metadata(about))
        else:
            self._begin(lane.parent, {})
            started = {
                "type": "SUBAGENT_STARTED",
                OWNER: lane.run,
                "name": str(payload.get("name") or "agent"),
            }
            if lane.parent.owner is not None:
                started["parentSubagentRunId"] = lane.parent.owner
            self._admit(started | _metadata(about))

    def _nothing(self, lane: _Lane, payload: dict[str, Any], event: Event) -> None:
        """It is told as the run begins."""

    def _finished(self, lane: _Lane, payload: dict[str, Any], event: Event) -> None:
        self._close_text(lane)
        outcome = payload.get("outcome")
        about = _metadata({key: payload[key] for key in ("outcome", "duration", "reason") if key in payload})
        error = _object(payload.get("error"))
        kind = str(error.get("kind") or ("agent_lost" if outcome == "lost" else outcome))
        words = str(error.get("message") or ("the agent is gone" if outcome == "lost" else kind))
        result = {"result": payload["result"]} if payload.get("result") is not None else {}
        lane.ended = True
        if lane.owner is not None:
            if outcome == "completed":
                end: AguiEvent = {"type": "SUBAGENT_FINISHED", "outcome": {"type": "success"}} | result
            else:
                end = {"type": "SUBAGENT_ERROR", "message": words, "code": kind}
            self._admit({**end, OWNER: lane.owner} | about)
            return
        self._told += self._gate.close()
        if outcome in ("completed", "cancelled"):
            ids = {"threadId": self.thread, "runId": self.run}
            end = {"type": "RUN_FINISHED", **ids, "outcome": self._outcome(lane, outcome)} | result
        else:
            end = {"type": "RUN_ERROR", "message": words, "code": kind}
        usage = {"usage": self._ending["usage"]} if self._ending.get("usage") else {}
        self._told.append(end | usage | about)

    def _outcome(self, lane: _Lane, outcome: str) -> AguiEvent:
        if outcome == "cancelled":
            return {"type": "cancelled"}
        own = _object(self._ending.get("outcome"))
        if own.get("type") == "interrupt" and isinstance(own.get("interrupts"), list):
            return {"type": "interrupt", "interrupts": own["interrupts"]}
        return {"type": "success"} | ({"pendingToolCallIds": lane.pending} if lane.pending else {})

    # What it does

    def _thinking(self, lane: _Lane, payload: dict[str, Any], event: Event) -> None:
        self._think(lane, _text(payload), _object(payload.get(VERBATIM)), event)

    def _think(self, lane: _Lane, text: str, ids: Mapping[str, Any], event: Event) -> None:
        lane.thought = text
        id = {"messageId": str(ids.get("messageId") or f"{lane.run}/thought/{event.seq}")}
        for told in (
            {"type": "REASONING_START"},
            {"type": "REASONING_MESSAGE_START", "role": "reasoning"},
            {"type": "REASONING_MESSAGE_CONTENT", "delta": text},
            {"type": "REASONING_MESSAGE_END"},
            {"type": "REASONING_END"},
        ):
            self._admit(told | id, lane)

    def _delta(self, lane: _Lane, payload: dict[str, Any], event: Event) -> None:
        if text := _text(payload):
            self._write(lane, text, event.merged.from_seq if event.merged else event.seq)

    def _write(self, lane: _Lane, text: str, seq: int) -> None:
        lane.written += len(text)
        if lane.text is None or not self._gate.is_open("text", lane.text):
            lane.text = f"{lane.run}/text/{seq}"
            self._admit({"type": "TEXT_MESSAGE_START", "messageId": lane.text, "role": "assistant"}, lane)
        self._admit({"type": "TEXT_MESSAGE_CONTENT", "messageId": lane.text, "delta": text}, lane)

    def _close_text(self, lane: _Lane) -> None:
        if lane.text is not None:
            self._admit({"type": "TEXT_MESSAGE_END", "messageId": lane.text}, lane)
            lane.text = None

    def _call(self, lane: _Lane, payload: Mapping[str, Any], event: Event | None = None) -> None:
        call, ids = payload.get("call"), _object(payload.get(VERBATIM))
        if not isinstance(call, int) or call in lane.calls:
            return
        id = lane.calls[call] = str(ids.get("toolCallId") or f"{lane.run}/call/{call}")
        name = str(ids.get("toolCallName", payload.get("tool") or "tool"))
        start = {"type": "TOOL_CALL_START", "toolCallId": id, "toolCallName": name}
        if isinstance(message := ids.get("parentMessageId"), str):
            start["parentMessageId"] = message
        self._admit(start, lane)
        if payload.get("input") is not None:
            self._admit({"type": "TOOL_CALL_ARGS", "toolCallId": id, "delta": _json(payload["input"])}, lane)
        self._admit({"type": "TOOL_CALL_END", "toolCallId": id}, lane)

    def _return(self, lane: _Lane, payload: Mapping[str, Any], event: Event | None = None) -> None:
        call, ids = payload.get("call"), _object(payload.get(VERBATIM))
        if not isinstance(call, int):
            return
        self._call(lane, payload)  # where its start was lost
        id = lane.calls.pop(call)
        if ids.get("pending"):
            lane.pending.append(id)
            return
        about = {key: payload[key] for key in ("outcome", "duration", "error") if key in payload}
        result = {
            "type": "TOOL_CALL_RESULT",
            "messageId": str(ids.get("messageId") or f"{lane.run}/result/{call}"),
            "toolCallId": id,
            "content": _content(payload, parts=bool(ids.get("parts"))),
            "role": "tool",
        }
        self._admit(result | _metadata(about), lane)

    def _ask(self, lane: _Lane, payload: Mapping[str, Any], event: Event | None = None) -> None:
        question = str(payload.get("question"))
        if question not in lane.questions:
            lane.questions.add(question)
            self._admit({"type": "CUSTOM", "name": "question_asked", "value": dict(payload)}, lane)

    def _custom(self, lane: _Lane, payload: dict[str, Any], event: Event) -> None:
        """Any other type of event, as the publisher worded it."""
        self._admit({"type": "CUSTOM", "name": event.type, "value": event.payload}, lane)

    # What is AG-UI's already

    def _verbatim(self, lane: _Lane, payload: dict[str, Any], event: Event) -> None:
        told = {key: value for key, value in payload.items() if value is not None or key in _MAY_BE_NULL}
        type = told.get("type")
        if fault(told) is not None or type == "RUN_STARTED" or str(type).endswith("_CHUNK"):
            self._custom(lane, payload, event)
        elif type in ("RUN_FINISHED", "RUN_ERROR"):
            self._ending = told
        else:
            if type == "TEXT_MESSAGE_START" and OWNER not in told and told.get("role") in (None, "assistant"):
                self._close_text(lane)
                lane.text = told["messageId"]
            elif type == "MESSAGES_SNAPSHOT":
                self._close_text(lane)  # it may leave that message out
            self._admit(told, lane)

    # What is told again

    def _snapshot(self, lane: _Lane, payload: dict[str, Any], event: Event) -> None:
        """Tells what the snapshot has and the stream has not: more text, calls that began or ended, the end."""
        thought = payload.get("thought")
        if isinstance(thought, str) and thought and not (lane.thought or "").startswith(thought):
            self._close_text(lane)
            self._think(lane, thought, {}, event)
        text = _text(payload)
        cut = payload.get("text_from")
        missing = (cut if isinstance(cut, int) else 0) + len(text) - lane.written
        if missing > 0:
            lane.written += max(missing - len(text), 0)  # what is cut off at its front is not told any more
            self._write(lane, text[-missing:], event.seq)
        calls = {
            call["call"]: call for call in _list(payload.get("tools")) if isinstance(call.get("call"), int)
        }
        last = _object(payload.get("last_tool"))
        for number in sorted(lane.calls.keys() - calls):
            self._return(lane, last if last.get("call") == number else {"call": number})
        for number in sorted(calls.keys() - lane.calls):
            self._close_text(lane)
            self._call(lane, calls[number])
        if payload.get("progress") is not None:
            told = {"fraction": payload["progress"]}
            told |= {"message": payload["message"]} if payload.get("message") is not None else {}
            self._admit({"type": "CUSTOM", "name": "agent_progress", "value": told}, lane)
        for question in _list(payload.get("questions")):
            self._ask(lane, question)
        if str(payload.get("status")) in _ENDED:
            self._finished(lane, {**payload, "outcome": payload["status"]}, event)
        elif payload.get("status") == "cancelling":
            self._admit({"type": "CUSTOM", "name": "agent_cancelling", "value": {}}, lane)

    def _standing(self, event: Event) -> None:
        for question in _list(_object(event.payload).get("questions")):
            lane = self._lanes.get(str(question.get("run")))
            if lane is not None and not (lane.ended or self.ended):
                self._begin(lane, {})
                self._ask(lane, {key: value for key, value in question.items() if key not in ("run", "ts")})

    def _admit(self, told: AguiEvent, lane: _Lane | None = None) -> None:
        if lane and lane.owner is not None and OWNER not in told and told["type"] != "MESSAGES_SNAPSHOT":
            told = {**told, OWNER: lane.owner}
        self._told += self._gate.admit(told)


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> Iterable[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _text(payload: Mapping[str, Any]) -> str:
    text = payload.get("text")
    return text if isinstance(text, str) else ""


def _json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _content(payload: Mapping[str, Any], *, parts: bool) -> Any:
    """A tool's result for the model and the page: what it gave, or in its place why it gave nothing."""
    output = payload.get("output")
    if output is not None:
        return output if parts else _json(output)
    error = _object(payload.get("error"))
    words = error.get("message") or error.get("kind")
    outcome = payload.get("outcome")
    return str(words or ("" if outcome in (None, "completed") else outcome))


def _metadata(about: dict[str, Any]) -> AguiEvent:
    return {"metadata": {METADATA: about}} if about else {}
