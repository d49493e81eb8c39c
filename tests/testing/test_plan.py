"""Plans: drawn alike from the same seed, true to themselves as JSON, and shrinkable to nothing."""

from __future__ import annotations

import random

import attrs
import pytest

from trio_ws import Config
from trio_ws.testing.plan import CHARACTERS, FAULTS, Plan


@pytest.mark.parametrize("seed", range(50))
def test_a_plan_follows_from_its_seed_and_survives_json(seed: int) -> None:
    plan = Plan.draw(random.Random(seed))
    assert plan == Plan.draw(random.Random(seed))
    assert Plan.from_json(plan.to_json()) == plan
    Config(**plan.limits)


def test_a_swarm_draws_each_kind_sometimes_and_never_all_of_them() -> None:
    plans = [Plan.draw(random.Random(seed)) for seed in range(300)]
    for kind in FAULTS:
        assert 0 < sum(kind in plan.faults for plan in plans) < 200
    for kind in CHARACTERS:
        assert 0 < sum(kind in plan.characters for plan in plans) < 200
    assert any(not plan.faults for plan in plans)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"user": 1}', '{"faults": {"gremlins": 1}}', "3"])
def test_what_is_no_plan_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Plan.from_json(text)


def test_a_plan_prints_what_differs_from_a_quiet_one() -> None:
    assert str(Plan()) == ""
    assert str(Plan(users=3, faults={"reset": 0.5})) == "users=3 faults={reset:0.5}"


def test_each_simpler_plan_differs_and_they_come_to_an_end() -> None:
    plan = Plan.draw(random.Random(3))
    for simpler in plan.simpler():
        assert simpler != plan
    for _ in range(100):
        simplest = next(plan.simpler(), None)
        if simplest is None:
            break
        plan = simplest
    else:
        pytest.fail("there is always a simpler one")
    assert not plan.faults
    assert not plan.characters
    assert attrs.evolve(plan, latency=0.0) == plan
