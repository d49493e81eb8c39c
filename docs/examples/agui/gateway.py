"""One run of a user's as server-sent events of AG-UI, for a page that is no client of ours. For Trio.

hypercorn -k trio gateway:app     # GET /runs/r1 answers like an AG-UI agent
"""

import json
import os
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

import trio_ws
from trio_ws.agui import AguiEncoder

URL = os.environ.get("TRIO_WS_URL", "ws://127.0.0.1:8765/ws")


async def events(user: str, run: str) -> AsyncIterator[str]:
    """What happens in a run, from its start or from where it is, until it ends."""
    encoder = AguiEncoder(run)
    async with trio_ws.connect(URL, user=user) as client:
        async for event in client:
            for told in encoder.encode(event):
                yield f"data: {json.dumps(told)}\n\n"
            if encoder.ended:
                return


async def watch(request: Request) -> StreamingResponse:
    user = request.headers["X-User"]  # as your proxy or session middleware has it
    return StreamingResponse(events(user, request.path_params["run"]), media_type="text/event-stream")


app = Starlette(routes=[Route("/runs/{run}", watch)])
