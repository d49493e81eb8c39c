"""One connection to a Redis server: calls go out as they come, and replies are handed out in order.

What tasks ask in one turn of the loop goes out in one write; where nothing is under way, a call is written there and
then. So a call costs no task of its own, and a hundred at once cost one write and one read.

A reply belongs to the call that is first in line: nothing else says so. Hence a call that is cancelled stays in
line, and its reply is thrown away; and a call that has no reply in time takes the connection with it.
"""

from __future__ import annotations

import math
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

import hiredis
import outcome
import trio

from ..errors import StoreError
from .refusals import Refused, Unreachable, is_refusal, refused
from .script import Script, packed
from .url import Login, Place

MOST_UNSENT: Final = 64 * 1024 * 1024
"""Bytes that may wait to be sent to one server; beyond, calls fail."""

_READ_BYTES: Final = 64 * 1024
_NOTHING: Final = object()
_ABORT: Final = struct.pack("ii", 1, 0)  # SO_LINGER: the kernel lets go of unsent bytes at once

OnPush = Callable[[list[Any]], None]
"""What takes what comes unasked, such as messages of a channel; it must not raise."""


class _Call:
    """What waits for replies: `left` more of them."""

    __slots__ = ("deadline", "left", "replies", "task")

    def __init__(self, task: trio.lowlevel.Task, left: int, deadline: float) -> None:
        self.task: trio.lowlevel.Task | None = task
        self.left = left
        self.replies: list[Any] = []
        self.deadline = deadline

    def abort(self, _: object) -> trio.lowlevel.Abort:
        """Nobody waits any more; its place in line stays."""
        self.task = None
        return trio.lowlevel.Abort.SUCCEEDED


