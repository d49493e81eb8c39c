"""Nodes of one process that relay connections to each other: over a store in memory, and with listeners in memory.

Who owns a log is decided here by the plainest means, so that what is tested is what relays do.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio.testing

import trio_ws
from tests.server.memory import MemoryListener, WireClient
from trio_ws.cluster.bus import Bus
from trio_ws.cluster.calls import Calls
from trio_ws.cluster.peers import Peers
from trio_ws.cluster.relay_edge import Edge
from trio_ws.cluster.relay_owner import Owner
from trio_ws.core.pool import Ask, Refused
from trio_ws.hub import Hub, Identity
from trio_ws.hub.attachment import Link
from trio_ws.hub.elsewhere import RemoteAttachment
from trio_ws.hub.engine import Engine
from trio_ws.hub.opening import opened, own_nursery
from trio_ws.store import Place, SharedMemory

WALL = 4e9
"""When the clock begins: later than today, so that credentials hold."""


class Elsewhere:
    """Another node, for one attempt."""

    def __init__(self, hub: NodeHub, node: str) -> None:
        self.node = node
        self._hub = hub

    async def attach(
        self, identity: Identity, ask: Ask, link: Link, *, path: str
    ) -> RemoteAttachment | Refused:
        return await self._hub.edge.attach(self.node, identity, ask, link, path=path)

    async def ask(self, call: Any) -> Any:
        raise NotImplementedError


class NodeHub(Hub):
    """A hub that claims whoever nobody has."""

    edge: Edge
    store: SharedMemory
    living: set[str]

    async def place(self, user: str, *, to_connect: bool = False) -> Elsewhere | None:
        owner = await self.store.claim(user)
        if owner.node not in self.living:
            owner = await self.store.claim(user, owner.token)
        if owner.node != self.store.node:
            return Elsewhere(self, owner.node)
        if user not in self.engine.buffer.mailboxes:
            self.engine.buffer.asleep.setdefault(user, False)
        await self.load(user, to_connect=to_connect)
        return None


class Node:
    """One of them."""

    def __init__(self, hub: NodeHub, bus: Bus, peers: Peers, owner: Owner, listener: MemoryListener) -> None:
        self.hub = hub
        self.bus = bus
        self.peers = peers
        self.edge = hub.edge
        self.owner = owner
        self.listener = listener
        self.scope = trio.CancelScope()
        self.suspended = False

    @property
    def name(self) -> str:
        return self.hub.store.node

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


class Nodes:
    """All of them, and what is between them.

    Attributes:
      lose: decides of each sending, from node to node, whether the bus loses it.
    """

    def __init__(self, nursery: trio.Nursery, serving: dict[str, Any], config: dict[str, Any]) -> None:
        self.place = Place()
        self.living: set[str] = set()
        self.lose: Callable[[str, str, bytes], bool] = lambda _sender, _to, _message: False
        self.place.carry = lambda sender, to, message: () if self.lose(sender, to, message) else (0.0,)
        self.nodes: dict[str, Node] = {}
        self._nursery = nursery
        self._serving = serving
        self._config = config

    async def start(self, name: str) -> Node:
        node: Node = await self._nursery.start(self._run, name)
        return node

    async def _run(self, name: str, *, task_status: trio.TaskStatus[Node]) -> None:
        store = self.place.node(name)
        async with opened(store) as found, own_nursery() as nursery:
            engine = Engine(
                trio_ws.Config(**self._config),
                nursery,
                store=store,
                wall_clock=lambda: WALL + trio.current_time(),
            )
            hub = NodeHub(engine)
            hub.store, hub.living = store, self.living
            bus = Bus(store, nursery)
            calls = Calls(bus, nursery, self.living.__contains__)
            node: Node
            peers = Peers(bus, engine.clock, self.living.__contains__, lambda: node.suspended)
            hub.edge = Edge(engine, peers, calls)
            node = self.nodes[name] = Node(hub, bus, peers, Owner(hub, peers, calls), MemoryListener())
            self.living.add(name)
            nursery.start_soon(bus.run)
            nursery.start_soon(peers.run)
            with node.scope:
                async with hub.running(found), trio.open_nursery() as inner:
                    await inner.start(
                        lambda task_status: trio_ws.serve(
                            hub, listeners=[node.listener], task_status=task_status, **self._serving
                        )
                    )
                    task_status.started(node)
                    await hub.stopping.wait()
            nursery.cancel_scope.cancel()
        self.living.discard(name)

    async def kill(self, node: Node) -> None:
        """It dies, without a word to anybody: what is on its sockets is cut."""
        self.lose = _also(self.lose, node.name)
        node.scope.cancel()
        self.living.discard(node.name)
        await trio.testing.wait_all_tasks_blocked()

    async def publish(
        self, node: Node, *payloads: Any, user: str = "ada", type: str = "agent_started"
    ) -> None:
        """Publish to a user whose log is at `node`."""
        for payload in payloads:
            await node.hub.publish(user, type, payload)


def _also(lose: Callable[[str, str, bytes], bool], node: str) -> Callable[[str, str, bytes], bool]:
    return lambda sender, to, message: node in (sender, to) or lose(sender, to, message)


def acked(seq: int) -> dict[str, Any]:
    return {"t": "ack", "seq": seq}


def shown(frame: Any) -> str:
    return json.dumps(frame)


@asynccontextmanager
async def cluster(
    *names: str, serving: dict[str, Any] | None = None, **config: Any
) -> AsyncIterator[tuple[Nodes, list[Node]]]:
    """Nodes of these names; the first owns the log of ada. At the end nothing of a relay may be left."""
    async with trio.open_nursery() as nursery:
        nodes = Nodes(nursery, serving or {}, config)
        started = [await nodes.start(name) for name in names]
        assert await started[0].hub.place("ada") is None
        yield nodes, started
        nodes.lose = lambda sender, to, _message: not {sender, to} <= nodes.living
        for node in started:
            if node.name in nodes.living:
                assert node.hub.engine.books.balanced
                node.scope.cancel()
                await trio.testing.wait_all_tasks_blocked()
                assert not node.edge.holds
                assert not node.hub.engine.guests
                assert node.hub.engine.pool.guests == 0
        nursery.cancel_scope.cancel()
