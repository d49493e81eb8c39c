"""What a hub runs in: an open store, and a nursery that is no business of who opens it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import trio

from ..errors import StoreError
from ..store import Store
from ..store.interface import Opened

logger = logging.getLogger(__name__)

CLOSE_GRACE: Final = 2.0
"""Seconds that a store has to close."""


@asynccontextmanager
async def opened(store: Store | None) -> AsyncIterator[Opened | None]:
    """Have a store open while the block lasts, where there is one. Gives what it holds.

    Raises:
      StoreError: it can't be opened.
    """
    if store is None:
        yield None
        return
    try:
        yield await store.open()
    finally:
        await _close(store)


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
