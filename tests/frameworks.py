"""Agent frameworks that some tests run: installed once, beside the tests, in `.frameworks/`.

Not in the environment of the tests: they bring a hundred packages, a plug-in for pytest, and other versions of what we
use.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from .alone import alone

ROOT: Final = Path(__file__).resolve().parents[1]
FOLDER: Final = ROOT / ".frameworks"
PACKAGES: Final = ("langgraph==1.2.24", "openai-agents==0.24.0")


def need_frameworks() -> None:
    """Has them in `FOLDER`; where they can't be had, the test is skipped, and says so."""
    stamp = FOLDER / "installed"
    wanted = "\n".join((sys.version, *PACKAGES))
    pip = [sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-compile"]
    with alone(FOLDER):
        if stamp.exists() and stamp.read_text() == wanted:
            return
        command = [*pip, "--upgrade", "--target", str(FOLDER), *PACKAGES]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode:
            pytest.skip(f"LangGraph and OpenAI Agents were NOT tried: {done.stderr.strip()[-300:]}")
        stamp.write_text(wanted)


def run(*arguments: str | Path) -> str:
    """Runs a Python program that has them, and returns what it printed; it must succeed."""
    paths = [str(ROOT), str(FOLDER)]
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONWARNINGS": "default"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
