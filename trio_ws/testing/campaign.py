"""Many runs, over processes: what they add up to, and the shrinking of what fails."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from itertools import islice
from multiprocessing import get_context, parent_process
from typing import Any, Final

import attrs

from .checkers.sight import Violation
from .network.levels import LevelName
from .outcome import Outcome
from .plan import Plan
from .scenario import simulate

TWICE_EVERY: Final = 100
"""Each so manieth seed is run a second time, in a process of its own with another hash seed, and must come out the
same."""

ALWAYS: Final = (
    "reconnected",
    "epoch was reset",
    "duplicate dropped",
    "merged event",
    "handler failed",
    "published again",
    "publisher waited",
    "publisher gave up",
    "WouldBlock",
    "gap: evicted",
    "gap: expired",
    "gap: superseded",
    "gap: settled",
    "gap: reset",
    "session ended: 4403",
    "session ended: 4409",
    "session ended: 4429",
    "pending for the next session",
)
"""Rare states that a campaign worth its name reaches, besides the hub's own figures."""


@attrs.define
class Summary:
    """What a campaign has come to.

    Attributes:
      runs, seconds, events: how many runs, how much simulated time, how many events were accepted.
      cpu_seconds: how much computing that took; second runs don't count.
      twice: how many were run a second time.
      faults, sometimes: how often each happened, or in how many runs.
      failures: the runs in which something did not hold.
      longest_healing: simulated seconds that a run took to converge at most.
    """

    runs: int = 0
    seconds: float = 0.0
    events: int = 0
    cpu_seconds: float = 0.0
    twice: int = 0
    faults: Counter[str] = attrs.field(factory=Counter)
    sometimes: Counter[str] = attrs.field(factory=lambda: Counter(dict.fromkeys(ALWAYS, 0)))
    failures: list[Outcome] = attrs.field(factory=list)
    longest_healing: float = 0.0

    def add(self, outcome: Outcome) -> None:
        """Add a run."""
        self.runs += 1
        self.seconds += outcome.seconds
        self.events += outcome.events
        self.cpu_seconds += outcome.cpu_seconds
        self.faults.update(outcome.faults)
        for name, count in outcome.sometimes.items():
            self.sometimes[name] += count
        if outcome.violations:
            self.failures.append(outcome)
        self.longest_healing = max(self.longest_healing, outcome.healed or 0.0)

    @property
    def never(self) -> list[str]:
        """Rare states that were not reached."""
        return sorted(name for name, count in self.sometimes.items() if not count)


def run_campaign(
    seeds: Iterable[int],
    *,
    plan: Plan | None = None,
    level: LevelName = "wire",
    durable: bool = False,
    runs: bool = False,
    jobs: int = 1,
    seconds: float | None = None,
    on_run: Callable[[Outcome], object] = lambda outcome: None,
    run: Callable[[int], Outcome] | None = None,
) -> Summary:
    """Run the scenario of each seed.

    Args:
      seeds: which; they may be endless where `seconds` are given.
      plan: what happens in each; None draws it from the seed.
      level: what travels: bytes, or whole messages.
      durable: plans that are drawn have a disk under them, which outlives the hubs.
      runs: in plans that are drawn agents work in runs, and nothing else is published.
      jobs: how many processes; with 1 it all happens here. Second runs are in one of their own in any case.
      seconds: real time after which no further run is begun.
      on_run: called with each outcome as it comes, in no certain order.
      run: what is run, in the place of `scenario.simulate` with `plan` at `level`; it must be importable by its name.
    """
    summary = Summary()
    run = run or partial(simulate, plan=plan, level=level, durable=durable, runs=runs)
    again: list[tuple[Outcome, Future[Outcome]]] = []
    with ProcessPoolExecutor(1, get_context("spawn"), _follow_parent) as elsewhere:
        try:
            for outcome in _outcomes(_until(iter(seeds), seconds), jobs, run):
                summary.add(outcome)
                on_run(outcome)
                if outcome.seed % TWICE_EVERY == 0:
                    with _another_hash_seed():
                        again.append((outcome, elsewhere.submit(run, outcome.seed)))
            for first, future in again:
                summary.twice += 1
                second = future.result()
                if (first.trace_hash, first.wire_hash) != (second.trace_hash, second.wire_hash):
                    summary.failures.append(_differs(first))
        finally:
            elsewhere.shutdown(wait=False, cancel_futures=True)
    return summary


def _differs(outcome: Outcome) -> Outcome:
    text = "it came out otherwise a second time"
    broken = Violation(invariant="same seed, same trace and bytes", at=outcome.seconds, text=text)
    return attrs.evolve(outcome, violations=[broken])


@contextmanager
def _another_hash_seed() -> Iterator[None]:
    """A process that is started in the block hashes strings otherwise than this one."""
    before = os.environ.get("PYTHONHASHSEED")
    os.environ["PYTHONHASHSEED"] = "1" if before != "1" else "2"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONHASHSEED"]
        else:
            os.environ["PYTHONHASHSEED"] = before


def shrink(
    outcome: Outcome, *, tries: int = 200, run: Callable[[int, Any], Outcome] | None = None
) -> Outcome:
    """A failure of the same invariant with as little in its plan as could be found.

    Args:
      outcome: a failure.
      tries: how many runs it may take.
      run: what is run, in the place of `scenario.simulate` at the level of `outcome`.
    """
    attempt: Callable[[int, Any], Outcome] = run or partial(simulate, level=outcome.level)
    left = tries
    while left > 0:
        for plan in outcome.plan.simpler():
            left -= 1
            smaller = attempt(outcome.seed, plan)
            if any(v.invariant == outcome.violations[0].invariant for v in smaller.violations):
                outcome = smaller
                break
            if left <= 0:
                return outcome
        else:
            return outcome
    return outcome


def _until(seeds: Iterator[int], seconds: float | None) -> Iterator[int]:
    end = None if seconds is None else time.monotonic() + seconds
    for seed in seeds:
        if end is not None and time.monotonic() >= end:
            return
        yield seed


def _outcomes(seeds: Iterator[int], jobs: int, run: Callable[[int], Outcome]) -> Iterator[Outcome]:
    if jobs == 1:
        yield from map(run, seeds)
        return
    with ProcessPoolExecutor(jobs, get_context("spawn"), _follow_parent) as pool:
        running: set[Future[Outcome]] = {pool.submit(run, seed) for seed in islice(seeds, 2 * jobs)}
        try:
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    running |= {pool.submit(run, seed) for seed in islice(seeds, 1)}
                    yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _follow_parent() -> None:
    """Begin a worker: Ctrl-C goes to the whole group, and the parent alone decides what it means; when the parent has
    gone, however it went, the worker goes too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    assert parent is not None

    def outlive() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=outlive, daemon=True).start()
