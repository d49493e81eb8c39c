"""One connection's hold on a session: what it is sent and when, what its frames do, and its heartbeat. No sockets.

A `Link` is the way out, and all that differs between a WebSocket and a simulated wire. The attachment lives as long as
its connection does; when a newer one takes the session over, the old one is *fenced*: it sends nothing any more, and
what it receives has no effect.
"""

from __future__ import annotations

import logging
import math
from typing import Any, Final, Protocol

from ..core import closing, wire
from ..core import payload as payloads
from ..core.closing import CloseCode
from ..core.session import Impossible, Session
from ..identity import Identity
from .engine import CHUNK, Engine

logger = logging.getLogger(__name__)

LIVELY: Final = 30.0
"""Seconds after an event during which its user's heartbeats come at the active interval."""


class Link(Protocol):
    """The way out to one client; what the attachment asks of a connection. Nothing here waits, and nothing raises.

    When it has gone, for whatever reason, it says so by `Attachment.detach`.
    """

    def send(self, frames: list[bytes]) -> bool:
        """Hand frames to the transport, in order; False if some of it waits: `Attachment.drained` ends that.

        After `close` they are dropped. No frames: a sign of life by other means, to a plain client.
        """

    def close(self, code: CloseCode, reason: str, retry_after: float | None = None) -> None:
        """Have the connection tell why and close, soon. Only the first call counts."""

    def expect_by(self, deadline: float) -> None:
        """Something must be heard from the client by `deadline`, on the hub's clock, or the connection is dropped."""

    def authenticate(self, token: str) -> None:
        """Check a fresh token, soon."""


class Owner(Protocol):
    """Whoever gave the session out, and takes it back."""

    def park(self, attachment: Attachment, cut_at: float) -> None:
        """The connection is gone: its session is parked, or over if it is a plain one."""

    def end(self, session: Session) -> None:
        """The session is over for good."""

    def take_message(self, session: Session, message: wire.Message) -> None:
        """A message of a user to the application."""

    def take_plain(self, session: Session, message: dict[str, Any]) -> None:
        """A message of a plain client, with a type and a payload."""


