"""What the adapters share: a run as they see it, and a stream told in it."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from typing import Any, Final, Protocol
from weakref import WeakKeyDictionary

from ..agui.words import RUN_TYPES, VERBATIM
from ..errors import RunFailed
from ..event import Draft, Priority


class Run(Protocol):
    """A run that is open: `trio_ws.publisher.AsyncRun`, or what `Hub.run` gives."""

    result: Any

    async def publish(self, type: str, payload: Any = None, *, priority: Priority | None = None) -> object:
        """Publishes an event in the run."""

    async def delta(self, text: str) -> object:
        """A piece of the answer."""

    async def progress(self, fraction: float, message: str | None = None) -> object:
        """How far it is."""

    def fail(self, kind: str, message: str | None = None) -> None:
        """The run will have failed, in these words."""


class Decoder(Protocol):
    """Makes drafts of what a framework streams."""

    def decode(self, item: Any) -> list[Draft]:
        """What one item of the stream is in a run."""

    def end(self) -> list[Draft]:
        """What is left to tell when the stream is over."""


class AgentFailed(RunFailed):
    """The agent that was forwarded has told that it failed. The run fails in its words, wherever this goes.

    Attributes:
      kind: what went wrong, for programs.
      message: the same in the agent's words, for its user.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


_NUMBERS: Final[WeakKeyDictionary[Any, Iterator[int]]] = WeakKeyDictionary()


def numbers_of(run: Run) -> Iterator[int]:
    """Numbers for the calls of tools in `run`: a second stream's go on where the first one's ended."""
    return _NUMBERS.setdefault(run, itertools.count(1))


async def forward_all(run: Run, stream: AsyncIterable[Any], decoder: Decoder) -> None:
    """Tells a whole stream in `run`, and closes it, also where this is cancelled or fails."""
    async with closing(stream):
        async for item in stream:
            await tell(run, decoder.decode(item))
    await tell(run, decoder.end())


async def tell(run: Run, drafts: Iterable[Draft]) -> None:
    """Tells drafts in `run`, in order. Cancelled, some of them are told.

    Raises:
      AgentFailed: one of them is the end of an agent that did not complete.
    """
    for draft in drafts:
        if draft.type == "agent_delta":
            await run.delta(draft.payload["text"])
        elif draft.type == "agent_progress":
            await run.progress(draft.payload["fraction"], draft.payload.get("message"))
        elif draft.type == "agent_completed":
            _end(run, draft.payload)
        elif draft.type in RUN_TYPES - {VERBATIM}:
            if draft.type != "agent_started":  # the run is open
                await run.publish(draft.type, draft.payload)
        else:
            await run.publish(draft.type, draft.payload, priority=draft.priority)


def _end(run: Run, payload: dict[str, Any]) -> None:
    """The end of the agent is not yet that of the run, which its block tells."""
    if payload["outcome"] == "completed":
        run.result = payload.get("result")
        return
    error = payload.get("error") or {"kind": "AgentCancelled", "message": "the agent was stopped"}
    run.fail(error["kind"], error["message"])
    raise AgentFailed(error["kind"], error["message"])


def closing(stream: Any) -> AbstractAsyncContextManager[Any]:
    """Closes `stream` behind its block, where that can be done."""
    return aclosing(stream) if hasattr(stream, "aclose") else nullcontext()
