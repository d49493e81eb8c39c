"""Counters of what should happen sometimes: a campaign that never reached a state has proved nothing about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping


class Sometimes:
    """Counts how often rare states were reached, in one run or, added up, in a campaign.

    Args:
      expected: the names of states that a campaign must reach.
    """

    def __init__(self, expected: Iterable[str] = ()) -> None:
        self._counts: Counter[str] = Counter(dict.fromkeys(expected, 0))

    def __call__(self, name: str, condition: bool = True) -> None:
        """Count `name` if `condition` holds; from now on it is expected in any case."""
        self._counts[name] += bool(condition)

    def add(self, counts: Mapping[str, int]) -> None:
        """Add the counts of another run, as `counts` gave them."""
        for name, count in counts.items():
            self._counts[name] += count

    @property
    def counts(self) -> dict[str, int]:
        """How often each was reached, by name."""
        return {name: self._counts[name] for name in sorted(self._counts)}

    @property
    def never(self) -> list[str]:
        """What was expected and never reached, by name."""
        return [name for name, count in self.counts.items() if not count]
