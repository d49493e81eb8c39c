"""What a client that reads slowly, or not at all, costs the others: their latency with and without it.

In each run 95 users get 10 events a second (less often than the batch window, which would hide what is looked for),
and 5 get 100 a second of 8 KiB. These five read as they should in one run, a little once a second in the next, and
nothing in the third: more than their mailboxes and the kernel's buffers hold, so they miss events or are cut.
The load on the server is the same, so what differs is what the five do to the others.
"""

from __future__ import annotations

from statistics import median

from .compare import Noise, say, started
from .peers.trio_ws import with_options
from .report import P50, P99, Column, Run, table
from .scenarios import connect

SESSIONS, SUBJECTS = 100, 5
RATE, BULK_RATE, BULK_BYTES = 10, 100, 8192
SECONDS = 8
HOW = {"not": "read as they should", "slow": "read little", "stuck": "read nothing"}
MOST = 1.1
"""The goal: p99 of the others is at most so many times what it is without."""
COLUMNS = (
    P50,
    P99,
    Column("server CPU ms/s", "cpu_s", SECONDS / 1e3, 0),
    Column("lost", "lost", decimals=0),
    Column("the five: events missed", "missed", decimals=0),
    Column("connections cut", "dropped", decimals=0),
)


def run(repetitions: int) -> int:
    """Measure, and print; the exit status."""
    runs: dict[str, list[Run]] = {how: [] for how in HOW}
    for repetition in range(2 * repetitions):
        for how in HOW if repetition % 2 == 0 else reversed(HOW):
            runs[how].append(one(how))
            say(how, runs[how][-1])
    rows, base = [], median(P99.of(runs["not"]))
    for how, found in runs.items():
        ratio = f"{median(P99.of(found)) / base:.2f}"
        rows.append([f"5 of 100 {HOW[how]}", *(column.show(found) for column in COLUMNS), ratio])
    print(table(["the others, while", *(column.title for column in COLUMNS), "p99 ratio"], rows))
    worst = max(median(P99.of(runs[how])) for how in ("slow", "stuck")) / base
    print(f"\nGoal: p99 at most {MOST:g} times: {'met' if worst <= MOST else '**missed**'} ({worst:.2f}).")
    return 0


def one(how: str) -> Run:
    """One run, with a fresh server: figures of those who read as they should."""
    noise = Noise()
    others = SESSIONS - SUBJECTS
    with started(with_options()) as system:
        connect(system, SESSIONS)
        system.client.ask(cmd="throttle", sessions=SUBJECTS, how=how)
        system.client.ask(
            cmd="reset", target=others * RATE * SECONDS, per_session=RATE * SECONDS, ack_every=1
        )
        before = system.server.cpu
        system.control.send(
            cmd="bulk",
            rate=RATE,
            seconds=SECONDS,
            subjects=SUBJECTS,
            bulk_rate=BULK_RATE,
            pad=BULK_BYTES,
        )
        seen = system.client.ask(cmd="wait", limit=SECONDS + 10, quiet=5)
        cpu = system.server.cpu - before
        system.client.ask(cmd="throttle", sessions=SUBJECTS, how="not")
        end = system.client.ask(cmd="settle")
        system.control.answer()
    lost = others * RATE * SECONDS - seen["received"]
    return (
        seen | {"cpu_s": cpu, "lost": lost, "missed": end["gaps"], "dropped": end["dropped"]} | noise.since()
    )
