"""The owner's side of relays: sessions that are here, and whose connection has its socket at another node.

Each has a `Line` in the place of a connection: the attachment does not see the difference. What it sends goes to the
edge as it comes, as long as the edge's socket takes it, and not more than a window of it is on the way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

from ..config import KIB
from ..core import closing
from ..core.closing import CloseCode
from ..core.limits import spread
from ..core.pool import Ask, Refused
from ..errors import StoreUnavailable
from ..hub import Attachment, Hub
from ..identity import Identity
from . import relayed
from .calls import Calls
from .peers import Peer, Peers
from .relay_edge import RETRY_AFTER
from .relayed import (
    Attach,
    Attached,
    Closed,
    Gone,
    Moved,
    NotWelcome,
    Renewed,
    Said,
    Sent,
    Taken,
    Up,
    Welcomed,
)

WINDOW: Final = 256 * KIB
"""Bytes of frames of one session that its client's socket has not taken yet; beyond, it is sent nothing more."""

CLOSE_GRACE: Final = 3.0
"""Seconds that an edge has to close a connection; after that it is taken for closed."""

AGAIN: Final = 0.5
"""Seconds after which it is told again."""

DRAINED: Final = 0.7
"""Seconds after which a node that drains has given its logs to others, as a rule."""

REMEMBERED: Final = 1024
"""Of how many connections it is remembered that they had gone before they were attached."""


class Line:
    """A `Link`: the way out to a client at another node.

    Attributes:
      peer: the edge.
      relay: the number of the relay there.
      attachment: what it is the link of; None before it is.
      over: the connection is gone.
    """

    def __init__(self, owner: Relayed, peer: Peer, relay: int, *, plain: bool) -> None:
        self.peer = peer
        self.relay = relay
        self.attachment: Attachment | None = None
        self.over = False
        self.welcome: list[bytes] | None = []  # gathered, until it is sent as the answer
        self._owner = owner
        self._plain = plain
        self._said = self._heard = 0
        self._sent = self._taken = 0
        self._stuck = self._blocked = False
        self._closed: Closed | None = None
        self._expected_by = math.inf

    # -- from the attachment

    def send(self, frames: list[bytes]) -> bool:
        """See `Link`."""
        if self._closed is not None or not frames:  # a plain client is pinged by the edge
            return True
        size = sum(map(len, frames))
        self._sent += size
        self.peer.sent += size
        if self.welcome is not None:
            self.welcome += frames
        else:
            self._say(Sent(self.relay, self._next(), frames))
        self._blocked = self._stuck or self._sent - self._taken > WINDOW or self.peer.is_full
        if self.peer.is_full:
            self.peer.waiting[self] = None
        return not self._blocked

    def look(self) -> None:
        """Have the attachment write again, if it waits and may."""
        if (
            not self._blocked
            or self._stuck
            or self._sent - self._taken > WINDOW // 2
            or self.attachment is None
        ):
            return
        if self.peer.is_full:
            self.peer.waiting[self] = None
            return
        self._blocked = False
        self.attachment.drained()

    def close(self, code: CloseCode, reason: str, retry_after: float | None = None) -> None:
        """See `Link`."""
        if self._closed is not None:
            return
        self._closed = Closed(self.relay, code.code, reason, retry_after)
        self._say(self._closed)
        now = self._owner.clock()
        self._expected_by = now + CLOSE_GRACE
        self._owner.engine.arm(self, now + AGAIN)

    def expect_by(self, deadline: float) -> None:
        """See `Link`."""
        if self._closed is None:
            self._expected_by = deadline
            self._owner.engine.arm(self, deadline)

    def authenticate(self, token: str) -> None:
        """See `Link`. Tokens are checked at the edge, and get no further."""

    def on_timer(self, now: float) -> float:
        """The time has come by which something was to be heard."""
        if self._closed is None:
            until = max(self._expected_by, self._owner.heard_since)
            if until > now:
                return until
            self.close(closing.TIMEOUT, "nothing was heard")
        elif self._expected_by <= now:
            self.end(silent=False)
            return math.inf
        else:
            self._say(self._closed)
        return now + AGAIN

    # -- from the edge

    def take(self, item: Up) -> None:
        """The edge has said something."""
        if isinstance(item, Gone):
            self.end(silent=item.silent)
            return
        if item.n <= self._heard:
            return
        if item.n > self._heard + 1:
            self.lose()
            return
        self._heard = item.n
        attached = self.attachment
        if attached is None:
            return
        match item:
            case Said(message=message):
                attached.receive(message)
            case Taken(bytes=taken, stuck=stuck):
                self._taken, self._stuck = taken, stuck
                if self._plain:  # of a plain client's life the edge knows, and tells as often as it pings it
                    attached.heard(self._owner.clock())
                self.look()
            case Renewed(expires=expires, issued=issued):
                attached.heard(self._owner.clock())
                attached.renew(Identity(attached.user, expires, issued))

    def check(self, n: int) -> None:
        """The edge has said so much."""
        if n > self._heard and self.attachment is not None:
            self.lose()

    def lose(self) -> None:
        """The relay is broken: the client is to come again, and its session waits for it."""
        self._owner.peers.cut += 1
        self.close(closing.DRAINING, "something was lost between two nodes", spread(RETRY_AFTER, self.relay))
        self.end(silent=False)

    def end(self, *, silent: bool) -> None:
        """The connection is gone."""
        self.over = True
        self._owner.forget(self)
        if self.attachment is not None:
            self.attachment.detach(silent=silent)

    def _next(self) -> int:
        self._said += 1
        return self._said

    def _say(self, item: relayed.Down) -> None:
        self._owner.peers.say_down(self.peer, item)


