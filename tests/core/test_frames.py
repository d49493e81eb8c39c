"""What is read: frames, mistakes and what is no frame at all are told apart, and nothing breaks the reader."""

from __future__ import annotations

import contextlib
import json
import string
import sys
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from trio_ws.core import frames, payload
from trio_ws.core.frames import (
    Ack,
    Auth,
    Bye,
    Hello,
    Message,
    Mistake,
    Nack,
    NotAFrame,
    Ping,
    Pong,
    decode_client,
    decode_server,
)


def kinds(decoded: list[Any]) -> list[str]:
    return [type(frame).__name__ for frame in decoded]


def message(payload_json: bytes) -> bytes:
    return b'{"t":"message","id":"m1","type":"chat","payload":' + payload_json + b"}"


# --- Frames ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "frame"),
    [
        (b'{"t":"ack","seq":5}', Ack(seq=5)),
        (b' {"t": "ack",\r\n\t"seq": 5 } ', Ack(seq=5)),
        (b'{"seq":5,"t":"ack"}', Ack(seq=5)),
        (b'{"t":"ack","seq":-0}', Ack(seq=0)),
        (b'{"t":"ack","seq":5,"later":{"versions":["may","add"]}}', Ack(seq=5)),
        (b'{"t":"\\u0061ck","seq":5}', Ack(seq=5)),
        (b'{"t":"ack","seq":5,"x":1e999}', Ack(seq=5)),
        (b'{"t":"ack","seq":5,"x":"\xc3\xa9"}', Ack(seq=5)),
        (b'{"t":"nack","seq":9223372036854775807}', Nack(seq=2**63 - 1)),
        (b'{"t":"auth","token":"a.b.c"}', Auth(token="a.b.c")),
        (b'{"t":"auth","token":""}', Auth(token="")),
        (b'{"t":"ping"}', Ping()),
        (b'{"t":"pong","extra":null}', Pong()),
        (b'{"t":"bye"}', Bye()),
        (b'{"t":"hello"}', Hello()),
        (b'{"t":"hello","seq":null,"token":null,"session":null}', Hello()),
        (
            b'{"t":"hello","token":"k","user":"u","session":"s","epoch":"e","seq":3,"from":"pending"}',
            Hello(token="k", user="u", session="s", epoch="e", seq=3, from_="pending"),
        ),
    ],
)
def test_a_frame(data: bytes, frame: frames.ClientFrame) -> None:
    assert decode_client(data) == [frame]
    assert decode_client(data.decode()) == [frame]


@pytest.mark.parametrize(
    "payload_json",
    [
        b"null",
        b"0",
        b'""',
        b"{}",
        b"[1, 2 ]",
        b'{"a":"b\\"c"}',
        b'"\xf0\x9f\x98\x80"',
        b'"\\ud83d\\ude00"',
        b'"\\u0000"',
    ],
)
def test_a_message_keeps_its_payload_as_json(payload_json: bytes) -> None:
    [frame] = decode_client(message(payload_json))
    assert isinstance(frame, Message)
    assert (frame.id, frame.type) == ("m1", "chat")
    assert json.loads(bytes(frame.payload)) == json.loads(payload_json)


def test_in_a_payload_the_last_of_several_equal_keys_counts() -> None:
    [frame] = decode_client(message(b'{"a":1,"a":2}'))
    assert isinstance(frame, Message)
    assert payload.decode(frame.payload) == {"a": 2}


def test_a_payload_does_not_keep_the_message_alive() -> None:
    data = message(b'"x"') + b" " * 50_000
    references = sys.getrefcount(data)
    [frame] = decode_client(data)
    assert isinstance(frame, Message)
    assert sys.getrefcount(data) == references
    assert bytes(frame.payload) == b'"x"'


@pytest.mark.parametrize("name", ["x", "x" * 128, "漢" * 128, "\\u0000", '\\"quoted\\"'])
def test_names_of_1_to_128_characters(name: str) -> None:
    data = f'{{"t":"message","id":"{name}","type":"{name}","payload":1}}'
    [frame] = decode_client(data.encode())
    assert isinstance(frame, Message)
    assert frame.id == frame.type == json.loads(f'"{name}"')


