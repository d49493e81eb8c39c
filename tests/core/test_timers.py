"""Many deadlines in one heap: each owner is called in time, in order, and once."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from trio_ws.core.timers import Timers


class Owner:
    """Notes when it is called, and says when to be called again."""

    def __init__(self, *again: float) -> None:
        self.calls: list[float] = []
        self.again = list(again)

    def on_timer(self, now: float) -> float:
        self.calls.append(now)
        return self.again.pop(0) if self.again else math.inf


def test_the_earliest_is_next_and_only_a_move_to_the_front_is_news() -> None:
    timers = Timers()
    one, other = Owner(), Owner()
    assert timers.next() == math.inf
    assert timers.arm(one, 5.0)
    assert not timers.arm(other, 7.0)
    assert timers.next() == 5.0
    assert timers.arm(other, 3.0)
    assert timers.next() == 3.0
    assert not timers.arm(one, 4.0)
    assert len(timers) == 2


def test_a_later_time_and_no_time_at_all_move_nothing() -> None:
    timers = Timers()
    owner = Owner()
    assert not timers.arm(owner, math.inf)
    assert len(timers) == 0
    timers.arm(owner, 5.0)
    assert not timers.arm(owner, 9.0)
    assert not timers.arm(owner, math.inf)
    assert timers.next() == 5.0


def test_whose_time_has_come_is_called_the_earliest_first_and_armed_anew() -> None:
    timers = Timers()
    order: list[str] = []

    class Named(Owner):
        def __init__(self, name: str, *again: float) -> None:
            super().__init__(*again)
            self.name = name

        def on_timer(self, now: float) -> float:
            order.append(self.name)
            return super().on_timer(now)

    late, early, not_yet = Named("late", 20.0), Named("early"), Named("not yet")
    timers.arm(late, 2.0)
    timers.arm(early, 1.0)
    timers.arm(not_yet, 2.1)
    timers.run(2.0)
    assert order == ["early", "late"]
    assert len(timers) == 2
    timers.run(20.0)
    assert order == ["early", "late", "not yet", "late"]
    assert timers.next() == math.inf


def test_one_who_asks_for_now_again_is_not_called_in_the_same_run() -> None:
    timers = Timers()
    owner = Owner(1.0, 0.0)
    timers.arm(owner, 1.0)
    timers.run(1.0)
    assert owner.calls == [1.0]
    assert 1.0 < timers.next() < 1.0001
    timers.run(2.0)
    assert owner.calls == [1.0, 2.0]


def test_who_was_disarmed_is_not_called() -> None:
    timers = Timers()
    owner = Owner()
    timers.disarm(owner)
    timers.arm(owner, 1.0)
    timers.disarm(owner)
    assert timers.next() == math.inf
    timers.run(10.0)
    assert owner.calls == []


def test_an_owner_may_disarm_another_and_arm_itself_while_it_is_called() -> None:
    timers = Timers()
    victim = Owner()

    class Busy(Owner):
        def on_timer(self, now: float) -> float:
            timers.disarm(victim)
            timers.arm(self, now + 1.0)
            return super().on_timer(now)

    busy = Busy(9.0)
    timers.arm(busy, 1.0)
    timers.arm(victim, 1.0)
    timers.run(1.0)
    assert victim.calls == []
    assert timers.next() == 2.0


def test_the_heap_stays_within_a_few_times_the_owners() -> None:
    timers = Timers()
    owners = [Owner() for _ in range(10)]
    for n in range(100_000):
        owner = owners[n % 10]
        if n % 3 == 0:
            timers.disarm(owner)
        timers.arm(owner, 1e6 - n)
    assert len(timers) == 10
    assert len(timers._heap) <= 4 * 10 + 65
    for owner in owners:
        timers.disarm(owner)
    assert timers.next() == math.inf
    assert timers._heap == []


@given(
    st.lists(
        st.tuples(st.sampled_from(["arm", "disarm", "run"]), st.integers(0, 4), st.integers(0, 50)),
        max_size=60,
    )
)
def test_against_a_dict(steps: list[tuple[str, int, int]]) -> None:
    timers, owners, armed, now = Timers(), [Owner() for _ in range(5)], dict[int, float](), 0.0
    for what, who, time in steps:
        if what == "arm":
            before = min(armed.values(), default=math.inf)
            armed[who] = min(armed.get(who, math.inf), float(time))
            assert timers.arm(owners[who], float(time)) == (min(armed.values()) < before)
        elif what == "disarm":
            armed.pop(who, None)
            timers.disarm(owners[who])
        else:
            now = max(now, float(time))
            due = {each for each, at in armed.items() if at <= now}
            for owner in owners:
                owner.calls.clear()
            timers.run(now)
            assert {n for n, owner in enumerate(owners) if owner.calls} == due
            assert all(len(owner.calls) <= 1 for owner in owners)
            armed = {each: at for each, at in armed.items() if each not in due}
        assert timers.next() == min(armed.values(), default=math.inf)
        assert len(timers) == len(armed)
