"""`trio-ws validate`: its exit status, what it prints, and that an interruption still leaves a report."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from click.testing import CliRunner, Result

from trio_ws.cli import cli
from trio_ws.validation import run
from trio_ws.validation.findings import Findings

from ..validation.findings import good
from .fake_admin import started


@pytest.fixture
def finds(monkeypatch: pytest.MonkeyPatch) -> Callable[[Findings], list[Findings]]:
    """Has validations find what is given; returns what they were asked for."""

    def arrange(found: Findings) -> list[Findings]:
        asked: list[Findings] = []

        async def validate(findings: Findings, progress: Any, *, target: Any = None) -> None:
            asked.append(attrs.evolve(findings))
            for name in ("after", "before", "phases", "skipped", "reuse"):
                setattr(findings, name, getattr(found, name))

        monkeypatch.setattr(run, "validate", validate)
        return asked

    return arrange


def call(tmp_path: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["validate", "--output", str(tmp_path / "out"), *arguments])


def test_all_met_is_0(tmp_path: Path, finds: Callable[[Findings], list[Findings]]) -> None:
    asked = finds(good())
    result = call(tmp_path, "--quick", "--seed", "5", "--users", "7", "--", "--max-events", "2000")
    assert result.exit_code == 0, result.output
    assert "All requirements met" in result.output
    assert "Critical events accepted and lost" in result.output
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {
        "report.md",
        "report.html",
        "results.json",
    }
    assert (asked[0].plan.quick, asked[0].plan.seed, asked[0].plan.users) == (True, 5, 7)
    assert asked[0].arguments == ("--max-events", "2000")
    text = (tmp_path / "out" / "report.md").read_text()
    assert "$ trio-ws validate --quick --users 7 --seed 5 -- --max-events 2000" in text
    assert str(tmp_path) not in text + (tmp_path / "out" / "results.json").read_text()


def test_a_miss_is_1_and_the_report_is_there_all_the_same(
    tmp_path: Path, finds: Callable[[Findings], list[Findings]]
) -> None:
    found = good()
    found.reuse.hits = 0
    finds(found)
    result = call(tmp_path, "--json")
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert told["passed"] is False
    assert [r["name"] for r in told["requirements"] if r["verdict"] == "missed"] == ["reused"]
    assert "1 of 18 requirements missed" in (tmp_path / "out" / "report.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--url", "http://127.0.0.1:1"], "--url and --ws-url go together"),
        (["--url", "http://h", "--ws-url", "wss://h/ws"], "must be such as ws://"),
        (["--url", "http://h", "--ws-url", "ws://h/ws", "--", "--max-events", "5"], "takes no arguments"),
        (["--users", "0"], "--users"),
    ],
)
def test_wrong_arguments_are_2(tmp_path: Path, arguments: list[str], told: str) -> None:
    result = call(tmp_path, *arguments)
    assert result.exit_code == 2
    assert told in result.output


def test_an_output_that_cannot_be_written_is_told_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    result = CliRunner().invoke(cli, ["validate", "--output", str(tmp_path / "out" / "deep")])
    assert result.exit_code == 2
    assert "--output" in result.output


def test_without_the_extra_it_says_what_to_install(tmp_path: Path) -> None:
    code = "import sys; sys.modules['pygal'] = None; from trio_ws.cli import main; main(['validate'])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "pip install 'trio-ws[server,validate]'" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.integration
def test_an_interruption_is_130_and_leaves_a_report_and_no_process(tmp_path: Path) -> None:
    output = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-m", "trio_ws", "validate", "--quick", "--output", str(output)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    started.append(process)
    assert process.stderr is not None
    for line in process.stderr:
        if "Load and drops" in line:
            break
    children = [
        int(child)
        for task in os.listdir(f"/proc/{process.pid}/task")
        for child in Path(f"/proc/{process.pid}/task/{task}/children").read_text().split()
    ]
    assert len(children) == 2
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert "Interrupted" in told
    assert "Interrupted" in (output / "report.md").read_text()
    assert not any(Path(f"/proc/{child}").exists() for child in children)