@pytest.mark.parametrize(
    "data",
    [
        b'{"t":"ack","seq":5}',
        b'{"seq": 5, "t": "nack"}',
        b'{"t":"pong"}',
        b'{"t":"ping"}',
        b'{"t":"bye"}',
        b'{"t":"auth","token":"a.b.c"}',
        message(b'{"text":"a \\"word\\""}'),
        b'[{"t":"ack","seq":5},{"t":"pong"}]',
    ],
)
def test_the_frames_of_every_day_need_no_closer_look(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(frames, "_look_closely")
    assert decode_client(data)


# --- Mistakes ----------------------------------------------------------------------------------------

MISTAKES = [
    # What t is
    (b"{}", None, "t is missing"),
    (b'{"seq":1}', None, "t is missing"),
    (b'{"t":"nope"}', None, "unknown t"),
    (b'{"t":"Ack","seq":1}', None, "unknown t"),
    (b'{"t":"event","seq":1}', None, "unknown t"),
    (b'{"t":null}', None, "unknown t"),
    (b'{"t":1}', None, "unknown t"),
    (b'{"t":["ack"],"seq":1}', None, "unknown t"),
    (b'{"t":{"t":"ack"},"seq":1}', None, "unknown t"),
    (b'{"t":"\\ud800"}', None, "unknown t"),
    (b'{"t":"ack\\u0000","seq":1}', None, "unknown t"),
    # What seq is: a whole number from 0
    (b'{"t":"ack"}', "ack", "missing required field `seq`"),
    (b'{"t":"ack","seq":-1}', "ack", ">= 0"),
    (b'{"t":"ack","seq":1.5}', "ack", "got `float`"),
    (b'{"t":"ack","seq":2.0}', "ack", "got `float`"),
    (b'{"t":"ack","seq":1e3}', "ack", "got `float`"),
    (b'{"t":"ack","seq":1e999}', "ack", "$.seq"),
    (b'{"t":"ack","seq":true}', "ack", "got `bool`"),
    (b'{"t":"ack","seq":null}', "ack", "got `null`"),
    (b'{"t":"ack","seq":"1"}', "ack", "got `str`"),
    (b'{"t":"ack","seq":[1]}', "ack", "got `array`"),
    (b'{"t":"ack","seq":9223372036854775808}', "ack", "$.seq"),
    (b'{"t":"ack","seq":18446744073709551616}', "ack", "$.seq"),
    (b'{"t":"ack","seq":' + b"1" * 10_000 + b"}", "ack", "$.seq"),
    (b'{"t":"nack","seq":-1}', "nack", ">= 0"),
    (b'{"t":"hello","seq":-1}', "hello", ">= 0"),
    (b'{"t":"hello","seq":1.0}', "hello", "got `float`"),
    # A key twice
    (b'{"t":"ack","seq":1,"seq":1}', "ack", "twice"),
    (b'{"t":"ack","t":"ack","seq":1}', "ack", "twice"),
    (b'{"t":"ack","t":"ping","seq":1}', "ping", "twice"),
    (b'{"t":"ack","seq":1,"x":1,"x":2}', "ack", "twice"),
    (b'{"t":"ping","\\u0074":"ping"}', "ping", "twice"),
    (b'{"t":"message","id":"a","id":"b","type":"c","payload":1}', "message", "twice"),
    (b'{"t":"message","id":"a","type":"c","payload":"x","payload":1}', "message", "twice"),
    # hello
    (b'{"t":"hello","from":"later"}', "hello", "retained, pending, now or snapshot"),
    (b'{"t":"hello","from":null}', "hello", "$.from"),
    (b'{"t":"hello","from":1}', "hello", "$.from"),
    (b'{"t":"hello","token":1}', "hello", "$.token"),
    (b'{"t":"hello","user":["ada"]}', "hello", "$.user"),
    (b'{"t":"hello","session":{}}', "hello", "$.session"),
    (b'{"t":"hello","epoch":7}', "hello", "$.epoch"),
    # auth
    (b'{"t":"auth"}', "auth", "`token`"),
    (b'{"t":"auth","token":null}', "auth", "$.token"),
    # message
    (b'{"t":"message","type":"c","payload":1}', "message", "`id`"),
    (b'{"t":"message","id":"a","payload":1}', "message", "`type`"),
    (b'{"t":"message","id":"a","type":"c"}', "message", "`payload`"),
    (b'{"t":"message","id":"","type":"c","payload":1}', "message", "length >= 1"),
    (b'{"t":"message","id":"' + b"x" * 129 + b'","type":"c","payload":1}', "message", "length <= 128"),
    (b'{"t":"message","id":"a","type":"","payload":1}', "message", "length >= 1"),
    (b'{"t":"message","id":"a","type":"' + b"x" * 129 + b'","payload":1}', "message", "length <= 128"),
    (b'{"t":"message","id":1,"type":"c","payload":1}', "message", "$.id"),
    (message(b"1e999"), "message", "payload holds a number out of range"),
    (message(b"[" + b"1" * 10_000 + b"]"), "message", "payload holds a number out of range"),
    (message(b"[" * 129 + b"]" * 129), "message", "payload is nested more than 128 deep"),
    # Half of a surrogate pair, escaped: JSON by its grammar, and no text
    (message(b'"\\ud800"'), "message", "surrogate"),
    (message(b'"\\udc00\\ud800"'), "message", "surrogate"),
    (b'{"t":"auth","token":"\\ud83d"}', "auth", "surrogate"),
    (b'{"t":"ping","\\ud800":1}', "ping", "surrogate"),
]


@pytest.mark.parametrize(("data", "kind", "words"), MISTAKES, ids=[str(i) for i in range(len(MISTAKES))])
def test_a_mistake(data: bytes, kind: str | None, words: str) -> None:
    for form in (data, data.decode()):
        [mistake] = decode_client(form)
        assert isinstance(mistake, Mistake)
        assert mistake.kind == kind
        assert words in mistake.reason


@pytest.mark.parametrize(("data", "kind", "words"), MISTAKES, ids=[str(i) for i in range(len(MISTAKES))])
def test_a_mistake_spoils_nothing_around_it(data: bytes, kind: str | None, words: str) -> None:
    decoded = decode_client(b'[{"t":"ack","seq":1} ,' + data + b",\n" + message(b'"},{"') + b"]")
    assert kinds(decoded) == ["Ack", "Mistake", "Message"]
    assert decoded[1] == decode_client(data)[0]


def test_a_mistake_quotes_nothing_of_what_was_sent() -> None:
    for data in (
        b'{"t":"SECRET"}',
        b'{"t":"hello","from":"SECRET"}',
        b'{"t":"hello","token":["SECRET"]}',
        b'{"t":"ack","seq":"SECRET"}',
        b'{"t":"auth","token":"SECRET","token":"SECRET"}',
        b'{"t":"message","SECRET":1}',
        message(b'{"SECRET":1e999}'),
    ):
        [mistake] = decode_client(data)
        assert isinstance(mistake, Mistake)
        assert "SECRET" not in repr(mistake)


def test_what_follows_the_mistake_that_closes_the_connection_is_left_out() -> None:
    nine = b"{}," * (frames.MISTAKES_TO_CLOSE - 1)
    assert len(decode_client(b"[" + nine + b'{"t":"ping"}]')) == frames.MISTAKES_TO_CLOSE
    decoded = decode_client(b"[" + nine + b'{"t":"ping"},{},{"t":"ping"},{}]')
    assert kinds(decoded) == ["Mistake"] * 9 + ["Ping", "Mistake"]


# --- What is no frame at all -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not JSON"),
        (b" ", "not JSON"),
        (b"hello", "not JSON"),
        (b'{"t":"ack","seq":1', "not JSON"),
        (b'{"t":"ack","seq":01}', "not JSON"),
        (b'{"t":"ack","seq":+1}', "not JSON"),
        (b'{"t":"ack","seq":0x1}', "not JSON"),
        (b'{"t":"ack","seq":}', "not JSON"),
        (b'{"t":"ack","seq":1,}', "not JSON"),
        (b"{'t':'ping'}", "not JSON"),
        (b'{"t":"ping"} x', "not JSON"),
        (b'{"t":"ping"}{"t":"ping"}', "not JSON"),
        (b'{"t":"ping"}\x00', "not JSON"),
        (b'\x00{"t":"ping"}', "not JSON"),
        (b'\x0b{"t":"ping"}', "not JSON"),
        (b'\xc2\xa0{"t":"ping"}', "not JSON"),
        (b'{"t":"ping","x":"\x00"}', "not JSON"),
        (b'{"t":"ping","x":"\n"}', "not JSON"),
        (b'{"t":"ping","x":"\\x"}', "not JSON"),
        (b'\xef\xbb\xbf{"t":"ping"}', "not JSON"),
        (b'{"t":"ack","seq":NaN}', "not JSON"),
        (b'{"t":"ping","x":Infinity}', "not JSON"),
        (b'{"t":"ping","x":-Infinity}', "not JSON"),
        (message(b"NaN"), "not JSON"),
        (b"\xff", "not UTF-8"),
        (b'{"t":"ping","x":"\xff"}', "not UTF-8"),
        (b'{"t":"ping","\xff":1}', "not UTF-8"),
        (b'{"t":"ping","x":"\xed\xa0\x80"}', "not UTF-8"),
        (b'{"t":"ping","x":"\xc0\xaf"}', "not UTF-8"),
        (message(b'"\xff"'), "not UTF-8"),
        (b'{"t":"auth","token":"\xff"}', "not UTF-8"),
        ('{"t":"ping"}'.encode("utf-16"), "not UTF-8"),
        (b"null", "neither"),
        (b"true", "neither"),
        (b"1", "neither"),
        (b"1" * 10_000, "neither"),
        (b'"ack"', "neither"),
        (b"[]", "neither"),
        (b"[1]", "neither"),
        (b"[null]", "neither"),
        (b'[[{"t":"ping"}]]', "neither"),
        (b'[{"t":"ping"},1]', "neither"),
        (b'[{"t":"ping"},[]]', "neither"),
        (b"[" * 60_000, "nested too deeply"),
        (b"[" * 60_000 + b"]" * 60_000, "nested too deeply"),
        (b'{"a":' * 12_000 + b"1" + b"}" * 12_000, "nested too deeply"),
        (message(b"[" * 30_000 + b"]" * 30_000), "nested too deeply"),
        (b'{"t":"ping","x":' + b"[" * 30_000 + b"]" * 30_000 + b"}", "nested too deeply"),
    ],
)
def test_no_frame(data: bytes, words: str) -> None:
    with pytest.raises(NotAFrame, match=words) as caught:
        decode_client(data)
    assert caught.value.reason == words or words == "neither"
    with pytest.raises(NotAFrame):
        decode_server(data)


