"""Faults at chosen moments: each kind of `plan.FAULTS` happens by itself, at times that follow from the seed alone."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING
from urllib.parse import quote

import attrs
import trio

from ..network.connection import Connection
from .raw import misbehave
from .tabs import Tab

if TYPE_CHECKING:
    from ..scenario import World

LEAST_REST = 0.01
"""Seconds between two faults of one kind at least."""


class Chaos:
    """Has faults happen to a world, until it is cancelled."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._sim = world.sim

    async def run(self) -> None:
        """Every fault of the plan, as often as it says; and its misbehaving clients."""
        async with trio.open_nursery() as nursery:
            for kind, rate in self._world.plan.faults.items():
                nursery.start_soon(self._repeat, kind, rate)
            for character, count in self._world.plan.characters.items():
                for number in range(count):
                    nursery.start_soon(self._be, character, f"{character}{number}")

    async def _repeat(self, kind: str, rate: float) -> None:
        rng = self._sim.derive(f"fault {kind}")
        act: Callable[[random.Random], Awaitable[bool]] = getattr(self, f"_{kind}")
        while True:
            await trio.sleep(max(LEAST_REST, rng.expovariate(rate)))
            if await act(rng):
                self._world.faults[kind] += 1
                self._sim.trace.note("fault", fault=kind)

    # -- the disk

    async def _disk_full(self, rng: random.Random) -> bool:
        if disk := self._world.disk:
            disk.fail(rng.uniform(0.01, 8), late=rng.random() < 0.5)
        return disk is not None

    async def _disk_stall(self, rng: random.Random) -> bool:
        if disk := self._world.disk:
            disk.stall(rng.uniform(0.01, 12))
        return disk is not None

    # -- the network

    def _connection(self, rng: random.Random) -> Connection | None:
        connections = self._sim.network.connections
        return rng.choice(connections) if connections else None

    async def _reset(self, rng: random.Random) -> bool:
        if connection := self._connection(rng):
            connection.reset()
        return connection is not None

    async def _stall_in(self, rng: random.Random) -> bool:
        if connection := self._connection(rng):
            connection.stall("up", rng.uniform(0.1, 12))
        return connection is not None

    async def _stall_out(self, rng: random.Random) -> bool:
        if connection := self._connection(rng):
            connection.stall("down", rng.uniform(0.1, 12))
        return connection is not None

    async def _stall_reset(self, rng: random.Random) -> bool:
        connection = self._connection(rng)
        if connection is None:
            return False
        connection.stall("both")
        await trio.sleep(rng.uniform(0, 6))
        connection.reset()
        return True

    async def _slow(self, rng: random.Random) -> bool:
        if connection := self._connection(rng):
            rate = rng.choice((200.0, 2000.0, 20000.0))
            connection.set_conditions(attrs.evolve(connection.down.conditions, rate=rate), "down")
        return connection is not None

    async def _partition(self, rng: random.Random) -> bool:
        tab = self._tab(rng)
        if tab is None:
            return False
        one, other = rng.choice(((tab.name, "server"), ("server", tab.name)))
        self._sim.network.partition(one, other, rng.uniform(0.1, 15), one_way=rng.random() < 0.5)
        return True

    async def _storm(self, rng: random.Random) -> bool:
        for connection in self._sim.network.connections:
            connection.reset()
        return True

    async def _half_close(self, rng: random.Random) -> bool:
        tab = self._tab(rng)
        mine = [c for c in self._sim.network.connections if tab is not None and c.client == tab.name]
        if not mine:
            return False
        try:
            await mine[-1].client_stream.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):  # the client is through with it
            return False
        return True

    async def _rolling(self, rng: random.Random) -> bool:
        """One after the other goes, as when cells of a network fail; they come back in another order."""
        gone = list(self._sim.network.connections)
        rng.shuffle(gone)
        for connection in gone:
            connection.stall()
            await trio.sleep(rng.uniform(0, 0.5))
        rng.shuffle(gone)
        for connection in gone:
            connection.resume()
            await trio.sleep(rng.uniform(0, 0.5))
        return bool(gone)

    # -- clients

    def _tab(self, rng: random.Random) -> Tab | None:
        tabs = [tab for tab in self._world.tabs if tab.client is not None]
        return rng.choice(tabs) if tabs else None

    async def _cut(self, rng: random.Random) -> bool:
        if tab := self._tab(rng):
            tab.cut()
        return tab is not None

    async def _crash(self, rng: random.Random) -> bool:
        if tab := self._tab(rng):
            tab.crash(keep=True)
        return tab is not None

    async def _reload(self, rng: random.Random) -> bool:
        if tab := self._tab(rng):
            tab.crash(keep=False)
        return tab is not None

    async def _leave(self, rng: random.Random) -> bool:
        if tab := self._tab(rng):
            await tab.leave()
        return tab is not None

    async def _duplicate(self, rng: random.Random) -> bool:
        tab = self._tab(rng)
        saved = None if tab is None or tab.client is None else tab.client.saved()
        if tab is None or saved is None:
            return False
        seq = max(0, saved.seq + rng.choice((-2, -1, 0, 0, 1)))
        hello = {"session": saved.session, "epoch": saved.epoch, "seq": seq}
        with trio.move_on_after(rng.uniform(0.1, 5)):
            # Now and then somebody else knows its name: that must not help.
            user = rng.choice(self._world.users) if rng.random() < 0.3 else tab.user
            await self._dial(rng.choice(("mute", "deaf")), f"{user}/double", rng, hello)
        return True

    async def _twin(self, rng: random.Random) -> bool:
        """A tab is duplicated, with what it has saved; maybe while it is away."""
        tab = self._tab(rng)
        if tab is None or tab.client is None or (saved := tab.client.saved()) is None:
            return False
        if rng.random() < 0.5:
            self._sim.network.partition(tab.name, "server", rng.uniform(0.5, 8))
        await tab.duplicate(saved, rng.uniform(0.5, 10))
        return True

    async def _away(self, rng: random.Random) -> bool:
        """A tab is away for about as long as its session is kept: its resume races the cleanup."""
        tab, config = self._tab(rng), self._world.config
        if tab is None or config.session_ttl > 10:
            return False
        seconds = config.session_ttl + rng.uniform(-0.5, config.cleanup_interval)
        tab.cut()
        self._sim.network.partition(tab.name, "server", seconds)
        await trio.sleep(seconds)
        return True

    async def _in_replay(self, rng: random.Random) -> bool:
        """The next tab that is catching up is cut off, or its server goes."""
        blows: tuple[Callable[[Tab], object], ...] = (
            Tab.cut,
            lambda tab: self._world.lives.leave(),
            lambda tab: self._world.lives.die_after(1),
        )
        blow = rng.choice(blows[:1] * 6 + blows)
        steps = rng.randint(1, 60)

        def catching_up(tab: Tab) -> None:
            self._world.on_catching_up = None
            self._world.lives.steps.after(steps, lambda: strike(tab))

        def strike(tab: Tab) -> None:
            if tab.client is not None:
                self._sim.sometimes("struck in a replay", tab.client.state.name == "catching_up")
                blow(tab)

        self._world.on_catching_up = catching_up
        return True

    async def _be(self, character: str, label: str) -> None:
        """A client of this character, again and again."""
        rng = self._sim.derive(label)
        while True:
            user = rng.choice(self._world.users)
            self._world.faults[character] += 1
            with trio.move_on_after(rng.uniform(1, 30)):
                await self._dial(character, f"{user}/{label}", rng, {})
            await trio.sleep(rng.uniform(0.1, 5))

    async def _dial(self, character: str, name: str, rng: random.Random, hello: dict[str, object]) -> None:
        try:
            stream = await self._sim.network.connect("server", client=name)
        except OSError:
            return
        try:
            wrong = await misbehave(
                character,
                stream,
                quote(name, safe="") if character == "plain" else name,
                rng,
                hello,
                self._sim.level.speak,
            )
            if wrong:
                self._world.record.fail("why a connection ends is told before it does", f"{name}: {wrong}")
        finally:
            if rng.random() < 0.5:
                stream.connection.reset()
            stream.close()

    # -- the server

    async def _dismiss(self, rng: random.Random) -> bool:
        hub = self._world.hub
        if hub is None:
            return False
        user = rng.choice(self._world.users)
        box = hub.engine.buffer.mailboxes.get(user)
        if box is None or not box.sessions:
            return False
        return hub.end_session(user, rng.choice(list(box.sessions)))

    async def _pause(self, rng: random.Random) -> bool:
        seconds = rng.choice((0.3, 1.0, 4.0, 20.0, 60.0))
        record = self._world.record
        record.jumped_from, record.jumped_at = trio.current_time(), trio.current_time() + seconds
        self._sim.pause(seconds)
        return True

    async def _wall(self, rng: random.Random) -> bool:
        self._sim.set_wall_clock(rng.choice((-3600.0, -60.0, -1.0, 1.0, 60.0, 3600.0)))
        return True

    async def _unserve(self, rng: random.Random) -> bool:
        return self._world.lives.unserve()

    async def _cancel(self, rng: random.Random) -> bool:
        """Something that may be cancelled is, at whatever checkpoint it has come to some steps from now."""
        steps, at = rng.randint(1, 200), rng.random()
        if rng.random() < 0.5:
            self._world.lives.steps.after(steps, lambda: self._world.cancels.cancel_any(at))
        else:
            self._world.lives.steps.after(steps, lambda: self._world.lives.cancel_any(at))
        return True

    async def _restart(self, rng: random.Random) -> bool:
        return self._world.lives.leave()

    async def _kill(self, rng: random.Random) -> bool:
        return self._world.lives.cancel()

    async def _die(self, rng: random.Random) -> bool:
        self._world.lives.die_after(rng.randint(1, 400))
        return self._world.hub is not None
