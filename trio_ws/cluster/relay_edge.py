"""The edge of relays: connections whose socket is here, and whose session another node has.

What the client sends goes to the owner as it came, and what the owner sends goes to the client. What the edge does by
itself is what only it can: it checks fresh tokens, which never leave it; it knows whether the socket takes what it is
given; and it pings plain clients, and says each time that the relay is there yet.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Final

from ..config import KIB
from ..core import closing, wire
from ..core.closing import CloseCode
from ..core.limits import spread
from ..core.pool import Ask, Refused
from ..hub.attachment import Link
from ..hub.elsewhere import NoAnswer
from ..hub.engine import Engine
from ..identity import Identity
from . import relayed
from .calls import CallFailed, Calls, NodeGone
from .peers import Peer, Peers
from .relayed import Attach, Closed, Down, Gone, Moved, NotWelcome, Renewed, Said, Taken, Welcomed

RETRY_AFTER: Final = 0.15
"""Seconds after which a client comes again whose relay was lost; some a little sooner."""

REPORT: Final = 64 * KIB
"""Bytes that the socket has taken after which the owner is told."""

MOST_SAID: Final = 128 * KIB
"""Bytes that a client may say while the way to the owner is behind. What waits there is bounded for all together: one
who fills it would cut off the others."""

_PING: Final = re.compile(rb'\{"t":"ping","seq":\d+,"next":([\d.]+)\}')

_HAS_SECRETS: Final = re.compile(rb'"(?:auth|hello)"|\\u00[67]')
"""Finds every message that has a frame with a token in it, however its letters are escaped, and some others."""


_NOTHING: Final = b"?"
"""What is no frame, whatever it was."""


class Hold:
    """A `RemoteAttachment`: a connection's hold on a session that another node has.

    Attributes:
      user: whose session it is.
      peer: the owner.
      relay: the number of the relay.
      fenced: it holds nothing any more.
      deaf: what is received has no effect any more.
    """

    __slots__ = (
        "_armed_for",
        "_credited",
        "_due",
        "_early",
        "_edge",
        "_heard",
        "_left",
        "_link",
        "_plain",
        "_said",
        "_stuck",
        "_taken",
        "_waiting",
        "deaf",
        "fenced",
        "peer",
        "relay",
        "user",
    )

    def __init__(self, edge: Edge, peer: Peer, relay: int, user: str, link: Link, *, plain: bool) -> None:
        self.user = user
        self.peer = peer
        self.relay = relay
        self.fenced = self.deaf = False
        self._edge = edge
        self._link = link
        self._plain = plain
        self._said = self._heard = 0
        self._taken = self._credited = 0  # bytes: that have come, and that the owner was told of
        self._waiting = 0  # bytes that it has said since the way to the owner is behind
        self._stuck = self._left = False
        self._early: list[Down] | None = []  # what overtook the answer that has the welcome
        # When the client is pinged from here: a plain one from the time on when its owner was asked for a session.
        self._due = edge.engine.clock() + edge.engine.config.heartbeat_idle if plain else math.inf
        self._armed_for = math.inf

    # -- from the owner

    def begin(self, frames: list[bytes]) -> None:
        """The session is there: send what comes first."""
        if frames:
            self._send(frames)
        self._expect()
        if self._plain:
            self._ping_at(self._due)
        early, self._early = self._early or [], None
        for item in early:
            self.take(item)

    def take(self, item: Down) -> None:
        """The owner has said something."""
        if self._early is not None:
            self._early.append(item)
            return
        if isinstance(item, Closed):
            self.deaf = True
            code = closing.TABLE.get(item.code, closing.INTERNAL_ERROR)
            self._link.close(code, item.reason, item.retry_after)
        elif item.n <= self._heard or self.deaf:
            pass
        elif item.n > self._heard + 1:
            self.lose("something was lost between two nodes")
        else:
            self._heard = item.n
            self._send(item.frames)

    def check(self, n: int) -> None:
        """The owner has said so much."""
        if self._early is None and n > self._heard and not self.deaf:
            self.lose("something was lost between two nodes")

    def _send(self, frames: list[bytes]) -> None:
        size = sum(map(len, frames))
        self._edge.peers.got(self.peer, size)
        self._taken += size
        if not self._plain:
            self._expect_next(frames[-1])
        if not self._link.send(frames):
            if not self._stuck:
                self._stuck = True
                self._report(self._credited)
        elif not self._stuck and self._taken - self._credited >= REPORT:
            self._report(self._taken)

    def _report(self, taken: int) -> None:
        self._credited = taken
        self._say(Taken(self.relay, self._next(), taken, self._stuck))

    def lose(self, reason: str) -> None:
        """The relay is of no use any more: the client is to come again."""
        self._edge.peers.cut += 1
        self.deaf = True
        self._leave(silent=False)
        self._link.close(closing.DRAINING, reason, spread(RETRY_AFTER, self.relay))

    # -- from the connection

    def receive(self, message: bytes | str) -> None:
        """See `RemoteAttachment`."""
        if self.deaf:
            return
        self._expect()
        data = message if isinstance(message, bytes) else message.encode()
        if not self._plain and _HAS_SECRETS.search(data):
            data = self._without_secrets(data)
        if not data:
            return
        self._waiting = self._waiting + len(data) if self._edge.peers.is_behind(self.peer) else 0
        if self._waiting > MOST_SAID:
            self.lose("it says more than can be handed on")
        else:
            self._say(Said(self.relay, self._next(), data))

    def _without_secrets(self, data: bytes) -> bytes:
        """Have fresh tokens checked here; returns the other frames."""
        try:
            frames = list(zip(wire.split(data), wire.decode_client(data), strict=False))
        except wire.NotAFrame:
            return _NOTHING
        others = []
        for text, frame in frames:
            if isinstance(frame, wire.Auth):
                self._link.authenticate(frame.token)
            else:
                others.append(wire.hello() if isinstance(frame, wire.Hello) else text)
        return wire.batch(others) if others else b""

    def drained(self) -> None:
        """See `RemoteAttachment`."""
        if self._stuck:
            self._stuck = False
            self._report(self._taken)
            self._edge.engine.react()

    def renew(self, identity: Identity) -> None:
        """See `RemoteAttachment`."""
        self._say(Renewed(self.relay, self._next(), identity.expires, identity.issued))

    def detach(self, *, silent: bool = False) -> None:
        """See `RemoteAttachment`."""
        self._leave(silent=silent)
        self._edge.forget(self)

    # -- for who drains

    @property
    def is_flushed(self) -> bool:
        """See `RemoteAttachment`."""
        return self.fenced or not self._stuck

    @property
    def is_through(self) -> bool:
        """See `RemoteAttachment`."""
        return self.is_flushed

    def drain(self, low: float, high: float) -> None:
        """See `RemoteAttachment`."""
        if not self._plain and not self.deaf:
            self._link.send([wire.drain(low, high)])

    def close(self, code: CloseCode, reason: str, retry_after: float | None = None) -> None:
        """See `RemoteAttachment`."""
        self._link.close(code, reason, retry_after)

    # -- all of it

    def _expect(self) -> None:
        """The owner tells when a client was silent for too long. Here it is only seen to that it ends at all."""
        config = self._edge.engine.config
        longest = config.heartbeat_idle + config.heartbeat_grace
        self._link.expect_by(self._edge.engine.clock() + (longest if self._plain else 2 * longest))

    def _expect_next(self, frame: bytes) -> None:
        """Within so many seconds the client is to hear something more, as the newest frame says. Where it is not from
        the owner, since the store can't be reached, it is from here: that need not cost a connection."""
        config = self._edge.engine.config
        said = _PING.match(frame)
        promised = float(said[1]) if said is not None else config.heartbeat_active
        self._ping_at(self._edge.engine.clock() + promised + config.heartbeat_grace / 2)

    def _ping_at(self, at: float) -> None:
        self._due = at
        if at < self._armed_for:
            self._armed_for = at
            self._edge.engine.arm(self, at)

    def on_timer(self, now: float) -> float:
        """The client is to hear something, unless it has meanwhile."""
        if self._due <= now:
            config = self._edge.engine.config
            if self._plain:
                self._due = now + config.heartbeat_idle
                self._link.send([])
                self._report(self._credited if self._stuck else self._taken)
            else:
                self._due = now + config.heartbeat_active
                if not (self.deaf or self._stuck):
                    self._link.send([wire.ping(0, config.heartbeat_active)])
        self._armed_for = self._due
        return self._due

    def _next(self) -> int:
        self._said += 1
        return self._said

    def _say(self, item: relayed.Up) -> None:
        if not self._left:
            self._edge.peers.say_up(self.peer, item)

    def _leave(self, *, silent: bool) -> None:
        """Say that the connection is gone; nothing follows."""
        self._say(Gone(self.relay, silent))
        self._left = True

    def be_left(self) -> None:
        """The owner is gone: there is nobody to tell."""
        self._left = self.deaf = True


