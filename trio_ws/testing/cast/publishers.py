"""Publishers of a simulated run: what they hand to the hub, and how they take its answers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import attrs
import trio

from ...errors import ConfirmationTimeout, EventTooLarge, HubClosed, StoreUnavailable
from ...event import LIFECYCLE_TYPES, Priority
from ...hub import Hub, Receipt
from ...hub.engine import MEMORY_CRITICAL_TTL
from ..checkers.sight import Published

if TYPE_CHECKING:
    from ..scenario import World

CONFIRMED = "a confirmation tells the truth"

MOST_AWAITED = 5
"""How many confirmations of one user's events may be waited for at once."""

MOST_WAITING = 5
"""How many publishers of one user may wait for room at once."""

REMEMBERED_FOR = 2.0
"""Seconds within which an event that is published again must be known."""


class Publisher:
    """Publishes to one user, alone or now and then together with all others, until it is cancelled."""

    def __init__(self, world: World, user: str) -> None:
        self._world = world
        self._user = user
        self._rng = world.sim.derive(f"publisher of {user}")
        self._waiting = self._awaited = 0
        self._nursery: trio.Nursery

    async def run(self) -> None:
        """Publish, in bursts, as the plan has it."""
        plan, rng = self._world.plan, self._rng
        mean = (1 + plan.burst) / 2 / (plan.hot if self._user == self._world.users[0] else 1)
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            while True:
                await trio.sleep(rng.expovariate(plan.rate / mean))
                await self._world.lives.up.wait()
                for _ in range(rng.randint(1, plan.burst)):
                    hub = self._world.hub
                    if hub is None:
                        break
                    event, options = self._draw()
                    if rng.random() < plan.shared and self._waiting < MOST_WAITING:
                        nursery.start_soon(self._broadcast, hub, event, options, rng.uniform(0.05, 8))
                        continue
                    if rng.random() < 0.5 or self._waiting >= MOST_WAITING:
                        self._publish_nowait(hub, event, options)
                    else:
                        nursery.start_soon(self._publish, hub, event, options, rng.uniform(0.05, 8))
                    if event.id is not None:
                        nursery.start_soon(self._again, hub, event, options, rng.choice((0.0, 0.001, 1.0)))

    def _draw(self) -> tuple[Published, dict[str, Any]]:
        """An event, and how it is published."""
        plan, rng, world = self._world.plan, self._rng, self._world
        options: dict[str, Any] = {}
        priority = rng.choice((Priority.LOW, Priority.NORMAL, Priority.NORMAL, Priority.HIGH))
        kind, delta, key = "note", False, None
        if rng.random() < plan.critical:
            priority = Priority.CRITICAL
            kind = rng.choice((*LIFECYCLE_TYPES, "alarm"))
            if rng.random() < plan.keyed:  # which means nothing to it: it is superseded by none
                options["key"] = rng.choice(("a", "b"))
        elif rng.random() < plan.deltas:
            kind, delta, priority = rng.choice(("token", "token", "token", "thought")), True, Priority.NORMAL
            options["merge"] = "append"
            if rng.random() < 0.2:
                options["key"] = key = rng.choice(("a", "b"))
        elif rng.random() < plan.keyed:
            kind, key = rng.choice(("progress", "load")), rng.choice(("a", "b"))
            options["key"] = key
        confirmed = rng.random() < plan.confirmed and not delta
        mortal = rng.random() < plan.mortal
        if confirmed:
            options["confirm"] = True
        if mortal:
            options["ttl"] = rng.choice((0.2, 2.0, 8.0))
        if kind not in LIFECYCLE_TYPES:
            options["priority"] = priority
        token = len(world.record.events) + 1  # one for each copy, so that each is still free
        if rng.random() < plan.repeated:
            options["id"] = f"key-{token}"
        event = Published(
            token=token,
            user=self._user,
            type=kind,
            text=f"{token}.{'x' * rng.randint(0, plan.text)};",
            life=world.record.life,
            priority=priority,
            tracked=confirmed or priority is Priority.CRITICAL,
            delta=delta,
            key=key,
            mortal=mortal,
            id=options.get("id"),
            asked_at=trio.current_time(),
            ttl=options.get("ttl", self._default_ttl(priority)),
        )
        options["payload"] = world.record.publish(event)
        return event, options

    def _default_ttl(self, priority: Priority) -> float:
        config = self._world.config
        if priority is not Priority.CRITICAL:
            return config.event_ttl
        if config.critical_ttl is not None:
            return config.critical_ttl
        return math.inf if self._world.plan.durable else MEMORY_CRITICAL_TTL

    def _publish_nowait(self, hub: Hub, event: Published, options: dict[str, Any]) -> None:
        try:
            receipt = hub.publish_nowait(self._user, event.type, **options)
        except trio.WouldBlock:
            event.refused = True
            self._world.sim.sometimes("WouldBlock")
        except (HubClosed, EventTooLarge, StoreUnavailable):
            event.refused = True
        else:
            self._accepted(event, receipt)

    async def _publish(self, hub: Hub, event: Published, options: dict[str, Any], patience: float) -> None:
        self._waiting += 1
        before = trio.current_time()
        try:
            with trio.move_on_after(patience), self._world.cancels.scope("publish"):
                receipt = await hub.publish(self._user, event.type, **options)
                self._world.sim.sometimes("publisher waited", trio.current_time() > before)
                self._accepted(event, receipt)
        except (HubClosed, EventTooLarge):
            pass
        except StoreUnavailable:
            self._world.sim.sometimes("the store was not available")
        finally:
            self._waiting -= 1
            if event.receipt is None:
                # Where its commit was waited for, it may have been accepted all the same.
                event.refused = not self._world.plan.durable
                self._world.sim.sometimes("publisher gave up")

    async def _broadcast(self, hub: Hub, event: Published, options: dict[str, Any], patience: float) -> None:
        """Publish to all who are known, or to a few; whoever gives up does not know who has it."""
        world, rng = self._world, self._rng
        everybody = rng.random() < 0.3
        others = [user for user in world.users if user != self._user and rng.random() < 0.7]
        users = hub.users() if everybody else [self._user, *others]
        copies = {user: event if user == self._user else _copy(event, user) for user in users}
        event.copies = copies
        for copy in copies.values():
            if copy is not event:
                world.record.publish(copy)
        self._waiting += 1
        world.record.broadcasts += 1
        try:
            with trio.move_on_after(patience), world.cancels.scope("broadcast"):
                receipts = await hub.broadcast("*" if everybody else users, event.type, **options)
                for user, receipt in zip(copies, receipts, strict=True):
                    if receipt.user != user:
                        world.record.fail(
                            "receipts are of those who were asked for", f"{user}: {receipt.user}"
                        )
                    self._accepted(copies[user], receipt)
                world.sim.sometimes("broadcast", len(receipts) > 1)
        except EventTooLarge:
            for copy in copies.values():
                copy.refused = True
        except (HubClosed, StoreUnavailable):
            pass
        finally:
            world.record.broadcasts -= 1
            self._waiting -= 1

    async def _await(self, hub: Hub, event: Published, receipt: Receipt) -> None:
        """Wait until an event is confirmed; give up, or be cancelled, and wait again."""
        sim, rng = self._world.sim, self._rng
        self._awaited += 1
        try:
            while hub is self._world.hub:
                timeout, begun = rng.choice((0.1, 1.0, 10.0)), trio.current_time()
                try:
                    with self._world.cancels.scope("confirmed"):
                        confirmation = await receipt.confirmed(timeout)
                        sim.sometimes("confirmed late", confirmation.late)
                        if not event.acked_by and not event.delta and hub is self._world.hub:
                            self._world.record.fail(CONFIRMED, f"{event}, and nobody acked it")
                        return
                except ConfirmationTimeout as error:
                    waits = error.state in ("held", "sent")
                    sim.sometimes(f"not confirmed: {error.state}")
                    if waits and trio.current_time() < begun + timeout - 1e-6:
                        self._world.record.fail(CONFIRMED, f"{event} was given up too early")
                    if not waits:
                        return
        finally:
            self._awaited -= 1

    def _accepted(self, event: Published, receipt: Receipt) -> None:
        self._world.sim.trace.note("accepted", token=event.token, user=event.user, seq=receipt.seq)
        self._world.record.accepted(event, receipt)
        hub, share = self._world.hub, self._world.plan.awaited
        if self._awaited < MOST_AWAITED and hub is not None and self._rng.random() < share:
            self._nursery.start_soon(self._await, hub, event, receipt)

    async def _again(self, hub: Hub, event: Published, options: dict[str, Any], after: float) -> None:
        """Publish an event again, under its id, once it was accepted."""
        before = trio.current_time()
        await trio.sleep(after)
        late = trio.current_time() > before + REMEMBERED_FOR
        if event.receipt is None or hub is not self._world.hub or late:
            return
        try:
            receipt = hub.publish_nowait(self._user, event.type, **options)
        except (HubClosed, StoreUnavailable):
            pass
        except trio.WouldBlock:
            if self._user in hub.engine.buffer.asleep:
                return  # its log has left memory meanwhile, and is read again
            self._world.record.fail("the same idempotency key makes one event", f"{event} was refused again")
        else:
            self._world.sim.sometimes("published again", receipt.duplicate)
            self._world.record.repeated(event, receipt)


def _copy(event: Published, user: str) -> Published:
    return attrs.evolve(event, user=user, sent_to=set(), acked_by=set(), copies={})
