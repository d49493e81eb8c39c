"""The mapping to AG-UI and back, judged by AG-UI's own packages: its models, and its client's whole pipeline."""

from __future__ import annotations

import itertools
import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import ag_ui.core
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from trio_ws.agui import AguiDecoder, AguiEncoder
from trio_ws.agui.grammar import REQUIRED, fault
from trio_ws.agui.words import RUN_TYPES
from trio_ws.errors import InvalidEvent
from trio_ws.event import Event

from .conftest import Ask
from .streams import AguiEvent, Told, joined, published, runs, snapshots, streams

MODELS: TypeAdapter[Any] = TypeAdapter(ag_ui.core.Event)
drawn = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

OURS = """text call run parent seq agui tools questions outcome status thought text_from error interrupts usage role
progress message result last_tool question fraction parts pending"""
FIELDS = sorted({field for fields in REQUIRED.values() for field in fields} | set(re.split(r"\s+", OURS)))


def encoded(events: list[Event]) -> list[AguiEvent]:
    encoder = AguiEncoder("r", thread="t")
    return [told for event in events for told in encoder.encode(event)]


def approve(ask: Ask, told: list[AguiEvent]) -> Any:
    """What a page makes of a stream to which AG-UI's packages have no objection."""
    for event in told:
        MODELS.validate_python(event, strict=False)
    played = ask("play", events=told)
    if told[-1]["type"] == "RUN_ERROR":
        assert played.pop("warnings") in ([], [f"threw: {told[-1]['message']}"])
    else:
        assert played.pop("warnings") == []
    return played


@drawn
@given(told=runs())
def test_a_run_is_a_legal_stream(ask: Ask, told: Told) -> None:
    events = encoded(joined(told.events))
    assert events[0]["type"] == "RUN_STARTED"
    approve(ask, events)


@settings(drawn, max_examples=30)
@given(told=runs())
def test_clients_from_before_1_0_take_it(ask: Ask, told: Told) -> None:
    events = encoded(joined(told.events))
    played = ask("play", events=events, client="ag-ui-client-0")
    assert played["warnings"] == []
    assert told.events[-1].payload["outcome"] != "completed" or played["result"] == {"n": 1}


@drawn
@given(told=runs(), data=st.data())
def test_what_is_lost_does_not_break_the_stream(ask: Ask, told: Told, data: st.DataObject) -> None:
    kept = data.draw(st.lists(st.booleans(), min_size=len(told.events) - 1, max_size=len(told.events) - 1))
    some = [event for event, keep in zip(told.events, kept, strict=False) if keep]
    # A patch needs the state that it is made for; the page would say so.
    some = [event for event in some if event.payload != {} and "STATE" not in str(event.payload)]
    approve(ask, encoded([*some, told.events[-1]]))


@drawn
@given(told=runs(), data=st.data())
def test_who_comes_in_the_middle_has_the_whole_answer(ask: Ask, told: Told, data: st.DataObject) -> None:
    """A page that heard the first events, or none, lost some, and is given snapshots of what stood by then."""
    own = [event for event in told.events if event.type != "agui"]
    first = data.draw(st.integers(0, len(own)))
    behind = data.draw(st.integers(first, len(own)))
    page = encoded([*own[:first], *snapshots(own[:behind], cut=False), *own[first:]])
    assert texts_of(page) == texts_of(encoded(own))
    approve(ask, page)


@drawn
@given(events=streams())
def test_there_and_back_is_the_same_to_a_page(ask: Ask, events: list[AguiEvent]) -> None:
    decoder = AguiDecoder()
    drafts = [draft for event in events for draft in decoder.decode(event)]
    assert decoder.ended
    again = encoded(joined(published(drafts)))
    assert seen(approve(ask, again)) == seen(approve(ask, events))


