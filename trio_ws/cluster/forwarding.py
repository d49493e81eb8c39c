"""Events for users whose log another node has: brought there, and what becomes of them told here.

An event that must be durable, and that its publisher gave no id, is given one before it is forwarded. So it may be
asked for again, of whoever has the log by then, and is one event all the same. Of one that need not be, the next owner
would not know: where it is in doubt, its publisher is told so.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NoReturn

import msgspec
import trio

from ..core.entry import FIRM, SPILLED, placeholder
from ..core.mailbox import Mailbox
from ..errors import (
    ConfirmationTimeout,
    EventTooLarge,
    HubClosed,
    InvalidEvent,
    OwnedElsewhere,
    StoreUnavailable,
)
from ..hub.parcel import Parcel
from ..hub.receipt import Confirmation, Receipt
from .calls import CallFailed, Calls, NodeGone

if TYPE_CHECKING:
    from .hub import ClusteredHub

PATIENCE: Final = 5.0
"""Seconds for which it is tried again to find out who has a log, or to be answered by who goes away."""

GRACE: Final = 0.2
"""Seconds beyond a deadline in which another node may yet tell how things stood then."""

PAUSE: Final = 0.1
"""Seconds until that is tried again."""


class Forwarded(msgspec.Struct, array_like=True):
    """An event that was checked and encoded; as `hub.parcel.Parcel`."""

    user: str
    type: str
    id: str | None
    retention: int
    tracked: bool
    key: str | None
    merge: bool
    ttl: float | None
    encoded: bytes
    truncated: bool
    committed: bool


class Accepted(msgspec.Struct, array_like=True, tag=True):
    """The receipt of an event, as it stands."""

    id: str
    seq: int
    epoch: str
    state: str
    duplicate: bool


class Refused(msgspec.Struct, array_like=True, tag=True):
    """Why it was not accepted.

    Attributes:
      kind: one of `_KINDS`.
    """

    kind: str
    message: str
    field: str = ""


class Followed(msgspec.Struct, array_like=True):
    """Which event somebody waits for, and for how many seconds."""

    user: str
    epoch: str
    seq: int
    id: str
    timeout: float | None


class Confirmed(msgspec.Struct, array_like=True, tag=True):
    """A client has processed it."""

    after: float
    late: bool


_encode = msgspec.msgpack.encode
_forwarded = msgspec.msgpack.Decoder(Forwarded)
_outcomes = msgspec.msgpack.Decoder(Accepted | Refused)
_followed = msgspec.msgpack.Decoder(Followed)
_confirmed = msgspec.msgpack.Decoder(Confirmed | Refused)


class Forwarding:
    """Publishes and confirmations over nodes, of one node.

    Attributes:
      forwarded: how many events were, since the start.
    """

    def __init__(self, hub: ClusteredHub, calls: Calls) -> None:
        self.forwarded = 0
        self._hub = hub
        self._calls = calls
        calls.handle("publish", self._publish_here)
        calls.handle("confirmed", self._confirmed_here)

    # -- for publishers of this node

    async def publish(self, user: str, parcel: Parcel, *, commit: bool = True) -> Receipt:
        """Have an event accepted by whoever has the user's log; as `Publisher.submit`.

        Raises:
          StoreUnavailable: it can't be found out who has it, that node can't make it durable, or it is gone, and the
            event was not to be durable: it may have been accepted.
        """
        given = parcel.id
        patience = Patience()
        while True:
            elsewhere = await self._hub.place(user)
            if elsewhere is None:
                try:
                    return await self._hub.submit_here(user, parcel, commit=commit)
                except OwnedElsewhere:
                    await patience.pause("the log moves")
                    continue
            if given is None and self._hub.is_durable(parcel):
                parcel.id = parcel.id or self._hub.engine.fresh_id()
            body = _encode(_to_be_forwarded(user, parcel, commit=commit))
            try:
                outcome = _outcomes.decode(await self.ask(elsewhere.node, user, "publish", body))
            except (NodeGone, OwnedElsewhere) as error:
                if parcel.id is None and isinstance(error, NodeGone):
                    raise StoreUnavailable(f"{error}; the event may have been accepted") from error
                await patience.pause(str(error))
                continue
            if isinstance(outcome, Accepted):
                self.forwarded += 1
                duplicate = outcome.duplicate and given is not None
                return RemoteReceipt(
                    self._hub, user, outcome.id, outcome.epoch, outcome.seq, outcome.state, duplicate
                )
            if outcome.kind == "closed":  # it goes away, and hands over what it has
                await self._hub.ask_for(user, elsewhere.node)
                await patience.pause(outcome.message)
                continue
            _raise(outcome)

    async def ask(self, node: str, user: str, verb: str, body: bytes) -> bytes:
        """Ask who has the log of `user`, as far as is known.

        Raises:
          NodeGone, OwnedElsewhere: it has it no more, or lives no more.
        """
        try:
            return await self._calls.call(node, verb, body)
        except NodeGone:
            self._hub.ownership.forget(user, node, gone=True)
            raise
        except CallFailed as error:
            self._hub.ownership.forget(user, node)
            raise OwnedElsewhere(user) from error

    async def follow(self, receipt: Receipt, deadline: float) -> Confirmation:
        """Wait until a client has processed the event of a receipt, whoever has its log.

        Raises:
          ConfirmationTimeout: as `Receipt.confirmed`.
        """
        with trio.CancelScope(deadline=deadline + GRACE):
            return await self._follow(receipt, deadline)
        raise ConfirmationTimeout(receipt.last_known)

    async def _follow(self, receipt: Receipt, deadline: float) -> Confirmation:
        user = receipt.user
        while True:
            left = max(0.0, deadline - trio.current_time())
            try:
                elsewhere = await self._hub.place(user)
            except StoreUnavailable:
                await trio.sleep(PAUSE)
                continue
            if elsewhere is None:
                here = self._hub.receipt_here(user, receipt.epoch, receipt.seq, receipt.id)
                if here is None:
                    raise ConfirmationTimeout("moved")
                return await here.confirmed(left)
            asked = Followed(user, receipt.epoch, receipt.seq, receipt.id, None if left == math.inf else left)
            try:
                answer = await self.ask(elsewhere.node, user, "confirmed", _encode(asked))
            except (NodeGone, OwnedElsewhere):
                await trio.sleep(PAUSE)
                continue
            outcome = _confirmed.decode(answer)
            if isinstance(outcome, Confirmed):
                return Confirmation(after=outcome.after, late=outcome.late)
            raise ConfirmationTimeout(outcome.message)

    # -- for those of others

    async def _publish_here(self, sender: str, body: bytes) -> bytes:
        asked = _forwarded.decode(body)
        parcel = Parcel(
            asked.type,
            asked.id,
            asked.retention,
            asked.tracked,
            asked.key,
            asked.merge,
            asked.ttl,
            asked.encoded,
            asked.truncated,
        )
        try:
            await self._hub.have_here(asked.user)
            receipt = await self._hub.submit_here(asked.user, parcel, commit=asked.committed)
        except OwnedElsewhere as error:
            raise CallFailed(str(error)) from None
        except _REFUSALS as error:
            return _encode(_refused(error))
        return _encode(Accepted(receipt.id, receipt.seq, receipt.epoch, receipt.state, receipt.duplicate))

    async def _confirmed_here(self, sender: str, body: bytes) -> bytes:
        asked = _followed.decode(body)
        try:
            await self._hub.have_here(asked.user)
        except (OwnedElsewhere, StoreUnavailable) as error:
            raise CallFailed(str(error)) from None
        receipt = self._hub.receipt_here(asked.user, asked.epoch, asked.seq, asked.id)
        if receipt is None:
            return _encode(Refused("timeout", "moved"))
        try:
            confirmation = await receipt.confirmed(math.inf if asked.timeout is None else asked.timeout)
        except ConfirmationTimeout as error:
            return _encode(Refused("timeout", error.state))
        return _encode(Confirmed(confirmation.after, confirmation.late))


class RemoteReceipt(Receipt):
    """A receipt of an event in another node's log; as that node gave it."""

    __slots__ = ("_epoch", "_hub", "_id", "_seq", "_state", "_user", "_waits")

    def __init__(
        self, hub: ClusteredHub, user: str, id: str, epoch: str, seq: int, state: str, duplicate: bool
    ) -> None:
        self._hub = hub
        self._user, self._id, self._epoch, self._seq, self._state = user, id, epoch, seq, state
        self.duplicate = duplicate
        self._waits: dict[Callable[[], None], trio.CancelScope] = {}

    @property
    def id(self) -> str:
        return self._id

    @property
    def user(self) -> str:
        return self._user

    @property
    def epoch(self) -> str:
        return self._epoch

    @property
    def seq(self) -> int:
        return self._seq

    @property
    def state(self) -> str:
        """What had become of the event when something was last heard of it."""
        return self._state

    @property
    def fate(self) -> str:
        return self._state

    @property
    def last_known(self) -> str:
        return self._state

    @property
    def to_be_committed(self) -> bool:
        return False

    async def committed(self) -> None:
        """The node that has accepted it has waited for that."""
        await trio.lowlevel.checkpoint()

    async def confirmed(self, timeout: float | None = None) -> Confirmation:
        """See `Receipt.confirmed`; it is waited for wherever the log is."""
        limit = self._hub.config.confirm_timeout if timeout is None else timeout
        try:
            confirmation = await self._hub.forwarding.follow(self, trio.current_time() + limit)
        except ConfirmationTimeout as error:
            self._state = error.state
            raise
        self._state = "confirmed"
        return confirmation

    def call_when_resolved(self, callback: Callable[[], None]) -> None:
        scope = self._waits[callback] = trio.CancelScope()
        self._hub.engine.nursery.start_soon(self._call, callback, scope)

    async def _call(self, callback: Callable[[], None], scope: trio.CancelScope) -> None:
        with scope:
            try:
                await self.confirmed(math.inf)
            except ConfirmationTimeout:
                pass
        if self._waits.pop(callback, None) is not None and not scope.cancelled_caught:
            callback()

    def forget(self, callback: Callable[[], None]) -> None:
        scope = self._waits.pop(callback, None)
        if scope is not None:
            scope.cancel()

    def is_asleep(self) -> bool:
        return False

    @property
    def is_away(self) -> bool:
        return True


