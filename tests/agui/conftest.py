"""AG-UI's public packages as judges: its client, under Node, and its models, in Python."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ..npm import FOLDER, need_packages

HERE = Path(__file__).parent
Ask = Callable[..., Any]


@pytest.fixture(scope="session")
def ask() -> Iterator[Ask]:
    """Asks `peer.mjs`: what AG-UI's client makes of a stream (``play``), or agui.js of a run (``encode``)."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node here: AG-UI's own client was NOT asked; install Node 20 or later")
    need_packages()
    peer = subprocess.Popen(
        [node, HERE / "peer.mjs", FOLDER / "package.json"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert peer.stdin is not None
    assert peer.stdout is not None

    def ask(op: str, **request: Any) -> Any:
        assert peer.stdin is not None
        assert peer.stdout is not None
        peer.stdin.write(json.dumps({"op": op, **request}) + "\n")
        peer.stdin.flush()
        return json.loads(peer.stdout.readline())

    yield ask
    peer.stdin.close()
    assert peer.wait(10) == 0
    peer.stdout.close()
