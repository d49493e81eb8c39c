"""Who may call the admin API: the holder of its key; without a key, anyone but a foreign page in a browser."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

from .answers import ApiError


class Guard:
    """ASGI middleware that lets through what may pass, and answers the rest.

    With a key, a call needs ``Authorization: Bearer KEY``; whatever is wrong with it, the answer is the same 401.
    Without one the API is open to who can reach it. Pages of other origins must not be among them: a browser lets
    any page post to an address of the user's own machine. Such a call says where it comes from, and gets a 403.

    Args:
      app: what is guarded.
      api_key: the key; None for none.
      open_routes: what needs no key, from any origin.
    """

    def __init__(self, app: ASGIApp, *, api_key: str | None, open_routes: Sequence[BaseRoute]) -> None:
        self._app = app
        self._key = None if api_key is None else api_key.encode()
        self._open_routes = tuple(open_routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = None if self._is_open(scope) else self._refusal(scope)
        if refusal is None:
            await self._app(scope, receive, send)
            return
        response = refusal.response()
        if refusal.status == 401:
            response.headers["www-authenticate"] = "Bearer"
        await response(scope, receive, send)

    def _is_open(self, scope: Scope) -> bool:
        return any(route.matches(scope)[0] is not Match.NONE for route in self._open_routes)

    def _refusal(self, scope: Scope) -> ApiError | None:
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        if self._key is not None:
            given = [value for name, value in headers if name == b"authorization"]
            if len(given) == 1 and self._is_key(given[0]):
                return None
            return ApiError(401, "unauthorized", "this call needs the header Authorization: Bearer KEY")
        origins = [value for name, value in headers if name == b"origin"]
        hosts = [value for name, value in headers if name == b"host"]
        if origins and (len(hosts) != 1 or any(_authority(origin) != hosts[0].lower() for origin in origins)):
            return ApiError(
                403, "foreign_origin", "without an API key, pages of other origins can't call this"
            )
        return None

    def _is_key(self, credentials: bytes) -> bool:
        assert self._key is not None
        scheme, _, given = credentials.partition(b" ")
        # Compared first, so that it takes the same time whatever the scheme is.
        same = hmac.compare_digest(given.strip(), self._key)
        return same and scheme.lower() == b"bearer"


def _authority(origin: bytes) -> bytes | None:
    """Host and port of an Origin; None for what has none, such as ``null``."""
    try:
        return urlsplit(origin.decode("ascii")).netloc.lower().encode() or None
    except ValueError:
        return None
