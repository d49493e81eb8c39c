"""A parcel: an event that was checked and encoded, before it has a place in a log."""

from __future__ import annotations

import msgspec


class Parcel(msgspec.Struct, gc=False, eq=False):
    """An event that was checked: all of it but its place in a log. `Intake.encode` fills in the payload.

    Attributes:
      id: the publisher's own key, if it gave one.
      shared_id: the id that all users' events are to have, where they share one; each gets its own otherwise.
      tail: the wire form that they share then.
      run: the agent's run that it is part of; `call` and `question` are what it is about in it.
      lease: of a run that it opens, see `core.runs.Run`.
      beyond: it is let in also where there is no room, and where the store can't be relied on: so a run always ends.
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
    run: str | None = None
    call: int = 0
    question: str = ""
    lease: float | None = None
    beyond: bool = False
