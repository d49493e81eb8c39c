"""One server for everything: that of the URL, or the one that the sentinels tell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import trio

from .connection import OnPush
from .line import Line, to
from .refusals import Unreachable
from .script import Script, Word, packed
from .sentinel import Sentinels
from .subscriber import Subscriber
from .url import Place, Target


class OneServer:
    """The server of `target`. Methods are as those of `Servers`."""

    def __init__(self, target: Target, timeout: float, replicas: int) -> None:
        self._target = target
        self._timeout = timeout
        self._sentinels = Sentinels(target, timeout, self._move) if target.kind == "sentinel" else None
        self._find = self._sentinels.find if self._sentinels is not None else to(target.places[0])
        self._line = self._open_line()
        # Whoever waits for replicas has all that is asked after him wait, too.
        self._patient = self._open_line(replicas=replicas) if replicas else self._line
        self._lines = [self._line, self._patient]

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            if self._sentinels is not None:
                nursery.start_soon(self._sentinels.run)
            if self._patient is not self._line:
                nursery.start_soon(self._patient.run)
            await nursery.start(self._line.run)
            task_status.started()

    async def ask(
        self,
        calls: Sequence[bytes],
        keys: Sequence[Word | None],
        script: Script | None = None,
        *,
        replicated: bool = False,
    ) -> list[Any]:
        return await (self._patient if replicated else self._line).ask(calls, script)

    async def publish(self, channel: str, message: bytes) -> Any:
        [count] = await self._line.ask([packed("PUBLISH", channel, message)])
        if count == 0 and self._line.is_settling:
            return Unreachable("nobody listens yet, after the connection was lost")
        return count

    async def subscribe(
        self,
        channels: Sequence[str],
        take: Callable[[bytes], None],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        subscriber = Subscriber(self._open_line, channels, take)
        self._lines.append(subscriber.line)
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(subscriber.run)
                task_status.started()
        finally:
            self._lines.remove(subscriber.line)

    def _open_line(self, on_push: OnPush | None = None, *, replicas: int = 0) -> Line:
        return Line(
            self._find, self._target, self._timeout, replicas=replicas, only_primary=True, on_push=on_push
        )

    def _move(self, place: Place) -> None:
        for line in self._lines:
            line.move(place)
