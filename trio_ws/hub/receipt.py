"""What a publisher is given for an accepted event: a way to see, and to await, what becomes of it."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import trio

from ..core.entry import Entry
from ..core.mailbox import Mailbox
from ..errors import ConfirmationTimeout


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

    __slots__ = ("_box", "_entry", "_timeout", "duplicate")

    def __init__(self, entry: Entry, box: Mailbox, timeout: float, duplicate: bool) -> None:
        self._entry = entry
        self._box = box
        self._timeout = timeout
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
        ``expired`` or ``superseded``. A delta that was merged shares the fate of the one that it went into;
        see `confirmed`."""
        return self._entry.state

    @property
    def fate(self) -> str:
        """As `state`; of a delta that was merged, the state of the event that it went into."""
        return _last(self._entry).state

    def call_when_resolved(self, callback: Callable[[], None]) -> None:
        """Have `callback` called once, without waiting, when the event is confirmed or gone; at once if it is.

        It must neither wait nor raise. Whoever loses interest before takes it back by `forget`.
        """
        entry = _last(self._entry)
        if entry.confirmed_at is not None or entry.reason is not None:
            callback()
        elif entry.waiters is None:
            entry.waiters = [callback]
        else:
            entry.waiters.append(callback)

    def forget(self, callback: Callable[[], None]) -> None:
        """Take a callback back; one that was called, or never given, is fine."""
        waiters = _last(self._entry).waiters
        if waiters is not None and callback in waiters:
            waiters.remove(callback)

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
            entry = _last(self._entry)
            if entry.confirmed_at is not None:
                after = max(0.0, entry.confirmed_at - self._entry.accepted_at)
                return Confirmation(after=after, late=entry.timed_out)
            if entry.reason is not None or wait.cancelled_caught:
                raise ConfirmationTimeout(entry.state)
            wait = trio.CancelScope(deadline=wait.deadline)
            with wait:
                await _resolved(entry)


def _last(entry: Entry) -> Entry:
    """The entry that `entry` is part of by now."""
    while entry.into is not None:
        entry = entry.into
    return entry


async def _resolved(entry: Entry) -> None:
    """Wait until `entry` is confirmed or gone; a checkpoint."""
    happened = trio.Event()
    if entry.waiters is None:
        entry.waiters = []
    entry.waiters.append(happened.set)
    try:
        await happened.wait()
    finally:
        waiters = _last(entry).waiters
        if waiters is not None and happened.set in waiters:
            waiters.remove(happened.set)
