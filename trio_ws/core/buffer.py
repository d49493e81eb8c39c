"""The bounds over all mailboxes: room is made for what is accepted, and refused where all that is left is critical.

Two bounds hold at every moment, each in events and in bytes: one a user, one in all. An event is accepted only where
letting go of what is not firm can make the room; that is known beforehand (`firm_events`, `firm_bytes`), so a refusal
costs nobody anything. Room in all is made from the history first, the oldest of all, which nobody misses; then from the
fullest mailbox.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Final

from ..config import Config
from ..errors import OwnedElsewhere
from .books import Books
from .entry import CLASS_SETTLED, Entry
from .journal import MIN_IN_ALL, PER_EVENT, Journals
from .ledger import Ledger
from .mailbox import Mailbox
from .retention import Line
from .runs import RunBooks

UNREAD: Final = -1
"""In the place of how many events of a log are held: it was not in memory yet."""

CROWDED: Final = 8
"""What is not critical goes from the rest of a log once there is room for no more than the 8th part of it."""


class Buffer:
    """All mailboxes of a hub, within its bounds.

    Args:
      config: the limits.
      new_id: makes a fresh epoch; chance comes from outside.
      ledger: what is to be made durable; None where nothing is.

    Attributes:
      largest: the size of the largest event that an empty buffer could hold.
      journals: what became of events, of all mailboxes.
      runs: the runs of agents, of all users.
      spills: what memory has no room for may go to a store only.
      asleep: users whose log a store has, and nothing of it is here; how many events of it were held when it left
        memory, or `UNREAD`, where it never was here.
      admits: whether a user's log may be in this process; None where all may. A store may be shared by several.
    """

    def __init__(self, config: Config, new_id: Callable[[], str], ledger: Ledger | None = None) -> None:
        self.ledger = ledger
        self.config = config
        self.largest = min(config.max_bytes_per_user, config.max_bytes)
        # Looked at for each event. Where this is compiled, a field of its own is read faster than the configuration's.
        self._max_events, self._max_bytes = config.max_events, config.max_bytes
        self._max_events_per_user, self._max_bytes_per_user = (
            config.max_events_per_user,
            config.max_bytes_per_user,
        )
        self._max_stored = config.max_stored_events_per_user
        self.spills = ledger is not None and self._max_stored > 0
        self.books = Books()
        self.mailboxes: dict[str, Mailbox] = {}
        self.asleep: dict[str, int] = {}
        self.admits: Callable[[str], bool] | None = None
        self.runs = RunBooks(config.max_runs_per_user, config.max_runs, config.max_run_text)
        self._new_id = new_id
        self.journals = Journals(max(MIN_IN_ALL, PER_EVENT * config.max_events))
        self._history = Line(CLASS_SETTLED)
        self._closed = 0
        self._by_events = _Fullest(lambda box: len(box.entries))
        self._by_bytes = _Fullest(lambda box: box.bytes)

    def may_be_here(self, user: str) -> bool:
        """Whether the log of `user` is in memory, or could begin there now."""
        return user in self.mailboxes or (
            user not in self.asleep and (self.admits is None or self.admits(user))
        )

    def mailbox(self, user: str) -> Mailbox:
        """The mailbox of `user`, who is not asleep; a new one, in a new epoch, where there is none.

        Raises:
          OwnedElsewhere: it must not be here.
        """
        box = self.mailboxes.get(user)
        if box is None:
            assert user not in self.asleep, "its log is to be loaded first"
            if self.admits is not None and not self.admits(user):
                raise OwnedElsewhere(user)
            box = self.mailboxes[user] = Mailbox(
                user,
                self._new_id(),
                books=self.books,
                history=self._history,
                history_ttl=self.config.event_ttl,
                journals=self.journals,
                max_joined_bytes=self.config.max_event_bytes,
                ledger=self.ledger,
            )
            box.runs = self.runs.users.get(user)
        return box

    def close(self, box: Mailbox) -> None:
        """Forget a mailbox that holds nothing and has no sessions nor runs."""
        box.closed = True
        self.runs.drop(box.user)
        if self.ledger is not None:
            self.ledger.close(box)
        self._forget(box)

    def sleep(self, box: Mailbox) -> None:
        """Let `box` go out of memory; a store has all of it, and it has no connection."""
        if self.ledger is not None:
            self.ledger.let_sleep(box)
        self.asleep[box.user] = box.fall_asleep()
        if box.runs is not None and not box.runs.open:
            self.runs.drop(box.user)
        self._forget(box)

    def move(self, user: str) -> None:
        """The log of `user` is another process's, and leaves memory as it is; nobody here has a session of it."""
        box = self.mailboxes.get(user)
        if box is not None:
            box.move()
            self._forget(box)
        elif (held := self.asleep.pop(user, UNREAD)) > 0:
            self.books.asleep -= held
            self.books.move(held)
        self.runs.drop(user)
        if self.ledger is not None:
            self.ledger.reopen(user)

    def _forget(self, box: Mailbox) -> None:
        if box.journal is not None:
            self.journals.close(box.journal)
        del self.mailboxes[box.user]
        self._closed += 1
        if self._closed > 64 + len(self.mailboxes):
            self._closed = 0
            self._by_events.prune()
            self._by_bytes.prune()

    def has_room_for(self, events: int, size: int) -> bool:
        """Whether so many events that can't go, of so many bytes, could come in."""
        books = self.books
        return books.firm_events + events <= self._max_events and books.firm_bytes + size <= self._max_bytes

    @property
    def is_over(self) -> bool:
        """Whether there is more in memory than may be: logs came in from a store."""
        return self.books.events > self._max_events or self.books.bytes > self._max_bytes

    def restored(self, box: Mailbox) -> None:
        """`box` was filled from a store: make room for it by what can go, of whoever it is."""
        self._touch(box)
        while not self.has_room_for(0, 0) and box.relieve():
            pass
        self.trim()

    def trim(self) -> None:
        """Where logs that came in for connections have brought more into memory than may be, let go what can go."""
        while self.is_over and self.books.events > self.books.firm_events:
            self._let_one_go()

    def accept(self, box: Mailbox, entry: Entry) -> bool:
        """Make room for `entry` and give it the next seq of `box`.

        The arriving event is never its own victim.

        Returns: False, and nothing has changed, where only critical events that still matter could make room.
        """
        books, size = self.books, entry.size
        books.now = entry.accepted_at
        full = len(box.entries) >= self._max_events_per_user or box.bytes + size > self._max_bytes_per_user
        full_in_all = books.events >= self._max_events or books.bytes + size > self._max_bytes
        if (full or full_in_all) and not self._feasible(box, entry):
            return False
        if entry.key is not None:
            box.supersede(entry)
        if full:
            self._make_room(box, size)
        if full_in_all:
            self._make_room_in_all(size)
        box.append(entry)
        if not box.stale:
            self._touch(box)
        return True

    def accept_beyond(self, box: Mailbox, entry: Entry) -> None:
        """As `accept`, where that has refused: what can be spared best goes, and `entry` comes in all the same. For the
        ends of runs, of which there are only so many."""
        self.books.now = entry.accepted_at
        if box.rest is not None:
            box.spill(entry)
            return
        if box.history:
            box.forget_oldest()
        else:
            box.make_room()
        box.append(entry)
        self._touch(box)

    def spill(self, box: Mailbox, entry: Entry) -> bool:
        """Give `entry`, for which there is no room, the next seq of `box`, for the store only.

        Returns: False, and nothing has changed, where that is full, too, or where as much as one user may have in
        memory is on its way there.
        """
        books, rest = self.books, box.rest
        if not self.spills:
            return False
        if rest is not None and self.is_crowded(box):
            books.rests[box] = None
            if rest.events >= self._max_stored:
                return False
        if (
            books.landing_events >= self._max_events_per_user
            or books.landing_bytes + entry.size > self._max_bytes_per_user
        ):
            return False
        books.now = entry.accepted_at
        box.spill(entry)
        return True

    @property
    def is_landing(self) -> bool:
        """Whether there may be no room because so much is on its way to be in the store only: a commit makes some."""
        books = self.books
        return books.landing_events > 0 and (
            books.landing_events >= self._max_events_per_user
            or books.landing_bytes + self.config.max_event_bytes > self._max_bytes_per_user
        )

    def is_crowded(self, box: Mailbox) -> bool:
        """Whether what is not critical in the rest of `box` is to go, as there will soon be no room for more."""
        rest = box.rest
        return rest is not None and rest.events >= self._max_stored - self._max_stored // CROWDED

    def room_to_take_in(self, box: Mailbox) -> tuple[int, int]:
        """How many events, and bytes, of the rest of `box` have room in memory, where all goes that can go for them.

        What waits for a session that is not here keeps nothing from those that are: as much as a user may have is let
        in besides it. And the bound over all is no matter: who is connected is given what waits.
        """
        waited_for, pending = box.staying()
        most, most_bytes = self._max_events_per_user, self._max_bytes_per_user
        size, aside = sum(entry.size for entry in waited_for), sum(entry.size for entry in pending)
        return (
            min(most, 2 * most - len(pending)) - len(waited_for),
            min(most_bytes, 2 * most_bytes - aside) - size,
        )

    def take_in(self, box: Mailbox, entries: list[Entry], upto: int) -> None:
        """Read the front of the rest of `box` back: see `Rest.take_in`. There must be room for `entries`."""
        assert box.rest is not None
        size = sum(entry.size for entry in entries)
        while (
            len(box.entries) + len(entries) > self._max_events_per_user
            or box.bytes + size > self._max_bytes_per_user
        ) and box.step_aside():
            pass
        box.rest.take_in(entries, upto)
        self.restored(box)

    def is_pressed(self, box: Mailbox, entry: Entry) -> bool:
        """Whether accepting `entry` into `box` would cost an event that has not settled."""
        books = self.books
        if len(box.entries) >= self._max_events_per_user or box.bytes + entry.size > self._max_bytes_per_user:
            return not box.history
        if books.events >= self._max_events or books.bytes + entry.size > self._max_bytes:
            return not books.history
        return False

    def is_full_for_all(self, box: Mailbox) -> bool:
        """Whether `box`, which was refused room, was so for the bound over all: then every other would be as well.

        For that bound all mailboxes were asked for critical events that can be spared, and had none.
        """
        own_room = (
            box.firm_events < self._max_events_per_user
            and box.firm_bytes + self.config.max_event_bytes <= self._max_bytes_per_user
        )
        return own_room and self.books.firm_events >= self._max_events

    def _touch(self, box: Mailbox) -> None:
        """Note that `box` has changed, so that its rank among the fullest is found anew when it matters."""
        if not box.stale:
            box.stale = True
            self._by_events.changed.append(box)
            self._by_bytes.changed.append(box)

    def _feasible(self, box: Mailbox, entry: Entry) -> bool:
        """Whether there can be room for `entry`; relieves critical events that can be spared, if it takes that."""
        books, size = self.books, entry.size
        while (
            box.firm_events >= self._max_events_per_user or box.firm_bytes + size > self._max_bytes_per_user
        ):
            if not box.relieve():
                return False
        while books.firm_events >= self._max_events or books.firm_bytes + size > self._max_bytes:
            if not (box.relieve() or any(other.relieve() for other in self.mailboxes.values())):
                return False
        return True

    def _make_room(self, box: Mailbox, size: int) -> None:
        """Make room for one event of `size` bytes within the bounds of one user."""
        while len(box.entries) >= self._max_events_per_user or box.bytes + size > self._max_bytes_per_user:
            if box.history:
                box.forget_oldest()
            elif not box.make_room():
                raise AssertionError("room was promised by _feasible and can't be made")

    def _make_room_in_all(self, size: int) -> None:
        """Make room for one event of `size` bytes within the bounds over all users."""
        books = self.books
        while books.events >= self._max_events or books.bytes + size > self._max_bytes:
            self._let_one_go()

    def _let_one_go(self) -> None:
        """Let the oldest of all history go, or what can best be spared in the fullest mailbox."""
        oldest = self._history.first()
        if oldest is not None:
            box = self.mailboxes[oldest.user]
            box.forget(oldest)
        else:
            self._rank_anew()
            box = (self._by_events if self.books.events >= self._max_events else self._by_bytes).pop()
            if not box.make_room():
                raise AssertionError("this mailbox was said to hold something that can go")
        self._touch(box)

    def _rank_anew(self) -> None:
        """Bring both rankings up to date with all that changed since."""
        for box in self._by_events.changed:
            box.stale = False
        self._by_events.refresh()
        self._by_bytes.refresh()


