"""Traces: what they print, and that their hash covers all of it."""

from __future__ import annotations

from typing import Any

import pytest

from trio_ws.testing import Sometimes, Trace


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_line_has_the_time_the_kind_and_the_fields() -> None:
    clock = Clock()
    trace = Trace(clock)
    trace.note("connect", user="ada", number=1)
    clock.now = 12.5
    trace.note("cut", lost=None, seqs=(1, 2))
    assert trace.lines == [
        "    0.000000 connect user='ada' number=1",
        "   12.500000 cut lost=None seqs=[1,2]",
    ]
    assert str(trace) == "\n".join(trace.lines)
    assert len(trace) == 2


def test_a_field_may_be_called_kind() -> None:
    trace = Trace(Clock())
    trace.note("fault", kind="reset")
    assert trace.lines == ["    0.000000 fault kind='reset'"]


@pytest.mark.parametrize(
    "other",
    [
        [("a", {"x": 2})],
        [("a", {"y": 1})],
        [("b", {"x": 1})],
        [("a", {"x": 1}), ("a", {"x": 1})],
        [("a", {"x": 1.0})],
        [("a", {"x": "1"})],
        [],
    ],
)
def test_the_hash_tells_lines_apart(other: list[tuple[str, dict[str, Any]]]) -> None:
    one, same, different = (Trace(Clock()) for _ in range(3))
    one.note("a", x=1)
    same.note("a", x=1)
    for kind, fields in other:
        different.note(kind, **fields)
    assert one.hash == same.hash
    assert one.hash != different.hash


def test_the_hash_covers_the_time() -> None:
    early, late = Clock(), Clock()
    late.now = 0.000001
    one, other = Trace(early), Trace(late)
    one.note("a")
    other.note("a")
    assert one.hash != other.hash


def test_a_text_can_not_feign_a_line() -> None:
    one, two = Trace(Clock()), Trace(Clock())
    one.note("a", x="b\n    0.000000 a")
    assert len(one.lines) == 1
    assert "\n" not in one.lines[0]
    two.note("a", x="b")
    two.note("a")
    assert one.hash != two.hash


def test_only_the_newest_lines_are_kept_and_all_count() -> None:
    short, long = Trace(Clock(), keep=3), Trace(Clock())
    for n in range(10):
        short.note("n", n=n)
        long.note("n", n=n)
    assert [line[-1] for line in short.lines] == ["7", "8", "9"]
    assert len(short) == 10
    assert short.hash == long.hash
    assert short.tail(2).splitlines() == ["(8 lines before)", *short.lines[-2:]]
    assert short.tail(0) == "(10 lines before)"
    assert Trace(Clock()).tail() == ""


@pytest.mark.parametrize("value", [object(), {1, 2}, b"x", {"a": 1}, [object()]])
def test_what_may_print_differently_elsewhere_is_refused(value: Any) -> None:
    trace = Trace(Clock())
    with pytest.raises(TypeError):
        trace.note("a", x=value)
    assert len(trace) == 0


def test_sometimes_counts_what_holds() -> None:
    sometimes = Sometimes(["never", "now and then"])
    for n in range(4):
        sometimes("now and then", n % 2 == 0)
    sometimes("always")
    assert sometimes.counts == {"always": 1, "never": 0, "now and then": 2}
    assert sometimes.never == ["never"]


def test_what_was_looked_at_is_expected() -> None:
    sometimes = Sometimes()
    sometimes("so far not", False)
    assert sometimes.never == ["so far not"]


def test_counts_of_runs_are_added_up() -> None:
    campaign, run = Sometimes(["rare"]), Sometimes(["odd"])
    run("rare")
    run("rare")
    campaign.add(run.counts)
    campaign.add(run.counts)
    assert campaign.counts == {"odd": 0, "rare": 4}
    assert campaign.never == ["odd"]
