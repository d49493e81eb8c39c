"""What is seen of several nodes: what was promised to publishers, what each session was sent, what clients processed.

Each node's hub is watched where its connections are attached, wherever their sockets are: so what a session is sent is
seen once, by whoever has its user's log then.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import attrs
import trio

from ...client import ClientState
from ...core import payload as payloads
from ...core import wire
from ...core.closing import CloseCode
from ...core.pool import Ask, Refused
from ...event import Event, Gap
from ...hub import Attachment, Hub, Identity, Link, OnMessage
from ..checkers.sight import Violation

FENCED_WITHIN: Final = 5.0
"""Seconds after which who was fenced off from a user must know: a lease, and two sweeps."""

MOST_VIOLATIONS: Final = 20


@attrs.define(eq=False, kw_only=True)
class Published:
    """An event that was handed to some node, maybe several times.

    Attributes:
      promised_at: when a publisher was told that it is accepted; infinity where none was.
      names: under which epoch and seq it was sent to sessions.
      processed: by which clients.
    """

    token: int
    user: str
    critical: bool
    promised_at: float = math.inf
    names: set[tuple[str, int]] = attrs.field(factory=set)
    processed: set[str] = attrs.field(factory=set)

    def __str__(self) -> str:
        return f"event {self.token} of {self.user}"


@attrs.define(eq=False)
class _Line:
    """A connection's hold on a session, at the node that has the log."""

    node: str
    user: str
    number: int
    session: str = ""
    epoch: str = ""


class NodesRecord:
    """All that a run has seen, and what did not hold of it.

    Attributes:
      events: what was published, by token.
      violations: what did not hold; after the first, `on_violation` is called.
      forgiven_until: what was promised by then may be lost: the store was set back since.
      is_dead: whether what a node does has no effect any more.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.events: dict[int, Published] = {}
        self.violations: list[Violation] = []
        self.on_violation: Callable[[], object] = lambda: None
        self.forgiven_until = -math.inf
        self.is_dead: Callable[[str], bool] = lambda node: False
        self._clock = clock
        self._names: dict[tuple[str, str, int], int] = {}
        self._lines = 0
        self._newest: dict[str, tuple[int, float]] = {}  # by session: which line, since when

    def fail(self, invariant: str, text: str) -> None:
        """Note that an invariant did not hold."""
        if len(self.violations) < MOST_VIOLATIONS:
            self.violations.append(Violation(invariant=invariant, at=self._clock(), text=text))
        self.on_violation()

    def set_back(self) -> None:
        """The store is as it was some time ago. What it has lost may be lost; and where a log's owner died at the same
        time nobody knows that anything is, so that a seq may be given again: the model has no marker by which
        `RedisStore` would know."""
        self.forgiven_until = self._clock()
        self._names.clear()
        for event in self.events.values():
            event.names.clear()

    # -- publishers

    def publish(self, user: str, *, critical: bool) -> Published:
        """An event is about to be handed to some node."""
        event = Published(token=len(self.events) + 1, user=user, critical=critical)
        self.events[event.token] = event
        return event

    def promised(self, event: Published) -> None:
        """Its publisher was told that it is accepted."""
        event.promised_at = min(self._clock(), event.promised_at)

    def left(self) -> list[Published]:
        """What is critical and was promised, and nobody has processed."""
        return [
            event
            for event in self.events.values()
            if event.critical and self.forgiven_until < event.promised_at < math.inf and not event.processed
        ]

    # -- clients, as `Tab` tells of them

    def processed(self, client: str, seen: Event) -> None:
        """A tab is through with an event."""
        event = self.events.get(seen.payload["n"])
        if event is None or event.user != client.partition("/")[0]:
            self.fail("each gets what is for its user", f"{client} was given {seen}")
        else:
            event.processed.add(client)

    def told(self, client: str, gap: Gap) -> None:
        """A tab was told of a gap."""
        if gap.critical and gap.reason != "expired" and self.forgiven_until == -math.inf:
            self.fail("nothing critical is lost", f"{client} was told of {gap}")

    def restored(self, client: str, epoch: str, seq: int, shared: bool) -> None:
        """A tab begins again from what it had saved."""

    def handed_back(self, client: str, seen: Event) -> None:
        """A tab's handler failed on an event."""

    def state(self, life: str, state: ClientState) -> None:
        """A tab's client has changed its state."""

    # -- nodes

    def watch(self, hub: Hub, node: str) -> None:
        """Watch what this node's hub sends to sessions."""
        plain = hub.attach

        def attach(
            identity: Identity, ask: Ask, link: Link, *, on_message: OnMessage | None = None
        ) -> Attachment | Refused:
            self._lines += 1
            line = _Line(node, identity.user, self._lines)
            return plain(identity, ask, _Watched(self, line, link), on_message=on_message)

        hub.attach = attach  # type: ignore[method-assign]

    def sent(self, line: _Line, frames: list[bytes]) -> None:
        """A session was sent frames, by a node that lives."""
        if self.is_dead(line.node):
            return
        for data in frames:
            for frame in wire.decode_server(data):
                if isinstance(frame, wire.Welcome):
                    line.session, line.epoch = frame.session, frame.epoch
                    self._newest[line.session] = line.number, self._clock()
                elif isinstance(frame, wire.EventFrame):
                    self._saw(line, frame)

    def _saw(self, line: _Line, frame: wire.EventFrame) -> None:
        payload = frame.payload if isinstance(frame.payload, dict) else payloads.decode(bytes(frame.payload))
        token: int = payload["n"]
        event = self.events.get(token)
        if event is None or event.user != line.user:
            self.fail("each gets what is for its user", f"{line.user} is sent {payload}")
            return
        there = self._names.setdefault((line.user, line.epoch, frame.seq), token)
        if there != token:
            self.fail("(epoch, seq) names one event", f"{line.user} {frame.seq} is {there} and {token}")
        event.names.add((line.epoch, frame.seq))
        if event.critical and len({seq for epoch, seq in event.names if epoch == line.epoch}) > 1:
            self.fail("the same idempotency key makes one event", f"{event}: {sorted(event.names)}")
        newest, since = self._newest.get(line.session, (line.number, math.inf))
        if newest != line.number and self._clock() > since + FENCED_WITHIN:
            self.fail(
                "one connection drains a session", f"{line} still does, {self._clock() - since:.2f} s later"
            )


