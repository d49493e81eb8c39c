"""Who works with the servers while those suffer: processes that publish, a process of clients; and how all get well."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import attrs
import httpx
import trio

from .copies import Answered
from .journal import Journal, Reader

PUBLISHERS: Final = 2
"""Processes."""
BOUND: Final = 90.0
"""Seconds from the last fault to everything delivered: 1.5 times the stall, handshake and confirm timeouts and the
longest backoff."""
LONGEST: Final = 5.0
"""Seconds for which a fault is put off at most, so that there is load when it comes."""


@attrs.define
class Party:
    """The processes, and what they were told.

    Attributes:
      directory: where their journals go.
      seed: what they draw from.
      users: their names.
      rate: events published a second, as far as they are taken.
      ws, http: where clients and publishers come.
      journal: of the run.
      answered: what publishers were told so far.
      may_renew: logs may begin anew, and their sessions with them: who has acked in one that is over is asked again.
    """

    directory: Path
    seed: str
    users: list[str]
    rate: float
    ws: str
    http: str
    journal: Journal
    answered: Answered
    may_renew: bool = False
    _publishers: list[trio.Process] = attrs.Factory(list)
    _tabs: trio.Process | None = None

    async def come(self) -> None:
        """Begin, and wait until publishers are answered; nothing is published before all tabs are there."""
        await self._open_tabs()
        async with httpx.AsyncClient(base_url=self.http, trust_env=False, timeout=BOUND) as http:
            for user in self.users:
                await _until(http, user, lambda told: told.get("connections", 0) >= 2)
        for number in range(PUBLISHERS):
            arguments = [str(self.directory), self.http, f"p{number}", self.seed, str(self.rate / PUBLISHERS)]
            self._publishers.append(await self._open("publishers", *arguments, *self.users))
        while self.answered.count < 20:
            await trio.sleep(0.05)
            self.answered.catch_up()

    async def wait_answers(self, enough: int) -> None:
        """Wait until there were so many answers in all: a slow machine is given time, up to a point."""
        with trio.move_on_after(LONGEST):
            while self.answered.count < enough:
                self.answered.catch_up()
                await trio.sleep(0.02)

    async def kill_tabs(self) -> None:
        """Kill the process of all clients, and start it again."""
        with trio.CancelScope(shield=True):
            assert self._tabs is not None
            self._tabs.kill()
            await self._tabs.wait()
            await self._open_tabs()

    async def get_well(self) -> float:
        """Publish no more, and wait until everything that was accepted is delivered and confirmed.

        What is not within the bound is written down as wrong; so are the heads of all logs.

        Returns: how many seconds that took.
        """
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for process in self._publishers:
                nursery.start_soon(self._dismiss, process)
        assert self._tabs is not None
        assert self._tabs.stdin is not None
        await self._tabs.stdin.send_all(b"heal, pending\n" if self.may_renew else b"heal\n")
        async with httpx.AsyncClient(base_url=self.http, trust_env=False, timeout=BOUND) as http:
            heads = {user: await _publish_last(http, user) for user in self.users}
            with trio.move_on_after(BOUND) as bound:
                await self._all_there(heads)
                for user in heads:
                    await _until(http, user, lambda told: not told["buffer"]["critical_unconfirmed"])
        if bound.cancelled_caught:
            self.journal.write("wrong", what=f"{BOUND:g} s after the last fault not all is delivered")
        self.journal.write("heads", heads=heads)
        return trio.current_time() - began

    async def leave(self) -> None:
        """The clients end in order."""
        assert self._tabs is not None
        await self._dismiss(self._tabs)

    def kill(self) -> None:
        """End whoever is left."""
        for process in (*self._publishers, self._tabs):
            if process is not None and process.returncode is None:
                process.kill()

    async def _open_tabs(self) -> None:
        self._tabs = await self._open("tabs", str(self.directory), self.ws, self.seed, *self.users)

    async def _open(self, module: str, *arguments: str) -> trio.Process:
        with (self.directory / f"{module}.log").open("ab") as log:
            return await trio.lowlevel.open_process(
                [sys.executable, "-m", f"ordeal.{module}", *arguments],
                stdin=subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for us alone
            )

    async def _dismiss(self, process: trio.Process) -> None:
        """Let it finish what it has under way."""
        assert process.stdin is not None
        await process.stdin.aclose()
        with trio.move_on_after(BOUND):
            await process.wait()
        if process.returncode != 0:
            self.journal.write("wrong", what=f"{process.args[2]} ended with status {process.returncode}")

    async def _all_there(self, heads: dict[str, int]) -> None:
        """Wait until each tab has everything up to its user's head."""
        for user, head in heads.items():
            for name in "ab":
                reader = Reader(self.directory / f"tab-{user}-{name}.jsonl")
                at = 0
                while at < head:
                    for line in reader.more():
                        at = 0 if line.get("anew") else max(at, line.get("seq") or line.get("to") or 0)
                    if at < head:
                        await trio.sleep(0.1)


async def _publish_last(http: httpx.AsyncClient, user: str) -> int:
    """Publish a user's last event, which is to be confirmed; returns its seq."""
    event = {"type": "note", "id": f"last-{user}", "confirm": True, "payload": None}
    while True:
        answer = await http.post(f"/v1/users/{user}/events", json=event)
        if answer.status_code == 202:
            seq: int = answer.json()["seq"]
            return seq
        await trio.sleep(0.2)


async def _until(http: httpx.AsyncClient, user: str, condition: Callable[[dict[str, Any]], bool]) -> None:
    """Wait until what a server tells of a user is as it should be."""
    while not condition((await http.get(f"/v1/users/{user}")).json()):  # noqa: ASYNC110
        await trio.sleep(0.05)
