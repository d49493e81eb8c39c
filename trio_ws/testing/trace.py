"""What happened in a simulation, line by line: to be read when it fails, and to be compared by its hash."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable
from typing import Final, TypeAlias

KEPT: Final = 10_000

Scalar: TypeAlias = bool | int | float | str | None
Value: TypeAlias = Scalar | tuple[Scalar, ...] | list[Scalar]


class Trace:
    """A record of a run on simulated time. Two runs of one seed have the same lines, and so the same hash.

    Args:
      clock: simulated seconds.
      keep: how many of the newest lines are kept to be read; the hash covers all.
    """

    def __init__(self, clock: Callable[[], float], *, keep: int = KEPT) -> None:
        self._clock = clock
        self._lines: deque[str] = deque(maxlen=keep)
        self._digest = hashlib.sha256()
        self._count = 0

    def note(self, kind: str, /, **fields: Value) -> None:
        """Add a line. Not a checkpoint.

        Args:
          kind: what happened, in a word or two.
          fields: the particulars. Plain values, and tuples or lists of them: what prints the same in each process.

        Raises:
          TypeError: a value that may print differently in another process, its address with it.
        """
        words = [f"{self._clock():12.6f}", kind]
        words += [f"{name}={_worded(value)}" for name, value in fields.items()]
        line = " ".join(words)
        self._digest.update(line.encode() + b"\n")
        self._lines.append(line)
        self._count += 1

    @property
    def hash(self) -> str:
        """SHA-256 over all lines so far, as 64 hexadecimal digits."""
        return self._digest.hexdigest()

    @property
    def lines(self) -> list[str]:
        """The newest lines, oldest first."""
        return list(self._lines)

    def tail(self, count: int = 40) -> str:
        """The last `count` lines as text; the first of them says how many came before."""
        lines = self.lines[-count:] if count > 0 else []
        hidden = self._count - len(lines)
        return "\n".join(([f"({hidden} lines before)"] if hidden else []) + lines)

    def __len__(self) -> int:
        """How many lines there were in all."""
        return self._count

    def __str__(self) -> str:
        return self.tail(KEPT)


def _worded(value: Value) -> str:
    if isinstance(value, tuple | list):
        return "[" + ",".join(map(_worded, value)) + "]"
    if value is None or isinstance(value, bool | int | str | float):
        return ascii(value)
    raise TypeError(f"a trace takes plain values, not {type(value).__name__}")
