"""Plans that Hypothesis draws: all that a plan can be is drawn, and what fails shrinks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import attrs
import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis.errors import NoSuchExample

from tests.simulation.bugs import BUGS
from trio_ws.config import Config
from trio_ws.testing import EVERYDAY, Plan, simulate
from trio_ws.testing.plan import CHARACTERS, FAULTS
from trio_ws.testing.strategies import CHOICES, LIMITS, plans

ROOT = Path(__file__).resolve().parents[2]

bounded = settings(
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=False,
)


def test_every_field_is_drawn() -> None:
    fields = {field.name for field in attrs.fields(Plan)}
    # Agents that work in runs want more of a plan than one field of it: see `Plan.of_runs`.
    assert fields - {"runs"} == {*CHOICES, "faults", "characters", "limits"}
    with pytest.raises(ValueError, match="nonsense: no field of a plan"):
        plans(nonsense=1)


@settings(bounded, max_examples=200)
@given(plan=plans())
def test_each_plan_is_one(plan: Plan) -> None:
    assert Plan.from_json(plan.to_json()) == plan
    assert set(plan.faults) <= set(FAULTS)
    assert set(plan.characters) <= set(CHARACTERS)
    Config(**plan.limits)


def test_all_limits_together_are_a_configuration() -> None:
    for number in range(max(map(len, LIMITS.values()))):
        limits: dict[str, object] = {}
        for choices in LIMITS.values():
            limits |= choices[min(number, len(choices) - 1)]
        Config(**limits)  # type: ignore[arg-type]


def test_what_is_fixed_is_not_drawn() -> None:
    plan = find(plans(users=2, faults={"reset": 0.5}), lambda plan: True, settings=bounded)
    assert (plan.users, plan.faults) == (2, {"reset": 0.5})


def test_the_simplest_plan_is_a_quiet_one() -> None:
    plan = find(plans(), lambda plan: True, settings=bounded)
    assert (plan.users, plan.tabs, plan.duration, plan.burst) == (1, 1, 5.0, 1)
    assert not plan.faults
    assert not plan.characters
    assert not plan.limits


@settings(bounded, max_examples=60, phases=[Phase.explicit, Phase.generate])
@given(plan=plans())
def test_the_package_holds_under_whatever_is_drawn(plan: Plan) -> None:
    outcome = simulate(1, plan, level="message")
    assert not outcome.violations, f"{outcome.violations[0]}\n{plan.to_json()}"


def test_what_fails_shrinks_to_what_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    BUGS["no_fence"](monkeypatch)

    def fails(plan: Plan) -> bool:
        return bool(simulate(1, plan, level="message").violations)

    few = plans(
        duration=5.0, rate=2.0, text=40, latency=0.01, jitter=0.0, segment=0, window=65536, handler=0.0
    )
    try:
        plan = find(few, fails, settings=settings(bounded, max_examples=100))
    except NoSuchExample:
        pytest.fail("the planted bug was not found")
    assert plan.users == plan.tabs == 1
    assert len(plan.faults) + len(plan.characters) + bool(plan.dies_at) <= 2
    assert len(plan.limits) <= 2


def hashes(prelude: str) -> str:
    code = (
        f"{prelude}; from trio_ws.testing import EVERYDAY, simulate; import attrs; "
        "plan = attrs.evolve(EVERYDAY, duration=5.0, faults={'reset': 0.3}); "
        "one = simulate(7, plan); print(one.trace_hash, one.wire_hash, one.events)"
    )
    return output_of(code)


def output_of(code: str) -> str:
    """What a process of its own prints that runs this."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    ).stdout


def test_a_run_comes_out_the_same_whether_hypothesis_was_imported_or_not() -> None:
    assert EVERYDAY.users > 1
    without = hashes("import sys")
    assert len(without.split()) == 3
    assert hashes("import hypothesis, hypothesis.strategies") == without
    assert hashes("from trio_ws.testing.strategies import plans; plans()") == without


def test_importing_the_module_imports_no_hypothesis() -> None:
    code = "import sys, trio_ws.testing.strategies; print('hypothesis' in sys.modules)"
    assert output_of(code) == "False\n"