class Relayed:
    """The relays whose session is here.

    Args:
      hub: whose sessions they are.
      peers, calls: the ways to other nodes.
      owns: whether a user's log is this node's.

    Attributes:
      lines: all of them, by edge and number.
    """

    def __init__(self, hub: Hub, peers: Peers, calls: Calls, owns: Callable[[str], bool]) -> None:
        self.engine = hub.engine
        self.clock = hub.engine.clock
        self.peers = peers
        self.lines: dict[tuple[str, int], Line] = {}
        self._hub = hub
        self._owns = owns
        self._gone: dict[tuple[str, int], None] = {}
        peers.owner = self
        calls.handle("attach", self._attach)

    @property
    def heard_since(self) -> float:
        """Until when nobody is taken for silent, since nothing could come through."""
        config = self.engine.config
        return self.peers.away_at + config.heartbeat_active + config.heartbeat_grace

    async def _attach(self, edge: str, body: bytes) -> bytes:
        arrived_at, wanted = self.clock(), relayed.decode_attach(body)
        line = Line(self, self.peers.of(edge), wanted.relay, plain=wanted.plain)
        line.peer.relays += 1
        self.lines[edge, wanted.relay] = line
        answer: Attached | None = None
        try:
            answer = await self._welcome(line, wanted, arrived_at)
        finally:
            if not isinstance(answer, Welcomed):
                self.forget(line)
        return relayed.encode(answer)

    async def _welcome(self, line: Line, wanted: Attach, arrived_at: float) -> Attached:
        hub = self._hub
        try:
            if not self._owns(wanted.user) or await hub.place(wanted.user, to_connect=True) is not None:
                return Moved()
        except StoreUnavailable:
            return NotWelcome(
                closing.DRAINING.code, "the user's events can't be read now", hub.retry_after, "store"
            )
        if line.over or (line.peer.node, line.relay) in self._gone:
            return Moved()  # as the edge has said meanwhile, or before, nobody waits for it
        if hub.draining:
            after = spread(DRAINED, line.relay)
            return NotWelcome(
                closing.DRAINING.code, "the user's events move to another node", after, "draining"
            )
        ask = Ask(
            session=wanted.session,
            epoch=wanted.epoch,
            seq=wanted.seq,
            start=wanted.start,
            plain=wanted.plain,
            at=arrived_at - wanted.age,
            relayed=True,
        )
        identity = Identity(wanted.user, wanted.expires, wanted.issued)
        attached = hub.attach(identity, ask, line, on_message=hub.reception.handlers.get(wanted.path))
        if isinstance(attached, Refused):
            return NotWelcome(attached.code.code, attached.reason, attached.retry_after, attached.counted)
        line.attachment = attached
        welcome, line.welcome = line.welcome or [], None
        return Welcomed(welcome)

    def forget(self, line: Line) -> None:
        """A relay is over."""
        if self.lines.pop((line.peer.node, line.relay), None) is not None:
            line.peer.relays -= 1
            line.peer.waiting.pop(line, None)
            self.engine.timers.disarm(line)

    def take(self, sender: str, item: Up) -> None:
        """See `End`."""
        line = self.lines.get((sender, item.relay))
        if line is not None:
            line.take(item)
        elif isinstance(item, Gone):
            self._gone[sender, item.relay] = None  # its call may have come with it, and is worked on later
            if len(self._gone) > REMEMBERED:
                del self._gone[next(iter(self._gone))]
        else:
            again = Closed(item.relay, closing.DRAINING.code, "the session is not here", RETRY_AFTER)
            self.peers.say_down(self.peers.of(sender), again)

    def check(self, sender: str, said: Mapping[int, int]) -> None:
        """See `End`."""
        for relay, n in said.items():
            line = self.lines.get((sender, relay))
            if line is not None:
                line.check(n)

    def gone(self, node: str) -> None:
        """The edge is gone, and its connections with it."""
        for line in [line for (edge, _), line in self.lines.items() if edge == node]:
            line.end(silent=True)
