"""One connection: a session over a WebSocket, from who was let in to its end.

It is the link between a `WebSocket` and an `Attachment`: what arrives is handed over as it comes, what is to be sent
is framed and handed on, and how it ends is decided here once (`_verdict`), told in an `error` frame and a close code.
"""

from __future__ import annotations

import logging
import math
from typing import Final

import trio

from ..core import closing, wire
from ..core import payload as payloads
from ..core.closing import CloseCode
from ..core.pool import Refused
from ..errors import StoreUnavailable
from ..hub import Attachment, Hub
from .auth import checked
from .ending import BinaryMessage, TransportClosed
from .handshake import Arrival, Handshake, Policy, Verdict, credentials
from .tasks import Tasks
from .websocket import WebSocket

logger = logging.getLogger(__name__)

PLAIN_PING: Final = b"\x89\x00"
"""A WebSocket ping: what a plain client's heartbeat is."""


class Connection:
    """Serves one WebSocket.

    Args:
      hub: whose sessions it may hold.
      transport: the WebSocket; its request is not answered yet.
      policy: what its listener prescribes.
      nursery: where it has what it does now and then.
    """

    __slots__ = (
        "_armed_for",
        "_attaching",
        "_attachment",
        "_expected_by",
        "_fresh_token",
        "_hub",
        "_plain",
        "_plain_mistakes",
        "_policy",
        "_tasks",
        "_told",
        "_transport",
        "_verdict",
        "_welcome",
    )

    def __init__(self, hub: Hub, transport: WebSocket, policy: Policy, nursery: trio.Nursery) -> None:
        self._hub = hub
        self._transport = transport
        self._policy = policy
        self._tasks = Tasks(nursery)
        self._plain = self._told = self._attaching = False
        self._welcome = b""
        self._verdict: Verdict | None = None
        self._attachment: Attachment | None = None
        self._fresh_token: str | None = None
        self._plain_mistakes = 0
        self._expected_by = self._armed_for = math.inf

    async def run(self, handshake: Handshake) -> None:
        """Serve it to its end.

        Raises: TransportClosed where it broke during the handshake. Cancelled, it is cut, and the session is parked.
        """
        try:
            arrival = await handshake.run(self._hub, self._transport, self._policy)
        except trio.Cancelled:
            # It is late, or the server goes away, and the client can be told: that is shielded, and soon over.
            self._verdict = handshake.verdict
            await self._end()
            raise
        handshake.over()
        upgraded = arrival is not None
        if isinstance(arrival, Arrival):
            arrival = self._attach(arrival)
        if isinstance(arrival, Verdict):
            self._hub.engine.refusals.count(arrival.counted)
            self._verdict = arrival
        elif self._attachment is not None:
            try:
                await self._listen()
            finally:
                silent = self._verdict is not None and self._verdict.code is closing.TIMEOUT
                self._attachment.detach(silent=silent)
                self._hub.engine.timers.disarm(self)
                self._tasks.cancel()
        await self._end()
        if upgraded and (ended := self._transport.ended) is not None:
            self._hub.engine.count_close(ended.code, ended.by)

    # -- the session

    def _attach(self, arrival: Arrival) -> Verdict | None:
        """Take up a session; returns why there is none."""
        hub = self._hub
        self._plain, self._attaching = arrival.ask.plain, True
        attached = hub.attach(arrival.identity, arrival.ask, self, on_message=self._policy.on_message)
        self._attaching = False
        if isinstance(attached, Refused):
            return Verdict(attached.code, attached.reason, attached.retry_after, counted=attached.counted)
        self._attachment = attached
        attached.flush(hub.engine.clock())  # what is replayed goes with the welcome, in one write
        if self._welcome:
            welcome, self._welcome = self._welcome, b""
            try:
                self._transport.send_nowait(welcome)
            except TransportClosed:
                pass  # found out by who receives
        self._transport.on_drained = attached.drained
        self._transport.open_lane(self._take_plain if self._plain else attached.receive)
        if arrival.rest:
            attached.handle(arrival.rest)
        return None

    async def _listen(self) -> None:
        """Hand over what does not take the lane, until the WebSocket ends."""
        attached = self._attachment
        assert attached is not None
        take = self._take_plain if self._plain else attached.receive
        try:
            while True:
                take(await self._transport.receive())
        except BinaryMessage:
            self.close(closing.PROTOCOL_ERROR, "a binary message")
        except TransportClosed as closed:
            logger.debug("%s: %s", self._transport.remote, closed)

    def _take_plain(self, message: bytes | str) -> None:
        """A plain client's message: for the application, and never answered."""
        attached = self._attachment
        if attached is None or attached.deaf:
            return
        attached.heard(self._hub.engine.clock())
        try:
            value = payloads.decode(message if isinstance(message, bytes) else message.encode())
            if (
                not isinstance(value, dict)
                or not isinstance(value.get("type"), str)
                or "payload" not in value
            ):
                raise ValueError("not a message")
        except ValueError:
            self._plain_mistakes += 1
            self._hub.engine.mistakes += 1
            if self._plain_mistakes >= wire.MISTAKES_TO_CLOSE:
                attached.breach("too many messages without type and payload")
            return
        self._hub.reception.inbox.put_plain(
            attached.session, value.get("id"), value["type"], value["payload"]
        )

    # -- as a link

    def send(self, frames: list[bytes]) -> bool:
        """Frame and hand on; False where the network takes nothing more for now."""
        if not self._plain:
            data = wire.text_message(wire.batch(frames))
        elif frames:
            data = b"".join([wire.text_message(frame) for frame in frames])
        else:
            data = PLAIN_PING
        if self._attaching:
            self._welcome += (
                data  # more than the welcome, where its coming made room for a publisher who waits
            )
            return True
        if self._welcome:
            data, self._welcome = self._welcome + data, b""
        try:
            return self._transport.send_nowait(data)
        except TransportClosed:
            return False

    def close(self, code: CloseCode, reason: str, retry_after: float | None = None) -> None:
        """End the connection with this code; the first that is given counts."""
        if self._verdict is None:
            self._verdict = Verdict(code, reason, retry_after)
            self._tasks.start_soon(self._end)

    def expect_by(self, deadline: float) -> None:
        """Move the liveness deadline. That it moves later is seen when the old one comes, so it costs nothing."""
        self._expected_by = deadline
        if deadline < self._armed_for:
            self._armed_for = deadline
            self._hub.engine.arm(self, deadline)

    def on_timer(self, now: float) -> float:
        """The time has come by which something was to be heard, as it was told some time ago."""
        until = self._expected_by
        if self._plain:  # a pong is a sign of life too, and no message
            config = self._hub.config
            until = max(until, self._transport.last_received + config.heartbeat_idle + config.heartbeat_grace)
        if until <= now:
            self.close(closing.TIMEOUT, "nothing was heard")
            until = math.inf
        self._armed_for = until
        return until

    def authenticate(self, token: str) -> None:
        """Check a fresh token, the newest that was sent; one check at a time."""
        busy = self._fresh_token is not None
        self._fresh_token = token
        if not busy and self._verdict is None:
            self._tasks.start_soon(self._renew)

    async def _renew(self) -> None:
        assert self._attachment is not None
        user = self._attachment.session.box.user
        while self._fresh_token is not None:
            token = self._fresh_token
            try:
                identity = await checked(self._policy.authenticate, credentials(self._transport, token, user))
            except StoreUnavailable:
                self.close(closing.DRAINING, "the fresh token can't be checked now", self._hub.retry_after)
                return
            if token == self._fresh_token:
                self._fresh_token = None
            if identity is None or self._hub.is_revoked(identity):
                self.close(closing.UNAUTHENTICATED, "the fresh token is not valid")
            elif identity.user != user:
                self.close(closing.FORBIDDEN, "the fresh token is another user's")
            else:
                self._attachment.renew(identity)

    # -- the end

    async def _end(self) -> None:
        """Tell why our side ends it, if it does, and close; a peer that is stuck is cut."""
        verdict = self._verdict
        if verdict is None:
            return
        if not self._told:
            self._told = True
            code = verdict.code
            if code is closing.SLOW_CONSUMER and self._transport.backlog:
                self._transport.abort()
                return
            if code.code >= 4000 and not self._plain:
                frame = wire.error(code.code, verdict.reason, fatal=True, retry_after=verdict.retry_after)
                self.send([frame])
        await self._transport.close(verdict.code.code, verdict.reason)
