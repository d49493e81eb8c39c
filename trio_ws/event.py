"""What is delivered: an event as a publisher words it, and an event as a client receives it."""

from __future__ import annotations

import enum
from typing import Any, Literal

import attrs

LIFECYCLE_TYPES = ("agent_started", "agent_thinking", "tool_executing", "tool_completed", "agent_completed")
"""The five events of an agent's run that a user must never miss; critical unless the configuration says otherwise."""


class Priority(enum.IntEnum):
    """Who is kept when room is needed. It never decides who is delivered first."""

    LOW = 0
    NORMAL = 1
    HIGH = 2
    CRITICAL = 3

    @classmethod
    def parse(cls, name: str) -> Priority:
        """The priority called `name` (``low``, ``normal``, ``high``, ``critical``); ValueError for any other."""
        try:
            return _BY_NAME[name]
        except KeyError:
            raise ValueError(f"priority must be one of {', '.join(_BY_NAME)}, not {name!r}") from None


_BY_NAME = {p.name.lower(): p for p in Priority}


@attrs.frozen(kw_only=True)
class Draft:
    """An event before it is accepted, as a publisher words it.

    Attributes:
      type: what happened; 1 to 128 characters, no control characters.
      payload: anything that has a JSON form: bytes (ready JSON), str, dict, attrs classes, dataclasses, …
      id: the publisher's idempotency key; 1 to 128 characters. None has the hub make one.
      priority: None takes CRITICAL for the configured `critical_types` and NORMAL for the rest.
      key: conflation: a later event of the same type and key supersedes this one where it was not sent yet.
        Ignored on critical events; with `merge` it names the stream of deltas instead.
      merge: ``"append"`` makes this a delta: neighbours that a session was not sent yet are joined into one.
      ttl: seconds from acceptance after which it is not worth delivering; above 0. On a critical event its
        passing is a dead letter.
      confirm: tracked and redelivered like a critical event, whatever its priority.
    """

    type: str
    payload: Any = None
    id: str | None = None
    priority: Priority | None = None
    key: str | None = None
    merge: Literal["append"] | None = None
    ttl: float | None = None
    confirm: bool = False


@attrs.frozen(kw_only=True)
class Merged:
    """That an event stands for itself and the `n` deltas right before it, the first of which was `from_seq`."""

    from_seq: int
    n: int


@attrs.frozen(kw_only=True)
class Event:
    """An event as a client receives it.

    Two kinds have no id and are no part of the log, so they are never lost, merged or redelivered: a ``snapshot`` is
    a run as it stands with everything up to `seq` (docs/protocol.md, "Runs"), ``standing`` has the user's open
    questions as its payload's ``questions``. Both stand in their place among the others.

    Attributes:
      seq: its place in its user's log, from 1.
      id: its own id, the same in each redelivery.
      ts: when it was accepted, in seconds since the Unix epoch; 0 of ``standing``.
      critical: never dropped to make room.
      retry: how many times it was redelivered before this.
      merged: which deltas before it are in it, if any.
      truncated: its payload was over the limit and was cut.
      run: the agent's run that it is part of, if any.
    """

    seq: int
    id: str
    type: str
    payload: Any
    ts: float
    critical: bool = False
    retry: int = 0
    merged: Merged | None = None
    truncated: bool = False
    run: str | None = None


@attrs.frozen(kw_only=True)
class Gap:
    """Events that will not come: the seqs `first` to `last`, both inclusive.

    Attributes:
      reason: ``evicted``, ``expired``, ``superseded``, ``settled`` or ``reset``.
      lost: how many of each type.
      critical: how many critical events are lost by it.
      snapshots: the runs whose ``snapshot`` follows right behind, because they have lost events here.
      healed: how many of the lost events are in these snapshots. Where it is the sum of `lost`, nothing is missing for
        who folds runs.
      anew: with the reason ``reset``: the server's log has begun anew, and its seqs with it. Else that reason tells of
        what a crash may have cost of the log that it was.
    """

    first: int
    last: int
    reason: str
    lost: dict[str, int]
    critical: int = 0
    snapshots: tuple[str, ...] = ()
    healed: int = 0
    anew: bool = False


@attrs.frozen(kw_only=True)
class Message:
    """What a user sent to the application: `type` and `payload`, under an `id` that is handled once a session."""

    id: str
    type: str
    payload: Any
