"""A node, where the settings name a store that several share; and the wait for it, where that is not there yet."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import trio

from ..addresses import is_loopback, netloc
from ..errors import InvalidConfig, StoreError
from ..settings import Settings
from .output import Failure
from .systemd import ServiceManager

if TYPE_CHECKING:
    from ..hub import Hub
    from ..hub.alerts import OnAlert
    from ..store.shared import SharedStore

logger = logging.getLogger(__name__)


class Interrupted(Exception):
    """A signal came before the store was there."""


def shared_store(settings: Settings) -> SharedStore:
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


@asynccontextmanager
async def opened_node(
    settings: Settings,
    store: SharedStore,
    on_alert: OnAlert | None,
    *,
    signals: AsyncIterator[int],
    manager: ServiceManager,
    answering: Callable[[Callable[[], str]], Awaitable[None]],
) -> AsyncIterator[Hub]:
    """The hub of a node, whose store is waited for.

    Args:
      answering: runs while it is, and is cancelled then; given what tells what is in the way.

    Raises:
      StoreError: the store is there, and can't be used: waiting would not mend that.
      Interrupted: one of `signals` came before it was there.
    """
    from ..cluster import open_node
    from ..hub.opening import own_nursery

    about = told_to_others(settings)
    waiting = Waiting(manager)
    watching = trio.CancelScope()

    async def stop_at_signal() -> None:
        await anext(signals)
        opening.cancel()

    async def meanwhile() -> None:
        with watching:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stop_at_signal)
                await answering(lambda: waiting.told or "the store is being opened")

    node = open_node(
        settings.limits(), store=store, about=lambda: about, on_alert=on_alert, on_waiting=waiting.tell
    )
    with trio.CancelScope() as opening:
        async with own_nursery() as nursery:
            nursery.start_soon(meanwhile)
            async with node as opened:
                watching.cancel()
                waiting.over()
                yield opened.hub
    if opening.cancelled_caught:
        raise Interrupted


def told_to_others(settings: Settings) -> dict[str, object]:
    """How people know a node: its name, and where its admin API is, if others than this machine reach it."""
    about: dict[str, object] = {"name": settings.node}
    if settings.admin_port and not is_loopback(settings.admin_host):
        about["address"] = netloc(socket.gethostname(), settings.admin_port)
    return about


@attrs.define
class Waiting:
    """Says that the store is waited for: in the log where something else is in the way than before, and each time to
    the service manager."""

    manager: ServiceManager
    told: str = ""

    def tell(self, trouble: StoreError) -> None:
        """It was tried again, in vain."""
        if str(trouble) != self.told:
            self.told = str(trouble)
            logger.warning("waiting for the store: %s", trouble)
        self.manager.tell(STATUS=f"waiting for the store: {trouble}")

    def over(self) -> None:
        """It is there."""
        if self.told:
            logger.info("the store is there")