def seen(played: dict[str, Any]) -> dict[str, Any]:
    """What is on the page in the end, in the order of names: that of overlapping messages is not kept."""
    messages = sorted(played["messages"], key=lambda message: str(message["id"]))
    for message in messages:
        metadata = message.pop("metadata", {})
        assert metadata.keys() <= {"trio-ws"}
    return {**played, "messages": [m for m in messages if m.get("content") or m["role"] != "reasoning"]}


# The grammar


def least(type: str) -> AguiEvent:
    """An event that says no more than it must."""
    special = {"role": "reasoning", "subtype": "message", "content": {"n": 1} if "ACTIVITY" in type else "x"}
    made = {str: "x", list: [], dict: {}, object: None}
    return {"type": type} | {field: special.get(field, made[kind]) for field, kind in REQUIRED[type].items()}


def test_all_types_are_known_and_none_besides() -> None:
    assert {type.value for type in ag_ui.core.EventType} == REQUIRED.keys()


def test_the_documentation_has_each() -> None:
    page = (Path(__file__).parents[2] / "docs" / "agui.md").read_text()
    back = page[page.index("## From AG-UI to a run") : page.index("## What is lost")]
    assert not [type for type in REQUIRED if f"`{type}`" not in back]
    there = page[page.index("## From a run to AG-UI") : page.index("## From AG-UI to a run")]
    assert not [type for type in RUN_TYPES if f"`{type}`" not in there]


@pytest.mark.parametrize("type", REQUIRED)
def test_what_must_be_there_is_what_the_models_ask_for(type: str) -> None:
    event = least(type)
    assert fault(event) is None
    MODELS.validate_python(event)
    for field in REQUIRED[type]:
        less = {key: value for key, value in event.items() if key != field}
        assert fault(less) == field
        if field != "role":  # the schema of npm's package asks for it, the model knows it
            with pytest.raises(ValidationError):
                MODELS.validate_python(less)


@pytest.mark.parametrize("type", REQUIRED)
def test_bad_events_are_told_by_their_field(type: str) -> None:
    for field, kind in REQUIRED[type].items():
        if kind is not object and (type, field) != ("REASONING_MESSAGE_START", "role"):
            with pytest.raises(InvalidEvent) as told:
                AguiDecoder().decode({**least(type), field: 7})
            assert told.value.field == field


@pytest.mark.parametrize("event", [None, [], "x", {}, {"type": 7}])
def test_what_is_no_event_is_refused(event: Any) -> None:
    with pytest.raises(InvalidEvent) as told:
        AguiDecoder().decode(event)
    assert told.value.field == "type"


def test_a_chunk_that_begins_something_must_name_it() -> None:
    with pytest.raises(InvalidEvent) as told:
        AguiDecoder().decode({"type": "TOOL_CALL_CHUNK", "delta": "x"})
    assert told.value.field == "toolCallId"


def test_the_models_of_the_package_are_taken() -> None:
    decoder = AguiDecoder()
    start = ag_ui.core.TextMessageStartEvent(message_id="m")
    assert [d.payload["messageId"] for d in decoder.decode(start)] == ["m"]
    content = ag_ui.core.TextMessageContentEvent(message_id="m", delta="Hi")
    assert [(d.type, d.payload) for d in decoder.decode(content)] == [("agent_delta", {"text": "Hi"})]


def test_what_is_not_known_yet_is_carried() -> None:
    (draft,) = AguiDecoder().decode({"type": "TOMORROW", "x": 1})
    assert (draft.type, draft.payload) == ("agui", {"type": "TOMORROW", "x": 1})


def test_thoughts_as_they_were_told_before_1_0() -> None:
    decoder = AguiDecoder()
    old: list[AguiEvent] = [
        {"type": "THINKING_START"},
        {"type": "THINKING_TEXT_MESSAGE_START"},
        {"type": "THINKING_TEXT_MESSAGE_CONTENT", "delta": "Hm"},
        {"type": "THINKING_TEXT_MESSAGE_CONTENT", "delta": "."},
        {"type": "THINKING_TEXT_MESSAGE_END"},
        {"type": "THINKING_END"},
    ]
    (draft,) = [draft for event in old for draft in decoder.decode(event)]
    assert draft.type == "agent_thinking"
    assert draft.payload["text"] == "Hm."


