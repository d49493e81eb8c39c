"""Agents in processes of their own, and a real server between them and a user: each run comes to its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import trio

import trio_ws
from tests.integration.agents import FLAVOURS
from tests.integration.test_durability import Server, a_server, until

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]


@asynccontextmanager
async def agents(server: Server, prefix: str, lease: float) -> AsyncIterator[trio.Process]:
    """A process with an agent of each flavour; its runs are in the middle."""
    command = [
        sys.executable,
        "-m",
        "tests.integration.agents",
        f"http://127.0.0.1:{server.admin_port}",
        prefix,
    ]
    process = await trio.lowlevel.open_process(
        [*command, str(lease)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    )
    assert process.stdout is not None
    try:
        said = b""
        while b"ready\n" not in said:
            piece = await process.stdout.receive_some()
            assert piece, said
            said += piece
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()


async def end_of(process: trio.Process) -> set[str]:
    """Have the agents go on to their end; what they say of it."""
    assert process.stdin is not None
    assert process.stdout is not None
    await process.stdin.aclose()
    said = b"".join([piece async for piece in process.stdout])
    assert await process.wait() == 0
    return set(said.decode().splitlines())


async def kill_a_command(url: str) -> None:
    """Have `trio-ws run` in the middle of a command, and kill it, so that it can't say a word."""
    run = [sys.executable, "-m", "trio_ws", "run", "--url", url, "--lease", "1", "ada", "--"]
    process = await trio.lowlevel.open_process(
        [*run, "sh", "-c", "echo $$; exec sleep 60"], stdout=subprocess.PIPE, cwd=ROOT
    )
    assert process.stdout is not None
    command = int(await process.stdout.receive_some())
    async with httpx.AsyncClient(base_url=url, trust_env=False) as http:

        async def begun() -> bool:
            runs = (await http.get("/v1/users/ada/runs")).json()["runs"]
            return any(run["calls"] and "sleep" in run.get("name", "") for run in runs)

        await until(begun)
    process.kill()
    os.kill(command, signal.SIGKILL)
    await process.wait()


async def test_each_run_comes_to_its_end(tmp_path: Path) -> None:
    """Some agents are killed; others see their server killed and started again; the user stops one."""
    ends: dict[str, str] = {}
    async with a_server(tmp_path / "runs.db") as (server, nursery):
        await server.start(nursery)

        async def watch() -> None:
            async with trio_ws.connect(server.url, user="ada") as client:
                async for event in client:
                    if isinstance(event, trio_ws.Event) and event.type in ("agent_completed", "agent_lost"):
                        ends[event.id] = event.payload["outcome"]

        async def outcomes() -> dict[str, str]:
            async with server.http() as http:
                runs = (await http.get("/v1/users/ada/runs")).json()["runs"]
            return {run["run"]: run["status"] for run in runs}

        async def lost() -> bool:
            return list(ends.values()).count("lost") == len(FLAVOURS) + 1

        async with agents(server, "doomed", 1) as doomed, agents(server, "lasting", 20) as lasting:
            nursery.start_soon(watch)
            await kill_a_command(f"http://127.0.0.1:{server.admin_port}")
            doomed.kill()
            await doomed.wait()
            with trio.fail_after(20):
                await until(lost)
            await server.end(signal.SIGKILL)
            await server.start(nursery)
            async with server.http() as http:
                asked = await http.post("/v1/users/ada/runs/lasting-trio/cancel", json={"reason": "enough"})
                assert asked.status_code == 202
            said = await end_of(lasting)
        assert said == {"lasting-asyncio completed", "lasting-trio cancelled", "lasting-threads completed"}
        known = await outcomes()
        [command] = [run for run in known if "-" not in run]
        assert known == {
            **dict.fromkeys((command, *(f"doomed-{flavour}" for flavour in FLAVOURS)), "lost"),
            "lasting-asyncio": "completed",
            "lasting-trio": "cancelled",
            "lasting-threads": "completed",
        }
        async with server.http() as http:
            [text] = {
                (await http.get(f"/v1/users/ada/runs/lasting-{flavour}")).json()["text"]
                for flavour in ("asyncio", "threads")
            }
        assert text == "so far, and on"

        async def all_ended() -> bool:
            return len(ends) == 2 * len(FLAVOURS) + 1

        await until(all_ended)
