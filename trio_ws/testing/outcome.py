"""What comes of a simulated run."""

from __future__ import annotations

import attrs

from .checkers.sight import Violation
from .network.levels import LevelName
from .nodes.plan import NodesPlan
from .plan import Plan


@attrs.frozen(kw_only=True)
class Outcome:
    """What came of a run.

    Attributes:
      level: at which it ran.
      violations: what did not hold; empty where all is well.
      seconds: how long it took in simulated time; `healed` is how long it took to converge, None if it did not.
      events: how many were accepted.
      steps: how many steps the server's tasks took, until all had converged.
      faults: how many happened, by kind; `sometimes` the same for rare states.
      trace_hash, wire_hash: over all that was noted, and over all bytes that were sent.
      trace: the last lines.
      cpu_seconds: how much computing it took, which is another each time.
    """

    seed: int
    plan: Plan | NodesPlan
    level: LevelName
    violations: list[Violation]
    seconds: float
    healed: float | None
    events: int
    steps: int
    faults: dict[str, int]
    sometimes: dict[str, int]
    trace_hash: str
    wire_hash: str
    trace: str
    cpu_seconds: float = attrs.field(default=0.0, eq=False)


def singles(error: BaseException) -> list[BaseException]:
    """The exceptions in a group, however deep; just the one where it is none."""
    if isinstance(error, BaseExceptionGroup):
        return [single for inner in error.exceptions for single in singles(inner)]
    return [error]
