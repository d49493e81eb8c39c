"""Token buckets: against a naive model, at the edges of time, and with more keys than there is room for."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_ws.core.limits import KeyedBuckets, TokenBucket, spread


def test_a_full_bucket_gives_a_burst_and_no_more() -> None:
    bucket = TokenBucket(rate=10, burst=5)
    assert [bucket.take(100.0) for _ in range(7)] == [True] * 5 + [False] * 2


def test_it_fills_at_its_rate_and_not_beyond_its_burst() -> None:
    bucket = TokenBucket(rate=10, burst=5)
    assert bucket.take(0.0, 5)
    assert not bucket.take(0.099)
    assert bucket.take(0.1)
    assert not bucket.take(0.1)
    assert bucket.level(1000.0) == 5
    assert [bucket.take(1000.0) for _ in range(6)] == [True] * 5 + [False]


def test_a_refusal_costs_nothing() -> None:
    bucket = TokenBucket(rate=1, burst=1)
    assert bucket.take(0.0)
    assert not any(bucket.take(0.5) for _ in range(100))
    assert bucket.take(1.0)


def test_more_than_the_burst_is_never_there_and_takes_nothing() -> None:
    bucket = TokenBucket(rate=1, burst=3)
    assert not bucket.take(1e6, 4)
    assert bucket.take(1e6, 3)


def test_wait_is_zero_while_there_is_one() -> None:
    bucket = TokenBucket(rate=4, burst=2)
    assert bucket.wait(0.0) == 0
    bucket.take(0.0)
    assert bucket.wait(0.0) == 0
    bucket.take(0.0)
    assert bucket.wait(0.0) == pytest.approx(0.25)
    assert bucket.wait(0.1) == pytest.approx(0.15)
    assert bucket.wait(0.0, 2) == pytest.approx(0.5)
    assert bucket.wait(60.0) == 0


def test_a_clock_that_runs_back_gives_nothing_away() -> None:
    bucket = TokenBucket(rate=1, burst=2)
    assert bucket.take(100.0, 2)
    assert not bucket.take(50.0)
    assert bucket.take(101.0)


@pytest.mark.parametrize(
    ("rate", "burst"), [(0, 1), (-1, 1), (math.inf, 1), (math.nan, 1), (1, 0), (1, 0.5), (1, math.inf)]
)
def test_what_is_no_limit_is_refused(rate: float, burst: float) -> None:
    with pytest.raises(ValueError, match="rate must be above 0"):
        TokenBucket(rate, burst)


@given(
    rate=st.sampled_from([0.01, 0.3, 1, 7, 100, 1e6]),
    burst=st.integers(1, 50),
    start=st.sampled_from([0.0, 1.0, 1e6, 1.7e9]),
    steps=st.lists(st.tuples(st.floats(0, 5), st.integers(1, 5)), max_size=60),
)
def test_it_agrees_with_a_naive_bucket(
    rate: float, burst: int, start: float, steps: list[tuple[float, int]]
) -> None:
    bucket, tokens, now = TokenBucket(rate, burst), float(burst), start
    for pause, n in steps:
        earlier, now = now, now + pause / rate
        tokens = min(burst, tokens + (now - earlier) * rate)
        slack = 1e-6 * rate + 1e-6  # times near 1.7e9 are known to 2.4e-7 s
        taken = bucket.take(now, n)
        if abs(tokens - n) > 60 * slack:
            assert taken == (tokens >= n)
        if taken:
            tokens = max(0.0, tokens - n)
        assert 0 <= bucket.level(now) <= burst
        assert bucket.level(now) == pytest.approx(tokens, abs=60 * slack)


@given(
    rate=st.floats(0.01, 1e4),
    burst=st.integers(1, 100),
    now=st.floats(0, 1e6),
    taken=st.integers(0, 100),
)
def test_who_waits_for_as_long_as_wait_says_is_served(
    rate: float, burst: int, now: float, taken: int
) -> None:
    bucket = TokenBucket(rate, burst)
    for _ in range(min(taken, burst)):
        assert bucket.take(now)
    assert bucket.take(now + bucket.wait(now))


# --- Many keys ---------------------------------------------------------------------------------------


def test_keys_have_buckets_of_their_own() -> None:
    buckets: KeyedBuckets[str] = KeyedBuckets(rate=1, burst=2, max_keys=10)
    assert [buckets.take("a", 0.0) for _ in range(3)] == [True, True, False]
    assert buckets.take("b", 0.0)
    assert buckets.wait("a", 0.0) == pytest.approx(1.0)
    assert buckets.wait("b", 0.0) == 0
    assert buckets.wait("never seen", 0.0) == 0


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.floats(0, 3)), max_size=60))
def test_each_key_is_as_a_bucket_by_itself(steps: list[tuple[str, float]]) -> None:
    buckets: KeyedBuckets[str] = KeyedBuckets(rate=0.5, burst=3, max_keys=10)
    alone = {key: TokenBucket(rate=0.5, burst=3) for key in "abcd"}
    now = 0.0
    for key, pause in steps:
        now += pause
        assert buckets.take(key, now) == alone[key].take(now)


def test_no_more_than_max_keys_are_remembered_and_the_longest_idle_goes() -> None:
    buckets: KeyedBuckets[int] = KeyedBuckets(rate=0.001, burst=1, max_keys=3)
    for key in range(3):
        assert buckets.take(key, float(key))
    assert not buckets.take(0, 3.0)  # a refusal, but no idleness: now 1 is the longest idle
    assert buckets.take(3, 4.0)
    assert len(buckets) == 3
    assert not buckets.take(0, 5.0)
    assert not buckets.take(2, 5.0)
    assert buckets.take(1, 5.0)  # forgotten, so full again


def test_a_flood_of_keys_stays_within_bounds_and_locks_nobody_out() -> None:
    buckets: KeyedBuckets[int] = KeyedBuckets(rate=0.001, burst=1, max_keys=100)
    for key in range(10_000):
        assert buckets.take(key, 0.0)
        assert len(buckets) <= 100


def test_full_buckets_are_let_go_in_passing() -> None:
    buckets: KeyedBuckets[int] = KeyedBuckets(rate=1, burst=1, max_keys=1000)
    for key in range(500):
        buckets.take(key, 0.0)
    assert len(buckets) == 500
    buckets.take(-1, 10.0)
    assert len(buckets) == 1


def test_forget_idle_brings_it_back_to_nothing() -> None:
    buckets: KeyedBuckets[int] = KeyedBuckets(rate=1, burst=5, max_keys=1000)
    for key in range(10):
        buckets.take(key, 0.0 if key < 5 else 0.5)
    assert buckets.forget_idle(1.2) == 5  # a second after its token was taken a bucket is full again
    assert buckets.forget_idle(100.0) == 5
    assert len(buckets) == 0
    assert buckets.forget_idle(200.0) == 0


def test_more_than_the_burst_leaves_no_trace_of_a_new_key() -> None:
    buckets: KeyedBuckets[str] = KeyedBuckets(rate=1, burst=1, max_keys=2)
    assert not buckets.take("a", 0.0, 2)
    assert len(buckets) == 0


def test_at_least_one_key_is_remembered() -> None:
    with pytest.raises(ValueError, match="max_keys"):
        KeyedBuckets(rate=1, burst=1, max_keys=0)


def test_what_has_happened_is_owed() -> None:
    bucket = TokenBucket(rate=10, burst=20)
    assert bucket.spend(0, 20) == 0
    assert bucket.spend(0, 30) == pytest.approx(3)
    assert bucket.spend(3, 0) == pytest.approx(0)
    assert bucket.spend(4, 10) == pytest.approx(0)
    assert bucket.spend(4, 1) == pytest.approx(0.1)
    assert bucket.spend(1000, 20) == 0


def test_what_is_spread_lies_evenly() -> None:
    shares = sorted(spread(10, n) for n in range(100))
    assert 6.6 < shares[0] < shares[-1] == 10
    assert max(b - a for a, b in itertools.pairwise(shares)) < 0.2
