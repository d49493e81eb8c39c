"""The server's lives: a hub and its server, and after their end the next ones, however they end.

They end in order, as by SIGTERM; or cancelled, with all that runs in their block; or they die, between any two steps
of their tasks, and nothing that their tasks still do has an effect. Without a disk, the next hub knows nothing of the
one before, and begins a new epoch; with one, it goes on from what the one before has left there when it died.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import trio

from ...config import Config
from ...hub import Hub
from ...hub.dead_letters import OnDeadLetter
from ...hub.engine import CHUNK
from ..checkers.record import Record
from ..disk import Disk
from ..network.connection import Connection
from ..network.network import SimListener
from ..simulation import Simulation
from ..steps import Steps
from .cancels import pick

REST = (0.05, 4.0)
"""Seconds between two lives, from and to."""

SILENT = 0.3
"""Share of the deaths that the clients hear nothing of: the machine has gone, not just the process."""


class Lives:
    """Runs hub after hub, each with its server.

    Args:
      serve: serves a hub on a listener; for `trio.Nursery.start`.
      on_dead_letter: as `trio_ws.open_hub` takes it.
      over: is told of each hub that has ended, before it unwinds.
      disk: where hubs have their store.
      chunk: about how many bytes a hub gives a connection in one turn.

    Attributes:
      hub: the one that runs now; None between two, and while one goes away. `up` is set while there is one.
      steps: counts those of the server's tasks.
      safe: it does not die any more.
    """

    def __init__(
        self,
        sim: Simulation,
        config: Config,
        record: Record,
        serve: Callable[..., Awaitable[None]],
        over: Callable[[Hub], None],
        *,
        on_dead_letter: OnDeadLetter,
        disk: Disk | None = None,
        chunk: int = CHUNK,
    ) -> None:
        self.hub: Hub | None = None
        self.up = trio.Event()
        self.safe = False
        self.steps = Steps(lambda error: record.fail("nothing raises", repr(error)))
        self._sim = sim
        self._config = config
        self._record = record
        self._serve = serve
        self._over = over
        self._on_dead_letter = on_dead_letter
        self._disk = disk
        self._chunk = chunk
        self._rng: random.Random = sim.derive("server")
        self._scope: trio.CancelScope | None = None
        self._listener: SimListener | None = None
        self._leave = trio.Event()
        self._serving = trio.CancelScope()
        self._nursery: trio.Nursery | None = None
        self._silenced: list[Connection] = []

    async def run(self) -> None:
        """Live, end and live again, until cancelled."""
        trio.lowlevel.add_instrument(self.steps)
        self.steps.watch(trio.lowlevel.current_task())
        try:
            while True:
                await self._live()
                await trio.sleep(self._rng.uniform(*REST))
                self.let_go()
        finally:
            trio.lowlevel.remove_instrument(self.steps)

    async def _live(self) -> None:
        self._leave = trio.Event()
        hub: Hub | None = None
        with trio.CancelScope() as self._scope:
            store = None if self._disk is None else self._disk.store()
            opened = self._sim.open_hub(self._config, store=store, on_dead_letter=self._on_dead_letter)
            async with opened as hub, trio.open_nursery() as nursery:
                hub.engine.chunk = self._chunk
                self._record.watch(hub)
                await nursery.start(self._server, hub)
                if not self._scope.cancel_called:  # else it has died as it came up
                    self.hub = hub
                    self.up.set()
                await self._leave.wait()
                self._retire()
                await hub.drain()
        self._scope = self._listener = self._nursery = None
        if self._disk is not None:
            self._record.forget_unwritten()
        if hub is not None and hub.engine.attachments:
            self._record.fail("nothing is left", f"{len(hub.engine.attachments)} connections after the end")

    async def _server(
        self, hub: Hub, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve a hub until it drains; each time that this is cancelled by itself, another server comes."""
        while True:
            self._listener = self._sim.network.listen("server")
            with trio.CancelScope() as self._serving:
                async with trio.open_nursery() as self._nursery:
                    await self._nursery.start(self._serve, hub, self._listener)
                    task_status.started()
                    task_status = trio.TASK_STATUS_IGNORED
            if not self._serving.cancelled_caught:
                return
            if left := [line for line in map(self._record.line_of, hub.engine.attachments) if line]:
                self._record.fail("a server that was cancelled leaves no connection", str(left[0]))
            await trio.sleep(self._rng.uniform(0, 1))

    def _retire(self) -> None:
        """Nobody uses this hub any more."""
        hub, self.hub = self.hub, None
        if hub is not None:
            self.up = trio.Event()
            self._over(hub)

    # -- how it ends: none of these is a checkpoint

    def leave(self) -> bool:
        """Go away in order; False where nothing runs, or it goes already."""
        self._leave.set()
        return self.hub is not None

    def cancel(self) -> bool:
        """Cancel the block in which hub and server run; False where none runs."""
        if self.hub is None or self._scope is None:
            return False
        self._retire()
        self._scope.cancel()
        return True

    def unserve(self) -> bool:
        """Cancel the server, and let the hub go on: connections are cut, and another server comes."""
        self._serving.cancel()
        return self.hub is not None

    def cancel_any(self, at: float) -> None:
        """Cancel one of the nurseries that serve connections: that which stands at this share of the way."""
        if self.hub is None or self._nursery is None:
            return
        serving = self._below(self._nursery)
        found = [
            nursery for task in serving for own in task.child_nurseries for nursery in self._nurseries(own)
        ]
        if found:
            self._sim.sometimes("cancelled: connection")
            pick(found, at).cancel_scope.cancel()

    def _nurseries(self, nursery: trio.Nursery) -> list[trio.Nursery]:
        """All that are open in the tasks of `nursery`, however deep."""
        opened = [inner for task in self._below(nursery) for inner in task.child_nurseries]
        return opened + [deeper for inner in opened for deeper in self._nurseries(inner)]

    def _below(self, nursery: trio.Nursery) -> list[trio.lowlevel.Task]:
        """Trio keeps child tasks as a set, whose order follows addresses in memory."""
        return sorted(nursery.child_tasks, key=self.steps.number)

    def die_after(self, steps: int) -> None:
        """Die when the server's tasks have made so many more steps, wherever they are then; in a drain too, but not
        where nothing runs."""
        self.steps.after(steps, self._die, of_watched=True)

    def _die(self) -> None:
        if self._scope is None or self.safe:
            return
        self._retire()
        self._record.bury()
        if self._disk is not None:
            lost = self._disk.lost
            self._disk.crash()
            self._sim.sometimes("died: lost commits", self._disk.lost > lost)
        if self._listener is not None:
            self._sim.network.unlisten(self._listener)
        silent = self._rng.random() < SILENT
        self._sim.trace.note("died", steps=self.steps.count, silent=silent)
        self._sim.sometimes("the server died in silence", silent)
        for connection in self._sim.network.connections:
            if silent:
                connection.stall()
                self._silenced.append(connection)
            else:
                connection.reset()
        self._scope.cancel()

    def let_go(self) -> None:
        """The machine is back: what was connected to the one that died there finds that out."""
        for connection in self._silenced:
            connection.reset()
        self._silenced.clear()
