"""From AG-UI's events to those of a run: `AguiDecoder`."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import attrs

from ..errors import InvalidEvent
from ..event import Draft, Priority
from .chunks import Unchunker
from .grammar import OWNER, REQUIRED, AguiEvent, fault
from .words import METADATA, RUN_TYPES, VERBATIM, arguments_of, is_progress, name_of, well_formed

# Who is kept when room is needed, of what is carried as it is.
_PRIORITY: Final = {
    "RAW": Priority.LOW,
    "TEXT_MESSAGE_CONTENT": Priority.NORMAL,
    "TOOL_CALL_ARGS": Priority.NORMAL,
    "REASONING_MESSAGE_CONTENT": Priority.NORMAL,
    "RUN_FINISHED": Priority.CRITICAL,
}

# What ends a message that is being written, in a run; in AG-UI it may go on.
_BETWEEN: Final = {"agent_thinking", "tool_executing"}


@attrs.define
class _Call:
    tool: str
    ids: dict[str, Any]
    args: list[str] = attrs.Factory(list)
    number: int = 0
    since: float = 0.0


class AguiDecoder:
    """The events of an AG-UI agent as those of a run. What a run has no word for is carried as it is, as type ``agui``.

    One decoder serves one run of ours, also where the agent is run several times for it.

    Args:
      numbers: those of its calls of tools, which no other call of the run has; None counts from 1.
      clock: in seconds, for the duration of calls.

    Attributes:
      interrupts: what the agent has asked for when it ended its run; AG-UI's ``Interrupt`` objects.
      ended: its run has ended.
    """

    def __init__(
        self, *, numbers: Iterator[int] | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.interrupts: list[dict[str, Any]] = []
        self.ended = False
        self._clock = clock
        self._numbers = itertools.count(1) if numbers is None else numbers
        self._chunks = Unchunker()
        self._started = 0.0
        self._text: str | None = None
        self._half = ""  # of a letter that was cut
        self._between = False  # something has come since that ends a message of ours
        self._thoughts: dict[str, list[str]] = {}
        self._calls: dict[str, _Call] = {}
        self._handlers: dict[str, Callable[[AguiEvent], list[Draft]]] = {
            "RUN_STARTED": self._run_started,
            "RUN_FINISHED": self._run_finished,
            "RUN_ERROR": self._run_error,
            "TEXT_MESSAGE_START": self._text_start,
            "TEXT_MESSAGE_CONTENT": self._text_content,
            "TEXT_MESSAGE_END": self._text_end,
            "TOOL_CALL_START": self._call_start,
            "TOOL_CALL_ARGS": self._call_args,
            "TOOL_CALL_END": self._call_end,
            "TOOL_CALL_RESULT": self._call_result,
            "REASONING_START": self._nothing,
            "REASONING_MESSAGE_START": self._thought_start,
            "REASONING_MESSAGE_CONTENT": self._thought_content,
            "REASONING_MESSAGE_END": self._thought_end,
            "REASONING_END": self._nothing,
            "CUSTOM": self._custom,
        }

    def decode(self, event: Mapping[str, Any] | Any) -> list[Draft]:
        """What an event of AG-UI is in a run: none, one or several events to publish, in order.

        Args:
          event: its JSON form, or a model of the package ``ag-ui-protocol``.

        Raises:
          InvalidEvent: it has no type, or a field that must be there is missing or of another type; `field` says which.
            An event of a type that is not known is carried as it is.
        """
        if hasattr(event, "model_dump"):
            event = event.model_dump(mode="json", by_alias=True)
        if not isinstance(event, Mapping) or not isinstance(event.get("type"), str):
            raise InvalidEvent("not an event of AG-UI: it has no type", field="type")
        if not isinstance(event.get(OWNER), str | None):
            raise InvalidEvent(f"{event['type']}: {OWNER} is a text", field=OWNER)
        told = {key: value for key, value in event.items() if key != "rawEvent"}
        return self._decode_all(self._chunks.write_out(told))

    def end(self) -> list[Draft]:
        """What was begun and not ended when the stream is over, with its run or without."""
        return [*self._decode_all(self._chunks.end_all()), *self._leave()]

    def _decode_all(self, events: list[AguiEvent]) -> list[Draft]:
        return [draft for event in events for draft in self._decode(event)]

    def _decode(self, event: AguiEvent) -> list[Draft]:
        field = fault(event)
        if field is not None and field != "type":
            raise InvalidEvent(f"{event['type']} needs {field}", field=field)
        if event.get(OWNER) is not None or event["type"] not in REQUIRED:
            return _as_it_is(event)
        drafts = self._handlers.get(event["type"], _as_it_is)(event)
        if event["type"] == "MESSAGES_SNAPSHOT" or any(draft.type in _BETWEEN for draft in drafts):
            self._between = True
        return drafts

    # The run

    def _run_started(self, event: AguiEvent) -> list[Draft]:
        self.ended = False
        self.interrupts = []
        self._started = self._clock()
        payload = {key: value for key, value in _about(event).items() if key in ("name", "input")}
        if isinstance(event.get("input"), dict):
            payload["input"] = event["input"]
        if isinstance(event.get("parentRunId"), str):
            payload["parent"] = event["parentRunId"]
        ids = {"threadId": event["threadId"], "runId": event["runId"]}
        return [Draft(type="agent_started", payload=payload | {VERBATIM: ids})]

    def _run_finished(self, event: AguiEvent) -> list[Draft]:
        outcome = event["outcome"] if isinstance(event.get("outcome"), dict) else {}
        drafts = self._leave()
        for id in list(self._calls):
            drafts += self._finish_call(id, {VERBATIM: {"pending": True}})
        if outcome.get("type") == "interrupt":
            interrupts = outcome.get("interrupts")
            self.interrupts = interrupts if isinstance(interrupts, list) else []
        if self.interrupts or event.get("usage"):
            drafts += _as_it_is(event)
        payload = {"outcome": "cancelled" if outcome.get("type") == "cancelled" else "completed"}
        return [*drafts, self._end(event, payload, **_given(event, "result"))]

    def _run_error(self, event: AguiEvent) -> list[Draft]:
        drafts = self._leave()
        if event.get("usage"):
            drafts += _as_it_is(event)
        error = {"kind": name_of(event.get("code"), "AgentError"), "message": event["message"]}
        return [*drafts, self._end(event, {"outcome": "failed"}, error=error)]

    def _leave(self) -> list[Draft]:
        """Tells what was begun and not ended."""
        drafts = [draft for id in list(self._thoughts) for draft in self._think(id)]
        return drafts + [
            draft for id, call in list(self._calls.items()) if not call.number for draft in self._execute(id)
        ]

    def _end(self, event: AguiEvent, payload: dict[str, Any], **more: Any) -> Draft:
        self.ended = True
        self._text = None
        self._calls.clear()
        took = _about(event).get("duration")
        duration = took if _is_duration(took) else round(self._clock() - self._started, 3)
        return Draft(type="agent_completed", payload={**payload, "duration": duration, **more})

    # What it says and thinks

    def _text_start(self, event: AguiEvent) -> list[Draft]:
        if event.get("role") in (None, "assistant"):
            self._text, self._half = event["messageId"], ""
            self._between = False
        return _as_it_is(event)

    def _text_content(self, event: AguiEvent) -> list[Draft]:
        if event["messageId"] != self._text:
            return _as_it_is(event)
        delta = self._half + event["delta"]
        self._half = delta[-1:] if "\ud800" <= delta[-1:] <= "\udbff" else ""
        delta = well_formed(delta.removesuffix(self._half))
        if not delta:
            return []
        again = {"type": "TEXT_MESSAGE_START", "messageId": self._text}
        drafts = _as_it_is(again) if self._between else []
        self._between = False
        return [*drafts, Draft(type="agent_delta", payload={"text": delta}, merge="append")]

    def _text_end(self, event: AguiEvent) -> list[Draft]:
        if event["messageId"] != self._text:
            return _as_it_is(event)
        self._text = None
        return []

    def _thought_start(self, event: AguiEvent) -> list[Draft]:
        self._thoughts[event["messageId"]] = []
        return []

    def _thought_content(self, event: AguiEvent) -> list[Draft]:
        self._thoughts.setdefault(event["messageId"], []).append(event["delta"])
        return []

    def _thought_end(self, event: AguiEvent) -> list[Draft]:
        return self._think(event["messageId"])

    def _think(self, id: str) -> list[Draft]:
        text = well_formed("".join(self._thoughts.pop(id, [])))
        payload = {"text": text, VERBATIM: {"messageId": id}}
        return [Draft(type="agent_thinking", payload=payload)] if text else []

    # Its tools

    def _call_start(self, event: AguiEvent) -> list[Draft]:
        ids = {
            key: event[key] for key in ("toolCallId", "parentMessageId") if isinstance(event.get(key), str)
        }
        tool = name_of(event["toolCallName"], "tool")
        if tool != event["toolCallName"]:
            ids["toolCallName"] = event["toolCallName"]
        self._calls[event["toolCallId"]] = _Call(tool, ids)
        return []

    def _call_args(self, event: AguiEvent) -> list[Draft]:
        call = self._calls.get(event["toolCallId"])
        if call is None or call.number:
            return _as_it_is(event)
        call.args.append(event["delta"])
        return []

    def _call_end(self, event: AguiEvent) -> list[Draft]:
        call = self._calls.get(event["toolCallId"])
        return self._execute(event["toolCallId"]) if call and not call.number else []

    def _execute(self, id: str) -> list[Draft]:
        call = self._calls[id]
        call.number, call.since = next(self._numbers), self._clock()
        input = arguments_of("".join(call.args))
        told = {"call": call.number, "tool": call.tool, VERBATIM: call.ids}
        payload = told | ({} if input is None else {"input": input})
        return [Draft(type="tool_executing", payload=payload)]

    def _call_result(self, event: AguiEvent) -> list[Draft]:
        id, content = event["toolCallId"], event["content"]
        if id not in self._calls:
            return _as_it_is(event)  # a call of an earlier run
        ids = {"messageId": event["messageId"]} | ({} if isinstance(content, str) else {"parts": True})
        about = _about_call(event)
        started = [] if self._calls[id].number else self._execute(id)
        return [*started, *self._finish_call(id, {"output": content, **about, VERBATIM: ids})]

    def _finish_call(self, id: str, more: dict[str, Any]) -> list[Draft]:
        call = self._calls.pop(id)
        duration = round(self._clock() - call.since, 3)
        payload = {"call": call.number, "tool": call.tool, "outcome": "completed", "duration": duration}
        return [Draft(type="tool_completed", payload=payload | more)]

    # The rest

    def _custom(self, event: AguiEvent) -> list[Draft]:
        name, value = event["name"], event["value"]
        if event.keys() - {"type", "name", "value", "timestamp"}:
            return _as_it_is(event)
        if name == "agent_progress" and is_progress(value):
            return [Draft(type=name, payload=value)]
        if name in RUN_TYPES or name_of(name, "") != name:
            return _as_it_is(event)
        return [Draft(type=name, payload=value)]

    def _nothing(self, event: AguiEvent) -> list[Draft]:
        return []


def _as_it_is(event: AguiEvent) -> list[Draft]:
    priority = _PRIORITY.get(event["type"], Priority.HIGH)
    return [Draft(type=VERBATIM, payload=event, priority=priority)]


def _about(event: AguiEvent) -> dict[str, Any]:
    """What an encoder of ours has put into the metadata."""
    metadata = event.get("metadata")
    about = metadata.get(METADATA) if isinstance(metadata, dict) else None
    return about if isinstance(about, dict) else {}


def _about_call(event: AguiEvent) -> dict[str, Any]:
    about = _about(event)
    told = {"outcome": about.get("outcome"), "error": about.get("error"), "duration": about.get("duration")}
    if told["outcome"] not in ("completed", "failed", "cancelled"):
        return {}
    if not _is_duration(told["duration"]):
        del told["duration"]
    return {key: value for key, value in told.items() if value is not None}


def _is_duration(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0


def _given(event: AguiEvent, *fields: str) -> dict[str, Any]:
    return {field: event[field] for field in fields if event.get(field) is not None}
