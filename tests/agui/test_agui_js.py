"""agui.js says what `AguiEncoder` says, event for event."""

from __future__ import annotations

from typing import Any

import attrs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trio_ws.agui import AguiDecoder, AguiEncoder
from trio_ws.event import Event

from .conftest import Ask
from .streams import AguiEvent, Told, joined, published, runs, snapshots, streams

drawn = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def frame(event: Event) -> dict[str, Any]:
    """An event as client.js gives it."""
    told = attrs.asdict(event, filter=lambda field, value: value is not None and field.name != "merged")
    if event.merged:
        told["merged"] = {"from": event.merged.from_seq, "n": event.merged.n}
    return told


def assert_alike(ask: Ask, events: list[Event]) -> None:
    encoder = AguiEncoder("r", thread="t")
    ours = [encoder.encode(event) for event in events]
    assert ask("encode", run="r", thread="t", events=[frame(event) for event in events]) == ours


@drawn
@given(told=runs(), data=st.data())
def test_of_runs(ask: Ask, told: Told, data: st.DataObject) -> None:
    lost = data.draw(st.sets(st.sampled_from(range(len(told.events)))))
    assert_alike(ask, [event for n, event in enumerate(joined(told.events)) if n not in lost])


@drawn
@given(told=runs(), data=st.data())
def test_of_snapshots(ask: Ask, told: Told, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(told.events)))
    behind = data.draw(st.integers(first, len(told.events)))
    heard = [*told.events[:first], *snapshots(told.events[:behind]), *told.events[first:]]
    assert_alike(ask, heard)


@drawn
@given(events=streams())
def test_of_what_was_forwarded(ask: Ask, events: list[AguiEvent]) -> None:
    decoder = AguiDecoder()
    assert_alike(ask, joined(published(draft for event in events for draft in decoder.decode(event))))
