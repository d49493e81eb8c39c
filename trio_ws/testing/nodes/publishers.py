"""Publishers of several nodes: each event is handed to one node after the other, under its id, until one takes it."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Final

import trio

from ...errors import HubClosed, StoreError, StoreUnavailable
from ...event import Priority
from ..checkers.sight import Published

if TYPE_CHECKING:
    from .scenario import World

TRIES: Final = 20
"""How often a publisher hands over an event until it gives up."""

PATIENCE: Final = 10.0
"""Seconds that a publisher waits for one node."""


class Publisher:
    """Publishes to one user, until it is cancelled."""

    def __init__(self, world: World, user: str) -> None:
        self._world = world
        self._user = user
        self._rng = world.sim.derive(f"publisher of {user}")

    async def run(self) -> None:
        """Publish, as the plan has it."""
        plan, rng = self._world.plan, self._rng
        async with trio.open_nursery() as nursery:
            while True:
                await trio.sleep(rng.expovariate(2 * plan.rate / (1 + plan.burst)))
                for _ in range(rng.randint(1, plan.burst)):
                    event, options = self._draw()
                    nursery.start_soon(self._publish, event, options, random.Random(rng.getrandbits(64)))

    def _draw(self) -> tuple[Published, dict[str, Any]]:
        """An event, and how it is published."""
        plan, rng, record = self._world.plan, self._rng, self._world.record
        token = len(record.events) + 1
        kind = "note"
        options: dict[str, Any] = {}
        if rng.random() < plan.critical:
            kind, options = "tool_completed", {"priority": Priority.CRITICAL}
        elif rng.random() < plan.deltas:
            kind, options = rng.choice(("token", "token", "thought")), {"merge": "append"}
        elif rng.random() < plan.keyed:
            kind, options = "progress", {"key": rng.choice(("a", "b"))}
        event = Published(
            token=token,
            user=self._user,
            type=kind,
            text=f"{token}.{'x' * rng.randint(0, plan.text)};",
            life=0,
            priority=options.get("priority", Priority.NORMAL),
            tracked=kind == "tool_completed",
            delta="merge" in options,
            key=options.get("key"),
            mortal=False,
            id=f"{self._user}-{token}",
            asked_at=trio.current_time(),
        )
        return event, options | {"payload": record.publish(event), "id": event.id}

    async def _publish(self, event: Published, options: dict[str, Any], rng: random.Random) -> None:
        """Hand an event to one node after the other, until one has accepted it."""
        sim = self._world.sim
        for attempt in range(TRIES):
            hubs = self._world.hubs()
            if hubs:
                hub = rng.choice(hubs)
                try:
                    with trio.move_on_after(PATIENCE):
                        receipt = await hub.publish(event.user, event.type, **options)
                        sim.trace.note("accepted", token=event.token, seq=receipt.seq)
                        sim.sometimes("accepted at another try", attempt > 0)
                        sim.sometimes("accepted twice", receipt.duplicate)
                        self._world.record.promised(event, receipt)
                        return
                except (HubClosed, StoreUnavailable, StoreError):
                    sim.sometimes("a node did not take an event")
            await trio.sleep(rng.uniform(0.05, 1))
