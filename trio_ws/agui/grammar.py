"""AG-UI's grammar: which fields an event must have, what opens what, and what may follow what.

A reading of version 1.0 of the protocol, as the schemas of its packages and ``verifyEvents`` of ``@ag-ui/client`` have
it; the tests hold it against both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

AguiEvent = dict[str, Any]
"""An event of AG-UI, as its JSON form has it."""

OWNER: Final = "subagentRunId"

# What must be there, and of which type; `object` stands for any JSON value, null included.
REQUIRED: Final[dict[str, dict[str, type]]] = {
    "RUN_STARTED": {"threadId": str, "runId": str},
    "RUN_FINISHED": {"threadId": str, "runId": str},
    "RUN_ERROR": {"message": str},
    "TEXT_MESSAGE_START": {"messageId": str},
    "TEXT_MESSAGE_CONTENT": {"messageId": str, "delta": str},
    "TEXT_MESSAGE_END": {"messageId": str},
    "TEXT_MESSAGE_CHUNK": {},
    "TOOL_CALL_START": {"toolCallId": str, "toolCallName": str},
    "TOOL_CALL_ARGS": {"toolCallId": str, "delta": str},
    "TOOL_CALL_END": {"toolCallId": str},
    "TOOL_CALL_CHUNK": {},
    "TOOL_CALL_RESULT": {"messageId": str, "toolCallId": str, "content": object},
    "STATE_SNAPSHOT": {"snapshot": object},
    "STATE_DELTA": {"delta": list},
    "MESSAGES_SNAPSHOT": {"messages": list},
    "ACTIVITY_SNAPSHOT": {"messageId": str, "activityType": str, "content": dict},
    "ACTIVITY_DELTA": {"messageId": str, "activityType": str, "patch": list},
    "RAW": {"event": object},
    "CUSTOM": {"name": str, "value": object},
    "STEP_STARTED": {"stepName": str},
    "STEP_FINISHED": {"stepName": str},
    "REASONING_START": {"messageId": str},
    "REASONING_MESSAGE_START": {"messageId": str, "role": str},
    "REASONING_MESSAGE_CONTENT": {"messageId": str, "delta": str},
    "REASONING_MESSAGE_END": {"messageId": str},
    "REASONING_MESSAGE_CHUNK": {},
    "REASONING_END": {"messageId": str},
    "REASONING_ENCRYPTED_VALUE": {"subtype": str, "entityId": str, "encryptedValue": str},
    "SUBAGENT_STARTED": {OWNER: str, "name": str},
    "SUBAGENT_FINISHED": {OWNER: str},
    "SUBAGENT_ERROR": {OWNER: str, "message": str},
}

Kind = Literal["text", "thought", "span", "tool", "step", "agent"]
Part = Literal["start", "within", "end"]

# What streams are made of: the field that names one, and the events that open it, go on with it and end it.
STREAMS: Final[dict[Kind, tuple[str, dict[str, Part]]]] = {
    "text": (
        "messageId",
        {"TEXT_MESSAGE_START": "start", "TEXT_MESSAGE_CONTENT": "within", "TEXT_MESSAGE_END": "end"},
    ),
    "thought": (
        "messageId",
        {
            "REASONING_MESSAGE_START": "start",
            "REASONING_MESSAGE_CONTENT": "within",
            "REASONING_MESSAGE_END": "end",
        },
    ),
    "span": ("messageId", {"REASONING_START": "start", "REASONING_END": "end"}),
    "tool": (
        "toolCallId",
        {"TOOL_CALL_START": "start", "TOOL_CALL_ARGS": "within", "TOOL_CALL_END": "end"},
    ),
    "step": ("stepName", {"STEP_STARTED": "start", "STEP_FINISHED": "end"}),
    "agent": (
        OWNER,
        {"SUBAGENT_STARTED": "start", "SUBAGENT_FINISHED": "end", "SUBAGENT_ERROR": "end"},
    ),
}
_PLACE: Final = {type: (kind, part) for kind, (_, events) in STREAMS.items() for type, part in events.items()}
_END: Final[dict[Kind, AguiEvent]] = {
    "text": {"type": "TEXT_MESSAGE_END"},
    "thought": {"type": "REASONING_MESSAGE_END"},
    "span": {"type": "REASONING_END"},
    "tool": {"type": "TOOL_CALL_END"},
    "step": {"type": "STEP_FINISHED"},
    # It goes on beyond what this stream tells.
    "agent": {"type": "SUBAGENT_FINISHED", "outcome": {"type": "suspended"}},
}
# What can be opened for one who comes in the middle: the start says nothing that its name does not.
_START: Final[dict[Kind, AguiEvent]] = {
    "text": {"type": "TEXT_MESSAGE_START", "role": "assistant"},
    "thought": {"type": "REASONING_MESSAGE_START", "role": "reasoning"},
}


def fault(event: Mapping[str, Any]) -> str | None:
    """The field for which `event` is none of AG-UI's (``type``: of no known type), or None."""
    type = event.get("type")
    required = REQUIRED.get(type) if isinstance(type, str) else None
    if required is None:
        return "type"
    return next((f for f, t in required.items() if f not in event or not isinstance(event[f], t)), None)


