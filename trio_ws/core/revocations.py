"""Who is revoked: users whose credentials are taken only if they were issued later. Pure; bounded; by wall clock."""

from __future__ import annotations

from typing import Final

from ..errors import LocalError

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
        self._revoked: dict[str, tuple[float, float]] = {}  # since when, and until when

    def __len__(self) -> int:
        return len(self._revoked)

    def revoke(self, user: str, now: float, seconds: float) -> None:
        """Take no credentials of `user` that were issued before `now`, for so many seconds at least.

        Args:
          now: seconds since the Unix epoch.
          seconds: as long as the user's longest-lived credentials hold.

        Raises:
          TooManyRevoked: `limit` others are.
        """
        if user not in self._revoked and len(self._revoked) >= self._limit:
            self.forget_old(now)
            if len(self._revoked) >= self._limit:
                raise TooManyRevoked(f"{self._limit} users are revoked already")
        until = max(now + seconds, self._revoked.get(user, (0.0, 0.0))[1])
        self._revoked[user] = (now, until)

    def covers(self, user: str, issued: float | None, now: float) -> bool:
        """Whether credentials of `user` that were `issued` then are not to be taken `now`; None is before all."""
        found = self._revoked.get(user)
        if found is None:
            return False
        since, until = found
        if until <= now:
            del self._revoked[user]
            return False
        return issued is None or issued <= since

    def forget_old(self, now: float) -> None:
        """Let go of those whose time has passed."""
        for user in [user for user, (_, until) in self._revoked.items() if until <= now]:
            del self._revoked[user]
