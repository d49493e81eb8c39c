"""A green simulator proves nothing until planted bugs turn it red: each of these must be caught, and soon.

`python -m tests.simulation.bugs` proves it for one or for all, and prints which seed and which invariant it was.
"""

from __future__ import annotations

import os

import pytest

from tests.simulation.bugs import BUGS, WITHIN, purpose, try_all
from tests.simulation.bugs.trial import Trial, try_one
from trio_ws.hub.attachment import Attachment

LEAST = 35
"""How many bugs there are to be, at least."""


def told(trial: Trial) -> str:
    seed = (
        "not caught"
        if trial.seed is None
        else f"seed {trial.seed}"
        if trial.fits
        else "does not fit the code"
    )
    return f"{trial.bug}: {seed}, {trial.invariant}"


def test_there_are_enough_of_them_and_each_says_what_it_breaks() -> None:
    assert len(BUGS) >= LEAST
    for name, bug in BUGS.items():
        first, *more = purpose(bug).splitlines()
        assert first.count(".") >= 2, f"{name}: what it breaks, and which invariant should see it"
        assert not more, name


def test_each_is_caught() -> None:
    trials = list(try_all(BUGS, range(WITHIN), jobs=min(2, os.cpu_count() or 1)))
    for trial in trials:
        print(told(trial))
    assert {trial.bug for trial in trials} == set(BUGS)
    missed = [told(trial) for trial in trials if trial.seed is None or not trial.fits]
    assert not missed, "\n".join(missed)


def test_without_a_bug_the_same_seeds_hold() -> None:
    (trial,) = try_all([""], range(60))
    assert trial.seed is None, told(trial)
    assert trial.runs == 60


@pytest.mark.parametrize("name", ["no_fence", "time_is_real"])
def test_a_trial_tells_the_seed_and_the_invariant(name: str) -> None:
    fence = Attachment.fence
    trial = try_one(name, range(10), "message")
    assert trial.seed is not None
    assert trial.invariant
    assert trial.fits
    assert Attachment.fence is fence  # the bug has not outlived its trial
