"""Kills real servers again and again under load, and checks that nothing that was promised is lost.

    scripts/chaos --kills 100
    scripts/chaos --seconds 600 --faults kill,copy --seed 7 --keep /tmp/evidence
    scripts/chaos --nodes 3 --kills 100 --redis-faults 100

A server over a SQLite file, or with --nodes several over one Redis; publishers that repeat what was not answered, and
clients behind a network that can be cut: all real processes on the loopback. Everybody keeps a journal; at the end the
journals, and what is kept, are held against the promises. The exit status is 0 where all of them were kept, else 1.
"""

from __future__ import annotations

import argparse
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import trio
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from . import cluster, plan, rounds
from . import run as single
from .checker import Count, check, count

Ordeal: TypeAlias = single.Ordeal | cluster.Ordeal
Tally: TypeAlias = single.Tally | cluster.Tally

console = Console(stderr=True, soft_wrap=True)


def main() -> None:
    """Read the arguments, run, judge."""
    chosen = _arguments()
    single.environment()
    directory = chosen.keep or Path(tempfile.mkdtemp(prefix="trio-ws-chaos-"))
    directory.mkdir(parents=True, exist_ok=True)
    if any(directory.iterdir()):
        raise SystemExit(f"{directory} is not empty")
    tally: Tally = cluster.Tally() if chosen.nodes else single.Tally()
    with _small(chosen.tmpfs, directory) as small:
        ordeal = _ordeal(chosen, directory, small)
        console.print(f"to repeat these faults: {_again(chosen)}\njournals: {directory}")
        interrupted = False
        try:
            trio.run(_with_progress, ordeal, tally)
        except* KeyboardInterrupt:
            interrupted = True
        except* cluster.GivenUp:
            console.print("the run was given up: a node does not start")
        if interrupted:
            console.print(f"interrupted; what there is of the journals is in {directory}")
            console.print(f"to go on with these faults: {_rest(chosen, tally)}")
            sys.exit(130)
        database = ordeal.database if isinstance(ordeal, single.Ordeal) else None
        found = check(directory, database, over=True)
    report(tally, count(directory), found)
    if found:
        console.print(f"the evidence is in {directory}")
        sys.exit(1)
    if chosen.keep is None:
        shutil.rmtree(directory)


def _ordeal(chosen: argparse.Namespace, directory: Path, small: Path | None) -> Ordeal:
    names = ("kills", "first", "seconds", "faults", "users", "rate", "length", "durability")
    common = {name: getattr(chosen, name) for name in names}
    if not chosen.nodes:
        return single.Ordeal(directory, chosen.seed, copies=chosen.copies, small=small, **common)
    return cluster.Ordeal(
        directory,
        chosen.seed,
        nodes=chosen.nodes,
        redis_faults=chosen.redis_faults,
        namespaced=chosen.namespaces,
        topology=chosen.redis_topology,
        redis_durability=chosen.redis_durability,
        replicas=chosen.wait_replicas,
        **common,
    )