# Runs of ours, there and back


@drawn
@given(told=runs())
def test_a_run_comes_back(told: Told) -> None:
    """What is in the run itself, of the types that it has words for; nested runs come back as AG-UI told of them."""
    own = [event for event in told.events if event.run == "r" and event.type != "agui"]
    decoder = AguiDecoder()
    back = [draft for event in encoded(own) for draft in decoder.decode(event)]
    assert told_by([(e.type, e.payload) for e in own]) == told_by([(d.type, d.payload) for d in back])


def told_by(events: list[tuple[str, Any]]) -> list[Any]:
    said = []
    for type, payload in events:
        if type in ("agent_started", "agent_thinking", "tool_executing"):
            said.append((type, {k: v for k, v in payload.items() if k != "agui" and v is not None}))
        elif type == "tool_completed":
            said.append((type, payload["call"], payload["outcome"], payload["duration"]))
        elif type in ("agent_completed", "agent_lost"):
            ended = payload["outcome"] if payload["outcome"] != "lost" else "failed"
            said.append(("end", ended, payload["duration"], payload.get("result")))
        elif type in ("agent_progress", "note"):
            said.append((type, payload))
    text = "".join(payload["text"] for type, payload in events if type == "agent_delta")
    return [text, *said]


# Snapshots and questions


def event(seq: int, type: str, payload: Any, run: str = "r") -> Event:
    return Event(seq=seq, id=f"e{seq}", type=type, payload=payload, ts=float(seq), run=run)


def texts_of(told: list[AguiEvent]) -> str:
    return "".join(
        e["delta"] for e in told if e["type"] == "TEXT_MESSAGE_CONTENT" and "subagentRunId" not in e
    )


def test_a_late_page_starts_with_a_snapshot(ask: Ask) -> None:
    state = {
        "status": "running",
        "name": "researcher",
        "text": "so far",
        "text_from": 3,
        "thought": "Hm.",
        "progress": 0.5,
        "tools": [{"call": 2, "tool": "search", "input": {"q": "x"}, "since": 1.0}],
        "questions": [{"question": "q1", "prompt": "Deploy?"}],
    }
    told = encoded(
        [
            event(
                9,
                "standing",
                {"questions": [{"run": "r", "question": "q1", "prompt": "Deploy?", "ts": 1.0}]},
                "",
            ),
            event(9, "snapshot", state),
            event(7, "agent_delta", {"text": "far"}),  # is in it
            event(10, "agent_delta", {"text": ", more"}),
            event(
                11, "tool_completed", {"call": 2, "tool": "search", "outcome": "completed", "output": "found"}
            ),
            event(12, "agent_completed", {"outcome": "completed", "duration": 3}),
        ]
    )
    page = approve(ask, told)
    assert texts_of(told) == "so far, more"
    assert [m["content"] for m in page["messages"] if m["role"] == "tool"] == ["found"]
    asked = [e for e in told if e.get("name") == "question_asked"]
    assert [e["value"] for e in asked] == [{"question": "q1", "prompt": "Deploy?"}]


def test_a_snapshot_heals_what_a_gap_took(ask: Ask) -> None:
    before = [
        event(1, "agent_started", {"name": "researcher"}),
        event(2, "agent_delta", {"text": "one "}),
        event(3, "tool_executing", {"call": 1, "tool": "search"}),
    ]
    # Lost: a delta, the end of the call, a thought, another call, the run's end.
    state = {
        "status": "failed",
        "text": "one two ",
        "text_from": 0,
        "thought": "Hm.",
        "tools": [],
        "last_tool": {"call": 1, "tool": "search", "outcome": "completed", "output": "found"},
        "error": {"kind": "Oops", "message": "no more money"},
    }
    told = encoded([*before, event(9, "snapshot", state), event(10, "agent_delta", {"text": "late"})])
    page = approve(ask, told)
    assert texts_of(told) == "one two "
    assert [m["content"] for m in page["messages"] if m["role"] == "tool"] == ["found"]
    assert told[-1]["type"] == "RUN_ERROR"
    assert (told[-1]["message"], told[-1]["code"]) == ("no more money", "Oops")


