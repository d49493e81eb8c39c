"""Tabs: real clients in a simulated run, with an application behind them that may be slow, or fail."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Literal

import trio

from ...client import Client, ClientState, SavedSession
from ...errors import ConnectionRefused, SessionEnded
from ...event import Event, Gap
from ..checkers.record import Record
from ..plan import Plan
from ..simulation import Simulation
from .cancels import Cancels
from .doors import LOOKER, Doors

RESPAWN = (0.2, 2.0)
"""Seconds after which a tab that ended is followed by another, from and to."""


class Tab:
    """One place at which a user looks: a client, and after its end the next one, until it is stopped.

    Args:
      user, number: whose, and the how manieth of that user.
      cancels: where what may be cancelled is found.
      doors: where tokens come from.
      on_catching_up: called when a client of it has something to catch up with.

    Attributes:
      client: the one that runs now; None between two.
      name: that one's name. A client that goes on from what an earlier one had saved has its name.
      calm: the faults are over: the handler is quick, and fails no more.
      looks_on: its client acks nothing.
    """

    def __init__(
        self,
        sim: Simulation,
        plan: Plan,
        record: Record,
        user: str,
        number: int,
        *,
        cancels: Cancels,
        doors: Doors,
        on_catching_up: Callable[[Tab], object],
    ) -> None:
        self.user = user
        self.client: Client | None = None
        self.name = ""
        self.calm = self.looks_on = False
        self._cancels = cancels
        self._doors = doors
        self._on_catching_up = on_catching_up
        self._sim = sim
        self._plan = plan
        self._record = record
        self._label = f"{user}/tab{number}"
        self._rng = sim.derive(self._label)
        self._scope = trio.CancelScope()
        self._count = 0
        self._saved: SavedSession | None = None
        self._persisted: SavedSession | None = None
        self._stopped = False
        self._begin_anew()

    async def run(self) -> None:
        """Live until `stop`. Cancelling it ends the client as a crash would, or nearly."""
        if self._plan.late:
            await trio.sleep(self._rng.uniform(0, self._plan.late))
        while not self._stopped:
            saved, self._saved = self._saved, None
            if saved is None:
                self._begin_anew()
            with self._cancels.scope("connect") as self._scope:
                await self._one_life(saved)
            if not self._stopped and self._saved is None:
                await trio.sleep(self._rng.uniform(*RESPAWN))

    def _begin_anew(self) -> None:
        self._count += 1
        self.looks_on = not self.calm and self._rng.random() < self._plan.lookers
        self.name = f"{self._label}.{self._count}{LOOKER if self.looks_on else ''}"
        self._persisted = None
        self._shared = False

    async def _one_life(self, saved: SavedSession | None) -> None:
        start: Literal["retained", "pending"] = self._rng.choice(("retained", "retained", "pending"))
        name = self.name
        self._sim.trace.note("tab", name=name, start="saved" if saved else start)
        try:
            async with self._sim.connect(
                host=name,
                token=self._doors.token(name),
                session=saved,
                from_=start,
                ack=not self.looks_on,
                on_gap=lambda gap: self._told(name, gap),
                on_state=partial(self._state, f"{name} {self._sim.clock.current_time()}"),
                rng=random.Random(self._rng.getrandbits(64)),
            ) as client:
                self.client = client
                try:
                    while True:
                        await self._handle(client, name, await self._receive(client))
                except trio.EndOfChannel:
                    pass
                finally:
                    self._look_back(client, name)
        except (SessionEnded, ConnectionRefused) as error:
            self._sim.trace.note("ended", name=name, why=str(error))
            self._sim.sometimes(f"session ended: {getattr(error, 'code', 'HTTP')}")
        finally:
            self.client = None

    async def _receive(self, client: Client) -> Event:
        """The next event; a call that was cancelled is made again."""
        while True:
            with self._cancels.scope("receive"):
                return await client.receive()

    def _state(self, life: str, state: ClientState) -> None:
        self._record.state(life, state)
        if state.name == "catching_up":
            self._on_catching_up(self)

    async def _handle(self, client: Client, name: str, event: Event) -> None:
        if not self.calm:
            if self._plan.handler:
                await trio.sleep(self._rng.uniform(0, self._plan.handler))
            await trio.lowlevel.checkpoint_if_cancelled()  # who has crashed is through with nothing more
            if self._rng.random() < self._plan.failing:
                self._sim.sometimes("handler failed")
                self._record.handed_back(name, event)
                await client.nack(event)
                return
        self._sim.sometimes("merged event", event.merged is not None)
        self._sim.trace.note("processed", name=name, seq=event.seq, retry=event.retry)
        self._record.processed(name, event)
        if self._rng.random() < 0.3:
            self._persisted = client.saved()

    def _told(self, name: str, gap: Gap) -> None:
        self._sim.sometimes(f"gap: {gap.reason}")
        self._sim.trace.note("told", name=name, first=gap.first, last=gap.last, reason=gap.reason)
        self._record.told(name, gap)

    def _look_back(self, client: Client, name: str) -> None:
        figures = client.statistics()
        if figures.violations:
            self._record.fail("the client sees the protocol kept", f"{name}: {figures.violations} violations")
        self._sim.sometimes("reconnected", figures.reconnects > 0)
        self._sim.sometimes("epoch was reset", figures.resets > 0)
        self._sim.sometimes("duplicate dropped", figures.duplicates > 0)

    # -- what may happen to it

    def cut(self) -> None:
        """Its connection is dropped."""
        if self.client is not None:
            self.client.cut()

    def crash(self, *, keep: bool) -> None:
        """It goes without a word, and comes back.

        Args:
          keep: it goes on from what it had saved: at once, or a while ago, before it processed more.
        """
        if self.client is None:
            return
        self._saved = self.client.saved() if keep else None
        if self._saved is not None and self._persisted is not None and self._rng.random() < 0.5:
            self._saved = self._persisted
            self._sim.sometimes("crash before persisting")
        if self._saved is not None:
            self._record.restored(self.name, self._saved.epoch, self._saved.seq, self._shared)
        self.client.cut()
        self._scope.cancel()

    async def duplicate(self, saved: SavedSession, seconds: float) -> None:
        """Another client goes on with what this one has saved, for so long, beside it. A checkpoint."""
        self._count += 1
        name = f"{self._label}.{self._count}"
        self._sim.trace.note("twin", name=name, of=self.name)
        self._shared = True
        # Where it is to go on from what it had saved, it may find that its twin went on from there.
        if self._saved is not None:
            self._record.restored(self.name, self._saved.epoch, self._saved.seq, shared=True)
        elif self.client is not None and not self.client.statistics().connections:
            self._record.restored(self.name, saved.epoch, saved.seq, shared=True)
        with trio.move_on_after(seconds):
            try:
                async with self._sim.connect(
                    host=name,
                    token=self._doors.token(name),
                    session=saved,
                    bye=False,
                    on_gap=lambda gap: self._told(name, gap),
                    rng=random.Random(self._rng.getrandbits(64)),
                ) as client:
                    async for event in client:
                        self._record.processed(name, event)
            except (SessionEnded, ConnectionRefused) as error:
                self._sim.trace.note("ended", name=name, why=str(error))

    async def leave(self) -> None:
        """It says goodbye, and another comes. A checkpoint."""
        if self.client is not None:
            await self.client.aclose()

    async def stop(self) -> None:
        """It says goodbye for good. A checkpoint."""
        self._stopped = True
        if self.client is not None:
            await self.client.aclose()
        self._scope.cancel()
