"""What keeps a client connected: attempts, the close table, the schedule of docs/protocol.md ("Reconnecting"), and the
state that all of it makes up.

One task runs `Keeper.run`. It is shielded: what ends it is `leave`, which leaves it a deadline for its goodbyes, or
the server's word.
"""

from __future__ import annotations

import logging
import random
import ssl
from collections.abc import Awaitable, Callable

import attrs
import trio

from ..core import closing, wire
from ..core.backoff import Backoff
from ..errors import ConnectionRefused, SessionEnded, TrioWSError
from ..event import Gap
from .credentials import Credentials, NoToken
from .inbox import Entry, Inbox
from .link import ATTEMPT_TIMEOUT, Ending, Link
from .outbox import Outbox
from .session import SavedSession, Session
from .state import ClientState, Figures, StateName
from .transport import Address, Upgrade, open_stream

logger = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class Options:
    """What `connect` was told; see there."""

    address: Address
    credentials: Credentials
    user: str | None
    from_: wire.Start
    ack: bool
    bye: bool
    on_state: Callable[[ClientState], object] | None
    max_message_bytes: int
    ssl_context: ssl.SSLContext | None
    open_stream: Callable[[], Awaitable[trio.abc.Stream]] | None
    upgrade: Upgrade
    rng: random.Random