@pytest.mark.parametrize(
    "data", [b'{"t":"SECRET"', b'"SECRET"', b'["SECRET"]', b"SECRET", b'{"t":"ping","x":"SECRET\xff"}']
)
def test_the_refusal_quotes_nothing_of_what_was_sent(data: bytes) -> None:
    with pytest.raises(NotAFrame) as caught:
        decode_client(data)
    assert "SECRET" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__


def test_a_str_with_a_lone_surrogate_is_no_exception_either() -> None:
    assert decode_client('{"t":"\ud800"}') == [Mistake("unknown t", None)]
    assert kinds(decode_client('{"t":"auth","token":"\ud800"}')) == ["Mistake"]


@pytest.mark.parametrize("depth", range(880, 1010, 2))
def test_no_depth_slips_through_between_two_parsers(depth: int) -> None:
    """Each parser gives up at a depth of its own, which also hangs on how deep the stack is already."""
    deep = b"[" * depth + b"]" * depth
    for data in (deep, b'{"t":"ping","x":' + deep + b"}", b'[{"t":"x"},' + message(deep) + b"]"):
        assert read(data)
        with contextlib.suppress(NotAFrame):
            decode_server(data)


# --- Properties --------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
keys = st.sampled_from(["t", "seq", "id", "type", "payload", "token", "from", "user", "session", "epoch"])
tags = st.sampled_from(
    ["hello", "ack", "nack", "message", "auth", "ping", "pong", "bye", "event", "gap", "live"]
)
near_frames = st.builds(
    lambda tag, rest: {"t": tag, **rest},
    tags | json_values,
    st.dictionaries(keys | st.text(max_size=3), json_values),
)
near_messages = near_frames | st.lists(near_frames | json_values, max_size=5)


