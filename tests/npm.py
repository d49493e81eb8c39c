"""Packages of npm that some tests need: installed once, beside the tests, in `.node/`."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from .alone import alone

FOLDER: Final = Path(__file__).resolve().parents[1] / ".node"
MODULES: Final = FOLDER / "node_modules"
PACKAGES: Final = {
    "@ag-ui/client": "1.0.0",
    "@ag-ui/core": "1.0.0",
    "ag-ui-client-0": "npm:@ag-ui/client@0.0.59",  # the one in CopilotKit 1.74
    "esbuild": "0.28.2",
    "react": "19.3.1",
    "react-dom": "19.3.1",
    "typescript": "5.9.3",
    "ws": "8.23.0",
}


def need_packages() -> None:
    """Has them in `MODULES`; where they can't be had, the test is skipped, and says so."""
    with alone(FOLDER):
        if all(_version(name) == version.split("@")[-1] for name, version in PACKAGES.items()):
            return
        if shutil.which("npm") is None:
            pytest.skip(
                "no npm here: what needs npm's packages was NOT tested; install Node 20 or later, with npm"
            )
        (FOLDER / "package.json").write_text(json.dumps({"private": True, "dependencies": PACKAGES}))
        done = subprocess.run(
            ["npm", "install", "--no-audit", "--no-fund", "--loglevel=error"],
            cwd=FOLDER,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        if done.returncode:
            pytest.skip(f"what needs npm's packages was NOT tested: {done.stderr.strip()[-300:]}")


def run(*command: str | Path, cwd: Path) -> str:
    """Runs a program and returns what it printed; it must succeed."""
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _version(name: str) -> str | None:
    file = MODULES / name / "package.json"
    return str(json.loads(file.read_text())["version"]) if file.exists() else None