class Edge:
    """The relays whose socket is here.

    Args:
      engine: of the hub.
      peers, calls: the ways to other nodes.

    Attributes:
      holds: all of them, by number.
    """

    def __init__(self, engine: Engine, peers: Peers, calls: Calls) -> None:
        self.engine = engine
        self.peers = peers
        self.holds: dict[int, Hold] = {}
        self._calls = calls
        self._count = 0
        peers.edge = self

    async def attach(
        self, node: str, identity: Identity, ask: Ask, link: Link, *, path: str
    ) -> Hold | Refused:
        """See `Elsewhere.attach`; `node` is the owner."""
        engine = self.engine
        if engine.draining:
            return Refused(
                closing.DRAINING, "the server is going away", engine.retry_after, counted="draining"
            )
        if (refused := engine.pool.lodge()) is not None:
            return refused
        self._count += 1
        hold = Hold(self, self.peers.of(node), self._count, identity.user, link, plain=ask.plain)
        hold.peer.relays += 1
        self.holds[hold.relay] = hold
        attached: relayed.Attached | None = None
        try:
            attached = await self._ask(hold, identity, ask, path)
        except (NodeGone, CallFailed) as error:
            raise NoAnswer(str(error)) from error
        finally:
            if attached is None:
                hold.detach()  # it may be attached over there all the same
            elif not isinstance(attached, Welcomed):
                self.forget(hold)
        if isinstance(attached, Moved):
            raise NoAnswer("the log is not there any more")
        if isinstance(attached, NotWelcome):
            code = closing.TABLE.get(attached.code, closing.INTERNAL_ERROR)
            return Refused(code, attached.reason, attached.retry_after, counted=attached.counted)
        engine.guests[hold] = None
        hold.begin(attached.frames)
        return hold

    async def _ask(self, hold: Hold, identity: Identity, ask: Ask, path: str) -> relayed.Attached:
        body = Attach(
            relay=hold.relay,
            user=identity.user,
            expires=identity.expires,
            issued=identity.issued,
            path=path,
            age=self.engine.clock() - ask.at,
            session=ask.session,
            epoch=ask.epoch,
            seq=ask.seq,
            start=ask.start,
            plain=ask.plain,
        )
        return relayed.decode_attached(await self._calls.call(hold.peer.node, "attach", relayed.encode(body)))

    def forget(self, hold: Hold) -> None:
        """A relay is over."""
        if self.holds.pop(hold.relay, None) is None:
            return
        hold.fenced = hold.deaf = True
        hold.peer.relays -= 1
        self.engine.guests.pop(hold, None)
        self.engine.pool.check_out()
        self.engine.timers.disarm(hold)
        self.engine.react()

    def take(self, sender: str, item: Down) -> None:
        """See `End`."""
        hold = self.holds.get(item.relay)
        if hold is not None and hold.peer.node == sender:
            hold.take(item)
        else:
            self.peers.say_up(self.peers.of(sender), Gone(item.relay, silent=False))

    def check(self, sender: str, said: Mapping[int, int]) -> None:
        """See `End`."""
        for relay, n in said.items():
            hold = self.holds.get(relay)
            if hold is not None and hold.peer.node == sender:
                hold.check(n)

    def gone(self, node: str) -> None:
        """The owner is gone: its clients are to come again."""
        for hold in list(self.holds.values()):
            if hold.peer.node == node:
                hold.be_left()
                hold.close(
                    closing.DRAINING,
                    "the node that has the events can't be reached",
                    spread(RETRY_AFTER, hold.relay),
                )
