"""Starts a server, some users, and Schemathesis; tells what it found.

    scripts/fuzz-api [--seconds N] [--max-examples 100] [--seed 1] [--key] [--nodes]

The server is a process of its own, which knows nothing of this; so is Schemathesis. At the end the server's books have
to balance, its log to be clean, and its exit status to be 0. The exit status is 1 where anything was found.

With --nodes there are two servers on a Redis: one has the users, and the other one is asked.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from urllib.parse import quote

import attrs
import httpx
import trio
from loopback.redis import RedisServer

import trio_ws

USERS = ("ada", "bob", "a/b", "é😀")
RUNS = 6
KEY = "the-key-of-the-fuzzer"
BIN = Path(sys.executable).parent


@attrs.define
class Findings:
    """What a run found, and what it reached.

    Attributes:
      failures: what is not as described, or went wrong in the server; each told in full in `output`.
      answers: how often each call was answered with each status.
      output: what Schemathesis printed.
    """

    failures: list[str] = attrs.Factory(list)
    answers: Counter[tuple[str, int]] = attrs.Factory(Counter)
    output: str = ""

    def statuses(self, call: str) -> set[int]:
        """With what a call was answered, at least once."""
        return {status for label, status in self.answers if label == call}


async def fuzz(
    *,
    max_examples: int,
    seed: int,
    seconds: int | None = None,
    key: str | None = None,
    nodes: bool = False,
    options: Sequence[str] = (),
) -> Findings:
    """Fuzzes a server that is started for it. Cancelled, all that was started ends.

    Args:
      max_examples: cases of one operation, in each phase.
      seed: the same one draws the same cases; what the server answers may still differ.
      seconds: for how long: less than it takes cuts it off, more repeats it. None runs each phase once.
      key: the API key that the server asks for; None for none.
      nodes: there is another server, which has the users' logs.
      options: what Schemathesis is told besides.
    """
    findings = Findings()
    with tempfile.TemporaryDirectory() as directory:
        async with _servers(findings, key, Path(directory), nodes) as (ws, home, admin):
            headers = {} if key is None else {"authorization": f"Bearer {key}"}
            async with (
                httpx.AsyncClient(base_url=home, headers=headers, trust_env=False) as owner,
                httpx.AsyncClient(base_url=admin, headers=headers, trust_env=False) as client,
                trio.open_nursery() as nursery,
            ):
                for user in USERS:
                    nursery.start_soon(_reside, client, ws, user)
                    await _begin_runs(owner, user)
                bounds = ["--seed", str(seed), "--max-examples", str(max_examples)]
                if seconds is not None:
                    bounds += ["--max-time", str(seconds)]
                bearer = [] if key is None else ["--header", f"Authorization:Bearer {key}"]
                await _drive(findings, Path(directory), admin, [*bounds, *bearer, *options])
                for each in (owner, client):
                    await _audit(findings, each)
                nursery.cancel_scope.cancel()
    return findings


@asynccontextmanager
async def _servers(
    findings: Findings, key: str | None, directory: Path, nodes: bool
) -> AsyncIterator[tuple[str, str, str]]:
    """Gives the addresses of a WebSocket, of the admin API of the same server, and of the admin API that is asked."""
    if not nodes:
        async with _server(findings, key, "memory") as (ws, admin):
            yield ws, admin, admin
        return
    redis = RedisServer(directory / "redis")
    await redis.start()
    try:
        async with (
            _server(findings, key, redis.url) as (ws, home),
            _server(findings, key, redis.url) as (_, admin),
        ):
            yield ws, home, admin
    finally:
        redis.kill()


@asynccontextmanager
async def _server(findings: Findings, key: str | None, store: str) -> AsyncIterator[tuple[str, str]]:
    """A server process; gives the addresses of its WebSocket and its admin API."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TRIO_WS_")}
    if key is not None:
        environment["TRIO_WS_API_KEY"] = key
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "trio_ws", "serve", "--port", "0", "--admin-port", "0", "--store", store]
        + ["--max-events", "20000", "--drain-timeout", "1"],
        stderr=subprocess.PIPE,
        env=environment,
    )
    log: list[str] = []
    started = trio.Event()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_read_log, process, log, started)
            with trio.fail_after(60):
                await started.wait()
            ws, admin = (line.split(" on ")[1] for line in log if " on " in line)
            yield ws, admin
            process.send_signal(signal.SIGTERM)
            with trio.fail_after(30):
                status = await process.wait()
        if status != 0:
            findings.failures.append(f"the server's exit status is {status}")
        findings.failures += [f"the server logged: {line}" for line in log if _is_failure(line)]
    finally:
        if process.returncode is None:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()


