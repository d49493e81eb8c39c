"""A line to one server: a connection that is made again whenever it breaks, until the line is cancelled.

A call that finds no connection waits for one. A call that was under way when the connection broke fails: whether it was
done nobody knows, and only who made it can say whether it may be done again.
"""

from __future__ import annotations

import logging
import math
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import hiredis
import trio

from ..errors import StoreError
from .connection import Connection, OnPush, why
from .refusals import Refused, Unreachable, is_refusal
from .script import Script, packed
from .url import Place, Target

logger = logging.getLogger(__name__)

FIRST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 1.0
"""Seconds between two attempts to connect: twice as many each time, from the first to the longest."""

SETTLING: Final = 1.5
"""Seconds after a connection was made again in which others, who may have lost theirs with it, may not have done so."""

REPLICAS_TIMEOUT: Final = 1.0
"""Seconds that replicas have to take what they are to have."""

PLAIN: Final = " (where it speaks none, the URL begins with redis://)"
"""What there is to do where there is no TLS."""

_ELSEWHERE: Final = ("READONLY", "LOADING", "MASTERDOWN")
"""Refusals by a server that is not the one to ask, or not any more: the connection is made again."""


def to(place: Place) -> Callable[[], Awaitable[Place]]:
    """What a `Line` asks where its server is, for one that is at `place`."""

    async def find() -> Place:
        await trio.lowlevel.checkpoint()
        return place

    return find


class Line:
    """A line to the server that `find` tells.

    Args:
      find: asked before each attempt to connect; raises `StoreError` where it can't tell.
      target: how to log in.
      timeout: seconds for a call, and for an attempt to connect.
      replicas: how many must have taken what is asked.
      only_primary: a replica is not the server to ask.
      on_push: as for a `Connection`.
    """

    def __init__(
        self,
        find: Callable[[], Awaitable[Place]],
        target: Target,
        timeout: float,
        *,
        replicas: int = 0,
        only_primary: bool = False,
        on_push: OnPush | None = None,
    ) -> None:
        self._find = find
        self._target = target
        self._timeout = timeout
        self._replicas = replicas
        self._wait = packed("WAIT", replicas, int(REPLICAS_TIMEOUT * 1000)) if replicas else b""
        self._only_primary = only_primary
        self._on_push = on_push
        self._connection: Connection | None = None
        self._trouble: StoreError | None = None
        self._known = trio.Event()
        self._stands = trio.lowlevel.ParkingLot()
        self._pause = FIRST_PAUSE
        self._settled_at = -math.inf
        purpose = "subscription" if on_push is not None else "replicated calls" if replicas else "calls"
        self._logged = {"purpose": purpose}

    @property
    def is_settling(self) -> bool:
        """Whether the connection was made again a short time ago: the server may have been away, for all."""
        return trio.current_time() < self._settled_at

    @property
    def trouble(self) -> StoreError | None:
        """Why there was no connection when one was to be made last; None where there was, or it is not known."""
        return self._trouble

    @property
    def stands(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self._connection is not None and self._connection.failure is None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hold a connection until cancelled. It is started when there is one, or none could be made."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep)
            await self._known.wait()
            task_status.started()

    async def ask(self, calls: Sequence[bytes], script: Script | None = None) -> list[Any]:
        """Send all of these calls at once, which may be of `script`.

        Returns: the replies, a `hiredis.ReplyError` where it is an error, and a `StoreError` for each that has none.
        """
        try:
            connection = await self.connection()
            replies = await connection.ask(calls, script, self._wait)
        except StoreError as error:
            return [error] * len(calls)
        if self._wait:
            taken = replies.pop()
            if is_refusal(taken) or taken < self._replicas:
                missed = Refused(
                    "NOREPLICAS",
                    f"of {self._replicas} replicas of Redis at {connection.place}, as many have it: {taken}",
                )
                replies = [reply if is_refusal(reply) else missed for reply in replies]
        for reply in replies:
            if isinstance(reply, hiredis.ReplyError) and is_refusal(reply, *_ELSEWHERE):
                connection.drop("it is not the server to ask")
        return replies

    async def connection(self) -> Connection:
        """The connection; waits for one, as long as a call may take, unless what keeps it away won't pass.

        Raises:
          StoreError: there is none; it says why the last attempt failed.
        """
        connection = self._connection
        if connection is not None and connection.failure is None:
            return connection
        with trio.move_on_after(self._timeout):
            while self._connection is None or self._connection.failure is not None:
                if self._trouble is not None and not self._trouble.passes:
                    break
                await self._stands.park()
            else:
                return self._connection
        raise self._trouble or Unreachable(f"Redis at {self._target} can't be reached")

    def look_anew(self, reason: str) -> None:
        """Drop the connection, where there is one, and find the server again."""
        if self._connection is not None:
            self._connection.drop(reason)

    def move(self, place: Place) -> None:
        """Drop the connection, where it is not to `place`: there the server is now."""
        if self._connection is not None and self._connection.place != place:
            self._connection.drop(f"the primary is {place} now")

    async def _keep(self) -> None:
        while True:
            try:
                trouble = await self._hold()
            except StoreError as error:
                trouble = error
            if str(trouble) != str(self._trouble):
                logger.warning("%s", trouble, extra=self._logged)
            self._trouble = trouble
            self._known.set()
            pause, self._pause = self._pause, min(2 * self._pause, LONGEST_PAUSE)
            await trio.sleep(pause)

    async def _hold(self) -> StoreError:
        """Connect, and hold that connection until it breaks.

        Returns: why it broke.
        """
        place = await self._find()
        stream = await dial(place, self._target, self._timeout)
        connection = Connection(stream, place, self._timeout, self._on_push)
        try:
            await connection.run(
                self._target.login, self._target.db, self._ready, only_primary=self._only_primary
            )
        finally:
            self._connection = None
        return connection.lost()

    def _ready(self, connection: Connection) -> None:
        if self._trouble is not None:
            logger.info("Redis at %s is there again", connection.place, extra=self._logged)
            self._settled_at = trio.current_time() + SETTLING
        self._connection, self._trouble = connection, None
        self._pause = FIRST_PAUSE
        self._known.set()
        self._stands.unpark_all()


async def dial(place: Place, target: Target, timeout: float) -> trio.abc.Stream:
    """A stream to `place`, by TLS where `target` has it so.

    Raises:
      Unreachable: nobody is there, or not in time.
    """
    wanted, advice = "answer", ""
    try:
        with trio.fail_after(timeout):
            if not place.port:
                return await trio.open_unix_socket(place.host)
            stream = await trio.open_tcp_stream(place.host, place.port)
            if target.tls is None:
                return stream
            wanted, advice = "answer by TLS", PLAIN
            secured = trio.SSLStream(stream, target.tls, server_hostname=place.host)
            try:
                await secured.do_handshake()
            except BaseException:
                await trio.aclose_forcefully(stream)
                raise
            return secured
    except trio.TooSlowError:
        raise Unreachable(
            f"Redis at {place} can't be reached: no {wanted} within {timeout:g} s{advice}"
        ) from None
    # A UnicodeError says that it is no name of a host.
    except (OSError, UnicodeError, trio.BrokenResourceError) as error:
        raise Unreachable(f"Redis at {place} can't be reached: {why(error)}{_advice(error)}") from None


def _advice(error: BaseException) -> str:
    """What there is to do about TLS that could not be spoken."""
    cause = error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return ": ssl_ca_certs names the file of those that are trusted"
    return PLAIN if isinstance(cause, ssl.SSLError) and cause.reason == "WRONG_VERSION_NUMBER" else ""
