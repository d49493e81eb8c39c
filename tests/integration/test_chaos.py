"""scripts/chaos itself, for some seconds: the server keeps its promises, and one that lies is found out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import trio
from ordeal import cluster, rounds
from ordeal.checker import check
from ordeal.plan import FAULTS
from ordeal.run import Ordeal, Tally, environment, run

pytestmark = pytest.mark.integration

FAULTS_OF_NODES = rounds.possible() - {"tabs"}
ROOT = Path(__file__).resolve().parents[2]


async def suffered(ordeal: Ordeal, monkeypatch: pytest.MonkeyPatch) -> tuple[Tally, list[str]]:
    """What was done in a run, and what the checker says of it."""
    monkeypatch.setenv("PYTHONPATH", "")
    environment()
    tally = Tally()
    with trio.fail_after(240):
        await run(ordeal, tally)
    return tally, check(ordeal.directory, ordeal.database, over=True)


async def test_a_server_that_is_killed_under_load_keeps_its_promises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of this seed every fault is among the first ten lives.
    ordeal = Ordeal(tmp_path, "suite-70", kills=10, users=3, rate=150, length=0.4)
    tally, found = await suffered(ordeal, monkeypatch)
    assert found == []
    assert tally.faults["kill"] == 10
    assert tally.faults.keys() == FAULTS.keys()
    assert tally.copies
    assert tally.answered > 30
    assert tally.healed is not None


async def test_nodes_that_die_with_their_redis_keep_the_promises_of_all(
    redis_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "")
    environment()
    redis_directory.mkdir()  # noqa: ASYNC240
    # The three rounds of this seed have eight kinds of faults.
    options = {"kills": 2, "redis_faults": 6, "users": 2, "rate": 100, "length": 1.0}
    ordeal = cluster.Ordeal(redis_directory, "suite-17", faults=FAULTS_OF_NODES, **options)
    tally = cluster.Tally()
    with trio.fail_after(240):
        await cluster.run(ordeal, tally)
    assert check(redis_directory, over=True) == []
    assert tally.faults["kill"] >= 2  # some nodes are killed again as they start
    assert tally.redis_faults == 6
    assert tally.answered > 10
    assert tally.looks == tally.number + 1
    assert tally.healed is not None


async def test_a_server_that_answers_before_it_commits_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nest = (sys.executable, str(ROOT / "tests" / "integration" / "lying_nest.py"))
    faults = frozenset({"kill"})
    ordeal = Ordeal(tmp_path, "lies", kills=6, faults=faults, users=3, rate=200, length=0.5, nest=nest)
    _, found = await suffered(ordeal, monkeypatch)
    assert any(line.startswith(("1:", "10:", "13:")) for line in found), found


def test_the_command_says_how_to_repeat_it_and_how_it_went(tmp_path: Path) -> None:
    options = [
        "--kills",
        "2",
        "--faults",
        "kill,term,copy",
        "--seed",
        "x",
        "--users",
        "2",
        "--keep",
        tmp_path / "kept",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "ordeal", *options],
        cwd=ROOT,
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'scripts'}", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "scripts/chaos --seed x --faults copy,kill,term --users 2" in done.stderr
    assert "every promise was kept" in done.stdout
    assert (tmp_path / "kept" / "run.jsonl").exists()


def test_a_fault_that_there_is_not_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ordeal", "--faults", "kill,flood"],
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'scripts'}", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "there is no fault flood" in done.stderr
