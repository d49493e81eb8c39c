"""A subscription to channels, which is looked at, and made again when it breaks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

import hiredis
import trio

from ..errors import StoreError
from .connection import Connection, OnPush
from .line import Line
from .refusals import refused
from .script import packed

PROBE: Final = 1.0
"""Seconds between two looks whether a subscription stands."""

_PING: Final = packed("PING")


class Subscriber:
    """A subscription, over a line of its own.

    Args:
      open_line: makes the line, given what takes its pushes.
      channels: of what; all at one server.
      take: given each message; it must not raise.
      sharded: whether the channels are of a shard of a cluster.

    Attributes:
      line: that line.
    """

    def __init__(
        self,
        open_line: Callable[[OnPush], Line],
        channels: Sequence[str],
        take: Callable[[bytes], None],
        *,
        sharded: bool = False,
    ) -> None:
        self.line = open_line(self._on_push)
        self._take = take
        self._subscribed = trio.Event()
        self._message, subscribe = (b"smessage", "SSUBSCRIBE") if sharded else (b"message", "SUBSCRIBE")
        # The answer to a subscription is a push; that to the ping comes after it.
        self._subscribe = packed(subscribe, *channels) + _PING

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hand over what comes until cancelled. It is started when it is subscribed for the first time."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.line.run)
            nursery.start_soon(self._keep)
            await self._subscribed.wait()
            task_status.started()

    async def _keep(self) -> None:
        while True:
            with suppress(StoreError):  # the line says why, and goes on trying
                await self._hold(await self.line.connection())

    async def _hold(self, connection: Connection) -> None:
        """Subscribe, and look at it now and then, until it fails."""
        ask = self._subscribe
        try:
            while True:
                [reply] = await connection.request(ask)
                if isinstance(reply, hiredis.ReplyError):
                    raise refused(reply, connection.place)
                self._subscribed.set()
                ask = _PING
                with trio.move_on_after(PROBE):
                    await connection.gone.wait()
        except StoreError as error:
            connection.drop(str(error))
            raise

    def _on_push(self, push: list[Any]) -> None:
        if push[0] == self._message:
            self._take(push[2])
        elif push[0] == b"sunsubscribe":
            self.line.look_anew("the channel is another server's now")