def read(data: bytes | str) -> list[frames.ClientFrame | Mistake] | str:
    """What decode_client makes of it, or why it is no frame; nothing else may come of it."""
    try:
        return decode_client(data)
    except NotAFrame as refusal:
        return refusal.reason


def holds(data: bytes | str) -> None:
    """Reading raises NotAFrame or nothing, and both forms of a text are read alike."""
    decoded = read(data)
    assert decoded
    for frame in decoded if isinstance(decoded, list) else []:
        assert isinstance(frame, frames.ClientFrame | Mistake)
        if isinstance(frame, Message):
            payload.decode(frame.payload)
    if isinstance(data, str) and not any("\ud800" <= c <= "\udfff" for c in data):
        assert strip(read(data.encode())) == strip(decoded)
    with contextlib.suppress(NotAFrame):
        decode_server(data)


def strip(decoded: object) -> object:
    """Decoded frames in a form that can be compared: a Raw is compared by identity."""
    if not isinstance(decoded, list):
        return decoded
    return [(f.id, f.type, bytes(f.payload)) if isinstance(f, Message) else repr(f) for f in decoded]


@given(st.binary())
def test_any_bytes(data: bytes) -> None:
    holds(data)


@given(st.text())
def test_any_text(data: str) -> None:
    holds(data)


