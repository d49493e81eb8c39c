"""Proper WebSocket messages with improper things in them: wild values, wild orders, and what must become of each.

Each item says how many mistakes it is and with which codes it may or must end the connection, by docs/protocol.md. So
not only the server's life is watched, but each of its answers.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import attrs

from .answers import Answers, Wrong
from .pieces import BINARY, CONTINUATION, PING, PONG, TEXT, close_frame, frame, request, segments
from .step import CLOSING, END_OF_INPUT, RESET, Step, until

USERS = 64
PROTOCOL_ERROR, SUPERSEDED = 4400, 4409
MAX_MISTAKES = 10
MAX_SEQ = 2**63 - 1

_resumable: dict[str, dict[str, Any]] = {}
"""The last session of each user, for those who come later and ask for it, rightly or wrongly."""


@attrs.frozen
class Item:
    """Something to send, and what must become of it.

    Attributes:
      sent: frames of WebSocket, whole ones.
      low, high: how many mistakes it is, at least and at most.
      ends: the codes with which the connection may end by it.
      must_end: whether it has to.
      answers: how many `accepted` and `rejected` it may get.
    """

    sent: bytes
    low: int = 0
    high: int = 0
    ends: tuple[int, ...] = ()
    must_end: bool = False
    answers: int = 0


def user(rng: random.Random) -> str:
    """Who a connection comes as."""
    return f"fuzz-{rng.randrange(USERS)}"


def script(rng: random.Random, answers: Answers) -> Iterator[Step]:
    """One connection that speaks the protocol's language and talks nonsense."""
    name = str(answers.user)
    yield request()
    yield until(lambda: answers.status is not None)
    hello = _hello(rng, name)
    yield from segments(rng, hello.sent)
    items = [hello]
    if not hello.must_end:
        yield until(lambda: answers.welcome is not None)
        if answers.welcome is not None:
            _resumable[name] = {"session": answers.welcome["session"], "epoch": answers.welcome["epoch"]}
    for _ in range(rng.choice((1, 2, 3, 5, 8, 12))):
        item = _item(rng, answers)
        items.append(item)
        yield from segments(rng, item.sent)
    if rng.random() < 0.15:
        yield rng.choice((RESET, CLOSING))
        return
    yield frame(TEXT, b'{"t":"message","id":"the end","type":"the end","payload":null}')
    yield until(lambda: "the end" in answers.answered or answers.closed is not None)
    _judge(items, answers)
    if answers.welcome is not None and answers.cursor:
        _resumable[name]["seq"] = answers.cursor
    yield from _ending(rng, answers)


def _judge(items: list[Item], answers: Answers) -> None:
    """That what was answered is what the items ask for."""
    low, high = sum(item.low for item in items), sum(item.high for item in items)
    ends = {code for item in items for code in item.ends} | {SUPERSEDED}
    must_end = any(item.must_end for item in items) or low >= MAX_MISTAKES
    if high >= MAX_MISTAKES:
        ends.add(PROTOCOL_ERROR)
    mistakes, code = answers.counts["error"], answers.closed
    if code is None and answers.ended:
        raise Wrong(f"cut without a word, after {mistakes} mistakes")
    if code is not None and code not in ends:
        raise Wrong(f"closed with {code}, not one of {sorted(ends)}")
    if code is None and must_end:
        raise Wrong(f"still open, and should have ended with one of {sorted(ends)}")
    if mistakes > high or (code is None and mistakes < low):
        raise Wrong(f"{mistakes} mistakes were answered, not {low} to {high}")
    told = answers.counts["accepted"] + answers.counts["rejected"]
    if told > 1 + sum(item.answers for item in items):
        raise Wrong(f"{told} messages were answered, which are too many")


def _ending(rng: random.Random, answers: Answers) -> Iterator[Step]:
    kind = rng.random()
    if answers.closed is not None:
        if kind < 0.9:  # else it is mute, and has to be left
            yield close_frame(1000)
    elif kind < 0.4:
        yield frame(TEXT, b'{"t":"bye"}')
        yield until(lambda: answers.closed is not None)
        yield close_frame(1000)
    elif kind < 0.7:
        yield close_frame(1000)
    elif kind < 0.8:
        yield END_OF_INPUT
    elif kind < 0.9:
        yield RESET
        return
    else:
        yield CLOSING
        return
    yield until(lambda: answers.ended)
    yield CLOSING


