"""The invariants on what travels: one class for each that can be seen from a connection, a publisher or a tab.

When it travels is in `timeliness.py`; what can be seen in the hub's own books, in `bookkeeping.py`. Each class says
what it can't see.
"""

from __future__ import annotations

import math
from collections import Counter

import attrs

from ...core import wire
from ...core.gaps import ANY_TYPE
from ...event import Event, Gap
from ...hub import Receipt
from .record import Record, tokens
from .sight import Checker, Line, Published

GRAVITY = ("settled", "superseded", "evicted", "expired")
"""The reasons of gaps; where runs had to be joined, the graver one stands for both."""


class Accounting(Checker):
    """The accounting rule, on what each connection is handed."""

    invariant = "events and gaps cover every seq once, in order, without a hole"

    def sent(self, line: Line, frame: wire.ServerFrame) -> None:
        if isinstance(frame, wire.Welcome):
            if frame.seq > frame.head:
                self.fail(f"{line}: welcome at {frame.seq}, above the head {frame.head}")
        elif line.welcome is None:
            self.fail(f"{line}: {type(frame).__name__} before welcome")
        elif isinstance(frame, wire.EventFrame):
            first = frame.seq if frame.merged is None else frame.merged.from_
            if frame.merged is not None and (frame.merged.n < 1 or frame.seq - first != frame.merged.n):
                self.fail(f"{line}: merged from {first}, n {frame.merged.n}, at {frame.seq}")
            if frame.retry == 0 and first != line.cursor + 1:
                self.fail(f"{line}: event {first} to {frame.seq} after {line.cursor}")
            if frame.retry > 0 and frame.seq > line.cursor:
                self.fail(f"{line}: retry of {frame.seq} ahead of {line.cursor}")
        elif isinstance(frame, wire.GapFrame):
            if frame.first != line.cursor + 1 or frame.last < frame.first:
                self.fail(f"{line}: gap {frame.first} to {frame.last} after {line.cursor}")
            if frame.reason == "reset" and self.record.durable and not frame.lost:
                pass  # what a crash has cost nobody knows
            elif sum(frame.lost.values()) != frame.last - frame.first + 1:
                self.fail(f"{line}: gap {frame.first} to {frame.last} says that {frame.lost} are lost")
        elif isinstance(frame, wire.Live) and frame.seq != line.cursor:
            self.fail(f"{line}: live at {frame.seq}, but it was sent everything up to {line.cursor}")


class Content(Checker):
    """What comes at a seq is what was accepted there, for this user. It also binds seqs to events."""

    invariant = "an event comes as it was published, to its own user"

    def sent(self, line: Line, frame: wire.ServerFrame) -> None:
        if not isinstance(frame, wire.EventFrame) or line.welcome is None:
            return
        first = frame.seq if frame.merged is None else frame.merged.from_
        found = [self.record.find(token, line.user) for token in tokens(frame.payload["text"])]
        parts = [event for event in found if event is not None]
        if len(parts) != frame.seq - first + 1:
            self.fail(f"{line}: {len(parts)} events in {first} to {frame.seq}")
        for seq, event in enumerate(parts, first):
            if event.user != line.user:
                self.fail(f"{line} of {line.user} was sent {event}")
            elif event.life != line.life and not self.record.durable:
                self.fail(f"{line}: {event} of an earlier hub")
            elif event.refused:
                self.fail(f"{line}: {event} was refused, and is delivered")
            self.record.bind(event, line.welcome.epoch, seq)
            event.sent_to |= {line.client, line.welcome.session}
        if not parts:
            return
        last = parts[-1]
        if frame.payload["text"] != "".join(event.text for event in parts):
            self.fail(f"{line}: the text of {last} was changed")
        if frame.type != last.type or frame.critical != last.critical or frame.payload["n"] != last.token:
            self.fail(f"{line}: {last} came as {frame.type}, critical: {frame.critical}")
        if last.id is not None and frame.id != last.id:
            self.fail(f"{line}: {last} has id {frame.id}, not {last.id}")
        if len(parts) > 1 and any(
            not part.delta or (part.type, part.key) != (last.type, last.key) for part in parts
        ):
            self.fail(f"{line}: merged across a barrier: {', '.join(map(str, parts))}")

    def sent_plain(self, line: Line, event: Published) -> None:
        if event.user != line.user:
            self.fail(f"{line} of {line.user} was sent {event}")


