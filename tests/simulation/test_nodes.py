"""Several nodes on one store under simulation, by many seeds; and planted bugs of theirs, each of which must be seen.

What is told as a failure is replayed by `trio-ws simulate --nodes --level message --seed K`, with `--runs` where it was
one of agents.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import trio

from trio_ws.cluster.calls import Calls
from trio_ws.cluster.forwarding import Forwarding
from trio_ws.core.mailbox import Mailbox
from trio_ws.core.restoring import restore
from trio_ws.core.session import Session
from trio_ws.hub.runs import RunDesk
from trio_ws.store import MemoryStore, Place, SharedMemory
from trio_ws.store.shared_memory import History
from trio_ws.testing.campaign import run_campaign
from trio_ws.testing.network.levels import LevelName
from trio_ws.testing.nodes.plan import FAULTS, NodesPlan
from trio_ws.testing.nodes.scenario import simulate_nodes

from .bugs.log import deltas_of_two_streams_are_joined

KINDS: dict[tuple[LevelName, bool], int] = {("message", False): 16, ("wire", False): 2, ("message", True): 8}
"""How many seeds at each level, without and with agents' runs."""

WITHIN = 15
"""Seeds, from the first one that is named on, in which a planted bug must be seen."""

SOON = {"session_ttl": 5.0, "event_ttl": 10.0, "cleanup_interval": 1.0}
"""Limits by which all is soon over."""

SET_BACK = NodesPlan(
    nodes=2,
    users=2,
    tabs=1,
    duration=20.0,
    rate=3.0,
    alone=True,
    faults={"roll_back": 0.3},
    limits={"commit_interval": 0.0} | SOON,
)
"""A store that goes back, and a user who comes when all is over."""

DYING = NodesPlan(
    nodes=3,
    users=2,
    tabs=2,
    duration=20.0,
    rate=8.0,
    critical=0.3,
    store=0.01,
    bus=0.02,
    lost=0.1,
    twice=0.1,
    faults={"die": 0.2, "cut_off": 0.2, "reset": 0.2},
    limits={"commit_interval": 0.05} | SOON,
)
"""Nodes that die and are cut off, and hear less than all."""

RUNS = NodesPlan(
    nodes=2, users=2, tabs=1, duration=10.0, runs=0.5, alone=True, faults={"die": 0.2}, limits=SOON
)
"""Agents whose nodes die, one of whose users comes when all is over."""

CROWDED = NodesPlan(
    nodes=2,
    users=1,
    tabs=1,
    duration=10.0,
    rate=10.0,
    burst=20,
    critical=0.2,
    deltas=0.8,
    handler=0.3,
    plain=2,
    faults={"reset": 0.2},
    limits={"max_events_per_user": 8, "max_events": 16} | SOON,
)
"""Deltas and progress for who is slow, where there is little room; and plain clients."""


@pytest.mark.parametrize(("level", "runs"), KINDS)
def test_a_campaign_of_nodes_holds(level: LevelName, runs: bool) -> None:
    summary = run_campaign(
        range(KINDS[level, runs]),
        run=partial(simulate_nodes, level=level, runs=runs),
        jobs=min(2, os.cpu_count() or 1),
    )
    told = [f"seed {o.seed} at {o.level} level: {o.violations[0]}\n  {o.plan}" for o in summary.failures]
    assert not summary.failures, "\n".join(told)
    assert summary.twice == 1
    if level == "message":
        missing = [kind for kind in FAULTS if not summary.faults[kind]]
        missing += [name for name in (REACHED_BY_RUNS if runs else REACHED) if not summary.sometimes[name]]
        assert not missing, summary.sometimes


REACHED = (
    "accepted at another try",
    "accepted twice",
    "reconnected",
    "merged event",
    "gap: superseded",
    "a plain client was given an event",
    "epoch was reset",
    "a log lost changes",
    "a log that lost changes begins anew",
)
REACHED_BY_RUNS = (
    "a run was lost: lease",
    "a run was lost: crash",
    "an agent died without a word",
    "an agent heard that its run is over",
)
"""Rare states that the campaigns come to."""


def _nobody_is_fenced(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SharedMemory, "_fenced", lambda store, users, may_be_void=False: None)


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


