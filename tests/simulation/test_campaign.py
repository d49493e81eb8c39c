"""The whole of it under simulation: hub, server and clients as they are, a network that is not kind, many seeds.

What is told as a failure is replayed by `trio-ws simulate --seed K`.
"""

from __future__ import annotations

import multiprocessing
import os

import attrs
import pytest

from trio_ws.testing.campaign import run_campaign, shrink
from trio_ws.testing.checkers.sight import Checker, Line
from trio_ws.testing.each_step import BUSY, crash_each_step
from trio_ws.testing.network.levels import LevelName
from trio_ws.testing.outcome import Outcome
from trio_ws.testing.plan import Plan
from trio_ws.testing.scenario import CHECKERS, simulate
from trio_ws.testing.simulation import Simulation

SEEDS: dict[LevelName, int] = {"message": 800, "wire": 120}


def told(outcome: Outcome) -> str:
    return f"seed {outcome.seed} at {outcome.level} level: {outcome.violations[0]}\n  {outcome.plan}"


@pytest.mark.parametrize("level", SEEDS)
def test_a_campaign_holds(level: LevelName) -> None:
    seeds = SEEDS[level]
    summary = run_campaign(range(seeds), level=level, jobs=min(2, os.cpu_count() or 1))
    assert (summary.runs, summary.twice) == (seeds, -(-seeds // 100))
    assert not summary.failures, "\n".join(map(told, summary.failures[:5]))
    if level == "message":
        # A campaign that never got anywhere near trouble proves nothing.
        assert not summary.never


def test_a_campaign_over_a_disk_holds() -> None:
    summary = run_campaign(range(400), level="message", durable=True, jobs=min(2, os.cpu_count() or 1))
    assert not summary.failures, "\n".join(map(told, summary.failures[:5]))
    reached = {
        "the store was not available",
        "resumed in another life",
        "died: lost commits",
        "store: spilled",
    }
    assert all(summary.sometimes[name] for name in reached), summary.sometimes
    assert summary.faults["disk_full"]
    assert summary.faults["disk_stall"]


@pytest.mark.parametrize(("durable", "reached"), [(False, "lease"), (True, "crash")])
def test_a_campaign_of_runs_holds(durable: bool, reached: str) -> None:
    summary = run_campaign(
        range(60), level="message", durable=durable, runs=True, jobs=min(2, os.cpu_count() or 1)
    )
    assert not summary.failures, "\n".join(map(told, summary.failures[:5]))
    states = {
        f"a run was lost: {reached}",
        "a snapshot was sent",
        "a folded view was compared",
        "a question was answered",
        "an answer was already_answered",
        "a user cancelled a run",
        "an agent died without a word",
        "the grammar was broken",
    }
    assert all(summary.sometimes[name] for name in states), summary.sometimes
    assert summary.sometimes["a run went on in another life"] > 0 or not durable


def test_over_a_disk_a_server_may_die_at_any_step() -> None:
    plan = attrs.evolve(BUSY, durable=True)
    summary = crash_each_step(1, plan, level="message", stride=11)
    assert summary.runs > 20
    assert not summary.failures, "\n".join(map(told, summary.failures[:5]))


@pytest.mark.parametrize("level", SEEDS)
@pytest.mark.parametrize("seed", [3, 7])
def test_a_seed_comes_out_the_same_each_time(seed: int, level: LevelName) -> None:
    one, other = simulate(seed, level=level), simulate(seed, level=level)
    assert one == other
    assert one.trace_hash != simulate(seed + 1, level=level).trace_hash


def test_both_levels_have_the_same_faults_befall_the_same_load() -> None:
    # Often enough that each finds something to befall.
    plan = Plan(
        tabs=2, faults={"reset": 0.5, "stall_in": 0.5, "cut": 0.5, "pause": 0.1}, characters={"liar": 1}
    )
    wire, message = (simulate(3, plan, level=level) for level in SEEDS)
    assert wire.wire_hash != message.wire_hash
    assert set(wire.faults) == set(message.faults) == {*plan.faults, *plan.characters}
    assert Plan.draw(Simulation(3).derive("plan")) == simulate(3, level="message").plan == simulate(3).plan


def test_a_quiet_run_delivers_everything() -> None:
    outcome = simulate(1, Plan(mortal=0.0, keyed=0.0))
    assert not outcome.violations
    assert outcome.healed is not None
    assert outcome.events > 20
    assert outcome.sometimes["delivery: events_evicted"] == 0
    assert not outcome.faults


class NoResets(Checker):
    """Does not hold as soon as a connection follows on another."""

    invariant = "nothing ever breaks"

    def attached(self, line: Line, session: object) -> None:
        if line.number > 1:
            self.fail("it did")


def rebellious(seed: int, plan: Plan | None = None) -> Outcome:
    return simulate(seed, plan, watchers=(*CHECKERS, NoResets))


def test_a_failure_is_told_and_shrunk_to_what_it_takes() -> None:
    plan = Plan(users=2, tabs=2, faults={"reset": 0.2, "stall_in": 0.1}, characters={"liar": 1, "deaf": 1})
    outcome = rebellious(5, plan)
    assert [v.invariant for v in outcome.violations[:1]] == ["nothing ever breaks"]
    small = shrink(outcome, run=rebellious)
    assert small.violations[0].invariant == "nothing ever breaks"
    assert not small.plan.characters
    assert rebellious(5, small.plan) == small


def otherwise_elsewhere(seed: int) -> Outcome:
    return simulate(seed, Plan(duration=1.0 if multiprocessing.parent_process() is None else 2.0))


def test_a_seed_that_comes_out_otherwise_in_another_process_is_a_failure() -> None:
    summary = run_campaign([0, 1], run=otherwise_elsewhere)
    assert (summary.runs, summary.twice) == (2, 1)
    assert [v.invariant for v in summary.failures[0].violations] == ["same seed, same trace and bytes"]


def the_hash_seed(seed: int) -> Outcome:
    outcome = simulate(seed, Plan(duration=0.1))
    return attrs.evolve(outcome, trace_hash=os.environ.get("PYTHONHASHSEED", ""))


def test_strings_are_hashed_otherwise_the_second_time() -> None:
    before = os.environ.get("PYTHONHASHSEED")
    assert run_campaign([0], run=the_hash_seed).failures
    assert os.environ.get("PYTHONHASHSEED") == before


def test_a_server_that_dies_at_any_step_is_recovered_from() -> None:
    # Every step of it: `trio-ws simulate --seed 3 --crash-each-step`.
    summary = crash_each_step(3, stride=3)
    assert summary.runs > 50
    assert not summary.failures, "\n".join(map(told, summary.failures[:5]))
    assert summary.sometimes["epoch was reset"] > summary.runs / 2
    assert summary.sometimes["the server died in silence"] > 0


def test_the_steps_at_which_the_server_dies_differ() -> None:
    plan = attrs.evolve(BUSY, duration=1.0)
    runs = [simulate(3, attrs.evolve(plan, dies_at=steps)) for steps in range(20, 30)]
    assert len({outcome.trace_hash for outcome in runs}) == len(runs)
    assert all("died steps=" in outcome.trace for outcome in runs)
