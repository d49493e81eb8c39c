"""A run that notes what is told in it, and holds its teller to the grammar of runs."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable
from typing import Any

from trio_ws.event import Priority

OF_THE_RUN = {"agent_started", "agent_completed", "agent_lost", "question_asked", "question_closed"}


class Recording:
    """A run as the adapters see it.

    Attributes:
      told: types and payloads, deltas joined.
      failure: what `fail` was told.
    """

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []
        self.failure: tuple[str, str | None] | None = None
        self.result: Any = None
        self._calls: dict[int, str] = {}
        self._made = 0

    async def publish(self, type: str, payload: Any = None, *, priority: Priority | None = None) -> None:
        json.dumps(payload, allow_nan=False)
        assert type not in OF_THE_RUN, "that is the run's to say"
        if type == "tool_executing":
            assert payload["call"] == self._made + 1
            self._made += 1
            self._calls[payload["call"]] = payload["tool"]
        if type == "tool_completed":
            assert self._calls.pop(payload["call"]) == payload["tool"]
            assert payload.pop("duration") >= 0
        self.told.append((type, payload))

    async def delta(self, text: str) -> None:
        assert text
        if self.told and self.told[-1][0] == "delta":
            text = self.told.pop()[1] + text
        self.told.append(("delta", text))

    async def progress(self, fraction: float, message: str | None = None) -> None:
        assert 0 <= fraction <= 1
        self.told.append(("progress", (fraction, message)))

    def fail(self, kind: str, message: str | None = None) -> None:
        self.failure = (kind, message)


class Stream:
    """A stream that knows whether it was closed."""

    def __init__(self, items: Iterable[Any]) -> None:
        self.closed = False
        self._items = iter(items)

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        for item in self._items:
            if isinstance(item, Exception):
                raise item
            return item
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.closed = True
