"""Payloads: what becomes JSON and by which path, what is refused, and what is done to JSON that is there."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import json
import math
import os
import pathlib
import subprocess
import sys
import types
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_ws.core import payload
from trio_ws.errors import InvalidEvent

texts = st.text(st.characters(exclude_categories=["Cs"]))
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
plain = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)


def parse(encoded: bytes) -> Any:
    """As an independent parser reads it; whatever is no strict JSON fails."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(encoded.decode(), parse_constant=refuse)


# --- The fast path -----------------------------------------------------------------------------------


@given(plain)
def test_plain_values_go_there_and_back_on_the_fast_path(value: object) -> None:
    encoded, fast = payload.encode_by_path(value)
    assert fast
    assert parse(encoded) == value
    assert payload.decode(encoded) == value
    assert encoded.strip() == encoded
    assert payload.encode(value) == encoded


@given(plain, st.sampled_from([None, 1]), st.booleans())
def test_ready_json_is_taken_as_it_is(value: object, indent: int | None, ascii_only: bool) -> None:
    ready = json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode()
    for form in (ready, bytearray(ready), memoryview(ready), b" \r\n\t" + ready + b"\n"):
        assert payload.encode_by_path(form) == (ready, True)


@pytest.mark.parametrize(
    "value",
    [
        '\u2028\u2029\x7f\x00\x1f"\\/',
        "😀",
        "",
        {"": ""},
        {"a": [(1, 2), ()]},
        {1: "a", 1.5: "b"},
        2**64,
        -(2**70),
    ],
)
def test_awkward_plain_values(value: Any) -> None:
    encoded, fast = payload.encode_by_path(value)
    assert fast
    assert parse(encoded) == json.loads(json.dumps(value))


@pytest.mark.parametrize(
    ("ready", "words"),
    [
        (b"", "is not JSON"),
        (b"  ", "is not JSON"),
        (b"{} {}", "is not JSON"),
        (b"{},", "is not JSON"),
        (b"{'a':1}", "is not JSON"),
        (b"NaN", "is not JSON"),
        (b"[1,]", "is not JSON"),
        (b'{"a":1}\x00', "is not JSON"),
        (b"\x0b1", "is not JSON"),
        (b'"\\ud800"', "is not JSON"),
        (b'"\n"', "is not JSON"),
        (b"\xef\xbb\xbf1", "is not JSON"),
        (b'"\xff"', "is not UTF-8"),
        (b'"\xed\xa0\x80"', "is not UTF-8"),
        (b"1e999", "number out of range"),
        (b"[" + b"1" * 10_000 + b"]", "number out of range"),
        (b"[" * 60_000, "nested"),
        (b"[" * 129 + b"]" * 129, "nested more than 128 deep"),
    ],
)
def test_bytes_that_are_not_one_json_text_are_refused(ready: bytes, words: str) -> None:
    with pytest.raises(InvalidEvent, match=words) as caught:
        payload.encode(ready)
    assert caught.value.field == "payload"
    assert str(caught.value).startswith("payload ")


# --- The slow path -----------------------------------------------------------------------------------


class Color(enum.Enum):
    RED = "red"
    TWO = 2


@attrs.frozen
class Tool:
    zeta: str
    alpha: int = 1
    _mid: float = 0.5
    size: int = attrs.field(init=False, default=3)


@attrs.define(slots=False)
class Step:
    tool: Tool
    when: datetime.datetime | None = None
    rest: Any = None


@attrs.frozen
class BiggerTool(Tool):
    more: str = "yes"


@dataclasses.dataclass
class Point:
    y: int
    x: Any = None


@dataclasses.dataclass(slots=True, frozen=True)
class SlottedPoint:
    y: int
    x: Any = None


class Struct(msgspec.Struct):
    b: Any
    a: int = 1


class Pair(NamedTuple):
    left: int
    right: Any


class Text(str):
    __slots__ = ()


class Liar(Text):
    __slots__ = ()

    def __str__(self) -> str:
        return "ho"


class Letter(enum.StrEnum):
    A = "a"


class Level(enum.IntEnum):
    LOW = 1


class Number(int):
    pass


class Real(float):
    pass


