"""One small run, over and over: each time the server dies one step of its tasks later, until it has died at each."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import attrs

from .campaign import Summary, run_campaign
from .network.levels import LevelName
from .outcome import Outcome
from .plan import Plan
from .scenario import simulate

BUSY: Final = Plan(
    users=2,
    duration=3.0,
    rate=8.0,
    confirmed=0.2,
    mortal=0.1,
    repeated=0.2,
    handler=0.01,
    failing=0.1,
    faults={"reset": 0.6, "cut": 0.6, "restart": 0.3},
    limits={"max_events_per_user": 8, "max_events": 12, "session_ttl": 10.0, "event_ttl": 5.0},
)
"""A bit of everything in three seconds, an orderly end of the server included."""


def crash_each_step(
    seed: int,
    plan: Plan = BUSY,
    *,
    level: LevelName = "wire",
    first: int = 1,
    stride: int = 1,
    jobs: int = 1,
    on_run: Callable[[Outcome], object] = lambda outcome: None,
) -> Summary:
    """Have the server die after n steps of its tasks, for each n there is until all has converged.

    Args:
      seed, plan: the run; its `dies_at` counts for nothing.
      level: what travels: bytes, or whole messages.
      first, stride: the least n, and how far to the next.
      jobs: how many processes.
      on_run: called with each outcome as it comes; `plan.dies_at` is its n.
    """
    whole = simulate(seed, attrs.evolve(plan, dies_at=0), level=level)
    if whole.violations:
        summary = Summary()
        summary.add(whole)
        return summary
    run = partial(_one, seed, plan, level)
    summary = run_campaign(
        range(first, whole.steps + 1, stride),
        jobs=jobs,
        run=run,
        on_run=lambda outcome: on_run(_at(outcome, seed)),
    )
    summary.failures = [_at(outcome, seed) for outcome in summary.failures]
    return summary


def _one(seed: int, plan: Plan, level: LevelName, steps: int) -> Outcome:
    """The run in which the server dies after so many steps: what tells the runs of this campaign apart, as seeds do."""
    outcome = simulate(seed, attrs.evolve(plan, dies_at=steps), level=level)
    return attrs.evolve(outcome, seed=steps)


def _at(outcome: Outcome, seed: int) -> Outcome:
    return attrs.evolve(outcome, seed=seed)
