"""From what a publisher hands over to an entry that can be accepted: checked, encoded once, cut where it may be cut."""

from __future__ import annotations

import math
import re
from typing import Any, Final

import trio

from ..config import KIB, Config
from ..core import payload as payloads
from ..core import wire
from ..core.entry import CLASS_HIGH, CLASS_LOW, CLASS_NORMAL, FIRM, Entry
from ..core.histogram import Histogram
from ..errors import EventTooLarge, InvalidEvent
from ..event import Priority
from .parcel import Parcel

LARGE: Final = 64 * KIB
"""Bytes from which on a payload is encoded in a worker thread."""

_RETENTION = {
    Priority.LOW: CLASS_LOW,
    Priority.NORMAL: CLASS_NORMAL,
    Priority.HIGH: CLASS_HIGH,
    Priority.CRITICAL: FIRM,
}
_NAME = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]{1,128}")


KINDS: Final = 1024
"""How many event types are known at once; their names need not be checked again."""


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
        self._max_event_bytes = config.max_event_bytes
        self._event_ttl, self._critical_ttl = config.event_ttl, config.critical_ttl
        self._critical_types = frozenset(config.critical_types)
        self._kinds: dict[str, int] = {}

    def check(
        self,
        type: Any,
        id: Any,
        priority: Any,
        key: Any,
        merge: Any,
        ttl: Any,
        confirm: Any,
    ) -> Parcel:
        """The parcel of an event with these fields (see `Draft`), its payload still to come.

        They are whatever the publisher gave: nothing is known of them before.

        Raises:
          InvalidEvent: a field is out of its bounds.
        """
        retention = self._kinds.get(type) if isinstance(type, str) else None
        if retention is None:
            retention = self._learn(type)
        if id is not None:
            check_name(id, "id")
        if key is not None:
            check_name(key, "key")
        if merge is not None and merge != "append":
            raise InvalidEvent(f'merge must be "append", not {merge!r}', field="merge")
        if ttl is not None and (
            not isinstance(ttl, int | float) or isinstance(ttl, bool) or not 0 < ttl < math.inf
        ):
            raise InvalidEvent("ttl must be a number of seconds above 0", field="ttl")
        if priority is not None:
            if not isinstance(priority, Priority):
                raise InvalidEvent(f"priority must be a Priority, not {priority!r}", field="priority")
            retention = _RETENTION[priority]
        tracked = retention == FIRM or bool(confirm)
        return Parcel(type, id, retention, tracked, key, merge is not None and not tracked, ttl)

    def _learn(self, type: Any) -> int:
        """The retention class of events of a type whose name is to be checked yet."""
        check_name(type, "type")
        if len(self._kinds) >= KINDS:
            self._kinds.clear()
        critical = type in self._critical_types
        retention = self._kinds[type] = _RETENTION[Priority.CRITICAL if critical else Priority.NORMAL]
        return retention

    def encode_small(self, parcel: Parcel, payload: Any) -> bool:
        """Encode a payload that is plain and small here and now; returns False where `payload` is none such."""
        encoded = payloads.encode_small(payload)
        if encoded is None:
            return False
        self.fast += 1
        self._fill(parcel, encoded)
        return True

    def encode(self, parcel: Parcel, payload: Any) -> None:
        """Encode any payload here and now.

        Raises:
          InvalidEvent: it has no JSON form.
          EventTooLarge: it is over the limit and can't be cut.
        """
        if self.encode_small(parcel, payload):
            return
        encoded, fast = payloads.encode_by_path(payload)
        if fast:
            self.fast += 1
        else:
            self.slow += 1
        self._fill(parcel, encoded)

    async def encode_any(self, parcel: Parcel, payload: Any) -> None:
        """As `encode`, a large payload in a worker thread, for at most `serialize_timeout` seconds.

        Cancelled or timed out, the thread is left to its end and its result is thrown away.
        """
        if self._is_large(payload):
            await self._encode_large(parcel, payload)
        else:
            self.encode(parcel, payload)

    async def _encode_large(self, parcel: Parcel, payload: Any) -> None:
        started = trio.current_time()
        with trio.move_on_after(self._config.serialize_timeout):
            encoded = await trio.to_thread.run_sync(payloads.encode, payload, abandon_on_cancel=True)
            self.slow += 1
            self.seconds.record(trio.current_time() - started)
            self._fill(parcel, encoded)
            return
        self.timeouts += 1
        raise InvalidEvent(
            f"payload took more than {self._config.serialize_timeout:g} s to encode", field="payload"
        )

    def _is_large(self, payload: Any) -> bool:
        """Whether a worker thread is the place to encode it."""
        if payload is None:
            return False
        if isinstance(payload, str | bytes):
            return len(payload) > LARGE
        return payloads.is_large(payload, LARGE)

    def _fill(self, parcel: Parcel, encoded: bytes) -> None:
        """Put the encoded payload into its parcel, cut to the limit if need be."""
        limit = self._max_event_bytes
        if len(encoded) > limit:
            firm = parcel.retention == FIRM
            cut = None if firm else payloads.truncate(encoded, limit)
            if cut is None:
                why = "and critical" if firm else "and there is no text in it to cut"
                raise EventTooLarge(f"payload is over max_event_bytes ({limit}) {why}", field="payload")
            encoded, parcel.truncated = cut, True
            self.truncated += 1
        parcel.encoded = encoded

    def entry(self, parcel: Parcel, id: str, now: float, ts: float) -> Entry:
        """The entry of a parcel, to be accepted now.

        Args:
          id: the event's id: the publisher's own, that which is shared, or a fresh one.
          now: on the hub's clock, for its times to live.
          ts: seconds since the Unix epoch.
        """
        retention, merge, life = parcel.retention, parcel.merge, parcel.ttl
        tail = parcel.tail or wire.event_tail(id, parcel.type, parcel.encoded, ts, parcel.run)
        if life is None:
            life = self._critical_ttl if retention == FIRM else self._event_ttl
        return Entry(  # by position: with names it takes twice as long
            id,
            parcel.type,
            tail,
            len(tail) + len(parcel.encoded) if merge else len(tail),
            not (parcel.tracked or merge or parcel.truncated),
            retention,
            parcel.tracked,
            ts,
            now,
            math.inf if life is None else now + life,
            None if retention == FIRM else parcel.key,
            merge,
            parcel.encoded if merge else None,
            parcel.truncated,
            parcel.id is not None,
            parcel.run,
        )


def check_name(value: object, field: str) -> None:
    """Refuse what is no name: 1 to 128 characters, no control characters, no halves of surrogate pairs.

    Raises:
      InvalidEvent: with that `field`.
    """
    if not isinstance(value, str) or _NAME.fullmatch(value) is None:
        raise InvalidEvent(f"{field} must be 1 to 128 characters without control characters", field=field)
