"""The lines of `trio-ws tail`: the keys that an event has on the wire, and no others."""

from __future__ import annotations

import json

import pytest

from trio_ws.cli.tail import _print_gap, event_line
from trio_ws.event import Event, Gap, Merged

PLAIN = Event(seq=7, id="e7", type="note", payload={"n": 1}, ts=2.5)


def test_an_event_of_a_run_tells_it() -> None:
    assert event_line(PLAIN) == {"seq": 7, "id": "e7", "type": "note", "payload": {"n": 1}, "ts": 2.5}
    merged = Merged(from_seq=5, n=2)
    event = Event(seq=7, id="e7", type="agent_delta", payload={}, ts=2.5, run="r1", merged=merged)
    assert event_line(event) == {
        "seq": 7,
        "id": "e7",
        "type": "agent_delta",
        "payload": {},
        "ts": 2.5,
        "run": "r1",
        "merged": {"from": 5, "n": 2},
    }


def test_a_gap_tells_what_is_healed(capsys: pytest.CaptureFixture[str]) -> None:
    _print_gap(Gap(first=1, last=3, reason="evicted", lost={"note": 3}))
    _print_gap(Gap(first=4, last=5, reason="evicted", lost={"agent_delta": 2}, snapshots=("r1",), healed=2))
    plain, healed = [json.loads(line)["gap"] for line in capsys.readouterr().out.splitlines()]
    assert plain == {"from": 1, "to": 3, "reason": "evicted", "lost": {"note": 3}, "critical": 0}
    assert (healed["snapshots"], healed["healed"]) == (["r1"], 2)
