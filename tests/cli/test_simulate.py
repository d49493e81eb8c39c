"""`trio-ws simulate`: one seed in full and always alike, or many with a summary."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from trio_ws.cli import simulate as module
from trio_ws.testing.checkers.sight import Violation
from trio_ws.testing.network.levels import LevelName
from trio_ws.testing.nodes.scenario import simulate_nodes
from trio_ws.testing.outcome import Outcome
from trio_ws.testing.plan import Plan
from trio_ws.testing.scenario import simulate


def run(*args: str) -> tuple[int, str]:
    result = CliRunner().invoke(module.command, list(args))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def test_one_seed_prints_its_hash_last_and_the_same_each_time() -> None:
    status, output = run("--seed", "3")
    assert status == 0
    assert output.splitlines()[-1] == f"trace {simulate(3).trace_hash}"
    assert run("--seed", "3") == (status, output)


def test_at_message_level_too() -> None:
    status, output = run("--seed", "3", "--level", "message")
    assert status == 0
    assert output.splitlines()[0].startswith("seed 3 at message level: ")
    assert output.splitlines()[-1] == f"trace {simulate(3, level='message').trace_hash}"


def test_a_plan_stands_in_for_the_seeds_own() -> None:
    plan = Plan(duration=5.0)
    status, output = run("--seed", "3", "--plan", plan.to_json())
    assert status == 0
    assert output.splitlines()[-1] == f"trace {simulate(3, plan).trace_hash}"


def test_several_seeds_are_summed_up() -> None:
    status, output = run("--seeds", "3", "--jobs", "1")
    assert status == 0
    assert output.startswith("3 runs, 1 of them twice, ")
    assert "simulated seconds a CPU second" in output
    assert output.endswith("all held\n")


def test_one_plan_for_several_seeds() -> None:
    plan = Plan(duration=5.0, faults={"cut": 1.0})
    status, output = run("--seeds", "2", "--jobs", "1", "--level", "message", "--plan", plan.to_json())
    assert status == 0
    assert "faults: cut " in output
    assert "never reached" not in output


def test_several_nodes_go_with_runs_and_with_nothing_else() -> None:
    status, output = run("--nodes", "--runs", "--level", "message", "--seed", "3")
    assert status == 0
    assert output.splitlines()[-1] == f"trace {simulate_nodes(3, runs=True).trace_hash}"
    assert run("--nodes", "--durable")[0] == 2


def test_a_failure_exits_1_and_says_how_to_replay_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(
        seed: int,
        plan: Plan | None = None,
        *,
        level: LevelName = "wire",
        durable: bool | None = None,
        runs: bool = False,
    ) -> Outcome:
        outcome = simulate(seed, Plan(duration=1.0))
        outcome.violations.append(Violation(invariant="it holds", at=1.0, text="it does not"))
        return outcome

    monkeypatch.setattr("trio_ws.testing.scenario.simulate", fails)
    status, output = run("--seed", "4")
    assert status == 1
    assert "VIOLATED 1.000 it holds: it does not" in output


@pytest.mark.parametrize(
    "args",
    [("--seed", "1", "--seeds", "2"), ("--seed", "1", "--minutes", "1"), ("--shrink",)],
)
def test_options_that_do_not_go_together_are_refused(args: tuple[str, ...]) -> None:
    status, _ = run(*args)
    assert status == 2


def test_what_is_no_plan_is_refused() -> None:
    assert run("--seed", "1", "--plan", "{")[0] == 2
