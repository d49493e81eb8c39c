"""A foreign client, the `websockets` library, on real sockets: protocol v1 by hand, and plain."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
from websockets import ConnectionClosed, InvalidStatus, Subprotocol
from websockets.trio.client import ClientConnection, connect

import trio_ws

pytestmark = pytest.mark.integration

V1 = Subprotocol("trio-ws.v1")


@asynccontextmanager
async def served(
    config: trio_ws.Config | None = None, **options: Any
) -> AsyncIterator[tuple[trio_ws.Hub, str]]:
    """A hub and its listener on a free port; gives the hub and the address to connect to."""
    async with trio_ws.open_hub(config) as hub, trio.open_nursery() as nursery:
        ((host, port),) = await nursery.start(partial(trio_ws.serve, hub, port=0, **options))
        yield hub, f"ws://{host}:{port}/ws"
        nursery.cancel_scope.cancel()


class Frames:
    """Frames off a connection, one by one."""

    def __init__(self, ws: ClientConnection) -> None:
        self.ws = ws
        self._waiting: list[dict[str, Any]] = []

    async def next(self, kind: str | None = None) -> dict[str, Any]:
        while True:
            while not self._waiting:
                message = json.loads(await self.ws.recv())
                self._waiting = message if isinstance(message, list) else [message]
            frame = self._waiting.pop(0)
            if kind is None or frame["t"] == kind:
                return frame

    async def hello(self, **fields: Any) -> dict[str, Any]:
        await self.ws.send(json.dumps({"t": "hello", "user": "ada"} | fields))
        return await self.next()

    async def send(self, **frame: Any) -> None:
        await self.ws.send(json.dumps(frame))


async def test_events_come_and_are_confirmed() -> None:
    async with served() as (hub, url), connect(url, subprotocols=[V1]) as ws:
        assert ws.subprotocol == V1
        frames = Frames(ws)
        assert (await frames.hello())["t"] == "welcome"
        receipts = [await hub.publish("ada", "agent_thinking", {"n": n}) for n in range(100)]
        for n in range(100):
            assert (await frames.next("event"))["payload"] == {"n": n}
        await frames.send(t="ack", seq=100)
        with trio.fail_after(5):
            for receipt in receipts:
                await receipt.confirmed()


async def test_a_reset_connection_resumes_without_a_hole() -> None:
    async with served() as (hub, url):
        seqs: list[int] = []
        resume: dict[str, Any] = {}
        for round_ in range(5):
            async with connect(url, subprotocols=[V1]) as ws:
                frames = Frames(ws)
                welcome = await frames.hello(**resume)
                assert welcome["resumed"] is bool(resume)
                for _ in range(3):
                    await hub.publish("ada", "tool_completed", round_)
                seqs += [(await frames.next("event"))["seq"] for _ in range(2)]
                resume = {"session": welcome["session"], "epoch": welcome["epoch"], "seq": seqs[-1]}
                raw = ws.stream.socket
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                await trio.aclose_forcefully(ws.stream)
        assert seqs == list(range(1, 11))


async def test_a_large_backlog_goes_through_the_pump() -> None:
    config = trio_ws.Config(max_bytes_per_user=8 * 2**20)
    async with served(config) as (hub, url):
        text = "x" * 200_000
        for n in range(30):
            await hub.publish("ada", "agent_thinking", {"n": n, "text": text})
        async with connect(url, subprotocols=[V1], max_size=2**24) as ws:
            frames = Frames(ws)
            await frames.hello()
            for n in range(30):
                event = await frames.next("event")
                assert event["payload"] == {"n": n, "text": text}
                await frames.send(t="ack", seq=event["seq"])
            assert (await frames.next("live"))["seq"] == 30


async def test_a_stuck_client_costs_nobody_else_anything() -> None:
    config = trio_ws.Config(write_timeout=0.5, max_bytes_per_user=8 * 2**20)
    async with served(config) as (hub, url), connect(url, subprotocols=[V1]) as live:
        stuck = await trio.open_tcp_stream("127.0.0.1", int(url.split(":")[2].split("/")[0]))
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await stuck.send_all(
            b"GET /ws?user=bob HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert b" 101 " in await stuck.receive_some()
        frames = Frames(live)
        await frames.hello()
        for n in range(30):
            await hub.publish("bob", "note", "y" * 200_000)
            await hub.publish("ada", "agent_thinking", n)
            assert (await frames.next("event"))["payload"] == n
            await frames.send(t="ack", seq=n + 1)
        with trio.fail_after(10):
            while hub.statistics().connections > 1:
                await frames.next()  # heartbeats, until the stuck one has been cut
                await frames.send(t="pong")
        await stuck.aclose()


async def test_a_plain_client() -> None:
    async with served() as (hub, url), connect(url + "?user=ada") as ws:
        assert ws.subprotocol is None
        while not hub.statistics().connections:
            await trio.lowlevel.checkpoint()
        receipt = await hub.publish("ada", "agent_started", {"run": 7})
        event = json.loads(await ws.recv())
        assert sorted(event) == ["id", "payload", "ts", "type"]
        await receipt.confirmed()


async def test_refusals_in_http() -> None:
    async with served() as (_, url):
        for address, headers, status in (
            (url, {}, 401),
            (url + "?user=ada", {"Origin": "https://evil.example"}, 403),
            (url.replace("/ws", "/elsewhere"), {}, 404),
        ):
            with pytest.raises(InvalidStatus) as refused:
                async with connect(address, additional_headers=headers):
                    pass
            assert refused.value.response.status_code == status


async def test_drain_over_the_wire() -> None:
    async with served() as (hub, url), connect(url, subprotocols=[V1]) as ws:
        frames = Frames(ws)
        await frames.hello()
        await frames.next("live")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hub.drain)
            low, high = (await frames.next("drain"))["after"]
            assert 0 <= low <= high
            assert (await frames.next("error"))["code"] == 4503
            with pytest.raises(ConnectionClosed) as closed:
                await ws.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4503
