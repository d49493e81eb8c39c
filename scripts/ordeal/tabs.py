"""A process of clients: tabs that are there from the first event to the last, and visitors that come and go.

    python -m ordeal.tabs DIR URL SEED USER…

Each user has two tabs. A tab's journal is all that outlives the process: it says what was processed, and which session
to go on with. One tab of each user waits for as long as the client's own backoff says; the other loses patience, leaves
and comes back with its saved session. `heal` on standard input sends the visitors away; its end, the tabs. With
`pending` another visitor of each user comes, to stay, and is given what nobody has confirmed.
"""

from __future__ import annotations

import os
import random
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import trio

import trio_ws

from .journal import Journal, digest, read

PATIENCE: Final = 0.3
"""Seconds that an impatient tab waits for the client's next attempt."""
TWINS: Final = 0.3
"""How many of the visitors have one."""


class Tab:
    """One tab of a user: its journal, and the client that it has at the moment.

    Args:
      path: of the journal; what an earlier process has left there is gone on with.
      saved: the session to go on with, where nothing was left there.
      patience: seconds that it waits for an attempt, before it begins anew with what it has saved.
      slowness: seconds that processing may take.
    """

    def __init__(
        self,
        path: Path,
        url: str,
        user: str,
        rng: random.Random,
        *,
        patience: float,
        slowness: float,
        saved: trio_ws.SavedSession | None = None,
    ) -> None:
        self._saved = saved_in(path) or saved
        self._journal = Journal(path)
        self._url, self._user, self._rng = url, user, rng
        self._patience, self._slowness = patience, slowness
        self._written: tuple[str, str] | None = None
        self._client: trio_ws.Client | None = None

    @property
    def saved(self) -> trio_ws.SavedSession | None:
        """The session as it is now; None where there is none yet."""
        return (self._client and self._client.saved()) or self._saved

    async def run(self) -> None:
        """Be there until cancelled."""
        while True:
            await self.visit(from_="retained", bye=False)

    async def visit(self, *, from_: Any, bye: bool) -> None:
        """Be there until patience ends; cancelled, it leaves as `bye` says."""
        scope = trio.CancelScope()

        def on_state(state: trio_ws.ClientState) -> None:
            if state.name == "catching_up":
                self._journal.write("connected", wall=round(time.time(), 4))
            if state.name == "offline" and (state.retry_in or 0) > self._patience:
                scope.cancel()

        def on_gap(gap: trio_ws.Gap) -> None:
            self._journal.write(
                "gap",
                **{"from": gap.first, "to": gap.last, "reason": gap.reason, "critical": gap.critical},
                lost=gap.lost,
                **({"anew": True} if gap.anew else {}),
            )

        saved = self._saved
        self._journal.write("start", user=self._user, seq=saved.seq if saved else None, pid=os.getpid())
        async with trio_ws.connect(
            self._url, user=self._user, session=saved, from_=from_, bye=bye, on_state=on_state, on_gap=on_gap
        ) as client:
            self._client = client
            try:
                with scope:
                    await self._process(client)
            finally:
                self._left(client)

    async def _process(self, client: trio_ws.Client) -> None:
        """What is written down is processed, whatever comes after."""
        try:
            async for event in client:
                self._got(client, event)
                if self._slowness:
                    await trio.sleep(self._rng.expovariate(1 / self._slowness))
        except trio_ws.SessionEnded as error:
            self._journal.write("ended", why=str(error))
            await trio.sleep(PATIENCE)

    def _got(self, client: trio_ws.Client, event: trio_ws.Event) -> None:
        saved = client.saved()
        assert saved is not None
        line: dict[str, Any] = {
            "seq": event.seq,
            "id": event.id,
            "done": saved.seq,
            "critical": event.critical,
            "ts": event.ts,
        }
        if self._written != (saved.session, saved.epoch):
            self._written = saved.session, saved.epoch
            line |= {"session": saved.session, "epoch": saved.epoch}
        if event.merged is not None:
            line["from"] = event.merged.from_seq
        if event.type == "delta":
            line["deltas"] = event.payload["text"].split(";")[:-1]
        else:
            line["payload"] = digest(event.payload)
        self._journal.write("got", **line)

    def _left(self, client: trio_ws.Client) -> None:
        self._saved, self._client = self.saved, None
        figures = client.statistics()
        told = {"resets": figures.resets, "violations": figures.violations, "duplicates": figures.duplicates}
        if self._saved is not None:
            told |= {"done": self._saved.seq, "session": self._saved.session, "epoch": self._saved.epoch}
        self._journal.write("left", **told)
        self._written = None


def saved_in(path: Path) -> trio_ws.SavedSession | None:
    """The session that a journal says to go on with; None where it has none yet."""
    session = epoch = seq = None
    for line in read(path):
        session, epoch, seq = line.get("session", session), line.get("epoch", epoch), line.get("done", seq)
    if session is None or epoch is None or seq is None:
        return None
    return trio_ws.SavedSession(session=session, epoch=epoch, seq=seq)


async def visitors(directory: Path, url: str, users: list[str], rng: random.Random) -> None:
    """New tabs that come for a while, one after the other, and end their sessions, or just go; some have a twin."""
    count = 0
    while True:
        await trio.sleep(rng.expovariate(1 / 2))
        count += 1
        user = rng.choice(users)
        path = directory / f"visit-{user}-{os.getpid()}-{count}.jsonl"
        visitor = Tab(path, url, user, rng, patience=PATIENCE, slowness=0)
        with trio.move_on_after(rng.uniform(0.2, 3)):
            if rng.random() < TWINS:
                await with_a_twin(visitor, path, url, user, rng)
            else:
                await visitor.visit(from_=rng.choice(("retained", "pending", "now")), bye=rng.random() < 0.8)


async def with_a_twin(visitor: Tab, path: Path, url: str, user: str, rng: random.Random) -> None:
    """A visitor, and soon another one with the same session: it takes that over, and the first is to get no more."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(visitor.visit, from_="now", bye=False))
        await trio.sleep(rng.uniform(0.1, 1))
        if visitor.saved is not None:
            place = path.with_stem(f"{path.stem}-twin")
            twin = Tab(place, url, user, rng, patience=PATIENCE, slowness=0, saved=visitor.saved)
            await twin.visit(from_="now", bye=True)


async def main(directory: Path, url: str, seed: str, users: list[str]) -> None:
    """Be there until standard input ends."""
    rng = random.Random(f"{seed}/{os.getpid()}")
    async with trio.open_nursery() as nursery:
        passing = trio.CancelScope()
        for user in users:
            for name, patience, slowness in (("a", PATIENCE, 0.0), ("b", 1e9, 0.002)):
                address = f"{url}?link={quote(user)}-{name}"
                tab = Tab(
                    directory / f"tab-{user}-{name}.jsonl",
                    address,
                    user,
                    rng,
                    patience=patience,
                    slowness=slowness,
                )
                nursery.start_soon(tab.run)

        async def let_pass() -> None:
            with passing:
                await visitors(directory, f"{url}?link=visitors", users, rng)

        nursery.start_soon(let_pass)
        async with trio.lowlevel.FdStream(0) as stdin:
            while said := await stdin.receive_some():
                passing.cancel()
                for user in users if b"pending" in said else ():
                    path = directory / f"visit-{user}-{os.getpid()}-last.jsonl"
                    last = Tab(path, f"{url}?link=visitors", user, rng, patience=1e9, slowness=0)
                    nursery.start_soon(partial(last.visit, from_="pending", bye=False))
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:])
