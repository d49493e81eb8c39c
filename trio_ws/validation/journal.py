"""What was published to one user and what that user's client got of it, side by side; and the account of the two.

Every event has a number of ours, from 1 for each user, which it carries in its payload. Where the server gives seqs,
each seq has to be covered by exactly one event or gap, in order, and to hold the number that was published under it.

Times are arguments, in seconds on one clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import attrs
import trio


@attrs.define(kw_only=True)
class Sent:
    """One event that was published.

    Attributes:
      phase: of the validation.
      at: when the call that publishes it began.
      status: the HTTP status that answered; None while there is no answer.
      answered: when that came.
      waited: whether the call was to wait for confirmation.
      seq: which the server gave it, where it gives any.
      processed: when the client had it.
    """

    n: int
    type: str
    critical: bool
    phase: str
    at: float
    waited: bool = False
    status: int | None = None
    answered: float | None = None
    seq: int | None = None
    processed: float | None = None

    @property
    def accepted(self) -> bool:
        """The server has taken it upon itself; 504 says so too: accepted, and not confirmed in time."""
        return self.status in (200, 202, 504)

    @property
    def confirmed(self) -> bool:
        """The publisher was told that the client has processed it."""
        return self.waited and self.status == 200


@attrs.frozen
class Range:
    """Seqs that the client was given an account of: by an event with the numbers `ns`, or by a gap."""

    first: int
    last: int
    ns: tuple[int, ...] = ()
    reason: str = ""


@attrs.define(kw_only=True)
class Cut:
    """A connection that was cut.

    Attributes:
      how: ``reset`` or ``half-open``.
      back: when the client was connected again and had been sent what it missed; None if it never was.
      given_up: when we stopped looking.
      recovered: when it had processed the last event that it missed.
    """

    user: str
    how: str
    at: float
    back: float | None = None
    given_up: float | None = None
    recovered: float | None = None

    @property
    def took(self) -> float | None:
        """Seconds from the cut to the last missed event; None if that did not come."""
        return None if self.recovered is None else self.recovered - self.at


@attrs.frozen(kw_only=True)
class Account:
    """What became of the events of a journal, or of several.

    Attributes:
      accepted, delivered: events; delivered is what came at least once.
      explained: did not come, and a gap said so, by its reason.
      silent: did not come, and nothing said so.
      critical, critical_lost: accepted critical events, and those of them that did not come, said or not.
      doubled: came twice.
      disordered: came out of order, overlapped, or under another's seq.
      refused: not accepted, and the publisher was told.
    """

    accepted: int = 0
    delivered: int = 0
    explained: Counter[str] = attrs.field(factory=Counter)
    silent: int = 0
    critical: int = 0
    critical_lost: int = 0
    doubled: int = 0
    disordered: int = 0
    refused: int = 0

    def __add__(self, other: Account) -> Account:
        names = attrs.fields_dict(Account)
        return Account(**{name: getattr(self, name) + getattr(other, name) for name in names})


class Journal:
    """One user's events.

    Attributes:
      user: whose.
      sent: all that was published, by number.
      ranges: what the client was given, in the order in which it came.
      cuts: of its connection.
    """

    def __init__(self, user: str) -> None:
        self.user = user
        self.sent: dict[int, Sent] = {}
        self.ranges: list[Range] = []
        self.cuts: list[Cut] = []
        self._given: Counter[int] = Counter()
        self._open: set[int] = set()
        self._news = trio.Event()

    @property
    def complete(self) -> bool:
        """Nothing that was accepted is still to come."""
        return not self._open

    async def wait_complete(self) -> None:
        """Returns when it is. A checkpoint; cancelling it changes nothing."""
        await trio.lowlevel.checkpoint()
        while self._open:
            self._news = trio.Event()
            await self._news.wait()

    def publish(self, type: str, at: float, *, critical: bool, phase: str, waited: bool = False) -> Sent:
        """Numbers an event that is about to be published."""
        n = len(self.sent) + 1
        sent = self.sent[n] = Sent(n=n, type=type, critical=critical, phase=phase, at=at, waited=waited)
        return sent

    def answered(self, sent: Sent, status: int, seq: int | None, at: float) -> None:
        """The server's answer to that."""
        sent.status, sent.seq, sent.answered = status, seq, at
        gone = seq is not None and any(r.first <= seq <= r.last for r in self.ranges if r.reason)
        if sent.accepted and not self._given[sent.n] and not gone:
            self._open.add(sent.n)

    def given(self, ns: Sequence[int], at: float, first: int = 0, last: int = 0) -> None:
        """The client has processed an event that stands for the numbers `ns`, and the seqs `first` to `last`."""
        self.ranges.append(Range(first, last, tuple(ns)))
        for n in ns:
            self._given[n] += 1
            self._open.discard(n)
            sent = self.sent.get(n)
            if sent is not None and sent.processed is None:
                sent.processed = at
        self._news.set()

    def gap(self, first: int, last: int, reason: str) -> None:
        """The client was told that those seqs will not come."""
        self.ranges.append(Range(first, last, (), reason))
        self._open -= {n for n in self._open if first <= (self.sent[n].seq or 0) <= last}
        self._news.set()

    def account(self) -> Account:
        """What became of everything so far."""
        accepted = [sent for sent in self.sent.values() if sent.accepted]
        missing = [sent for sent in accepted if not self._given[sent.n]]
        explained = Counter(reason for sent in missing if (reason := self._reason(sent.seq)))
        return Account(
            accepted=len(accepted),
            delivered=len(accepted) - len(missing),
            explained=explained,
            silent=len(missing) - explained.total(),
            critical=sum(sent.critical for sent in accepted),
            critical_lost=sum(sent.critical for sent in missing),
            doubled=sum(count - 1 for count in self._given.values() if count > 1),
            disordered=self._disordered(),
            refused=sum(sent.status is not None and not sent.accepted for sent in self.sent.values()),
        )

    def _reason(self, seq: int | None) -> str | None:
        if seq is None:
            return None
        return next((r.reason for r in self.ranges if r.reason and r.first <= seq <= r.last), None)

    def _disordered(self) -> int:
        """How often what came was not what had to come next."""
        wrong = 0
        before = 0
        for given in self.ranges:
            if given.last:  # the server gives seqs
                wrong += given.first != before + 1
                before = given.last
                wrong += bool(given.ns) and not self._matches(given)
            else:
                wrong += any(n < before for n in given.ns)
                before = max((before, *given.ns))
        return wrong

    def _matches(self, given: Range) -> bool:
        """Whether an event holds the numbers that were published under its seqs."""
        seqs = [self.sent[n].seq for n in given.ns if n in self.sent]
        right = range(given.first, given.last + 1)
        return len(given.ns) == len(right) and all(
            seq is None or seq == due for seq, due in zip(seqs, right, strict=False)
        )


def total(journals: Iterable[Journal]) -> Account:
    """The account of all of them."""
    return sum((journal.account() for journal in journals), Account())


def close_cut(cut: Cut, journal: Journal) -> None:
    """Works out when the client had recovered: once it is back and has processed all that it missed and ever got."""
    if cut.back is None:
        return
    missed = [
        sent.processed
        for sent in journal.sent.values()
        if sent.processed is not None and sent.processed > cut.at and sent.at <= cut.back
    ]
    cut.recovered = max([cut.back, *missed])
