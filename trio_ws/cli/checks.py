"""How a server checks the credentials of its clients, put together from its settings."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs

from ..errors import InvalidConfig
from ..settings import Settings
from .output import Failure

if TYPE_CHECKING:
    from ..files import FromFiles
    from ..server.auth import Authenticate, Tickets
    from ..server.tokens import PublicKeyFile

logger = logging.getLogger(__name__)


@attrs.frozen
class Checks:
    """What checks credentials, and what has to run for it.

    Attributes:
      authenticate: None believes each client who it says it is.
      work: runs as long as the server does.
      files: what was read from files, to be read again when the operator says so.
    """

    authenticate: Authenticate | None
    work: tuple[Callable[[], Awaitable[None]], ...] = ()
    files: tuple[FromFiles[Any], ...] = ()


def checks(settings: Settings, tickets: Tickets) -> Checks:
    """What `settings` ask for: tickets, and tokens by each way that is given.

    Raises:
      Failure: a file can't be read, or holds no public key.
    """
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
    files: list[FromFiles[Any]] = []
    if settings.jwt_secret is not None:
        if len(settings.jwt_secret.encode()) < tokens.MIN_SECRET_BYTES:
            logger.warning(
                "jwt_secret is shorter than %d bytes: who has a token may find it out",
                tokens.MIN_SECRET_BYTES,
            )
        ways.append(check(str(settings.jwt_secret)))
    if settings.jwt_public_key is not None:
        pem = _public_keys(settings.jwt_public_key)
        ways.append(check(pem))
        files.append(pem)
    if settings.jwt_jwks is not None:
        remote = jwks.RemoteKeys(settings.jwt_jwks)
        ways.append(check(remote))
        work.append(remote.run)
    if not any(keys):
        logger.info("clients need a ticket of POST /v1/tickets: no key for tokens is set")
    return Checks(auth.first_of(*ways), tuple(work), tuple(files))


def _public_keys(file: str) -> PublicKeyFile:
    from ..server import tokens

    try:
        return tokens.PublicKeyFile(file)
    except InvalidConfig as exc:
        raise Failure(str(exc), 2) from None
