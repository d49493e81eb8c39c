"""The process that the server's lives are born of: it has imported everything, and forks where others would start.

A life is `trio-ws serve` from its first line of Python on; what it is spared is a second of imports, so that a
thousand of them fit in minutes. The nest is told `start` on standard input, and answers `started PID`, then
`ended STATUS` (below zero: by that signal). At the end of its input it kills what lives, and ends.
"""

from __future__ import annotations

import gc
import importlib
import os
import pkgutil
import select
import signal
import sys
from collections.abc import Sequence

import trio_ws.cli

LAZY = (
    "trio_ws.admin",
    "trio_ws.cluster",
    "trio_ws.redis",
    "trio_ws.hub",
    "trio_ws.server",
    "trio_ws.store",
    "trio_ws.cli",
)


def main(arguments: Sequence[str]) -> None:
    """Serve with these arguments as often as told, one life at a time."""
    for name in LAZY:
        package = importlib.import_module(name)
        for module in pkgutil.iter_modules(package.__path__, f"{name}."):
            if module.name != "trio_ws.cli.simulate":
                importlib.import_module(module.name)
    for name in ("hypercorn.trio", "starlette.applications", "structlog"):
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    commands = os.fdopen(0, "rb", buffering=0)
    while commands.readline() == b"start\n":
        pid = os.fork()
        if pid == 0:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(2, 1)
            trio_ws.cli.main(["serve", *arguments])
        tell(f"started {pid}")
        life = os.pidfd_open(pid)
        if commands in select.select([commands, life], [], [])[0]:
            os.kill(pid, signal.SIGKILL)
            return
        os.close(life)
        tell(f"ended {os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}")


def tell(line: str) -> None:
    """Answer on standard output."""
    os.write(1, f"{line}\n".encode())


if __name__ == "__main__":
    main(sys.argv[1:])
