"""One side of the comparison: a server, the network that is broken before it, what publishes, and who watches.

Both sides are given the same events and the same faults, at the same moments. What differs is the client.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import attrs
import trio

from .. import client
from ..client import ClientState
from ..event import Event, Gap
from ..faults import FaultyNetwork
from .backend import Backend
from .journal import Cut, Journal
from .plan import numbers
from .process import Process
from .stock import StockClient

HALF_OPEN_AT_MOST = 40.0
"""Seconds after which a half-open connection of the stock server is reset: its keepalive would take so long to see it
(a ping every 20 s, 20 s for the answer: the defaults of uvicorn)."""


class Watcher(Protocol):
    """One user's client, which notes in its journal what it gets."""

    journal: Journal

    async def run(self) -> None:
        """Watches until it is cancelled."""

    async def wait_live(self) -> None:
        """Returns when the client is connected and has been sent what it missed."""

    def expect(self) -> None:
        """From here on, `wait_live` is about a connection to come."""

    def figures(self) -> dict[str, int]:
        """What the client has counted."""


@attrs.define(kw_only=True)
class Arm:
    """See the module's docstring.

    Attributes:
      name: ``trio-ws`` or ``stock``.
      process: the server's, where it is ours.
      address, path: where its faulty network listens, and what is asked for there.
      seqs: whether the server gives seqs, and can confirm.
      watchers: by user.
    """

    name: str
    backend: Backend
    network: FaultyNetwork
    address: str
    path: str
    seqs: bool
    process: Process | None = None
    watch: Callable[[Arm, str], Watcher]
    watchers: dict[str, Watcher] = attrs.field(factory=dict)

    def url(self, link: str) -> str:
        """Where a client connects to whose network is called `link`."""
        return f"ws://{self.address}{self.path}?link={link}&user={link}"

    async def add(self, user: str, nursery: trio.Nursery) -> Watcher:
        """Starts a watcher of `user`, in `nursery`; returns when it is connected."""
        watcher = self.watchers[user] = self.watch(self, user)
        nursery.start_soon(watcher.run)
        await watcher.wait_live()
        return watcher

    async def cut(self, user: str, how: str, until: float) -> None:
        """Cuts the connection of `user`, and returns when it is back, or at `until`."""
        watcher = self.watchers[user]
        cut = Cut(user=user, how=how, at=trio.current_time())
        watcher.journal.cuts.append(cut)
        watcher.expect()
        if how == "reset":
            self.network.cut(user)
        else:
            self.network.half_open(user)
        with trio.CancelScope(deadline=until):
            if how == "half-open" and not self.seqs:
                with trio.move_on_after(HALF_OPEN_AT_MOST) as patience:
                    await watcher.wait_live()
                if patience.cancelled_caught:
                    self.network.cut(user)
            await watcher.wait_live()
            cut.back = trio.current_time()
        cut.given_up = trio.current_time()


class TrioWatcher:
    """A user's client of this package."""

    def __init__(self, arm: Arm, user: str) -> None:
        self.journal = Journal(user)
        self._arm = arm
        self._live = trio.Event()
        self._client: client.Client | None = None

    async def run(self) -> None:
        # A ticket serves once, so each attempt asks for one; a server that issues none is told the name.
        backend, user = self._arm.backend, self.journal.user
        tickets = await backend.ticket(user) is not None
        async with client.connect(
            self._arm.url(user),
            token=partial(backend.ticket, user) if tickets else None,  # type: ignore[arg-type]
            user=None if tickets else user,
            on_state=self._on_state,
            on_gap=self._on_gap,
        ) as self._client:
            async for event in self._client:
                self._take(event)

    def _take(self, event: Event) -> None:
        first = event.merged.from_seq if event.merged else event.seq
        self.journal.given(numbers(event.payload), trio.current_time(), first, event.seq)

    def _on_gap(self, gap: Gap) -> None:
        self.journal.gap(gap.first, gap.last, gap.reason)

    def _on_state(self, state: ClientState) -> None:
        if state.name == "live":
            self._live.set()

    async def wait_live(self) -> None:
        await self._live.wait()

    def expect(self) -> None:
        self._live = trio.Event()

    def figures(self) -> dict[str, int]:
        if self._client is None:
            return {}
        figures = self._client.statistics()
        names = ("duplicates", "gaps", "reconnects", "attempts", "resets", "violations")
        return {name: getattr(figures, name) for name in names}


class StockWatcher:
    """A user's client of the stock server."""

    def __init__(self, arm: Arm, user: str) -> None:
        self.journal = Journal(user)
        self._live = trio.Event()
        self._connections = 0
        self._client = StockClient(arm.url(user), self._take, self._on_connected, random.Random(user))

    async def run(self) -> None:
        await self._client.run()

    def _take(self, event: dict[str, Any]) -> None:
        self.journal.given(numbers(event.get("payload")), trio.current_time())

    def _on_connected(self) -> None:
        self._connections += 1
        self._live.set()

    async def wait_live(self) -> None:
        await self._live.wait()

    def expect(self) -> None:
        self._live = trio.Event()

    def figures(self) -> dict[str, int]:
        return {"reconnects": max(0, self._connections - 1)}