class Connection:
    """A connection over `stream`, which it closes in the end.

    Args:
      place: the server, for messages.
      timeout: seconds that a call may take; then the connection is dropped.
      on_push: takes what comes unasked. Then the connection speaks RESP3, which tells that from replies; else RESP2,
        whose replies are bytes, int, list and None.

    Attributes:
      failure: why it is of no use any more; None while it is.
      greeted: whether it was of use.
      gone: set when it fails.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        place: Place,
        timeout: float,
        on_push: OnPush | None = None,
    ) -> None:
        self.failure: str | None = None
        self.greeted = False
        self.gone = trio.Event()
        self.place = place
        self._on_push = on_push
        self._stream = stream
        self._timeout = timeout
        self._reader = hiredis.Reader(notEnoughData=_NOTHING)
        self._pending: deque[_Call] = deque()
        self._scripts: set[str] = set()
        self._socket = _socket_of(stream)
        self._is_plain = isinstance(stream, trio.SocketStream) and os.name == "posix"
        self._unsent: list[bytes] = []
        self._unsent_bytes = 0
        self._writing = True  # until the task that writes waits for something to do
        self._to_write = trio.lowlevel.ParkingLot()
        self._watch = trio.CancelScope()  # its deadline is no later than that of any call
        self._tasks = trio.CancelScope()

    async def run(
        self, login: Login, db: int, on_ready: Callable[[Connection], None], *, only_primary: bool = False
    ) -> None:
        """Log in, say that it is ready, and be there for calls until it breaks, or is cancelled.

        Args:
          only_primary: a replica won't do.

        Raises:
          StoreError: it could not be logged in.
        """
        trouble: StoreError | None = None
        try:
            with self._tasks:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._read)
                    nursery.start_soon(self._write)
                    nursery.start_soon(self._look)
                    try:
                        await self._greet(login, db, only_primary)
                    except StoreError as error:
                        trouble = error
                        self._tasks.cancel()
                    else:
                        self.greeted = True
                        on_ready(self)
            if not self.greeted:
                raise trouble or self.lost()
        finally:
            self.drop("it was closed")
            await trio.aclose_forcefully(self._stream)

    async def request(self, data: bytes, replies: int = 1) -> list[Any]:
        """Send commands, and wait for as many replies.

        Cancelled, they may be done or not. A reply that is an error is a `hiredis.ReplyError` among them.

        Raises:
          Unreachable: there was no answer in time, or the connection broke.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if self.failure is not None:
            raise self.lost()
        if self._unsent_bytes > MOST_UNSENT:
            raise Unreachable(f"Redis at {self.place} takes nothing: {self._unsent_bytes} bytes wait for it")
        deadline = trio.current_time() + self._timeout
        call = _Call(trio.lowlevel.current_task(), replies, deadline)
        self._pending.append(call)
        if self._watch.deadline > deadline:
            self._watch.deadline = deadline
        self._send(data)
        if self.failure is not None:  # it broke by that
            raise self.lost()
        return await trio.lowlevel.wait_task_rescheduled(call.abort)  # type: ignore[no-any-return]

    async def ask(
        self, calls: Sequence[bytes], script: Script | None = None, after: bytes = b""
    ) -> list[Any]:
        """Send all of these calls, which may be of `script`, and then the command `after`.

        Returns: the replies, one for each, as `request` has them.
        """
        data = [*calls, after] if after else calls
        if script is None:
            return await self.request(b"".join(data), len(data))
        loaded = None
        if script.sha1 in self._scripts:
            replies = await self.request(b"".join(data), len(data))
        else:
            self._scripts.add(script.sha1)
            loaded, *replies = await self.request(b"".join((script.load_call, *data)), 1 + len(data))
        unknown = [n for n, reply in enumerate(replies) if is_refusal(reply, "NOSCRIPT")]
        if unknown:
            self._scripts.discard(script.sha1)
        if unknown and loaded is None:  # somebody has had it forget what it was given
            again = await self.ask([calls[n] for n in unknown], script, after)
            for n, reply in zip([*unknown, -1] if after else unknown, again, strict=True):
                replies[n] = reply
        elif is_refusal(loaded):
            for n in unknown:
                replies[n] = loaded
        return replies

    def drop(self, reason: str) -> None:
        """It is of no use any more: all calls fail, and `run` ends."""
        if self.failure is not None:
            return
        self.failure = reason
        self.gone.set()
        if self._pending and self._socket is not None:
            # What was given up and is not there yet shall not get there when the network is whole again.
            with suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
        pending, self._pending = self._pending, deque()
        for call in pending:
            if call.task is not None:
                trio.lowlevel.reschedule(call.task, outcome.Error(self.lost()))
        self._unsent.clear()
        self._tasks.cancel()

    def lost(self) -> Unreachable:
        """The error for whoever asks a connection that has failed."""
        return Unreachable(f"the connection to Redis at {self.place} is lost: {self.failure}")

    async def _greet(self, login: Login, db: int, only_primary: bool) -> None:
        commands = []
        if login.password is not None:
            user = () if login.username is None else (login.username,)
            commands.append(packed("AUTH", *user, login.password))
        if db:
            commands.append(packed("SELECT", db))
        if self._on_push is not None:
            commands.append(packed("HELLO", 3))
        # A server that loads its data yet refuses PING; whether one may ask for the role is a matter of rights.
        commands += packed("PING"), packed("ROLE")
        *replies, role = await self.request(b"".join(commands), len(commands))
        for reply in replies:
            if isinstance(reply, hiredis.ReplyError):
                raise refused(reply, self.place, login.password)
        if only_primary and isinstance(role, list) and role[0] == b"slave":
            raise Refused("READONLY", f"Redis at {self.place} is a replica, which takes no writes")

    # -- out

    def _send(self, data: bytes) -> None:
        if self._writing or self._socket is None or not self._is_plain or len(self._pending) > 1:
            self._unsent.append(data)
            self._unsent_bytes += len(data)
        else:
            try:
                written = os.write(self._socket.fileno(), data)
            except BlockingIOError:
                written = 0
            except OSError as error:
                self._pending.pop()  # the caller is told by `request`
                self.drop(why(error))
                return
            if written == len(data):
                return
            self._unsent.append(data[written:])
            self._unsent_bytes += len(data) - written
        if not self._writing:
            self._writing = True
            self._to_write.unpark()

    async def _write(self) -> None:
        try:
            while True:
                if not self._unsent:
                    self._writing = False
                    await self._to_write.park()
                data = b"".join(self._unsent)
                self._unsent.clear()
                await self._stream.send_all(data)
                self._unsent_bytes -= len(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self.drop(why(error))

    # -- in

    async def _read(self) -> None:
        receive, feed, gets = self._stream.receive_some, self._reader.feed, self._reader.gets
        try:
            while data := await receive(_READ_BYTES):
                feed(bytes(data))
                while (reply := gets()) is not _NOTHING:
                    self._take(reply)
            self.drop("the server closed it" + self._advice)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self.drop(why(error) + self._advice)
        except (hiredis.HiredisError, IndexError, TypeError, MemoryError) as error:
            self.drop(f"what came is no reply: {error}")

    @property
    def _advice(self) -> str:
        """What there is to do about a server that hangs up before it has said anything."""
        unmet = self._is_plain and not self.greeted
        return " (where it speaks TLS, the URL begins with rediss://)" if unmet else ""

    def _take(self, reply: Any) -> None:
        if type(reply) is hiredis.PushNotification:
            if self._on_push is not None:
                self._on_push(reply)
            return
        call = self._pending[0]
        call.replies.append(reply)
        call.left -= 1
        if not call.left:
            self._pending.popleft()
            if call.task is not None:
                trio.lowlevel.reschedule(call.task, outcome.Value(call.replies))

    async def _look(self) -> None:
        """Drop the connection where a call has no reply in time."""
        while True:
            with self._watch:
                await trio.sleep_forever()
            # If it was this process that stood still, the replies are there: they are read first.
            for _ in range(3):
                await trio.lowlevel.checkpoint()
            first = min((call.deadline for call in self._pending), default=math.inf)
            if first <= trio.current_time():
                self.drop(f"no answer within {self._timeout:g} s")
            self._watch = trio.CancelScope(deadline=first)


def _socket_of(stream: trio.abc.Stream) -> trio.socket.SocketType | None:
    if isinstance(stream, trio.SSLStream):
        stream = stream.transport_stream
    return stream.socket if isinstance(stream, trio.SocketStream) else None


def why(error: BaseException) -> str:
    """What broke a connection, or kept it from being made, in few words."""
    cause = error.__cause__ or error
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[-1]
    return (cause.strerror if isinstance(cause, OSError) else None) or str(cause) or "it broke"
