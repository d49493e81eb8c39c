"""The events of an agent run on their way to the server: in order, bounded, sent by one task.

Lifecycle events are kept until the server has them. Output is kept as far as there is room for it: pieces are
joined while they wait, and when the server is away for long the oldest is cut, with a note in its place. A batch
that is being sent is frozen, so that a repetition says the same under the same ids, and the server can tell it
from a new one.
"""

from __future__ import annotations

import random
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import trio

from ..config import KIB, MIB
from ..core.backoff import Backoff
from .http import Answer, Unreachable
from .played import Played

CALL = 1
"""The number of the one tool call that a run has: the command."""

LINGER = 0.05
"""Seconds that output waits for more of it before it is sent."""

ENOUGH = 4 * KIB
"""Bytes of output that don't wait."""

MAX_DELTA = 32 * KIB
"""Bytes of output in one event; escaped as JSON they stay under any sensible `max_event_bytes`."""

MAX_BATCH = 128 * KIB
"""Bytes of output in one call, and thereby at most frozen."""

MAX_WAITING = 1 * MIB
"""Bytes of output that wait at most."""

ENTRY_COST = 256
"""What a waiting piece counts besides its bytes, so that many small ones are bounded too."""

LONGEST_PAUSE = 2.0
"""Seconds between two tries at most; a run should be seen soon after the server is back."""


@attrs.define(eq=False)
class _Entry:
    """One event that waits: of the lifecycle, or a piece of output."""

    id: str
    type: str
    payload: dict[str, Any]
    is_output: bool = False
    text: list[str] = attrs.field(factory=list)
    size: int = 0
    cut: int = 0

    @property
    def cost(self) -> int:
        """What it takes of the room for output."""
        return self.size + ENTRY_COST if self.is_output else 0

    def wire(self) -> dict[str, Any]:
        """The line of a batch."""
        if not self.is_output:
            return {"id": self.id, "type": self.type, "payload": self.payload}
        note = (
            f"\n[... {self.cut} bytes of output were cut here: the server was away ...]\n" if self.cut else ""
        )
        payload = {**self.payload, "text": note + "".join(self.text)}
        return {"id": self.id, "type": self.type, "payload": payload}


