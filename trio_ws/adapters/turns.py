"""What models and their tools do, turn by turn, as drafts: what the adapters of frameworks have in common."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from ..agui.words import RUN_TYPES, name_of, well_formed
from ..event import Draft

DEEPEST: Final = 32
"""How many levels of a value are taken over."""


class Turns:
    """Numbers the calls of tools and measures them, and joins what is thought until something else is done.

    Args:
      numbers: those of the calls.
      clock: in seconds.
    """

    def __init__(self, numbers: Iterator[int], clock: Callable[[], float] = time.monotonic) -> None:
        self._numbers = numbers
        self._clock = clock
        self._thought: list[str] = []
        self._open: dict[str, tuple[int, str, float]] = {}
        self._known: set[str] = set()

    def text(self, text: str) -> list[Draft]:
        """A piece of the answer."""
        if not text:
            return []
        return [*self.flush(), Draft(type="agent_delta", payload={"text": well_formed(text)}, merge="append")]

    def think(self, text: str) -> list[Draft]:
        """A piece of a thought: told when something else comes."""
        self._thought.append(text)
        return []

    def flush(self) -> list[Draft]:
        """Tells what was thought."""
        text = well_formed("".join(self._thought)).strip()
        self._thought.clear()
        return [Draft(type="agent_thinking", payload={"text": text})] if text else []

    def call(self, id: str, tool: str | None, input: Any = None) -> list[Draft]:
        """A tool is called. The same call again tells nothing."""
        if id in self._known:
            return []
        self._known.add(id)
        number, name = next(self._numbers), name_of(tool, "tool")
        self._open[id] = (number, name, self._clock())
        told = {} if input is None else {"input": plain(input)}
        return [
            *self.flush(),
            Draft(type="tool_executing", payload={"call": number, "tool": name, **told}),
        ]

    def result(self, id: str, output: Any = None, *, error: str | None = None) -> list[Draft]:
        """A call that is open is over; with the kind of its `error` where it failed."""
        if id not in self._open:
            return []
        number, tool, since = self._open.pop(id)
        payload = {
            "call": number,
            "tool": tool,
            "outcome": "failed" if error else "completed",
            "duration": round(self._clock() - since, 3),
        }
        if error:
            payload["error"] = {"kind": name_of(error, "ToolError")}
        elif output is not None:
            payload["output"] = plain(output)
        return [*self.flush(), Draft(type="tool_completed", payload=payload)]

    def other(self, type: str, payload: Any) -> list[Draft]:
        """Anything else that the agent tells, by a type of its own."""
        if type in RUN_TYPES or name_of(type, "") != type:
            type = "custom"
        return [*self.flush(), Draft(type=type, payload=plain(payload))]


def plain(value: Any, depth: int = DEEPEST) -> Any:
    """`value` as something that has a JSON form: models of pydantic as their fields, what has none as its text."""
    if isinstance(value, str):
        return well_formed(value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if depth == 0:
        return "…"
    if isinstance(value, Mapping):
        return {well_formed(str(key)): plain(inner, depth - 1) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(inner, depth - 1) for inner in value]
    if hasattr(value, "model_dump"):
        return plain(value.model_dump(mode="json"), depth - 1)
    return well_formed(str(value))