# -- hello


def _hello(rng: random.Random, name: str) -> Item:
    """Mostly a good one; sometimes one that asks for what it can't have, or that is none."""
    kind = rng.random()
    fields: dict[str, Any] = {"t": "hello", "user": name}
    if kind < 0.3:
        return _text(json.dumps(fields))
    if kind < 0.55:
        fields |= _resumable.get(name, {})
        if rng.random() < 0.5:
            fields["seq"] = rng.choice((0, 1, 2, 50, 200, 10**6, MAX_SEQ))
        return _text(json.dumps(fields))
    if kind < 0.8:
        fields |= {
            "session": rng.choice(("", "x" * 1000, "guessed", "\0", "é😀", "../..", None)),
            "epoch": rng.choice(("", "another", None, "\u2028")),
            "seq": rng.choice((None, 0, MAX_SEQ)),
            "from": rng.choice(("now", "pending", "retained")),
            rng.choice(("unknown", "", "a" * 500)): rng.choice((None, [], {"t": "bye"}, 1e300)),
        }
        return _text(json.dumps(fields, ensure_ascii=rng.random() < 0.5))
    if kind < 0.85:
        batch = [fields, *[json.loads(_good(rng)[0]) for _ in range(rng.randint(1, 3))]]
        return _text(json.dumps(batch), high=3, answers=3, ends=(1000,))
    wild = {
        "seq": rng.choice((-1, 1.5, MAX_SEQ + 1, "1", [], True)),
        "session": rng.choice((1, [], {})),
        "from": rng.choice(("later", "", 1)),
        "t": rng.choice(("hullo", "", None, 1, "ack", "event", "Hello")),
        "user": rng.choice((1, [], {"a": 1})),
    }
    key = rng.choice(list(wild))
    return _text(json.dumps(fields | {key: wild[key]}), ends=(PROTOCOL_ERROR,), must_end=True)


# -- what comes after it


def _item(rng: random.Random, answers: Answers) -> Item:
    return rng.choices(
        (_good_item, _mistake, _batch, _no_frame, _odd, _acks, _control), (4, 4, 2, 0.4, 3, 4, 1)
    )[0](rng, answers)


def _text(text: str, *, low: int = 0, high: int = 0, **more: Any) -> Item:
    return Item(frame(TEXT, text.encode("utf-8", "surrogatepass")), low, max(low, high), **more)


def _good(rng: random.Random) -> tuple[str, int]:
    """A frame that is in order, and how many answers to a message it may get."""
    kind = rng.randrange(4)
    if kind == 0:
        return '{"t":"pong"}', 0
    if kind == 1:
        return '{"t":"ack","seq":0}', 0
    if kind == 2:
        return json.dumps({"t": "pong", "deep": _value(rng, 3), "": None}), 0
    message = {"t": "message", "id": _name(rng), "type": _name(rng), "payload": _value(rng, 4)}
    return json.dumps(message, ensure_ascii=rng.random() < 0.5), 1


def _good_item(rng: random.Random, _: Answers) -> Item:
    text, answers = _good(rng)
    space = rng.choice(("", " ", "\n", "\t\r\n "))
    data = (space + text + space).encode()
    if rng.random() < 0.2 and len(data) > 3:  # in fragments, with a ping in the middle
        a, b = sorted(rng.sample(range(len(data)), 2))
        sent = frame(TEXT, data[:a], fin=False) + frame(CONTINUATION, data[a:b], fin=False)
        sent += frame(PING, b"in between") + frame(CONTINUATION, data[b:])
        return Item(sent, answers=answers)
    return Item(frame(TEXT, data, key=rng.randbytes(4)), answers=answers)


