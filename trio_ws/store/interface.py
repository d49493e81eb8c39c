"""What a hub asks of a store. A contract test holds all stores to it (tests/store/test_contract.py)."""

from __future__ import annotations

from typing import Any, Protocol

import attrs

from ..core.records import Batch, EventRecord, Kept, Part, RevokedRecord


@attrs.frozen
class Opened:
    """What a store holds when it is opened.

    Attributes:
      users: who has anything in it.
      revoked: who is revoked, or was.
      with_open_runs: those of the users who have runs that have not ended.
    """

    users: list[str]
    revoked: list[RevokedRecord] = attrs.field(factory=list)
    with_open_runs: list[str] = attrs.field(factory=list)


class Store(Protocol):
    """Keeps what commits bring, and gives it back by user. One hub uses it at a time.

    Every method is a checkpoint, and all raise `StoreError` where the store fails. `commit` may run at the same time as
    what reads, but no two commits do.
    """

    async def open(self) -> Opened:
        """Get ready.

        Raises:
          StoreError: it can't be had, is another's, or was made by a newer version of this package.
        """

    async def commit(self, batch: Batch) -> None:
        """Make `batch` durable, all of it or nothing; when this returns, it outlives a loss of power.

        Where this raises or is cancelled, it may have been written or not; to write it again changes nothing.
        """

    async def load(self, user: str) -> Kept | None:
        """All that is held of `user`, without the events of the rest (`UserRecord.rest`); None where that is nothing.
        What can't be read is set aside, and counted."""

    async def read(self, user: str, part: Part) -> list[EventRecord]:
        """Events of the rest of a log. What can't be read is set aside, and counted: it is not among them."""

    async def due(self, now: float, most: int) -> list[str]:
        """Users of whose logs something has expired by `now`, in seconds since the Unix epoch; at most so many."""

    async def check(self) -> int | None:
        """Look over all that is held, while all else goes on; what is found is logged, and told by `stats`. Cancelled,
        it stops soon.

        Returns: how many unconfirmed events it held when it was opened; None where that can't be told.
        """

    async def close(self) -> None:
        """Let go of it. Closing twice is fine."""

    def stats(self) -> dict[str, Any]:
        """What there is to tell of it, as plain values: `kind`; `quarantined`, how many rows lie aside, from before
        this process, too; and what it has of its own."""
