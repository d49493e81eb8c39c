"""A validation that is a few seconds long, against real server processes; and faults that have to turn it red."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import attrs
import pytest
import trio

from trio_ws import client
from trio_ws.event import Event
from trio_ws.validation import arm, backend
from trio_ws.validation.findings import Findings
from trio_ws.validation.plan import QUICK
from trio_ws.validation.process import ServerFailed, running
from trio_ws.validation.requirements import Verdict, judge
from trio_ws.validation.run import Target, validate

pytestmark = pytest.mark.integration

SHORT = attrs.evolve(
    QUICK, users=2, duration=8.0, cut_every=3.0, rest=5.5, rounds=1, tabs=5, held=20, turns=1, stuck=2.0
)


class Told:
    """What was told of the progress."""

    def __init__(self) -> None:
        self.began: list[str] = []
        self.ended: list[str] = []

    def begin(self, title: str, seconds: float) -> None:
        self.began.append(title)

    def advance(self, seconds: float) -> None:
        assert self.began

    def end(self, title: str, seconds: float) -> None:
        self.ended.append(title)


async def run(only: Sequence[str], *arguments: str, **options: Any) -> tuple[Findings, dict[str, Verdict]]:
    findings = Findings(plan=SHORT, arguments=arguments)
    with trio.fail_after(90):
        await validate(findings, Told(), only=only, **options)
    return findings, {row.requirement.name: row.verdict for row in judge(findings)}


async def test_a_short_one_from_beginning_to_end() -> None:
    findings, told = Findings(plan=SHORT), Told()
    with trio.fail_after(120):
        await validate(findings, told)
    assert told.began == told.ended
    assert len(told.began) == 5
    rows = {row.requirement.name: row for row in judge(findings)}
    # What so few sessions save is too little to be measured.
    missed = [name for name, row in rows.items() if row.verdict is not Verdict.MET and name != "saved"]
    assert missed == []
    assert [cut.how for cut in findings.after.cuts] == ["reset", "half-open"]
    assert findings.reuse.hits == findings.reuse.resumes == 5
    assert findings.after.account.refused > 0
    # The comparison is real: the same was done to a server that loses events.
    assert findings.before.account.critical_lost > 0
    assert findings.config["max_events"]["value"] == 1000
    assert findings.after.stats["delivery"]["events_accepted"] > 500


async def test_a_server_for_which_no_type_is_critical_is_found_out() -> None:
    findings, verdicts = await run(["overflow"], "--critical-types", '["none"]')
    assert verdicts["critical_lost"] is Verdict.MISSED
    assert verdicts["silent"] is Verdict.MET  # a gap told of each
    assert verdicts["response"] is Verdict.SKIPPED
    assert findings.after.account.critical_lost > 50


async def test_a_server_with_too_large_a_buffer_is_found_out() -> None:
    _, verdicts = await run(["overflow"], "--max-events", "5000", "--max-events-per-user", "400")
    assert verdicts["per_user"] is verdicts["in_all"] is Verdict.MISSED


async def test_clients_that_confirm_nothing_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "CONFIRM_WITHIN", 0.3)
    monkeypatch.setattr(arm.client, "connect", partial(client.connect, ack=False))
    _, verdicts = await run(["types"])
    assert verdicts["confirmed"] is verdicts["confirmed_at_last"] is verdicts["types"] is Verdict.MISSED
    assert verdicts["silent"] is Verdict.MET


async def test_an_event_that_is_lost_on_its_way_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    take = arm.TrioWatcher._take

    def lossy(self: arm.TrioWatcher, event: Event) -> None:
        if event.type != "agent_thinking":
            take(self, event)

    monkeypatch.setattr(arm.TrioWatcher, "_take", lossy)
    monkeypatch.setattr("trio_ws.validation.phases.COMPLETE_WITHIN", 0.5)
    findings, verdicts = await run(["types"])
    assert verdicts["critical_lost"] is verdicts["silent"] is verdicts["wrong"] is Verdict.MISSED
    assert findings.after.account.critical_lost == SHORT.users


async def test_a_server_that_runs_already_is_asked_for_tickets() -> None:
    arguments = ["serve", "--port", "0", "--admin-port", "0", "--store", "memory", "--api-key", "key"]
    async with running("trio_ws", arguments) as server:
        target = Target(
            http=f"http://127.0.0.1:{server.http[1]}", ws=f"ws://127.0.0.1:{server.ws[1]}/ws", api_key="key"
        )
        findings, verdicts = await run(["types", "pool"], target=target)
        assert verdicts["types"] is Verdict.MET
        assert verdicts["saved"] is Verdict.SKIPPED
        assert findings.config == {}
        assert all(journal.user.startswith("validate-") for journal in findings.after.journals)
        with pytest.RaisesGroup(
            pytest.RaisesExc(backend.BackendFailed, match="asks for a key"), flatten_subgroups=True
        ):
            await run(["types"], target=attrs.evolve(target, api_key=None))


async def test_a_server_that_does_not_start_is_told_with_its_last_words() -> None:
    failure = pytest.RaisesExc(ServerFailed, match="port must be a whole number")
    with pytest.RaisesGroup(failure, flatten_subgroups=True):
        async with running("trio_ws", ["serve", "--port", "70000"]):
            pass


async def test_wrong_arguments_of_the_server_are_told_before_anything_is_started() -> None:
    with pytest.raises(ServerFailed, match="max_events must be"):
        await run(["types"], "--max-events", "many")
