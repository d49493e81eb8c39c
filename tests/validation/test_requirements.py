"""What is judged to be met, missed, left out or not measured; each way to miss one turns the whole red."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import attrs
import pytest

from trio_ws.validation.findings import Findings, Sample
from trio_ws.validation.journal import Cut, close_cut
from trio_ws.validation.measures import percentile, undisturbed
from trio_ws.validation.plan import FULL, PHASES, QUICK, Plan, body, numbers
from trio_ws.validation.requirements import (
    REQUIREMENTS,
    Verdict,
    judge,
    passed,
    shown,
)

from .findings import good, publish


def verdicts(findings: Findings) -> dict[str, Verdict]:
    return {row.requirement.name: row.verdict for row in judge(findings)}


def test_where_all_went_well_all_is_met() -> None:
    rows = judge(good())
    assert [row.requirement.name for row in rows if row.verdict is not Verdict.MET] == []
    assert passed(rows)


def test_before_is_measured_in_the_same_way() -> None:
    rows = {row.requirement.name: row for row in judge(good())}
    assert (rows["recovery"].measured, rows["recovery"].before) == (100.0, 50.0)
    assert (rows["confirmed"].measured, rows["confirmed"].before) == (100.0, 0.0)
    assert rows["recovery_half_open"].before == math.inf
    assert rows["saved"].before is None


def slow(findings: Findings) -> None:
    for sent in findings.after.journals[0].sent.values():
        if sent.n in (2, 3):
            sent.processed = sent.at + 2.5


def slow_answers(findings: Findings) -> None:
    for sent in findings.after.journals[0].sent.values():
        sent.waited, sent.answered = False, sent.at + 2.5


def late_recovery(findings: Findings) -> None:
    journal = findings.after.journals[0]
    journal.cuts.append(Cut(user="ada", how="reset", at=1030.5, back=1035.6))
    close_cut(journal.cuts[-1], journal)


def slow_recoveries(how: str) -> Callable[[Findings], None]:
    def spoil(findings: Findings) -> None:
        for cut in findings.after.cuts:
            if cut.how == how:
                cut.recovered = None

    return spoil


def lose(type: str, phase: str = "load") -> Callable[[Findings], None]:
    def spoil(findings: Findings) -> None:
        publish(findings.after.journals[0], type, 1039.5, phase, seqs=True, comes=False)

    return spoil


def double(findings: Findings) -> None:
    findings.after.journals[0].given([1], 1040.0, 1, 1)


def violate(findings: Findings) -> None:
    findings.after.clients["violations"] = 1


def confirm(status: int, after: float, count: int = 3) -> Callable[[Findings], None]:
    def spoil(findings: Findings) -> None:
        for sent in list(findings.after.journals[0].sent.values())[:count]:
            sent.status, sent.answered = status, sent.at + after

    return spoil


def unconfirmed_type(findings: Findings) -> None:
    next(s for s in findings.after.journals[0].sent.values() if s.phase == "types").status = 504


def overfull(**sample: int) -> Callable[[Findings], None]:
    values = {"events": 10, **sample}
    return lambda findings: findings.after.samples.append(Sample(at=1203.0, **values))


def no_room(findings: Findings) -> None:
    findings.after.samples = [attrs.evolve(sample, dropped=0) for sample in findings.after.samples]


def no_hits(findings: Findings) -> None:
    findings.reuse.hits = 9


def nothing_saved(findings: Findings) -> None:
    findings.reuse.resumed_cpu = [330.0]


def others_wait(findings: Findings) -> None:
    lose("bulk", "stuck")(findings)


def unbalanced(findings: Findings) -> None:
    findings.after.stats["delivery"]["events_accepted"] = 1


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("response", slow),
        ("answer", slow_answers),
        ("recovery", late_recovery),
        ("recovery_reset", slow_recoveries("reset")),
        ("recovery_half_open", slow_recoveries("half-open")),
        ("critical_lost", lose("agent_completed")),
        ("silent", lose("bulk")),
        ("wrong", double),
        ("wrong", violate),
        ("confirmed", confirm(200, 5.1)),
        ("confirmed_at_last", confirm(504, 30.0, 1)),
        ("types", unconfirmed_type),
        ("per_user", overfull(fullest=201)),
        ("in_all", overfull(events=1001)),
        ("room", no_room),
        ("reused", no_hits),
        ("saved", nothing_saved),
        ("others", others_wait),
        ("balance", unbalanced),
    ],
)
def test_each_requirement_can_be_missed(name: str, spoil: Callable[[Findings], None]) -> None:
    findings = good()
    spoil(findings)
    assert verdicts(findings)[name] is Verdict.MISSED
    assert not passed(judge(findings))


def test_no_requirement_is_without_a_way_to_miss_it() -> None:
    mark = next(m for m in test_each_requirement_can_be_missed.pytestmark if m.name == "parametrize")
    assert {name for name, _ in mark.args[1]} == {requirement.name for requirement in REQUIREMENTS}


def test_what_is_left_out_with_a_word_is_no_miss() -> None:
    findings = good()
    del findings.phases["pool"]
    findings.skipped["pool"] = "needs a server of its own"
    assert verdicts(findings)["saved"] is Verdict.SKIPPED
    assert passed(judge(findings))


@pytest.mark.parametrize("phase", PHASES)
def test_a_phase_without_an_end_measures_nothing(phase: str) -> None:
    findings = good()
    findings.phases[phase] = (findings.phases[phase][0], None)
    assert Verdict.UNMEASURED in verdicts(findings).values()
    assert verdicts(findings)["critical_lost"] is Verdict.UNMEASURED
    assert not passed(judge(findings))


def test_what_was_to_be_measured_and_was_not_is_a_miss() -> None:
    findings = good()
    findings.after.journals[0].cuts.clear()
    assert verdicts(findings)["recovery"] is Verdict.UNMEASURED
    assert not passed(judge(findings))


def test_nothing_at_all_is_judged_without_an_error() -> None:
    findings = Findings(plan=QUICK)
    assert set(verdicts(findings).values()) == {Verdict.UNMEASURED}


def test_what_overlaps_a_cut_is_no_latency_under_load() -> None:
    side = good().after
    sent = {s.at for s in undisturbed(side)}
    assert 1010.0 in sent
    assert not sent & {1021.0, 1022.0, 1023.0, 1024.0}


@pytest.mark.parametrize(
    ("share", "value"), [(0.0, 1.0), (0.5, 2.0), (0.51, 3.0), (0.75, 3.0), (0.99, 4.0), (1.0, 4.0)]
)
def test_percentiles(share: float, value: float) -> None:
    assert percentile([4.0, 1.0, 3.0, 2.0], share) == value
    assert percentile([], share) is None


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (None, "s", "-"),
        (math.inf, "s", "never"),
        (0.01234, "s", "12.3 ms"),
        (4.046, "s", "4.05 s"),
        (99.5, "%", "99.5 %"),
        (1772.0, "events", "1,772"),
    ],
)
def test_figures_are_shown_with_their_unit(value: float | None, unit: str, text: str) -> None:
    assert shown(value, unit) == text


def test_cuts_of_a_plan_alternate_and_leave_time_to_recover() -> None:
    for plan in (FULL, QUICK):
        cuts = [list(plan.cuts(user)) for user in range(plan.users)]
        assert all(at <= plan.duration - 8 for each in cuts for at, _ in each)
        assert all(a[1] != b[1] for each in cuts for a, b in itertools.pairwise(each))
        assert len({at for each in cuts for at, _ in each}) == sum(map(len, cuts)) >= 14
    assert list(QUICK.cuts(1)) == list(QUICK.cuts(1)) != list(Plan(seed=2).cuts(1))


def test_a_plan_tells_how_to_repeat_it() -> None:
    assert attrs.evolve(QUICK, users=7, seed=3).command() == "--quick --users 7 --seed 3"
    assert FULL.command() == "--seed 1"


def test_numbers_survive_that_texts_are_joined() -> None:
    payloads = [body("token", n)["payload"] for n in (7, 8, 9)]
    assert numbers({"text": "".join(p["text"] for p in payloads)}) == [7, 8, 9]  # type: ignore[index]
    assert numbers("of another kind") == []
