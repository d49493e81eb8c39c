"""Runs Autobahn's fuzzing client against an echo on the server's own listener and transport, and counts its verdicts.

    scripts/autobahn [--quick] [--cases '6.*,7.5.1'] [--reads poller|task] [--no-lane] [--report FILE]

The goal: of 247 cases of the protocol (groups 1 to 7 and 10) none failed and at most 4 non-strict; of 54 on limits
(group 9) all passed. Exit status 1 where it is missed, 77 where the suite can't be had on this machine.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import trio

import trio_ws

from .echo import serving_echo
from .suite import HOME, Unavailable, Verdict, install, judge

PROTOCOL = ("1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*")
LIMITS = ("9.*",)
PROTOCOL_CASES, LIMIT_CASES = 247, 54
MAX_NON_STRICT = 4
PASSED = ("OK", "INFORMATIONAL")
NOT_HERE = 77
"""Exit status: nothing was tested (what automake takes for skipped)."""


def misses(verdicts: Sequence[Verdict], *, protocol: int, limits: int) -> list[str]:
    """What is short of the goal; `protocol` and `limits` say how many cases there must be of each."""
    of_limits = [verdict for verdict in verdicts if verdict.case.startswith("9.")]
    of_protocol = [verdict for verdict in verdicts if not verdict.case.startswith("9.")]
    lenient = [verdict for verdict in of_protocol if verdict.word == "NON-STRICT"]
    failed = [verdict for verdict in of_protocol if verdict.word not in (*PASSED, "NON-STRICT")]
    failed += [verdict for verdict in of_limits if verdict.word not in PASSED]
    found = [f"{verdict.case}: {verdict.word}" for verdict in failed]
    if len(lenient) > MAX_NON_STRICT:
        found.append(f"{len(lenient)} cases are non-strict, at most {MAX_NON_STRICT} may be")
    if len(of_protocol) < protocol or len(of_limits) < limits:
        found.append(
            f"only {len(of_protocol)} of {protocol} cases ran, and {len(of_limits)} of {limits} on limits"
        )
    return found


async def run(cases: Sequence[str], output: Path, *, lane: bool = True, polled: bool = True) -> list[Verdict]:
    """The verdicts on `cases`. Raises Unavailable where there is no suite to be had."""
    wstest = await trio.to_thread.run_sync(install)
    async with serving_echo(lane=lane, polled=polled) as port:
        return await judge(wstest, port, cases, output)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="scripts/autobahn", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--cases", help="which ones, as Autobahn names them, with commas between: '6.*,7.5.1'"
    )
    parser.add_argument("--quick", action="store_true", help="leave out the cases on limits")
    parser.add_argument("--reads", choices=("poller", "task"), default="poller", help="who reads the sockets")
    parser.add_argument("--no-lane", action="store_true", help="have trio-websocket read all messages")
    parser.add_argument(
        "--report", type=Path, default=HOME / "report.json", help="where the counts are written"
    )
    given = parser.parse_args()
    cases = given.cases.split(",") if given.cases else PROTOCOL + (() if given.quick else LIMITS)
    output = HOME / "reports"
    try:
        verdicts = trio.run(
            partial(run, cases, output, lane=not given.no_lane, polled=given.reads == "poller")
        )
    except Unavailable as why:
        print(f"SKIPPED, NOTHING WAS TESTED: {why}", file=sys.stderr)
        return NOT_HERE
    whole = not given.cases
    missed = misses(
        verdicts,
        protocol=PROTOCOL_CASES if whole else 0,
        limits=LIMIT_CASES if whole and not given.quick else 0,
    )
    tell(verdicts, missed, output)
    counts = Counter(verdict.word for verdict in verdicts)
    report = {
        "version": trio_ws.__version__,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "lane": not given.no_lane,
        "reads": given.reads,
        "counts": counts,
        "missed": missed,
        "verdicts": {verdict.case: verdict.word for verdict in verdicts},
    }
    given.report.parent.mkdir(parents=True, exist_ok=True)
    given.report.write_text(json.dumps(report, indent=1) + "\n")
    print(f"counts: {given.report}")
    return 1 if missed or not verdicts else 0


def tell(verdicts: Sequence[Verdict], missed: Sequence[str], output: Path) -> None:
    """Print the counts, what is not simply OK, and what is short of the goal."""
    for verdict in verdicts:
        if (verdict.behavior, verdict.closing) != ("OK", "OK"):
            print(
                f"{verdict.case:8} {verdict.behavior}, closing {verdict.closing}, close code {verdict.code}"
            )
    for name, limits in (("protocol", False), ("limits", True)):
        counts = Counter(verdict.word for verdict in verdicts if verdict.case.startswith("9.") is limits)
        if counts:
            told = ", ".join(f"{n} {word}" for word, n in counts.most_common())
            print(f"{name}: {counts.total()} cases: {told}")
    for miss in missed:
        print(f"MISSED: {miss}")
    print(f"the suite's own report: {output / 'index.html'}")


if __name__ == "__main__":
    sys.exit(main())