class Attachment:
    """A connection's hold on a session of protocol v1, or of a plain client.

    Attributes:
      session: what it holds.
      fenced: a newer connection has taken over, or the session is over: this one counts no more.
      deaf: what it receives has no effect: it is fenced, or the client broke the protocol.
      written_at: when something was last handed to the link.
      heard_at: when something was last heard from the client.
      expires_at: when its credentials cease to hold, on the hub's clock.
      greeted_at: when its hello was heard.
      cut_at: when the cut happened that this connection has yet to mend; infinity where there is none.
    """

    __slots__ = (
        "_answered",
        "_asked_at",
        "_catch_up",
        "_engine",
        "_in_process",
        "_link",
        "_mistakes",
        "_owner",
        "_promised",
        "cut_at",
        "deaf",
        "expires_at",
        "fenced",
        "greeted_at",
        "heard_at",
        "marked",
        "session",
        "waiting",
        "written_at",
    )

    def __init__(
        self,
        engine: Engine,
        owner: Owner,
        session: Session,
        link: Link,
        now: float,
        *,
        in_process: bool = False,
    ) -> None:
        self._engine = engine
        self._owner = owner
        self._link = link
        self.session = session
        self.fenced = self.deaf = self.marked = self.waiting = False
        self.written_at = -math.inf
        self.heard_at = self.greeted_at = now
        self._promised = engine.config.heartbeat_active
        self._asked_at = now  # since when a sign of life is waited for, unless one was heard since
        self._in_process = in_process
        self._mistakes = self._answered = self._catch_up = 0
        self.cut_at = self.expires_at = math.inf

    # -- the way out

    def begin(self, now: float, welcome: bytes | None) -> None:
        """Say welcome, and start the replay.

        Args:
          welcome: the frame, for clients of protocol v1.
        """
        if welcome is None:
            self._promised = self._engine.config.heartbeat_idle
            self.written_at = now
        else:
            self._send([welcome, *self._standing()], now)
        self._link.expect_by(now + self._promised + self._engine.config.heartbeat_grace)
        self._engine.flusher.mark(self, urgent=True)
        self._arm()

    def _standing(self) -> list[bytes]:
        """A frame with the questions that wait for the user, where there are any."""
        box = self.session.box
        questions = [] if box.runs is None else box.runs.standing(box.safe)
        return [wire.standing(box.safe, questions)] if questions else []

    def recovers(self, cut_at: float, head: int, now: float) -> None:
        """Note that this connection mends a cut, and is through with it once everything up to `head` is acked."""
        self.cut_at, self._catch_up = cut_at, head
        self._note_recovery(now)

    def renew(self, identity: Identity) -> None:
        """Its credentials hold until `identity` expires."""
        engine = self._engine
        self.expires_at = (
            math.inf if identity.expires is None else engine.clock() + identity.expires - engine.wall_clock()
        )
        self._arm()

    @property
    def user(self) -> str:
        """Whose session it holds."""
        return self.session.box.user

    @property
    def is_flushed(self) -> bool:
        """Nothing waits for it that it could still be sent."""
        return self.fenced or not (self.session.pending or self.session.blocked is not None)

    @property
    def is_through(self) -> bool:
        """It was sent all there is, and has acked it."""
        return self.fenced or (self.is_flushed and self.session.acked >= self.session.cursor)

    @property
    def can_take(self) -> bool:
        """Whether something waits for it, and it could be written now."""
        return not self.fenced and self.session.pending and self.session.blocked is None

    def flush(self, now: float) -> None:
        """Write what is pending for the session: called by the flusher. Errors end this connection alone."""
        session = self.session
        if self.fenced or session.blocked is not None or self._engine.suspended:
            return
        try:
            frames = session.take(now, self._engine.chunk)
            if frames:
                self._send(frames, now)
            if session.plain:
                session.ack_sent(now)
            self._engine.deadlines.move(self._engine.confirmations.deadline)
            self._engine.react()
            if frames and session.pending:  # where none could be taken, something is to be durable first
                self._engine.flusher.mark(self, urgent=True)
            self._arm_redelivery()
        except Exception:
            logger.exception("sending to a session failed")
            self.close(closing.INTERNAL_ERROR, "internal error")

    def _send(self, frames: list[bytes], now: float, *, promised: float | None = None) -> None:
        """Hand frames to the link; the next one comes within `promised` seconds, the active interval unless told."""
        config = self._engine.config
        self.written_at = now
        if not self.session.plain:
            before, self._promised = self._promised, promised or config.heartbeat_active
            if self._promised < before:
                self._asked_at = now
                self._link.expect_by(now + self._promised + config.heartbeat_grace)
                self._arm()
        if not self._link.send(frames) and self.session.blocked is None:
            self.session.blocked = now
            self.session.box.may_relieve()

    def answer(self, frame: bytes) -> None:
        """Send one frame that is no event. A client that asks on and on and takes no answers is closed with 4502."""
        if self.fenced:
            return
        if self.session.blocked is not None:
            self._answered += len(frame)
            if self._answered > CHUNK:
                self.close(closing.SLOW_CONSUMER, "answers are not taken")
                return
        self._send([frame], self._engine.clock())
        self._arm()

    def resume(self) -> None:
        """The hub is not suspended any more: what waits is written."""
        if self.session.pending:
            self._engine.flusher.mark(self, urgent=True)
        self._arm()

    def drained(self) -> None:
        """The transport has taken all that it was handed."""
        if self.fenced:
            return
        self.session.blocked = None
        self._answered = 0
        if self.session.pending:
            self._engine.flusher.mark(self, urgent=True)
        self._arm()
        self._engine.react()

    # -- the way in

    def receive(self, message: bytes | str) -> None:
        """Handle what the client sent: one frame, or a batch; of a plain client, a message.

        Raises nothing: a mistake is answered, what is no frame at all closes the connection.
        """
        if self.deaf:
            return
        now = self._engine.clock()
        self.heard(now)
        if self.session.plain:
            self._receive_plain(message)
            return
        try:
            frames = wire.decode_client(message)
        except wire.NotAFrame as error:
            self.breach(error.reason)
            return
        self._handle_all(frames, now)

    def _receive_plain(self, message: bytes | str) -> None:
        """A plain client's message: for the application, and never answered."""
        try:
            value = payloads.decode(message if isinstance(message, bytes) else message.encode())
        except ValueError:
            value = None
        if isinstance(value, dict) and isinstance(value.get("type"), str) and "payload" in value:
            self._owner.take_plain(self.session, value)
            return
        self._engine.mistakes += 1
        self._mistakes += 1
        if self._mistakes >= wire.MISTAKES_TO_CLOSE:
            self.breach("too many messages without type and payload")

    def _handle_all(self, frames: list[wire.ClientFrame | wire.Mistake], now: float) -> None:
        try:
            for frame in frames:
                if self.deaf:
                    return
                try:
                    self._handle(frame, now)
                except Impossible as error:
                    self._mistake(str(error))
        except Exception:
            logger.exception("handling a frame failed")
            self.close(closing.INTERNAL_ERROR, "internal error")
        finally:
            self._engine.react()

    def heard(self, now: float) -> None:
        """The client gave a sign of life."""
        self.heard_at = now
        self._link.expect_by(now + self._promised + self._engine.config.heartbeat_grace)

    def _handle(self, frame: wire.ClientFrame | wire.Mistake, now: float) -> None:
        session = self.session
        match frame:
            case wire.Ack(seq=seq):
                if session.ack(seq, now):
                    self._note_recovery(now)
                    self._arm_redelivery()  # what is the oldest now may be due before what was
            case wire.Pong():
                pass
            case wire.Ping():
                self.answer(wire.PONG)
            case wire.Nack(seq=seq):
                if session.nack(seq, now):
                    self._arm()
                else:
                    code = closing.PROTOCOL_ERROR.code
                    self.answer(wire.error(code, f"nack {seq}: no longer held", fatal=False))
            case wire.Message():
                self._owner.take_message(session, frame)
            case wire.Auth(token=token):
                self._link.authenticate(token)
            case wire.Bye():
                self._owner.end(session)
                self.close(closing.NORMAL, "bye")
            case wire.Hello():
                self._mistake("hello was said already")
            case wire.Mistake(reason=reason):
                self._mistake(reason)

    def _mistake(self, reason: str) -> None:
        self._engine.mistakes += 1
        self._mistakes += 1
        if self._mistakes >= wire.MISTAKES_TO_CLOSE:
            self.breach(f"{reason}; too many mistakes")
        else:
            self.answer(wire.error(closing.PROTOCOL_ERROR.code, reason, fatal=False))

    def _note_recovery(self, now: float) -> None:
        if self.cut_at != math.inf and self.session.acked >= self._catch_up:
            self._engine.recovery.record(now - self.cut_at)
            self.cut_at = math.inf

    # -- time

    def on_timer(self, now: float) -> float:
        """What is due: redelivery, a heartbeat, or the end of a connection that takes or acks nothing."""
        if self.fenced:
            return math.inf
        try:
            return self._next() if self._see_to(now) else math.inf
        except Exception:
            logger.exception("a session's timer failed")
            self.close(closing.INTERNAL_ERROR, "internal error")
            return math.inf

    def _see_to(self, now: float) -> bool:
        """Do what is due; returns whether the connection goes on."""
        session, config = self.session, self._engine.config
        if self.expires_at <= now:
            self.close(closing.UNAUTHENTICATED, "the token has expired")
            return False
        if self._in_process:
            return True
        if session.blocked is not None:
            if session.blocked + config.stall_timeout <= now:
                self.close(closing.SLOW_CONSUMER, f"nothing was taken for {config.stall_timeout:g} s")
                return False
            return True
        if not session.plain and not self._engine.suspended:
            if session.exhausted(now):
                self.close(closing.TIMEOUT, "nothing was acked through all redeliveries")
                return False
            if frames := session.redeliver(now):
                self._send(frames, now)
        if self._beat_at() <= now:
            self._beat(now)
        return True

    def _beat(self, now: float) -> None:
        """A heartbeat, that says by when the next frame comes, and asks for an answer."""
        config, box = self._engine.config, self.session.box
        self._asked_at = now
        if self.session.plain:
            self._link.send([])
            self.written_at = now
            return
        lively = box.unconfirmed > 0 or now - box.last_event_at < LIVELY
        promised = config.heartbeat_active if lively else config.heartbeat_idle
        self._send([wire.ping(box.ready, promised)], now, promised=promised)

    def _beat_at(self) -> float:
        """When nothing will have been written, or nothing heard, for as long as was promised.

        A client that is busy with an event says nothing of its own accord, so it is asked even while events flow.
        """
        return min(self.written_at, max(self.heard_at, self._asked_at)) + self._promised

    def _next(self) -> float:
        session = self.session
        if self._in_process:
            return self.expires_at
        if session.blocked is not None:
            return min(self.expires_at, session.blocked + self._engine.config.stall_timeout)
        due = min(self.expires_at, self._beat_at())
        return due if session.plain or self._engine.suspended else min(due, session.deadline())

    def _arm(self) -> None:
        if not self.fenced:
            self._engine.arm(self, self._next())

    def _arm_redelivery(self) -> None:
        """As `_arm`, where nothing but redelivery can be due earlier than before: a timer is never put off."""
        at = self.session.deadline()
        if at < math.inf and not self.fenced:
            self._engine.arm(self, self._next())

    # -- the end

    def detach(self, *, silent: bool = False) -> None:
        """The connection is gone: the session is parked (a plain one ends).

        Args:
          silent: it was dropped because nothing was heard; then the cut happened when something last was.
        """
        if not self.fenced:
            self._owner.park(self, self.heard_at if silent else self._engine.clock())

    def displaced(self, code: CloseCode, reason: str) -> None:
        """Close it, and fence it off at once."""
        self.fence()
        self.close(code, reason)

    def drain(self, low: float, high: float) -> None:
        """Tell the client that the server goes away, and when to come back."""
        if not self.fenced and not self.session.plain:
            self.answer(wire.drain(low, high))

    def close(self, code: CloseCode, reason: str, retry_after: float | None = None) -> None:
        """Have the connection tell why and close; the session is parked when it has gone. Raises nothing."""
        try:
            self._link.close(code, reason, retry_after)
        except Exception:
            logger.exception("closing a connection failed")
            self.detach()

    def breach(self, reason: str) -> None:
        """Close it with 4400. What has come behind the breach, and has been read with it maybe, has no effect."""
        self.deaf = True
        self.close(closing.PROTOCOL_ERROR, reason)

    def fence(self) -> None:
        """From here on it sends nothing, and what it receives has no effect."""
        self.fenced = self.deaf = True
        self._engine.timers.disarm(self)