async def _read_log(process: trio.Process, log: list[str], started: trio.Event) -> None:
    rest = ""
    assert process.stderr is not None
    async for data in process.stderr:
        *lines, rest = (rest + data.decode(errors="replace")).split("\n")
        log += lines
        if any(line.startswith("admin on ") for line in lines):
            started.set()


def _is_failure(line: str) -> bool:
    """Whether a line of the log tells of what should not be. A dead letter is what a short `ttl` asks for."""
    return any(word in line for word in ("[error", "[critical", "Traceback")) and "dead letter" not in line


async def _reside(client: httpx.AsyncClient, ws: str, user: str) -> None:
    """Be connected as `user`, acking what comes; with a new session where the fuzzer has ended the one before."""

    async def ticket() -> str:
        response = await client.post("/v1/tickets", json={"user": user})
        return str(response.raise_for_status().json()["ticket"])

    while True:
        try:
            async with trio_ws.connect(ws, token=ticket) as resident:
                async for _ in resident:
                    pass
        except trio_ws.TrioWSError:
            await trio.sleep(0.05)


async def _begin_runs(client: httpx.AsyncClient, user: str) -> None:
    """Open the runs that `schemathesis.toml` knows by name, each with a question that stands."""
    runs = f"/v1/users/{quote(user, safe='')}/runs"
    for n in range(RUNS):
        opened = await client.post(runs, json={"run": f"kept-{n}", "lease": 3600})
        asked = await client.post(
            f"{runs}/kept-{n}/questions", json={"question": f"asked-{n}", "prompt": "?"}
        )
        assert (opened.status_code, asked.status_code) == (201, 201)


async def _drive(findings: Findings, directory: Path, admin: str, options: list[str]) -> None:
    """Run Schemathesis to its end."""
    here = Path(__file__).parent
    journal = directory / "journal"
    journal.touch()
    command = [
        *(str(BIN / "schemathesis"), "--config-file", str(here / "schemathesis.toml")),
        *("run", f"{admin}/openapi.json", *options),
    ]
    environment = {**os.environ, "PYTHONPATH": str(here.parent), "FUZZING_JOURNAL": str(journal)}
    done = await trio.run_process(
        command,
        cwd=directory,
        env=environment,
        check=False,
        capture_stdout=True,
        stderr=subprocess.STDOUT,
        deliver_cancel=_kill,
    )
    findings.output = done.stdout.decode()
    if done.returncode != 0:
        findings.failures.append(f"schemathesis found something (exit status {done.returncode})")
    for line in journal.read_text().splitlines():
        call, status = line.split("\t")
        findings.answers[call, int(status)] += 1


async def _kill(process: trio.Process) -> None:
    process.kill()


async def _audit(findings: Findings, client: httpx.AsyncClient) -> None:
    """The books balance; and whoever was there still gets what comes."""
    delivery = (await client.get("/v1/stats")).json()["delivery"]
    gone = ("settled", "held", "evicted", "expired", "superseded", "moved")
    if delivery["events_accepted"] != sum(delivery[f"events_{state}"] for state in gone):
        findings.failures.append(f"the books do not balance: {delivery}")
    for user in USERS:
        for _ in range(20):
            answer = await client.post(
                f"/v1/users/{quote(user, safe='')}/events",
                params={"wait": "confirmed", "timeout": 10},
                json={"type": "the_end"},
                timeout=20,
            )
            if answer.status_code != 503:
                break
            await trio.sleep(0.5)
        if answer.status_code != 200:
            findings.failures.append(f"{user} gets nothing any more: {answer.status_code} {answer.text}")


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="scripts/fuzz-api", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=int, help="for how long; without it, each phase runs once")
    parser.add_argument("--max-examples", type=int, default=100, help="cases of an operation and phase [100]")
    parser.add_argument("--seed", type=int, default=1, help="what is drawn [1]")
    parser.add_argument("--key", action="store_true", help="with an API key")
    parser.add_argument(
        "--nodes", action="store_true", help="two servers on a Redis: one is asked for the other's users"
    )
    given = parser.parse_args()
    findings = trio.run(
        partial(
            fuzz,
            seconds=given.seconds,
            max_examples=given.max_examples,
            seed=given.seed,
            key=KEY if given.key else None,
            nodes=given.nodes,
        )
    )
    print(findings.output)
    calls = sorted({call for call, _ in findings.answers})
    for call in calls:
        told = ", ".join(
            f"{n} x {status}" for (c, status), n in sorted(findings.answers.items()) if c == call
        )
        print(f"{call:55} {told}")
    print(f"\n{len(calls)} operations, {findings.answers.total()} answers, {len(findings.failures)} findings")
    for failure in findings.failures:
        print(failure)
    return 1 if findings.failures else 0


if __name__ == "__main__":
    sys.exit(main())
