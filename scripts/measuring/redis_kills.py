"""Breaks Redis while a store commits, and looks whether all is there that was committed: `scripts/measure redis-kills`.

It starts a redis-server of its own that keeps all on the disk at once (``appendfsync always``), kills it, sometimes
pauses it first, and starts it again, as often as is asked; with `--failovers`, a primary and its replica under three
sentinels, where a commit waits for the replica. Meanwhile one task commits events of several users, the batch that
fails again until it goes through, as a hub does; others ask whether the logs are theirs, and read them. In the end
the whole of each log must be there, each event once, nothing damaged; and at no time may a log have been another's or
rolled back.
"""

from __future__ import annotations

import logging
import random
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import trio
from loopback.redis import RedisServer, Sentinels, installed, until

from trio_ws import RedisStore
from trio_ws.core.records import Batch, EventRecord, UserRecord
from trio_ws.errors import StoreError
from trio_ws.store import Fenced

USERS = [f"user-{n}" for n in range(20)]


@attrs.define
class Load:
    """What is done with a store meanwhile, and what has come of it.

    Attributes:
      heads: up to where each user's events are committed, as far as `commit` has returned.
    """

    store: RedisStore
    chance: random.Random
    heads: dict[str, int] = attrs.field(factory=lambda: dict.fromkeys(USERS, 0))
    commits: int = 0
    failed: int = 0
    slowest: float = 0.0
    is_over: bool = False

    async def commit(self) -> None:
        """Commit one batch after the other; one that fails, again."""
        while not self.is_over:
            batch, heads = self._batch()
            began = time.perf_counter()
            while True:
                try:
                    await self.store.commit(batch)
                except Fenced:
                    raise
                except StoreError:
                    self.failed += 1
                    await trio.sleep(0.05)
                else:
                    break
            self.slowest = max(self.slowest, time.perf_counter() - began)
            self.commits += 1
            self.heads |= heads

    async def look(self) -> None:
        """Ask whether the logs are this node's, and read one, now and then."""
        while not self.is_over:
            await trio.sleep(self.chance.uniform(0, 0.05))
            user = self.chance.choice(USERS)
            before = self.heads[user]
            try:
                if (fenced := await self.store.lost(USERS)) is not None:
                    raise fenced
                kept = await self.store.load(user)
            except Fenced:
                raise
            except StoreError:
                continue
            if before and (kept is None or kept.user.head < before):
                raise SystemExit(f"{user}: {before} was committed, and is not there: {kept}")

    async def missing(self) -> int:
        """How many logs are not as they were committed."""
        wrong = 0
        for user, head in self.heads.items():
            kept = await self.store.load(user)
            seqs = [event.seq for event in kept.events] if kept else []
            wrong += seqs != list(range(1, head + 1)) or (kept is not None and bool(kept.damaged))
        return wrong

    def _batch(self) -> tuple[Batch, dict[str, int]]:
        heads = {
            user: self.heads[user] + self.chance.randint(1, 5)
            for user in self.chance.sample(USERS, self.chance.randint(1, 10))
        }
        events = [
            _event(user, seq, self.chance.randint(1, 2000))
            for user, head in heads.items()
            for seq in range(self.heads[user] + 1, head + 1)
        ]
        return Batch(events=events, users=[_log(user, head) for user, head in heads.items()]), heads


def _event(user: str, seq: int, size: int) -> EventRecord:
    return EventRecord(
        user=user,
        first=seq,
        seq=seq,
        id=f"{user} {seq}",
        type="tool_completed",
        priority=3,
        payload=b'"%s"' % (b"x" * size),
        ts=1.7e9 + seq,
        expires=None,
        key=None,
        merge=False,
        tracked=True,
        truncated=False,
        owned_id=False,
        confirmed=False,
    )


def _log(user: str, head: int) -> UserRecord:
    return UserRecord(
        user=user, epoch="one", head=head, reserved=head, confirmed=0, due=None, partial=False, gone=()
    )


async def kill(server: RedisServer, chance: random.Random) -> None:
    """Kill the server, which may have stood still before, and start it again."""
    await trio.sleep(chance.uniform(0.02, 0.25))
    if chance.random() < 0.2:
        server.pause()
        await trio.sleep(chance.uniform(0.1, 0.5))
    await server.restart()


async def fail_over(servers: Sentinels, chance: random.Random) -> None:
    """Kill the primary, or have it stand still, until the replica has taken over; then it is the replica."""
    await trio.sleep(chance.uniform(0.3, 1))
    old, new = servers.primary, servers.replica
    killed = chance.random() < 0.5
    if killed:
        old.kill()
    else:
        old.pause()

    await _patiently(servers.wait_primary, new)
    if killed:
        await old.start()
    else:
        old.go_on()
    await _patiently(partial(old.wait_info, role="slave", master_link_status="up"))
    servers.primary, servers.replica = new, old


async def _patiently(wait: Callable[..., Awaitable[None]], *args: Any) -> None:
    """Wait thrice as long: sentinels that have just changed all take their time to change it once more."""
    for _ in range(2):
        with suppress(trio.TooSlowError):
            await wait(*args)
            return
    await wait(*args)


async def run(kills: int, failovers: int, seed: int) -> None:
    """Break it so often, and print the verdict; ends the process with 1 where something is missing."""
    if not installed():
        raise SystemExit("this needs redis-server")
    logging.disable(logging.CRITICAL)
    chance = random.Random(seed)
    print(f"seed {seed}")
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        break_it: Callable[[], Awaitable[Any]]
        if failovers:
            servers = await stack.enter_async_context(Sentinels(directory))
            store, times, what = RedisStore(servers.url, wait_replicas=1), failovers, "failovers"
            break_it = lambda: fail_over(servers, chance)  # noqa: E731
        else:
            server = await stack.enter_async_context(RedisServer(directory, aof="always"))
            store, times, what = RedisStore(server.url), kills, "kills"
            break_it = lambda: kill(server, chance)  # noqa: E731
        async with trio.open_nursery() as nursery:
            await nursery.start(store.run)
            await store.open()
            for user in USERS:
                await store.claim(user)
            load = Load(store, chance)
            async with trio.open_nursery() as working:
                working.start_soon(load.commit)
                working.start_soon(load.look)
                working.start_soon(load.look)
                for n in range(times):
                    await break_it()
                    if n % 10 == 9:
                        print(f"{n + 1} {what}, {load.commits} commits", flush=True)
                enough = load.commits + 10

                async def goes_on() -> bool:
                    return load.commits > enough

                await until(goes_on)
                load.is_over = True
            missing = await load.missing()
            nursery.cancel_scope.cancel()
    print(
        f"{times} {what}: {load.commits} commits of {sum(load.heads.values())} events, {load.failed} tries failed, "
        f"the slowest took {load.slowest:.1f} s; logs that are not as they were committed: {missing} of {len(USERS)}"
    )
    if missing:
        raise SystemExit(1)