TOOL = {"zeta": "grep", "alpha": 1, "_mid": 0.5, "size": 3}
NOON = datetime.datetime(2026, 1, 2, 12, 0, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Tool("grep"), TOOL),
        (BiggerTool("grep"), TOOL | {"more": "yes"}),
        (
            Step(BiggerTool("grep"), NOON, [Tool("grep")]),
            {"tool": TOOL | {"more": "yes"}, "when": "2026-01-02T12:00:00Z", "rest": [TOOL]},
        ),
        ({"deep": [{"tool": Tool("grep")}]}, {"deep": [{"tool": TOOL}]}),
        (Point(1, Point(2)), {"y": 1, "x": {"y": 2, "x": None}}),
        (SlottedPoint(1, {SlottedPoint(2)}), {"y": 1, "x": [{"y": 2, "x": None}]}),
        (Struct(pathlib.Path("/a")), {"b": "/a", "a": 1}),
        (Struct(Tool("grep")), None),
        (Pair(1, Color.RED), [1, "red"]),
        (Color.RED, "red"),
        ({"c": Color.TWO, Color.RED: 1}, {"c": 2, "red": 1}),
        (NOON, "2026-01-02T12:00:00Z"),
        (NOON.date(), "2026-01-02"),
        (NOON.time(), "12:00:00"),
        (datetime.timedelta(seconds=90), "PT90S"),
        (uuid.UUID(int=7), "00000000-0000-0000-0000-000000000007"),
        (decimal.Decimal("1.10"), "1.10"),
        (pathlib.Path("/tmp/x"), "/tmp/x"),
        ({pathlib.Path("/tmp"): 1}, {"/tmp": 1}),
        ({"raw": b"\x00\xff"}, {"raw": "AP8="}),
        ({3, 1, 2}, [1, 2, 3]),
        (frozenset([Color.RED]), ["red"]),
        (collections.OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (collections.defaultdict(list, {"a": [1]}), {"a": [1]}),
        (collections.Counter("aab"), {"a": 2, "b": 1}),
        (collections.deque([1, Color.RED]), [1, "red"]),
        (types.MappingProxyType({"a": Color.RED}), {"a": "red"}),
        (Text("hi"), "hi"),
        (Number(5), 5),
        (Real(2.5), 2.5),
        (Liar("hi"), "hi"),
        (Letter.A, "a"),
        (Level.LOW, 1),
        ({Text("k"): [Number(5)]}, {"k": [5]}),
    ],
    ids=repr,
)  # fmt: skip
def test_everything_else_goes_the_slow_path(value: object, expected: object) -> None:
    encoded, fast = payload.encode_by_path(value)
    assert not fast
    if expected is not None:
        assert list_items(parse(encoded)) == list_items(expected)


def list_items(value: object) -> object:
    """A value with the order of its keys, which is part of what is promised."""
    if isinstance(value, dict):
        return [(key, list_items(child)) for key, child in value.items()]
    return [list_items(child) for child in value] if isinstance(value, list) else value


