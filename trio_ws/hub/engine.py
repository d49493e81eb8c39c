"""What all parts of a hub work on: the state of the core, the clocks, the nursery; and what follows from a step."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import attrs
import trio

from ..config import Config
from ..core import closing
from ..core.buffer import Buffer
from ..core.confirmations import Confirmations
from ..core.histogram import Histogram
from ..core.mailbox import Mailbox
from ..core.pool import Pool
from ..core.refusals import Refusals
from ..core.revocations import Revocations
from ..core.timers import Timed, Timers
from ..store import Store
from .alerts import Alerts, OnAlert
from .dead_letters import DeadLetters, OnDeadLetter
from .deadlines import Deadlines
from .durability import Durability
from .flusher import Flusher
from .room import Room

if TYPE_CHECKING:
    from .attachment import Attachment
    from .elsewhere import RemoteAttachment

MEMORY_CRITICAL_TTL: Final = 86400.0
"""`critical_ttl` where none is set and nothing is durable: a day."""


CHUNK: Final = 64 * 1024
"""About how many bytes one connection is given in one turn."""


def new_token() -> str:
    """An unguessable id: 144 random bits in 24 characters."""
    return secrets.token_urlsafe(18)


class Engine:
    """The state of one hub.

    Args:
      config: the limits.
      nursery: the hub's own.
      on_dead_letter: takes critical events that expired unconfirmed.
      on_alert: takes alerts that begin or end.
      store: where all of it is kept beyond this process, open; None keeps it here.
      clock, wall_clock: seconds on the hub's clock, and since the Unix epoch.
      new_id: makes unguessable ids.

    Attributes:
      durability: commits what is to outlive this process; None without a store.
      attachments: the connections that hold a session.
      guests: the connections here whose session another node has.
      mistakes: frames that made no sense, since the start.
      closes: how many WebSockets ended, by close code and by who ended them.
      alerts: what is watched, and how it stands.
      held_back: how often a connection was not read for a while, since it had sent too much.
      refusals: connections that were not let in, by reason.
      revocations: whose credentials are taken only if they were issued later.
      recovery: how long cuts lasted, to the last missed event processed.
      draining, closed: nothing is accepted any more; it has ended.
      suspended: nothing is accepted for now, and no event is sent.
      stopping: is set when draining begins.
      on_woken: is called with each log that came into memory from the store.
      chunk: about how many bytes one connection is given in one turn; less is for tests, so that replays are cut short.
      see_to_rests: is called where something is to be done about what is in the store only.
      after_step: is called after each step of the core, for whoever drains.
    """

    def __init__(
        self,
        config: Config,
        nursery: trio.Nursery,
        *,
        on_dead_letter: OnDeadLetter | None = None,
        on_alert: OnAlert | None = None,
        store: Store | None = None,
        clock: Callable[[], float] | None = None,
        wall_clock: Callable[[], float] = time.time,
        new_id: Callable[[], str] = new_token,
    ) -> None:
        if config.critical_ttl is None and store is None:
            config = attrs.evolve(config, critical_ttl=MEMORY_CRITICAL_TTL)
        self.config = config
        self.nursery = nursery
        # Asked several times an event: `trio.current_time` itself would look up the run and its clock each time.
        self.clock = clock = clock or trio.lowlevel.current_clock().current_time
        self.wall_clock = wall_clock
        self.started_at = clock()
        self.durability: Durability | None = None
        if store is not None:
            self.durability = Durability(
                store,
                config,
                clock=clock,
                wall_clock=wall_clock,
                on_ready=self._mark_all,
                on_commit=self.react,
            )
        ledger = None if self.durability is None else self.durability.ledger
        self.buffer = Buffer(config, new_id, ledger)
        if self.durability is not None:
            self.durability.buffer = self.buffer
        self.books = self.buffer.books
        self.confirmations = Confirmations(config.confirm_timeout)
        self.pool = Pool(config, books=self.books, confirmations=self.confirmations, new_id=new_id)
        self.timers = Timers()
        self.deadlines = Deadlines(self.timers, self.confirmations, clock, self.react)
        self.flusher = Flusher(config.batch_interval, clock, lambda at: self.arm(self.flusher, at))
        self.room = Room(full=self._is_full_for_all)
        self.dead_letters = DeadLetters(nursery, on_dead_letter, limit=config.max_events)
        self.recovery = Histogram()
        self.attachments: dict[Attachment, None] = {}
        self.guests: dict[RemoteAttachment, None] = {}
        self.mistakes = self.held_back = 0
        self.closes: dict[tuple[int, str], int] = {}
        self.refusals = Refusals()
        self.revocations = Revocations()
        self.draining = self.closed = self.suspended = False
        self.stopping = trio.Event()
        self.chunk = CHUNK
        self.on_woken: Callable[[Mailbox], None] | None = None
        self.after_step: Callable[[], None] | None = None
        self.see_to_rests: Callable[[], None] | None = None
        self.alerts = Alerts(self, on_alert)
        self._ids = f"{new_id()[:8]}-"
        self._id_count = 0

    @property
    def retry_after(self) -> float:
        """Seconds after which a refused publisher or client may well be served again."""
        return 5.0 if self.draining else 1.0

    def fresh_id(self) -> str:
        """An id for an event whose publisher gave none; unique, and not secret."""
        self._id_count += 1
        return f"{self._ids}{self._id_count:x}"

    def unix(self, at: float) -> float:
        """A time on the hub's clock in seconds since the Unix epoch, to a microsecond."""
        return round(self.wall_clock() - self.clock() + at, 6)

    def count_close(self, code: int, by: str) -> None:
        """A WebSocket has ended; a code that is nobody's is counted as 0, so that there are only so many."""
        key = (code if code in closing.TABLE or code in closing.STANDARD else 0, by)
        self.closes[key] = self.closes.get(key, 0) + 1

    def arm(self, owner: Timed, at: float) -> None:
        """Have `owner` looked at no later than `at`."""
        if self.timers.arm(owner, at):
            self.deadlines.move(at)

    def _is_full_for_all(self, user: str) -> bool:
        """Whether no other user can find room where `user` could not."""
        return not self.buffer.spills and self.buffer.is_full_for_all(self.buffer.mailbox(user))

    def _mark_all(self, box: Mailbox) -> None:
        """What `box` has accepted may be shown from now on: have it written to its connections."""
        for session in box.sessions.values():
            link = session.link
            if link is not None and session.pending:
                self.flusher.mark(link, urgent=box.unconfirmed > 0)

    def react(self) -> None:
        """Tell those who wait for what the last steps have brought: confirmations, dead letters, room."""
        books = self.books
        if books.resolved:
            resolved, books.resolved = books.resolved, []
            for entry in resolved:
                waiters, entry.waiters = entry.waiters or (), None
                for waiter in waiters:
                    waiter()
        if books.dead:
            dead, books.dead = books.dead, []
            for box, entry, tail in dead:
                self.dead_letters.bury(box, entry, tail)
            self.alerts.look()
        if books.rests and self.see_to_rests is not None:
            self.see_to_rests()
        if self.room.waiting:
            self.room.serve()
        if self.after_step is not None:
            self.after_step()

    def let_go(self, attachment: Attachment) -> None:
        """A connection counts no more: it is fenced off."""
        attachment.fence()
        self.attachments.pop(attachment, None)
