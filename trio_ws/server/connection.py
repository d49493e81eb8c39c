"""One connection, from the request to upgrade to its end: the handshake, then a session over a WebSocket.

It is the link between a `WebSocket` and an `Attachment`: what arrives is handed over as it comes, what is to be sent
is framed and handed on, and how it ends is decided here once (`_verdict`), told in an `error` frame and a close code.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any, Final

import attrs
import trio

from ..core import closing, wire
from ..core import payload as payloads
from ..core.closing import CloseCode
from ..core.pool import Ask, Refused
from ..hub import Attachment, Hub, OnMessage
from ..identity import Identity
from .auth import Authenticate, Credentials, Origins, checked
from .ending import BinaryMessage, TransportClosed
from .websocket import WebSocket

logger = logging.getLogger(__name__)

SUBPROTOCOL: Final = "trio-ws.v1"
LIVENESS_STEP: Final = 0.25
"""Seconds by which the liveness deadline is moved at least: most frames need not touch it."""

PLAIN_PING: Final = b"\x89\x00"
"""A WebSocket ping: what a plain client's heartbeat is."""


@attrs.frozen
class Policy:
    """What all connections of one listener share."""

    path: str
    authenticate: Authenticate
    on_message: OnMessage | None
    origins: Origins


@attrs.frozen
class Verdict:
    """How our side ends a connection."""

    code: CloseCode
    reason: str
    retry_after: float | None = None


class Handshake:
    """A connection from its accept to its hello, under one deadline.

    Args:
      scope: what is cancelled at the deadline, without a word.
      deadline: when hello must have come, on Trio's clock.
      pending: all that are under way; it is one of them until it is `over`.

    Attributes:
      close: has the client told why the connection ends; None while it can't be told.
    """

    def __init__(self, scope: trio.CancelScope, deadline: float, pending: dict[Handshake, None]) -> None:
        self.deadline = deadline
        self.close: Callable[[CloseCode, str, float | None], None] | None = None
        self._scope = scope
        self._pending = pending
        pending[self] = None

    def can_be_told(self, close: Callable[[CloseCode, str, float | None], None]) -> None:
        """From here on what is late is told, and not just cut."""
        self.close = close
        self._scope.deadline = math.inf

    def over(self) -> None:
        """The client has said hello, or has gone."""
        self.close = None
        self._scope.deadline = math.inf
        self._pending.pop(self, None)


