"""The admin API of a server that can't serve yet: it is alive, and not ready."""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from .answers import ApiError, answer
from .app import Shell

RETRY_AFTER = 1
"""Whole seconds after which it may well serve."""


def waiting_app(reason: Callable[[], str]) -> ASGIApp:
    """``/healthz`` is answered as ever, and everything else by a 503 (``starting``) that holds what is waited for.

    Args:
      reason: what that is, for people; asked for each call.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/healthz":
            response = answer({"status": "alive"})
        else:
            response = ApiError(503, "starting", reason(), retry_after=RETRY_AFTER).response()
        await response(scope, receive, send)

    return Shell(app)
