"""The order in which the entries of one log go when room is needed: by class, and oldest first within a class.

Settled entries come first, in the order in which they settled; then superseded ones; then LOW, NORMAL and HIGH. A
critical entry that is not settled is firm: it is in none of the queues. Each operation is O(1).
"""

from __future__ import annotations

from collections import OrderedDict

from .entry import CLASS_SETTLED, CLASS_SUPERSEDED, FIRM, Entry


class Retention:
    """The queues of one log, by class; an entry stands where its state puts it (`class_of`)."""

    __slots__ = ("_queues",)

    def __init__(self) -> None:
        self._queues: dict[int, OrderedDict[int, Entry]] = {}

    def put(self, entry: Entry) -> None:
        """Line `entry` up, as the newest of its class."""
        cls = class_of(entry)
        if cls != FIRM:
            queue = self._queues.get(cls)
            if queue is None:
                queue = self._queues[cls] = OrderedDict()
            queue[entry.first] = entry

    def take_out(self, entry: Entry) -> None:
        """Take `entry` out; called before its state changes."""
        cls = class_of(entry)
        if cls != FIRM:
            del self._queues[cls][entry.first]

    def replace(self, run: list[Entry], entry: Entry) -> None:
        """Put `entry` where the first of `run` stood, and take the others out; all are of its class."""
        queue = self._queues[class_of(entry)]
        for old in run[1:]:
            del queue[old.first]
        queue[entry.first] = entry

    def oldest(self, cls: int) -> Entry | None:
        """The entry of class `cls` that goes first; None where there is none."""
        queue = self._queues.get(cls)
        return next(iter(queue.values())) if queue else None


def class_of(entry: Entry) -> int:
    """The class that `entry` is in as it is now."""
    if entry.settled:
        return CLASS_SETTLED
    return CLASS_SUPERSEDED if entry.superseded else entry.retention
