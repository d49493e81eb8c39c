"""The hub: publish to users, and have what was published confirmed. One value that holds all state; nothing is global.

`open_hub` runs its tasks in one nursery for as long as its block lasts:

    cleanup     expired sessions, times to live, empty mailboxes; every `cleanup_interval`
    deadlines   one task, one cancel scope whose deadline is the earliest of all; moved, not polled
    flusher     writes what is pending, once a turn of the loop
    and, while there are any: a task for each session whose messages wait for the application, one for dead letters
"""

from __future__ import annotations

import logging
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, Final, Literal, TypeAlias

import attrs
import trio

from ..config import Config
from ..core import closing, wire
from ..core import payload as payloads
from ..core.buffer import Buffer
from ..core.confirmations import Confirmations
from ..core.entry import Entry
from ..core.histogram import Histogram
from ..core.mailbox import Mailbox
from ..core.pool import Ask, Pool, Refused
from ..core.session import Session
from ..core.timers import Timed, Timers
from ..errors import HubClosed, InvalidEvent
from ..event import Draft, Priority
from ..identity import Identity
from . import figures, tasks
from .attachment import Attachment, Link
from .channel import PublishChannel
from .flusher import Flusher
from .inbox import Inbox, Letters, OnMessage
from .intake import Intake, Parcel, check_name
from .receipt import Receipt
from .room import Room
from .subscription import Subscription

logger = logging.getLogger(__name__)

YIELD_EVERY: Final = 32
"""How many publishes may pass before one of them lets other tasks have a turn."""

MEMORY_CRITICAL_TTL: Final = 86400.0
"""`critical_ttl` where none is set and nothing is durable: a day."""


@attrs.frozen(kw_only=True)
class DeadLetter:
    """A critical event that its user never confirmed, and whose time has passed."""

    user: str
    epoch: str
    seq: int
    id: str
    type: str
    payload: Any
    ts: float


OnDeadLetter: TypeAlias = Callable[[DeadLetter], Awaitable[None]]


class Context:
    """What the hub keeps with a session: who it is, and its messages."""

    __slots__ = ("identity", "letters", "on_message")

    def __init__(self, identity: Identity, on_message: OnMessage | None) -> None:
        self.identity = identity
        self.on_message = on_message
        self.letters = Letters()


