"""The tasks of one connection, in a nursery that it shares with others."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVarTuple

import trio

Ts = TypeVarTuple("Ts")

_logger = logging.getLogger(__name__)


class Tasks:
    """Starts tasks, and ends them all, for one who needs some now and then: an idle one costs nothing.

    Args:
      nursery: where they run. An exception in one of them is logged, and goes no further.
    """

    __slots__ = ("_nursery", "_scopes", "_waiting")

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._scopes: dict[trio.CancelScope, None] | None = None
        self._waiting: trio.Event | None = None

    def __len__(self) -> int:
        """How many run."""
        return len(self._scopes) if self._scopes else 0

    def start_soon(self, function: Callable[[*Ts], Awaitable[object]], *args: *Ts) -> None:
        """Run `function(*args)` soon. RuntimeError where the nursery has ended."""
        scope = trio.CancelScope()
        self._nursery.start_soon(self._run, scope, function, args)
        if self._scopes is None:
            self._scopes = {}
        self._scopes[scope] = None

    def cancel(self) -> None:
        """Cancel all that run now; not a checkpoint."""
        for scope in self._scopes or ():
            scope.cancel()

    async def wait_done(self) -> None:
        """Wait until none runs; not a checkpoint where that is so."""
        while self._scopes:
            if self._waiting is None:
                self._waiting = trio.Event()
            await self._waiting.wait()

    async def _run(
        self, scope: trio.CancelScope, function: Callable[[*Ts], Awaitable[object]], args: tuple[*Ts]
    ) -> None:
        try:
            with scope:
                await function(*args)
        except Exception:
            _logger.exception("a task of a connection failed")
        finally:
            assert self._scopes is not None
            del self._scopes[scope]
            if not self._scopes and self._waiting is not None:
                self._waiting.set()
                self._waiting = None
