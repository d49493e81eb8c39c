"""Runs that are told twice: to their user as runs, and to the user's twin as bare events that say the same.

The twin is the page's bare WebSocket. A plain client confirms by being sent to, and what that one is sent must not say
that the page has processed anything; so it is another user. `TwinRun` has of `RunHandle` what the agents use.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final

import trio

from ..errors import QuestionClosed, RunFailed, StoreUnavailable
from ..event import Priority
from ..hub import Hub, RunHandle, ToolCall

TWIN: Final = "-bare"
"""Behind the name of a user: the twin."""
TWIN_TTL: Final = 5.0
"""Seconds that a twin's events are held: plain clients get live events only."""


def tell_twin(hub: Hub, user: str, type: str, payload: dict[str, Any], **options: Any) -> None:
    """Publishes to the twin of `user`, who never makes anybody wait; `options` are those of `Hub.publish`."""
    twins = {"priority": Priority.NORMAL, "ttl": TWIN_TTL} | options
    try:
        hub.publish_nowait(user + TWIN, type, payload, **twins)
    except (trio.WouldBlock, StoreUnavailable):
        pass


def twin_run(hub: Hub, user: str, number: int, name: str) -> AbstractAsyncContextManager[TwinRun]:
    """A run of `user` that is told twice, for the length of a block; `number` is its id."""
    return _told_twice(hub, hub.run(user, str(number), name=name), name=name)


@asynccontextmanager
async def _told_twice(
    hub: Hub, run: AbstractAsyncContextManager[RunHandle], **started: Any
) -> AsyncIterator[TwinRun]:
    twin: TwinRun | None = None
    try:
        async with run as handle:
            twin = TwinRun(hub, handle)
            twin.echo("agent_started", **started)
            yield twin
    finally:
        if twin is not None:
            twin.echo("agent_completed", outcome=twin.outcome)


class TwinRun:
    """One run, in a block; `number` is its id."""

    def __init__(self, hub: Hub, run: RunHandle) -> None:
        self._hub = hub
        self._run = run

    @property
    def number(self) -> int:
        return int(self._run.id)

    @property
    def outcome(self) -> str | None:
        return self._run.outcome

    def echo(self, type: str, **payload: Any) -> None:
        """Tells the twin of a critical event."""
        tell_twin(self._hub, self._run.user, type, {"run": self.number, **payload})

    def echo_delta(self, type: str, key: str, **payload: Any) -> None:
        """Tells the twin of a delta. The run is a number: of texts, joining would make one."""
        payload = {"run": self.number, **payload}
        tell_twin(self._hub, self._run.user, type, payload, key=key, merge="append")

    def run(self, number: int, name: str) -> AbstractAsyncContextManager[TwinRun]:
        parent = self._run.id
        return _told_twice(self._hub, self._run.run(str(number), name=name), name=name, parent=parent)

    async def think(self, text: str) -> None:
        await self._run.think(text)
        self.echo("agent_thinking", text=text)

    async def delta(self, text: str) -> None:
        await self._run.delta(text)
        self.echo_delta("agent_delta", self._run.id, text=text)

    async def progress(self, fraction: float, message: str) -> None:
        await self._run.progress(fraction, message)
        payload = {"run": self.number, "fraction": fraction, "message": message}
        tell_twin(self._hub, self._run.user, "agent_progress", payload, key=self._run.id)

    @asynccontextmanager
    async def tool(self, name: str, input: str) -> AsyncIterator[TwinTool]:
        """A block that raises `RunFailed` has the call fail in these words, and goes no further."""
        call: ToolCall | None = None
        ending: dict[str, Any] = {"outcome": "cancelled"}
        try:
            async with self._run.tool(name, input) as call:
                self.echo("tool_executing", call=call.number, tool=name, input=input)
                yield TwinTool(self, call)
                ending = {"outcome": "completed", "output": call.result}
        except RunFailed as failed:
            ending = {"outcome": "failed", "error": {"kind": "RunFailed", "message": str(failed)}}
        finally:
            if call is not None:
                self.echo("tool_completed", call=call.number, tool=name, **ending)

    async def ask(self, prompt: str, *, choices: Sequence[str], timeout: float) -> str | None:
        """The user's answer; None where there was none in time."""
        answer: str | None = None
        self.echo("question_asked", prompt=prompt, choices=choices)
        try:
            answer = await self._run.ask(prompt, choices=choices, timeout=timeout)
        except QuestionClosed:
            pass
        finally:
            self.echo("question_closed", prompt=prompt, answer=answer)
        return answer


class TwinTool:
    """A call of a tool that is under way."""

    def __init__(self, run: TwinRun, call: ToolCall) -> None:
        self._run = run
        self._call = call

    async def output(self, text: str) -> None:
        await self._call.output(text)
        number = self._call.number
        self._run.echo_delta("tool_output", f"{self._run.number}/{number}", call=number, text=text)

    def done(self, result: str) -> None:
        """What came of it."""
        self._call.result = result