class _Watched:
    """A link whose frames are seen on their way."""

    def __init__(self, record: NodesRecord, line: _Line, link: Link) -> None:
        self._record, self._line, self._link = record, line, link

    def send(self, frames: list[bytes]) -> bool:
        """See `Link`."""
        self._record.sent(self._line, frames)
        return self._link.send(frames)

    def close(self, code: CloseCode, reason: str, retry_after: float | None = None) -> None:
        """See `Link`."""
        self._link.close(code, reason, retry_after)

    def expect_by(self, deadline: float) -> None:
        """See `Link`."""
        self._link.expect_by(deadline)

    def authenticate(self, token: str) -> None:
        """See `Link`."""
        self._link.authenticate(token)


class Balance:
    """Looks at the books of nodes that live, and at who believes to own whom."""

    def __init__(self, record: NodesRecord) -> None:
        self._record = record
        self._twice: dict[str, float] = {}

    def look(self, hubs: dict[str, Hub]) -> None:
        """Have all of them looked at: by node, those that are neither suspended nor ending."""
        owners: dict[str, list[str]] = {}
        for node, hub in hubs.items():
            books = hub.stats()["delivery"]
            parts = ("settled", "held", "evicted", "expired", "superseded", "moved")
            if books["events_accepted"] != sum(books[f"events_{part}"] for part in parts):
                self._record.fail("the counters balance", f"{node}: {books}")
            for user in hub.engine.buffer.mailboxes:
                owners.setdefault(user, []).append(node)
        now = trio.current_time()
        for user, nodes in owners.items():
            if len(nodes) > 1:
                since = self._twice.setdefault(user, now)
                if now > since + FENCED_WITHIN:
                    self._record.fail("a log has one owner", f"{user} has {nodes}, for {now - since:.2f} s")
        self._twice = {user: since for user, since in self._twice.items() if len(owners.get(user, ())) > 1}
