"""The pool: every user's sessions, connected and parked; who may come in, who goes on where, and who has to go.

A connection that ends without `bye` leaves its session parked here for `session_ttl`, with its cursor and what was
authenticated. A hello that names it takes it up again: a pool hit.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from itertools import chain
from typing import Any, Final

import attrs

from ..config import Config
from . import closing
from .books import Books
from .closing import CloseCode
from .confirmations import Confirmations
from .limits import spread
from .mailbox import Mailbox
from .session import Session

PARKED_PER_CONNECTION: Final = 4
"""How many sessions may be parked in all, for each connection that may be open in all."""

SILENT_AFTER: Final = 2.0
"""Seconds without an ack, with events in flight, after which a session counts as silent when one has to go."""


@attrs.frozen(kw_only=True)
class Ask:
    """What a hello asks for: to resume (`session`, `epoch`, `seq`), or where a new session starts (`start`).

    Attributes:
      at: when it was heard. Of two connections that ask for one session, the one that asked last has it, however long
        it took to find out who they are.
      relayed: another node has the socket, and has counted it.
    """

    session: str | None = None
    epoch: str | None = None
    seq: int | None = None
    start: str = "retained"
    plain: bool = False
    at: float = 0.0
    relayed: bool = False


@attrs.frozen
class Admitted:
    """A session that a connection may take over.

    Attributes:
      session: it, not yet attached.
      position: where it goes on from.
      snapshots: it is to be given those of all agents' runs first.
      resumed: what the client knew of the log still holds.
      displaced: sessions that have to make way, still attached or parked; the caller ends them.
    """

    session: Session
    position: int
    resumed: bool
    skip_confirmed: bool
    snapshots: bool
    displaced: list[Session]
    relayed: bool = False


@attrs.frozen
class Refused:
    """No: with the close code, and after how many seconds it may be worth another try.

    Attributes:
      counted: as what it is counted: one of `refusals.REASONS`.
    """

    code: CloseCode
    reason: str
    retry_after: float | None = None
    counted: str = "limit"


class Pool:
    """The sessions of all users.

    Args:
      config: the limits.
      books, confirmations: what new sessions count in.
      new_id: makes an unguessable session id.

    Attributes:
      connected: sessions that have a connection, wherever its socket is.
      relayed: those of them whose socket another node has.
      guests: sockets here whose session another node has.
    """

    def __init__(
        self, config: Config, *, books: Books, confirmations: Confirmations, new_id: Callable[[], str]
    ) -> None:
        self.config = config
        self.created = self.hits = self.misses = self.reused = 0
        self.connected = self.total_connected = self.rejected = self.superseded = 0
        self.relayed = self.guests = 0
        self._books = books
        self._confirmations = confirmations
        self._new_id = new_id
        self._parked: OrderedDict[Session, None] = OrderedDict()
        self._restored: dict[Session, None] = {}

    @property
    def sockets(self) -> int:
        """How many connections have their socket here; `max_connections` bounds them."""
        return self.connected - self.relayed + self.guests

    @property
    def parked(self) -> int:
        """How many sessions are parked now."""
        return len(self._parked) + len(self._restored)

    def admit(self, box: Mailbox, ask: Ask, now: float) -> Admitted | Refused:
        """Find or make the session that `ask` is to get, within the limits.

        Nothing is attached or ended yet, and a refusal leaves everything as it was.
        """
        known = box.sessions.get(ask.session) if ask.session is not None and not ask.plain else None
        fits = (ask.epoch is None or ask.epoch == box.epoch) and (ask.seq is None or ask.seq <= box.ready)
        if known is not None and fits and not known.plain:
            frees = known.link is not None and not known.relayed
            if not ask.relayed and not frees and self.sockets >= self.config.max_connections:
                self.rejected += 1
                return self._full()
            self.hits += 1
            self.reused += known.link is None
            position = known.acked if ask.seq is None else max(ask.seq, known.acked)
            return Admitted(known, position, True, False, False, [], ask.relayed)
        displaced = self._make_way(box, now, ask.relayed)
        if isinstance(displaced, Refused):
            self.rejected += 1
            return displaced
        if ask.session is not None:
            self.misses += 1
        self.created += 1
        resumed = fits and ask.epoch is not None and ask.seq is not None
        if resumed:
            assert ask.seq is not None
            # What lies below stays pending: nobody knows any more whom it was sent to.
            base = position = box.boundary(ask.seq)
        else:
            pending = box.first_unconfirmed - 1
            start = {"now": box.head, "pending": pending, "snapshot": pending}.get(ask.start, box.low)
            # Not beyond what waits in the store only: that stands before all that is new, and where nobody took it, it
            # would fill memory, and hold up what is new.
            base = position = min(box.head if ask.plain else start, box.ready)
        session = Session(
            self._new_id(),
            box,
            base,
            books=self._books,
            confirmations=self._confirmations,
            retry_intervals=self.config.retry_intervals,
            now=now,
            plain=ask.plain,
        )
        snapshots = not resumed and ask.start == "snapshot" and not ask.plain
        skip_confirmed = snapshots or (not resumed and ask.start == "pending")
        return Admitted(session, position, resumed, skip_confirmed, snapshots, displaced, ask.relayed)

    def lodge(self) -> Refused | None:
        """A connection comes whose session another node has: a guest; returns why it can't."""
        if self.sockets >= self.config.max_connections:
            self.rejected += 1
            return self._full()
        self.guests += 1
        self.total_connected += 1
        return None

    def check_out(self) -> None:
        """A guest has gone."""
        self.guests -= 1

    def attach(self, admitted: Admitted, link: Any, now: float) -> None:
        """`link` takes over an admitted session. A connection that it had before is for the caller to fence off."""
        session = admitted.session
        if session.link is not None:
            self._disconnect(session)
        self.connected += 1
        self.relayed += admitted.relayed
        self.total_connected += not admitted.relayed
        session.relayed = admitted.relayed
        self._unpark(session)
        session.box.sessions[session.id] = session
        session.attach(
            link,
            admitted.position,
            now,
            skip_confirmed=admitted.skip_confirmed,
            snapshots=admitted.snapshots,
        )

    def park(self, session: Session, now: float) -> list[Session]:
        """The connection of `session` is gone; it waits for the next one.

        Returns: the sessions that are parked beyond what the pool holds, the oldest; the caller ends them.
        """
        self._disconnect(session)
        session.detach(now)
        self._parked[session] = None
        return self._over()

    def _disconnect(self, session: Session) -> None:
        """The connection of `session` counts no more."""
        self.connected -= 1
        self.relayed -= session.relayed
        session.relayed = False

    def restore(self, session: Session) -> list[Session]:
        """A session that was parked, or connected, in another process is parked here.

        Returns: as `park`.
        """
        session.box.sessions[session.id] = session
        self._restored[session] = None
        return self._over()

    def _over(self) -> list[Session]:
        """The oldest of those who are parked, as far as they are too many."""
        over = self.parked - PARKED_PER_CONNECTION * self.config.max_connections
        return [old for old, _ in zip(chain(self._restored, self._parked), range(over), strict=False)]

    def forget(self, session: Session) -> None:
        """A parked session goes out of memory: a store has it."""
        self._unpark(session)

    def move(self, session: Session) -> None:
        """A session of a log that is another process's: it is none of this pool any more. The caller closes its
        connection, if it has one."""
        if session.link is not None:
            self.connected -= 1
            session.link = None
        self._unpark(session)

    def _unpark(self, session: Session) -> None:
        self._parked.pop(session, None)
        self._restored.pop(session, None)

    def end(self, session: Session, now: float) -> None:
        """The session is over for good: what nobody confirmed stays pending for the user's next one."""
        self._books.now = now
        if session.link is not None:
            self._disconnect(session)
            session.detach(now)
        self._unpark(session)
        session.box.release(session)

    def expired(self, now: float) -> list[Session]:
        """The sessions that have been parked for `session_ttl` by `now`; the caller ends them."""
        # They were parked in the order of their times; the restored ones were not.
        since = now - self.config.session_ttl
        old = [session for session in self._restored if session.parked_at <= since]
        for session in self._parked:
            if session.parked_at > since:
                break
            old.append(session)
        return old

    def _make_way(self, box: Mailbox, now: float, relayed: bool) -> list[Session] | Refused:
        """Who of this user has to go so that one more can come: parked, then silent, then oldest."""
        limits = self.config
        replace = limits.over_limit == "replace"
        ranked = sorted(
            box.sessions.values(),
            key=lambda s: (s.link is not None, not s.silent(now, SILENT_AFTER), s.connected_at),
        )
        displaced = ranked[: max(0, len(ranked) + 1 - limits.max_connections_per_user)]
        if not replace and any(s.link is not None for s in displaced):
            return Refused(closing.LIMIT_REACHED, f"{limits.max_connections_per_user} connections per user")
        freed = sum(s.link is not None and not s.relayed for s in displaced)
        if not relayed and self.sockets - freed >= limits.max_connections:
            others = [s for s in ranked if s.link is not None and not s.relayed and s not in displaced]
            if not replace or not others:
                return self._full()
            displaced.append(others[0])
        return displaced

    def _full(self) -> Refused:
        """The answer where all connections in all are taken."""
        if self.config.over_limit == "reject":
            return Refused(closing.LIMIT_REACHED, f"{self.config.max_connections} connections")
        return Refused(
            closing.DRAINING,
            f"all {self.config.max_connections} connections are taken",
            spread(5.0, self.rejected),
        )
