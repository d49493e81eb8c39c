"""A command's run on the server: the outbox's events as the calls that stand for them, and signs of life between.

Where the server has forgotten the run (its store is memory, and it was started again), or counts it as lost (it was
out of reach for longer than the lease), it is begun again under another id: a command goes on, and so does its run.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

import trio

from .http import Admin, Answer, Unreachable, user_path

AGAIN: Final = 1.0
"""Seconds between two signs of life while the server is away."""

_GONE: Final = ("unknown_run", "run_ended")
_LATER: Final = Answer({"error": {"code": "run_lost", "message": "the run is begun again", "status": 503}})


class Played:
    """Publishes the events of an `Outbox` in a run of `user`.

    Args:
      lease: seconds after which the run is lost where nothing is heard of us.
      on_cancel: called once, when the user has asked for a cancel.
      note: told, in a line, where the run is begun again.

    Attributes:
      id: the run's id.
    """

    def __init__(
        self,
        admin: Admin,
        user: str,
        *,
        lease: float,
        on_cancel: Callable[[], None],
        note: Callable[[str], None],
    ) -> None:
        self.id = uuid.uuid4().hex
        self._admin = admin
        self._runs = f"{user_path(user)}/runs"
        self._lease, self._period = lease, min(lease / 3, 60.0)
        self._on_cancel = on_cancel
        self._note = note
        self._told: Mapping[str, Any] = {}
        self._tool: dict[str, Any] | None = None
        self._is_open = self._is_closed = self._cancelled = False
        self._begun = trio.Event()
        self._lock = trio.Lock()

    async def publish(self, lines: Sequence[Mapping[str, Any]]) -> list[Answer]:
        """The answers to a batch, in its order. ``agent_started`` opens the run, ``agent_completed`` closes it.

        Cancelling it leaves open whether it was done. Raises `Unreachable`.
        """
        async with self._lock:
            if lines[0]["type"] == "agent_started":
                self._told = lines[0]["payload"]
                return [await self._open()]
            if not self._is_open and (answer := await self._open()).error is not None:
                return [answer] * len(lines)
            inner = [line for line in lines if line["type"] != "agent_completed"]
            answers = await self._admin.publish(inner, f"{self._path}/events") if inner else []
            if any(self._is_gone(answer) for answer in answers):
                return [_LATER] * len(lines)
            for line, answer in zip(inner, answers, strict=True):
                if line["type"] == "tool_executing" and answer.error is None:
                    self._tool = dict(line)
            if len(inner) < len(lines):
                later = next((answer for answer in answers if answer.temporary), None)
                answers.append(later or await self._close(lines[-1]["payload"]))
            return answers

    async def keep(self) -> None:
        """Gives signs of life, and hears of a cancel, until the run is closed."""
        await self._begun.wait()
        while not self._is_closed:
            began = trio.current_time()
            try:
                heard = await self._beat()
            except Unreachable:
                heard = False
            rest = self._period - (trio.current_time() - began)
            await trio.sleep(max(0.0, rest if heard else min(rest, AGAIN)))

    async def _beat(self) -> bool:
        """One sign of life, answered when a cancel is asked for; returns whether the server has taken it."""
        path, wait = self._path, 0.0 if self._cancelled else self._period
        params = {"wait": "cancelling", "timeout": wait} if wait else {}
        answer = await self._admin.call("POST", f"{path}/heartbeat", {}, params=params, wait=wait)
        if answer.error is not None:
            async with self._lock:
                if path == self._path and not self._is_closed and self._is_gone(answer):
                    await self._open()
            return False
        if answer.body.get("cancelling") and not self._cancelled:
            self._cancelled = True
            self._on_cancel()
        return True

    @property
    def _path(self) -> str:
        return f"{self._runs}/{quote(self.id, safe='')}"

    async def _open(self) -> Answer:
        answer = await self._admin.call(
            "POST", self._runs, {"run": self.id, "lease": self._lease, **self._told}
        )
        if answer.error is None and self._tool is not None:
            tool = {**self._tool, "id": f"{self.id}-tool"}
            [answer] = await self._admin.publish([tool], f"{self._path}/events")
        if answer.error is None:
            self._is_open = True
            self._begun.set()
        return answer

    async def _close(self, ending: Mapping[str, Any]) -> Answer:
        answer = await self._admin.call("POST", f"{self._path}/close", ending)
        if self._is_gone(answer):
            return _LATER
        self._is_closed = not answer.temporary
        return answer

    def _is_gone(self, answer: Answer) -> bool:
        """Whether the server has no such run any more; the next one has another id."""
        error = answer.error
        if error is None or error.get("code") not in _GONE:
            return False
        if self._is_open:
            self._note(f"the server has lost the run ({error.get('message')}); it is begun again")
            self._is_open = False
        self.id = uuid.uuid4().hex
        return True
