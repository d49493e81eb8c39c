"""What is written: each frame is the JSON of docs/protocol.md, and each reads back as what was meant."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_ws.core import wire

texts = st.text(st.characters(exclude_categories=["Cs"]))
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=128)
AWKWARD = 'a"b\\c/\u2028\u2029\x7f\x00\n é 漢 😀'
TAIL = wire.event_tail("i1", "token", b'{"text":"Hi"}', 1763900000.25)


def refuse_constant(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


def parse(frame: bytes) -> Any:
    """A frame as an independent parser reads it, with its keys in order; a key twice or a NaN fails."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len(dict(pairs)) == len(pairs)
        return dict(pairs)

    return json.loads(frame.decode(), object_pairs_hook=once, parse_constant=refuse_constant)


# --- Server to client --------------------------------------------------------------------------------


def test_welcome() -> None:
    frame = wire.welcome(
        session="s" * 32,
        epoch="e1",
        seq=4,
        head=9,
        resumed=True,
        heartbeat_active=2.0,
        heartbeat_idle=25.0,
        heartbeat_grace=2.0,
        ack_events=32,
        ack_delay=0.05,
    )
    assert parse(frame) == {
        "t": "welcome",
        "session": "s" * 32,
        "epoch": "e1",
        "seq": 4,
        "head": 9,
        "resumed": True,
        "heartbeat": {"active": 2, "idle": 25, "grace": 2},
        "ack": {"events": 32, "delay": 0.05},
    }
    [read] = wire.decode_server(frame)
    assert read == wire.Welcome(
        session="s" * 32,
        epoch="e1",
        seq=4,
        head=9,
        resumed=True,
        heartbeat=wire.Heartbeat(active=2, idle=25, grace=2),
        ack=wire.AckRule(events=32, delay=0.05),
    )


def test_welcome_tells_when_the_token_expires() -> None:
    times = {"heartbeat_active": 2.0, "heartbeat_idle": 25.0, "heartbeat_grace": 2.0, "ack_delay": 0.05}
    frame = wire.welcome(
        session="s", epoch="e", seq=0, head=0, resumed=False, ack_events=1, expires=1763900000.5, **times
    )
    assert parse(frame)["expires"] == 1763900000.5
    [read] = wire.decode_server(frame)
    assert isinstance(read, wire.Welcome)
    assert read.expires == 1763900000.5


def test_a_plain_event_has_its_four_keys_and_no_other() -> None:
    assert parse(wire.plain_event(TAIL)) == {
        "id": "i1",
        "type": "token",
        "payload": {"text": "Hi"},
        "ts": 1763900000.25,
    }


def test_an_event_with_nothing_special_says_nothing_special() -> None:
    assert parse(wire.event_frame(7, TAIL)) == {
        "t": "event",
        "seq": 7,
        "id": "i1",
        "type": "token",
        "payload": {"text": "Hi"},
        "ts": 1763900000.25,
    }


@pytest.mark.parametrize(
    ("options", "key", "value"),
    [
        ({"critical": True}, "critical", True),
        ({"truncated": True}, "truncated", True),
        ({"retry": 3}, "retry", 3),
        ({"merged_from": 4}, "merged", {"from": 4, "n": 3}),
    ],
)
def test_each_mark_of_an_event_is_there_only_where_it_applies(
    options: dict[str, Any], key: str, value: object
) -> None:
    plain = parse(wire.event_frame(7, TAIL))
    assert key not in plain
    assert parse(wire.event_frame(7, TAIL, **options)) == plain | {key: value}


