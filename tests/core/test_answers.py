"""Which questions can be asked, and which answers are valid."""

from __future__ import annotations

from typing import Any

import pytest

from trio_ws.core.answers import MAX_ANSWER, check_question, is_valid
from trio_ws.errors import InvalidEvent

FORM = {
    "type": "object",
    "title": "Where to",
    "required": ["env"],
    "properties": {
        "env": {"enum": ["staging", "production"]},
        "replicas": {"type": "integer", "minimum": 1, "maximum": 9},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 3}, "maxItems": 2},
    },
}

ANSWERS: list[tuple[dict[str, Any], Any, bool]] = [
    ({}, {"any": ["thing"]}, True),
    ({}, None, True),
    ({}, "x" * MAX_ANSWER, False),
    ({"choices": ["yes", "no"]}, "yes", True),
    ({"choices": ["yes", "no"]}, "maybe", False),
    ({"choices": ["yes", "no"]}, ["yes"], False),
    ({"schema": FORM}, {"env": "staging"}, True),
    ({"schema": FORM}, {"env": "staging", "replicas": 2.0, "tags": ["a"], "more": 1}, True),
    ({"schema": FORM}, {"replicas": 2}, False),
    ({"schema": FORM}, {"env": "moon"}, False),
    ({"schema": FORM}, {"env": "staging", "replicas": 0}, False),
    ({"schema": FORM}, {"env": "staging", "replicas": 10}, False),
    ({"schema": FORM}, {"env": "staging", "replicas": 1.5}, False),
    ({"schema": FORM}, {"env": "staging", "replicas": True}, False),
    ({"schema": FORM}, {"env": "staging", "tags": ["long"]}, False),
    ({"schema": FORM}, {"env": "staging", "tags": ["a", "b", "c"]}, False),
    ({"schema": FORM}, "staging", False),
    ({"schema": {"type": ["string", "null"], "minLength": 2}}, None, True),
    ({"schema": {"type": ["string", "null"], "minLength": 2}}, "x", False),
    ({"schema": {"type": "boolean"}}, 1, False),
    ({"schema": {"const": 1}}, True, False),
    ({"schema": {"const": 1}}, 1, True),
    ({"schema": {"type": "array", "minItems": 1}}, [], False),
]


@pytest.mark.parametrize(("question", "answer", "valid"), ANSWERS)
def test_an_answer(question: dict[str, Any], answer: Any, valid: bool) -> None:
    check_question("?", question.get("choices"), question.get("schema"))
    assert is_valid(answer, question) is valid


def nested(depth: int) -> dict[str, Any]:
    return {"items": nested(depth - 1)} if depth else {}


REFUSED: list[tuple[Any, Any, Any, str]] = [
    ("", None, None, "prompt"),
    (7, None, None, "prompt"),
    ("x" * 4097, None, None, "prompt"),
    ("?", [], None, "choices"),
    ("?", "yes", None, "choices"),
    ("?", ["a", "a"], None, "choices"),
    ("?", ["a", 7], None, "choices"),
    ("?", ["a"], {}, "schema"),
    ("?", None, {"pattern": "x"}, "schema"),
    ("?", None, {"type": "text"}, "schema"),
    ("?", None, {"type": []}, "schema"),
    ("?", None, {"enum": []}, "schema"),
    ("?", None, {"minimum": "1"}, "schema"),
    ("?", None, {"properties": {"a": {"$ref": "#"}}}, "schema"),
    ("?", None, {"items": [1]}, "schema"),
    ("?", None, {"required": [1]}, "schema"),
    ("?", None, {"title": "x" * 5000}, "schema"),
    ("?", None, {"enum": [object()]}, "schema"),
    ("?", None, nested(20), "schema"),
    ("?", None, ["string"], "schema"),
]


@pytest.mark.parametrize(("prompt", "choices", "schema", "field"), REFUSED)
def test_a_question_that_can_not_be_asked(prompt: Any, choices: Any, schema: Any, field: str) -> None:
    with pytest.raises(InvalidEvent) as info:
        check_question(prompt, choices, schema)
    assert info.value.field == field
