"""What is gone from a log: runs that say exactly what was lost, wherever they are cut, and stay few."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trio_ws.core.entry import EVICTED, EXPIRED, SETTLED, SUPERSEDED
from trio_ws.core.gaps import ANY_TYPE, MAX_RUNS, MAX_TYPES, Gone, Run

REASONS = (SETTLED, SUPERSEDED, EVICTED, EXPIRED)


def shown(gone: Gone) -> list[tuple[int, int, str, dict[str, int], int]]:
    return [(r.first, r.last, r.reason, r.lost, r.critical) for r in gone._runs]


def test_neighbours_that_went_alike_are_one_run_in_whatever_order_they_went() -> None:
    for order in ((1, 2, 3), (3, 2, 1), (1, 3, 2), (2, 1, 3), (2, 3, 1), (3, 1, 2)):
        gone = Gone()
        for seq in order:
            gone.add(seq, seq, "a", EVICTED, False)
        assert shown(gone) == [(1, 3, EVICTED, {"a": 3}, 0)]
        assert len(gone) == 1


def test_another_type_reason_or_weight_of_loss_is_another_run() -> None:
    gone = Gone()
    gone.add(1, 1, "a", EVICTED, False)
    gone.add(2, 2, "b", EVICTED, False)
    gone.add(3, 3, "b", EXPIRED, False)
    gone.add(4, 5, "b", EXPIRED, True)
    gone.add(6, 6, "b", EXPIRED, False)
    gone.add(8, 8, "b", EXPIRED, False)
    assert shown(gone) == [
        (1, 1, EVICTED, {"a": 1}, 0),
        (2, 2, EVICTED, {"b": 1}, 0),
        (3, 3, EXPIRED, {"b": 1}, 0),
        (4, 5, EXPIRED, {"b": 2}, 2),
        (6, 6, EXPIRED, {"b": 1}, 0),
        (8, 8, EXPIRED, {"b": 1}, 0),
    ]


def test_a_run_is_cut_where_somebody_goes_on() -> None:
    gone = Gone()
    gone.add(1, 3, "a", EXPIRED, True)
    gone.add(4, 6, "a", EXPIRED, True)
    cut = gone.at(3)
    assert cut is not None
    assert (cut.first, cut.last, cut.lost, cut.critical) == (3, 6, {"a": 4}, 4)
    cut.lost["a"] = 99  # a copy
    assert shown(gone) == [(1, 6, EXPIRED, {"a": 6}, 6)]
    assert gone.at(7) is None
    assert gone.at(0) is None
    assert [gone.end_of(seq) for seq in (0, 1, 4, 7)] == [0, 6, 6, 7]


def test_a_run_of_several_types_that_is_cut_keeps_its_count() -> None:
    run = Run(1, 4, EVICTED, {"a": 1, "b": 3}, 2)
    assert run.part(1, 4).lost == {"a": 1, "b": 3}
    assert run.part(4, 4).lost == {ANY_TYPE: 1}
    assert run.part(4, 4).critical == 1


def test_of_two_reasons_the_graver_stays() -> None:
    run = Run(5, 6, SETTLED, {"a": 2}, 0)
    run.absorb(Run(7, 7, EVICTED, {"a": 1}, 0))
    run.absorb(Run(3, 4, SUPERSEDED, {"b": 2}, 0))
    assert (run.first, run.last, run.reason, run.lost) == (3, 7, EVICTED, {"a": 3, "b": 2})


def test_a_run_tells_only_so_many_types_apart() -> None:
    run = Run(1, 1, EVICTED, {"t1": 1}, 0)
    for seq in range(2, 1001):
        run.absorb(Run(seq, seq, EVICTED, {f"t{seq}": 1}, 0))
    run.absorb(Run(1001, 1001, EVICTED, {"t1": 1}, 0))
    assert len(run.lost) == MAX_TYPES + 1
    assert run.lost["t1"] == 2
    assert sum(run.lost.values()) == 1001


def crowd(runs: int) -> Gone:
    """Neighbouring runs of one reason, each of a type of its own."""
    gone = Gone()
    for seq in range(1, runs + 1):
        gone.add(seq, seq, f"t{seq % 7}", EVICTED, False)
    assert len(gone) == runs
    return gone


def test_up_to_the_bound_nothing_is_joined() -> None:
    gone = crowd(MAX_RUNS)
    assert not gone.crowded
    assert crowd(MAX_RUNS + 1).crowded


def test_beyond_the_bound_the_oldest_are_joined_but_not_across_a_cursor() -> None:
    gone = crowd(MAX_RUNS + 1)
    gone.compact({5})
    assert len(gone) == MAX_RUNS // 2
    first, second, *rest = gone._runs
    assert (first.first, first.last) == (1, 5)
    assert second.first == 6
    assert all(run.first == run.last for run in rest)
    assert gone._starts == [run.first for run in gone._runs]
    assert sum(sum(run.lost.values()) for run in gone._runs) == MAX_RUNS + 1


def test_reasons_are_mixed_only_where_that_does_not_do() -> None:
    gone = Gone()
    for seq in range(1, MAX_RUNS + 2):
        gone.add(seq, seq, "a", EVICTED if seq % 2 else SETTLED, False)
    gone.compact(())
    assert len(gone) <= MAX_RUNS // 2
    assert gone._runs[0].reason == EVICTED


def test_more_cursors_than_runs_may_be_do_not_break_the_bound() -> None:
    gone = crowd(MAX_RUNS + 1)
    gone.compact(range(1000))
    assert len(gone) <= MAX_RUNS // 2


def test_what_is_apart_is_never_joined() -> None:
    gone = Gone()
    for seq in range(1, MAX_RUNS + 2):
        gone.add(2 * seq, 2 * seq, "a", EVICTED, False)
    assert gone.crowded
    gone.compact(())
    assert len(gone) == MAX_RUNS + 1
    assert not gone.crowded  # until twice as many: a try costs as much as there are runs


@given(st.permutations(range(1, 13)), st.data())
def test_against_a_list(order: list[int], data: st.DataObject) -> None:
    """Each seq went for a reason of its own; every cut from every seq says exactly what is missing to its run's end."""
    kinds = [data.draw(st.sampled_from("ab")) for _ in order]
    reasons = [data.draw(st.sampled_from((EVICTED, EXPIRED))) for _ in order]
    critical = [data.draw(st.booleans()) and reason == EXPIRED for reason in reasons]
    gone, truth = Gone(), {}
    for seq in order:
        truth[seq] = (kinds[seq - 1], reasons[seq - 1], critical[seq - 1])
        gone.add(seq, seq, *truth[seq])
        for at in range(14):
            run = gone.at(at)
            assert (run is not None) == (at in truth)
            if run is None:
                continue
            seqs = range(at, run.last + 1)
            assert {truth[n][1] for n in seqs} == {run.reason}
            assert {truth[n][0]: len(seqs) for n in seqs} == run.lost
            assert run.critical == sum(truth[n][2] for n in seqs)
            assert truth.get(run.last + 1) != truth[at]