@drawn
@given(parts=st.lists(st.text("ab🙂", min_size=1, max_size=3), min_size=1), data=st.data())
def test_no_letter_of_the_answer_is_missing_or_told_twice(parts: list[str], data: st.DataObject) -> None:
    deltas = [event(seq, "agent_delta", {"text": text}) for seq, text in enumerate(parts, 2)]
    first = data.draw(st.integers(0, len(deltas)))
    lost = data.draw(st.integers(first, len(deltas)))
    whole = "".join(parts[:lost])
    snapshot = event(lost + 1, "snapshot", {"status": "running", "text": whole, "text_from": 0})
    end = event(len(deltas) + 2, "agent_completed", {"outcome": "completed"})
    told = encoded([event(1, "agent_started", {}), *deltas[:first], snapshot, *deltas, end])
    assert texts_of(told) == "".join(parts)


def test_a_page_that_begins_in_the_middle_is_told_a_start(ask: Ask) -> None:
    told = encoded(
        [
            event(
                5,
                "tool_completed",
                {"call": 1, "tool": "search", "outcome": "failed", "error": {"kind": "Oops"}},
            ),
            event(6, "agent_delta", {"text": "So"}, "other"),
            event(7, "agent_lost", {"outcome": "lost", "duration": 3, "reason": "lease"}),
            event(8, "agent_delta", {"text": "after the end"}),
        ]
    )
    assert [e["type"] for e in told] == [
        "RUN_STARTED",
        "TOOL_CALL_START",
        "TOOL_CALL_END",
        "TOOL_CALL_RESULT",
        "RUN_ERROR",
    ]
    assert (told[-1]["code"], told[-1]["message"]) == ("agent_lost", "the agent is gone")
    approve(ask, told)


def test_frontend_tools_are_left_for_the_page_to_answer(ask: Ask) -> None:
    decoder = AguiDecoder()
    stream: list[AguiEvent] = [
        {"type": "RUN_STARTED", "threadId": "t", "runId": "r"},
        {"type": "TOOL_CALL_START", "toolCallId": "x1", "toolCallName": "confirm"},
        {"type": "TOOL_CALL_END", "toolCallId": "x1"},
        {"type": "RUN_FINISHED", "threadId": "t", "runId": "r"},
    ]
    drafts = [draft for e in stream for draft in decoder.decode(e)]
    told = encoded(published(drafts))
    approve(ask, told)
    assert "TOOL_CALL_RESULT" not in {e["type"] for e in told}
    assert told[-1]["outcome"] == {"type": "success", "pendingToolCallIds": ["x1"]}


def test_an_agent_that_is_run_again_counts_on_and_its_last_end_counts() -> None:
    decoder = AguiDecoder(numbers=itertools.count(5))
    call: list[AguiEvent] = [
        {"type": "RUN_STARTED", "threadId": "t", "runId": "r1"},
        {"type": "TOOL_CALL_CHUNK", "toolCallId": "x", "toolCallName": "look", "delta": "[1"},
        {"type": "TOOL_CALL_RESULT", "toolCallId": "x", "messageId": "o", "content": "found"},
    ]
    asked = {"type": "interrupt", "interrupts": [{"id": "i1", "reason": "confirmation"}]}
    end: AguiEvent = {"type": "RUN_FINISHED", "threadId": "t", "runId": "r1"}
    first = [draft for e in [*call, {**end, "outcome": asked}] for draft in decoder.decode(e)]
    assert decoder.interrupts == asked["interrupts"]
    second = [draft for e in [*call, end] for draft in decoder.decode(e)]
    assert decoder.interrupts == []
    calls = [d.payload for d in [*first, *second] if d.type == "tool_executing"]
    assert [(c["call"], c["input"]) for c in calls] == [(5, "[1"), (6, "[1")]
    ends = [draft for draft in first if draft.type != "agent_completed"] + second
    assert encoded(published(ends))[-1]["outcome"] == {"type": "success"}


