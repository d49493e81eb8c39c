"""A subscription to one channel, which is looked at, and made again when it breaks."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import hiredis
import trio

from ..errors import StoreError
from .connection import Connection, packed
from .line import Line
from .refusals import refused

PROBE: Final = 1.0
"""Seconds between two looks whether a subscription stands."""

_PING: Final = packed("PING")


class Subscriber:
    """A subscription to `channel`, over a line of its own.

    Args:
      open_line: makes the line, given what takes its pushes.
      take: given each message; it must not raise.
      sharded: whether the channel is one of a cluster's shards.
    """

    def __init__(
        self,
        open_line: Callable[[Callable[[list[Any]], None]], Line],
        channel: str,
        take: Callable[[bytes], None],
        *,
        sharded: bool = False,
    ) -> None:
        self._line = open_line(self._on_push)
        self._subscribed = trio.Event()
        self._take = take
        self._message, subscribe = (b"smessage", "SSUBSCRIBE") if sharded else (b"message", "SUBSCRIBE")
        # The answer to a subscription is a push; that to the ping comes after it.
        self._subscribe = packed(subscribe, channel) + packed("PING")

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hand over what comes until cancelled. It is started when it is subscribed for the first time."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep)
            await self._subscribed.wait()
            task_status.started()

    async def _keep(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._line.run)
            while True:
                # Where there is no connection the line says why, and goes on trying.
                with suppress(StoreError):
                    await self._hold(await self._line.connection())

    async def _hold(self, connection: Connection) -> None:
        """Subscribe, and look at it now and then, until it fails."""
        ask = self._subscribe
        try:
            while True:
                [reply] = await connection.request(ask)
                if isinstance(reply, hiredis.ReplyError):
                    raise refused(reply)
                self._subscribed.set()
                await trio.sleep(PROBE)
                ask = _PING
        except StoreError as error:
            connection.drop(str(error))
            raise

    def _on_push(self, push: list[Any]) -> None:
        if push[0] == self._message:
            self._take(push[2])
        elif push[0] == b"sunsubscribe":
            self._line.look_anew("the channel has moved to another server")
