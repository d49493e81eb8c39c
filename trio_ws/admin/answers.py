"""What the admin API answers with: JSON, and one shape for all that it refuses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.responses import Response

from ..hub import Hub

_encode = msgspec.json.encode

MAX_QUOTED = 128
"""Characters of what a client sent that an answer repeats at most."""


class ApiError(Exception):
    """A call that can't be answered as it was asked.

    Attributes:
      status: the HTTP status.
      code: what programs go by.
      message: what people read.
      field: which field of the body, the path or the query is at fault, if it is one.
      retry_after: whole seconds after which the same call may well succeed.
      details: what else the error holds.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        field: str | None = None,
        retry_after: int | None = None,
        **details: Any,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.field = field
        self.retry_after = retry_after
        self.details = details

    def body(self, **more: Any) -> dict[str, Any]:
        """``{"error": {…}}``; what does not apply is absent."""
        error: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.field is not None:
            error["field"] = self.field
        if self.retry_after is not None:
            error["retry_after"] = self.retry_after
        return {"error": {**error, **self.details, **more}}

    def response(self) -> Response:
        """The answer to a call that ended so."""
        headers = {} if self.retry_after is None else {"retry-after": str(self.retry_after)}
        return answer(self.body(), self.status, headers)


def answer(body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """`body` as JSON. Nothing of it is kept by caches: it was true when it was written."""
    return Response(
        _encode(body),
        status,
        {"cache-control": "no-store", **(headers or {})},
        media_type="application/json",
    )


def internal_error() -> ApiError:
    """What is told of a bug: nothing but that there is one."""
    return ApiError(500, "internal_error", "the server failed at this; its log says how")


def moved() -> ApiError:
    """What is told of a log that another node has, or is just getting."""
    return ApiError(503, "moved", "the user's log is going to another node", retry_after=1)


def is_for_another(body: bytes) -> bool:
    """Whether the body of an answer of a node, or a line of one, says that the log is another's, or soon will be, as
    that node is going away: nothing was done."""
    return body.startswith((b'{"error":{"code":"moved"', b'{"error":{"code":"draining"'))


def retry_after(hub: Hub) -> int:
    """Whole seconds, at least one, after which what `hub` refuses now may well be accepted."""
    return max(1, math.ceil(hub.retry_after))


def quoted(text: str) -> str:
    """What a client sent, cut so that an answer can repeat it."""
    return text if len(text) <= MAX_QUOTED else text[: MAX_QUOTED - 1] + "…"
