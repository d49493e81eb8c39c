"""The examples with real agent frameworks: what they tell in a run, their models scripted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ..frameworks import need_frameworks, run

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples" / "agents"
pytestmark = pytest.mark.integration

# It runs an example's `work` in a run that notes what it is told.
DRIVER = """
import asyncio, importlib, json, sys
from tests.adapters.recording import Recording

sys.path.insert(0, sys.argv[1])
run = Recording()
asyncio.run(importlib.import_module(sys.argv[2]).work(run, "What is the answer?"))
print(json.dumps([run.told, run.result]))
"""


def told_by(example: str) -> tuple[list[list[Any]], Any]:
    need_frameworks()
    told, result = json.loads(run("-c", DRIVER, EXAMPLES, example).splitlines()[-1])
    return told, result


CALL = {"call": 1, "tool": "search"}
FOUND = CALL | {"outcome": "completed", "output": "all about the question"}


def test_langgraph() -> None:
    told, _ = told_by("langgraph_agent")
    assert [event for event in told if event[0] != "graph_node"] == [
        ["agent_thinking", {"text": "I look it up."}],
        ["tool_executing", CALL | {"input": {"q": "the question"}}],
        ["progress", [0.5, "searching"]],
        ["tool_completed", FOUND],
        ["delta", "The answer is 42."],
    ]
    assert [event[1]["node"] for event in told if event[0] == "graph_node"] == ["agent", "tools", "agent"]


def test_openai_agents() -> None:
    told, result = told_by("openai_agent")
    assert told == [
        ["agent_updated", {"agent": "researcher"}],
        ["agent_thinking", {"text": "I look it up."}],
        ["tool_executing", CALL | {"input": {"q": "the question"}}],
        ["tool_completed", FOUND],
        ["delta", "The answer is 42."],
    ]
    assert result == {"answer": "The answer is 42."}
