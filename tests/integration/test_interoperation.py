"""The same conversations with clients of other makers, over real sockets: as clients of protocol v1, and plain."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio

import trio_ws

from ..npm import need_packages
from .foreign import CLIENTS, V1, Foreign, Open

pytestmark = pytest.mark.integration
LARGE = "é😀" * 5_000
"""More than takes the read lane, and more than one frame of 16 bits in bytes on the way out."""


@pytest.fixture(params=CLIENTS)
def opening(request: pytest.FixtureRequest) -> Open:
    if request.param == "npm ws":
        need_packages()
    return CLIENTS[request.param]


@asynccontextmanager
async def served(taken: list[tuple[str, Any]]) -> AsyncIterator[tuple[trio_ws.Hub, str]]:
    """A hub and its listener; gives the address to connect to. What users say goes to `taken`."""

    async def on_message(user: str, message: trio_ws.Message) -> None:
        taken.append((user, message.payload))

    with trio.fail_after(20):
        async with trio_ws.open_hub() as hub, trio.open_nursery() as nursery:
            serve = partial(trio_ws.serve, hub, port=0, on_message=on_message)
            ((host, port),) = await nursery.start(serve)
            yield hub, f"ws://{host}:{port}/ws"
            nursery.cancel_scope.cancel()


class Frames:
    """The frames of a client of v1, one by one."""

    def __init__(self, client: Foreign) -> None:
        self._client = client
        self._waiting: list[dict[str, Any]] = []

    async def next(self, kind: str) -> dict[str, Any]:
        """The next of this kind; none but heartbeats may come before it."""
        while True:
            while not self._waiting:
                message = json.loads(await self._client.receive())
                self._waiting = message if isinstance(message, list) else [message]
            frame = self._waiting.pop(0)
            if frame["t"] != "ping" or kind == "ping":
                assert frame["t"] == kind, frame
                return frame

    async def send(self, **frame: Any) -> None:
        await self._client.send(json.dumps(frame, ensure_ascii=False))


async def test_v1(opening: Open) -> None:
    taken: list[tuple[str, Any]] = []
    async with served(taken) as (hub, url), opening(url, True) as client:
        assert client.subprotocol == V1
        frames = Frames(client)
        await frames.send(t="hello", user="ada")
        assert (await frames.next("welcome"))["resumed"] is False
        await frames.next("live")
        payloads: list[Any] = [{"n": 1}, None, "é😀", {"large": LARGE}, {"n": 5}]
        receipts = [await hub.publish("ada", "agent_thinking", payload) for payload in payloads]
        for seq, payload in enumerate(payloads, 1):
            event = await frames.next("event")
            assert (event["seq"], event["payload"]) == (seq, payload)
        await frames.send(t="ack", seq=len(payloads))
        for receipt in receipts:
            await receipt.confirmed()
        for id, payload in (("small", {"text": "é"}), ("large", {"text": LARGE})):
            await frames.send(t="message", id=id, type="note", payload=payload)
            assert (await frames.next("accepted"))["id"] == id
            assert taken[-1] == ("ada", payload)
        await frames.send(t="nonsense")
        assert (await frames.next("error"))["fatal"] is False
        await frames.send(t="bye")
        assert await client.closed() == 1000


async def test_plain(opening: Open) -> None:
    taken: list[tuple[str, Any]] = []
    async with served(taken) as (hub, url), opening(url + "?user=ada", False) as client:
        assert client.subprotocol is None
        while not hub.statistics().connections:  # noqa: ASYNC110 - it may know of the answer before the hub of it
            await trio.sleep(0.01)
        for payload in ({"n": 1}, {"large": LARGE}):
            receipt = await hub.publish("ada", "agent_thinking", payload)
            event = json.loads(await client.receive())
            assert sorted(event) == ["id", "payload", "ts", "type"]
            assert event["payload"] == payload
            await receipt.confirmed()
            await client.send(json.dumps({"type": "note", "payload": payload}, ensure_ascii=False))
            while ("ada", payload) not in taken:  # noqa: ASYNC110 - it is not answered
                await trio.sleep(0.01)
        for _ in range(10):
            await client.send("no message")
        assert await client.closed() == 4400


@pytest.fixture
def curl() -> str:
    """curl, where it speaks WebSocket."""
    found = shutil.which("curl")
    told = (
        ""
        if found is None
        else subprocess.run([found, "-V"], capture_output=True, text=True, check=True).stdout
    )
    if found is None or "wss" not in told.split():
        pytest.skip("no curl here that speaks WebSocket: it was NOT tested as a client; 8.11 or later does")
    return found


async def test_curl(curl: str) -> None:
    """A plain client with next to nothing: it takes what comes, and writes it out."""
    async with served([]) as (hub, url):
        process = await trio.lowlevel.open_process(
            [curl, "-sN", "--http1.1", url + "?user=ada"], stdout=subprocess.PIPE
        )
        try:
            while not hub.statistics().connections:  # noqa: ASYNC110 - the hub tells nobody
                await trio.sleep(0.01)
            await hub.publish("ada", "agent_thinking", {"n": 1})
            assert process.stdout is not None
            assert json.loads(await process.stdout.receive_some())["payload"] == {"n": 1}
        finally:
            process.kill()