class Keeper:
    """See the module's docstring.

    Attributes:
      session, inbox, outbox, figures: shared with the client and with each connection.
      over: nothing will be received any more.
    """

    def __init__(self, options: Options, saved: SavedSession | None) -> None:
        self._options = options
        self.session = Session(saved)
        self.inbox = Inbox()
        self.outbox = Outbox(acks=options.ack, max_bytes=options.max_message_bytes)
        self.figures = Figures()
        self.over = False
        self._finished = trio.Event()
        self._backoff = Backoff(options.rng)
        self._scope = trio.CancelScope(shield=True)
        self._link: Link | None = None
        self._leaving = False
        self._overtaken = False
        self._why: Callable[[], Exception] = _closed
        # A recovery under way: since when, and what must be processed (in which life, up to where).
        self._cut_at: float | None = None
        self._recover_to: tuple[int, int] | None = None
        self._state: StateName = "connecting"
        self._retry_at: float | None = None
        self._reason = ""
        self._changed = trio.Event()

    # --- For the client ---

    @property
    def state(self) -> ClientState:
        """Where the client stands now."""
        return ClientState(
            name=self._state,
            behind=self.session.behind,
            retry_at=self._retry_at,
            retry_in=None if self._retry_at is None else max(0.0, self._retry_at - trio.current_time()),
            reason=self._reason,
        )

    def why(self) -> Exception | None:
        """Once it is `over`, what a receiver is to be told: an exception, or None for a normal end."""
        error = self._why()
        normal = isinstance(error, SessionEnded) and error.code == closing.NORMAL.code
        return None if normal or isinstance(error, trio.ClosedResourceError) else error

    async def wait_state(self, name: StateName) -> None:
        """Returns when the state is `name`; raises the reason where that can't be any more. A checkpoint."""
        await trio.lowlevel.checkpoint()
        while self._state != name:
            if self.over:
                raise self._why()
            await self._changed.wait()

    async def wait_finished(self) -> None:
        """Returns when `run` is over. A checkpoint; cancelling it changes nothing."""
        await self._finished.wait()

    def leave(self, timeout: float) -> None:
        """Says goodbye and ends, within `timeout` seconds."""
        if self._leaving or self.over:
            return
        self._leaving = True
        self._scope.deadline = trio.current_time() + timeout
        if self._link is not None and self._link.welcomed:
            self._link.close(bye=self._options.bye)
        else:
            self._scope.cancel()

    def cut(self) -> None:
        """Breaks the connection, if there is one."""
        if self._link is not None:
            self._link.cut()

    def done(self, entry: Entry) -> None:
        """The application is done with `entry` and everything before it."""
        if not self.session.done(entry.life, entry.seq):
            return
        # A critical event that nothing else is behind would gain nothing from waiting for company.
        at_once = self.inbox.idle and bool(getattr(entry.item, "critical", False))
        self.outbox.processed(self.session.ackable, trio.current_time(), at_once=at_once)
        self._check_recovery()

    # --- For a link (`link.Owner`) ---

    def welcomed(self, frame: wire.Welcome, reset: Gap | None) -> None:
        """The session stands."""
        self._overtaken = False
        self._backoff.connected(trio.current_time())
        self._options.credentials.accepted()
        self.figures.connections += 1
        if self.figures.connections > 1:
            self.figures.reconnects += 1
        if reset is not None:
            self.figures.gaps += 1
            self.figures.resets += 1
            self.inbox.put(Entry(reset, 0, self.session.life))
            logger.warning("the server could not resume the session: an epoch has ended")
        self._set_state("catching_up")
        if self._cut_at is not None:
            self._recover_to = (self.session.life, frame.head)
            self._check_recovery()

    def caught_up(self) -> None:
        """The replay is over."""
        self._set_state("live")

    def overtaken(self) -> None:
        """Another client has the session: two would take it from each other for ever, and what that one acked would
        never be given here. The next hello asks for a session of our own, from where we are."""
        if self._overtaken:  # it was asked for one already, and leaves events out all the same
            self.figures.violations += 1
        self._overtaken = True
        logger.info("another client has used this session: going on in a new one")

    async def keep_token_fresh(self, expires: float | None) -> None:
        """Replaces the token before it runs out."""
        await self._options.credentials.keep_fresh(expires, self.outbox.auth)

    # --- The task ---

    async def run(self) -> None:
        """Keeps connected until there is an end to it. It raises only what a callback raises, and is its own scope:
        cancelling it from outside has no effect, `leave` has."""
        try:
            with self._scope:
                await self._keep()
        finally:
            self._finish()

    def _finish(self) -> None:
        self.over = True
        self.outbox.end(self._why)
        if self._leaving:
            self.inbox.clear()
        self.inbox.wake()
        self._finished.set()
        self._set_state("ended", reason=str(self._why()))

    async def _keep(self) -> None:
        while True:
            self.figures.attempts += 1
            self._set_state("connecting")
            ending = await self._attempt()
            if self._leaving or ending is None:
                return
            now = trio.current_time()
            self._backoff.lost(now)
            if not self._goes_on(ending):
                return
            if ending.after is not None:
                self._backoff.replace(*ending.after)
            self._retry_at = now + self._backoff.next_delay()
            logger.info("offline: %s; next attempt in %.2f s", ending.reason, self._retry_at - now)
            self._set_state("offline", retry_at=self._retry_at, reason=ending.reason)
            await trio.sleep_until(self._retry_at)

    async def _attempt(self) -> Ending | None:
        """One connection, or what came in its way; None where no other attempt makes sense."""
        options = self._options
        try:
            token = await options.credentials.get()
        except NoToken:
            return Ending(reason="no token")
        except TrioWSError as error:
            self._why = lambda error=error: error  # type: ignore[misc]
            return None
        give_up_at = trio.current_time() + ATTEMPT_TIMEOUT
        try:
            with trio.CancelScope(deadline=give_up_at) as attempt:
                if options.open_stream is not None:
                    stream = await options.open_stream()
                else:
                    stream = await open_stream(options.address, options.ssl_context)
        except (OSError, trio.BrokenResourceError) as error:
            return Ending(reason=str(error) or type(error).__name__)
        if attempt.cancelled_caught:
            return Ending(reason="the attempt took too long")
        self._link = link = Link(self, options.upgrade)
        try:
            return await link.run(stream, options.address, self._hello(token), give_up_at)
        finally:
            self._link = None
            if link.welcomed and self._cut_at is None:
                self._cut_at = trio.current_time()

    def _hello(self, token: str | None) -> bytes:
        session, from_ = self.session, self._options.from_
        if session.id is None:
            return wire.hello(token=token, user=self._options.user, from_=from_)
        if from_ == "now" and session.epoch is not None:
            # Should the resume fail, "now" would skip in silence what came while we were away.
            from_ = "pending"
        return wire.hello(
            token=token,
            user=self._options.user,
            session=None if self._overtaken else session.id or None,
            epoch=session.epoch,
            seq=session.received,
            from_=from_,
        )

    def _goes_on(self, ending: Ending) -> bool:
        """Whether there is another attempt after `ending`; where not, `_why` says why."""
        status = ending.status
        if status is not None:
            if status == 429 or status >= 500:
                return True
            self._why = lambda: ConnectionRefused(status, ending.reason)
            return False
        reaction = closing.reaction(ending.code)
        if reaction is closing.Reaction.RETRY:
            return True
        if reaction is closing.Reaction.FRESH_TOKEN and self._options.credentials.refused():
            return True
        self._why = lambda: SessionEnded(ending.code, ending.reason)
        return False

    def _check_recovery(self) -> None:
        if self._cut_at is None or self._recover_to is None:
            return
        life, head = self._recover_to
        if life == self.session.life and self.session.processed >= head:
            self.figures.recovered(trio.current_time() - self._cut_at)
            self._cut_at = self._recover_to = None

    def _set_state(self, name: StateName, *, retry_at: float | None = None, reason: str = "") -> None:
        if name == self._state and name != "offline":
            return
        self._state, self._retry_at, self._reason = name, retry_at, reason
        self._changed.set()
        self._changed = trio.Event()
        if self._options.on_state is not None:
            self._options.on_state(self.state)


def _closed() -> Exception:
    return trio.ClosedResourceError("the client was closed")
