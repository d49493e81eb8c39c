"""The client's side of the accounting rule: what a session has received, what it has processed, and the proof
that between the two and the server nothing was lost in silence.

For each session the server sends events and gaps that cover every seq after `welcome.seq` exactly once, in order,
without a hole; only an event with `retry` repeats a seq, and never ahead. So each frame is judged in O(1) against
one number, the cursor:

    processed  <=  received  <=  head
      |              |             '- the newest seq that the server has told of
      |              '- the last seq accounted for, as an event or in a gap; a resume asks to go on from here
      '- the last seq that the application is done with; acks and `SavedSession` tell this one

    cursor     where this connection's accounting stands. It is `received`, but for a server that had to go on from
               a little earlier (its log can't be read from amid joined deltas): then it catches up first.

A *life* is one stretch in which seqs mean the same: it ends when the server answers a resume with
`resumed: false`. Seqs of an earlier life are void, and so are acks for them.

Pure: no I/O, no clock. A call that raises `Violation` has changed nothing.
"""

from __future__ import annotations

import enum
from collections import deque
from typing import Final

import attrs

from ..event import Gap

REMEMBERED_IDS: Final = 1024
"""How many of the newest event ids are kept to know an event again after its seq has become void."""


class Violation(Exception):
    """The server broke the protocol; the words say how, and quote nothing that was sent."""


class Overtaken(Violation):
    """A session goes on after what was not received. That is a loss in silence, unless another client uses the session
    too, a duplicated tab for one, and has acked what this one never received."""


@attrs.frozen(kw_only=True)
class SavedSession:
    """What a later client needs to go on where an earlier one stopped. It holds for as long as the server keeps
    the session and its log; `session` is a secret: whoever has it can take the session over.

    Attributes:
      session: the session's id; empty where the server has begun a new one that leaves out what is after `seq`: then
        the later client asks for one of its own, from `seq`.
      epoch: which life of the user's log `seq` belongs to.
      seq: the last seq that was processed.
    """

    session: str = attrs.field(repr=False)
    epoch: str
    seq: int


class Verdict(enum.Enum):
    """What an event frame turns out to be."""

    NEW = "new"
    REPEAT = "repeat"
    """Of a seq that was received before."""
    KNOWN = "known"
    """Of a new seq, but received before under a seq of the life that ended."""


