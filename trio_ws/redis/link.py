"""The link to Redis: calls of all tasks over few connections, which mend themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import hiredis
import trio

from ..errors import StoreError
from .cluster import Cluster
from .refusals import refused
from .script import Script, Word, packed
from .single import OneServer
from .url import parse

TIMEOUT: Final = 2.0
"""Seconds that a call waits for a connection, and then for its answer."""


class Servers(Protocol):
    """Who answers: one server, or a cluster of them.

    Where something fails, a `StoreError` is in the place of a reply; where a server has said no, `hiredis.ReplyError`.
    """

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hold connections until cancelled. It is started when they stand, or are known not to."""

    async def ask(
        self,
        calls: Sequence[bytes],
        keys: Sequence[Word | None],
        script: Script | None = None,
        *,
        replicated: bool = False,
    ) -> list[Any]:
        """Send calls, all at once, each to the server that has its key; all may be of a script."""

    async def publish(self, channel: str, message: bytes) -> Any:
        """As `Redis.publish`."""

    async def subscribe(
        self,
        channels: Sequence[str],
        take: Callable[[bytes], None],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """As `Redis.subscribe`."""


class Redis:
    """A Redis, as its URL says (`url`). Nothing is connected before `run`.

    A call waits for a connection where there is none, `timeout` seconds at most, and as long for its answer; where none
    comes, its connection is made anew. It may be done all the same, even later: what is sent must not mind.

    Args:
      url: where it is, and as whom to log in.
      timeout: in seconds.
      replicas: how many must have what is asked with `replicated`.

    Raises:
      InvalidConfig: the URL is none; the message holds no secret.
    """

    def __init__(self, url: str, *, timeout: float = TIMEOUT, replicas: int = 0) -> None:
        self._target = target = parse(url)
        servers = Cluster if target.kind == "cluster" else OneServer
        self._servers: Servers = servers(target, timeout, replicas)

    def __repr__(self) -> str:
        return f"<Redis {self._target}>"

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hold connections, and mend them, until cancelled. It is started when Redis was reached, or could not be."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._servers.run)
            task_status.started()

    async def command(self, *words: Word, key: Word | None = None) -> Any:
        """One command, and its reply: bytes, int, list or None.

        It must be none that waits for something, as BLPOP does: all that is asked after it would wait, too. Cancelled,
        it may be done or not.

        Args:
          key: one that the command is about; it says which server of a cluster is asked.

        Raises:
          Refused: Redis has said no.
          Unreachable: there is no connection, it broke, or no answer came in time: it may be done or not.
        """
        [reply] = await self._servers.ask([packed(*words)], [key])
        return self._value(reply)

    async def commands(
        self, calls: Sequence[Sequence[Word]], keys: Sequence[Word | None] | None = None
    ) -> list[Any]:
        """Commands, all at once; `keys` are as `key` of `command`, one for each.

        Returns: the replies, in the order of the calls; the error, as `command` raises it, in place of one that failed.
        """
        return await self._ask([packed(*call) for call in calls], keys or [None] * len(calls))

    async def script(self, script: Script, keys: Sequence[Word], args: Sequence[Word] = ()) -> Any:
        """Call a script; the first of its keys says which server of a cluster is asked. Otherwise as `command`."""
        [reply] = await self._servers.ask([script.call(keys, args)], keys[:1] or [None], script)
        return self._value(reply)

    async def scripts(
        self,
        script: Script,
        calls: Sequence[tuple[Sequence[Word], Sequence[Word]]],
        *,
        replicated: bool = False,
    ) -> list[Any]:
        """Call a script with each of these keys and arguments, all at once. Otherwise as `commands`.

        Args:
          replicated: have as many replicas take it as this `Redis` was made with. Where they don't in time, it is done
            all the same, and the error is `Refused` (``NOREPLICAS``).
        """
        data = [script.call(keys, args) for keys, args in calls]
        return await self._ask(data, [keys[0] if keys else None for keys, _ in calls], script, replicated)

    async def publish(self, channel: str, message: bytes) -> int | None:
        """Send a message to those who subscribe to a channel; raises as `command` does.

        Returns: how many there are; None where that can't be told, in a cluster before Redis 7. `Unreachable` is raised
          also where it is nobody shortly after a connection had to be made again: those who listen may have lost theirs
          too, and be back soon.
        """
        count: int | None = self._value(await self._servers.publish(channel, message))
        return count

    async def subscribe(
        self,
        channels: Sequence[str],
        take: Callable[[bytes], None],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Hand over each message of these channels, until cancelled. It is started when it is subscribed.

        It has a connection of its own, which is looked at each second, and made again when it breaks; what was sent
        meanwhile is lost. Raises nothing.

        Args:
          take: must not raise.
        """
        async with trio.open_nursery() as nursery:
            await nursery.start(self._servers.subscribe, channels, take)
            task_status.started()

    async def _ask(
        self,
        calls: Sequence[bytes],
        keys: Sequence[Word | None],
        script: Script | None = None,
        replicated: bool = False,
    ) -> list[Any]:
        if not calls:
            await trio.lowlevel.checkpoint()
            return []
        replies = await self._servers.ask(calls, keys, script, replicated=replicated)
        return [self._error(reply) if isinstance(reply, hiredis.ReplyError) else reply for reply in replies]

    def _value(self, reply: Any) -> Any:
        if isinstance(reply, hiredis.ReplyError):
            raise self._error(reply)
        if isinstance(reply, StoreError):
            raise reply
        return reply

    def _error(self, reply: hiredis.ReplyError) -> StoreError:
        return refused(reply, self._target)