class Reasons(Checker):
    """A gap covers only what has gone, for the reason that it gives; nothing critical but what expired."""

    invariant = "nothing is dropped in silence, or for another reason than is told"

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self._doubtful: list[_Doubt] = []

    def sent(self, line: Line, frame: wire.ServerFrame) -> None:
        if not isinstance(frame, wire.GapFrame):
            return
        if frame.reason not in GRAVITY:
            self.fail(f"{line}: a gap for the reason {frame.reason}")
            return
        allowed = GRAVITY[: GRAVITY.index(frame.reason) + 1]
        critical = 0
        span = [self.record.at(line, seq) for seq in range(frame.first, frame.last + 1)]
        types = Counter("?" if event is None else event.type for event in span)
        if not (types.keys() | frame.lost.keys()) & {"?", ANY_TYPE} and types != frame.lost:
            self.fail(
                f"{line}: gap {frame.first} to {frame.last} tells of {frame.lost}, not of {dict(types)}"
            )
        for event in span:
            if event is None or event.receipt is None:
                continue  # its publisher is still to hear of it
            state = event.state
            critical += event.critical and state == "expired"
            if state == "settled" or (state == "confirmed" and frame.reason != "evicted"):
                continue
            if state not in allowed:
                text = f"{line}: gap {frame.first} to {frame.last}, {frame.reason}, but {event}"
                if "superseded" in allowed:  # its successor may be one of which nobody has heard yet
                    self._doubtful.append(_Doubt(event, self._head(line.user), text))
                else:
                    self.fail(text)
        if frame.critical < critical:
            self.fail(f"{line}: {critical} critical events expired in a gap that tells of {frame.critical}")
        if frame.critical and frame.reason != "expired":
            self.fail(f"{line}: {frame.critical} critical events lost because {frame.reason}")

    def _head(self, user: str) -> int:
        assert self.record.hub is not None
        return self.record.hub.engine.buffer.mailboxes[user].head

    def due(self) -> float:
        return math.inf

    def stepped(self) -> None:
        if self._doubtful:
            self._doubtful = [doubt for doubt in self._doubtful if self._is_open(doubt)]

    def _is_open(self, doubt: _Doubt) -> bool:
        """Whether there is still no successor, but one may show; where none can any more, that is a failure."""
        event = doubt.event
        if self._has_successor(event, doubt.head):
            return False
        log = self.record.log[event.user, event.epoch]
        mute = event.key is None or event.delta or event.critical
        if mute or all(seq in log for seq in range(event.seq + 1, doubt.head + 1)):
            self.fail(doubt.text)
            return False
        return True

    def life_over(self, events: list[Published]) -> None:
        self.stepped()
        doubtful, self._doubtful = self._doubtful, []
        if any(event.receipt is None and not event.refused for event in events):
            return  # what took another's place may be among those of which nobody has heard yet
        for doubt in doubtful:
            self.fail(doubt.text)
        for event in events:
            if event.state == "superseded" and not self._has_successor(event):
                self.fail(f"nothing has taken the place of {event}")

    def _has_successor(self, event: Published, head: float = math.inf) -> bool:
        """Whether a later event, up to `head`, has taken its place."""
        if event.key is None or event.delta or event.critical:
            return False
        later = self.record.log[event.user, event.epoch]
        return any(
            event.seq < other.seq <= head
            and (other.type, other.key) == (event.type, event.key)
            and not other.delta
            for other in later.values()
        )


@attrs.frozen
class _Doubt:
    """A gap called `event` superseded when the log was at `head`, and nothing was known to have taken its place."""

    event: Published
    head: int
    text: str


