"""What is gone from a log, remembered as runs, so that a session can be told what it will not get.

Neighbouring seqs of one type that went for the same reason, all of them critical or none, form one run: it can be cut
anywhere and still says exactly what was lost. Other neighbours are joined only where the number of runs would pass
`MAX_RUNS`, and not across a cursor that may ask. Where such a run is cut all the same (a client that comes back with
a cursor nobody remembered), the count stays exact, the type is given as ``"*"``, and `critical` is the most that it
can be.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Collection
from typing import Final

from .entry import EVICTED, EXPIRED, RESET, SETTLED, SUPERSEDED

MAX_RUNS: Final = 64
MAX_TYPES: Final = 32
"""How many types one run tells apart; what is lost of further ones is counted as `ANY_TYPE`."""

MAX_AGENTS: Final = 64
"""Of how many agents' runs one run of seqs tells what is lost."""

ANY_TYPE: Final = "*"
_GRAVITY: Final = {SETTLED: 0, SUPERSEDED: 1, RESET: 2, EVICTED: 3, EXPIRED: 4}


class Run:
    """The seqs `first` to `last`, gone for one `reason`: how many of each type, how many of them critical.

    Attributes:
      agents: how many of it, at the least, are in the snapshots of which agents' runs, by the run's id; None for none.
    """

    __slots__ = ("agents", "critical", "first", "last", "lost", "reason")

    def __init__(
        self,
        first: int,
        last: int,
        reason: str,
        lost: dict[str, int],
        critical: int,
        agents: dict[str, int] | None = None,
    ) -> None:
        self.first = first
        self.last = last
        self.reason = reason
        self.lost = lost
        self.critical = critical
        self.agents = agents

    def absorb(self, other: Run) -> None:
        """Take in the neighbour `other`; of two reasons the graver one stays."""
        # Of what a crash may have cost nothing is known; counted with what is known to be lost, it may be lost.
        lost = other.lost or ({ANY_TYPE: other.last - other.first + 1} if self.lost else {})
        if lost and not self.lost:
            self.lost = {ANY_TYPE: self.last - self.first + 1}
        self.first = min(self.first, other.first)
        self.last = max(self.last, other.last)
        for kind, count in lost.items():
            name = kind if kind in self.lost or len(self.lost) < MAX_TYPES else ANY_TYPE
            self.lost[name] = self.lost.get(name, 0) + count
        self.critical += other.critical
        if other.agents is not None:
            agents = {} if self.agents is None else self.agents
            for id, count in other.agents.items():
                if id in agents or len(agents) < MAX_AGENTS:
                    agents[id] = agents.get(id, 0) + count
            self.agents = agents
        if _GRAVITY[other.reason] > _GRAVITY[self.reason]:
            self.reason = other.reason

    def part(self, first: int, last: int) -> Run:
        """What of it lies from `first` to `last`, seqs within it."""
        if first == self.first and last == self.last:
            agents = None if self.agents is None else dict(self.agents)
            return Run(first, last, self.reason, dict(self.lost), self.critical, agents)
        count = last - first + 1
        agents = None if self.agents is None else self._agents_of_part(count)
        if not self.lost:  # nobody knows what was lost, if anything was
            return Run(first, last, self.reason, {}, 0, agents)
        kind = next(iter(self.lost)) if len(self.lost) == 1 else ANY_TYPE
        return Run(first, last, self.reason, {kind: count}, min(self.critical, count), agents)

    def _agents_of_part(self, count: int) -> dict[str, int]:
        """`agents` of so many seqs of it: where not all are one agent's, nobody knows whose these are."""
        assert self.agents is not None
        alone = len(self.agents) == 1 and sum(self.agents.values()) == self.last - self.first + 1
        return dict.fromkeys(self.agents, count if alone else 0)


