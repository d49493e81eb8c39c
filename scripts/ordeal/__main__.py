"""Kills a real server again and again under load, and checks that nothing that was promised is lost.

    scripts/chaos --kills 100
    scripts/chaos --seconds 600 --faults kill,copy --seed 7 --keep /tmp/evidence

A server over a SQLite file, publishers that repeat what was not answered, and clients behind a network that can be cut,
all real processes on the loopback. Everybody keeps a journal; at the end the journals and the database are held against
the promises. The exit status is 0 where all of them were kept, else 1.
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

import trio
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from .checker import Count, check, count
from .plan import FAULTS
from .run import Ordeal, Tally, environment, run

console = Console(stderr=True, soft_wrap=True)


def main() -> None:
    """Read the arguments, run, judge."""
    chosen = _arguments()
    environment()
    directory = chosen.keep or Path(tempfile.mkdtemp(prefix="trio-ws-chaos-"))
    directory.mkdir(parents=True, exist_ok=True)
    if any(directory.iterdir()):
        raise SystemExit(f"{directory} is not empty")
    with _small(chosen.tmpfs, directory) as small:
        ordeal = Ordeal(
            directory,
            chosen.seed,
            kills=chosen.kills,
            copies=chosen.copies,
            first=chosen.first,
            seconds=chosen.seconds,
            faults=chosen.faults,
            users=chosen.users,
            rate=chosen.rate,
            length=chosen.length,
            durability=chosen.durability,
            small=small,
        )
        console.print(f"to repeat these faults: {_again(chosen)}\njournals: {directory}")
        tally = Tally()
        interrupted = False
        try:
            trio.run(_with_progress, ordeal, tally)
        except* KeyboardInterrupt:
            interrupted = True
        if interrupted:
            console.print(f"interrupted; what there is of the journals is in {directory}")
            console.print(f"to go on with these faults: {_rest(chosen, tally)}")
            sys.exit(130)
        found = check(directory, ordeal.database)
    report(tally, count(directory), found)
    if found:
        console.print(f"the evidence is in {directory}")
        sys.exit(1)
    if chosen.keep is None:
        shutil.rmtree(directory)


def _arguments() -> argparse.Namespace:
    lines = [f"  {name:5} {what}" for name, what in FAULTS.items()]
    parser = argparse.ArgumentParser(
        prog="scripts/chaos",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="faults:\n" + "\n".join(lines),
    )
    parser.add_argument(
        "--kills", type=int, help="end after so many SIGKILLs (100, where --seconds is not given)"
    )
    parser.add_argument(
        "--copies", type=int, default=0, help="go on after the kills until so many copies were checked"
    )
    parser.add_argument("--first", type=int, default=1, help="begin with this life of the seed's (1)")
    parser.add_argument("--seconds", type=float, help="end after so many seconds")
    parser.add_argument("--seed", default=secrets.token_hex(4), help="what faults and load are drawn from")
    parser.add_argument("--faults", type=_faults, default=frozenset(FAULTS), help="some of them, with commas")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="write the journals there, and leave them")
    parser.add_argument("--users", type=int, default=6)
    parser.add_argument("--rate", type=float, default=300, help="events published a second (300)")
    parser.add_argument("--length", type=float, default=0.5, help="seconds that a life lasts about (0.5)")
    parser.add_argument("--durability", choices=("critical", "all", "none"), default="critical")
    parser.add_argument(
        "--tmpfs",
        type=int,
        metavar="MB",
        help="mount a tmpfs of this size for the database, and fill it (as root)",
    )
    chosen = parser.parse_args()
    if chosen.kills is None and chosen.seconds is None:
        chosen.kills = 100
    chosen.kills = chosen.kills or 0
    chosen.seconds = chosen.seconds or 86400.0
    return chosen


def _faults(text: str) -> frozenset[str]:
    given = frozenset(text.split(","))
    if unknown := given - FAULTS.keys():
        raise argparse.ArgumentTypeError(f"there is no fault {', '.join(sorted(unknown))}")
    if not given & {"kill", "term"}:
        raise argparse.ArgumentTypeError("lives end by kill or by term: name one of them")
    return given


def _again(chosen: argparse.Namespace) -> str:
    parts = [f"scripts/chaos --seed {chosen.seed}", f"--faults {','.join(sorted(chosen.faults))}"]
    parts += [f"--{name} {getattr(chosen, name)}" for name in ("users", "rate", "length", "durability")]
    parts += [f"--first {chosen.first}"] if chosen.first > 1 else []
    parts += [f"--kills {chosen.kills}"] if chosen.kills else [f"--seconds {chosen.seconds:g}"]
    parts += [f"--copies {chosen.copies}"] if chosen.copies else []
    return " ".join(parts)


def _rest(chosen: argparse.Namespace, tally: Tally) -> str:
    """The command that does what is left of a run: another run, with the faults that would have come."""
    left = argparse.Namespace(**vars(chosen))
    left.first = tally.life + 1
    left.kills = max(chosen.kills - tally.faults["kill"], 1) if chosen.kills else 0
    left.copies = max(chosen.copies - sum(tally.copies.values()), 0)
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
            await run(ordeal, tally)
            nursery.cancel_scope.cancel()


def summary(tally: Tally) -> str:
    """What was done, in one line."""
    faults = ", ".join(f"{count} {fault}" for fault, count in sorted(tally.faults.items()) if fault != "kill")
    return f"{tally.answered} critical events promised; {faults}"


def report(tally: Tally, counted: Count, found: list[str]) -> None:
    """Print what was done, and what was found; the last line but one is what it all comes down to."""
    print(f"{tally.faults['kill']} SIGKILLs, {tally.loaded} of them of a life that had answered publishers")
    print(summary(tally))
    print("lives ended: " + ", ".join(f"{count} {moment}" for moment, count in sorted(tally.moments.items())))
    print("copies checked: " + (", ".join(f"{count} {how}" for how, count in tally.copies.items()) or "none"))
    if tally.ready:
        ready = sorted(tally.ready)
        print(f"start to ready: median {statistics.median(ready):.2f} s, longest {ready[-1]:.2f} s")
    if tally.healed is not None:
        print(f"all delivered {tally.healed:.1f} s after the last fault")
    for line in found:
        print(f"WRONG  {line}")
    print(
        f"{tally.faults['kill']} kills, {counted.promised} critical events promised, {counted.lost} lost, "
        f"{counted.twice} given twice; {sum(tally.copies.values())} copies opened and checked"
    )
    print("every promise was kept" if not found else "promises were broken")


if __name__ == "__main__":
    main()
