"""Autobahn's cases of the protocol, through each of the ways in which a connection can be read."""

from __future__ import annotations

from pathlib import Path

import pytest
from rfc6455.__main__ import PROTOCOL, PROTOCOL_CASES, misses, run
from rfc6455.suite import Unavailable, Verdict, install

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def suite() -> None:
    """Autobahn's test suite, installed; without it what needs it is skipped."""
    try:
        install()
    except Unavailable as why:
        pytest.skip(f"Autobahn's cases of RFC 6455 were NOT run: {why}")


@pytest.mark.usefixtures("suite")
@pytest.mark.parametrize(
    ("cases", "lane", "polled"),
    [(PROTOCOL, True, True), (("1.*", "2.*", "5.*"), True, False), (("1.*", "2.*", "5.*"), False, True)],
    ids=["all", "read by a task", "without the lane"],
)
async def test_it_is_to_the_letter(cases: tuple[str, ...], lane: bool, polled: bool, tmp_path: Path) -> None:
    verdicts = await run(cases, tmp_path / "reports", lane=lane, polled=polled)
    missed = misses(verdicts, protocol=PROTOCOL_CASES if cases == PROTOCOL else 47, limits=0)
    assert missed == []


def verdict(case: str, behavior: str = "OK", closing: str = "OK") -> Verdict:
    return Verdict(case, behavior, closing, 1000)


def test_what_is_short_of_the_goal_is_seen() -> None:
    fine = [verdict("1.1.1"), verdict("7.1.6", "INFORMATIONAL", "INFORMATIONAL"), verdict("9.1.1")]
    assert misses(fine, protocol=2, limits=1) == []
    assert len(misses(fine, protocol=3, limits=1)) == len(misses(fine, protocol=2, limits=2)) == 1
    assert misses([verdict("1.1.1", "FAILED")], protocol=1, limits=0) == ["1.1.1: FAILED"]
    assert misses([verdict("1.1.1", "OK", "UNCLEAN")], protocol=1, limits=0) == ["1.1.1: UNCLEAN"]
    lenient = [verdict(f"6.4.{n}", "NON-STRICT") for n in range(4)]
    assert misses(lenient, protocol=4, limits=0) == []
    assert len(misses([*lenient, verdict("6.4.5", "NON-STRICT")], protocol=5, limits=0)) == 1
    assert misses([verdict("9.1.1", "NON-STRICT")], protocol=0, limits=1) == ["9.1.1: NON-STRICT"]
