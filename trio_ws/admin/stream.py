"""`GET /v1/stream`: the figures each second, as server-sent events, for as long as somebody reads them."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ..hub import Hub
from .answers import ApiError
from .requests import wants_cluster
from .sampler import Series

MAX_STREAMS: Final = 32
"""Streams at a time; one more is refused."""

RETRY: Final = b"retry: 2000\n\n"
"""Milliseconds after which a browser's `EventSource` comes back."""


class Streams:
    """The call, and how many are under way."""

    def __init__(self, hub: Hub, here: Series, everywhere: Series | None) -> None:
        self._hub = hub
        self._here = here
        self._everywhere = everywhere
        self._open = 0

    async def stream(self, request: Request) -> Response:
        """The figures each second; with `?history=true` what charts are made of as well; with `?scope=cluster` those of
        all nodes together."""
        series = self._everywhere if wants_cluster(request, self._hub, "history") else self._here
        if series is None:
            raise ApiError(422, "invalid", "there is no stream of the cluster here", field="scope")
        history = _wants_history(request)
        if self._open >= MAX_STREAMS:
            raise ApiError(503, "too_many_streams", f"{MAX_STREAMS} streams are open already", retry_after=5)
        return _Stream(self, series, history)

    async def play(self, send: Send, series: Series, *, history: bool) -> None:
        """Send events until cancelled: by the server's end, or when the peer is gone or does not read."""
        self._open += 1
        try:
            async with series.watched_by_one():
                place, events = series.opening(history=history)
                events = RETRY + events
                while True:
                    await send({"type": "http.response.body", "body": events, "more_body": True})
                    place, events = await series.following(place, points=history)
        finally:
            self._open -= 1


class _Stream(Response):
    """An answer that has no end."""

    media_type = "text/event-stream"

    def __init__(self, streams: Streams, series: Series, history: bool) -> None:
        # The last one is for nginx, which would collect what comes and hand it on in blocks.
        super().__init__(headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._streams = streams
        self._series = series
        self._history = history

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body"})
        else:
            await self._streams.play(send, self._series, history=self._history)


def _wants_history(request: Request) -> bool:
    given = request.query_params.getlist("history")
    if any(value not in ("true", "false") for value in given):
        raise ApiError(422, "invalid", "history can only be true or false", field="history")
    return given[-1:] == ["true"]
