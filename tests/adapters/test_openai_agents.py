"""Streams of the OpenAI Agents SDK, forwarded into a run; by the shapes that they have."""

from __future__ import annotations

from types import SimpleNamespace as Shape
from typing import Any

import pytest

from trio_ws.adapters import openai_agents

from .recording import Recording, Stream


def raw(type: str, **fields: Any) -> Shape:
    return Shape(type="raw_response_event", data=Shape(type=type, **fields))


def item(name: str, **fields: Any) -> Shape:
    return Shape(type="run_item_stream_event", name=name, item=Shape(**fields))


AGENT = Shape(type="agent_updated_stream_event", new_agent=Shape(name="researcher"))
CALL = Shape(type="function_call", name="search", call_id="c1", id="f1", arguments='{"q": "x"}')
ANSWER = Shape(content=[Shape(type="output_text", text="The answer is 42.")])


async def told(items: list[Any]) -> list[tuple[str, Any]]:
    run, stream = Recording(), Stream(items)
    await openai_agents.forward(run, stream)
    assert stream.closed
    return run.told


async def test_a_stream_is_told_in_a_run() -> None:
    items = [
        AGENT,
        raw("response.created"),
        raw("response.reasoning_summary_text.delta", delta="I "),
        raw("response.reasoning_summary_text.delta", delta="search."),
        raw("response.completed"),
        item("reasoning_item_created", raw_item=Shape()),
        item("tool_called", raw_item=CALL),
        item("tool_output", raw_item={"call_id": "c1", "output": "found"}, output={"rows": (1, 2)}),
        raw("response.output_text.delta", delta="The answer "),
        raw("response.output_text.delta", delta="is 42."),
        item("message_output_created", raw_item=ANSWER),
        Shape(type="of_tomorrow"),
    ]
    assert await told(items) == [
        ("agent_updated", {"agent": "researcher"}),
        ("agent_thinking", {"text": "I search."}),
        ("tool_executing", {"call": 1, "tool": "search", "input": {"q": "x"}}),
        (
            "tool_completed",
            {"call": 1, "tool": "search", "outcome": "completed", "output": {"rows": [1, 2]}},
        ),
        ("delta", "The answer is 42."),
    ]


async def test_models_that_do_not_stream_are_told_whole() -> None:
    refused = Shape(content=[{"type": "refusal", "refusal": " Not that."}])
    items = [
        item("message_output_created", raw_item=ANSWER),
        item("message_output_created", raw_item=refused),
    ]
    assert await told(items) == [("delta", "The answer is 42. Not that.")]


async def test_what_the_models_side_runs_is_over_at_once() -> None:
    search = Shape(type="web_search_call", id="w1")
    assert await told([item("tool_called", raw_item=search)]) == [
        ("tool_executing", {"call": 1, "tool": "web_search_call"}),
        ("tool_completed", {"call": 1, "tool": "web_search_call", "outcome": "completed"}),
    ]


async def test_handoffs() -> None:
    handoff = Shape(type="function_call", name="transfer_to_writer", call_id="h1", id="f2", arguments="{}")
    items = [
        item("handoff_requested", raw_item=handoff),
        item("handoff_occured", raw_item={"call_id": "h1", "output": "writer"}),
        Shape(type="agent_updated_stream_event", new_agent=Shape(name="writer")),
    ]
    assert await told(items) == [
        ("tool_executing", {"call": 1, "tool": "transfer_to_writer", "input": {}}),
        (
            "tool_completed",
            {"call": 1, "tool": "transfer_to_writer", "outcome": "completed", "output": "writer"},
        ),
        ("agent_updated", {"agent": "writer"}),
    ]


async def test_what_an_agent_raises_passes_and_what_was_said_is_told() -> None:
    run, stream = Recording(), Stream([raw("response.output_text.delta", delta="So"), RuntimeError("no")])
    with pytest.raises(RuntimeError, match="no"):
        await openai_agents.forward(run, stream)
    assert run.told == [("delta", "So")]
    assert stream.closed
