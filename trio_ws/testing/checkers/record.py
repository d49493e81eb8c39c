"""What a simulated run has seen: who published what, what each connection was sent and what came back.

A `Record` stands between a real hub and real connections without changing either: `Record.watch` wraps the hub's
`attach`, so each frame passes by on its way to the transport, and each message on its way from it. Checkers
(the other modules here) are told all of it, and read the rest from the hub's own state.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from ...client import ClientState
from ...core import payload as payloads
from ...core import wire
from ...core.closing import CloseCode
from ...core.pool import Ask, Refused
from ...event import Event, Gap
from ...hub import Attachment, Hub, Identity, Link, OnMessage, Receipt
from .runs_seen import RunsSeen, is_unwritten
from .sight import Checker, Known, Line, Published, Violation
from .taps import TappedAcceptance, TappedAttachment, TappedLink


class Watcher(Protocol):
    """Makes a checker for a record."""

    def __call__(self, record: Record) -> Checker: ...


class Record(RunsSeen):
    """All that a run has seen.

    Args:
      clock: the simulated time.
      watchers: the checkers' classes.
      durable: logs outlive their hubs.
      of_runs: all that is published are events of agents' runs.
      sometimes: counts rare states.

    Attributes:
      hub: the one that runs now, `life` its number from 1.
      events: what was published, by token; `log` by (user, epoch) and seq.
      lines: all connections, in order.
      dismissed: the sessions that the operator has ended.
      coming: the users whose logs are loaded for connections now.
      violations: what did not hold; after the first, `on_violation` is called.
      on_step: called after each step.
      jumped_from, jumped_at: when the clock last jumped, to where: what was due by then may be late.
      begun_at: when this hub began.
      broadcasts: how many are under way.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        watchers: Iterable[Watcher],
        *,
        durable: bool = False,
        of_runs: bool = False,
        sometimes: Callable[[str, bool], None] = lambda name, happened: None,
    ) -> None:
        super().__init__()
        self.clock = clock
        self.durable = durable
        self.of_runs = of_runs
        self.sometimes = sometimes
        self.hub: Hub | None = None
        self.life = 0
        self.events: dict[int, Published] = {}
        self.log: dict[tuple[str, str], dict[int, Published]] = {}
        self.lines: list[Line] = []
        self.dismissed: set[str] = set()
        self.coming: Counter[str] = Counter()
        self.violations: list[Violation] = []
        self.on_violation: Callable[[], object] = lambda: None
        self.on_step: Callable[[], object] = lambda: None
        self.jumped_from = self.jumped_at = self.begun_at = -math.inf
        self._by_attachment: dict[Attachment, Line] = {}
        self._dead: set[int] = set()
        self.broadcasts = 0
        self.checkers = [watcher(self) for watcher in watchers]
        self._hearing: dict[str, list[Callable[..., None]]] = {}
        self._looking = [
            checker
            for checker in self.checkers
            if _overrides(checker, "looked") or _overrides(checker, "stepped")
        ]

    def fail(self, invariant: str, text: str) -> None:
        """Note that an invariant did not hold. At most 20 are kept: what follows a first is of little use."""
        if len(self.violations) < 20:
            self.violations.append(Violation(invariant=invariant, at=self.clock(), text=text))
        self.on_violation()

    def _tell(self, what: str, *args: Any) -> None:
        """Call this method of all checkers that have one of their own."""
        hearing = self._hearing.get(what)
        if hearing is None:
            hearing = self._hearing[what] = [
                getattr(checker, what) for checker in self.checkers if _overrides(checker, what)
            ]
        for hear in hearing:
            hear(*args)

    @property
    def accepted_events(self) -> int:
        """How many events were accepted, as far as their publishers know."""
        published = sum(event.receipt is not None for event in self.events.values())
        return published + sum(len(told.history) for told in self.runs.values())

    # -- the hub

    def watch(self, hub: Hub) -> None:
        """Watch this hub from here on."""
        self.hub = hub
        self.life += 1
        life = self.life
        self.begun_at = self.clock()
        self._by_attachment.clear()
        self.coming = coming = Counter[str]()
        for told in self.runs.values():
            told.over = told.over or not self.durable
        plain_attach, plain_end_session, plain_load = hub.attach, hub.end_session, hub.load
        plain_drain, plain_end_now = hub.drain, hub.end_now

        def attach(
            identity: Identity, ask: Ask, link: Link, *, on_message: OnMessage | None = None
        ) -> Attachment | Refused:
            watched = TappedLink(self, self._line(identity, ask, life), link)
            answer = plain_attach(identity, ask, watched, on_message=on_message)
            if self.is_dead(watched.line.life):
                return answer
            if isinstance(answer, Refused):
                watched.line.gone = True
                return answer
            watched.line.attachment = answer
            self._by_attachment[answer] = watched.line
            self._tell("attached", watched.line, answer.session)
            return TappedAttachment(self, watched.line, answer)  # type: ignore[return-value]

        async def load(user: str, *, to_connect: bool = False) -> None:
            coming[user] += to_connect
            try:
                await plain_load(user, to_connect=to_connect)
            finally:
                coming[user] -= to_connect

        def end_session(user: str, session: str) -> bool:
            self.dismissed.add(session)
            return plain_end_session(user, session)

        async def drain(timeout: float | None = None) -> None:
            if not hub.draining:
                self._tell("going", hub)
            await plain_drain(timeout)

        def end_now() -> None:
            if not hub.draining:
                self._tell("going", hub)
            plain_end_now()

        hub.attach = attach  # type: ignore[method-assign]
        hub.end_session = end_session  # type: ignore[method-assign]
        hub.load = load  # type: ignore[method-assign]
        hub.drain = drain  # type: ignore[method-assign]
        hub.end_now = end_now  # type: ignore[method-assign]
        hub.engine.after_step = self.stepped
        if self.of_runs:
            hub._acceptance = TappedAcceptance(self, hub._acceptance, self.life)  # type: ignore[assignment]

    def end_life(self) -> None:
        """The hub is about to end."""
        mine = [event for event in self.events.values() if event.life == self.life]
        self._tell("life_over", mine)

    def bury(self) -> None:
        """The hub has died, here and now: nothing that its tasks still do has an effect."""
        self._dead.add(self.life)
        if self.hub is not None:
            self.hub.engine.after_step = None

    def forget_unwritten(self) -> None:
        """A hub has ended: what it had accepted, and neither made durable nor shown to anybody, may not have been."""
        self.forget_unwritten_runs()
        for event in self.events.values():
            if event.life != self.life or event.sent_to or event.receipt is None:
                continue
            if not is_unwritten(event.receipt):
                continue
            log = self.log.get((event.user, event.epoch), {})
            if log.get(event.seq) is event:
                del log[event.seq]
                event.seq, event.epoch = 0, ""

    def is_dead(self, life: int) -> bool:
        """Whether this hub has died."""
        return life in self._dead

    def _line(self, identity: Identity, ask: Ask, life: int) -> Line:
        line = Line(
            number=len(self.lines) + 1,
            user=identity.user,
            client=identity.client if isinstance(identity, Known) else identity.user,
            honest=identity.honest if isinstance(identity, Known) else True,
            plain=ask.plain,
            life=life,
            opened_at=self.clock(),
            acks=identity.acks if isinstance(identity, Known) else True,
            until=identity.until if isinstance(identity, Known) else math.inf,
            ask=ask,
            heard_at=self.clock(),
        )
        self.lines.append(line)
        return line

    def line_of(self, attachment: Attachment) -> Line | None:
        """The connection that an attachment of this hub belongs to."""
        return self._by_attachment.get(attachment)

    def stepped(self) -> None:
        """A step of the hub is over."""
        self._tell("stepped")
        self.on_step()

    def look(self) -> float:
        """Let those see for whom it is time; returns when it is again, if there is no step before."""
        now, next_at = self.clock(), math.inf
        for checker in self._looking:
            due = checker.due()
            if due <= now:
                checker.looked()
                due = checker.due()
            next_at = min(next_at, due)
        return next_at

    def healed(self) -> None:
        """All has converged."""
        self._tell("healed")

    # -- publishers and tabs

    def publish(self, event: Published) -> dict[str, Any]:
        """An event is about to be handed to the hub; returns its payload."""
        self.events[len(self.events) + 1] = event
        return {"n": event.token, "text": event.text}

    def accepted(self, event: Published, receipt: Receipt) -> None:
        """The hub has accepted an event."""
        if self.durable and self.is_dead(event.life) and is_unwritten(receipt):
            return  # it was accepted by one that has died since, and may not have been
        event.receipt = receipt
        event.accepted_at = self.clock()
        self.bind(event, receipt.epoch, receipt.seq)
        self._tell("accepted", event)
        self.stepped()

    def repeated(self, event: Published, receipt: Receipt) -> None:
        """The hub was handed an event again, under the same id."""
        self._tell("repeated", event, receipt)

    def bind(self, event: Published, epoch: str, seq: int) -> None:
        """Note the place of an event; (epoch, seq) names one event for ever."""
        there = self.log.setdefault((event.user, epoch), {}).setdefault(seq, event)
        if there is not event or (event.seq and (event.seq, event.epoch) != (seq, epoch)):
            self.fail("(epoch, seq) names one event", f"{event} is also {there}, at {seq}")
        event.seq, event.epoch = seq, epoch

    def at(self, line: Line, seq: int) -> Published | None:
        """The event at a seq of the log that a connection reads, as far as that is known."""
        epoch = "" if line.welcome is None else line.welcome.epoch
        return self.log.get((line.user, epoch), {}).get(seq)

    def find(self, token: int, user: str) -> Published | None:
        """The event of this number, of a broadcast the copy for this user; None where nobody published it."""
        event = self.events.get(token)
        return None if event is None else event.copies.get(user, event)

    def processed(self, client: str, seen: Event) -> None:
        """A tab is through with an event."""
        if self.of_runs:
            return
        user = client.partition("/")[0]
        event = self.find(seen.payload["n"], user)
        if event is None:
            self.fail("nothing is made up", f"{client} was given an event that nobody published: {seen}")
            return
        if seen.merged is None:
            event.processed += 1
        else:
            for token in tokens(seen.payload["text"]):
                if part := self.find(token, user):
                    part.processed += 1
        self._tell("processed", client, event, seen)

    def told(self, client: str, gap: Gap) -> None:
        """A tab was told of a gap."""
        self._tell("told", client, gap)

    def restored(self, client: str, epoch: str, seq: int, shared: bool) -> None:
        """A tab begins again from what it had saved, and has forgotten what it processed after that; `shared` where
        another client has gone on with the same session."""
        self._tell("restored", client, epoch, seq, shared)

    def handed_back(self, client: str, seen: Event) -> None:
        """A tab's handler failed on an event."""
        self._tell("handed_back", client, seen)

    def state(self, life: str, state: ClientState) -> None:
        """A tab's client has changed its state; `life` names that client, as long as it lives."""
        for checker in self.checkers:
            checker.state(life, state)

    # -- frames

    def sent(self, line: Line, frames: list[bytes]) -> None:
        """A connection was handed frames."""
        for data in frames:
            if self.of_runs and not line.plain:
                self._tell("frame", line, payloads.decode(data))
            if line.plain:
                line.events += 1
                if self.of_runs:
                    continue
                for token in tokens(payloads.decode(data)["payload"]["text"]):
                    event = self.find(token, line.user)
                    assert event is not None
                    event.sent_to.add(line.client)
                    event.acked_by.add(line.client)
                    self._tell("sent_plain", line, event)
                continue
            for frame in wire.decode_server(data):
                if isinstance(frame, wire.Welcome):
                    line.welcome, line.cursor = frame, frame.seq
                self._tell("sent", line, frame)
                if isinstance(frame, wire.EventFrame):
                    line.events += 1
                    line.cursor = max(line.cursor, frame.seq)
                elif isinstance(frame, wire.GapFrame):
                    line.cursor = max(line.cursor, frame.last)

    def heard(self, line: Line, frames: Iterable[wire.ClientFrame | wire.Mistake]) -> None:
        """Frames came in over a connection, and are about to be handled."""
        line.heard_at = self.clock()
        for frame in frames:
            if isinstance(frame, wire.Ack):
                self._tell("acked", line, frame.seq)
            elif isinstance(frame, wire.Nack):
                self._tell("nacked", line, frame.seq)
            self._tell("heard", line, frame)

    def closed(self, line: Line, code: CloseCode, reason: str) -> None:
        """A connection is told to close."""
        if line.closing or self.is_dead(line.life):
            return
        line.closing, line.code = True, code
        line.ended_at = min(line.ended_at, self.clock())
        self._tell("closed", line, code, reason)

    def went(self, line: Line, *, silent: bool) -> None:
        """A connection has ended."""
        if line.gone or self.is_dead(line.life):
            return
        line.gone = True
        line.ended_at = min(line.ended_at, self.clock())
        self._tell("went", line, silent)


def _overrides(checker: Checker, name: str) -> bool:
    return getattr(type(checker), name) is not getattr(Checker, name)


def tokens(text: str) -> list[int]:
    """The numbers of the events that a text, maybe of several deltas, is made of."""
    return [int(part.partition(".")[0]) for part in text.split(";")[:-1]]
