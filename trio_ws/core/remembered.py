"""The idempotency keys of one user's log: which publish was accepted already.

A key is remembered while its entry is held, and beyond that among the last `REMEMBERED_IDS`. A delta that was joined
into a later one counts as one of the last: however many are joined into one entry, what is remembered stays bounded.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

from .entry import Entry

REMEMBERED_IDS: Final = 1024
"""How many keys a log remembers beyond those of what it holds."""


class Remembered:
    """The keys of one log.

    Args:
      entries: the log, by first seq; read, never written.
    """

    __slots__ = ("_by_id", "_entries")

    def __init__(self, entries: Mapping[int, Entry]) -> None:
        self._entries = entries
        self._by_id: OrderedDict[str, Entry] | None = None

    def __len__(self) -> int:
        return 0 if self._by_id is None else len(self._by_id)

    def find(self, id: str) -> Entry | None:
        """The entry that was published under the key `id`, if that is remembered."""
        return None if self._by_id is None else self._by_id.get(id)

    def add(self, entry: Entry) -> None:
        """Remember the key of `entry`, and forget the oldest that is over the bound and not held. O(1) amortised."""
        if self._by_id is None:
            self._by_id = OrderedDict()
        self._by_id[entry.id] = entry
        while len(self._by_id) > REMEMBERED_IDS + len(self._entries):
            oldest = self._by_id.popitem(last=False)[1]
            if self._entries.get(oldest.first) is oldest:
                self._by_id[oldest.id] = oldest

    def joined(self, entry: Entry) -> None:
        """`entry` has taken the place of the deltas that were joined into it; their last one's key is its own."""
        if self._by_id is not None and entry.id in self._by_id:
            self._by_id[entry.id] = entry
