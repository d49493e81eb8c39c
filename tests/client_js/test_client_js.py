"""The browser client's logic, and that of runs.js, without a browser: `node --test` with scripted sockets and a clock
turned by hand."""

from __future__ import annotations

import gzip
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
STATIC = HERE.parents[1] / "trio_ws" / "admin" / "static"


def test_under_node() -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node here: the unit tests of client.js were NOT run; install Node 20 or later")
    done = subprocess.run(
        [node, "--test", "--test-reporter=tap", *map(str, sorted(HERE.glob("*.test.mjs")))],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("module", "limit"), [("client.js", 6 * 1024), ("runs.js", 2 * 1024)])
def test_it_is_small(module: str, limit: int) -> None:
    assert len(gzip.compress((STATIC / module).read_bytes())) < limit