class AckedIsDone(Checker):
    """Once a client's ack of an event was handled, that session is not sent it again."""

    invariant = "what a session acked it is not sent again"

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self._acked: dict[tuple[str, int], int] = {}

    def _session(self, line: Line) -> tuple[str, int]:
        return ("" if line.welcome is None else line.welcome.session, line.life)

    def acked(self, line: Line, seq: int) -> None:
        if line.honest and seq <= line.cursor:
            where = self._session(line)
            self._acked[where] = max(seq, self._acked.get(where, 0))

    def sent(self, line: Line, frame: wire.ServerFrame) -> None:
        acked = self._acked.get(self._session(line), 0)
        if isinstance(frame, wire.EventFrame) and frame.seq <= acked:
            self.fail(f"{line}: sent {frame.seq} (retry {frame.retry}) after an ack of {acked}")
        if isinstance(frame, wire.Welcome) and frame.seq < acked:
            self.fail(f"{line}: goes on from {frame.seq} after an ack of {acked}")


class Fencing(Checker):
    """One connection drains a session; an older one of the same session is silent from then on."""

    invariant = "a fenced connection sends nothing"

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self._holder: dict[tuple[str, int], Line] = {}

    def sent(self, line: Line, frame: wire.ServerFrame) -> None:
        if line.welcome is None:
            return
        where = (line.welcome.session, line.life)
        if isinstance(frame, wire.Welcome):
            self._holder[where] = line
        elif self._holder[where] is not line:
            self.fail(
                f"{line} was handed {type(frame).__name__} while {self._holder[where]} holds the session"
            )


class Confirming(Checker):
    """An ack confirms what that client was sent, and the real client acks only what its tab is through with."""

    invariant = "only what was sent and processed is acked and confirmed"

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self._through: dict[tuple[str, str], int] = {}
        self._upto: dict[tuple[str, str], int] = {}
        self._newest: dict[str, str] = {}
        self._reading: dict[str, str] = {}

    def restored(self, client: str, epoch: str, seq: int, shared: bool) -> None:
        self._reading[client] = epoch

    def processed(self, client: str, event: Published, seen: Event) -> None:
        self._move(client, event.epoch, seen.seq)

    def told(self, client: str, gap: Gap) -> None:
        if gap.reason == "reset":
            self._reading[client] = self._newest[client]
        elif gap.first <= self._through.get((client, self._reading[client]), 0) + 1:
            self._move(client, self._reading[client], gap.last)

    def sent(self, line: Line, frame: wire.ServerFrame) -> None:
        if isinstance(frame, wire.Welcome):
            self._newest[line.client] = frame.epoch
            if line.ask.epoch is None:  # it has not heard of any other
                self._reading[line.client] = frame.epoch
            self._reading.setdefault(line.client, frame.epoch)
            if frame.session != line.ask.session:  # what lies below is not its own
                self._upto[frame.epoch, frame.session] = frame.seq
            asked = line.ask.seq or 0
            if not frame.resumed or frame.seq > asked:
                self._move(line.client, frame.epoch, frame.seq)
            elif (
                line.client,
                frame.epoch,
            ) not in self._through:  # it goes on from what another client had saved
                self._move(line.client, frame.epoch, asked)
        # What comes as a gap after all (another session has processed it) is acked without being processed.
        if isinstance(frame, wire.GapFrame):
            for seq in range(frame.first, frame.last + 1):
                if (event := self.record.at(line, seq)) and line.welcome is not None:
                    event.sent_to -= {line.client, line.welcome.session}

    def _move(self, client: str, epoch: str, seq: int) -> None:
        where = (client, epoch)
        self._through[where] = max(seq, self._through.get(where, 0))

    def acked(self, line: Line, seq: int) -> None:
        if line.welcome is None or seq > line.cursor:
            return
        where = (line.welcome.epoch, line.welcome.session)
        for at in range(self._upto.get(where, 0) + 1, seq + 1):
            event = self.record.at(line, at)
            # A client may share its session with another, and ack what that one was sent and has processed.
            if event is None or not {line.client, line.welcome.session} & event.sent_to:
                continue
            event.acked_by.add(line.client)
        through = self._through.get((line.client, line.welcome.epoch), 0)
        if line.honest and seq > max(through, self._upto.get(where, 0)):
            self.fail(f"{line} acks {seq}, and its tab is through with {through} only")
        self._upto[where] = max(seq, self._upto.get(where, 0))

    def life_over(self, events: list[Published]) -> None:
        for event in events:
            if event.state in ("confirmed", "settled") and not event.acked_by and not event.delta:
                self.fail(f"nobody acked {event}")


