"""The admin API as an ASGI app: which call is answered by what, and how everything that goes wrong is told."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ..core import closing
from ..core.revocations import TooManyRevoked
from ..hub import Hub
from .answers import ApiError, answer, internal_error, retry_after
from .auth import ClientOf, Guard
from .cluster import SHARE, AllNodes
from .cluster_sampler import ClusterSampler
from .events import Events, kept, load
from .forwarding import Forward, answering
from .keys import ApiKeys
from .lines import publish, run_lines
from .lookups import Lookups
from .metrics import Metrics
from .openapi import description
from .requests import name_in_path, route, seconds_to_revoke, wants_cluster
from .runs import RunCalls
from .sampler import Sampler
from .stream import Streams
from .tickets import IssueTicket, TicketDesk

logger = logging.getLogger(__name__)

_CODES: Final = {404: "not_found", 405: "method_not_allowed"}


def create_app(
    hub: Hub,
    *,
    api_key: ApiKeys | None = None,
    client_of: ClientOf | None = None,
    issue_ticket: IssueTicket | None = None,
    sampler: Sampler | None = None,
    cluster_sampler: ClusterSampler | None = None,
    extra_routes: Sequence[BaseRoute] = (),
    pages: Sequence[BaseRoute] = (),
) -> ASGIApp:
    """The admin API of `hub`. Raises nothing while it runs: a bug is logged, and answered with a 500.

    Paths are matched as they are on the wire, percent-encoded: a user's name may hold a slash.

    Args:
      hub: what it publishes to and tells of.
      api_key: what callers have to know: a key, or what tells the keys that are good now; None for none.
      client_of: whom a call comes from, where that is not the peer: `TrustedProxies.client`, say.
      issue_ticket: makes tickets; None leaves that call out.
      sampler: samples `hub`, for ``/v1/stream``; somebody has to run it. None leaves that call out.
      cluster_sampler: the same of all nodes together, for ``/v1/stream?scope=cluster``; None leaves that out.
      extra_routes: further calls, which need the key as well.
      pages: what loads without a key: pages, static files.
    """
    events = Events(hub)
    described = description(
        keyed=api_key is not None,
        tickets=issue_ticket is not None,
        streams=sampler is not None,
        clustered=hub.cluster is not None,
    )
    nodes = None if hub.cluster is None else AllNodes(hub)
    calls = Calls(hub, described, nodes)
    lookups = Lookups(hub, nodes)
    runs = RunCalls(hub, events)
    optional: list[BaseRoute] = []
    if issue_ticket is not None:
        optional.append(Route("/v1/tickets", TicketDesk(issue_ticket).issue, methods=["POST"]))
    if sampler is not None:
        optional.append(Route("/v1/stream", Streams(hub, sampler, cluster_sampler).stream))
    open_routes = [
        Route("/healthz", calls.alive),
        Route("/readyz", calls.ready),
        *pages,
    ]
    middleware = []
    if nodes is not None:
        optional.append(Route(SHARE, nodes.share))
        special = partial(run_lines, hub, events.max_body)
        middleware.append(Middleware(Forward, hub=hub, max_body=events.max_body, special=special))
    app = Starlette(
        middleware=middleware,
        routes=[
            Route("/v1/users", lookups.users),
            route("/v1/users/{user}/events", GET=lookups.events, POST=events.publish),
            Route("/v1/users/{user}/events/{id}", lookups.event),
            *runs.routes(),
            Route("/v1/events", partial(publish, hub, events), methods=["POST"]),
            Route("/v1/users/{user}", calls.user),
            Route("/v1/users/{user}/sessions", calls.end_sessions, methods=["DELETE"]),
            Route("/v1/users/{user}/sessions/{session}", calls.end_session, methods=["DELETE"]),
            Route("/v1/stats", calls.stats),
            Route("/metrics", Metrics(hub, nodes).scrape),
            Route("/openapi.json", calls.openapi),
            *optional,
            *extra_routes,
            *open_routes,
        ],
        exception_handlers={
            ApiError: _tell_api_error,
            HTTPException: _tell_http_exception,
            ClientDisconnect: _tell_nobody,
            MemoryError: _tell_exhaustion,
            Exception: _tell_failure,
        },
    )
    app.router.redirect_slashes = False
    if nodes is not None:
        hub.on_call = answering(app)
    return Shell(Guard(app, hub, keys=api_key, client_of=client_of, open_routes=open_routes))


class Shell:
    """The outermost layer: HTTP only, paths as they came, and no exception beyond it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": closing.NORMAL.code})
            return
        path = scope["raw_path"].decode("latin-1")
        if path.lower().startswith(("http://", "https://")):
            # What a client sends that takes this for a proxy; every server has to take it (RFC 9112, 3.2.2).
            path = "/" + path.split("://", 1)[1].partition("/")[2]
        scope = {**scope, "path": path}
        try:
            await self._app(scope, receive, send)
        except Exception:
            # It was answered, as far as that was still possible.
            logger.exception("a call of the admin API failed", extra={"method": scope["method"]})