def test_the_bytes_do_not_hang_on_the_hash_seed() -> None:
    code = (
        "import sys, enum, attrs; from trio_ws.core.payload import encode\n"
        "@attrs.frozen\n"
        "class A:\n  zeta: int = 1; alpha: object = frozenset('qwertyuiop'); mid: int = 3\n"
        "print(encode([A(), {'x', 'y', 'z', 3, None}]))"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(seen) == 1


# --- What is refused ---------------------------------------------------------------------------------


class Opaque:
    pass


class Hostile(Mapping[str, int]):
    """A mapping that fails in whatever way is asked of it."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __getitem__(self, key: str) -> int:
        raise self.error

    def __iter__(self) -> Iterator[str]:
        return iter(["a"])

    def __len__(self) -> int:
        return 1


def cyclic_list() -> object:
    cycle: list[object] = []
    cycle.append(cycle)
    return cycle


def cyclic_attrs() -> object:
    step = Step(Tool("x"))
    step.rest = {"again": step}
    return step


def nested(depth: int) -> object:
    value: object = 1
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


REFUSED: list[tuple[Callable[[], object], str]] = [
    (lambda: math.nan, "NaN or an infinity: JSON"),
    (lambda: [1.0, {"null": -math.inf}], r"NaN or an infinity at \[1\]\['null'\]"),
    (lambda: {"a": None, "b": (1, [math.inf])}, r"at \['b'\]\[1\]\[0\]"),
    (lambda: Point(1, math.nan), r"at \['x'\]"),
    (lambda: Struct(Real("inf")), r"at \['b'\]"),
    (lambda: {math.nan}, r"at \[0\]"),
    (lambda: "\ud800", "half of a surrogate"),
    (lambda: {"a": ["\udfff"]}, "half of a surrogate"),
    (lambda: {"\ud800": 1}, "half of a surrogate"),
    (lambda: Point(1, "\ud800"), "half of a surrogate"),
    (lambda: {Text("\ud800")}, "half of a surrogate"),
    (cyclic_list, "holds itself"),
    (cyclic_attrs, "holds itself"),
    (lambda: nested(129), "nested more than 128 deep$"),
    (lambda: nested(400), "nested more than 128 deep$"),
    (lambda: nested(100_000), "nested more than 128 deep, or"),
    (lambda: Point(1, nested(128)), "nested more than 128 deep$"),
    (lambda: Opaque(), "Opaque"),
    (lambda: {"a": [Opaque()]}, "Opaque"),
    (lambda: Struct(Opaque()), "Opaque"),
    (lambda: Opaque, "type"),
    (lambda: 1j, "complex"),
    (lambda: iter([1]), "list_iterator"),
    (lambda: ValueError("x"), "ValueError"),
    (lambda: {"a": msgspec.Raw(b"},{")}, "Raw"),
    (lambda: msgspec.Raw(b"1"), "Raw"),
    (lambda: msgspec.UNSET, "Unset"),
    (lambda: {None: 1}, "key"),
    (lambda: {(1, 2): 1}, "no JSON form"),
    (lambda: {frozenset([1]): 1}, "no JSON form"),
    (lambda: 10**5000, "4300 digits"),
    (lambda: Hostile(RuntimeError("bad\ud800 luck" + "x" * 9999)), "no JSON form .RuntimeError: bad"),
    (lambda: Hostile(RecursionError()), "nested"),
    (lambda: Hostile(KeyError("a")), "KeyError"),
]


@pytest.mark.parametrize(("make", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_what_has_no_json_form_is_refused_in_words_that_help(make: Callable[[], object], words: str) -> None:
    with pytest.raises(InvalidEvent, match=words) as caught:
        payload.encode(make())
    assert caught.value.field == "payload"
    assert str(caught.value).startswith("payload ")
    assert len(str(caught.value)) < 400


def test_128_levels_are_taken() -> None:
    assert payload.decode(payload.encode(nested(128))) == nested(128)
    assert payload.encode([[]] * 1000) == b"[" + b"[]," * 999 + b"[]]"
    assert payload.encode(b"[" * 128 + b"]" * 128) == b"[" * 128 + b"]" * 128


def test_the_word_null_in_a_text_is_no_nan() -> None:
    value = {"null": "null", "a": [None, 1.5, "null"]}
    assert parse(payload.encode(value)) == value


def test_a_shared_part_is_no_cycle() -> None:
    part = {"a": 1}
    assert parse(payload.encode([part, part])) == [part, part]


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.binary()
    | st.datetimes() | st.timedeltas() | st.uuids() | st.decimals() | st.complex_numbers() | st.sampled_from(Color)
    | st.builds(Opaque),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.builds(Point, inner, inner)
    | st.builds(Step, inner, inner, inner) | st.builds(Struct, inner)
    | st.dictionaries(st.text(st.characters()) | st.integers() | st.floats() | st.none(), inner, max_size=3),
    max_leaves=10,
)  # fmt: skip


@given(anything)
def test_encode_gives_strict_json_or_raises_invalid_event(value: object) -> None:
    try:
        encoded = payload.encode(value)
    except InvalidEvent:
        return
    assert payload.decode(encoded) == msgspec.json.decode(encoded)
    parse(encoded)
    assert not payload.is_large(value, 1 << 20)


# --- encode_small ------------------------------------------------------------------------------------


@given(anything)
def test_what_is_encoded_at_sight_needed_no_closer_look(value: object) -> None:
    encoded = payload.encode_small(value)
    assert encoded is None or (encoded, True) == payload.encode_by_path(value)


@pytest.mark.parametrize(
    "value",
    [
        None,
        "x",
        1,
        1.5,
        True,
        {},
        [],
        {"run": 7, "args": ["-r", ("x", None)], "at": {"line": 1.25, "ok": True}},
    ],
)
def test_what_is_plain_and_small_is_encoded_at_sight(value: object) -> None:
    assert payload.encode_small(value) == payload.encode(value)


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        {"a": [1.0, -math.inf]},
        {"a": "\ud800"},
        {"\ud800": 1},
        {1: "a"},
        {(1, 2): "a"},
        10**10_000,
        {"a": {3, 1, 2}},
        b"{}",
        Color.RED,
        Point(1, "x"),
        Text("x"),
        nested(20),
        cyclic_list(),
        object(),
        "x" * payload.SMALL,
        {"x" * payload.SMALL: 1},
        [0] * payload.SMALL,
        [[], {"a": ["x" * 5000, {"b": "x" * 5000}]}],
    ],
    ids=lambda value: f"{type(value).__name__}",
)
def test_everything_else_takes_a_closer_look(value: object) -> None:
    assert payload.encode_small(value) is None


# --- is_large ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "large"),
    [
        (None, False),
        ("x" * 900, False),
        ("x" * 1100, True),
        (b'"' + b"x" * 1100 + b'"', True),
        (memoryview(b"x" * 1100), True),
        ({"text": "x" * 1100}, True),
        ({"x" * 1100: 1}, True),
        ({"a": {"b": [{"c": "x" * 1100}]}}, True),
        (["x" * 30] * 40, True),
        ([1] * 1000, True),
        (Point(1, "x" * 1100), True),
        (Point(1, "x" * 100), False),
        (SlottedPoint(1, "x" * 1100), True),
        (Tool("x" * 1100), True),
        (Struct("x" * 1100), True),
        ({"x" * 1100}, True),
        (collections.deque(["x" * 1100]), True),
        (types.MappingProxyType({"a": "x" * 1100}), True),
        (Color.RED, False),
        (Opaque(), False),
        ({"run": 7, "tool": Tool("grep"), "args": ["-r", "x"]}, False),
    ],
    ids=lambda value: str(value) if isinstance(value, bool) else type(value).__name__,
)
def test_is_large(value: object, large: bool) -> None:
    assert payload.is_large(value, 1000) is large


@given(plain)
def test_what_is_not_large_is_not_far_over_the_limit(value: object) -> None:
    """Escapes (six bytes for one character) and long integers are the estimate's blind spot; no more than those."""
    if not payload.is_large(value, 200):
        assert len(payload.encode(value)) <= 200 * 6


@pytest.mark.parametrize(
    "make", [cyclic_list, cyclic_attrs, lambda: nested(100_000), lambda: Hostile(ValueError())]
)
def test_is_large_ends_and_raises_nothing(make: Callable[[], object]) -> None:
    assert payload.is_large(make(), 1 << 30) in (True, False)


def test_is_large_looks_at_a_bounded_number_of_values() -> None:
    looked = 0

    class Counting(dict[str, object]):
        def values(self) -> Any:
            nonlocal looked
            looked += 1
            return super().values()

    value: list[object] = [[Counting(a=[])] for _ in range(10_000)]
    assert payload.is_large(value, 1 << 30)
    assert looked < 2000


# --- truncate ----------------------------------------------------------------------------------------


@given(texts, st.integers(0, 60))
def test_a_text_is_cut_to_the_longest_prefix_that_fits(text: str, limit: int) -> None:
    cut = payload.truncate(payload.encode(text), limit)
    if cut is None:
        assert limit < 2
        return
    kept = parse(cut)
    assert text.startswith(kept)
    assert len(cut) <= limit
    if kept != text:
        assert len(payload.encode(text[: len(kept) + 1])) > limit


@given(st.dictionaries(texts, plain, max_size=6), st.integers(0, 200))
def test_of_an_object_only_the_longest_texts_are_cut(value: dict[str, Any], limit: int) -> None:
    encoded = payload.encode(value)
    cut = payload.truncate(encoded, limit)
    sizes = {key: len(payload.encode(child)) for key, child in value.items() if isinstance(child, str)}
    if cut is None:
        smallest = len(encoded) - sum(size - 2 for size in sizes.values())
        assert smallest > limit
        return
    assert len(cut) <= limit
    kept = parse(cut)
    assert list(kept) == list(value)
    for key, child in value.items():
        if isinstance(child, str):
            assert child.startswith(kept[key])
        else:
            assert kept[key] == child
    if len(encoded) <= limit:
        assert kept == value
    whole = [size for key, size in sizes.items() if kept[key] == value[key]]
    torn = [len(payload.encode(kept[key])) for key in sizes if kept[key] != value[key]]
    assert all(
        a <= b + 5 for a in whole for b in torn
    )  # to one length, but for what a character more would take


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.text("xyz", max_size=60) | st.integers()),
    st.integers(60, 200),
)
def test_no_more_is_cut_than_has_to_be(value: dict[str, Any], limit: int) -> None:
    encoded = payload.encode(value)
    cut = payload.truncate(encoded, limit)
    if cut is None or len(encoded) <= limit:
        return
    torn = [key for key, child in value.items() if parse(cut)[key] != child]
    assert limit - len(torn) < len(cut) <= limit


