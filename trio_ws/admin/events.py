"""Publishing over HTTP: one event a call, or a batch of JSON lines that is answered while it still comes in.

A call never waits until events are confirmed, for room in the buffer: it is told to come back (503, ``retry_after``).
What waits is the client, which has the event and its id, not a connection here. Repeating a call with the same `id`
publishes once.
"""

from __future__ import annotations

import logging
import math
import secrets
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Final, Literal

import attrs
import msgspec
import trio
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from ..config import KIB
from ..core.limits import MAX_USERS, KeyedBuckets
from ..errors import (
    ConfirmationTimeout,
    EventTooLarge,
    HubClosed,
    IllegalTransition,
    InvalidEvent,
    OwnedElsewhere,
    RunEnded,
    StoreError,
    StoreUnavailable,
    TooManyRuns,
    UnknownRun,
)
from ..event import Priority
from ..hub import Hub, Receipt
from .answers import ApiError, answer, internal_error, moved, quoted, retry_after
from .requests import decode, name_in_path, read_body, seconds_to_wait

logger = logging.getLogger(__name__)

SLACK: Final = 16 * KIB
"""Bytes that a body may have beyond four times `max_event_bytes`; JSON may write a byte of text as several."""

NAME_PATTERN: Final = "^[^\\u0000-\\u001f\\u007f-\\u009f\\u2028\\u2029]+$"
"""What a name consists of, for the description; `check_name` is what holds it."""

Name = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=128,
        description="No control characters.",
        extra_json_schema={"pattern": NAME_PATTERN},
    ),
]


class EventBody(msgspec.Struct, forbid_unknown_fields=True):
    """An event, as `trio_ws.Draft` has it; the payload stays the JSON that it is."""

    type: Name
    payload: msgspec.Raw = msgspec.field(default_factory=lambda: msgspec.Raw(b"null"))
    id: Name | None = None
    priority: Literal["low", "normal", "high", "critical"] | None = None
    key: Name | None = None
    merge: Literal["append"] | None = None
    ttl: Annotated[float, Meta(gt=0, description="Seconds.")] | None = None
    confirm: bool = False


class EventLine(EventBody, forbid_unknown_fields=True):
    """A line of a batch: an event and whom it is for, as `user` or as `users`."""

    user: Name | None = None
    users: list[Name] | Literal["*"] | None = None


_body_decoder = msgspec.json.Decoder(EventBody)
_line_decoder = msgspec.json.Decoder(EventLine)


