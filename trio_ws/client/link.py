"""One connection of a client: hello and welcome, then one task that reads and one that writes, until it ends.

How it ended is a value, `Ending`; what follows from that is the client's business.

The reader waits for the application in one case only. While the inbox is full it stops reading, so that TCP holds the
server up: memory stays bounded by the inbox and one message. The server's pings lie unread behind the held data then,
so the writer sends one of its own each `heartbeat.active` seconds: any frame counts as life. The server may still close
the connection for a consumer that slow; what was held is then asked for again by the resume. The liveness deadline
rests meanwhile: who does not listen can't tell silence.
"""

from __future__ import annotations

import logging
import math
from typing import Final, Protocol

import attrs
import trio

from ..core import closing, wire
from ..core.received import event_of, gap_of, told_of
from ..event import Gap
from .groups import sole_error
from .inbox import Entry, Inbox
from .outbox import Outbox
from .session import Overtaken, Session, Verdict, Violation
from .state import Figures
from .transport import Address, Closed, Malformed, Refused, Upgrade, WebSocket

ATTEMPT_TIMEOUT: Final = 4.0
"""Seconds that an attempt has in all: TCP, TLS, upgrade, welcome."""
WRITE_TIMEOUT: Final = 5.0
"""Seconds that the transport may take for one message."""
LARGEST_CONTROL_FRAME: Final = 131
"""Bytes. A piece of data above this holds part of a message, so it is a sign of life of the server itself, not of a
proxy's pings: a large event on a slow line must not look like silence."""

logger = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class Ending:
    """How a connection, or an attempt at one, ended.

    Attributes:
      code: the close code; 1006 for whatever broke.
      reason: in words; what the server said, or what went wrong here.
      after: the server's word on when to come back: a range in seconds.
      status: the HTTP status, where the upgrade was refused.
    """

    code: int = closing.BROKEN.code
    reason: str
    after: tuple[float, float] | None = None
    status: int | None = None


class Owner(Protocol):
    """What a connection needs of its client."""

    session: Session
    inbox: Inbox
    outbox: Outbox
    figures: Figures

    def welcomed(self, frame: wire.Welcome, reset: Gap | None) -> None:
        """The session stands; `reset` if an earlier life of it is void."""

    def caught_up(self) -> None:
        """The server has said that its replay is over."""

    def overtaken(self) -> None:
        """The session is another client's too, and that one is further."""

    async def keep_token_fresh(self, expires: float | None) -> None:
        """Sends a fresh token before `expires`, where there is one to be had."""


