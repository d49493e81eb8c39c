"""The tutorial of `docs/testing.md`, followed to the letter: the bug is found, and the change mends it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "testing.md"


def run_tests(folder: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-x", "--rootdir=."]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    return done.stdout + done.stderr


def without_numbers(text: str) -> str:
    """The text, whatever its seeds and times: those may change with the package."""
    return re.sub(r"\d+(\.\d+)?", "#", text)


def test_the_tutorial_holds_what_it_promises(tmp_path: Path) -> None:
    page = PAGE.read_text()
    application, test, change, *_ = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "orders.py").write_text(application)
    (tmp_path / "test_orders.py").write_text(test)

    output = run_tests(tmp_path)
    assert "1 failed" in output, output
    (shown,) = re.findall(r"```console\n\$ pytest -x\n(.*?)```", page, re.DOTALL)
    assert shown.count("\n") > 10
    for line in shown.splitlines():
        assert line == "..." or without_numbers(line) in without_numbers(output)

    (old,) = re.findall(r".*await hub\.publish\(.*\n", application)
    indent = old[: len(old) - len(old.lstrip())]
    (tmp_path / "orders.py").write_text(application.replace(old, textwrap.indent(change, indent)))
    output = run_tests(tmp_path)
    assert "20 passed" in output, output
