"""The delays between attempts: the schedule of docs/protocol.md, "Reconnecting"."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_ws.core.backoff import LONGEST, Backoff


class Extreme(random.Random):
    """A generator that always draws the lower or the upper end of a range."""

    def __init__(self, share: float) -> None:
        super().__init__(0)
        self.share = share

    def uniform(self, a: float, b: float) -> float:
        return a + self.share * (b - a)


def delays(backoff: Backoff, n: int) -> list[float]:
    return [backoff.next_delay() for _ in range(n)]


def test_the_longest_delays() -> None:
    expected = [0.105, 0.525, 1.05, 2, 4, 8, 16, 20, 20, 20]
    assert delays(Backoff(Extreme(1)), 10) == pytest.approx(expected)


def test_the_shortest_delays() -> None:
    assert delays(Backoff(Extreme(0)), 6) == pytest.approx([0.095, 0.475, 0.95, 0, 0, 0])


def test_the_middle_of_the_first_three_is_what_the_protocol_names() -> None:
    assert delays(Backoff(Extreme(0.5)), 3) == pytest.approx([0.1, 0.5, 1.0])


def test_a_thousand_failed_attempts_stay_at_the_cap() -> None:
    assert delays(Backoff(Extreme(1)), 2000)[-1] == 20


def test_the_same_seed_gives_the_same_delays() -> None:
    assert delays(Backoff(random.Random(7)), 20) == delays(Backoff(random.Random(7)), 20)
    assert delays(Backoff(random.Random(7)), 20) != delays(Backoff(random.Random(8)), 20)


@given(st.integers(0, 2**32))
def test_jitter_fills_the_range_and_never_leaves_it(seed: int) -> None:
    caps = [(0.095, 0.105), (0.475, 0.525), (0.95, 1.05), (0, 2), (0, 4), (0, 8), (0, 16), (0, 20), (0, 20)]
    for delay, (low, high) in zip(delays(Backoff(random.Random(seed)), 9), caps, strict=True):
        assert low <= delay <= high


@pytest.mark.parametrize(
    ("lasted", "starts_over"), [(0.0, False), (4.999, False), (5.0, True), (3600.0, True)]
)
def test_attempt_1_starts_over_only_after_a_stable_connection(lasted: float, starts_over: bool) -> None:
    backoff = Backoff(Extreme(1))
    delays(backoff, 5)
    backoff.connected(100.0)
    backoff.lost(100.0 + lasted)
    assert backoff.next_delay() == pytest.approx(0.105 if starts_over else 8)


def test_a_welcome_alone_starts_nothing_over() -> None:
    backoff = Backoff(Extreme(1))
    delays(backoff, 4)
    backoff.connected(0.0)
    assert backoff.attempt == 4


def test_a_failed_attempt_after_a_stable_connection_does_not_start_over_again() -> None:
    backoff = Backoff(Extreme(1))
    backoff.connected(0.0)
    backoff.lost(10.0)
    assert backoff.next_delay() == pytest.approx(0.105)
    backoff.lost(20.0)  # the attempt failed: there was no connection
    assert backoff.next_delay() == pytest.approx(0.525)


def test_the_servers_word_takes_the_place_of_one_delay() -> None:
    backoff = Backoff(Extreme(1))
    backoff.replace(7.5)
    assert delays(backoff, 3) == pytest.approx([7.5, 0.525, 1.05])


def test_a_range_is_drawn_from() -> None:
    for share, expected in ((0, 2.0), (0.5, 3.0), (1, 4.0)):
        backoff = Backoff(Extreme(share))
        backoff.replace(2.0, 4.0)
        assert backoff.next_delay() == expected


def test_the_last_word_counts() -> None:
    backoff = Backoff(Extreme(1))
    backoff.replace(7.5)
    backoff.replace(0)
    assert backoff.next_delay() == 0


def test_a_connection_makes_the_servers_word_void() -> None:
    backoff = Backoff(Extreme(1))
    backoff.replace(7.5)
    backoff.connected(0.0)
    backoff.lost(10.0)
    assert backoff.next_delay() == pytest.approx(0.105)


def test_the_word_survives_the_loss_that_it_announced() -> None:
    backoff = Backoff(Extreme(1))
    backoff.connected(0.0)
    backoff.replace(1.0, 3.0)
    backoff.lost(10.0)
    assert backoff.next_delay() == 3.0


@pytest.mark.parametrize("word", [(-1.0, None), (math.nan, None), (1.0, math.nan), (3.0, 1.0), (-1.0, 5.0)])
def test_nonsense_is_not_taken(word: tuple[float, float | None]) -> None:
    backoff = Backoff(Extreme(1))
    backoff.replace(*word)
    assert backoff.next_delay() == pytest.approx(0.105)


@pytest.mark.parametrize("word", [1e308, math.inf])
def test_a_server_cannot_switch_a_client_off(word: float) -> None:
    backoff = Backoff(Extreme(1))
    backoff.replace(word)
    assert backoff.next_delay() == LONGEST
