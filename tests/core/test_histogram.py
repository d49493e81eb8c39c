"""The histogram against the sorted list of what it was given."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_ws.core.histogram import Histogram

durations = st.lists(st.floats(2e-5, 1500.0), min_size=1, max_size=200)


def filled(values: list[float]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    return histogram


@given(durations, st.sampled_from([0.0, 0.01, 0.5, 0.9, 0.95, 0.99, 1.0]))
def test_a_percentile_is_right_to_a_bucket(values: list[float], share: float) -> None:
    exact = sorted(values)[max(1, math.ceil(share * len(values))) - 1]
    assert filled(values).percentile(share) == pytest.approx(exact, rel=0.06)


@given(durations)
def test_sums_are_exact(values: list[float]) -> None:
    histogram = filled(values)
    assert histogram.count == len(values)
    assert histogram.total == pytest.approx(sum(values))
    assert histogram.maximum == max(values)
    assert histogram.mean == pytest.approx(sum(values) / len(values))


@given(durations, st.floats(2e-5, 1500.0))
def test_the_share_within_a_time_is_right_to_a_bucket(values: list[float], limit: float) -> None:
    share = filled(values).share_within(limit)
    assert sum(v <= limit / 1.1001 for v in values) / len(values) <= share
    assert share <= sum(v <= limit * 1.1001 for v in values) / len(values)


def test_nothing_recorded() -> None:
    histogram = Histogram()
    assert (histogram.percentile(0.5), histogram.mean, histogram.share_within(1.0)) == (0.0, 0.0, 1.0)


def test_the_ends() -> None:
    histogram = filled([-1.0, 0.0, 1e-5])
    assert histogram.total == 1e-5
    assert histogram.percentile(1.0) == 1e-5
    assert histogram.share_within(0.0) == 1.0
    days = filled([1e6])
    assert days.percentile(0.5) <= 1e6
    assert days.percentile(0.5) > 1500
    assert days.share_within(2e6) == 1.0
    assert days.share_within(1.0) == 0.0


def test_a_percentile_is_never_above_the_longest() -> None:
    assert filled([1.001] * 10).percentile(1.0) <= 1.001


def test_what_was_recorded_since_a_copy() -> None:
    histogram = Histogram()
    before_all = histogram.copy()
    histogram.record(1.0)
    earlier = histogram.copy()
    for seconds in (0.1, 0.2, 0.3):
        histogram.record(seconds)
    recent = histogram.since(earlier)
    assert (recent.count, recent.total) == (3, pytest.approx(0.6))
    assert recent.percentile(0.5) == pytest.approx(0.2, rel=0.05)
    assert recent.percentile(1) < 0.4
    assert histogram.since(before_all).count == 4
    assert earlier.count == 1  # a copy stays as it was


@given(durations, durations)
def test_what_two_have_recorded_is_what_one_would_have(some: list[float], others: list[float]) -> None:
    together, both = filled(some), filled(some + others)
    together.add(Histogram.of_json(json.loads(json.dumps(filled(others).as_json()))))
    assert together.count == both.count
    assert together.total == pytest.approx(both.total)
    assert together.maximum == both.maximum
    for share in (0.01, 0.5, 0.99, 1.0):
        assert together.percentile(share) == both.percentile(share)


def test_adding_to_one_that_is_empty_leaves_the_other_alone() -> None:
    some, more = filled([0.1]), Histogram()
    more.add(some)
    more.record(0.2)
    assert (more.count, some.count) == (2, 1)
    empty = Histogram.of_json(Histogram().as_json())
    empty.add(Histogram())
    assert empty.count == 0


@pytest.mark.parametrize("plain", [[0.1, 0.1], [0.1, 0.1, [201, 1]], [0.1, 0.1, [-1, 1]], [0.1, 0.1, [3]]])
def test_what_no_histogram_has_given(plain: list[Any]) -> None:
    with pytest.raises(ValueError):
        Histogram.of_json(plain)
