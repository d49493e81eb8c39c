"""The pytest plug-in, as those see it who install the package: small test files, run by pytest in a process."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., tuple[int, str]]

BASIC = """
import pytest, trio

@pytest.mark.simulate(seeds=3)
async def test_time(simulation):
    began = trio.current_time()
    await trio.sleep(1000)
    assert trio.current_time() == 1000

async def test_without_a_marker(simulation):
    assert simulation.seed == 0

def test_plain():
    pass
"""

FAILING = """
import pytest, trio

@pytest.mark.simulate(seeds=[7, 19])
@pytest.mark.parametrize("word", ["it's", "b"])
async def test_world(simulation, word):
    simulation.sometimes("asked")
    simulation.network.partition("here", "there")
    await trio.sleep(2.5)
    simulation.trace.note("slept", word=word)
    assert simulation.seed == 7 or word == "b"
"""


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Writes a test file and runs pytest on it: the exit status, and what it printed."""

    def run(text: str, *arguments: str, ini: str = "trio_mode = true") -> tuple[int, str]:
        (tmp_path / "pytest.ini").write_text(f"[pytest]\n{ini}\nfilterwarnings = error\n")
        (tmp_path / "test_it.py").write_text(text)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--strict-markers", *arguments],
            cwd=tmp_path,
            env=environment | {"COLUMNS": "200"},
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stdout + done.stderr

    return run


def ran(output: str) -> list[str]:
    """The tests that passed, from `-v`."""
    return re.findall(r"::(\S+) PASSED", output)


@pytest.mark.parametrize("ini", ["trio_mode = true", "trio_mode = false"])
def test_a_test_is_run_once_for_each_seed(run: Run, ini: str) -> None:
    status, output = run(BASIC, "-v", ini=ini)
    assert status == 0, output
    assert ran(output) == [
        "test_time[seed0]",
        "test_time[seed1]",
        "test_time[seed2]",
        "test_without_a_marker[seed0]",
        "test_plain",
    ]


def test_without_pytest_trio(run: Run) -> None:
    status, output = run(BASIC, "-p", "no:trio", ini="")
    assert status == 0, output
    assert "5 passed" in output


def test_the_command_line_chooses_seeds(run: Run) -> None:
    status, output = run(BASIC, "-v", "-k", "test_time", "--simulate-seeds=2")
    assert status == 0, output
    assert ran(output) == ["test_time[seed0]", "test_time[seed1]"]
    status, output = run(BASIC, "-v", "-k", "test_time", "--simulate-seed=123456", "--simulate-seed=5")
    assert ran(output) == ["test_time[seed123456]", "test_time[seed5]"]


def test_a_failure_tells_its_seed_and_the_command_that_replays_it(run: Run) -> None:
    status, output = run(FAILING)
    assert status == 1
    assert "1 failed, 3 passed" in output
    section = output[output.index("--- simulation ---") :]
    assert "seed 19, at 2.500000 simulated seconds" in section
    assert "faults: 1 partition" in section
    assert "reached: 1 asked" in section
    assert 'slept word="it\'s"' in section

    (command,) = re.findall(r"^    pytest (.*)$", section, re.MULTILINE)
    status, replayed = run(FAILING, *shlex.split(command))
    assert status == 1
    assert "1 failed" in replayed
    assert "passed" not in replayed
    assert section.split("=====")[0] == replayed[replayed.index("--- simulation ---") :].split("=====")[0]


def test_a_seed_beyond_the_marker_is_replayed_by_its_command_too(run: Run) -> None:
    failing = FAILING.replace("simulation.seed == 7", "simulation.seed < 1000")
    _, output = run(failing, "--simulate-seed=5000")
    (command,) = re.findall(r"^    pytest (.*)$", output, re.MULTILINE)
    _, replayed = run(failing, *shlex.split(command))
    assert "1 failed" in replayed


def test_a_hang_ends_by_the_timeout_of_the_marker(run: Run) -> None:
    status, output = run("""
import pytest, trio

@pytest.mark.simulate(timeout=50)
async def test_hang(simulation):
    await trio.sleep_forever()
""")
    assert status == 1
    assert "TooSlowError" in output
    assert "at 50.000000 simulated seconds" in output


def test_fixtures_may_take_the_world_before_it_begins_and_are_fresh_for_each_seed(run: Run) -> None:
    status, output = run("""
import pytest, trio

@pytest.fixture
def network(simulation):
    assert not simulation.network.faults
    simulation.network.partition("a", "b")
    return simulation.network

class TestGroup:
    @pytest.mark.simulate(3)
    async def test_network(self, network, simulation, tmp_path):
        assert not list(tmp_path.iterdir())
        (tmp_path / "file").write_text("x")
        assert network is simulation.network
        assert network.faults == {"partition": 1}
        await trio.sleep(1)

    @pytest.mark.simulate(2)
    async def test_indirect(self, network):
        assert network.faults == {"partition": 1}
""")
    assert status == 0, output
    assert "5 passed" in output


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def test_it(simulation): pass", "must be an async function"),
        ("@pytest.mark.simulate(seeds=2)\nasync def test_it(): pass", "takes `simulation`"),
        ("@pytest.mark.simulate(sedes=2)\nasync def test_it(simulation): pass", "sedes"),
    ],
    ids=["sync", "no fixture", "misspelt"],
)
def test_what_is_wrong_with_a_test_is_said(run: Run, text: str, words: str) -> None:
    status, output = run(f"import pytest\n{text}\n")
    assert status != 0
    assert words in output


def test_the_marker_and_the_options_are_documented(run: Run) -> None:
    assert "simulate(seeds=1, timeout=3600)" in run("", "--markers")[1]
    assert "--simulate-seed=SEED" in run("", "--help")[1]