def _nobody_notices_what_is_lost(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SharedMemory, "_has_lost", lambda store, user, mine, may_be_void: False)
    patch.setattr("trio_ws.store.shared_memory.SharedMemory._go_on", _goes_on_as_if_nothing_was)


def _goes_on_as_if_nothing_was(store: SharedMemory, user: str, *, was_owned: bool) -> None:
    store._place.data.histories.setdefault(user, History(1, 1))


def _a_log_that_has_lost_changes_goes_on_in_its_epoch(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MemoryStore, "begin_anew", lambda store, user, epoch: None)


def _a_set_back_store_loses_what_was_there_before(patch: pytest.MonkeyPatch) -> None:
    plain = Place.restore

    def restore(place: Place, snapshot: Any) -> None:
        for user in snapshot.users:
            log = snapshot.logs._logs[user]
            log.events = dict(list(log.events.items())[:-3])
        plain(place, snapshot)

    patch.setattr(Place, "restore", restore)


def _runs_of_the_dead_are_left_to_themselves(patch: pytest.MonkeyPatch) -> None:
    async def orphans(store: SharedMemory, most: int) -> list[tuple[str, str]]:
        await trio.lowlevel.checkpoint()
        return []

    patch.setattr(SharedMemory, "orphans", orphans)


def _blocks_of_the_dead_go_on(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(RunDesk, "adopt", lambda desk, box: None)


def _a_takeover_takes_open_runs_for_new(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("trio_ws.hub.loading.restore_runs", lambda *args: None)


def _a_lease_lapses_at_each_move(patch: pytest.MonkeyPatch) -> None:
    plain = RunDesk.adopt

    def adopt(desk: RunDesk, box: Mailbox) -> None:
        plain(desk, box)
        for handle in list(desk.handles.values()):
            if handle.user == box.user and handle.lease is not None:
                desk._end(handle, desk._lost(handle, "lease"))

    patch.setattr(RunDesk, "adopt", adopt)


def _plain_clients_are_given_what_was_before(patch: pytest.MonkeyPatch) -> None:
    plain = Session.attach

    def attach(session: Session, link: Any, position: int, now: float, **options: Any) -> None:
        if session.plain:
            session.acked = position = 0
        plain(session, link, position, now, **options)

    patch.setattr(Session, "attach", attach)


BUGS: dict[Callable[[Any], None], tuple[NodesPlan | None, int]] = {
    _nobody_is_fenced: (DYING, 0),
    _a_takeover_forgets_what_may_have_been_shown: (DYING, 0),
    _calls_are_done_each_time_that_they_come: (DYING, 0),
    _who_is_asked_answers_before_it_is_kept: (DYING, 0),
    _one_who_has_died_is_never_taken_over: (DYING, 0),
    _a_forwarded_event_goes_to_another_user: (DYING, 0),
    _nobody_notices_what_is_lost: (SET_BACK, 0),
    _a_log_that_has_lost_changes_goes_on_in_its_epoch: (SET_BACK, 0),
    _a_set_back_store_loses_what_was_there_before: (SET_BACK, 0),
    _runs_of_the_dead_are_left_to_themselves: (RUNS, 5),
    _blocks_of_the_dead_go_on: (RUNS, 1),
    _a_takeover_takes_open_runs_for_new: (RUNS, 1),
    _a_lease_lapses_at_each_move: (RUNS, 8),
    deltas_of_two_streams_are_joined: (CROWDED, 0),
    _plain_clients_are_given_what_was_before: (CROWDED, 0),
}
"""Each with the plan in which it is seen, where the seed does not draw it, and a seed that has seen it."""


@pytest.mark.parametrize(("bug", "seen"), BUGS.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_a_planted_bug_is_seen(
    bug: Callable[[Any], None], seen: tuple[NodesPlan | None, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    bug(monkeypatch)
    plan, first = seen
    for seed in range(first, first + WITHIN):
        if violations := simulate_nodes(seed, plan).violations:
            print(f"{bug.__name__.lstrip('_')}: seed {seed}, {violations[0].invariant}")
            return
    pytest.fail("no seed has seen it")


@pytest.mark.parametrize("plan", [SET_BACK, DYING, RUNS, CROWDED])
def test_none_is_seen_where_there_is_none(plan: NodesPlan) -> None:
    for seed in range(3):
        assert not (found := simulate_nodes(seed, plan).violations), found