class Calls:
    """The calls that tell of the hub and its users."""

    def __init__(self, hub: Hub, described: dict[str, Any], nodes: AllNodes | None) -> None:
        self._hub = hub
        self._nodes = nodes
        self._described = described

    async def alive(self, request: Request) -> Response:
        """The process answers."""
        return answer({"status": "alive"})

    async def ready(self, request: Request) -> Response:
        """It accepts events and connections."""
        hub = self._hub
        if hub.draining:
            raise ApiError(503, "draining", "the server is going away", retry_after=retry_after(hub))
        if hub.cluster is not None and hub.cluster.suspended:
            message = "the node could not renew its lease, and accepts nothing until it has"
            raise ApiError(503, "store_unavailable", message, retry_after=retry_after(hub))
        durability = hub.engine.durability
        if durability is not None and durability.state != "ok":
            raise ApiError(503, "store_unavailable", durability.reason, retry_after=retry_after(hub))
        return answer({"status": "ready"})

    async def stats(self, request: Request) -> Response:
        """Every figure; with ``?scope=cluster`` of all nodes together."""
        if wants_cluster(request, self._hub):
            assert self._nodes is not None
            return answer((await self._nodes.shares()).stats())
        return answer(self._hub.stats())

    async def user(self, request: Request) -> Response:
        """Sessions, connections, buffer and lag of one user."""
        user = name_in_path(request, "user")
        await load(self._hub, user)
        found = self._hub.describe(user)
        if found is None:
            raise ApiError(404, "unknown_user", "nothing is known of this user")
        return answer(found)

    async def end_session(self, request: Request) -> Response:
        """End a session for good; its connection is closed with 4403."""
        user = name_in_path(request, "user")
        await load(self._hub, user)
        if not self._hub.end_session(user, name_in_path(request, "session")):
            raise ApiError(404, "unknown_session", "this user has no such session")
        await kept(self._hub)
        return Response(status_code=204)

    async def end_sessions(self, request: Request) -> Response:
        """End all sessions of a user; revoke the user's credentials too, where that is asked for."""
        user, revoke = name_in_path(request, "user"), seconds_to_revoke(request)
        try:
            ended = self._hub.end_sessions(user, revoke=revoke)  # first, whatever the store is up to
        except TooManyRevoked as error:
            raise ApiError(503, "too_many_revoked", str(error), retry_after=60) from None
        if user in self._hub.engine.buffer.asleep or self._hub.cluster is not None:
            await load(self._hub, user)
            ended += self._hub.end_sessions(user)
        await kept(self._hub)
        return answer({"ended": ended})

    async def openapi(self, request: Request) -> Response:
        """What there is to call."""
        return answer(self._described)


async def _tell_api_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error.response()


async def _tell_http_exception(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    told = ApiError(error.status_code, _CODES.get(error.status_code, "error"), error.detail.lower())
    response = told.response()
    response.headers.update(error.headers or {})
    return response


async def _tell_nobody(_: Request, __: Exception) -> Response:
    return Response(status_code=400)


async def _tell_exhaustion(_: Request, __: Exception) -> Response:
    logger.error("a call of the admin API was refused: there is no memory left for it")
    message = "there is no memory left for it"
    return ApiError(503, "out_of_memory", message, retry_after=5).response()


async def _tell_failure(_: Request, __: Exception) -> Response:
    return internal_error().response()
