"""The calls that the demo page makes: what there is to look at, a broken network, a flood, a restart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Final, Literal

import msgspec
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from ..admin.answers import ApiError, answer
from ..admin.events import refusals
from ..admin.requests import decode, read_body
from ..config import KIB
from ..event import Priority
from ..faults import FaultyNetwork
from ..hub import Hub
from .agents import USERS
from .twins import TWIN, tell_twin

MAX_BODY: Final = 4 * KIB


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to do to a link."""

    link: Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9_-]{1,64}$")]
    fault: Literal["cut", "silence", "half_open"]
    seconds: Annotated[float, msgspec.Meta(ge=0, le=60)] = 0.0


class Flood(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much to publish at once to whom."""

    user: str
    count: Annotated[int, msgspec.Meta(ge=1, le=5000)] = 1000


_fault_decoder = msgspec.json.Decoder(Fault)
_flood_decoder = msgspec.json.Decoder(Flood)


class Demo:
    """The demo's calls.

    Args:
      hub: what is flooded.
      network: what is broken.
      restart: has the server go away in order, and come back.
      port, faulty_port: where the WebSocket is, directly and by way of `network`.
    """

    def __init__(
        self, hub: Hub, network: FaultyNetwork, *, restart: Callable[[], None], port: int, faulty_port: int
    ) -> None:
        self._hub = hub
        self._network = network
        self._restart = restart
        self._about = {
            "users": USERS,
            "twin": TWIN,
            "port": port,
            "faulty_port": faulty_port,
            "path": "/ws",
        }
        self._floods = 0

    def pages(self) -> list[BaseRoute]:
        """What the page asks as it loads."""
        return [Route("/demo/about", self.about)]

    def calls(self) -> list[BaseRoute]:
        """What its buttons do."""
        return [
            Route("/demo/network", self.fault, methods=["POST"]),
            Route("/demo/flood", self.flood, methods=["POST"]),
            Route("/demo/restart", self.restart, methods=["POST"]),
        ]

    async def about(self, request: Request) -> Response:
        """Users and addresses."""
        return answer(self._about)

    async def fault(self, request: Request) -> Response:
        """Break one page's network."""
        asked = decode(_fault_decoder, await read_body(request, MAX_BODY))
        match asked.fault:
            case "cut":
                connections = self._network.cut(asked.link, asked.seconds)
            case "silence":
                connections = self._network.silence(asked.link, asked.seconds)
            case "half_open":
                connections = self._network.half_open(asked.link)
        return answer({"connections": connections})

    async def flood(self, request: Request) -> Response:
        """Publish a burst of progress, as fast as it goes."""
        asked = decode(_flood_decoder, await read_body(request, MAX_BODY))
        if asked.user not in USERS:
            raise ApiError(422, "invalid", f"the demo's users are {', '.join(USERS)}", field="user")
        self._floods += 1
        with refusals(self._hub):
            for n in range(1, asked.count + 1):
                payload = {"flood": self._floods, "n": n, "of": asked.count}
                await self._hub.publish(asked.user, "progress", payload, priority=Priority.LOW)
                tell_twin(self._hub, asked.user, "progress", payload, priority=Priority.LOW)
        return answer({"flood": self._floods, "published": asked.count})

    async def restart(self, request: Request) -> Response:
        """Drain, end, begin anew, on the same ports."""
        response = answer({"restarting": True}, 202)
        response.background = BackgroundTask(self._go)
        return response

    async def _go(self) -> None:
        self._restart()
