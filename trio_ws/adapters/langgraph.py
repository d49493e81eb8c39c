"""A graph of LangGraph, forwarded into a run: what ``astream`` or ``astream_events`` give."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterator, Mapping
from typing import Any, Final

from ..agui.words import arguments_of, is_progress
from ..event import Draft
from .forwarding import Run, forward_all, numbers_of
from .turns import Turns, plain

_THOUGHTS: Final = ("reasoning", "thinking", "text")
"""The keys under which providers put the words of a block that is a thought."""


async def forward(run: Run, stream: AsyncIterable[Any]) -> list[Any]:
    """Tells a whole stream of a graph in `run`. Its end is not yet the end of the run, which its block tells.

    Models' words become deltas, their reasoning thoughts, tools' calls their two events. An update of a node is told as
    ``graph_node`` with its name; what a node writes itself (``get_stream_writer``) as ``custom``, or as progress where
    it is ``{"fraction": 0.4, "message": …}``.

    Args:
      stream: of ``graph.astream(…, stream_mode=["messages", "updates", "custom"])``, of any one or more of these modes,
        with subgraphs or without; or of ``graph.astream_events(…)``.

    Returns: the values of the interrupts that the graph waits for; none where it is done.

    Raises: what the graph raises. Cancelled, the stream is closed, and what was told stays told.
    """
    decoder = LangGraphDecoder(numbers_of(run))
    await forward_all(run, stream, decoder)
    return decoder.interrupts


class LangGraphDecoder:
    """Makes drafts of what a graph streams.

    Args:
      numbers: those of its calls of tools.

    Attributes:
      interrupts: the values that it waits for an answer to.
    """

    def __init__(self, numbers: Iterator[int]) -> None:
        self.interrupts: list[Any] = []
        self._turns = Turns(numbers)
        self._heard: set[str] = set()
        self._message: str | None = None
        self._calls: dict[Any, dict[str, str]] = {}

    def decode(self, item: Any) -> list[Draft]:
        """What one item of the stream is in a run."""
        if isinstance(item, Mapping):
            return self._event(item) if "event" in item else self._updates(item)
        if not isinstance(item, tuple) or len(item) < 2:
            return []
        *where, chunk = item
        if hasattr(where[-1], "content"):  # the mode "messages" alone: a message and what is known of it
            return self._said(where[-1])
        if where[-1] == "messages" or isinstance(chunk, tuple):
            return self._said(chunk[0])
        if where[-1] == "updates" or isinstance(where[-1], tuple):
            return self._updates(chunk) if isinstance(chunk, Mapping) else []
        return self._written(chunk) if where[-1] == "custom" else []

    def end(self) -> list[Draft]:
        """What is left to tell when the stream is over."""
        return [*self._call_all(), *self._turns.flush()]

    # The modes of astream

    def _updates(self, chunk: Mapping[str, Any]) -> list[Draft]:
        drafts: list[Draft] = []
        for node, update in chunk.items():
            if node == "__interrupt__":
                self.interrupts += [plain(getattr(one, "value", one)) for one in update]
                continue
            for part in update if isinstance(update, list) else [update]:
                messages = part.get("messages") if isinstance(part, Mapping) else None
                for message in messages if isinstance(messages, list) else [messages]:
                    drafts += self._said(message)
            drafts += self._turns.other("graph_node", {"node": node})
        return drafts

    def _written(self, chunk: Any) -> list[Draft]:
        """What a node writes itself."""
        if is_progress(chunk):
            return [Draft(type="agent_progress", payload=chunk)]
        return self._turns.other("custom", chunk)

    # The events of astream_events

    def _event(self, event: Mapping[str, Any]) -> list[Draft]:
        kind, data, id = event["event"], event.get("data") or {}, str(event.get("run_id"))
        if kind == "on_chat_model_stream":
            return self._said(data.get("chunk"), calls=False)
        if kind == "on_chat_model_end":
            return self._said(data.get("output"), calls=False)
        if kind == "on_tool_start":
            return self._turns.call(id, event.get("name"), data.get("input"))
        if kind == "on_tool_end":
            output = data.get("output")
            failed = getattr(output, "status", None) == "error"
            return self._turns.result(
                id, getattr(output, "content", output), error="ToolError" if failed else None
            )
        if kind == "on_tool_error":
            return self._turns.result(id, error=type(data.get("error")).__name__)
        if kind == "on_custom_event":
            return self._turns.other(str(event.get("name")), data)
        return []

    # What messages say

    def _said(self, message: Any, *, calls: bool = True) -> list[Draft]:
        """What a message, or a chunk of one, tells that was not told."""
        kind, id = getattr(message, "type", None), getattr(message, "id", None)
        if kind == "tool":
            failed = getattr(message, "status", None) == "error"
            return [
                *self._call_all(),
                *self._turns.call(message.tool_call_id, message.name),
                *self._turns.result(
                    message.tool_call_id, message.content, error="ToolError" if failed else None
                ),
            ]
        if kind not in ("ai", "AIMessageChunk"):
            return []
        drafts = self._call_all() if id != self._message else []
        if kind == "AIMessageChunk" or id is None or id not in self._heard:
            for thought, text in _words(message):
                drafts += self._turns.think(text) if thought else self._turns.text(text)
        if id is not None:
            self._heard.add(id)
        self._message = id
        if not calls:
            return drafts
        if kind == "AIMessageChunk":
            self._gather(message)
            last = getattr(message, "chunk_position", None) == "last"
            return [*drafts, *(self._call_all() if last else [])]
        for call in getattr(message, "tool_calls", None) or []:
            self._calls.clear()  # it has them whole
            drafts += self._turns.call(str(call.get("id")), call.get("name"), call.get("args"))
        return drafts

    def _gather(self, chunk: Any) -> None:
        """Keeps the pieces of a model's calls."""
        for piece in getattr(chunk, "tool_call_chunks", None) or []:
            call = self._calls.setdefault(piece.get("index"), {"id": "", "name": "", "args": ""})
            for key in call:
                call[key] += piece.get(key) or ""

    def _call_all(self) -> list[Draft]:
        """Tells the calls of a message that is over."""
        gathered, self._calls = self._calls, {}
        drafts: list[Draft] = []
        for call in gathered.values():
            drafts += self._turns.call(call["id"], call["name"], arguments_of(call["args"]))
        return drafts


def _words(message: Any) -> Iterator[tuple[bool, str]]:
    """The texts of a message, and whether each is a thought."""
    more = getattr(message, "additional_kwargs", None) or {}
    if isinstance(thought := more.get("reasoning_content"), str):
        yield True, thought
    content = message.content
    for block in [content] if isinstance(content, str) else content:
        if isinstance(block, str):
            yield False, block
        elif isinstance(block, Mapping) and block.get("type") == "text":
            yield False, str(block.get("text") or "")
        elif isinstance(block, Mapping) and block.get("type") in ("reasoning", "thinking"):
            yield True, next((str(block[key]) for key in _THOUGHTS if isinstance(block.get(key), str)), "")
