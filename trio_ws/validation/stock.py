"""What the figures are compared with: a bare WebSocket broadcaster, as one writes it on FastAPI, and its client.

The server is Starlette, which FastAPI is made of, on hypercorn. It models what is measured *before*:

- each event is sent to the user's connections as it comes, and forgotten: no confirmation, no redelivery;
- trivial events are serialised in a thread pool;
- for a user who is away there is a buffer with the same bounds, 200 events and 1000 in all, from which the oldest goes,
  critical or not;
- a connection is all there is: who comes back begins anew;
- a broadcast is a loop that awaits each send.

The client reconnects after 1 s with 50 % jitter, then doubles up to 30 s, and as a page in a browser it has no way to
notice a connection that is silent. Which sizes its caches have, and when they are cleaned, is not modelled.

``python -m trio_ws.validation.stock`` runs the server, and prints its addresses as ``trio-ws serve`` does.
"""

from __future__ import annotations

import json
import logging
import random
import sys
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from ..client.transport import Closed, Malformed, Refused, open_stream, parse_url, upgrade

MAX_PER_USER: Final = 200
MAX_IN_ALL: Final = 1000
FIRST_DELAY: Final = 1.0
LONGEST_DELAY: Final = 30.0
JITTER: Final = 0.5
PING_INTERVAL: Final = 20.0


class Broadcaster:
    """The connections by user, and what waits for users who have none."""

    def __init__(self) -> None:
        self._connections: dict[str, list[WebSocket]] = {}
        self._waiting: deque[tuple[str, str]] = deque()

    async def publish(self, user: str, event: dict[str, Any]) -> None:
        """Sends to all connections of `user`, or keeps it."""
        text = await trio.to_thread.run_sync(json.dumps, event)
        connections = self._connections.get(user)
        if not connections:
            self._keep(user, text)
            return
        for connection in list(connections):
            try:
                await connection.send_text(text)
            except (WebSocketDisconnect, RuntimeError, OSError):
                pass  # it is gone, and so is the event

    def _keep(self, user: str, text: str) -> None:
        mine = [item for item in self._waiting if item[0] == user]
        if len(mine) >= MAX_PER_USER:
            self._waiting.remove(mine[0])
        elif len(self._waiting) >= MAX_IN_ALL:
            self._waiting.popleft()
        self._waiting.append((user, text))

    async def handle(self, websocket: WebSocket) -> None:
        """One connection: what has waited is sent, then what comes."""
        user = websocket.query_params["user"]
        # The client's transport offers one name, and wants to hear it.
        await websocket.accept(subprotocol=(websocket.scope["subprotocols"] or [None])[0])
        try:
            while waiting := next((item for item in self._waiting if item[0] == user), None):
                self._waiting.remove(waiting)
                await websocket.send_text(waiting[1])
            self._connections.setdefault(user, []).append(websocket)
            while True:
                await websocket.receive_text()
        except (WebSocketDisconnect, RuntimeError):
            pass
        finally:
            mine = self._connections.get(user, [])
            if websocket in mine:
                mine.remove(websocket)

    async def publish_one(self, request: Request) -> Response:
        """``POST /v1/users/{user}/events``, as of trio_ws."""
        await self.publish(request.path_params["user"], await request.json())
        return JSONResponse({"state": "sent"}, 202)

    async def publish_batch(self, request: Request) -> Response:
        """``POST /v1/events``, as of trio_ws: each line in its turn."""
        lines = [json.loads(line) for line in (await request.body()).splitlines() if line.strip()]
        for line in lines:
            await self.publish(line.pop("user"), line)
        return Response(b'{"state": "sent"}\n' * len(lines), media_type="application/x-ndjson")

    async def stats(self, request: Request) -> Response:
        """``GET /v1/stats``: how full the buffer is."""
        return JSONResponse({"buffer": {"events": len(self._waiting)}})

    def app(self) -> Starlette:
        """All of it as an ASGI app."""
        return Starlette(
            routes=[
                Route("/v1/users/{user}/events", self.publish_one, methods=["POST"]),
                Route("/v1/events", self.publish_batch, methods=["POST"]),
                Route("/v1/stats", self.stats),
                WebSocketRoute("/ws", self.handle),
            ]
        )


class StockClient:
    """A page's client: one connection after the other, until it is cancelled.

    Args:
      url: of the server, with everything in its query that names the user.
      on_event: called with each event, as it came.
      on_connected: called when a connection stands.
    """

    def __init__(
        self,
        url: str,
        on_event: Callable[[dict[str, Any]], None],
        on_connected: Callable[[], None],
        rng: random.Random,
    ) -> None:
        self._address = parse_url(url)
        self._on_event = on_event
        self._on_connected = on_connected
        self._rng = rng

    async def run(self) -> None:
        """Connects, again and again."""
        delay = FIRST_DELAY
        while True:
            try:
                async with trio.open_nursery() as nursery:
                    stream = await open_stream(self._address, None)
                    try:
                        websocket = await upgrade(nursery, stream, self._address, lambda size: None)
                        self._on_connected()
                        delay = FIRST_DELAY
                        while True:
                            self._on_event(json.loads(await websocket.receive()))
                    finally:
                        await trio.aclose_forcefully(stream)
            except* (OSError, Closed, Refused, Malformed, trio.BrokenResourceError):
                pass
            await trio.sleep(delay * self._rng.uniform(1 - JITTER, 1 + JITTER))
            delay = min(2 * delay, LONGEST_DELAY)


def main() -> None:
    """Serves on a free port until it is ended."""
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.websocket_ping_interval = PING_INTERVAL
    config.loglevel = "ERROR"
    logging.getLogger("hypercorn").setLevel(logging.CRITICAL)

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            binds = await nursery.start(serve, Broadcaster().app(), config)
            address = binds[0].removeprefix("http://")
            print(f"listening on ws://{address}/ws\nadmin on http://{address}", file=sys.stderr, flush=True)

    trio.run(run)


if __name__ == "__main__":
    main()
