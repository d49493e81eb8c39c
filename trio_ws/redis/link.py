"""The link to Redis: calls of all tasks over few connections, which mend themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import hiredis
import trio

from ..errors import InvalidConfig, StoreError
from .connection import Connection, Word, packed
from .line import Line
from .refusals import refused
from .script import Script
from .subscriber import Subscriber
from .url import Place, parse

TIMEOUT: Final = 2.0
"""Seconds that a call may take."""

_ELSEWHERE: Final = frozenset({"READONLY", "LOADING", "MASTERDOWN"})
"""Refusals by a server that is not the one to ask, or not any more: the connection is made again."""


class Redis:
    """A Redis, as its URL says (`url`). Nothing is connected before `run`.

    Args:
      url: where it is, and as whom to log in.
      timeout: seconds that a call may take.

    Raises:
      InvalidConfig: the URL is none; the message holds no secret.
    """

    def __init__(self, url: str, *, timeout: float = TIMEOUT) -> None:
        self._target = parse(url)
        if self._target.kind != "server":
            raise InvalidConfig("sentinels and clusters are not known yet")
        self._timeout = timeout
        self._line = self._open_line()

    def __repr__(self) -> str:
        return f"<Redis {self._target}>"

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hold connections, and mend them, until cancelled. It is started when Redis was reached, or could not be."""
        await self._line.run(task_status=task_status)

    async def command(self, *words: Word, key: str | None = None) -> Any:
        """One command, and its reply: bytes, int, list or None.

        It must be none that waits for something, as BLPOP does: all that is asked after it would wait, too. Cancelled,
        it may be done or not.

        Args:
          key: one that the command is about; it says which server of a cluster is asked.

        Raises:
          Refused: Redis said no.
          Unreachable: there is no connection, it broke, or no answer came in time: it may be done or not.
        """
        connection = await self._line.connection()
        [reply] = await connection.request(packed(*words))
        if isinstance(reply, hiredis.ReplyError):
            raise self._refused(reply, connection)
        return reply

    async def script(self, script: Script, keys: Sequence[Word], args: Sequence[Word] = ()) -> Any:
        """Call a script; the first of its keys says which server of a cluster is asked. Otherwise as `command`."""
        [reply] = await self.scripts(script, [(keys, args)])
        if isinstance(reply, StoreError):
            raise reply
        return reply

    async def scripts(
        self, script: Script, calls: Sequence[tuple[Sequence[Word], Sequence[Word]]]
    ) -> list[Any]:
        """Call a script many times, each time with other keys and arguments, all at once.

        Returns: the replies, in the order of the calls; a `StoreError` for a call that failed, as `script` raises it.
        """
        if not calls:
            await trio.lowlevel.checkpoint()
            return []
        try:
            connection = await self._line.connection()
            replies = await connection.scripts(script, calls)
            unknown = [n for n, reply in enumerate(replies) if _is(reply, "NOSCRIPT")]
            if unknown:  # somebody has flushed them
                connection.forget_scripts()
                again = await connection.scripts(script, [calls[n] for n in unknown])
                for n, reply in zip(unknown, again, strict=True):
                    replies[n] = reply
        except StoreError as error:
            return [error] * len(calls)
        return [self._refused(r, connection) if isinstance(r, hiredis.ReplyError) else r for r in replies]

    async def publish(self, channel: str, message: bytes) -> int | None:
        """Send a message to those who subscribe to a channel.

        Returns: how many there are; None where that can't be told, in a cluster before Redis 7.
        """
        return int(await self.command("PUBLISH", channel, message))

    async def subscribe(
        self,
        channel: str,
        take: Callable[[bytes], None],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Hand over each message of a channel, until cancelled. It is started when it is subscribed.

        It has a connection of its own, which is looked at each second, and made again when it breaks; what was sent
        meanwhile is lost.

        Args:
          take: must not raise.
        """

        await Subscriber(self._open_line, channel, take).run(task_status=task_status)

    def _open_line(self, on_push: Callable[[list[Any]], None] | None = None) -> Line:
        return Line(self._find, self._target, self._timeout, on_push)

    async def _find(self) -> Place:
        await trio.lowlevel.checkpoint()
        return self._target.places[0]

    def _refused(self, reply: hiredis.ReplyError, connection: Connection) -> StoreError:
        error = refused(reply)
        if error.code in _ELSEWHERE:
            connection.drop(str(error))
        return error


def _is(reply: object, code: str) -> bool:
    return isinstance(reply, hiredis.ReplyError) and str(reply).startswith(code + " ")
