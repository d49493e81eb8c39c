"""A process with three agents, one under asyncio, one under Trio, one in a thread: each plays a run, for a test.

    python -m tests.integration.agents URL PREFIX LEASE

Says ``ready`` when all runs are in the middle of a tool, goes on when its standard input ends, and says how they ended.
"""

from __future__ import annotations

import asyncio
import sys
import threading

import anyio.to_thread
import trio

from trio_ws.publisher import AsyncPublisher, Publisher

USER = "ada"
FLAVOURS = ("asyncio", "trio", "threads")
begun = threading.Barrier(len(FLAVOURS) + 1)
go_on = threading.Event()


def say(line: str) -> None:
    """Print a line whole, whatever other threads print."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def play(url: str, run_id: str, lease: float) -> None:
    async with AsyncPublisher(url) as publisher, publisher.run(USER, run_id, lease=lease) as run:
        await run.delta("so far, ")
        async with run.tool("wait") as tool:
            await tool.output("waiting")
            await anyio.to_thread.run_sync(begun.wait)
            await anyio.to_thread.run_sync(go_on.wait, abandon_on_cancel=True)
        await run.delta("and on")
        run.result = "done"
    say(f"{run_id} {run.outcome}")


def play_blocking(url: str, run_id: str, lease: float) -> None:
    with Publisher(url) as publisher, publisher.run(USER, run_id, lease=lease) as run:
        run.delta("so far, ")
        with run.tool("wait") as tool:
            tool.output("waiting")
            begun.wait()
            while not go_on.wait(0.02):
                run.check()
        run.delta("and on")
        run.result = "done"
    say(f"{run_id} {run.outcome}")


def main() -> None:
    url, prefix, lease = sys.argv[1], sys.argv[2], float(sys.argv[3])
    players = {
        "asyncio": lambda run_id: asyncio.run(play(url, run_id, lease)),
        "trio": lambda run_id: trio.run(play, url, run_id, lease),
        "threads": lambda run_id: play_blocking(url, run_id, lease),
    }
    for flavour in FLAVOURS:
        threading.Thread(target=players[flavour], args=(f"{prefix}-{flavour}",)).start()
    begun.wait()
    say("ready")
    sys.stdin.read()
    go_on.set()


if __name__ == "__main__":
    main()