def _arguments() -> argparse.Namespace:
    tables = (("faults", plan.FAULTS), ("faults with --nodes", rounds.FAULTS))
    lines = [line for title, table in tables for line in (f"\n{title}:", *_table(table))]
    parser = argparse.ArgumentParser(
        prog="scripts/chaos",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(lines),
    )
    add = parser.add_argument
    add("--nodes", type=int, default=0, help="so many nodes over one Redis, in place of one server (1 to 4)")
    add("--kills", type=int, help="end after so many SIGKILLs (100, where --seconds is not given)")
    add("--copies", type=int, default=0, help="go on after the kills until so many copies were checked")
    add("--redis-faults", type=int, default=0, help="with --nodes: go on until Redis was broken so often")
    add("--redis-topology", choices=rounds.TOPOLOGIES, default="server", help="what Redis is, with --nodes")
    add(
        "--redis-durability",
        choices=rounds.DURABILITIES,
        default="always",
        help="when it has all on its disk",
    )
    add("--wait-replicas", type=int, help="how many have a commit before it counts (1, where there are any)")
    add("--first", type=int, default=1, help="begin with this life, or round, of the seed's (1)")
    add("--seconds", type=float, help="end after so many seconds")
    add("--seed", default=secrets.token_hex(4), help="what faults and load are drawn from")
    add("--faults", type=lambda text: frozenset(text.split(",")), help="some of them, with commas")
    add("--keep", type=Path, metavar="DIR", help="write the journals there, and leave them")
    add("--users", type=int, default=6)
    add("--rate", type=float, default=300, help="events published a second (300)")
    add("--length", type=float, help="seconds that a life (0.5), or a round (2), lasts about")
    add("--durability", choices=("critical", "all", "none"), default="critical")
    add(
        "--tmpfs",
        type=int,
        metavar="MB",
        help="mount a tmpfs of this size for the database, and fill it (as root)",
    )
    add("--namespaces", action="store_true", help="with --nodes: a network for each node (as root)")
    chosen = parser.parse_args()
    if chosen.nodes and not 1 <= chosen.nodes <= 4:
        parser.error("--nodes: 1 to 4")
    if chosen.kills is None and chosen.seconds is None:
        chosen.kills = 100
    chosen.kills = chosen.kills or 0
    chosen.seconds = chosen.seconds or 86400.0
    if chosen.wait_replicas is None:
        chosen.wait_replicas = int(chosen.redis_topology != "server")
    if chosen.namespaces and chosen.redis_topology != "server":
        parser.error("--namespaces: with one server only")
    chosen.length = chosen.length or (2.0 if chosen.nodes else 0.5)
    chosen.faults = _faults(parser, chosen)
    return chosen


def _table(faults: dict[str, str]) -> list[str]:
    return [f"  {name:10} {what}" for name, what in faults.items()]


def _faults(parser: argparse.ArgumentParser, chosen: argparse.Namespace) -> frozenset[str]:
    known = frozenset(plan.FAULTS)
    if chosen.nodes:
        known = rounds.possible(chosen.redis_topology, chosen.redis_durability, namespaced=chosen.namespaces)
    given: frozenset[str] = known if chosen.faults is None else chosen.faults
    if unknown := given - known:
        parser.error(f"there is no fault {', '.join(sorted(unknown))}, not with these options")
    if not chosen.nodes and not given & {"kill", "term"}:
        parser.error("lives end by kill or by term: name one of them")
    if chosen.kills and "kill" not in given:
        parser.error("without the fault kill there are no kills: say --seconds")
    return given


def _again(chosen: argparse.Namespace) -> str:
    parts = [f"scripts/chaos --seed {chosen.seed}", f"--faults {','.join(sorted(chosen.faults))}"]
    parts += [f"--nodes {chosen.nodes}"] if chosen.nodes else []
    parts += [f"--redis-topology {chosen.redis_topology}"] if chosen.redis_topology != "server" else []
    parts += [f"--redis-durability {chosen.redis_durability}"] if chosen.redis_durability != "always" else []
    parts += [f"--wait-replicas {chosen.wait_replicas}"] if chosen.redis_topology != "server" else []
    parts += ["--namespaces"] if chosen.namespaces else []
    parts += [f"--{name} {getattr(chosen, name)}" for name in ("users", "rate", "length", "durability")]
    parts += [f"--first {chosen.first}"] if chosen.first > 1 else []
    parts += [f"--kills {chosen.kills}"] if chosen.kills else [f"--seconds {chosen.seconds:g}"]
    parts += [f"--copies {chosen.copies}"] if chosen.copies else []
    parts += [f"--redis-faults {chosen.redis_faults}"] if chosen.redis_faults else []
    return " ".join(parts)


