"""What a run is seen as: events, connections, violations; and `Checker`, which is told of all that happens to them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import attrs

from ...client import ClientState
from ...core import wire
from ...core.closing import CloseCode
from ...core.entry import Entry
from ...core.pool import Ask
from ...core.session import Session
from ...event import Event, Gap, Priority
from ...hub import Attachment, Hub, Identity, Receipt

if TYPE_CHECKING:
    from .record import Record


@attrs.frozen
class Known(Identity):
    """An identity that also names the client that bears it, so that checkers know whom they see; on Trio's clock,
    `until` when its credentials hold; and whether it means to ack anything."""

    client: str = ""
    honest: bool = True
    until: float = math.inf
    acks: bool = True


class Deliberate(Exception):
    """What an application of a simulated run raises now and then."""


@attrs.frozen(kw_only=True)
class Violation:
    """An invariant that did not hold: which, when in simulated seconds, and what was seen."""

    invariant: str
    at: float
    text: str

    def __str__(self) -> str:
        return f"{self.at:.3f} {self.invariant}: {self.text}"


@attrs.define(eq=False, kw_only=True)
class Published:
    """An event that was handed to the hub.

    Attributes:
      token: its number; the payload carries it, so the event is known wherever it turns up. The copies of a broadcast
        share one.
      life: which hub it was handed to, counted from 1.
      receipt: the hub's answer; None until there is one.
      seq, epoch: its place; known by the receipt, or by the first frame that shows it.
      sent_to, acked_by: names of the clients, and of their sessions, that were sent it; and the clients whose acks
        covered it then.
      processed: how many tabs were through with it.
      refused: its publisher was told that it was not accepted.
      asked_at, accepted_at: when it was handed to the hub, and when its publisher learned that it was accepted.
      copies: of a broadcast, those for the other users, by user; on the first of them.
      ttl: seconds after its acceptance at which it expires unconfirmed; infinity where it never does.
    """

    token: int
    user: str
    type: str
    text: str
    life: int
    priority: Priority
    tracked: bool
    delta: bool
    key: str | None
    mortal: bool
    id: str | None = None
    receipt: Receipt | None = None
    seq: int = 0
    epoch: str = ""
    sent_to: set[str] = attrs.field(factory=set)
    acked_by: set[str] = attrs.field(factory=set)
    processed: int = 0
    refused: bool = False
    asked_at: float = math.inf
    accepted_at: float = math.inf
    ttl: float = math.inf
    copies: dict[str, Published] = attrs.field(factory=dict)

    @property
    def critical(self) -> bool:
        return self.priority is Priority.CRITICAL

    @property
    def state(self) -> str:
        """As `Receipt.state`; of what was merged, that of what it went into; ``unknown`` until there is a receipt."""
        return "unknown" if self.receipt is None else self.entry.state

    @property
    def entry(self) -> Entry:
        """The hub's own, or that into which it was merged; only where there is a receipt."""
        assert self.receipt is not None
        self.receipt.is_asleep()  # where its log has left memory and is back, it finds the entry there
        entry = self.receipt._entry
        while entry.into is not None:
            entry = entry.into
        return entry

    def __str__(self) -> str:
        return f"{self.user} #{self.seq} ({self.type}, {self.priority.name.lower()}, {self.state})"


@attrs.frozen(eq=False, kw_only=True)
class Step:
    """An event of an agent's run, as the hub accepted it in one of its lives, at a time."""

    seq: int
    type: str
    payload: Any
    ts: float
    life: int
    at: float
    receipt: Receipt


@attrs.define(eq=False, kw_only=True)
class Told:
    """A run of an agent, and what its agent was told of it.

    Attributes:
      lease: None for one in a block.
      opened: its agent was told that it is open.
      alive_at: when its agent gave its last sign of life that the hub has answered.
      cancels: how often somebody asked for its end; `cancelling_at` when the hub took that up.
      history: its events in order.
      doubts: how many of them a crash may have cost.
      over: the log that it was in is gone for good.
      ended: it has had its terminal event, as far as is known.
      ends: how many of its events may have come in beyond all bounds.
    """

    user: str
    run: str
    lease: float | None
    opened: bool = False
    alive_at: float = math.inf
    cancels: int = 0
    cancelling_at: float = math.inf
    history: list[Step] = attrs.field(factory=list)
    doubtful: set[int] = attrs.field(factory=set)
    over: bool = False
    ended: bool = False
    ends: int = 0

    def __str__(self) -> str:
        return f"{self.user}'s run {self.run}"