class Gone:
    """All that is gone from one log, as runs in the order of their seqs."""

    __slots__ = ("_alike", "_end", "_growing", "_limit", "_runs", "_starts")

    def __init__(self) -> None:
        self._runs: list[Run] = []
        self._starts: list[int] = []
        self._limit = MAX_RUNS
        # The run that was added to last, what it is made of, and the last seq before the run after it. What goes is
        # mostly the next of its kind: that takes a fifth of the time that finding its place takes.
        self._growing: Run | None = None
        self._alike: tuple[str, str, bool, str | None] = ("", "", False, None)
        self._end = 0.0

    def __len__(self) -> int:
        return len(self._runs)

    def add(
        self, first: int, last: int, kind: str, reason: str, critical: bool, agent: str | None = None
    ) -> bool:
        """Note that the entry of type `kind` at `first` to `last` went for `reason`.

        Args:
          agent: the agent's run in whose snapshot it is.

        Returns: whether it is time to `compact`, as `crowded` says.
        """
        run = self._growing
        if (
            run is not None
            and run.last + 1 == first
            and last < self._end
            and self._alike == (kind, reason, critical, agent)
        ):
            run.last = last
            run.lost[kind] += last - first + 1
            if agent is not None:
                run.agents[agent] += last - first + 1  # type: ignore[index]
            if critical:
                run.critical += last - first + 1
            return False
        self._place(first, last, kind, reason, critical, agent)
        return self.crowded

    def _place(
        self, first: int, last: int, kind: str, reason: str, critical: bool, agent: str | None
    ) -> None:
        """As `add`, wherever it belongs among the runs."""
        count = last - first + 1
        losses = count if critical else 0
        runs, starts = self._runs, self._starts
        at = bisect_right(starts, first)
        self._growing = None
        left = runs[at - 1] if at else None
        right = runs[at] if at < len(runs) and runs[at].first == last + 1 else None
        if left is not None and left.last == first - 1 and _only(left, kind, reason, critical, agent):
            left.last = last
            left.lost[kind] += count
            left.critical += losses
            if left.agents is not None and agent is not None:
                left.agents[agent] += count
            if right is not None and _only(right, kind, reason, critical, agent):
                left.absorb(right)
                del runs[at], starts[at]
            self._growing, self._alike = left, (kind, reason, critical, agent)
            self._end = starts[at] - 1 if at < len(starts) else math.inf
            return
        if right is not None and _only(right, kind, reason, critical, agent):
            right.first = starts[at] = first
            right.lost[kind] += count
            right.critical += losses
            if right.agents is not None and agent is not None:
                right.agents[agent] += count
            return
        agents = None if agent is None else {agent: count}
        runs.insert(at, Run(first, last, reason, {kind: count}, losses, agents))
        starts.insert(at, first)

    def at(self, seq: int) -> Run | None:
        """The run that holds `seq`, from `seq` on (a copy), or None where `seq` is not gone."""
        at = bisect_right(self._starts, seq) - 1
        if at < 0 or self._runs[at].last < seq:
            return None
        run = self._runs[at]
        return run.part(seq, run.last)

    def losses(self) -> list[Run]:
        """The runs of what had not settled (copies)."""
        return [run.part(run.first, run.last) for run in self._runs if run.reason != SETTLED]

    def restore(self, runs: list[Run]) -> None:
        """Take over these runs, which are in order and don't overlap, in the place of all there are."""
        self._runs, self._starts = runs, [run.first for run in runs]
        self._growing = None
        self._limit = max(MAX_RUNS, 2 * len(runs))

    def end_of(self, seq: int) -> int:
        """The last seq of the run that holds `seq`; `seq` itself where it is not gone."""
        at = bisect_right(self._starts, seq) - 1
        return max(seq, self._runs[at].last) if at >= 0 else seq

    @property
    def crowded(self) -> bool:
        """Whether it is time to `compact`: there are more than `MAX_RUNS`, and twice as many as could not be joined."""
        return len(self._runs) > self._limit

    def compact(self, cursors: Collection[int]) -> None:
        """Bring the number of runs back under `MAX_RUNS`, without joining across a cursor. Runs that events which are
        held keep apart stay apart: there is no more than one for each of those, and one.

        Args:
          cursors: positions that a session may go on from; a run is never joined over one of them,
            unless there are more of them than runs may be.
        """
        keep = frozenset(cursors)
        for same_reason, kept in ((True, keep), (False, keep), (False, frozenset[int]())):
            self._join(same_reason, kept)
            if len(self._runs) <= MAX_RUNS // 2:
                break
        self._limit = max(MAX_RUNS, 2 * len(self._runs))

    def _join(self, same_reason: bool, cursors: frozenset[int]) -> None:
        """Join neighbours, the oldest first, until half of `MAX_RUNS` are left."""
        self._growing = None
        joined: list[Run] = []
        left = len(self._runs)
        for run in self._runs:
            last = joined[-1] if joined else None
            if (
                left > MAX_RUNS // 2
                and last is not None
                and last.last + 1 == run.first
                and last.last not in cursors
                and (last.reason == run.reason or not same_reason)
            ):
                last.absorb(run)
                left -= 1
            else:
                joined.append(run)
        self._runs = joined
        self._starts = [run.first for run in joined]


def _only(run: Run, kind: str, reason: str, critical: bool, agent: str | None) -> bool:
    """Whether all of `run` is of type `kind` and of the run of `agent`, went for `reason`, and is critical or not as
    `critical` says."""
    count = run.last - run.first + 1
    return (
        run.reason == reason
        and len(run.lost) == 1
        and kind in run.lost
        and run.critical == (count if critical else 0)
        and run.agents == (None if agent is None else {agent: count})
    )
