"""Who may connect: credentials as a client gave them, and the ready-made ways to check them."""

from __future__ import annotations

import hashlib
import logging
import re
import secrets
import time
import traceback
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, TypeAlias
from urllib.parse import SplitResult, urlsplit

import attrs
import msgspec

from ..addresses import is_loopback
from ..errors import InvalidEvent, StoreError, StoreUnavailable
from ..hub.intake import check_name
from ..identity import Identity
from ..store import SharedStore

logger = logging.getLogger(__name__)

# `urlsplit` is lenient: to it `http://[::1]evil.example` has the host ::1.
_ORIGIN: Final = re.compile(
    r"[a-z][a-z0-9+.\-]*://(?:\[[0-9a-f:.]+\]|[^\[\]/?#@:\s]+)(?::[0-9]{1,5})?", re.IGNORECASE
)

MAX_TOKEN_LENGTH: Final = 8192


@attrs.frozen(kw_only=True)
class Credentials:
    """What a client says of itself. Its repr shows no token.

    Attributes:
      token: from the `hello` frame, the ``Authorization: Bearer`` header or the query, in this order.
      user: whom it claims to be, from the `hello` frame or the query; believed in insecure mode only.
      headers: (lower-case name, value) pairs of the request to upgrade.
      path: the path that it asked for.
      remote: the address that it comes from.
    """

    token: str | None = attrs.field(default=None, repr=False)
    user: str | None = None
    headers: tuple[tuple[str, str], ...] = attrs.field(default=(), repr=False)
    path: str = "/ws"
    remote: str = ""


Authenticate: TypeAlias = Callable[[Credentials], Awaitable[Identity | str | None]]
"""Tells who the bearer of some credentials is: an `Identity`, or just a user; None refuses them. Where it can't be told
now, it raises `StoreUnavailable`: the client is told to come again."""


async def believe(credentials: Credentials) -> Identity | None:
    """Believe every client who it says it is. For development on one machine."""
    return None if credentials.user is None else Identity(credentials.user)


async def checked(authenticate: Authenticate, credentials: Credentials) -> Identity | None:
    """Ask `authenticate`, and see to it that its answer is a proper identity.

    What it raises is logged, without the credentials, and refuses them.

    Raises:
      StoreUnavailable: that can't be told now.
    """
    if credentials.token is not None and len(credentials.token) > MAX_TOKEN_LENGTH:
        return None
    try:
        answer = await authenticate(credentials)
    except StoreUnavailable:
        raise
    except Exception as error:
        _log_failure(error, credentials)
        return None
    identity = Identity(answer) if isinstance(answer, str) else answer
    if identity is None:
        return None
    try:
        check_name(identity.user, "user")
    except InvalidEvent:
        return None
    if identity.expires is not None and identity.expires <= time.time():
        return None
    return identity


def _log_failure(error: Exception, credentials: Credentials) -> None:
    """Log why a check failed; in short, where the long form would show what was checked."""
    if credentials.token and credentials.token in "".join(traceback.format_exception(error)):
        logger.error("authenticate failed: %s, whose text holds the token", type(error).__name__)
    else:
        logger.error("authenticate failed", exc_info=error)


class Tickets:
    """Single-use tickets, for backends that have no JWT: made over the admin API, used as a token once.

    Args:
      clock: seconds since the Unix epoch.
      limit: how many may be open at once; beyond that the oldest are void.
    """

    def __init__(self, clock: Callable[[], float] = time.time, limit: int = 10_000) -> None:
        self._clock = clock
        self._limit = limit
        self._open: dict[str, tuple[str, float, float]] = {}  # user, issued, expires

    def issue(self, user: str, ttl: float = 30.0) -> tuple[str, float]:
        """A ticket for `user`, and when it becomes void, in seconds since the Unix epoch.

        Args:
          ttl: seconds that it is good for.

        Raises:
          InvalidEvent: `user` is no name.
        """
        check_name(user, "user")
        now = self._clock()
        for old in [ticket for ticket, (_, _, expires) in self._open.items() if expires <= now]:
            del self._open[old]
        while len(self._open) >= self._limit:
            del self._open[next(iter(self._open))]
        ticket = secrets.token_urlsafe(_TICKET_BYTES)
        self._open[ticket] = (user, now, now + ttl)
        return ticket, now + ttl

    async def authenticate(self, credentials: Credentials) -> Identity | None:
        """Use a ticket up. The connection itself does not expire."""
        found = self._open.pop(credentials.token, None) if credentials.token is not None else None
        if found is None or found[2] <= self._clock():
            return None
        user, issued, _ = found
        return Identity(user, issued=issued)


