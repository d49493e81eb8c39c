"""Tickets: what a backend without JWTs hands to its pages, to be used as a token once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Final, TypeAlias

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from ..config import KIB
from ..errors import InvalidEvent, StoreError
from .answers import ApiError, answer
from .events import Name
from .requests import decode, read_body

Issued: TypeAlias = tuple[str, float]
IssueTicket: TypeAlias = Callable[[str, float], Issued] | Callable[[str, float], Awaitable[Issued]]
"""Makes a ticket for a user, good for so many seconds; returns it and when it becomes void, in Unix time: at once, or
awaited."""

MAX_BODY: Final = 4 * KIB


class TicketBody(msgspec.Struct, forbid_unknown_fields=True):
    """Whom a ticket is for, and for how long it is good."""

    user: Name
    ttl: Annotated[float, Meta(gt=0, le=3600, description="Seconds.")] = 30.0


_decoder = msgspec.json.Decoder(TicketBody)


class TicketDesk:
    """The call that issues tickets."""

    def __init__(self, issue: IssueTicket) -> None:
        self._issue = issue

    async def issue(self, request: Request) -> Response:
        """A single-use ticket: 200 with `ticket` and `expires`."""
        body = decode(_decoder, await read_body(request, MAX_BODY))
        try:
            issued = self._issue(body.user, body.ttl)
            ticket, expires = await issued if isinstance(issued, Awaitable) else issued
        except InvalidEvent as error:
            raise ApiError(422, "invalid", str(error), field=error.field) from None
        except StoreError as error:
            raise ApiError(503, "store_unavailable", str(error), retry_after=1) from None
        return answer({"ticket": ticket, "expires": expires})
