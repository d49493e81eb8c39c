"""The application's side of dead letters: each is handed over once, and only of what has expired unconfirmed."""

from __future__ import annotations

import trio

from ...hub import DeadLetter
from ..checkers.record import Record
from ..checkers.sight import Deliberate
from ..simulation import Simulation

INVARIANT = "each dead letter is handed over, once"


class Letters:
    """Takes dead letters; slow at times, and it raises at times.

    Attributes:
      dropped: how many the hub let go, because they came faster than they were taken.
    """

    def __init__(self, sim: Simulation, record: Record) -> None:
        self.dropped = 0
        self._sim = sim
        self._record = record
        self._rng = sim.derive("letters")
        self._taken: set[tuple[str, str, int]] = set()

    async def take(self, letter: DeadLetter) -> None:
        """See `trio_ws.open_hub`."""
        where = (letter.user, letter.epoch, letter.seq)
        event = self._record.log.get(where[:2], {}).get(letter.seq)
        if self._record.durable:
            pass  # one that was handed over right before a crash may come again, and its event be of an earlier life
        elif where in self._taken:
            self._record.fail(INVARIANT, f"{letter} comes again")
        elif event is not None and (not event.critical or event.state not in ("expired", "unknown")):
            self._record.fail(INVARIANT, f"{letter} of {event}")
        self._taken.add(where)
        await trio.sleep(self._rng.uniform(0, 0.1))
        if self._rng.random() < 0.1:
            self._sim.sometimes("on_dead_letter failed")
            raise Deliberate

    def logged(self, text: str) -> None:
        """The package has logged something."""
        self.dropped += "is let go" in text

    def count(self) -> None:
        """Everything has expired by now, and been handed over."""
        missing = [
            event
            for event in self._record.events.values()
            if event.life == self._record.life
            and event.critical
            and event.state == "expired"
            and (event.user, event.epoch, event.seq) not in self._taken
        ]
        if len(missing) > self.dropped:
            self._record.fail(INVARIANT, f"{missing[0]} was not")
