"""What a hub runs in: an open store, and a nursery that is no business of who opens it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeAlias, TypeVar

import trio

from ..errors import StoreError
from ..store import Store
from ..store.interface import Opened

logger = logging.getLogger(__name__)

CLOSE_GRACE: Final = 2.0
"""Seconds that a store has to close."""


ATTEMPT_PAUSE: Final = 0.5
"""Seconds from one attempt to open a store that is not there to the next."""

OnWaiting: TypeAlias = Callable[[StoreError], None]
"""Called while a store is waited for, after each attempt, with what is in the way. It must not raise."""

T = TypeVar("T")


@asynccontextmanager
async def opened(store: Store | None, on_waiting: OnWaiting | None = None) -> AsyncIterator[Opened | None]:
    """Have a store open while the block lasts, where there is one. Gives what it holds.

    Args:
      on_waiting: see `once_there`.

    Raises:
      StoreError: it can't be opened.
    """
    if store is None:
        yield None
        return
    try:
        yield await once_there(store.open, on_waiting)
    finally:
        await _close(store)


async def once_there(ask: Callable[[], Awaitable[T]], on_waiting: OnWaiting | None) -> T:
    """What a store answers to `ask`, which is asked again while it can't for reasons that pass. A checkpoint.

    Args:
      on_waiting: told of each attempt; None waits for nothing.

    Raises:
      StoreError: it can't, and waiting would not mend that.
    """
    while True:
        try:
            return await ask()
        except StoreError as error:
            if on_waiting is None or not error.passes:
                raise
            on_waiting(error)
        await trio.sleep(ATTEMPT_PAUSE)


async def _close(store: Store) -> None:
    """Let go of the store, also where all is cancelled."""
    with trio.move_on_after(CLOSE_GRACE, shield=True):
        try:
            await store.close()
        except StoreError:
            logger.exception("closing the store failed")


@asynccontextmanager
async def own_nursery() -> AsyncIterator[trio.Nursery]:
    """A nursery for tasks of the block's own, which are cancelled at its end. What the block raises comes out as it
    was, not in a group."""
    failure: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                yield nursery
            except BaseException as error:
                failure = error
                raise
            finally:
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        only = group.exceptions[0]
        groups = isinstance(only, BaseExceptionGroup) and isinstance(failure, BaseExceptionGroup)
        if len(group.exceptions) > 1 or not (only is failure or groups):
            raise
        failure = only
    else:
        failure = None
    if failure is not None:
        raise failure
