"""The token of a client: asked for when needed, kept while it is good, replaced before it runs out."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import trio

from ..errors import InvalidConfig, TrioWSError

TOKEN_TIMEOUT: Final = 10.0
"""Seconds that `token()` may take."""
MARGIN: Final = 30.0
"""How many seconds before its end a token is replaced; a fifth of the time that it has left, if that is less."""
SHORTEST: Final = 1.0
"""Seconds between two tokens on one connection, at least: a clock that is wrong must not make a flood."""

Token: TypeAlias = str | Callable[[], str | Awaitable[str]] | None

logger = logging.getLogger(__name__)


class NoToken(Exception):
    """There was no token to be had this time."""


class Credentials:
    """See the module's docstring.

    Args:
      source: the token, or what makes one, or None for none at all.
      wall_clock: the time in seconds since the Unix epoch.

    Raises:
      InvalidConfig: the token can't be sent.
    """

    def __init__(self, source: Token, wall_clock: Callable[[], float]) -> None:
        if isinstance(source, str):
            check_text(source, "token")
        self._source = source
        self._wall_clock = wall_clock
        self._kept: str | None = None
        self._refused = False

    async def get(self) -> str | None:
        """The token to say hello with; None where there is none.

        Raises:
          NoToken: `source` failed, or took longer than `TOKEN_TIMEOUT`; another try may do better.
          TrioWSError: `source` raised it, or gave what can't be sent: no other try will do better.

        Cancelling it cancels `source`.
        """
        if self._kept is None and callable(self._source):
            self._kept = await self._ask(self._source)
        return self._kept if callable(self._source) else self._source

    def accepted(self) -> None:
        """The server took the token."""
        self._refused = False

    def refused(self) -> bool:
        """The server did not take the token. Returns whether it is worth coming back with a fresh one: there is a
        source of them, and this was not a fresh one already."""
        self._kept = None
        again = callable(self._source) and not self._refused
        self._refused = True
        return again

    async def keep_fresh(self, expires: float | None, hand_over: Callable[[str], None]) -> None:
        """Asks for a token before the present one `expires`, hands it over, and goes on at that pace: the server
        doesn't say how long the next one lasts. Returns where there is nothing to do. Cancelling it is the way to
        end it.

        Args:
          expires: in seconds since the Unix epoch.
        """
        if expires is None or not callable(self._source):
            return
        left = expires - self._wall_clock()
        margin = min(MARGIN, left / 5)
        pause = left - margin
        while True:
            await trio.sleep(max(SHORTEST, pause))
            try:
                self._kept = await self._ask(self._source)
            except NoToken:
                pause = margin / 6
            except TrioWSError:
                return  # the next `get` raises it to whom it concerns
            else:
                hand_over(self._kept)
                pause = left - margin

    async def _ask(self, source: Callable[[], str | Awaitable[str]]) -> str:
        try:
            with trio.fail_after(TOKEN_TIMEOUT):
                token = source()
                if inspect.isawaitable(token):
                    token = await token
        except TrioWSError:
            raise
        except Exception as error:  # whatever a source of tokens may run into; its words may hold secrets
            logger.warning("no token: %s", type(error).__name__)
            raise NoToken from error
        if not isinstance(token, str):
            raise InvalidConfig(f"token() must return a string, not {type(token).__name__}")
        check_text(token, "token")
        return token


def check_text(text: str, name: str) -> None:
    """Refuse what no JSON text can hold. The message doesn't quote it: it may be a secret.

    Raises:
      InvalidConfig: with `name` in it.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidConfig(f"{name} holds half of a surrogate pair") from None