class Connection:
    """Serves one accepted WebSocket request.

    Args:
      hub: whose sessions it may hold.
      transport: the WebSocket; its request is not answered yet.
      policy: what its listener prescribes.
      handshake: its handshake.
    """

    def __init__(self, hub: Hub, transport: WebSocket, policy: Policy, handshake: Handshake) -> None:
        self._hub = hub
        self._transport = transport
        self._policy = policy
        self._handshake = handshake
        self._plain = SUBPROTOCOL not in transport.request.subprotocols
        self._alive = trio.CancelScope()
        self._hello = trio.CancelScope(deadline=handshake.deadline)
        self._verdict: Verdict | None = None
        self._attachment: Attachment | None = None
        self._fresh_token: str | None = None
        self._nursery: trio.Nursery | None = None
        self._plain_mistakes = 0

    async def run(self) -> None:
        """Serve it to its end.

        Raises: TransportClosed where it broke during the handshake. Cancelled, it is cut, and the session is parked.
        """
        if not await self._request_is_welcome():
            return
        if self._plain:
            identity = await self._authenticate(self._credentials(None, None))
            if identity is None:
                await self._transport.refuse(
                    401, "These credentials are not valid.", [("WWW-Authenticate", "Bearer")]
                )
                return
            await self._transport.accept(None)
            self._handshake.over()
            await self._serve(identity, Ask(plain=True), [])
        else:
            await self._transport.accept(SUBPROTOCOL)
            said = await self._hear_hello()
            if said is None:
                return
            hello, rest = said
            identity = await self._authenticate(self._credentials(hello.token, hello.user))
            if identity is None:
                await self._close(Verdict(closing.UNAUTHENTICATED, "no valid credentials"))
                return
            ask = Ask(session=hello.session, epoch=hello.epoch, seq=hello.seq, start=hello.from_)
            self._handshake.over()
            await self._serve(identity, ask, rest)

    # -- the handshake

    async def _request_is_welcome(self) -> bool:
        request = self._transport.request
        if request.path != self._policy.path:
            await self._transport.refuse(404, f"There is no WebSocket here; try {self._policy.path}.")
        elif not self._policy.origins.allows(request.origin):
            await self._transport.refuse(403, "Pages of this origin may not connect.")
        elif self._hub.draining:
            after = str(math.ceil(self._hub.retry_after))
            await self._transport.refuse(503, "The server is going away.", [("Retry-After", after)])
        else:
            return True
        return False

    async def _hear_hello(self) -> tuple[wire.Hello, list[Any]] | None:
        """The client's hello, and what came with it in one batch; None where it was told off and closed."""
        self._handshake.can_be_told(self.close)
        with self._hello:
            try:
                first, *rest = wire.decode_client(await self._transport.receive())
            except wire.NotAFrame as error:
                await self._close(Verdict(closing.PROTOCOL_ERROR, error.reason))
                return None
            except BinaryMessage:
                await self._close(Verdict(closing.PROTOCOL_ERROR, "a binary message"))
                return None
            if isinstance(first, wire.Hello):
                return first, rest
            reason = first.reason if isinstance(first, wire.Mistake) else "the first frame must be hello"
            await self._close(Verdict(closing.PROTOCOL_ERROR, reason))
            return None
        if self._hello.cancelled_caught:
            await self._close(self._verdict or Verdict(closing.TIMEOUT, "no hello in time"))
        return None

    def _credentials(self, token: str | None, user: str | None) -> Credentials:
        request = self._transport.request
        return Credentials(
            token=token or request.bearer or request.query.get("token"),
            user=user or request.query.get("user"),
            headers=request.headers,
            path=request.path,
            remote=self._transport.remote,
        )

    async def _authenticate(self, credentials: Credentials) -> Identity | None:
        """Who it is; None where it is nobody, or the check takes longer than the handshake may."""
        with trio.CancelScope(deadline=self._handshake.deadline):
            return await checked(self._policy.authenticate, credentials)
        return None

    # -- the session

    async def _serve(self, identity: Identity, ask: Ask, rest: list[Any]) -> None:
        """Attach to a session, and stay until the connection ends."""
        attached = self._hub.attach(identity, ask, self, on_message=self._policy.on_message)
        if isinstance(attached, Refused):
            await self._close(Verdict(attached.code, attached.reason, attached.retry_after))
            return
        self._attachment = attached
        self._transport.on_drained = attached.drained
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                await self._listen(attached, rest)
                self._nursery = None  # what still comes through the lane finds it closing
                nursery.cancel_scope.cancel()
        finally:
            self._nursery = None
            attached.detach(silent=self._verdict is not None and self._verdict.code is closing.TIMEOUT)
        if self._verdict is not None:
            await self._close(self._verdict)

    async def _listen(self, attached: Attachment, rest: list[Any]) -> None:
        """Hand over what the client sends, until it goes, falls silent, or is to be closed."""
        take = self._take_plain if self._plain else attached.receive
        if rest:
            attached.handle(rest)
        try:
            while self._verdict is None:
                with self._alive:
                    self._transport.open_lane(take)
                    while True:
                        take(await self._transport.receive())
                if self._verdict is None and not self._heard_bytes():
                    self._verdict = Verdict(closing.TIMEOUT, "nothing was heard")
        except BinaryMessage:
            self._verdict = self._verdict or Verdict(closing.PROTOCOL_ERROR, "a binary message")
        except TransportClosed as closed:
            logger.debug("%s: %s", self._transport.remote, closed)

    def _heard_bytes(self) -> bool:
        """Whether a plain client gave signs of life that are no messages; the deadline is moved by them."""
        if not self._plain:
            return False
        config = self._hub.config
        until = self._transport.last_received + config.heartbeat_idle + config.heartbeat_grace
        self._alive = trio.CancelScope(deadline=until)
        return until > trio.current_time()

    def _take_plain(self, message: bytes | str) -> None:
        """A plain client's message: for the application, and never answered."""
        attached = self._attachment
        if attached is None or attached.fenced:
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
                self.close(closing.PROTOCOL_ERROR, "too many messages without type and payload")
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
        try:
            return self._transport.send_nowait(data)
        except TransportClosed:
            return False

    def close(self, code: CloseCode, reason: str, retry_after: float | None = None) -> None:
        """End the connection with this code; the first that is given counts."""
        if self._verdict is None:
            self._verdict = Verdict(code, reason, retry_after)
            self._hello.cancel()
            self._alive.cancel()

    def expect_by(self, deadline: float) -> None:
        """Move the liveness deadline."""
        moved = deadline - self._alive.deadline
        if moved >= LIVENESS_STEP or moved < 0:
            self._alive.deadline = deadline

    def authenticate(self, token: str) -> None:
        """Check a fresh token, the newest that was sent; one check at a time."""
        busy = self._fresh_token is not None
        self._fresh_token = token
        if not busy and self._nursery is not None:
            self._nursery.start_soon(self._renew)

    async def _renew(self) -> None:
        assert self._attachment is not None
        user = self._attachment.session.box.user
        while self._fresh_token is not None:
            token = self._fresh_token
            identity = await checked(self._policy.authenticate, self._credentials(token, user))
            if token == self._fresh_token:
                self._fresh_token = None
            if identity is None:
                self.close(closing.UNAUTHENTICATED, "the fresh token is not valid")
            elif identity.user != user:
                self.close(closing.FORBIDDEN, "the fresh token is another user's")
            else:
                self._attachment.renew(identity)

    # -- the end

    async def _close(self, verdict: Verdict) -> None:
        """Tell why, and close; a peer that is stuck is cut."""
        code = verdict.code
        if code is closing.SLOW_CONSUMER and self._transport.backlog:
            self._transport.abort()
            return
        if code.code >= 4000 and not self._plain:
            frame = wire.error(code.code, verdict.reason, fatal=True, retry_after=verdict.retry_after)
            self.send([frame])
        await self._transport.close(code.code, verdict.reason)
