"""From a store that several share to a node that runs, and back."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import attrs

from ..config import Config
from ..hub.alerts import OnAlert
from ..hub.dead_letters import OnDeadLetter
from ..hub.engine import Engine, new_token
from ..hub.opening import OnWaiting, once_there, opened, own_nursery
from ..store import SharedStore
from .hub import ClusteredHub


@attrs.frozen
class Node:
    """One node of a cluster. Made by `open_node`.

    Attributes:
      hub: its hub, which is used as any other: it reaches users wherever their log is.
    """

    hub: ClusteredHub

    @property
    def id(self) -> str:
        """The id of this node's life."""
        return self.hub.node


@asynccontextmanager
async def open_node(
    config: Config | None = None,
    *,
    store: SharedStore,
    about: Callable[[], dict[str, object]] = dict,
    on_dead_letter: OnDeadLetter | None = None,
    on_alert: OnAlert | None = None,
    on_waiting: OnWaiting | None = None,
    wall_clock: Callable[[], float] = time.time,
    new_id: Callable[[], str] = new_token,
) -> AsyncIterator[Node]:
    """Run one node of a cluster for as long as the block lasts: a hub that shares its users with those of other nodes.

    Leaving the block drains the hub, and gives all that it has to the others; leaving it by an exception, or cancelled,
    ends it at once, and the others take over when its lease is over.

    Args:
      config: the limits of this node; those of one user hold over all nodes, as each user's log is one node's. Nodes
        should have the same.
      store: what the nodes share, such as `trio_ws.RedisStore`; opened here, and closed.
      about: what is told of this node to the others, such as its address; asked again for each beat.
      on_waiting: has the store waited for, where it is not there or not ready yet; called after each attempt, with what
        is in the way. None raises that.
      on_dead_letter, on_alert, wall_clock, new_id: see `open_hub`. Dead letters are handed over by the node that has
        the log.

    Raises:
      StoreError: the store can't be opened, or is not there.
    """
    async with own_nursery() as outer:
        await outer.start(store.run)
        async with opened(store, on_waiting) as found, own_nursery() as nursery:
            engine = Engine(
                config or Config(),
                nursery,
                on_dead_letter=on_dead_letter,
                on_alert=on_alert,
                store=store,
                wall_clock=wall_clock,
                new_id=new_id,
            )
            hub = ClusteredHub(engine, store, about)
            await once_there(hub.membership.beat, on_waiting)
            async with hub.running(found):
                yield Node(hub)