class Events:
    """Publishes to `hub` what calls and lines ask for."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self.max_body = 4 * hub.config.max_event_bytes + SLACK
        rate = hub.config.publish_rate
        self._rates = None if rate is None else KeyedBuckets[str](rate, hub.config.publish_burst, MAX_USERS)

    async def publish(self, request: Request) -> Response:
        """One event to one user: 202, or with ``?wait=confirmed`` 200 when a client has processed it, else 504."""
        user = name_in_path(request, "user")
        timeout = seconds_to_wait(request, "confirmed")
        body = decode(_body_decoder, await read_body(request, self.max_body))
        receipt = await self._publish(user, body)
        await committed([receipt], self._hub)
        if timeout is None:
            return answer(accepted(receipt), 202)
        try:
            confirmation = await receipt.confirmed(timeout)
        except ConfirmationTimeout as error:
            raise ApiError(
                504,
                "confirmation_timeout",
                str(error),
                state=error.state,
                id=receipt.id,
                seq=receipt.seq,
                epoch=receipt.epoch,
            ) from None
        return answer({**accepted(receipt), "confirmed_after": confirmation.after})

    async def publish_line(self, line: bytes) -> Line:
        """The answer to one line of a batch; what is wrong with it is an answer, too. A checkpoint where it is for
        many, or for one whose log is to be read first.

        Cancelled, some of its users may have the event.
        """
        return await as_line(self._publish_line(line))

    async def _publish_line(self, line: bytes) -> Line:
        body = read_line(line)
        if body.user is not None:
            return await self.publish_to(body.user, body)
        if body.users == "*":
            return await self.publish_to_all(self._hub.users(), body)
        return await self._publish_to_each(body)

    async def publish_to(self, user: str, body: EventBody) -> Line:
        """The answer to a line that is for one user.

        Raises:
          ApiError: the event was refused.
        """
        receipt = await self._publish(user, body)
        return Line(accepted(receipt), [receipt] if receipt.to_be_committed else [])

    async def durable(self, line: Line) -> dict[str, Any]:
        """The answer to a line, once what it tells of is durable. A checkpoint where that is to be waited for."""
        try:
            await committed(line.receipts, self._hub)
        except ApiError as error:
            return error.body(status=error.status)
        return line.body

    async def publish_to_all(self, users: Sequence[str], body: EventLine) -> Line:
        """The answer to a line that is for all of many users: how many there are, and how many have it."""
        body.id = body.id or secrets.token_urlsafe(18)
        turn = Turn()
        receipts: list[Receipt] = []
        refused = 0
        for user in users:
            try:
                receipts += (await self.publish_to(user, body)).receipts
            except ApiError as error:
                if not is_of_one(error):
                    raise
                refused += 1
            await turn.spend(len(body.payload))
        told = {"id": body.id, "users": len(users), "accepted": len(users) - refused, "refused": refused}
        return Line(told, receipts)

    async def _publish_to_each(self, body: EventLine) -> Line:
        turn = Turn()
        results: list[dict[str, Any]] = []
        receipts: list[Receipt] = []
        for user in several(body):
            try:
                line = await self.publish_to(user, body)
            except ApiError as error:
                if not is_of_one(error):
                    raise
                line = Line(error.body(status=error.status))
            results.append({"user": user, **line.body})
            receipts += line.receipts
            await turn.spend(len(body.payload))
        return Line({"id": body.id, "results": results}, receipts)

    def spend(self, user: str) -> None:
        """Account for one event to `user`.

        Raises:
          ApiError: 429, where there are too many.
        """
        now = self._hub.engine.clock()
        if self._rates is not None and not self._rates.take(user, now):
            after = max(1, math.ceil(self._rates.wait(user, now)))
            raise ApiError(429, "rate_limited", "too many events to this user", retry_after=after)

    async def _publish(self, user: str, body: EventBody) -> Receipt:
        """Publish without waiting for room, unless that is a commit away. A checkpoint then, and where the log is to be
        read first."""
        self.spend(user)
        with refusals(self._hub):
            while True:
                await self._hub.load(user)
                try:
                    return self._hub.publish_nowait(user, body.type, bytes(body.payload), **options(body))
                except trio.WouldBlock:
                    if not await self._hub.landed():
                        raise


def read_line(line: bytes) -> EventLine:
    """A line of a batch.

    Raises:
      ApiError: it is none.
    """
    body = decode(_line_decoder, line)
    if (body.user is None) == (body.users is None):
        raise ApiError(422, "invalid", "either user or users must be given", field="user")
    return body


def several(body: EventLine) -> list[str]:
    """Whom a line names, each once. The event has one id for all: a line that is sent again reaches those who were left
    out, and nobody twice.

    Raises:
      ApiError: it names nobody.
    """
    users = list(dict.fromkeys(body.users or ()))
    if not users:
        raise ApiError(422, "invalid", "users must name at least one", field="users")
    body.id = body.id or secrets.token_urlsafe(18)
    return users


def is_of_one(error: ApiError) -> bool:
    """Whether what is wrong with an event for several users concerns this one of them, and not each."""
    return error.retry_after is not None or error.field == "user"


async def as_line(answer: Awaitable[Line]) -> Line:
    """The answer to a line; the exception is an answer, too."""
    try:
        return await answer
    except ApiError as error:
        return Line(error.body(status=error.status))
    except Exception:
        logger.exception("a line of a batch failed")
        return Line(internal_error().body(status=500))


def options(body: EventBody) -> dict[str, Any]:
    """What a body asks for besides its type and its payload, as publishing takes it."""
    return {
        "id": body.id,
        "priority": priority_of(body.priority),
        "key": body.key,
        "merge": body.merge,
        "ttl": body.ttl,
        "confirm": body.confirm,
    }


def priority_of(name: str | None) -> Priority | None:
    """A priority, by the name that a body has for it."""
    return None if name is None else Priority.parse(name)


@attrs.frozen
class Line:
    """The answer to a line of a batch, and what must be before it is given.

    Attributes:
      receipts: events that must be durable.
      later: gives the answer itself, as JSON, where it is not known yet. Cancelled, it can be asked again.
    """

    body: dict[str, Any] = attrs.field(factory=dict)
    receipts: list[Receipt] = attrs.field(factory=list)
    later: Callable[[], Awaitable[bytes]] | None = None


async def committed(receipts: list[Receipt], hub: Hub) -> None:
    """Wait until all that must be durable before it is told of is so.

    Raises:
      ApiError: 503, for what does not come to be in time.
    """
    with refusals(hub):
        for receipt in receipts:
            if receipt.to_be_committed:
                await receipt.committed()


async def load(hub: Hub, user: str) -> None:
    """Have the log of a user here. A checkpoint where the store has it, and it was not read yet.

    Raises:
      ApiError: 503, where it can't be read.
    """
    with refusals(hub):
        await hub.load(user)


@contextmanager
def refusals(hub: Hub) -> Iterator[None]:
    """What `hub` refuses within the block, as the answer to a call.

    Raises:
      ApiError: for any refusal of the hub's.
    """
    try:
        yield
    except EventTooLarge as error:
        raise ApiError(413, "event_too_large", str(error), field=error.field) from None
    except InvalidEvent as error:
        raise ApiError(422, "invalid", quoted(str(error)), field=error.field) from None
    except UnknownRun as error:
        raise ApiError(404, "unknown_run", quoted(str(error))) from None
    except IllegalTransition as error:
        code = "run_ended" if isinstance(error, RunEnded) else "illegal_transition"
        raise ApiError(409, code, str(error), run=error.run, type=error.type) from None
    except TooManyRuns as error:
        raise ApiError(429, "too_many_runs", str(error), retry_after=retry_after(hub)) from None
    except trio.WouldBlock:
        message = "the buffer is full of events that must not be dropped"
        raise ApiError(503, "buffer_full", message, retry_after=retry_after(hub)) from None
    except HubClosed:
        message = "the server is going away"
        raise ApiError(503, "draining", message, retry_after=retry_after(hub)) from None
    except OwnedElsewhere:
        raise moved() from None
    except (StoreUnavailable, StoreError) as error:
        raise ApiError(503, "store_unavailable", str(error), retry_after=retry_after(hub)) from None


async def kept(hub: Hub) -> None:
    """Wait until what was done to sessions and users outlives the process. A checkpoint.

    Raises:
      ApiError: 503, where the store can't be relied on; it was done all the same.
    """
    with refusals(hub):
        await hub.committed()


class Turn:
    """Lets other tasks run after so much publishing."""

    def __init__(self) -> None:
        self._left = 32

    async def spend(self, size: int) -> None:
        """Account for one event of `size` bytes; a checkpoint every 32 small ones, or quarter of a megabyte."""
        self._left -= 1 + size // (8 * KIB)
        if self._left <= 0:
            self._left = 32
            await trio.lowlevel.checkpoint()


def accepted(receipt: Receipt) -> dict[str, Any]:
    """What a publisher is told of an event that was accepted."""
    return {
        "id": receipt.id,
        "seq": receipt.seq,
        "epoch": receipt.epoch,
        "state": receipt.state,
        "duplicate": receipt.duplicate,
    }
