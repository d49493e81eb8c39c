"""Who may come in: tokens that run out, sources of them that are slow or fail, and what the server makes of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from ...client import Token
from ...server import Credentials
from ..checkers.sight import Deliberate, Known

if TYPE_CHECKING:
    from ..scenario import World

LOOKER: Final = "-looks-on"
"""How the names end of clients that ack nothing."""


class Doors:
    """Makes tokens, and checks them.

    A token is the name of a client, after that of its user and a slash; behind a number sign follows how manieth it is.

    Attributes:
      calm: the faults are over: everything is quick, and nothing fails any more.
    """

    def __init__(self, world: World) -> None:
        self.calm = False
        self._world = world
        self._rng = world.sim.derive("doors")
        self._issued = 0

    def token(self, name: str) -> Token:
        """What a tab of this name has to come in with: a token, or a source of them where they run out."""
        if not self._world.plan.expires:
            return name

        async def fresh() -> str:
            await self._work()
            self._issued += 1
            return f"{name}#{self._issued}"

        return fresh

    async def authenticate(self, credentials: Credentials) -> Known | None:
        """See `trio_ws.serve`."""
        name = (credentials.token or "").partition("#")[0]
        user, slash, client = name.partition("/")
        if user not in self._world.users or not slash:
            return None
        honest, acks = client.startswith("tab"), not client.endswith(LOOKER)
        if not self._world.plan.expires or not honest:
            return Known(user, client=name, honest=honest, acks=acks)
        await self._work()
        lifetime = self._world.plan.expires * self._rng.uniform(0.5, 1.5)
        sim = self._world.sim
        return Known(
            user,
            sim.wall_clock() + lifetime,
            client=name,
            until=sim.clock.current_time() + lifetime,
            acks=acks,
        )

    async def _work(self) -> None:
        """What is done at either side takes a while, and fails at times. A checkpoint."""
        await trio.sleep(0 if self.calm else self._rng.uniform(0, self._world.plan.slow))
        if not self.calm and self._rng.random() < 0.05:
            self._world.sim.sometimes("credentials failed")
            raise Deliberate