class Link:
    """One connection. `run` it once; the other methods are for other tasks meanwhile, and never block.

    Args:
      owner: the client that it is for.
      upgrade: makes the WebSocket.

    Attributes:
      welcomed: the server has answered `hello`.
    """

    def __init__(self, owner: Owner, upgrade: Upgrade) -> None:
        self.welcomed = False
        self._owner = owner
        self._upgrade = upgrade
        self._session, self._inbox, self._outbox = owner.session, owner.inbox, owner.outbox
        self._figures = owner.figures
        self._ending: Ending | None = None
        self._scope: trio.CancelScope | None = None
        self._listening = trio.CancelScope()
        self._heartbeat = wire.Heartbeat(active=math.inf, idle=math.inf, grace=0.0)
        self._interval = math.inf
        self._expires: float | None = None
        self._fatal: wire.ErrorFrame | None = None
        self._after: tuple[float, float] | None = None
        self._closing = False
        self._bye = False

    # --- From outside ---

    def close(self, *, bye: bool) -> None:
        """Ends it in order: what is owed is sent, `bye` if wanted, then the close with 1000. The peer may never answer:
        whoever runs this bounds it."""
        self._closing, self._bye = True, bye
        self._outbox.wake()

    def cut(self) -> None:
        """Ends it as a network would: without a word."""
        self._end(Ending(reason="cut"))

    # --- The life of it ---

    async def run(self, stream: trio.abc.Stream, address: Address, hello: bytes, give_up_at: float) -> Ending:
        """Lives until the connection ends; closes the stream.

        Args:
          give_up_at: when to abandon the attempt if there is no welcome yet, on Trio's clock.

        Raises nothing but what a callback of the owner raises. Cancelling it closes the stream by force.
        """
        error: BaseException | None = None
        try:
            async with trio.open_nursery() as nursery:
                self._scope = nursery.cancel_scope
                await self._talk(nursery, stream, address, hello, give_up_at)
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            error = sole_error(group)
        finally:
            self._outbox.disconnected()
            await trio.aclose_forcefully(stream)
        if error is not None:
            raise error
        return self._ending or Ending(reason="ended")

    def _end(self, ending: Ending) -> None:
        """The first ending counts."""
        if self._ending is None:
            fatal = self._fatal
            if fatal is not None and not self._closing:
                # It tells what the close after it says, which may get lost or changed on the way.
                ending = attrs.evolve(ending, code=fatal.code, reason=fatal.reason or ending.reason)
            self._ending = attrs.evolve(ending, after=ending.after or self._after)
        if self._scope is not None:
            self._scope.cancel()

    async def _talk(
        self,
        nursery: trio.Nursery,
        stream: trio.abc.Stream,
        address: Address,
        hello: bytes,
        give_up_at: float,
    ) -> None:
        try:
            with trio.CancelScope(deadline=give_up_at) as attempt:
                transport = await self._upgrade(nursery, stream, address, self._on_data)
                await transport.send(hello)
                while not self.welcomed:
                    self._take(await transport.receive())
            if attempt.cancelled_caught:
                self._end(Ending(reason="the attempt took too long"))
                return
            nursery.start_soon(self._write, transport)
            nursery.start_soon(self._owner.keep_token_fresh, self._expires)
            await self._read(transport)
        except Refused as refused:
            after = None if refused.retry_after is None else (refused.retry_after, refused.retry_after)
            self._end(Ending(reason=refused.reason, after=after, status=refused.status))
        except Closed as closed:
            await self._over(closed)
        except Overtaken:
            self._owner.overtaken()
            self._end(Ending(reason="another client has used this session"))
        except (Violation, Malformed, wire.NotAFrame) as error:
            self._figures.violations += 1
            logger.warning("the server broke the protocol: %s", error)
            self._end(Ending(reason=f"protocol violation: {error}"))

    async def _over(self, closed: Closed) -> None:
        if self._closing:
            # The writer is at the closing handshake, of which this is a part; it ends the connection.
            await trio.sleep_forever()
        row = closing.TABLE.get(closed.code)
        self._end(Ending(code=closed.code, reason=closed.reason or (row.name if row else "closed")))

    # --- Reading ---

    async def _read(self, transport: WebSocket) -> None:
        with self._listening:
            self._heard(self._interval)
            while True:
                self._take(await transport.receive())
                if self._inbox.full:
                    await self._hold()
        if self._closing:
            await trio.sleep_forever()
        self._end(Ending(reason="the server fell silent"))

    async def _hold(self) -> None:
        """Waits until the inbox has room, and shows the server that we live."""
        self._listening.deadline = math.inf
        while self._inbox.full:
            with trio.move_on_after(self._heartbeat.active) as nap:
                await self._inbox.wait_room()
            if nap.cancelled_caught:
                self._outbox.ping()
        self._heard(self._interval)

    def _heard(self, interval: float) -> None:
        """Something came; the next will within `interval`."""
        self._interval = interval
        self._listening.deadline = trio.current_time() + interval + self._heartbeat.grace

    def _on_data(self, size: int) -> None:
        if size > LARGEST_CONTROL_FRAME and self.welcomed and self._listening.deadline != math.inf:
            self._heard(self._interval)

    def _take(self, message: str) -> None:
        """One message from the server."""
        frames = wire.decode_server(message)
        interval = self._interval
        share = len(message) // max(1, len(frames))
        for frame in frames:
            match frame:
                case wire.EventFrame():
                    self._event(frame, share)
                    interval = self._heartbeat.active
                case wire.ServerPing():
                    self._session.ping(frame.seq)
                    self._outbox.pong()
                    interval = _positive(frame.next, "ping: next")
                case wire.GapFrame():
                    self._gap(frame, share)
                case wire.SnapshotFrame() | wire.StandingFrame():
                    self._need_welcome("a run's state")
                    self._figures.events += 1
                    self._inbox.put(Entry(told_of(frame), 0, self._session.life, share))
                case wire.Live():
                    self._need_welcome("live")
                    self._session.live(frame.seq)
                    self._owner.caught_up()
                case wire.Accepted():
                    self._outbox.answered(frame.id)
                case wire.Rejected():
                    self._outbox.answered(frame.id, frame.error)
                case wire.Welcome():
                    self._welcome(frame)
                    interval = self._heartbeat.active
                case wire.Drain():
                    self._after = frame.after
                case wire.ErrorFrame():
                    self._error(frame)
                case _:  # a pong: heard, and that is all
                    pass
        if self.welcomed:
            self._heard(interval)

    def _need_welcome(self, kind: str) -> None:
        if not self.welcomed:
            raise Violation(f"{kind}: before welcome")

    def _welcome(self, frame: wire.Welcome) -> None:
        if self.welcomed:
            raise Violation("welcome: a second one")
        self._heartbeat = wire.Heartbeat(
            active=_positive(frame.heartbeat.active, "welcome: heartbeat.active"),
            idle=_positive(frame.heartbeat.idle, "welcome: heartbeat.idle"),
            grace=_positive(frame.heartbeat.grace, "welcome: heartbeat.grace"),
        )
        session = self._session
        life = session.life
        fresh = session.epoch is None
        reset = session.welcome(frame.session, frame.epoch, frame.seq, frame.head, frame.resumed)
        self.welcomed = True
        self._expires = frame.expires
        redo = self._inbox.redo
        self._outbox.connected(
            events=max(1, frame.ack.events),
            delay=max(0.0, frame.ack.delay),
            # A life that begins here owes no ack for where it begins.
            processed=0 if fresh or session.life != life else session.ackable,
            nack=redo.seq or None if redo is not None and redo.life == session.life else None,
        )
        self._owner.welcomed(frame, reset)

    def _event(self, frame: wire.EventFrame, size: int) -> None:
        self._need_welcome("event")
        session, merged = self._session, frame.merged
        verdict = session.event(
            frame.seq, frame.id, retry=frame.retry, merged=(merged.from_, merged.n) if merged else None
        )
        if verdict is Verdict.REPEAT:
            if not self._inbox.redelivered(session.life, frame.seq, frame.retry, trio.current_time()):
                self._figures.duplicates += 1
                if not frame.retry:  # the session is a new one, from a little earlier
                    self._outbox.processed(session.ackable, trio.current_time(), at_once=False)
            return
        event = None
        if verdict is Verdict.KNOWN:
            self._figures.duplicates += 1
        else:
            self._figures.events += 1
            event = event_of(frame)
        self._inbox.put(Entry(event, frame.seq, session.life, size))

    def _gap(self, frame: wire.GapFrame, size: int) -> None:
        self._need_welcome("gap")
        if not self._session.gap(frame.first, frame.last):
            return
        self._figures.gaps += 1
        self._inbox.put(Entry(gap_of(frame), frame.last, self._session.life, size))

    def _error(self, frame: wire.ErrorFrame) -> None:
        if frame.fatal:
            self._fatal = frame
            if frame.retry_after is not None:
                self._after = (frame.retry_after, frame.retry_after)
        else:
            logger.warning("the server reports a mistake of this client: %s %s", frame.code, frame.reason)

    # --- Writing ---

    async def _write(self, transport: WebSocket) -> None:
        """Everything that this side says after `hello` goes through here."""
        try:
            while True:
                await self._outbox.wait()
                last = self._closing  # as it is now: what is said from here on goes with the next round
                messages = self._outbox.collect()
                if last and self._bye:
                    messages.append(wire.BYE)
                for message in messages:
                    with trio.move_on_after(WRITE_TIMEOUT) as patience:
                        await transport.send(message)
                    if patience.cancelled_caught:
                        self._end(Ending(reason="the server takes nothing"))
                        return
                if last:
                    await transport.close(closing.NORMAL.code)
                    break
        except Closed:
            # The reader hears of it too, and knows more. But while closing it waits for us.
            if not self._closing:
                return
        self._end(Ending(code=closing.NORMAL.code, reason="closed by this client"))


def _positive(value: float, name: str) -> float:
    if not 0 < value < math.inf:
        raise Violation(f"{name} is no time")
    return value