def test_escapes_and_characters_stay_whole() -> None:
    encoded = payload.encode('ab"é😀\u0001')
    assert encoded == b'"ab\\"\xc3\xa9\xf0\x9f\x98\x80\\u0001"'
    steps = {limit: payload.truncate(encoded, limit) for limit in range(len(encoded) + 1)}
    assert [parse(cut) for cut in steps.values() if cut] == (
        ["", "a", "ab", "ab", 'ab"', 'ab"', 'ab"é', 'ab"é', 'ab"é', 'ab"é']
        + ['ab"é😀'] * 6 + ['ab"é😀\u0001']
    )  # fmt: skip


def test_escaped_surrogate_pairs_stay_whole() -> None:
    ready = payload.encode(b'"a\\ud83d\\ude00b"')
    assert payload.truncate(ready, 7) == '"a😀"'.encode()
    assert payload.truncate(ready, 6) == b'"a"'


@pytest.mark.parametrize(
    "ready", [b"[1,2,3]", b"12345678", b"null", b'["text"]', b'{"a":{"b":"text"}}', b'{"abc":12345}']
)
def test_without_text_at_the_top_nothing_can_be_cut(ready: bytes) -> None:
    assert payload.truncate(ready, 5) is None


def test_room_is_shared_by_the_longest() -> None:
    value = {"run": "r7", "out": "x" * 1000, "err": "y" * 500, "n": 12, "note": "z" * 40}
    cut = payload.truncate(payload.encode(value), 300)
    assert cut is not None
    kept = parse(cut)
    assert len(cut) in (299, 300)
    assert (kept["run"], kept["n"], kept["note"]) == ("r7", 12, "z" * 40)
    assert len(kept["out"]) == len(kept["err"]) > 90


