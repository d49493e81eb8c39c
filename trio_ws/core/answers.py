"""Questions to users, and which answers are valid: one of some choices, or what a small part of JSON Schema describes.

A question whose schema holds a word that is not looked at here is refused when it is asked: nobody shall believe that
an answer was checked which was not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from ..errors import InvalidEvent

MAX_PROMPT: Final = 4096
"""Characters of a prompt."""

MAX_CHOICES: Final = 32
"""Choices of one question; each of at most 256 characters."""

MAX_SCHEMA: Final = 4096
"""Bytes of JSON of a schema."""

MAX_ANSWER: Final = 16384
"""Bytes of JSON of an answer."""

MAX_DEPTH: Final = 16

_dumps = msgspec.json.Encoder().encode


def check_question(prompt: Any, choices: Any, schema: Any) -> None:
    """Whether a question can be asked so.

    Args:
      prompt: a text that is not empty.
      choices: some texts, or None.
      schema: the JSON schema of an answer, or None; not with `choices`.

    Raises:
      InvalidEvent: its `field` says what is wrong.
    """
    if not isinstance(prompt, str) or not 0 < len(prompt) <= MAX_PROMPT:
        raise InvalidEvent(f"prompt must be a text of 1 to {MAX_PROMPT} characters", field="prompt")
    if choices is not None:
        ok = isinstance(choices, list | tuple) and all(
            isinstance(c, str) and 0 < len(c) <= 256 for c in choices
        )
        if not ok or not 0 < len(choices) <= MAX_CHOICES or len(set(choices)) < len(choices):
            raise InvalidEvent(
                f"choices must be 1 to {MAX_CHOICES} different texts of 1 to 256 characters", field="choices"
            )
    if schema is not None:
        if choices is not None:
            raise InvalidEvent("a question has choices or a schema, not both", field="schema")
        try:
            if len(_dumps(schema)) > MAX_SCHEMA:
                raise InvalidEvent(f"schema is over {MAX_SCHEMA} bytes", field="schema")
            _check_schema(schema, 0)
        except InvalidEvent:
            raise
        except Exception as error:
            raise InvalidEvent(f"schema: {error!s:.200}", field="schema") from None


def is_valid(answer: Any, question: Mapping[str, Any]) -> bool:
    """Whether `answer` answers a question that was asked with these ``choices`` or this ``schema``, if any."""
    if len(_dumps(answer)) > MAX_ANSWER:
        return False
    choices, schema = question.get("choices"), question.get("schema")
    if choices is not None:
        return isinstance(answer, str) and answer in choices
    return schema is None or _fits(answer, schema)


def _check_schema(schema: Any, depth: int) -> None:
    if not isinstance(schema, Mapping):
        raise InvalidEvent("schema must be an object", field="schema")
    if depth > MAX_DEPTH:
        raise InvalidEvent(f"schema is nested more than {MAX_DEPTH} deep", field="schema")
    for word, value in schema.items():
        if word in _WORDS:
            check, _ = _WORDS[word]
            if not check(value):
                raise InvalidEvent(f"schema: {word} can't be {value!r:.80}", field="schema")
        elif word not in _TOLD:
            known = ", ".join((*_WORDS, *_TOLD))
            raise InvalidEvent(f"schema: {word!r:.80} is not known here, only {known}", field="schema")
    for inner in (*schema.get("properties", {}).values(), *([schema["items"]] if "items" in schema else [])):
        _check_schema(inner, depth + 1)


def _fits(value: Any, schema: Mapping[str, Any]) -> bool:
    return all(_WORDS[word][1](value, wanted) for word, wanted in schema.items() if word in _WORDS)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return _is_number(value) and float(value).is_integer()


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_names(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(name, str) for name in value)


_TYPES: Final[dict[str, Callable[[Any], bool]]] = {
    "string": lambda value: isinstance(value, str),
    "number": _is_number,
    "integer": _is_whole,
    "boolean": lambda value: isinstance(value, bool),
    "object": lambda value: isinstance(value, Mapping),
    "array": lambda value: isinstance(value, list | tuple),
    "null": lambda value: value is None,
}


def _same(a: Any, b: Any) -> bool:
    """Equal as JSON: true is not 1."""
    return bool(a == b) and isinstance(a, bool) == isinstance(b, bool)


def _has_type(value: Any, wanted: str | Sequence[str]) -> bool:
    return any(_TYPES[name](value) for name in ([wanted] if isinstance(wanted, str) else wanted))


def _is_type(value: Any) -> bool:
    names = [value] if isinstance(value, str) else value
    return _is_names(names) and bool(names) and all(name in _TYPES for name in names)


_Word = tuple[Callable[[Any], bool], Callable[[Any, Any], bool]]

# Each word: what it may be in a schema, and whether a value fits it. As in JSON Schema, what a word says nothing of
# fits.
_WORDS: Final[dict[str, _Word]] = {
    "type": (_is_type, _has_type),
    "enum": (
        lambda wanted: isinstance(wanted, list | tuple) and bool(wanted),
        lambda value, wanted: any(_same(value, one) for one in wanted),
    ),
    "const": (lambda wanted: True, _same),
    "minimum": (_is_number, lambda value, wanted: not _is_number(value) or value >= wanted),
    "maximum": (_is_number, lambda value, wanted: not _is_number(value) or value <= wanted),
    "minLength": (_is_count, lambda value, wanted: not isinstance(value, str) or len(value) >= wanted),
    "maxLength": (_is_count, lambda value, wanted: not isinstance(value, str) or len(value) <= wanted),
    "minItems": (_is_count, lambda value, wanted: not isinstance(value, list) or len(value) >= wanted),
    "maxItems": (_is_count, lambda value, wanted: not isinstance(value, list) or len(value) <= wanted),
    "required": (
        _is_names,
        lambda value, wanted: not isinstance(value, Mapping) or all(name in value for name in wanted),
    ),
    "items": (
        lambda wanted: isinstance(wanted, Mapping),
        lambda value, wanted: not isinstance(value, list) or all(_fits(item, wanted) for item in value),
    ),
    "properties": (
        lambda wanted: isinstance(wanted, Mapping) and _is_names(list(wanted)),
        lambda value, wanted: (
            not isinstance(value, Mapping)
            or all(_fits(value[name], inner) for name, inner in wanted.items() if name in value)
        ),
    ),
}

_TOLD: Final = ("title", "description", "default", "examples", "format", "$schema")
"""Words that tell a person, or a form, of an answer, and check nothing."""
