"""The calls that the demo page makes: what there is to look at, a broken network, a flood."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
import trio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from ..admin.answers import ApiError, answer
from ..errors import HubClosed
from ..event import Priority
from ..hub import Hub
from .agents import USERS
from .network import FaultyNetwork

BODY: Final = 4096
"""Bytes that a call's body may have."""


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to do to a link."""

    link: Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9_-]{1,64}$")]
    fault: Literal["cut", "silence"]
    seconds: Annotated[float, msgspec.Meta(ge=0, le=60)] = 0.0


class Flood(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much to publish at once to whom."""

    user: str
    count: Annotated[int, msgspec.Meta(ge=1, le=5000)] = 1000


class Demo:
    """The demo's calls.

    Args:
      hub: what is flooded.
      network: what is broken.
      port, faulty_port: where the WebSocket is, directly and by way of `network`.
    """

    def __init__(self, hub: Hub, network: FaultyNetwork, *, port: int, faulty_port: int) -> None:
        self._hub = hub
        self._network = network
        self._about = {"users": USERS, "port": port, "faulty_port": faulty_port, "path": "/ws"}
        self._floods = 0

    def pages(self) -> list[BaseRoute]:
        """What the page asks as it loads."""
        return [Route("/demo/about", self.about)]

    def calls(self) -> list[BaseRoute]:
        """What its buttons do."""
        return [
            Route("/demo/network", self.fault, methods=["POST"]),
            Route("/demo/flood", self.flood, methods=["POST"]),
        ]

    async def about(self, request: Request) -> Response:
        """Users and addresses."""
        return answer(self._about)

    async def fault(self, request: Request) -> Response:
        """Break one page's network."""
        asked = await _read(request, Fault)
        if asked.fault == "cut":
            connections = self._network.cut(asked.link, asked.seconds)
        else:
            connections = self._network.silence(asked.link, asked.seconds)
        return answer({"connections": connections})

    async def flood(self, request: Request) -> Response:
        """Publish a burst of progress, as fast as it goes."""
        asked = await _read(request, Flood)
        if asked.user not in USERS:
            raise ApiError(422, "invalid", f"the demo's users are {', '.join(USERS)}", field="user")
        self._floods += 1
        try:
            for n in range(1, asked.count + 1):
                payload = {"flood": self._floods, "n": n, "of": asked.count}
                await self._hub.publish(asked.user, "progress", payload, priority=Priority.LOW)
        except HubClosed:
            raise ApiError(503, "draining", "the server is going away", retry_after=1) from None
        return answer({"flood": self._floods, "published": asked.count})


async def _read(request: Request, kind: type[Any]) -> Any:
    """The body of a call, as a `kind`."""
    body = b""
    try:
        with trio.move_on_after(5) as scope:
            async for piece in request.stream():
                body += piece
                if len(body) > BODY:
                    raise ApiError(413, "too_large", "the body is too large")
    except ClientDisconnect:
        raise ApiError(400, "incomplete", "the body is incomplete") from None
    if scope.cancelled_caught:
        raise ApiError(408, "timeout", "the body did not come in time")
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise ApiError(422, "invalid", str(error)) from None
    except msgspec.DecodeError:
        raise ApiError(400, "not_json", "the body is not JSON") from None