@given(
    seq=st.integers(2, wire.MAX_SEQ),
    id=names,
    type=names,
    payload=texts,
    ts=st.floats(0, 1e11),
    critical=st.booleans(),
    truncated=st.booleans(),
    retry=st.integers(0, 9),
    merged=st.integers(0, 5),
)
def test_an_event_reads_back_as_it_was(
    seq: int,
    id: str,
    type: str,
    payload: str,
    ts: float,
    critical: bool,
    truncated: bool,
    retry: int,
    merged: int,
) -> None:
    tail = wire.event_tail(id, type, json.dumps({"text": payload}).encode(), ts)
    merged_from = seq - merged if 0 < merged < seq else 0
    frame = wire.event_frame(
        seq, tail, critical=critical, truncated=truncated, retry=retry, merged_from=merged_from
    )
    parse(frame)
    assert wire.decode_server(frame) == [
        wire.EventFrame(
            seq=seq,
            id=id,
            type=type,
            payload={"text": payload},
            ts=ts,
            critical=critical,
            truncated=truncated,
            retry=retry,
            merged=wire.MergedFrom(from_=merged_from, n=merged) if merged_from else None,
        )
    ]
    assert parse(wire.plain_event(tail)) == {"id": id, "type": type, "payload": {"text": payload}, "ts": ts}


@pytest.mark.parametrize("ts", [0, 1763900000, 1763900000.1234567, 1e-7, 1e22])
def test_a_timestamp_keeps_its_value(ts: float) -> None:
    assert parse(wire.plain_event(wire.event_tail("i", "t", b"1", ts)))["ts"] == ts


SIMPLE: list[tuple[bytes, dict[str, Any], wire.ServerFrame]] = [
    (
        wire.gap(3, 5, "evicted", {"token": 3}, 0),
        {"t": "gap", "from": 3, "to": 5, "reason": "evicted", "lost": {"token": 3}, "critical": 0},
        wire.GapFrame(first=3, last=5, reason="evicted", lost={"token": 3}, critical=0),
    ),
    (wire.live(12), {"t": "live", "seq": 12}, wire.Live(seq=12)),
    (wire.accepted(AWKWARD), {"t": "accepted", "id": AWKWARD}, wire.Accepted(id=AWKWARD)),
    (
        wire.rejected("m1", AWKWARD),
        {"t": "rejected", "id": "m1", "error": AWKWARD},
        wire.Rejected(id="m1", error=AWKWARD),
    ),
    (wire.ping(9, 4), {"t": "ping", "seq": 9, "next": 4}, wire.ServerPing(seq=9, next=4)),
    (wire.ping(0, 1e-7), {"t": "ping", "seq": 0, "next": 1e-7}, wire.ServerPing(seq=0, next=1e-7)),
    (wire.PONG, {"t": "pong"}, wire.Pong()),
    (wire.drain(0.5, 3), {"t": "drain", "after": [0.5, 3]}, wire.Drain(after=(0.5, 3))),
    (
        wire.error(4400, "no", False),
        {"t": "error", "code": 4400, "reason": "no", "fatal": False},
        wire.ErrorFrame(code=4400, reason="no", fatal=False),
    ),
    (
        wire.error(4503, AWKWARD, True, 2.5),
        {"t": "error", "code": 4503, "reason": AWKWARD, "fatal": True, "retry_after": 2.5},
        wire.ErrorFrame(code=4503, reason=AWKWARD, fatal=True, retry_after=2.5),
    ),
]


@pytest.mark.parametrize(
    ("frame", "parsed", "read"), SIMPLE, ids=[f"{p['t']}-{i}" for i, (_, p, _) in enumerate(SIMPLE)]
)
def test_server_frames(frame: bytes, parsed: dict[str, Any], read: wire.ServerFrame) -> None:
    assert parse(frame) == parsed
    assert wire.decode_server(frame) == wire.decode_server(frame.decode()) == [read]


@pytest.mark.parametrize("words", ["\ud800 half", "x" * 10_000, "😀" * 10_000, "\x1b[31m%s\r\n"])
def test_words_from_elsewhere_are_made_fit_to_send(words: str) -> None:
    for frame, key in ((wire.rejected("m1", words), "error"), (wire.error(4500, words, True), "reason")):
        told = parse(frame)[key]
        assert len(told) == min(len(words), 512)
        assert told == words[:512].replace("\ud800", "?")


