"""Nodes in one process that forward calls to each other, on a bus that does as the test says: logs stay where they are.

What a real cluster does about leases, claims and stores is tests/cluster's; here it is only said who has a log.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import attrs
import httpx
import trio
from starlette.types import ASGIApp

from trio_ws.admin import create_app
from trio_ws.admin.cluster_sampler import ClusterSampler
from trio_ws.admin.sampler import Sampler
from trio_ws.config import Config
from trio_ws.core.entry import FIRM
from trio_ws.core.histogram import Histogram
from trio_ws.core.pool import Ask, Refused
from trio_ws.errors import OwnedElsewhere, StoreUnavailable
from trio_ws.event import Priority
from trio_ws.hub import Hub
from trio_ws.hub.attachment import Link
from trio_ws.hub.elsewhere import HttpAnswer, HttpCall, NoAnswer, RemoteAttachment
from trio_ws.hub.engine import Engine
from trio_ws.identity import Identity
from trio_ws.store import NodeRecord, Place, SharedStore

Carry = Callable[[str, HttpCall, Callable[[], Awaitable[HttpAnswer]]], Awaitable[HttpAnswer]]
"""Is given the node that is asked, the call, and what has it made; it may raise `NoAnswer`."""


async def _carry(node: str, call: HttpCall, make: Callable[[], Awaitable[HttpAnswer]]) -> HttpAnswer:
    await trio.lowlevel.checkpoint()
    return await make()


@attrs.define
class Nodes:
    """All of them.

    Attributes:
      owners: who has whose log; who asks first has it.
      carry: how calls come from node to node.
      calls: those that were made, and at which node.
      away: who can't reach the store.
      about: what nodes say of themselves.
      clusters: what each of them sees.
      meanwhile: is called whenever a log is asked for, and may move some.
    """

    hubs: dict[str, NodeHub] = attrs.field(factory=dict)
    clients: dict[str, httpx.AsyncClient] = attrs.field(factory=dict)
    apps: dict[str, ASGIApp] = attrs.field(factory=dict)
    owners: dict[str, str] = attrs.field(factory=dict)
    carry: Carry = _carry
    calls: list[tuple[str, HttpCall]] = attrs.field(factory=list)
    away: set[str] = attrs.field(factory=set)
    about: dict[str, bytes] = attrs.field(factory=dict)
    clusters: dict[str, OneCluster] = attrs.field(factory=dict)
    meanwhile: Callable[[], None] = lambda: None
    place: Place = attrs.field(factory=Place)

    async def call(self, node: str, call: HttpCall) -> HttpAnswer:
        """Have a call made at a node."""
        self.calls.append((node, call))

        async def make() -> HttpAnswer:
            hub = self.hubs.get(node)
            if hub is None or hub.on_call is None:
                raise NoAnswer
            return await hub.on_call(call)

        return await self.carry(node, call, make)


class NodeHub(Hub):
    """The hub of one of them."""

    def __init__(self, engine: Engine, name: str, nodes: Nodes) -> None:
        super().__init__(engine)
        self.name = name
        self.nodes = nodes
        self.cluster = nodes.clusters[name] = OneCluster(name, nodes)

    async def place(self, user: str, *, to_connect: bool = False) -> There | None:
        await trio.lowlevel.checkpoint()
        self.nodes.meanwhile()
        if self.name in self.nodes.away:
            raise StoreUnavailable("the store is away")
        owner = self.nodes.owners.get(user)
        if owner is None or owner not in self.nodes.hubs:
            self.nodes.owners[user] = owner = self.name
        return None if owner == self.name else There(owner, self.nodes)

    def commits(self, type: str, priority: Priority | None) -> bool:
        # As a store would have it.
        return self.intake.check(type, None, priority, None, None, None, False).retention == FIRM

    async def load(self, user: str, *, to_connect: bool = False) -> None:
        there = await self.place(user)
        if there is not None:
            raise OwnedElsewhere(user, there.node)


@attrs.frozen
class There:
    """A user who is elsewhere."""

    node: str
    nodes: Nodes

    async def attach(self, identity: Identity, ask: Ask, link: Link) -> RemoteAttachment | Refused:
        raise NotImplementedError

    async def ask(self, call: HttpCall) -> HttpAnswer:
        return await self.nodes.call(self.node, call)


class OneCluster:
    """What one of them sees of the others."""

    def __init__(self, node: str, nodes: Nodes) -> None:
        self.node = node
        self.store: SharedStore = nodes.place.node(node)
        self.suspended = False
        self.bus_delay = Histogram()
        self._nodes = nodes

    def nodes(self) -> list[NodeRecord]:
        about = self._nodes.about
        return [
            NodeRecord(name, 2.0, about.get(name, b'{"name":"node %s"}' % name.encode()))
            for name in self._nodes.hubs
        ]

    async def ask(self, node: str, call: HttpCall) -> HttpAnswer:
        return await self._nodes.call(node, call)

    def moved(self, user: str, node: str) -> None:
        pass

    def stats(self) -> dict[str, Any]:
        names = (
            "claims take_overs handed_over released fenced forwarded calls_forwarded relayed relays_cut calls"
            " calls_repeated lost_messages beats suspensions"
        )
        owned = sum(owner == self.node for owner in self._nodes.owners.values())
        return {"owned": owned, **dict.fromkeys(names.split(), 0)}


@asynccontextmanager
async def open_nodes(
    names: Collection[str] = ("a", "b", "c"), config: Config | None = None, **options: Any
) -> AsyncIterator[Nodes]:
    """Some nodes, with a client of the admin API of each; the other options are `create_app`'s."""
    nodes = Nodes()
    async with AsyncExitStack() as stack:
        for name in names:
            nursery = await stack.enter_async_context(trio.open_nursery())
            stack.callback(nursery.cancel_scope.cancel)
            hub = NodeHub(Engine(config or Config(), nursery), name, nodes)
            nodes.hubs[name] = await stack.enter_async_context(hub.running(None))
            sampler, cluster_sampler = Sampler(hub), ClusterSampler(hub)
            nursery.start_soon(cluster_sampler.run)
            app = create_app(hub, sampler=sampler, cluster_sampler=cluster_sampler, **options)
            nodes.apps[name] = app
            transport = httpx.ASGITransport(app=app)
            client = httpx.AsyncClient(transport=transport, base_url=f"http://{name}.test")
            nodes.clients[name] = await stack.enter_async_context(client)
        yield nodes