@attrs.define(eq=False, kw_only=True)
class Line:
    """One connection that holds, or held, a session.

    Attributes:
      client: the name of who is at its other end, `honest` where it is the real client in good faith.
      welcome: the frame, once it was sent; None for a plain client.
      cursor: the last seq that it was sent, as an event or in a gap.
      events: how many events it was handed, each time counted.
      ask: what its hello asked for.
      heard_at: when its client last gave a sign of life.
      closing, gone: it was told to close; it has ended; `ended_at` when the first of the two happened.
      code: the first that it was told to close with.
      blocked: the transport takes nothing since then; `blocked_from` when that last began, `free_since` when it last
        took all.
      until: when its credentials run out.
      acks: its client means to ack what it processes.
      standing: the questions that it is to be told of next; None where that is not known.
    """

    number: int
    user: str
    client: str
    honest: bool
    plain: bool
    life: int
    opened_at: float
    attachment: Attachment | None = None
    welcome: wire.Welcome | None = None
    ask: Ask = attrs.field(factory=Ask)
    cursor: int = 0
    events: int = 0
    heard_at: float = -math.inf
    closing: bool = False
    gone: bool = False
    ended_at: float = math.inf
    code: CloseCode | None = None
    blocked: float | None = None
    blocked_from: float = math.inf
    free_since: float = -math.inf
    until: float = math.inf
    acks: bool = True
    standing: set[str] | None = None

    @property
    def open(self) -> bool:
        """Whether the session is still expected to flow over it."""
        fenced = self.attachment is not None and self.attachment.fenced
        return not (self.closing or self.gone or fenced)

    def __str__(self) -> str:
        return f"connection {self.number} of {self.client}"


class Checker:
    """One invariant, watched. It hears of what happens by the methods that it overrides, and says `fail`.

    Attributes:
      invariant: what must hold, in a few words.
    """

    invariant = ""

    def __init__(self, record: Record) -> None:
        self.record = record

    def fail(self, text: str) -> None:
        """The invariant does not hold."""
        self.record.fail(self.invariant, text)

    def attached(self, line: Line, session: Session) -> None:
        """A connection was given its session; its welcome was sent before."""

    def sent(self, line: Line, frame: wire.ServerFrame) -> None:
        """A connection of protocol v1 was handed a frame. `line.cursor` is where it was before."""

    def frame(self, line: Line, frame: dict[str, Any]) -> None:
        """As `sent`, of any frame, as it is."""

    def run_event(self, told: Told, step: Step) -> None:
        """An event of an agent's run was accepted: the last of its history."""

    def answered(self, question: str, answer: str) -> None:
        """A client was told that its answer is accepted."""

    def healed(self) -> None:
        """All has converged."""

    def sent_plain(self, line: Line, event: Published) -> None:
        """A plain client was handed an event."""

    def acked(self, line: Line, seq: int) -> None:
        """An ack came in over a connection that holds its session; it takes effect after this."""

    def nacked(self, line: Line, seq: int) -> None:
        """A nack, likewise."""

    def heard(self, line: Line, frame: wire.ClientFrame | wire.Mistake) -> None:
        """Any frame came in over a connection that holds its session; acks and nacks are told first as such."""

    def closed(self, line: Line, code: CloseCode, reason: str) -> None:
        """A connection was told to close, for the first time."""

    def went(self, line: Line, silent: bool) -> None:
        """A connection has ended; `silent` where the server gave it up because nothing was heard."""

    def accepted(self, event: Published) -> None:
        """A publisher was given the receipt of an event."""

    def repeated(self, event: Published, receipt: Receipt) -> None:
        """An event was published again under its id, and this was the answer."""

    def processed(self, client: str, event: Published, seen: Event) -> None:
        """A tab is through with an event."""

    def told(self, client: str, gap: Gap) -> None:
        """A tab was told of a gap."""

    def restored(self, client: str, epoch: str, seq: int, shared: bool) -> None:
        """A tab begins again from what it had saved, and has forgotten what it processed after that; `shared` where
        another client has gone on with the same session."""

    def handed_back(self, client: str, seen: Event) -> None:
        """A tab's handler failed on an event, and it has handed that back."""

    def state(self, life: str, state: ClientState) -> None:
        """A tab's client has changed its state; `life` names that client, as long as it lives."""

    def stepped(self) -> None:
        """A step of the hub is over: its state may be another."""

    def looked(self) -> None:
        """It is `due`, and no step was made since: what should have happened has not."""
        self.stepped()

    def due(self) -> float:
        """When `looked` may have something to say, if no step is made until then; inf where time alone changes nothing.
        It is asked at most a quarter of a second after a step. A time that has passed is now, again and again."""
        return -math.inf

    def going(self, hub: Hub) -> None:
        """A hub goes away, in order or at once: from here on it is to accept nothing."""

    def life_over(self, events: list[Published]) -> None:
        """A hub is about to end; these are the events that it was handed."""