class _Fullest:
    """Finds the fullest mailbox that can make room.

    What changed is ranked only when somebody asks: O(log users) a change.
    """

    def __init__(self, measure: Callable[[Mailbox], int]) -> None:
        self.changed: list[Mailbox] = []
        self._measure = measure
        self._heap: list[tuple[int, int, Mailbox]] = []
        self._latest: dict[Mailbox, int] = {}
        self._count = 0

    def refresh(self) -> None:
        """Rank what has changed."""
        for box in self.changed:
            self._push(box)
        self.changed.clear()
        if len(self._heap) > 4 * len(self._latest) + 64:
            self._heap = [item for item in self._heap if self._latest.get(item[2]) == item[1]]
            heapq.heapify(self._heap)

    def prune(self) -> None:
        """Let go of mailboxes that were closed."""
        self.changed = [box for box in self.changed if not box.closed]
        self._latest = {box: count for box, count in self._latest.items() if not box.closed}
        self._heap = [item for item in self._heap if self._latest.get(item[2]) == item[1]]
        heapq.heapify(self._heap)

    def pop(self) -> Mailbox:
        """The fullest mailbox that holds something that is not firm. The caller notes that it has changed."""
        while True:
            size, count, box = heapq.heappop(self._heap)
            if self._latest.get(box) != count:
                continue
            del self._latest[box]
            if box.closed or len(box.entries) <= box.firm_events:
                continue
            if -size == self._measure(box):
                return box
            self._push(box)  # it has shrunk since; what grows is noted when it does

    def _push(self, box: Mailbox) -> None:
        self._count += 1
        self._latest[box] = self._count
        heapq.heappush(self._heap, (-self._measure(box), self._count, box))
