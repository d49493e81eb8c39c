"""Who is revoked: users whose credentials are taken only if they were issued later. Pure; bounded; by wall clock."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ..errors import LocalError
from .records import RevokedRecord

MAX_REVOKED: Final = 100_000
"""How many users may be revoked at once: some 20 MB."""


class TooManyRevoked(LocalError):
    """No room for one more: to forget another would let that one in again."""


class Revocations:
    """The users that are revoked, each for a time of its own.

    Args:
      limit: how many there may be at once.
    """

    def __init__(self, limit: int = MAX_REVOKED) -> None:
        self._limit = limit
        self._revoked: dict[str, RevokedRecord] = {}

    def __len__(self) -> int:
        return len(self._revoked)

    def learn(self, records: Iterable[RevokedRecord], now: float) -> list[RevokedRecord]:
        """Take over what another process has revoked; returns what of it is news. What is over by `now` is none, though
        a store may have it yet."""
        news = []
        for record in records:
            if record.until <= now:
                continue
            known = self._revoked.get(record.user)
            if known is None or known.since < record.since:
                until = record.until if known is None else max(known.until, record.until)
                self._revoked[record.user] = record._replace(until=until)
                news.append(record)
        return news

    def restore(self, records: Iterable[RevokedRecord]) -> None:
        """Take over those of a process before, as a store has kept them."""
        self._revoked.update((record.user, record) for record in records)

    def revoke(self, user: str, now: float, seconds: float) -> RevokedRecord:
        """Take no credentials of `user` that were issued before `now`, for so many seconds at least.

        Args:
          now: seconds since the Unix epoch.
          seconds: as long as the user's longest-lived credentials hold.

        Returns: what a store has to keep of it.

        Raises:
          TooManyRevoked: `limit` others are.
        """
        if user not in self._revoked and len(self._revoked) >= self._limit:
            self.forget_old(now)
            if len(self._revoked) >= self._limit:
                raise TooManyRevoked(f"{self._limit} users are revoked already")
        before = self._revoked.get(user)
        until = now + seconds if before is None else max(now + seconds, before.until)
        revoked = self._revoked[user] = RevokedRecord(user, now, until)
        return revoked

    def covers(self, user: str, issued: float | None, now: float) -> bool:
        """Whether credentials of `user` that were `issued` then are not to be taken `now`; None is before all."""
        found = self._revoked.get(user)
        if found is None:
            return False
        if found.until <= now:
            del self._revoked[user]
            return False
        return issued is None or issued <= found.since

    def forget_old(self, now: float) -> None:
        """Let go of those whose time has passed."""
        for record in [record for record in self._revoked.values() if record.until <= now]:
            del self._revoked[record.user]