def test_what_fits_is_left_as_it_is() -> None:
    assert payload.truncate(b'{"a":1.10,"b":"x"}', 100) == b'{"a":1.10,"b":"x"}'
    assert payload.truncate(b'{ "a" : 1.10 , "b" : "\\u0041" }', 100) == b'{"a":1.10,"b":"\\u0041"}'


# --- append ------------------------------------------------------------------------------------------


def naive_append(a: Any, b: Any) -> Any:
    if isinstance(a, str) and isinstance(b, str):
        return a + b
    if isinstance(a, dict) and isinstance(b, dict):
        joined = dict(a)
        for key, value in b.items():
            both = isinstance(joined.get(key), str) and isinstance(value, str)
            joined[key] = joined[key] + value if both else value
        return joined
    return b


fields = st.dictionaries(st.sampled_from("abc"), texts | st.integers(0, 9) | st.lists(texts, max_size=2))
deltas = texts | fields | st.none() | st.lists(st.integers(), max_size=2)


@given(st.lists(texts, min_size=1) | st.lists(fields, min_size=1))
def test_append_agrees_with_a_naive_one(parts: list[Any]) -> None:
    expected = parts[0]
    for part in parts[1:]:
        expected = naive_append(expected, part)
    encoded = [payload.encode(part) for part in parts]
    assert list_items(parse(payload.append_all(encoded))) == list_items(expected)
    one_by_one = encoded[0]
    for part in encoded[1:]:
        assert payload.joinable(one_by_one, part)
        one_by_one = payload.append_all((one_by_one, part))
    assert parse(one_by_one) == expected


@given(deltas, deltas)
def test_what_is_not_joinable_takes_the_later_value(a: Any, b: Any) -> None:
    first, second = payload.encode(a), payload.encode(b)
    alike = (isinstance(a, str) and isinstance(b, str)) or (isinstance(a, dict) and isinstance(b, dict))
    assert payload.joinable(first, second) is alike
    assert parse(payload.append_all((first, second))) == naive_append(a, b)


def test_append_works_on_ready_json_with_space_in_it() -> None:
    a = payload.encode(b'  { "text" : "Hel" , "n" : 1 }\n')
    b = payload.encode(b'{"text": "lo\\u0021", "done": true}')
    assert parse(payload.append_all((a, b))) == {"text": "Hello!", "n": 1, "done": True}


def test_quotes_at_the_ends_of_a_text_are_text() -> None:
    parts = ['"', 'say "hi"', "\\", '"\\"']
    assert parse(payload.append_all([payload.encode(part) for part in parts])) == "".join(parts)


def test_one_delta_is_itself() -> None:
    assert payload.append_all([b'{ "a" : 1 }']) == b'{ "a" : 1 }'


# --- decode ------------------------------------------------------------------------------------------


@given(st.binary() | texts.map(str.encode))
def test_decode_raises_value_error_or_nothing(data: bytes) -> None:
    words = ""
    try:
        payload.decode(data)
    except ValueError as error:
        words = str(error)
    assert words.startswith(("is ", "holds ")) or parse(data) is not ...
