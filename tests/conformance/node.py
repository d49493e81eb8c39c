"""The world in which client.js runs on fake timers: a Node process that is asked and answers, line by line."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any

from .referee import Failure, Seen

HERE = Path(__file__).parent
CLIENT = HERE.parents[1] / "trio_ws" / "admin" / "static" / "client.js"


class NodeWorld:
    """See `referee.World`; a context manager. Nothing in it waits for real time, so its methods just block.

    Args:
      client: which client.js; another one than the real has a planted bug.
    """

    slack = 0.0

    def __init__(self, client: Path = CLIENT) -> None:
        node = shutil.which("node")
        if node is None:
            raise FileNotFoundError("node is not installed")
        self._process = subprocess.Popen(
            [node, str(HERE / "clients" / "virtual.mjs"), str(client)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._now = 0.0

    def __enter__(self) -> NodeWorld:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def begin(self, options: Any) -> None:
        """Starts a client anew, at time 0."""
        self._ask({"begin": options})

    def now(self) -> float:
        return self._now

    def calendar(self) -> float:
        return 1_700_000_000 + self._now

    async def next(self, deadline: float) -> Seen | None:
        seen = self._ask({"until": deadline})
        return None if seen is None else Seen(**seen)

    async def answer(self, how: str) -> None:
        self._ask({"do": {"answer": how}})

    async def send(self, message: str | bytes) -> None:
        self._ask({"do": {"send": message} if isinstance(message, str) else {"binary": message.hex()}})

    async def close(self, code: int, reason: str) -> None:
        self._ask({"do": {"close": {"code": code, "reason": reason}}})

    async def cut(self) -> None:
        self._ask({"do": {"cut": True}})

    async def command(self, command: Any) -> None:
        self._ask({"do": {"command": command}})

    def _ask(self, question: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise Failure("the client's process has died")
        answer = json.loads(line)
        self._now = answer["now"]
        return answer["seen"]
