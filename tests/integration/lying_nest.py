"""A server that answers before what it has accepted is durable, and takes its time with that. For test_chaos.py."""

from __future__ import annotations

import sys

import trio
from ordeal import nest

from trio_ws.core.mailbox import Mailbox
from trio_ws.hub.durability import Durability
from trio_ws.store import SqliteStore

commit = SqliteStore.commit


async def no_wait(self: Durability, box: Mailbox, seq: int) -> None:
    await trio.lowlevel.checkpoint()


async def late(self: SqliteStore, *args: object) -> None:
    await trio.sleep(0.1)
    await commit(self, *args)


if __name__ == "__main__":
    Durability.wait = no_wait
    SqliteStore.commit = late
    nest.main(sys.argv[1:])
