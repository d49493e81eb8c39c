"""A parcel: an event that was checked and encoded, before it has a place in a log."""

from __future__ import annotations

import msgspec


class Parcel(msgspec.Struct, gc=False, eq=False):
    """An event that was checked: all of it but its place in a log. `Intake.encode` fills in the payload.

    Attributes:
      id: the publisher's own key, if it gave one.
      shared_id: the id that all users' events are to have, where they share one; each gets its own otherwise.
      tail: the wire form that they share then.
    """

    type: str
    id: str | None
    retention: int
    tracked: bool
    key: str | None
    merge: bool
    ttl: float | None
    encoded: bytes = b""
    truncated: bool = False
    shared_id: str = ""
    tail: bytes = b""