class Hub:
    """Users, mailboxes, sessions. Made by `open_hub`.

    Attributes:
      config: the limits it runs by.
      draining: it accepts nothing any more, and says so at `/readyz`.
      closed: it has ended.
    """

    def __init__(
        self,
        config: Config,
        nursery: trio.Nursery,
        *,
        on_dead_letter: OnDeadLetter | None = None,
        clock: Callable[[], float] = trio.current_time,
        wall_clock: Callable[[], float] = time.time,
        new_id: Callable[[], str] = lambda: secrets.token_urlsafe(18),
    ) -> None:
        if config.critical_ttl is None:
            config = attrs.evolve(config, critical_ttl=MEMORY_CRITICAL_TTL)
        self.config = config
        self.nursery = nursery
        self.clock = clock
        self.wall_clock = wall_clock
        self.started_at = clock()
        self.buffer = Buffer(config, new_id)
        self.books = self.buffer.books
        self.confirmations = Confirmations(config.confirm_timeout)
        self.pool = Pool(config, books=self.books, confirmations=self.confirmations, new_id=new_id)
        self.timers = Timers()
        self.flusher = Flusher(config.batch_interval, self.timers, clock)
        self.flusher.arm = lambda at: self.arm(self.flusher, at)
        self.intake = Intake(config)
        self.inbox = Inbox(self)
        self.recovery = Histogram()
        self.attachments: dict[Attachment, None] = {}
        self.channels: dict[str, int] = {}
        self.room = Room(full=lambda: self.books.firm_events >= config.max_events)
        self.mistakes = 0
        self.draining = self.closed = False
        self.stopping = trio.Event()
        self.deadlines = tasks.Deadlines(self)
        self._on_dead_letter = on_dead_letter
        self._dead: deque[DeadLetter] = deque(maxlen=config.max_events)
        self._burying = False
        self._draining = trio.Lock()
        self._gone = False
        self._drained: tuple[trio.Event, Callable[[Attachment], bool], dict[Attachment, None]] | None = None
        self._new_id = new_id
        self._ids = f"{new_id()[:8]}-"
        self._id_count = 0
        self._turn = 0

    # -- publishing

    async def publish(
        self,
        user: str,
        type: str,
        payload: Any = None,
        *,
        id: str | None = None,
        priority: Priority | None = None,
        key: str | None = None,
        merge: Literal["append"] | None = None,
        ttl: float | None = None,
        confirm: bool = False,
    ) -> Receipt:
        """Publish one event to a user; waits while the buffer is full of critical events.

        Cancelled, the event was not accepted. A checkpoint for cancellation always; for scheduling at least
        every `YIELD_EVERY` calls, so that a publisher in a loop neither starves others nor pays for each event.

        Args:
          user: whom to; 1 to 128 characters without control characters. Need not be known or connected.
          type, payload, id, priority, key, merge, ttl, confirm: see `trio_ws.Draft`.

        Returns: a receipt, whose `confirmed()` ends when a client has processed the event.

        Raises:
          InvalidEvent: a field is out of its bounds, or the payload has no JSON form.
          EventTooLarge: it is over `max_event_bytes` and can't be cut.
          HubClosed: the hub drains or has ended.
        """
        draft = self.intake.draft(
            type, payload, id=id, priority=priority, key=key, merge=merge, ttl=ttl, confirm=confirm
        )
        return await self.publish_draft(user, draft)

    def publish_nowait(
        self,
        user: str,
        type: str,
        payload: Any = None,
        *,
        id: str | None = None,
        priority: Priority | None = None,
        key: str | None = None,
        merge: Literal["append"] | None = None,
        ttl: float | None = None,
        confirm: bool = False,
    ) -> Receipt:
        """As `publish`, without waiting; a large payload is encoded here and now.

        Raises:
          trio.WouldBlock: the buffer is full of critical events, or others wait for room already.
        """
        draft = self.intake.draft(
            type, payload, id=id, priority=priority, key=key, merge=merge, ttl=ttl, confirm=confirm
        )
        return self.publish_draft_nowait(user, draft)

    async def publish_draft(self, user: str, draft: Draft) -> Receipt:
        """As `publish`, of an event that is worded already."""
        self._check_open()
        check_name(user, "user")
        parcel = await self._pack(draft)
        await self._take_turn()
        self._check_open()
        receipt = None if self._has_to_wait(user, draft) else self._accept(user, parcel)
        return receipt or await self.room.wait(user, lambda: self._accept(user, parcel))

    def publish_draft_nowait(self, user: str, draft: Draft) -> Receipt:
        """As `publish_nowait`, of an event that is worded already."""
        self._check_open()
        check_name(user, "user")
        parcel = self.intake.pack(draft)
        receipt = None if self._has_to_wait(user, draft) else self._accept(user, parcel)
        if receipt is None:
            self.books.refused += 1
            raise trio.WouldBlock
        return receipt

    async def broadcast(
        self,
        users: Iterable[str] | Literal["*"],
        type: str,
        payload: Any = None,
        *,
        id: str | None = None,
        priority: Priority | None = None,
        key: str | None = None,
        merge: Literal["append"] | None = None,
        ttl: float | None = None,
        confirm: bool = False,
    ) -> list[Receipt]:
        """Publish one event to several users, encoded once; waits for the room of some after all others have it.

        Args:
          users: whom to, each once; ``"*"`` for all who are known: connected, parked, or with events held.
          type, payload, id, priority, key, merge, ttl, confirm: see `trio_ws.Draft`; the id is the same for all.

        Returns: a receipt a user, in their order.

        Raises: as `publish`; nothing was published then, except where the hub ended while this waited for room.
        Cancelled, some users may have it: give an `id` to be able to repeat.
        """
        draft = self.intake.draft(
            type, payload, id=id, priority=priority, key=key, merge=merge, ttl=ttl, confirm=confirm
        )
        self._check_open()
        if not isinstance(users, str):
            names = list(dict.fromkeys(users))
        elif users == "*":
            names = list(self.buffer.mailboxes)
        else:
            raise InvalidEvent('users must be several names, or "*"', field="users")
        for user in names:
            check_name(user, "user")
        parcel = await self._pack(draft)
        await trio.lowlevel.checkpoint()
        self._check_open()
        shared = id or self._fresh_id()
        receipts: dict[str, Receipt | None] = {}
        tail: bytes | None = None
        for count, user in enumerate(names, 1):
            receipt = None
            if not self._has_to_wait(user, draft):
                receipt, tail = self._accept_shared(user, parcel, shared, tail)
            receipts[user] = receipt
            if count % 64 == 0:
                await trio.lowlevel.checkpoint()
        full = [user for user, receipt in receipts.items() if receipt is None]
        if full:
            receipts.update(await self._wait_for_all(full, parcel, shared))
        return [receipt for receipt in receipts.values() if receipt is not None]

    def channel(self, user: str) -> PublishChannel:
        """A channel to publish to one user through, by Trio's conventions; close it when done.

        Raises:
          InvalidEvent: `user` is no name.
        """
        check_name(user, "user")
        return PublishChannel(self, user)

    def subscribe(
        self, user: str, *, start: Literal["retained", "pending", "now"] = "retained"
    ) -> Subscription:
        """One user's events in this process, as a channel to receive batches from; close it when done.

        Args:
          user: whose.
          start: where it begins: all that is held, what nobody confirmed, or what comes from now on.

        Raises:
          LocalError: the user's connection limit is reached and the policy is to reject, or the hub drains.
        """
        check_name(user, "user")
        return Subscription(self, user, start)

    async def _pack(self, draft: Draft) -> Parcel:
        if self.intake.is_large(draft.payload):
            return await self.intake.pack_large(draft)
        return self.intake.pack(draft)

    async def _take_turn(self) -> None:
        self._turn += 1
        if self._turn % YIELD_EVERY:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            await trio.lowlevel.checkpoint()

    def _check_open(self) -> None:
        if self.draining or self.closed:
            raise HubClosed("the hub has ended" if self.closed else "the hub is draining")

    def _fresh_id(self) -> str:
        self._id_count += 1
        return f"{self._ids}{self._id_count:x}"

    def _accept(self, user: str, parcel: Parcel, id: str | None = None) -> Receipt | None:
        return self._accept_shared(user, parcel, id, None)[0]

    def _accept_shared(
        self, user: str, parcel: Parcel, id: str | None, tail: bytes | None
    ) -> tuple[Receipt | None, bytes | None]:
        """Accept a parcel if there is room; the wire form is shared with the users before, and handed on."""
        box = self.buffer.mailbox(user)
        own = parcel.draft.id
        if own is not None and (known := box.find(own)) is not None:
            self.books.duplicates += 1
            return self._receipt(box, known, duplicate=True), tail
        entry = self.intake.entry(
            parcel, own or id or self._fresh_id(), now=self.clock(), ts=self.wall_clock(), tail=tail
        )
        if not self.buffer.accept(box, entry):
            return None, tail
        for session in box.sessions.values():
            if session.link is not None:
                self.flusher.mark(session.link, urgent=entry.tracked)
        if self.books.resolved:
            self.react()
        return self._receipt(box, entry), entry.tail

    def _receipt(self, box: Mailbox, entry: Entry, *, duplicate: bool = False) -> Receipt:
        timeout = self.config.confirm_timeout
        return Receipt(entry, user=box.user, epoch=box.epoch, timeout=timeout, duplicate=duplicate)

    def _has_to_wait(self, user: str, draft: Draft) -> bool:
        """Whether others wait for this user's room already; what was accepted before needs none."""
        if not self.room.line(user):
            return False
        return draft.id is None or self.buffer.mailbox(user).find(draft.id) is None

    async def _wait_for_all(self, users: list[str], parcel: Parcel, id: str) -> dict[str, Receipt]:
        """Wait in the lines of several users at once, so that one who is full for long holds up nobody else."""
        receipts: dict[str, Receipt] = {}

        async def wait(user: str) -> None:
            receipts[user] = await self.room.wait(user, lambda: self._accept(user, parcel, id))

        closed = False
        try:
            async with trio.open_nursery() as nursery:
                for user in users:
                    nursery.start_soon(wait, user)
        except* HubClosed:
            closed = True
        if closed:
            self._check_open()
        return receipts

    # -- connections

    def attach(
        self,
        identity: Identity,
        ask: Ask,
        link: Link,
        *,
        on_message: OnMessage | None = None,
        in_process: bool = False,
    ) -> Attachment | Refused:
        """Give a connection that has said hello its session: welcome is sent, and the replay begins.

        Args:
          identity: who it is.
          ask: what its hello asks for.
          link: the way out.
          on_message: what takes the user's messages.
          in_process: there is no network on the way, so no heartbeats and no redelivery: who is slow is waited for.

        Returns: its hold on the session; or why it can't have one.
        """
        if self.draining or self.closed:
            return Refused(closing.DRAINING, "the server is going away", self.retry_after)
        now = self.clock()
        box = self.buffer.mailbox(identity.user)
        admitted = self.pool.admit(box, ask, now)
        if isinstance(admitted, Refused):
            return admitted
        session = admitted.session
        if session.link is not None:
            old: Attachment = session.link
            cut_at = min(old.heard_at, old.cut_at)
            self._let_go(old)
            old.displaced(closing.SUPERSEDED, "this session connected elsewhere")
        else:
            cut_at = session.cut_at
        for displaced in admitted.displaced:
            self._displace(displaced)
        known = session.id in box.sessions
        attachment = Attachment(self, session, link, now, in_process=in_process)
        self.pool.attach(admitted, attachment, now)
        self.attachments[attachment] = None
        if session.context is None:
            session.context = Context(identity, on_message)
        else:
            session.context.identity, session.context.on_message = identity, on_message
        if known:
            attachment.recovers(cut_at, box.head, now)
        attachment.begin(now, None if ask.plain else self._welcome(session, identity, admitted.resumed))
        attachment.renew(identity)
        self.react()
        return attachment

    def _welcome(self, session: Session, identity: Identity, resumed: bool) -> bytes:
        config = self.config
        return wire.welcome(
            session=session.id,
            epoch=session.box.epoch,
            seq=session.cursor,
            head=session.box.head,
            resumed=resumed,
            heartbeat_active=config.heartbeat_active,
            heartbeat_idle=config.heartbeat_idle,
            heartbeat_grace=config.heartbeat_grace,
            ack_events=config.ack_events,
            ack_delay=config.ack_delay,
            expires=identity.expires,
        )

    def context_of(self, session: Session) -> Context:
        """What the hub keeps with `session`."""
        context: Context = session.context
        return context

    def park(self, attachment: Attachment, cut_at: float) -> None:
        """The connection is gone: its session is parked, or over if it is a plain one."""
        if attachment.fenced:
            return
        self._let_go(attachment)
        session = attachment.session
        if session.plain:
            self.pool.end(session, self.clock())
        else:
            session.cut_at = min(cut_at, attachment.cut_at)
            for old in self.pool.park(session, self.clock()):
                self.pool.end(old, self.clock())
        self.react()

    def end(self, session: Session) -> None:
        """The session is over for good. Its connection, if it has one, is fenced off; the caller closes it."""
        self._end(session)
        self.react()

    def _end(self, session: Session) -> None:
        if session.link is not None:
            self._let_go(session.link)
        self.pool.end(session, self.clock())

    def _displace(self, session: Session) -> None:
        """A session makes way for another of its user."""
        old: Attachment | None = session.link
        self._end(session)
        if old is not None:
            self.pool.superseded += 1
            old.displaced(closing.SUPERSEDED, "the user's limit took this connection")

    def _let_go(self, attachment: Attachment) -> None:
        attachment.fence()
        self.attachments.pop(attachment, None)

    # -- what follows from a step of the core

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
                self._bury(box, entry, tail)
        self.room.serve()
        if self._drained is not None:
            self._look_for_drained()

    def arm(self, owner: Timed, at: float) -> None:
        """Have `owner` looked at no later than `at`."""
        if self.timers.arm(owner, at):
            self.deadlines.move(at)

    def _bury(self, box: Mailbox, entry: Entry, tail: bytes) -> None:
        logger.error(
            "dead letter: a critical event was never confirmed",
            extra={"event_type": entry.type, "seq": entry.seq, "epoch": box.epoch},
        )
        if self._on_dead_letter is not None:
            if len(self._dead) == self._dead.maxlen:
                logger.error("on_dead_letter is too slow: the oldest dead letter that waits for it is let go")
            self._dead.append(
                DeadLetter(
                    user=box.user,
                    epoch=box.epoch,
                    seq=entry.seq,
                    id=entry.id,
                    type=entry.type,
                    payload=payloads.decode(b"{" + tail[1:])["payload"],
                    ts=entry.ts,
                )
            )
            if not self._burying:
                self._burying = True
                self.nursery.start_soon(self._hand_on_dead_letters, self._on_dead_letter)

    async def _hand_on_dead_letters(self, handler: OnDeadLetter) -> None:
        try:
            while self._dead:
                letter = self._dead.popleft()
                try:
                    await handler(letter)
                except Exception:
                    logger.exception("on_dead_letter failed")
        finally:
            self._burying = False

    # -- the end

    @property
    def retry_after(self) -> float:
        """Seconds after which a refused publisher or client may well be served again."""
        return 5.0 if self.draining else 1.0

    async def drain(self, timeout: float | None = None) -> None:
        """Go away in order: accept nothing more, tell each client, flush within a deadline, close with 4503.

        Events that were not confirmed stay held, sessions are parked. Draining twice is fine: the second call waits
        until the first is through. Cancelled, it stops waiting; the hub accepts nothing more all the same.
        A checkpoint.

        Args:
          timeout: seconds in all for clients to take what is pending; None takes `drain_timeout`.
        """
        self.draining = True
        self.stopping.set()
        self.room.end(lambda: HubClosed("the hub is draining"))
        async with self._draining:
            if not self._gone:
                await self._drain(self.config.drain_timeout if timeout is None else timeout)
                self._gone = True

    async def _drain(self, limit: float) -> None:
        spread = 0.5 + min(4.5, len(self.attachments) / 50)
        for attachment in list(self.attachments):
            attachment.drain(0.5, spread)
            self.flusher.mark(attachment, urgent=True)
        deadline = self.clock() + limit
        await self._until(
            min(deadline, self.clock() + 1.0), lambda a: _flushed(a) and a.session.acked >= a.session.cursor
        )
        await self._until(deadline, _flushed)
        for attachment in list(self.attachments):
            attachment.close(closing.DRAINING, "the server is going away", spread)
        await self._until(self.clock() + 2.0, lambda a: a.fenced)

    def end_now(self) -> None:
        """The hub has ended: whoever waits for it is told, and connections that are left are closed."""
        self.draining = self.closed = True
        self.stopping.set()
        self.room.end(lambda: HubClosed("the hub has ended"))
        for attachment in list(self.attachments):
            attachment.close(closing.DRAINING, "the server is going away", self.retry_after)

    async def _until(self, deadline: float, done: Callable[[Attachment], bool]) -> None:
        """Wait until every connection is `done` or gone, at most until `deadline`."""
        event = trio.Event()
        self._drained = (event, done, dict(self.attachments))
        self._look_for_drained()
        try:
            with trio.CancelScope(deadline=deadline):
                await event.wait()
        finally:
            self._drained = None

    def _look_for_drained(self) -> None:
        if self._drained is None:
            return
        event, done, left = self._drained
        while left:
            attachment = next(iter(left))
            if not (attachment.fenced or done(attachment)):
                return
            del left[attachment]
        event.set()

    # -- figures

    @property
    def publishers_waiting(self) -> int:
        """How many publishers wait for room."""
        return self.room.waiting

    def statistics(self) -> figures.HubStatistics:
        """A frozen snapshot of the main figures, in the manner of Trio's `statistics()`."""
        return figures.statistics(self)

    def stats(self) -> dict[str, Any]:
        """Every figure, nested and named as `/v1/stats` has them."""
        return figures.stats(self)

    def describe(self, user: str) -> dict[str, Any] | None:
        """What there is to know of one user: sessions, connections, buffer, lag; None for one who is not known."""
        box = self.buffer.mailboxes.get(user)
        return None if box is None else figures.describe(self, box)


