"""Streams of LangGraph, forwarded into a run; by the shapes that they have. `test_examples.py` has the real package."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from trio_ws.adapters import langgraph

from .recording import Recording, Stream


def chunk(content: Any = "", *, id: str = "m1", last: bool = False, **more: Any) -> SimpleNamespace:
    fields = {"type": "AIMessageChunk", "additional_kwargs": {}, "tool_call_chunks": []}
    return SimpleNamespace(
        **fields | {"id": id, "content": content, "chunk_position": "last" if last else None} | more
    )


def piece(args: str, *, id: str | None = None, name: str | None = None) -> dict[str, Any]:
    return {"name": name, "args": args, "id": id, "index": 0}


def whole(content: Any, *, id: str = "m1", calls: Any = ()) -> SimpleNamespace:
    return SimpleNamespace(type="ai", id=id, content=content, additional_kwargs={}, tool_calls=list(calls))


def found(status: str = "success") -> SimpleNamespace:
    return SimpleNamespace(
        type="tool", id="m2", tool_call_id="c1", name="search", content="found", status=status
    )


CALL = {"name": "search", "args": {"q": "x"}, "id": "c1"}
THOUGHT = chunk([{"type": "reasoning", "reasoning": "I search.", "index": 0}])
MESSAGES = [
    THOUGHT,
    chunk(tool_call_chunks=[piece('{"q": ', id="c1", name="search")]),
    chunk(tool_call_chunks=[piece('"x"}')]),
    chunk(last=True),
    found(),
    chunk("The answer ", id="m3"),
    chunk([{"type": "text", "text": "is 42."}], id="m3"),
]
TOLD = [
    ("agent_thinking", {"text": "I search."}),
    ("tool_executing", {"call": 1, "tool": "search", "input": {"q": "x"}}),
    ("tool_completed", {"call": 1, "tool": "search", "outcome": "completed", "output": "found"}),
    ("delta", "The answer is 42."),
]


async def told(items: list[Any]) -> list[tuple[str, Any]]:
    run, stream = Recording(), Stream(items)
    assert await langgraph.forward(run, stream) == []
    assert stream.closed
    return run.told


async def test_messages() -> None:
    assert await told([(message, {"langgraph_node": "agent"}) for message in MESSAGES]) == TOLD


async def test_messages_of_subgraphs() -> None:
    assert await told([(("sub:1",), (message, {})) for message in MESSAGES]) == TOLD


async def test_updates_alone() -> None:
    steps = [
        {"agent": {"messages": [whole([{"type": "reasoning", "reasoning": "I search."}], calls=[CALL])]}},
        {"tools": {"messages": [found()]}},
        {"agent": {"messages": whole("The answer is 42.", id="m3")}},
        {"nothing": None},
    ]
    nodes = [("graph_node", {"node": node}) for node in ("agent", "tools", "agent", "nothing")]
    assert await told(steps) == [*TOLD[:2], nodes[0], TOLD[2], nodes[1], TOLD[3], nodes[2], nodes[3]]
    assert await told([(("sub:1",), step) for step in steps]) == await told(steps)


async def test_nothing_is_told_twice() -> None:
    items = [
        *(("messages", (message, {})) for message in MESSAGES[:4]),
        ("updates", {"agent": {"messages": [whole("", calls=[CALL])]}}),
        ("custom", {"fraction": 0.5, "message": "searching"}),
        ("custom", {"rows": {1, 2}}),
        ("messages", (MESSAGES[4], {})),
        ("updates", {"tools": {"messages": [found()]}}),
        *((("sub:1",), "messages", (message, {})) for message in MESSAGES[5:]),
        ("updates", {"agent": {"messages": [whole("The answer is 42.", id="m3")]}}),
        ("values", {"messages": []}),
        ("debug", {"type": "task"}),
    ]
    assert [(type, payload) for type, payload in await told(items) if type != "graph_node"] == [
        *TOLD[:2],
        ("progress", (0.5, "searching")),
        ("custom", {"rows": [1, 2]}),
        *TOLD[2:],
    ]


async def test_events() -> None:
    def event(kind: str, run: str, name: str = "x", **data: Any) -> dict[str, Any]:
        return {"event": kind, "run_id": run, "name": name, "data": data, "parent_ids": []}

    custom = {"event": "on_custom_event", "run_id": "r", "name": "snapshot", "data": {"n": 1}}
    items = [
        event("on_chain_start", "r0"),
        *(event("on_chat_model_stream", "r1", chunk=message) for message in MESSAGES[:4]),
        event("on_chat_model_end", "r1", output=whole("", calls=[CALL])),
        event("on_tool_start", "r2", "search", input={"q": "x"}),
        event("on_tool_end", "r2", "search", output=found()),
        event("on_tool_start", "r3", "search"),
        event("on_tool_error", "r3", "search", error=KeyError("secret")),
        custom,
        event("on_chat_model_end", "r4", output=whole("The answer is 42.", id="m3")),
    ]
    failed = {"call": 2, "tool": "search", "outcome": "failed", "error": {"kind": "KeyError"}}
    assert await told(items) == [
        *TOLD[:3],
        ("tool_executing", {"call": 2, "tool": "search"}),
        ("tool_completed", failed),
        ("custom", {"n": 1}),
        TOLD[3],
    ]


async def test_a_tool_that_failed_is_told_without_its_words() -> None:
    items = [("messages", (whole("", calls=[CALL]), {})), ("messages", (found("error"), {}))]
    assert (await told(items))[-1] == (
        "tool_completed",
        {"call": 1, "tool": "search", "outcome": "failed", "error": {"kind": "ToolError"}},
    )


async def test_a_graph_that_asks_tells_for_what_it_waits() -> None:
    asked = (SimpleNamespace(value={"question": "Deploy?"}, id="i1"),)
    run = Recording()
    assert await langgraph.forward(run, Stream([("updates", {"__interrupt__": asked})])) == [
        {"question": "Deploy?"}
    ]
    assert run.told == []


async def test_what_a_graph_raises_passes_and_what_was_said_is_told() -> None:
    run, stream = Recording(), Stream([(MESSAGES[5], {}), ValueError("no")])
    with pytest.raises(ValueError, match="no"):
        await langgraph.forward(run, stream)
    assert run.told == [("delta", "The answer ")]
    assert stream.closed


async def test_a_graph_is_asked_again_in_the_same_run() -> None:
    run = Recording()
    for _ in range(2):
        await langgraph.forward(
            run, Stream([("updates", {"agent": {"messages": [whole("", calls=[CALL])]}})])
        )
    assert [payload["call"] for type, payload in run.told if type == "tool_executing"] == [1, 2]
