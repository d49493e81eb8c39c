"""The handshake, from a request that was read to an identity that is known: hello in time, and who says it.

All of it is under one deadline. Until the request is answered, a client that is late is just cut; from then on it is
told why, in an `error` frame and a close code.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

import attrs
import trio

from ..core import closing, wire
from ..core.closing import CloseCode
from ..core.pool import Ask
from ..errors import StoreUnavailable
from ..hub import Hub, OnMessage
from ..hub.elsewhere import Elsewhere
from ..identity import Identity
from .auth import Authenticate, Credentials, Origins, checked
from .ending import BinaryMessage
from .handshakes import Handshakes
from .load import Load
from .websocket import WebSocket

SUBPROTOCOL: Final = "trio-ws.v1"

LAST_CALL: Final = 1.0
"""Seconds in which who was accepted just before the server goes away has to send its request, to be answered yet."""

_UNCHECKED: Final = "These credentials can't be checked now."


@attrs.frozen
class Policy:
    """What all connections of one listener share."""

    path: str
    authenticate: Authenticate
    on_message: OnMessage | None
    origins: Origins
    load: Load


@attrs.frozen
class Verdict:
    """How our side ends a connection.

    Attributes:
      counted: as what it is counted, where it keeps a client from coming in: one of `core.refusals.REASONS`.
    """

    code: CloseCode
    reason: str
    retry_after: float | None = None
    counted: str = ""


@attrs.frozen
class Arrival:
    """A client that may come in.

    Attributes:
      identity: who it is.
      ask: what its hello asks for.
      elsewhere: where its user's log is, if not here.
      rest: the frames that came with hello in one batch, as a batch; None where none did.
    """

    identity: Identity
    ask: Ask
    elsewhere: Elsewhere | None
    rest: bytes | None = None


class Handshake:
    """A connection from its accept to its hello.

    Args:
      scope: what all of it runs in, with the deadline by which hello must have come and been checked.
      pending: all that are under way; it is one of them until it is `over`.
      address: which address it counts for; None for none.
    """

    def __init__(self, scope: trio.CancelScope, pending: Handshakes, address: str | None) -> None:
        self.address = address
        self._scope = scope
        self._pending = pending
        self._cut = False
        self._told_if_late: Verdict | None = None  # nothing can be told before the request is answered
        self._verdict: Verdict | None = None
        if (other := pending.add(self)) is not None:
            other.cut()

    @property
    def verdict(self) -> Verdict | None:
        """Where it was cancelled: what to tell the client. None where it can't be told, or all is cancelled."""
        if self._told_if_late is None or self._cut or not self._scope.cancel_called:
            return None
        return self._verdict or self._told_if_late

    @property
    def cause(self) -> str:
        """Where it was cancelled: as what it is counted."""
        if self._cut:
            return "handshakes"
        verdict = self._verdict or self._told_if_late
        return "hello_timeout" if verdict is None else verdict.counted

    def close(self, code: CloseCode, reason: str, retry_after: float | None = None) -> None:
        """End it, if its client can be told why; else when its request is answered, or does not come soon. Not a
        checkpoint."""
        if self._told_if_late is not None:
            self._verdict = Verdict(code, reason, retry_after, counted="draining")
            self._scope.cancel()
        else:
            self._scope.deadline = min(self._scope.deadline, trio.current_time() + LAST_CALL)

    def cut(self) -> None:
        """End it without a word, to make room for another. Not a checkpoint."""
        self._cut = True
        self._scope.cancel()

    def over(self) -> None:
        """The client has come in, or has gone; idempotent."""
        self._scope.deadline = math.inf
        self._pending.discard(self)

    async def run(self, hub: Hub, transport: WebSocket, policy: Policy) -> Arrival | Verdict | None:
        """Answer the request, and hear who it is; a checkpoint.

        Returns: the client that may come in; or why it may not, to be told; None where it was refused in HTTP.

        Raises: TransportClosed where the connection broke meanwhile. Cancelled, also by the deadline, it leaves all as
        it is: see `verdict`.
        """
        if not await _request_is_welcome(hub, transport, policy):
            return None
        if SUBPROTOCOL in transport.request.subprotocols:
            await transport.accept(SUBPROTOCOL)
            return await self._hear_hello(hub, transport, policy)
        try:
            identity = await checked(policy.authenticate, credentials(transport, None, None))
        except StoreUnavailable:
            await _refuse_for_now(hub, transport, "store", _UNCHECKED, hub.retry_after)
            return None
        if (reason := _unwanted(hub, identity)) is not None:
            challenge = [("WWW-Authenticate", "Bearer")]
            await _refuse(hub, transport, reason, 401, "These credentials are not valid.", challenge)
            return None
        assert identity is not None
        try:
            elsewhere = await hub.place(identity.user, to_connect=True)
        except StoreUnavailable:
            await _refuse_for_now(
                hub, transport, "store", "The user's events can't be read now.", hub.retry_after
            )
            return None
        await transport.accept(None)
        return Arrival(identity, Ask(plain=True), elsewhere)

    async def _hear_hello(self, hub: Hub, transport: WebSocket, policy: Policy) -> Arrival | Verdict:
        self._told_if_late = Verdict(closing.TIMEOUT, "no hello in time", counted="hello_timeout")
        try:
            message = await transport.receive()
            first, *rest = wire.decode_client(message)
        except wire.NotAFrame as error:
            return _no_hello(error.reason)
        except BinaryMessage:
            return _no_hello("a binary message")
        if isinstance(first, wire.Mistake):
            return _no_hello(first.reason)
        if not isinstance(first, wire.Hello):
            return _no_hello("the first frame must be hello")
        if (after := policy.load.keeps_out(resuming=first.session is not None)) is not None:
            return Verdict(closing.DRAINING, "the server is overloaded", after, counted="overloaded")
        heard_at = trio.current_time()
        self._told_if_late = unknown = Verdict(
            closing.UNAUTHENTICATED, "no valid credentials", counted="credentials"
        )
        try:
            identity = await checked(policy.authenticate, credentials(transport, first.token, first.user))
        except StoreUnavailable:
            return Verdict(closing.DRAINING, _UNCHECKED, hub.retry_after, counted="store")
        if (reason := _unwanted(hub, identity)) is not None:
            return attrs.evolve(unknown, counted=reason)
        assert identity is not None
        self._told_if_late = away = Verdict(
            closing.DRAINING, "the user's events can't be read now", hub.retry_after, counted="store"
        )
        try:
            elsewhere = await hub.place(identity.user, to_connect=True)
        except StoreUnavailable:
            return away
        ask = Ask(session=first.session, epoch=first.epoch, seq=first.seq, start=first.from_, at=heard_at)
        return Arrival(identity, ask, elsewhere, wire.batch(wire.split(message)[1:]) if rest else None)


