"""A backend of AG-UI pages. A page asks for a run; an AG-UI agent, anywhere, does it; all tabs of the user see it.

python backend.py http://127.0.0.1:9000/agent
"""

import logging
import sys
from typing import Any

import httpx
import trio

import trio_ws
from trio_ws.adapters import agui

PATIENCE = httpx.Timeout(10, read=None)  # an agent may think for long


async def work(hub: trio_ws.Hub, user: str, agent: str, input: dict[str, Any]) -> None:
    """Has the agent do what the page asks for. Where it fails, the user is told by the end of the run."""
    try:
        async with (
            hub.run(user, input["runId"], name="assistant") as run,
            httpx.AsyncClient(timeout=PATIENCE) as client,
            client.stream("POST", agent, json=input) as answer,
        ):
            answer.raise_for_status()
            await agui.forward(run, agui.sse(answer.aiter_lines()))
    except Exception:
        logging.exception("a run failed")


async def serve(agent: str, *, port: int = 8765, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
    """Serves pages until it is cancelled."""
    async with trio_ws.open_hub() as hub, trio.open_nursery() as nursery:

        async def on_message(user: str, message: trio_ws.Message) -> None:
            if message.type != "agent_run":
                raise trio_ws.MessageRejected("only agent_run is understood")
            nursery.start_soon(work, hub, user, agent, message.payload)

        addresses = await nursery.start(
            lambda task_status: trio_ws.serve(hub, port=port, on_message=on_message, task_status=task_status)
        )
        task_status.started(addresses[0])


if __name__ == "__main__":
    trio.run(serve, sys.argv[1])
