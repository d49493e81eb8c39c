"""The nodes that this one relays connections to, or for: what was lost on the way, how much is on the way, who is gone.

Four times a second each tells the other how much it has said on each relay (`Tally`). So what the bus has lost is known
soon, also where nothing follows; and a node to which nothing can be told any more is *gone*.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final, Protocol, TypeVar

import trio

from ..config import KIB, MIB
from . import relayed
from .bus import Bus
from .calls import DEAF_FOR
from .relayed import Down, Gone, Sent, Tally, Up

TALLY: Final = 0.25
"""Seconds between tallies to one node, while there are at most `FEW`; where there are more, they come less often."""

FEW: Final = 20
"""Nodes that are told so often."""

LOOK: Final = 0.1
"""Seconds between looks at who is gone."""

MISSED_FOR: Final = 0.7
"""Seconds for which a node that is gone has had no lease. After an outage of the store, each needs a moment for its."""

WINDOW: Final = 4 * MIB
"""Bytes of frames on their way to one node; beyond, no session writes to it until it has got some of them."""

BEHIND: Final = MIB
"""Bytes that wait to be sent to a node; beyond, no client is to add much to them."""

REPORT: Final = 512 * KIB
"""Bytes of frames after which it is told at once that they have come."""

ItemT = TypeVar("ItemT", contravariant=True)


class End(Protocol[ItemT]):
    """The relays that end here, as their edge, or as their owner."""

    def take(self, sender: str, item: ItemT) -> None:
        """The other end of a relay has said something."""

    def check(self, sender: str, said: Mapping[int, int]) -> None:
        """The other ends of these relays have said so much."""

    def gone(self, node: str) -> None:
        """A node is gone, and all relays with it."""


class Waiting(Protocol):
    """A relay's end that waits for room in the window."""

    def look(self) -> None:
        """There is some. Not a checkpoint."""


class Peer:
    """Another node.

    Attributes:
      relays: how many there are, in either direction.
      up, down: what the next tally says.
      sent, arrived: bytes of frames that were sent to it, and that it has said it got.
      got, reported: of those that came from it, and that it was told of.
      waiting: what waits for room in the window.
      told_at: when the last tally was.
      missed_since: since when it has no lease; None while it has.
    """

    def __init__(self, node: str) -> None:
        self.node = node
        self.relays = 0
        self.up: dict[int, int] = {}
        self.down: dict[int, int] = {}
        self.sent = self.arrived = self.got = self.reported = 0
        self.waiting: dict[Waiting, None] = {}
        self.told_at = -math.inf
        self.missed_since: float | None = None

    @property
    def is_full(self) -> bool:
        """So much is on its way to it that nothing more is to be sent for now."""
        return self.sent - self.arrived > WINDOW


class Peers:
    """All of them.

    Args:
      bus: what carries all that is said.
      clock: the hub's.
      lives: whether a node does, as far as is known.
      is_suspended: whether this node can't reach the store; then nothing is known of others.

    Attributes:
      edge, owner: the relays whose edge this node is, and whose owner it is.
      cut: relays that were closed as something was lost, or a node gone, since the start.
      away_at: when this node was last seen to be suspended.
    """

    def __init__(
        self,
        bus: Bus,
        clock: Callable[[], float],
        lives: Callable[[str], bool],
        is_suspended: Callable[[], bool],
    ) -> None:
        self.edge: End[Down] | None = None
        self.owner: End[Up] | None = None
        self.cut = 0
        self.away_at = -math.inf
        self._bus = bus
        self._clock = clock
        self._lives = lives
        self._is_suspended = is_suspended
        self._peers: dict[str, Peer] = {}
        self._some = trio.Event()
        bus.hear("relay.down", self._hear_down)
        bus.hear("relay.up", self._hear_up)
        bus.hear("relay.tally", self._hear_tally)

    def of(self, node: str) -> Peer:
        """The peer of this name."""
        peer = self._peers.get(node)
        if peer is None:
            peer = self._peers[node] = Peer(node)
            self._some.set()
        return peer

    def say_down(self, peer: Peer, item: Down) -> None:
        """Say something as the owner."""
        if isinstance(item, Sent):
            peer.down[item.relay] = item.n
        self._bus.tell(peer.node, "relay.down", relayed.encode(item))

    def say_up(self, peer: Peer, item: Up) -> None:
        """Say something as the edge."""
        if not isinstance(item, Gone):
            peer.up[item.relay] = item.n
        self._bus.tell(peer.node, "relay.up", relayed.encode(item))

    def is_behind(self, peer: Peer) -> bool:
        """So much waits to be sent to it, as while the store is away, that more might be lost, and others' with it."""
        return self._bus.backlog(peer.node) > BEHIND

    def got(self, peer: Peer, size: int) -> None:
        """Frames of so many bytes have come."""
        peer.got += size
        if peer.got - peer.reported >= REPORT:
            self._tell(peer)

    async def run(self) -> None:
        """Tell and look, until cancelled."""
        while True:
            await self._some.wait()
            await trio.sleep(LOOK)
            self._look(self._clock())
            if not self._peers:
                self._some = trio.Event()

    def _look(self, now: float) -> None:
        if self._is_suspended():
            self.away_at = now
            for peer in self._peers.values():
                peer.missed_since = None
            return
        due = now - TALLY * max(1.0, len(self._peers) / FEW)
        for peer in list(self._peers.values()):
            if self._lives(peer.node):
                peer.missed_since = None
            elif peer.missed_since is None:
                peer.missed_since = now
            missed = peer.missed_since is not None and now - peer.missed_since >= MISSED_FOR
            if missed or self._bus.deaf_for(peer.node) >= DEAF_FOR:
                self._part_with(peer)
            elif (peer.relays or peer.up or peer.down) and peer.told_at <= due:
                self._tell(peer)

    def _tell(self, peer: Peer) -> None:
        peer.told_at = self._clock()
        tally = Tally(peer.up, peer.down, peer.sent, peer.got)
        peer.up, peer.down, peer.reported = {}, {}, peer.got
        self._bus.tell(peer.node, "relay.tally", relayed.encode(tally))

    def _part_with(self, peer: Peer) -> None:
        del self._peers[peer.node]
        self.cut += peer.relays
        for end in (self.edge, self.owner):
            if end is not None:
                end.gone(peer.node)

    def _hear_down(self, sender: str, body: bytes) -> None:
        if self.edge is not None:
            self.edge.take(sender, relayed.decode_down(body))

    def _hear_up(self, sender: str, body: bytes) -> None:
        if self.owner is not None:
            self.owner.take(sender, relayed.decode_up(body))

    def _hear_tally(self, sender: str, body: bytes) -> None:
        tally = relayed.decode_tally(body)
        peer = self._peers.get(sender)
        if peer is not None:
            peer.got = tally.sent  # what came before has come by now, or never will
            peer.arrived = tally.got
            if peer.waiting and not peer.is_full:
                waiting, peer.waiting = peer.waiting, {}
                for one in waiting:
                    one.look()
        if self.edge is not None:
            self.edge.check(sender, tally.down)
        if self.owner is not None:
            self.owner.check(sender, tally.up)
