"""What a publisher is given for an accepted event: a way to see, and to await, what becomes of it."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import trio

from ..core.entry import EVICTED, GONE, MOVED, RESET, SETTLED, SPILLED, Entry
from ..core.mailbox import Mailbox
from ..errors import ConfirmationTimeout
from .durability import Durability


@attrs.frozen(kw_only=True)
class Confirmation:
    """That a client has processed an event.

    Attributes:
      after: seconds from acceptance to the ack.
      late: it came after `confirm_timeout`.
    """

    after: float
    late: bool


class Receipt:
    """The answer to a publish.

    Attributes:
      id: the event's id: the publisher's own key, or what the hub made.
      user: whose log it is in.
      epoch, seq: its place there.
      duplicate: the id was published before; this is the receipt of that event.
    """

    __slots__ = ("_box", "_durability", "_entry", "_timeout", "duplicate")

    def __init__(
        self, entry: Entry, box: Mailbox, timeout: float, duplicate: bool, durability: Durability | None
    ) -> None:
        self._entry = entry
        self._box = box
        self._timeout = timeout
        self._durability = durability
        self.duplicate = duplicate

    def __repr__(self) -> str:
        return f"<Receipt {self.id!r} seq {self.seq}: {self.state}>"

    @property
    def id(self) -> str:
        """The event's id."""
        return self._entry.id

    @property
    def user(self) -> str:
        """Whose log it is in."""
        return self._box.user

    @property
    def epoch(self) -> str:
        """Which life of that log."""
        return self._box.epoch

    @property
    def seq(self) -> int:
        """Its place there."""
        return self._entry.seq

    @property
    def state(self) -> str:
        """What has become of the event: ``held``, ``sent``, ``confirmed``, ``settled``, ``merged``, ``evicted``,
        ``expired`` or ``superseded``; or ``moved``, where another node has the log by now. A delta that was merged
        shares the fate of the one that it went into; see `confirmed`."""
        self.is_asleep()
        return MOVED if self.is_away and self._entry.into is None else self._entry.state

    @property
    def fate(self) -> str:
        """As `state`; of a delta that was merged, the state of the event that it went into."""
        return MOVED if self.is_away else _last(self._entry).state

    @property
    def last_known(self) -> str:
        """As `state`, as far as that was known in this process."""
        return "held" if _last(self._entry).first_sent is None else "sent"

    def call_when_resolved(self, callback: Callable[[], None]) -> None:
        """Have `callback` called once, without waiting, when the event is confirmed or gone; at once if it is.

        It must neither wait nor raise. Whoever loses interest before takes it back by `forget`.
        """
        self.is_asleep()
        entry = _last(self._entry)
        if entry.confirmed_at is not None or entry.reason is not None or self.is_away:
            callback()
        elif (waiters := self._waiters()) is not None:
            waiters.append(callback)
        else:
            entry.waiters = [callback]

    def forget(self, callback: Callable[[], None]) -> None:
        """Take a callback back; one that was called, or never given, is fine."""
        self.is_asleep()
        waiters = self._waiters()
        if waiters is not None and callback in waiters:
            waiters.remove(callback)

    def _waiters(self) -> list[Callable[[], None]] | None:
        """Who waits for the event, wherever it is; as `Entry.waiters`."""
        entry, rest = _last(self._entry), self._box.rest
        return rest.waiters(entry.first) if rest is not None and entry.line == SPILLED else entry.waiters

    def is_asleep(self) -> bool:
        """Whether the log went out of memory, and with it what becomes of the event. Where the log, or the event alone,
        was in a store only, and is back, find it there."""
        durability, box = self._durability, self._box
        if durability is None or not (box.closed or self._entry.line == SPILLED):
            return False
        if box.closed:
            newer = durability.buffer.mailboxes.get(box.user)
            if newer is None or newer.epoch != box.epoch or not self._is_safe:
                return newer is None and box.user in durability.buffer.asleep
            self._box = box = newer
        self._entry = _find(box, _last(self._entry))
        return False

    @property
    def is_away(self) -> bool:
        """Whether another process has the log, and what becomes of the event is not known here."""
        if not self._box.closed or self.is_asleep() or not self._box.closed:
            return False
        entry = _last(self._entry)
        return entry.confirmed_at is None and entry.reason in (None, MOVED)

    @property
    def _is_safe(self) -> bool:
        """Whether its seq names this event, and no other, also in another process."""
        track = self._box.track
        return track is None or _last(self._entry).seq <= track.safe

    @property
    def to_be_committed(self) -> bool:
        """Whether it is one of those that nobody is told of before they are durable, and is not durable yet."""
        durability, track = self._durability, self._box.track
        if durability is None or track is None:
            return False
        entry = _last(self._entry)
        return durability.ledger.is_durable(entry.retention) and track.committed < entry.seq

    async def committed(self) -> None:
        """Wait until the event is durable: a process that is killed, or a loss of power, does not cost it any more.

        `Hub.publish` has waited for it already, where the configured `durability` says so. Without a store nothing is
        durable, and nothing waited for. A checkpoint; of cancellation only, where there is nothing to wait for.
        Cancelling the wait changes nothing for the event.

        Raises:
          StoreUnavailable: the store did not take it in time. It may yet come to be durable.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._durability is not None:
            await self._durability.wait(self._box, _last(self._entry).seq)

    async def confirmed(self, timeout: float | None = None) -> Confirmation:
        """Wait until a client has processed the event.

        A checkpoint; of cancellation only, where it was processed already. Cancelling the wait changes nothing for
        the event; it can be awaited again, and by several tasks.

        Args:
          timeout: seconds to wait from now; None takes `confirm_timeout` of the configuration, infinity leaves it
            to the caller's cancel scope.

        Returns: how long the confirmation took.

        Raises:
          ConfirmationTimeout: nobody confirmed in time, or nobody ever will because the event is gone. Its
            `state` tells which.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        limit = self._timeout if timeout is None else timeout
        wait = trio.CancelScope(deadline=trio.current_time() + limit)
        while True:
            if self._durability is not None and self.is_asleep():
                if wait.cancelled_caught:
                    raise ConfirmationTimeout(self._entry.state)
                wait = trio.CancelScope(deadline=wait.deadline)
                with wait:
                    await self._durability.loaded.wait()
                continue
            entry = _last(self._entry)
            if self.is_away:
                follow = None if self._durability is None else self._durability.follow
                if follow is None or not self._is_safe:
                    raise ConfirmationTimeout(MOVED)
                return await follow(self, wait.deadline)
            if entry.confirmed_at is not None:
                after = max(0.0, entry.confirmed_at - self._entry.accepted_at)
                return Confirmation(after=after, late=entry.timed_out)
            if entry.reason is not None or wait.cancelled_caught:
                raise ConfirmationTimeout(entry.state)
            wait = trio.CancelScope(deadline=wait.deadline)
            with wait:
                await self._resolved()

    async def _resolved(self) -> None:
        """Wait until the event is confirmed or gone, or has come back from a store; a checkpoint."""
        happened = trio.Event()
        self.call_when_resolved(happened.set)
        try:
            await happened.wait()
        finally:
            self.forget(happened.set)


def _find(box: Mailbox, entry: Entry) -> Entry:
    """The entry of `box` that tells what has become of `entry`, which was in a store only; itself where it still is."""
    gone = box.gone.at(entry.first)
    if gone is None:
        if box.rest is not None and entry.first >= box.rest.first:
            entry.line = SPILLED
        return next((held for held in box.entries.values() if held.first <= entry.first <= held.seq), entry)
    if entry.reason in (None, MOVED) and not entry.settled:
        entry.line = GONE
        if gone.reason == SETTLED:
            entry.settled, entry.confirmed_at = True, entry.accepted_at
        else:
            entry.reason = EVICTED if gone.reason == RESET else gone.reason
    return entry


def _last(entry: Entry) -> Entry:
    """The entry that `entry` is part of by now."""
    while entry.into is not None:
        entry = entry.into
    return entry
