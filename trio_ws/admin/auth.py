"""Who may call the admin API: the holder of its key; without a key, anyone but a foreign page in a browser."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeAlias
from urllib.parse import urlsplit

import trio
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

from ..hub import Hub
from .answers import ApiError
from .keys import ApiKeys, Guesses, is_key

logger = logging.getLogger(__name__)

ClientOf: TypeAlias = Callable[[str, Sequence[tuple[str, str]]], str]
"""Whom a call comes from, given the peer's address and the headers, names in lower case: as `TrustedProxies.client`."""


class Guard:
    """ASGI middleware that lets through what may pass, and answers the rest.

    With a key, a call needs ``Authorization: Bearer KEY``; whatever is wrong with it, the answer is the same 401. An
    address that has given too many wrong keys gets a 429, and its keys are not looked at.
    Without one the API is open to who can reach it. Pages of other origins must not be among them: a browser lets
    any page post to an address of the user's own machine. Such a call says where it comes from, and gets a 403.

    Args:
      app: what is guarded.
      hub: counts the keys that were wrong.
      keys: the keys that are good; None for none.
      client_of: whom a call comes from; None takes the peer's word for nothing.
      open_routes: what needs no key, from any origin.
    """

    def __init__(
        self,
        app: ASGIApp,
        hub: Hub,
        *,
        keys: ApiKeys | None,
        client_of: ClientOf | None,
        open_routes: Sequence[BaseRoute],
    ) -> None:
        self._app = app
        self._hub = hub
        self._keys = keys
        self._client_of = client_of
        self._guesses = Guesses()
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
        if self._keys is not None:
            given = [value for name, value in headers if name == b"authorization"]
            return self._judge(given, self._keys, self._address(scope)) if given else _unauthorized()
        origins = [value for name, value in headers if name == b"origin"]
        hosts = [value for name, value in headers if name == b"host"]
        if origins and (len(hosts) != 1 or any(_authority(origin) != hosts[0].lower() for origin in origins)):
            return ApiError(
                403, "foreign_origin", "without an API key, pages of other origins can't call this"
            )
        return None

    def _judge(self, given: list[bytes], keys: ApiKeys, address: str) -> ApiError | None:
        """Why a call with these `Authorization` headers is refused, if it is."""
        now = trio.current_time()
        wait = self._guesses.wait(address, now)
        if not wait:
            scheme, _, key = given[0].partition(b" ")
            # Compared first, so that it takes the same time whatever the scheme is.
            if is_key(key.strip(), keys) and scheme.lower() == b"bearer" and len(given) == 1:
                self._guesses.right(address)
                return None
            wait = self._guesses.wrong(address, now)
        self._hub.engine.refusals.count("api_key")
        if not wait:
            logger.warning("a wrong API key from %s", address)
            return _unauthorized()
        logger.warning("too many wrong API keys from %s", address)
        return ApiError(429, "too_many_wrong_keys", "too many wrong keys came from here", retry_after=wait)

    def _address(self, scope: Scope) -> str:
        peer = scope["client"][0] if scope.get("client") else ""
        if self._client_of is None:
            return str(peer)
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        return self._client_of(peer, headers)


def _unauthorized() -> ApiError:
    return ApiError(401, "unauthorized", "this call needs the header Authorization: Bearer KEY")


def _authority(origin: bytes) -> bytes | None:
    """Host and port of an Origin; None for what has none, such as ``null``."""
    try:
        return urlsplit(origin.decode("ascii")).netloc.lower().encode() or None
    except ValueError:
        return None
