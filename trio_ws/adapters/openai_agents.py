"""An agent of the OpenAI Agents SDK, forwarded into a run: what ``stream_events`` gives."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterator
from typing import Any, Final

from ..agui.words import arguments_of
from ..event import Draft
from .forwarding import Run, forward_all, numbers_of
from .turns import Turns

_TEXT: Final = ("response.output_text.delta", "response.refusal.delta")
_THOUGHT: Final = ("response.reasoning_summary_text.delta", "response.reasoning_text.delta")


async def forward(run: Run, stream: AsyncIterable[Any]) -> None:
    """Tells a whole stream of an agent in `run`. Its end is not yet the end of the run, which its block tells.

    Models' words become deltas, their reasoning thoughts, tools' calls their two events. That another agent takes over
    is told as ``agent_updated`` with its name.

    Args:
      stream: of ``Runner.run_streamed(…).stream_events()``. What the agent came to is in its ``final_output``.

    Raises: what the agent raises. Cancelled, the stream is closed, and what was told stays told.
    """
    await forward_all(run, stream, OpenAIAgentsDecoder(numbers_of(run)))


class OpenAIAgentsDecoder:
    """Makes drafts of what an agent streams.

    Args:
      numbers: those of its calls of tools.
    """

    def __init__(self, numbers: Iterator[int]) -> None:
        self._turns = Turns(numbers)
        self._streamed = False  # the words of the message that is to come were told

    def decode(self, item: Any) -> list[Draft]:
        """What one event of the stream is in a run."""
        if item.type == "raw_response_event":
            return self._raw(item.data)
        if item.type == "run_item_stream_event":
            return self._item(item.name, item.item)
        if item.type == "agent_updated_stream_event":
            return self._turns.other("agent_updated", {"agent": str(item.new_agent.name)})
        return []

    def end(self) -> list[Draft]:
        """What is left to tell when the stream is over."""
        return self._turns.flush()

    def _raw(self, data: Any) -> list[Draft]:
        kind = getattr(data, "type", None)
        if kind in _TEXT:
            self._streamed = True
            return self._turns.text(data.delta)
        if kind in _THOUGHT:
            return self._turns.think(data.delta)
        if kind == "response.reasoning_summary_part.done":
            return self._turns.flush()
        return []

    def _item(self, name: str, item: Any) -> list[Draft]:
        raw = getattr(item, "raw_item", None)
        if name == "message_output_created":
            told, self._streamed = self._streamed, False
            words = [_field(part, "text") or _field(part, "refusal") for part in _field(raw, "content") or []]
            return [] if told else self._turns.text("".join(word or "" for word in words))
        if name in ("tool_called", "handoff_requested"):
            return self._call(raw)
        if name == "tool_output":
            return self._turns.result(_id(raw), getattr(item, "output", None))
        if name == "handoff_occured":
            return self._turns.result(_id(raw), _field(raw, "output"))
        return []

    def _call(self, raw: Any) -> list[Draft]:
        kind = str(_field(raw, "type"))
        drafts = self._turns.call(
            _id(raw), _field(raw, "name") or kind, arguments_of(_field(raw, "arguments") or "")
        )
        # What the model's own side runs is over by the time that it is told, and has no output.
        return drafts if "function" in kind else [*drafts, *self._turns.result(_id(raw))]


def _field(raw: Any, name: str) -> Any:
    return raw.get(name) if isinstance(raw, dict) else getattr(raw, name, None)


def _id(raw: Any) -> str:
    return str(_field(raw, "call_id") or _field(raw, "id"))
