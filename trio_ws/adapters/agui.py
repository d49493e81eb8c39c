"""An AG-UI agent, forwarded into a run."""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, AsyncIterator
from typing import Any

from ..agui import AguiDecoder
from .forwarding import AgentFailed, Run, closing, forward_all, numbers_of


async def forward(run: Run, events: AsyncIterable[Any]) -> list[dict[str, Any]]:
    """Tells a whole stream of AG-UI in `run`. Its end is not yet the end of the run, which its block tells.

    Args:
      events: JSON objects (`sse` makes them of an answer), or models of the package ``ag-ui-protocol``.

    Returns: what the agent asks for before it can go on: AG-UI's interrupts, none where it is done. Its result is in
      ``run.result``.

    Raises:
      AgentFailed: it told that it failed, or its stream ended too soon (``AgentStreamEnded``).
      InvalidEvent: what came is no event of AG-UI.

    Cancelled, the stream is closed, and what was told stays told.
    """
    decoder = AguiDecoder(numbers=numbers_of(run))
    await forward_all(run, events, decoder)
    if not decoder.ended:
        kind, message = "AgentStreamEnded", "the agent's stream ended before its run did"
        run.fail(kind, message)
        raise AgentFailed(kind, message)
    return decoder.interrupts


async def sse(lines: AsyncIterable[str]) -> AsyncIterator[dict[str, Any]]:
    """The events in server-sent events, such as ``response.aiter_lines()`` of httpx gives them.

    Raises:
      ValueError: an event's data is no JSON.
    """
    data: list[str] = []
    async with closing(lines):
        async for line in lines:
            if line.startswith("data:"):
                data.append(line[5:].removeprefix(" "))
            elif not line.strip() and data:
                yield json.loads("\n".join(data))
                data.clear()
    if data:
        yield json.loads("\n".join(data))