class Idempotency(Checker):
    """The same key makes one event."""

    invariant = "the same idempotency key makes one event"

    def repeated(self, event: Published, receipt: Receipt) -> None:
        first = event.receipt
        assert first is not None
        if receipt.epoch != first.epoch:
            return  # its user's log was forgotten meanwhile
        if not receipt.duplicate or (receipt.seq != first.seq and first.state != "merged"):
            self.fail(f"{event} was published again as {receipt.seq}")


class CriticalKept(Checker):
    """No acked loss: what is critical is processed, or still pending, or expired because it was told to."""

    invariant = "nothing critical is lost"

    def accepted(self, event: Published) -> None:
        if event.receipt is not None and event.receipt.duplicate:
            self.fail(f"{event} is new, and was called a duplicate")

    def life_over(self, events: list[Published]) -> None:
        assert self.record.hub is not None
        ttl = self.record.hub.config.critical_ttl
        for event in events:
            if event.critical and event.receipt is not None:
                state = event.state
                if state in ("evicted", "superseded", "merged"):
                    self.fail(f"{event}")
                if state == "expired" and not event.mortal and (ttl is None or ttl > 3600):
                    self.fail(f"{event}: nothing told it to expire")


class TabOrder(Checker):
    """A tab is given each event once and in order, and every seq as an event or in a gap."""

    invariant = "a tab is given everything, in order, once"

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self._at: dict[str, tuple[str, int]] = {}
        self._reset: set[str] = set()
        self._epochs: dict[str, set[str]] = {}
        self._forgot: dict[str, float] = {}

    def processed(self, client: str, event: Published, seen: Event) -> None:
        first = seen.seq if seen.merged is None else seen.merged.from_seq
        epoch, at = self._at.get(client, ("", 0))
        if client in self._reset:
            self._reset.discard(client)
            if event.epoch in self._epochs.get(client, ()):
                self.fail(f"{client} was told of a reset, and goes on in the same epoch")
        self._epochs.setdefault(client, set()).add(event.epoch)
        if epoch == event.epoch:
            if self._leaves_out(client, first, at):
                self.fail(f"{client} was given {first} after {at}")
            if first <= at < seen.seq and client not in self._forgot:
                self.fail(f"{client} was given {first} to {seen.seq} after {at}")
            if seen.seq <= at:
                self.fail(f"{client} was given {seen.seq} again, after {at}")
        self._at[client] = (event.epoch, seen.seq)
        self._forgot.pop(client, None)

    def _leaves_out(self, client: str, first: int, at: int) -> bool:
        """Whether it lacks something. What it acked before it went back to what it had saved does not come again, nor
        does what another client has acked meanwhile that has the same session."""
        return first > max(at, self._forgot.get(client, 0)) + 1

    def restored(self, client: str, epoch: str, seq: int, shared: bool) -> None:
        before, at = self._at.get(client, ("", 0))
        if before != epoch:  # it has forgotten that it was told of a reset, too
            at = seq
        self._at[client], self._epochs[client] = (epoch, seq), {epoch}
        self._reset.discard(client)
        self._forgot[client] = math.inf if shared else max(at, self._forgot.get(client, 0))

    def told(self, client: str, gap: Gap) -> None:
        if gap.reason == "reset":
            self._at.pop(client, None)
            self._reset.add(client)
        elif client in self._at:
            epoch, at = self._at[client]
            if self._leaves_out(client, gap.first, at):
                self.fail(f"{client} was told of {gap.first} after {at}")
            self._at[client] = (epoch, max(at, gap.last))
        self._forgot.pop(client, None)


ON_THE_WAY = (
    Content,
    Accounting,
    Reasons,
    AckedIsDone,
    Fencing,
    Confirming,
    Idempotency,
    CriticalKept,
    TabOrder,
)
"""All of them, in the order in which they are told."""