def _name(rng: random.Random) -> str:
    return rng.choice(
        ("a", "\0", "é😀" * 20, "x" * 128, "\x1b[31m", "%s%n", "../../etc", "\u2028", str(rng.random()))
    )


def _value(rng: random.Random, depth: int) -> Any:
    """Any JSON, within reason."""
    kind = rng.randrange(10 if depth else 7)
    if kind >= 8:
        return {_name(rng): _value(rng, depth - 1) for _ in range(rng.randint(0, 4))}
    if kind >= 7:
        return [_value(rng, depth - 1) for _ in range(rng.randint(0, 6))]
    return (None, True, rng.choice((0, -1, 2**53, 2**63 - 1, -(2**63))), 1e300, 5e-324, -0.0, 'é\0"\\/😀')[
        kind
    ]


MISTAKES = (
    "{}",
    '{"t":null}',
    '{"t":1}',
    '{"t":["ack"]}',
    '{"t":"Ack","seq":1}',
    '{"t":"event","seq":1}',
    '{"t":"welcome"}',
    '{"T":"ping"}',
    '{"t":"ping","t":"ping"}',
    '{"t":"ack","seq":0,"seq":0}',
    '{"t":"ack","seq":0,"\\u0073eq":0}',
    '{"t":"ack"}',
    '{"t":"ack","seq":-1}',
    '{"t":"ack","seq":1.5}',
    '{"t":"ack","seq":"1"}',
    '{"t":"ack","seq":null}',
    '{"t":"ack","seq":true}',
    '{"t":"ack","seq":[1]}',
    '{"t":"ack","seq":9223372036854775807}',
    '{"t":"ack","seq":9223372036854775808}',
    '{"t":"ack","seq":-9223372036854775809}',
    '{"t":"ack","seq":1e999}',
    '{"t":"ack","seq":' + "9" * 10_000 + "}",
    '{"t":"nack"}',
    '{"t":"nack","seq":9223372036854775807}',
    '{"t":"nack","seq":-1}',
    '{"t":"nack","seq":0.5}',
    '{"t":"message"}',
    '{"t":"message","id":"","type":"a","payload":1}',
    '{"t":"message","id":"a","type":"","payload":1}',
    '{"t":"message","id":1,"type":"a","payload":1}',
    '{"t":"message","id":"a","type":"a"}',
    '{"t":"message","id":"' + "i" * 129 + '","type":"a","payload":1}',
    '{"t":"message","id":"a\\ud800","type":"a","payload":1}',
    '{"t":"message","id":"a","type":"a","payload":"\\udfff"}',
    '{"t":"auth"}',
    '{"t":"auth","token":null}',
    '{"t":"hello","user":"fuzz-0"}',
    '{"t":"hello"}',
)
"""Each is one mistake, and nothing else."""

NO_FRAMES = (
    "",
    " ",
    "x",
    "null",
    "5",
    '"ping"',
    "[]",
    "[[]]",
    '[{"t":"pong"},1]',
    '[{"t":"pong"},null]',
    '[[{"t":"pong"}]]',
    '{"t":"pong"',
    '{"t":"pong"}x',
    '{"t":"pong"}{"t":"pong"}',
    '{"t":"pong",}',
    "{'t':'pong'}",
    '{"t":"ack","seq":NaN}',
    '{"t":"ack","seq":-Infinity}',
    '{"t":"ack","seq":01}',
    '{"t":"ack","seq":0x1}',
    '{"t":"pong","x":"\x01"}',
    '{"t":"pong","x":"\\x"}',
    '{"t":"pong","x":"\\ud8"}',
    "[" * 60_000,
    '{"t":' * 10_000,
    '{"t":"pong","x":' + "[" * 30_000 + "]" * 30_000 + "}",
    "\ufeff" + '{"t":"pong"}',
)
"""Each is no frame at all, and the end."""

