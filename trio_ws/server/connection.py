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
from ..core.closing import CloseCode
from ..core.pool import Refused
from ..errors import StoreUnavailable
from ..hub import Attachment, Hub
from ..hub.elsewhere import NoAnswer, RemoteAttachment
from .auth import checked
from .ending import BinaryMessage, TransportClosed
from .handshake import Arrival, Handshake, Policy, Verdict, credentials
from .tasks import Tasks
from .websocket import WebSocket

logger = logging.getLogger(__name__)

PLAIN_PING: Final = b"\x89\x00"
"""A WebSocket ping: what a plain client's heartbeat is."""

PLACES: Final = 3
"""How often a session is looked for, where it moves from node to node meanwhile."""


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
        self._attachment: Attachment | RemoteAttachment | None = None
        self._fresh_token: str | None = None
        self._expected_by = self._armed_for = math.inf

    async def run(self, handshake: Handshake) -> None:
        """Serve it to its end.

        Raises: TransportClosed where it broke during the handshake. Cancelled, it is cut, and the session is parked.
        """
        try:
            outcome = await handshake.run(self._hub, self._transport, self._policy)
            upgraded = outcome is not None
            if isinstance(outcome, Arrival):
                outcome = await self._attach(outcome)
        except trio.Cancelled:
            # It is late, or the server goes away, and the client can be told: that is shielded, and soon over.
            self._verdict = handshake.verdict
            await self._end()
            raise
        handshake.over()
        if isinstance(outcome, Verdict):
            self._hub.engine.refusals.count(outcome.counted)
            self._verdict = outcome
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

    async def _attach(self, arrival: Arrival) -> Verdict | None:
        """Take up a session, wherever it is; returns why there is none. A checkpoint where it is not here."""
        self._plain, self._attaching = arrival.ask.plain, True
        try:
            attached = await self._find(arrival)
        finally:
            self._attaching = False
        if isinstance(attached, Refused):
            return Verdict(attached.code, attached.reason, attached.retry_after, counted=attached.counted)
        self._take_up(attached, arrival.rest)
        return None

    async def _find(self, arrival: Arrival) -> Attachment | RemoteAttachment | Refused:
        """The hold on a session, here or elsewhere; where its user's log moves meanwhile, it is looked for again."""
        hub, elsewhere = self._hub, arrival.elsewhere
        for _ in range(PLACES):
            if elsewhere is None:
                attached = hub.attach(arrival.identity, arrival.ask, self, on_message=self._policy.on_message)
                if not isinstance(attached, Refused):
                    attached.flush(hub.engine.clock())  # what is replayed goes with the welcome, in one write
                return attached
            try:
                return await elsewhere.attach(arrival.identity, arrival.ask, self, path=self._policy.path)
            except NoAnswer:
                try:
                    elsewhere = await hub.place(arrival.identity.user, to_connect=True)
                except StoreUnavailable:
                    break
        return Refused(closing.DRAINING, "no node has the user's events", hub.retry_after, counted="store")

    def _take_up(self, attached: Attachment | RemoteAttachment, rest: bytes | None) -> None:
        """Send the welcome, and have what comes handed to an attachment; `rest` has come already."""
        self._attachment = attached
        if self._welcome:
            welcome, self._welcome = self._welcome, b""
            try:
                self._transport.send_nowait(welcome)
            except TransportClosed:
                pass  # found out by who receives
        self._transport.on_drained = attached.drained
        self._transport.open_lane(attached.receive)
        if rest is not None:
            attached.receive(rest)

    async def _listen(self) -> None:
        """Hand over what does not take the lane, until the WebSocket ends."""
        attached = self._attachment
        assert attached is not None
        try:
            while True:
                attached.receive(await self._transport.receive())
        except BinaryMessage:
            self.close(closing.PROTOCOL_ERROR, "a binary message")
        except TransportClosed as closed:
            logger.debug("%s: %s", self._transport.remote, closed)

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
        user = self._attachment.user
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
