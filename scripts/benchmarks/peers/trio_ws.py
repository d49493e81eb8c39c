"""This server, with all that it promises, as a client of protocol v1 sees it.

`BENCH_TREES="before=/path/to/another/tree"` (comma-separated) adds peers ``trio-ws@before`` and
``trio-ws-critical@before``: the server of that tree, under the same harness, in the same run.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from ..processes import ROOT, module
from ..session import Load, Session
from . import Peer

EVENT = b'{"t":"event",'
FRAME = b'{"t":"'


class Client(Session):
    """Protocol v1 by hand. It resumes, and checks order and loss on the protocol's own seqs, from 1."""

    subprotocol = "trio-ws.v1"

    def __init__(self, load: Load, index: int) -> None:
        super().__init__(load, index)
        self.expected = 1
        self.session: dict[str, Any] = {}

    def url(self, port: int) -> str:
        return f"ws://127.0.0.1:{port}/ws"

    def forget(self, *, user: bool) -> None:
        super().forget(user=user)
        self.expected, self.session = 1, {}

    def opened(self) -> None:
        hello: dict[str, Any] = {"t": "hello", "user": self.user}
        if self.session:
            hello |= self.session | {"seq": self.expected - 1}
        self.send(json.dumps(hello).encode())

    def message(self, data: bytes) -> None:
        events = data.split(EVENT)[1:]
        for event in events:  # the frame's own seq comes first in it, then the payload, which is the envelope
            seq = self.event(event)
            if self.wants_ack():
                self.send(b'{"t":"ack","seq":%d}' % seq)
        if data.count(FRAME) == len(events):
            return
        frames = json.loads(data)
        for frame in frames if isinstance(frames, list) else [frames]:
            match frame["t"]:
                case "welcome":
                    self.load.resumed += frame["session"] == self.session.get("session")
                    self.session = {"session": frame["session"], "epoch": frame["epoch"]}
                    self.ready()
                case "ping":
                    self.send(b'{"t":"pong"}')
                case "gap":
                    self.load.gaps += frame["to"] - frame["from"] + 1
                    self.expected = max(self.expected, frame["to"] + 1)


def _peer(name: str, tree: Path, *arguments: str, **more: Any) -> Peer:
    def version() -> str:
        def git(*words: str) -> str:
            return subprocess.run(["git", "-C", tree, *words], capture_output=True, text=True).stdout.strip()

        dirty = "+" if git("status", "--porcelain", "--", "trio_ws") else ""
        return f"trio-ws {git('log', '-1', '--format=%h')}{dirty}"

    return Peer(
        name=name,
        client="peers.trio_ws:Client",
        server=lambda port, _: module("servers.trio_ws", port, *arguments),
        environment={"PYTHONPATH": os.pathsep.join((str(tree), str(ROOT / "scripts")))},
        version=version,
        recovers=True,
        **more,
    )


def with_options(*arguments: str) -> Peer:
    """This tree's server, started with arguments of `servers/trio_ws.py`."""
    return _peer("trio-ws", ROOT, *arguments, reliability="at least once")


def _peers() -> list[Peer]:
    trees = {"": ROOT}
    for pair in filter(None, os.environ.get("BENCH_TREES", "").split(",")):
        name, _, path = pair.partition("=")
        trees[f"@{name}"] = Path(path).resolve()
    found = []
    for suffix, tree in trees.items():
        found += [
            _peer(
                f"trio-ws{suffix}",
                tree,
                reliability="at least once, in order: held until acked, replayed after a cut; bounded, gaps are told",
            ),
            _peer(
                f"trio-ws-critical{suffix}",
                tree,
                "--critical",
                reliability="as trio-ws, and never evicted, redelivered, each confirmation timed; no batch window",
            ),
        ]
    return found


PEERS = _peers()
