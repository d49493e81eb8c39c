"""`GET /v1/stream`: the figures each second, as server-sent events, for as long as somebody reads them."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from .answers import ApiError, quoted
from .sampler import Sampler

MAX_STREAMS: Final = 32
"""Streams at a time; one more is refused."""

RETRY: Final = b"retry: 2000\n\n"
"""Milliseconds after which a browser's `EventSource` comes back."""


class Streams:
    """The call, and how many are under way."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler
        self._open = 0

    async def stream(self, request: Request) -> Response:
        """The figures each second; with `?history=true` what charts are made of as well."""
        history = _wants_history(request)
        if self._open >= MAX_STREAMS:
            raise ApiError(503, "too_many_streams", f"{MAX_STREAMS} streams are open already", retry_after=5)
        return _Stream(self, history)

    async def play(self, send: Send, *, history: bool) -> None:
        """Send events until cancelled: by the server's end, or when the peer is gone or does not read."""
        self._open += 1
        try:
            place, events = self._sampler.opening(history=history)
            events = RETRY + events
            while True:
                await send({"type": "http.response.body", "body": events, "more_body": True})
                place, events = await self._sampler.following(place, points=history)
        finally:
            self._open -= 1


class _Stream(Response):
    """An answer that has no end."""

    media_type = "text/event-stream"

    def __init__(self, streams: Streams, history: bool) -> None:
        # The last one is for nginx, which would collect what comes and hand it on in blocks.
        super().__init__(headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._streams = streams
        self._history = history

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body"})
        else:
            await self._streams.play(send, history=self._history)


def _wants_history(request: Request) -> bool:
    for name, value in request.query_params.multi_items():
        if name != "history":
            raise ApiError(422, "invalid", "there is no such query parameter", field=quoted(name))
        if value not in ("true", "false"):
            raise ApiError(422, "invalid", "history can only be true or false", field="history")
    return request.query_params.get("history") == "true"
