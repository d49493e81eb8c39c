"""AG-UI's shorthand, the chunks, written out; and the events of versions before 1.0 in today's words."""

from __future__ import annotations

from typing import Any, Final

from ..errors import InvalidEvent
from .grammar import OWNER, AguiEvent

# What a chunk stands for: the field of its name, the events of its start, its parts and its end, what the start says.
_CHUNKS: Final = {
    "TEXT_MESSAGE_CHUNK": (
        "messageId",
        ("TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT", "TEXT_MESSAGE_END"),
        ("role", "name", "metadata"),
    ),
    "TOOL_CALL_CHUNK": (
        "toolCallId",
        ("TOOL_CALL_START", "TOOL_CALL_ARGS", "TOOL_CALL_END"),
        ("toolCallName", "parentMessageId", "metadata"),
    ),
    "REASONING_MESSAGE_CHUNK": (
        "messageId",
        ("REASONING_MESSAGE_START", "REASONING_MESSAGE_CONTENT", "REASONING_MESSAGE_END"),
        ("metadata",),
    ),
}
# Beside these a chunk goes on; any other event of the same owner ends it.
_BESIDE: Final = {
    "RAW",
    "ACTIVITY_SNAPSHOT",
    "ACTIVITY_DELTA",
    "REASONING_ENCRYPTED_VALUE",
    "SUBAGENT_STARTED",
}
_OF_ALL: Final = {"RUN_STARTED", "RUN_FINISHED", "RUN_ERROR", "MESSAGES_SNAPSHOT"}
_REASONING: Final = {"role": "reasoning"}
_THINKING: Final = {
    "THINKING_START": "REASONING_START",
    "THINKING_END": "REASONING_END",
    "THINKING_TEXT_MESSAGE_START": "REASONING_MESSAGE_START",
    "THINKING_TEXT_MESSAGE_CONTENT": "REASONING_MESSAGE_CONTENT",
    "THINKING_TEXT_MESSAGE_END": "REASONING_MESSAGE_END",
}


class Unchunker:
    """Writes the chunks of one stream out: each owner has at most one open, which its next other event ends."""

    def __init__(self) -> None:
        self._open: dict[str | None, tuple[str, str]] = {}
        self._thoughts = 0

    def write_out(self, event: AguiEvent) -> list[AguiEvent]:
        """`event` without shorthand, and before it the end of the chunk that it ends.

        Raises:
          InvalidEvent: a chunk that begins something does not name it.
        """
        if event["type"] in _THINKING:
            event = self._modern(event)
        type, owner = event["type"], event.get(OWNER)
        if type == "REASONING_MESSAGE_START":
            event = {**event, **_REASONING}  # before 1.0 it said "assistant", or nothing
        if type in _CHUNKS:
            return self._chunk(event)
        if type in _BESIDE:
            return [event]
        return [*(self.end_all() if type in _OF_ALL else self.end(owner)), event]

    def end_all(self) -> list[AguiEvent]:
        """The ends of all chunks that are open."""
        return self.end(*self._open)

    def end(self, *owners: str | None) -> list[AguiEvent]:
        """The ends of the chunks that these owners have open."""
        ends = []
        for owner in owners:
            if owner in self._open:
                type, id = self._open.pop(owner)
                field, (_, _, end), _ = _CHUNKS[type]
                ends.append({"type": end, field: id} | _owner(owner))
        return ends

    def _chunk(self, event: AguiEvent) -> list[AguiEvent]:
        field, (start, part, _), about = _CHUNKS[event["type"]]
        id, owner = event.get(field), event.get(OWNER)
        for holder, (type, open) in self._open.items():
            if type == event["type"] and open == id:
                owner = holder
        told: list[AguiEvent] = []
        going_on = self._open.get(owner)
        if going_on is None or going_on[0] != event["type"] or id not in (None, going_on[1]):
            told += self.end(owner)
            if not isinstance(id, str):
                raise InvalidEvent(f"the first {event['type']} must name its {field}", field=field)
            self._open[owner] = (event["type"], id)
            said = {key: event[key] for key in about if event.get(key) is not None}
            said |= _REASONING if start == "REASONING_MESSAGE_START" else {}
            told.append({"type": start, field: id} | said | _owner(owner))
        if event.get("delta"):
            told.append({"type": part, field: self._open[owner][1], "delta": event["delta"]} | _owner(owner))
        return told

    def _modern(self, event: AguiEvent) -> AguiEvent:
        """A thought as it was told before 1.0, without a name: it is given one."""
        type = _THINKING[event["type"]]
        if type == "REASONING_MESSAGE_START":
            self._thoughts += 1
        return {**event, "type": type, "messageId": f"thinking-{self._thoughts}"}


def _owner(owner: str | None) -> dict[str, Any]:
    return {} if owner is None else {OWNER: owner}
