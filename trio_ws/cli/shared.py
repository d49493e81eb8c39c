"""The store that nodes share, as the settings name it; and the wait for it, where a node is started before it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import trio

from ..errors import InvalidConfig, StoreError
from ..settings import Settings
from .output import Failure
from .systemd import ServiceManager

if TYPE_CHECKING:
    from ..redis import RedisStore

logger = logging.getLogger(__name__)

PASSING: Final = frozenset({"LOADING", "MASTERDOWN", "CLUSTERDOWN", "READONLY", "BUSY", "TRYAGAIN"})
"""What a Redis that is not ready yet, or is being replaced, refuses with."""

PAUSE: Final = 0.5
"""Seconds between two attempts to open it. Each takes some by itself where nobody answers."""


def shared_store(settings: Settings) -> RedisStore:
    """The store, not opened yet.

    Raises:
      Failure: what it is told is wrong.
    """
    from ..redis import RedisStore

    try:
        return RedisStore(
            settings.store, prefix=settings.redis_prefix, wait_replicas=settings.redis_wait_replicas
        )
    except InvalidConfig as error:
        raise Failure(str(error), 2) from None


async def wait_for_store(settings: Settings, manager: ServiceManager) -> None:
    """Returns when the store is there. It says what it waits for, in the log and to the service manager.

    Raises:
      StoreError: it is there, and can't be used: waiting would not mend that.
    """
    waiting = False
    while (trouble := await _attempt(settings)) is not None:
        if not _passes(trouble):
            raise trouble
        if not waiting:
            logger.warning("waiting for the store: %s", trouble)
            waiting = True
        manager.tell(STATUS=f"waiting for the store: {trouble}")
        await trio.sleep(PAUSE)
    if waiting:
        logger.info("the store is there")


async def _attempt(settings: Settings) -> StoreError | None:
    """Ask it something once; what is in the way."""
    store = shared_store(settings)
    trouble = None
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        try:
            await store.revoked()
        except StoreError as error:
            trouble = error
        nursery.cancel_scope.cancel()
    return trouble


def _passes(trouble: StoreError) -> bool:
    from ..redis.refusals import Refused, Unreachable

    return isinstance(trouble, Unreachable) or (isinstance(trouble, Refused) and trouble.code in PASSING)