class Outbox:
    """Takes the events of a run, and sends them while `send` runs.

    Args:
      note: told, in a line, when the server goes away and comes back, and what it refused.

    Attributes:
      cut: bytes of output that were cut.
      refused: events that the server will not take.
    """

    def __init__(self, *, note: Callable[[str], None]) -> None:
        self.cut = 0
        self.refused = 0
        self._token = secrets.token_hex(8)
        self._note = note
        self._entries: deque[_Entry] = deque()
        self._frozen = 0  # how many of the entries are in the batch that is being sent
        self._output = 0  # what the other pieces of output cost
        self._lifecycle = 0  # how many of the other entries are of the lifecycle
        self._made = 0
        self._closed = False
        self._away = False
        self._given_up = False
        self._backoff = Backoff(random.Random())
        self._changed = trio.Event()

    def __len__(self) -> int:
        """How many events wait."""
        return len(self._entries)

    def event(self, type_: str, **payload: Any) -> None:
        """Adds an event of the lifecycle. It goes at once, after what came before it."""
        self._add(_Entry(self._next_id(), type_, payload))
        self._lifecycle += 1

    def output(self, text: str) -> None:
        """Adds output of tool call 1. It joins what waits, if nothing came between."""
        if not text or self._given_up:
            return
        size = len(text.encode())
        last = self._entries[-1] if len(self._entries) > self._frozen else None
        if last is None or not last.is_output or last.size + size > MAX_DELTA:
            last = _Entry(self._next_id(), "tool_output", {"call": CALL}, True)
            self._add(last)
            self._output += last.cost
        last.text.append(text)
        last.size += size
        self._output += size
        if self._output > MAX_WAITING:
            self._trim()
        self._changed.set()

    def close(self) -> None:
        """Nothing more will come: `send` ends when all is sent."""
        self._closed = True
        self._changed.set()

    async def send(self, played: Played) -> None:
        """Sends what comes until `close`. Never raises for what the server does.

        Cancelling it leaves the rest in the outbox; the batch in flight may have arrived.
        """
        while self._entries or not self._closed:
            if not self._entries:
                await self._change()
                continue
            with trio.move_on_after(LINGER):
                while not (self._closed or self._lifecycle or self._output >= ENOUGH):
                    await self._change()
            self._freeze()
            while self._frozen:
                await self._try(played)

    async def _change(self) -> None:
        self._changed = trio.Event()
        await self._changed.wait()

    def _next_id(self) -> str:
        self._made += 1
        return f"run-{self._token}-{self._made}"

    def _add(self, entry: _Entry) -> None:
        if not self._given_up:
            self._entries.append(entry)
            self._changed.set()

    def _freeze(self) -> None:
        """Takes the next batch: up to the first event of the lifecycle.

        Nothing stands after that one, so that nothing overtakes it if the server has no room for it now.
        """
        cost = 0
        for entry in self._entries:
            if self._frozen and cost + entry.cost > MAX_BATCH:
                break
            self._frozen += 1
            cost += entry.cost
            if not entry.is_output:
                self._lifecycle -= 1
                break
        self._output -= cost

    def _trim(self) -> None:
        """Cuts the oldest output that is not frozen, to leave a quarter free; what stands after it says so."""
        entries, cut = list(self._entries), 0
        newest = entries[-1]
        self._entries = deque(entries[: self._frozen])
        for entry in entries[self._frozen :]:
            if entry.is_output and entry is not newest and self._output > MAX_WAITING * 3 // 4:
                self._output -= entry.cost
                self.cut += entry.size
                cut += entry.cut + entry.size
                continue
            if entry.is_output:
                entry.cut += cut
                cut = 0
            self._entries.append(entry)

    async def _try(self, played: Played) -> None:
        """One call with the frozen batch; keeps of it what has to be sent again, and waits before that."""
        batch = [self._entries[n] for n in range(self._frozen)]
        try:
            answers = await played.publish([entry.wire() for entry in batch])
        except Unreachable as exc:
            self._went_away(str(exc))
            await trio.sleep(min(self._backoff.next_delay(), LONGEST_PAUSE))
            return
        again = self._settle(batch, answers)
        if not again:
            self._came_back()
            return
        self._went_away(again[0].reason)
        asked = max((answer.retry_after or 0 for answer in again), default=0)
        await trio.sleep(max(asked, min(self._backoff.next_delay(), LONGEST_PAUSE)))

    def _settle(self, batch: Sequence[_Entry], answers: Sequence[Answer]) -> list[Answer]:
        """Takes out of the outbox what the server has had its last word on; returns the other answers."""
        for _ in batch:
            self._entries.popleft()
        again = [(entry, answer) for entry, answer in zip(batch, answers, strict=True) if answer.temporary]
        final = [answer for answer in answers if answer.error is not None and not answer.temporary]
        self._entries.extendleft(entry for entry, _ in reversed(again))
        self._frozen = len(again)
        if final:
            self.refused += len(final)
            if self.refused == len(final):
                self._note(f"the server refuses events of this run: {final[0].reason}")
            if final[0].status in (401, 403, 404, 405):
                self._give_up()
        return [answer for _, answer in again]

    def _give_up(self) -> None:
        """The server wants nothing of us (a wrong key, another service): stop asking, let the command run."""
        self._given_up = True
        self.refused += len(self._entries)
        self._entries.clear()
        self._frozen = self._output = self._lifecycle = 0

    def _went_away(self, reason: str) -> None:
        if not self._away:
            self._away = True
            self._note(f"{reason}; the run goes on, its events are kept")

    def _came_back(self) -> None:
        self._backoff = Backoff(random.Random())
        if self._away:
            self._away = False
            self._note("the server takes events again")