_BREACHES = (
    (frame(BINARY, b'{"t":"ping"}'), PROTOCOL_ERROR),
    (frame(BINARY), PROTOCOL_ERROR),
    (frame(TEXT, b'{"t":"pong","x":"\xff"}'), 1007),
    (frame(TEXT, b'{"t":"pong","x":"\xed\xa0\x80"}'), 1007),
    (frame(TEXT, b'{"t":"pong","x":"' + b"x" * 65_536 + b'"}'), 1009),
    (frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) * 257, 1009),
    (bytes([0x81, 0xFF]) + (1 << 62).to_bytes(8) + b"mask" + bytes(50), 1009),
    (frame(TEXT, b'{"t":"ping"}', masked=False), 1002),
    (frame(TEXT, b'{"t":"ping"}', rsv=0x20), 1002),
    (frame(CONTINUATION, b'{"t":"ping"}'), 1002),
    (frame(7), 1002),
    (frame(PING, b"x" * 126), 1002),
)


def _mistake(rng: random.Random, _: Answers) -> Item:
    return _text(rng.choice(MISTAKES), low=1)


def _no_frame(rng: random.Random, _: Answers) -> Item:
    if rng.random() < 0.6:
        return _text(rng.choice(NO_FRAMES), ends=(PROTOCOL_ERROR,), must_end=True)
    sent, code = rng.choice(_BREACHES)
    return Item(sent, ends=(code,), must_end=True)


def _batch(rng: random.Random, answers: Answers) -> Item:
    texts, low, told = [], 0, 0
    for _ in range(rng.choice((1, 2, 5, 30))):
        if rng.random() < 0.15:
            texts.append(rng.choice(MISTAKES))
            low += 1
        else:
            text, answered = _good(rng)
            texts.append(text)
            told += answered
    text = "[" + ",".join(texts) + "]"
    if len(text.encode()) > 60_000:
        return _good_item(rng, answers)
    return _text(text, low=low, answers=told)


ODD = (
    '{"t":"ack","seq":0.0}',
    '{"t":"ack","seq":0e5}',
    '{"t":"ack","seq":-0}',
    '{"t":"pong","x":"\\ud800"}',
    '{"t":"pong","x":{"a":1,"a":2}}',
    '{"t":"message","id":"a","type":"a","payload":{"a":1,"a":2}}',
    '{"t":"message","id":"a","type":"a","payload":1e999}',
    '{"t":"message","id":"a","type":"a","payload":' + "1" * 5000 + "}",
    '{"t":"message","id":"a","type":"a","payload":' + "[" * 500 + "]" * 500 + "}",
    '{"t":"message","id":"a","type":"a","payload":' + "[" * 1500 + "]" * 1500 + "}",
    '{"t":"pong","x":' + "[" * 700 + "]" * 700 + "}",
    '{"t":"\\u0070ing"}',
    '{"\\u0074":"pong"}',
    '{"t":"nack","seq":1}',
    '{"t":"nack","seq":0}',
    '{"t":"auth","token":""}',
    '{"t":"auth","token":"' + "x" * 20_000 + '"}',
)
"""Where the protocol leaves open whether it is a mistake; what it must not be is the end of anything but itself."""


def _odd(rng: random.Random, _: Answers) -> Item:
    text = rng.choice(ODD)
    ends = (4401, 4403) if "auth" in text else (PROTOCOL_ERROR,)
    return _text(text, high=1, answers=1, ends=ends)


def _acks(rng: random.Random, answers: Answers) -> Item:
    """Acks of what has come, of what may not have come yet, and of what will never come."""
    seq = rng.choice(
        (answers.cursor, answers.cursor, rng.randint(0, answers.cursor), answers.cursor + rng.randint(1, 300))
    )
    kind = rng.choice(("ack", "ack", "ack", "nack"))
    certain = kind == "ack" and seq <= answers.cursor
    return _text(f'{{"t":"{kind}","seq":{seq}}}', high=0 if certain else 1)


def _control(rng: random.Random, _: Answers) -> Item:
    kinds: tuple[Callable[[], bytes], ...] = (
        lambda: frame(PING, rng.randbytes(rng.choice((0, 1, 125)))),
        lambda: frame(PONG, rng.randbytes(rng.choice((0, 1, 125)))),
        lambda: frame(PING) * 20,
    )
    return Item(rng.choice(kinds)())
