"""Streams of AG-UI, forwarded into a run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from trio_ws.adapters import AgentFailed, agui
from trio_ws.errors import InvalidEvent

from .recording import Recording, Stream

START: dict[str, Any] = {"type": "RUN_STARTED", "threadId": "t", "runId": "r1"}
END: dict[str, Any] = {"type": "RUN_FINISHED", "threadId": "t", "runId": "r1"}
ASKED = [{"id": "i1", "reason": "confirmation", "message": "Deploy?"}]


async def test_a_stream_is_told_in_a_run() -> None:
    run = Recording()
    stream = Stream(
        [
            START,
            {"type": "REASONING_MESSAGE_CHUNK", "messageId": "t1", "delta": "I look."},
            {"type": "TOOL_CALL_START", "toolCallId": "x1", "toolCallName": "search"},
            {"type": "TOOL_CALL_ARGS", "toolCallId": "x1", "delta": '{"q": "x"}'},
            {"type": "TOOL_CALL_END", "toolCallId": "x1"},
            {"type": "CUSTOM", "name": "agent_progress", "value": {"fraction": 0.5, "message": "half"}},
            {"type": "TOOL_CALL_RESULT", "toolCallId": "x1", "messageId": "o1", "content": "found"},
            {"type": "STATE_SNAPSHOT", "snapshot": {"n": 1}},
            {"type": "TEXT_MESSAGE_CHUNK", "messageId": "m1", "delta": "So it "},
            {"type": "TEXT_MESSAGE_CHUNK", "delta": "is."},
            {**END, "result": {"n": 42}},
        ]
    )
    assert await agui.forward(run, stream) == []
    assert stream.closed
    assert run.told == [
        ("agent_thinking", {"text": "I look.", "agui": {"messageId": "t1"}}),
        ("tool_executing", {"call": 1, "tool": "search", "input": {"q": "x"}, "agui": {"toolCallId": "x1"}}),
        ("progress", (0.5, "half")),
        (
            "tool_completed",
            {
                "call": 1,
                "tool": "search",
                "outcome": "completed",
                "output": "found",
                "agui": {"messageId": "o1"},
            },
        ),
        ("agui", {"type": "STATE_SNAPSHOT", "snapshot": {"n": 1}}),
        ("agui", {"type": "TEXT_MESSAGE_START", "messageId": "m1"}),
        ("delta", "So it is."),
    ]
    assert run.result == {"n": 42}
    assert run.failure is None


async def test_an_agent_asks_and_is_run_again() -> None:
    run = Recording()
    call: list[dict[str, Any]] = [
        {"type": "TOOL_CALL_CHUNK", "toolCallId": "x", "toolCallName": "look"},
        {"type": "TOOL_CALL_RESULT", "toolCallId": "x", "messageId": "o", "content": "found"},
    ]
    outcome = {"type": "interrupt", "interrupts": ASKED}
    assert await agui.forward(run, Stream([START, *call, {**END, "outcome": outcome}])) == ASKED
    assert await agui.forward(run, Stream([START, *call, END])) == []
    assert [payload["call"] for type, payload in run.told if type == "tool_executing"] == [1, 2]


@pytest.mark.parametrize(
    ("events", "kind", "message"),
    [
        (
            [START, {"type": "RUN_ERROR", "message": "no more money", "code": "quota"}],
            "quota",
            "no more money",
        ),
        ([START, {"type": "RUN_ERROR", "message": "no", "code": "\n"}], "AgentError", "no"),
        ([START, {**END, "outcome": {"type": "cancelled"}}], "AgentCancelled", "the agent was stopped"),
        ([START], "AgentStreamEnded", "the agent's stream ended before its run did"),
    ],
)
async def test_an_agent_that_fails_fails_the_run(events: Any, kind: str, message: str) -> None:
    run, stream = Recording(), Stream(events)
    with pytest.raises(AgentFailed) as failed:
        await agui.forward(run, stream)
    assert (failed.value.kind, failed.value.message) == run.failure == (kind, message)
    assert stream.closed


async def test_a_stream_that_is_cut_in_a_thought_has_told_it() -> None:
    run = Recording()
    with pytest.raises(AgentFailed):
        await agui.forward(run, Stream([START, {"type": "THINKING_TEXT_MESSAGE_CONTENT", "delta": "Hm"}]))
    assert [payload["text"] for _, payload in run.told] == ["Hm"]


async def test_what_is_none_of_agui_ends_the_stream() -> None:
    run, stream = Recording(), Stream([START, {"type": "TEXT_MESSAGE_CONTENT", "delta": "x"}, END])
    with pytest.raises(InvalidEvent) as refused:
        await agui.forward(run, stream)
    assert refused.value.field == "messageId"
    assert stream.closed


async def test_progress_and_names_that_no_run_takes_are_carried() -> None:
    run = Recording()
    custom: list[dict[str, Any]] = [
        {"type": "CUSTOM", "name": "agent_progress", "value": {"fraction": 7}},
        {"type": "CUSTOM", "name": "agent_completed", "value": None},
        {"type": "CUSTOM", "name": "a\nb", "value": None},
        {"type": "CUSTOM", "name": "note", "value": 1},
    ]
    long = "x" * 200
    await agui.forward(
        run,
        Stream([START, *custom, {"type": "TOOL_CALL_CHUNK", "toolCallId": "x", "toolCallName": long}, END]),
    )
    assert [type for type, _ in run.told] == ["agui"] * 3 + ["note", "tool_executing", "tool_completed"]
    assert run.told[4][1]["tool"] == "x" * 128
    assert run.told[4][1]["agui"]["toolCallName"] == long


async def test_server_sent_events() -> None:
    async def lines() -> AsyncIterator[str]:
        for line in [": hello", "event: x", 'data: {"type":', 'data:"A"}', "", "", 'data: {"type": "B"}']:
            yield line

    assert [event async for event in agui.sse(lines())] == [{"type": "A"}, {"type": "B"}]
