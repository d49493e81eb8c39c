"""One run: a server, publishers and clients; fault after fault; then all are left in peace, and must get well."""

from __future__ import annotations

import itertools
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import attrs
import httpx
import trio

from trio_ws.faults import FaultyNetwork

from . import lives, plan
from .copies import Answered, Copies
from .faults import Faults
from .journal import Journal
from .lives import Lives
from .party import BOUND, Party

OPTIONS: Final = (
    # No session makes way for another: what a session that was ended had processed, and whose ack a crash took, would
    # stay unconfirmed until the user's next new session.
    *("--max-connections", "1000", "--max-connections-per-user", "100"),
    *("--max-events", "20000", "--max-events-per-user", "300"),
    *("--connect-rate", "10000", "--connect-burst", "10000", "--drain-timeout", "2", "--log-format", "json"),
)
GRACE: Final = 12.0
"""Seconds in which a server that is told to end must have done so: `drain_timeout`, and what may come on top."""
LOOK_EVERY: Final = 200
"""Kills between two times at which the journals are checked while the run goes on."""


@attrs.frozen
class Ordeal:
    """What a run is to be.

    Attributes:
      directory: where everything is written; empty.
      seed: what the faults and the load are drawn from. The times at which things happen are the machine's.
      kills: how many SIGKILLs; 0 for any number.
      copies: how many copies are opened and checked at least, where there is a number of kills.
      first: the life that it begins with, so that a run which was interrupted can be gone on with.
      seconds: at most, before the healing.
      faults: which of `plan.FAULTS`.
      users, rate: how many, and how many events are published a second, as far as they are taken.
      length: how long a life lasts, in seconds, in the middle.
      durability: of the server.
      small: a file system for the database that can be filled; None takes from the process the right to grow files.
      nest: what serves, in place of the package's own server: for a test that wants one that lies.
    """

    directory: Path
    seed: str
    kills: int = 0
    copies: int = 0
    first: int = 1
    seconds: float = 600
    faults: frozenset[str] = frozenset(plan.FAULTS)
    users: int = 6
    rate: float = 300
    length: float = 0.5
    durability: str = "critical"
    small: Path | None = None
    nest: Sequence[str] = lives.NEST

    @property
    def names(self) -> list[str]:
        """The users."""
        return [f"user{n}" for n in range(self.users)]

    @property
    def database(self) -> Path:
        """The server's file."""
        return (self.small or self.directory) / "chaos.db"


@attrs.define
class Tally:
    """What was done so far.

    Attributes:
      faults: how often each was.
      moments: at which moments lives ended.
      loaded: how many of the kills hit a life that had answered publishers.
      ready: seconds from start to ready, of each life that came so far.
      healed: seconds from the end of the faults until everything was delivered.
      answered: how many critical events were promised to publishers.
      copies: how many copies were checked, by the way they were made.
      number: of the last life that was begun.
    """

    faults: Counter[str] = attrs.Factory(Counter)
    moments: Counter[str] = attrs.Factory(Counter)
    loaded: int = 0
    ready: list[float] = attrs.Factory(list)
    healed: float | None = None
    answered: int = 0
    copies: dict[str, int] = attrs.Factory(dict)
    number: int = 0