class Gate:
    """Lets through what is legal now, and mends what is not: what was lost before it never breaks a stream.

    An end of what is not open, and a start of what is, are left out; what goes on with a stream whose start was lost is
    given one; what an event says of its owner is what the first start said, since a message stays its first agent's.
    """

    def __init__(self) -> None:
        # What is open, in the order in which it was opened, with its owner.
        self._open: dict[tuple[Kind, str | None, str], str | None] = {}
        self._owners: dict[tuple[str, str | None, str], str | None] = {}  # by field, whatever kind it is of
        self._known_agents: set[str] = set()

    def admit(self, event: AguiEvent) -> list[AguiEvent]:
        """`event`, with what has to stand before it; nothing where it has no place."""
        if event["type"] not in _PLACE:
            return [event]
        kind, part = _PLACE[event["type"]]
        key = self._key(kind, event)
        if part == "start":
            return self._start(key, event)
        if key in self._open:
            before = self._end_agent(event[OWNER]) if kind == "agent" else []
            event = event if kind == "agent" else _owned(event, self._open[key])
            if part == "end":
                del self._open[key]
            return [*before, event]
        if part == "end" or kind not in _START:
            return []
        field = STREAMS[kind][0]
        start = _owned({**_START[kind], field: event[field]}, event.get(OWNER))
        return [*self._start(key, start), _owned(event, self._open[key])]

    def is_open(self, kind: Kind, id: str) -> bool:
        """Whether the stream of that name is open; not for steps, whose names are their owner's."""
        return (kind, None, id) in self._open

    def close(self) -> list[AguiEvent]:
        """Ends all that is open, what was opened last first."""
        ends = [_end_of(key, owner) for key, owner in reversed(self._open.items())]
        self._open.clear()
        return ends

    def _start(self, key: tuple[Kind, str | None, str], event: AguiEvent) -> list[AguiEvent]:
        if key in self._open:
            return []
        if key[0] == "agent":
            if key[2] in self._known_agents:
                return []
            self._known_agents.add(key[2])
            if event.get("parentSubagentRunId", key[2]) not in self._known_agents - {key[2]}:
                event = {name: value for name, value in event.items() if name != "parentSubagentRunId"}
            self._open[key] = None
        else:
            name = (STREAMS[key[0]][0], *key[1:])
            self._open[key] = owner = self._owners.setdefault(name, event.get(OWNER))
            event = _owned(event, owner)
        return [event]

    def _end_agent(self, agent: str) -> list[AguiEvent]:
        """Ends all that `agent` has left open."""
        left = [key for key, owner in reversed(self._open.items()) if owner == agent]
        return [_end_of(key, self._open.pop(key)) for key in left]

    def _key(self, kind: Kind, event: AguiEvent) -> tuple[Kind, str | None, str]:
        return kind, event.get(OWNER) if kind == "step" else None, event[STREAMS[kind][0]]


def _owned(event: AguiEvent, owner: str | None) -> AguiEvent:
    if event.get(OWNER) == owner:
        return event
    bare = {name: value for name, value in event.items() if name != OWNER}
    return bare if owner is None else {**bare, OWNER: owner}


def _end_of(key: tuple[Kind, str | None, str], owner: str | None) -> AguiEvent:
    kind, _, id = key
    return _owned({**_END[kind], STREAMS[kind][0]: id}, owner if kind != "agent" else id)