class Session:
    """One session's numbers, and the rule.

    Args:
      saved: where an earlier client stopped; None begins anew.
    """

    __slots__ = (
        "_before",
        "_begun",
        "_foreign",
        "_ids",
        "_void_ids",
        "cursor",
        "epoch",
        "head",
        "id",
        "life",
        "processed",
        "received",
    )

    def __init__(self, saved: SavedSession | None = None) -> None:
        self.id = saved.session if saved else None
        self.epoch = saved.epoch if saved else None
        self.cursor = self.received = self.processed = self.head = saved.seq if saved else 0
        self.life = 0
        self._before: SavedSession | None = None  # while the application does not know that this life is over
        self._begun = 0  # the seq that the session `id` began after
        # Until its first welcome a saved session may be behind what its earlier client acked.
        self._foreign = saved is not None
        self._ids: deque[str] = deque(maxlen=REMEMBERED_IDS)
        self._void_ids: frozenset[str] | set[str] = frozenset()

    @property
    def behind(self) -> int:
        """How many seqs are known to exist and not accounted for."""
        return max(0, self.head - self.received)

    @property
    def ackable(self) -> int:
        """What may be acked: what was processed, of what this connection was sent. A new session that goes on from a
        little earlier was sent no more."""
        return min(self.processed, self.cursor)

    def saved(self) -> SavedSession | None:
        """What a later client can resume with; None before the first `welcome`."""
        if self.id is None or self.epoch is None:
            return None
        if self._before is not None:
            return self._before  # the later client will be told of the reset anew
        session = self.id if self.processed >= self._begun else ""
        return SavedSession(session=session, epoch=self.epoch, seq=self.processed)

    def welcome(self, session: str, epoch: str, seq: int, head: int, resumed: bool) -> Gap | None:
        """The server's answer to `hello`.

        Raises:
          Violation: it can't be. `Overtaken`: go on from `received` in a session of our own.

        Returns:
          the gap with reason ``reset`` if an earlier epoch was known and is void: from the first seq that was not
          received to the last one known of, in the seqs of the life that ends (so it is empty, `last` below `first`,
          where nothing is known to be missing). Else None.
        """
        if seq > head:
            raise Violation("welcome: seq is above head")
        if self.epoch is None or not resumed:
            return self._begin(session, epoch, seq, head)
        if epoch != self.epoch:
            raise Violation("welcome: resumed, but in another epoch")
        if seq > self.received:
            if not self._foreign:
                raise Overtaken("welcome: goes on after what was not received")
            # What lies between was acked by the client that was here before: it is done with.
            self.received = self.processed = seq
        if session != self.id:
            self.id, self._begun = session, seq
        self.cursor = seq
        self.head = head
        self._foreign = False
        return None

    def _begin(self, session: str, epoch: str, seq: int, head: int) -> Gap | None:
        """Starts a life at `seq`."""
        gap = None
        if self.epoch is not None:
            last = max(self.received, self.head)
            gap = Gap(first=self.received + 1, last=last, reason="reset", lost={}, anew=True)
            self._before = self.saved()
            self.life += 1
            # The server may still hold, under new seqs, what was received in the old life.
            self._void_ids = set(self._ids)
        self.id, self.epoch = session, epoch
        self.cursor = self.received = self.processed = self._begun = seq
        self.head = head
        self._foreign = False
        return gap

    def event(self, seq: int, id: str, *, retry: int = 0, merged: tuple[int, int] | None = None) -> Verdict:
        """An event frame; `merged` is its (from, n)."""
        first = seq
        if merged is not None:
            first, n = merged
            if n < 1 or first < 1 or seq - first != n:
                raise Violation("event: merged does not add up")
        if first != self.cursor + 1:
            if retry > 0 and 0 < seq <= self.cursor:
                return Verdict.REPEAT
            raise Violation(_where("event", first, self.cursor))
        self.cursor = seq
        if seq <= self.received:
            return Verdict.REPEAT
        # One that began before `received` is given whole: deltas joined anew can't be taken apart.
        self.received = seq
        self.head = max(self.head, seq)
        self._ids.append(id)
        return Verdict.KNOWN if id in self._void_ids else Verdict.NEW

    def gap(self, first: int, last: int) -> bool:
        """A gap frame; True if it tells something new."""
        if first != self.cursor + 1:
            raise Violation(_where("gap", first, self.cursor))
        if last < first:
            raise Violation("gap: ends before it begins")
        self.cursor = last
        if last <= self.received:
            return False
        self.received = last
        self.head = max(self.head, last)
        return True

    def live(self, seq: int) -> None:
        """A `live` frame: the server says that everything up to `seq` has been sent."""
        if seq > self.cursor:
            raise Violation("live: not everything before it has come")
        # The replay is what could bring the old life's events again; a later equal id is another event.
        self._void_ids = frozenset()

    def ping(self, head: int) -> None:
        """The head that a `ping` tells of."""
        self.head = max(self.head, head)

    def done(self, life: int, seq: int) -> bool:
        """The application is done with everything up to `seq` of that life; True if that is news."""
        if life != self.life:
            return False
        self._before = None
        if seq <= self.processed:
            return False
        self.processed = min(seq, self.received)
        return True


def _where(kind: str, first: int, cursor: int) -> str:
    if first <= cursor:
        return f"{kind}: repeats what was accounted for"
    return f"{kind}: leaves out {first - cursor - 1} seqs before it"