def _flushed(attachment: Attachment) -> bool:
    return not attachment.session.pending and attachment.session.blocked is None


@asynccontextmanager
async def open_hub(
    config: Config | None = None,
    *,
    on_dead_letter: OnDeadLetter | None = None,
    wall_clock: Callable[[], float] = time.time,
    new_id: Callable[[], str] = lambda: secrets.token_urlsafe(18),
) -> AsyncIterator[Hub]:
    """Run a hub for as long as the block lasts.

    Leaving the block drains it (see `Hub.drain`); leaving it by an exception, or cancelled, ends it at once.

    Args:
      config: the limits; None takes the defaults.
      on_dead_letter: awaited with each critical event that expired unconfirmed; what it raises is logged.
      wall_clock: seconds since the Unix epoch; for simulations.
      new_id: makes unguessable ids of at least 8 characters; for simulations.
    """
    failure: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            hub = Hub(
                config or Config(),
                nursery,
                on_dead_letter=on_dead_letter,
                wall_clock=wall_clock,
                new_id=new_id,
            )
            nursery.start_soon(hub.flusher.run)
            nursery.start_soon(hub.deadlines.run)
            nursery.start_soon(tasks.cleanup, hub)
            try:
                yield hub
                await hub.drain()
            except BaseException as error:
                failure = error
                raise
            finally:
                hub.end_now()
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        # The nursery is no business of the caller's: what its own block raised comes out as it was.
        only = group.exceptions[0]
        groups = isinstance(only, BaseExceptionGroup) and isinstance(failure, BaseExceptionGroup)
        if len(group.exceptions) > 1 or not (only is failure or groups):
            raise
        failure = only
    else:
        failure = None
    if failure is not None:
        raise failure
