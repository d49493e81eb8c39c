"""Several nodes over one Redis: each with a link of its own to one server, and before all of them two balancers."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import trio

from . import lives
from .forwarder import Address, Forwarder
from .lives import Lives
from .namespaces import Namespace
from .redises import Single

HERE = "127.0.0.1"


@attrs.define
class Node:
    """One node.

    Attributes:
      lives: its processes, one after the other.
      link: what it reaches Redis through, where that is one server.
      namespace: the network that it is in, where it has one of its own.
      changing: held by who ends or starts it, so that nobody else does.
    """

    lives: Lives
    link: Forwarder | None
    namespace: Namespace | None
    changing: trio.Lock = attrs.Factory(trio.Lock)


@attrs.define
class Nodes:
    """All of it.

    Attributes:
      all: the nodes.
      ws, http: the balancers' addresses, for clients and for publishers: each connection comes to any node.
    """

    all: list[Node]
    ws: Address
    http: Address


@asynccontextmanager
async def opened(
    directory: Path,
    redis: Single,
    count: int,
    options: Sequence[str],
    rng: random.Random,
    within: Sequence[Namespace] = (),
) -> AsyncIterator[Nodes]:
    """So many nodes over `redis` may be started, with these options. Leaving the block kills all of them.

    Args:
      directory: where they write what they log, each into a file of its own.
      redis: what they share, which runs.
      rng: what the balancers draw from.
      within: a network for each node; none where all have the machine's.
    """
    async with AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(trio.open_nursery())
        stack.callback(nursery.cancel_scope.cancel)
        nodes = []
        for number in range(count):
            space = within[number] if within else None
            url, link = redis.url, None
            if len(redis.servers) == 1:  # several tell their own addresses
                link = Forwarder(lambda: [(HERE, redis.servers[0].port)])
                host, port = await nursery.start(link.serve, space.redis if space else HERE)
                url = f"redis://{host}:{port}"
            life = lives.born(
                url,
                directory / f"node{number}.log",
                options,
                host=space.host if space else HERE,
                nest=(*(space.command if space else ()), *lives.NEST),
            )
            nodes.append(Node(await stack.enter_async_context(life), link, space))

        def shuffled(admin: bool) -> list[Address]:
            found = [(one.host, one.admin_port if admin else one.port) for one in (n.lives for n in nodes)]
            return rng.sample(found, len(found))

        ws = await nursery.start(Forwarder(partial(shuffled, False)).serve, HERE)
        http = await nursery.start(Forwarder(partial(shuffled, True)).serve, HERE)
        yield Nodes(nodes, ws, http)
