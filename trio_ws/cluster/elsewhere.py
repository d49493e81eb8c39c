"""What `hub.elsewhere` asks of a cluster, as a node answers it: a user whose log another node has, and all nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..core.histogram import Histogram
from ..core.pool import Ask, Refused
from ..hub import Identity, Link
from ..hub.elsewhere import HttpAnswer, HttpCall, NoAnswer, RemoteAttachment
from ..store import NodeRecord
from .calls import NodeGone

if TYPE_CHECKING:
    from .hub import ClusteredHub


class ElsewhereUser:
    """A user whose log another node has; as `hub.elsewhere.Elsewhere`."""

    def __init__(self, hub: ClusteredHub, node: str, user: str) -> None:
        self.node = node
        self._hub = hub
        self._user = user

    async def attach(
        self, identity: Identity, ask: Ask, link: Link, *, path: str
    ) -> RemoteAttachment | Refused:
        """See `hub.elsewhere.Elsewhere`."""
        try:
            return await self._hub.edge.attach(self.node, identity, ask, link, path=path)
        except NoAnswer as error:
            gone = isinstance(error.__cause__, NodeGone)
            self._hub.ownership.forget(self._user, self.node, gone=gone)
            raise

    async def ask(self, call: HttpCall) -> HttpAnswer:
        """See `hub.elsewhere.Elsewhere`."""
        return await self._hub.ask_http(self.node, self._user, call)


class ClusterSeen:
    """The nodes, as one of them sees them; as `hub.elsewhere.Cluster`."""

    def __init__(self, hub: ClusteredHub) -> None:
        self._hub = hub
        self.node, self.store = hub.node, hub.store

    @property
    def suspended(self) -> bool:
        """See `hub.elsewhere.Cluster`."""
        return self._hub.engine.suspended

    @property
    def bus_delay(self) -> Histogram:
        """See `hub.elsewhere.Cluster`."""
        return self._hub.bus.delay

    def nodes(self) -> list[NodeRecord]:
        """See `hub.elsewhere.Cluster`."""
        return self._hub.membership.nodes()

    async def ask(self, node: str, call: HttpCall) -> HttpAnswer:
        """See `hub.elsewhere.Cluster`."""
        return await self._hub.ask_http(node, None, call)

    def moved(self, user: str, node: str) -> None:
        """See `hub.elsewhere.Cluster`."""
        self._hub.ownership.forget(user, node)

    def stats(self) -> dict[str, Any]:
        """See `hub.elsewhere.Cluster`."""
        hub = self._hub
        return {
            "owned": len(hub.ownership.owned),
            "claims": hub.ownership.claims,
            "take_overs": hub.ownership.taken_over,
            "handed_over": hub.leaving.handed_over,
            "released": hub.ownership.released,
            "fenced": hub.fenced_off,
            "forwarded": hub.forwarding.forwarded,
            "calls_forwarded": hub.calls_forwarded,
            "relayed": len(hub.edge.holds),
            "relays_cut": hub.peers.cut,
            "calls": hub.calls.made,
            "calls_repeated": hub.calls.repeated,
            "lost_messages": hub.bus.lost,
            "beats": hub.membership.beats,
            "suspensions": hub.membership.suspensions,
        }