class Patience:
    """Tries again, with pauses, for so long."""

    def __init__(self) -> None:
        self._until = trio.current_time() + PATIENCE

    async def pause(self, why: str) -> None:
        """Wait a moment.

        Raises:
          StoreUnavailable: it has been tried for long enough.
        """
        if trio.current_time() >= self._until:
            raise StoreUnavailable(f"no node can be asked for it: {why}")
        await trio.sleep(PAUSE)


def receipt_of(hub: ClusteredHub, box: Mailbox, seq: int, id: str) -> Receipt | None:
    """The receipt of an event of a log that is here; None where another is at its place, or none."""
    held = box.entries.get(seq)
    if seq > box.head or (held is not None and held.first == held.seq and held.id != id):
        return None
    entry = placeholder(id, seq, FIRM)
    entry.line = SPILLED  # it is found where it is, whether held, in the store only, or gone
    return Receipt(entry, box, hub.config.confirm_timeout, True, hub.engine.durability)


def _to_be_forwarded(user: str, parcel: Parcel, *, commit: bool) -> Forwarded:
    return Forwarded(
        user,
        parcel.type,
        parcel.id,
        parcel.retention,
        parcel.tracked,
        parcel.key,
        parcel.merge,
        parcel.ttl,
        parcel.encoded,
        parcel.truncated,
        commit,
    )


_REFUSALS = (EventTooLarge, InvalidEvent, HubClosed, StoreUnavailable)


def _refused(error: Exception) -> Refused:
    match error:
        case EventTooLarge():
            return Refused("too_large", str(error), error.field)
        case InvalidEvent():
            return Refused("invalid", str(error), error.field)
        case HubClosed():
            return Refused("closed", str(error))
    return Refused("unavailable", str(error))


def _raise(refused: Refused) -> NoReturn:
    match refused.kind:
        case "too_large":
            raise EventTooLarge(refused.message, field=refused.field)
        case "invalid":
            raise InvalidEvent(refused.message, field=refused.field)
    raise StoreUnavailable(refused.message)