# Whatever comes

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=3)
    | st.sampled_from(["r", "assistant", "plan"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=3),
    max_leaves=6,
)
fields = st.dictionaries(st.sampled_from(FIELDS), anything, max_size=5)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([*REQUIRED, "THINKING_END", "X"]), st.booleans(), fields)))
def test_no_event_breaks_the_decoder(events: list[tuple[str, bool, dict[str, Any]]]) -> None:
    decoder = AguiDecoder()
    for type, whole, fields in events:
        with suppress(InvalidEvent):
            for draft in decoder.decode(
                (least(type) if whole and type in REQUIRED else {}) | fields | {"type": type}
            ):
                json.dumps(draft.payload)
    decoder.end()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(sorted(RUN_TYPES)), anything | fields, st.sampled_from(["r", "c", None]))
    )
)
def test_no_payload_breaks_the_encoder(events: list[tuple[str, Any, str | None]]) -> None:
    encoder = AguiEncoder("r")
    for seq, (type, payload, run) in enumerate(events):
        encoder.encode(Event(seq=seq, id="e", type=type, payload=payload, ts=1.0, run=run))


def test_letters_that_javascript_has_cut_are_whole_again() -> None:
    cut = ("a\ud83d", "\ude42b", "\ude42")
    told = forwarded(START_M, *({**CONTENT_M, "delta": part} for part in cut), END_M)
    assert texts_of(told) == "a🙂b\ufffd"


@pytest.mark.parametrize("arguments", ["[1e999]", '["\\ud83d"]', "[NaN]", "[" * 20000, "\ud83d"])
def test_arguments_that_are_no_json_are_text(arguments: str) -> None:
    told = forwarded(
        {"type": "TOOL_CALL_CHUNK", "toolCallId": "x", "toolCallName": "look", "delta": arguments}
    )
    assert [e["delta"] for e in told if e["type"] == "TOOL_CALL_ARGS"] == [
        arguments.replace("\ud83d", "\ufffd")
    ]


# What drawing finds late


def forwarded(*stream: AguiEvent) -> list[AguiEvent]:
    """A stream between the start and the end of its run, there and back."""
    decoder = AguiDecoder()
    ids = {"threadId": "t", "runId": "r"}
    whole = [{"type": "RUN_STARTED", **ids}, *stream, {"type": "RUN_FINISHED", **ids}]
    return encoded(published(draft for e in whole for draft in decoder.decode(e)))


def shape(told: list[AguiEvent]) -> list[str]:
    """What there is, and the names of what it is about."""
    names = ("messageId", "toolCallId", "subagentRunId")
    return [" ".join([e["type"], *(e[name] for name in names if name in e)]) for e in told[1:-1]]


START_M = {"type": "TEXT_MESSAGE_START", "messageId": "m"}
CONTENT_M = {"type": "TEXT_MESSAGE_CONTENT", "messageId": "m", "delta": "Hi"}
END_M = {"type": "TEXT_MESSAGE_END", "messageId": "m"}


def test_a_message_goes_on_after_a_call(ask: Ask) -> None:
    call = {"type": "TOOL_CALL_CHUNK", "toolCallId": "x", "toolCallName": "look", "delta": "{}"}
    told = forwarded(START_M, CONTENT_M, call, CONTENT_M, END_M)
    assert shape(told) == [
        "TEXT_MESSAGE_START m",
        "TEXT_MESSAGE_CONTENT m",
        "TEXT_MESSAGE_END m",
        "TOOL_CALL_START x",
        "TOOL_CALL_ARGS x",
        "TOOL_CALL_END x",
        "TEXT_MESSAGE_START m",
        "TEXT_MESSAGE_CONTENT m",
        "TEXT_MESSAGE_END m",
    ]
    (message,) = [m for m in approve(ask, told)["messages"] if m["id"] == "m"]
    assert message["content"] == "HiHi"


