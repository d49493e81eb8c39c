"""Publishing: from a call to an accepted event and its receipt, at once, by waiting for room, or to many users."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Literal

import trio

from ..core import wire
from ..errors import EventTooLarge, HubClosed, InvalidEvent, StoreUnavailable
from ..event import Draft, Priority
from .acceptance import Acceptance
from .engine import Engine
from .intake import Intake, check_name
from .loading import Loader
from .overflow import Overflow
from .parcel import Parcel
from .receipt import Receipt

YIELD_EVERY: Final = 32
"""How many publishes may pass before one of them lets other tasks have a turn."""


class Publisher:
    """What a hub does for publishers.

    Attributes:
      engine: the hub's state.
      intake: checks and encodes what is published.
      channels: how many channels to each user are open.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.intake = Intake(engine.config)
        self.loader = Loader(engine)
        engine.see_to_rests = Overflow(engine, self.loader.let_sleep).look
        self._acceptance = Acceptance(engine, self.intake, self.loader.let_sleep)
        self.channels: dict[str, int] = {}
        self._turn = 0
        self._asleep = engine.buffer.asleep

    async def publish(
        self,
        user: str,
        type: str,
        payload: Any = None,
        *,
        id: str | None = None,
        priority: Priority | None = None,
        key: str | None = None,
        merge: Literal["append"] | None = None,
        ttl: float | None = None,
        confirm: bool = False,
    ) -> Receipt:
        """Publish one event to a user; waits while the buffer is full of critical events.

        With a store, an event that is critical (or any, where `durability` is ``all``) is durable when this returns.

        Cancelled, the event was not accepted; or it was already, and its commit was being waited for: published again
        under the same `id`, it is one event. A checkpoint for cancellation always; for scheduling at least
        every `YIELD_EVERY` calls, so that a publisher in a loop neither starves others nor pays for each event.

        Args:
          user: whom to; 1 to 128 characters without control characters. Need not be known or connected.
          type, payload, id, priority, key, merge, ttl, confirm: see `trio_ws.Draft`.

        Returns: a receipt, whose `confirmed()` ends when a client has processed the event.

        Raises:
          InvalidEvent: a field is out of its bounds, or the payload has no JSON form.
          EventTooLarge: it is over `max_event_bytes` and can't be cut.
          HubClosed: the hub drains or has ended.
          StoreUnavailable: the event must be durable, or the user's log be read, and the store fails or is slow.
        """
        parcel = self.intake.check(type, id, priority, key, merge, ttl, confirm)
        self._check_open()
        self._check_user(user)
        if not self.intake.encode_small(parcel, payload):
            await self.intake.encode_any(parcel, payload)
        self._turn += 1
        if self._turn % YIELD_EVERY:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            await trio.lowlevel.checkpoint()
        if user in self._asleep:
            await self.load(user)
        self._check_open()
        receipt = None if self._has_to_wait(user, parcel) else self._acceptance.accept(user, parcel)
        if receipt is None:
            receipt = await self._wait(user, parcel)
        if receipt.to_be_committed:
            await receipt.committed()
        return receipt

    async def submit(self, user: str, parcel: Parcel, *, commit: bool = True) -> Receipt:
        """As `publish`, of what was checked and encoded already: for events of a run.

        Args:
          commit: wait until it is durable, where it has to be.
        """
        self._check_open()
        self._turn += 1
        if self._turn % YIELD_EVERY:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            await trio.lowlevel.checkpoint()
        if user in self._asleep:
            await self.load(user)
        self._check_open()
        receipt = None if self._has_to_wait(user, parcel) else self._acceptance.accept(user, parcel)
        if receipt is None:
            receipt = await self._wait(user, parcel)
        if commit and receipt.to_be_committed:
            await receipt.committed()
        return receipt

    def submit_nowait(self, user: str, parcel: Parcel) -> Receipt:
        """As `publish_nowait`, of what was checked and encoded already."""
        self._check_open()
        if user in self._asleep:
            self.loader.load_soon(user)
            raise trio.WouldBlock
        receipt = None if self._has_to_wait(user, parcel) else self._acceptance.accept(user, parcel)
        if receipt is None:
            self.engine.books.refused += 1
            raise trio.WouldBlock
        return receipt

    def put(self, user: str, parcel: Parcel) -> Receipt:
        """Accept what must come in, also beyond all bounds and while the hub drains; the user's log is here.

        Raises:
          HubClosed: the hub has ended.
        """
        if self.engine.closed:
            raise HubClosed("the hub has ended")
        parcel.beyond = True
        receipt = self._acceptance.accept(user, parcel)
        assert receipt is not None
        return receipt

    def commits(self, type: str, priority: Priority | None) -> bool:
        """Whether an event of this type and priority is durable before its publisher is told that it was accepted.

        Raises:
          InvalidEvent: `type` is no name.
        """
        durability = self.engine.durability
        parcel = self.intake.check(type, None, priority, None, None, None, False)
        return durability is not None and durability.ledger.is_durable(parcel.retention)

    def receipt(self, user: str, id: str, seq: int) -> Receipt:
        """The receipt, as a duplicate, of an event that was accepted before and may have left the log."""
        return self._acceptance.known(user, id, seq)

    async def load(self, user: str, *, to_connect: bool = False) -> None:
        """Have the log of `user` here, if the store has one: all that does not wait needs that. A checkpoint where it
        has; cancelled, nothing has changed.

        Raises:
          StoreUnavailable: the store can't be read; or, unless it is `to_connect`, memory is full of critical events of
            users who are connected.
        """
        if user in self._asleep:
            await self.loader.load(user, to_connect=to_connect)

    def publish_nowait(
        self,
        user: str,
        type: str,
        payload: Any = None,
        *,
        id: str | None = None,
        priority: Priority | None = None,
        key: str | None = None,
        merge: Literal["append"] | None = None,
        ttl: float | None = None,
        confirm: bool = False,
    ) -> Receipt:
        """As `publish`, without waiting; a large payload is encoded here and now.

        With a store, the event is not durable yet when this returns: `Receipt.committed` waits for that.

        Raises:
          trio.WouldBlock: the buffer is full of critical events, or others wait for room already; or the store has a
            log of this user that was not read yet, which is done now (`load` waits for it).
        """
        parcel = self.intake.check(type, id, priority, key, merge, ttl, confirm)
        self._check_user(user)
        self.intake.encode(parcel, payload)
        return self.submit_nowait(user, parcel)

    async def publish_draft(self, user: str, draft: Draft) -> Receipt:
        """As `publish`, of an event that is worded already."""
        return await self.publish(user, draft.type, draft.payload, **_options(draft))

    async def landed(self) -> bool:
        """Wait, where `publish_nowait` had no room, and that is no more than a commit away: as much as may be is on its
        way to the store. A checkpoint, then.

        Returns: whether it is worth another try; False where events are to be confirmed first.
        """
        durability = self.engine.durability
        if durability is None or durability.state != "ok" or not self.engine.buffer.is_landing:
            return False
        return await durability.next_commit()

    def publish_draft_nowait(self, user: str, draft: Draft) -> Receipt:
        """As `publish_nowait`, of an event that is worded already."""
        return self.publish_nowait(user, draft.type, draft.payload, **_options(draft))

    async def broadcast(
        self,
        users: Iterable[str] | Literal["*"],
        type: str,
        payload: Any = None,
        *,
        id: str | None = None,
        priority: Priority | None = None,
        key: str | None = None,
        merge: Literal["append"] | None = None,
        ttl: float | None = None,
        confirm: bool = False,
    ) -> list[Receipt]:
        """Publish one event to several users, encoded once; waits for the room of some after all others have it.

        Args:
          users: whom to, each once; ``"*"`` for all who are known: connected, parked, or with events held.
          type, payload, id, priority, key, merge, ttl, confirm: see `trio_ws.Draft`; the id is the same for all.

        Returns: a receipt a user, in their order.

        Raises: as `publish`; nothing was published then, except where the hub ended while this waited for room, or the
        store failed.
        Cancelled, some users may have it: give an `id` to be able to repeat.
        """
        parcel = self.intake.check(type, id, priority, key, merge, ttl, confirm)
        self._check_open()
        if not isinstance(users, str):
            names = list(dict.fromkeys(users))
        elif users == "*":
            names = [*self.engine.buffer.mailboxes, *self._asleep]
        else:
            raise InvalidEvent('users must be several names, or "*"', field="users")
        for user in names:
            self._check_user(user)
        await self.intake.encode_any(parcel, payload)
        return await self._submit_to_all(names, parcel)

    async def _submit_to_all(self, names: list[str], parcel: Parcel) -> list[Receipt]:
        """As `broadcast`, of what was checked and encoded already."""
        await trio.lowlevel.checkpoint()
        self._check_open()
        parcel.shared_id = parcel.id or self.engine.fresh_id()
        parcel.tail = wire.event_tail(parcel.shared_id, parcel.type, parcel.encoded, self.engine.wall_clock())
        receipts: dict[str, Receipt | None] = {}
        for count, user in enumerate(names, 1):
            await self.load(user)
            receipts[user] = (
                None if self._has_to_wait(user, parcel) else self._acceptance.accept(user, parcel)
            )
            if count % 64 == 0:
                await trio.lowlevel.checkpoint()
        full = [user for user, receipt in receipts.items() if receipt is None]
        if full:
            receipts.update(await self._wait_for_all(full, parcel))
        accepted = [receipt for receipt in receipts.values() if receipt is not None]
        for receipt in accepted:
            if receipt.to_be_committed:
                await receipt.committed()
        return accepted

    async def _wait(self, user: str, parcel: Parcel) -> Receipt:
        """Wait in line for room."""
        await self.load(user)  # it may have fallen asleep since
        return await self.engine.room.wait(user, lambda: self._acceptance.accept(user, parcel))

    def _check_open(self) -> None:
        if self.engine.draining or self.engine.closed:
            raise HubClosed("the hub has ended" if self.engine.closed else "the hub is draining")

    def _check_user(self, user: str) -> None:
        # The name of one who has a mailbox was checked.
        if not isinstance(user, str) or not (user in self.engine.buffer.mailboxes or user in self._asleep):
            check_name(user, "user")

    def _has_to_wait(self, user: str, parcel: Parcel) -> bool:
        """Whether others wait for this user's room already; what was accepted before needs none."""
        room = self.engine.room
        if not room.waiting or not room.line(user):
            return False
        return parcel.id is None or self.engine.buffer.mailbox(user).find(parcel.id) is None

    async def _wait_for_all(self, users: list[str], parcel: Parcel) -> dict[str, Receipt]:
        """Wait in the lines of several users at once, so that one who is full for long holds up nobody else."""
        receipts: dict[str, Receipt] = {}
        parcel.tail = b""  # the time of their acceptance will be another

        async def wait(user: str) -> None:
            receipts[user] = await self._wait(user, parcel)

        errors: list[BaseException] = []
        try:
            async with trio.open_nursery() as nursery:
                for user in users:
                    nursery.start_soon(wait, user)
        except* (HubClosed, EventTooLarge, StoreUnavailable) as group:
            errors += group.exceptions
        if errors:  # the same for each of them
            raise errors[0]
        return receipts


def _options(draft: Draft) -> dict[str, Any]:
    """All of a draft but type and payload, as `Publisher.publish` takes it."""
    return {
        "id": draft.id,
        "priority": draft.priority,
        "key": draft.key,
        "merge": draft.merge,
        "ttl": draft.ttl,
        "confirm": draft.confirm,
    }