async def _request_is_welcome(hub: Hub, transport: WebSocket, policy: Policy) -> bool:
    request = transport.request
    if request.path != policy.path:
        await _refuse(hub, transport, "path", 404, f"There is no WebSocket here; try {policy.path}.")
    elif not policy.origins.allows(request.origin):
        await _refuse(hub, transport, "origin", 403, "Pages of this origin may not connect.")
    elif hub.draining:
        await _refuse_for_now(hub, transport, "draining", "The server is going away.", hub.retry_after)
    elif (
        SUBPROTOCOL not in request.subprotocols
        and (after := policy.load.keeps_out(resuming=False)) is not None
    ):
        await _refuse_for_now(hub, transport, "overloaded", "The server is overloaded.", after)
    else:
        return True
    return False


async def _refuse(
    hub: Hub,
    transport: WebSocket,
    counted: str,
    status: int,
    message: str,
    headers: Iterable[tuple[str, str]] = (),
) -> None:
    """Refuse in HTTP; it is counted, whatever becomes of the answer."""
    hub.engine.refusals.count(counted)
    await transport.refuse(status, message, headers)


async def _refuse_for_now(hub: Hub, transport: WebSocket, counted: str, message: str, after: float) -> None:
    await _refuse(hub, transport, counted, 503, message, [("Retry-After", str(math.ceil(after)))])


def _no_hello(reason: str) -> Verdict:
    return Verdict(closing.PROTOCOL_ERROR, reason, counted="protocol")


def _unwanted(hub: Hub, identity: Identity | None) -> str | None:
    """Why these credentials are refused; the client is not told which it is. None where they are not."""
    if identity is None:
        return "credentials"
    return "revoked" if hub.is_revoked(identity) else None


def credentials(transport: WebSocket, token: str | None, user: str | None) -> Credentials:
    """What the client says of itself: in a frame, in its request, in the query, in this order."""
    request = transport.request
    return Credentials(
        token=token or request.bearer or request.query.get("token"),
        user=user or request.query.get("user"),
        headers=request.headers,
        path=request.path,
        remote=transport.remote,
    )