def _rest(chosen: argparse.Namespace, tally: Tally) -> str:
    """The command that does what is left of a run: another run, with the faults that would have come."""
    left = argparse.Namespace(**vars(chosen))
    left.first = tally.number + 1
    left.kills = max(chosen.kills - tally.faults["kill"], 1) if chosen.kills else 0
    if isinstance(tally, single.Tally):
        left.copies = max(chosen.copies - sum(tally.copies.values()), 0)
    else:
        left.redis_faults = max(chosen.redis_faults - tally.redis_faults, 0)
    return _again(left)


@contextmanager
def _small(megabytes: int | None, directory: Path) -> Iterator[Path | None]:
    """A file system of so many megabytes, for as long as the block lasts; None where none is asked for."""
    if megabytes is None:
        yield None
        return
    place = directory / "tmpfs"
    place.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", place], check=True)
    except (OSError, subprocess.CalledProcessError):
        raise SystemExit(
            "a tmpfs can't be mounted here: without --tmpfs, growing files is forbidden instead"
        ) from None
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


async def _with_progress(ordeal: Ordeal, tally: Tally) -> None:
    """Run, and show how it goes on: on a terminal a bar, else a line now and then."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[told]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("kills", total=ordeal.kills or None, told="")
        async with trio.open_nursery() as nursery:

            async def show() -> None:
                shown = 0
                while True:
                    kills = tally.faults["kill"]
                    progress.update(task, completed=kills, told=f"{kills}  {summary(tally)}")
                    if not console.is_terminal and kills >= shown + 50:
                        shown = kills
                        console.print(f"{kills} kills, {summary(tally)}")
                    await trio.sleep(0.5)

            nursery.start_soon(show)
            if isinstance(ordeal, single.Ordeal):
                assert isinstance(tally, single.Tally)
                await single.run(ordeal, tally)
            else:
                assert isinstance(tally, cluster.Tally)
                await cluster.run(ordeal, tally)
            nursery.cancel_scope.cancel()


def summary(tally: Tally) -> str:
    """What was done, in one line."""
    faults = ", ".join(f"{count} {fault}" for fault, count in sorted(tally.faults.items()) if fault != "kill")
    return f"{tally.answered} critical events promised; {faults}"


def report(tally: Tally, counted: Count, found: list[str]) -> None:
    """Print what was done, and what was found; the last line but one is what it all comes down to."""
    kills, what = tally.faults["kill"], "kills"
    if isinstance(tally, single.Tally):
        copies = sum(tally.copies.values())
        looked = f"{copies} copies opened and checked"
        print(f"{kills} SIGKILLs, {tally.loaded} of them of a life that had answered publishers")
        moments = ", ".join(f"{count} {moment}" for moment, count in sorted(tally.moments.items()))
        print(f"{summary(tally)}\nlives ended: {moments}")
        how = ", ".join(f"{count} {how}" for how, count in tally.copies.items())
        print(f"copies checked: {how or 'none'}")
    else:
        what = f"kills of nodes and {tally.redis_faults} faults of Redis"
        looked = f"Redis searched {tally.looks} times"
        print(f"{tally.number} rounds, in {tally.loaded} of them publishers were answered\n{summary(tally)}")
    if tally.ready:
        ready = sorted(tally.ready)
        print(f"start to ready: median {statistics.median(ready):.2f} s, longest {ready[-1]:.2f} s")
    if tally.healed is not None:
        print(f"all delivered {tally.healed:.1f} s after the last fault")
    for line in found:
        print(f"WRONG  {line}")
    if counted.anew:
        print(
            f"logs began anew {counted.anew} times; {counted.noticed} events were lost of which clients know"
        )
    print(
        f"{kills} {what}, {counted.promised} critical events promised, {counted.lost} lost, "
        f"{counted.twice} given twice; {looked}"
    )
    print("every promise was kept" if not found else "promises were broken")


if __name__ == "__main__":
    main()