def test_a_message_that_a_snapshot_of_messages_may_leave_out_is_ended_before(ask: Ask) -> None:
    told = forwarded(START_M, CONTENT_M, END_M, {"type": "MESSAGES_SNAPSHOT", "messages": []})
    assert shape(told)[-2:] == ["TEXT_MESSAGE_END m", "MESSAGES_SNAPSHOT"]
    assert approve(ask, told)["messages"] == []


def test_a_chunk_ends_the_one_before() -> None:
    thought = {"type": "REASONING_MESSAGE_CHUNK", "messageId": "t", "delta": "Hm"}
    said = {"type": "TEXT_MESSAGE_CHUNK", "messageId": "m", "delta": "Hi"}
    told = forwarded(thought, said)
    assert [e["delta"] for e in told if "delta" in e] == ["Hm", "Hi"]


def test_what_a_subagent_leaves_open_is_ended_with_it(ask: Ask) -> None:
    by = {"subagentRunId": "s"}
    told = forwarded(
        {"type": "SUBAGENT_STARTED", "name": "helper", **by},
        {"type": "STEP_STARTED", "stepName": "plan", **by},
        {**START_M, **by},
        {"type": "SUBAGENT_ERROR", "message": "no", **by},
        {"type": "SUBAGENT_STARTED", "name": "again", **by},
    )
    assert shape(told) == [
        "SUBAGENT_STARTED s",
        "STEP_STARTED s",
        "TEXT_MESSAGE_START m s",
        "TEXT_MESSAGE_END m s",
        "STEP_FINISHED s",
        "SUBAGENT_ERROR s",
    ]
    approve(ask, told)


def test_what_was_cut_off_is_not_told_by_a_second_snapshot() -> None:
    cut = {"status": "running", "text": "three", "text_from": 8}
    told = encoded(
        [event(5, "snapshot", cut), event(7, "snapshot", {**cut, "text": "three four"}), event(8, "note", 1)]
    )
    assert texts_of(told) == "three four"


def test_nested_runs_that_outlive_theirs_are_told_as_suspended(ask: Ask) -> None:
    told = encoded(
        [
            event(1, "agent_started", {}),
            event(2, "agent_started", {"parent": "r", "name": "helper"}, "c"),
            event(3, "agent_started", {"parent": "c", "name": "helper's"}, "d"),
            event(4, "agent_completed", {"outcome": "completed"}),
            event(5, "agent_completed", {"outcome": "completed"}, "d"),
        ]
    )
    assert shape(told) == [
        "SUBAGENT_STARTED c",
        "SUBAGENT_STARTED d",
        "SUBAGENT_FINISHED d",
        "SUBAGENT_FINISHED c",
    ]
    assert [e.get("parentSubagentRunId") for e in told] == [None, None, "c", None, None, None]
    approve(ask, told)


def test_a_message_stays_the_subagents_that_began_it(ask: Ask) -> None:
    told = encoded(
        [
            event(1, "agent_started", {}),
            event(2, "agent_started", {"parent": "r"}, "c1"),
            event(3, "agent_started", {"parent": "r"}, "c2"),
            event(4, "agui", {"type": "TEXT_MESSAGE_START", "messageId": "m", "role": "user"}, "c1"),
            event(5, "agui", {"type": "TEXT_MESSAGE_END", "messageId": "m"}, "c1"),
            event(6, "agui", {"type": "TEXT_MESSAGE_START", "messageId": "m", "role": "user"}, "c2"),
            event(7, "agui", {"type": "TEXT_MESSAGE_END", "messageId": "m"}, "c2"),
            event(8, "agui", {"type": "TEXT_MESSAGE_CONTENT", "messageId": "m", "delta": "x"}, "c2"),
            event(9, "agent_completed", {"outcome": "completed"}),
        ]
    )
    approve(ask, told)
    assert {e["subagentRunId"] for e in told if e.get("messageId") == "m"} == {"c1"}
