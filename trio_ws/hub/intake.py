"""From what a publisher hands over to an entry that can be accepted: checked, encoded once, cut where it may be cut."""

from __future__ import annotations

import math
import re
from typing import Any, Final, Literal

import trio

from ..config import KIB, Config
from ..core import payload as payloads
from ..core import wire
from ..core.entry import FIRM, Entry
from ..core.histogram import Histogram
from ..errors import EventTooLarge, InvalidEvent
from ..event import Draft, Priority

LARGE: Final = 64 * KIB
"""Bytes from which on a payload is encoded in a worker thread."""

_NAME = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]{1,128}")


class Parcel:
    """A draft whose payload is encoded: all of an event but its place in a log."""

    __slots__ = ("draft", "encoded", "retention", "tracked", "truncated")

    def __init__(self, draft: Draft, encoded: bytes, retention: int, truncated: bool) -> None:
        self.draft = draft
        self.encoded = encoded
        self.retention = retention
        self.tracked = draft.confirm or retention == FIRM
        self.truncated = truncated


class Intake:
    """Turns drafts into entries, and counts what that cost.

    Attributes:
      fast, slow: payloads that were encoded without and with a detour (rich objects, worker threads).
      timeouts: encodings that were given up after `serialize_timeout`.
      truncated: payloads that were cut to the limit.
      seconds: how long the slow ones took.
    """

    def __init__(self, config: Config) -> None:
        self.fast = self.slow = self.timeouts = self.truncated = 0
        self.seconds = Histogram()
        self._config = config
        self._critical_types = frozenset(config.critical_types)

    def draft(
        self,
        type: str,
        payload: Any,
        *,
        id: str | None,
        priority: Priority | None,
        key: str | None,
        merge: Literal["append"] | None,
        ttl: float | None,
        confirm: bool,
    ) -> Draft:
        """The draft of these fields.

        Raises:
          InvalidEvent: a field is out of its bounds.
        """
        draft = Draft(
            type=type,
            payload=payload,
            id=id,
            priority=priority,
            key=key,
            merge=merge,
            ttl=ttl,
            confirm=confirm,
        )
        self.check(draft)
        return draft

    def check(self, draft: Draft) -> None:
        """Refuse a draft one of whose fields is out of its bounds; the payload is seen to by `pack`.

        Raises:
          InvalidEvent: with that `field`.
        """
        check_name(draft.type, "type")
        if draft.id is not None:
            check_name(draft.id, "id")
        if draft.key is not None:
            check_name(draft.key, "key")
        if draft.merge is not None and draft.merge != "append":
            raise InvalidEvent(f'merge must be "append", not {draft.merge!r}', field="merge")
        ttl = draft.ttl
        if ttl is not None and (
            not isinstance(ttl, int | float) or isinstance(ttl, bool) or not 0 < ttl < math.inf
        ):
            raise InvalidEvent("ttl must be a number of seconds above 0", field="ttl")
        priority = draft.priority
        if priority is not None and not isinstance(priority, Priority):
            raise InvalidEvent(f"priority must be a Priority, not {priority!r}", field="priority")

    def pack(self, draft: Draft) -> Parcel:
        """Encode the payload here and now.

        Raises:
          InvalidEvent: it has no JSON form.
          EventTooLarge: it is over the limit and can't be cut.
        """
        encoded, fast = payloads.encode_by_path(draft.payload)
        if fast:
            self.fast += 1
        else:
            self.slow += 1
        return self._parcel(draft, encoded)

    async def pack_large(self, draft: Draft) -> Parcel:
        """As `pack`, in a worker thread, for at most `serialize_timeout` seconds. A checkpoint.

        Cancelled or timed out, the thread is left to its end and its result is thrown away.
        """
        started = trio.current_time()
        with trio.move_on_after(self._config.serialize_timeout):
            encoded = await trio.to_thread.run_sync(payloads.encode, draft.payload, abandon_on_cancel=True)
            self.slow += 1
            self.seconds.record(trio.current_time() - started)
            return self._parcel(draft, encoded)
        self.timeouts += 1
        raise InvalidEvent(
            f"payload took more than {self._config.serialize_timeout:g} s to encode", field="payload"
        )

    def is_large(self, payload: Any) -> bool:
        """Whether `pack_large` is the way to go."""
        if payload is None:
            return False
        if isinstance(payload, str | bytes):
            return len(payload) > LARGE
        return payloads.is_large(payload, LARGE)

    def entry(self, parcel: Parcel, id: str, *, now: float, ts: float, tail: bytes | None = None) -> Entry:
        """The entry of a parcel, to be accepted now.

        Args:
          id: the event's id, the draft's own or a fresh one.
          now: on the hub's clock, for its times to live.
          ts: seconds since the Unix epoch.
          tail: its wire form where another user's entry of the same event has it already.
        """
        draft = parcel.draft
        critical = parcel.retention == FIRM
        merge = draft.merge is not None and not parcel.tracked
        life = draft.ttl
        if life is None:
            life = self._config.critical_ttl if critical else self._config.event_ttl
        return Entry(
            id=id,
            type=draft.type,
            tail=tail or wire.event_tail(id, draft.type, parcel.encoded, ts),
            retention=parcel.retention,
            tracked=parcel.tracked,
            ts=ts,
            accepted_at=now,
            expires_at=math.inf if life is None else now + life,
            key=None if critical else draft.key,
            merge=merge,
            payload=parcel.encoded if merge else None,
            truncated=parcel.truncated,
            owned_id=draft.id is not None,
        )

    def _parcel(self, draft: Draft, encoded: bytes) -> Parcel:
        priority = draft.priority
        if priority is None:
            priority = Priority.CRITICAL if draft.type in self._critical_types else Priority.NORMAL
        retention = FIRM if priority is Priority.CRITICAL else int(priority) + 2
        limit = self._config.max_event_bytes
        if len(encoded) <= limit:
            return Parcel(draft, encoded, retention, False)
        cut = None if retention == FIRM else payloads.truncate(encoded, limit)
        if cut is None:
            why = "and critical" if retention == FIRM else "and there is no text in it to cut"
            raise EventTooLarge(f"payload is over max_event_bytes ({limit}) {why}", field="payload")
        self.truncated += 1
        return Parcel(draft, cut, retention, True)


def check_name(value: object, field: str) -> None:
    """Refuse what is no name: 1 to 128 characters, no control characters, no halves of surrogate pairs.

    Raises:
      InvalidEvent: with that `field`.
    """
    if not isinstance(value, str) or _NAME.fullmatch(value) is None:
        raise InvalidEvent(f"{field} must be 1 to 128 characters without control characters", field=field)
