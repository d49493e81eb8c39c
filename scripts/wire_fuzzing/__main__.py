"""Fuzzes the wire.

    scripts/fuzz raw      raw and mutated bytes before, in and after the handshake
    scripts/fuzz frames   proper messages with wild values, in wild orders; each answer is judged
    scripts/fuzz decoder  the functions that decode what a client sends, guided by coverage (atheris)

`raw` and `frames` attack a server process of their own, beside a client whose events must come within `--bound`, once
and in order. In the end the server has to hold what it held before: descriptors, threads, connections, memory; its
books balance, its log is clean, and it exits with 0. What a connection does hangs on seed and number: a failure says
how to repeat it. An interrupt ends the attack, not the checks, and says how to go on. Exit status 1 where anything was
found, 77 where there is no atheris for this machine.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs
import httpx
import trio
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from . import decoder, frames
from .attack import attack
from .target import Control, Died, Target, running

WARM_UP = 500
"""Connections after which what the server holds is taken as its base."""

MEMORY = 32 * 1024
"""KiB that it may hold above its base in the end: histories and caches that are bounded fill up."""

SETTLING = 30.0
"""Seconds in which all that was attacked has to be over: handshakes, liveness, sessions that are parked."""


@attrs.define
class Outcome:
    """What a run did and found.

    Attributes:
      connections: how many were attacked with.
      seconds: how long that took.
      ends: how they ended, counted.
      latencies: of the control's events, in seconds, sorted.
      before, after: what the server held.
      findings: what should not be.
      interrupted: it was ended before its time.
    """

    connections: int = 0
    seconds: float = 0
    ends: Counter[str] = attrs.Factory(Counter)
    latencies: list[float] = attrs.Factory(list)
    before: dict[str, int] = attrs.Factory(dict)
    after: dict[str, int] = attrs.Factory(dict)
    findings: list[str] = attrs.Factory(list)
    interrupted: bool = False


async def fuzz(
    mode: str,
    *,
    seed: int,
    first: int = 0,
    connections: int | None = None,
    seconds: float | None = None,
    bound: float = 1.0,
    progress: Progress | None = None,
) -> Outcome:
    """Attack a server that is started for it.

    Args:
      mode: `raw` or `frames`.
      seed: with the number of a connection it says what that does.
      first: the number of the first connection.
      connections: how many, at most.
      seconds: for how long, at most.
      bound: seconds within which the control's events must come.
      progress: where to show it.

    Cancelled, all that was started ends. An interrupt (SIGINT, SIGTERM) ends the attack.
    """
    outcome = Outcome()
    run = partial(_run, mode, outcome, seed, first, connections, seconds, bound, progress)
    try:
        await run()
    except* (Died, httpx.HTTPError) as group:
        outcome.findings.append(f"after connection {first + outcome.connections}: {group.exceptions[0]}")
    return outcome


async def _run(
    mode: str,
    outcome: Outcome,
    seed: int,
    first: int,
    connections: int | None,
    seconds: float | None,
    bound: float,
    progress: Progress | None,
) -> None:
    users = [f"fuzz-{n}" for n in range(frames.USERS)] if mode == "frames" else []
    async with running() as target, trio.open_nursery() as nursery:
        control = Control(target, bound, users)
        await nursery.start(control.run)
        if first == 0 and (connections is None or connections > WARM_UP):
            # Of other numbers than those that are counted, so that these do the same whatever came before.
            await _attack(mode, target, Outcome(), seed, range(-WARM_UP, 0), None, None)
        outcome.before = await _rest(target, None)
        began = trio.current_time()
        numbers = itertools.count(first) if connections is None else range(first, first + connections)
        async with _until_interrupted(outcome):
            await _attack(mode, target, outcome, seed, numbers, seconds, progress)
        outcome.seconds = trio.current_time() - began
        outcome.after = await _rest(target, outcome.before)
        nursery.cancel_scope.cancel()
        outcome.findings += _differences(outcome.before, outcome.after)
        outcome.findings += await _unbalanced(target)
    outcome.latencies = sorted(control.latencies)
    outcome.findings += control.findings + [f"the server logged: {line}" for line in target.log]


@asynccontextmanager
async def _until_interrupted(outcome: Outcome) -> AsyncIterator[None]:
    """The block is ended by an interrupt, and goes on to what comes after it."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:

            async def end_at_first() -> None:
                await anext(signals)
                outcome.interrupted = True
                nursery.cancel_scope.cancel()

            nursery.start_soon(end_at_first)
            yield
            nursery.cancel_scope.cancel()


