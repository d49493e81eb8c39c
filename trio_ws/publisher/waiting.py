"""What of a run may wait a moment for company: text as it is written, a tool's output, progress.

Pieces of one text are joined, a later progress takes the place of an earlier one; the order stays. Any thread may add.
"""

from __future__ import annotations

from threading import Lock
from typing import Any, Final

import attrs

from ..errors import InvalidEvent

LINGER: Final = 0.05
"""Seconds that a piece waits for company."""

ENOUGH: Final = 4096
"""Characters that wait for no more."""

AGAIN: Final = 1.0
"""Seconds between two tries to send what waits, or to tell that the run is alive, while nobody answers."""

MAX_WAITING: Final = 256 * 1024
"""Characters that may wait; who adds more has to send them."""

MAX_DELTA: Final = 16 * 1024
"""Characters of one event; escaped as JSON they stay under any sensible `max_event_bytes`."""

DELTA: Final = "agent_delta"
OUTPUT: Final = "tool_output"
PROGRESS: Final = "agent_progress"


@attrs.define(eq=False)
class _Piece:
    """An event that waits; `call` is the tool's, None for the run's own text."""

    type: str
    payload: dict[str, Any]
    call: int | None = None
    texts: list[str] = attrs.field(factory=list)
    size: int = 0

    def event(self) -> tuple[str, dict[str, Any]]:
        """Its type and payload."""
        if self.texts:
            return self.type, {**self.payload, "text": "".join(self.texts)}
        return self.type, self.payload


class Waiting:
    """The pieces of one run that wait.

    Attributes:
      size: how many characters they have.
    """

    def __init__(self) -> None:
        self.size = 0
        self._pieces: list[_Piece] = []
        self._lock = Lock()

    def __len__(self) -> int:
        """How many events wait."""
        return len(self._pieces)

    def add_text(self, text: str, call: int | None = None) -> None:
        """Adds text of the run, or output of its tool `call`.

        Raises:
          InvalidEvent: it is no text, or holds half of a surrogate pair.
        """
        try:
            text.encode()
        except (AttributeError, UnicodeEncodeError):
            raise InvalidEvent("a delta is a text, in UTF-8", field="text") from None
        with self._lock:
            for start in range(0, len(text), MAX_DELTA):
                self._add(text[start : start + MAX_DELTA], call)

    def add_progress(self, payload: dict[str, Any]) -> None:
        """Adds how far the run is; only the last word on that is sent."""
        with self._lock:
            self._pieces = [piece for piece in self._pieces if piece.type != PROGRESS]
            self._pieces.append(_Piece(PROGRESS, payload))

    def take(self) -> list[tuple[str, dict[str, Any]]]:
        """Types and payloads of all that waits, which now waits no more."""
        with self._lock:
            taken, self._pieces, self.size = self._pieces, [], 0
        return [piece.event() for piece in taken]

    def _add(self, text: str, call: int | None) -> None:
        last = self._pieces[-1] if self._pieces else None
        if last is None or not last.texts or last.call != call or last.size + len(text) > MAX_DELTA:
            last = _Piece(DELTA, {}) if call is None else _Piece(OUTPUT, {"call": call}, call)
            self._pieces.append(last)
        last.texts.append(text)
        last.size += len(text)
        self.size += len(text)
