"""One simulated run: its seed, and all that a test takes from it in place of the real world."""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

import trio
from trio.testing import MockClock

from ..client import Client, connect
from ..config import Config
from ..hub import Hub, open_hub
from ..server import serve
from .counters import Sometimes
from .network.levels import LEVELS, LevelName
from .network.network import SimNetwork
from .timers import Timers
from .trace import Trace

EPOCH: Final = 1_700_000_000.0
"""What the wall clock shows when a simulation begins: November 2023, for no particular reason."""


class Simulation:
    """A world that follows from its seed. `run_simulated` makes one and hands it to what it runs.

    Args:
      seed: any whole number.
      level: what travels: bytes (``wire``), or whole messages (``message``), which is faster.

    Attributes:
      seed: as given.
      level: what differs by level.
      rng: chance for the test's own decisions.
      clock: Trio's, which jumps to the next deadline whenever all tasks wait. It begins at 0.
      timers: what happens by itself, with no task behind it.
      network: connects hosts.
      trace: what has happened.
      sometimes: counts rare states: ``simulation.sometimes("resumed in a replay")``.
    """

    def __init__(self, seed: int, *, level: LevelName = "wire") -> None:
        self.seed = seed
        self.level = LEVELS[level]
        self.clock = MockClock(autojump_threshold=0)
        self.timers = Timers.of(self.clock)
        self.rng = self.derive("test")
        self.trace = Trace(self.clock.current_time)
        self.sometimes = Sometimes()
        self.network = SimNetwork(self.derive("network"), clock=self.clock.current_time, trace=self.trace)
        self._ids = self.derive("ids")
        self._wall_offset = 0.0

    def derive(self, purpose: str) -> random.Random:
        """A generator of its own for one purpose, so that what is drawn for it does not change other draws."""
        return random.Random(f"{self.seed}/{purpose}")

    def new_id(self) -> str:
        """An id of 24 characters."""
        return f"{self._ids.getrandbits(96):024x}"

    def wall_clock(self) -> float:
        """Simulated seconds since the Unix epoch."""
        return EPOCH + self._wall_offset + self.clock.current_time()

    def set_wall_clock(self, seconds: float) -> None:
        """Put the wall clock forward by so much, or back, as an operator or NTP does. No other clock is touched."""
        self.trace.note("wall clock", seconds=seconds)
        self._wall_offset += seconds

    def pause(self, seconds: float) -> None:
        """Let so much time pass in which no task runs, as when a process or a laptop is suspended. Not a checkpoint."""
        self.trace.note("pause", seconds=seconds)
        self.clock.jump(seconds)
        self.timers.ring()  # what has arrived meanwhile is there before anybody's patience ends

    # -- The package, in this world

    def open_hub(self, config: Config | None = None, **options: Any) -> AbstractAsyncContextManager[Hub]:
        """As `trio_ws.open_hub`, with this world's ids and clocks."""
        return open_hub(config, **{"wall_clock": self.wall_clock, "new_id": self.new_id, **options})

    def serve(self, hub: Hub, name: str = "server", **options: Any) -> Coroutine[Any, Any, None]:
        """As `trio_ws.serve`, listening on the network under `name`: ``await nursery.start(simulation.serve, hub)``."""
        return serve(hub, **{**self.level.serve, "listeners": [self.network.listen(name)], **options})

    def connect(
        self,
        user: str | None = None,
        *,
        to: str = "server",
        host: str | None = None,
        path: str = "/ws",
        **options: Any,
    ) -> AbstractAsyncContextManager[Client]:
        """As `trio_ws.connect`, over the network.

        Args:
          user: who one is.
          to: what the server listens under.
          host: the client's host; None takes the user's name.
          path: of the URL.
          options: as `trio_ws.connect` has them.
        """
        stream = self.dialer(to, host or user or "client")
        rng = random.Random(self._ids.getrandbits(64))
        chosen = {**self.level.connect, "rng": rng, "wall_clock": self.wall_clock, **options}
        return connect(f"ws://{to}{path}", user=user, open_stream=stream, **chosen)

    def dialer(self, to: str, host: str) -> Callable[[], Any]:
        """What `trio_ws.connect` takes as `open_stream`: each call is a new connection from `host`."""

        async def dial() -> trio.abc.Stream:
            return await self.network.connect(to, client=host)

        return dial