async def _attack(
    mode: str,
    target: Target,
    outcome: Outcome,
    seed: int,
    numbers: Any,
    seconds: float | None,
    progress: Progress | None,
) -> None:
    """Have a process of its own attack, so that it takes no time from the control."""
    first, last = (numbers.start, numbers.stop) if isinstance(numbers, range) else (next(numbers), -1)
    order = {
        "mode": mode,
        "port": target.port,
        "seed": seed,
        "first": first,
        "last": last,
        "seconds": seconds,
    }
    task = None
    if progress is not None:
        task = progress.add_task(mode, total=last - first if isinstance(numbers, range) else None)
    attacker = await trio.lowlevel.open_process(
        [sys.executable, "-m", "wire_fuzzing", "--attack", json.dumps(order)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        start_new_session=True,
    )
    rest, began = b"", trio.current_time()
    try:
        assert attacker.stdout is not None
        async for data in attacker.stdout:
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                told = json.loads(line)
                outcome.connections = told.get("done", outcome.connections)
                outcome.ends = Counter(told.get("outcomes", outcome.ends))
                if "finding" in told and len(outcome.findings) < 50:
                    repeat = f"scripts/fuzz {mode} --seed {seed} --first {told['number']} --connections 1"
                    outcome.findings.append(f"{told['finding']}\n    to repeat it alone: {repeat}")
                if progress is not None and task is not None:
                    pace = outcome.connections / max(trio.current_time() - began, 0.001)
                    shown = f"{mode}, {pace:.0f}/s, {len(outcome.findings)} findings"
                    progress.update(task, completed=outcome.connections, description=shown)
        if await attacker.wait() != 0:
            outcome.findings.append(f"the attack failed after {outcome.connections} connections")
    finally:
        if attacker.returncode is None:
            attacker.kill()


async def _rest(target: Target, base: dict[str, int] | None) -> dict[str, int]:
    """What the server holds at rest: when only the control is connected, and as soon as it is no more than `base`."""
    with trio.move_on_after(SETTLING):
        while True:
            held = await _held(target)
            if (
                held["connections"] <= 1
                and held["sessions parked"] == 0
                and not _differences(base or held, held)
            ):
                break
            await trio.sleep(0.2)
    return held


async def _held(target: Target) -> dict[str, int]:
    async with httpx.AsyncClient(base_url=target.admin, trust_env=False, timeout=30) as client:
        stats = (await client.get("/v1/stats")).json()
    counts = {"connections": stats["connections"]["current"], "sessions parked": stats["sessions"]["parked"]}
    return target.resources() | counts


def _differences(before: dict[str, int], after: dict[str, int]) -> list[str]:
    """What the server holds more than it did."""
    slack = {"memory": MEMORY, "threads": 2, "descriptors": 1}
    return [
        f"{name}: {before[name]} before, {after[name]} after"
        for name in before
        if after[name] > before[name] + slack.get(name, 0)
    ]


async def _unbalanced(target: Target) -> list[str]:
    """accepted = settled + held + evicted + expired + superseded."""
    async with httpx.AsyncClient(base_url=target.admin, trust_env=False, timeout=30) as client:
        delivery = (await client.get("/v1/stats")).json()["delivery"]
    states = ("settled", "held", "evicted", "expired", "superseded")
    if delivery["events_accepted"] == sum(delivery[f"events_{state}"] for state in states):
        return []
    return [f"the books do not balance: {delivery}"]


def _carry_out(order: dict[str, Any]) -> int:
    """The attacker's process."""
    until = float("inf") if order["seconds"] is None else time.monotonic() + order["seconds"]

    def numbers() -> Iterator[int]:
        number = order["first"]
        while number != order["last"] and time.monotonic() < until:
            yield number
            number += 1

    def report(told: dict[str, Any]) -> None:
        print(json.dumps(told), flush=True)

    attack(order["mode"], order["port"], seed=order["seed"], numbers=numbers(), report=report)
    return 0


def tell(mode: str, seed: int, first: int, wanted: int | None, outcome: Outcome) -> None:
    """Print what a run did and found; the last line says all of it in short."""
    took = outcome.latencies
    print("they ended: " + ", ".join(f"{n} {end}" for end, n in outcome.ends.most_common()))
    if took:
        p50, p99 = took[len(took) // 2], took[int(len(took) * 0.99)]
        print(
            f"the control: {len(took)} events, p50 {p50 * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms, "
            f"max {took[-1] * 1000:.1f} ms"
        )
    if outcome.after:
        held = (f"{k} {outcome.before[k]} -> {outcome.after[k]}" for k in outcome.before)
        print("the server held: " + ", ".join(held))
    for finding in outcome.findings:
        print(f"FOUND: {finding}")
    following = first + outcome.connections
    if outcome.interrupted:
        left = "" if wanted is None else f" --connections {wanted - outcome.connections}"
        print(f"interrupted; it goes on with: scripts/fuzz {mode} --seed {seed} --first {following}{left}")
    pace = outcome.connections / max(outcome.seconds, 0.001)
    print(
        f"{mode}, seed {seed}: {outcome.connections} connections (numbers {first} to {following - 1}) "
        f"in {outcome.seconds:.1f} s ({pace:.0f}/s), {len(outcome.findings)} findings"
    )


def main() -> int:
    """The command."""
    if sys.argv[1:2] == ["--attack"]:
        return _carry_out(json.loads(sys.argv[2]))
    parser = argparse.ArgumentParser(
        prog="scripts/fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("mode", choices=("raw", "frames", "decoder"))
    parser.add_argument("--connections", type=int, help="how many (of `decoder`: inputs a target) [2000]")
    parser.add_argument("--seconds", type=float, help="for how long, in place of how many or at most")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="what is drawn [the time]")
    parser.add_argument("--first", type=int, default=0, help="the number of the first connection [0]")
    parser.add_argument(
        "--bound", type=float, default=1.0, help="seconds in which the control's events must come [1]"
    )
    given = parser.parse_args()
    if given.connections is None and given.seconds is None:
        given.connections = 2000
    print(f"seed {given.seed}", file=sys.stderr)
    if given.mode == "decoder":
        return decoder.fuzz(seed=given.seed, runs=given.connections, seconds=given.seconds)
    columns = (
        *(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()),
        *(TimeElapsedColumn(), TimeRemainingColumn()),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        run = partial(fuzz, given.mode, seed=given.seed, first=given.first, connections=given.connections)
        outcome = trio.run(partial(run, seconds=given.seconds, bound=given.bound, progress=progress))
    tell(given.mode, given.seed, given.first, given.connections, outcome)
    return 1 if outcome.findings else 0


if __name__ == "__main__":
    sys.exit(main())
