"""Under which keys of Redis all is kept: docs/redis.md has the table."""

from __future__ import annotations

import re
from typing import Final

from ..errors import InvalidConfig

_IN_A_TAG: Final = re.compile("[%{}]")


class Keys:
    """The keys that begin with `prefix`.

    What is in braces says where in a cluster a key is: all of one user is in one place, and all that is of no user.

    Raises:
      InvalidConfig: there are braces in `prefix`.
    """

    def __init__(self, prefix: str) -> None:
        if "{" in prefix or "}" in prefix:
            raise InvalidConfig("the prefix of keys in Redis has no braces")
        self._prefix = prefix
        shared = prefix + "{cluster}:"
        self.set = shared + "set"
        self.leases = shared + "leases"
        self.about = shared + "about"
        self.users = shared + "users"
        self.due = shared + "due"
        self.revoked = shared + "revoked"
        self.revoked_until = shared + "revoked-until"

    def of(self, user: str) -> tuple[str, ...]:
        """Those of a user, as the scripts take them."""
        at = self._at(user)
        return (
            at + "log",
            at + "events",
            at + "confirmed",
            at + "sessions",
            at + "keys",
            at + "runs",
            at + "open",
            at + "mortal",
            at + "lesser",
            at + "ids",
            at + "aside",
        )

    def log(self, user: str) -> str:
        """That of a log as a whole."""
        return self._at(user) + "log"

    def to_look(self, user: str) -> tuple[str, str, str]:
        """The log as a whole, its events, its open runs."""
        at = self._at(user)
        return at + "log", at + "events", at + "open"

    def owned(self, node: str) -> str:
        """Whom a node owns."""
        return f"{self._prefix}{{cluster}}:owned:{node}"

    def to_node(self, node: str) -> str:
        """The channel of a node."""
        return f"{self._prefix}{{cluster}}:to:{node}"

    def value(self, name: str) -> str:
        """A small value."""
        return f"{self._prefix}value:{name}"

    def _at(self, user: str) -> str:
        tag = _IN_A_TAG.sub(lambda found: f"%{ord(found[0]):02X}", user) if _IN_A_TAG.search(user) else user
        return f"{self._prefix}{{{tag}}}:"
