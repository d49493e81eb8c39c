"""The reception: gives connections their sessions, and takes the sessions back when the connections go."""

from __future__ import annotations

from typing import Any

from ..core import closing, wire
from ..core.limits import MAX_USERS, KeyedBuckets, spread
from ..core.pool import Ask, Refused
from ..core.session import Session
from ..identity import Identity
from .attachment import Attachment, Link
from .engine import Engine
from .inbox import Context, Inbox, OnMessage


class Reception:
    """Attaches, parks and ends sessions.

    Attributes:
      inbox: where users' messages go.
      handlers: what takes them, by the path of the listener, for connections that other nodes relay.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.inbox = Inbox(engine)
        self.handlers: dict[str, OnMessage | None] = {}
        config = engine.config
        self._rates = KeyedBuckets[str](config.user_connect_rate, config.user_connect_burst, MAX_USERS)
        self._rate_refusals = 0

    def attach(
        self,
        identity: Identity,
        ask: Ask,
        link: Link,
        *,
        on_message: OnMessage | None = None,
        in_process: bool = False,
    ) -> Attachment | Refused:
        """Give a connection that has said hello its session: welcome is sent, and the replay begins. The user's log
        was loaded before, or it is refused for now.

        Args:
          identity: who it is.
          ask: what its hello asks for.
          link: the way out.
          on_message: what takes the user's messages.
          in_process: there is no network on the way, so no heartbeats and no redelivery: who is slow is waited for.

        Returns: its hold on the session; or why it can't have one.
        """
        if self.engine.draining or self.engine.closed:
            return Refused(
                closing.DRAINING, "the server is going away", self.engine.retry_after, counted="draining"
            )
        if not in_process and self.is_revoked(
            identity
        ):  # it may have been just now, while the request was answered
            return Refused(closing.UNAUTHENTICATED, "no valid credentials", counted="revoked")
        if self.engine.suspended or not self.engine.buffer.may_be_here(identity.user):
            return Refused(
                closing.DRAINING,
                "the user's events can't be read now",
                self.engine.retry_after,
                counted="store",
            )
        now = self.engine.clock()
        if not in_process and not self._rates.take(identity.user, now):
            self._rate_refusals += 1
            after = spread(1 + self._rates.wait(identity.user, now), self._rate_refusals)
            return Refused(closing.DRAINING, "too many connections of this user", after, counted="user_rate")
        box = self.engine.buffer.mailbox(identity.user)
        held: Attachment | None = getattr(box.sessions.get(ask.session or ""), "link", None)
        if held is not None and held.greeted_at > ask.at:
            return Refused(
                closing.SUPERSEDED, "this session has connected elsewhere since", counted="superseded"
            )
        admitted = self.engine.pool.admit(box, ask, now)
        if isinstance(admitted, Refused):
            return admitted
        session = admitted.session
        if session.link is not None:
            old: Attachment = session.link
            cut_at = min(old.heard_at, old.cut_at)
            self.engine.let_go(old)
            old.displaced(closing.SUPERSEDED, "this session connected elsewhere")
        else:
            cut_at = session.cut_at
        for displaced in admitted.displaced:
            self._displace(displaced)
        known = session.id in box.sessions
        attachment = Attachment(self.engine, self, session, link, now, in_process=in_process)
        attachment.greeted_at = ask.at
        self.engine.pool.attach(admitted, attachment, now)
        self.engine.attachments[attachment] = None
        if session.context is None:
            session.context = Context(identity, on_message)
        else:
            session.context.identity, session.context.on_message = identity, on_message
        if known:
            attachment.recovers(cut_at, box.ready, now)
        attachment.begin(now, None if ask.plain else self._welcome(session, identity, admitted.resumed))
        attachment.renew(identity)
        self.engine.react()
        return attachment

    def is_revoked(self, identity: Identity) -> bool:
        """Whether these credentials were issued before their user was revoked."""
        wall_now = self.engine.wall_clock()
        return self.engine.revocations.covers(identity.user, identity.issued, wall_now)

    def _welcome(self, session: Session, identity: Identity, resumed: bool) -> bytes:
        config = self.engine.config
        return wire.welcome(
            session=session.id,
            epoch=session.box.epoch,
            seq=session.cursor,
            head=session.box.ready,
            resumed=resumed,
            heartbeat_active=config.heartbeat_active,
            heartbeat_idle=config.heartbeat_idle,
            heartbeat_grace=config.heartbeat_grace,
            ack_events=config.ack_events,
            ack_delay=config.ack_delay,
            expires=identity.expires,
        )

    def park(self, attachment: Attachment, cut_at: float) -> None:
        """The connection is gone: its session is parked, or over if it is a plain one."""
        if attachment.fenced:
            return
        self.engine.let_go(attachment)
        session = attachment.session
        if session.plain:
            self._end(session)
        else:
            session.cut_at = min(cut_at, attachment.cut_at)
            for old in self.engine.pool.park(session, self.engine.clock()):
                self.engine.pool.end(old, self.engine.clock())
        self.engine.react()

    def end(self, session: Session) -> None:
        """The session is over for good. Its connection, if it has one, is fenced off; the caller closes it."""
        self._end(session)
        self.engine.react()

    def dismiss(self, session: Session) -> None:
        """End a session on the operator's word; its connection, if it has one, is closed with 4403."""
        attachment: Attachment | None = session.link
        self.end(session)
        if attachment is not None:
            attachment.close(closing.FORBIDDEN, "ended by the operator")

    def _end(self, session: Session) -> None:
        if session.link is not None:
            self.engine.let_go(session.link)
        self.engine.pool.end(session, self.engine.clock())
        self.engine.buffer.trim()

    def _displace(self, session: Session) -> None:
        """A session makes way for another of its user."""
        old: Attachment | None = session.link
        self._end(session)
        if old is not None:
            self.engine.pool.superseded += 1
            old.displaced(closing.SUPERSEDED, "the user's limit took this connection")

    def take_message(self, session: Session, message: wire.Message) -> None:
        """A message of a user to the application."""
        self.inbox.put(session, message)

    def take_plain(self, session: Session, message: dict[str, Any]) -> None:
        """A message of a plain client, with a type and a payload."""
        self.inbox.put_plain(session, message.get("id"), message["type"], message["payload"])