class SharedTickets:
    """As `Tickets`, good at every node that shares a store: issued at any, used once, at any other.

    The store holds no ticket, but what can be made of one: who reads it comes in nowhere.

    Args:
      store: what the nodes share.
      clock: seconds since the Unix epoch.
    """

    def __init__(self, store: SharedStore, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock

    async def issue(self, user: str, ttl: float = 30.0) -> tuple[str, float]:
        """As `Tickets.issue`. A checkpoint. Cancelled, there may be a ticket that nobody knows.

        Raises:
          InvalidEvent: `user` is no name.
          StoreError: the store fails.
        """
        check_name(user, "user")
        now = self._clock()
        ticket = secrets.token_urlsafe(_TICKET_BYTES)
        await self._store.put(_kept_as(ticket), msgspec.json.encode(_Ticket(user, now, now + ttl)), ttl)
        return ticket, now + ttl

    async def authenticate(self, credentials: Credentials) -> Identity | None:
        """Use a ticket up. The connection itself does not expire. A checkpoint where it may be one. Cancelled, or where
        the store fails, it may be used up.

        Raises:
          StoreUnavailable: the store fails.
        """
        if credentials.token is None or not _LIKE_A_TICKET.fullmatch(credentials.token):
            return None
        try:
            kept = await self._store.take(_kept_as(credentials.token))
        except StoreError as error:
            raise StoreUnavailable(f"the store can't be read: {error}") from error
        found = None if kept is None else msgspec.json.decode(kept, type=_Ticket)
        if found is None or found.expires <= self._clock():
            return None
        return Identity(found.user, issued=found.issued)


class _Ticket(msgspec.Struct, array_like=True):
    """What the store has of a ticket; times are Unix time."""

    user: str
    issued: float
    expires: float


_TICKET_BYTES: Final = 24
_LIKE_A_TICKET: Final = re.compile(r"[A-Za-z0-9_-]{32}")


def _kept_as(ticket: str) -> str:
    return f"ticket:{hashlib.sha256(ticket.encode()).hexdigest()}"


def first_of(*ways: Authenticate) -> Authenticate:
    """Ask several, in order; the first that knows the bearer decides."""

    async def authenticate(credentials: Credentials) -> Identity | str | None:
        for way in ways:
            answer = await way(credentials)
            if answer is not None:
                return answer
        return None

    return authenticate


class Origins:
    """Which pages may connect, by the Origin that their browser sends. A client that sends none is no browser.

    Args:
      allowed: exact origins (scheme, host, port); ``"*"`` for all; None for all, or only pages of this machine
        where users are believed who they say they are.
      insecure: whether they are.
      required: refuse who names no origin.
    """

    def __init__(self, allowed: Iterable[str] | None, *, insecure: bool, required: bool = False) -> None:
        self._required = required
        self._local_only = allowed is None and insecure
        self._any = (allowed is None and not insecure) or (allowed is not None and "*" in allowed)
        self._allowed = frozenset(_normal(origin) for origin in allowed or ())

    def allows(self, origin: str | None) -> bool:
        """Whether a request with this Origin header may go on."""
        if origin is None:
            return not self._required
        if self._any:
            return True
        if self._local_only:
            parts = _parts(origin)
            return parts is not None and is_loopback(parts.hostname or "")
        return _normal(origin) in self._allowed


def _parts(origin: str) -> SplitResult | None:
    """An origin taken apart; None for what is not scheme, host, maybe a port, and nothing else."""
    try:
        parts = urlsplit(origin)
        _ = parts.port
    except ValueError:  # brackets that hold no address, or a port that is none
        return None
    return parts if _ORIGIN.fullmatch(origin) else None


def _normal(origin: str) -> str:
    """An origin with its host in lower case and its default port left out; what is none, as it stands."""
    parts = _parts(origin)
    if parts is None:
        return origin
    port = parts.port
    default = {"http": 80, "https": 443}.get(parts.scheme)
    host = f"[{parts.hostname}]" if parts.hostname and ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}" + ("" if port in (None, default) else f":{port}")
