"""Looking things up: who is known, a user's newest events, and what became of one of them."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from ..core.wire import MAX_SEQ
from ..hub import Hub
from .answers import ApiError, answer
from .cluster import AllNodes
from .events import load, refusals
from .requests import HOP, check_query, name_in_path, number_in_query

MAX_USERS: Final = 500
"""Users that one answer lists at most."""

MAX_EVENTS: Final = 200
"""Events that one answer lists at most."""

MAX_PREFIX: Final = 128


class Lookups:
    """The calls that look users and events up in `hub`, and users at all `nodes`, where it is one of several."""

    def __init__(self, hub: Hub, nodes: AllNodes | None) -> None:
        self._hub = hub
        self._nodes = nodes

    async def users(self, request: Request) -> Response:
        """Who is known, by name; in a cluster, to any node."""
        check_query(request, "prefix", "limit")
        prefix = request.query_params.get("prefix", "")
        if len(prefix) > MAX_PREFIX:
            raise ApiError(422, "invalid", f"prefix must be {MAX_PREFIX} characters at most", field="prefix")
        limit = number_in_query(request, "limit", 50, MAX_USERS) or 50
        if self._nodes is None or HOP in request.scope:
            return answer(self._hub.list_users(prefix, limit))
        return answer(await self._nodes.users(prefix, limit))

    async def events(self, request: Request) -> Response:
        """A user's newest events."""
        user = name_in_path(request, "user")
        check_query(request, "limit", "before")
        limit = number_in_query(request, "limit", 50, MAX_EVENTS) or 50
        await load(self._hub, user)
        before = number_in_query(request, "before", None, MAX_SEQ)
        with refusals(self._hub):
            found = await self._hub.find_events(user, limit, before)
        if found is None:
            raise ApiError(404, "unknown_user", "nothing is known of this user")
        return answer(found)

    async def event(self, request: Request) -> Response:
        """What became of one event, step by step."""
        user = name_in_path(request, "user")
        await load(self._hub, user)
        with refusals(self._hub):
            found = await self._hub.find_event(user, name_in_path(request, "id"))
        if found is None:
            raise ApiError(404, "unknown_event", "nothing is known of this event, or not any more")
        return answer(found)
