"""Nodes that serve clients, and relay their connections to each other: with listeners in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio
import trio.testing

import trio_ws
from tests.server.memory import MemoryListener, WireClient
from trio_ws.cluster import ClusteredHub
from trio_ws.cluster.peers import Peers
from trio_ws.cluster.relay_edge import Edge

from . import world

WALL = 4e9
"""When the clock begins: later than today, so that credentials hold."""


class Node:
    """One of them."""

    def __init__(self, life: world.Life, listener: MemoryListener) -> None:
        self.life = life
        self.listener = listener
        self.serving = trio.CancelScope()

    @property
    def name(self) -> str:
        return self.life.store.node

    @property
    def hub(self) -> ClusteredHub:
        return self.life.hub

    @property
    def edge(self) -> Edge:
        return self.life.hub.edge

    @property
    def lines(self) -> dict[Any, Any]:
        return self.life.hub.relayed.lines

    @property
    def peers(self) -> Peers:
        return self.life.hub.peers

    @property
    def lives(self) -> bool:
        return not self.life.over.is_set()

    async def dial(self) -> WireClient:
        return WireClient(await self.listener.connect())

    async def client(self, user: str = "ada", **hello: Any) -> tuple[WireClient, dict[str, Any]]:
        """A client that has been welcomed, and its welcome."""
        client = await self.dial()
        await client.open()
        return client, await client.hello(user=user, **hello)

    async def plain(self, user: str = "ada") -> WireClient:
        """A plain client."""
        client = await self.dial()
        await client.open(f"/ws?user={user}", subprotocols=())
        await trio.testing.wait_all_tasks_blocked()
        return client


@attrs.define
class Nodes:
    """All of them, and what is between them.

    Attributes:
      lose: decides of each sending, from node to node, whether the bus loses it.
    """

    place: world.Place
    all: list[Node] = attrs.field(factory=list)
    lose: Callable[[str, str, bytes], bool] = lambda _sender, _to, _message: False

    async def publish(
        self, node: Node, *payloads: Any, user: str = "ada", type: str = "agent_started"
    ) -> None:
        """Publish by `node`."""
        for payload in payloads:
            await node.hub.publish(user, type, payload)

    async def kill(self, node: Node) -> None:
        """It ends at once; its lease stays until it is over."""
        node.serving.cancel()
        await node.life.kill()
        self.place.channels.pop(node.name, None)


def acked(seq: int) -> dict[str, Any]:
    return {"t": "ack", "seq": seq}


@asynccontextmanager
async def cluster(
    *names: str, serving: dict[str, Any] | None = None, **config: Any
) -> AsyncIterator[tuple[Nodes, list[Node]]]:
    """Nodes of these names; the first has the log of ada, and keeps it. At the end nothing of a relay may be left."""
    async with trio.open_nursery() as nursery:
        nodes = world.Nodes(nursery, trio_ws.Config(**config), wall=WALL)
        relaying = Nodes(nodes.place)
        nodes.place.carry = lambda sender, to, message: () if relaying.lose(sender, to, message) else (0.0,)
        for name in names:
            node = Node(await nodes.start(name), MemoryListener())
            relaying.all.append(node)
            await nursery.start(_serve, node, serving or {})
        for life in nodes.lives:
            await life.hub.membership.beat()  # all know of all
        first = relaying.all[0].hub
        first.leaving.may_go = lambda _user: False  # type: ignore[method-assign] - it would be handed over to who asks
        assert await first.place("ada") is None
        yield relaying, relaying.all
        nodes.place.carry = lambda _sender, _to, _message: (0.0,)
        nodes.check()
        for node in relaying.all:
            if node.lives:
                node.serving.cancel()
                await trio.testing.wait_all_tasks_blocked()
                node.life.scope.cancel()
                await node.life.over.wait()
                assert not node.edge.holds
                assert not node.hub.engine.guests
                assert node.hub.engine.pool.guests == 0
        nursery.cancel_scope.cancel()


async def _serve(node: Node, serving: dict[str, Any], *, task_status: trio.TaskStatus[None]) -> None:
    with node.serving:
        await trio_ws.serve(node.hub, listeners=[node.listener], task_status=task_status, **serving)
