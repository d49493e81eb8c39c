"""Several nodes on one store under simulation, by many seeds; and planted bugs of theirs, each of which must be seen.

What is told as a failure is replayed by `trio-ws simulate --nodes --level message --seed K`.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from trio_ws.cluster.calls import Calls
from trio_ws.cluster.forwarding import Forwarding
from trio_ws.core.mailbox import Mailbox
from trio_ws.core.restoring import restore
from trio_ws.store import SharedMemory
from trio_ws.testing.campaign import run_campaign
from trio_ws.testing.network.levels import LevelName
from trio_ws.testing.nodes.plan import FAULTS
from trio_ws.testing.nodes.scenario import simulate_nodes

SEEDS: dict[LevelName, int] = {"message": 30, "wire": 4}

WITHIN = 15
"""Seeds, from the first one that is named on, in which a planted bug must be seen."""


@pytest.mark.parametrize("level", SEEDS)
def test_a_campaign_of_nodes_holds(level: LevelName) -> None:
    summary = run_campaign(
        range(SEEDS[level]), run=partial(simulate_nodes, level=level), jobs=min(2, os.cpu_count() or 1)
    )
    told = [f"seed {o.seed} at {o.level} level: {o.violations[0]}\n  {o.plan}" for o in summary.failures]
    assert not summary.failures, "\n".join(told)
    assert summary.twice == 1
    if level == "message":
        assert all(summary.faults[kind] for kind in FAULTS), summary.faults
        states = ("accepted at another try", "accepted twice", "reconnected", "epoch was reset")
        assert all(summary.sometimes[name] for name in states), summary.sometimes


def _nobody_is_fenced(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SharedMemory, "_fenced", lambda store, users: None)


def _a_takeover_forgets_what_may_have_been_shown(patch: pytest.MonkeyPatch) -> None:
    def careless(box: Mailbox, kept: Any, *args: Any, **options: Any) -> None:
        kept.user = kept.user._replace(reserved=kept.user.head)
        restore(box, kept, *args, **options)

    patch.setattr("trio_ws.hub.loading.restore", careless)


def _calls_are_done_each_time_that_they_come(patch: pytest.MonkeyPatch) -> None:
    numbers = itertools.count()
    plain = Calls._work_on

    def again(calls: Calls, sender: str, call: Any) -> None:
        calls._done.pop((sender, call.id), None)
        next(numbers)
        plain(calls, sender, call)

    patch.setattr(Calls, "_work_on", again)
    patch.setattr(Mailbox, "find", lambda box, id: None)


def _who_is_asked_answers_before_it_is_kept(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("trio_ws.hub.receipt.Receipt.to_be_committed", property(lambda receipt: False))


def _one_who_has_died_is_never_taken_over(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("trio_ws.cluster.membership.Membership.lives", lambda membership, node: True)
    patch.setattr("trio_ws.cluster.calls.DEAF_FOR", 1e9)


def _a_forwarded_event_goes_to_another_user(patch: pytest.MonkeyPatch) -> None:
    plain = Forwarding.publish

    async def astray(forwarding: Forwarding, user: str, parcel: Any) -> Any:
        return await plain(forwarding, "user0", parcel)

    patch.setattr(Forwarding, "publish", astray)


BUGS: dict[Callable[[pytest.MonkeyPatch], None], int] = {
    _nobody_is_fenced: 7,
    _a_takeover_forgets_what_may_have_been_shown: 4,
    _calls_are_done_each_time_that_they_come: 3,
    _who_is_asked_answers_before_it_is_kept: 7,
    _one_who_has_died_is_never_taken_over: 2,
    _a_forwarded_event_goes_to_another_user: 0,
}
"""Each with a seed that has seen it."""


@pytest.mark.parametrize(("bug", "first"), BUGS.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_a_planted_bug_is_seen(
    bug: Callable[[pytest.MonkeyPatch], None], first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    bug(monkeypatch)
    for seed in range(first, first + WITHIN):
        if outcome := simulate_nodes(seed).violations:
            print(f"{bug.__name__.lstrip('_')}: seed {seed}, {outcome[0].invariant}")
            return
    pytest.fail("no seed has seen it")