@given(st.text(string.punctuation + "tackseqping0123456789 \\u", max_size=60))
@example('{"t":"ack","seq":1e5}')
def test_any_text_that_is_nearly_json(data: str) -> None:
    holds(data)


@given(json_values | near_messages, st.booleans())
def test_any_json(value: object, ascii_only: bool) -> None:
    holds(json.dumps(value, ensure_ascii=ascii_only))


@given(near_messages, st.data())
def test_any_json_that_was_cut_or_mangled(value: object, data: st.DataObject) -> None:
    text = bytearray(json.dumps(value).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text)))
        text[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=2))
    holds(bytes(text))


@given(
    st.lists(
        st.integers(0, 2**63 - 1).map(lambda n: {"t": "ack", "seq": n}) | near_frames, min_size=1, max_size=9
    )
)
def test_a_batch_is_its_objects_one_by_one(batch: list[dict[str, Any]]) -> None:
    texts = [json.dumps(item) for item in batch]
    assume("NaN" not in (whole := ",".join(texts)) and "Infinity" not in whole)
    assert strip(decode_client(f"[{whole}]")) == strip([decode_client(text)[0] for text in texts])


# --- A server's frames -------------------------------------------------------------------------------

EVENT = b'{"t":"event","seq":3,"id":"i","type":"x","payload":null,"ts":1}'


def test_a_client_skips_what_it_does_not_know() -> None:
    assert decode_server(b'{"t":"later"}') == []
    assert decode_server(b'[{"t":"later","seq":"?"},' + EVENT + b',{"t":""}]') == decode_server(EVENT)
    [event] = decode_server(EVENT[:-1] + b',"later":[{}]}')
    assert event == decode_server(EVENT)[0]


@pytest.mark.parametrize(
    "data",
    [
        b'{"t":"event","seq":3}',
        b'{"t":"event","seq":"3","id":"i","type":"x","payload":null,"ts":1}',
        b'{"t":"event","seq":3,"id":"i","type":"x","payload":null,"ts":"now"}',
        b'{"t":"event","seq":3,"id":"i","type":"x","payload":"\\ud800","ts":1}',
        b'{"t":"event","seq":3,"id":"i","type":"x","payload":1e999,"ts":1}',
        b'{"t":"live","seq":-1}',
        b"{}",
        b'{"t":7}',
        b'{"t":[]}',
        b'{"t":"gap","from":1,"to":2,"reason":"evicted","lost":{"x":"2"},"critical":0}',
        b'{"t":"drain","after":[1]}',
        b'{"t":"welcome","session":"s"}',
        b'[{"t":"later"},{"t":"live"}]',
    ],
)
def test_a_known_frame_that_is_wrong_is_an_error(data: bytes) -> None:
    with pytest.raises(NotAFrame):
        decode_server(data)