class _Run:
    def __init__(
        self,
        ordeal: Ordeal,
        tally: Tally,
        server: Lives,
        network: FaultyNetwork,
        url: str,
        nursery: trio.Nursery,
    ) -> None:
        self.ordeal, self.tally, self.server = ordeal, tally, server
        self.nursery = nursery
        self.journal = Journal(ordeal.directory / "run.jsonl")
        self.journal.write("begin", seed=ordeal.seed, durability=ordeal.durability)
        self.answered = Answered(ordeal.directory)
        self.copies = Copies(ordeal.database, ordeal.directory, self.answered)
        self.rng = random.Random(f"{ordeal.seed}/chances")
        self.faults = Faults(server, network, ordeal.names, ordeal.small, self.rng)
        self.party = Party(
            *(ordeal.directory, ordeal.seed, ordeal.names, ordeal.rate),
            *(url, server.http, self.journal, self.answered),
        )
        self._copying = trio.Lock()
        self._answers_before = 0
        self._next_look, self._looking, self._found = LOOK_EVERY, False, False

    # -- the lives

    async def lives(self) -> None:
        """Life after life, until there were enough kills, and copies."""
        end = trio.current_time() + self.ordeal.seconds
        for number in itertools.count(self.ordeal.first):
            if trio.current_time() >= end or self._enough:
                return
            self.tally.number = number
            await self.life(
                plan.draw(self.ordeal.seed, number, self.ordeal.faults, self.ordeal.length), number
            )

            if self.tally.faults["kill"] >= self._next_look and not self._looking:
                self._next_look += LOOK_EVERY
                self.nursery.start_soon(self._look)
            if self._found:
                return

    @property
    def _enough(self) -> bool:
        ordeal, tally = self.ordeal, self.tally
        copies = sum(self.copies.taken.values())
        return 0 < ordeal.kills <= tally.faults["kill"] and ordeal.copies <= copies

    async def _look(self) -> None:
        self._looking = True
        self._found = await look_at_journals(self.ordeal.directory)
        self._looking = False

    async def life(self, life: plan.Plan, number: int) -> None:
        server, tally = self.server, self.tally
        self.journal.write(
            "life", number=number, end=life.end, moment=life.moment, seconds=round(life.seconds, 3)
        )
        await server.start()
        began = trio.current_time()
        if life.moment != "start":
            if not await self._ready():
                return
            tally.ready.append(trio.current_time() - began)
        enough = self.answered.count + life.answers
        async with trio.open_nursery() as nursery:
            for incident in life.incidents:
                nursery.start_soon(self.suffer, incident)
            await trio.sleep(life.seconds)
            if life.moment != "start":
                await self.party.wait_answers(enough)
            if life.moment != "drain" and life.end == "kill":
                await self.end_life("kill", life.moment)  # also while it is stopped, or has no room
            nursery.cancel_scope.cancel()
        if server.pid is None:
            return
        if life.moment == "drain":
            at = trio.current_time()
            server.signal(signal.SIGTERM)
            with trio.move_on_after(life.seconds / 3):  # or it is killed in it
                self._ended("term", life.moment, await server.wait_ended(), at)
                return
        await self.end_life(life.end, life.moment)

    async def end_life(self, how: str, moment: str) -> None:
        at = trio.current_time()
        self.server.signal(signal.SIGKILL if how == "kill" else signal.SIGTERM)
        self._ended(how, moment, await self.server.wait_ended(), at)

    async def _ready(self) -> bool:
        """Wait until the life is ready; False where it ended by itself."""
        ended = await self.server.ready_or_ended()
        if ended is not None:
            self.journal.write("wrong", what=f"a life ended by itself, with status {ended}")
        return ended is None

    def _ended(self, how: str, moment: str, status: int, signalled: float) -> None:
        took = trio.current_time() - signalled
        if moment == "drain" and status == 0:
            how = "term"  # it was done with draining when the kill came
        self.tally.faults[how] += 1
        self.tally.moments[f"{how}, {moment}"] += 1
        self.answered.catch_up()
        self.tally.loaded += how == "kill" and self.answered.count > self._answers_before
        self._answers_before = self.answered.count
        self.journal.write("ended", how=how, moment=moment, status=status, took=round(took, 3))
        if status != (0 if how == "term" else -signal.SIGKILL) and not (moment == "start" and how == "term"):
            self.journal.write("wrong", what=f"a life ended with status {status} after a {how}")
        if how == "term" and took > GRACE:
            self.journal.write("wrong", what=f"a life took {took:.1f} s to end after SIGTERM")

    # -- what is done to one

    async def suffer(self, incident: plan.Incident) -> None:
        await trio.sleep(incident.at)
        self.journal.write("fault", fault=incident.fault, seconds=round(incident.seconds, 3))
        self.tally.faults[incident.fault] += 1
        kinds: dict[str, Callable[[float], Awaitable[None]]] = {
            "stop": self.faults.stop,
            "cut": self.faults.cut,
            "full": self.faults.full,
            "copy": self.copy,
            "tabs": self.kill_tabs,
        }
        await kinds[incident.fault](incident.seconds)

    async def copy(self, _seconds: float) -> None:
        # By a task of the run: a life may end while it is copied.
        if not self._copying.locked():
            self.nursery.start_soon(self._copy)

    async def _copy(self) -> None:
        async with self._copying:
            await self.copies.take(self.rng.choice(("backup", "backup", "plain")))
        self.tally.copies = self.copies.taken
        self.tally.answered = self.answered.critical

    async def kill_tabs(self, _seconds: float) -> None:
        await self.party.kill_tabs()

    # -- afterwards

    async def heal(self) -> None:
        """Leave all in peace; everything that was accepted must be delivered within the bound."""
        self.journal.write("peace")
        if self.server.pid is None:
            await self.server.start()
            if not await self._ready():
                return
        self.tally.healed = await self.party.get_well()
        async with httpx.AsyncClient(base_url=self.server.http, trust_env=False, timeout=BOUND) as http:
            self.journal.write("books", **(await http.get("/v1/stats")).json()["delivery"])
        await self.party.leave()
        await self.end_life("term", "peace")
        async with self._copying:
            pass
        self.answered.catch_up()
        self.tally.copies, self.tally.answered = self.copies.taken, self.answered.critical
        for finding in self.copies.findings:
            self.journal.write("wrong", what=finding)


async def look_at_journals(directory: Path) -> bool:
    """Have the journals checked as they are now; whether something is wrong, so that the run need not go on."""
    command = [sys.executable, "-m", "ordeal.checker", str(directory)]
    return (await trio.run_process(command, check=False, capture_stdout=True)).returncode != 0


async def run(ordeal: Ordeal, tally: Tally) -> None:
    """Do all of it; what happened is in the journals then, and in `tally` meanwhile.

    Cancelled, every process that was started is killed.
    """
    options = [*OPTIONS, "--durability", ordeal.durability]
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(
            lives.born(
                f"sqlite:{ordeal.database}", ordeal.directory / "server.log", options, nest=ordeal.nest
            )
        )
        network = FaultyNetwork("127.0.0.1", server.port)
        nursery = await stack.enter_async_context(trio.open_nursery())
        addresses = await nursery.start(network.serve, "127.0.0.1")
        url = f"ws://127.0.0.1:{addresses[0][1]}/ws"
        doing = _Run(ordeal, tally, server, network, url, nursery)
        try:
            await server.start()
            await server.wait_ready()
            await doing.party.come()
            await doing.end_life("kill", "work")
            await doing.lives()
            await doing.heal()
        finally:
            doing.party.kill()
            nursery.cancel_scope.cancel()


def environment() -> None:
    """What the processes of a run inherit: our own path, and no settings of a server."""
    os.environ["PYTHONPATH"] = os.pathsep.join(
        [str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
    )
