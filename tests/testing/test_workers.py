"""A campaign's processes: they go when the one that began them does."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PATIENCE = 60.0


@pytest.mark.skipif(sys.platform != "linux", reason="children are found in /proc")
def test_workers_go_with_their_parent_even_where_that_is_killed() -> None:
    command = [
        sys.executable,
        "-m",
        "trio_ws",
        "simulate",
        "--level",
        "message",
        "--seeds",
        "1000000",
        "--jobs",
        "2",
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as parent:
        try:
            workers = [os.pidfd_open(pid) for pid in children(parent.pid)]
        finally:
            parent.send_signal(signal.SIGKILL)
    for worker in workers:
        assert select.select([worker], [], [], PATIENCE)[0], "a worker goes on"
        os.close(worker)


def children(parent: int) -> list[int]:
    """The workers of a process, once it has at least two."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        pids = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        workers = [int(pid) for pid in pids if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        if len(workers) >= 2:
            return workers
        time.sleep(0.05)
    raise AssertionError("no workers came")
