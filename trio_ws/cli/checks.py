"""How a server checks the credentials of its clients, put together from its settings."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

import attrs

from ..settings import Settings

if TYPE_CHECKING:
    from ..server.auth import Authenticate, SharedTickets, Tickets
    from ..server.tokens import PublicKeyFile

logger = logging.getLogger(__name__)


@attrs.frozen
class Checks:
    """What checks credentials, and what has to run for it.

    Attributes:
      authenticate: None believes each client who it says it is.
      work: runs as long as the server does.
    """

    authenticate: Authenticate | None
    work: tuple[Callable[[], Awaitable[None]], ...] = ()


def checks(settings: Settings, tickets: Tickets | SharedTickets, public_keys: PublicKeyFile | None) -> Checks:
    """What `settings` ask for: tickets, and tokens by each way that is given."""
    from ..server import auth, jwks, tokens

    keys = [settings.jwt_secret, settings.jwt_public_key, settings.jwt_jwks]
    if settings.insecure:
        if any(keys):
            logger.warning("insecure: clients are believed who they say they are; no token is checked")
        return Checks(None)
    check = partial(
        tokens.jwt_authenticator,
        audience=settings.jwt_audience,
        issuer=settings.jwt_issuer,
        algorithms=settings.jwt_algorithms,
        leeway=settings.jwt_leeway,
    )
    ways: list[Authenticate] = [tickets.authenticate]
    work: list[Callable[[], Awaitable[None]]] = []
    if settings.jwt_secret is not None:
        if len(settings.jwt_secret.encode()) < tokens.MIN_SECRET_BYTES:
            logger.warning(
                "jwt_secret is shorter than %d bytes: who has a token may find it out",
                tokens.MIN_SECRET_BYTES,
            )
        ways.append(check(str(settings.jwt_secret)))
    if public_keys is not None:
        ways.append(check(public_keys))
    if settings.jwt_jwks is not None:
        remote = jwks.RemoteKeys(settings.jwt_jwks)
        ways.append(check(remote))
        work.append(remote.run)
    if not any(keys):
        logger.info("clients need a ticket of POST /v1/tickets: no key for tokens is set")
    return Checks(auth.first_of(*ways), tuple(work))