# --- Batches and messages ----------------------------------------------------------------------------


def test_a_batch_of_one_is_the_frame_itself() -> None:
    assert wire.batch([wire.PONG]) is wire.PONG


@given(st.lists(st.integers(1, 99), min_size=2, max_size=20))
def test_a_batch_holds_its_frames_in_order(seqs: list[int]) -> None:
    message = wire.batch([wire.event_frame(seq, TAIL) for seq in seqs])
    assert [frame["seq"] for frame in parse(message)] == seqs
    assert [frame.seq for frame in wire.decode_server(message) if isinstance(frame, wire.EventFrame)] == seqs


def test_there_is_no_empty_batch() -> None:
    with pytest.raises(IndexError):
        wire.batch([])


@pytest.mark.parametrize(
    ("length", "header"),
    [
        (0, b"\x81\x00"),
        (1, b"\x81\x01"),
        (125, b"\x81\x7d"),
        (126, b"\x81\x7e\x00\x7e"),
        (127, b"\x81\x7e\x00\x7f"),
        (65535, b"\x81\x7e\xff\xff"),
        (65536, b"\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
        (70000, b"\x81\x7f\x00\x00\x00\x00\x00\x01\x11\x70"),
    ],
)
def test_a_message_has_the_shortest_header_that_holds_its_length(length: int, header: bytes) -> None:
    """RFC 6455 5.2: "the minimal number of bytes MUST be used to encode the length"."""
    assert wire.text_message(b"x" * length) == header + b"x" * length


# --- Client to server --------------------------------------------------------------------------------


def test_hello_leaves_out_what_is_not_known() -> None:
    assert parse(wire.hello()) == {"t": "hello"}
    assert parse(wire.hello(user="ada", from_="now")) == {"t": "hello", "user": "ada", "from": "now"}


@given(
    fields=st.fixed_dictionaries(
        {},
        optional={
            "token": texts,
            "user": texts,
            "session": texts,
            "epoch": texts,
            "seq": st.integers(0, wire.MAX_SEQ),
            "from_": st.sampled_from(["retained", "pending", "now"]),
        },
    )
)
def test_hello_reads_back_as_it_was(fields: dict[str, Any]) -> None:
    assert wire.decode_client(wire.hello(**fields)) == [wire.Hello(**fields)]


@pytest.mark.parametrize(
    ("frame", "parsed", "read"),
    [
        (wire.ack(0), {"t": "ack", "seq": 0}, wire.Ack(seq=0)),
        (wire.ack(wire.MAX_SEQ), {"t": "ack", "seq": wire.MAX_SEQ}, wire.Ack(seq=wire.MAX_SEQ)),
        (wire.nack(7), {"t": "nack", "seq": 7}, wire.Nack(seq=7)),
        (wire.auth(AWKWARD), {"t": "auth", "token": AWKWARD}, wire.Auth(token=AWKWARD)),
        (wire.PING, {"t": "ping"}, wire.Ping()),
        (wire.PONG, {"t": "pong"}, wire.Pong()),
        (wire.BYE, {"t": "bye"}, wire.Bye()),
    ],
)
def test_client_frames(frame: bytes, parsed: dict[str, Any], read: wire.ClientFrame) -> None:
    assert parse(frame) == parsed
    assert wire.decode_client(frame) == wire.decode_client(frame.decode()) == [read]


@given(id=names, type=names, payload=texts)
def test_a_message_reads_back_as_it_was(id: str, type: str, payload: str) -> None:
    frame = wire.message(id, type, json.dumps([payload]).encode())
    assert parse(frame) == {"t": "message", "id": id, "type": type, "payload": [payload]}
    [read] = wire.decode_client(frame)
    assert isinstance(read, wire.Message)
    assert (read.id, read.type, json.loads(bytes(read.payload))) == (id, type, [payload])
